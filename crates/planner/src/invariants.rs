//! What must hold of every snapshot once its plan is carried out, and of every step on the way there.
//!
//! Shared by tests, debug assertions and the simulator. Written anew from the rules rather than from the planner's
//! code, as simply as possible and without regard to speed, so that the two do not err together.

use std::fmt;

use sealift_model::{
    ActiveState, Availability, DesiredState, Gate, MachineId, Run, RunId, RunState, Unit, UnitName,
    UpdateOrder, UpdateStage, glob_matches,
};

use crate::{Snapshot, units_by_machine};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Two units on one machine of which one does not go with the other.
    Conflict { machine: MachineId, units: [UnitName; 2] },
    /// A unit is not where its `MachineOf=` is.
    Apart { unit: UnitName, from: String },
    /// A unit is placed although it is not to be, or on a machine that does not suit it.
    Misplaced { unit: UnitName, machine: MachineId, because: &'static str },
    /// So many bytes and thousandths of a core more are promised than the machine has.
    Overcommitted { machine: MachineId, memory: u64, cpu: u64 },
    /// So many of a template are out although only so many may be.
    TooManyOut { template: UnitName, out: usize, most: u32 },
    /// More attempts that never waited for a person are under way than the machine has slots for.
    Overload { machine: MachineId, running: usize, slots: u32 },
    /// A run's record contradicts itself.
    BrokenRun { run: RunId, because: &'static str },
    /// A unit got a machine while another machine in contact had it.
    PlacedTwice { unit: UnitName, machines: [MachineId; 2] },
    /// What had happened to a run was changed.
    RewrittenRun { run: RunId, because: &'static str },
    /// A unit changed and its generation did not rise.
    StaleGeneration { unit: UnitName },
    /// A unit had its turn although the same change had turned out badly.
    WentOn { unit: UnitName },
    /// A unit went from one owner to another without being removed.
    TakenOver { unit: UnitName },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Conflict { machine, units: [one, other] } => {
                write!(f, "{one} and {other} are both on {machine} and conflict")
            }
            Violation::Apart { unit, from } => write!(f, "{unit} is not on the machine of {from}"),
            Violation::Misplaced { unit, machine, because } => {
                write!(f, "{unit} is on {machine}, but {because}")
            }
            Violation::Overcommitted { machine, memory, cpu } => {
                write!(f, "{machine} has promised {memory} bytes and {cpu} thousandths of a core too many")
            }
            Violation::TooManyOut { template, out, most } => {
                write!(f, "{out} of {template} are out and {most} may be")
            }
            Violation::Overload { machine, running, slots } => {
                write!(f, "{machine} has {running} attempts in {slots} slots")
            }
            Violation::BrokenRun { run, because } | Violation::RewrittenRun { run, because } => {
                write!(f, "run {run}: {because}")
            }
            Violation::PlacedTwice { unit, machines: [old, new] } => {
                write!(f, "{unit} came to {new} while it was on {old}")
            }
            Violation::StaleGeneration { unit } => write!(f, "{unit} changed under the same generation"),
            Violation::WentOn { unit } => {
                write!(f, "{unit} had its turn after its change had failed elsewhere")
            }
            Violation::TakenOver { unit } => write!(f, "{unit} was taken over"),
        }
    }
}

/// What does not hold of one snapshot. A snapshot may violate some of it after a machine was lost or a unit changed,
/// until its plan is carried out.
#[must_use]
pub fn state(snapshot: &Snapshot) -> Vec<Violation> {
    let mut found = Vec::new();
    placements(snapshot, &mut found);
    conflicts(snapshot, &mut found);
    slots(snapshot, &mut found);
    capacity(snapshot, &mut found);
    for run in snapshot.runs.values() {
        let broken = |because| Violation::BrokenRun { run: run.id.clone(), because };
        found.extend(broken_run(run).into_iter().map(broken));
    }
    found
}

/// The same where a plan has just been carried out. What is being stopped may still take what the machine has not got.
#[must_use]
pub fn settled(snapshot: &Snapshot) -> Vec<Violation> {
    let running = units_by_machine(snapshot);
    let stops = |machine: &MachineId| {
        let mut there = snapshot.statuses.keys().filter(|(on, _)| on == machine);
        there.any(|(_, unit)| !running.get(machine).is_some_and(|units| units.contains(unit)))
    };
    let passes = |violation: &Violation| match violation {
        Violation::Overcommitted { machine, .. } => stops(machine),
        _ => false,
    };
    state(snapshot).into_iter().filter(|violation| !passes(violation)).collect()
}

/// Those of `after` that were not so before a step, or are worse.
#[must_use]
pub fn new_since(before: &[Violation], after: Vec<Violation>) -> Vec<Violation> {
    let was = |violation: &Violation| match violation {
        Violation::Overcommitted { machine, memory, cpu } => before.iter().any(|one| match one {
            Violation::Overcommitted { machine: on, memory: had, cpu: and } => {
                on == machine && had >= memory && and >= cpu
            }
            _ => false,
        }),
        _ => before.contains(violation),
    };
    after.into_iter().filter(|violation| !was(violation)).collect()
}

/// What does not hold of the way from one snapshot to a later one.
#[must_use]
pub fn step(before: &Snapshot, after: &Snapshot) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, placement) in &after.placements {
        let new = &placement.machine;
        let old = before.placements.get(name).map(|placement| &placement.machine);
        if old == Some(new) {
            continue;
        }
        let reporting = before.statuses.keys().filter(|(_, unit)| unit == name).map(|(machine, _)| machine);
        for machine in reporting.chain(old).filter(|machine| *machine != new) {
            if before.presence(machine).is_some() && after.presence(machine).is_some() {
                let machines = [machine.clone(), new.clone()];
                found.push(Violation::PlacedTwice { unit: name.clone(), machines });
            }
        }
    }
    too_many_out(before, after, &mut found);
    too_many_begun(before, after, &mut found);
    for (name, new) in &after.units {
        let Some(old) = before.units.get(name) else { continue };
        // How far a change is, is not its author's.
        let authored = Unit { update: new.update.clone(), ..old.clone() };
        if authored != *new && new.generation <= old.generation {
            found.push(Violation::StaleGeneration { unit: name.clone() });
        }
        let owner = |unit: &Unit| unit.app.as_ref().map(|(project, _)| project.clone());
        if owner(old) != owner(new) {
            found.push(Violation::TakenOver { unit: name.clone() });
        }
    }
    for (id, new) in &after.runs {
        let Some(old) = before.runs.get(id) else { continue };
        let rewritten = |because| Violation::RewrittenRun { run: id.clone(), because };
        found.extend(rewritten_run(old, new).into_iter().map(rewritten));
    }
    found
}

/// Of a set that has a policy, one that is up leaves a drained machine only while not too many are out.
fn too_many_out(before: &Snapshot, after: &Snapshot, found: &mut Vec<Violation>) {
    let is_up = |snapshot: &Snapshot, name: &UnitName| {
        snapshot.placements.get(name).is_some_and(|placement| {
            let status = snapshot.statuses.get(&(placement.machine.clone(), name.clone()));
            status.is_some_and(|status| {
                let down = matches!(
                    status.active,
                    ActiveState::Failed | ActiveState::Activating | ActiveState::Deactivating
                );
                status.placement == placement.id
                    && status.load != "unheard"
                    && status.error.is_none()
                    && !down
            })
        })
    };
    for (name, placement) in &before.placements {
        let Some(unit) = after.units.get(name).filter(|unit| before.units.get(name) == Some(unit)) else {
            continue;
        };
        let Some((template, policy)) = name.template().zip(unit.requirements.update.as_ref()) else {
            continue;
        };
        let drained = |snapshot: &Snapshot| {
            let settings = snapshot.settings.get(&placement.machine);
            settings.is_some_and(|settings| settings.availability == Availability::Drained)
        };
        // Nothing but that could have made it leave.
        let fine = before.presence(&placement.machine).is_some()
            && *unit
                == Unit {
                    requirements: sealift_model::Requirements {
                        update: unit.requirements.update.clone(),
                        replicas: unit.requirements.replicas,
                        spread: unit.requirements.spread.clone(),
                        ..sealift_model::Requirements::NONE
                    },
                    ..unit.clone()
                }
            && unit.desired == DesiredState::Launched;
        if !fine || !drained(before) || after.placements.contains_key(name) || !is_up(before, name) {
            continue;
        }
        let set = after.units.values().filter(|one| {
            one.desired == DesiredState::Launched
                && !one.requirements.global
                && one.name.template().as_ref() == Some(&template)
        });
        let set: Vec<&UnitName> = set.map(|one| &one.name).collect();
        let out = set.iter().filter(|name| !is_up(after, name)).count();
        let most = policy.max_out.of(u32::try_from(set.len()).unwrap_or(u32::MAX));
        // Another that follows nobody and conflicts with nobody does not leave in the same step.
        if u32::try_from(out).is_ok_and(|out| out > most) {
            found.push(Violation::TooManyOut { template, out, most });
        }
    }
}

/// Of units that change together, one that is up has its turn only while not too many are out, and none after a failure.
/// Those whose new form comes before the old one stops are out by their own number of instances, and not looked at here.
fn too_many_begun(before: &Snapshot, after: &Snapshot, found: &mut Vec<Violation>) {
    let begun = |unit: &Unit| {
        unit.update.as_ref().is_some_and(|update| matches!(update.stage, UpdateStage::Begun { .. }))
    };
    for (name, unit) in &after.units {
        let Some(old) = before.units.get(name).filter(|old| begun(unit) && !begun(old)) else { continue };
        let Some(policy) = unit.policy().filter(|policy| policy.order == UpdateOrder::StopFirst) else {
            continue;
        };
        let template = name.template().unwrap_or_else(|| name.clone());
        let of_set = |one: &&Unit| {
            let same = if name.template().is_some() {
                one.name.template().as_ref() == Some(&template)
            } else {
                one.name == *name
            };
            same && one.desired == DesiredState::Launched && !one.requirements.global
        };
        let set: Vec<&Unit> = before.units.values().filter(of_set).collect();
        let is_out = |one: &&&Unit| {
            let given = one.given().map_or(one.generation, |version| version.generation);
            let placement = before.placements.get(&one.name);
            let status = placement
                .and_then(|at| before.statuses.get(&(at.machine.clone(), one.name.clone())).map(|s| (at, s)));
            !status.is_some_and(|(at, status)| {
                let down = matches!(
                    status.active,
                    ActiveState::Failed | ActiveState::Activating | ActiveState::Deactivating
                );
                let gate = matches!(status.gate, None | Some(Gate::Passed | Gate::Unknown));
                let current = one.update.is_none() || status.generation == given;
                status.placement == at.id
                    && status.load != "unheard"
                    && status.error.is_none()
                    && !down
                    && gate
                    && current
            })
        };
        let was_out = is_out(&&old);
        let out = set.iter().filter(is_out).count() + usize::from(!was_out);
        let most = policy.max_out.of(u32::try_from(set.len()).unwrap_or(u32::MAX));
        if !was_out && u32::try_from(out).is_ok_and(|out| out > most) {
            found.push(Violation::TooManyOut { template: template.clone(), out, most });
        }
        let failed = set.iter().any(|one| {
            let why = one.update.as_ref().map(|update| &update.stage);
            matches!(why, Some(UpdateStage::Back { .. })) && one.text == unit.text && one.app == unit.app
        });
        if failed {
            found.push(Violation::WentOn { unit: name.clone() });
        }
    }
}

fn placements(snapshot: &Snapshot, found: &mut Vec<Violation>) {
    for (name, placement) in &snapshot.placements {
        let machine = &placement.machine;
        let mut misplaced = |because| {
            found.push(Violation::Misplaced { unit: name.clone(), machine: machine.clone(), because });
        };
        let Some(unit) = snapshot.units.get(name) else {
            misplaced("there is no such unit");
            continue;
        };
        if unit.desired == DesiredState::Inactive || name.is_template() || unit.requirements.global {
            misplaced("it needs no placement");
        }
        // A placement on a machine that is away stands while nobody else could take over.
        let Some((about, _)) = snapshot.machines.get(machine) else { continue };
        let settings = snapshot.settings.get(machine);
        let availability = settings.map(|settings| settings.availability).unwrap_or_default();
        // One of a set may have to wait until more of the others are up.
        if availability == Availability::Drained && unit.requirements.update.is_none() {
            misplaced("the machine is drained");
        }
        let any = unit.asks().classes.contains("*");
        let named = about.class.as_ref().is_some_and(|class| unit.asks().classes.contains(class));
        if !any && !named && (about.class.is_some() || !unit.asks().classes.is_empty()) {
            misplaced("the machine is of another class");
        }
        let wanted = unit.asks().machine_id.as_deref();
        if wanted.is_some_and(|id| id != machine.as_str() && id != machine.short()) {
            misplaced("it is for another machine");
        }
        for (key, values) in &unit.asks().metadata {
            let set = settings.and_then(|settings| settings.metadata.get(key));
            let value = set.map_or_else(|| about.metadata.get(key), Option::as_ref);
            if value.is_none_or(|value| !values.contains(value)) {
                misplaced("the machine has not the metadata");
            }
        }
        for target in &unit.asks().machine_of {
            let together = snapshot
                .placements
                .iter()
                .any(|(other, at)| other.as_str() == target && at.machine == *machine);
            if !together {
                found.push(Violation::Apart { unit: name.clone(), from: target.clone() });
            }
        }
    }
}

fn conflicts(snapshot: &Snapshot, found: &mut Vec<Violation>) {
    for (machine, names) in units_by_machine(snapshot) {
        for one in &names {
            for other in &names {
                let globs = snapshot.units.get(one).map(|unit| &unit.asks().conflicts);
                let excluded = globs.into_iter().flatten().any(|glob| glob_matches(glob, other.as_str()));
                if one != other && excluded {
                    let units = [one.clone(), other.clone()];
                    found.push(Violation::Conflict { machine: machine.clone(), units });
                }
            }
        }
    }
}

/// Whatever is placed, is to run or may still be running is promised what it asks for.
fn capacity(snapshot: &Snapshot, found: &mut Vec<Violation>) {
    let running = units_by_machine(snapshot);
    for (id, (machine, _)) in &snapshot.machines {
        let mut there: Vec<&UnitName> = running.get(id).into_iter().flatten().collect();
        there.extend(snapshot.statuses.keys().filter(|(on, _)| on == id).map(|(_, unit)| unit));
        there.sort();
        there.dedup();
        let asked = |unit: &UnitName| snapshot.units.get(unit).map(|unit| unit.asks().resources);
        let asked: Vec<_> = there.into_iter().filter_map(asked).collect();
        let memory: u64 = asked.iter().map(|asked| asked.memory).sum();
        let cpu: u64 = asked.iter().map(|asked| u64::from(asked.cpu)).sum();
        let has = machine.allocatable();
        let memory = if machine.capacity.memory > 0 { memory.saturating_sub(has.memory) } else { 0 };
        let cpu = if machine.capacity.cpu > 0 { cpu.saturating_sub(u64::from(has.cpu)) } else { 0 };
        if memory > 0 || cpu > 0 {
            found.push(Violation::Overcommitted { machine: id.clone(), memory, cpu });
        }
    }
}

fn slots(snapshot: &Snapshot, found: &mut Vec<Violation>) {
    for (id, (machine, presence)) in &snapshot.machines {
        let Some(presence) = presence else { continue };
        let running = snapshot
            .runs
            .values()
            // One that waits for a person leaves its slot to others, and does not wait for a free one to go on.
            .filter(|run| run.state == RunState::Running && run.approvals.is_empty())
            .filter_map(Run::attempt)
            .filter(|last| last.end.is_none() && last.machine == *id && last.session == presence.session)
            .count();
        let slots = machine.run_slots;
        if u32::try_from(running).is_ok_and(|running| running > slots) {
            found.push(Violation::Overload { machine: id.clone(), running, slots });
        }
    }
}

fn broken_run(run: &Run) -> Vec<&'static str> {
    let mut found = Vec::new();
    let open = run.attempts.iter().filter(|attempt| attempt.end.is_none()).count();
    if !(1..).zip(&run.attempts).all(|(number, attempt)| attempt.number == number) {
        found.push("attempts are not counted 1, 2, 3");
    }
    if open > 1 {
        found.push("two attempts are open");
    }
    let last_is_open = run.attempt().is_some_and(|last| last.end.is_none());
    match run.state {
        RunState::Running if !last_is_open => found.push("it runs without an open attempt"),
        RunState::Queued if open > 0 => found.push("it is queued with an open attempt"),
        state if state.is_end() && open > 0 => found.push("it ended with an open attempt"),
        _ => {}
    }
    if run.state.is_end() != run.ended_at.is_some() {
        found.push("its end and the time of its end do not agree");
    }
    found
}

fn rewritten_run(old: &Run, new: &Run) -> Vec<&'static str> {
    let mut found = Vec::new();
    if old.state.is_end() && old != new {
        found.push("it changed after its end");
    }
    if new.attempts.len() < old.attempts.len() {
        found.push("an attempt is gone");
    }
    for (before, after) in old.attempts.iter().zip(&new.attempts) {
        let mut ended = before.clone();
        if ended.end.is_none() {
            (ended.end, ended.waited) = (after.end, after.waited);
        }
        if ended != *after {
            found.push("an attempt was rewritten");
        }
    }
    found
}
