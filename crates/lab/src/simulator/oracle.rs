//! What must be true of a story: of what the planner writes, and of what the machines really do.
//!
//! It looks at the world from above and tells nobody; it must not decide anything.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{DesiredState, InvalidName, MachineId, Run, RunId, RunState, UnitName, UnitStatus};
use sealift_planner::invariants::{self, Violation};
use sealift_planner::{Action, Plan, Snapshot, units_by_machine};

use super::Planning;
use super::agent::Agent;
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
}

impl Oracle {
    pub(super) fn new() -> Oracle {
        Oracle { newest: BTreeMap::new(), ends: BTreeMap::new() }
    }

    /// After an action of the planner.
    pub(super) fn written(
        &mut self,
        before: &Snapshot,
        action: &Action,
        applied: bool,
        server: &Server,
        by_the_book: bool,
    ) -> Result<(), Broken> {
        let after = &server.snapshot;
        let words = || format!("{action:?}");
        if !applied {
            return Err(Broken::Misfit { action: words() });
        }
        if by_the_book {
            let mut violations = invariants::step(before, after);
            // A unit that changes may be wrong where it is until the actions that follow.
            if !matches!(action, Action::PutUnit { .. } | Action::RemoveUnit { .. }) {
                let old = invariants::state(before);
                violations.extend(invariants::new_since(&old, invariants::state(after)));
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

    /// After a whole plan; `again` looks whether the planner leaves it at that.
    pub(super) fn planned(
        &self,
        snapshot: &Snapshot,
        actions: &[Action],
        planner: fn(&Snapshot) -> Plan,
        again: bool,
    ) -> Result<(), Broken> {
        let violations = invariants::settled(snapshot);
        if !violations.is_empty() {
            return Err(Broken::AfterPlan { violations });
        }
        if again && !actions.is_empty() {
            let next = planner(snapshot);
            if !next.actions.is_empty() {
                return Err(Broken::Restless { next: format!("{:?}", next.actions) });
            }
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

    fn end(&mut self, run: &RunId, state: RunState) -> Result<(), Broken> {
        match self.ends.insert(run.clone(), state) {
            None => Ok(()),
            Some(_) => Err(Broken::EndsTwice { run: run.clone() }),
        }
    }

    /// After every event: what the machines do.
    pub(super) fn look(&self, server: &Server, agents: &BTreeMap<MachineId, Agent>) -> Result<(), Broken> {
        let mut runs_on: BTreeMap<&UnitName, &MachineId> = BTreeMap::new();
        for (id, agent) in agents {
            for (name, held) in &agent.units {
                if !held.running || held.stale {
                    continue;
                }
                // A unit that is made global may be on its way to many machines.
                let global = held.global
                    || server.snapshot.units.get(name).is_some_and(|unit| unit.requirements.global);
                if global {
                    continue;
                }
                if let Some(other) = runs_on.insert(name, id) {
                    return Err(Broken::Twice { unit: name.clone(), one: other.clone(), other: id.clone() });
                }
            }
            let counts = agent
                .runs
                .iter()
                .filter(|((run, attempt), session)| server.counts(run, *attempt, session))
                .count();
            let slots = agent.machine.run_slots;
            if u32::try_from(counts).is_ok_and(|counts| counts > slots) {
                return Err(Broken::Slots { machine: id.clone(), count: counts, slots });
            }
        }
        Ok(())
    }

    /// What is still to be done until the world is as it is wanted; none when it is.
    pub(super) fn unrest(
        &self,
        server: &Server,
        agents: &BTreeMap<MachineId, Agent>,
        planning: Planning,
    ) -> Option<String> {
        if server.away || server.planner_away || server.changed {
            return Some("the server is busy".into());
        }
        if let Some((id, _)) = agents.iter().find(|(_, agent)| !agent.is_at_rest()) {
            return Some(format!("the agent of {} has something to do", id.short()));
        }
        if let Some((id, _)) = server.streams.iter().find(|(_, stream)| !stream.in_flight.is_empty()) {
            return Some(format!("{} is being told something", id.short()));
        }
        let by_machine = units_by_machine(&server.snapshot);
        for (id, agent) in agents {
            if let Some(why) = differs(server, agent, by_machine.get(id)?) {
                return Some(format!("on {}: {why}", id.short()));
            }
        }
        let slots = agents.values().any(|agent| agent.machine.run_slots > 0);
        let open = server.snapshot.runs.values().find(|run| slots || run.state != RunState::Queued);
        if let Some(run) = open {
            return Some(format!("{} is {:?}", run.id, run.state));
        }
        let plan = match planning {
            Planning::Living => sealift_planner::plan(&server.snapshot),
            Planning::Once(plan) => plan(&server.snapshot),
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
        let unit = server.snapshot.units.get(name)?;
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
    let said: BTreeMap<_, _> = server.snapshot.statuses.iter().filter(|((of, _), _)| of == id).collect();
    let said: Vec<&UnitStatus> = said.into_values().collect();
    let words: Vec<&UnitStatus> = agent.words.values().collect();
    let unsaid = || words.iter().find(|word| !said.contains(word));
    said.iter()
        .find(|said| !words.contains(said))
        .or_else(unsaid)
        .map(|status| format!("the server and the machine differ in {status:?}"))
}

/// Which start of each unit runs where.
pub(super) fn instances(agents: &BTreeMap<MachineId, Agent>) -> BTreeMap<(MachineId, UnitName), u64> {
    let of = |(id, agent): (&MachineId, &Agent)| -> Vec<_> {
        let running = agent.units.iter().filter(|(_, held)| held.running);
        running.map(|(name, held)| ((id.clone(), name.clone()), held.instance)).collect()
    };
    agents.iter().flat_map(of).collect()
}
