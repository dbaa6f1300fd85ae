//! The whole state at one moment, as one value: for tests, simulations and everything that is asked once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealift_model::{
    App, Machine, MachineId, MachineSettings, Placement, Presence, ProjectName, Release, Requirements, Run,
    RunId, Unit, UnitName, UnitStatus,
};

use crate::glob::Glob;
use crate::globals::{self, Ground, Party};
use crate::is_active;
use crate::state::Limit;

/// All that decisions rest on, as of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Every machine known; those without a presence are away.
    pub machines: BTreeMap<MachineId, (Machine, Option<Presence>)>,
    /// What operators set. Whoever fills this in has turned a maintenance window that is open now into
    /// [`Availability::Drained`](sealift_model::Availability::Drained).
    pub settings: BTreeMap<MachineId, MachineSettings>,
    pub units: BTreeMap<UnitName, Unit>,
    pub placements: BTreeMap<UnitName, Placement>,
    /// The id of the newest placement ever made.
    pub last_placement: u64,
    /// What machines say of units. There is something from a unit's placement on ([`UnitStatus::unheard`]) until its
    /// machine has confirmed that it is not there.
    pub statuses: BTreeMap<(MachineId, UnitName), UnitStatus>,
    /// The generation of a global unit that a machine was updated to, while the unit's change rolls out.
    pub updated: BTreeMap<(MachineId, UnitName), u64>,
    /// Runs that have not ended; those that have do no harm.
    pub runs: BTreeMap<RunId, Run>,
    pub apps: BTreeMap<ProjectName, AppView>,
}

/// An app with its current release.
#[derive(Debug, Clone, PartialEq)]
pub struct AppView {
    pub app: App,
    /// The release that `app.current` names; none if it is not known, which leaves the app's units as they are.
    pub release: Option<Release>,
    /// What the release's unit files ask of machines, read by whoever fills this in.
    pub requirements: BTreeMap<UnitName, Requirements>,
}

impl AppView {
    /// The release that is to run, if it is known. One of another number is left over from a change that is under way.
    pub(crate) fn current(&self) -> Option<&Release> {
        self.release.as_ref().filter(|release| release.number == self.app.current)
    }
}

/// One object as it is now; none if it is not there. Telling the same twice does no harm.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Machine(MachineId, Option<Machine>),
    Presence(MachineId, Option<Presence>),
    /// With maintenance windows turned into an availability, see [`Snapshot::settings`].
    Settings(MachineId, Option<MachineSettings>),
    Unit(UnitName, Option<Arc<Unit>>),
    Placement(UnitName, Option<Placement>),
    Status(MachineId, UnitName, Option<UnitStatus>),
    /// See [`Snapshot::updated`].
    Updated(MachineId, UnitName, Option<u64>),
    Run(RunId, Option<Arc<Run>>),
    App(ProjectName, Option<Arc<AppView>>),
    /// The id of the newest placement ever made.
    LastPlacement(u64),
}

impl Snapshot {
    /// Whether the machine is there, with its presence.
    #[must_use]
    pub fn presence(&self, machine: &MachineId) -> Option<&Presence> {
        self.machines.get(machine).and_then(|(_, presence)| presence.as_ref())
    }

    /// What has to be told to somebody who knows `before`, so that he knows this.
    #[must_use]
    pub fn changes_since(&self, before: &Snapshot) -> Vec<Change> {
        let mut changes = Vec::new();
        let machine = |of: &Snapshot, id: &MachineId| of.machines.get(id).map(|(machine, _)| machine.clone());
        for id in keys(&before.machines, &self.machines) {
            if machine(before, id) != machine(self, id) {
                changes.push(Change::Machine(id.clone(), machine(self, id)));
            }
            if before.presence(id) != self.presence(id) {
                changes.push(Change::Presence(id.clone(), self.presence(id).cloned()));
            }
        }
        differing(&before.settings, &self.settings, |id, settings| {
            changes.push(Change::Settings(id.clone(), settings.cloned()));
        });
        differing(&before.units, &self.units, |name, unit| {
            changes.push(Change::Unit(name.clone(), unit.cloned().map(Arc::new)));
        });
        differing(&before.placements, &self.placements, |name, placement| {
            changes.push(Change::Placement(name.clone(), placement.cloned()));
        });
        differing(&before.statuses, &self.statuses, |(machine, unit), status| {
            changes.push(Change::Status(machine.clone(), unit.clone(), status.cloned()));
        });
        differing(&before.updated, &self.updated, |(machine, unit), generation| {
            changes.push(Change::Updated(machine.clone(), unit.clone(), generation.copied()));
        });
        differing(&before.runs, &self.runs, |id, run| {
            changes.push(Change::Run(id.clone(), run.cloned().map(Arc::new)));
        });
        differing(&before.apps, &self.apps, |project, view| {
            changes.push(Change::App(project.clone(), view.cloned().map(Arc::new)));
        });
        if before.last_placement != self.last_placement {
            changes.push(Change::LastPlacement(self.last_placement));
        }
        changes
    }
}

fn keys<'a, K: Ord, A, B>(one: &'a BTreeMap<K, A>, other: &'a BTreeMap<K, B>) -> BTreeSet<&'a K> {
    one.keys().chain(other.keys()).collect()
}

fn differing<K: Ord, V: PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    mut tell: impl FnMut(&K, Option<&V>),
) {
    for key in keys(before, after) {
        if before.get(key) != after.get(key) {
            tell(key, after.get(key));
        }
    }
}

/// Whether `machine` is to run `unit`: by its placement, or by its requirements if it is global. Whether the machine
/// is there plays no part, so that a machine that was away comes back to the same units.
///
/// Looks through everything if the unit is global; use [`units_by_machine`] to ask for many.
#[must_use]
pub fn runs_on(snapshot: &Snapshot, unit: &Unit, machine: &MachineId) -> bool {
    if !is_active(&unit.name, unit.desired) {
        return false;
    }
    if unit.requirements.global {
        return units_on(snapshot, [machine]).remove(machine).is_some_and(|units| units.contains(&unit.name));
    }
    snapshot.placements.get(&unit.name).is_some_and(|placement| placement.machine == *machine)
}

/// The units that each machine is to run, as [`runs_on`] says; for every machine known.
#[must_use]
pub fn units_by_machine(snapshot: &Snapshot) -> BTreeMap<MachineId, BTreeSet<UnitName>> {
    units_on(snapshot, snapshot.machines.keys())
}

fn units_on<'a>(
    snapshot: &Snapshot,
    machines: impl IntoIterator<Item = &'a MachineId>,
) -> BTreeMap<MachineId, BTreeSet<UnitName>> {
    let mut placed: BTreeMap<&MachineId, Vec<&UnitName>> = BTreeMap::new();
    for placement in snapshot.placements.values() {
        let unit = snapshot.units.get(&placement.unit);
        if unit.is_some_and(|unit| is_active(&unit.name, unit.desired) && !unit.requirements.global) {
            placed.entry(&placement.machine).or_default().push(&placement.unit);
        }
    }
    let mut reported: BTreeMap<&MachineId, Vec<&UnitName>> = BTreeMap::new();
    for (machine, unit) in snapshot.statuses.keys() {
        reported.entry(machine).or_default().push(unit);
    }
    let globals = snapshot.units.values();
    let globals: Vec<&UnitName> = globals
        .filter(|unit| unit.requirements.global && is_active(&unit.name, unit.desired))
        .map(|unit| &unit.name)
        .collect();
    machines
        .into_iter()
        .filter_map(|id| {
            let here = globals_on(
                snapshot.machines.get(id).map(|(machine, _)| machine)?,
                snapshot.settings.get(id),
                globals.iter().filter_map(|name| snapshot.units.get(*name)),
                placed.get(id).into_iter().flatten().filter_map(|name| snapshot.units.get(*name)),
                reported.get(id).into_iter().flatten().filter_map(|name| snapshot.units.get(*name)),
            );
            let placed = placed.remove(id).unwrap_or_default();
            let units = here.into_iter().map(|unit| unit.name.clone()).chain(placed.into_iter().cloned());
            Some((id.clone(), units.collect()))
        })
        .collect()
}

/// Those of `globals` that are to run on a machine, where `placed` are placed and `reported` are what it speaks of.
/// `globals` are all active global units in the order of names, `placed` those that are active and not global.
pub fn globals_on<'u>(
    machine: &Machine,
    settings: Option<&MachineSettings>,
    globals: impl IntoIterator<Item = &'u Unit>,
    placed: impl IntoIterator<Item = &'u Unit>,
    reported: impl IntoIterator<Item = &'u Unit>,
) -> Vec<&'u Unit> {
    let none = MachineSettings::default();
    let settings = settings.unwrap_or(&none);
    let metadata = settings.metadata_over(&machine.metadata);
    let ground = Ground {
        id: &machine.id,
        metadata: &metadata,
        class: machine.class.as_deref(),
        drained: settings.is_drained(),
        limit: Limit::of(machine),
    };
    let globs = |unit: &'u Unit| -> (&'u Unit, Vec<Glob>) {
        (unit, unit.asks().conflicts.iter().map(|glob| Glob::new(glob)).collect())
    };
    fn parties<'a>(units: &'a [(&'a Unit, Vec<Glob>)]) -> Vec<Party<'a>> {
        let party = |(unit, conflicts): &'a (&'a Unit, Vec<Glob>)| Party {
            name: &unit.name,
            asks: unit.asks(),
            conflicts,
        };
        units.iter().map(party).collect()
    }
    let globals: Vec<_> = globals.into_iter().map(globs).collect();
    let placed: Vec<_> = placed.into_iter().map(globs).collect();
    let reported: Vec<_> = reported.into_iter().map(globs).collect();
    globals::running(&ground, &parties(&globals), &parties(&placed), &parties(&reported))
        .into_iter()
        .filter_map(|number| globals.get(number).map(|(unit, _)| *unit))
        .collect()
}
