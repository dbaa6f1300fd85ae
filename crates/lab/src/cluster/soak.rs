//! A soak: random faults and random work with units, round after round, and the judge after each.
//!
//! A round does one thing to the cluster, works with units while that lasts, takes it back, and waits until the judge has
//! nothing to say. The same seed gives the same rounds; what happens in them also hangs on the machine, so a failure repeats
//! as far as reality allows.
//!
//! It must not know how a cluster is put together.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use sealift_model::UnitName;

use super::{AGENT, Cluster, Error, LONG, MACHINE_TTL, SERVER, STATE, judge};
use crate::hosts::{self, Host};
use crate::rng::Rng;
use sealift_model::diagnostic::chain;

const TEXT: &str = "[Service]\nExecStart=/bin/sleep 1d\n";
/// A cluster of a few hosts has no use for more.
const MOST_UNITS: usize = 60;
/// So many units are launched or destroyed at once, at most.
const AT_ONCE: u64 = 8;
/// What a slow link lets through, in kilobits a second: enough for leases, not for much more.
const SLOW: u32 = 512;
/// How far a clock is set wrong, in seconds, either way.
const HOUR: i64 = 3600;
/// Between two tries to get something done while something is broken.
const AGAIN: Duration = Duration::from_millis(200);

/// What is done to a cluster for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The power is cut, and comes back.
    Power,
    /// Shut down in order, and switched on.
    Shutdown,
    Cable,
    Freeze,
    SlowLink,
    Loss,
    /// Nothing that the host sends reaches the others.
    Unheard,
    /// The host on one side, all others on the other.
    Apart,
    /// The server on it, where there is one, is stopped and started.
    Server,
    Agent,
    /// Both lose their processes and are started again by systemd at once.
    KillServer,
    KillAgent,
    /// So does the member of etcd.
    KillEtcd,
    FullDisk,
    Clock,
}

const FAULTS: [Fault; 16] = [
    Fault::None,
    Fault::Power,
    Fault::Shutdown,
    Fault::Cable,
    Fault::Freeze,
    Fault::SlowLink,
    Fault::Loss,
    Fault::Unheard,
    Fault::Apart,
    Fault::Server,
    Fault::Agent,
    Fault::KillServer,
    Fault::KillAgent,
    Fault::KillEtcd,
    Fault::FullDisk,
    Fault::Clock,
];

impl Fault {
    /// Whether the host is certainly out of contact while it lasts, so that the rest has to manage without it.
    fn separates(self) -> bool {
        matches!(self, Fault::Power | Fault::Shutdown | Fault::Cable)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::None => "nothing happens to",
            Fault::Power => "power cut of",
            Fault::Shutdown => "orderly shutdown of",
            Fault::Cable => "cable pulled of",
            Fault::Freeze => "freeze of",
            Fault::SlowLink => "slow link of",
            Fault::Loss => "a third of packets lost by",
            Fault::Unheard => "nobody hears",
            Fault::Apart => "apart from all others:",
            Fault::Server => "server stopped on",
            Fault::Agent => "agent stopped on",
            Fault::KillServer => "server killed on",
            Fault::KillAgent => "agent killed on",
            Fault::KillEtcd => "etcd killed on",
            Fault::FullDisk => "full disk on",
            Fault::Clock => "wrong clock on",
        })
    }
}

/// How long a soak is, and what is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub length: Duration,
    pub seed: u64,
}

/// What a soak has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub rounds: usize,
    pub launched: usize,
    pub destroyed: usize,
    /// The longest that the cluster took to be as it should after a fault was over.
    pub slowest: Duration,
}

/// Soaks a cluster, which has no units yet; `tell` is given a line for each thing that happens.
///
/// # Errors
/// With what the judge says when the cluster does not settle, or when a host does not do what it was told.
pub fn soak(cluster: &Cluster, options: Options, mut tell: impl FnMut(&str)) -> Result<Summary, Error> {
    let begun = Instant::now();
    let mut soak = Soak {
        cluster,
        rng: Rng::new(options.seed),
        wanted: BTreeSet::new(),
        next: 0,
        summary: Summary::default(),
    };
    while begun.elapsed() < options.length {
        let mut line = |text: &str| tell(&format!("{:7.1} s  {text}", begun.elapsed().as_secs_f64()));
        soak.round(&mut line)?;
    }
    Ok(soak.summary)
}

struct Soak<'a> {
    cluster: &'a Cluster,
    rng: Rng,
    wanted: BTreeSet<UnitName>,
    /// Names are not used twice.
    next: usize,
    summary: Summary,
}

impl Soak<'_> {
    fn round(&mut self, tell: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let fault = self.rng.pick(&FAULTS).copied().unwrap_or(Fault::None);
        let Some(host) = self.rng.pick(self.cluster.hosts().all()) else { return Ok(()) };
        self.summary.rounds += 1;
        tell(&format!("round {}: {fault} {}", self.summary.rounds, host.name()));
        let clock = if self.rng.chance(50) { HOUR } else { -HOUR };
        // A while that is now shorter and now longer than the lease.
        let lease = u64::try_from(MACHINE_TTL.as_millis()).unwrap_or(u64::MAX);
        let lasts = Duration::from_millis(self.rng.below(2 * lease));
        let (launched, destroyed) = (self.draw_new(), self.draw_old());

        let fault_begun = Instant::now();
        self.begin(fault, host, clock)?;
        self.work(&launched, &destroyed, tell)?;
        if fault.separates() {
            let rest = self.others(host);
            judge::settle(&rest, &self.wanted, LONG)?;
            tell(&format!("the others have settled without {}", host.name()));
        }
        // What a fault does also hangs on how long it lasts; nothing is waited for here.
        std::thread::sleep(lasts.saturating_sub(fault_begun.elapsed()));
        self.end(fault, host)?;
        let over = Instant::now();
        self.cluster.settle(&self.wanted, LONG)?;
        let took = over.elapsed();
        self.summary.slowest = self.summary.slowest.max(took);
        tell(&format!("settled after {:.1} s with {} units", took.as_secs_f64(), self.wanted.len()));
        Ok(())
    }

    /// Names of units that are to be launched.
    fn draw_new(&mut self) -> Vec<UnitName> {
        let room = MOST_UNITS.saturating_sub(self.wanted.len());
        let count = usize::try_from(self.rng.below(AT_ONCE + 1)).unwrap_or(0).min(room);
        let first = self.next;
        self.next += count;
        let names = (first..self.next).map(|number| format!("{}{number}.service", judge::PREFIX).parse());
        names.filter_map(Result::ok).collect()
    }

    /// Some of those that run.
    fn draw_old(&mut self) -> Vec<UnitName> {
        let all: Vec<_> = self.wanted.iter().cloned().collect();
        let count = self.rng.below(AT_ONCE + 1);
        let drawn: BTreeSet<_> = (0..count).filter_map(|_| self.rng.pick(&all).cloned()).collect();
        drawn.into_iter().collect()
    }

    fn work(
        &mut self,
        launched: &[UnitName],
        destroyed: &[UnitName],
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        if !launched.is_empty() {
            tell(&format!("launch {}", words(launched)));
            until_taken(|| self.cluster.launch(launched, TEXT))?;
            self.wanted.extend(launched.iter().cloned());
            self.summary.launched += launched.len();
        }
        if !destroyed.is_empty() {
            tell(&format!("destroy {}", words(destroyed)));
            until_taken(|| self.cluster.destroy(destroyed))?;
            self.wanted.retain(|name| !destroyed.contains(name));
            self.summary.destroyed += destroyed.len();
        }
        Ok(())
    }

    fn others(&self, than: &Host) -> Vec<&Host> {
        self.cluster.hosts().all().iter().filter(|host| host.number() != than.number()).collect()
    }

    fn has_server(&self, host: &Host) -> bool {
        host.number() <= self.cluster.server_hosts().len()
    }

    fn begin(&self, fault: Fault, host: &Host, clock: i64) -> Result<(), hosts::Error> {
        let hosts = self.cluster.hosts();
        match fault {
            Fault::None => Ok(()),
            Fault::Power => host.kill(),
            Fault::Shutdown => host.power_off(),
            Fault::Cable => host.cut(),
            Fault::Freeze => host.freeze(),
            Fault::SlowLink => host.slow_down(SLOW),
            Fault::Loss => host.lose(33),
            Fault::Unheard => hosts.deafen(&[host], &self.others(host)),
            Fault::Apart => hosts.partition(&[host], &self.others(host)),
            Fault::Server => self.service(host, &["stop"], SERVER),
            Fault::Agent => self.service(host, &["stop"], AGENT),
            Fault::KillServer => self.service(host, &["kill", "--signal=KILL"], SERVER),
            Fault::KillAgent => self.service(host, &["kill", "--signal=KILL"], AGENT),
            Fault::KillEtcd => self.service(host, &["kill", "--signal=KILL"], "etcd"),
            Fault::FullDisk => host.fill(STATE),
            Fault::Clock => host.set_clock(clock),
        }
    }

    fn end(&self, fault: Fault, host: &Host) -> Result<(), hosts::Error> {
        match fault {
            Fault::None | Fault::KillServer | Fault::KillAgent | Fault::KillEtcd => Ok(()),
            Fault::Power | Fault::Shutdown => host.start(),
            Fault::Cable => host.uncut(),
            Fault::Freeze => host.thaw(),
            Fault::SlowLink => host.speed_up(),
            Fault::Loss => host.lose(0),
            Fault::Unheard | Fault::Apart => self.cluster.hosts().heal(),
            Fault::Server => self.service(host, &["start"], SERVER),
            Fault::Agent => self.service(host, &["start"], AGENT),
            Fault::FullDisk => host.unfill(STATE),
            Fault::Clock => host.set_clock(0),
        }
    }

    fn service(&self, host: &Host, action: &[&str], service: &str) -> Result<(), hosts::Error> {
        if service != AGENT && !self.has_server(host) {
            return Ok(());
        }
        let mut words = action.to_vec();
        words.push(service);
        host.run("systemctl", &words).map(drop)
    }
}

/// A server may have been lost in the middle of it, and what is asked here is as good twice as once.
fn until_taken(work: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match work() {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > LONG => {
                let complaints = vec![chain(&error)];
                return Err(Error::Late { what: "a server takes the work".into(), limit: LONG, complaints });
            }
            Err(_) => std::thread::sleep(AGAIN),
        }
    }
}

fn words(names: &[UnitName]) -> String {
    names.iter().map(UnitName::as_str).collect::<Vec<_>>().join(" ")
}
