//! The control plane: the HTTP API, the watch cache it answers from, and the controllers around the planner.
//!
//! State lives in the store and is written in transactions that compare before they set; bytes (sources, packages,
//! logs) live in files. The server decides nothing about placement itself (the planner does) and touches no machine
//! (agents do).

mod api;
mod audit;
mod cache;
mod controller;
mod copies;
mod housekeeping;
mod keys;
mod leading;
mod logs;
mod metrics;
mod secrets;
mod server;
mod tls;
pub mod transfer;

pub use housekeeping::{Defragment, Housekeeping};
pub use server::{Election, Error, Options, Server};
pub use tls::Options as TlsOptions;
