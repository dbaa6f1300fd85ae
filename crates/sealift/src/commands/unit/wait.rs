//! Waiting until units are as they were asked to be.
//!
//! It asks nothing twice: one stream tells of every change. It must not know how what it finds is said.

use std::collections::BTreeMap;
use std::time::Duration;

use sealift_client::api::{UnitEvent, UnitView, WatchUnits};
use sealift_client::{Client, Lines};
use sealift_model::{
    ActiveState, DesiredState, Gate, MachineId, OnFailure, UnitKind, UnitName, UnitStatus, UpdateStage,
};
use tokio::time::Instant;

use crate::error::Error;

/// A unit that no machine takes is waited for so long: what keeps it away may be on its way out.
const NOWHERE_PATIENCE: Duration = Duration::from_secs(3);
/// How long a server may be away.
const SERVER_PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(200);

/// What units are to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Active, on every machine that they are to run on.
    Launched,
    /// On a machine, and not running.
    Loaded,
    /// On no machine.
    Inactive,
    /// On no machine, and forgotten.
    Destroyed,
}

/// How waiting for a unit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is as it was to be, on these machines.
    Done(Vec<MachineId>),
    /// It will not come to be so by itself.
    Failed(String),
    /// It was not so in time; with what it waits for.
    TimedOut(String),
}

/// Units with the generation that has to be carried out.
pub(crate) type Waited = BTreeMap<UnitName, u64>;

/// Waits for all of them, and tells of each as it is known; gives what failed or was not so in time.
pub(crate) async fn wait(
    client: &Client,
    units: &Waited,
    goal: Goal,
    timeout: Option<Duration>,
    tell: impl FnMut(&UnitName, &Outcome, usize) -> Result<(), Error>,
) -> Result<usize, Error> {
    let judge = |event: &UnitEvent| {
        let generation = units.get(&event.name).copied().unwrap_or_default();
        progress(event, generation, goal)
    };
    follow(client, units.keys(), timeout, judge, tell).await
}

/// The same for whatever `judge` says of a unit.
pub(crate) async fn follow<'u>(
    client: &Client,
    units: impl Iterator<Item = &'u UnitName>,
    timeout: Option<Duration>,
    judge: impl Fn(&UnitEvent) -> Progress,
    mut tell: impl FnMut(&UnitName, &Outcome, usize) -> Result<(), Error>,
) -> Result<usize, Error> {
    let end = timeout.map(|timeout| Instant::now() + timeout);
    let mut open: BTreeMap<&UnitName, State> = units.map(|name| (name, State::default())).collect();
    let mut failed = 0;
    let mut lines: Option<Lines<UnitEvent>> = None;
    let mut server_end = Instant::now() + SERVER_PATIENCE;
    while !open.is_empty() {
        let now = Instant::now();
        let over: Vec<_> = open
            .iter()
            .filter(|(_, state)| {
                end.is_some_and(|end| end <= now) || state.nowhere_until.is_some_and(|until| until <= now)
            })
            .map(|(name, state)| (*name, state.outcome()))
            .collect();
        for (name, outcome) in over {
            open.remove(name);
            failed += 1;
            tell(name, &outcome, open.len())?;
        }
        if open.is_empty() {
            break;
        }
        let next = open.values().filter_map(|state| state.nowhere_until).chain(end).min();
        let event = tokio::select! {
            event = next_event(client, &mut lines, &open) => event,
            () = until(next) => continue,
        };
        let event = match event {
            Ok(event) => event,
            Err(error) if error.retryable() && Instant::now() < server_end => {
                lines = None;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        server_end = Instant::now() + SERVER_PATIENCE;
        let name = open.keys().copied().find(|name| **name == event.name);
        let Some((name, state)) = name.and_then(|name| Some((name, open.get_mut(name)?))) else { continue };
        match judge(&event) {
            Progress::Waiting(why) => *state = State { why, nowhere_until: None },
            Progress::Nowhere(why) => {
                let until = state.nowhere_until.unwrap_or_else(|| Instant::now() + NOWHERE_PATIENCE);
                *state = State { why, nowhere_until: Some(until) };
            }
            Progress::Done(machines) => {
                open.remove(name);
                tell(name, &Outcome::Done(machines), open.len())?;
            }
            Progress::Failed(why) => {
                open.remove(name);
                failed += 1;
                tell(name, &Outcome::Failed(why), open.len())?;
            }
        }
    }
    Ok(failed)
}

/// What is known of a unit that is waited for.
#[derive(Debug, Default)]
struct State {
    why: String,
    /// No machine takes it; it is given up then.
    nowhere_until: Option<Instant>,
}

impl State {
    fn outcome(&self) -> Outcome {
        let why = if self.why.is_empty() { "the servers said nothing of it" } else { &self.why };
        match self.nowhere_until {
            Some(_) => Outcome::Failed(why.to_owned()),
            None => Outcome::TimedOut(why.to_owned()),
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The next change of any of these units.
async fn next_event(
    client: &Client,
    lines: &mut Option<Lines<UnitEvent>>,
    open: &BTreeMap<&UnitName, State>,
) -> Result<UnitEvent, sealift_client::Error> {
    loop {
        let stream = match lines {
            Some(stream) => stream,
            None => {
                let names = open.keys().map(|name| (*name).clone()).collect();
                lines.insert(client.post_lines("/v1/units/watch", &WatchUnits { names }).await?)
            }
        };
        match stream.next().await? {
            Some(event) => return Ok(event),
            // The server stops in good order; another takes over.
            None => {
                *lines = None;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// How far a unit is.
#[derive(Debug, PartialEq)]
pub(crate) enum Progress {
    /// Not yet, and why.
    Waiting(String),
    /// No machine takes it now.
    Nowhere(String),
    Done(Vec<MachineId>),
    Failed(String),
}

fn progress(event: &UnitEvent, generation: u64, goal: Goal) -> Progress {
    let Some(view) = &event.view else {
        return match goal {
            Goal::Destroyed if event.leaving.is_empty() => Progress::Done(Vec::new()),
            Goal::Destroyed => {
                Progress::Waiting(format!("{} machines have not confirmed its stop", event.leaving.len()))
            }
            _ => Progress::Failed("somebody destroyed it".into()),
        };
    };
    if view.unit.generation < generation {
        return Progress::Waiting("the server has not seen the change yet".into());
    }
    let wanted = match goal {
        Goal::Launched => DesiredState::Launched,
        Goal::Loaded => DesiredState::Loaded,
        Goal::Inactive => DesiredState::Inactive,
        Goal::Destroyed => return Progress::Failed("somebody submitted it anew".into()),
    };
    if view.unit.desired != wanted {
        return Progress::Failed("somebody asked for something else meanwhile".into());
    }
    // A change that rolls out is through when all that change with it are.
    let update = view.unit.update.as_ref().filter(|_| goal == Goal::Launched);
    match update.map(|update| &update.stage) {
        Some(UpdateStage::Back { why }) => {
            let previous = update.map_or(0, |update| update.previous.generation);
            let is_back = |machine| {
                let status: Option<&UnitStatus> = view.statuses.get(MachineId::as_str(machine));
                view.away.contains(machine) || status.is_some_and(|status| status.generation == previous)
            };
            if !view.targets.iter().all(is_back) {
                return Progress::Waiting(format!("the change is being taken back: {why}"));
            }
            return Progress::Failed(format!("the change was taken back: {why}"));
        }
        Some(UpdateStage::Waiting) if !view.unit.requirements.global => {
            return Progress::Waiting("it waits for its turn in the rollout".into());
        }
        Some(UpdateStage::Waiting | UpdateStage::Begun { .. }) => return rolling(view),
        None => {}
    }
    if goal == Goal::Inactive {
        let left = view.statuses.len() - view.away.len().min(view.statuses.len());
        return match left {
            0 if view.placement.is_none() => Progress::Done(Vec::new()),
            _ => Progress::Waiting(format!("{left} machines have not confirmed its stop")),
        };
    }
    if view.targets.is_empty() {
        // A set of replicas is on no machine itself; its instances are.
        if view.unit.name.is_template() {
            return match &view.replicas {
                Some(replicas) if replicas.ready < replicas.wanted => {
                    let why = replicas.problem.clone().unwrap_or_default();
                    if replicas.failed { Progress::Failed(why) } else { Progress::Waiting(why) }
                }
                _ => Progress::Done(Vec::new()),
            };
        }
        return match &view.problem {
            Some(problem) => Progress::Nowhere(problem.clone()),
            None => Progress::Waiting("no machine was chosen yet".into()),
        };
    }
    for machine in &view.targets {
        match on_machine(view, machine, generation, goal) {
            Progress::Done(_) => {}
            other => return other,
        }
    }
    Progress::Done(view.targets.clone())
}

/// How it is where the change has been given.
fn rolling(view: &UnitView) -> Progress {
    let on_failure = view.unit.policy().map(|policy| policy.on_failure);
    for (machine, status) in &view.statuses {
        if let Some(Gate::Failed { why }) = &status.gate
            && status.generation == view.unit.generation
            && on_failure == Some(OnFailure::Stop)
        {
            return Progress::Failed(format!("machine {machine}: {why}; the rollout stops here"));
        }
    }
    Progress::Waiting("its rollout is not over yet".into())
}

/// How far it is on a machine that it is to run on.
pub(crate) fn on_machine(view: &UnitView, machine: &MachineId, generation: u64, goal: Goal) -> Progress {
    let waiting = |why: &str| Progress::Waiting(format!("machine {} {why}", machine.short()));
    let placement = view.placement.as_ref().map_or(0, |placement| placement.id);
    let word = view.statuses.get(machine.as_str());
    let Some(status) = word.filter(|status| status.placement >= placement && status.generation >= generation)
    else {
        return waiting("has not carried it out yet");
    };
    if let Some(error) = &status.error {
        return Progress::Failed(format!("machine {}: {error}", machine.short()));
    }
    let failed = || {
        let why = status.result.as_deref().unwrap_or("failed");
        Progress::Failed(format!("machine {}: it failed ({why})", machine.short()))
    };
    match (goal, status.active) {
        (Goal::Launched, ActiveState::Active | ActiveState::Reloading) => Progress::Done(Vec::new()),
        (Goal::Launched, ActiveState::Failed) => failed(),
        // Its Restart= brings it up again and again.
        (Goal::Launched, ActiveState::Activating) if status.sub == "auto-restart" => failed(),
        (Goal::Launched, ActiveState::Inactive) if is_through(&view.unit.name, status) => {
            Progress::Done(Vec::new())
        }
        (Goal::Loaded, ActiveState::Inactive | ActiveState::Failed) => Progress::Done(Vec::new()),
        _ => waiting(&format!("has it as {}", status.sub)),
    }
}

/// A one-shot service is inactive when it has done its work well.
fn is_through(name: &UnitName, status: &UnitStatus) -> bool {
    name.kind() == UnitKind::Service && status.result.as_deref() == Some("success")
}
