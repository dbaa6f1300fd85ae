//! What tests and benchmarks need and the product does not: hosts with a real systemd, a simulated fleet, measurements.
//!
//! Nothing here is part of the program that users get, and no crate of the product may depend on this one.

pub mod bench;
pub mod cluster;
pub mod hosts;
pub mod light_host;
pub mod rng;
pub mod simulator;

pub use light_host::LightHost;
