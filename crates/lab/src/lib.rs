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

/// An error with what it comes from.
#[must_use]
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
