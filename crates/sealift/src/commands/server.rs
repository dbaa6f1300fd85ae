//! `sealift server`: the control plane by itself, on a file or on etcd.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sealift_client::Address;
use sealift_model::diagnostic::chain;
use sealift_server::{Election, Housekeeping, Options, Server, TlsOptions};
use sealift_store::etcd::{EtcdOptions, EtcdStore, OpenError};
use sealift_store::{RedbStore, Store};
use tokio_util::sync::CancellationToken;

use super::this_machine::{address, host_name};
use super::{end_signals, listen};
use crate::cli::{EtcdArgs, Global, ServerArgs, TlsArgs};
use crate::clock::now;
use crate::error::Error;
use crate::print::Printer;
use crate::state_dir::{self, StateDir};

/// A leader that vanishes is followed after this. On etcd it has to be four of its election timeouts.
pub(super) const LEADER_TTL: Duration = Duration::from_secs(5);
/// Between two tries to reach etcd.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn server(args: Box<ServerArgs>, global: &Global) -> Result<ExitCode, Error> {
    let state = StateDir::open(&super::state_path(global)?)?;
    let root = state.root.clone();
    let socket = state_dir::socket(&root);
    let unix = listen::unix(&socket)?;
    let tcp = listen::tcp(&args.listen, args.plain).await?;
    let plain_address = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
    let tls = tls(&args.tls).await?;
    let tls_address = tls.as_ref().and_then(|tls| tls.listener.local_addr().ok());
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
            advertise: shared.then(|| advertised(&args, tls.as_ref())).flatten(),
            unix: Some(unix),
            tcp: tcp.map(|listener| (listener, token)),
            tls,
            open_metrics: args.tls.open_metrics,
        },
        shutdown.clone(),
    )
    .await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        let address = plain_address.map(|address| format!("http://{address}"));
        printer.json(&serde_json::json!({
            "ready": true, "name": name, "socket": socket, "address": address,
            "tls_address": tls_address.map(|address| format!("https://{address}")),
        }))?;
    } else {
        printer.line(&format!("server {name} is ready: unix://{}", socket.display()))?;
        if let Some(address) = plain_address {
            printer.line(&format!(
                "and on http://{address} with the token in {}",
                root.join("token").display()
            ))?;
        }
    }
    if let Some(address) = tls_address.filter(|_| !printer.is_json()) {
        printer.line(&format!(
            "and on https://{address} for machines that join (sealift machine join-token) and users (sealift token create)"
        ))?;
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

/// Where TLS is spoken, and the names that the certificate is for.
async fn tls(args: &TlsArgs) -> Result<Option<TlsOptions>, Error> {
    let Some(listen) = &args.listen_tls else { return Ok(None) };
    let Some(listener) = listen::tcp(listen, true).await? else { return Ok(None) };
    let mut names = args.tls_names.clone();
    if names.is_empty() {
        names = vec!["localhost".into(), "127.0.0.1".into(), "::1".into()];
        names.extend(Some(host_name()).filter(|name| sealift_access::is_server_name(name)));
        let own = listener.local_addr().ok().map(|own| own.ip()).filter(|ip| !ip.is_unspecified());
        names.extend(
            own.map(|ip| ip.to_string()).or_else(address).filter(|name| sealift_access::is_server_name(name)),
        );
        names.sort();
        names.dedup();
    }
    if let Some(wrong) = names.iter().find(|name| !sealift_access::is_server_name(name)) {
        return Err(Error::plain(format!("--tls-name: {wrong:?} is neither an address nor a host name")));
    }
    Ok(Some(TlsOptions { listener, names }))
}

/// Where machines reach this server and no other.
fn advertised(args: &ServerArgs, tls: Option<&TlsOptions>) -> Option<String> {
    if let Some(advertise) = &args.advertise {
        return Some(advertise.to_string());
    }
    let tls = tls?;
    let port = tls.listener.local_addr().ok()?.port();
    let host = args.tls.tls_names.first().cloned().or_else(address)?;
    Some(Address::Tls { host, port }.to_string())
}

async fn open_store(args: &EtcdArgs, root: &Path) -> Result<Arc<dyn Store>, Error> {
    if args.endpoints.is_empty() {
        let path = root.join(state_dir::STORE);
        let store = RedbStore::open(&path).await.map_err(|source| Error::Store { path, source })?;
        return Ok(Arc::new(store));
    }
    open_etcd(etcd_options(args)?).await
}

/// Waits until etcd is reached.
pub(super) async fn open_etcd(options: EtcdOptions) -> Result<Arc<dyn Store>, Error> {
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
