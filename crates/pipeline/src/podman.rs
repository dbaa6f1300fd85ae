//! A podman service of our own, for machines that have podman but no service running.
//!
//! Guarantees: it ends when its handle is dropped. Should the program be killed, the service stays, and is found
//! again by its socket.
//!
//! It must not know what the service is used for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
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

/// A running service.
#[derive(Debug)]
pub(crate) struct Service {
    _child: Child,
}

impl Service {
    /// Starts `podman system service` on `socket` and waits until it listens.
    pub(crate) async fn start(binary: &Path, path: &OsStr, socket: &Path) -> Result<Service, Error> {
        let dir = socket.parent().unwrap_or(Path::new("/"));
        let log = dir.join("podman.log");
        let directory = |source| Error::Directory { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(directory)?;
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
        command.process_group(0).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|source| Error::Spawn { binary: binary.to_owned(), source })?;
        let deadline = Instant::now() + START;
        loop {
            if UnixStream::connect(socket).await.is_ok() {
                return Ok(Service { _child: child });
            }
            if !matches!(child.try_wait(), Ok(None)) {
                return Err(Error::Ended { log: tail(&log) });
            }
            if Instant::now() > deadline {
                return Err(Error::Silent { log: tail(&log) });
            }
            sleep(Duration::from_millis(20)).await;
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
