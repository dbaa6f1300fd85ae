//! The program as a user meets it: real processes, a real systemd (private, so that tests do not meet), real containers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests may stop at the first surprise and say why"
)]

mod access;
mod architecture;
mod cli;
mod containers;
mod etcd;
mod events;
mod fleet;
mod fleetd;
mod host;
mod plan;
mod rollouts;
mod screen;
mod secrets;
mod ssh;
mod units;
mod wercker;
