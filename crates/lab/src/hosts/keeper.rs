//! The process that a set of hosts lives and dies with: the init of a pid namespace, which also holds the set's network
//! and its mounts.
//!
//! Guarantees: all of the set is in these namespaces, so when the keeper goes the kernel ends every process of every host and
//! takes the network and the file systems away. The keeper goes when it is killed, or when whoever started it does, in
//! whatever way: it waits for the end of its standard input. What that leaves are empty control groups, see `groups`.
//!
//! It must not know how a host boots.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Error, Life, WORK, process};
use crate::light_host::ends;

/// A command that only changes namespaces takes milliseconds.
pub(super) const SHORT: Duration = Duration::from_secs(30);

/// Run as the keeper. /run is its own, so that nothing of systemd-nspawn's is seen on the machine or the other way round.
/// It says `ready`; then bash waits for processes that nobody else does, until the end of its input.
const SCRIPT: &str = r#"
set -eu
trap 'echo "failed, see above" >&2' EXIT
for group; do echo 0 >"$group/cgroup.procs"; done
mount -t tmpfs -o mode=755 sealift-lab /run
mkdir -p "$WORK"
ip link set lo up
ip link add br0 type bridge
ip address add "$ADDRESS" dev br0
ip link set br0 up
nft -f - <<RULES
$RULES
RULES
trap - EXIT
echo ready
exec 1>&- 2>&-
if [ "$KEPT" = yes ]; then
    # Orphans are waited for at the next turn.
    while sleep 60; do :; done
fi
while read -r _; do :; done
"#;

/// The keeper of a set.
#[derive(Debug)]
pub(super) struct Keeper {
    pid: i32,
    /// The process that made the namespaces, where we started it and are to end it.
    child: Mutex<Option<Child>>,
}

impl Keeper {
    /// Starts a keeper in these control groups, with a bridge that has this address and prefix, and these rules in its network.
    pub(super) fn start(groups: &[PathBuf], address: &str, rules: &str, life: Life) -> Result<Keeper, Error> {
        let what = || "the keeper of the hosts".to_owned();
        let spawn = |source| Error::Spawn { what: what(), source };
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--propagation=private", "--"]);
        command.args(["bash", "-c", SCRIPT, "keeper"]).args(groups);
        command.envs([("WORK", WORK), ("ADDRESS", address), ("RULES", rules)]);
        let kept = life == Life::Kept;
        command.env("KEPT", if kept { "yes" } else { "no" });
        command.stdin(if kept { Stdio::null() } else { Stdio::piped() });
        // Ctrl-C is for us: we end the hosts in our own way.
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(spawn)?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(spawn)?;
        }
        if line.trim() != "ready" {
            let mut said = String::new();
            if let Some(err) = child.stderr.take() {
                err.take(1 << 16).read_to_string(&mut said).ok();
            }
            child.wait().ok();
            return Err(Error::Failed { what: what(), said: said.trim().to_owned() });
        }
        let maker = child.id();
        let children = PathBuf::from(format!("/proc/{maker}/task/{maker}/children"));
        let text = std::fs::read_to_string(&children).map_err(Error::io("read", &children))?;
        let pid = text.trim().parse().map_err(|_| spawn(std::io::Error::other("it has no process")))?;
        Ok(Keeper { pid, child: Mutex::new(Some(child)) })
    }

    /// A keeper that another process started and left behind.
    pub(super) fn found(pid: i32) -> Keeper {
        Keeper { pid, child: Mutex::new(None) }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Runs a command where the hosts' network and mounts are; as one of the set, so it ends with it.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.pid)).args(["--net", "--mount", "--pid", "--", program]);
        command
    }

    /// A command as in [`Keeper::command`] that has to succeed.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        let mut command = self.command(program);
        command.args(arguments);
        process::run(command, SHORT)
    }

    /// A command on the hosts' network, but with this machine's files, which is not one of the set.
    pub(super) fn beside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid)).args(["--", program]);
        command
    }

    /// Where a file that the keeper sees is seen from here.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Runs something in a thread whose sockets are on the hosts' network.
    pub(super) fn network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.pid));
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let outcome = std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                // The thread ends with the work, so there is no way back to go.
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map(|()| work())
            });
            match inside.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        outcome.map_err(|error| Error::io("enter", &path)(error.into()))
    }

    /// Ends the keeper and with it all of the set, if it is ours; says whether it was.
    pub(super) fn end(&self) -> bool {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut child) = child else { return false };
        self.kill();
        child.wait().ok();
        true
    }

    /// Ends the keeper and with it all of the set, whoever started it.
    pub(super) fn kill(&self) {
        if let Some(process) =
            Pid::from_raw(self.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        {
            pidfd_send_signal(&process, Signal::KILL).ok();
            // The kernel ends all processes of the namespace before its init is gone.
            ends(&process, SHORT);
        }
    }

    /// Lets the keeper go on when this process ends.
    pub(super) fn leave(&self) {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
