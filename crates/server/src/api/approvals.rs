//! What runs ask people: asked by agents, listed and answered by whoever has the say.
//!
//! A question is part of its run's record, so that it is there after a crash, and so that whoever ends or loses the
//! attempt ends the question with it. An answer stays with the run: the next attempt is not asked again.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use sealift_access::Identity;
use sealift_client::api::{AskApproval, GiveAnswer, List, WaitingApproval};
use sealift_model::{Answer, Approval, ProjectName, Run, RunId};
use sealift_store::Txn;
use serde::Deserialize;

use super::runs::{TRIES, changed_too_often, fenced, find};
use super::{Error, json, unchanged};
use crate::cache::World;
use crate::keys::Key;
use crate::server::Inner;

/// How long an agent is kept waiting for an answer before it asks again: shorter than clients wait for a server.
const WAIT: Duration = Duration::from_secs(20);
/// Bytes that a run's questions and answers may have in its record.
const LIMIT: usize = 32 << 10;
/// Characters of a name.
const NAME_LIMIT: usize = 100;

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    project: Option<ProjectName>,
}

/// What waits, the longest waiting first.
pub(super) async fn list(
    State(inner): State<Arc<Inner>>,
    Query(query): Query<ListQuery>,
) -> Json<List<WaitingApproval>> {
    let world = inner.cache.world();
    let runs = world.runs.values().map(|held| &held.value);
    let wanted = runs.filter(|run| query.project.as_ref().is_none_or(|project| *project == run.id.project));
    let mut items: Vec<_> = wanted
        .flat_map(|run| {
            run.unanswered().map(|approval| WaitingApproval {
                run: run.id.clone(),
                project: run.id.project.clone(),
                branch: run.branch.clone(),
                node: approval.node.clone(),
                question: approval.question.clone(),
                since: approval.since,
            })
        })
        .collect();
    items.sort_by_key(|item| item.since);
    Json(List { items })
}

/// An agent asks, and waits here for a while. Asked again, as after a broken connection, it is the same question.
pub(super) async fn ask(
    State(inner): State<Arc<Inner>>,
    Path((id, attempt)): Path<(RunId, u32)>,
    Json(body): Json<AskApproval>,
) -> Result<Json<Approval>, Error> {
    let machine = {
        let world = inner.cache.world();
        let run = find(&world, &id)?;
        fenced(&world, run, attempt, &body.session)?;
        run.attempt().map(|attempt| attempt.machine.clone())
    };
    let machine = machine.ok_or_else(|| changed_too_often(&id))?;
    // Every change of the run concerns its machine, and so does the end of the session.
    let mut changes = inner.cache.changes_for(&machine);
    let enough = tokio::time::sleep(WAIT);
    tokio::pin!(enough);
    note(&inner, &id, attempt, &body).await?;
    loop {
        changes.mark_unchanged();
        let approval = {
            let world = inner.cache.world();
            let run = find(&world, &id)?;
            fenced(&world, run, attempt, &body.session)?;
            asked(run, &body.node).cloned().ok_or_else(|| changed_too_often(&id))?
        };
        if approval.answer.is_some() {
            return Ok(Json(approval));
        }
        tokio::select! {
            Ok(()) = changes.changed() => {}
            () = &mut enough => return Ok(Json(approval)),
            () = inner.shutdown.cancelled() => return Ok(Json(approval)),
        }
    }
}

fn asked<'a>(run: &'a Run, node: &str) -> Option<&'a Approval> {
    run.approvals.iter().find(|approval| approval.node == node)
}

/// Sees to it that the question is on disk, if it was not put before.
async fn note(inner: &Inner, id: &RunId, attempt: u32, ask: &AskApproval) -> Result<(), Error> {
    for _ in 0..TRIES {
        let txn = {
            let world = inner.cache.world();
            let run = find(&world, id)?;
            fenced(&world, run, attempt, &ask.session)?;
            if asked(run, &ask.node).is_some() {
                return Ok(());
            }
            let mut run = run.clone();
            run.approvals.push(Approval {
                node: ask.node.clone(),
                question: ask.question.clone(),
                since: (inner.clock)(),
                answer: None,
            });
            let txn = write(&world, &run)?;
            // A question of a session that is over does not count.
            match run.attempt() {
                Some(attempt) => unchanged(txn, &world, &Key::Presence(attempt.machine.clone())),
                None => txn,
            }
        };
        match inner.commit(txn).await {
            Ok(_) => return Ok(()),
            Err(error) if error.wants_another_look() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(changed_too_often(id))
}

/// Writes the run if nobody else did.
fn write(world: &World, run: &Run) -> Result<Txn, Error> {
    if json(&run.approvals)?.len() > LIMIT {
        let text =
            format!("the approvals of {} are longer than the {LIMIT} bytes that there is room for", run.id);
        return Err(Error::invalid(text));
    }
    let key = Key::Run(run.id.clone());
    Ok(unchanged(Txn::new(), world, &key).put(key, json(run)?))
}

/// Somebody answers. What was answered before stays: said again it is fine, the contrary is refused.
pub(super) async fn answer(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<RunId>,
    Extension(identity): Extension<Identity>,
    Json(mut body): Json<GiveAnswer>,
) -> Result<Json<Approval>, Error> {
    // Who is known by a name answers in no other.
    if let Some(user) = identity.user() {
        user.clone_into(&mut body.by);
    }
    if body.by.is_empty() || body.by.chars().count() > NAME_LIMIT {
        return Err(Error::invalid(format!("the field 'by' must have 1 to {NAME_LIMIT} characters")));
    }
    for _ in 0..TRIES {
        let (approval, txn) = {
            let world = inner.cache.world();
            let mut run = find(&world, &id)?.clone();
            let index = meant(&run, body.node.as_deref())?;
            let approval = &mut run.approvals[index];
            if let Some(answer) = &approval.answer {
                said_before(&id, &approval.node, answer, body.approved)?;
                return Ok(Json(approval.clone()));
            }
            approval.answer = Some(Answer {
                approved: body.approved,
                by: body.by.clone(),
                at: (inner.clock)(),
                reason: body.reason.clone(),
            });
            (approval.clone(), write(&world, &run)?)
        };
        match inner.commit(txn).await {
            Ok(_) => return Ok(Json(approval)),
            // Somebody else answered, or the attempt ended.
            Err(error) if error.wants_another_look() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(changed_too_often(&id))
}

/// Which of the run's approvals is answered: the one that is named, else the only one.
fn meant(run: &Run, node: Option<&str>) -> Result<usize, Error> {
    let at = |wanted: &dyn Fn(&Approval) -> bool| -> Vec<usize> {
        let approvals = run.approvals.iter().enumerate();
        approvals.filter(|(_, approval)| wanted(approval)).map(|(index, _)| index).collect()
    };
    let waiting = at(&|approval| approval.answer.is_none());
    let candidates = match node {
        Some(node) => at(&|approval| approval.node == node),
        None if waiting.is_empty() => at(&|_| true),
        None => waiting,
    };
    if let [index] = candidates[..] {
        return Ok(index);
    }
    let names: Vec<_> = run.unanswered().map(|approval| approval.node.as_str()).collect();
    let id = &run.id;
    let names = names.join(", ");
    Err(Error::Conflict(match node {
        None if !names.is_empty() => {
            format!("several nodes of {id} wait for an approval; name one of: {names}")
        }
        Some(node) if !names.is_empty() => {
            format!("{node} of {id} waits for no approval; what waits: {names}")
        }
        _ if run.state.is_end() => format!("{id} has ended, and waits for no approval"),
        Some(node) => format!("{node} of {id} waits for no approval, and neither does another node of it"),
        None => format!("{id} waits for no approval"),
    }))
}

fn said_before(id: &RunId, node: &str, answer: &Answer, approved: bool) -> Result<(), Error> {
    if answer.approved == approved {
        return Ok(());
    }
    let word = if answer.approved { "approved" } else { "rejected" };
    Err(Error::Conflict(format!("{node} of {id} was {word} by {} before, and that stays", answer.by)))
}
