//! Asks people whether a node may begin, by way of the server: it keeps the question, and knows who answers.
//!
//! It must not know what is asked for, nor who may say yes.

use async_trait::async_trait;
use sealift_client::Client;
use sealift_client::api::AskApproval;
use sealift_model::diagnostic::chain;
use sealift_model::{Approval, RunAssignment};
use sealift_pipeline::{Approver, Decision};
use tokio_util::sync::CancellationToken;

use crate::runs::{RETRY_FIRST, RETRY_LONGEST};

/// Asks for one attempt.
#[derive(Debug)]
pub(crate) struct Asking {
    client: Client,
    path: String,
    assignment: RunAssignment,
    /// Ends the attempt.
    cancel: CancellationToken,
}

impl Asking {
    pub(crate) fn new(client: Client, assignment: RunAssignment, cancel: CancellationToken) -> Self {
        let path = format!("/v1/runs/{}/attempts/{}/approvals", assignment.run.id, assignment.attempt);
        Self { client, path, assignment, cancel }
    }
}

#[async_trait]
impl Approver for Asking {
    /// The server holds each request until there is an answer, and lets go of it now and then. A server that is away
    /// is asked again when it is back.
    async fn ask(&self, node: &str, question: &str) -> Decision {
        let session = self.assignment.session.clone();
        let ask = AskApproval { session, node: node.to_owned(), question: question.to_owned() };
        let mut pause = RETRY_FIRST;
        loop {
            match self.client.post::<_, Approval>(&self.path, &ask).await {
                Ok(approval) => {
                    if let Some(answer) = approval.answer {
                        return decision(answer);
                    }
                    pause = RETRY_FIRST;
                }
                Err(error) if error.retryable() => {
                    tracing::info!(path = self.path, error = chain(&error), "asked again");
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
                Err(error) => match error.code() {
                    Some("fenced") => {
                        // Whatever is answered is for another attempt.
                        self.cancel.cancel();
                        return std::future::pending().await;
                    }
                    Some("not-found") => {
                        let reason = "this server cannot ask anybody: it is older than the agent".to_owned();
                        return Decision::Refused { reason };
                    }
                    _ => {
                        return Decision::Refused {
                            reason: format!("nobody could be asked: {}", chain(&error)),
                        };
                    }
                },
            }
            tokio::time::sleep(pause).await;
        }
    }
}

fn decision(answer: sealift_model::Answer) -> Decision {
    if answer.approved {
        return Decision::Approved { by: Some(answer.by) };
    }
    let reason = answer.reason.map_or_else(String::new, |reason| format!(": {reason}"));
    Decision::Refused { reason: format!("rejected by {}{reason}", answer.by) }
}
