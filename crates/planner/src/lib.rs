//! Pure decisions: which units exist, where they run, which machine takes which run.
//!
//! [`Planner`] is told what changes and says what to do, at a cost that follows what the change concerns. [`plan`] does the
//! same for one [`Snapshot`], and [`apply()`] says what that is like afterwards. The same state gives the same plan however
//! it came to be, and each action is right given that those before it were carried out.
//!
//! Must not know: clocks, chance, stores, machines as such. Whoever calls turns every action into one transaction
//! that compares what the action rests on.

mod action;
mod apply;
mod claims;
mod fit;
mod glob;
mod globals;
pub mod invariants;
mod leave;
mod ledger;
mod place;
mod planner;
mod pools;
mod reason;
mod rollout;
mod runs;
mod snapshot;
mod state;

use sealift_model::{DesiredState, MachineId, UnitName};

pub use action::{Action, Plan, Problem, Subject};
pub use apply::{apply, apply_to_run};
pub use claims::MAX_REPLICAS;
pub use ledger::{Applied, Concern, Ledger};
pub use planner::{Planner, Reader, plan, plan_with};
pub use reason::{Reason, Verdict};
pub use runs::MAX_ATTEMPTS;
pub use snapshot::{AppView, Change, Snapshot, globals_on, runs_on, units_by_machine};

/// For every machine, why the unit is there, could come or cannot; in the order of machines. Empty for an unknown unit.
#[must_use]
pub fn explain(snapshot: &Snapshot, unit: &UnitName) -> Vec<(MachineId, Verdict)> {
    let mut planner = Planner::of(snapshot, Reader::PLAIN);
    planner.reserve();
    planner.explain(unit)
}

/// Whether a unit of this name and wish can be on machines at all.
fn is_active(name: &UnitName, desired: DesiredState) -> bool {
    desired != DesiredState::Inactive && !name.is_template()
}
