//! Which machine takes which run, and which attempts are lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealift_model::{Attempt, AttemptEnd, MachineId, Run, RunId, RunState, SessionId, Timestamp};

use crate::Action;
use crate::apply::next_attempt;
use crate::planner::Planner;

/// A run whose attempts were lost this often is given up.
pub const MAX_ATTEMPTS: usize = 3;
/// Losses while a person was waited for do not count among them, but there is an end to those too.
const MAX_WAITED: usize = 30;

/// Runs that have not ended, and the machines that take them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    pub(crate) runs: BTreeMap<RunId, Arc<Run>>,
    /// The longest waiting run first.
    queued: BTreeSet<(Timestamp, RunId)>,
    /// Runs with an open attempt, by its machine.
    open: BTreeMap<MachineId, BTreeSet<RunId>>,
    /// The session of each machine that is there, and its slots.
    machines: BTreeMap<MachineId, (SessionId, u32)>,
    /// Machines with a free slot, by how many runs they have.
    free: BTreeSet<(u32, MachineId)>,
    /// Runs whose attempt may be lost.
    to_check: BTreeSet<RunId>,
}

impl Queue {
    pub(crate) fn check(&mut self, run: &RunId) {
        self.to_check.insert(run.clone());
    }

    /// None as the session of a machine that is away.
    pub(crate) fn set_machine(&mut self, id: &MachineId, session: Option<SessionId>, slots: u32) {
        self.free.remove(&(self.running(id), id.clone()));
        match session {
            Some(session) => drop(self.machines.insert(id.clone(), (session, slots))),
            None => drop(self.machines.remove(id)),
        }
        self.note_free(id);
        self.to_check.extend(self.open.get(id).into_iter().flatten().cloned());
    }

    fn set_run(&mut self, id: &RunId, run: Option<Arc<Run>>) -> bool {
        let run = run.filter(|run| !run.state.is_end());
        if self.runs.get(id) == run.as_ref() {
            return false;
        }
        let old = match &run {
            Some(run) => self.runs.insert(id.clone(), run.clone()),
            None => self.runs.remove(id),
        };
        let machines: BTreeSet<MachineId> = old
            .iter()
            .chain(&run)
            .filter_map(|run| open(run))
            .map(|attempt| attempt.machine.clone())
            .collect();
        // What is free is noted by what was running before.
        for machine in &machines {
            let before = self.running_with(machine, id, old.as_deref());
            self.free.remove(&(before, machine.clone()));
        }
        if let Some(old) = &old {
            self.queued.remove(&(old.queued_at, id.clone()));
            if let Some(attempt) = open(old)
                && let Some(runs) = self.open.get_mut(&attempt.machine)
            {
                runs.remove(id);
                if runs.is_empty() {
                    self.open.remove(&attempt.machine);
                }
            }
        }
        if let Some(run) = &run {
            if run.state == RunState::Queued {
                self.queued.insert((run.queued_at, id.clone()));
            } else if let Some(attempt) = open(run) {
                self.open.entry(attempt.machine.clone()).or_default().insert(id.clone());
                self.to_check.insert(id.clone());
            }
        }
        for machine in &machines {
            self.note_free(machine);
        }
        true
    }

    /// Attempts at work on a machine. Waiting for a person is no work, and may take days.
    fn running(&self, machine: &MachineId) -> u32 {
        let runs = self.open.get(machine).into_iter().flatten().filter_map(|id| self.runs.get(id));
        count(runs.filter(|run| works(run)).count())
    }

    /// The same as long as `id` was `run` and no index knows better yet.
    fn running_with(&self, machine: &MachineId, id: &RunId, run: Option<&Run>) -> u32 {
        let others = self.open.get(machine).into_iter().flatten().filter(|other| *other != id);
        let others = others.filter_map(|id| self.runs.get(id)).filter(|run| works(run)).count();
        let is_here = |run: &&Run| works(run) && open(run).is_some_and(|attempt| attempt.machine == *machine);
        count(others + usize::from(run.is_some_and(|run| is_here(&run))))
    }

    fn note_free(&mut self, machine: &MachineId) {
        let Some((_, slots)) = self.machines.get(machine) else { return };
        let running = self.running(machine);
        if running < *slots {
            self.free.insert((running, machine.clone()));
        }
    }

    /// Why the attempt will never come to an end of its own, if so.
    fn loss(&self, attempt: &Attempt) -> Option<String> {
        match self.machines.get(&attempt.machine) {
            None => Some(format!("machine {} is away", attempt.machine.short())),
            Some((session, _)) if *session != attempt.session => {
                Some(format!("the agent of machine {} was started anew", attempt.machine.short()))
            }
            Some(_) => None,
        }
    }

    /// What is lost is ended first; then the queue is handed out, the longest waiting run to the machine with the fewest.
    fn next(&mut self) -> Option<Action> {
        while let Some(id) = self.to_check.pop_first() {
            let Some(run) = self.runs.get(&id) else { continue };
            if let Some(attempt) = open(run)
                && let Some(reason) = self.loss(attempt)
            {
                return Some(lost(run, attempt, reason));
            }
        }
        let (_, id) = self.queued.first()?;
        let (_, machine) = self.free.first()?;
        let (run, (session, _)) = (self.runs.get(id)?, self.machines.get(machine)?);
        Some(Action::Dispatch {
            run: id.clone(),
            attempt: next_attempt(run),
            machine: machine.clone(),
            session: session.clone(),
        })
    }
}

impl Planner {
    pub(crate) fn set_run(&mut self, id: &RunId, run: Option<Arc<Run>>) -> bool {
        self.queue.set_run(id, run)
    }

    pub(crate) fn next_of_runs(&mut self) -> Option<Action> {
        self.queue.next()
    }
}

fn open(run: &Run) -> Option<&Attempt> {
    run.attempt().filter(|attempt| attempt.end.is_none() && run.state == RunState::Running)
}

fn works(run: &Run) -> bool {
    run.unanswered().next().is_none()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn lost(run: &Run, attempt: &Attempt, reason: String) -> Action {
    let losses = || run.attempts.iter().filter(|attempt| attempt.end == Some(AttemptEnd::Lost));
    let times = losses().count() + 1;
    let waits = run.unanswered().next().is_some();
    let excused = losses().filter(|attempt| attempt.waited).count() + usize::from(waits);
    if times - excused < MAX_ATTEMPTS && excused < MAX_WAITED {
        Action::Lose { run: run.id.clone(), attempt: attempt.number, reason }
    } else {
        Action::GiveUp {
            run: run.id.clone(),
            reason: format!("lost {times} times, the last time because {reason}"),
        }
    }
}
