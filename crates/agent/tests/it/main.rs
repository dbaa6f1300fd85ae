//! The agent against a real systemd: a private manager per test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may stop at the first surprise too"
)]

mod releases;
mod systemd;
mod units;
