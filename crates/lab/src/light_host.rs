//! A light host: a private user manager of systemd in a temporary directory, started as the agent starts one.
//!
//! Guarantees: dozens run side by side and do not see each other's units; after [`LightHost::stop`], or after a drop,
//! no process, control group, mount or file of the host is left. A drop kills where a stop asks.
//!
//! It must not know what is tested on it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sealift_agent::systemd::launch::{self, Surroundings};
use sealift_agent::systemd::{Manager, Systemd, bus};

/// Where hierarchies of control groups may be mounted: version 2 alone, version 2 beside version 1, systemd's own of 1.
const GROUP_ROOTS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// How the agent names the control groups of its private managers.
const GROUP_PREFIX: &str = "sealift-";
/// How long units may take to stop before they are killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the kernel may take to be done with what was killed.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no light host, or why something of it is left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a directory for the host")]
    Directory(#[source] io::Error),
    #[error(transparent)]
    Launch(#[from] launch::Error),
    #[error("the bus {} does not say which process is the manager", socket.display())]
    NoPid {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot follow the manager's process")]
    Process(#[source] io::Error),
    #[error("the manager does not take the order to exit")]
    Exit(#[source] bus::Error),
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("processes of the host are left in {}", group.display())]
    Alive { group: PathBuf },
    #[error("the task that clears up broke off")]
    Task(#[source] tokio::task::JoinError),
}

/// A running host.
#[derive(Debug)]
pub struct LightHost {
    manager: Manager,
    systemd: Systemd,
    surroundings: Surroundings,
    rest: Option<Rest>,
    dir: tempfile::TempDir,
}

/// What has to go in the end.
#[derive(Debug)]
pub(crate) struct Rest {
    pid: i32,
    process: OwnedFd,
    groups: Vec<PathBuf>,
}

impl LightHost {
    /// Starts a manager of its own and connects to it.
    ///
    /// # Errors
    /// When systemd or its bus is not installed; the message says what to install.
    pub async fn start() -> Result<LightHost, Error> {
        // A socket's path is short, so the directory's must be, too.
        let dir = tempfile::Builder::new().prefix("lab-").tempdir().map_err(Error::Directory)?;
        let user = rustix::process::geteuid();
        let surroundings = Surroundings {
            is_root: user.is_root(),
            uid: user.as_raw(),
            runtime_dir: None,
            private_dir: dir.path().join("systemd"),
            force_private: true,
        };
        let (manager, systemd) = launch::connect(&surroundings).await?;
        let rest = Rest::behind(&manager.socket).await?;
        Ok(LightHost { manager, systemd, surroundings, rest: Some(rest), dir })
    }

    /// How to reach the manager.
    #[must_use]
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// A connection to the manager.
    #[must_use]
    pub fn systemd(&self) -> &Systemd {
        &self.systemd
    }

    /// For an agent that is to find this manager and no other.
    #[must_use]
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// A directory of the host's own; it goes with the host.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The manager's process.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.rest.as_ref().map(|rest| rest.pid)
    }

    /// The control groups of the manager, one in each hierarchy that there is.
    #[must_use]
    pub fn groups(&self) -> &[PathBuf] {
        self.rest.as_ref().map_or(&[], |rest| &rest.groups)
    }

    /// Asks the manager to stop its units and exit, waits until it has, and removes what is left of it.
    ///
    /// # Errors
    /// When something is left all the same.
    pub async fn stop(mut self) -> Result<(), Error> {
        let Some(rest) = self.rest.take() else { return Ok(()) };
        let asked = match self.systemd.exit().await {
            // A manager that is gone already needs no order.
            Ok(()) | Err(bus::Error::Gone) => Ok(()),
            Err(error) if rest.has_ended(Duration::ZERO) => {
                drop(error);
                Ok(())
            }
            Err(error) => Err(Error::Exit(error)),
        };
        let patience = if asked.is_ok() { PATIENCE } else { Duration::ZERO };
        tokio::task::spawn_blocking(move || rest.clear(patience)).await.map_err(Error::Task)??;
        asked
    }
}

impl Drop for LightHost {
    fn drop(&mut self) {
        // Whoever wants to know whether it worked calls `stop`.
        if let Some(rest) = self.rest.take() {
            rest.clear(Duration::ZERO).ok();
        }
    }
}

/// The process that listens on the manager's bus: systemd itself, which hands the socket on to the bus.
async fn manager_pid(socket: &Path) -> io::Result<i32> {
    let stream = tokio::net::UnixStream::connect(socket).await?;
    let pid = stream.peer_cred()?.pid().ok_or_else(|| io::Error::other("the kernel names no process"))?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
    // Somebody else is not to be killed.
    if name.trim() == "systemd" {
        Ok(pid)
    } else {
        Err(io::Error::other(format!("process {pid} is called {}", name.trim())))
    }
}

impl Rest {
    /// What belongs to the manager that is on the bus with this socket.
    pub(crate) async fn behind(socket: &Path) -> Result<Rest, Error> {
        let pid =
            manager_pid(socket).await.map_err(|source| Error::NoPid { socket: socket.to_owned(), source })?;
        Rest::of(pid).map_err(Error::Process)
    }

    /// Waits for a manager that was asked to exit, and removes what is left of it.
    pub(crate) async fn go(self) -> Result<(), Error> {
        tokio::task::spawn_blocking(move || self.clear(PATIENCE)).await.map_err(Error::Task)?
    }

    fn of(pid: i32) -> io::Result<Rest> {
        let id = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no process has the number 0"))?;
        let process = pidfd_open(id, PidfdFlags::empty())?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mut groups = Vec::new();
        // proc_pid_cgroup(5): hierarchy, controllers and path, set apart by colons.
        for path in text.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            let Some(top) = path.split('/').nth(1).filter(|top| top.starts_with(GROUP_PREFIX)) else {
                continue;
            };
            let found = GROUP_ROOTS.map(|root| Path::new(root).join(top));
            groups.extend(found.into_iter().filter(|group| group.is_dir()));
        }
        groups.sort();
        groups.dedup();
        Ok(Rest { pid, process, groups })
    }

    fn has_ended(&self, patience: Duration) -> bool {
        ends(&self.process, patience)
    }

    /// Waits for the manager for so long, then kills it and all that is in its groups, and removes those.
    fn clear(&self, patience: Duration) -> Result<(), Error> {
        if !self.has_ended(patience) {
            pidfd_send_signal(&self.process, Signal::KILL).ok();
            self.has_ended(KILL_PATIENCE);
        }
        self.groups.iter().try_for_each(|group| clear_group(group))
    }
}

/// Whether the process ends within this time.
pub(crate) fn ends(process: &OwnedFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut waited = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        match poll(&mut waited, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => return outcome.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Kills what is in the group and below it until nothing is, then removes it.
fn clear_group(group: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let mut dirs = Vec::new();
        collect(group, &mut dirs)?;
        let mut processes = Vec::new();
        for dir in &dirs {
            let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            let pids = text.lines().filter_map(|line| line.trim().parse().ok()).filter_map(Pid::from_raw);
            // One that has ended since is no trouble.
            processes.extend(pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()));
        }
        for process in &processes {
            pidfd_send_signal(process, Signal::KILL).ok();
        }
        for process in &processes {
            ends(process, deadline.saturating_duration_since(Instant::now()));
        }
        match remove(&dirs) {
            // A process that forked meanwhile, or one that the kernel is not done with.
            Err(Error::Io { source, .. })
                if source.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {}
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {
                return Err(Error::Alive { group: group.to_owned() });
            }
            outcome => return outcome,
        }
    }
}

/// The group and those below it, the deepest last.
fn collect(group: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let io = |source| Error::Io { action: "read", path: group.to_owned(), source };
    let entries = match std::fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io)?,
    };
    found.push(group.to_owned());
    for entry in entries {
        let entry = entry.map_err(io)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn remove(dirs: &[PathBuf]) -> Result<(), Error> {
    for dir in dirs.iter().rev() {
        match std::fs::remove_dir(dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { action: "remove", path: dir.clone(), source });
            }
            _ => {}
        }
    }
    Ok(())
}
