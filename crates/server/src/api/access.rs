//! Letting machines and users in and out: joining, certificates, tokens, the authority, the audit log.
//!
//! A token is in one answer, the one to whoever made it. Bodies that hold one are never quoted.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::StreamExt as _;
use sealift_access::{
    Authority, CERTIFICATE_LIFE, Identity, JoinRecord, JoinToken, MachineCredential, Pin, Preparing,
    UserRecord, UserToken,
};
use sealift_client::api::{
    AuditEntry, AuthorityInfo, AuthorityStep, Join, JoinTokenInfo, List, MachineCertificate, Made,
    NewJoinToken, NewToken, Renew, TokenInfo,
};
use sealift_model::{MachineId, Projects, Role, Timestamp};
use sealift_store::{MAX_OPS, Txn};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::gate::Object;
use super::runs::TRIES;
use super::{Error, json, lines, unchanged};
use crate::cache::World;
use crate::keys::Key;
use crate::server::Inner;

/// User tokens, and join tokens, that there may be.
const TOKENS: usize = 1000;
/// Characters of a user's name.
const NAME_LIMIT: usize = 100;
/// Projects of one token.
const PROJECTS: usize = 200;
/// How long a join token may be good.
const JOIN_LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Machines that one join token may let in.
const USES: u32 = 10_000;
/// Characters of a class.
const CLASS_LIMIT: usize = 100;
/// Bytes of the audit log that are read at once.
const CHUNK: usize = 256 << 10;

/// A new machine. A body that is not understood is refused without quoting it: it holds a token.
pub(super) async fn join(State(inner): State<Arc<Inner>>, body: Bytes) -> Result<Response, Error> {
    let asked: Join = serde_json::from_slice(&body).map_err(|_| {
        Error::invalid("the body is not a request to join; it has 'token', 'machine' and 'request'")
    })?;
    let token: JoinToken =
        asked.token.parse().map_err(|error: sealift_access::TokenError| Error::invalid(error.to_string()))?;
    for _ in 0..TRIES {
        let now = (inner.clock)();
        let (txn, answer) = {
            let world = inner.cache.world();
            let authority = authority(&world)?;
            let refused = |refusal: sealift_access::Refusal| Error::Forbidden(refusal.to_string());
            let record = world.join_tokens.get(&token.id).map(|held| &held.value);
            let record = record.ok_or_else(|| refused(sealift_access::Refusal::Unknown))?;
            let left = record.admit(&token.secret, &asked.machine, now).map_err(refused)?;
            // Else whoever has a token for any machine could take the place of one that is there.
            if world.credentials.contains_key(&asked.machine) && record.machine.is_none() {
                return Err(Error::Conflict(format!(
                    "machine {} has joined already; remove it first, or make a join token for it alone with --machine",
                    asked.machine.short()
                )));
            }
            let credential =
                MachineCredential::new(asked.machine.clone(), now, token.id.clone(), record.class.clone());
            let (credential, answer) = certify(&inner, authority, credential, &asked.request, now)?;
            let (of_token, of_machine) =
                (Key::Join(token.id.clone()), Key::Credential(asked.machine.clone()));
            let txn = unchanged(unchanged(Txn::new(), &world, &of_token), &world, &of_machine);
            let txn = match left {
                Some(left) => txn.put(of_token, json(&left)?),
                None => txn.delete(of_token),
            };
            (txn.put(of_machine, json(&credential)?), answer)
        };
        match inner.commit(txn).await {
            Ok(_) => {
                tracing::info!(machine = asked.machine.short(), token = %token.id, "a machine has joined");
                let made = Object(format!("machines/{} with join-tokens/{}", asked.machine, token.id));
                return Ok((Extension(made), Json(answer)).into_response());
            }
            // Somebody else used the token.
            Err(error) if error.is_conflict() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(busy())
}

/// A new certificate for a machine that has one that counts.
pub(super) async fn renew(
    State(inner): State<Arc<Inner>>,
    Path(machine): Path<MachineId>,
    Json(asked): Json<Renew>,
) -> Result<Json<MachineCertificate>, Error> {
    for _ in 0..TRIES {
        let now = (inner.clock)();
        let (txn, answer) = {
            let world = inner.cache.world();
            let known = world.credentials.get(&machine);
            let known = known.ok_or_else(|| Error::NotFound(format!("machine {machine} has not joined")))?;
            let (credential, answer) =
                certify(&inner, authority(&world)?, known.value.clone(), &asked.request, now)?;
            let key = Key::Credential(machine.clone());
            (unchanged(Txn::new(), &world, &key).put(key, json(&credential)?), answer)
        };
        match inner.commit(txn).await {
            Ok(_) => return Ok(Json(answer)),
            Err(error) if error.is_conflict() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(busy())
}

fn authority(world: &World) -> Result<&Authority, Error> {
    world.authority.as_ref().map(|held| &held.value).ok_or_else(|| Error::Invalid {
        message: "there is no authority yet".into(),
        help: Some("start the server with an address for TLS: sealift server --listen-tls IP:PORT".into()),
    })
}

fn certify(
    inner: &Inner,
    authority: &Authority,
    mut credential: MachineCredential,
    request: &str,
    now: Timestamp,
) -> Result<(MachineCredential, MachineCertificate), Error> {
    let issued =
        authority.sign_machine(&credential.machine, request, now, CERTIFICATE_LIFE).map_err(|error| {
            match error {
                sealift_access::AuthorityError::Request => Error::invalid(error.to_string()),
                other => Error::Authority(other),
            }
        })?;
    let pins = authority.pins().into_iter().map(String::from).collect();
    credential.issued(issued.serial, issued.expires_at, pins, now);
    let answer = MachineCertificate {
        certificate: issued.chain,
        roots: authority.bundle(),
        expires_at: issued.expires_at,
        public_key: inner.signing.public().to_base64(),
    };
    Ok((credential, answer))
}

/// Takes a machine out of the fleet: its certificates count no more, its session ends, and what was known of it goes.
pub(super) async fn remove_machine(
    State(inner): State<Arc<Inner>>,
    Path(machine): Path<MachineId>,
) -> Result<StatusCode, Error> {
    let mut removed = false;
    for _ in 0..TRIES {
        let (txn, rest) = {
            let world = inner.cache.world();
            // First what lets it speak.
            let mut keys = vec![
                Key::Credential(machine.clone()),
                Key::Presence(machine.clone()),
                Key::Machine(machine.clone()),
                Key::Settings(machine.clone()),
            ];
            let statuses = world.statuses.get(&machine).into_iter().flat_map(|units| units.keys());
            keys.extend(statuses.map(|unit| Key::Status(machine.clone(), unit.clone())));
            keys.retain(|key| world.modified(key).is_some());
            let rest = keys.len() > MAX_OPS;
            keys.truncate(MAX_OPS);
            if keys.is_empty() {
                return if removed {
                    Ok(StatusCode::NO_CONTENT)
                } else {
                    Err(Error::NotFound(format!("no machine {machine}")))
                };
            }
            let txn = keys.into_iter().fold(Txn::new(), |txn, key| unchanged(txn, &world, &key).delete(key));
            (txn, rest)
        };
        match inner.commit(txn).await {
            Ok(_) if !rest => {
                tracing::info!(machine = machine.short(), "a machine was removed");
                return Ok(StatusCode::NO_CONTENT);
            }
            Ok(_) => removed = true,
            Err(error) if error.is_conflict() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(busy())
}

fn busy() -> Error {
    Error::Conflict("this is being changed too often; try again".into())
}

pub(super) async fn tokens(State(inner): State<Arc<Inner>>) -> Json<List<TokenInfo>> {
    let world = inner.cache.world();
    Json(List { items: world.users.values().map(|held| token_info(&held.value)).collect() })
}

fn token_info(record: &UserRecord) -> TokenInfo {
    TokenInfo {
        id: record.id.to_string(),
        name: record.name.clone(),
        role: record.role,
        projects: record.projects.clone(),
        created_at: record.created_at,
        created_by: record.created_by.clone(),
        expires_at: record.expires_at,
    }
}

pub(super) async fn make_token(
    State(inner): State<Arc<Inner>>,
    Extension(identity): Extension<Identity>,
    Json(new): Json<NewToken>,
) -> Result<Response, Error> {
    let plain = |c: char| c.is_alphanumeric() || "-_.@+".contains(c);
    if new.name.is_empty() || new.name.chars().count() > NAME_LIMIT || !new.name.chars().all(plain) {
        return Err(Error::invalid("a name has 1 to 100 letters, digits and '-_.@+'"));
    }
    match (&new.role, &new.projects) {
        (Role::Deployer, Projects::None) => {
            return Err(Error::Invalid {
                message: "a deployer needs projects".into(),
                help: Some("name them with --project, or give all with --all-projects".into()),
            });
        }
        (Role::Deployer, Projects::Some(projects)) if projects.is_empty() || projects.len() > PROJECTS => {
            return Err(Error::invalid(format!("a token has 1 to {PROJECTS} projects")));
        }
        (Role::Deployer, _) | (_, Projects::None) => {}
        (role, _) => {
            return Err(Error::invalid(format!(
                "projects are for deployers; the role {role} does not look at them"
            )));
        }
    }
    let now = (inner.clock)();
    let token = UserToken::generate().map_err(Error::Token)?;
    let record = UserRecord {
        id: token.id.clone(),
        name: new.name,
        role: new.role,
        projects: new.projects,
        hash: token.secret.hash(),
        created_at: now,
        created_by: identity.to_string(),
        expires_at: new.seconds.map(|seconds| later(now, seconds)),
    };
    let gone: Vec<Key> = {
        let world = inner.cache.world();
        let over = world.users.values().filter(|held| held.value.expires_at.is_some_and(|end| end <= now));
        let gone: Vec<_> = over.take(MAX_OPS / 2).map(|held| Key::User(held.value.id.clone())).collect();
        if world.users.len() >= TOKENS + gone.len() {
            return Err(Error::Conflict(format!("there are {TOKENS} tokens already; revoke some first")));
        }
        gone
    };
    let txn = gone.into_iter().fold(Txn::new(), Txn::delete);
    inner.commit(txn.put(Key::User(record.id.clone()), json(&record)?)).await?;
    let made = Object(format!("tokens/{} of {} as {}", record.id, record.name, record.role));
    Ok((Extension(made), Json(Made { token: token.reveal(), info: token_info(&record) })).into_response())
}

fn later(now: Timestamp, seconds: u64) -> Timestamp {
    Timestamp(now.0.saturating_add(seconds.saturating_mul(1000)))
}

pub(super) async fn revoke_token(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Error> {
    remove(&inner, id.parse().map(Key::User), "token", &id).await
}

pub(super) async fn revoke_join_token(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Error> {
    remove(&inner, id.parse().map(Key::Join), "join token", &id).await
}

async fn remove(
    inner: &Inner,
    key: Result<Key, sealift_access::TokenError>,
    what: &str,
    id: &str,
) -> Result<StatusCode, Error> {
    // What is no id may be a token in full, pasted by mistake: it is not quoted.
    let key = key.map_err(|error| Error::invalid(error.to_string()))?;
    if inner.cache.world().modified(&key).is_none() {
        return Err(Error::NotFound(format!("no {what} {id}")));
    }
    inner.commit(Txn::new().delete(key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn join_tokens(State(inner): State<Arc<Inner>>) -> Json<List<JoinTokenInfo>> {
    let world = inner.cache.world();
    Json(List { items: world.join_tokens.values().map(|held| join_token_info(&held.value)).collect() })
}

fn join_token_info(record: &JoinRecord) -> JoinTokenInfo {
    JoinTokenInfo {
        id: record.id.to_string(),
        created_at: record.created_at,
        created_by: record.created_by.clone(),
        expires_at: record.expires_at,
        uses_left: record.uses_left,
        machine: record.machine.clone(),
        class: record.class.clone(),
    }
}

pub(super) async fn make_join_token(
    State(inner): State<Arc<Inner>>,
    Extension(identity): Extension<Identity>,
    Json(new): Json<NewJoinToken>,
) -> Result<Response, Error> {
    if new.seconds == 0 || new.seconds > JOIN_LONGEST.as_secs() {
        return Err(Error::invalid("a join token is good for a second to seven days"));
    }
    if new.uses == 0 || new.uses > USES {
        return Err(Error::invalid(format!("a join token lets in 1 to {USES} machines")));
    }
    if new.class.as_ref().is_some_and(|class| class.is_empty() || class.len() > CLASS_LIMIT) {
        return Err(Error::invalid(format!("a class has 1 to {CLASS_LIMIT} characters")));
    }
    let now = (inner.clock)();
    let (token, gone) = {
        let world = inner.cache.world();
        let over = world.join_tokens.values().filter(|held| held.value.expires_at <= now);
        let gone: Vec<_> = over.take(MAX_OPS / 2).map(|held| Key::Join(held.value.id.clone())).collect();
        if world.join_tokens.len() >= TOKENS + gone.len() {
            return Err(Error::Conflict(format!(
                "there are {TOKENS} join tokens already; revoke some first"
            )));
        }
        (JoinToken::generate(authority(&world)?.pin().clone()).map_err(Error::Token)?, gone)
    };
    let record = JoinRecord {
        id: token.id.clone(),
        hash: token.secret.hash(),
        created_at: now,
        created_by: identity.to_string(),
        expires_at: later(now, new.seconds),
        uses_left: new.uses,
        machine: new.machine,
        class: new.class,
    };
    let txn = gone.into_iter().fold(Txn::new(), Txn::delete);
    inner.commit(txn.put(Key::Join(record.id.clone()), json(&record)?)).await?;
    let made = Object(format!("join-tokens/{}", record.id));
    Ok((Extension(made), Json(Made { token: token.reveal(), info: join_token_info(&record) }))
        .into_response())
}

pub(super) async fn show_authority(State(inner): State<Arc<Inner>>) -> Result<Json<AuthorityInfo>, Error> {
    let world = inner.cache.world();
    Ok(Json(authority_info(&world, authority(&world)?)))
}

fn authority_info(world: &World, authority: &Authority) -> AuthorityInfo {
    let change = match authority.preparing() {
        Preparing::No => "no",
        Preparing::Prepared => "prepared",
        Preparing::Activated => "activated",
    };
    AuthorityInfo {
        pin: authority.pin().to_string(),
        pins: authority.pins().iter().map(Pin::to_string).collect(),
        roots: authority.bundle(),
        expires_at: authority.expires_at().unwrap_or_default(),
        change: change.into(),
        unaware: unaware(world, authority),
    }
}

/// The machines that were not told of the newest root yet.
fn unaware(world: &World, authority: &Authority) -> Vec<MachineId> {
    let newest = authority.pins().pop().map(String::from).unwrap_or_default();
    let machines = world.credentials.values().map(|held| &held.value);
    machines.filter(|known| !known.roots.contains(&newest)).map(|known| known.machine.clone()).collect()
}

/// One step of a change of roots: `prepare`, `activate`, `retire`.
pub(super) async fn change_authority(
    State(inner): State<Arc<Inner>>,
    Path(step): Path<String>,
    Json(asked): Json<AuthorityStep>,
) -> Result<Json<AuthorityInfo>, Error> {
    let txn = {
        let world = inner.cache.world();
        let now = authority(&world)?;
        let next = match step.as_str() {
            "prepare" => now.clone().prepare((inner.clock)()),
            "activate" | "retire" => {
                let unaware = unaware(&world, now);
                if !unaware.is_empty() && !asked.force {
                    return Err(Error::Invalid {
                        message: format!("{} machines do not know the new root yet", unaware.len()),
                        help: Some(
                            "they learn of it when they renew their certificates; --force does it all the same, and these \
                             have to join anew"
                                .into(),
                        ),
                    });
                }
                if step == "activate" { now.clone().activate() } else { now.clone().retire() }
            }
            _ => return Err(Error::NotFound("the steps are prepare, activate and retire".into())),
        };
        let next = next.map_err(|error| Error::Conflict(error.to_string()))?;
        unchanged(Txn::new(), &world, &Key::Authority).put(Key::Authority, json(&next)?)
    };
    inner.commit(txn).await?;
    let world = inner.cache.world();
    Ok(Json(authority_info(&world, authority(&world)?)))
}

#[derive(Debug, Deserialize)]
pub(super) struct AuditQuery {
    /// Milliseconds since 1970.
    #[serde(default)]
    since: u64,
    user: Option<String>,
    #[serde(default)]
    follow: bool,
}

/// This server's audit log, oldest first.
pub(super) async fn audit(State(inner): State<Arc<Inner>>, Query(query): Query<AuditQuery>) -> Response {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let stop = inner.shutdown.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            outcome = tell_audit(inner, query, sender) => if let Err(error) = outcome {
                tracing::error!(%error, "cannot read the audit log");
            }
        }
    });
    lines(super::received(receiver).flat_map(futures_util::stream::iter))
}

async fn tell_audit(
    inner: Arc<Inner>,
    query: AuditQuery,
    sender: mpsc::Sender<Vec<AuditEntry>>,
) -> Result<(), Error> {
    let since = Timestamp(query.since);
    // By name, or as the log says it.
    let of = |who: &str| {
        query.user.as_ref().is_none_or(|user| who == user || who.strip_prefix("user:") == Some(user))
    };
    let mut appended = inner.audit.changes();
    let (mut file, mut offset): (Option<String>, u64) = (None, 0);
    loop {
        appended.mark_unchanged();
        let (log, current) = (inner.clone(), file.clone());
        let read = move || -> Result<_, crate::audit::Error> {
            let files = log.audit.files(since)?;
            let Some(name) = current.or_else(|| files.first().cloned()) else { return Ok(None) };
            let (entries, next) = log.audit.read(&name, offset, CHUNK)?;
            let after = files.into_iter().find(|other| *other > name);
            Ok(Some((name, entries, next, after)))
        };
        let found = tokio::task::spawn_blocking(read).await.map_err(Error::Cut)?.map_err(Error::Audit)?;
        if let Some((name, entries, next, after)) = found {
            let moved = next != offset;
            (file, offset) = (Some(name), next);
            let wanted: Vec<_> =
                entries.into_iter().filter(|entry| entry.at >= since && of(&entry.who)).collect();
            if !wanted.is_empty() && sender.send(wanted).await.is_err() {
                return Ok(());
            }
            if moved {
                continue;
            }
            if after.is_some() {
                (file, offset) = (after, 0);
                continue;
            }
        }
        if !query.follow {
            return Ok(());
        }
        tokio::select! {
            gone = appended.changed() => if gone.is_err() { return Ok(()) },
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Prometheus' text.
pub(super) async fn metrics(State(inner): State<Arc<Inner>>) -> Response {
    let text = inner.metrics.text(&inner.cache.world());
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The class that a machine is of, if its join token said so.
pub(super) fn class_of(world: &World, machine: &MachineId) -> Option<String> {
    world.credentials.get(machine).and_then(|held| held.value.class.clone())
}
