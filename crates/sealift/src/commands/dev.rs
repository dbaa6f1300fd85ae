//! `sealift dev`: server and agent in one process on one machine, and `--down` to end it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sealift_agent::Agent;
use sealift_client::{Address, Client};
use sealift_model::Machine;
use sealift_server::{Housekeeping, Options as ServerOptions, Server};
use sealift_store::RedbStore;
use tokio_util::sync::CancellationToken;

use crate::cli::{DevArgs, Global};
use crate::clock::now;
use crate::error::Error;
use crate::print::Printer;
use crate::state_dir::{self, AgentDir, StateDir};

use super::this_machine::{
    ENGINE_DIR, address, agent_options, capacity, host_name, keep_agent, surroundings,
};
use super::{MACHINE_TTL, end_asked, listen};

/// How long `--down` waits for the server to end.
const DOWN_PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn dev(args: DevArgs, global: &Global) -> Result<ExitCode, Error> {
    let root = super::state_path(global)?;
    if args.down {
        return down(&args, &root, global).await;
    }
    let state = StateDir::open(&root)?;
    let of_agent = AgentDir::open(&root)?;
    let root = state.root.clone();
    let socket = state_dir::socket(&root);
    let unix = listen::unix(&socket)?;
    let tcp = listen::tcp(&args.listen, false).await?;
    let tcp_address = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
    let token: Arc<str> = state.token()?.into();
    let store_path = root.join(state_dir::STORE);
    let store =
        RedbStore::open(&store_path).await.map_err(|source| Error::Store { path: store_path, source })?;
    state.let_units_in()?;
    let shutdown = CancellationToken::new();
    let server = Server::build(
        ServerOptions {
            store: Arc::new(store),
            state_dir: root.clone(),
            machine_ttl: MACHINE_TTL,
            clock: Arc::new(now),
            election: None,
            housekeeping: Housekeeping::default(),
            advertise: None,
            unix: Some(unix),
            tcp: tcp.map(|listener| (listener, token)),
            tls: None,
            open_metrics: false,
        },
        shutdown.clone(),
    )
    .await?;
    let trusted = server.public_key();
    let mut serving = tokio::spawn(server.run());
    let machine = Machine {
        version: env!("CARGO_PKG_VERSION").into(),
        run_slots: args.run_slots,
        address: address(),
        capacity: capacity(),
        ..Machine::new(state.machine_id()?, host_name())
    };
    let client = Client::new(Address::Unix(socket.clone()), None);
    let options = agent_options(machine, client, &root, &of_agent.folder, trusted, args.private_systemd);
    let agent = Agent::build(options.clone()).await?;
    announce(global, &agent, &socket, tcp_address)?;
    let agent = tokio::spawn(keep_agent(agent, options, shutdown.clone()));
    tokio::select! {
        asked = end_asked() => asked?,
        ended = &mut serving => {
            return ended.map_err(|error| Error::plain(format!("the server stopped: {error}")))?
                .map(|()| ExitCode::SUCCESS).map_err(Error::from);
        }
    }
    shutdown.cancel();
    // Both have a bound of their own on how long they take.
    let (agent, server) = tokio::join!(agent, serving);
    drop((agent, server));
    std::fs::remove_file(&socket).ok();
    if !Printer::new(global.output).is_json() {
        Printer::new(global.output)
            .line("stopped; units go on running (sealift dev --down stops them too)")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn announce(global: &Global, agent: &Agent, socket: &Path, tcp: Option<SocketAddr>) -> Result<(), Error> {
    let printer = Printer::new(global.output);
    let systemd = agent.scope().as_str();
    if printer.is_json() {
        return printer.json(&serde_json::json!({
            "ready": true, "socket": socket, "address": tcp.map(|tcp| format!("http://{tcp}")), "systemd": systemd,
        }));
    }
    printer.line(&format!("Sealift is ready: unix://{}", socket.display()))?;
    if let Some(tcp) = tcp {
        printer.line(&format!(
            "and on http://{tcp} with the token in {}",
            socket.with_file_name("token").display()
        ))?;
    }
    printer.line(&format!(
        "units run under the {systemd} systemd; Ctrl-C stops Sealift and leaves them running"
    ))?;
    printer.line("next, in a git repository with a wercker.yml: sealift push")
}

async fn down(args: &DevArgs, root: &Path, global: &Global) -> Result<ExitCode, Error> {
    let printer = Printer::new(global.output);
    let root = match root.canonicalize() {
        Ok(root) => root,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::plain(format!("there is no state directory {}", root.display())));
        }
        Err(source) => return Err(Error::Io { action: "look at", path: root.to_owned(), source }),
    };
    let mut server_stopped = false;
    if let Some(pid) = state_dir::holder(&root)? {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(|error| {
            Error::plain(format!("cannot stop process {}: {error}", pid.as_raw_nonzero()))
        })?;
        let gone = async {
            while state_dir::holder(&root)?.is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok::<(), Error>(())
        };
        match tokio::time::timeout(DOWN_PATIENCE, gone).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                return Err(Error::plain(format!(
                    "process {} was asked to stop but has not",
                    pid.as_raw_nonzero()
                )));
            }
        }
        server_stopped = true;
    }
    // Held while units are removed, so that nobody starts meanwhile.
    let state = StateDir::open(&root)?;
    let around = surroundings(&state.root, args.private_systemd);
    let units = sealift_agent::remove_all(&state.root.join("agent"), &around).await?;
    // A podman service that we started ends with us, unless we were killed.
    let engine = state.root.join(ENGINE_DIR);
    sealift_pipeline::stop_service(&engine).await.map_err(|source| Error::Io {
        action: "stop podman's service in",
        path: engine,
        source,
    })?;
    if printer.is_json() {
        printer.json(&serde_json::json!({ "server_stopped": server_stopped, "units_removed": units }))?;
    } else {
        let server = if server_stopped { "server stopped" } else { "no server ran" };
        printer.line(&format!("{server}, {units} units removed; the state stays in {}", root.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
