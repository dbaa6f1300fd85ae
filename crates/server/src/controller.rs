//! Carries out what the planner decides: tells it what changed in the cache, writes its next actions in one transaction
//! that compares all they rest on, and goes on. What was not written, or may not have been, the planner is told again as
//! it really is. Two controllers that race are settled by the compares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sealift_client::api::Move;
use sealift_model::diagnostic::Severity;
use sealift_model::{
    DesiredState, MachineId, MachineSettings, Placement, ProjectName, Release, Requirements, Timestamp, Unit,
    UnitName, UnitStatus,
};
use sealift_planner::{Action, AppView, Change, Planner, Reader, Reason, Snapshot, Subject};
use sealift_store::election::Leadership;
use sealift_store::{MAX_TXN, Txn};
use sealift_unitfile::UnitFile;
use tokio::sync::watch;

use crate::api::{Error, Rebalancing, json, unchanged};
use crate::cache::{Changed, ChangedKeys, Held, World};
use crate::keys::Key;
use crate::server::Inner;

/// Actions of one transaction at most; each rests on five keys at most and all together on two more, and a store takes
/// 128.
const ACTIONS: usize = 25;
/// How long to wait when the store cannot be written to.
const PAUSE: Duration = Duration::from_secs(1);
/// As many verdicts on machines as can be thought over with every change.
const EXPLAINED_AT_ONCE: usize = 10_000;
/// Between two times that more than that are thought over, and between two looks at the clock.
const EXPLAIN_AGAIN: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(60);
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
/// `leadership` does not stand behind. It can be dropped at any moment; what it planned with is of no use then.
pub(crate) async fn run(inner: &Inner, leadership: Option<&Leadership>, planning: &mut Planning) {
    let mut changes = inner.cache.changes();
    loop {
        changes.mark_unchanged();
        let passed = planning.pass(inner, leadership).await;
        inner.copies.hand_out(&planning.planner);
        match passed {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "a plan could not be written; trying again");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        }
        let wait = planning.wait((inner.clock)());
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = inner.copies.asked() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Follows what changes while another server decides, so that this one can tell why units are nowhere, and can take over
/// without learning everything first. It can be dropped at any moment, and writes nothing.
pub(crate) async fn stand_by(inner: &Inner, planning: &mut Planning) {
    let mut changes = inner.cache.changes();
    loop {
        changes.mark_unchanged();
        planning.look(inner);
        inner.copies.hand_out(&planning.planner);
        let wait = planning.wait((inner.clock)());
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = inner.copies.asked() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The planner, and what it has been told.
pub(crate) struct Planning {
    planner: Planner,
    changed: Arc<Changed>,
    /// Until when the settings of machines mean what the planner was told, by machine: maintenance begins or ends then.
    next: BTreeMap<MachineId, Timestamp>,
    /// Machines whose settings do not say yet that maintenance began or ended.
    unwritten: BTreeSet<MachineId>,
    /// When it was last said why units are nowhere, and whether that may be other by now.
    explained: Option<tokio::time::Instant>,
    unexplained: bool,
}

impl Planning {
    pub(crate) fn new(inner: &Inner) -> Planning {
        let changed = inner.cache.changed();
        Planning {
            planner: Planner::new(READER),
            changed,
            next: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            explained: None,
            unexplained: true,
        }
    }

    /// One look; true when something was written or has to be looked at again.
    async fn pass(&mut self, inner: &Inner, leadership: Option<&Leadership>) -> Result<bool, Error> {
        let (txn, actions) = {
            // Asked before the world is looked at: what changes in between is told again.
            let changed = self.changed.take();
            let world = inner.cache.world();
            let now = (inner.clock)();
            inner.metrics.passes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.learn(&world, changed, now);
            let fitting = match self.maintenance(&world, now)? {
                None => self.fitting(&world, now)?,
                maintenance => maintenance,
            };
            let fitting = match fitting {
                None => self.asked_for(&world, now)?,
                fitting => fitting,
            };
            let Some(fitting) = fitting else {
                self.explain(inner);
                return Ok(false);
            };
            fitting
        };
        let txn = match leadership {
            Some(leadership) => leadership.guard(txn),
            None => txn,
        };
        let outcome = inner.commit(txn).await;
        let Err(error) = outcome else { return Ok(true) };
        let again = error.wants_another_look();
        if again {
            inner.look_again().await?;
        }
        // Nothing came of it, or nobody knows: the planner is told how things are. What is not known yet is told when the
        // cache knows it.
        self.mend(&inner.cache.world(), &actions, (inner.clock)());
        if again { Ok(true) } else { Err(error.into()) }
    }

    /// Sees what would be done, and does nothing.
    fn look(&mut self, inner: &Inner) {
        let changed = self.changed.take();
        let world = inner.cache.world();
        let now = (inner.clock)();
        self.learn(&world, changed, now);
        let mut planned = Vec::new();
        loop {
            let actions = self.planner.plan(ACTIONS, now);
            if actions.is_empty() {
                break;
            }
            planned.extend(actions);
        }
        self.explain(inner);
        self.mend(&world, &planned, now);
    }

    /// Tells the planner what changed.
    fn learn(&mut self, world: &World, changed: ChangedKeys, now: Timestamp) {
        match changed {
            ChangedKeys::All => {
                self.planner = Planner::new(READER);
                self.next.clear();
                self.unwritten.clear();
                for key in keys_of(world) {
                    self.tell(world, &key, now);
                }
                self.unexplained = true;
            }
            ChangedKeys::These(keys) => {
                self.unexplained |= !keys.is_empty();
                for key in keys.iter().filter_map(|key| Key::parse(key)) {
                    self.tell(world, &key, now);
                }
            }
        }
        let due = self.next.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone());
        for id in due.collect::<Vec<_>>() {
            self.tell(world, &Key::Settings(id), now);
        }
    }

    /// Tells the planner how one object is.
    fn tell(&mut self, world: &World, key: &Key, now: Timestamp) {
        let change = match key {
            Key::Machine(id) => Change::Machine(id.clone(), value(world.machines.get(id))),
            Key::Presence(id) => Change::Presence(id.clone(), value(world.presence.get(id))),
            Key::Settings(id) => {
                let settings = world.settings.get(id).map(|held| &held.value);
                match settings.and_then(|settings| next_change(settings, now)) {
                    Some(next) => drop(self.next.insert(id.clone(), next)),
                    None => drop(self.next.remove(id)),
                }
                match settings.filter(|settings| settings.in_maintenance != settings.maintenance_at(now)) {
                    Some(_) => drop(self.unwritten.insert(id.clone())),
                    None => drop(self.unwritten.remove(id)),
                }
                Change::Settings(id.clone(), settings.map(|settings| as_of(settings, now)))
            }
            Key::Unit(name) => Change::Unit(name.clone(), value(world.units.get(name)).map(Arc::new)),
            Key::Placement(name) => Change::Placement(name.clone(), value(world.placements.get(name))),
            Key::Status(machine, unit) => {
                Change::Status(machine.clone(), unit.clone(), value(world.status(machine, unit)))
            }
            Key::PlacementCounter => {
                Change::LastPlacement(world.last_placement.as_ref().map_or(0, |held| held.value))
            }
            Key::Updated(machine, unit) => {
                let generation = world.updated.get(machine).and_then(|units| units.get(unit));
                Change::Updated(machine.clone(), unit.clone(), generation.map(|held| held.value))
            }
            Key::Run(id) => Change::Run(id.clone(), value(world.runs.get(id)).map(Arc::new)),
            Key::App(project) | Key::Release(project, _) => {
                Change::App(project.clone(), app_view(world, project).map(Arc::new))
            }
            // Nothing of these is planned by.
            _ => return,
        };
        self.planner.feed(change);
    }

    /// Tells the planner how everything is that these actions would have written.
    fn mend(&mut self, world: &World, actions: &[Action], now: Timestamp) {
        for subject in actions.iter().flat_map(Action::writes) {
            self.tell(world, &key_of(subject), now);
        }
    }

    /// Writes down that maintenance began or ended, for all who look at no clock: global units stop and come back by it.
    fn maintenance(&mut self, world: &World, now: Timestamp) -> Result<Option<(Txn, Vec<Action>)>, Error> {
        let mut txn = Txn::new();
        // The cache tells of what was written, and what was not is tried again.
        for id in self.unwritten.iter().take(ACTIONS) {
            let Some(held) = world.settings.get(id) else { continue };
            let key = Key::Settings(id.clone());
            txn = unchanged(txn, world, &key).put(key, json(&held.value.clone().at(now))?);
        }
        Ok((!txn.ops().is_empty()).then_some((txn, Vec::new())))
    }

    /// What was asked for beside what the state asks for: to even out.
    fn asked_for(&mut self, world: &World, now: Timestamp) -> Result<Option<(Txn, Vec<Action>)>, Error> {
        let Some(asked) = world.rebalance.as_ref().filter(|asked| asked.value.moves.is_none()) else {
            return Ok(None);
        };
        let before = self.planner.last_placement();
        let actions = self.planner.rebalance(asked.value.most, now);
        let moves = moves(world, &actions);
        let answered = Rebalancing { moves: Some(moves), ..asked.value.clone() };
        let made = json(&answered).and_then(|answered| {
            let txn = transaction(world, &self.planner, before, &actions, now)?;
            let txn = unchanged(txn, world, &Key::Rebalance);
            Ok(match asked.lease {
                Some(lease) => txn.put_leased(Key::Rebalance, answered, lease),
                None => txn.put(Key::Rebalance, answered),
            })
        });
        if made.is_err() {
            self.mend(world, &actions, now);
        }
        Ok(Some((made?, actions)))
    }

    /// The next actions, as many as one transaction takes; none if nothing is to be done.
    fn fitting(&mut self, world: &World, now: Timestamp) -> Result<Option<(Txn, Vec<Action>)>, Error> {
        let mut most = ACTIONS;
        loop {
            let before = self.planner.last_placement();
            let actions = self.planner.plan(most, now);
            if actions.is_empty() {
                return Ok(None);
            }
            let made = transaction(world, &self.planner, before, &actions, now);
            match made {
                Ok(txn) if txn.size() <= MAX_TXN || actions.len() == 1 => return Ok(Some((txn, actions))),
                Ok(_) => self.mend(world, &actions, now),
                Err(error) => {
                    self.mend(world, &actions, now);
                    return Err(error);
                }
            }
            most = actions.len() / 2;
        }
    }

    /// Says why units are nowhere, but not all the time.
    fn explain(&mut self, inner: &Inner) {
        let verdicts = self.planner.unplaced_count().min(EXPLAINED) * self.planner.machine_count();
        let recently = self.explained.is_some_and(|at| at.elapsed() < EXPLAIN_AGAIN);
        if !self.unexplained || (recently && verdicts > EXPLAINED_AT_ONCE) {
            return;
        }
        inner.problems.set(problems(&self.planner));
        self.unexplained = false;
        self.explained = Some(tokio::time::Instant::now());
    }

    /// How long nothing has to be done if nothing changes.
    fn wait(&self, now: Timestamp) -> Duration {
        let late = self.planner.next_deadline().map_or(LONGEST, |at| at.since(now).max(SHORTEST));
        let maintenance = self.next.values().min().map_or(LONGEST, |at| at.since(now).max(SHORTEST));
        let explaining = if self.unexplained { EXPLAIN_AGAIN } else { LONGEST };
        maintenance.min(late).min(explaining).min(LONGEST)
    }
}

/// Which units these actions of a rebalance take from where, and where they are meant to go.
fn moves(world: &World, actions: &[Action]) -> Vec<Move> {
    let moved = actions.iter().filter_map(|action| match action {
        Action::Unplace { unit, machine, reason: Reason::Rebalanced { to }, .. } => Some(Move {
            unit: unit.clone(),
            from: machine.clone(),
            to: to.clone(),
            placement: world.placements.get(unit).map_or(0, |held| held.value.id),
        }),
        _ => None,
    });
    moved.collect()
}

fn value<T: Clone>(held: Option<&Held<T>>) -> Option<T> {
    held.map(|held| held.value.clone())
}

/// Where everything is that the planner has to know.
fn keys_of(world: &World) -> Vec<Key> {
    let statuses = world
        .statuses
        .iter()
        .flat_map(|(machine, units)| units.keys().map(|unit| Key::Status(machine.clone(), unit.clone())));
    let updated = world
        .updated
        .iter()
        .flat_map(|(machine, units)| units.keys().map(|unit| Key::Updated(machine.clone(), unit.clone())));
    world
        .machines
        .keys()
        .cloned()
        .map(Key::Machine)
        .chain(world.presence.keys().cloned().map(Key::Presence))
        .chain(world.settings.keys().cloned().map(Key::Settings))
        .chain(world.units.keys().cloned().map(Key::Unit))
        .chain(world.placements.keys().cloned().map(Key::Placement))
        .chain(statuses)
        .chain(updated)
        .chain(
            world
                .runs
                .iter()
                .filter(|(_, run)| !run.value.state.is_end())
                .map(|(id, _)| Key::Run(id.clone())),
        )
        .chain(world.apps.keys().cloned().map(Key::App))
        .chain([Key::PlacementCounter])
        .collect()
}

fn key_of(subject: Subject) -> Key {
    match subject {
        Subject::Unit(name) => Key::Unit(name),
        Subject::Placement(name) => Key::Placement(name),
        Subject::Status(machine, unit) => Key::Status(machine, unit),
        Subject::Updated(machine, unit) => Key::Updated(machine, unit),
        Subject::Run(id) => Key::Run(id),
        Subject::LastPlacement => Key::PlacementCounter,
    }
}

/// What these actions change, if what they rest on is still so. `planner` has carried them out; `last_placement` is
/// from before.
fn transaction(
    world: &World,
    planner: &Planner,
    mut last_placement: u64,
    actions: &[Action],
    now: Timestamp,
) -> Result<Txn, Error> {
    let mut rests_on: BTreeSet<String> = BTreeSet::new();
    let mut written: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    for action in actions {
        tracing::debug!(?action, "planned");
        match action {
            Action::PutUnit { unit } => {
                rests_on.extend(unit.app.iter().map(|(project, _)| Key::App(project.clone()).to_string()));
                rests_on.extend(unit.template.iter().map(|template| Key::Unit(template.clone()).to_string()));
                written.insert(Key::Unit(unit.name.clone()).to_string(), Some(json(unit)?));
            }
            Action::Update { unit, machine, generation } => {
                rests_on.insert(Key::Unit(unit.clone()).to_string());
                let generation = generation.as_ref().map(json).transpose()?;
                written.insert(Key::Updated(machine.clone(), unit.clone()).to_string(), generation);
            }
            Action::RemoveUnit { name } => {
                let unit = world.units.get(name).map(|unit| &unit.value);
                let app = unit.and_then(|unit| unit.app.as_ref());
                rests_on.extend(app.map(|(project, _)| Key::App(project.clone()).to_string()));
                let template = unit.and_then(|unit| unit.template.as_ref());
                rests_on.extend(template.map(|template| Key::Unit(template.clone()).to_string()));
                written.insert(Key::Unit(name.clone()).to_string(), None);
            }
            Action::Place { unit, machine } => {
                last_placement += 1;
                let placement = Placement {
                    id: last_placement,
                    unit: unit.clone(),
                    machine: machine.clone(),
                    since: now,
                };
                written.insert(Key::Placement(unit.clone()).to_string(), Some(json(&placement)?));
                let status = Key::Status(machine.clone(), unit.clone()).to_string();
                written.insert(status, Some(json(&UnitStatus::unheard(&placement))?));
                written.insert(Key::PlacementCounter.to_string(), Some(json(&last_placement)?));
                rests_on.insert(Key::Unit(unit.clone()).to_string());
                rests_on.insert(Key::Presence(machine.clone()).to_string());
                rests_on.insert(Key::Settings(machine.clone()).to_string());
            }
            Action::Unplace { unit, with, .. } => {
                for unit in std::iter::once(unit).chain(with) {
                    written.insert(Key::Placement(unit.clone()).to_string(), None);
                }
            }
            Action::Dispatch { run, .. } | Action::Lose { run, .. } | Action::GiveUp { run, .. } => {
                if let Action::Dispatch { machine, .. } = action {
                    rests_on.insert(Key::Presence(machine.clone()).to_string());
                }
                // A run that is given up is over for the planner, and all the same it is written.
                let ended = || {
                    let mut run = world.runs.get(run)?.value.clone();
                    sealift_planner::apply_to_run(&mut run, action, now).then_some(run)
                };
                if let Some(run) = planner.run(run).cloned().or_else(ended) {
                    written.insert(Key::Run(run.id.clone()).to_string(), Some(json(&run)?));
                }
            }
        }
    }
    let mut txn = Txn::new();
    let compared: BTreeSet<&String> = rests_on.iter().chain(written.keys()).collect();
    for key in compared.into_iter().filter_map(|key| Key::parse(key)) {
        txn = unchanged(txn, world, &key);
    }
    for (key, value) in written {
        txn = match value {
            Some(bytes) => txn.put(key, bytes),
            None => txn.delete(key),
        };
    }
    Ok(txn)
}

/// The settings as they count at this moment: maintenance that is under way drains.
pub(crate) fn as_of(settings: &MachineSettings, now: Timestamp) -> MachineSettings {
    MachineSettings {
        metadata: settings.metadata.clone(),
        availability: settings.availability_at(now),
        ..MachineSettings::default()
    }
}

/// When the settings will count as something else.
fn next_change(settings: &MachineSettings, now: Timestamp) -> Option<Timestamp> {
    settings.maintenance.iter().flat_map(|span| [span.from, span.until]).filter(|at| *at > now).min()
}

fn app_view(world: &World, project: &ProjectName) -> Option<AppView> {
    let app = world.apps.get(project)?.value.clone();
    let release = world.releases.get(&(project.clone(), app.current)).map(|held| held.value.clone());
    let requirements = release.iter().flat_map(requirements).collect();
    Some(AppView { app, release, requirements })
}

/// The world as the planner wants it, for those who ask once.
pub(crate) fn snapshot(world: &World, now: Timestamp) -> Snapshot {
    let machines = world.machines.iter().map(|(id, machine)| {
        (id.clone(), (machine.value.clone(), world.presence.get(id).map(|presence| presence.value.clone())))
    });
    let statuses = world.statuses.iter().flat_map(|(machine, units)| {
        units.iter().map(|(unit, status)| ((machine.clone(), unit.clone()), status.value.clone()))
    });
    let updated = world.updated.iter().flat_map(|(machine, units)| {
        units.iter().map(|(unit, held)| ((machine.clone(), unit.clone()), held.value))
    });
    let runs = world.runs.iter().filter(|(_, run)| !run.value.state.is_end());
    let apps = world.apps.keys().filter_map(|project| Some((project.clone(), app_view(world, project)?)));
    Snapshot {
        machines: machines.collect(),
        settings: world.settings.iter().map(|(id, held)| (id.clone(), as_of(&held.value, now))).collect(),
        units: world.units.iter().map(|(name, unit)| (name.clone(), unit.value.clone())).collect(),
        placements: world.placements.iter().map(|(name, held)| (name.clone(), held.value.clone())).collect(),
        last_placement: world.last_placement.as_ref().map_or(0, |held| held.value),
        statuses: statuses.collect(),
        updated: updated.collect(),
        runs: runs.map(|(id, run)| (id.clone(), run.value.clone())).collect(),
        apps: apps.collect(),
    }
}

/// What the unit files of a release ask of machines; a file that contradicts itself is left out.
fn requirements(release: &Release) -> BTreeMap<UnitName, Requirements> {
    let read = |(name, text): (&UnitName, &String)| Some((name.clone(), read(text, name)?));
    release.units.iter().filter_map(read).collect()
}

fn read(text: &str, name: &UnitName) -> Option<Requirements> {
    let (requirements, findings) = UnitFile::parse(text).requirements(name);
    let sound = findings.iter().all(|finding| finding.severity != Severity::Error);
    sound.then_some(requirements)
}

/// How the planner has unit files read.
const READER: Reader = Reader { requirements: read_instance, same_text };

/// Whether systemd reads the same in two unit files.
pub(crate) fn same_text(one: &str, other: &str) -> bool {
    UnitFile::parse(one).text_for_systemd() == UnitFile::parse(other).text_for_systemd()
}

/// A template's file as one of its instances reads it.
fn read_instance(template: &Unit, instance: &UnitName) -> Option<Requirements> {
    read(&template.text, instance)
}

/// The global units that are to run on a machine: none while it is drained, or while maintenance is noted down.
pub(crate) fn globals_on<'w>(world: &'w World, machine: &MachineId) -> Vec<&'w Unit> {
    let Some(about) = world.machines.get(machine) else { return Vec::new() };
    let unit = |name: &UnitName| world.units.get(name).map(|held| &held.value);
    let is_wanted = |unit: &&Unit| unit.desired != DesiredState::Inactive && !unit.name.is_template();
    let placed = world.placed_on(machine).filter_map(unit);
    sealift_planner::globals_on(
        &about.value,
        world.settings.get(machine).map(|held| &held.value),
        world.global_units().map(|held| &held.value).filter(is_wanted),
        placed.filter(|unit| is_wanted(unit) && !unit.requirements.global),
        world.statuses.get(machine).into_iter().flat_map(BTreeMap::keys).filter_map(unit),
    )
}

/// Whether a global unit is to run on this machine.
pub(crate) fn runs_on(world: &World, unit: &Unit, machine: &MachineId) -> bool {
    globals_on(world, machine).iter().any(|global| global.name == unit.name)
}

fn problems(planner: &Planner) -> ByUnit {
    let mut problems = BTreeMap::new();
    for name in planner.unplaced().take(EXPLAINED) {
        let app = planner.unit(name).and_then(|unit| unit.app.as_ref()).map(|(project, _)| project.clone());
        let text = format!("on no machine: {}", planner.why_nowhere(name));
        problems.insert((app, name.clone()), Trouble { text, lasts: false });
    }
    for problem in planner.problems() {
        let trouble = Trouble { text: problem.to_string(), lasts: true };
        problems.insert((problem.project().cloned(), problem.unit().clone()), trouble);
    }
    problems
}
