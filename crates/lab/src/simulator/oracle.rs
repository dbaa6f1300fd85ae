//! What must be true of a story: of what the planner writes, and of what the machines really do.
//!
//! It looks at the world from above and tells nobody; it must not decide anything. What it looks at after an event is the
//! part of the world that the event can have changed; at some events, in small worlds at all of them, it looks at
//! everything too, and has to come to the same judgement.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{DesiredState, InvalidName, MachineId, Run, RunId, RunState, UnitName, UnitStatus};
use sealift_planner::invariants::{self, Violation};
use sealift_planner::{Action, Applied, Concern, Plan, Snapshot, units_by_machine};

use super::Planning;
use super::agent::{Agent, Agents};
use super::server::Server;

/// What was not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the story cannot begin")]
    Setup(#[source] InvalidName),
    #[error("nothing happens any more")]
    Silence,
    #[error("the action {action} does not fit the snapshot that it was planned for")]
    Misfit { action: String },
    #[error("{action} breaks a rule: {}", list(violations))]
    Action { action: String, violations: Vec<Violation> },
    #[error("a plan that was carried out leaves: {}", list(violations))]
    AfterPlan { violations: Vec<Violation> },
    #[error("a plan that was carried out is followed by another: {next}")]
    Restless { next: String },
    #[error("{unit} runs on {} and {}, which are both in contact", one.short(), other.short())]
    Twice { unit: UnitName, one: MachineId, other: MachineId },
    #[error("{} works on {count} attempts that count, in {slots} slots", machine.short())]
    Slots { machine: MachineId, count: usize, slots: u32 },
    #[error("attempt {attempt} of {run} is handed out after attempt {newest}")]
    Attempt { run: RunId, attempt: u32, newest: u32 },
    #[error("attempt {attempt} of {run} counts although attempt {newest} exists")]
    Late { run: RunId, attempt: u32, newest: u32 },
    #[error("{run} ends a second time")]
    EndsTwice { run: RunId },
    #[error("{run} ends although there is no such run")]
    NoRun { run: RunId },
    #[error("there is no rest: {why}")]
    Unrest { why: String },
    #[error("what was looked at is judged in another way than the whole: {why}")]
    Judges { why: String },
    #[error("an outage of the server was noticed: {why}")]
    Disturbed { why: String },
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[derive(Debug)]
pub(super) struct Oracle {
    newest: BTreeMap<RunId, u32>,
    ends: BTreeMap<RunId, RunState>,
    /// What each machine ran when it was last looked at, and where each unit ran then; see [`counted`].
    running: BTreeMap<MachineId, BTreeSet<UnitName>>,
    runs_on: BTreeMap<UnitName, BTreeSet<MachineId>>,
}

/// Whether a part is judged as the whole is.
fn same(part: &[Violation], whole: &[Violation]) -> Result<(), Broken> {
    let sorted = |violations: &[Violation]| violations.iter().cloned().collect::<BTreeSet<_>>();
    if sorted(part) == sorted(whole) {
        return Ok(());
    }
    Err(Broken::Judges { why: format!("the part: {}; the whole: {}", list(part), list(whole)) })
}

/// What an action breaks.
fn broken_by(action: &Action, before: &Snapshot, after: &Snapshot) -> Vec<Violation> {
    let mut violations = invariants::step(before, after);
    // A unit that changes may be wrong where it is until the actions that follow.
    if !matches!(action, Action::PutUnit { .. } | Action::RemoveUnit { .. }) {
        let old = invariants::state(before);
        violations.extend(invariants::new_since(&old, invariants::state(after)));
    }
    violations
}

/// The units of a machine of which no other machine in contact may have one, by what the agent knows.
fn counted(agent: &Agent) -> BTreeSet<UnitName> {
    let counted = agent.units.iter().filter(|(_, held)| held.running && !held.stale && !held.global);
    counted.map(|(name, _)| name.clone()).collect()
}

/// A unit that is made global may be on its way to many machines.
fn is_global(server: &Server, unit: &UnitName) -> bool {
    server.snapshot().units.get(unit).is_some_and(|unit| unit.requirements.global)
}

fn slots(server: &Server, agent: &Agent) -> Result<(), Broken> {
    let runs = agent.runs.iter();
    let count = runs.filter(|((run, attempt), session)| server.counts(run, *attempt, session)).count();
    let slots = agent.machine.run_slots;
    if u32::try_from(count).is_ok_and(|count| count > slots) {
        return Err(Broken::Slots { machine: agent.machine.id.clone(), count, slots });
    }
    Ok(())
}

impl Oracle {
    pub(super) fn new() -> Oracle {
        Oracle {
            newest: BTreeMap::new(),
            ends: BTreeMap::new(),
            running: BTreeMap::new(),
            runs_on: BTreeMap::new(),
        }
    }

    /// After an action of the planner; `whole` is all of the world before and after it, if that is to be looked at.
    pub(super) fn written(
        &mut self,
        action: &Action,
        applied: &Applied,
        whole: Option<(&Snapshot, &Snapshot)>,
        by_the_book: bool,
    ) -> Result<(), Broken> {
        let words = || format!("{action:?}");
        if !applied.fits {
            return Err(Broken::Misfit { action: words() });
        }
        if by_the_book {
            let violations = broken_by(action, &applied.before, &applied.after);
            if let Some((before, after)) = whole {
                same(&violations, &broken_by(action, before, after))?;
            }
            if !violations.is_empty() {
                return Err(Broken::Action { action: words(), violations });
            }
        }
        match action {
            Action::Dispatch { run, attempt, .. } => {
                let newest = self.newest.insert(run.clone(), *attempt).unwrap_or(0);
                if *attempt != newest + 1 {
                    return Err(Broken::Attempt { run: run.clone(), attempt: *attempt, newest });
                }
                if self.ends.contains_key(run) {
                    return Err(Broken::EndsTwice { run: run.clone() });
                }
            }
            Action::GiveUp { run, .. } => self.end(run, RunState::Failed)?,
            _ => {}
        }
        Ok(())
    }

    /// After a whole plan; `again` is asked whether it would leave it at that.
    pub(super) fn planned(
        &self,
        server: &Server,
        again: Option<fn(&Snapshot) -> Plan>,
        full: bool,
    ) -> Result<(), Broken> {
        let violations: Vec<_> = server.unsettled().flat_map(|part| invariants::settled(&part)).collect();
        if full {
            same(&violations, &invariants::settled(server.snapshot()))?;
        }
        if !violations.is_empty() {
            return Err(Broken::AfterPlan { violations });
        }
        let next = again.map(|planner| planner(server.snapshot()).actions).unwrap_or_default();
        if !next.is_empty() {
            return Err(Broken::Restless { next: format!("{next:?}") });
        }
        Ok(())
    }

    /// Something that an attempt wrote counted.
    pub(super) fn accepted(&self, run: &RunId, attempt: u32) -> Result<(), Broken> {
        let newest = self.newest.get(run).copied().unwrap_or(0);
        if attempt != newest {
            return Err(Broken::Late { run: run.clone(), attempt, newest });
        }
        if self.ends.contains_key(run) {
            return Err(Broken::EndsTwice { run: run.clone() });
        }
        Ok(())
    }

    /// An attempt on this machine ended its run.
    pub(super) fn ended(&mut self, run: &Run, machine: &MachineId) -> Result<(), Broken> {
        if run.attempt().is_none_or(|last| last.machine != *machine) {
            return Err(Broken::NoRun { run: run.id.clone() });
        }
        self.end(&run.id, run.state)
    }

    pub(super) fn aborted(&mut self, run: &RunId) -> Result<(), Broken> {
        self.end(run, RunState::Aborted)
    }

    /// Nobody will ask about this run any more.
    pub(super) fn forget(&mut self, run: &RunId) {
        self.newest.remove(run);
        self.ends.remove(run);
    }

    fn end(&mut self, run: &RunId, state: RunState) -> Result<(), Broken> {
        match self.ends.insert(run.clone(), state) {
            None => Ok(()),
            Some(_) => Err(Broken::EndsTwice { run: run.clone() }),
        }
    }

    /// After every event: what the machines do that were touched, and of which something changed.
    pub(super) fn look(
        &mut self,
        server: &Server,
        agents: &Agents,
        touched: BTreeSet<MachineId>,
        changed: Concern,
        full: bool,
    ) -> Result<(), Broken> {
        let part = self.look_at(server, agents, touched, changed);
        if full {
            let whole = Oracle::look_at_all(server, agents);
            if part.is_ok() != whole.is_ok() {
                return Err(Broken::Judges { why: format!("the part: {part:?}; the whole: {whole:?}") });
            }
        }
        part
    }

    fn look_at(
        &mut self,
        server: &Server,
        agents: &Agents,
        touched: BTreeSet<MachineId>,
        changed: Concern,
    ) -> Result<(), Broken> {
        let mut units = changed.units;
        for id in &touched {
            let Some(agent) = agents.get(id) else { continue };
            let now = counted(agent);
            let before = self.running.get(id);
            for name in before.into_iter().flatten().filter(|name| !now.contains(*name)) {
                if let Some(machines) = self.runs_on.get_mut(name) {
                    machines.remove(id);
                }
            }
            for name in now.iter().filter(|name| before.is_none_or(|before| !before.contains(*name))) {
                self.runs_on.entry(name.clone()).or_default().insert(id.clone());
                units.insert(name.clone());
            }
            self.running.insert(id.clone(), now);
        }
        for unit in units {
            let mut machines = self.runs_on.get(&unit).into_iter().flatten();
            if let (Some(one), Some(other)) = (machines.next(), machines.next())
                && !is_global(server, &unit)
            {
                let (one, other) = (one.clone(), other.clone());
                return Err(Broken::Twice { unit, one, other });
            }
        }
        for id in touched.iter().chain(&changed.machines) {
            agents.get(id).map_or(Ok(()), |agent| slots(server, agent))?;
        }
        Ok(())
    }

    /// The same of all machines, without anything that was kept.
    fn look_at_all(server: &Server, agents: &Agents) -> Result<(), Broken> {
        let mut runs_on: BTreeMap<UnitName, &MachineId> = BTreeMap::new();
        for (id, agent) in agents.iter() {
            for unit in counted(agent).into_iter().filter(|unit| !is_global(server, unit)) {
                if let Some(other) = runs_on.insert(unit.clone(), id) {
                    return Err(Broken::Twice { unit, one: other.clone(), other: id.clone() });
                }
            }
            slots(server, agent)?;
        }
        Ok(())
    }

    /// What is still to be done until the world is as it is wanted; none when it is.
    pub(super) fn unrest(&self, server: &Server, agents: &Agents, planning: Planning) -> Option<String> {
        if server.away || server.planner_away || server.changed {
            return Some("the server is busy".into());
        }
        if let Some((id, _)) = agents.iter().find(|(_, agent)| !agent.is_at_rest()) {
            return Some(format!("the agent of {} has something to do", id.short()));
        }
        if let Some((id, _)) = server.streams.iter().find(|(_, stream)| !stream.in_flight.is_empty()) {
            return Some(format!("{} is being told something", id.short()));
        }
        let by_machine = units_by_machine(server.snapshot());
        for (id, agent) in agents.iter() {
            if let Some(why) = differs(server, agent, by_machine.get(id)?) {
                return Some(format!("on {}: {why}", id.short()));
            }
        }
        let slots = agents.iter().any(|(_, agent)| agent.machine.run_slots > 0);
        let open = server.snapshot().runs.values().find(|run| slots || run.state != RunState::Queued);
        if let Some(run) = open {
            return Some(format!("{} is {:?}", run.id, run.state));
        }
        let plan = match planning {
            Planning::Living => sealift_planner::plan(server.snapshot()),
            Planning::Once(plan) => plan(server.snapshot()),
        };
        if !plan.actions.is_empty() {
            return Some(format!("the planner wants {:?}", plan.actions));
        }
        None
    }
}

/// How a machine is other than it should be.
fn differs(server: &Server, agent: &Agent, wanted: &BTreeSet<UnitName>) -> Option<String> {
    let id = &agent.machine.id;
    if let Some(name) = agent.units.keys().find(|name| !wanted.contains(*name)) {
        return Some(format!("{name} is there and not wanted"));
    }
    for name in wanted {
        let unit = server.snapshot().units.get(name)?;
        let Some(held) = agent.units.get(name) else {
            return Some(format!("{name} is wanted and not there"));
        };
        if (held.generation, &held.text) != (unit.generation, &unit.text) {
            return Some(format!("{name} is of generation {} and not {}", held.generation, unit.generation));
        }
        if !held.failed && held.running != (unit.desired == DesiredState::Launched) {
            return Some(format!("{name} is not {:?}", unit.desired));
        }
        if held.stale {
            return Some(format!("{name} counts as out of contact"));
        }
    }
    let said: Vec<&UnitStatus> = server.said_by(id).collect();
    let words: Vec<&UnitStatus> = agent.words.values().collect();
    let unsaid = || words.iter().find(|word| !said.contains(word));
    said.iter()
        .find(|said| !words.contains(said))
        .or_else(unsaid)
        .map(|status| format!("the server and the machine differ in {status:?}"))
}

/// Which start of each unit runs where.
pub(super) fn instances(agents: &Agents) -> BTreeMap<(MachineId, UnitName), u64> {
    let of = |(id, agent): (&MachineId, &Agent)| -> Vec<_> {
        let running = agent.units.iter().filter(|(_, held)| held.running);
        running.map(|(name, held)| ((id.clone(), name.clone()), held.instance)).collect()
    };
    agents.iter().flat_map(of).collect()
}
