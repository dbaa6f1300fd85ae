//! What would be done if something were asked for: thought over with a copy of the planner, by whichever server is asked.
//!
//! Guarantees: nothing is written. What is wrong with a request is said as the request itself would be told. What is to
//! be done anyway is no part of the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use sealift_client::api::{PlanNowhere, PlanRequest, PlanStep, PlanView, StepKind};
use sealift_model::{DesiredState, MachineId, Timestamp, Unit, UnitName};
use sealift_planner::{Action, Change, Planner, Verdict};

use super::{Error, machines, rebalance, units};
use crate::cache::World;
use crate::controller::as_of;
use crate::copies::Copy;
use crate::server::Inner;

/// Actions that are thought of at most.
const MOST_ACTIONS: usize = 10_000;
/// Units of which it is said why they would be nowhere, or why a global one would stop; each looks at every machine.
const EXPLAINED: usize = 50;

pub(super) async fn plan(
    State(inner): State<Arc<Inner>>,
    Json(wanted): Json<PlanRequest>,
) -> Result<Json<PlanView>, Error> {
    let now = (inner.clock)();
    // What cannot be asked for is refused before anybody has to wait for it.
    let supposed = Supposed::of(&inner.cache.world(), &wanted, now)?;
    let Copy { planner, turn } = inner.copies.get().await?;
    let work = move || {
        let view = think(planner, supposed, now);
        // Also where nobody waits for the answer any more.
        drop(turn);
        view
    };
    Ok(Json(tokio::task::spawn_blocking(work).await.map_err(Error::Cut)?))
}

/// What is taken for granted in thought.
#[derive(Debug, Default)]
struct Supposed {
    changes: Vec<Change>,
    /// Units that are asked to be on machines.
    asked: Vec<Unit>,
    moves: usize,
    kept: Vec<UnitName>,
}

impl Supposed {
    fn of(world: &World, wanted: &PlanRequest, now: Timestamp) -> Result<Supposed, Error> {
        let mut supposed = Supposed::default();
        match wanted {
            PlanRequest::Units(wanted) => {
                for (unit, change) in units::wanted_units(world, wanted)? {
                    if change.differs {
                        supposed.kept.push(unit.name.clone());
                    }
                    if unit.desired != DesiredState::Inactive {
                        supposed.asked.push(unit.clone());
                    }
                    supposed.changes.push(Change::Unit(unit.name.clone(), Some(Arc::new(unit))));
                }
            }
            PlanRequest::Destroy(wanted) => {
                units::check_destroyed(world, &wanted.names)?;
                let gone = wanted.names.iter().map(|name| Change::Unit(name.clone(), None));
                supposed.changes.extend(gone);
            }
            PlanRequest::Settings { machine, settings } => {
                let settings = machines::changed_settings(world, machine, settings, now)?;
                supposed.changes.push(Change::Settings(machine.clone(), Some(as_of(&settings, now))));
            }
            PlanRequest::Lose { machine } => {
                if !world.machines.contains_key(machine) {
                    return Err(Error::NotFound(format!("there is no machine {machine}")));
                }
                supposed.changes.push(Change::Presence(machine.clone(), None));
            }
            PlanRequest::Rebalance(wanted) => supposed.moves = rebalance::checked(wanted)?,
        }
        Ok(supposed)
    }
}

/// What stands where, and as what.
struct Standing {
    placed: BTreeMap<UnitName, MachineId>,
    globals: BTreeSet<(MachineId, UnitName)>,
}

impl Standing {
    fn of(planner: &Planner) -> Standing {
        Standing { placed: planner.standing(), globals: planner.standing_globals() }
    }
}

fn think(mut planner: Planner, supposed: Supposed, now: Timestamp) -> PlanView {
    // What is to be done anyway.
    planner.play_out(Vec::new(), MOST_ACTIONS, now);
    let before = Standing::of(&planner);
    let changed = supposed.changes.iter().filter_map(|change| match change {
        Change::Unit(name, _) => Some(name.clone()),
        _ => None,
    });
    let mut changed: BTreeMap<UnitName, Option<Unit>> =
        changed.map(|name| (name.clone(), planner.unit(&name).cloned())).collect();
    // Instances change with their template.
    for name in before.placed.keys() {
        let unit = planner
            .unit(name)
            .filter(|unit| unit.template.as_ref().is_some_and(|template| changed.contains_key(template)));
        if let Some(unit) = unit {
            changed.insert(name.clone(), Some(unit.clone()));
        }
    }
    for change in supposed.changes {
        planner.feed(change);
    }
    let begun = if supposed.moves > 0 { planner.rebalance(supposed.moves, now) } else { Vec::new() };
    let actions = planner.play_out(begun, MOST_ACTIONS, now);
    let after = Standing::of(&planner);
    let mut steps = steps(&actions);
    steps.extend(global_steps(&planner, &before, &after));
    steps.extend(changes_in_place(&planner, &changed, &before, &after));
    PlanView {
        steps,
        nowhere: nowhere(&planner, &supposed.asked, &before, &after),
        kept: supposed.kept,
        cut: actions.len() >= MOST_ACTIONS,
    }
}

/// The planner's actions; a unit that leaves and comes again moves.
fn steps(actions: &[Action]) -> Vec<PlanStep> {
    let mut steps: Vec<PlanStep> = Vec::new();
    // Steps of units that have left and not come again.
    let mut left: BTreeMap<&UnitName, usize> = BTreeMap::new();
    for action in actions {
        match action {
            Action::Place { unit, machine } => {
                if let Some(step) = left.remove(unit).and_then(|at| steps.get_mut(at)) {
                    step.step = StepKind::Move;
                    step.to = Some(machine.clone());
                } else {
                    let step = step(StepKind::Place, unit, None);
                    steps.push(PlanStep { to: Some(machine.clone()), ..step });
                }
            }
            Action::Unplace { unit, machine, reason, with } => {
                for one in std::iter::once(unit).chain(with) {
                    left.insert(one, steps.len());
                    let step = step(StepKind::Leave, one, Some(reason.to_string()));
                    steps.push(PlanStep { from: Some(machine.clone()), ..step });
                }
            }
            Action::Lose { run, reason, .. } | Action::GiveUp { run, reason } => steps.push(PlanStep {
                step: StepKind::Requeue,
                unit: None,
                run: Some(run.clone()),
                from: None,
                to: None,
                reason: Some(reason.clone()),
            }),
            // Of these it counts where they come to, and which runs go first is no matter of this.
            Action::PutUnit { .. }
            | Action::Update { .. }
            | Action::RemoveUnit { .. }
            | Action::Dispatch { .. } => {}
        }
    }
    steps
}

fn step(kind: StepKind, unit: &UnitName, reason: Option<String>) -> PlanStep {
    PlanStep { step: kind, unit: Some(unit.clone()), run: None, from: None, to: None, reason }
}

/// Where global units come and go.
fn global_steps(planner: &Planner, before: &Standing, after: &Standing) -> Vec<PlanStep> {
    let mut steps = Vec::new();
    let mut whys: BTreeMap<&UnitName, BTreeMap<MachineId, Verdict>> = BTreeMap::new();
    for (machine, unit) in before.globals.difference(&after.globals) {
        if whys.len() < EXPLAINED && !whys.contains_key(unit) {
            whys.insert(unit, planner.explain(unit).into_iter().collect());
        }
        let why = match whys.get(unit).and_then(|machines| machines.get(machine)) {
            Some(Verdict::No(reason)) => Some(reason.to_string()),
            Some(_) => Some("the machine is away".to_owned()),
            None => None,
        };
        steps.push(PlanStep { from: Some(machine.clone()), ..step(StepKind::Stop, unit, why) });
    }
    for (machine, unit) in after.globals.difference(&before.globals) {
        steps.push(PlanStep { to: Some(machine.clone()), ..step(StepKind::Start, unit, None) });
    }
    steps
}

/// Units that stay where they are and are something else there.
fn changes_in_place(
    planner: &Planner,
    changed: &BTreeMap<UnitName, Option<Unit>>,
    before: &Standing,
    after: &Standing,
) -> Vec<PlanStep> {
    let mut steps = Vec::new();
    for (name, was) in changed {
        let Some(was) = was else { continue };
        // An instance becomes what its template is, when its turn has come.
        let is = planner.unit(was.template.as_ref().unwrap_or(name));
        let Some(what) = is.and_then(|is| difference(was, is)) else { continue };
        let change = |machine: &MachineId| PlanStep {
            to: Some(machine.clone()),
            ..step(StepKind::Change, name, Some(what.to_owned()))
        };
        let stays = after.placed.get(name).filter(|machine| before.placed.get(name) == Some(*machine));
        steps.extend(stays.map(change));
        let both = after.globals.iter().filter(|both| both.1 == *name && before.globals.contains(*both));
        steps.extend(both.map(|(machine, _)| change(machine)));
    }
    steps
}

/// What is other for the machine that has the unit.
fn difference(was: &Unit, is: &Unit) -> Option<&'static str> {
    match (was.desired, is.desired) {
        (DesiredState::Launched, DesiredState::Loaded) => Some("it is stopped"),
        (DesiredState::Loaded, DesiredState::Launched) => Some("it is started"),
        _ if was.text != is.text || was.drop_ins != is.drop_ins => Some("its text is another"),
        _ if was.restarts != is.restarts => Some("it is started anew"),
        _ => None,
    }
}

/// Units that would be on no machine that is there, of those that have one or are asked for.
fn nowhere(planner: &Planner, asked: &[Unit], before: &Standing, after: &Standing) -> Vec<PlanNowhere> {
    let globals = |standing: &Standing| -> BTreeSet<UnitName> {
        standing.globals.iter().map(|(_, unit)| unit.clone()).collect()
    };
    let (globals_before, globals_after) = (globals(before), globals(after));
    let is_wanted = |name: &UnitName| {
        let unit = planner.unit(name);
        unit.is_some_and(|unit| unit.desired != DesiredState::Inactive && !name.is_template())
    };
    let mut names: BTreeSet<UnitName> =
        before.placed.keys().filter(|name| is_wanted(name)).cloned().collect();
    names.extend(globals_before.into_iter().filter(is_wanted));
    for unit in asked {
        match unit.requirements.replicas.filter(|_| unit.name.is_template()) {
            Some(count) => {
                names.extend((1..=count).filter_map(|number| unit.name.with_instance(&number.to_string())));
            }
            None => drop(names.insert(unit.name.clone())),
        }
    }
    names.retain(|name| !after.placed.contains_key(name) && !globals_after.contains(name));
    let problems: BTreeMap<UnitName, String> =
        planner.problems().iter().map(|problem| (problem.unit().clone(), problem.to_string())).collect();
    let told = names.into_iter().enumerate().map(|(number, unit)| {
        let why = || match (problems.get(&unit), planner.placement(&unit)) {
            (Some(problem), _) => problem.clone(),
            (None, Some(placed)) => {
                format!("it waits for machine {}: no other suits it that takes units", placed.machine.short())
            }
            (None, None) => planner.why_nowhere(&unit),
        };
        let reason = (number < EXPLAINED).then(why);
        PlanNowhere { from: before.placed.get(&unit).cloned(), reason, unit }
    });
    told.collect()
}
