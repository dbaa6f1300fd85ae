//! What a run asks people before it goes on, and what they said.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A node of a run that wants a person's word before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The node, which asks once in a run: an answer holds for all attempts that follow.
    pub node: String,
    pub question: String,
    /// When the attempt that asks began to wait.
    pub since: Timestamp,
    /// None while it is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// What somebody said. It is not taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub approved: bool,
    /// The name by which they called themselves.
    pub by: String,
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
