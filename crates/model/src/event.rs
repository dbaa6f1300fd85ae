//! What a pipeline says while it runs: the same events are printed, sent, logged and read back.

use serde::{Deserialize, Serialize};

use crate::{StepOutcome, Timestamp};

/// One line of a run's log. `seq` counts from 0 within an attempt without gaps, so that a resent batch is recognised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    pub seq: u64,
    pub at: Timestamp,
    /// The node of a workflow that it concerns; none for a run of a single pipeline and for the workflow itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Which of a step's two streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What happened. In JSON the field `event` names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// The first event of an attempt.
    PipelineStarted {
        pipeline: String,
        /// The box's image.
        image: String,
        /// Names of the steps to come, in order.
        steps: Vec<String>,
    },
    /// Progress outside of steps: pulling, starting services, waiting for them, storing.
    Note { text: String },
    /// Something that the user should mend but that stops nothing.
    Warning { text: String },
    StepStarted {
        /// Counted from 0, after-steps go on counting.
        step: usize,
        name: String,
        #[serde(default)]
        after: bool,
    },
    /// One line of output without its newline, cut at 16 KiB (the rest follows as further events with `partial`).
    /// Bytes that are not UTF-8 are replaced by U+FFFD.
    Output {
        step: usize,
        stream: Stream,
        text: String,
        /// No newline followed: the next output of this stream goes on in the same line.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        partial: bool,
    },
    StepFinished {
        step: usize,
        name: String,
        outcome: StepOutcome,
        #[serde(default)]
        exit_code: Option<i32>,
        millis: u64,
        #[serde(default)]
        after: bool,
        /// What the step wrote to `WERCKER_REPORT_MESSAGE_FILE`, or why it was stopped or skipped.
        #[serde(default)]
        message: Option<String>,
        /// It did not pass, and the pipeline goes on nevertheless.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        soft: bool,
    },
    /// What the JUnit files in the report directory say; told before the pipeline's end, if there are any.
    TestsReported {
        tests: u64,
        failures: u64,
        errors: u64,
        skipped: u64,
        millis: u64,
        /// Names of those that did not pass, the first fifty.
        #[serde(default)]
        failed: Vec<String>,
    },
    /// The last event of an attempt, unless it is one of a workflow.
    PipelineFinished {
        passed: bool,
        millis: u64,
        #[serde(default)]
        message: Option<String>,
    },
    /// The first event of an attempt at a workflow. What follows carries the name of its node.
    WorkflowStarted { workflow: String, nodes: Vec<NodePlan> },
    /// A node cannot begin yet although all that it needs has passed: an approval, or a group that is busy.
    NodeWaiting {
        reason: String,
        /// What a person is asked, where it waits for an approval.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        question: Option<String>,
    },
    /// A node will not run.
    NodeSkipped {
        reason: String,
        /// Whether that is as it should be (a condition does not hold), so that those behind it run.
        fine: bool,
    },
    /// A pipeline did not pass and is tried again; a new `PipelineStarted` follows.
    NodeRetried {
        /// The attempt that follows, counted from 2.
        attempt: u32,
        after_millis: u64,
    },
    /// The last event of an attempt at a workflow.
    WorkflowFinished {
        passed: bool,
        millis: u64,
        #[serde(default)]
        message: Option<String>,
    },
}

/// A node of a workflow's graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Unique in the workflow: `test`, or `test (RUBY=3.2)` for a cell of a matrix.
    pub name: String,
    /// The pipeline of the file.
    pub pipeline: String,
    /// Names of the nodes that come before it.
    #[serde(default)]
    pub needs: Vec<String>,
}
