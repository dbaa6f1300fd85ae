//! fleet's unit states: systemd's words on each unit, by machine.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use sealift_model::{UnitName, UnitStatus};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Error;
use super::page;
use super::units::{hash, heard};
use crate::cache::World;
use crate::server::Inner;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Filter {
    #[serde(rename = "machineID")]
    machine_id: Option<String>,
    unit_name: Option<String>,
    next_page_token: Option<String>,
}

fn entity(world: &World, machine: &str, status: &UnitStatus) -> Value {
    let mut entity = json!({
        "name": status.unit,
        "machineID": machine,
        "systemdLoadState": status.load,
        "systemdActiveState": status.active,
        "systemdSubState": status.sub,
    });
    // Of a unit that was destroyed, what is left on the machine has no text any more.
    if let (Some(object), Some(unit)) = (entity.as_object_mut(), world.units.get(&status.unit)) {
        object.insert("hash".into(), hash(&unit.value.text).into());
    }
    entity
}

pub(in crate::api) async fn list(
    State(inner): State<Arc<Inner>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Value>, Error> {
    let world = inner.cache.world();
    let wanted = |given: &Option<String>, is: &str| {
        given.as_deref().is_none_or(|given| given.is_empty() || given == is)
    };
    let machines = world.statuses.iter().filter(|(machine, _)| {
        world.presence.contains_key(*machine) && wanted(&filter.machine_id, machine.as_str())
    });
    let mut all: Vec<_> = machines
        .flat_map(|(machine, units)| units.values().map(move |status| (machine.as_str(), &status.value)))
        .filter(|(_, status)| status.load != "unheard" && wanted(&filter.unit_name, status.unit.as_str()))
        .collect();
    all.sort_by(|(a, one), (b, other)| (&one.unit, a).cmp(&(&other.unit, b)));
    let entities = all.into_iter().map(|(machine, status)| entity(&world, machine, status));
    page::of("states", entities, filter.next_page_token.as_deref()).map(Json)
}

/// fleet hung up without an answer where there was none.
pub(in crate::api) async fn show(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Error> {
    let missing = || Error::NotFound("unit state does not exist".into());
    let name: UnitName = name.parse().map_err(|_| missing())?;
    let world = inner.cache.world();
    let (machine, status) = heard(&world, &name).next().ok_or_else(missing)?;
    Ok(Json(entity(&world, machine, status)))
}
