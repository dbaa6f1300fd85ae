//! Clusters of real etcd, started, looked after, broken and mended by `sealift etcd`, with real servers on them; and the
//! move of an installation from its file to etcd and back.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sealift_store::etcd::{EtcdOptions, EtcdStore};
use sealift_store::{RedbStore, Revision, Store, Txn};
use serde_json::Value;
use tempfile::TempDir;

use crate::host::sealift;

/// What takes longer than this on a busy machine never comes.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);
const PREFIX: &str = "/sealift/";

/// Whether to test with etcd. Where it is missing the tests fail, unless SEALIFT_SKIP names it.
fn has_etcd() -> bool {
    if std::env::var("SEALIFT_SKIP").is_ok_and(|skip| skip.split(',').any(|part| part == "etcd")) {
        eprintln!("SKIPPED: SEALIFT_SKIP=etcd, clusters are not tested");
        return false;
    }
    for tool in ["etcd", "etcdctl"] {
        let there = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        there.unwrap_or_else(|_| panic!("no {tool}: scripts/install-deps test, or set SEALIFT_SKIP=etcd"));
    }
    true
}

fn folder() -> TempDir {
    // In memory where there is such a place: what is tested here does not hang on the disk.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("sealift-etcd-").tempdir_in(place).unwrap()
}

/// A port that nobody has, below those that connections are given.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + u16::try_from(std::process::id() % 200).unwrap() * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

struct Member {
    name: String,
    data: PathBuf,
    client: String,
    peer: String,
    process: Option<Child>,
}

impl Member {
    fn new(dir: &Path, name: &str) -> Member {
        let url = || format!("http://127.0.0.1:{}", free_port());
        Member { name: name.to_owned(), data: dir.join(name), client: url(), peer: url(), process: None }
    }

    /// By the program, which becomes etcd.
    fn start(&mut self, how: &[&str]) {
        assert!(self.process.is_none());
        let log = std::fs::File::options().create(true).append(true).open(self.data.with_extension("log"));
        // Ended by the kernel if the test is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_sealift"), "etcd", "start"])
            .args(["--name", &self.name, "--data-dir"])
            .arg(&self.data)
            .args(["--client-url", &self.client, "--peer-url", &self.peer])
            .args(how)
            // Half of what is usual, so that tests wait less for a new leader.
            .args(["--", "--logger=zap", "--heartbeat-interval=50", "--election-timeout=500"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// kill -9.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn lose(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.data).unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(5).collect();
            eprintln!("-- {}: {}", self.name, tail.join("\n"));
        }
    }
}

struct Cluster {
    members: Vec<Member>,
    dir: TempDir,
}

impl Cluster {
    fn start(count: usize) -> Cluster {
        let dir = folder();
        let mut members: Vec<_> =
            (1..=count).map(|number| Member::new(dir.path(), &format!("m{number}"))).collect();
        let initial = initial(&members);
        for member in &mut members {
            member.start(&["--initial", &initial]);
        }
        Cluster { members, dir }
    }

    fn endpoints(&self) -> String {
        self.members.iter().map(|member| member.client.as_str()).collect::<Vec<_>>().join(",")
    }

    fn etcd(&self, args: &[&str]) -> Output {
        sealift().arg("etcd").args(args).args(["--etcd", &self.endpoints()]).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> Value {
        json(&self.etcd(&[args, &["--output", "json"]].concat()))
    }

    /// What a command that has to fail says.
    fn refused(&self, args: &[&str]) -> String {
        refusal(&self.etcd(args))
    }

    /// How the cluster is, once `wanted` holds.
    fn status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let out = self.etcd(&["status", "--output", "json"]);
            let status = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
            if wanted(&status) {
                assert_eq!(out.status.success(), status["healthy"] == true, "{status}");
                return status;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "waited in vain for {what}: {status}\n{}",
                String::from_utf8_lossy(&out.stderr)
            );
            std::thread::sleep(PAUSE);
        }
    }

    fn healthy(&self) -> Value {
        self.status("a healthy cluster", |status| status["healthy"] == true)
    }

    async fn open(&self) -> EtcdStore {
        let endpoints: Vec<_> = self.members.iter().map(|member| member.client.clone()).collect();
        let begun = Instant::now();
        loop {
            match EtcdStore::open(EtcdOptions::new(endpoints.clone(), PREFIX)).await {
                Ok(store) => return store,
                Err(error) if begun.elapsed() > PATIENCE => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

fn initial(members: &[Member]) -> String {
    members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect::<Vec<_>>().join(",")
}

fn json(out: &Output) -> Value {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn refusal(out: &Output) -> String {
    assert!(!out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn names(status: &Value) -> Vec<&str> {
    let mut names: Vec<_> =
        status["members"].as_array().unwrap().iter().map(|member| member["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().unwrap().iter().any(|text| text.as_str().unwrap().contains(word))
}

/// A `sealift server` with a state directory that outlives it.
struct Server {
    state: PathBuf,
    process: Child,
}

impl Server {
    fn command(state: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_sealift"), "server", "--listen", "none"])
            .args(["--output", "json", "--state-dir"])
            .arg(state)
            .args(args)
            .env("SEALIFT_LOG", "warn");
        command
    }

    fn start(state: &Path, args: &[&str]) -> Server {
        let mut process = Server::command(state, args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let server = Server { state: state.to_owned(), process };
        assert!(line.contains("\"ready\":true"), "{line:?}");
        server
    }

    fn run(&self, args: &[&str]) -> Value {
        let out =
            sealift().args(args).args(["--output", "json", "--state-dir"]).arg(&self.state).output().unwrap();
        json(&out)
    }

    fn submit(&self, name: &str) {
        let file = self.state.with_extension("units").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, format!("[Service]\nExecStart=/bin/echo {name}\n")).unwrap();
        self.run(&["unit", "submit", file.to_str().unwrap()]);
    }

    fn units(&self) -> Value {
        self.run(&["unit", "files"])
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process.id().cast_signed()).unwrap(), signal).unwrap();
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// What a server says that may not begin.
fn no_server(state: &Path, args: &[&str]) -> String {
    let server = Server::command(state, args);
    refusal(
        &Command::new("timeout")
            .arg("60")
            .arg(server.get_program())
            .args(server.get_args())
            .output()
            .unwrap(),
    )
}

fn move_to(state: &Path, to: &str, endpoints: &str) -> Command {
    let mut command = sealift();
    command
        .args(["store", "move", "--to", to, "--etcd", endpoints, "--output", "json", "--state-dir"])
        .arg(state);
    command
}

/// The numbers that units have in the store.
async fn generation(store: &dyn Store, unit: &str) -> u64 {
    let entry = store.get(&format!("units/{unit}")).await.unwrap().unwrap();
    serde_json::from_slice::<Value>(&entry.value).unwrap()["generation"].as_u64().unwrap()
}

#[tokio::test]
async fn an_installation_moves_from_its_file_to_etcd_and_back() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(1);
    let etcd = cluster.open().await;
    let endpoints = cluster.endpoints();
    let on_etcd = ["--etcd", endpoints.as_str()];
    let state = cluster.dir.path().join("state");

    let server = Server::start(&state, &[]);
    for name in ["a.service", "b.service", "c.service"] {
        server.submit(name);
    }
    let units = server.units();
    assert_eq!(
        units["items"].as_array().map(Vec::len).or(units.as_array().map(Vec::len)),
        Some(3),
        "{units}"
    );
    // Nobody pulls the state away from under a server.
    assert!(refusal(&move_to(&state, "etcd", &endpoints).output().unwrap()).contains("another server"));
    server.stop();

    let moved = json(&move_to(&state, "etcd", &endpoints).output().unwrap());
    assert!(moved["moved"]["keys"].as_u64().unwrap() >= 3, "{moved}");
    let said = no_server(&state, &[]);
    assert!(said.contains("was moved from this store") && said.contains("--etcd"), "{said}");
    let server = Server::start(&state, &on_etcd);
    assert_eq!(server.units(), units);
    // What a machine may remember of a unit is older than what comes after it under that name.
    let file_revision = {
        let base = etcd.get("counters/generations").await.unwrap().unwrap();
        serde_json::from_slice::<u64>(&base.value).unwrap()
    };
    server.submit("d.service");
    assert!(generation(&etcd, "d.service").await > file_revision);
    let units = server.units();

    // Another machine's tool finds the server by its leadership.
    let elsewhere = cluster.dir.path().join("elsewhere");
    let begun = Instant::now();
    while etcd.get("election/leader").await.unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(PAUSE).await;
    }
    let said = refusal(&move_to(&elsewhere, "file", &endpoints).output().unwrap());
    assert!(said.contains("a server uses"), "{said}");
    server.stop();
    // It resigns at its end, unless it was just being elected: then its lease has to run out.
    let begun = Instant::now();
    while etcd.get("election/leader").await.unwrap().is_some() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(PAUSE).await;
    }

    let highest = generation(&etcd, "d.service").await;
    json(&move_to(&state, "file", &endpoints).output().unwrap());
    let said = no_server(&elsewhere, &on_etcd);
    assert!(said.contains("was moved from this store"), "{said}");
    let server = Server::start(&state, &[]);
    assert_eq!(server.units(), units);
    server.submit("e.service");
    server.stop();
    let file = RedbStore::open(state.join("store.redb")).await.unwrap();
    assert!(generation(&file, "e.service").await > highest);
    file.close().await;
}

const MANY: usize = 6_000;

async fn fill(store: &dyn Store) {
    for chunk in (0..MANY).collect::<Vec<_>>().chunks(100) {
        let put = |txn: Txn, number: &usize| txn.put(format!("units/{number:05}.service"), vec![b'x'; 2_000]);
        store.commit(chunk.iter().fold(Txn::new(), put)).await.unwrap();
    }
}

async fn values(store: &dyn Store) -> Vec<(String, Vec<u8>)> {
    let entries = store.range("units/").await.unwrap().entries;
    entries.into_iter().map(|entry| (entry.key, entry.value.to_vec())).collect()
}

#[tokio::test]
async fn a_move_that_is_killed_is_known_and_begun_again() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(1);
    let etcd = cluster.open().await;
    let endpoints = cluster.endpoints();
    let state = cluster.dir.path().join("state");
    Server::start(&state, &[]).stop();
    let path = state.join("store.redb");
    let file = RedbStore::open(&path).await.unwrap();
    fill(&file).await;
    let before = values(&file).await;
    file.close().await;

    // Killed once a part is there.
    let mut watch = etcd.watch("units/", etcd.revision().await.unwrap()).await.unwrap();
    let mut child = move_to(&state, "etcd", &endpoints).stdout(Stdio::null()).spawn().unwrap();
    while watch.next().await.unwrap().unwrap().events.is_empty() {}
    child.kill().unwrap();
    child.wait().unwrap();
    let part = values(&etcd).await.len();
    assert!(part > 0 && part < MANY, "{part}");
    let elsewhere = cluster.dir.path().join("elsewhere");
    let said = no_server(&elsewhere, &["--etcd", &endpoints]);
    assert!(said.contains("only a part") && said.contains("sealift store move"), "{said}");

    let moved = json(&move_to(&state, "etcd", &endpoints).output().unwrap());
    assert_eq!(moved["moved"]["begun_again"], true, "{moved}");
    assert!(values(&etcd).await == before);

    // And on the way back.
    let size = || std::fs::metadata(&path).map_or(0, |file| file.len());
    std::fs::remove_file(&path).unwrap();
    let mut child = move_to(&state, "file", &endpoints).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while size() < (MANY * 2_000 / 4) as u64 && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill().ok();
    child.wait().unwrap();
    let said = no_server(&state, &[]);
    assert!(said.contains("only a part"), "{said}");
    let moved = json(&move_to(&state, "file", &endpoints).output().unwrap());
    assert_eq!(moved["moved"]["begun_again"], true, "{moved}");
    let file = RedbStore::open(&path).await.unwrap();
    assert!(values(&file).await == before);
}

#[tokio::test]
async fn two_of_three_disks_are_lost_and_a_backup_brings_all_back() {
    if !has_etcd() {
        return;
    }
    let mut cluster = Cluster::start(3);
    let status = cluster.healthy();
    assert_eq!(names(&status), ["m1", "m2", "m3"]);
    assert!(has(&status["warnings"], "only this machine"), "{status}");
    let endpoints = cluster.endpoints();
    let state = cluster.dir.path().join("state");
    let server = Server::start(&state, &["--etcd", &endpoints]);
    for number in 0..20 {
        server.submit(&format!("u{number}.service"));
    }
    let units = server.units();
    server.stop();

    let file = cluster.dir.path().join("etcd.db");
    let file = file.to_str().unwrap();
    let backup = cluster.ok(&["backup", file]);
    assert_eq!(backup["bytes"].as_u64().unwrap() % 512, 32, "{backup}");
    assert!(cluster.refused(&["backup", file]).contains("there already"));

    cluster.members[1].lose();
    cluster.members[2].lose();
    let status = cluster.status("the loss", |status| status["quorum"] == false);
    assert!(has(&status["problems"], "no quorum: "), "{status}");
    assert!(cluster.refused(&["member", "remove", "m2"]).contains("no quorum"));
    // Whoever is left gives what it has.
    let last = cluster.dir.path().join("last.db");
    cluster.ok(&["backup", last.to_str().unwrap()]);

    // A damaged file makes nothing.
    let damaged = cluster.dir.path().join("damaged.db");
    let mut bytes = std::fs::read(file).unwrap();
    bytes[5_000] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let initial = initial(&cluster.members);
    let restore = |file: &str, member: &Member| {
        let mut command = sealift();
        command.args(["etcd", "restore", file, "--name", &member.name, "--initial", &initial, "--data-dir"]);
        command.arg(&member.data).args(["--output", "json"]).output().unwrap()
    };
    assert!(refusal(&restore(damaged.to_str().unwrap(), &cluster.members[1])).contains("checksum"));
    assert!(refusal(&restore(file, &cluster.members[0])).contains("there already"));

    cluster.members[0].lose();
    for member in &mut cluster.members {
        json(&restore(file, member));
        member.start(&[]);
    }
    cluster.healthy();
    let server = Server::start(&state, &["--etcd", &endpoints]);
    assert_eq!(server.units(), units);
    server.submit("after.service");
    server.stop();
}

#[tokio::test]
async fn a_lost_member_is_replaced_and_another_moves() {
    if !has_etcd() {
        return;
    }
    let mut cluster = Cluster::start(3);
    cluster.healthy();
    let store = cluster.open().await;
    store.commit(Txn::new().put("kept", "1")).await.unwrap();
    assert!(cluster.refused(&["member", "replace", "m2"]).contains("there and well"));

    cluster.members[1].lose();
    let status = cluster.status("the loss", |status| has(&status["problems"], "m2 is not well"));
    assert!(has(&status["warnings"], "no member more"), "{status}");
    // What would cost the quorum is refused.
    assert!(cluster.refused(&["member", "remove", "m1"]).contains("nothing was changed"));
    assert!(
        cluster.refused(&["member", "add", "m4", "--peer-url", "http://127.0.0.1:1"]).contains("replace")
    );
    assert!(cluster.refused(&["member", "move", "m1", "--peer-url", "http://127.0.0.1:1"]).contains("m1"));

    let mut new = Member::new(cluster.dir.path(), "m4");
    let told = cluster.ok(&["member", "replace", "m2", "--name", "m4", "--peer-url", &new.peer]);
    assert!(
        told["environment"]["ETCD_INITIAL_CLUSTER"].as_str().unwrap().contains(&format!("m4={}", new.peer))
    );
    assert!(told["command"].as_str().unwrap().contains("--join"), "{told}");
    let join = cluster.members[0].client.clone();
    new.start(&["--join", &join]);
    cluster.members[1] = new;
    assert_eq!(names(&cluster.healthy()), ["m1", "m3", "m4"]);

    // An address that moves: the data stays.
    cluster.members[2].kill();
    let port = free_port();
    let moved = format!("http://127.0.0.1:{port}");
    cluster.ok(&["member", "move", "m3", "--peer-url", &moved]);
    cluster.members[2].peer.clone_from(&moved);
    cluster.members[2].client = format!("http://127.0.0.1:{}", free_port());
    cluster.members[2].start(&[]);
    let status = cluster.healthy();
    let m3 = status["members"].as_array().unwrap().iter().find(|member| member["name"] == "m3").unwrap();
    assert_eq!(m3["peer_urls"][0], moved.as_str());
    let store = cluster.open().await;
    assert_eq!(store.get("kept").await.unwrap().unwrap().value, "1");
    store.commit(Txn::new().put("after", "2")).await.unwrap();

    // One joins that nobody told of, and the even number is said.
    let mut joins = Member::new(cluster.dir.path(), "m5");
    joins.start(&["--join", &join]);
    cluster.members.push(joins);
    let status = cluster.status("four members", |status| {
        status["healthy"] == true && status["members"].as_array().unwrap().len() == 4
    });
    assert!(has(&status["warnings"], "even number"), "{status}");
    cluster.ok(&["member", "remove", "m5"]);
    cluster.members.pop();
    assert_eq!(names(&cluster.healthy()), ["m1", "m3", "m4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn free_space_is_given_back_while_writes_go_on() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(3);
    cluster.healthy();
    let store = Arc::new(cluster.open().await);
    fill(store.as_ref()).await;
    for chunk in (0..MANY).collect::<Vec<_>>().chunks(100) {
        let delete = |txn: Txn, number: &usize| txn.delete(format!("units/{number:05}.service"));
        store.commit(chunk.iter().fold(Txn::new(), delete)).await.unwrap();
    }
    store.compact(store.revision().await.unwrap()).await.unwrap();
    // What was compacted is free once each member got round to it.
    let free =
        |status: &Value| {
            status["healthy"] == true
                && status["members"].as_array().unwrap().iter().all(|member| {
                    member["db_in_use"].as_u64().unwrap() < member["db_size"].as_u64().unwrap() / 2
                })
        };
    let before = cluster.status("free space", free);

    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            let (mut done, mut unknown) = (Vec::new(), 0);
            for number in 0_u64.. {
                if stop.load(Ordering::Relaxed) && done.len() > 10 {
                    break;
                }
                match store.commit(Txn::new().put(format!("w/{number:06}"), "x")).await {
                    Ok(_) => done.push(format!("w/{number:06}")),
                    Err(error) if error.is_unknown() || error.retryable() => unknown += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
            (done, unknown)
        }
    });
    let defrag = {
        let endpoints = cluster.endpoints();
        tokio::task::spawn_blocking(move || {
            let mut command = sealift();
            command.args(["etcd", "defrag", "--output", "json", "--etcd", &endpoints]).output().unwrap()
        })
    };
    let told = json(&defrag.await.unwrap());
    stop.store(true, Ordering::Relaxed);
    let (done, unknown) = writer.await.unwrap();
    let told = told["defragmented"].as_array().unwrap();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|one| one["after"].as_u64() < one["before"].as_u64()), "{told:?}");
    assert_eq!(told[2]["member"], before["leader"], "the leader last: {told:?}");
    let kept: std::collections::BTreeSet<_> =
        store.range("w/").await.unwrap().entries.into_iter().map(|entry| entry.key).collect();
    println!("{} writes went through, {unknown} were without an answer", done.len());
    assert!(done.iter().all(|key| kept.contains(key)));
    assert_eq!(cluster.ok(&["defrag"])["defragmented"], serde_json::json!([]));
}

#[tokio::test]
async fn a_server_that_slept_through_a_compaction_sees_what_there_is() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(1);
    let etcd = cluster.open().await;
    let endpoints = cluster.endpoints();
    let args =
        |name| ["--etcd", endpoints.as_str(), "--etcd-keep", "1s", "--etcd-defrag", "1s", "--name", name];
    let slow = Server::start(&cluster.dir.path().join("slow"), &args("slow"));
    slow.submit("first.service");
    let other = Server::start(&cluster.dir.path().join("other"), &args("other"));
    let slept = etcd.revision().await.unwrap();
    slow.signal(Signal::STOP);
    for number in 0..10 {
        other.submit(&format!("u{number}.service"));
    }
    let written = etcd.revision().await.unwrap();
    // Whoever leads now forgets what the sleeper has not seen.
    let begun = Instant::now();
    for number in 0.. {
        match etcd.watch("", Revision(slept.0)).await {
            Err(sealift_store::Error::Compacted { oldest }) if oldest >= written => break,
            _ => assert!(begun.elapsed() < PATIENCE, "nothing is forgotten"),
        }
        // Only what was overtaken is old.
        other.submit(&format!("w{number}.service"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    slow.signal(Signal::CONT);
    let units = other.units();
    let begun = Instant::now();
    while slow.units() != units {
        assert!(begun.elapsed() < PATIENCE, "{}\n{units}", slow.units());
        std::thread::sleep(PAUSE);
    }
    slow.submit("last.service");
    slow.stop();
    other.stop();
}

#[test]
fn a_member_is_told_by_a_cloud_config() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cloud-config.yml");
    let data = dir.path().join("data");
    let text = format!(
        "#cloud-config\ncoreos:\n  etcd2:\n    name: core-1\n    data-dir: {}\n    discovery: https://discovery.example.com/token\n    advertise-client-urls: http://$public_ipv4:2379\n    initial-advertise-peer-urls: http://$private_ipv4:2380\n    listen-client-urls: http://0.0.0.0:2379\n    listen-peer-urls: http://$private_ipv4:2380\n",
        data.display()
    );
    std::fs::write(&file, &text).unwrap();
    let start = |more: &[&str]| {
        let mut command = sealift();
        command.args(["etcd", "start", "--print", "--address", "10.0.0.1", "--public-address", "1.2.3.4"]);
        command.arg("--cloud-config").arg(&file).args(more).args(["--output", "json"]).output().unwrap()
    };
    let told = json(&start(&[]));
    let command = told["command"].as_array().unwrap();
    for option in [
        "--name=core-1",
        "--discovery=https://discovery.example.com/token",
        "--advertise-client-urls=http://1.2.3.4:2379",
        "--initial-advertise-peer-urls=http://10.0.0.1:2380",
        "--listen-client-urls=http://0.0.0.0:2379",
    ] {
        assert!(command.iter().any(|word| word == option), "{option}: {told}");
    }
    // What is said by hand counts more.
    let told = json(&start(&["--name", "n", "--initial", "n=http://10.0.0.1:2380"]));
    let command = told["command"].as_array().unwrap();
    assert!(command.iter().any(|word| word == "--initial-cluster=n=http://10.0.0.1:2380"), "{told}");
    assert!(!command.iter().any(|word| word.as_str().unwrap().starts_with("--discovery")), "{told}");
    assert!(!data.try_exists().unwrap());

    std::fs::write(&file, text.replace("discovery:", "discovry:")).unwrap();
    let said = refusal(&start(&[]));
    assert!(said.contains("line 6") && said.contains("discovry"), "{said}");
    let nothing = sealift()
        .args(["etcd", "start", "--address", "10.0.0.1", "--name", "n", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(refusal(&nothing).contains("which cluster"));
}
