//! Which machine takes which run, and which attempts are lost.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{Attempt, AttemptEnd, MachineId, Run, RunState};

use crate::apply::next_attempt;
use crate::{Action, Snapshot};

/// A run whose attempts were lost this often is given up.
pub const MAX_ATTEMPTS: usize = 3;
/// Losses while a person was waited for do not count among them, but there is an end to those too.
const MAX_WAITED: usize = 30;

/// Ends what is lost, then hands out the queue: the longest waiting run first, to the machine with the fewest runs.
pub(crate) fn decide(snapshot: &Snapshot, actions: &mut Vec<Action>) {
    let mut running: BTreeMap<&MachineId, u32> = BTreeMap::new();
    let mut queue: BTreeSet<_> = BTreeSet::new();
    for run in snapshot.runs.values() {
        match (run.state, run.attempt()) {
            (RunState::Queued, _) => drop(queue.insert((run.queued_at, &run.id))),
            (RunState::Running, Some(attempt)) if attempt.end.is_none() => match loss(snapshot, attempt) {
                // Waiting for a person is no work, and may take days.
                None if run.unanswered().next().is_some() => {}
                None => *running.entry(&attempt.machine).or_default() += 1,
                Some(reason) => {
                    let action = lost(run, attempt, reason);
                    if matches!(action, Action::Lose { .. }) {
                        queue.insert((run.queued_at, &run.id));
                    }
                    actions.push(action);
                }
            },
            _ => {}
        }
    }
    let mut free: BTreeSet<(u32, &MachineId)> = snapshot
        .machines
        .iter()
        .filter(|(_, (_, presence))| presence.is_some())
        .map(|(id, (machine, _))| (running.get(id).copied().unwrap_or(0), machine))
        .filter(|(running, machine)| *running < machine.run_slots)
        .map(|(running, machine)| (running, &machine.id))
        .collect();
    for (_, id) in queue {
        let Some((running, machine)) = free.pop_first() else { break };
        let (Some(run), Some((about, Some(presence)))) =
            (snapshot.runs.get(id), snapshot.machines.get(machine))
        else {
            continue;
        };
        actions.push(Action::Dispatch {
            run: id.clone(),
            attempt: next_attempt(run),
            machine: machine.clone(),
            session: presence.session.clone(),
        });
        if running + 1 < about.run_slots {
            free.insert((running + 1, machine));
        }
    }
}

/// Why the attempt will never come to an end of its own, if so.
fn loss(snapshot: &Snapshot, attempt: &Attempt) -> Option<String> {
    match snapshot.presence(&attempt.machine) {
        None => Some(format!("machine {} is away", attempt.machine.short())),
        Some(presence) if presence.session != attempt.session => {
            Some(format!("the agent of machine {} was started anew", attempt.machine.short()))
        }
        Some(_) => None,
    }
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
