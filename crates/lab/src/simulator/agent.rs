//! Agents as small state machines: sessions, assignments, jobs of systemd, reports, runs. What is remembered over the
//! end of an agent's process is what its records on disk say; what systemd runs goes on.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{
    ActiveState, DesiredState, Extra, Machine, MachineId, RunId, SessionId, Unit, UnitName, UnitStatus,
    Withdrawal,
};

use super::clock::Millis;
use super::net::{Reply, Request};
use super::server::{Assigned, OF_A_NEWER_VERSION};
use super::{Event, Life, Sim, TTL, Timer};

const RETRY: Millis = 100;

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) machine: Machine,
    process: u64,
    sessions: u64,
    pub(super) alive: bool,
    /// Of the next version: it says more of its units than this one does.
    newer: bool,
    pub(super) cut: bool,
    /// Since when its keep-alives go through and are not played.
    pub(super) quiet: Option<Millis>,
    /// The session that is asked for; kept until the server has answered.
    pending: Option<SessionId>,
    pub(super) session: Option<SessionId>,
    pub(super) connection: Option<u64>,
    pub(super) assigned: Option<Assigned>,
    pub(super) units: BTreeMap<UnitName, Held>,
    /// Attempts under way, with the session that they were handed to.
    pub(super) runs: BTreeMap<(RunId, u32), SessionId>,
    finished: BTreeSet<(RunId, u32)>,
    pub(super) words: BTreeMap<UnitName, UnitStatus>,
    changed: BTreeSet<UnitName>,
    gone: BTreeMap<UnitName, u64>,
    /// The next report is one of everything.
    full: bool,
    reporting: bool,
}

/// All machines, and which of them may do something else than when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Agents {
    all: BTreeMap<MachineId, Agent>,
    touched: BTreeSet<MachineId>,
}

impl Agents {
    pub(super) fn add(&mut self, agent: Agent) {
        self.touched.insert(agent.machine.id.clone());
        self.all.insert(agent.machine.id.clone(), agent);
    }

    pub(super) fn get(&self, id: &MachineId) -> Option<&Agent> {
        self.all.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &MachineId) -> Option<&mut Agent> {
        let agent = self.all.get_mut(id)?;
        self.touched.insert(id.clone());
        Some(agent)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&MachineId, &Agent)> {
        self.all.iter()
    }

    pub(super) fn ids(&self) -> Vec<MachineId> {
        self.all.keys().cloned().collect()
    }

    pub(super) fn take_touched(&mut self) -> BTreeSet<MachineId> {
        std::mem::take(&mut self.touched)
    }
}

/// A unit that the machine has.
#[derive(Debug)]
pub(super) struct Held {
    placement: u64,
    pub(super) generation: u64,
    release: Option<u64>,
    pub(super) text: String,
    pub(super) global: bool,
    /// Carried out, and neither being started nor being stopped.
    pub(super) done: bool,
    files: bool,
    pub(super) running: bool,
    pub(super) failed: bool,
    /// Which start of the unit it is.
    pub(super) instance: u64,
    /// The machine was out of contact since it started, and has not been told since whether it is to keep it.
    pub(super) stale: bool,
    pub(super) job: Option<Job>,
}

#[derive(Debug)]
pub(super) struct Job {
    number: u64,
    process: u64,
    doing: Doing,
}

#[derive(Debug)]
enum Doing {
    Fetch(Box<Unit>, u64),
    Start(Box<Unit>),
    Stop,
}

impl Agent {
    pub(super) fn new(machine: Machine) -> Agent {
        Agent {
            machine,
            process: 0,
            sessions: 0,
            alive: false,
            newer: false,
            cut: false,
            quiet: None,
            pending: None,
            session: None,
            connection: None,
            assigned: None,
            units: BTreeMap::new(),
            runs: BTreeMap::new(),
            finished: BTreeSet::new(),
            words: BTreeMap::new(),
            changed: BTreeSet::new(),
            gone: BTreeMap::new(),
            full: false,
            reporting: false,
        }
    }

    pub(super) fn life(&self) -> Life {
        Life { process: self.process, session: self.sessions }
    }

    /// Its lease is over: from now on others may be given what it runs.
    pub(super) fn lose_contact(&mut self) {
        for held in self.units.values_mut() {
            held.stale = true;
        }
    }

    /// Whether everything it was told is done and said.
    pub(super) fn is_at_rest(&self) -> bool {
        self.alive
            && !self.cut
            && self.session.is_some()
            && self.connection.is_some()
            && self.assigned.is_some()
            && self.units.values().all(|held| held.job.is_none())
            && self.changed.is_empty()
            && self.gone.is_empty()
            && !self.full
            && !self.reporting
    }

    fn take_gone(&mut self) -> Vec<Withdrawal> {
        let gone = std::mem::take(&mut self.gone).into_iter();
        gone.map(|(unit, placement)| Withdrawal { unit, placement }).collect()
    }

    fn word(&mut self, name: &UnitName) {
        let Some(held) = self.units.get(name) else { return };
        let (active, sub) = match (held.running, held.failed) {
            (true, _) => (ActiveState::Active, "running"),
            (false, true) => (ActiveState::Failed, "failed"),
            (false, false) => (ActiveState::Inactive, "dead"),
        };
        let mut extra = Extra::new();
        if self.newer {
            extra.insert(OF_A_NEWER_VERSION.to_owned(), held.instance.into());
        }
        let status = UnitStatus {
            unit: name.clone(),
            placement: held.placement,
            generation: held.generation,
            release: held.release,
            load: "loaded".to_owned(),
            active,
            sub: sub.to_owned(),
            result: None,
            main_pid: None,
            exit_code: None,
            memory: None,
            cpu_nanos: None,
            hash: None,
            gate: None,
            error: None,
            since: sealift_model::Timestamp(held.instance),
            extra,
        };
        if self.words.get(name) != Some(&status) {
            self.gone.remove(name);
            self.changed.insert(name.clone());
            self.words.insert(name.clone(), status);
        }
    }
}

impl Sim {
    /// A new process: it knows what its records say.
    pub(super) fn start_agent(&mut self, id: &MachineId) {
        let upgraded = self.rng.chance(30);
        let Some(agent) = self.agents.get_mut(id).filter(|agent| !agent.alive) else { return };
        agent.alive = true;
        // A machine at a time, as they are started anew; some go back.
        agent.newer ^= upgraded;
        self.summary.upgrades += usize::from(upgraded);
        agent.process += 1;
        agent.words.clear();
        agent.changed.clear();
        agent.gone.clear();
        let done: Vec<_> = agent.units.keys().cloned().collect();
        for name in done {
            agent.word(&name);
        }
        self.begin_session(id, 1);
    }

    /// The process is killed; with `reboot` the machine goes down with all that runs on it.
    pub(super) fn kill(&mut self, id: &MachineId, reboot: bool) {
        self.stir(id);
        let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.alive) else { return };
        agent.alive = false;
        agent.pending = None;
        agent.session = None;
        agent.connection = None;
        agent.assigned = None;
        agent.reporting = false;
        agent.runs.clear();
        // A unit whose files were being fetched has no record yet.
        let fetching =
            |held: &Held| held.job.as_ref().is_some_and(|job| matches!(job.doing, Doing::Fetch(..)));
        agent.units.retain(|_, held| !(fetching(held) && held.text.is_empty()));
        for held in agent.units.values_mut() {
            if fetching(held) || reboot {
                held.job = None;
            }
            if reboot {
                (held.running, held.failed, held.files) = (false, false, false);
            }
        }
        self.server.streams.remove(id);
    }

    /// A new session, after `delay`.
    fn begin_session(&mut self, id: &MachineId, delay: Millis) {
        self.stir(id);
        let session = self.new_session();
        let Some(agent) = self.agents.get_mut(id) else { return };
        agent.sessions += 1;
        agent.pending = Some(session);
        agent.session = None;
        agent.connection = None;
        // What it was told before may be another's by now.
        agent.assigned = None;
        agent.reporting = false;
        // Attempts belong to their session.
        agent.runs.clear();
        self.set_timer(id, delay, Timer::Begin);
    }

    /// From now on its lease is renewed every third of its time, until something is in the way.
    fn be_quiet(&mut self, id: &MachineId) {
        let now = self.clock.now;
        if let Some(agent) = self.agents.get_mut(id) {
            agent.quiet = Some(now);
            self.server.hold(id);
        }
    }

    /// Something may be in the way of its keep-alives: the next comes when it would have come.
    pub(super) fn stir(&mut self, id: &MachineId) {
        let Some(since) = self.agents.get_mut(id).and_then(|agent| agent.quiet.take()) else { return };
        let passed = (self.clock.now - since) % (TTL / 3);
        self.renew_for(id, TTL - passed);
        self.set_timer(id, TTL / 3 - passed, Timer::KeepAlive);
    }

    fn set_timer(&mut self, id: &MachineId, delay: Millis, timer: Timer) {
        let Some(life) = self.agents.get(id).map(Agent::life) else { return };
        self.clock.after(delay, Event::Timer { machine: id.clone(), life, timer });
    }

    pub(super) fn stream_lost(&mut self, id: &MachineId) {
        if let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.connection.is_some()) {
            agent.connection = None;
            self.set_timer(id, RETRY, Timer::Connect);
        }
    }

    pub(super) fn timer(&mut self, id: &MachineId, life: Life, timer: Timer) {
        let Some(agent) = self.agents.get(id).filter(|agent| agent.alive && agent.process == life.process)
        else {
            return;
        };
        // Units do not care about sessions; everything else is one's own.
        if let Timer::Fetched { unit, job } = timer {
            self.fetched(id, &unit, job);
            return;
        }
        if agent.life() != life {
            return;
        }
        let (pending, session) = (agent.pending.clone(), agent.session.clone());
        let request = match (timer, pending, session) {
            (Timer::Begin, Some(session), _) => Request::Begin { session },
            (Timer::KeepAlive, _, Some(session)) => Request::KeepAlive { session },
            (Timer::Connect, _, Some(session)) if agent.connection.is_none() => Request::Stream { session },
            (Timer::Report, _, Some(_)) => return self.report(id),
            (Timer::RunDone { run, attempt, passed }, _, Some(session))
                if agent.runs.contains_key(&(run.clone(), attempt)) =>
            {
                Request::Finish { session, run, attempt, passed }
            }
            _ => return,
        };
        self.ask(id, life, request);
    }

    /// An answer to something that this life asked.
    pub(super) fn hear(&mut self, id: &MachineId, request: Request, reply: Reply) {
        let fenced = reply == Reply::Fenced;
        let lost = reply == Reply::Lost;
        match request {
            Request::Begin { .. } if lost => {
                let pause = self.rng.between(RETRY, 2_000);
                self.set_timer(id, pause, Timer::Begin);
            }
            Request::Begin { session } => {
                let Some(agent) = self.agents.get_mut(id) else { return };
                agent.session = Some(session);
                agent.full = true;
                self.set_timer(id, TTL / 3, Timer::KeepAlive);
                self.set_timer(id, 0, Timer::Connect);
                self.set_timer(id, 0, Timer::Report);
            }
            Request::Finish { run, attempt, passed, .. } if lost => {
                self.set_timer(id, 5 * RETRY, Timer::RunDone { run, attempt, passed });
            }
            Request::Finish { run, attempt, .. } => {
                let Some(agent) = self.agents.get_mut(id) else { return };
                agent.runs.remove(&(run, attempt));
            }
            Request::Log { .. } => {}
            _ if fenced => {
                let delay = self.rng.between(1, 1_000);
                self.begin_session(id, delay);
            }
            Request::KeepAlive { .. } if !lost && self.is_quiet() => self.be_quiet(id),
            Request::KeepAlive { .. } => self.set_timer(id, TTL / 3, Timer::KeepAlive),
            Request::Stream { .. } => {
                let Some(agent) = self.agents.get_mut(id) else { return };
                // The stream may have broken off before its first word.
                let there = matches!(reply, Reply::Connected(number) if agent.connection == Some(number));
                if !there {
                    agent.connection = None;
                    self.set_timer(id, RETRY, Timer::Connect);
                }
            }
            Request::Report { statuses, gone, all, .. } => {
                let Some(agent) = self.agents.get_mut(id) else { return };
                agent.reporting = false;
                if !lost && all {
                    agent.full = false;
                } else if lost {
                    let again = statuses.into_iter().map(|status| status.unit);
                    agent.changed.extend(again.filter(|unit| agent.words.contains_key(unit)));
                    for Withdrawal { unit, placement } in gone {
                        if !agent.words.contains_key(&unit) {
                            let known = agent.gone.entry(unit).or_default();
                            *known = placement.max(*known);
                        }
                    }
                }
                self.set_timer(id, if lost { RETRY } else { 0 }, Timer::Report);
            }
        }
    }

    /// Sends the news, if there are any and none are on their way.
    fn report(&mut self, id: &MachineId) {
        let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.alive && !agent.reporting) else {
            return;
        };
        let Some(session) = agent.session.clone() else { return };
        let request = if agent.full {
            agent.changed.clear();
            let statuses = agent.words.values().cloned().collect();
            Request::Report { session, statuses, gone: agent.take_gone(), all: true }
        } else {
            let changed = std::mem::take(&mut agent.changed);
            let statuses: Vec<_> = changed.iter().filter_map(|unit| agent.words.get(unit).cloned()).collect();
            let gone = agent.take_gone();
            if statuses.is_empty() && gone.is_empty() {
                return;
            }
            Request::Report { session, statuses, gone, all: false }
        };
        agent.reporting = true;
        let life = agent.life();
        self.ask(id, life, request);
    }

    /// New assignments: runs and units that are not among them go.
    pub(super) fn carry_out(&mut self, id: &MachineId) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let (Some(assigned), Some(session)) = (&agent.assigned, &agent.session) else { return };
        agent.runs.retain(|key, _| assigned.runs.contains_key(key));
        let new: Vec<_> = assigned
            .runs
            .iter()
            .filter(|(key, of)| {
                *of == session && !agent.runs.contains_key(key) && !agent.finished.contains(key)
            })
            .map(|(key, of)| (key.clone(), of.clone()))
            .collect();
        let units: BTreeSet<_> = assigned.units.keys().chain(agent.units.keys()).cloned().collect();
        // What it never held is gone already.
        for (name, placement) in assigned.leaving.iter().filter(|(name, _)| !agent.units.contains_key(*name))
        {
            agent.gone.insert(name.clone(), *placement);
        }
        let life = agent.life();
        let to_confirm = !agent.gone.is_empty();
        for (key, session) in &new {
            agent.runs.insert(key.clone(), session.clone());
            agent.finished.insert(key.clone());
        }
        for ((run, attempt), session) in new {
            let passed = self.rng.chance(75);
            let most = if self.calm { 2_000 } else { 40_000 };
            let takes = self.rng.between(100, most);
            self.set_timer(id, takes, Timer::RunDone { run: run.clone(), attempt, passed });
            self.ask(id, life, Request::Log { session, run, attempt });
        }
        for unit in units {
            self.next_job(id, &unit);
        }
        if to_confirm {
            self.set_timer(id, 0, Timer::Report);
        }
    }

    /// What is to be done with a unit that nothing is being done with.
    fn next_job(&mut self, id: &MachineId, name: &UnitName) {
        let number = self.number();
        let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.alive) else { return };
        let Some(assigned) = &agent.assigned else { return };
        let process = agent.process;
        let wanted = assigned.units.get(name).cloned();
        let held = agent.units.get_mut(name);
        if held.as_ref().is_some_and(|held| held.job.is_some()) {
            return;
        }
        match (wanted, held) {
            (None, None) => {}
            (Some((unit, placement)), mut held) => {
                if let Some(held) = held.as_mut().filter(|held| held.done) {
                    held.placement = placement;
                }
                let as_wanted = held.as_ref().is_some_and(|held| {
                    held.done && held.files && held.generation == unit.generation && held.text == unit.text
                });
                if as_wanted {
                    agent.word(name);
                    self.set_timer(id, 0, Timer::Report);
                    return;
                }
                let held = agent.units.entry(name.clone()).or_insert_with(Held::nothing);
                held.job = Some(Job { number, process, doing: Doing::Fetch(Box::new(unit), placement) });
                let delay =
                    if self.rng.chance(20) { self.rng.between(1, 3_000) } else { self.rng.between(1, 20) };
                self.set_timer(id, delay, Timer::Fetched { unit: name.clone(), job: number });
            }
            (None, Some(held)) => {
                // Noted down before the stop, so that an agent that is killed on the way does not take it for running.
                held.done = false;
                let most = if held.running { 2_000 } else { 10 };
                held.job = Some(Job { number, process, doing: Doing::Stop });
                let delay = self.rng.between(1, most);
                self.clock.after(delay, Event::Job { machine: id.clone(), unit: name.clone(), job: number });
            }
        }
    }

    /// The files are written and systemd is told to start or restart.
    fn fetched(&mut self, id: &MachineId, name: &UnitName, job: u64) {
        let instance = self.number();
        let Some(agent) = self.agents.get_mut(id) else { return };
        let current = agent.session.as_ref().is_some_and(|session| self.server.is_current(id, session));
        let process = agent.process;
        let Some(held) = agent.units.get_mut(name) else { return };
        let (unit, placement) = match held.job.take() {
            Some(Job { number, doing: Doing::Fetch(unit, placement), .. }) if number == job => {
                (unit, placement)
            }
            other => {
                held.job = other;
                return;
            }
        };
        // Fetching may have taken long: what is no longer wanted is not started.
        let wanted = agent.assigned.as_ref().and_then(|now| now.units.get(name));
        if wanted.is_none_or(|wanted| *wanted != ((*unit).clone(), placement)) {
            self.next_job(id, name);
            return;
        }
        let launched = unit.desired == DesiredState::Launched;
        let starts = launched && (held.text != unit.text || !held.running);
        if starts {
            held.instance = instance;
            held.failed = false;
            held.global = unit.requirements.global;
            held.stale = !current;
        }
        held.running = launched;
        held.text.clone_from(&unit.text);
        held.placement = placement;
        (held.done, held.files) = (false, true);
        held.job = Some(Job { number: job, process, doing: Doing::Start(unit) });
        let delay = self.rng.between(1, 300);
        self.clock.after(delay, Event::Job { machine: id.clone(), unit: name.clone(), job });
        if starts && self.rng.chance(3) {
            let lives = self.rng.between(1, 60_000);
            self.clock.after(lives, Event::Crash { machine: id.clone(), instance });
        }
    }

    pub(super) fn job_done(&mut self, id: &MachineId, name: &UnitName, number: u64) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let Some(held) = agent.units.get_mut(name) else { return };
        let Some(job) = held.job.take_if(|job| job.number == number) else { return };
        let placement = held.placement;
        // An agent that was started anew did not wait for this job.
        let heard = agent.alive && agent.process == job.process;
        match job.doing {
            Doing::Fetch(..) => {}
            Doing::Start(unit) if heard => {
                held.done = true;
                held.generation = unit.generation;
                held.release = unit.app.as_ref().map(|(_, number)| *number);
                agent.word(name);
            }
            Doing::Start(_) => {}
            Doing::Stop if heard => {
                agent.units.remove(name);
                agent.words.remove(name);
                agent.changed.remove(name);
                let leaving = agent.assigned.as_ref().and_then(|now| now.leaving.get(name).copied());
                agent.gone.insert(name.clone(), leaving.unwrap_or(placement));
            }
            Doing::Stop => {
                (held.running, held.failed) = (false, false);
            }
        }
        self.set_timer(id, 0, Timer::Report);
        self.next_job(id, name);
    }

    /// A unit ends by itself.
    pub(super) fn crash(&mut self, id: &MachineId, instance: u64) {
        if self.calm {
            return;
        }
        let Some(agent) = self.agents.get_mut(id) else { return };
        let found = agent.units.iter_mut().find(|(_, held)| held.instance == instance && held.running);
        let Some((name, held)) = found else { return };
        (held.running, held.failed) = (false, true);
        let (name, tell) = (name.clone(), held.done && agent.alive);
        if tell {
            agent.word(&name);
            self.set_timer(id, 0, Timer::Report);
        }
    }
}

impl Held {
    fn nothing() -> Held {
        Held {
            placement: 0,
            generation: 0,
            release: None,
            text: String::new(),
            global: false,
            done: false,
            files: false,
            running: false,
            failed: false,
            instance: 0,
            stale: false,
            job: None,
        }
    }
}
