//! What a run is given and what it gives back.
//!
//! It must not know how runs are carried out.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sealift_model::StepResult;
use tokio::sync::Notify;

use crate::checkpoint::Checkpoint;
use crate::engine::Interactive;

/// Where the source tree is.
#[derive(Debug, Clone)]
pub enum Source {
    /// A directory of the run's own, which the steps may change.
    Own(PathBuf),
    /// Somebody's working directory: it is copied, without the run's working directory and what the ignore file names.
    Copy(PathBuf),
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
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning { command_limit: None, no_response_limit: None, service_limit: Duration::from_secs(60) }
    }
}

impl Default for Source {
    fn default() -> Source {
        Source::Own(PathBuf::new())
    }
}

/// What is to be run.
#[derive(Debug, Clone, Default)]
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
    pub git: Git,
    pub started_by: String,
    pub env: Vec<(String, String)>,
    /// Variables whose values must not be shown.
    pub hidden_env: Vec<(String, String)>,
    /// 24 hex digits.
    pub run_id: String,
    pub tuning: Tuning,
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
    /// Starts behind the step of this checkpoint.
    pub resume: Option<Checkpoint>,
    /// The terminal of whoever started the run, for `internal/shell`.
    pub terminal: Option<Arc<dyn Terminal>>,
    /// Ends an `internal/watch`, and the run goes on.
    pub interrupt: Option<Arc<Notify>>,
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
    pub passed: bool,
    /// It was cancelled.
    pub aborted: bool,
    pub steps: Vec<StepResult>,
    /// Why it did not pass.
    pub message: Option<String>,
    /// The output directory if the steps put anything there, else the source; none if it did not pass.
    pub output: Option<PathBuf>,
}
