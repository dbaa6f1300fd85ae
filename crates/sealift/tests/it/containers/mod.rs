//! Whole ways of commits, with pipelines in real containers. One at a time, see .config/nextest.toml.

mod approvals;
mod crash;
mod local;
mod push;
mod secrets;
mod wercker;
