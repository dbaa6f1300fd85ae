//! What this crate promises, checked from outside: on real files and against a real container engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]

mod builtin;
mod caches;
mod checkpoints;
mod contract;
mod corpus;
mod ecr;
mod ends;
mod fuzz;
mod host;
mod import;
mod internal;
mod keys;
mod leave;
mod promises;
mod registry;
mod secrets;
mod services;
mod settings;
mod sources;
mod speed;
mod steps;
mod workflow;
