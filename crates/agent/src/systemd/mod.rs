//! The machine's own systemd: which manager to talk to ([`launch`]) and how ([`bus`]), and Podman's generator of services
//! for it ([`quadlet`]).
//!
//! systemd is the only unit manager there is; this module supervises nothing itself. It does not know assignments,
//! releases or servers.

pub mod bus;
pub mod launch;
pub mod quadlet;
mod told;

pub use bus::{Change, JobResult, Listed, Systemd, UnitState, Usage};
pub use launch::{Manager, Scope};
pub use quadlet::Quadlet;
