//! Runs: queued by people, carried out by agents, told to whoever reads the log.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use futures_util::StreamExt as _;
use sealift_access::Identity;
use sealift_client::api::{Events, Finish, List, LogEntry, NewRun};
use sealift_model::{
    App, AttemptEnd, Digest, Package, PackageName, ProjectName, Release, Run, RunEvent, RunId, RunState,
    SessionId,
};
use sealift_store::{MAX_VALUE, Txn};
use sealift_unitfile::UnitFile;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::gate::Object;
use super::{Error, json, lines, unchanged};
use crate::cache::World;
use crate::keys::Key;
use crate::server::Inner;

/// How long a request's key is remembered: longer than any client tries again.
const REQUEST_TTL: Duration = Duration::from_secs(600);
/// Optimistic tries of one request against others that change the same objects.
pub(super) const TRIES: u32 = 16;
/// What one project may have waiting; more is refused rather than piled up.
const BACKLOG: usize = 1000;
/// Bytes of a log that are read at once.
const LOG_CHUNK: usize = 256 << 10;
/// Runs that a list shows unless asked for more.
const LIST_LIMIT: usize = 50;
/// A release's unit files are stored in one value of the store.
const UNITS_LIMIT: usize = 64 << 10;
/// What such a value has besides.
const BESIDE: usize = 4 << 10;
/// Characters of what an agent says of an end; the log has it in full.
const MESSAGE_LIMIT: usize = 4000;

pub(super) async fn create(
    State(inner): State<Arc<Inner>>,
    Extension(identity): Extension<Identity>,
    Json(new): Json<NewRun>,
) -> Result<(Extension<Object>, Json<Run>), Error> {
    if !identity.deploys(&new.project) {
        return Err(Error::Forbidden(format!("{identity} may not change {}", new.project)));
    }
    let run = queue(&inner, new).await?;
    Ok((Extension(Object(format!("runs/{}", run.id))), Json(run)))
}

async fn queue(inner: &Arc<Inner>, new: NewRun) -> Result<Run, Error> {
    if new.request.is_empty() || new.request.len() > 100 || new.request.contains('/') {
        return Err(Error::invalid("the field 'request' must have 1 to 100 characters and no '/'"));
    }
    if new.pipeline.is_empty() || new.pipeline.len() > 200 {
        return Err(Error::invalid("the field 'pipeline' must have 1 to 200 characters"));
    }
    inner.blobs.read(&new.source)?;
    let request = Key::Request(new.request.clone());
    let lease = inner.store.grant_lease(REQUEST_TTL).await?;
    let numbering = {
        let mut numbering = inner.numbering.lock().unwrap_or_else(PoisonError::into_inner);
        numbering.entry(new.project.clone()).or_default().clone()
    };
    let _turn = numbering.lock().await;
    let mut tries = 0;
    loop {
        let (run, txn) = {
            let world = inner.cache.world();
            if let Some(known) = world.requests.get(&new.request).and_then(|id| world.runs.get(&id.value)) {
                return Ok(known.value.clone());
            }
            let waiting = world
                .runs
                .values()
                .filter(|run| run.value.id.project == new.project && run.value.state == RunState::Queued);
            if waiting.count() >= BACKLOG {
                return Err(Error::Conflict(format!(
                    "{} has {BACKLOG} runs waiting already; abort some or wait",
                    new.project
                )));
            }
            let id = next_id(&world, &new.project);
            let run = Run {
                id: id.clone(),
                branch: new.branch.clone(),
                commit: new.commit.clone(),
                subject: new.subject.chars().take(200).collect(),
                source: new.source.clone(),
                pipeline: new.pipeline.clone(),
                state: RunState::Queued,
                attempts: Vec::new(),
                queued_at: (inner.clock)(),
                ended_at: None,
                message: None,
                steps: Vec::new(),
                package: None,
                approvals: Vec::new(),
                extra: serde_json::Map::default(),
            };
            let counter = Key::RunCounter(new.project.clone());
            let txn = unchanged(Txn::new(), &world, &counter)
                .if_absent(request.to_string())
                .put(counter, json(&id.number)?)
                .put_leased(request.to_string(), json(&run.id)?, lease)
                .put(Key::Run(run.id.clone()), json(&run)?);
            (run, txn)
        };
        match inner.commit(txn).await {
            Ok(_) => return Ok(run),
            Err(error) if error.wants_another_look() && tries < TRIES => {
                tries += 1;
                // Somebody else was first, or it is unknown whether we were: decide again on what is there.
                inner.look_again().await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The number after all that were given, even where the counter or some of the runs are not understood.
fn next_id(world: &World, project: &ProjectName) -> RunId {
    let id = |number| RunId { project: project.clone(), number };
    let newest = world.runs.range(id(0)..=id(u64::MAX)).next_back().map_or(0, |(id, _)| id.number);
    let counted = world.counters.get(project).map_or(0, |held| held.value);
    let mut next = id(newest.max(counted) + 1);
    while world.unread(&Key::Run(next.clone())).is_some() {
        next.number += 1;
    }
    next
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    project: Option<ProjectName>,
    limit: Option<usize>,
}

/// The newest runs, newest first.
pub(super) async fn list(State(inner): State<Arc<Inner>>, Query(query): Query<ListQuery>) -> Json<List<Run>> {
    let world = inner.cache.world();
    let wanted = |run: &&Run| query.project.as_ref().is_none_or(|project| *project == run.id.project);
    let mut items: Vec<_> = world.runs.values().map(|held| &held.value).filter(wanted).collect();
    items.sort_by(|a, b| b.queued_at.cmp(&a.queued_at).then_with(|| b.id.cmp(&a.id)));
    items.truncate(query.limit.unwrap_or(LIST_LIMIT));
    Json(List { items: items.into_iter().cloned().collect() })
}

pub(super) async fn show(State(inner): State<Arc<Inner>>, Path(id): Path<RunId>) -> Result<Json<Run>, Error> {
    Ok(Json(find(&inner.cache.world(), &id)?.clone()))
}

pub(super) fn find<'a>(world: &'a World, id: &RunId) -> Result<&'a Run, Error> {
    let held = world.runs.get(id).ok_or_else(|| Error::NotFound(format!("no run {id}")))?;
    Ok(&held.value)
}

pub(super) async fn abort(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<RunId>,
) -> Result<Json<Run>, Error> {
    for _ in 0..TRIES {
        let (run, txn) = {
            let world = inner.cache.world();
            let run = find(&world, &id)?;
            if run.state.is_end() {
                return Ok(Json(run.clone()));
            }
            let mut run = run.clone();
            run.state = RunState::Aborted;
            run.ended_at = Some((inner.clock)());
            run.message = Some("aborted by request".into());
            run.stop_asking();
            if let Some(attempt) = run.attempts.last_mut() {
                attempt.end.get_or_insert(AttemptEnd::Aborted);
            }
            let key = Key::Run(id.clone());
            (run.clone(), unchanged(Txn::new(), &world, &key).put(key, json(&run)?))
        };
        match inner.commit(txn).await {
            Ok(_) => return Ok(Json(run)),
            // It was handed out, lost or ended meanwhile, or this was done without an answer.
            Err(error) if error.wants_another_look() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(changed_too_often(&id))
}

pub(super) fn changed_too_often(id: &RunId) -> Error {
    Error::Conflict(format!("{id} is being changed too often; try again"))
}

#[derive(Debug, Deserialize)]
pub(super) struct LogQuery {
    #[serde(default)]
    follow: bool,
}

/// The log of all attempts in order; with `follow` until the run has ended.
pub(super) async fn log(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<RunId>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Error> {
    find(&inner.cache.world(), &id)?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let stop = inner.shutdown.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            outcome = tell_log(inner, &id, query.follow, sender) => if let Err(error) = outcome {
                tracing::error!(run = %id, %error, "cannot read a log");
            }
        }
    });
    Ok(lines(super::received(receiver).flat_map(futures_util::stream::iter)))
}

async fn tell_log(
    inner: Arc<Inner>,
    id: &RunId,
    follow: bool,
    sender: mpsc::Sender<Vec<LogEntry>>,
) -> Result<(), Error> {
    let mut appended = inner.logs.changes(id);
    let mut changed = inner.cache.changes();
    let (mut attempt, mut offset) = (1, 0);
    loop {
        appended.mark_unchanged();
        changed.mark_unchanged();
        // The run's state is looked at before the file: what was written before the end is then read before the end.
        let (attempts, ended) = {
            let world = inner.cache.world();
            let Ok(run) = find(&world, id) else { return Ok(()) };
            (run.attempts.last().map_or(0, |attempt| attempt.number), run.state.is_end())
        };
        let read = {
            let (inner, id) = (inner.clone(), id.clone());
            move || inner.logs.read(&id, attempt, offset, LOG_CHUNK)
        };
        let (events, next) = tokio::task::spawn_blocking(read).await.map_err(Error::Cut)??;
        offset = next;
        if !events.is_empty() {
            let entries = events.into_iter().map(|event| LogEntry { attempt, event }).collect();
            if sender.send(entries).await.is_err() {
                return Ok(());
            }
        } else if attempt < attempts {
            (attempt, offset) = (attempt + 1, 0);
        } else if ended || !follow {
            return Ok(());
        } else {
            tokio::select! {
                gone = appended.changed() => if gone.is_err() { return Ok(()) },
                gone = changed.changed() => if gone.is_err() { return Ok(()) },
                () = sender.closed() => return Ok(()),
            }
        }
    }
}

/// The attempt as the newest one of a run that is under way, or why what its agent says no longer counts.
pub(super) fn fenced(world: &World, run: &Run, attempt: u32, session: &SessionId) -> Result<(), Error> {
    let newest = run.attempt().filter(|newest| newest.number == attempt && newest.session == *session);
    // A session is over from when it ends or the next one begins, not from when that is planned for.
    let presence = newest.and_then(|newest| world.presence.get(&newest.machine));
    if run.state == RunState::Running && presence.is_some_and(|held| held.value.session == *session) {
        return Ok(());
    }
    Err(Error::Fenced(format!("attempt {attempt} of {} no longer counts", run.id)))
}

pub(super) async fn events(
    State(inner): State<Arc<Inner>>,
    Path((id, attempt)): Path<(RunId, u32)>,
    Json(body): Json<Events>,
) -> Result<StatusCode, Error> {
    {
        let world = inner.cache.world();
        fenced(&world, find(&world, &id)?, attempt, &body.session)?;
    }
    append(&inner, id, attempt, body.events, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn append(
    inner: &Arc<Inner>,
    id: RunId,
    attempt: u32,
    events: Vec<RunEvent>,
    sync: bool,
) -> Result<(), Error> {
    let inner = inner.clone();
    let write = move || inner.logs.append(&id, attempt, &events, sync);
    Ok(tokio::task::spawn_blocking(write).await.map_err(Error::Cut)??)
}

/// The end of an attempt: its run ends, and what it made becomes a signed package and, on the app's branch, a release;
/// all in one transaction. Said twice, it is done once.
pub(super) async fn finish(
    State(inner): State<Arc<Inner>>,
    Path((id, attempt)): Path<(RunId, u32)>,
    Json(body): Json<Finish>,
) -> Result<Json<Run>, Error> {
    if let Some(run) = said_before(&inner.cache.world(), &id, attempt, &body.session)? {
        return Ok(Json(run));
    }
    check_drop_ins(&body)?;
    // The log is on the disk before anybody is told that the run has ended.
    append(&inner, id.clone(), attempt, Vec::new(), true).await?;
    let mut package: Option<Package> = None;
    for _ in 0..TRIES {
        let (run, txn) = {
            let world = inner.cache.world();
            if let Some(run) = said_before(&world, &id, attempt, &body.session)? {
                return Ok(Json(run));
            }
            let run = find(&world, &id)?;
            let name = PackageName {
                project: id.project.clone(),
                branch: run.branch.clone(),
                commit: run.commit.clone(),
            };
            match (&body.artifact, &package) {
                (Some(digest), None) if body.passed => (Err((name, digest.clone())), Txn::new()),
                _ => {
                    let (run, txn) = ended(&inner, &world, run, &body, package.clone())?;
                    (Ok(run), txn)
                }
            }
        };
        match run {
            Err((name, digest)) => package = Some(sign(&inner, name, digest, id.clone()).await?),
            Ok(run) => match inner.commit(txn).await {
                Ok(_) => return Ok(Json(run)),
                Err(error) if error.wants_another_look() => inner.look_again().await?,
                Err(error) => return Err(error.into()),
            },
        }
    }
    Err(changed_too_often(&id))
}

/// The run as it ended, if this attempt's end was said before; none if it may be said now.
fn said_before(world: &World, id: &RunId, attempt: u32, session: &SessionId) -> Result<Option<Run>, Error> {
    let run = find(world, id)?;
    let said = run.attempts.iter().any(|known| {
        known.number == attempt
            && known.session == *session
            && matches!(known.end, Some(AttemptEnd::Passed | AttemptEnd::Failed))
    });
    if said && run.state.is_end() {
        return Ok(Some(run.clone()));
    }
    fenced(world, run, attempt, session)?;
    Ok(None)
}

/// Signs the bytes that are stored, under the name they are to have.
async fn sign(inner: &Arc<Inner>, name: PackageName, digest: Digest, run: RunId) -> Result<Package, Error> {
    let inner = inner.clone();
    let work = move || {
        let (file, size) = inner.blobs.read(&digest)?;
        let signature = inner.signing.sign(file, &Package::statement(&name, &digest)).map_err(Error::Sign)?;
        let created_at = (inner.clock)();
        Ok(Package { name, run, digest, size, signature, created_at, extra: serde_json::Map::default() })
    };
    tokio::task::spawn_blocking(work).await.map_err(Error::Cut)?
}

/// Refuses drop-ins that systemd would not read, that would be ours, or of a unit that is not there.
fn check_drop_ins(body: &Finish) -> Result<(), Error> {
    for (unit, files) in &body.drop_ins {
        if !body.units.contains_key(unit) {
            return Err(Error::invalid(format!("there are drop-ins of {unit}, which has no unit file")));
        }
        if let Some(wrong) = files.keys().find_map(|name| sealift_unitfile::verify_drop_in_name(name)) {
            return Err(Error::invalid(format!("{unit}.d: {wrong}")));
        }
    }
    Ok(())
}

/// Whether the store can hold these unit files and drop-ins: all together in a release, and those of each unit beside what
/// is read from them.
fn fits(body: &Finish) -> Result<bool, Error> {
    let drop_ins = body.drop_ins.values().flat_map(BTreeMap::values);
    let size: usize = body.units.values().chain(drop_ins).map(String::len).sum();
    let mut largest = json(&(&body.units, &body.drop_ins))?.len();
    for (name, text) in &body.units {
        let (requirements, _) = UnitFile::parse(text).requirements(name);
        largest = largest.max(json(&(text, body.drop_ins.get(name), requirements))?.len());
    }
    Ok(size <= UNITS_LIMIT && largest <= MAX_VALUE - BESIDE)
}

fn ended(
    inner: &Inner,
    world: &World,
    run: &Run,
    body: &Finish,
    mut package: Option<Package>,
) -> Result<(Run, Txn), Error> {
    let now = (inner.clock)();
    let mut run = run.clone();
    run.message = body.message.as_ref().map(|text| text.chars().take(MESSAGE_LIMIT).collect());
    let mut passed = body.passed;
    // An agent can do nothing about it, so the run has to end all the same.
    if passed && package.is_some() && !fits(body)? {
        (passed, package) = (false, None);
        run.message = Some(format!(
            "the unit files are more than a release can hold, {} KiB in all",
            UNITS_LIMIT >> 10
        ));
    }
    run.state = if passed { RunState::Passed } else { RunState::Failed };
    run.ended_at = Some(now);
    run.steps.clone_from(&body.steps);
    run.package = package.as_ref().map(|package| package.name.clone());
    run.stop_asking();
    if let Some(attempt) = run.attempts.last_mut() {
        attempt.end = Some(if passed { AttemptEnd::Passed } else { AttemptEnd::Failed });
    }
    let key = Key::Run(run.id.clone());
    let mut txn = unchanged(Txn::new(), world, &key);
    if let Some(attempt) = run.attempt() {
        txn = unchanged(txn, world, &Key::Presence(attempt.machine.clone()));
    }
    if let Some(package) = package {
        txn = txn.put(Key::Package(package.name.clone()), json(&package)?);
        let project = &run.id.project;
        let app = world.apps.get(project).map(|held| &held.value);
        let releases = world.releases.range((project.clone(), 0)..=(project.clone(), u64::MAX));
        let newest = releases.map(|(_, held)| &held.value).next_back();
        // A slow old run must not put an old commit over a newer one.
        let newer = newest.is_none_or(|newest| newest.package.run.number < run.id.number);
        let deploys = app.map_or(!body.units.is_empty(), |app| app.branch == run.branch);
        if world.unread(&Key::App(project.clone())).is_some() {
            // Nobody knows then which branch it follows and what it runs.
            run.message = Some(format!("not released: the record of app {project} is not understood"));
        } else if deploys && newer {
            let number = newest.map_or(0, |newest| newest.number) + 1;
            let release = Release {
                number,
                package,
                units: body.units.clone(),
                drop_ins: body.drop_ins.clone(),
                created_at: now,
                extra: serde_json::Map::default(),
            };
            let app = App {
                project: project.clone(),
                branch: run.branch.clone(),
                current: number,
                generation: app.map_or(0, |app| app.generation) + 1,
                changed_at: now,
                extra: app.map(|app| app.extra.clone()).unwrap_or_default(),
            };
            let (app_key, release_key) = (Key::App(project.clone()), Key::Release(project.clone(), number));
            txn = unchanged(unchanged(txn, world, &app_key), world, &release_key)
                .put(app_key, json(&app)?)
                .put(release_key, json(&release)?);
        } else if deploys {
            run.message = Some("not released: a newer run was released before this one ended".into());
        }
    }
    let txn = txn.put(key, json(&run)?);
    Ok((run, txn))
}
