//! What agents say and ask: sessions, keep-alives, assignments, unit states.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use sealift_client::api::{
    AssignmentEvent, ChangeSettings, KeepAlive, List, MachineStatus, NewSession, Question, SessionBegun,
    Statuses,
};
use sealift_model::{
    Assignment, MachineId, MachineSettings, Presence, RunId, SessionId, Timestamp, UnitName, UnitStatus,
    Withdrawal,
};
use sealift_store::{LeaseId, MAX_OPS, Revision, Txn};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Error, as_seen, json, lines, unchanged};
use crate::cache::World;
use crate::keys::Key;
use crate::server::Inner;

pub(super) async fn list(State(inner): State<Arc<Inner>>) -> Json<List<MachineStatus>> {
    let world = inner.cache.world();
    let items = world.machines.values().map(|held| {
        let id = &held.value.id;
        MachineStatus {
            machine: held.value.clone(),
            presence: world.presence.get(id).map(|held| held.value.clone()),
            units: world.placed_on(id).count(),
            runs: world.runs_on(id).count(),
            settings: world.settings.get(id).map_or_else(MachineSettings::default, |held| held.value.clone()),
        }
    });
    Json(List { items: items.collect() })
}

/// The most metadata and planned maintenance of one machine.
const MOST_SETTINGS: usize = 256;

pub(super) async fn change_settings(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<MachineId>,
    Json(change): Json<ChangeSettings>,
) -> Result<Json<MachineSettings>, Error> {
    loop {
        let (txn, next) = {
            let world = inner.cache.world();
            let next = changed_settings(&world, &id, &change, (inner.clock)())?;
            if world.settings.get(&id).map(|held| &held.value) == Some(&next) {
                return Ok(Json(next));
            }
            let key = Key::Settings(id.clone());
            (unchanged(Txn::new(), &world, &key).put(key, json(&next)?), next)
        };
        match inner.commit(txn).await {
            Ok(_) => return Ok(Json(next)),
            Err(error) if error.wants_another_look() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A machine's settings as this change makes them.
pub(super) fn changed_settings(
    world: &World,
    id: &MachineId,
    change: &ChangeSettings,
    now: Timestamp,
) -> Result<MachineSettings, Error> {
    if !world.machines.contains_key(id) {
        return Err(Error::NotFound(format!("there is no machine {id}")));
    }
    let mut next = world.settings.get(id).map(|held| held.value.clone()).unwrap_or_default();
    next.metadata.retain(|key, _| !change.unset.contains(key));
    next.metadata.extend(change.metadata.clone());
    next.availability = change.availability.unwrap_or(next.availability);
    next.maintenance = change.maintenance.clone().unwrap_or(next.maintenance);
    next = next.at(now);
    if let Some(span) = next.maintenance.iter().find(|span| span.until <= span.from) {
        return Err(Error::invalid(format!(
            "maintenance from {} until {} has no length",
            span.from, span.until
        )));
    }
    if let Some(key) = next.metadata.keys().find(|key| key.is_empty() || key.contains('=')) {
        return Err(Error::invalid(format!("{key:?} is no key of metadata")));
    }
    if next.metadata.len().max(next.maintenance.len()) > MOST_SETTINGS {
        return Err(Error::invalid(format!("a machine has at most {MOST_SETTINGS} of these")));
    }
    Ok(next)
}

pub(super) async fn begin_session(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<MachineId>,
    Json(mut new): Json<NewSession>,
) -> Result<Json<SessionBegun>, Error> {
    if new.machine.id != id {
        return Err(Error::invalid(format!("the machine calls itself {} and not {id}", new.machine.id)));
    }
    // What the machine was let in as is not its own to say; and it must not have been put out meanwhile.
    let let_in = {
        let world = inner.cache.world();
        if let Some(class) = super::access::class_of(&world, &id) {
            new.machine.class = Some(class);
        }
        unchanged(Txn::new(), &world, &Key::Credential(id.clone()))
    };
    let ttl = inner.machine_ttl;
    let lease = inner.store.grant_lease(ttl).await?;
    let presence = Presence { session: new.session, since: (inner.clock)(), leaving: false };
    // The record is only written when something about the machine changed: at rest nothing happens.
    let known = inner.cache.world().machines.get(&id).is_some_and(|held| held.value == new.machine);
    let mut txn = let_in.put_leased(Key::Presence(id.clone()), json(&presence)?, lease);
    if !known {
        txn = txn.put(Key::Machine(id.clone()), json(&new.machine)?);
    }
    inner.commit(txn).await?;
    tracing::info!(machine = id.short(), session = %presence.session, "a machine is present");
    Ok(Json(SessionBegun { ttl_millis: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) }))
}

pub(super) async fn keep_alive(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<MachineId>,
    Json(body): Json<KeepAlive>,
) -> Result<StatusCode, Error> {
    let (lease, _) = session_now(&inner, &id, &body.session).await?;
    let lease = lease.ok_or_else(|| ended(&id))?;
    match inner.store.keep_alive(lease).await {
        Ok(newest) => {
            if inner.cache.seen() < newest {
                fresh(&inner).await?;
            }
            Ok(StatusCode::NO_CONTENT)
        }
        Err(sealift_store::Error::LeaseNotFound(_)) => Err(ended(&id)),
        Err(error) => Err(error.into()),
    }
}

/// The machine shuts down: what it has goes elsewhere while it is still there to confirm it. That is over with the session.
pub(super) async fn leave(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<MachineId>,
    Json(body): Json<KeepAlive>,
) -> Result<StatusCode, Error> {
    loop {
        let (lease, _) = current_session(&inner, &id, &body.session)?;
        let lease = lease.ok_or_else(|| ended(&id))?;
        let txn = {
            let world = inner.cache.world();
            let Some(held) = world.presence.get(&id) else { return Err(ended(&id)) };
            let presence = Presence { leaving: true, ..held.value.clone() };
            let key = Key::Presence(id.clone());
            unchanged(Txn::new(), &world, &key).put_leased(key, json(&presence)?, lease)
        };
        match inner.commit(txn).await {
            Ok(_) => {
                tracing::info!(machine = id.short(), "a machine is shutting down; its units go elsewhere");
                return Ok(StatusCode::NO_CONTENT);
            }
            Err(error) if error.wants_another_look() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes sure that what the cache shows is as new as the store: a server that was cut off from it would tell machines what
/// was to run before. Where that cannot be had in time, the cache is read anew and nobody is told anything by the old one.
async fn fresh(inner: &Inner) -> Result<(), Error> {
    const LATE: &str = "this server is behind its store; ask another one";
    match tokio::time::timeout(inner.machine_ttl / 3, inner.look_again()).await {
        Ok(looked) => Ok(looked?),
        Err(_) => {
            inner.cache.doubt();
            Err(Error::Busy(LATE))
        }
    }
}

/// As [`current_session`], and before a session is said to be over, what the cache shows is made sure of.
async fn session_now(
    inner: &Inner,
    id: &MachineId,
    session: &SessionId,
) -> Result<(Option<LeaseId>, Revision), Error> {
    if let Ok(known) = current_session(inner, id, session) {
        return Ok(known);
    }
    fresh(inner).await?;
    current_session(inner, id, session)
}

fn ended(id: &MachineId) -> Error {
    Error::Fenced(format!("this session of machine {} is over; begin a new one", id.short()))
}

/// The lease and revision of a machine's presence, if it is this session's.
fn current_session(
    inner: &Inner,
    id: &MachineId,
    session: &SessionId,
) -> Result<(Option<LeaseId>, Revision), Error> {
    let world = inner.cache.world();
    match world.presence.get(id) {
        Some(held) if held.value.session == *session => Ok((held.lease, held.modified)),
        _ => Err(ended(id)),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct OfSession {
    session: SessionId,
}

pub(super) async fn assignments(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<MachineId>,
    Query(of): Query<OfSession>,
) -> Result<Response, Error> {
    // All that is to run is told at once: by what was to run before, machines would stop and start what is well.
    fresh(&inner).await?;
    current_session(&inner, &id, &of.session)?;
    let (sender, receiver) = mpsc::channel(16);
    // Ends when the agent hangs up, the session ends or the server stops.
    tokio::spawn(async move {
        let stop = inner.shutdown.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = tell_assignments(inner, id, of.session, sender) => {}
        }
    });
    Ok(lines(super::received(receiver)))
}

/// What a connection was told last, so that only differences are told.
#[derive(Default)]
struct Told {
    units: BTreeMap<UnitName, Assignment>,
    /// What is said to be on the machine and is not assigned to it, with its placement.
    leaving: BTreeMap<UnitName, u64>,
    runs: BTreeMap<(RunId, u32), Assignment>,
    questions: BTreeMap<String, Question>,
}

async fn tell_assignments(
    inner: Arc<Inner>,
    id: MachineId,
    session: SessionId,
    sender: mpsc::Sender<AssignmentEvent>,
) {
    let mut changes = inner.cache.changes_for(&id);
    let mut doubts = inner.cache.doubts();
    let mut told: Option<Told> = None;
    loop {
        changes.mark_unchanged();
        if current_session(&inner, &id, &session).is_err() {
            return;
        }
        inner.metrics.assignment_looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (all, statuses, questions) = {
            let world = inner.cache.world();
            let statuses = world.statuses.get(&id).into_iter().flatten();
            let over = statuses.filter(|(_, held)| world.placement_of(&id, &held.value).is_none());
            let over = over.map(|(unit, held)| (unit.clone(), held.value.placement));
            let asked = world.questions.get(&id).into_iter().flatten();
            let asked = asked.map(|(question, held)| (question.clone(), held.value.clone()));
            (world.assignments(&id), over.collect::<BTreeMap<_, _>>(), asked.collect())
        };
        let mut now = Told { leaving: statuses, questions, ..Told::default() };
        for assignment in &all {
            match assignment {
                Assignment::Unit(unit) => {
                    now.leaving.remove(&unit.unit.name);
                    now.units.insert(unit.unit.name.clone(), assignment.clone());
                }
                Assignment::Run(run) => {
                    now.runs.insert((run.run.id.clone(), run.attempt), assignment.clone());
                }
            }
        }
        let event = match &told {
            None => {
                let drop_units = now.leaving.iter().map(withdrawal).collect();
                Some(AssignmentEvent::All { assignments: all, drop_units })
            }
            Some(before) => differences(before, &now),
        };
        let asked_before = told.map(|told| told.questions).unwrap_or_default();
        let asked = now.questions.iter().filter(|(id, _)| !asked_before.contains_key(*id));
        let questions: Vec<Question> = asked.map(|(_, question)| question.clone()).collect();
        let ask = (!questions.is_empty()).then_some(AssignmentEvent::Ask { questions });
        told = Some(now);
        for event in event.into_iter().chain(ask) {
            if sender.send(event).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            // It is asked for again, of whoever is not behind.
            _ = doubts.changed() => return,
            () = sender.closed() => return,
        }
    }
}

fn withdrawal((unit, placement): (&UnitName, &u64)) -> Withdrawal {
    Withdrawal { unit: unit.clone(), placement: *placement }
}

fn differences(before: &Told, now: &Told) -> Option<AssignmentEvent> {
    // What was given and taken before this machine was told is dropped too, so that it confirms it.
    let leaving = now.leaving.iter().filter(|(unit, placement)| before.leaving.get(*unit) != Some(placement));
    let mut dropped: BTreeMap<UnitName, u64> = leaving.map(|(unit, id)| (unit.clone(), *id)).collect();
    for (unit, assignment) in before.units.iter().filter(|(unit, _)| !now.units.contains_key(*unit)) {
        if let Assignment::Unit(assigned) = assignment {
            dropped.entry(unit.clone()).or_insert(assigned.placement);
        }
    }
    let over = before.runs.keys().filter(|run| !now.runs.contains_key(run));
    let changed = now.units.iter().filter(|(unit, now)| before.units.get(unit) != Some(now));
    // A run that is handed out does not change under its agent's hands.
    let new = now.runs.iter().filter(|(run, _)| !before.runs.contains_key(run));
    let put: Vec<_> = changed.map(|(_, put)| put).chain(new.map(|(_, put)| put)).cloned().collect();
    let drop_units: Vec<_> = dropped.iter().map(withdrawal).collect();
    let drop_runs: Vec<_> = over.cloned().collect();
    let nothing = put.is_empty() && drop_units.is_empty() && drop_runs.is_empty();
    (!nothing).then_some(AssignmentEvent::Changed { put, drop_units, drop_runs })
}

pub(super) async fn report(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<MachineId>,
    Json(body): Json<Statuses>,
) -> Result<StatusCode, Error> {
    loop {
        let (_, presence) = session_now(&inner, &id, &body.session).await?;
        match write_report(&inner, &id, &body, presence).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            // Another placement, or the end of the session: looked at again.
            Err(Error::Store(error)) if error.wants_another_look() => inner.look_again().await?,
            Err(error) => return Err(error),
        }
    }
}

/// Writes what a report changes, if all of it is still as the cache shows it.
async fn write_report(
    inner: &Inner,
    id: &MachineId,
    body: &Statuses,
    presence: Revision,
) -> Result<(), Error> {
    let mut changes = Vec::new();
    {
        let world = inner.cache.world();
        for (unit, status) in told_by(&world, id, body) {
            let key = Key::Status(id.clone(), unit);
            let modified = world.modified(&key);
            changes.push((key, modified, status.as_ref().map(json).transpose()?));
        }
    }
    // One place is for the session, which has to be the current one.
    for chunk in changes.chunks(MAX_OPS - 1) {
        let mut txn = Txn::new().if_modified_at(Key::Presence(id.clone()), presence);
        for (key, modified, bytes) in chunk {
            txn = as_seen(txn, key, *modified);
            txn = match bytes {
                Some(bytes) => txn.put(key.clone(), bytes.clone()),
                None => txn.delete(key.clone()),
            };
        }
        inner.commit(txn).await?;
    }
    Ok(())
}

/// What a report makes of what was known of the machine's units; none for one that is not there any more.
fn told_by(world: &World, id: &MachineId, body: &Statuses) -> BTreeMap<UnitName, Option<UnitStatus>> {
    let mut changes = BTreeMap::new();
    let known = world.statuses.get(id).into_iter().flatten();
    let mut known: BTreeMap<_, _> = known.map(|(unit, held)| (unit, &held.value)).collect();
    for status in &body.statuses {
        let before = known.remove(&status.unit);
        // A word on an earlier placement says nothing of the one that has been made since. A unit that is global has
        // none any more.
        let is_global = world.units.get(&status.unit).is_some_and(|unit| unit.value.requirements.global);
        let counts = is_global || before.is_none_or(|known| known.placement <= status.placement);
        if before != Some(status) && counts {
            changes.insert(status.unit.clone(), Some(status.clone()));
        }
    }
    let mut over = Vec::new();
    for Withdrawal { unit, placement } in &body.gone {
        over.extend(known.remove_entry(unit).filter(|(_, known)| known.placement <= *placement));
    }
    // Of these a new life of the agent knows nothing. What is neither placed here nor global it will confirm when it is
    // told that it is not wanted.
    over.extend(
        known.into_iter().filter(|(_, known)| {
            body.all && (known.placement == 0 || world.placement_of(id, known).is_some())
        }),
    );
    for (unit, before) in over {
        // One that is still placed here may be wanted again at any moment.
        let unheard = world.placement_of(id, before).map(UnitStatus::unheard);
        if unheard.as_ref() != Some(before) {
            changes.insert(unit.clone(), unheard);
        }
    }
    changes
}
