//! `sealift machine`.

use std::process::ExitCode;

use super::access;
use crate::cli::{Global, MachineCommand};
use crate::error::Error;

pub(super) async fn machine(command: MachineCommand, global: &Global) -> Result<ExitCode, Error> {
    match command {
        MachineCommand::JoinToken(args) => access::join_token(args, global).await,
        MachineCommand::Remove(args) => access::remove_machine(args, global).await,
    }
}
