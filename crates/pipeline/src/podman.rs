//! A podman service of our own, for machines that have podman but no service running.
//!
//! Guarantees: programs that use the same directory share one service; it ends with the last of them, whoever started it.
//! Should a program be killed, the service stays, is found again by its socket, and ends with the next one.
//!
//! It must not know what the service is used for.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// The socket's name in its directory.
pub(crate) const SOCKET: &str = "podman.sock";
/// How long podman may take to listen.
const START: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start {}", binary.display())]
    Spawn {
        binary: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("podman ended at once: {log}")]
    Ended { log: String },
    #[error("podman does not listen after {} s: {log}", START.as_secs())]
    Silent { log: String },
}

/// A part in a running service.
#[derive(Debug)]
pub(crate) struct Service {
    socket: PathBuf,
    /// Held shared by all who use it, and alone by the one who ends it.
    users: File,
    /// Held by one who starts or ends it.
    change: PathBuf,
}

impl Service {
    /// Takes part in the service on `socket`, which is started if nobody listens there.
    pub(crate) async fn share(binary: &Path, path: &OsStr, socket: &Path) -> Result<Service, Error> {
        let dir = socket.parent().unwrap_or(Path::new("/"));
        let directory = |source| Error::Directory { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(directory)?;
        let change = dir.join("podman.change");
        let users = File::create(dir.join("podman.users")).map_err(directory)?;
        let lock = change.clone();
        // Another may be starting it, which takes a while.
        let changing = tokio::task::spawn_blocking(move || {
            let file = File::create(lock)?;
            file.lock().map(|()| file)
        });
        let changing =
            changing.await.map_err(std::io::Error::other).and_then(|taken| taken).map_err(directory)?;
        users.lock_shared().map_err(directory)?;
        let service = Service { socket: socket.to_owned(), users, change };
        if UnixStream::connect(socket).await.is_err() {
            Service::start(binary, path, socket).await?;
        }
        drop(changing);
        Ok(service)
    }

    /// Starts `podman system service` on `socket` and waits until it listens.
    async fn start(binary: &Path, path: &OsStr, socket: &Path) -> Result<(), Error> {
        let dir = socket.parent().unwrap_or(Path::new("/"));
        let log = dir.join("podman.log");
        let directory = |source| Error::Directory { path: dir.to_owned(), source };
        let log_file = std::fs::File::create(&log).map_err(directory)?;
        // What a killed service left behind.
        if let Err(source) = std::fs::remove_file(socket)
            && source.kind() != std::io::ErrorKind::NotFound
        {
            return Err(directory(source));
        }
        let mut command = Command::new(binary);
        // crun refuses hosts that mix both versions of cgroups; runc does not.
        let pure_v2 = access("/sys/fs/cgroup/cgroup.controllers", Access::EXISTS).is_ok();
        // Debian keeps runc where an ordinary user's PATH does not go; podman looks there itself.
        let runc = find("runc", path).or_else(|| find("runc", OsStr::new("/usr/sbin:/usr/local/sbin")));
        if !pure_v2 && runc.is_some() {
            command.args(["--runtime", "runc"]);
        }
        command.args(["system", "service", "--time=0"]).arg(format!("unix://{}", socket.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        // A group of its own: Ctrl-C is for us, and we need the service to clean up.
        command.process_group(0);
        let mut child =
            command.spawn().map_err(|source| Error::Spawn { binary: binary.to_owned(), source })?;
        let deadline = Instant::now() + START;
        loop {
            if UnixStream::connect(socket).await.is_ok() {
                return Ok(());
            }
            if !matches!(child.try_wait(), Ok(None)) {
                return Err(Error::Ended { log: tail(&log) });
            }
            if Instant::now() > deadline {
                child.start_kill().ok();
                return Err(Error::Silent { log: tail(&log) });
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let Ok(changing) = File::create(&self.change) else { return };
        // Nobody comes while we look whether anybody is left.
        if changing.lock().is_err() || self.users.unlock().is_err() || self.users.try_lock().is_err() {
            return;
        }
        let Ok(stream) = std::os::unix::net::UnixStream::connect(&self.socket) else { return };
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&stream) else { return };
        // At once, and the socket before: one that ends in order would remove that of its successor.
        std::fs::remove_file(&self.socket).ok();
        if let Err(error) = rustix::process::kill_process(peer.pid, rustix::process::Signal::KILL) {
            tracing::debug!(%error, "the podman service stays");
        }
    }
}

/// Ends a service that a killed program left listening in this directory; false if there was none.
///
/// # Errors
/// When it cannot be told to end.
pub async fn stop_service(socket_dir: &Path) -> std::io::Result<bool> {
    let Ok(stream) = UnixStream::connect(socket_dir.join(SOCKET)).await else { return Ok(false) };
    // The kernel knows who listens, which no file of ours could say as surely.
    let Some(pid) = stream.peer_cred()?.pid().and_then(rustix::process::Pid::from_raw) else {
        return Ok(false);
    };
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    Ok(true)
}

/// The end of what podman said.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(5)..].join("; ")
}

/// The first executable of that name on `path`.
pub(crate) fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}
