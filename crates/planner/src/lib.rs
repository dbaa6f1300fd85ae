//! Pure decisions: which units exist, where they run, which machine takes which run.
//!
//! [`plan`] looks at one [`Snapshot`] and says what to do; [`apply()`] says what the snapshot is like afterwards. Equal
//! snapshots give equal plans, and each action is right given that those before it were carried out.
//!
//! Must not know: clocks, chance, stores, machines as such. Whoever calls turns every action into one transaction
//! that compares what the action rests on.

mod action;
mod apply;
mod apps;
pub mod invariants;
mod placing;
mod reason;
mod runs;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{
    App, DesiredState, Machine, MachineId, Placement, Presence, ProjectName, Release, Requirements, Run,
    RunId, Unit, UnitName, UnitStatus,
};

pub use action::{Action, Plan, Problem};
pub use apply::apply;
pub use reason::{Reason, Verdict};
pub use runs::MAX_ATTEMPTS;
use view::{View, Wanted};

/// All that decisions rest on, as of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Every machine known; those without a presence are away.
    pub machines: BTreeMap<MachineId, (Machine, Option<Presence>)>,
    pub units: BTreeMap<UnitName, Unit>,
    pub placements: BTreeMap<UnitName, Placement>,
    /// The id of the newest placement ever made.
    pub last_placement: u64,
    /// What machines say of units. There is something from a unit's placement on ([`UnitStatus::unheard`]) until its
    /// machine has confirmed that it is not there.
    pub statuses: BTreeMap<(MachineId, UnitName), UnitStatus>,
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

impl Snapshot {
    /// Whether the machine is there, with its presence.
    #[must_use]
    pub fn presence(&self, machine: &MachineId) -> Option<&Presence> {
        self.machines.get(machine).and_then(|(_, presence)| presence.as_ref())
    }
}

/// What to do, in order. Planning again after all of it is [applied](apply()) gives no actions.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let changes = apps::decide(snapshot, &mut plan.problems);
    runs::decide(snapshot, &mut plan.actions);
    placing::decide(snapshot, &changes, &mut plan.actions);
    plan
}

/// For every machine, why the unit is there, could come or cannot; in the order of machines. Empty for an unknown unit.
#[must_use]
pub fn explain(snapshot: &Snapshot, unit: &UnitName) -> Vec<(MachineId, Verdict)> {
    let view = View::new(snapshot, view::wanted(snapshot), &BTreeSet::new());
    let Some(wanted) = view.wanted(unit) else { return Vec::new() };
    snapshot.machines.keys().map(|machine| (machine.clone(), view.verdict(wanted, machine))).collect()
}

/// Whether `machine` is to run `unit`: by its placement, or by its requirements if it is global. Whether the machine
/// is there plays no part, so that a machine that was away comes back to the same units.
///
/// Looks through all units if the unit is global; use [`units_by_machine`] to ask for many.
#[must_use]
pub fn runs_on(snapshot: &Snapshot, unit: &Unit, machine: &MachineId) -> bool {
    let wanted = Wanted::of(unit);
    if !wanted.is_global() {
        return wanted.needs_placement()
            && snapshot.placements.get(&unit.name).is_some_and(|placement| placement.machine == *machine);
    }
    let Some((machine, _)) = snapshot.machines.get(machine) else { return false };
    let placed = snapshot
        .placements
        .values()
        .filter(|placement| placement.machine == machine.id)
        .filter_map(|placement| snapshot.units.get(&placement.unit))
        .map(Wanted::of)
        .filter(Wanted::needs_placement);
    let globals = snapshot.units.values().map(Wanted::of).filter(Wanted::is_global);
    view::running_globals(machine, globals, &placed.collect::<Vec<_>>())
        .iter()
        .any(|one| one.name == &unit.name)
}

/// The units that each machine is to run, as [`runs_on`] says; for every machine known.
#[must_use]
pub fn units_by_machine(snapshot: &Snapshot) -> BTreeMap<MachineId, BTreeSet<UnitName>> {
    let globals: Vec<Wanted<'_>> =
        snapshot.units.values().map(Wanted::of).filter(Wanted::is_global).collect();
    let mut placed: BTreeMap<&MachineId, Vec<Wanted<'_>>> = BTreeMap::new();
    for placement in snapshot.placements.values() {
        if let Some(unit) =
            snapshot.units.get(&placement.unit).map(Wanted::of).filter(Wanted::needs_placement)
        {
            placed.entry(&placement.machine).or_default().push(unit);
        }
    }
    snapshot
        .machines
        .iter()
        .map(|(id, (machine, _))| {
            let placed = placed.remove(id).unwrap_or_default();
            let mut units = view::running_globals(machine, globals.iter().copied(), &placed);
            units.extend(placed);
            (id.clone(), units.into_iter().map(|unit| unit.name.clone()).collect())
        })
        .collect()
}

/// Whether a unit of this name and wish can be on machines at all.
fn is_active(name: &UnitName, desired: DesiredState) -> bool {
    desired != DesiredState::Inactive && !name.is_template()
}
