//! `lab soak`: random faults on a cluster, for as long as one likes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use sealift_lab::cluster::soak::{Options, soak};
use sealift_lab::cluster::{Cluster, Error, MACHINE_TTL, Plan};
use sealift_lab::hosts;

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// How long
    #[arg(long, default_value_t = 10, value_name = "N")]
    minutes: u64,
    /// On how many hosts; up to three of them have a server and a member of etcd
    #[arg(long, default_value_t = 3, value_name = "N")]
    hosts: usize,
    /// What is drawn, to draw it again [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Debian's release that the hosts run, see scripts/host-image [default: this machine's]
    #[arg(long, value_name = "RELEASE")]
    base: Option<String>,
    /// The sealift to try [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where the hosts' logs go when it fails
    #[arg(long, default_value = "soak-logs", value_name = "FOLDER")]
    logs: PathBuf,
}

/// Servers and members of etcd: three get over the loss of one.
const SERVERS: usize = 3;

pub(crate) fn run(args: &SoakArgs) -> Result<ExitCode, Error> {
    let drawn = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = args.seed.unwrap_or_else(drawn);
    let again = format!("lab soak --minutes {} --hosts {} --seed {seed}", args.minutes, args.hosts);
    println!("{again}");
    let plan = Plan {
        hosts: args.hosts,
        servers: args.hosts.min(SERVERS),
        base: hosts::base(args.base.as_deref())?,
        program: args.program.clone().unwrap_or_else(beside),
        machine_ttl: MACHINE_TTL,
    };
    let cluster = Cluster::start(&plan)?;
    let options = Options { length: Duration::from_secs(args.minutes.saturating_mul(60)), seed };
    match soak(&cluster, options, |line| println!("{line}")) {
        Ok(summary) => {
            println!("all was as it should be: {summary:#?}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            cluster.hosts().save_logs(&args.logs)?;
            println!(
                "FAILED; the hosts' logs are in {}; the same rounds again: {again}",
                args.logs.display()
            );
            Err(error)
        }
    }
}

fn beside() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("sealift")
}
