//! A wercker.yml is read or refused, never panics, and what is said of it lies inside of it.
#![no_main]

#[allow(dead_code, reason = "the other half is for the other target")]
#[path = "../../crates/pipeline/tests/it/promises.rs"]
mod promises;

libfuzzer_sys::fuzz_target!(|text: &str| promises::config_holds(text));
