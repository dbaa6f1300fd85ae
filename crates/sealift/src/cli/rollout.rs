//! The arguments of `sealift rollout`.

use clap::{Args, Subcommand};
use sealift_model::UnitName;

use super::unit::{Wait, name};

pub(super) const EXAMPLES: &str = "\
Examples:
  sealift unit start --replace web@.service    # a changed unit rolls out by its Update*= keys
  sealift rollout list
  sealift rollout back web@.service
  sealift rollout again web@.service

A rollout has the name of the unit that changes, or of the template whose instances change together.";

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// List changes that are rolling out, and those that were taken back
    #[command(after_help = "Example: sealift rollout list --output json")]
    List,
    /// Take a change back: what was given it goes back to what ran before, no more at once than may be out
    #[command(after_help = "Example: sealift rollout back web@.service")]
    Back(OneRollout),
    /// Begin again with a change that was taken back
    #[command(after_help = "Example: sealift rollout again web@.service")]
    Again(OneRollout),
}

#[derive(Debug, Args)]
pub(crate) struct OneRollout {
    #[arg(value_parser = name, value_name = "UNIT")]
    pub(crate) unit: UnitName,
    #[command(flatten)]
    pub(crate) wait: Wait,
}
