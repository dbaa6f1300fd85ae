//! Changes of units on their way to their machines: how far each is, and what people may say about it. How it goes on is
//! the planner's to decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use sealift_client::api::{List, RolloutState, RolloutView, SteerRollout};
use sealift_model::{Gate, Unit, UnitName, UnitStatus, UpdateStage};
use sealift_store::{MAX_OPS, MAX_TXN, Txn};

use super::{Error, json, unchanged};
use crate::cache::World;
use crate::keys::Key;
use crate::server::Inner;

pub(super) async fn list(State(inner): State<Arc<Inner>>) -> Json<List<RolloutView>> {
    let world = inner.cache.world();
    let mut by_set: BTreeMap<UnitName, Vec<&Unit>> = BTreeMap::new();
    for unit in changing(&world) {
        by_set.entry(set_of(unit)).or_default().push(unit);
    }
    let items = by_set.into_iter().filter_map(|(set, units)| view(&world, set, &units));
    Json(List { items: items.collect() })
}

fn changing(world: &World) -> impl Iterator<Item = &Unit> {
    world.units.values().map(|held| &held.value).filter(|unit| unit.update.is_some())
}

/// Units that change together have one name: their template's.
fn set_of(unit: &Unit) -> UnitName {
    let template = unit.name.template().filter(|_| !unit.requirements.global);
    template.unwrap_or_else(|| unit.name.clone())
}

fn view(world: &World, name: UnitName, units: &[&Unit]) -> Option<RolloutView> {
    let mut view = RolloutView {
        name,
        state: RolloutState::Rolling,
        updated: Vec::new(),
        waiting: Vec::new(),
        why: None,
        policy: units.first()?.policy()?.clone(),
    };
    for unit in units {
        let update = unit.update.as_deref()?;
        if let UpdateStage::Back { why } = &update.stage {
            (view.state, view.why) = (RolloutState::Back, Some(why.clone()));
        }
        let spoken = |status: &UnitStatus| {
            let gate = status.gate.clone().filter(|_| status.generation == unit.generation);
            gate.map(|gate| (gate, unit.name.clone()))
        };
        if unit.requirements.global {
            for machine in world.targets(unit) {
                let is_updated = world.given(unit, &machine).generation == unit.generation;
                let why = world.status(&machine, &unit.name).and_then(|held| spoken(&held.value));
                let list = if is_updated { &mut view.updated } else { &mut view.waiting };
                list.push(machine.to_string());
                heard(&mut view, why);
            }
            continue;
        }
        let status = world.placements.get(&unit.name).and_then(|held| {
            let status = world.status(&held.value.machine, &unit.name)?;
            Some(&status.value)
        });
        let why = status.and_then(spoken);
        let list = if unit.given().is_none() { &mut view.updated } else { &mut view.waiting };
        list.push(unit.name.to_string());
        heard(&mut view, why);
    }
    Some(view)
}

/// What a machine says of one that was given the change. A failure that takes nothing back stops the rollout.
fn heard(view: &mut RolloutView, said: Option<(Gate, UnitName)>) {
    match said {
        Some((Gate::Failed { why }, unit)) if view.state == RolloutState::Rolling => {
            (view.state, view.why) = (RolloutState::Failed, Some(format!("{unit}: {why}")));
        }
        Some((Gate::Waiting { why: Some(why) }, unit)) if view.why.is_none() => {
            view.why = Some(format!("{unit}: {why}"));
        }
        _ => {}
    }
}

/// Takes a change back, or begins again with one that was.
pub(super) async fn steer(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<UnitName>,
    Json(wanted): Json<SteerRollout>,
) -> Result<Json<List<UnitName>>, Error> {
    loop {
        let (txn, changed) = {
            let world = inner.cache.world();
            let units: Vec<&Unit> =
                changing(&world).filter(|unit| set_of(unit) == name || unit.name == name).collect();
            if units.is_empty() {
                return Err(Error::NotFound(format!("no change of {name} is rolling out or was taken back")));
            }
            let mut txn = Txn::new();
            let mut changed = Vec::new();
            for (unit, stage) in steered(&units, &wanted) {
                let mut next = unit.clone();
                if let Some(update) = &mut next.update {
                    update.stage = stage;
                }
                let key = Key::Unit(unit.name.clone());
                txn = unchanged(txn, &world, &key).put(key, json(&next)?);
                changed.push(unit.name.clone());
            }
            // Half a set would be taken back again with the other half.
            if txn.ops().len() > MAX_OPS || txn.size() > MAX_TXN {
                return Err(Error::Invalid {
                    message: format!("{name} is too large a set to begin again as it is"),
                    help: Some("submit it anew with a change".into()),
                });
            }
            (txn, changed)
        };
        if changed.is_empty() {
            return Ok(Json(List { items: changed }));
        }
        match inner.commit(txn).await {
            Ok(_) => return Ok(Json(List { items: changed })),
            Err(error) if error.wants_another_look() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn steered<'u>(units: &[&'u Unit], wanted: &SteerRollout) -> Vec<(&'u Unit, UpdateStage)> {
    let stage = |unit: &Unit| unit.update.as_ref().map(|update| update.stage.clone());
    let is_back = |unit: &Unit| matches!(stage(unit), Some(UpdateStage::Back { .. }));
    match wanted {
        // One is enough: the planner takes the others after it, no more at once than may be out.
        SteerRollout::Back => {
            let not_back = || units.iter().filter(|unit| !is_back(unit));
            let waiting = not_back().find(|unit| stage(unit) == Some(UpdateStage::Waiting));
            let one = waiting.or_else(|| not_back().next());
            one.map(|unit| (*unit, UpdateStage::Back { why: "somebody took it back".into() }))
                .into_iter()
                .collect()
        }
        // What went back has what it had before; nothing restarts until its turn.
        SteerRollout::Again => {
            let back = units.iter().filter(|unit| is_back(unit));
            back.map(|unit| (*unit, UpdateStage::Waiting)).collect()
        }
    }
}
