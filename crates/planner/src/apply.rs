//! What a snapshot is like after an action. The server writes exactly this.

use sealift_model::{Attempt, AttemptEnd, Placement, Run, RunState, Timestamp, UnitName, UnitStatus};

use crate::{Action, Snapshot};

/// Carries out `action` at the time `now`. An action that does not fit the snapshot (its run or attempt is another by
/// now, its unit is placed elsewhere) changes nothing and gives false.
pub fn apply(snapshot: &mut Snapshot, action: &Action, now: Timestamp) -> bool {
    match action {
        Action::PutUnit { unit } => {
            snapshot.units.insert(unit.name.clone(), (**unit).clone());
            true
        }
        Action::Update { unit, machine, generation } => {
            let key = (machine.clone(), unit.clone());
            match generation {
                Some(generation) => drop(snapshot.updated.insert(key, *generation)),
                None => drop(snapshot.updated.remove(&key)),
            }
            true
        }
        Action::RemoveUnit { name } => snapshot.units.remove(name).is_some(),
        Action::Place { unit, machine } => {
            if snapshot.placements.contains_key(unit) {
                return false;
            }
            snapshot.last_placement += 1;
            let id = snapshot.last_placement;
            let placement = Placement { id, unit: unit.clone(), machine: machine.clone(), since: now };
            snapshot.statuses.insert((machine.clone(), unit.clone()), UnitStatus::unheard(&placement));
            snapshot.placements.insert(unit.clone(), placement);
            true
        }
        Action::Unplace { unit, machine, with, .. } => {
            let here = |unit: &UnitName| {
                snapshot.placements.get(unit).is_some_and(|placement| placement.machine == *machine)
            };
            let fits = std::iter::once(unit).chain(with).all(here);
            if fits {
                for unit in std::iter::once(unit).chain(with) {
                    snapshot.placements.remove(unit);
                }
            }
            fits
        }
        Action::Dispatch { run, .. } | Action::Lose { run, .. } | Action::GiveUp { run, .. } => {
            snapshot.runs.get_mut(run).is_some_and(|run| apply_to_run(run, action, now))
        }
    }
}

/// The same for a run alone; false for an action that is not about it.
pub fn apply_to_run(run: &mut Run, action: &Action, now: Timestamp) -> bool {
    match action {
        Action::Dispatch { attempt, machine, session, .. } => {
            if run.state != RunState::Queued || *attempt != next_attempt(run) {
                return false;
            }
            run.state = RunState::Running;
            run.attempts.push(Attempt {
                number: *attempt,
                machine: machine.clone(),
                session: session.clone(),
                started_at: now,
                end: None,
                waited: false,
            });
            true
        }
        Action::Lose { attempt, .. } => {
            if run.attempt().is_none_or(|last| last.number != *attempt) || !lose(run) {
                return false;
            }
            run.state = RunState::Queued;
            // The next attempt begins at the first step.
            run.steps.clear();
            true
        }
        Action::GiveUp { reason, .. } => {
            if !lose(run) {
                return false;
            }
            run.state = RunState::Failed;
            run.ended_at = Some(now);
            run.message = Some(reason.clone());
            true
        }
        _ => false,
    }
}

/// The number of the attempt to come.
pub(crate) fn next_attempt(run: &Run) -> u32 {
    run.attempt().map_or(1, |last| last.number + 1)
}

/// Ends the open attempt of a running run as lost.
fn lose(run: &mut Run) -> bool {
    let open = run.attempts.last_mut().filter(|last| last.end.is_none() && run.state == RunState::Running);
    let Some(open) = open else { return false };
    open.end = Some(AttemptEnd::Lost);
    open.waited = run.approvals.iter().any(|approval| approval.answer.is_none());
    // The next attempt asks again.
    run.stop_asking();
    true
}
