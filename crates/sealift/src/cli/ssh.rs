//! The arguments of `sealift machine ssh` and `sealift unit ssh`.

use std::path::PathBuf;

use clap::Args;
use sealift_model::UnitName;

#[derive(Debug, Args)]
pub(crate) struct MachineSsh {
    #[command(flatten)]
    pub(crate) ssh: SshArgs,
    pub(crate) machine: String,
    /// What to run there instead of a shell; its words go to that machine's shell as ssh passes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UnitSsh {
    #[command(flatten)]
    pub(crate) ssh: SshArgs,
    /// The machine, where the unit is on several
    #[arg(long)]
    pub(crate) machine: Option<String>,
    #[arg(value_parser = super::unit::name)]
    pub(crate) unit: UnitName,
    /// What to run there instead of a shell; its words go to that machine's shell as ssh passes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// What is left out is as your ssh has it.
#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// Log in as this user
    #[arg(long, short = 'l', value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// The port of the machine's sshd
    #[arg(long, short = 'p')]
    pub(crate) port: Option<u16>,
    /// Go through this host, or several with commas between them, as ssh's -J
    #[arg(long, short = 'J', value_name = "HOST")]
    pub(crate) jump: Option<String>,
    /// Where the keys of hosts are that are known, instead of ssh's own files
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Option<PathBuf>,
    /// Let the machine use the keys of your ssh agent
    #[arg(long, short = 'A')]
    pub(crate) forward_agent: bool,
}
