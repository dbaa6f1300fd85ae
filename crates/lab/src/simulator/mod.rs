//! A fleet that exists only in memory: the real planner in the middle, machines, agents, networks and people around it.
//!
//! Guarantees: no threads, no real time, no chance but the seed: a seed gives the same story every time. The server
//! side writes what [`sealift_planner::apply`] gives, one action at a time, and after every event the oracle looks at
//! what the planner wrote and at what the machines really do. A story has three parts: faults and changes for as
//! many events as asked for; a calm in which everything heals and has to come to rest; and an outage of the server, in
//! which nothing may happen to any unit.
//!
//! The agents here are a model of `sealift-agent`, down to what is said to the server when; they hold no systemd.

mod agent;
mod clock;
mod net;
mod oracle;
mod people;
mod server;

use std::collections::VecDeque;
use std::fmt;

use sealift_model::{InvalidName, MachineId, SessionId, UnitName};
use sealift_planner::{Plan, Snapshot};

use crate::rng::Rng;
use agent::Agents;
use clock::{Clock, Millis};
use net::{Reply, Request, Sent};
pub use oracle::Broken;
use oracle::Oracle;
use people::People;
use server::Server;

/// How long a machine counts as present after its last keep-alive.
const TTL: Millis = 10_000;
/// How long the calm at the end may take until everything is as it should be.
const CALM: Millis = 600_000;
/// How much of a story that went wrong is shown.
const LAST: usize = 40;

/// A year of 365 days.
pub const YEAR: Millis = 365 * 24 * 3_600_000;

/// What is simulated and how strictly.
#[derive(Debug, Clone)]
pub struct Options {
    pub length: Length,
    pub size: Size,
    pub planning: Planning,
    /// Whether each action is checked by the planner's own invariants. Without, what the machines do has to show it.
    pub check_actions: bool,
    /// After how many events the whole world is judged, beside the part that an event can have changed.
    pub full_every: usize,
}

/// When the calm begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Events(usize),
    /// Of simulated time.
    Millis(Millis),
}

/// How big the world is, and how much happens in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Two to seven machines and a dozen units that are in each other's way. Something breaks or is wanted every second.
    Small,
    /// So many machines, and so many names of units, of which about half are there at a time. Something breaks or is
    /// wanted every `pace` milliseconds on the average. Keep-alives are played only where something is in their way: in
    /// between, hours go by in which nothing happens.
    Big { machines: u64, units: u64, pace: Millis },
}

/// Who decides.
#[derive(Debug, Clone, Copy)]
pub enum Planning {
    /// The real planner, which lives as long as its server.
    Living,
    /// Another one, to show that the oracle sees its errors; it looks at everything each time.
    Once(fn(&Snapshot) -> Plan),
}

impl PartialEq for Planning {
    fn eq(&self, other: &Planning) -> bool {
        matches!((self, other), (Planning::Living, Planning::Living))
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            length: Length::Events(2_000),
            size: Size::Small,
            planning: Planning::Living,
            check_actions: true,
            full_every: 1,
        }
    }
}

/// What happened in a story, to see that it was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    pub events: usize,
    pub virtual_millis: u64,
    pub placed: usize,
    pub unplaced: usize,
    pub dispatched: usize,
    pub lost_attempts: usize,
    pub ended_runs: usize,
    pub sessions: usize,
    pub expired: usize,
    pub cuts: usize,
    pub kills: usize,
    pub releases: usize,
    pub outages: usize,
    pub leader_changes: usize,
    pub lost_messages: usize,
    pub doubled_messages: usize,
    /// Agents and servers that went to the next version or back.
    pub upgrades: usize,
}

impl Summary {
    /// How much was simulated in so much real time, in words.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures to read")]
    pub fn speed(&self, seconds: f64) -> String {
        let per_second = self.events as f64 / seconds.max(0.001);
        let days = self.virtual_millis as f64 / 86_400_000.0;
        format!(
            "{} events in {seconds:.1} s: {per_second:.0} a second; {days:.1} days simulated",
            self.events
        )
    }
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Summary) {
        self.events += other.events;
        self.virtual_millis += other.virtual_millis;
        self.placed += other.placed;
        self.unplaced += other.unplaced;
        self.dispatched += other.dispatched;
        self.lost_attempts += other.lost_attempts;
        self.ended_runs += other.ended_runs;
        self.sessions += other.sessions;
        self.expired += other.expired;
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.releases += other.releases;
        self.outages += other.outages;
        self.leader_changes += other.leader_changes;
        self.lost_messages += other.lost_messages;
        self.doubled_messages += other.doubled_messages;
        self.upgrades += other.upgrades;
    }
}

/// A story that went wrong.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub length: Length,
    pub size: Size,
    /// Which event it was, and when.
    pub event: usize,
    pub at: u64,
    pub broken: Broken,
    /// What happened last, oldest first.
    pub last: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "event {} at {} ms: {}", self.event, self.at, self.broken)?;
        for line in &self.last {
            writeln!(f, "  {line}")?;
        }
        write!(f, "again: cargo run -p lab -- simulate --seed {}", self.seed)?;
        match self.length {
            Length::Events(events) => write!(f, " --events {events}")?,
            Length::Millis(millis) => write!(f, " --hours {}", millis / 3_600_000)?,
        }
        if let Size::Big { machines, units, pace } = self.size {
            write!(f, " --machines {machines} --units {units} --pace {pace}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// What can happen.
#[derive(Debug)]
enum Event {
    /// The planner looks.
    Plan,
    /// A lease that was not renewed since ends.
    Expire {
        machine: MachineId,
        deadline: Millis,
    },
    /// A stream of assignments brings the next message.
    Deliver {
        machine: MachineId,
        connection: u64,
    },
    Ask {
        machine: MachineId,
        life: Life,
        request: Request,
        sent: Sent,
    },
    Answer {
        machine: MachineId,
        life: Life,
        request: Request,
        reply: Reply,
    },
    Timer {
        machine: MachineId,
        life: Life,
        timer: Timer,
    },
    /// systemd is done with a job; it does not care whether the agent lives.
    Job {
        machine: MachineId,
        unit: UnitName,
        job: u64,
    },
    /// A unit ends by itself.
    Crash {
        machine: MachineId,
        instance: u64,
    },
    Start {
        machine: MachineId,
    },
    Heal {
        machine: MachineId,
    },
    FirstUnits,
    PlannerBack,
    ServerBack,
    /// Somebody does something, or something breaks.
    People,
}

/// Which process of an agent, and which of its sessions: what belongs to an earlier one comes too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    process: u64,
    session: u64,
}

/// What an agent waits for.
#[derive(Debug, Clone)]
enum Timer {
    Begin,
    KeepAlive,
    Connect,
    Report,
    /// The files of a unit are there.
    Fetched {
        unit: UnitName,
        job: u64,
    },
    /// A pipeline has come to its end.
    RunDone {
        run: sealift_model::RunId,
        attempt: u32,
        passed: bool,
    },
}

/// One story.
struct Sim {
    rng: Rng,
    clock: Clock<Event>,
    server: Server,
    agents: Agents,
    people: People,
    oracle: Oracle,
    summary: Summary,
    options: Options,
    /// Nothing breaks and nobody wants anything any more.
    calm: bool,
    plan_due: bool,
    /// Counts jobs, instances and connections.
    numbers: u64,
    keep_last: bool,
    last: VecDeque<String>,
}

/// Tells the story of this seed.
///
/// # Errors
/// When something was not as it must be.
pub fn simulate(seed: u64, options: &Options) -> Result<Summary, Box<Failure>> {
    // Writing down what happens costs as much as the story itself, so that is done when it is told again.
    tell(seed, options, false).or_else(|_| tell(seed, options, true))
}

fn tell(seed: u64, options: &Options, keep_last: bool) -> Result<Summary, Box<Failure>> {
    let Options { length, size, .. } = *options;
    let mut rng = Rng::new(seed);
    let people = match People::new(&mut rng, size) {
        Ok(people) => people,
        Err(error) => {
            let (broken, last) = (Broken::Setup(error), Vec::new());
            return Err(Box::new(Failure { seed, length, size, event: 0, at: 0, broken, last }));
        }
    };
    let mut sim = Sim {
        rng,
        clock: Clock::new(),
        server: Server::new(),
        agents: Agents::default(),
        people,
        oracle: Oracle::new(),
        summary: Summary::default(),
        options: options.clone(),
        calm: false,
        plan_due: false,
        numbers: 0,
        keep_last,
        last: VecDeque::new(),
    };
    let outcome = sim.story();
    sim.summary.virtual_millis = sim.clock.now;
    match outcome {
        Ok(()) => Ok(sim.summary),
        Err(broken) => {
            let (event, at) = (sim.summary.events, sim.clock.now);
            Err(Box::new(Failure { seed, length, size, event, at, broken, last: sim.last.into() }))
        }
    }
}

impl Sim {
    fn story(&mut self) -> Result<(), Broken> {
        self.first_machines();
        self.clock.after(0, Event::People);
        while match self.options.length {
            Length::Events(events) => self.summary.events < events,
            Length::Millis(millis) => self.clock.now < millis,
        } {
            self.next()?;
        }
        self.heal_all();
        self.rest()?;
        self.outage()?;
        Ok(())
    }

    /// One event and what follows from it at once.
    fn next(&mut self) -> Result<(), Broken> {
        let Some(event) = self.clock.next() else { return Err(Broken::Silence) };
        self.summary.events += 1;
        self.note(|| format!("{event:?}"));
        match event {
            Event::Plan => self.plan()?,
            Event::Expire { machine, deadline } => self.expire(&machine, deadline),
            Event::Deliver { machine, connection } => self.deliver(&machine, connection),
            Event::Ask { machine, life, request, sent } => self.asked(machine, life, request, sent)?,
            Event::Answer { machine, life, request, reply } => self.answered(&machine, life, request, reply),
            Event::Timer { machine, life, timer } => self.timer(&machine, life, timer),
            Event::Job { machine, unit, job } => self.job_done(&machine, &unit, job),
            Event::Crash { machine, instance } => self.crash(&machine, instance),
            Event::Start { machine } => self.start_agent(&machine),
            Event::Heal { machine } => self.heal(&machine),
            Event::FirstUnits => self.first_units(),
            Event::PlannerBack => self.planner_back(),
            Event::ServerBack => self.server_back(),
            Event::People => self.somebody_acts()?,
        }
        self.tell_agents();
        let (touched, changed) = (self.agents.take_touched(), std::mem::take(&mut self.server.unlooked));
        let full = self.judges_fully();
        self.oracle.look(&self.server, &self.agents, touched, changed, full)
    }

    /// Whether the whole world is looked at after this event.
    fn judges_fully(&self) -> bool {
        self.summary.events.is_multiple_of(self.options.full_every.max(1))
    }

    /// Waits until nothing is left to do; the world has to be as it is wanted then.
    fn rest(&mut self) -> Result<(), Broken> {
        let deadline = self.clock.now + CALM;
        loop {
            let unrest = self.oracle.unrest(&self.server, &self.agents, self.options.planning);
            match unrest {
                None => return Ok(()),
                Some(why) if self.clock.now > deadline => return Err(Broken::Unrest { why }),
                Some(_) => {}
            }
            // Looking costs more than an event does, the more machines there are.
            let mut events = 20.max(4 * self.people.machine_count());
            while events > 0 && self.clock.has_next() {
                self.next()?;
                events -= 1;
            }
            if events > 0 && self.clock.now <= deadline {
                // Nothing is to come; that has to be rest.
                let unrest = self.oracle.unrest(&self.server, &self.agents, self.options.planning);
                return unrest.map_or(Ok(()), |why| Err(Broken::Unrest { why }));
            }
        }
    }

    /// The server is away for a while and comes back as another version: no unit may notice.
    fn outage(&mut self) -> Result<(), Broken> {
        let before = oracle::instances(&self.agents);
        let placements = self.server.snapshot().placements.clone();
        let away = self.rng.between(1_000, 4 * TTL);
        self.server_away(away);
        self.upgrade_server();
        let end = self.clock.now + away + 2 * TTL;
        while self.clock.now < end && self.clock.has_next() {
            self.next()?;
        }
        self.rest()?;
        let after = oracle::instances(&self.agents);
        if before != after {
            return Err(Broken::Disturbed { why: format!("units before: {before:?}; after: {after:?}") });
        }
        if placements != self.server.snapshot().placements {
            return Err(Broken::Disturbed { why: "placements changed".into() });
        }
        Ok(())
    }

    /// Something for the reader of a failure.
    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.keep_last {
            if self.last.len() == LAST {
                self.last.pop_front();
            }
            self.last.push_back(format!("{:>8} {}", self.clock.now, what()));
        }
    }

    fn is_quiet(&self) -> bool {
        matches!(self.options.size, Size::Big { .. })
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// How long a message is on its way: mostly little, sometimes long.
    fn latency(&mut self) -> Millis {
        if self.calm || !self.rng.chance(5) { self.rng.between(1, 30) } else { self.rng.between(30, 3_000) }
    }

    fn new_session(&mut self) -> SessionId {
        self.summary.sessions += 1;
        SessionId::from_bytes(self.rng.bytes())
    }
}

/// The names that stories are told with.
fn names<T>(texts: &[&str]) -> Result<Vec<T>, InvalidName>
where
    T: std::str::FromStr<Err = InvalidName>,
{
    texts.iter().map(|text| text.parse()).collect()
}
