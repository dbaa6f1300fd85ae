//! The state as one value that changes piece by piece and knows where to look, for whoever judges or tells one machine
//! without looking through all of them.
//!
//! Guarantees: a [`part`](Ledger::part) has all that the rules of [`invariants`](crate::invariants) look at for the
//! machines, units and runs that it was cut out for, so that they say of it what they say of the whole.
//!
//! Must not know: what the rules are, and what the planner has in mind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealift_model::{MachineId, RunId, RunState, Timestamp, Unit, UnitName};

use crate::{Action, Change, Snapshot, Subject, apply};

/// A [`Snapshot`] with indexes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    whole: Snapshot,
    /// The units that are placed on each machine, and those that it speaks of.
    placed: BTreeMap<MachineId, BTreeSet<UnitName>>,
    said: BTreeMap<MachineId, BTreeSet<UnitName>>,
    /// The machines that speak of each unit.
    sayers: BTreeMap<UnitName, BTreeSet<MachineId>>,
    /// The instances of each template.
    sets: BTreeMap<UnitName, BTreeSet<UnitName>>,
    globals: BTreeSet<UnitName>,
    /// The units that each machine was updated to, see [`Snapshot::updated`].
    updated: BTreeMap<MachineId, BTreeSet<UnitName>>,
    /// The runs that are at work on each machine.
    running: BTreeMap<MachineId, BTreeSet<RunId>>,
}

/// What a change can have made right or wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Concern {
    /// A global unit is everybody's concern.
    pub everything: bool,
    pub machines: BTreeSet<MachineId>,
    pub units: BTreeSet<UnitName>,
    pub runs: BTreeSet<RunId>,
}

impl Concern {
    /// What an action writes.
    #[must_use]
    pub fn of(action: &Action) -> Concern {
        let mut concern = Concern::default();
        for subject in action.writes() {
            match subject {
                Subject::Unit(name) | Subject::Placement(name) => drop(concern.units.insert(name)),
                Subject::Status(machine, unit) => {
                    concern.machines.insert(machine);
                    concern.units.insert(unit);
                }
                // No rule is about the unit.
                Subject::Updated(machine, _) => drop(concern.machines.insert(machine)),
                Subject::Run(id) => drop(concern.runs.insert(id)),
                Subject::LastPlacement => {}
            }
        }
        match action {
            Action::Place { machine, .. }
            | Action::Unplace { machine, .. }
            | Action::Dispatch { machine, .. } => drop(concern.machines.insert(machine.clone())),
            _ => {}
        }
        concern
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Concern::default()
    }

    pub fn add(&mut self, other: &Concern) {
        self.everything |= other.everything;
        self.machines.extend(other.machines.iter().cloned());
        self.units.extend(other.units.iter().cloned());
        self.runs.extend(other.runs.iter().cloned());
    }
}

/// What an action has changed, see [`Ledger::apply`].
#[derive(Debug, Clone)]
pub struct Applied {
    /// Whether the action fitted; if not, nothing has changed.
    pub fits: bool,
    /// What the action concerns, as it was and as it is.
    pub before: Snapshot,
    pub after: Snapshot,
    pub changes: Vec<Change>,
    /// What the changes concern.
    pub concern: Concern,
}

impl Ledger {
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Ledger {
        let mut ledger = Ledger::default();
        for change in snapshot.changes_since(&Snapshot::default()) {
            ledger.set(change);
        }
        ledger
    }

    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.whole
    }

    /// The units that are placed on the machine.
    pub fn placed_on(&self, machine: &MachineId) -> impl Iterator<Item = &UnitName> {
        self.placed.get(machine).into_iter().flatten()
    }

    /// The units that the machine speaks of.
    pub fn said_by(&self, machine: &MachineId) -> impl Iterator<Item = &UnitName> {
        self.said.get(machine).into_iter().flatten()
    }

    /// Notes how an object is now, and says what that concerns.
    pub fn set(&mut self, change: Change) -> Concern {
        let mut concern = Concern::default();
        match change {
            Change::Machine(id, machine) => {
                match machine {
                    Some(machine) => {
                        let presence = self.whole.presence(&id).cloned();
                        self.whole.machines.insert(id.clone(), (machine, presence));
                    }
                    None => drop(self.whole.machines.remove(&id)),
                }
                concern.machines.insert(id);
            }
            Change::Presence(id, presence) => {
                if let Some((_, held)) = self.whole.machines.get_mut(&id) {
                    *held = presence;
                }
                concern.machines.insert(id);
            }
            Change::Settings(id, settings) => {
                put(&mut self.whole.settings, id.clone(), settings);
                concern.machines.insert(id);
            }
            Change::Unit(name, unit) => self.set_unit(name, unit, &mut concern),
            Change::Placement(name, placement) => {
                let new = placement.as_ref().map(|placement| placement.machine.clone());
                let old = put(&mut self.whole.placements, name.clone(), placement);
                let old = old.map(|placement| placement.machine);
                if old != new {
                    if let Some(machine) = &old {
                        take(&mut self.placed, machine, &name);
                    }
                    if let Some(machine) = &new {
                        self.placed.entry(machine.clone()).or_default().insert(name.clone());
                    }
                }
                concern.machines.extend(old.into_iter().chain(new));
                concern.units.insert(name);
            }
            Change::Status(machine, unit, status) => {
                if status.is_some() {
                    self.said.entry(machine.clone()).or_default().insert(unit.clone());
                    self.sayers.entry(unit.clone()).or_default().insert(machine.clone());
                } else {
                    take(&mut self.said, &machine, &unit);
                    take(&mut self.sayers, &unit, &machine);
                }
                put(&mut self.whole.statuses, (machine.clone(), unit.clone()), status);
                concern.machines.insert(machine);
                concern.units.insert(unit);
            }
            Change::Updated(machine, unit, generation) => {
                if generation.is_some() {
                    self.updated.entry(machine.clone()).or_default().insert(unit.clone());
                } else {
                    take(&mut self.updated, &machine, &unit);
                }
                put(&mut self.whole.updated, (machine.clone(), unit), generation);
                concern.machines.insert(machine);
            }
            Change::Run(id, run) => {
                let run = run.map(Arc::unwrap_or_clone);
                let old = put(&mut self.whole.runs, id.clone(), run);
                let new = self.whole.runs.get(&id);
                let machine = |run: Option<&sealift_model::Run>| {
                    let run = run.filter(|run| run.state == RunState::Running)?;
                    run.attempt().map(|attempt| attempt.machine.clone())
                };
                let (old, new) = (machine(old.as_ref()), machine(new));
                if let Some(machine) = &old {
                    take(&mut self.running, machine, &id);
                }
                if let Some(machine) = &new {
                    self.running.entry(machine.clone()).or_default().insert(id.clone());
                }
                concern.machines.extend(old.into_iter().chain(new));
                concern.runs.insert(id);
            }
            Change::App(project, view) => {
                put(&mut self.whole.apps, project, view.map(Arc::unwrap_or_clone));
            }
            Change::LastPlacement(id) => self.whole.last_placement = id,
        }
        concern
    }

    fn set_unit(&mut self, name: UnitName, unit: Option<Arc<Unit>>, concern: &mut Concern) {
        let unit = unit.map(Arc::unwrap_or_clone);
        let (there, global) = (unit.is_some(), unit.as_ref().is_some_and(|unit| unit.requirements.global));
        put(&mut self.whole.units, name.clone(), unit);
        if let Some(template) = name.template() {
            if there {
                self.sets.entry(template).or_default().insert(name.clone());
            } else {
                take(&mut self.sets, &template, &name);
            }
        }
        let was_global = if global { !self.globals.insert(name.clone()) } else { self.globals.remove(&name) };
        concern.everything |= global || was_global;
        concern.machines.extend(self.whole.placements.get(&name).map(|placement| placement.machine.clone()));
        concern.machines.extend(self.sayers.get(&name).into_iter().flatten().cloned());
        concern.units.insert(name);
    }

    /// How an object is now.
    #[must_use]
    pub fn change(&self, subject: Subject) -> Change {
        let whole = &self.whole;
        match subject {
            Subject::Unit(name) => {
                let unit = whole.units.get(&name).cloned().map(Arc::new);
                Change::Unit(name, unit)
            }
            Subject::Placement(name) => {
                let placement = whole.placements.get(&name).cloned();
                Change::Placement(name, placement)
            }
            Subject::Status(machine, unit) => {
                let key = (machine, unit);
                let status = whole.statuses.get(&key).cloned();
                Change::Status(key.0, key.1, status)
            }
            Subject::Updated(machine, unit) => {
                let key = (machine, unit);
                let generation = whole.updated.get(&key).copied();
                Change::Updated(key.0, key.1, generation)
            }
            Subject::Run(id) => {
                let run = whole.runs.get(&id).cloned().map(Arc::new);
                Change::Run(id, run)
            }
            Subject::LastPlacement => Change::LastPlacement(whole.last_placement),
        }
    }

    /// Carries an action out as [`apply()`] does, at a cost that does not grow with the fleet.
    pub fn apply(&mut self, action: &Action, now: Timestamp) -> Applied {
        let concern = Concern::of(action);
        let before = self.part(&concern);
        let mut after = before.clone();
        let fits = apply(&mut after, action, now);
        let changes = after.changes_since(&before);
        let mut concern = Concern::default();
        for change in &changes {
            concern.add(&self.set(change.clone()));
        }
        Applied { fits, before, after, changes, concern }
    }

    /// The same in pieces, of which each has one machine: for what is judged machine by machine and run by run, which is
    /// everything but steps. Their cost together follows what this concerns, and is never that of all times all.
    pub fn pieces(&self, concern: &Concern) -> impl Iterator<Item = Snapshot> {
        let mut machines = concern.machines.clone();
        if concern.everything {
            machines.extend(self.whole.machines.keys().chain(self.placed.keys()).cloned());
        }
        let one = |machine| Concern { machines: BTreeSet::from([machine]), ..Concern::default() };
        let runs = Concern { runs: concern.runs.clone(), ..Concern::default() };
        machines.into_iter().map(one).chain([runs]).map(|concern| self.part(&concern))
    }

    /// What this concerns: these machines with all that is on them, these units with their sets wherever they are, these
    /// runs, and all global units. No apps: no rule looks at them.
    #[must_use]
    pub fn part(&self, concern: &Concern) -> Snapshot {
        let whole = &self.whole;
        if concern.everything {
            return whole.clone();
        }
        let mut machines = concern.machines.clone();
        for unit in &concern.units {
            machines.extend(whole.placements.get(unit).map(|placement| placement.machine.clone()));
            machines.extend(self.sayers.get(unit).into_iter().flatten().cloned());
        }
        let mut units: BTreeSet<&UnitName> = concern.units.iter().chain(&self.globals).collect();
        let mut runs: BTreeSet<&RunId> = concern.runs.iter().collect();
        let mut part = Snapshot { last_placement: whole.last_placement, ..Snapshot::default() };
        for id in &machines {
            units.extend(self.placed_on(id));
            for unit in self.said_by(id) {
                units.insert(unit);
                let key = (id.clone(), unit.clone());
                if let Some(status) = whole.statuses.get(&key) {
                    part.statuses.insert(key, status.clone());
                }
            }
            for unit in self.updated.get(id).into_iter().flatten() {
                pick(&whole.updated, &mut part.updated, &(id.clone(), unit.clone()));
            }
            runs.extend(self.running.get(id).into_iter().flatten());
            pick(&whole.machines, &mut part.machines, id);
            pick(&whole.settings, &mut part.settings, id);
        }
        // One of a set leaves or stays by how many of the others are up.
        for unit in &concern.units {
            let set = unit.template().and_then(|template| self.sets.get(&template));
            for other in set.into_iter().flatten() {
                units.insert(other);
                if let Some(placement) = whole.placements.get(other) {
                    pick(&whole.statuses, &mut part.statuses, &(placement.machine.clone(), other.clone()));
                }
            }
        }
        for unit in units {
            pick(&whole.units, &mut part.units, unit);
            pick(&whole.placements, &mut part.placements, unit);
        }
        for run in runs {
            pick(&whole.runs, &mut part.runs, run);
        }
        part
    }
}

fn pick<K: Ord + Clone, V: Clone>(from: &BTreeMap<K, V>, to: &mut BTreeMap<K, V>, key: &K) {
    if let Some(value) = from.get(key) {
        to.insert(key.clone(), value.clone());
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

fn take<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}
