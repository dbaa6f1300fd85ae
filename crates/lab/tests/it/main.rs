//! What the lab promises to those who test with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]

mod hosts;
mod light_host;
mod simulator;
