//! The arguments of `sealift machine`.

use clap::Subcommand;

use super::access::{JoinTokenArgs, RemoveMachineArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  sealift machine join-token --for 1h
  sealift machine remove 0123456789abcdef0123456789abcdef";

#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// Make a token with which a machine joins, and print it: it is shown this once
    #[command(
        after_help = "Examples:\n  sealift machine join-token > join.token\n  sealift machine join-token --uses 20 --class untrusted\n  sealift machine join-token --list\n\nOn the machine: sealift agent --server https://SERVER:4641 --join join.token"
    )]
    JoinToken(JoinTokenArgs),
    /// Put a machine out of the fleet: its certificate counts no more. Drain it before: its units run on where they are
    #[command(after_help = "Example: sealift machine remove 0123456789abcdef0123456789abcdef")]
    Remove(RemoveMachineArgs),
}
