//! The lab's program: hosts, simulated stories and benchmarks. It prints what it found and decides nothing by it, but for a
//! story that went wrong.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers, which talks to them"
)]

mod commands;

use std::error::Error;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sealift_lab::bench::{self, BENCHES};
use sealift_lab::simulator::{Options, Summary, simulate};
use sealift_model::diagnostic::chain;

/// Hosts to test on, simulated fleets and benchmarks of Sealift, for its developers.
#[derive(Debug, Parser)]
#[command(name = "lab", max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell stories of a simulated fleet around the real planner, and see whether they end well
    #[command(after_help = "Examples:\n  lab simulate --seed 17\n  lab simulate --stories 10000")]
    Simulate(SimulateArgs),
    /// Measure something: a table, and the same figures as a last line of JSON
    #[command(after_help = "Examples:\n  lab bench --list\n  lab bench placement")]
    Bench(BenchArgs),
    /// Boot hosts with a systemd of their own, joined by a network of their own (needs root)
    #[command(subcommand)]
    Hosts(commands::hosts::Command),
    /// Break things on a cluster of hosts at random, and see whether all is as it should be (needs root)
    #[command(after_help = "Examples:\n  lab soak --minutes 30 --hosts 5\n  lab soak --minutes 2 --seed 17")]
    Soak(commands::soak::SoakArgs),
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// Which benchmark
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Say which there are
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Args)]
struct SimulateArgs {
    /// The first story's seed
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// How many stories, each of the next seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    stories: u64,
    /// Events of each story until the calm
    #[arg(long, default_value_t = Options::default().events, value_name = "N")]
    events: usize,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Simulate(args) => tell(&args),
        Command::Bench(args) => bench(&args),
        Command::Soak(args) => commands::soak::run(&args).unwrap_or_else(|error| failed(&error)),
        Command::Hosts(command) => commands::hosts::run(command).unwrap_or_else(|error| failed(&error)),
    }
}

fn tell(args: &SimulateArgs) -> ExitCode {
    let options = Options { events: args.events, ..Options::default() };
    let mut total = Summary::default();
    for seed in args.seed..args.seed.saturating_add(args.stories) {
        match simulate(seed, &options) {
            Ok(summary) => total += summary,
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} stories ended well: {total:#?}", args.stories);
    ExitCode::SUCCESS
}

fn bench(args: &BenchArgs) -> ExitCode {
    let Some(name) = args.name.as_ref().filter(|_| !args.list) else {
        for (name, what) in BENCHES {
            println!("{name:<10} {what}");
        }
        return ExitCode::SUCCESS;
    };
    if cfg!(debug_assertions) {
        eprintln!("warning: built without --release; the figures say little");
    }
    match measure(name) {
        Ok((table, json)) => {
            println!("{table}\n\n{json}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// Says an error with what it comes from.
fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("error: {}", chain(error));
    ExitCode::FAILURE
}

fn measure(name: &str) -> Result<(String, String), bench::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime =
        runtime.map_err(|source| bench::Error::Io { action: "start", what: "the runtime".into(), source })?;
    let report = runtime.block_on(bench::run(name))?;
    Ok((report.table(), report.json()?))
}
