//! Runs: one pipeline on one commit, from the queue to its one end.

use serde::{Deserialize, Serialize};

use crate::{
    Approval, BranchName, CommitId, Digest, Extra, MachineId, PackageName, RunId, SessionId, Timestamp,
};

/// Where a run stands. `Passed`, `Failed` and `Aborted` are ends: a run comes to exactly one of them, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    Queued,
    Running,
    Passed,
    Failed,
    Aborted,
}

impl RunState {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, RunState::Passed | RunState::Failed | RunState::Aborted)
    }
}

/// A run of a pipeline. Nothing that attempt N writes counts once attempt N+1 exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub id: RunId,
    pub branch: BranchName,
    pub commit: CommitId,
    /// First line of the commit's message, for lists.
    #[serde(default)]
    pub subject: String,
    /// The source tree as a tar archive, by digest.
    pub source: Digest,
    pub pipeline: String,
    pub state: RunState,
    /// The attempts so far, the newest last; empty while it was never handed out.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    pub queued_at: Timestamp,
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// Why it ended as it did, for people.
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default)]
    pub steps: Vec<StepResult>,
    /// What it made, when it passed and made something.
    #[serde(default)]
    pub package: Option<PackageName>,
    /// What was asked of people: that which waits for an answer now, and all that was answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Run {
    /// The attempt that counts: the newest.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// What waits for a person's answer.
    pub fn unanswered(&self) -> impl Iterator<Item = &Approval> {
        self.approvals.iter().filter(|approval| approval.answer.is_none())
    }

    /// Nobody waits any more: the attempt that asked is over. What was answered stays.
    pub fn stop_asking(&mut self) {
        self.approvals.retain(|approval| approval.answer.is_some());
    }
}

/// One hand-out of a run to a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    pub machine: MachineId,
    /// The agent's life that holds it.
    pub session: SessionId,
    pub started_at: Timestamp,
    #[serde(default)]
    pub end: Option<AttemptEnd>,
    /// It was lost while it waited for a person, which may take days: no reason to give the run up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waited: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptEnd {
    Passed,
    Failed,
    Aborted,
    /// The agent that held it went away; the run was queued again or given up.
    Lost,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepOutcome {
    Passed,
    Failed,
    /// Stopped by a limit of time.
    TimedOut,
    Aborted,
    /// Not run: its condition did not hold, or it was left out on request.
    Skipped,
}

/// What is kept of a step besides its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    pub name: String,
    pub outcome: StepOutcome,
    /// The real exit code; none where no process ended (a step that could not be started, a limit of time).
    #[serde(default)]
    pub exit_code: Option<i32>,
    pub millis: u64,
    /// True for steps of `after-steps`.
    #[serde(default)]
    pub after: bool,
}
