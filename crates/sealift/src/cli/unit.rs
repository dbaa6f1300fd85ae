//! The arguments of `sealift unit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sealift_model::UnitName;

use super::ssh::UnitSsh;

pub(super) const EXAMPLES: &str = "\
Examples:
  sealift unit start web.service 'worker@{1..8}.service'
  sealift unit list
  sealift unit explain web.service
  sealift unit stop 'worker@*'

A unit file is submitted once and is then known to the servers by its name; `start` submits what is not known yet.
Names without a suffix are services. Names may hold {1..8} and {a,b}, and * and ? where they name units that are known.";

#[derive(Debug, Subcommand)]
pub(crate) enum UnitCommand {
    /// Make units known to the servers, on no machine yet
    #[command(after_help = "Example: sealift unit submit web.service")]
    Submit(UnitFiles),
    /// Put units on machines without starting them
    #[command(after_help = "Example: sealift unit load web.service")]
    Load(UnitFiles),
    /// Put units on machines and start them
    #[command(
        after_help = "Examples:\n  sealift unit start web.service\n  sealift unit start 'worker@{1..8}' --replace"
    )]
    Start(UnitFiles),
    /// Stop units; they stay on their machines
    #[command(after_help = "Example: sealift unit stop web.service")]
    Stop(UnitNames),
    /// Stop units and take them from their machines
    #[command(after_help = "Example: sealift unit unload web.service")]
    Unload(UnitNames),
    /// Stop units and forget them
    #[command(after_help = "Example: sealift unit destroy 'worker@*'")]
    Destroy(UnitNames),
    /// Start units anew where they are
    #[command(after_help = "Example: sealift unit restart web.service")]
    Restart(UnitNames),
    /// List units with where they are and how they are
    #[command(after_help = "Example: sealift unit list 'worker@*'")]
    List(UnitSelection),
    /// List units with what was asked for
    #[command(after_help = "Example: sealift unit files --output json")]
    Files(UnitSelection),
    /// Print a unit's file as it was submitted
    #[command(after_help = "Example: sealift unit cat web.service")]
    Cat(OneUnit),
    /// Tell all there is to know of units
    #[command(after_help = "Example: sealift unit status web.service")]
    Status(UnitSelection),
    /// Print a unit's journal, through its machine's agent
    #[command(
        after_help = "Examples:\n  sealift unit journal web.service\n  sealift unit journal -f --lines 100 web.service"
    )]
    Journal(JournalArgs),
    /// Log in to a unit's machine, or run a command there, with this machine's own ssh
    #[command(
        after_help = "Examples:\n  sealift unit ssh web.service\n  sealift unit ssh --user core web.service systemctl status web.service\n\nIt ends with the code that ssh gives: the command's, or 255 if it did not come so far."
    )]
    Ssh(UnitSsh),
    /// Find what is wrong with unit files before a machine does
    #[command(after_help = "Example: sealift unit verify units/*.service")]
    Verify(UnitVerify),
    /// Tell why a unit is where it is, and of every other machine why it is not there
    #[command(after_help = "Example: sealift unit explain web.service")]
    Explain(OneUnit),
}

#[derive(Debug, Args)]
pub(crate) struct UnitFiles {
    /// Unit files, or names of units that are known
    #[arg(required = true, value_name = "UNIT")]
    pub(crate) units: Vec<String>,
    /// Where a unit is known with another text, give it this one
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct UnitNames {
    #[arg(required = true, value_name = "UNIT")]
    pub(crate) units: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// How long a command waits until what it asked for is so.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Wait {
    /// Return as soon as it is written down
    #[arg(long)]
    pub(crate) no_block: bool,
    /// Give up waiting after this; what was asked for stays asked for [default: never]
    #[arg(long, value_parser = super::roles::seconds, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct UnitSelection {
    /// Only these
    #[arg(value_name = "UNIT")]
    pub(crate) units: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    #[arg(value_parser = name)]
    pub(crate) unit: UnitName,
    /// So many of the newest lines
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N")]
    pub(crate) lines: u32,
    /// And those that come, until you end it
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How lines look, as journalctl's --output
    #[arg(long, default_value = "short", value_name = "FORMAT")]
    pub(crate) format: String,
    /// The machine, where the unit is on several
    #[arg(long)]
    pub(crate) machine: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UnitVerify {
    /// Unit files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Warnings are errors
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OneUnit {
    #[arg(value_parser = name)]
    pub(crate) unit: UnitName,
}

/// A name without a known suffix is a service's.
pub(crate) fn name(text: &str) -> Result<UnitName, sealift_model::InvalidName> {
    text.parse().or_else(|error| format!("{text}.service").parse().map_err(|_| error))
}
