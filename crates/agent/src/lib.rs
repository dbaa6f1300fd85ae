//! The agent: makes one machine match its assignments.

pub mod releases;
pub mod reports;
pub mod systemd;
pub mod units;
