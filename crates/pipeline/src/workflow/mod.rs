//! A whole workflow: every node of its graph once, side by side where nothing stands between them.
//!
//! Guarantees: `WorkflowStarted` is told first and `WorkflowFinished` last, whatever happens; every node is told of,
//! by its own events or by a `NodeSkipped`; a node starts when all it needs has passed, failed softly or was left out
//! as it should be; never more nodes run at once than there are slots; a node cannot change what another one made.
//! When [`execute_workflow`] is back, or its future was dropped and a moment has passed, nothing of it runs.
//!
//! It must not know who wanted the workflow, nor how a person is asked. It reads neither environment nor terminal.

mod groups;
mod node;
mod runner;
mod schedule;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sealift_model::{EventKind, StepResult};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Graph};
use crate::engine::Engine;
use crate::env_file;
use crate::mask;
use crate::spec::RunSpec;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the variables of {node}")]
    EnvFile {
        node: String,
        #[source]
        source: env_file::Error,
    },
    #[error(transparent)]
    Mask(#[from] mask::Error),
    #[error("the workflow's task broke off")]
    Task(#[source] tokio::task::JoinError),
}

/// An event, and the node that it is of; none: it is of the workflow itself.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeEvent {
    pub node: Option<String>,
    pub kind: EventKind,
}

/// What is to be run. Nothing else is looked at: no environment, no terminal.
#[derive(Debug, Clone, Default)]
pub struct WorkflowSpec {
    /// For people.
    pub name: String,
    /// What every node is given. Of it `pipeline`, `selection`, `settings` and `resume` are not looked at; `key`, `run_id` and
    /// `work_dir` are those of the whole, each node has its own made of them.
    pub run: RunSpec,
    /// How many nodes may run at once; none: half the CPUs, at least 2 and at most 8.
    pub slots: Option<usize>,
    /// Whether the first failure ends all; none: as the file's form has it, yes without `sealift: 1`.
    pub fail_fast: Option<bool>,
    /// Who is asked; none: what wants an approval is refused.
    pub approver: Option<Arc<dyn Approver>>,
    /// Where groups of `concurrency` are kept; none: they hold within this workflow only.
    pub groups: Option<Groups>,
}

/// Where runs on this machine wait for each other.
#[derive(Debug, Clone)]
pub struct Groups {
    /// A directory that all runs of the project share.
    pub dir: PathBuf,
    /// Grows from an older run to a newer one: a run's number, or the commit's time. With it a run is refused once a
    /// newer one has passed in the same group, so that nothing new is overwritten by something old.
    pub order: Option<u64>,
}

/// Somebody who can say yes or no.
#[async_trait]
pub trait Approver: Send + Sync + std::fmt::Debug {
    /// Asks; the future is dropped when the answer is no longer wanted.
    async fn ask(&self, node: &str, question: &str) -> Decision;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Approved {
        /// Who agreed, for the log.
        by: Option<String>,
    },
    Refused {
        reason: String,
    },
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEnd {
    Passed,
    /// It failed, and by its `soft-fail` that does not matter.
    Soft,
    Failed,
    /// It was stopped.
    Aborted,
    /// It never ran; `fine` when that is as it should be.
    Skipped {
        fine: bool,
    },
}

impl NodeEnd {
    /// Whether what needs it may run.
    #[must_use]
    pub fn is_fine(self) -> bool {
        matches!(self, NodeEnd::Passed | NodeEnd::Soft | NodeEnd::Skipped { fine: true })
    }
}

/// What became of a node.
#[derive(Debug, Clone)]
pub struct NodeOutcome {
    pub name: String,
    pub pipeline: String,
    pub end: NodeEnd,
    /// Why it did not pass, or was skipped.
    pub message: Option<String>,
    pub steps: Vec<StepResult>,
    /// What it made, below the working directory; of a node that passed or failed softly.
    pub output: Option<PathBuf>,
}

/// What became of a workflow.
#[derive(Debug, Clone)]
pub struct WorkflowOutcome {
    /// Every node ended well.
    pub passed: bool,
    /// It was cancelled.
    pub aborted: bool,
    pub message: Option<String>,
    /// In the order of the graph.
    pub nodes: Vec<NodeOutcome>,
}

/// Runs a workflow's graph. Events go to `events`; one who does not take them slows the workflow down, one who has
/// gone away is no longer told. A node that fails is no error but part of the [`WorkflowOutcome`].
///
/// Dropping the future cancels all nodes.
///
/// # Errors
/// When nothing could be started: a file of variables cannot be read.
pub async fn execute_workflow(
    engine: &Engine,
    config: &Config,
    graph: &Graph,
    spec: WorkflowSpec,
    events: mpsc::Sender<NodeEvent>,
    cancel: CancellationToken,
) -> Result<WorkflowOutcome, Error> {
    // A task of its own, so that it can clean up even when nobody waits for it any more.
    let cancel = cancel.child_token();
    let guard = cancel.clone().drop_guard();
    let (engine, config, graph) = (engine.clone(), config.clone(), graph.clone());
    let result = tokio::spawn(runner::run(engine, config, graph, spec, events, cancel)).await;
    drop(guard);
    result.map_err(Error::Task)?
}
