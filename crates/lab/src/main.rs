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
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use sealift_lab::bench::{self, BENCHES};
use sealift_lab::simulator::{Length, Options, Size, Summary, YEAR, simulate};
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
    #[command(
        after_help = "Examples:\n  lab simulate --seed 17\n  lab simulate --stories 10000\n  lab simulate --machines 1000 --years 3"
    )]
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
    /// How many machines `scale` simulates, with 20 units each
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    machines: u32,
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
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    events: usize,
    /// Simulated years of each story until the calm, in place of a number of events
    #[arg(long, value_name = "N", conflicts_with_all = ["events", "hours"])]
    years: Option<u64>,
    /// Simulated hours, in the same way
    #[arg(long, value_name = "N", conflicts_with = "events")]
    hours: Option<u64>,
    /// A big world of so many machines; without, each story is of two to seven
    #[arg(long, value_name = "N")]
    machines: Option<u64>,
    /// Names of units in a big world; about half of them are there at a time
    #[arg(long, value_name = "N", requires = "machines", default_value_t = 6_000)]
    units: u64,
    /// How many milliseconds pass in a big world until something breaks or somebody wants something, on the average
    #[arg(long, value_name = "MS", requires = "machines", default_value_t = 60_000)]
    pace: u64,
    /// After how many events the whole world is judged, beside what each event can have changed; in a big world 100,000 unless
    /// told, in a small one 1
    #[arg(long, value_name = "N")]
    full_every: Option<usize>,
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
    let (units, pace) = (args.units, args.pace);
    let options = Options {
        length: match (args.years, args.hours) {
            (Some(years), _) => Length::Millis(years.saturating_mul(YEAR)),
            (_, Some(hours)) => Length::Millis(hours.saturating_mul(3_600_000)),
            _ => Length::Events(args.events),
        },
        size: args.machines.map_or(Size::Small, |machines| Size::Big { machines, units, pace }),
        full_every: args.full_every.unwrap_or(if args.machines.is_some() { 100_000 } else { 1 }),
        ..Options::default()
    };
    let mut total = Summary::default();
    let began = Instant::now();
    for seed in args.seed..args.seed.saturating_add(args.stories) {
        match simulate(seed, &options) {
            Ok(summary) => total += summary,
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{} stories ended well: {total:#?}", args.stories);
    println!("{}", total.speed(seconds));
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
    match measure(name, args.machines) {
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

fn measure(name: &str, machines: u32) -> Result<(String, String), bench::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime =
        runtime.map_err(|source| bench::Error::Io { action: "start", what: "the runtime".into(), source })?;
    let report = runtime.block_on(bench::run(name, machines))?;
    Ok((report.table(), report.json()?))
}
