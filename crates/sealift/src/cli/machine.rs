//! The arguments of `sealift machine`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::access::JoinTokenArgs;
use super::ssh::MachineSsh;
use super::unit::Wait;

pub(super) const EXAMPLES: &str = "\
Examples:
  sealift machine list
  sealift machine drain node-3
  sealift machine metadata node-3 disk=ssd region-
  sealift machine join-token > join.token

A machine is named by its id, the beginning of it, or its name.";

#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// List machines
    #[command(after_help = "Example: sealift machine list --output json")]
    List,
    /// Move a machine's units elsewhere and give it no new ones
    #[command(
        after_help = "Examples:\n  sealift machine drain node-3\n  sealift machine drain node-3 --for 2h --in 30m"
    )]
    Drain(DrainArgs),
    /// Give a machine no new units; those that are there stay
    #[command(after_help = "Example: sealift machine cordon node-3")]
    Cordon(OneMachine),
    /// Let units come to a machine again, after `drain` or `cordon`
    #[command(after_help = "Example: sealift machine uncordon node-3")]
    Uncordon(OneMachine),
    /// Show or change what units can ask for with MachineMetadata=
    #[command(
        after_help = "Examples:\n  sealift machine metadata node-3\n  sealift machine metadata node-3 disk=ssd region-\n\nWhat is set here counts more than what the machine's agent was started with."
    )]
    Metadata(MetadataArgs),
    /// Move units from machines that have more to do than others, a bounded number at a time
    #[command(
        after_help = "Examples:\n  sealift machine rebalance --dry-run\n  sealift machine rebalance --max 5\n\nEach unit stops and starts once. What is bound to its machine stays."
    )]
    Rebalance(RebalanceArgs),
    /// Log in to a machine, or run a command there, with this machine's own ssh
    #[command(
        after_help = "Examples:\n  sealift machine ssh node-3\n  sealift machine ssh --user core -J bastion node-3 uptime\n\nIt ends with the code that ssh gives: the command's, or 255 if it did not come so far."
    )]
    Ssh(MachineSsh),
    /// Make a token with which a machine joins, and print it: it is shown this once
    #[command(
        after_help = "Examples:\n  sealift machine join-token > join.token\n  sealift machine join-token --uses 20 --class untrusted\n  sealift machine join-token --list\n\nOn the machine: sealift agent --server https://SERVER:4641 --join join.token"
    )]
    JoinToken(JoinTokenArgs),
    /// Put a machine out of the fleet: its certificate counts no more. Drain it before: what runs there runs on
    #[command(after_help = "Example: sealift machine remove node-3")]
    Remove(OneMachine),
}

#[derive(Debug, Args)]
pub(crate) struct OneMachine {
    pub(crate) machine: String,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    pub(crate) machine: String,
    /// Only for so long; the machine then takes units again by itself
    #[arg(long = "for", value_parser = super::roles::seconds, value_name = "TIME")]
    pub(crate) span: Option<Duration>,
    /// Begin after this time, not now
    #[arg(long = "in", requires = "span", value_parser = super::roles::seconds, value_name = "TIME")]
    pub(crate) delay: Option<Duration>,
    /// Return without waiting until its units have left
    #[arg(long)]
    pub(crate) no_block: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MetadataArgs {
    pub(crate) machine: String,
    /// KEY=VALUE sets, KEY- takes away, KEY~ leaves the key to the machine's agent again
    #[arg(value_name = "CHANGE", value_parser = change)]
    pub(crate) changes: Vec<MetadataChange>,
}

#[derive(Debug, Args)]
pub(crate) struct RebalanceArgs {
    /// So many moves at most
    #[arg(
        long,
        default_value_t = 10,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub(crate) max: u32,
    /// Only tell what would be moved; the same as `sealift plan rebalance`
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetadataChange {
    Set(String, String),
    Remove(String),
    Leave(String),
}

fn change(text: &str) -> Result<MetadataChange, String> {
    if let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) {
        return Ok(MetadataChange::Set(key.into(), value.into()));
    }
    let ending = |mark| text.strip_suffix(mark).filter(|key: &&str| !key.is_empty()).map(str::to_owned);
    ending('-')
        .map(MetadataChange::Remove)
        .or_else(|| ending('~').map(MetadataChange::Leave))
        .ok_or_else(|| "expected KEY=VALUE, KEY- or KEY~".into())
}
