//! What a run is given and what it gives back.
//!
//! It must not know how runs are carried out.

use std::path::PathBuf;
use std::time::Duration;

use sealift_model::StepResult;

use crate::steps::StepSources;

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
    /// Where steps come from that are neither the project's nor Sealift's own.
    pub steps: StepSources,
    pub tuning: Tuning,
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
    /// What steps reported, whether the run passed or not, in a folder `NUMBER-NAME` for each: `artifacts/`, `numbers.ini`,
    /// `message.txt`. None if no step left anything. It lies in the run's working directory and is as little to be
    /// trusted as the steps are: it may hold links.
    pub reports: Option<PathBuf>,
}
