//! Which manager to talk to: the machine's own, the user's own, or a private one that we start.
//!
//! A private manager is a real `systemd --user` in a mount namespace of its own (so that it takes the machine for one
//! that systemd has booted) with its own runtime folder, home and control group. It is not our child in any sense that
//! matters: it and its units go on when we are killed, and the next start finds it again by its socket.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bus::{self, Systemd};
use super::quadlet::Quadlet;

/// How long a private manager may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Units are given systemd's own 90 s to stop before they are killed.
const END_TIMEOUT: Duration = Duration::from_secs(100);
/// Killed processes go at once, unless the kernel holds them.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a hierarchy of control groups may be: v2, and v1 beside v2.
const CGROUP_ROOTS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
const RETRY: Duration = Duration::from_millis(20);
/// `sun_path` holds 108 bytes with the closing NUL, unix(7).
const SOCKET_PATH_LIMIT: usize = 107;

/// Which of a machine's managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    System,
    User,
    Private,
}

impl Scope {
    /// As it is written in a machine's record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::System => "system",
            Scope::User => "user",
            Scope::Private => "private",
        }
    }
}

/// A manager: how to reach it and where it reads unit files that last until the next boot.
#[derive(Debug, Clone)]
pub struct Manager {
    pub scope: Scope,
    /// The bus that the manager is on.
    pub socket: PathBuf,
    /// Unit files are put here. Lost at a reboot, when the agent puts them again.
    pub unit_dir: PathBuf,
    /// Of which systemd gets the services of Quadlet files.
    pub quadlet: Quadlet,
}

/// What there is on this machine, looked at by the caller.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub is_root: bool,
    pub uid: u32,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// Where a private manager keeps its folders.
    pub private_dir: PathBuf,
    /// Use a private manager whatever there is.
    pub force_private: bool,
}

/// Why there is no manager to talk to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("systemd is not installed: no {}; on Debian: apt-get install systemd", looked_at.display())]
    NotInstalled { looked_at: PathBuf },
    #[error(
        "no systemd user manager answers at {}; log in as this user through a login manager or ssh, \
         or keep one running with: loginctl enable-linger (on Debian it needs the packages dbus-user-session and libpam-systemd)", socket.display()
    )]
    NoUserManager { socket: PathBuf, source: bus::Error },
    #[error("the path {} is longer than the {SOCKET_PATH_LIMIT} bytes a socket may have; use a shorter --state-dir", path.display())]
    PathTooLong { path: PathBuf },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot start a private systemd: {said}")]
    Launch { said: String },
    #[error(
        "this machine was not booted by systemd, and an ordinary user cannot start one for want of a control group \
         of his own; run this as root ({said})"
    )]
    NotRoot { said: String },
    #[error("a private systemd was started but did not answer within {} s (on Debian it needs the packages dbus and dbus-user-session): {said}", START_TIMEOUT.as_secs())]
    Silent { said: String, source: bus::Error },
    #[error("the private systemd does not run")]
    NotRunning(#[source] bus::Error),
    #[error("the private systemd in {} was asked to end but has not", dir.display())]
    StillThere { dir: PathBuf },
    #[error("cannot reach the machine's systemd (on Debian it needs the package dbus)")]
    System(#[source] bus::Error),
}

/// The private manager of these surroundings if it runs, else the machine's or the user's; none is started.
///
/// # Errors
/// As [`connect`]; [`Error::NotRunning`] for a private manager that is not there.
pub async fn connect_running(around: &Surroundings) -> Result<(Manager, Systemd), Error> {
    if is_private(around) {
        let manager = private(&around.private_dir)?;
        let systemd = Systemd::connect(&manager.socket).await.map_err(Error::NotRunning)?;
        return Ok((manager, systemd));
    }
    connect(around).await
}

fn is_private(around: &Surroundings) -> bool {
    let booted = std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|found| found.is_dir());
    around.force_private || !booted
}

/// Finds the manager for these surroundings, starts a private one if need be, and connects.
///
/// # Errors
/// When there is none; the message says what to do.
pub async fn connect(around: &Surroundings) -> Result<(Manager, Systemd), Error> {
    if !is_private(around) {
        if around.is_root {
            let manager = Manager {
                scope: Scope::System,
                socket: "/run/dbus/system_bus_socket".into(),
                unit_dir: "/run/systemd/system".into(),
                quadlet: Quadlet::of_system(),
            };
            let systemd = Systemd::connect(&manager.socket).await.map_err(Error::System)?;
            return Ok((manager, systemd));
        }
        // Whoever came by su may have the variable of somebody else.
        let own = |dir: &PathBuf| std::fs::metadata(dir).is_ok_and(|found| found.uid() == around.uid);
        let runtime = around.runtime_dir.clone().filter(own);
        let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", around.uid).into());
        let manager = Manager {
            scope: Scope::User,
            socket: runtime.join("bus"),
            unit_dir: runtime.join("systemd/user"),
            quadlet: Quadlet::of_user(&runtime),
        };
        let systemd = Systemd::connect(&manager.socket)
            .await
            .map_err(|source| Error::NoUserManager { socket: manager.socket.clone(), source })?;
        return Ok((manager, systemd));
    }
    let manager = private(&around.private_dir)?;
    if let Ok(systemd) = Systemd::connect(&manager.socket).await {
        return Ok((manager, systemd));
    }
    clear_groups(&around.private_dir).await?;
    let systemd = launch(&around.private_dir, &manager.socket, around.is_root).await?;
    Ok((manager, systemd))
}

/// The private manager of this folder, whether it runs or not.
///
/// # Errors
/// When the folder's path is too long for a socket.
pub fn private(dir: &Path) -> Result<Manager, Error> {
    let runtime = dir.join("run");
    let socket = runtime.join("bus");
    if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
        return Err(Error::PathTooLong { path: socket });
    }
    let quadlet = Quadlet::of_user(&runtime);
    Ok(Manager { scope: Scope::Private, socket, unit_dir: runtime.join("systemd/user"), quadlet })
}

/// Ends a private manager and all its units, and waits until nothing of it is left but its folders.
///
/// # Errors
/// When it does not end in time.
pub async fn end_private(dir: &Path, systemd: &Systemd) -> Result<(), Error> {
    let manager = private(dir)?;
    systemd.exit().await.map_err(Error::System)?;
    let gone = async {
        while Systemd::connect(&manager.socket).await.is_ok() {
            tokio::time::sleep(RETRY).await;
        }
        // The bus is one of its units and goes first; the groups are empty when the manager itself is gone.
        while !CGROUP_ROOTS.iter().all(|root| remove_group(&Path::new(root).join(group_name(dir))).is_ok()) {
            tokio::time::sleep(RETRY).await;
        }
    };
    match tokio::time::timeout(END_TIMEOUT, gone).await {
        Ok(()) => Ok(()),
        Err(_) => clear_groups(dir).await,
    }
}

/// Kills what a manager that is gone left running, so that nothing runs beside what the next one starts.
async fn clear_groups(dir: &Path) -> Result<(), Error> {
    let groups: Vec<_> = CGROUP_ROOTS.iter().map(|root| Path::new(root).join(group_name(dir))).collect();
    let empty = async {
        while !groups.iter().all(|group| remove_group(group).is_ok()) {
            groups.iter().for_each(|group| kill_group(group));
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::time::timeout(CLEAR_TIMEOUT, empty).await.map_err(|_| Error::StillThere { dir: dir.to_owned() })
}

fn kill_group(group: &Path) {
    let processes = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
        // Whoever is gone already needs no signal.
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
    let below = std::fs::read_dir(group).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .for_each(|entry| kill_group(&entry.path()));
}

/// Removes an empty control group with those below it; one that is not there is fine.
fn remove_group(group: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

/// The same for the same folder, so that a manager is found again.
fn group_name(dir: &Path) -> String {
    format!("sealift-{}", &blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex()[..12])
}

/// Moves into a control group of its own (two managers in one group would kill each other's units), hides the real
/// /run/systemd, and becomes the manager. `$1` is the group's name, `$2` the systemd binary. An ordinary user needs to be
/// root for the mount, in a user namespace, and himself again after it: `$3` and `$4` are his user and group.
const BECOME_MANAGER: &str = r#"
for root in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    if [ -w "$root/cgroup.procs" ]; then
        mkdir -p "$root/$1" && echo $$ >"$root/$1/cgroup.procs" || :
    fi
done 2>/dev/null
if [ -w /run ]; then
    mkdir -p /run/systemd && mount -t tmpfs -o mode=755 tmpfs /run/systemd
else
    mount -t tmpfs -o mode=755 tmpfs /run
fi || exit 1
mkdir -p /run/systemd/system || exit 1
if [ -z "$3" ]; then exec "$2" --user --log-target=console; fi
exec unshare --user --map-user="$3" --map-group="$4" -- "$2" --user --log-target=console
"#;

async fn launch(dir: &Path, socket: &Path, is_root: bool) -> Result<Systemd, Error> {
    let binary = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NotInstalled { looked_at: "/usr/lib/systemd/systemd".into() })?;
    let (home, runtime) = (dir.join("home"), dir.join("run"));
    for folder in [dir, &home, &runtime] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)))
            .map_err(|source| Error::Io { action: "make", path: folder.to_owned(), source })?;
    }
    let log = dir.join("manager.log");
    let log_file = std::fs::File::create(&log).map_err(|source| Error::Io {
        action: "write",
        path: log.clone(),
        source,
    })?;
    let mut command = tokio::process::Command::new("setsid");
    command.arg("unshare");
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    let own = |id: u32| if is_root { String::new() } else { id.to_string() };
    command
        .args(["--mount", "--", "/bin/sh", "-c", BECOME_MANAGER, "sh", &group_name(dir)])
        .arg(binary)
        .arg(own(rustix::process::geteuid().as_raw()))
        .arg(own(rustix::process::getegid().as_raw()))
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", &home)
        .env("XDG_RUNTIME_DIR", &runtime)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log_file.try_clone().map_err(|source| Error::Io {
            action: "write",
            path: log.clone(),
            source,
        })?)
        .stderr(log_file);
    let mut child = command.spawn().map_err(|error| Error::Launch { said: format!("setsid: {error}") })?;
    let said = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("; ")
    };
    let deadline = tokio::time::Instant::now() + START_TIMEOUT;
    loop {
        match Systemd::connect(socket).await {
            Ok(systemd) => {
                // Reaped when it ends, so that a manager that exits while we live leaves no zombie.
                tokio::spawn(async move { child.wait().await });
                return Ok(systemd);
            }
            Err(source) if tokio::time::Instant::now() >= deadline => {
                // Nobody would ever find it again.
                child.kill().await.ok();
                return Err(Error::Silent { said: said(), source });
            }
            Err(_) => {}
        }
        if let Ok(Some(status)) = child.try_wait() {
            let said = format!("it ended with {status}: {}", said());
            return Err(if is_root { Error::Launch { said } } else { Error::NotRoot { said } });
        }
        tokio::time::sleep(RETRY).await;
    }
}
