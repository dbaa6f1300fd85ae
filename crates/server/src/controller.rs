//! Carries out what the planner decides: looks at the cache, plans, writes the plan's actions in one transaction that
//! compares all they rest on, and looks again. Two controllers that race are settled by the compares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealift_model::diagnostic::Severity;
use sealift_model::{MachineId, ProjectName, Release, Requirements, UnitName};
use sealift_planner::{Action, AppView, Problem, Snapshot};
use sealift_store::election::Leadership;
use sealift_store::{MAX_TXN, Txn};
use sealift_unitfile::UnitFile;
use tokio::sync::watch;

use crate::api::{Error, json, unchanged};
use crate::cache::World;
use crate::keys::Key;
use crate::server::Inner;

/// Actions of one transaction at most; each rests on four keys at most and all together on two more, and a store takes
/// 128.
const ACTIONS: usize = 30;
/// How long to wait when the store cannot be written to.
const PAUSE: Duration = Duration::from_secs(1);
/// Units whose lack of a machine is explained; more than that have a common cause.
const EXPLAINED: usize = 50;

/// Why units are nowhere, as of the last plan.
#[derive(Debug, Default)]
pub(crate) struct Problems(watch::Sender<ByUnit>);

/// By the app that wants the unit: two apps may want the same name, and only one of them has the problem.
type ByUnit = BTreeMap<(Option<ProjectName>, UnitName), Trouble>;

/// Why a unit is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) text: String,
    /// It will not pass by itself: another release is needed.
    pub(crate) lasts: bool,
}

impl Problems {
    pub(crate) fn get(&self, app: Option<&ProjectName>, unit: &UnitName) -> Option<Trouble> {
        self.0.borrow().get(&(app.cloned(), unit.clone())).cloned()
    }

    /// Tells when they are others. A plan that writes nothing may find them too, so the cache does not tell.
    pub(crate) fn changes(&self) -> watch::Receiver<ByUnit> {
        self.0.subscribe()
    }

    fn set(&self, problems: ByUnit) {
        self.0.send_if_modified(|known| {
            let changed = *known != problems;
            *known = problems;
            changed
        });
    }
}

/// Plans whenever something changed, for as long as this server is the one to do so: nothing is written that
/// `leadership` does not stand behind.
pub(crate) async fn run(inner: &Inner, leadership: Option<&Leadership>) {
    let mut changes = inner.cache.changes();
    loop {
        changes.mark_unchanged();
        match pass(inner, leadership).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "a plan could not be written; trying again");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// One look; true when something was written or has to be looked at again.
async fn pass(inner: &Inner, leadership: Option<&Leadership>) -> Result<bool, Error> {
    let txn = {
        let world = inner.cache.world();
        let snapshot = snapshot(&world);
        let plan = sealift_planner::plan(&snapshot);
        inner.metrics.passes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        inner.problems.set(problems(&snapshot, &plan.problems));
        if plan.actions.is_empty() {
            return Ok(false);
        }
        fitting(&world, snapshot, &plan.actions, (inner.clock)())?
    };
    let txn = match leadership {
        Some(leadership) => leadership.guard(txn),
        None => txn,
    };
    match inner.commit(txn).await {
        Ok(_) => Ok(true),
        Err(error) if error.wants_another_look() => {
            inner.look_again().await?;
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

/// The first actions of a plan in one transaction, as many as it takes. What is left is planned again.
fn fitting(
    world: &World,
    before: Snapshot,
    actions: &[Action],
    now: sealift_model::Timestamp,
) -> Result<Txn, Error> {
    let mut count = actions.len().min(ACTIONS);
    let mut txn = transaction(world, before, &actions[..count], now)?;
    while txn.size() > MAX_TXN && count > 1 {
        count /= 2;
        txn = transaction(world, snapshot(world), &actions[..count], now)?;
    }
    Ok(txn)
}

/// What these actions change, if what they rest on is still so.
fn transaction(
    world: &World,
    mut after: Snapshot,
    actions: &[Action],
    now: sealift_model::Timestamp,
) -> Result<Txn, Error> {
    let (mut written, mut rests_on) = (BTreeSet::new(), BTreeSet::new());
    for action in actions {
        tracing::debug!(?action, "planned");
        if !sealift_planner::apply(&mut after, action, now) {
            continue;
        }
        match action {
            Action::PutUnit { unit } => {
                written.insert(Key::Unit(unit.name.clone()).to_string());
                rests_on.extend(unit.app.iter().map(|(project, _)| Key::App(project.clone()).to_string()));
            }
            Action::RemoveUnit { name } => {
                written.insert(Key::Unit(name.clone()).to_string());
                let app = world.units.get(name).and_then(|unit| unit.value.app.as_ref());
                rests_on.extend(app.map(|(project, _)| Key::App(project.clone()).to_string()));
            }
            Action::Place { unit, machine } => {
                written.insert(Key::Placement(unit.clone()).to_string());
                written.insert(Key::Status(machine.clone(), unit.clone()).to_string());
                written.insert(Key::PlacementCounter.to_string());
                rests_on.insert(Key::Unit(unit.clone()).to_string());
                rests_on.insert(Key::Presence(machine.clone()).to_string());
            }
            Action::Unplace { unit, .. } => drop(written.insert(Key::Placement(unit.clone()).to_string())),
            Action::Dispatch { run, machine, .. } => {
                written.insert(Key::Run(run.clone()).to_string());
                rests_on.insert(Key::Presence(machine.clone()).to_string());
            }
            Action::Lose { run, .. } | Action::GiveUp { run, .. } => {
                written.insert(Key::Run(run.clone()).to_string());
            }
        }
    }
    let keys =
        |texts: &BTreeSet<String>| -> Vec<Key> { texts.iter().filter_map(|key| Key::parse(key)).collect() };
    let mut txn = Txn::new();
    for key in keys(&rests_on.union(&written).cloned().collect()) {
        txn = unchanged(txn, world, &key);
    }
    for key in keys(&written) {
        let value = match &key {
            Key::Unit(name) => after.units.get(name).map(json).transpose()?,
            Key::Placement(name) => after.placements.get(name).map(json).transpose()?,
            Key::Status(machine, unit) => {
                after.statuses.get(&(machine.clone(), unit.clone())).map(json).transpose()?
            }
            Key::PlacementCounter => Some(json(&after.last_placement)?),
            Key::Run(id) => after.runs.get(id).map(json).transpose()?,
            _ => None,
        };
        txn = match value {
            Some(bytes) => txn.put(key, bytes),
            None => txn.delete(key),
        };
    }
    Ok(txn)
}

/// The world as the planner wants it.
pub(crate) fn snapshot(world: &World) -> Snapshot {
    let machines = world.machines.iter().map(|(id, machine)| {
        (id.clone(), (machine.value.clone(), world.presence.get(id).map(|presence| presence.value.clone())))
    });
    let statuses = world.statuses.iter().flat_map(|(machine, units)| {
        units.iter().map(|(unit, status)| ((machine.clone(), unit.clone()), status.value.clone()))
    });
    let runs = world.runs.iter().filter(|(_, run)| !run.value.state.is_end());
    let apps = world.apps.iter().map(|(project, app)| {
        let release =
            world.releases.get(&(project.clone(), app.value.current)).map(|held| held.value.clone());
        let requirements = release.iter().flat_map(requirements).collect();
        (project.clone(), AppView { app: app.value.clone(), release, requirements })
    });
    Snapshot {
        machines: machines.collect(),
        units: world.units.iter().map(|(name, unit)| (name.clone(), unit.value.clone())).collect(),
        placements: world.placements.iter().map(|(name, held)| (name.clone(), held.value.clone())).collect(),
        last_placement: world.last_placement.as_ref().map_or(0, |held| held.value),
        statuses: statuses.collect(),
        runs: runs.map(|(id, run)| (id.clone(), run.value.clone())).collect(),
        apps: apps.collect(),
    }
}

/// What the unit files of a release ask of machines; a file that contradicts itself is left out.
fn requirements(release: &Release) -> BTreeMap<UnitName, Requirements> {
    let read = |(name, text): (&UnitName, &String)| {
        let (requirements, findings) = UnitFile::parse(text).requirements(name);
        let sound = findings.iter().all(|finding| finding.severity != Severity::Error);
        sound.then(|| (name.clone(), requirements))
    };
    release.units.iter().filter_map(read).collect()
}

/// Whether a global unit is to run on this machine.
pub(crate) fn runs_on(world: &World, unit: &sealift_model::Unit, machine: &MachineId) -> bool {
    sealift_planner::runs_on(&snapshot(world), unit, machine)
}

fn problems(snapshot: &Snapshot, of_plan: &[Problem]) -> ByUnit {
    let mut problems = BTreeMap::new();
    let waits = |name: &&UnitName| {
        let unit = &snapshot.units[*name];
        !unit.requirements.global
            && !name.is_template()
            && unit.desired != sealift_model::DesiredState::Inactive
            && !snapshot.placements.contains_key(*name)
    };
    for name in snapshot.units.keys().filter(waits).take(EXPLAINED) {
        let verdicts = sealift_planner::explain(snapshot, name);
        let why: Vec<_> =
            verdicts.iter().map(|(machine, verdict)| format!("{}: {verdict}", machine.short())).collect();
        let why = if why.is_empty() { "there is no machine".into() } else { why.join("; ") };
        let app = snapshot.units[name].app.as_ref().map(|(project, _)| project.clone());
        let trouble = Trouble { text: format!("on no machine: {why}"), lasts: false };
        problems.insert((app, name.clone()), trouble);
    }
    for problem in of_plan {
        let (Problem::NameTaken { project, unit, .. } | Problem::Unreadable { project, unit }) = problem;
        let trouble = Trouble { text: problem.to_string(), lasts: true };
        problems.insert((Some(project.clone()), unit.clone()), trouble);
    }
    problems
}
