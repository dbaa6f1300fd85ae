//! Who is let in, and what for: the table of routes, and the check that stands before every one of them.
//!
//! Guarantees: a route that is not in the table is answered to nobody; a test holds the table against the router. A
//! machine is let in for what is its own: itself, attempts that it holds, bytes that these need.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, RawPathParams, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sealift_access::{Identity, PeerCertificate, Right, UserToken};
use sealift_client::api::AuditEntry;
use sealift_model::{Digest, MachineId, ProjectName, RunId, RunState};

use super::Error;
use super::error::Code;
use crate::cache::World;
use crate::server::Inner;

/// What a route asks of whoever asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing here; the handler judges the token in the body.
    JoinToken,
    Read,
    /// To deploy the project in the path, or the one whose run is in the path.
    Deploy,
    /// To deploy some project; the handler asks for the one in the body.
    DeploySome,
    Operate,
    Administer,
    /// To be the machine in the path.
    Itself,
    /// To be the machine that holds the attempt in the path.
    Attempt,
    /// To read, or to be a machine that needs these bytes.
    Blob,
    /// To deploy some project, or to be a machine that holds an attempt.
    Store,
    /// To read, or to be a machine that holds an attempt: steps of a pipeline may be packages.
    Packages,
}

/// Which answers go to the audit log. Refusals always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audit {
    /// All.
    All,
    /// Only refusals.
    Refusals,
}

/// A route and what it asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) need: Need,
    pub(crate) audit: Audit,
}

const fn reads(route: &'static str, need: Need) -> Rule {
    Rule { method: "GET", route, need, audit: Audit::Refusals }
}

const fn changes(method: &'static str, route: &'static str, need: Need) -> Rule {
    Rule { method, route, need, audit: Audit::All }
}

/// What machines say all the time: it is in the state and in the runs' logs.
const fn says(route: &'static str, need: Need) -> Rule {
    Rule { method: "POST", route, need, audit: Audit::Refusals }
}

/// Every route but `/healthz` and, where the server is told so, `/metrics`.
pub(crate) const RULES: &[Rule] = &[
    reads("/v1/status", Need::Read),
    reads("/v1/units", Need::Read),
    changes("POST", "/v1/units", Need::Operate),
    changes("POST", "/v1/units/destroy", Need::Operate),
    reads("/v1/rollouts", Need::Read),
    changes("POST", "/v1/rollouts/{unit}", Need::Operate),
    // A question whose list is too long for a path.
    says("/v1/units/watch", Need::Read),
    reads("/v1/units/{unit}", Need::Read),
    reads("/v1/units/{unit}/explain", Need::Read),
    reads("/v1/units/{unit}/journal", Need::Read),
    reads("/v1/units/{unit}/systemd", Need::Read),
    // A question as well.
    says("/v1/plan", Need::Read),
    changes("POST", "/v1/rebalance", Need::Operate),
    reads("/v1/packages", Need::Packages),
    reads("/v1/machines", Need::Read),
    changes("DELETE", "/v1/machines/{machine}", Need::Operate),
    changes("POST", "/v1/machines/{machine}/settings", Need::Operate),
    says("/v1/machines/{machine}/session", Need::Itself),
    says("/v1/machines/{machine}/keep-alive", Need::Itself),
    reads("/v1/machines/{machine}/assignments", Need::Itself),
    says("/v1/machines/{machine}/statuses", Need::Itself),
    says("/v1/machines/{machine}/answers/{question}", Need::Itself),
    changes("POST", "/v1/machines/{machine}/certificate", Need::Itself),
    reads("/v1/runs", Need::Read),
    changes("POST", "/v1/runs", Need::DeploySome),
    reads("/v1/runs/{run}", Need::Read),
    changes("POST", "/v1/runs/{run}/abort", Need::Deploy),
    reads("/v1/runs/{run}/log", Need::Read),
    says("/v1/runs/{run}/attempts/{attempt}/events", Need::Attempt),
    changes("POST", "/v1/runs/{run}/attempts/{attempt}/finish", Need::Attempt),
    changes("POST", "/v1/runs/{run}/attempts/{attempt}/secrets", Need::Attempt),
    says("/v1/runs/{run}/attempts/{attempt}/approvals", Need::Attempt),
    changes("POST", "/v1/runs/{run}/answer", Need::Deploy),
    reads("/v1/approvals", Need::Read),
    reads("/v1/projects/{project}/secrets", Need::Deploy),
    changes("PUT", "/v1/projects/{project}/secrets/{name}", Need::Deploy),
    changes("DELETE", "/v1/projects/{project}/secrets/{name}", Need::Deploy),
    reads("/v1/apps", Need::Read),
    reads("/v1/apps/{project}", Need::Read),
    reads("/v1/apps/{project}/watch", Need::Read),
    changes("POST", "/v1/apps/{project}/rollback", Need::Deploy),
    reads("/v1/blobs/{digest}", Need::Blob),
    says("/v1/blobs", Need::Store),
    changes("POST", "/v1/join", Need::JoinToken),
    reads("/v1/tokens", Need::Administer),
    changes("POST", "/v1/tokens", Need::Administer),
    changes("DELETE", "/v1/tokens/{token}", Need::Administer),
    reads("/v1/join-tokens", Need::Operate),
    changes("POST", "/v1/join-tokens", Need::Operate),
    changes("DELETE", "/v1/join-tokens/{token}", Need::Operate),
    reads("/v1/authority", Need::Read),
    changes("POST", "/v1/authority/{step}", Need::Administer),
    reads("/v1/audit", Need::Administer),
    // fleet's API.
    reads("/fleet/v1/units", Need::Read),
    reads("/fleet/v1/units/{unit}", Need::Read),
    changes("PUT", "/fleet/v1/units/{unit}", Need::Operate),
    changes("DELETE", "/fleet/v1/units/{unit}", Need::Operate),
    reads("/fleet/v1/state", Need::Read),
    reads("/fleet/v1/state/{unit}", Need::Read),
    reads("/fleet/v1/machines", Need::Read),
    changes("PATCH", "/fleet/v1/machines", Need::Operate),
    reads("/fleet/v1/discovery", Need::Read),
    reads("/v1-alpha/units", Need::Read),
    reads("/v1-alpha/units/{unit}", Need::Read),
    changes("PUT", "/v1-alpha/units/{unit}", Need::Operate),
    changes("DELETE", "/v1-alpha/units/{unit}", Need::Operate),
    reads("/v1-alpha/state", Need::Read),
    reads("/v1-alpha/state/{unit}", Need::Read),
    reads("/v1-alpha/machines", Need::Read),
    changes("PATCH", "/v1-alpha/machines", Need::Operate),
    reads("/v1-alpha/discovery", Need::Read),
    reads("/metrics", Need::Read),
];

/// Which way a request came.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// The Unix socket, which only its owner can open.
    Unix,
    /// TCP without TLS. The token is the one in the state folder; users' tokens are taken too.
    Plain(Arc<str>),
    /// TLS; what the peer showed is in the request's [`Peer`].
    Tls,
}

/// The other end of a TLS connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: Option<PeerCertificate>,
}

/// What a handler has made, for the audit log. A response's extension.
#[derive(Debug, Clone)]
pub(crate) struct Object(pub(crate) String);

/// The rule for a request. HEAD is GET without the body.
pub(crate) fn rule(method: &Method, route: &str) -> Option<&'static Rule> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    RULES.iter().find(|rule| rule.method == method && rule.route == route)
}

/// Stands before every route of [`RULES`].
pub(crate) async fn authorize(
    State((inner, door)): State<(Arc<Inner>, Door)>,
    matched: MatchedPath,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let rule = rule(request.method(), matched.as_str());
    let peer = request.extensions().get::<Peer>().cloned();
    let from = match (&peer, request.extensions().get::<ConnectInfo<SocketAddr>>()) {
        (Some(peer), _) => peer.address.to_string(),
        (None, Some(ConnectInfo(address))) => address.to_string(),
        (None, None) => "unix".to_owned(),
    };
    let identity = identify(&inner, &door, peer.as_ref(), request.headers()).await;
    let open = rule
        .is_some_and(|rule| rule.need == Need::JoinToken || rule.route == "/metrics" && inner.metrics.open);
    let verdict = match (rule, &identity) {
        _ if open => Ok(()),
        (_, None) => Err(Error::Unauthorized),
        (None, _) => Err(Error::Method),
        (Some(rule), Some(identity)) => allow(&inner, rule.need, identity, &params).await,
    };
    let entry = AuditEntry {
        at: (inner.clock)(),
        who: identity.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string),
        from,
        method: request.method().to_string(),
        route: matched.as_str().to_owned(),
        object: request.uri().path().chars().take(500).collect(),
        status: 0,
        code: None,
    };
    let response = match verdict {
        Ok(()) => {
            if let Some(identity) = identity {
                request.extensions_mut().insert(identity);
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    inner.metrics.answered(response.status());
    if let Some((entry, refused)) = noted(rule, entry, &response) {
        note(&inner, entry, refused).await;
    }
    response
}

/// The line for the audit log, if one belongs there, and whether it is of a refusal.
fn noted(rule: Option<&Rule>, mut entry: AuditEntry, response: &Response) -> Option<(AuditEntry, bool)> {
    let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if !refused && rule.is_none_or(|rule| rule.audit == Audit::Refusals) {
        return None;
    }
    entry.status = response.status().as_u16();
    entry.code = response.extensions().get::<Code>().map(|code| code.0.to_owned());
    if let Some(Object(object)) = response.extensions().get() {
        entry.object.clone_from(object);
    }
    Some((entry, refused))
}

async fn note(inner: &Arc<Inner>, entry: AuditEntry, refused: bool) {
    let (inner, nobody) = (inner.clone(), refused && entry.who == "nobody");
    let append = move || inner.audit.append(&entry, nobody, !refused);
    match tokio::task::spawn_blocking(append).await {
        Ok(Ok(())) => {}
        // What was done is done, and saying that it was not would be wrong.
        Ok(Err(error)) => tracing::error!(%error, "the audit log lacks a line"),
        Err(error) => tracing::error!(%error, "the audit log lacks a line"),
    }
}

/// Who asks; none: nobody that is known here.
async fn identify(inner: &Inner, door: &Door, peer: Option<&Peer>, headers: &HeaderMap) -> Option<Identity> {
    if matches!(door, Door::Unix) {
        return Some(Identity::Local);
    }
    // A token that is shown is what counts, also when it does not.
    if let Some(value) = headers.get(AUTHORIZATION) {
        let given = value.to_str().ok()?.strip_prefix("Bearer ")?;
        if let Door::Plain(token) = door
            // Hashes are compared, so that the time taken says nothing about the token.
            && blake3::hash(given.as_bytes()) == blake3::hash(token.as_bytes())
        {
            return Some(Identity::Local);
        }
        let shown: UserToken = given.parse().ok()?;
        let now = (inner.clock)();
        let world = inner.cache.world();
        return world.users.get(&shown.id)?.value.recognise(&shown.secret, now);
    }
    let certificate = peer?.certificate.as_ref()?;
    let machine = certificate.machine.clone()?;
    let counts = || {
        let world = inner.cache.world();
        let known = world.credentials.get(&machine);
        known.is_some_and(|known| known.value.counts(&certificate.serial, (inner.clock)()))
    };
    if !counts() {
        // Another server may have let it in this moment.
        inner.look_again().await.ok()?;
        if !counts() {
            return None;
        }
    }
    Some(Identity::Machine(machine))
}

async fn allow(inner: &Inner, need: Need, identity: &Identity, params: &RawPathParams) -> Result<(), Error> {
    let param = |name| params.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
    if *identity == Identity::Local {
        return Ok(());
    }
    let right = match need {
        Need::Read | Need::Blob | Need::Packages => Right::Read,
        Need::DeploySome | Need::Store => Right::Deploy(None),
        Need::Operate => Right::Operate,
        Need::Administer => Right::Administer,
        Need::Deploy => {
            let project: Option<ProjectName> = match (param("project"), param("run")) {
                (Some(project), _) => project.parse().ok(),
                (None, Some(run)) => run.parse::<RunId>().ok().map(|run| run.project),
                (None, None) => None,
            };
            // What is no name is nobody's.
            return match project {
                Some(project) if identity.deploys(&project) => Ok(()),
                Some(project) => Err(Error::Forbidden(format!("{identity} may not change {project}"))),
                None if identity.holds(Right::Operate) => Ok(()),
                None => Err(Error::Forbidden(format!("{identity} may not do this"))),
            };
        }
        Need::Itself | Need::Attempt | Need::JoinToken => {
            return machine_may(inner, need, identity, &param).await;
        }
    };
    if identity.holds(right) {
        return Ok(());
    }
    match identity {
        Identity::Machine(_) => machine_may(inner, need, identity, &param).await,
        _ => Err(Error::Forbidden(format!("{identity} may not do this; it takes {}", wanted(need)))),
    }
}

fn wanted(need: Need) -> &'static str {
    match need {
        Need::Operate => "an operator",
        Need::Administer => "an admin",
        _ => "a deployer",
    }
}

async fn machine_may<'a>(
    inner: &Inner,
    need: Need,
    identity: &Identity,
    param: &(impl Fn(&'static str) -> Option<&'a str> + Sync),
) -> Result<(), Error> {
    let Identity::Machine(machine) = identity else {
        return Err(Error::Forbidden(format!("{identity} is no machine")));
    };
    if need == Need::Itself {
        return match param("machine").and_then(|id| id.parse::<MachineId>().ok()) {
            Some(id) if id == *machine => Ok(()),
            _ => Err(Error::Forbidden(format!("{identity} may speak for itself only"))),
        };
    }
    let attempt = || {
        let run = param("run")?.parse::<RunId>().ok()?;
        Some((run, param("attempt")?.parse::<u32>().ok()?))
    };
    let digest = || param("digest")?.parse::<Digest>().ok();
    let may = || {
        let world = inner.cache.world();
        match need {
            Need::Attempt => attempt().is_some_and(|(run, number)| held(&world, machine, &run, number)),
            Need::Store | Need::Packages => holds_some(&world, machine),
            Need::Blob => digest().is_some_and(|digest| needs(&world, machine, &digest)),
            _ => false,
        }
    };
    if may() {
        return Ok(());
    }
    let own = matches!(need, Need::Attempt | Need::Store | Need::Packages | Need::Blob);
    // It may have been told by a server whose cache is fresher than ours.
    if own {
        inner.look_again().await?;
        if may() {
            return Ok(());
        }
    }
    Err(Error::Forbidden(format!("{identity} may reach only what is its own")))
}

/// Whether an attempt is, or was, the machine's. Whether it counts still is the handler's to say.
fn held(world: &World, machine: &MachineId, run: &RunId, number: u32) -> bool {
    let attempts = world.runs.get(run).into_iter().flat_map(|run| &run.value.attempts);
    attempts.into_iter().any(|attempt| attempt.number == number && attempt.machine == *machine)
}

/// Whether the machine has a run under way.
fn holds_some(world: &World, machine: &MachineId) -> bool {
    world.runs.values().any(|run| {
        run.value.state == RunState::Running
            && run.value.attempt().is_some_and(|attempt| attempt.machine == *machine)
    })
}

/// Whether what is assigned to the machine needs these bytes.
fn needs(world: &World, machine: &MachineId, digest: &Digest) -> bool {
    use sealift_model::Assignment;
    let assigned = world.assignments(machine);
    let named = assigned.iter().any(|assignment| match assignment {
        Assignment::Unit(unit) => unit.package.as_ref().is_some_and(|package| package.digest == *digest),
        Assignment::Run(run) => run.run.source == *digest,
    });
    // Any package may be a step of a run.
    named
        || assigned.iter().any(|assignment| matches!(assignment, Assignment::Run(_)))
            && world.packages.values().any(|package| package.value.digest == *digest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A route without a rule is answered to nobody; one that is served wants a rule.
    #[test]
    fn every_route_has_a_rule_and_every_rule_a_route() {
        let mut served = BTreeSet::new();
        for part in include_str!("mod.rs").split(".route(\"").skip(1) {
            let (path, handlers) = part.split_once('"').unwrap();
            let handlers = handlers.lines().next().unwrap();
            const CALLS: [(&str, &str); 5] = [
                ("GET", "get("),
                ("POST", "post("),
                ("PUT", "put("),
                ("DELETE", "delete("),
                ("PATCH", "patch("),
            ];
            for (method, call) in CALLS {
                if handlers.contains(call) {
                    served.insert((method, path));
                }
            }
        }
        assert!(served.remove(&("GET", "/healthz")));
        let rules: Vec<_> = RULES.iter().map(|rule| (rule.method, rule.route)).collect();
        assert_eq!(rules.iter().copied().collect::<BTreeSet<_>>(), served);
        assert_eq!(rules.len(), served.len(), "a rule stands twice");
        assert!(rule(&Method::HEAD, "/v1/status").is_some() && rule(&Method::PUT, "/v1/status").is_none());
    }
}
