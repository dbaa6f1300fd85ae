//! Carries out the runs that this machine was handed: source in, pipeline in a container, events and package out.
//!
//! An attempt belongs to one session of the agent. When that ends, or the assignment goes, the attempt is stopped and
//! nothing it says counts any more. What a killed agent left (containers, folders) is cleared before the first run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealift_client::Client;
use sealift_client::api::{AskSecrets, Events, Finish, RunSecrets, Stored};
use sealift_model::diagnostic::chain;
use sealift_model::{
    EventKind, MachineId, Run, RunAssignment, RunEvent, RunId, SessionId, StepResult, Timestamp,
};
use sealift_package::archive::{self, Limits};
use sealift_pipeline::config::{Config, GraphError};
use sealift_pipeline::steps::{PackageSource, StepSources};
use sealift_pipeline::{
    Approver, CacheSpec, Engine, EngineOptions, Git, Groups, Leftovers, NodeEvent, Outcome, RunSpec, Source,
    WorkflowSpec, config, execute_workflow, remove_work_dir,
};
use tokio::sync::{OnceCell, mpsc};
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

use crate::approvals::Asking;
use crate::commit_units::CommitUnits;

/// Where a commit keeps the unit files that are released with it.
pub const UNITS_FOLDER: &str = "units";
/// Events that may wait for the network before the pipeline's output has to.
const EVENTS: usize = 4096;
/// Events of one request.
const BATCH: usize = 512;
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(100);
pub(crate) const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Names and values, as a pipeline takes them.
type Variables = Vec<(String, String)>;

/// Why an attempt ends without its pipeline's verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] sealift_client::Error),
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot unpack the source")]
    Source(#[source] archive::Error),
    #[error("cannot pack what the pipeline made")]
    Pack(#[source] archive::Error),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(transparent)]
    Workflow(#[from] sealift_pipeline::WorkflowError),
    #[error(transparent)]
    Engine(#[from] sealift_pipeline::EngineError),
    #[error(transparent)]
    Run(#[from] sealift_pipeline::Error),
    #[error("cannot ask the server for the project's secrets")]
    Secrets(#[source] sealift_client::Error),
    /// The parser's own words might quote a value.
    #[error("the server's answer about secrets is not understood; is it another version?")]
    SecretsNotUnderstood,
    #[error("{0}")]
    Units(String),
    #[error("the work was cut short")]
    Cut(#[from] tokio::task::JoinError),
}

/// What the keeper of runs is made of.
#[derive(Debug, Clone)]
pub struct Options {
    pub machine: MachineId,
    /// Each attempt gets a folder below it, removed when the attempt ends.
    pub work_dir: PathBuf,
    /// Where pipelines' caches are kept.
    pub cache_dir: PathBuf,
    /// Where steps come from that are packages.
    pub steps: Arc<dyn PackageSource>,
    pub engine: EngineOptions,
}

/// The keeper of a machine's runs. Cheap to clone.
#[derive(Clone)]
pub struct Runs {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

struct Inner {
    options: Options,
    client: Client,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    engine: OnceCell<Engine>,
    under_way: Mutex<BTreeMap<(RunId, u32), CancellationToken>>,
}

impl Runs {
    /// Takes the folder as an earlier life left it; clearing it waits for the first run, since it needs the engine.
    #[must_use]
    pub fn new(options: Options, client: Client, clock: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        let inner = Inner { options, client, clock, engine: OnceCell::new(), under_way: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Clears what a killed agent left, if it left anything: containers and networks, then folders.
    ///
    /// # Errors
    /// When the engine does not answer or a folder cannot be removed.
    pub async fn clear(&self) -> Result<(), Error> {
        let work_dir = &self.inner.options.work_dir;
        let io = |action| move |source| Error::Io { action, path: work_dir.clone(), source };
        fs::create_dir_all(work_dir).map_err(io("make"))?;
        if fs::read_dir(work_dir).map_err(io("read"))?.next().is_some() {
            self.inner.engine().await?;
        }
        Ok(())
    }

    /// Begins an attempt, unless it is under way already.
    pub fn begin(&self, assignment: RunAssignment) {
        let key = (assignment.run.id.clone(), assignment.attempt);
        let cancel = {
            let mut under_way = self.inner.under_way();
            if under_way.contains_key(&key) {
                return;
            }
            let cancel = CancellationToken::new();
            under_way.insert(key.clone(), cancel.clone());
            cancel
        };
        let inner = self.inner.clone();
        tokio::spawn(async move {
            inner.attempt(&assignment, cancel).await;
            inner.under_way().remove(&key);
        });
    }

    /// Stops an attempt whose assignment is gone.
    pub fn stop(&self, run: &RunId, attempt: u32) {
        if let Some(cancel) = self.inner.under_way().get(&(run.clone(), attempt)) {
            cancel.cancel();
        }
    }

    /// Stops everything but these: the session's assignments as a whole, or nothing when it is over.
    pub fn stop_all_but(&self, keep: &[(RunId, u32)]) {
        for (key, cancel) in self.inner.under_way().iter() {
            if !keep.contains(key) {
                cancel.cancel();
            }
        }
    }

    /// Waits until no attempt is under way any more.
    pub async fn settled(&self) {
        while !self.inner.under_way().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Inner {
    fn under_way(&self) -> std::sync::MutexGuard<'_, BTreeMap<(RunId, u32), CancellationToken>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine, found once; leftovers of an earlier life are removed when it is.
    async fn engine(&self) -> Result<&Engine, Error> {
        self.engine
            .get_or_try_init(|| async {
                let engine = Engine::connect(&self.options.engine).await?;
                let ours = Leftovers::Owner(self.options.machine.as_str());
                sealift_pipeline::remove_leftovers(&engine, ours).await?;
                let work_dir = &self.options.work_dir;
                let io = |action| move |source| Error::Io { action, path: work_dir.clone(), source };
                for entry in fs::read_dir(work_dir).map_err(io("read"))? {
                    remove_work_dir(&entry.map_err(io("read"))?.path()).map_err(io("clear"))?;
                }
                Ok(engine)
            })
            .await
    }

    /// One attempt from assignment to end. Errors of the attempt become its end; errors of telling so end it silently,
    /// because then the session is over and the attempt no longer counts.
    async fn attempt(&self, assignment: &RunAssignment, cancel: CancellationToken) {
        let (run, attempt) = (&assignment.run, assignment.attempt);
        let (sender, receiver) = mpsc::channel(EVENTS);
        let telling = self.tell(run, attempt, &assignment.session, receiver, cancel.clone());
        let working = self.work(assignment, sender, cancel.clone());
        let (outcome, told) = tokio::join!(working, telling);
        let folder = self.folder(run, attempt);
        let finished = match (outcome, told) {
            _ if cancel.is_cancelled() => Ok(()),
            (_, Err(error)) => Err(error),
            (Ok(finish), Ok(())) => self.finish(run, attempt, finish, &cancel).await,
            (Err(error), Ok(())) => {
                let finish = Finish {
                    session: assignment.session.clone(),
                    passed: false,
                    message: Some(chain(&error)),
                    steps: Vec::new(),
                    artifact: None,
                    units: BTreeMap::new(),
                    drop_ins: BTreeMap::new(),
                };
                self.finish(run, attempt, finish, &cancel).await
            }
        };
        if let Err(error) = finished {
            tracing::warn!(run = %run.id, attempt, error = chain(&error), "the end of an attempt could not be told");
        }
        if let Err(error) = remove_work_dir(&folder) {
            tracing::warn!(path = %folder.display(), %error, "cannot remove the folder of an attempt");
        }
    }

    fn folder(&self, run: &Run, attempt: u32) -> PathBuf {
        self.options.work_dir.join(format!("{}.{attempt}", run.id))
    }

    async fn work(
        &self,
        assignment: &RunAssignment,
        events: mpsc::Sender<NodeEvent>,
        cancel: CancellationToken,
    ) -> Result<Finish, Error> {
        let (run, attempt) = (&assignment.run, assignment.attempt);
        let outcome = self.pipeline(assignment, &events, cancel).await;
        match &outcome {
            Ok(_) | Err(Error::Run(_)) => {}
            // The pipeline did not come to say it itself.
            Err(error) => {
                let message = Some(chain(error));
                say(&events, EventKind::PipelineFinished { passed: false, millis: 0, message }).await;
            }
        }
        let (outcome, units) = outcome?;
        let mut finish = Finish {
            session: assignment.session.clone(),
            passed: outcome.passed,
            message: outcome.message,
            steps: outcome.steps,
            artifact: None,
            units: BTreeMap::new(),
            drop_ins: BTreeMap::new(),
        };
        if let Some(output) = outcome.output.filter(|_| finish.passed) {
            let archive = self.folder(run, attempt).join("package.tar.zst");
            let packing = {
                let (archive, units) = (archive.clone(), units.clone());
                move || pack(&output, &units, &archive)
            };
            let size = tokio::task::spawn_blocking(packing).await??;
            say(&events, EventKind::Note { text: format!("storing the package, {size} bytes") }).await;
            finish.artifact = Some(self.upload(&archive).await?);
            (finish.units, finish.drop_ins) = (units.units, units.drop_ins);
        }
        Ok(finish)
    }

    async fn pipeline(
        &self,
        assignment: &RunAssignment,
        events: &mpsc::Sender<NodeEvent>,
        cancel: CancellationToken,
    ) -> Result<(sealift_pipeline::Outcome, CommitUnits), Error> {
        let (run, attempt) = (&assignment.run, assignment.attempt);
        let engine = self.engine().await?;
        let folder = self.folder(run, attempt);
        let source = folder.join("source");
        fs::create_dir_all(&source).map_err(|error| Error::Io {
            action: "make",
            path: source.clone(),
            source: error,
        })?;
        self.fetch(run, &source).await?;
        let loaded = config::load(&config::find_config(&source)?)?;
        let name = loaded.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for diagnostic in &loaded.diagnostics {
            let text = diagnostic.render(&name, &loaded.text);
            say(events, EventKind::Warning { text }).await;
        }
        // Before anything is built: a unit file that systemd would refuse is no release.
        let (units, warnings) = CommitUnits::read(&source.join(UNITS_FOLDER))?;
        for text in warnings {
            say(events, EventKind::Warning { text }).await;
        }
        let (hidden_env, secrets) = self.secrets(assignment, &loaded.config, &cancel).await?;
        let spec = RunSpec {
            // Machines may share an engine, and then no two of them may have a container of the same name.
            key: format!("{}.{attempt}-{}", run.id, self.options.machine.short()),
            owner: self.options.machine.to_string(),
            run_id: blake3::hash(format!("{}.{attempt}", run.id).as_bytes()).to_hex()[..24].to_owned(),
            project: run.id.project.to_string(),
            pipeline: run.pipeline.clone(),
            source: Source::Own(source),
            work_dir: folder,
            steps: StepSources {
                cache_dir: Some(self.options.cache_dir.join("steps")),
                packages: Some(self.options.steps.clone()),
                ..StepSources::default()
            },
            cache: Some(CacheSpec::new(
                self.options.cache_dir.clone(),
                run.id.project.as_str(),
                run.branch.as_str(),
            )),
            git: Git {
                branch: run.branch.to_string(),
                commit: run.commit.to_string(),
                repository: run.id.project.to_string(),
                ..Git::default()
            },
            deploy: false,
            deploy_target: None,
            started_by: "sealift".into(),
            env: Vec::new(),
            hidden_env,
            secrets,
            ..RunSpec::default()
        };
        let groups = self.options.cache_dir.join("groups").join(run.id.project.as_str());
        let groups = Groups { dir: groups, order: Some(run.id.number) };
        let approver = Arc::new(Asking::new(self.client.clone(), assignment.clone(), cancel.clone()));
        let shared = Shared { groups, approver };
        let outcome = carry_out(engine, &loaded.config, spec, shared, events, cancel).await?;
        Ok((outcome, units))
    }

    /// The secrets that the server keeps for the run's project: variables for all pipelines (`hidden_env`), or in
    /// Sealift's own form of the file (`secrets`) for those that name them.
    async fn secrets(
        &self,
        assignment: &RunAssignment,
        config: &config::Config,
        cancel: &CancellationToken,
    ) -> Result<(Variables, Variables), Error> {
        let path = format!("/v1/runs/{}/attempts/{}/secrets", assignment.run.id, assignment.attempt);
        let ask = AskSecrets { session: assignment.session.clone() };
        let mut pause = RETRY_FIRST;
        let told = loop {
            match self.client.post::<_, RunSecrets>(&path, &ask).await {
                Ok(told) => break told.secrets,
                Err(error) if error.retryable() && pause < RETRY_LONGEST => {
                    tokio::select! {
                        () = cancel.cancelled() => return Err(sealift_pipeline::Error::Cancelled.into()),
                        () = tokio::time::sleep(pause) => pause *= 2,
                    }
                }
                Err(sealift_client::Error::NotUnderstood(_)) => return Err(Error::SecretsNotUnderstood),
                Err(error) => {
                    if error.code() == Some("fenced") {
                        cancel.cancel();
                    }
                    return Err(Error::Secrets(error));
                }
            }
        };
        let told = told.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Ok(if config.version.is_some() { (Variables::new(), told) } else { (told, Variables::new()) })
    }

    async fn fetch(&self, run: &Run, into: &Path) -> Result<(), Error> {
        let stream = self.client.bytes(&format!("/v1/blobs/{}", run.source)).await?;
        let reader = SyncIoBridge::new(StreamReader::new(stream));
        let into = into.to_owned();
        let unpack = move || archive::unpack_tar(reader, &into, Limits::default());
        tokio::task::spawn_blocking(unpack).await?.map_err(Error::Source)
    }

    async fn upload(&self, path: &Path) -> Result<sealift_model::Digest, Error> {
        let mut pause = RETRY_FIRST;
        loop {
            let file = tokio::fs::File::open(path).await.map_err(|source| Error::Io {
                action: "open",
                path: path.to_owned(),
                source,
            })?;
            let stream = ReaderStream::with_capacity(file, 256 << 10);
            match self.client.post_stream::<_, Stored>("/v1/blobs", stream).await {
                Ok(stored) => return Ok(stored.digest),
                Err(error) if error.retryable() && pause < RETRY_LONGEST => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Numbers, dates and sends events, in batches as large as what has come meanwhile.
    async fn tell(
        &self,
        run: &Run,
        attempt: u32,
        session: &SessionId,
        mut events: mpsc::Receiver<NodeEvent>,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        let path = format!("/v1/runs/{}/attempts/{attempt}/events", run.id);
        let mut seq = 0;
        let mut batch = Vec::new();
        while events.recv_many(&mut batch, BATCH).await > 0 {
            let numbered = batch.drain(..).map(|NodeEvent { node, kind }| {
                seq += 1;
                RunEvent { seq: seq - 1, at: (self.clock)(), node, kind }
            });
            let body = Events { session: session.clone(), events: numbered.collect() };
            self.insist(&path, &body, &cancel).await?;
        }
        Ok(())
    }

    async fn finish(
        &self,
        run: &Run,
        attempt: u32,
        finish: Finish,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        self.insist(&format!("/v1/runs/{}/attempts/{attempt}/finish", run.id), &finish, cancel).await
    }

    /// Sends until the server has it, or says that it no longer counts, or the attempt is stopped.
    async fn insist<B: serde::Serialize>(
        &self,
        path: &str,
        body: &B,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.client.post::<B, serde_json::Value>(path, body).await {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == Some("fenced") => {
                    cancel.cancel();
                    return Ok(());
                }
                Err(error) if error.retryable() => {
                    tracing::info!(path, error = chain(&error), "sent again");
                    tokio::select! {
                        () = cancel.cancelled() => return Ok(()),
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_LONGEST),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What a workflow has to do with others: runs that it takes turns with, people whom it asks.
struct Shared {
    groups: Groups,
    approver: Arc<dyn Approver>,
}

/// Runs what the spec names: a pipeline, with all that belongs to it, or a workflow.
async fn carry_out(
    engine: &Engine,
    config: &Config,
    spec: RunSpec,
    shared: Shared,
    events: &mpsc::Sender<NodeEvent>,
    cancel: CancellationToken,
) -> Result<Outcome, Error> {
    let graph = match config.workflow(&spec.pipeline) {
        Some(workflow) if config.pipeline(&spec.pipeline).is_none() => Some(workflow.graph(config)?),
        _ => config.graph_of(&spec.pipeline)?,
    };
    let Some(graph) = graph else {
        let (sender, mut kinds) = mpsc::channel(EVENTS);
        let forwarding = async {
            while let Some(kind) = kinds.recv().await {
                say(events, kind).await;
            }
        };
        let running = Box::pin(sealift_pipeline::execute(engine, config, spec, sender, cancel));
        return Ok(tokio::join!(running, forwarding).0?);
    };
    let name = spec.pipeline.clone();
    let Shared { groups, approver } = shared;
    let (groups, approver) = (Some(groups), Some(approver));
    let spec = WorkflowSpec { name, run: spec, groups, approver, ..WorkflowSpec::default() };
    let ended = Box::pin(execute_workflow(engine, config, &graph, spec, events.clone(), cancel)).await?;
    let output = ended.nodes.last().and_then(|node| node.output.clone());
    let steps = ended.nodes.into_iter().flat_map(|node| {
        let of = node.name;
        node.steps.into_iter().map(move |step| StepResult { name: format!("{of}: {}", step.name), ..step })
    });
    Ok(Outcome {
        passed: ended.passed,
        soft: false,
        skipped: None,
        aborted: ended.aborted,
        steps: steps.collect(),
        message: ended.message,
        // Of a workflow with one end, what that made.
        output: output.filter(|_| ended.passed),
        reports: None,
    })
}

/// Tells what concerns the run as a whole.
async fn say(events: &mpsc::Sender<NodeEvent>, kind: EventKind) {
    // Nobody listening is no reason to stop.
    events.send(NodeEvent { node: None, kind }).await.ok();
}

fn pack(output: &Path, units: &CommitUnits, archive: &Path) -> Result<u64, Error> {
    let io = |source| Error::Io { action: "write", path: archive.to_owned(), source };
    let file = fs::File::create(archive).map_err(io)?;
    let file = archive::pack(output, &units.files(), io::BufWriter::new(file)).map_err(Error::Pack)?;
    let file = file.into_inner().map_err(|error| io(error.into_error()))?;
    Ok(file.metadata().map_err(io)?.len())
}
