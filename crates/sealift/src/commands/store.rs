//! `sealift store`: where an installation's state is.

use std::process::ExitCode;
use std::sync::Arc;

use sealift_server::transfer::{self, Place, Unusable};
use sealift_store::RedbStore;
use sealift_store::etcd::EtcdStore;

use super::server::etcd_options;
use crate::cli::{Global, StoreCommand, StoreKind, StoreMove};
use crate::clock::now;
use crate::error::Error;
use crate::print::{Printer, many};
use crate::state_dir::{self, StateDir};

pub(super) async fn store(command: StoreCommand, global: &Global) -> Result<ExitCode, Error> {
    let StoreCommand::Move(args) = command;
    move_to(&args, global).await
}

async fn move_to(args: &StoreMove, global: &Global) -> Result<ExitCode, Error> {
    if args.etcd.endpoints.is_empty() {
        return Err(Error::with_help("it is not said which etcd", "name its client URLs: --etcd URL,..."));
    }
    // The server's own lock: it does not run, and none begins meanwhile.
    let state = StateDir::open(&super::state_path(global)?)?;
    let path = state.root.join(state_dir::STORE);
    let is_there =
        path.try_exists().map_err(|source| Error::Io { action: "look for", path: path.clone(), source })?;
    if args.to == StoreKind::Etcd && !is_there {
        return Err(Error::with_help(
            format!("there is no state to move: {} is not there", path.display()),
            "name the server's directory with --state-dir",
        ));
    }
    let options = etcd_options(&args.etcd)?;
    let etcd = EtcdStore::open(options).await.map_err(Error::Etcd)?;
    let file = RedbStore::open(&path).await;
    let file = Arc::new(file.map_err(|source| Error::Store { path: path.clone(), source })?);
    state.let_units_in()?;
    let mut endpoints = args.etcd.endpoints.clone();
    endpoints.sort();
    let file_place = Place { store: file.clone(), name: path.display().to_string() };
    let etcd_place = Place {
        store: Arc::new(etcd),
        name: format!("etcd at {} below {}", endpoints.join(","), args.etcd.prefix),
    };
    let (from, to) = match args.to {
        StoreKind::Etcd => (&file_place, &etcd_place),
        StoreKind::File => (&etcd_place, &file_place),
    };
    let done = transfer::run(from, to, now()).await.map_err(|error| {
        let help = help(&error);
        Error::Plain { message: sealift_model::diagnostic::chain(&error), help }
    })?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&serde_json::json!({ "from": from.name, "to": to.name, "moved": done }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if done.begun_again {
        printer.line("a move that was cut short was there, and was begun again")?;
    }
    printer.line(&format!(
        "moved {} with {} bytes to {}; each was read back",
        many(done.keys as u64, "key"),
        done.bytes,
        to.name
    ))?;
    printer.line(match args.to {
        StoreKind::Etcd => {
            "start the server with the same --etcd; without it, it refuses the file from now on"
        }
        StoreKind::File => {
            "start the server without --etcd; with it, it refuses what is left in etcd from now on"
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What to do.
fn help(error: &transfer::Error) -> Option<String> {
    Some(match error {
        transfer::Error::InUse { .. } => {
            "stop all servers that use it; one that was killed counts as there for some seconds more".into()
        }
        transfer::Error::NotEmpty { .. } => {
            "name an empty prefix with --etcd-prefix, or see whose state that is".into()
        }
        transfer::Error::Source { source, .. } => unusable(source)?,
        transfer::Error::Changed { .. }
        | transfer::Error::Read { .. }
        | transfer::Error::Write { .. }
        | transfer::Error::Differs { .. } => {
            "the same command begins again; what was moved from is whole".into()
        }
        transfer::Error::Json(_) => return None,
    })
}

/// What to do with a store that a server or a transfer cannot use.
pub(crate) fn unusable(error: &Unusable) -> Option<String> {
    match error {
        Unusable::Incomplete { .. } => Some(
            "run the same `sealift store move` again: it begins anew, and what it moves from is whole".into(),
        ),
        Unusable::Moved { to } if to.starts_with("etcd at ") => Some(
            "start the server with that --etcd, or move the state back with: sealift store move --to file"
                .into(),
        ),
        Unusable::Moved { .. } => Some(
            "start the server without --etcd, or move the state back with: sealift store move --to etcd"
                .into(),
        ),
        Unusable::Store(_) | Unusable::Mark(_) => None,
    }
}
