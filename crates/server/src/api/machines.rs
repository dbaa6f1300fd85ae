//! What agents say and ask: sessions, keep-alives, assignments, unit states.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use sealift_client::api::{
    AssignmentEvent, KeepAlive, List, MachineStatus, NewSession, SessionBegun, Statuses,
};
use sealift_model::{Assignment, MachineId, Presence, RunId, RunState, SessionId, UnitName};
use sealift_store::{LeaseId, MAX_OPS, Revision, Txn};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Error, json, lines};
use crate::keys::Key;
use crate::server::Inner;

pub(super) async fn list(State(inner): State<Arc<Inner>>) -> Json<List<MachineStatus>> {
    let world = inner.cache.world();
    let items = world.machines.values().map(|held| {
        let id = &held.value.id;
        let holds = |run: &&crate::cache::Held<sealift_model::Run>| {
            run.value.state == RunState::Running
                && run.value.attempt().is_some_and(|attempt| attempt.machine == *id)
        };
        MachineStatus {
            machine: held.value.clone(),
            presence: world.presence.get(id).map(|held| held.value.clone()),
            units: world.placements.values().filter(|placement| placement.value.machine == *id).count(),
            runs: world.runs.values().filter(holds).count(),
        }
    });
    Json(List { items: items.collect() })
}

pub(super) async fn begin_session(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<MachineId>,
    Json(new): Json<NewSession>,
) -> Result<Json<SessionBegun>, Error> {
    if new.machine.id != id {
        return Err(Error::invalid(format!("the machine calls itself {} and not {id}", new.machine.id)));
    }
    let ttl = inner.machine_ttl;
    let lease = inner.store.grant_lease(ttl).await?;
    let presence = Presence { session: new.session, since: (inner.clock)() };
    // The record is only written when something about the machine changed: at rest nothing happens.
    let known = inner.cache.world().machines.get(&id).is_some_and(|held| held.value == new.machine);
    let mut txn = Txn::new().put_leased(Key::Presence(id.clone()), json(&presence)?, lease);
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
    let (lease, _) = current_session(&inner, &id, &body.session)?;
    let lease = lease.ok_or_else(|| ended(&id))?;
    match inner.store.keep_alive(lease).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(sealift_store::Error::LeaseNotFound(_)) => Err(ended(&id)),
        Err(error) => Err(error.into()),
    }
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
    runs: BTreeMap<(RunId, u32), Assignment>,
}

async fn tell_assignments(
    inner: Arc<Inner>,
    id: MachineId,
    session: SessionId,
    sender: mpsc::Sender<AssignmentEvent>,
) {
    let mut changes = inner.cache.changes_for(&id);
    let mut told: Option<Told> = None;
    loop {
        changes.mark_unchanged();
        if current_session(&inner, &id, &session).is_err() {
            return;
        }
        let all = inner.cache.world().assignments(&id);
        let mut now = Told::default();
        for assignment in &all {
            match assignment {
                Assignment::Unit(unit) => {
                    now.units.insert(unit.unit.name.clone(), assignment.clone());
                }
                Assignment::Run(run) => {
                    now.runs.insert((run.run.id.clone(), run.attempt), assignment.clone());
                }
            }
        }
        let event = match &told {
            None => Some(AssignmentEvent::All { assignments: all }),
            Some(before) => differences(before, &now),
        };
        told = Some(now);
        if let Some(event) = event
            && sender.send(event).await.is_err()
        {
            return;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

fn differences(before: &Told, now: &Told) -> Option<AssignmentEvent> {
    let gone = before.units.keys().filter(|unit| !now.units.contains_key(unit));
    let over = before.runs.keys().filter(|run| !now.runs.contains_key(run));
    let changed = now.units.iter().filter(|(unit, now)| before.units.get(unit) != Some(now));
    // A run that is handed out does not change under its agent's hands.
    let new = now.runs.iter().filter(|(run, _)| !before.runs.contains_key(run));
    let put: Vec<_> = changed.map(|(_, put)| put).chain(new.map(|(_, put)| put)).cloned().collect();
    let drop_units: Vec<_> = gone.cloned().collect();
    let drop_runs: Vec<_> = over.cloned().collect();
    let nothing = put.is_empty() && drop_units.is_empty() && drop_runs.is_empty();
    (!nothing).then_some(AssignmentEvent::Changed { put, drop_units, drop_runs })
}

pub(super) async fn report(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<MachineId>,
    Json(body): Json<Statuses>,
) -> Result<StatusCode, Error> {
    let (_, presence) = current_session(&inner, &id, &body.session)?;
    let mut changes: BTreeMap<UnitName, Option<Vec<u8>>> = BTreeMap::new();
    {
        let world = inner.cache.world();
        let known = world.statuses.get(&id).into_iter().flatten();
        let mut known: BTreeMap<_, _> = known.map(|(unit, held)| (unit, &held.value)).collect();
        for status in &body.statuses {
            if known.remove(&status.unit) != Some(status) {
                changes.insert(status.unit.clone(), Some(json(status)?));
            }
        }
        let gone = known.keys().filter(|unit| body.all || body.gone.contains(unit));
        changes.extend(gone.map(|unit| ((*unit).clone(), None)));
    }
    let changes: Vec<_> = changes.into_iter().collect();
    for chunk in changes.chunks(MAX_OPS) {
        // A report of a session that is over does not count.
        let mut txn = Txn::new().if_modified_at(Key::Presence(id.clone()), presence);
        for (unit, status) in chunk {
            let key = Key::Status(id.clone(), unit.clone());
            txn = match status {
                Some(bytes) => txn.put(key, bytes.clone()),
                None => txn.delete(key),
            };
        }
        match inner.commit(txn).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() => return Err(ended(&id)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
