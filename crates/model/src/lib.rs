//! The nouns of Sealift and the states they pass through.
//!
//! Everything here is plain data with serde forms: the same JSON is stored, sent and printed. Objects that are
//! stored keep unknown keys (`extra`), so that an older program that rewrites them loses nothing a newer one added.
//!
//! This crate does no IO and reads no clock: times are handed in as [`Timestamp`]s. It imports none of our crates.

mod app;
mod approval;
mod assignment;
pub mod diagnostic;
mod event;
mod glob;
mod machine;
mod name;
mod package;
mod role;
mod rollout;
mod run;
mod secret;
mod time;
mod unit;

pub use app::{App, AppPhase, Release, ReleaseNumber};
pub use approval::{Answer, Approval};
pub use assignment::{Assignment, RunAssignment, UnitAssignment};
pub use event::{EventKind, NodePlan, RunEvent, Stream};
pub use glob::glob_matches;
pub use machine::{Availability, Machine, MachineSettings, Maintenance, Presence, Resources};
pub use name::{
    BranchName, CommitId, Digest, InvalidName, MachineId, ProjectName, RunId, SecretName, SessionId,
    UnitKind, UnitName,
};
pub use package::{Package, PackageName};
pub use role::{Projects, Role};
pub use rollout::{MOST_VERSION_BYTES, Update, UpdateStage, Version};
pub use run::{Attempt, AttemptEnd, Run, RunState, StepOutcome, StepResult};
pub use secret::{InvalidSecret, SecretValue};
pub use time::Timestamp;
pub use unit::{
    ActiveState, CutOff, DesiredState, Gate, OnFailure, Placement, Requirements, Share, Unit, UnitStatus,
    UpdateOrder, UpdatePolicy, Withdrawal,
};

/// Keys that this version does not know, kept as they came.
pub type Extra = serde_json::Map<String, serde_json::Value>;
