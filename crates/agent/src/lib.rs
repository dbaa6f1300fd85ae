//! The agent: makes one machine match its assignments.

pub mod systemd;
