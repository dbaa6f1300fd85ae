//! `lab hosts`: hosts to try things on by hand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Subcommand};
use sealift_lab::hosts::{self, Error, Host, Hosts, Options};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot hosts and hold them until Ctrl-C
    #[command(
        after_help = "Examples:\n  lab hosts up 3\n  lab hosts up 5 --keep && lab hosts exec h1 -- ping -c 1 h2"
    )]
    Up(UpArgs),
    /// Run a command on a host that was left up
    #[command(after_help = "Examples:\n  lab hosts exec h1 -- systemctl status\n  lab hosts exec h2 -- bash")]
    Exec(ExecArgs),
    /// Do something to a host that was left up, or take it back
    #[command(after_help = "Examples:\n  lab hosts fault h1 cut\n  lab hosts fault h1 uncut")]
    Fault(FaultArgs),
    /// End the hosts that were left up
    Down,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// How many
    count: usize,
    /// Debian's release that they run; it has to be made by scripts/host-image before. By default this machine's own
    #[arg(long, value_name = "RELEASE")]
    base: Option<String>,
    /// A file or folder of this machine that each host has at the same place, and cannot change
    #[arg(long, value_name = "PATH")]
    bind: Vec<PathBuf>,
    /// Leave them up until `lab hosts down`
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// h1, h2 and so on
    host: String,
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    /// h1, h2 and so on
    host: String,
    #[command(subcommand)]
    fault: Fault,
}

#[derive(Debug, Subcommand)]
enum Fault {
    /// Cut the power
    Kill,
    /// Shut down in order
    PowerOff,
    /// Switch on again, with the same disk
    Start,
    /// Pull the network cable
    Cut,
    /// Plug it in again
    Uncut,
    /// Stop all processes where they are
    Freeze,
    /// Let them go on
    Thaw,
    /// Let no more than so many kilobits a second through
    SlowDown { kilobits: u32 },
    /// Take that back
    SpeedUp,
    /// Lose so many of a hundred packets to and from other hosts
    Lose { percent: u8 },
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Up(args) => up(args),
        Command::Exec(args) => exec(&args),
        Command::Fault(args) => fault(&args),
        Command::Down => hosts::down().map(|()| ExitCode::SUCCESS),
    }
}

fn up(args: UpArgs) -> Result<ExitCode, Error> {
    let mut options = Options::new(args.count, hosts::base(args.base.as_deref())?);
    options.binds = args.bind.into_iter().map(|path| hosts::Bind { from: path.clone(), to: path }).collect();
    let begun = Instant::now();
    let hosts = if args.keep { hosts::up_and_keep(options)? } else { Hosts::up(options)? };
    println!("up after {:.1} s:", begun.elapsed().as_secs_f64());
    for host in hosts.all() {
        println!("{}  {}", host.name(), host.address());
    }
    if args.keep {
        println!("lab hosts exec h1 -- COMMAND runs something there; lab hosts down ends them");
    } else {
        println!("Ctrl-C ends them");
        wait_for_the_end()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wait_for_the_end() -> Result<(), Error> {
    let waiting = || "for Ctrl-C".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Spawn { what: waiting(), source })?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut ended =
            signal(SignalKind::terminate()).map_err(|source| Error::Spawn { what: waiting(), source })?;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = ended.recv() => {}
        }
        Ok(())
    })
}

/// The host that is called so.
fn named<'a>(hosts: &'a Hosts, name: &str) -> Result<&'a Host, Error> {
    let number = name.strip_prefix('h').and_then(|number| number.parse().ok());
    hosts.host(number.ok_or_else(|| Error::NoName { name: name.to_owned() })?)
}

fn exec(args: &ExecArgs) -> Result<ExitCode, Error> {
    let hosts = hosts::attach()?;
    let Some((program, rest)) = args.command.split_first() else { return Ok(ExitCode::FAILURE) };
    let mut command = named(&hosts, &args.host)?.command(program)?;
    if let Ok(term) = std::env::var("TERM") {
        command.env("TERM", term);
    }
    let status = command.args(rest).status();
    let status = status.map_err(|source| Error::Spawn { what: args.command.join(" "), source })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn fault(args: &FaultArgs) -> Result<ExitCode, Error> {
    let hosts = hosts::attach()?;
    let host = named(&hosts, &args.host)?;
    match args.fault {
        Fault::Kill => host.kill(),
        Fault::PowerOff => host.power_off(),
        Fault::Start => host.start(),
        Fault::Cut => host.cut(),
        Fault::Uncut => host.uncut(),
        Fault::Freeze => host.freeze(),
        Fault::Thaw => host.thaw(),
        Fault::SlowDown { kilobits } => host.slow_down(kilobits),
        Fault::SpeedUp => host.speed_up(),
        Fault::Lose { percent } => host.lose(percent),
    }?;
    Ok(ExitCode::SUCCESS)
}
