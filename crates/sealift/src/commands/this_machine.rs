//! What this machine is and has, as an agent tells it, and keeping an agent going on it.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealift_agent::systemd::launch::Surroundings;
use sealift_agent::{Agent, Options};
use sealift_client::Client;
use sealift_model::diagnostic::chain;
use sealift_model::{Machine, Resources, SessionId};
use sealift_package::signing::PublicKey;
use sealift_pipeline::EngineOptions;
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::state_dir::random;

/// Below the state directory: where a podman service has its socket.
pub(super) const ENGINE_DIR: &str = "engine";
/// Between two tries to find systemd again.
const AGAIN: Duration = Duration::from_millis(500);

/// What an agent of this machine is made of, with its own `folder` of the state directory `root`.
pub(super) fn agent_options(
    machine: Machine,
    client: Client,
    root: &Path,
    folder: &Path,
    trusted: PublicKey,
    private_systemd: bool,
) -> Options {
    Options {
        machine,
        client,
        state_dir: folder.to_owned(),
        trusted,
        surroundings: surroundings(root, private_systemd),
        engine: engine_options(root),
        clock: Arc::new(now),
        sessions: Arc::new(new_session),
    }
}

/// Runs `agent` until shutdown, and another like it in its place whenever systemd hangs up, as it does when it or its
/// bus is restarted.
pub(super) async fn keep_agent(mut agent: Agent, options: Options, shutdown: CancellationToken) {
    loop {
        let Err(error) = Box::pin(agent.run(shutdown.clone())).await else { return };
        tracing::warn!(why = chain(&error), "the agent starts again");
        let mut said = String::new();
        agent = loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
            match Agent::build(options.clone()).await {
                Ok(agent) => break agent,
                Err(error) => {
                    let now = chain(&error);
                    if now != said {
                        tracing::warn!(error = now, "the agent cannot start; trying on");
                        said = now;
                    }
                }
            }
        };
    }
}

pub(super) fn surroundings(root: &Path, force_private: bool) -> Surroundings {
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

pub(super) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".into(), |name| name.trim().to_owned())
}

/// All memory and all cores; what cannot be found out is 0.
pub(super) fn capacity() -> Resources {
    let kilobytes = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Resources {
        memory: kilobytes.unwrap_or(0) * 1024,
        cpu: u32::try_from(cores).unwrap_or(0).saturating_mul(1000),
    }
}

/// The address that this machine would send from to somewhere outside, which is what fleet took as well. No packet is
/// sent.
pub(super) fn address() -> Option<String> {
    // TEST-NET-1 of RFC 5737: never anybody's, so only the default route leads there.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .map(|local| local.ip())
        .filter(|ip| !ip.is_unspecified())
        .map(|ip| ip.to_string())
}
