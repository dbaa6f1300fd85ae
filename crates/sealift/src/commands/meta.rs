//! What is made from the command line's own definition.

use std::io;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::error::Error;

pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sealift", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script).map_err(Error::Print)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(args: &ManArgs) -> Result<ExitCode, Error> {
    let io = |action| move |source| Error::Io { action, path: args.dir.clone(), source };
    std::fs::create_dir_all(&args.dir).map_err(io("make"))?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(io("write into"))?;
    Ok(ExitCode::SUCCESS)
}
