//! `sealift dev`: server and agent in one process on one machine, and `--down` to end it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sealift_agent::systemd::launch::Surroundings;
use sealift_agent::{Agent, Options as AgentOptions};
use sealift_client::{Address, Client};
use sealift_model::diagnostic::chain;
use sealift_model::{Machine, SessionId};
use sealift_pipeline::EngineOptions;
use sealift_server::{Options as ServerOptions, Server};
use sealift_store::RedbStore;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{DevArgs, Global};
use crate::clock::now;
use crate::error::Error;
use crate::print::Printer;
use crate::state_dir::{self, StateDir, random};

/// How long a machine counts as present after its last keep-alive.
const MACHINE_TTL: Duration = Duration::from_secs(10);
/// unix(7): `sun_path` with its closing NUL has 108 bytes.
const SOCKET_PATH_LIMIT: usize = 107;
/// Below the state directory: where a podman service has its socket.
const ENGINE_DIR: &str = "engine";
/// Between two tries to find systemd again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long `--down` waits for the server to end.
const DOWN_PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn dev(args: DevArgs, global: &Global) -> Result<ExitCode, Error> {
    let root = super::state_path(global)?;
    if args.down {
        return down(&args, &root, global).await;
    }
    let state = StateDir::open(&root)?;
    let root = state.root.clone();
    let socket = state_dir::socket(&root);
    let unix = listen_unix(&socket)?;
    let tcp = listen_tcp(&args.listen).await?;
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
            unix: Some(unix),
            tcp: tcp.map(|listener| (listener, token)),
        },
        shutdown.clone(),
    )
    .await?;
    let trusted = server.public_key();
    let mut serving = tokio::spawn(server.run());
    let machine = Machine {
        version: env!("CARGO_PKG_VERSION").into(),
        run_slots: args.run_slots,
        ..Machine::new(state.machine_id()?, host_name())
    };
    let make_agent = {
        let (socket, root) = (socket.clone(), root.clone());
        move || {
            Agent::build(AgentOptions {
                machine: machine.clone(),
                client: Client::new(Address::Unix(socket.clone()), None),
                state_dir: root.join("agent"),
                trusted: trusted.clone(),
                surroundings: surroundings(&root, args.private_systemd),
                engine: engine_options(&root),
                clock: Arc::new(now),
                sessions: Arc::new(new_session),
            })
        }
    };
    let agent = make_agent().await?;
    announce(global, &agent, &socket, tcp_address)?;
    let mut agent = tokio::spawn(agent.run(shutdown.clone()));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            ended = &mut serving => return ended.map_err(|error| Error::plain(format!("the server stopped: {error}")))?
                .map(|()| ExitCode::SUCCESS).map_err(Error::from),
            ended = &mut agent => {
                // systemd hung up, as it does when it or its bus is restarted: connect anew.
                let why = match ended {
                    Ok(Ok(())) => "it ended".to_owned(),
                    Ok(Err(error)) => chain(&error),
                    Err(error) => chain(&error),
                };
                tracing::warn!(why, "the agent starts again");
                let again = again(make_agent.clone(), shutdown.clone());
                agent = tokio::spawn(again);
            }
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

/// An agent in place of one that lost its systemd, as soon as there is one to talk to.
async fn again<F>(make: impl Fn() -> F, shutdown: CancellationToken) -> Result<(), sealift_agent::Error>
where
    F: Future<Output = Result<Agent, sealift_agent::Error>>,
{
    let mut said = String::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(AGAIN) => {}
        }
        match make().await {
            Ok(agent) => return agent.run(shutdown).await,
            Err(error) => {
                let now = chain(&error);
                if now != said {
                    tracing::warn!(error = now, "the agent cannot start; trying on");
                    said = now;
                }
            }
        }
    }
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

fn listen_unix(socket: &Path) -> Result<UnixListener, Error> {
    let length = socket.as_os_str().len();
    if length > SOCKET_PATH_LIMIT {
        return Err(Error::with_help(
            format!(
                "the path {} has {length} bytes, more than the {SOCKET_PATH_LIMIT} a socket may have",
                socket.display()
            ),
            "use a shorter --state-dir",
        ));
    }
    let io = |action| move |source| Error::Io { action, path: socket.to_owned(), source };
    // We hold the directory's lock, so a socket that is there is a dead one's.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove")(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(io("listen on"))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(io("protect"))?;
    Ok(listener)
}

async fn listen_tcp(listen: &str) -> Result<Option<TcpListener>, Error> {
    if listen == "none" {
        return Ok(None);
    }
    let address: SocketAddr = listen.parse().map_err(|_| {
        Error::plain(format!(
            "--listen wants an address and port such as 127.0.0.1:4640, or none; not {listen:?}"
        ))
    })?;
    if !address.ip().is_loopback() {
        return Err(Error::with_help(
            format!("{} is not a loopback address", address.ip()),
            "`sealift dev` speaks without TLS, so it listens on this machine alone",
        ));
    }
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Error::with_help(
            format!("port {} on {} is taken by another program", address.port(), address.ip()),
            "choose another with --listen 127.0.0.1:PORT, or --listen none for the Unix socket alone",
        )),
        Err(source) => Err(Error::Io { action: "listen on", path: listen.into(), source }),
    }
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

fn surroundings(root: &Path, force_private: bool) -> Surroundings {
    let uid = rustix::process::geteuid();
    Surroundings {
        is_root: uid.is_root(),
        uid: uid.as_raw(),
        runtime_dir: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        private_dir: root.join("systemd"),
        force_private,
    }
}

/// How a container engine is found; a Podman service that has to be started gets its socket below `base`.
pub(super) fn engine_options(base: &Path) -> EngineOptions {
    EngineOptions {
        address: None,
        docker_host: std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()),
        xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        path: std::env::var_os("PATH").unwrap_or_default(),
        socket_dir: base.join(ENGINE_DIR),
    }
}

fn new_session() -> SessionId {
    match random::<16>() {
        Ok(bytes) => SessionId::from_bytes(bytes),
        // Without the kernel's randomness: the time and the process are unique enough on one machine.
        Err(_) => {
            let nanos =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            SessionId::from_bytes((nanos.as_nanos() ^ (u128::from(std::process::id()) << 96)).to_be_bytes())
        }
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".into(), |name| name.trim().to_owned())
}
