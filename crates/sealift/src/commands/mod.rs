//! A module per command group. They ask, wait and print; nothing is decided here.

mod access;
mod agent;
mod approvals;
mod check;
mod connect;
mod dev;
mod etcd;
pub(crate) mod fleetctl;
pub(crate) mod fleetd;
mod import;
mod list;
mod listen;
mod local;
mod machine;
mod meta;
mod plan;
mod push;
mod rebalance;
mod rollback;
mod rollout;
mod runs;
mod secret;
mod server;
mod ssh;
mod steps;
pub(crate) mod store;
mod this_machine;
mod unit;
pub(crate) mod wercker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use sealift_pipeline::config::Config;
use tokio::signal::unix::{SignalKind, signal};

use connect::client;

use crate::cli::{Command, Global};
use crate::error::Error;
use crate::state_dir;

/// How long a machine counts as present after its last keep-alive, unless somebody says otherwise.
const MACHINE_TTL: Duration = Duration::from_secs(10);

pub(crate) async fn run(command: Command, global: &Global) -> Result<ExitCode, Error> {
    match command {
        Command::Run(args) => Box::pin(local::run(*args, global)).await,
        Command::Check(args) => check::check(&args, global),
        Command::Import(args) => import::import(&args, global),
        Command::Steps(args) => steps::steps(&args, global),
        Command::Dev(args) => dev::dev(args, global).await,
        Command::Server(args) => server::server(args, global).await,
        Command::Agent(args) => agent::agent(args, global).await,
        Command::Etcd(command) => Box::pin(etcd::etcd(command, global)).await,
        Command::Store(command) => Box::pin(store::store(command, global)).await,
        Command::Push(args) => push::push(args, global).await,
        Command::Status => list::status(global).await,
        Command::Runs(args) => list::runs(args, global).await,
        Command::Logs(args) => runs::logs(args, global).await,
        Command::Approvals(args) => approvals::list(args, global).await,
        Command::Approve(args) => approvals::approve(args, global).await,
        Command::Reject(args) => approvals::reject(args, global).await,
        Command::Abort(args) => runs::abort(&args, global).await,
        Command::Unit(command) => unit::unit(command, global).await,
        Command::Rollout(command) => rollout::rollout(command, global).await,
        Command::Machine(command) => machine::machine(command, global).await,
        Command::Plan(command) => plan::plan(command, global).await,
        Command::Units => unit::list(&[], global).await,
        Command::Machines => machine::list(global).await,
        Command::Packages(args) => list::packages(args, global).await,
        Command::Rollback(args) => rollback::rollback(args, global).await,
        Command::Token(command) => access::token(command, global).await,
        Command::Authority(command) => access::authority(command, global).await,
        Command::Audit(args) => access::audit(args, global).await,
        Command::Secret(command) => secret::secret(command, global).await,
        // Taken before anything else, unless options of ours stood before it.
        Command::Wercker(args) => Err(Error::with_help(
            "options that are not wercker's own stand before `wercker`",
            format!("sealift wercker {}", args.args.join(" ")),
        )),
        Command::Fleetctl(args) => Err(Error::with_help(
            "options that are not fleetctl's own stand before `fleetctl`",
            format!("sealift fleetctl {}", args.args.join(" ")),
        )),
        Command::Fleetd(args) => Err(Error::with_help(
            "options that are not fleetd's own stand before `fleetd`",
            format!("sealift fleetd {}", args.args.join(" ")),
        )),
        Command::Completions(args) => meta::completions(&args),
        Command::Man(args) => meta::man(&args),
    }
}

fn state_path(global: &Global) -> Result<PathBuf, Error> {
    match &global.state_dir {
        Some(path) => Ok(path.clone()),
        None => state_dir::default_path(),
    }
}

/// Whether a file has the pipeline that was asked for, and one that can be run.
fn check_pipeline(config: &Config, wanted: &str, file: &str, text: &str) -> Result<(), Error> {
    let found = config.pipeline(wanted);
    let dropped = config.dropped.iter().find(|(name, _)| name == wanted).map(|(_, why)| why);
    let problem =
        found.and_then(|pipeline| pipeline.problem.as_ref()).or(dropped.filter(|_| found.is_none()));
    if let Some(problem) = problem {
        return Err(Error::File {
            file: file.to_owned(),
            text: text.to_owned(),
            diagnostics: vec![problem.clone()],
        });
    }
    if found.is_some() {
        return Ok(());
    }
    let known: Vec<_> = config.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    Err(Error::with_help(
        format!("{file} has no pipeline {wanted:?}; it has: {known}"),
        "choose one with --pipeline",
    ))
}

/// Waits until somebody asks this process to end.
async fn end_asked() -> Result<(), Error> {
    end_signals()?.await;
    Ok(())
}

/// Listens at once, and then waits until somebody asks this process to end.
fn end_signals() -> Result<impl Future<Output = ()>, Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
