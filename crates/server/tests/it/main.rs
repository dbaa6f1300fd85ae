//! The control plane as agents and users meet it: a real server on a Unix socket, the real client, an agent that only
//! says what it is told to say.
//!
//! Nothing here waits for a while and hopes: tests wait on the same streams that agents and users read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise and say why"
)]

mod accepting;
mod agent;
mod approvals;
mod apps;
mod assignments;
mod blobs;
mod doors;
mod ends;
mod fencing;
mod fleet;
mod garbage;
mod gate;
mod handout;
mod house;
mod leading;
mod leases;
mod logs;
mod plan;
mod questions;
mod rights;
mod secrets;
mod tls;
mod units;
mod unknown;
mod wire;
