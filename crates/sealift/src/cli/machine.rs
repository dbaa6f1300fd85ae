//! The arguments of `sealift machine`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::access::JoinTokenArgs;

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
