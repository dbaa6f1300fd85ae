//! The planner by tables, rule by rule, and by random snapshots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apps;
mod ledger;
mod placing;
mod random;
mod rollouts;
mod room;
mod runs;
mod transcripts;
mod world;
