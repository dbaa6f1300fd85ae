//! Hosts: machines with a systemd of their own that boot from one tree of files, each with its own disk over it, and that
//! are joined by a bridge in a network of their own.
//!
//! Guarantees: nothing of the machine is changed but for control groups whose names begin with `sealift-lab-`; sets of hosts
//! beside each other do not meet. After a drop, a panic or a kill -9 of the process that made them no process, mount, network
//! or file of the hosts is left. After a kill -9 their empty control groups are, which the next set removes.
//!
//! What a host is not: it has no kernel of its own, so a "power cut" ends its processes and silences its network in one
//! moment, but what was written and not synced is still on its disk.
//!
//! It must not know what is tested on the hosts.

pub mod etcd;
mod faults;
mod groups;
mod host;
mod keeper;
mod kept;
mod process;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use host::Host;
pub use kept::{attach, down, up_and_keep};
pub use process::run;

use serde::{Deserialize, Serialize};

use groups::Groups;
use keeper::Keeper;

/// Between two looks at something that tells nobody when it changes.
pub const RETRY: Duration = Duration::from_millis(10);
/// Where the keeper has the hosts' files.
const WORK: &str = "/run/sealift-lab";
/// Where scripts/host-image puts the trees that hosts boot from.
const BASES: &str = "/var/cache/sealift-lab";
/// Held while sets begin and leftovers are removed, so that none is taken for a leftover before it has a process.
const LOCK: &str = "/run/sealift-lab.lock";
/// The network that the hosts are on, which no other network gets to see.
const PREFIX_LENGTH: u8 = 24;
/// The address on the bridge of what is on the hosts' network without being a host.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// What is needed beside root and a tree to boot from, with the Debian packages that have it.
const PROGRAMS: [(&str, &str); 8] = [
    ("bash", "bash"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
];

/// Why there are no hosts, or why one does not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("hosts with a systemd of their own need root")]
    NotRoot,
    #[error("missing for hosts: {}; scripts/install-deps test installs that", .0.join(", "))]
    Missing(Vec<String>),
    #[error("there is no tree to boot from at {}; scripts/host-image makes it", .0.display())]
    NoBase(PathBuf),
    #[error("no control groups of version 2 are mounted, which systemd in the hosts needs")]
    NoGroups,
    #[error("{count} hosts are not to be had: 1 to {}", MOST)]
    Count { count: usize },
    #[error("there is no host number {number}")]
    NoHost { number: usize },
    #[error("no host is called {name}; they are h1, h2 and so on")]
    NoName { name: String },
    #[error("host {host} is {state}")]
    State { host: String, state: &'static str },
    #[error("host {host} did not come up: {said}")]
    Boot { host: String, said: String },
    #[error("cannot start {what}")]
    Spawn {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{what} failed: {said}")]
    Failed { what: String, said: String },
    #[error("{what} was not done within {} s", limit.as_secs())]
    Late { what: String, limit: Duration },
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} does not hold what it should", path.display())]
    Kept {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("no hosts were left up")]
    NoneKept,
    #[error("hosts were left up before: lab hosts down ends them")]
    AlreadyKept,
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }
}

/// More hosts than that do not fit on a machine.
pub const MOST: usize = 99;

/// A file or folder of the machine that every host sees, and cannot change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bind {
    pub from: PathBuf,
    pub to: PathBuf,
}

/// A folder that has a file system of its own on every host, so that it can be full when the rest is not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    pub path: PathBuf,
    pub mebibytes: u32,
}

/// What hosts to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    pub count: usize,
    /// The tree to boot from, see [`base`].
    pub base: PathBuf,
    pub binds: Vec<Bind>,
    pub volumes: Vec<Volume>,
    /// Services that go by the host's clock, which [`Host::set_clock`] sets; without `.service`.
    pub clocked: Vec<String>,
}

impl Options {
    /// Hosts that boot from this tree and have nothing else.
    #[must_use]
    pub fn new(count: usize, base: PathBuf) -> Options {
        Options { count, base, binds: Vec::new(), volumes: Vec::new(), clocked: Vec::new() }
    }
}

/// Where the tree of a Debian release is; without a name that of this machine's own release, so that a program that
/// was built here runs there.
///
/// # Errors
/// When /etc/os-release cannot be read.
pub fn base(release: Option<&str>) -> Result<PathBuf, Error> {
    let path = Path::new("/etc/os-release");
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let own = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(Path::new(BASES).join(release.or(own).unwrap_or("bookworm")))
}

/// Some hosts on one network. They go when this is dropped.
#[derive(Debug)]
pub struct Hosts {
    hosts: Vec<Host>,
    world: Arc<World>,
}

/// What the hosts of a set share.
#[derive(Debug)]
struct World {
    groups: Groups,
    keeper: Keeper,
    options: Options,
}

impl Hosts {
    /// Makes hosts that are not switched on yet, so that their disks can be written to before.
    ///
    /// # Errors
    /// When root, a program, the tree or control groups are missing.
    pub fn make(options: Options) -> Result<Hosts, Error> {
        Hosts::make_for(options, Life::Ours)
    }

    /// Makes hosts and switches them on, all at once.
    ///
    /// # Errors
    /// Also when one does not come up.
    pub fn up(options: Options) -> Result<Hosts, Error> {
        let hosts = Hosts::make(options)?;
        hosts.start()?;
        Ok(hosts)
    }

    fn make_for(options: Options, life: Life) -> Result<Hosts, Error> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        check(&options)?;
        let _lock = lock()?;
        groups::sweep()?;
        let groups = Groups::of(&format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)))?;
        let homes = groups.make("keeper")?;
        let address = format!("{OUTSIDE}/{PREFIX_LENGTH}");
        let keeper = Keeper::start(&homes, &address, &faults::rules(options.count), life);
        if keeper.is_err() {
            groups.remove()?;
        }
        let hosts = Hosts::of(World { groups, keeper: keeper?, options });
        // A failure ends what there is, because `hosts` is dropped.
        hosts.hosts.iter().try_for_each(Host::make_disk)?;
        Ok(hosts)
    }

    fn of(world: World) -> Hosts {
        let world = Arc::new(world);
        let numbers = 1..=world.options.count;
        Hosts { hosts: numbers.map(|number| Host::new(number, &world)).collect(), world }
    }

    /// Switches on all hosts that are off, all at once, and waits until they are up.
    ///
    /// # Errors
    /// When one does not come up; the message has the end of what it said.
    pub fn start(&self) -> Result<(), Error> {
        Host::at_once(&self.hosts, |host| if host.is_on() { Ok(()) } else { host.start() })
    }

    /// The hosts, the first of which has the number 1.
    #[must_use]
    pub fn all(&self) -> &[Host] {
        &self.hosts
    }

    /// The host with this number, from 1 on.
    ///
    /// # Errors
    /// When there is none.
    pub fn host(&self, number: usize) -> Result<&Host, Error> {
        let found = number.checked_sub(1).and_then(|at| self.hosts.get(at));
        found.ok_or(Error::NoHost { number })
    }

    /// The process that the hosts live and die with.
    #[must_use]
    pub fn keeper(&self) -> i32 {
        self.world.keeper.pid()
    }

    /// A command with this machine's files that is on the hosts' network, as [`OUTSIDE`]. It is not one of the set:
    /// whoever starts it ends it.
    #[must_use]
    pub fn outside(&self, program: &str) -> Command {
        self.world.keeper.beside(program)
    }

    /// A command as in [`Hosts::outside`] that has to succeed within this time; gives what it printed.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn run_outside(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<String, Error> {
        let mut command = self.outside(program);
        command.args(arguments);
        process::run(command, limit)
    }

    /// Runs something in a thread whose sockets are on the hosts' network. What it panics with is passed on.
    ///
    /// # Errors
    /// When the network cannot be entered.
    pub fn network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        self.world.keeper.network(work)
    }

    /// Puts the journals and consoles of all hosts into this folder, a file of text each.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn save_logs(&self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
        self.hosts.iter().try_for_each(|host| host.save_logs(folder))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if self.world.keeper.end() {
            // What is left all the same goes when the next set is made.
            self.world.groups.remove().ok();
        }
    }
}

/// How long a set of hosts is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// As long as its [`Hosts`], or the process that has it.
    Ours,
    /// Until somebody ends it.
    Kept,
}

fn check(options: &Options) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    if !(1..=MOST).contains(&options.count) {
        return Err(Error::Count { count: options.count });
    }
    let missing = PROGRAMS.iter().filter(|(program, _)| !is_there(program));
    let mut missing: Vec<String> = missing.map(|(_, package)| (*package).to_owned()).collect();
    missing.dedup();
    if !missing.is_empty() {
        return Err(Error::Missing(missing));
    }
    if options.base.join("usr/lib/systemd").is_dir() || options.base.join("lib/systemd").is_dir() {
        Ok(())
    } else {
        Err(Error::NoBase(options.base.clone()))
    }
}

fn is_there(program: &str) -> bool {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).is_file())
}

fn lock() -> Result<File, Error> {
    let path = Path::new(LOCK);
    let file = File::create(path).map_err(Error::io("open", path))?;
    file.lock().map_err(Error::io("lock", path))?;
    Ok(file)
}
