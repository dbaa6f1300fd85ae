//! A server with its folder and its store, and the questions that users ask it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sealift_client::api::{AppStatus, List, LogEntry, NewRun, Packages, Status, Stored, UnitView};
use sealift_client::{Address, Client, Error};
use sealift_model::{Digest, Package, ProjectName, Run, RunId, RunState, Timestamp};
use sealift_package::signing::PublicKey;
use sealift_server::{Election, Housekeeping, Options, Server, TlsOptions};
use sealift_store::{Entry, Event, MemoryStore, RedbStore, Revision, Store};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

pub(crate) const TOKEN: &str = "the token of these tests";
/// No test lasts that long unless it turns the clock itself.
pub(crate) const TTL: Duration = Duration::from_secs(3600);
/// What waits longer than this waits in vain. No test that holds comes near it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for what has to come; a test that waits in vain fails instead of hanging.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::select! {
        biased;
        output = future => output,
        _ = patience() => panic!("waited in vain for {what}"),
    }
}

/// Ends after [`PATIENCE`] by the real clock, which goes on where tokio's is paused.
fn patience() -> oneshot::Receiver<()> {
    type Waiting = Vec<(Instant, oneshot::Sender<()>)>;
    static WAITING: Mutex<Waiting> = Mutex::new(Vec::new());
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(500));
                let now = Instant::now();
                // Dropping the sender ends the wait.
                WAITING.lock().unwrap().retain(|(end, sender)| *end > now && !sender.is_closed());
            }
        });
    });
    let (sender, receiver) = oneshot::channel();
    WAITING.lock().unwrap().push((Instant::now() + PATIENCE, sender));
    receiver
}

/// A server that runs.
pub(crate) struct House {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) client: Client,
    pub(crate) tcp: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    time: Arc<AtomicU64>,
    pub(crate) public_key: PublicKey,
    stop: CancellationToken,
    server: JoinHandle<Result<(), sealift_server::Error>>,
    on_disk: Option<Arc<RedbStore>>,
}

impl House {
    /// With everything in memory.
    pub(crate) async fn open() -> House {
        House::over(Arc::new(MemoryStore::new())).await
    }

    /// Over this store, in a folder of its own.
    pub(crate) async fn over(store: Arc<dyn Store>) -> House {
        House::within(Arc::new(tempfile::tempdir().unwrap()), store, None).await
    }

    /// One of several over this store, which are known by their names.
    pub(crate) async fn sharing(store: Arc<dyn Store>, name: &str) -> House {
        let election = Election { name: name.to_owned(), ttl: TTL };
        House::within(Arc::new(tempfile::tempdir().unwrap()), store, Some(election)).await
    }

    /// Over the file in this folder, which is made if need be.
    pub(crate) async fn on_disk(dir: Arc<TempDir>) -> House {
        let store = Arc::new(RedbStore::open(dir.path().join("store.redb")).await.unwrap());
        let house = House::within(dir, store.clone(), None).await;
        House { on_disk: Some(store), ..house }
    }

    /// With everything in memory, and an address for TLS.
    pub(crate) async fn with_tls() -> House {
        House::over_tls(Arc::new(tempfile::tempdir().unwrap()), Arc::new(MemoryStore::new())).await
    }

    /// Over this store, and with an address for TLS.
    pub(crate) async fn over_tls(dir: Arc<TempDir>, store: Arc<dyn Store>) -> House {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        House::build(dir, store, None, Some(listener)).await
    }

    async fn within(dir: Arc<TempDir>, store: Arc<dyn Store>, election: Option<Election>) -> House {
        House::build(dir, store, election, None).await
    }

    /// The same server, asked by another client.
    pub(crate) fn asking(house: &House, client: Client) -> House {
        House {
            dir: house.dir.clone(),
            store: house.store.clone(),
            client,
            tcp: house.tcp,
            tls: house.tls,
            clock: house.clock.clone(),
            time: house.time.clone(),
            public_key: house.public_key.clone(),
            stop: CancellationToken::new(),
            server: tokio::spawn(async { Ok(()) }),
            on_disk: None,
        }
    }

    /// Lets this many seconds go by, by the server's clock.
    pub(crate) fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    async fn build(
        dir: Arc<TempDir>,
        store: Arc<dyn Store>,
        election: Option<Election>,
        tls: Option<TcpListener>,
    ) -> House {
        let socket = dir.path().join("api.sock");
        std::fs::remove_file(&socket).ok();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        // Rises with every look, so that what came later is later.
        let time = Arc::new(AtomicU64::new(1_000_000));
        let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> = {
            let time = time.clone();
            Arc::new(move || Timestamp(time.fetch_add(1, Ordering::Relaxed)))
        };
        let tls_address = tls.as_ref().map(|listener| listener.local_addr().unwrap());
        let options = Options {
            store: store.clone(),
            state_dir: dir.path().to_owned(),
            machine_ttl: TTL,
            election,
            housekeeping: Housekeeping::default(),
            advertise: None,
            clock: clock.clone(),
            unix: Some(UnixListener::bind(&socket).unwrap()),
            tcp: Some((tcp, TOKEN.into())),
            tls: tls
                .map(|listener| TlsOptions { listener, names: vec!["localhost".into(), "127.0.0.1".into()] }),
            open_metrics: false,
        };
        let stop = CancellationToken::new();
        let server = Server::build(options, stop.clone()).await.unwrap();
        let public_key = server.public_key();
        let client = Client::new(Address::Unix(socket), None);
        let server = tokio::spawn(server.run());
        House {
            dir,
            store,
            client,
            tcp: address,
            tls: tls_address,
            clock,
            time,
            public_key,
            stop,
            server,
            on_disk: None,
        }
    }

    /// Stops the server in good order, and waits until it has let go of its file.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        soon("the server's end", self.server).await.unwrap().unwrap();
        drop(self.store);
        let Some(mut store) = self.on_disk else { return };
        loop {
            match Arc::try_unwrap(store) {
                Ok(store) => return store.close().await,
                // Connections that are on their way out.
                Err(shared) => store = shared,
            }
            tokio::task::yield_now().await;
        }
    }

    /// The path of the server's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.client.get(path).await
    }

    /// Posts a JSON value and expects one.
    pub(crate) async fn post(&self, path: &str, body: serde_json::Value) -> Result<serde_json::Value, Error> {
        self.client.post(path, &body).await
    }

    pub(crate) async fn upload(&self, bytes: impl Into<Bytes>) -> Digest {
        let body = futures_util::stream::iter([Ok(bytes.into())]);
        self.client.post_stream::<_, Stored>("/v1/blobs", body).await.unwrap().digest
    }

    /// What a push of this commit asks for, under a request key that nobody else has.
    pub(crate) async fn new_run(&self, project: &str, branch: &str, commit: u8) -> NewRun {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        NewRun {
            project: project.parse().unwrap(),
            branch: branch.parse().unwrap(),
            commit: format!("{commit:02x}").repeat(20).parse().unwrap(),
            subject: format!("Commit {commit}"),
            source: self.upload(format!("source of commit {commit}")).await,
            pipeline: "build".into(),
            request: format!("request-{}", REQUESTS.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(crate) async fn push(&self, project: &str, branch: &str, commit: u8) -> Run {
        let new = self.new_run(project, branch, commit).await;
        self.client.post("/v1/runs", &new).await.unwrap()
    }

    pub(crate) async fn run(&self, id: &RunId) -> Run {
        self.get(&format!("/v1/runs/{id}")).await.unwrap()
    }

    pub(crate) async fn runs(&self) -> Vec<Run> {
        self.get::<List<Run>>("/v1/runs?limit=100000").await.unwrap().items
    }

    pub(crate) async fn abort(&self, id: &RunId) -> Result<Run, Error> {
        self.client.post(&format!("/v1/runs/{id}/abort"), &()).await
    }

    pub(crate) async fn packages(&self) -> Vec<Package> {
        self.get::<Packages>("/v1/packages").await.unwrap().items
    }

    pub(crate) async fn status(&self) -> Status {
        self.get("/v1/status").await.unwrap()
    }

    pub(crate) async fn app(&self, project: &str) -> AppStatus {
        self.get(&format!("/v1/apps/{project}")).await.unwrap()
    }

    pub(crate) async fn units(&self) -> BTreeMap<String, UnitView> {
        let list: List<UnitView> = self.get("/v1/units").await.unwrap();
        list.items.into_iter().map(|view| (view.unit.name.to_string(), view)).collect()
    }

    /// Follows the app until it is like that.
    pub(crate) async fn app_until(
        &self,
        project: &str,
        what: &str,
        wanted: impl Fn(&AppStatus) -> bool,
    ) -> AppStatus {
        let mut lines = self.client.lines(&format!("/v1/apps/{project}/watch")).await.unwrap();
        let mut last = None;
        let waiting = async {
            while let Some(status) = lines.next().await.unwrap() {
                if wanted(&status) {
                    return status;
                }
                last = Some(status);
            }
            panic!("the app's watch ended");
        };
        let found = tokio::select! {
            biased;
            status = waiting => Some(status),
            _ = patience() => None,
        };
        found.unwrap_or_else(|| panic!("waited in vain for {what}; the app was last {last:#?}"))
    }

    /// The log to its end; with `follow` until the run has ended.
    pub(crate) async fn log(&self, id: &RunId, follow: bool) -> Vec<LogEntry> {
        read_log(self.client.clone(), id.clone(), follow).await
    }

    /// Waits until the store holds this run in such a state, and the server shows it.
    pub(crate) async fn run_until(&self, id: &RunId, what: &str, wanted: impl Fn(&Run) -> bool) -> Run {
        let key = format!("runs/{}/{:012}", id.project, id.number);
        let mut watch = self.store.watch(&key, Revision(0)).await.unwrap();
        soon(what, async {
            loop {
                let batch = watch.next().await.unwrap().unwrap();
                let Some(Event::Put(entry)) = batch.events.last() else { continue };
                let run: Run = serde_json::from_slice(&entry.value).unwrap();
                if wanted(&run) {
                    self.caught_up().await;
                    return run;
                }
            }
        })
        .await
    }

    /// Waits until the server shows what the store holds now.
    pub(crate) async fn caught_up(&self) {
        let wanted = self.store.revision().await.unwrap();
        while self.status().await.revision < wanted.0 {
            tokio::task::yield_now().await;
        }
    }

    /// Everything that the store and the folder hold, to see whether something was changed.
    pub(crate) async fn everything(&self) -> (Vec<Entry>, BTreeMap<PathBuf, Vec<u8>>) {
        let mut files = BTreeMap::new();
        for folder in ["logs", "blobs", "secrets"] {
            collect_files(&self.dir.path().join(folder), &mut files);
        }
        (self.store.range("").await.unwrap().entries, files)
    }

    /// A project that is deployed: pushed, built by `builder`, released with these units.
    pub(crate) async fn deploy(
        &self,
        builder: &mut Agent,
        project: &str,
        commit: u8,
        units: &[(&str, &str)],
    ) -> Run {
        let run = self.push(project, "main", commit).await;
        let handed = builder.run().await;
        assert_eq!(handed.run.id, run.id);
        let artifact = self.upload(format!("package of commit {commit}")).await;
        let run = builder.pass(&handed, Some(artifact), units).await.unwrap();
        assert_eq!((run.state, run.message.as_deref()), (RunState::Passed, None));
        run
    }

    /// Every end that the run came to, as the store was told.
    pub(crate) async fn ends_of(&self, id: &RunId) -> Vec<RunState> {
        let key = format!("runs/{}/{:012}", id.project, id.number);
        let mut watch = self.store.watch(&key, Revision(0)).await.unwrap();
        let newest = self.store.get(&key).await.unwrap().unwrap().modified;
        let mut ends = Vec::new();
        loop {
            let batch = soon("the run's history", watch.next()).await.unwrap().unwrap();
            for event in &batch.events {
                let Event::Put(entry) = event else { panic!("a run was deleted") };
                let run: Run = serde_json::from_slice(&entry.value).unwrap();
                ends.extend(run.state.is_end().then_some(run.state));
            }
            if batch.revision >= newest {
                return ends;
            }
        }
    }

    pub(crate) async fn release_numbers(&self, project: &ProjectName) -> Vec<u64> {
        let releases = self.store.range(&format!("releases/{project}/")).await.unwrap().entries;
        releases
            .iter()
            .map(|entry| serde_json::from_slice::<sealift_model::Release>(&entry.value).unwrap().number)
            .collect()
    }
}

pub(crate) async fn read_log(client: Client, id: RunId, follow: bool) -> Vec<LogEntry> {
    let mut lines = client.lines(&format!("/v1/runs/{id}/log?follow={follow}")).await.unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = soon("the log's end", lines.next()).await.unwrap() {
        entries.push(entry);
    }
    entries
}

pub(crate) fn collect_files(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_files(&path, into);
        } else if path.is_file() {
            into.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
}

/// The code of a refusal.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> (u16, String, String) {
    match answer {
        Err(Error::Refused { status, failure }) => (status, failure.code, failure.message),
        other => panic!("not refused: {other:?}"),
    }
}

/// Whether it was refused like that.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Error>, status: u16, code: &str) {
    let (found_status, found_code, message) = refused(answer);
    assert_eq!((found_status, &*found_code), (status, code), "{message}");
}
