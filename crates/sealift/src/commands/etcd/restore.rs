//! `sealift etcd restore`: a member's data directory from a snapshot, by etcd's own tool.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use super::backup::check;
use crate::cli::{EtcdRestore, Global};
use crate::error::Error;
use crate::print::{Printer, visible};

/// Copying a database of many gigabytes takes its time.
const LIMIT: Duration = Duration::from_secs(1800);

pub(super) async fn restore(args: &EtcdRestore, global: &Global) -> Result<ExitCode, Error> {
    let sum = check(&args.file)?;
    let io = |source| Error::Io { action: "look for", path: args.data_dir.clone(), source };
    if args.data_dir.try_exists().map_err(io)? {
        return Err(Error::with_help(
            format!("{} is there already; nothing was changed", args.data_dir.display()),
            "stop the member and move its old data out of the way",
        ));
    }
    let own: Vec<_> = args
        .initial
        .split(',')
        .filter_map(|part| part.split_once('='))
        .filter(|(name, _)| *name == args.name)
        .map(|(_, url)| url)
        .collect();
    if own.is_empty() {
        return Err(Error::with_help(
            format!(
                "{} is none of the members of --initial {}; nothing was changed",
                args.name, args.initial
            ),
            "name all members, this one among them: NAME=PEER-URL,...",
        ));
    }
    // The members that are restored from one file find each other, and no member of the cluster before.
    let token = args.token.clone().unwrap_or_else(|| format!("restored-{}", &sum[..12]));
    let tool = tool().await?;
    let restored = Command::new(tool)
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "restore"])
        .arg(&args.file)
        .arg("--data-dir")
        .arg(&args.data_dir)
        .args(["--name", &args.name, "--initial-cluster", &args.initial])
        .args(["--initial-cluster-token", &token])
        .args(["--initial-advertise-peer-urls", &own.join(",")])
        .kill_on_drop(true)
        .output();
    let out = tokio::time::timeout(LIMIT, restored)
        .await
        .map_err(|_| Error::plain(format!("{tool} was not done after {} s", LIMIT.as_secs())))?
        .map_err(|error| Error::plain(format!("{tool} cannot be run: {error}")))?;
    if !out.status.success() {
        let said = visible(String::from_utf8_lossy(&out.stderr).trim());
        return Err(Error::plain(format!("{tool} could not restore the snapshot: {said}")));
    }
    let command = format!(
        "sealift etcd start --name {} --data-dir {} --peer-url {} --client-url http://ADDRESS:2379",
        args.name,
        args.data_dir.display(),
        own.join(",")
    );
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&json!({
            "data_dir": args.data_dir, "name": args.name, "token": token, "sha256": sum, "command": command,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.line(&format!("{} is made from {}", args.data_dir.display(), args.file.display()))?;
    printer.line("Do the same for the other members, with the same file. Then start each of them:")?;
    printer.line(&format!("\n  {command}"))?;
    Ok(ExitCode::SUCCESS)
}

/// From etcd 3.5 on it is etcdutl; in 3.4 etcdctl does it.
async fn tool() -> Result<&'static str, Error> {
    for tool in ["etcdutl", "etcdctl"] {
        let asked = Command::new(tool).env("ETCDCTL_API", "3").arg("version").kill_on_drop(true).output();
        if matches!(tokio::time::timeout(Duration::from_secs(10), asked).await, Ok(Ok(out)) if out.status.success())
        {
            return Ok(tool);
        }
    }
    Err(Error::with_help(
        "neither etcdutl nor etcdctl is installed, and a snapshot is restored by one of them",
        "install etcd's own tools, of the version of the members (Debian: etcd-client); nothing was changed",
    ))
}
