//! What only a machine can tell: the journal of a unit, and what systemd says of it.
//!
//! A question lies in the store for some seconds, so that whichever server the machine is connected to asks it. The
//! answer comes to the server that is waited at, as a stream that goes on to whoever asked. Nothing of it is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use sealift_client::api::{About, Question};
use sealift_model::{MachineId, UnitName};
use sealift_store::Txn;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::{Error, json};
use crate::keys::Key;
use crate::server::Inner;

/// How long a machine has to begin its answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a machine may say of why there is no answer.
const FAILURE_LIMIT: usize = 4 << 10;
/// Lines of a journal that one may ask for.
const MOST_LINES: u32 = 100_000;
/// journalctl's formats that are lines of text.
const FORMATS: [&str; 10] = [
    "short",
    "short-iso",
    "short-iso-precise",
    "short-precise",
    "short-full",
    "short-unix",
    "verbose",
    "json",
    "cat",
    "with-unit",
];

/// Who waits for which answer.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<BTreeMap<String, Asked>>);

#[derive(Debug)]
struct Asked {
    machine: MachineId,
    answer: oneshot::Sender<Result<mpsc::Receiver<Bytes>, String>>,
}

impl Questions {
    fn wait(&self, id: String, asked: Asked) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, asked);
    }

    fn take(&self, id: &str, machine: &MachineId) -> Option<Asked> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(id).is_some_and(|asked| asked.machine == *machine).then(|| all.remove(id)).flatten()
    }

    fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct AskJournal {
    #[serde(default = "ten")]
    lines: u32,
    #[serde(default)]
    follow: bool,
    #[serde(default = "short")]
    format: String,
    machine: Option<MachineId>,
}

fn ten() -> u32 {
    10
}

fn short() -> String {
    "short".into()
}

pub(super) async fn journal(
    State(inner): State<Arc<Inner>>,
    Path(unit): Path<UnitName>,
    Query(AskJournal { lines, follow, format, machine }): Query<AskJournal>,
) -> Result<Response, Error> {
    if !FORMATS.contains(&format.as_str()) {
        return Err(Error::invalid(format!("{format:?} is no format; there are {}", FORMATS.join(", "))));
    }
    if lines > MOST_LINES {
        return Err(Error::invalid(format!("{lines} lines are more than {MOST_LINES}")));
    }
    ask(&inner, unit, machine, About::Journal { lines, follow, format }).await
}

#[derive(Debug, Deserialize)]
pub(super) struct AskStatus {
    machine: Option<MachineId>,
}

pub(super) async fn systemd(
    State(inner): State<Arc<Inner>>,
    Path(unit): Path<UnitName>,
    Query(AskStatus { machine }): Query<AskStatus>,
) -> Result<Response, Error> {
    ask(&inner, unit, machine, About::Status).await
}

async fn ask(
    inner: &Arc<Inner>,
    unit: UnitName,
    machine: Option<MachineId>,
    about: About,
) -> Result<Response, Error> {
    let machine = which(inner, &unit, machine)?;
    let lease = inner.store.grant_lease(PATIENCE).await?;
    // Random, so that a machine cannot answer what it was not asked.
    let id = sealift_access::random_hex::<16>().map_err(|error| Error::invalid(error.to_string()))?;
    let (answer, answered) = oneshot::channel();
    inner.questions.wait(id.clone(), Asked { machine: machine.clone(), answer });
    let question = Question { id: id.clone(), unit, about, answer_to: inner.advertise.clone() };
    let put = Txn::new().put_leased(Key::Question(machine.clone(), id.clone()), json(&question)?, lease);
    let asked = async {
        inner.store.commit(put).await?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(Ok(chunks))) => Ok(chunks),
            Ok(Ok(Err(why))) => Err(Error::Conflict(format!("machine {}: {why}", machine.short()))),
            Ok(Err(_)) | Err(_) => Err(Error::Silent(machine.short().to_owned())),
        }
    };
    let outcome = asked.await;
    inner.questions.forget(&id);
    if let Err(error) = inner.store.revoke_lease(lease).await {
        tracing::debug!(%error, "a question stays until its lease is over");
    }
    let body = Body::from_stream(super::received(outcome?).map(Ok::<_, std::io::Error>));
    Ok(([("content-type", "text/plain; charset=utf-8")], body).into_response())
}

/// The machine to ask: the one that is named, else the one that has the unit.
fn which(inner: &Inner, unit: &UnitName, named: Option<MachineId>) -> Result<MachineId, Error> {
    let world = inner.cache.world();
    let has: Vec<&MachineId> = world.statuses_of(unit).map(|(machine, _)| machine).collect();
    let machine = match (named, has.as_slice()) {
        (Some(named), _) => named,
        (None, [one]) => (*one).clone(),
        (None, []) => return Err(Error::NotFound(format!("no machine has {unit}"))),
        (None, [_, ..]) => {
            let names: Vec<_> = has.iter().map(|machine| machine.short()).collect();
            return Err(Error::Invalid {
                message: format!("{unit} is on several machines: {}", names.join(", ")),
                help: Some("name one of them".into()),
            });
        }
    };
    if !has.contains(&&machine) {
        return Err(Error::NotFound(format!("machine {} has no unit {unit}", machine.short())));
    }
    if !world.presence.contains_key(&machine) {
        return Err(Error::Conflict(format!("machine {} is away", machine.short())));
    }
    Ok(machine)
}

#[derive(Debug, Deserialize)]
pub(super) struct AnswerQuery {
    #[serde(default)]
    failed: bool,
}

pub(super) async fn answer(
    State(inner): State<Arc<Inner>>,
    Path((machine, id)): Path<(MachineId, String)>,
    Query(AnswerQuery { failed }): Query<AnswerQuery>,
    body: Body,
) -> Result<StatusCode, Error> {
    let asked = inner.questions.take(&id, &machine);
    let asked = asked.ok_or_else(|| Error::Fenced("nobody waits for this answer any more".into()))?;
    if failed {
        let text = axum::body::to_bytes(body, FAILURE_LIMIT).await.unwrap_or_default();
        asked.answer.send(Err(String::from_utf8_lossy(&text).into_owned())).ok();
        return Ok(StatusCode::NO_CONTENT);
    }
    let (sender, receiver) = mpsc::channel(16);
    if asked.answer.send(Ok(receiver)).is_err() {
        return Err(Error::Fenced("nobody waits for this answer any more".into()));
    }
    let mut chunks = body.into_data_stream();
    loop {
        tokio::select! {
            chunk = chunks.next() => match chunk {
                Some(Ok(chunk)) => if sender.send(chunk).await.is_err() { break },
                _ => return Ok(StatusCode::NO_CONTENT),
            },
            () = sender.closed() => break,
            () = inner.shutdown.cancelled() => break,
        }
    }
    Err(Error::Fenced("nobody listens any more".into()))
}
