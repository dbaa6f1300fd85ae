//! The machine's own systemd: which manager to talk to ([`launch`]) and how ([`bus`]).
//!
//! systemd is the only unit manager there is; this module supervises nothing itself. It does not know assignments,
//! releases or servers.

pub mod bus;
pub mod launch;

pub use bus::{Change, JobResult, Systemd, UnitState};
pub use launch::{Manager, Scope};
