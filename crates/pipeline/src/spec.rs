//! What a run is given and what it gives back.
//!
//! It must not know how runs are carried out.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sealift_model::StepResult;
use tokio_util::sync::CancellationToken;

use crate::cache::CacheSpec;
use crate::checkpoint::Checkpoint;
use crate::engine::Interactive;
use crate::interrupts::Interrupts;

use crate::config::Settings;

use crate::steps::StepSources;

/// Where the source tree is.
#[derive(Debug, Clone)]
pub enum Source {
    /// A directory of the run's own, which the steps may change.
    Own(PathBuf),
    /// Somebody's working directory, which stays as it is: the steps get a view of it that they may change, or a copy
    /// where the system has no such views; without the run's working directory and what the ignore file names.
    Copy(PathBuf),
    /// The same for a tree that is wanted as it is, with nothing left out: what another run made.
    Whole(PathBuf),
    /// Somebody's working directory itself: the steps change it.
    Direct(PathBuf),
}

/// Which steps are wanted, by the name people see, by id, or by number (counted from 1, after-steps go on counting).
/// A name that no step has is an error before anything starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// These and no others; empty: all.
    pub only: Vec<String>,
    /// All but these.
    pub skip: Vec<String>,
    /// This one and those behind it.
    pub from: Option<String>,
}

/// What is known of the commit.
#[derive(Debug, Clone, Default)]
pub struct Git {
    pub branch: String,
    pub commit: String,
    pub tag: String,
    pub domain: String,
    pub owner: String,
    pub repository: String,
}

/// Values for tests and for those who know better than the file.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Instead of the file's `command-timeout`.
    pub command_limit: Option<Duration>,
    /// Instead of the file's `no-response-timeout`.
    pub no_response_limit: Option<Duration>,
    /// How long a service may take to be ready.
    pub service_limit: Duration,
    /// Copies a source that is to stay as it is, even where the system could give a view of it.
    pub copy_source: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            command_limit: None,
            no_response_limit: None,
            service_limit: Duration::from_secs(60),
            copy_source: false,
        }
    }
}

impl Source {
    /// The directory that is named.
    #[must_use]
    pub fn dir(&self) -> &Path {
        let (Source::Own(dir) | Source::Copy(dir) | Source::Whole(dir) | Source::Direct(dir)) = self;
        dir
    }
}

impl Default for Source {
    fn default() -> Source {
        Source::Own(PathBuf::new())
    }
}

/// What is to be run.
#[derive(Clone, Default)]
pub struct RunSpec {
    /// Unique among the runs on this engine, such as `hello-12.1`.
    pub key: String,
    /// Who cleans up after a crash: an agent, a user's own directory.
    pub owner: String,
    pub project: String,
    pub pipeline: String,
    /// Whether steps are told that this is a deploy and not a build.
    pub deploy: bool,
    /// Replaces the steps, where the pipeline has some for it.
    pub deploy_target: Option<String>,
    pub source: Source,
    /// A directory of the run's own: its cache is kept there from run to run, everything else is made anew.
    pub work_dir: PathBuf,
    /// Directories that are no part of a [`Source::Copy`], besides `work_dir`.
    pub without: Vec<PathBuf>,
    pub git: Git,
    pub started_by: String,
    pub env: Vec<(String, String)>,
    /// Variables whose values must not be shown.
    pub hidden_env: Vec<(String, String)>,
    /// All secrets there are. In Sealift's own form (`sealift: 1`) a pipeline is given those that it names; otherwise
    /// none of them. All of them are masked.
    pub secrets: Vec<(String, String)>,
    /// The paths that changed, from the root of the source, for conditions on them; none where that is not known.
    pub changed: Option<Vec<String>>,
    pub selection: Selection,
    /// Instead of the pipeline's own settings: those of its place in a workflow, over the pipeline's.
    pub settings: Option<Settings>,
    /// 24 hex digits.
    pub run_id: String,
    /// Where steps come from that are neither the project's nor Sealift's own.
    pub steps: StepSources,
    pub tuning: Tuning,
    /// Where the cache comes from and goes to; none: it is empty, and lost afterwards.
    pub cache: Option<CacheSpec>,
    /// Files of credentials for registries, as Docker and Podman write them, in the order they count. See
    /// [`crate::auth_file_places`].
    pub auth_files: Vec<PathBuf>,
    /// `internal/docker-push` names images and does not push them.
    pub docker_local: bool,
    /// Whether `docker: true` gives the box this machine's engine, and with it the whole machine.
    pub allow_docker: bool,
    /// Whether `volumes` of boxes and services may name directories of this machine.
    pub enable_volumes: bool,
    /// Whether `ports` are published on this machine.
    pub expose_ports: bool,
    /// A network of the engine's that is there already, instead of one of the run's own.
    pub docker_network: Option<String>,
    /// The memory of the whole run in bytes. With services, the box gets three quarters and they share the rest.
    pub memory: Option<u64>,
    /// The name under which the box of a passed run is kept as an image of the engine's, with its source and output
    /// trees: `name:tag`.
    pub commit: Option<String>,
    /// How many runs this one is part of: 0, but for projects that are built as services.
    pub nesting: u8,
    /// Where `checkpoint:` keeps the state after a step; without it, it is not kept.
    pub checkpoint_dir: Option<PathBuf>,
    /// Keeps the state there as well when a step fails, under [`crate::name_of_failure`]; only the newest.
    pub checkpoint_on_failure: bool,
    /// Starts behind the step of this checkpoint.
    pub resume: Option<Checkpoint>,
    /// The terminal of whoever started the run, for `internal/shell`.
    pub terminal: Option<Arc<dyn Terminal>>,
    /// Gives that terminal a shell in the box when a step has failed.
    pub shell_on_failure: bool,
    /// Ends the steps, and with them the run, but for its after-steps. The token that the run is started with ends
    /// those as well.
    pub stop: Option<CancellationToken>,
    /// Where an `internal/watch` waits for an interrupt, which ends it and not the run.
    pub interrupts: Arc<Interrupts>,
}

impl fmt::Debug for RunSpec {
    /// Without values of variables, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunSpec { key, project, pipeline, source, work_dir, .. } = self;
        f.debug_struct("RunSpec")
            .field("key", key)
            .field("project", project)
            .field("pipeline", pipeline)
            .field("source", source)
            .field("work_dir", work_dir)
            .finish_non_exhaustive()
    }
}

/// A person's terminal.
pub trait Terminal: Send + Sync + fmt::Debug {
    /// Columns and rows.
    fn size(&self) -> (u16, u16);

    /// Connects it with a command in a container until that ends; dropping the future lets go of it.
    fn attach(&self, command: Interactive) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>>;
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Also when there was nothing to do, see `skipped`.
    pub passed: bool,
    /// It did not pass, and by its `soft-fail` that fails nothing else.
    pub soft: bool,
    /// Why it was not run: its condition does not hold.
    pub skipped: Option<String>,
    /// It was cancelled.
    pub aborted: bool,
    pub steps: Vec<StepResult>,
    /// Why it did not pass.
    pub message: Option<String>,
    /// What it published; else the output directory if the steps put anything there, else the source. None if it was
    /// skipped, or failed other than softly.
    pub output: Option<PathBuf>,
    /// What steps reported, whether the run passed or not, in a folder `NUMBER-NAME` for each: `artifacts/`, `numbers.ini`,
    /// `message.txt`. None if no step left anything. It lies in the run's working directory and is as little to be
    /// trusted as the steps are: it may hold links.
    pub reports: Option<PathBuf>,
}
