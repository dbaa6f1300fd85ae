//! `sealift server`: the control plane by itself, on a file or on etcd.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sealift_model::diagnostic::chain;
use sealift_server::{Election, Housekeeping, Options, Server};
use sealift_store::etcd::{EtcdOptions, EtcdStore, OpenError};
use sealift_store::{RedbStore, Store};
use tokio_util::sync::CancellationToken;

use super::this_machine::host_name;
use super::{end_signals, listen};
use crate::cli::{EtcdArgs, Global, ServerArgs};
use crate::clock::now;
use crate::error::Error;
use crate::print::Printer;
use crate::state_dir::{self, StateDir};

/// A leader that vanishes is followed after this. On etcd it has to be four of its election timeouts.
const LEADER_TTL: Duration = Duration::from_secs(5);
/// Between two tries to reach etcd.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn server(args: Box<ServerArgs>, global: &Global) -> Result<ExitCode, Error> {
    let state = StateDir::open(&super::state_path(global)?)?;
    let root = state.root.clone();
    let socket = state_dir::socket(&root);
    let unix = listen::unix(&socket)?;
    let tcp = listen::tcp(&args.listen, args.plain).await?;
    let address = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
    let token: Arc<str> = state.token()?.into();
    let name = args.name.clone().unwrap_or_else(host_name);
    let shutdown = CancellationToken::new();
    // Before anybody is told that we are ready, so that an early word is heard.
    let mut end = std::pin::pin!(end_signals()?);
    let store = tokio::select! {
        store = open_store(&args.etcd, &root) => store?,
        () = &mut end => return Ok(ExitCode::SUCCESS),
    };
    state.let_units_in()?;
    let shared = !args.etcd.endpoints.is_empty();
    let server = Server::build(
        Options {
            store,
            state_dir: root.clone(),
            machine_ttl: args.machine_ttl,
            clock: Arc::new(now),
            housekeeping: if shared { housekeeping(&args)? } else { Housekeeping::default() },
            election: shared.then(|| Election { name: name.clone(), ttl: LEADER_TTL }),
            unix: Some(unix),
            tcp: tcp.map(|listener| (listener, token)),
        },
        shutdown.clone(),
    )
    .await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        let address = address.map(|address| format!("http://{address}"));
        printer.json(
            &serde_json::json!({ "ready": true, "name": name, "socket": socket, "address": address }),
        )?;
    } else {
        printer.line(&format!("server {name} is ready: unix://{}", socket.display()))?;
        if let Some(address) = address {
            printer.line(&format!(
                "and on http://{address} with the token in {}",
                root.join("token").display()
            ))?;
        }
    }
    let mut serving = tokio::spawn(server.run());
    tokio::select! {
        () = &mut end => {}
        ended = &mut serving => {
            return ended.map_err(|error| Error::plain(format!("the server stopped: {error}")))?
                .map(|()| ExitCode::SUCCESS).map_err(Error::from);
        }
    }
    shutdown.cancel();
    serving.await.ok();
    std::fs::remove_file(&socket).ok();
    Ok(ExitCode::SUCCESS)
}

/// What etcd does not do by itself.
fn housekeeping(args: &ServerArgs) -> Result<Housekeeping, Error> {
    let options = etcd_options(&args.etcd)?;
    let defragment = args.etcd_defrag.map(|every| super::etcd::on_schedule(&options, every));
    Ok(Housekeeping { keep: Some(args.etcd_keep), defragment })
}

async fn open_store(args: &EtcdArgs, root: &Path) -> Result<Arc<dyn Store>, Error> {
    if args.endpoints.is_empty() {
        let path = root.join(state_dir::STORE);
        let store = RedbStore::open(&path).await.map_err(|source| Error::Store { path, source })?;
        return Ok(Arc::new(store));
    }
    let options = etcd_options(args)?;
    let mut said = String::new();
    loop {
        match EtcdStore::open(options.clone()).await {
            Ok(store) => return Ok(Arc::new(store)),
            // Members may be booting beside us.
            Err(error @ OpenError::Unreachable { .. }) => {
                let now = chain(&error);
                if now != said {
                    tracing::warn!(error = now, "etcd does not let us in; trying on");
                    said = now;
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(Error::Etcd(error)),
        }
    }
}

pub(super) fn etcd_options(args: &EtcdArgs) -> Result<EtcdOptions, Error> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })
    };
    let mut options = EtcdOptions::new(&args.endpoints, &args.prefix);
    if let Some(ca) = &args.ca {
        options = options.ca(read(ca)?);
    }
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        options = options.identity(read(cert)?, read(key)?);
    }
    if let (Some(user), Some(file)) = (&args.user, &args.password_file) {
        let password = String::from_utf8_lossy(&read(file)?).trim_end_matches(['\r', '\n']).to_owned();
        options = options.user(user, password);
    }
    Ok(options)
}
