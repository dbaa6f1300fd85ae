//! Who may do what, tried: every route, as nobody, as every role, as the machine that it is of and as another one.

use std::sync::Arc;

use sealift_access::{Clock, KeyRequest, Pin, Trust, client_config, roots_from_pem};
use sealift_client::api::{
    AuditEntry, AuthorityInfo, Join, JoinTokenInfo, List, MachineCertificate, Made, NewJoinToken, NewToken,
    Renew, TokenInfo,
};
use sealift_client::{Client, Error, Servers, Tls};
use sealift_model::{Machine, MachineId, Projects, Role};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::agent::{Agent, machine};
use crate::house::{House, assert_refused, refused, soon};
use crate::wire;

/// Which of these get past the door: nobody (n), viewer (v), deployer of `hello` (d), deployer of another project (x),
/// operator (o), admin (a), the machine that holds hello-1 (M), another machine (w).
const WHO: [(&str, &str, &str); 71] = [
    ("GET", "/v1/status", "vdxoa"),
    ("GET", "/v1/units", "vdxoa"),
    ("POST", "/v1/units", "oa"),
    ("POST", "/v1/units/destroy", "oa"),
    ("GET", "/v1/rollouts", "vdxoa"),
    ("POST", "/v1/rollouts/{unit}", "oa"),
    ("POST", "/v1/units/watch", "vdxoa"),
    ("GET", "/v1/units/{unit}", "vdxoa"),
    ("GET", "/v1/units/{unit}/explain", "vdxoa"),
    ("GET", "/v1/units/{unit}/journal", "vdxoa"),
    ("GET", "/v1/units/{unit}/systemd", "vdxoa"),
    ("POST", "/v1/plan", "vdxoa"),
    ("POST", "/v1/rebalance", "oa"),
    ("GET", "/v1/packages", "vdxoaM"),
    ("GET", "/v1/machines", "vdxoa"),
    ("DELETE", "/v1/machines/{machine}", "oa"),
    ("POST", "/v1/machines/{machine}/settings", "oa"),
    ("POST", "/v1/machines/{machine}/session", "M"),
    ("POST", "/v1/machines/{machine}/keep-alive", "M"),
    ("GET", "/v1/machines/{machine}/assignments", "M"),
    ("POST", "/v1/machines/{machine}/statuses", "M"),
    ("POST", "/v1/machines/{machine}/answers/{question}", "M"),
    ("POST", "/v1/machines/{machine}/certificate", "M"),
    ("GET", "/v1/runs", "vdxoa"),
    ("POST", "/v1/runs", "dxoa"),
    ("GET", "/v1/runs/{run}", "vdxoa"),
    ("POST", "/v1/runs/{run}/abort", "doa"),
    ("GET", "/v1/runs/{run}/log", "vdxoa"),
    ("POST", "/v1/runs/{run}/attempts/{attempt}/events", "M"),
    ("POST", "/v1/runs/{run}/attempts/{attempt}/finish", "M"),
    ("POST", "/v1/runs/{run}/attempts/{attempt}/secrets", "M"),
    ("POST", "/v1/runs/{run}/attempts/{attempt}/approvals", "M"),
    ("POST", "/v1/runs/{run}/answer", "doa"),
    ("GET", "/v1/approvals", "vdxoa"),
    ("GET", "/v1/projects/{project}/secrets", "doa"),
    ("PUT", "/v1/projects/{project}/secrets/{name}", "doa"),
    ("DELETE", "/v1/projects/{project}/secrets/{name}", "doa"),
    ("GET", "/v1/apps", "vdxoa"),
    ("GET", "/v1/apps/{project}", "vdxoa"),
    ("GET", "/v1/apps/{project}/watch", "vdxoa"),
    ("POST", "/v1/apps/{project}/rollback", "doa"),
    ("GET", "/v1/blobs/{digest}", "vdxoaM"),
    ("POST", "/v1/blobs", "dxoaM"),
    ("POST", "/v1/join", "nvdxoaMw"),
    ("GET", "/v1/tokens", "a"),
    ("POST", "/v1/tokens", "a"),
    ("DELETE", "/v1/tokens/{token}", "a"),
    ("GET", "/v1/join-tokens", "oa"),
    ("POST", "/v1/join-tokens", "oa"),
    ("DELETE", "/v1/join-tokens/{token}", "oa"),
    ("GET", "/v1/authority", "vdxoa"),
    ("POST", "/v1/authority/{step}", "a"),
    ("GET", "/v1/audit", "a"),
    ("GET", "/fleet/v1/units", "vdxoa"),
    ("GET", "/fleet/v1/units/{unit}", "vdxoa"),
    ("PUT", "/fleet/v1/units/{unit}", "oa"),
    ("DELETE", "/fleet/v1/units/{unit}", "oa"),
    ("GET", "/fleet/v1/state", "vdxoa"),
    ("GET", "/fleet/v1/state/{unit}", "vdxoa"),
    ("GET", "/fleet/v1/machines", "vdxoa"),
    ("PATCH", "/fleet/v1/machines", "oa"),
    ("GET", "/fleet/v1/discovery", "vdxoa"),
    ("GET", "/v1-alpha/units", "vdxoa"),
    ("GET", "/v1-alpha/units/{unit}", "vdxoa"),
    ("PUT", "/v1-alpha/units/{unit}", "oa"),
    ("DELETE", "/v1-alpha/units/{unit}", "oa"),
    ("GET", "/v1-alpha/state", "vdxoa"),
    ("GET", "/v1-alpha/state/{unit}", "vdxoa"),
    ("GET", "/v1-alpha/machines", "vdxoa"),
    ("PATCH", "/v1-alpha/machines", "oa"),
    ("GET", "/v1-alpha/discovery", "vdxoa"),
];

/// A machine that has joined.
pub(crate) struct Joined {
    pub(crate) id: MachineId,
    pub(crate) key: String,
    pub(crate) certificate: MachineCertificate,
}

impl Joined {
    pub(crate) fn config(&self, house: &House) -> ClientConfig {
        let trust = Trust::Roots(roots_from_pem(&self.certificate.roots).unwrap());
        let identity = Some((&*self.certificate.certificate, &*self.key));
        client_config(&trust, identity, &clock(house)).unwrap()
    }

    pub(crate) fn client(&self, house: &House) -> Client {
        Client::with_tls(servers(house), None, Tls::new(self.config(house)))
    }
}

pub(crate) fn clock(house: &House) -> Clock {
    Clock(house.clock.clone())
}

pub(crate) fn servers(house: &House) -> Servers {
    format!("https://localhost:{}", house.tls.unwrap().port()).parse().unwrap()
}

pub(crate) async fn authority(house: &House) -> AuthorityInfo {
    house.get("/v1/authority").await.unwrap()
}

/// How somebody connects who has no certificate.
async fn stranger(house: &House) -> ClientConfig {
    let pin: Pin = authority(house).await.pin.parse().unwrap();
    client_config(&Trust::Pin(pin), None, &clock(house)).unwrap()
}

pub(crate) async fn join_token(house: &House, new: NewJoinToken) -> Made<JoinTokenInfo> {
    house.client.post("/v1/join-tokens", &new).await.unwrap()
}

pub(crate) fn one() -> NewJoinToken {
    NewJoinToken { seconds: 3600, uses: 1, machine: None, class: None }
}

async fn try_join(house: &House, token: &str, machine: &MachineId) -> Result<Joined, Error> {
    let key = KeyRequest::generate().unwrap();
    let client = Client::with_tls(servers(house), None, Tls::new(stranger(house).await));
    let asked = Join { token: token.into(), machine: machine.clone(), request: key.request };
    let certificate = client.post("/v1/join", &asked).await?;
    Ok(Joined { id: machine.clone(), key: key.key, certificate })
}

pub(crate) async fn join(house: &House, machine: &Machine) -> Joined {
    let token = join_token(house, one()).await.token;
    try_join(house, &token, &machine.id).await.unwrap()
}

pub(crate) async fn user(house: &House, role: Role, projects: Projects) -> Made<TokenInfo> {
    let new =
        NewToken { name: format!("{role}.of.{}", house.tls.unwrap().port()), role, projects, seconds: None };
    house.client.post("/v1/tokens", &new).await.unwrap()
}

fn only(project: &str) -> Projects {
    Projects::Some([project.parse().unwrap()].into())
}

async fn ask(
    house: &House,
    config: &ClientConfig,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> wire::Answer {
    let stream = TcpStream::connect(house.tls.unwrap()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config.clone())).connect(name, stream).await.unwrap();
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    wire::ask(stream, method, path, &headers, "{}").await
}

#[tokio::test]
async fn everything_is_tried_as_everybody() {
    let house = House::with_tls().await;
    let (holder, other) = (machine(1, 1), machine(2, 1));
    let (of_holder, of_other) = (join(&house, &holder).await, join(&house, &other).await);
    let run = house.push("hello", "main", 1).await;
    // It works over TLS, with nothing but its certificate.
    let mut over_tls = House::asking(&house, of_holder.client(&house));
    let mut agent = Agent::begin(&over_tls, &holder, 1).await;
    let handed = agent.run().await;
    assert_eq!(handed.run.id, run.id);
    over_tls.client = house.client.clone();
    let nobody = stranger(&house).await;
    let users = [
        ('v', user(&house, Role::Viewer, Projects::None).await.token),
        ('d', user(&house, Role::Deployer, only("hello")).await.token),
        ('x', user(&house, Role::Deployer, only("other")).await.token),
        ('o', user(&house, Role::Operator, Projects::None).await.token),
        ('a', user(&house, Role::Admin, Projects::None).await.token),
    ];
    let source = run.source.to_string();
    let mut tried = 0;
    for (method, route, who) in WHO {
        let path = |machine: &MachineId| {
            route
                .replace("{machine}", machine.as_str())
                .replace("{run}", "hello-1")
                .replace("{attempt}", "1")
                .replace("{project}", "hello")
                .replace("{name}", "TOKEN")
                .replace("{unit}", "web.service")
                .replace("{token}", &"0".repeat(16))
                .replace("{step}", "none")
                .replace("{question}", "5")
                .replace("{digest}", &source)
        };
        let mut check = |actor: char, answer: wire::Answer| {
            let let_in = who.contains(actor);
            let refused = if actor == 'n' { 401 } else { 403 };
            assert!(answer.status < 500, "{method} {route} as {actor}: {answer:?}");
            if let_in {
                assert!(!matches!(answer.status, 401 | 403 | 405), "{method} {route} as {actor}: {answer:?}");
            } else {
                let code = if actor == 'n' { "unauthorized" } else { "forbidden" };
                assert_eq!((answer.status, &*answer.code()), (refused, code), "{method} {route} as {actor}");
            }
            tried += 1;
        };
        // Machines are tried on what is the holder's; users on a machine that is none, which they may take away.
        let (his, none) = (path(&holder.id), path(&machine(9, 0).id));
        check('n', ask(&house, &nobody, method, &his, None).await);
        check('w', ask(&house, &of_other.config(&house), method, &his, None).await);
        check('M', ask(&house, &of_holder.config(&house), method, &his, None).await);
        // The abort of the run comes when all machines had their turn.
        if route.ends_with("/abort") {
            continue;
        }
        for (actor, token) in &users {
            check(*actor, ask(&house, &nobody, method, &none, Some(token)).await);
        }
    }
    assert_eq!(tried, WHO.len() * 8 - 5);
    for (actor, token) in &users {
        let answer = ask(&house, &nobody, "POST", "/v1/runs/hello-1/abort", Some(token)).await;
        assert_eq!(answer.status == 200, "doa".contains(*actor), "abort as {actor}: {answer:?}");
    }
    // With the run its machine's right to the bytes is over.
    let answer = ask(&house, &of_holder.config(&house), "GET", &format!("/v1/blobs/{source}"), None).await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

/// The list above is whole; `/metrics` has a test of its own.
#[test]
fn every_route_is_in_the_list() {
    let source = include_str!("../../src/api/mod.rs");
    let mut served = crate::doors::served(source);
    assert!(served.remove(&("GET", "/healthz")) && served.remove(&("GET", "/metrics")));
    assert_eq!(served, WHO.iter().map(|(method, route, _)| (*method, *route)).collect());
}

#[tokio::test]
async fn a_deployer_pushes_his_own_projects_only() {
    let house = House::with_tls().await;
    let token = user(&house, Role::Deployer, only("hello")).await;
    let client = Client::with_tls(servers(&house), Some(token.token), Tls::new(stranger(&house).await));
    let mut mine = House::asking(&house, client.clone());
    let run = mine.push("hello", "main", 1).await;
    mine.client = client;
    let body = json!({ "project": "other", "branch": "main", "commit": run.commit, "source": run.source,
        "pipeline": "build", "request": "r" });
    assert_refused(mine.post("/v1/runs", body).await, 403, "forbidden");
    assert_eq!(house.runs().await.len(), 1);
}

#[tokio::test]
async fn tokens_end_when_they_run_out_or_are_revoked() {
    let house = House::with_tls().await;
    let ask = |token: String| {
        let house = &house;
        async move {
            let client = Client::with_tls(servers(house), Some(token), Tls::new(stranger(house).await));
            client.get::<serde_json::Value>("/v1/status").await
        }
    };
    let new =
        NewToken { name: "anna".into(), role: Role::Viewer, projects: Projects::None, seconds: Some(3600) };
    let made: Made<TokenInfo> = house.client.post("/v1/tokens", &new).await.unwrap();
    let forever = user(&house, Role::Viewer, Projects::None).await;
    ask(made.token.clone()).await.unwrap();
    house.pass(3601);
    assert_refused(ask(made.token).await, 401, "unauthorized");
    ask(forever.token.clone()).await.unwrap();
    house.client.delete(&format!("/v1/tokens/{}", forever.info.id)).await.unwrap();
    assert_refused(ask(forever.token.clone()).await, 401, "unauthorized");
    // Neither the secret nor its hash is told by anything.
    let listed: List<TokenInfo> = house.get("/v1/tokens").await.unwrap();
    assert_eq!(listed.items.len(), 1);
    let (entries, files) = house.everything().await;
    let secret = forever.token.rsplit('-').next().unwrap();
    let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(!entries.iter().any(|entry| holds(&entry.value)) && !files.values().any(|bytes| holds(bytes)));
}

#[tokio::test]
async fn a_join_token_lets_in_whom_it_is_for() {
    let house = House::with_tls().await;
    let (first, second) = (machine(1, 0).id, machine(2, 0).id);
    let once = join_token(&house, one()).await;
    try_join(&house, &once.token, &first).await.unwrap();
    assert_refused(try_join(&house, &once.token, &second).await.map(|_| ()), 403, "forbidden");
    // A token for any machine is none for the place of one that is there.
    let again = join_token(&house, NewJoinToken { uses: 2, ..one() }).await;
    assert_refused(try_join(&house, &again.token, &first).await.map(|_| ()), 409, "conflict");
    let bound = join_token(&house, NewJoinToken { machine: Some(first.clone()), ..one() }).await;
    assert_refused(try_join(&house, &bound.token, &second).await.map(|_| ()), 403, "forbidden");
    try_join(&house, &bound.token, &first).await.unwrap();
    let late = join_token(&house, NewJoinToken { seconds: 60, ..one() }).await;
    house.pass(61);
    assert_refused(try_join(&house, &late.token, &second).await.map(|_| ()), 403, "forbidden");
    let other = join_token(&house, one()).await;
    house.client.delete(&format!("/v1/join-tokens/{}", other.info.id)).await.unwrap();
    assert_refused(try_join(&house, &other.token, &second).await.map(|_| ()), 403, "forbidden");
    for new in [
        NewJoinToken { seconds: 0, ..one() },
        NewJoinToken { seconds: 8 * 24 * 3600, ..one() },
        NewJoinToken { uses: 0, ..one() },
        NewJoinToken { class: Some(String::new()), ..one() },
    ] {
        assert_refused(
            house.client.post::<_, serde_json::Value>("/v1/join-tokens", &new).await,
            400,
            "invalid",
        );
    }
}

#[tokio::test]
async fn one_token_lets_in_as_many_machines_at_once_as_it_may() {
    let house = House::with_tls().await;
    let token = join_token(&house, NewJoinToken { uses: 3, ..one() }).await.token;
    let ids: Vec<_> = (1..=8).map(|number| machine(number, 0).id).collect();
    let joins = ids.iter().map(|id| try_join(&house, &token, id));
    let joined = soon("all answers", futures_util::future::join_all(joins)).await;
    assert_eq!(joined.iter().filter(|joined| joined.is_ok()).count(), 3);
}

#[tokio::test]
async fn a_machine_is_of_the_class_that_it_was_let_in_as() {
    let house = House::with_tls().await;
    let token = join_token(&house, NewJoinToken { class: Some("untrusted".into()), ..one() }).await.token;
    let own = Machine { class: Some("trusted".into()), ..machine(1, 0) };
    let joined = try_join(&house, &token, &own.id).await.unwrap();
    Agent::begin(&House::asking(&house, joined.client(&house)), &own, 1).await;
    let machines: serde_json::Value = house.get("/v1/machines").await.unwrap();
    assert_eq!(machines["items"][0]["class"], "untrusted");
}

#[tokio::test]
async fn a_machine_that_was_removed_is_nobody_at_once() {
    let house = House::with_tls().await;
    let own = machine(1, 0);
    let joined = join(&house, &own).await;
    let client = joined.client(&house);
    let mut agent = Agent::begin(&House::asking(&house, client.clone()), &own, 1).await;
    let keep = json!({ "session": agent.session });
    let path = format!("/v1/machines/{}/keep-alive", own.id);
    client.post::<_, ()>(&path, &keep).await.unwrap();
    house.client.delete(&format!("/v1/machines/{}", own.id)).await.unwrap();
    // Over the connection that it has, too; and its stream ends.
    assert_refused(client.post::<_, ()>(&path, &keep).await, 401, "unauthorized");
    agent.hear_the_end().await;
    let machines: serde_json::Value = house.get("/v1/machines").await.unwrap();
    assert_eq!(machines["items"], json!([]));
    assert_refused(house.client.delete(&format!("/v1/machines/{}", own.id)).await, 404, "not-found");
    // A new token lets it in anew, and the old certificate stays out.
    let again = join(&house, &own).await;
    Agent::begin(&House::asking(&house, again.client(&house)), &own, 2).await;
    assert_refused(client.post::<_, ()>(&path, &keep).await, 401, "unauthorized");
}

#[tokio::test]
async fn a_certificate_is_renewed_and_an_old_one_runs_out() {
    let house = House::with_tls().await;
    let own = machine(1, 0);
    let joined = join(&house, &own).await;
    let client = joined.client(&house);
    house.pass(20 * 24 * 3600);
    let key = KeyRequest::generate().unwrap();
    let path = format!("/v1/machines/{}/certificate", own.id);
    let asked = Renew { request: key.request.clone() };
    let new: MachineCertificate = client.post(&path, &asked).await.unwrap();
    let renewed = Joined { id: own.id.clone(), key: key.key, certificate: new };
    house.pass(11 * 24 * 3600);
    // Over the connection that it has: who is in is asked with every request.
    let old = client.post::<_, MachineCertificate>(&path, &asked).await;
    assert_refused(old, 401, "unauthorized");
    // And a new one does not come about.
    assert!(joined.client(&house).post::<_, MachineCertificate>(&path, &asked).await.is_err());
    let again: MachineCertificate = renewed.client(&house).post(&path, &asked).await.unwrap();
    assert!(again.expires_at > renewed.certificate.expires_at);
    // Another machine gets none in its name.
    let other = join(&house, &machine(2, 0)).await;
    assert_refused(other.client(&house).post::<_, MachineCertificate>(&path, &asked).await, 403, "forbidden");
    assert_refused(
        renewed.client(&house).post::<_, MachineCertificate>(&path, &Renew { request: "x".into() }).await,
        400,
        "invalid",
    );
}

#[tokio::test]
async fn an_authority_of_somebody_else_is_nothing_here() {
    let (house, theirs) = (House::with_tls().await, House::with_tls().await);
    let foreign = join(&theirs, &machine(1, 0)).await;
    // They trust us, and show a certificate of their own authority.
    let trust = Trust::Roots(roots_from_pem(&authority(&house).await.roots).unwrap());
    let identity = Some((&*foreign.certificate.certificate, &*foreign.key));
    let config = client_config(&trust, identity, &clock(&house)).unwrap();
    let client = Client::with_tls(servers(&house), None, Tls::new(config));
    assert!(matches!(
        client.get::<serde_json::Value>("/v1/status").await.unwrap_err(),
        Error::Broken(_) | Error::Untrusted { .. }
    ));
    // We are not whom they pinned, so they say nothing to us.
    let pinned = Client::with_tls(servers(&house), None, Tls::new(stranger(&theirs).await));
    assert!(matches!(
        pinned.get::<serde_json::Value>("/v1/status").await.unwrap_err(),
        Error::Untrusted { .. }
    ));
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what() {
    let house = House::with_tls().await;
    let admin = user(&house, Role::Admin, Projects::None).await;
    let client =
        Client::with_tls(servers(&house), Some(admin.token.clone()), Tls::new(stranger(&house).await));
    let path = "/v1/projects/hello/secrets/NPM_TOKEN";
    let secret = "a value that is told to nobody";
    client.put::<_, serde_json::Value>(path, &json!({ "value": secret })).await.unwrap();
    let wrong = client.with_token("sealift-user-guessed".into());
    assert_refused(wrong.get::<serde_json::Value>("/v1/status").await, 401, "unauthorized");
    house.get::<serde_json::Value>("/v1/status").await.unwrap();
    let viewer = user(&house, Role::Viewer, Projects::None).await;
    let looks = client.with_token(viewer.token);
    assert_eq!(refused(looks.delete(path).await).0, 403);
    let mut lines = client.lines::<AuditEntry>("/v1/audit").await.unwrap();
    let mut told = Vec::new();
    while let Some(entry) = soon("the log's end", lines.next()).await.unwrap() {
        told.push(entry);
    }
    let name = |token: &Made<TokenInfo>| format!("user:{}", token.info.name);
    let said: Vec<_> =
        told.iter().map(|e| (e.who.clone(), e.method.as_str(), e.route.as_str(), e.status)).collect();
    let route = "/v1/projects/{project}/secrets/{name}";
    assert_eq!(
        said,
        [
            ("local".into(), "POST", "/v1/tokens", 200),
            (name(&admin), "PUT", route, 200),
            ("nobody".into(), "GET", "/v1/status", 401),
            ("local".into(), "POST", "/v1/tokens", 200),
            (format!("user:{}", viewer.info.name), "DELETE", route, 403),
        ]
    );
    assert_eq!((told[1].object.as_str(), told[4].code.as_deref()), (path, Some("forbidden")));
    assert!(told[1].from.starts_with("127.0.0.1:") && told[0].from == "unix");
    assert!(told[0].object.contains(&admin.info.id));
    let text = serde_json::to_string(&told).unwrap();
    assert!(!text.contains(secret) && !text.contains(admin.token.rsplit('-').next().unwrap()));
    let mut filtered =
        client.lines::<AuditEntry>(&format!("/v1/audit?user={}", viewer.info.name)).await.unwrap();
    assert_eq!(soon("a line", filtered.next()).await.unwrap(), Some(told[4].clone()));
    assert_eq!(soon("the end", filtered.next()).await.unwrap(), None);
}

#[tokio::test]
async fn figures_are_told_to_those_who_may_read() {
    let house = House::with_tls().await;
    join(&house, &machine(1, 0)).await;
    let nobody = stranger(&house).await;
    assert_eq!(ask(&house, &nobody, "GET", "/metrics", None).await.status, 401);
    let viewer = user(&house, Role::Viewer, Projects::None).await.token;
    let answer = ask(&house, &nobody, "GET", "/metrics", Some(&viewer)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("text/plain"), "{answer:?}");
    for line in ["sealift_machines{present=\"true\"} 0", "sealift_requests_total{code=\"401\"} 1"] {
        assert!(answer.body.lines().any(|told| told == line), "{line}: {}", answer.body);
    }
}
