//! A real server and many simulated machines, each with connections of its own, in this process.
//!
//! A machine says what an agent says: it begins a session, keeps it alive, follows its assignments and reports on them at
//! once, as if systemd took no time. It speaks plain HTTP/1.1 over TCP and keeps its connections, as agents do over TLS: one
//! for the stream and one for all else. It must not know what is measured.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealift_client::api::{AssignmentEvent, KeepAlive, NewSession, SessionBegun, Statuses};
use sealift_model::{
    ActiveState, Assignment, DesiredState, Machine, MachineId, Placement, SessionId, Timestamp,
    UnitAssignment, UnitName, UnitStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc};

use super::{Error, io};

/// So many machines begin at the same time; the others wait.
const BEGIN_AT_ONCE: usize = 64;
/// Until a machine whose session is over begins another.
const AGAIN: Duration = Duration::from_secs(1);
/// For the answer to anything but a stream.
const ANSWER: Duration = Duration::from_secs(60);

/// Lets this process, and those that it starts, have as many open files as the system allows.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // With less than that, what cannot be opened says so.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok();
}

/// A `sealift server` process; ended, and its state removed, when dropped.
pub(super) struct Server {
    process: Child,
    pub(super) at: At,
    _dir: tempfile::TempDir,
}

/// Where a server is reached.
#[derive(Debug, Clone)]
pub(super) struct At {
    address: Arc<str>,
    bearer: Arc<str>,
}

impl Server {
    /// With the embedded store, or on this etcd.
    pub(super) async fn start(etcd: &[String], machine_ttl: &str) -> Result<Server, Error> {
        let program = super::push::binary()?;
        let dir = tempfile::Builder::new().prefix("lab-").tempdir().map_err(io("make", "a directory"))?;
        let mut command = Command::new(program);
        command.args(["server", "--listen", "127.0.0.1:0", "--name", "lab", "--output", "json"]);
        command.args(["--machine-ttl", machine_ttl]).arg("--state-dir").arg(dir.path());
        if !etcd.is_empty() {
            command.args(["--etcd", &etcd.join(",")]);
        }
        command.env_remove("SEALIFT_SERVER").env_remove("SEALIFT_STATE_DIR").env_remove("SEALIFT_ETCD");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().map_err(io("run", "sealift server"))?;
        let stdout =
            process.stdout.take().ok_or_else(|| Error::failed("sealift server", "it has no output"))?;
        let line = BufReader::new(stdout).lines().next_line().await.map_err(io("read", "sealift server"))?;
        let line = line.unwrap_or_default();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let address = ready["address"].as_str().and_then(|address| address.strip_prefix("http://"));
        let address = address.ok_or_else(|| Error::failed("sealift server is not ready", &line))?;
        let token = std::fs::read_to_string(dir.path().join("token")).map_err(io("read", "the token"))?;
        let at = At { address: address.into(), bearer: format!("Bearer {}", token.trim()).into() };
        Ok(Server { process, at, _dir: dir })
    }

    pub(super) fn pid(&self) -> Result<u32, Error> {
        self.process.id().ok_or_else(|| Error::failed("sealift server", "it has ended"))
    }

    /// A line of `/proc/PID/status` in MiB, such as `VmRSS`.
    pub(super) fn memory(&self, key: &str) -> Result<f64, Error> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))
            .map_err(io("read", "/proc/PID/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kilobytes.map(|kilobytes| kilobytes / 1024.0).ok_or_else(|| Error::failed(key, text))
    }

    /// The value of a line of `/metrics`.
    pub(super) async fn metric(&self, name: &str) -> Result<f64, Error> {
        let text = self.at.connect().await?.bytes(Method::GET, "/metrics", Bytes::new()).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).ok_or_else(|| Error::failed(format!("no {name}"), text))
    }
}

impl At {
    pub(super) async fn connect(&self) -> Result<Connection, Error> {
        let stream = TcpStream::connect(&*self.address).await.map_err(io("connect to", &self.address))?;
        stream.set_nodelay(true).map_err(io("connect to", &self.address))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| Error::failed("no connection", error))?;
        // Ends with the sender and the answers.
        tokio::spawn(connection);
        Ok(Connection { at: self.clone(), sender })
    }
}

/// A connection that is kept from one request to the next.
pub(super) struct Connection {
    at: At,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &*self.at.address)
            .header(AUTHORIZATION, &*self.at.bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::failed("no request", error))?;
        let broken = |error| Error::failed(path, error);
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let said = response.into_body().collect().await.map_err(broken)?.to_bytes();
        Err(Error::failed(format!("{path}: {status}"), String::from_utf8_lossy(&said)))
    }

    /// The whole answer as it comes.
    pub(super) async fn bytes(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Error> {
        let answer = async {
            let response = self.send(method, path, body).await?;
            let body = response.into_body().collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|error| Error::failed(path, error))
        };
        tokio::time::timeout(ANSWER, answer)
            .await
            .unwrap_or_else(|_| Err(Error::failed(path, format!("no answer within {} s", ANSWER.as_secs()))))
    }

    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Error> {
        let bytes = self.bytes(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::failed(path, error))
    }

    pub(super) async fn post<T: Serialize>(&mut self, path: &str, body: &T) -> Result<Bytes, Error> {
        self.bytes(Method::POST, path, json(body)?).await
    }

    /// A stream of lines; the connection is for nothing else from then on.
    pub(super) async fn lines(mut self, method: Method, path: &str, body: Bytes) -> Result<Lines, Error> {
        let body = self.send(method, path, body).await?.into_body();
        Ok(Lines { body, buffer: BytesMut::new(), _connection: self })
    }
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Error::failed("cannot write a request", error))
}

pub(super) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    _connection: Connection,
}

impl Lines {
    /// The next line; none at the end. Safe to drop while waiting.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let mut searched = 0;
        loop {
            let rest = self.buffer.get(searched..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + end);
                self.buffer.advance(1);
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| Error::failed("a line is not understood", error));
            }
            searched = self.buffer.len();
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::failed("a stream broke", error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// What machines tell the bench.
#[derive(Debug)]
pub(super) enum Word {
    /// A machine has its session and its first line.
    Begun,
    /// It was told of this generation of a unit, then.
    Told { unit: UnitName, generation: u64, at: Instant },
    /// The server has taken its word on so many units.
    Confirmed(usize),
}

/// Machines that live until this is dropped.
pub(super) struct Fleet {
    shared: Arc<Shared>,
    pub(super) words: mpsc::UnboundedReceiver<Word>,
    machines: tokio::task::JoinSet<()>,
}

struct Shared {
    at: At,
    words: mpsc::UnboundedSender<Word>,
    /// Whether machines report on what they are told.
    confirms: bool,
    beginning: Semaphore,
    lines: AtomicU64,
    sessions: AtomicU64,
}

impl Fleet {
    /// Has so many machines begin.
    pub(super) fn begin(at: &At, machines: u32, confirms: bool) -> Fleet {
        let (sender, words) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            at: at.clone(),
            words: sender,
            confirms,
            beginning: Semaphore::new(BEGIN_AT_ONCE),
            lines: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
        });
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..machines {
            let shared = shared.clone();
            tasks.spawn(async move {
                loop {
                    // A session that was lost is counted, and followed by another.
                    shared.live(number).await.ok();
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        Fleet { shared, words, machines: tasks }
    }

    /// Lines that streams have brought so far.
    pub(super) fn lines(&self) -> u64 {
        self.shared.lines.load(Ordering::Relaxed)
    }

    /// Sessions that were begun beyond one for each machine.
    pub(super) fn lost_sessions(&self) -> u64 {
        let machines = u64::try_from(self.machines.len()).unwrap_or(u64::MAX);
        self.shared.sessions.load(Ordering::Relaxed).saturating_sub(machines)
    }
}

/// The identity of a simulated machine.
pub(super) fn machine_id(number: u32) -> MachineId {
    super::placement::machine_id(number)
}

impl Shared {
    /// One session, until it is over.
    async fn live(&self, number: u32) -> Result<(), Error> {
        let id = machine_id(number);
        let path = |what: &str| format!("/v1/machines/{id}/{what}");
        let begin = self.beginning.acquire().await;
        let life = self.sessions.fetch_add(1, Ordering::Relaxed);
        let session = SessionId::from_bytes((u128::from(life) << 64 | u128::from(number)).to_be_bytes());
        let mut calls = self.at.connect().await?;
        let machine = Machine {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            systemd: "system".to_owned(),
            ..Machine::new(id.clone(), format!("m{number}"))
        };
        let begun = calls.post(&path("session"), &NewSession { machine, session: session.clone() }).await?;
        let begun: SessionBegun =
            serde_json::from_slice(&begun).map_err(|error| Error::failed("a session", error))?;
        let stream = path(&format!("assignments?session={session}"));
        let mut lines = self.at.connect().await?.lines(Method::GET, &stream, Bytes::new()).await?;
        let mut keep_alive = tokio::time::interval(Duration::from_millis(begun.ttl_millis) / 3);
        keep_alive.tick().await;
        let mut begin = Some(begin);
        loop {
            tokio::select! {
                line = lines.next() => {
                    let Some(event) = line? else { return Ok(()) };
                    let at = Instant::now();
                    self.lines.fetch_add(1, Ordering::Relaxed);
                    let report = self.hear(event, &session, at);
                    if let Some(report) = report.filter(|_| self.confirms) {
                        calls.post(&path("statuses"), &report).await?;
                        self.words.send(Word::Confirmed(report.statuses.len())).ok();
                    }
                    if begin.take().is_some() {
                        self.words.send(Word::Begun).ok();
                    }
                }
                _ = keep_alive.tick() => {
                    calls.post(&path("keep-alive"), &KeepAlive { session: session.clone() }).await?;
                }
            }
        }
    }

    /// What a machine reports on this.
    fn hear(&self, event: AssignmentEvent, session: &SessionId, at: Instant) -> Option<Statuses> {
        let (put, gone, all) = match event {
            AssignmentEvent::All { assignments, drop_units } => (assignments, drop_units, true),
            AssignmentEvent::Changed { put, drop_units, .. } => (put, drop_units, false),
            AssignmentEvent::Ask { .. } | AssignmentEvent::Unknown => return None,
        };
        let mut statuses = Vec::new();
        for assignment in put {
            let Assignment::Unit(assigned) = assignment else { continue };
            let unit = &assigned.unit;
            self.words.send(Word::Told { unit: unit.name.clone(), generation: unit.generation, at }).ok();
            statuses.push(carried_out(&assigned));
        }
        Some(Statuses { session: session.clone(), statuses, gone, all })
    }
}

/// As if systemd had done it at once.
fn carried_out(assigned: &UnitAssignment) -> UnitStatus {
    let unit = &assigned.unit;
    let placement = Placement {
        id: assigned.placement,
        unit: unit.name.clone(),
        machine: machine_id(0),
        since: Timestamp(1),
    };
    let (active, sub) = match unit.desired {
        DesiredState::Launched => (ActiveState::Active, "running"),
        _ => (ActiveState::Inactive, "dead"),
    };
    UnitStatus {
        generation: unit.generation,
        load: "loaded".to_owned(),
        active,
        sub: sub.to_owned(),
        ..UnitStatus::unheard(&placement)
    }
}
