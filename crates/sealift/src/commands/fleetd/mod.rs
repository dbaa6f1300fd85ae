//! fleet's daemon: `fleetd -config FILE` by the program's name, or `sealift fleetd`. Server and agent of Sealift in one
//! process, set up by fleet.conf, on the sockets that systemd passes.
//!
//! Guarantees: an end or a reload touches no unit. Keys of fleet's own in etcd are neither read nor written. A
//! configuration that cannot be read at a reload leaves everything as it was.

mod conf;
mod sockets;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sealift_agent::Agent;
use sealift_client::{Address, Client};
use sealift_model::diagnostic::chain;
use sealift_model::{Machine, MachineId};
use sealift_server::{Election, Housekeeping, Options as ServerOptions, Server};
use sealift_store::Store;
use sealift_store::etcd::EtcdOptions;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::this_machine::{address, agent_options, capacity, host_name, keep_agent};
use super::{connect, listen, server};
use crate::clock::now;
use crate::error::{self, Error};
use crate::state_dir::{self, AgentDir, StateDir};
use conf::Conf;
use sockets::Passed;

/// Where fleet looked when no file was named.
const FILE: &str = "/etc/fleet/fleet.conf";
/// etcd forgets what is older, as with `sealift server`.
const HISTORY: Duration = Duration::from_secs(3600);
/// As Go's flags ended the program.
const USAGE: u8 = 2;

/// What the program was called as, if that means this daemon: the words behind it.
pub(crate) fn asked(args: &[std::ffi::OsString]) -> Option<Vec<String>> {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let skip = match (name, args.get(1)) {
        (Some(name), _) if name == "fleetd" => 1,
        (_, Some(first)) if first == "fleetd" => 2,
        _ => return None,
    };
    Some(args.iter().skip(skip).map(|word| word.to_string_lossy().into_owned()).collect())
}

/// Runs until it is asked to end.
pub(crate) fn main(words: Vec<String>) -> ExitCode {
    let file = match file(words) {
        Ok(Some(file)) => file,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            error::report(&error, crate::cli::Output::Text);
            return ExitCode::from(USAGE);
        }
    };
    let done = load(file.as_deref()).and_then(|conf| {
        crate::start_log(if conf.verbose { "debug" } else { "info" });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.map_err(Error::Runtime)?.block_on(Box::pin(run(file.as_deref(), conf)))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error::report(&error, crate::cli::Output::Text),
    }
}

/// The file that is named, or fleet's own and none if that is not there; nothing if only words were wanted.
fn file(words: Vec<String>) -> Result<Option<Option<PathBuf>>, Error> {
    let mut words = words.into_iter();
    let mut file = None;
    while let Some(word) = words.next() {
        let flag = word.trim_start_matches('-');
        let (name, value) =
            flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
        match name {
            _ if flag == word => return Err(Error::plain(format!("{word:?} is no flag of fleetd"))),
            "config" => {
                let value = value.or_else(|| words.next());
                file = Some(value.ok_or_else(|| Error::plain("flag needs an argument: -config"))?.into());
            }
            "version" | "v" => {
                writeln!(std::io::stdout(), "fleetd version 1.0.0+sealift.{}", env!("CARGO_PKG_VERSION"))
                    .ok();
                return Ok(None);
            }
            "help" | "h" => {
                let usage = "Usage: fleetd [-config FILE] [-version]\n\nKeys of the file are told in docs/from-fleet.md.";
                writeln!(std::io::stdout(), "{usage}").ok();
                return Ok(None);
            }
            _ => return Err(Error::plain(format!("flag provided but not defined: {word}"))),
        }
    }
    Ok(Some(file.or_else(|| Some(FILE.into()).filter(|file: &PathBuf| file.try_exists().unwrap_or(true)))))
}

fn load(file: Option<&Path>) -> Result<Conf, Error> {
    let text = file.map(connect::read).transpose()?.unwrap_or_default();
    let name = file.unwrap_or(Path::new("the environment")).display().to_string();
    conf::read(&name, &text, |name| std::env::var(name).ok())
}

/// What stays while configurations change.
struct House {
    state: StateDir,
    of_agent: AgentDir,
    machine: MachineId,
    passed: Passed,
}

/// How one life under a configuration ended.
enum Ended {
    Asked,
    Reload(Box<Conf>),
}

async fn run(file: Option<&Path>, mut conf: Conf) -> Result<(), Error> {
    let passed = sockets::passed(|name| std::env::var(name).ok())?;
    if passed.unix.is_empty() && passed.tcp.is_empty() {
        tracing::warn!("systemd passed no socket, so the API is on the socket of the state directory alone");
    }
    if passed.tcp.len() > 1 {
        return Err(Error::plain("systemd passed several TCP sockets; one is served"));
    }
    let root =
        std::env::var_os("SEALIFT_STATE_DIR").map_or_else(state_dir::default_path, |path| Ok(path.into()))?;
    let house = House {
        state: StateDir::open(&root)?,
        of_agent: AgentDir::open(&root)?,
        machine: super::agent::own_machine_id()?,
        passed,
    };
    let mut end = std::pin::pin!(super::end_signals()?);
    loop {
        for (key, why) in &conf.idle {
            tracing::warn!(key, why, "a key of the configuration has no effect");
        }
        match life(&house, &conf, file, end.as_mut()).await? {
            Ended::Asked => return Ok(()),
            Ended::Reload(next) => conf = *next,
        }
    }
}

async fn store(conf: &Conf, machine: &MachineId) -> Result<Arc<dyn Store>, Error> {
    let read = |path: &String| connect::read(Path::new(path));
    let mut options = EtcdOptions::new(&conf.etcd_servers, &conf.prefix);
    if let Some(ca) = &conf.ca {
        options = options.ca(read(ca)?);
    }
    if let Some((certificate, key)) = &conf.identity {
        options = options.identity(read(certificate)?, read(key)?);
    }
    if let Some((user, password)) = &conf.user {
        options = options.user(user, password);
    }
    tracing::info!(machine = machine.short(), prefix = conf.prefix, "keeping the state in etcd");
    server::open_etcd(options).await
}

/// Server and agent until a signal ends them.
async fn life(
    house: &House,
    conf: &Conf,
    file: Option<&Path>,
    mut end: Pin<&mut impl Future<Output = ()>>,
) -> Result<Ended, Error> {
    let root = house.state.root.clone();
    let mut hang_up = signal(SignalKind::hangup()).map_err(Error::Runtime)?;
    let mut dump = signal(SignalKind::user_defined1()).map_err(Error::Runtime)?;
    let socket = state_dir::socket(&root);
    let unix = listen::unix(&socket)?;
    let tcp = house.passed.tcp.first().map(|tcp| tcp.try_clone().and_then(TcpListener::from_std)).transpose();
    let token: Arc<str> = house.state.token()?.into();
    let store = tokio::select! {
        store = store(conf, &house.machine) => store?,
        () = &mut end => return Ok(Ended::Asked),
    };
    house.state.let_units_in()?;
    let shutdown = CancellationToken::new();
    let server = Server::build(
        ServerOptions {
            store,
            state_dir: root.clone(),
            machine_ttl: conf.agent_ttl,
            clock: Arc::new(now),
            election: Some(Election {
                name: format!("{}-{}", host_name(), house.machine.short()),
                ttl: server::LEADER_TTL,
            }),
            housekeeping: Housekeeping { keep: Some(HISTORY), defragment: None },
            advertise: None,
            unix: Some(unix),
            tcp: tcp.map_err(Error::Runtime)?.map(|listener| (listener, token)),
            tls: None,
            open_metrics: false,
        },
        shutdown.clone(),
    )
    .await?;
    let trusted = server.public_key();
    let mut serving = tokio::spawn(server.run());
    for listener in &house.passed.unix {
        let listener = listener.try_clone().and_then(UnixListener::from_std).map_err(Error::Runtime)?;
        let (socket, shutdown) = (socket.clone(), shutdown.clone());
        tokio::spawn(async move { shutdown.run_until_cancelled(lead_to(listener, &socket)).await });
    }
    let client = Client::new(Address::Unix(socket.clone()), None);
    let machine = Machine {
        metadata: conf.metadata.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        address: conf.public_ip.clone().or_else(address),
        capacity: capacity(),
        ..Machine::new(house.machine.clone(), host_name())
    };
    let options = agent_options(machine, client.clone(), &root, &house.of_agent.folder, trusted, false);
    let agent = Agent::build(options.clone()).await?;
    tracing::info!(machine = house.machine.short(), systemd = agent.scope().as_str(), "fleetd is ready");
    let keeping = tokio::spawn(keep_agent(agent, options, shutdown.clone()));
    let ended = loop {
        tokio::select! {
            () = &mut end => break Ok(Ended::Asked),
            _ = hang_up.recv() => match load(file) {
                Ok(next) => break Ok(Ended::Reload(Box::new(next))),
                Err(error) => tracing::error!(error = chain(&error), "the configuration stays as it was"),
            },
            _ = dump.recv() => tell_state(&client).await,
            ended = &mut serving => {
                break ended.map_err(|error| Error::plain(format!("the server stopped: {error}")))
                    .and_then(|ended| ended.map_err(Error::from)).map(|()| Ended::Asked);
            }
        }
    };
    shutdown.cancel();
    let (agent, server) =
        tokio::join!(keeping, async { if serving.is_finished() { Ok(()) } else { serving.await.map(drop) } });
    drop((agent, server));
    std::fs::remove_file(&socket).ok();
    ended
}

/// Leads connections of a socket that was passed to the server's own.
async fn lead_to(listener: UnixListener, socket: &Path) {
    loop {
        let Ok((mut from, _)) = listener.accept().await else {
            // Too many files are open, and some will be closed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let socket = socket.to_owned();
        tokio::spawn(async move {
            match UnixStream::connect(&socket).await {
                Ok(mut to) => drop(tokio::io::copy_bidirectional(&mut from, &mut to).await),
                Err(error) => tracing::warn!(%error, "a connection leads nowhere"),
            }
        });
    }
}

/// The state as one line of JSON on standard output.
async fn tell_state(client: &Client) {
    let mut state = serde_json::Map::new();
    for (name, path) in
        [("status", "/v1/status"), ("machines", "/v1/machines"), ("units", "/v1/units?text=false")]
    {
        match client.get::<serde_json::Value>(path).await {
            Ok(value) => drop(state.insert(name.to_owned(), value)),
            Err(error) => tracing::warn!(error = chain(&error), "the state cannot be told"),
        }
    }
    writeln!(std::io::stdout().lock(), "{}", serde_json::Value::Object(state)).ok();
}
