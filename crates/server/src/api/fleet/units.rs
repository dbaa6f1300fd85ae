//! fleet's units: a unit file as a list of options, what is wanted of it and what it is.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use sealift_client::api::{Change, DestroyUnits, PutUnit, PutUnits};
use sealift_model::{ActiveState, DesiredState, Unit, UnitName, UnitStatus};
use sealift_unitfile::{UnitOption, options_of, text_of};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::super::Error;
use super::super::units as ours;
use super::{decode, done, page};
use crate::cache::World;
use crate::keys::Key;
use crate::server::Inner;

/// One line of a unit file.
#[derive(Debug, Serialize, Deserialize)]
struct OptionEntity {
    #[serde(default)]
    section: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: String,
}

impl From<OptionEntity> for UnitOption {
    fn from(OptionEntity { section, name, value }: OptionEntity) -> Self {
        Self { section, name, value }
    }
}

impl From<UnitOption> for OptionEntity {
    fn from(UnitOption { section, name, value }: UnitOption) -> Self {
        Self { section, name, value }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Paging {
    pub(super) next_page_token: Option<String>,
}

/// SHA-1 of the text, in which fleet's clients know a unit again.
pub(super) fn hash(text: &str) -> String {
    Sha1::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a machine that is there has said itself of a unit.
pub(super) fn heard<'w>(
    world: &'w World,
    unit: &UnitName,
) -> impl Iterator<Item = (&'w str, &'w UnitStatus)> {
    let present = world.statuses_of(unit).filter(|(machine, _)| world.presence.contains_key(*machine));
    let heard = present.filter(|(_, status)| status.load != "unheard");
    heard.map(|(machine, status)| (machine.as_str(), status)).collect::<Vec<_>>().into_iter()
}

/// Where a unit has come to, of what fleet knew: on no machine, known to one, started there.
fn current(world: &World, unit: &Unit) -> DesiredState {
    let Some(placement) = world.placements.get(&unit.name) else { return DesiredState::Inactive };
    let machine = placement.value.machine.as_str();
    let Some((_, status)) = heard(world, &unit.name).find(|(on, _)| *on == machine) else {
        return DesiredState::Inactive;
    };
    let carried_out = status.placement == placement.value.id && status.generation >= unit.generation;
    let runs = !matches!(status.active, ActiveState::Inactive | ActiveState::Failed);
    let launched = if carried_out { unit.desired == DesiredState::Launched } else { runs };
    if launched { DesiredState::Launched } else { DesiredState::Loaded }
}

fn entity(world: &World, unit: &Unit) -> Value {
    let options: Vec<OptionEntity> = options_of(&unit.text).into_iter().map(OptionEntity::from).collect();
    let mut entity = json!({ "name": unit.name, "options": options, "desiredState": unit.desired });
    if let (Some(object), false) = (entity.as_object_mut(), unit.requirements.global) {
        object.insert("currentState".into(), json!(current(world, unit)));
        if let Some(placement) = world.placements.get(&unit.name) {
            object.insert("machineID".into(), json!(placement.value.machine));
        }
    }
    entity
}

/// A unit whose record is not understood: its name is all that is known of it.
fn unread(name: &UnitName) -> Value {
    json!({ "name": name, "desiredState": DesiredState::Inactive, "currentState": DesiredState::Inactive })
}

pub(in crate::api) async fn list(
    State(inner): State<Arc<Inner>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Value>, Error> {
    let world = inner.cache.world();
    let not_understood = world.unreadable().filter_map(|key| match Key::parse(key) {
        Some(Key::Unit(name)) => Some((name, None)),
        _ => None,
    });
    let units = world.units.iter().map(|(name, unit)| (name.clone(), Some(&unit.value)));
    let mut all: Vec<_> = units.chain(not_understood).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let entities =
        all.iter().map(|(name, unit)| unit.map_or_else(|| unread(name), |unit| entity(&world, unit)));
    page::of("units", entities, paging.next_page_token.as_deref()).map(Json)
}

fn missing() -> Error {
    Error::NotFound("unit does not exist".into())
}

pub(in crate::api) async fn show(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Error> {
    // What can be no unit's name is none's.
    let name: UnitName = name.parse().map_err(|_| missing())?;
    let world = inner.cache.world();
    match world.units.get(&name) {
        Some(unit) => Ok(Json(entity(&world, &unit.value))),
        None if world.unread(&Key::Unit(name.clone())).is_some() => Ok(Json(unread(&name))),
        None => Err(missing()),
    }
}

/// The body of a PUT. What it says of the unit's current state is passed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    name: Option<String>,
    desired_state: Option<String>,
    options: Option<Vec<OptionEntity>>,
}

/// The text of these options, if it says nothing else than they do.
fn text(options: Vec<OptionEntity>) -> Result<String, Error> {
    let given: Vec<UnitOption> = options.into_iter().map(UnitOption::from).collect();
    let text = text_of(&given);
    let trimmed =
        |option: &UnitOption| (option.section.clone(), option.name.clone(), option.value.trim().to_owned());
    let mut wanted: Vec<_> = given.iter().map(trimmed).collect();
    let mut read: Vec<_> = options_of(&text).iter().map(trimmed).collect();
    // The text has all options of a section together.
    wanted.sort();
    read.sort();
    if wanted == read {
        return Ok(text);
    }
    let bad = wanted.iter().find(|option| !read.contains(option)).or(wanted.first());
    let (section, name, value) = bad.cloned().unwrap_or_default();
    Err(Error::invalid(format!(
        "option {name:?}={value:?} of section {section:?} cannot be part of a unit file"
    )))
}

fn state(given: Option<&str>) -> Result<Option<DesiredState>, Error> {
    Ok(Some(match given {
        None | Some("") => return Ok(None),
        Some("inactive") => DesiredState::Inactive,
        Some("loaded") => DesiredState::Loaded,
        Some("launched") => DesiredState::Launched,
        Some(other) => {
            return Err(Error::invalid(format!(
                "unknown desiredState {other:?}: it is inactive, loaded or launched"
            )));
        }
    }))
}

pub(in crate::api) async fn put(
    State(inner): State<Arc<Inner>>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    set(inner, &path, decode(&headers, &body)?).await.map(done)
}

async fn set(inner: Arc<Inner>, path: &str, wanted: Wanted) -> Result<StatusCode, Error> {
    if let Some(name) = wanted.name.filter(|name| !name.is_empty() && name != path) {
        return Err(Error::invalid(format!(
            "name in URL {path:?} differs from unit name in request body {name:?}"
        )));
    }
    let name: UnitName = path.parse().map_err(|error| Error::invalid(format!("{path:?}: {error}")))?;
    let desired = state(wanted.desired_state.as_deref())?;
    let given = match wanted.options {
        Some(options) if !options.is_empty() => Some(text(options)?),
        _ => None,
    };
    let unit = {
        let world = inner.cache.world();
        match world.units.get(&name).map(|unit| &unit.value) {
            None => {
                let Some(text) = given else {
                    return Err(Error::Conflict("unit does not exist and options field empty".into()));
                };
                PutUnit { text: Some(text), desired, ..PutUnit::named(name.clone()) }
            }
            Some(_) if desired.is_none() => {
                return Err(Error::Conflict("must provide DesiredState to update existing unit".into()));
            }
            Some(held) => {
                // A text with comments says the same as its options.
                let text = given.filter(|given| *given != text_of(&options_of(&held.text)));
                // fleet knew no drop-ins, so nobody who speaks to us like this wants them gone.
                PutUnit { text, desired, drop_ins: held.drop_ins.clone(), ..PutUnit::named(name.clone()) }
            }
        }
    };
    let replaces = unit.text.is_some();
    let changes = ours::put(State(inner), Json(PutUnits { units: vec![unit], replace: true })).await?;
    let created = changes.0.items.first().is_some_and(|change| change.change == Change::Created);
    Ok(if created || replaces { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
}

pub(in crate::api) async fn destroy(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<String>,
) -> Result<Response, Error> {
    let name: UnitName = name.parse().map_err(|_| missing())?;
    let destroyed = ours::destroy(State(inner), Json(DestroyUnits { names: vec![name] })).await?;
    if destroyed.0.items.is_empty() { Err(missing()) } else { Ok(done(StatusCode::NO_CONTENT)) }
}
