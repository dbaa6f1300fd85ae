//! Machines and users of a server that speaks TLS: real processes, and certificates whose time passes by a clock of ours.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealift_access::{Clock, PeerCertificate};
use sealift_agent::enrolment::{Error, Membership};
use sealift_client::api::{JoinTokenInfo, KeepAlive, Made, NewJoinToken, NewSession, SessionBegun};
use sealift_client::{Address, Client, Servers};
use sealift_model::{Machine, MachineId, SessionId, Timestamp};
use sealift_server::{Housekeeping, Options, Server, TlsOptions};
use sealift_store::MemoryStore;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::host::sealift;

const DAY: u64 = 24 * 3600 * 1000;

/// A process of ours that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts a role and waits until it is ready; gives what it said.
fn start(command: &mut Command) -> (Process, serde_json::Value) {
    let mut child = command.args(["--output", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Process(child), serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}")))
}

fn server(state: &Path, listen: &str) -> (Process, serde_json::Value) {
    start(sealift().args(["server", "--listen", "none", "--listen-tls", listen, "--state-dir"]).arg(state))
}

fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn users_come_in_with_a_token_over_tls_and_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (mut process, ready) = server(&state, "127.0.0.1:0");
    let address = ready["tls_address"].as_str().unwrap().to_owned();
    let here = |args: &[&str]| {
        let mut command = sealift();
        command.args(args).arg("--state-dir").arg(&state);
        command
    };
    let token = ok(&mut here(&["token", "create", "anna", "--role", "viewer", "--for", "90d"]));
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, ok(&mut here(&["authority", "show", "--roots"]))).unwrap();
    let info: serde_json::Value =
        serde_json::from_str(&ok(&mut here(&["authority", "show", "--output", "json"]))).unwrap();
    let pin = format!("sha256:{}", info["pin"].as_str().unwrap());
    let there = |ca: &str, args: &[&str]| {
        let mut command = sealift();
        command.args(["--server", &address, "--ca", ca]).args(args).env("SEALIFT_TOKEN", token.trim());
        command
    };
    ok(&mut there(&pin, &["status"]));
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    let (_process, _) = server(&state, address.strip_prefix("https://").unwrap());
    ok(&mut there(roots.to_str().unwrap(), &["status"]));
    for (command, said) in [
        (there(&pin, &["token", "list"]), "it takes an admin"),
        (there(&format!("sha256:{}", "0".repeat(64)), &["status"]), "does not show that it is ours"),
        (there("sha256:x", &["status"]), "this is not a pin"),
    ] {
        let mut command = command;
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(said), "{stderr}");
        assert!(!stderr.contains(token.trim().rsplit('-').next().unwrap()));
    }
    let audit = ok(&mut here(&["audit", "--user", "anna"]));
    assert!(audit.contains("403") && audit.contains("/v1/tokens") && audit.lines().count() == 1, "{audit}");
    let id = info_of(&mut here(&["token", "list", "--output", "json"]));
    ok(&mut here(&["token", "revoke", &id]));
    assert!(!there(&pin, &["status"]).output().unwrap().status.success());
}

fn info_of(command: &mut Command) -> String {
    let tokens: serde_json::Value = serde_json::from_str(&ok(command)).unwrap();
    tokens["items"][0]["id"].as_str().unwrap().to_owned()
}

/// A server in this process, whose time is ours to set.
struct Clocked {
    dir: tempfile::TempDir,
    time: Arc<AtomicU64>,
    servers: Servers,
    local: Client,
    stop: CancellationToken,
}

impl Drop for Clocked {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Clocked {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let time = Arc::new(AtomicU64::new(1_800_000_000_000));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let servers = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let socket = dir.path().join("api.sock");
        let stop = CancellationToken::new();
        let options = Options {
            store: Arc::new(MemoryStore::new()),
            state_dir: dir.path().to_owned(),
            machine_ttl: Duration::from_secs(3600),
            clock: clock(&time).0,
            advertise: None,
            election: None,
            housekeeping: Housekeeping::default(),
            unix: Some(UnixListener::bind(&socket).unwrap()),
            tcp: None,
            tls: Some(TlsOptions { listener, names: vec!["127.0.0.1".into()] }),
            open_metrics: false,
        };
        let server = Server::build(options, stop.clone()).await.unwrap();
        tokio::spawn(server.run());
        let local = Client::new(Address::Unix(socket), None);
        Self { dir, time, servers, local, stop }
    }

    async fn join(&self, machine: &MachineId) -> Result<Membership, Error> {
        let new = NewJoinToken { seconds: 60, uses: 1, machine: Some(machine.clone()), class: None };
        let made: Made<JoinTokenInfo> = self.local.post("/v1/join-tokens", &new).await.unwrap();
        let (token, clock) = (made.token.parse().unwrap(), clock(&self.time));
        Membership::join(&self.folder(), self.servers.clone(), &token, machine, clock).await
    }

    fn folder(&self) -> std::path::PathBuf {
        self.dir.path().join("membership")
    }

    fn serial(&self) -> String {
        let text = std::fs::read_to_string(self.folder().join("identity.pem")).unwrap();
        PeerCertificate::read_pem(&text).unwrap().serial
    }
}

fn clock(time: &Arc<AtomicU64>) -> Clock {
    let time = time.clone();
    Clock(Arc::new(move || Timestamp(time.load(Ordering::SeqCst))))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_renews_its_certificate_by_itself_and_stays_in_contact() {
    let server = Clocked::start().await;
    let id = MachineId::from_bytes([7; 16]);
    let member = Arc::new(server.join(&id).await.unwrap());
    for file in ["identity.pem", "roots.pem", "signing.pub"] {
        let mode = std::fs::metadata(server.folder().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let client = member.client(server.servers.clone());
    let session = SessionId::from_bytes([1; 16]);
    let new = NewSession { machine: Machine::new(id.clone(), "host"), session: session.clone() };
    let _: SessionBegun = client.post(&format!("/v1/machines/{id}/session"), &new).await.unwrap();
    let first = server.serial();
    // Renewed once two thirds of its thirty days are over, and again and again.
    server.time.fetch_add(21 * DAY, Ordering::SeqCst);
    let keeping = tokio::spawn({
        let (member, client) = (member.clone(), client.clone());
        async move { member.keep(&client).await }
    });
    let renewed = async {
        while server.serial() == first {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.expect("no renewal");
    keeping.abort();
    // By now the first one has run out.
    server.time.fetch_add(15 * DAY, Ordering::SeqCst);
    let keep = KeepAlive { session };
    client.post::<_, ()>(&format!("/v1/machines/{id}/keep-alive"), &keep).await.unwrap();
    // A new life of the agent finds what was kept.
    let again = Membership::open(&server.folder(), clock(&server.time)).unwrap().unwrap();
    let client = again.client(server.servers.clone());
    client.post::<_, ()>(&format!("/v1/machines/{id}/keep-alive"), &keep).await.unwrap();
    assert_eq!(again.machine(), &id);
    // And is told when it was away for too long.
    server.time.fetch_add(30 * DAY, Ordering::SeqCst);
    let late = Membership::open(&server.folder(), clock(&server.time)).unwrap_err();
    assert!(matches!(&late, Error::Expired { machine, .. } if *machine == id), "{late}");
    server.join(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_tells_its_token_to_no_server_but_the_one_it_is_for() {
    let (ours, theirs) = (Clocked::start().await, Clocked::start().await);
    let id = MachineId::from_bytes([7; 16]);
    let new = NewJoinToken { seconds: 60, uses: 1, machine: None, class: None };
    let made: Made<JoinTokenInfo> = ours.local.post("/v1/join-tokens", &new).await.unwrap();
    let token = made.token.parse().unwrap();
    let folder = ours.folder();
    let wrong = Membership::join(&folder, theirs.servers.clone(), &token, &id, clock(&ours.time)).await;
    assert!(matches!(wrong, Err(Error::Join(sealift_client::Error::Untrusted { .. }))), "{wrong:?}");
    assert!(!folder.join("identity.pem").try_exists().unwrap());
    Membership::join(&folder, ours.servers.clone(), &token, &id, clock(&ours.time)).await.unwrap();
}
