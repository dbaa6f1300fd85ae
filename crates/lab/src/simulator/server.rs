//! The server as agents and people see it: sessions under leases, streams of assignments, reports, ends of runs; and
//! the planner's actions, written one at a time. All of it as `sealift-server` does it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sealift_model::{
    App, AttemptEnd, BranchName, CommitId, Digest, Extra, MachineId, Package, PackageName, Placement,
    Presence, ProjectName, Release, ReleaseNumber, Requirements, Run, RunId, RunState, SessionId, Timestamp,
    Unit, UnitName, UnitStatus, Withdrawal,
};
use sealift_planner::{
    Action, AppView, Change, Concern, Ledger, Plan, Planner, Reader, Snapshot, apply, units_by_machine,
};

use super::clock::Millis;
use super::{Broken, Event, Planning, Sim, TTL};

/// What the next version adds to what is said of units, both ways. This one keeps it with records, and does nothing with it.
pub(super) const OF_A_NEWER_VERSION: &str = "of_a_newer_version";

/// What a wall clock shows at the beginning of a story.
const WALL: Millis = 1_700_000_000_000;
/// How much it may be wrong, either way.
const SKEW: Millis = 120_000;

/// What a machine is told to do, as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Assigned {
    /// With the placement; 0 for a unit that needs none.
    pub(super) units: BTreeMap<UnitName, (Unit, u64)>,
    /// What is said to be there and is not assigned.
    pub(super) leaving: BTreeMap<UnitName, u64>,
    pub(super) runs: BTreeMap<(RunId, u32), SessionId>,
}

/// A connection on which a machine is told its assignments.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) connection: u64,
    session: SessionId,
    told: Option<Assigned>,
    pub(super) in_flight: VecDeque<Assigned>,
    last_arrival: Millis,
    /// Nothing more is said; what was said is still on its way.
    pub(super) closed: bool,
}

/// A release and what its unit files ask for.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) release: Release,
    pub(super) requirements: BTreeMap<UnitName, Requirements>,
}

#[derive(Debug)]
pub(super) struct Server {
    ledger: Ledger,
    /// Lives as long as this server does.
    planner: Planner,
    /// What the planner was not told yet.
    news: Vec<Change>,
    /// What agents may have to be told of.
    due: Concern,
    /// What changed since the planner last left nothing to do, and since the machines were last looked at.
    unsettled: Concern,
    pub(super) unlooked: Concern,
    leases: BTreeMap<MachineId, Millis>,
    /// How far the wall clock is ahead of one that is wrong by all that it may be.
    ahead: Millis,
    /// Of the next version: it tells machines more of their units than this one does.
    newer: bool,
    pub(super) away: bool,
    pub(super) planner_away: bool,
    pub(super) ended: BTreeMap<RunId, Run>,
    pub(super) releases: BTreeMap<(ProjectName, ReleaseNumber), Made>,
    pub(super) streams: BTreeMap<MachineId, Stream>,
    /// The highest generation that each name ever had.
    pub(super) generations: BTreeMap<UnitName, u64>,
    /// Runs that have ended and are still among the others.
    over: BTreeSet<RunId>,
    pub(super) changed: bool,
}

impl Server {
    pub(super) fn new() -> Server {
        Server {
            ledger: Ledger::default(),
            planner: Planner::new(Reader::PLAIN),
            news: Vec::new(),
            due: Concern::default(),
            unsettled: Concern::default(),
            unlooked: Concern::default(),
            leases: BTreeMap::new(),
            ahead: SKEW,
            newer: false,
            away: false,
            planner_away: false,
            ended: BTreeMap::new(),
            releases: BTreeMap::new(),
            streams: BTreeMap::new(),
            generations: BTreeMap::new(),
            over: BTreeSet::new(),
            changed: false,
        }
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        self.ledger.snapshot()
    }

    /// What changed since the planner last left nothing to do.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = Snapshot> {
        self.ledger.pieces(&self.unsettled)
    }

    /// What the machine's units are by its own words.
    pub(super) fn said_by(&self, machine: &MachineId) -> impl Iterator<Item = &UnitStatus> {
        let units = self.ledger.said_by(machine);
        units.filter_map(|unit| self.snapshot().statuses.get(&(machine.clone(), unit.clone())))
    }

    /// Writes an object.
    pub(super) fn set(&mut self, change: Change) {
        self.note(&change);
        let concern = self.ledger.set(change.clone());
        self.news.push(change);
        self.concerns(&concern);
    }

    pub(super) fn set_unit(&mut self, unit: Unit) {
        self.set(Change::Unit(unit.name.clone(), Some(Arc::new(unit))));
    }

    pub(super) fn set_run(&mut self, run: Run) {
        self.set(Change::Run(run.id.clone(), Some(Arc::new(run))));
    }

    fn set_status(&mut self, machine: &MachineId, unit: &UnitName, status: Option<UnitStatus>) {
        let known = self.snapshot().statuses.get(&(machine.clone(), unit.clone()));
        if known != status.as_ref() {
            self.set(Change::Status(machine.clone(), unit.clone(), status));
        }
    }

    fn concerns(&mut self, concern: &Concern) {
        self.changed = true;
        self.due.add(concern);
        self.unsettled.add(concern);
        self.unlooked.add(concern);
    }

    fn note(&mut self, change: &Change) {
        match change {
            Change::Unit(name, Some(unit)) => {
                let highest = self.generations.entry(name.clone()).or_default();
                *highest = (*highest).max(unit.generation);
            }
            Change::Run(id, Some(run)) if run.state.is_end() => drop(self.over.insert(id.clone())),
            _ => {}
        }
    }

    /// Whether this is the session that counts.
    pub(super) fn is_current(&self, machine: &MachineId, session: &SessionId) -> bool {
        self.snapshot().presence(machine).is_some_and(|presence| presence.session == *session)
    }

    pub(super) fn set_presence(&mut self, machine: &MachineId, presence: Option<Presence>) {
        self.set(Change::Presence(machine.clone(), presence));
    }

    fn assigned(&self, machine: &MachineId) -> Assigned {
        let snapshot =
            self.ledger.part(&Concern { machines: BTreeSet::from([machine.clone()]), ..Concern::default() });
        let units = units_by_machine(&snapshot).remove(machine).unwrap_or_default();
        let placement = |name: &UnitName| snapshot.placements.get(name).map_or(0, |placement| placement.id);
        let placed = snapshot.placements.values().filter(|placement| placement.machine == *machine);
        let placed = placed.map(|placement| &placement.unit);
        let assigned: BTreeMap<_, _> = placed
            .chain(&units)
            .filter_map(|name| {
                let mut unit = snapshot.units.get(name)?.clone();
                if self.newer {
                    unit.extra.insert(OF_A_NEWER_VERSION.to_owned(), unit.generation.into());
                }
                let global = unit.requirements.global;
                let placement = if global { 0 } else { placement(name) };
                (!global || units.contains(name)).then(|| (name.clone(), (unit, placement)))
            })
            .collect();
        let said = snapshot.statuses.iter().filter(|((id, name), status)| {
            id == machine && !assigned.contains_key(name) && self.placement_of(machine, status).is_none()
        });
        let leaving = said.map(|((_, name), status)| (name.clone(), status.placement)).collect();
        let running = snapshot.runs.values().filter(|run| run.state == RunState::Running);
        let runs = running.filter_map(|run| {
            let attempt = run.attempt().filter(|attempt| attempt.machine == *machine)?;
            Some(((run.id.clone(), attempt.number), attempt.session.clone()))
        });
        Assigned { units: assigned, leaving, runs: runs.collect() }
    }

    /// A report of the session that counts.
    pub(super) fn report(
        &mut self,
        machine: &MachineId,
        statuses: Vec<UnitStatus>,
        gone: &[Withdrawal],
        all: bool,
    ) {
        let known = self.said_by(machine).map(|status| (status.unit.clone(), status.clone()));
        let mut known: BTreeMap<UnitName, UnitStatus> = known.collect();
        for status in statuses {
            let is_global =
                self.snapshot().units.get(&status.unit).is_some_and(|unit| unit.requirements.global);
            // A word on an earlier placement says nothing of the one that has been made since.
            let before = known.remove(&status.unit);
            if is_global || before.is_none_or(|known| known.placement <= status.placement) {
                let unit = status.unit.clone();
                self.set_status(machine, &unit, Some(status));
            }
        }
        let mut over = BTreeMap::new();
        for Withdrawal { unit, placement } in gone {
            over.extend(known.remove_entry(unit).filter(|(_, known)| known.placement <= *placement));
        }
        let unknown = known.into_iter().filter(|(_, known)| {
            all && (known.placement == 0 || self.placement_of(machine, known).is_some())
        });
        over.extend(unknown.collect::<Vec<_>>());
        for (unit, before) in over {
            // One that is still placed here may be wanted again at any moment.
            let unheard = self.placement_of(machine, &before).map(UnitStatus::unheard);
            self.set_status(machine, &unit, unheard);
        }
    }

    /// The placement that a word of a machine speaks of, if it still stands.
    fn placement_of(&self, machine: &MachineId, status: &UnitStatus) -> Option<&Placement> {
        let placement = self.snapshot().placements.get(&status.unit);
        placement.filter(|placement| placement.machine == *machine && placement.id == status.placement)
    }

    /// Whether what an attempt writes still counts.
    pub(super) fn counts(&self, run: &RunId, attempt: u32, session: &SessionId) -> bool {
        self.snapshot().runs.get(run).is_some_and(|run| {
            run.state == RunState::Running
                && run.attempt().is_some_and(|last| last.number == attempt && last.session == *session)
        })
    }

    /// The end of the newest attempt, and of its run.
    pub(super) fn end(&mut self, id: &RunId, end: AttemptEnd, now: Timestamp) -> Option<Run> {
        let mut run = self.snapshot().runs.get(id)?.clone();
        run.state = match end {
            AttemptEnd::Passed => RunState::Passed,
            AttemptEnd::Aborted => RunState::Aborted,
            AttemptEnd::Failed | AttemptEnd::Lost => RunState::Failed,
        };
        run.ended_at = Some(now);
        if let Some(last) = run.attempts.last_mut() {
            last.end.get_or_insert(end);
        }
        self.set_run(run.clone());
        Some(run)
    }

    /// A lease that does not end until it is renewed again.
    pub(super) fn hold(&mut self, machine: &MachineId) {
        self.leases.insert(machine.clone(), Millis::MAX);
    }

    /// Runs that have ended are no longer looked at.
    fn put_away_ended(&mut self) {
        for id in std::mem::take(&mut self.over) {
            if let Some(run) = self.snapshot().runs.get(&id).cloned() {
                self.set(Change::Run(id.clone(), None));
                self.ended.insert(id, run);
            }
        }
    }

    /// Keeps the newest of a project, and the current one.
    pub(super) fn forget_releases(&mut self, project: &ProjectName, keep: usize) {
        let current = self.snapshot().apps.get(project).map(|view| view.app.current);
        let of = (project.clone(), 0)..=(project.clone(), u64::MAX);
        let old: Vec<_> = self.releases.range(of).rev().skip(keep).map(|(key, _)| key.clone()).collect();
        for key in old.into_iter().filter(|(_, number)| Some(*number) != current) {
            self.releases.remove(&key);
        }
    }

    /// Runs that ended before this are forgotten; they are returned.
    pub(super) fn forget_runs(&mut self, before: Timestamp) -> Vec<RunId> {
        let old = self.ended.values().filter(|run| run.ended_at.is_none_or(|ended| ended < before));
        let old: Vec<RunId> = old.map(|run| run.id.clone()).collect();
        for id in &old {
            self.ended.remove(id);
        }
        old
    }

    /// Makes this release the current one.
    pub(super) fn switch(
        &mut self,
        project: &ProjectName,
        number: ReleaseNumber,
        branch: &BranchName,
        now: Timestamp,
    ) {
        let Some(made) = self.releases.get(&(project.clone(), number)) else { return };
        let generation = self.snapshot().apps.get(project).map_or(0, |view| view.app.generation) + 1;
        let app = App {
            project: project.clone(),
            branch: branch.clone(),
            current: number,
            generation,
            changed_at: now,
            extra: Extra::new(),
        };
        let view =
            AppView { app, release: Some(made.release.clone()), requirements: made.requirements.clone() };
        self.set(Change::App(project.clone(), Some(Arc::new(view))));
    }
}

/// A package that stands for one; its bytes are of no interest here.
pub(super) fn package(name: PackageName, run: RunId, digest: Digest, now: Timestamp) -> Package {
    Package { name, run, digest, size: 0, signature: String::new(), created_at: now, extra: Extra::new() }
}

/// A commit that stands for one.
pub(super) fn commit() -> Result<CommitId, sealift_model::InvalidName> {
    "c".repeat(40).parse()
}

impl Sim {
    /// What the server's wall clock shows. Leases do not go by it.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp((WALL + self.clock.now + self.server.ahead).saturating_sub(SKEW))
    }

    /// Servers of this version and of the next lead in turn, as they are replaced one by one.
    pub(super) fn upgrade_server(&mut self) {
        self.server.newer = !self.server.newer;
        self.summary.upgrades += 1;
        let everybody = Concern { machines: self.agents.ids().into_iter().collect(), ..Concern::default() };
        self.server.due.add(&everybody);
        self.server.changed = true;
    }

    /// Another server leads, or somebody sets the clock: it may go back by minutes.
    fn set_wall_clock(&mut self) {
        self.server.ahead = self.rng.below(2 * SKEW);
    }

    /// A pass of the planner: all of its plan, or as much as one transaction took before something came between.
    pub(super) fn plan(&mut self) -> Result<(), Broken> {
        self.plan_due = false;
        if self.server.away || self.server.planner_away {
            return Ok(());
        }
        let (actions, once) = match self.options.planning {
            Planning::Living => (self.decide(), sealift_planner::plan as fn(&Snapshot) -> Plan),
            Planning::Once(plan) => (plan(self.server.snapshot()).actions, plan),
        };
        let count = actions.len();
        let most = u64::try_from(count).unwrap_or(u64::MAX);
        let take = if self.rng.chance(20) { self.rng.between(0, most) } else { most };
        let take = usize::try_from(take).unwrap_or(count);
        for action in actions.iter().take(take) {
            self.write(action)?;
        }
        if self.options.planning == Planning::Living {
            self.learn(&actions, take);
        }
        if take < count {
            self.server.changed = true;
        } else if self.options.check_actions {
            let full = self.judges_fully();
            // A planner that is made anew looks at everything.
            let again = !actions.is_empty() && self.rng.chance(if full || !self.is_quiet() { 25 } else { 1 });
            self.oracle.planned(&self.server, again.then_some(once), full)?;
            self.server.unsettled = Concern::default();
        }
        self.server.put_away_ended();
        Ok(())
    }

    /// What the planner decides that lives in the server, once it was told all that changed. In slices, as the server
    /// asks for them.
    fn decide(&mut self) -> Vec<Action> {
        for change in std::mem::take(&mut self.server.news) {
            self.server.planner.feed(change);
        }
        let now = self.now();
        let slice = usize::try_from(self.rng.between(1, 40)).unwrap_or(1);
        let mut actions = Vec::new();
        loop {
            let more = self.server.planner.plan(slice, now);
            if more.is_empty() {
                return actions;
            }
            actions.extend(more);
        }
    }

    /// It takes all that it decided for done; of what was not, it is told how it really is.
    fn learn(&mut self, actions: &[Action], done: usize) {
        for subject in actions.iter().skip(done).flat_map(Action::writes) {
            self.server.planner.feed(self.server.ledger.change(subject));
        }
        // What was done comes back from the store too, which changes nothing.
        for change in std::mem::take(&mut self.server.news) {
            self.server.planner.feed(change);
        }
    }

    fn write(&mut self, action: &Action) -> Result<(), Broken> {
        self.note(|| format!("  planned {action:?}"));
        let full = self.judges_fully();
        let before = full.then(|| self.server.snapshot().clone());
        let now = self.now();
        let applied = self.server.ledger.apply(action, now);
        for change in &applied.changes {
            self.server.note(change);
            self.server.news.push(change.clone());
        }
        self.server.concerns(&applied.concern);
        match action {
            Action::Place { .. } => self.summary.placed += 1,
            Action::Unplace { .. } => self.summary.unplaced += 1,
            Action::Dispatch { .. } => self.summary.dispatched += 1,
            Action::Lose { .. } | Action::GiveUp { .. } => self.summary.lost_attempts += 1,
            Action::PutUnit { .. } | Action::RemoveUnit { .. } | Action::Update { .. } => {}
        }
        if let Some(mut whole) = before.clone() {
            let fits = apply(&mut whole, action, now);
            if fits != applied.fits || whole != *self.server.snapshot() {
                return Err(Broken::Judges { why: format!("{action:?} does something else to a part") });
            }
        }
        let whole = before.as_ref().map(|before| (before, self.server.snapshot()));
        self.oracle.written(action, &applied, whole, self.options.check_actions)
    }

    pub(super) fn renew(&mut self, machine: &MachineId) {
        self.renew_for(machine, TTL);
    }

    pub(super) fn renew_for(&mut self, machine: &MachineId, millis: Millis) {
        let deadline = self.clock.now + millis;
        self.server.leases.insert(machine.clone(), deadline);
        self.clock.after(millis, Event::Expire { machine: machine.clone(), deadline });
    }

    pub(super) fn expire(&mut self, machine: &MachineId, deadline: Millis) {
        if self.server.away || self.server.leases.get(machine) != Some(&deadline) {
            return;
        }
        self.summary.expired += 1;
        self.server.leases.remove(machine);
        self.server.set_presence(machine, None);
        // From here on others may be given what runs there.
        if let Some(agent) = self.agents.get_mut(machine) {
            agent.lose_contact();
        }
    }

    pub(super) fn server_away(&mut self, millis: Millis) {
        if self.server.away {
            return;
        }
        self.summary.outages += 1;
        self.server.away = true;
        self.server.streams.clear();
        self.clock.after(millis, Event::ServerBack);
        for id in self.agents.ids() {
            self.stir(&id);
            self.stream_lost(&id);
        }
    }

    /// A store that is opened again gives every lease its whole time.
    pub(super) fn server_back(&mut self) {
        self.server.away = false;
        let machines: Vec<_> = self.server.leases.keys().cloned().collect();
        for machine in machines {
            self.renew(&machine);
        }
        self.server.changed = true;
    }

    /// A server that leads anew, or is started anew, knows nothing of what the one before it had in mind.
    pub(super) fn planner_back(&mut self) {
        self.server.planner_away = false;
        self.set_wall_clock();
        if self.rng.chance(30) {
            self.upgrade_server();
        }
        self.server.planner = Planner::new(Reader::PLAIN);
        self.server.news = self.server.snapshot().changes_since(&Snapshot::default());
        self.server.changed = true;
    }

    /// Opens the stream of a session that counts; the first message has everything.
    pub(super) fn open_stream(&mut self, machine: &MachineId, session: &SessionId) -> u64 {
        let connection = self.number();
        let stream = Stream {
            connection,
            session: session.clone(),
            told: None,
            in_flight: VecDeque::new(),
            last_arrival: self.clock.now,
            closed: false,
        };
        self.server.streams.insert(machine.clone(), stream);
        self.server.due.machines.insert(machine.clone());
        self.server.changed = true;
        connection
    }

    fn close_stream(&mut self, machine: &MachineId) {
        let Some(stream) = self.server.streams.get_mut(machine).filter(|stream| !stream.closed) else {
            return;
        };
        stream.closed = true;
        let delay = stream.last_arrival.saturating_sub(self.clock.now) + 1;
        let connection = stream.connection;
        self.clock.after(delay, Event::Deliver { machine: machine.clone(), connection });
    }

    /// After every event: whoever's assignments changed is told, and the planner is called.
    pub(super) fn tell_agents(&mut self) {
        if !self.server.changed || self.server.away {
            return;
        }
        self.server.put_away_ended();
        self.server.changed = false;
        if !self.plan_due && !self.server.planner_away {
            self.plan_due = true;
            let delay = self.rng.between(0, 20);
            self.clock.after(delay, Event::Plan);
        }
        let due = std::mem::take(&mut self.server.due);
        let machines: Vec<MachineId> = if due.everything {
            self.server.streams.keys().cloned().collect()
        } else {
            due.machines.into_iter().collect()
        };
        for machine in machines {
            let Some(stream) = self.server.streams.get(&machine) else { continue };
            if !self.server.is_current(&machine, &stream.session) {
                self.close_stream(&machine);
                continue;
            }
            let now = self.server.assigned(&machine);
            if stream.told.as_ref() == Some(&now) {
                continue;
            }
            let delay = self.latency();
            let Some(stream) = self.server.streams.get_mut(&machine) else { continue };
            stream.told = Some(now.clone());
            stream.in_flight.push_back(now);
            // A connection keeps the order of what is said on it.
            let arrival = stream.last_arrival.max(self.clock.now + delay);
            stream.last_arrival = arrival;
            let connection = stream.connection;
            self.clock.after(arrival - self.clock.now, Event::Deliver { machine, connection });
        }
    }
}
