//! `sealift etcd`: a cluster of etcd from its first member on: start, look, change, back up, restore.

mod backup;
mod cloud_config;
mod defragment;
mod health;
mod member;
mod restore;
mod start;

use std::process::ExitCode;

use sealift_store::etcd::{EtcdOptions, Maintenance, OpenError};

pub(super) use defragment::on_schedule;

use super::server::etcd_options;
use crate::cli::{EtcdArgs, EtcdCommand, Global};
use crate::error::Error;

/// Asked when nothing else is said: a member on this machine.
const HERE: &str = "http://127.0.0.1:2379";

pub(super) async fn etcd(command: EtcdCommand, global: &Global) -> Result<ExitCode, Error> {
    match command {
        EtcdCommand::Status(args) => health::status(&args, global).await,
        EtcdCommand::Member(command) => member::member(command, global).await,
        EtcdCommand::Start(args) => start::start(*args, global).await,
        EtcdCommand::Backup(args) => backup::backup(&args, global).await,
        EtcdCommand::Restore(args) => restore::restore(&args, global).await,
        EtcdCommand::Defrag(args) => defragment::defrag(&args, global).await,
    }
}

fn options(args: &EtcdArgs) -> Result<EtcdOptions, Error> {
    let options = etcd_options(args)?;
    Ok(if args.endpoints.is_empty() { options.at([HERE]) } else { options })
}

fn maintenance(args: &EtcdArgs) -> Result<Maintenance, Error> {
    Maintenance::new(options(args)?).map_err(Error::Etcd)
}

/// An answer of etcd that is none.
fn asked(error: sealift_store::Error) -> Error {
    let text = sealift_model::diagnostic::chain(&error);
    let help = if error.is_unknown() {
        "it may be done all the same; look with: sealift etcd status"
    } else if text.contains("certificate") || text.contains("tls") {
        "see --etcd-ca, --etcd-cert and --etcd-key"
    } else {
        "see how the members are with: sealift etcd status --etcd URL,..."
    };
    Error::with_help(text, help)
}

fn plain(error: &OpenError) -> String {
    sealift_model::diagnostic::chain(error)
}
