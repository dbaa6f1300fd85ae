//! What a pipeline says while it runs: the same events are printed, sent, logged and read back.

use serde::{Deserialize, Serialize};

use crate::{StepOutcome, Timestamp};

/// One line of a run's log. `seq` counts from 0 within an attempt without gaps, so that a resent batch is recognised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    pub seq: u64,
    pub at: Timestamp,
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
        /// What the step wrote to `WERCKER_REPORT_MESSAGE_FILE`, or why it was stopped.
        #[serde(default)]
        message: Option<String>,
    },
    /// The last event of an attempt.
    PipelineFinished {
        passed: bool,
        millis: u64,
        #[serde(default)]
        message: Option<String>,
    },
}
