//! The arguments of `sealift plan`.

use clap::{Args, Subcommand};

use super::machine::{MetadataArgs, OneMachine};

pub(super) const EXAMPLES: &str = "\
Examples:
  sealift plan start web.service 'worker@{1..8}'
  sealift plan drain node-3
  sealift plan lose node-3
  sealift plan metadata node-3 disk=ssd
  sealift plan rebalance --max 5

Nothing is changed. Exit code 1 if a unit would be on no machine that has one now or is asked for, else 0.";

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// If these units were started
    #[command(after_help = "Example: sealift plan start --replace 'worker@{1..8}'")]
    Start(PlannedFiles),
    /// If these units were put on machines without being started
    #[command(after_help = "Example: sealift plan load web.service")]
    Load(PlannedFiles),
    /// If these units were stopped
    #[command(after_help = "Example: sealift plan stop web.service")]
    Stop(PlannedNames),
    /// If these units were taken from their machines
    #[command(after_help = "Example: sealift plan unload 'worker@*'")]
    Unload(PlannedNames),
    /// If these units were destroyed
    #[command(after_help = "Example: sealift plan destroy 'worker@*'")]
    Destroy(PlannedNames),
    /// If this machine were drained
    #[command(after_help = "Example: sealift plan drain node-3")]
    Drain(OneMachine),
    /// If this machine were cordoned
    #[command(after_help = "Example: sealift plan cordon node-3")]
    Cordon(OneMachine),
    /// If units could come to this machine again
    #[command(after_help = "Example: sealift plan uncordon node-3")]
    Uncordon(OneMachine),
    /// If this machine's metadata were others
    #[command(after_help = "Example: sealift plan metadata node-3 disk=ssd region-")]
    Metadata(MetadataArgs),
    /// If this machine were gone
    #[command(after_help = "Example: sealift plan lose node-3")]
    Lose(OneMachine),
    /// If it were evened out what machines have to do
    #[command(after_help = "Example: sealift plan rebalance --max 5")]
    Rebalance(PlannedMoves),
}

#[derive(Debug, Args)]
pub(crate) struct PlannedFiles {
    /// Unit files, or names of units that are known
    #[arg(required = true, value_name = "UNIT")]
    pub(crate) units: Vec<String>,
    /// Where a unit is known with another text, as if it were given this one
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlannedNames {
    #[arg(required = true, value_name = "UNIT")]
    pub(crate) units: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PlannedMoves {
    /// So many moves at most
    #[arg(
        long,
        default_value_t = 10,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub(crate) max: u32,
}
