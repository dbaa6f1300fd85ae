//! The program `sealift`: arguments, wiring, printing. What it does is in the crates below it.

mod cli;
mod clock;
mod commands;
mod error;
mod print;
mod state_dir;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(words) = commands::wercker::asked(&args) {
        return commands::wercker::main(words);
    }
    if let Some(words) = commands::fleetctl::asked(&args) {
        return commands::fleetctl::main(words);
    }
    if let Some(words) = commands::fleetd::asked(&args) {
        return commands::fleetd::main(words);
    }
    let cli = cli::Cli::parse_from(args);
    start_log("warn");
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

/// Tells on standard error what goes on inside, down to `level` unless SEALIFT_LOG says otherwise.
fn start_log(level: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SEALIFT_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level)),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
