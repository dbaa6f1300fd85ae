//! The program `sealift`: arguments, wiring, printing. What it does is in the crates below it.

mod cli;
mod commands;
mod error;
mod print;
mod state_dir;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SEALIFT_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    // Commands wait most of the time; two threads keep a slow disk from holding up the sockets.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return error::report(&error::Error::Runtime(error), cli.global.output),
    };
    match runtime.block_on(commands::run(cli.command, &cli.global)) {
        Ok(code) => code,
        Err(error) => error::report(&error, cli.global.output),
    }
}
