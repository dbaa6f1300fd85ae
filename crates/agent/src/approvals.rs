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
                // A conflict: others changed the run again and again.
                Err(error) if error.retryable() || error.code() == Some("conflict") => {
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

#[cfg(test)]
mod tests {
    use sealift_client::Address;
    use sealift_model::{Attempt, Extra, MachineId, Run, RunState, SessionId, Timestamp};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;
    use tokio::task::JoinHandle;

    use super::*;

    /// A server that says this, an answer for each request and then no more; an empty one hangs up. Gives the requests.
    fn server(listener: UnixListener, answers: Vec<(u16, &'static str)>) -> JoinHandle<Vec<String>> {
        tokio::spawn(async move {
            let mut requests = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                requests.push(String::from_utf8(request).unwrap());
                if !body.is_empty() {
                    let length = body.len();
                    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
                    stream.write_all(text.as_bytes()).await.unwrap();
                }
            }
            requests
        })
    }

    fn asking(dir: &std::path::Path) -> (UnixListener, Asking) {
        let socket = dir.join("api.sock");
        let session = SessionId::from_bytes([1; 16]);
        let attempt = Attempt {
            number: 2,
            machine: MachineId::from_bytes([1; 16]),
            session: session.clone(),
            started_at: Timestamp(1),
            end: None,
            waited: false,
        };
        let run = Run {
            id: "hello-1".parse().unwrap(),
            branch: "main".parse().unwrap(),
            commit: "a".repeat(40).parse().unwrap(),
            subject: String::new(),
            source: "b".repeat(64).parse().unwrap(),
            pipeline: "ci".to_owned(),
            state: RunState::Running,
            attempts: vec![attempt],
            queued_at: Timestamp(1),
            ended_at: None,
            message: None,
            steps: Vec::new(),
            package: None,
            approvals: Vec::new(),
            extra: Extra::new(),
        };
        let listener = UnixListener::bind(&socket).unwrap();
        let client = Client::new(Address::Unix(socket), None);
        let assignment = RunAssignment { run, attempt: 2, session };
        (listener, Asking::new(client, assignment, CancellationToken::new()))
    }

    const WAITS: (u16, &str) = (200, r#"{"node":"deploy","question":"Ship it?","since":1}"#);
    const YES: (u16, &str) = (
        200,
        r#"{"node":"deploy","question":"Ship it?","since":1,"answer":{"approved":true,"by":"ann","at":2}}"#,
    );

    #[tokio::test]
    async fn it_asks_on_until_there_is_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, asking) = asking(dir.path());
        // Nothing yet; the connection breaks; the server is in trouble; others were faster.
        let conflict = (409, r#"{"error":{"code":"conflict","message":"changed too often"}}"#);
        let server = server(listener, vec![WAITS, (0, ""), (500, "{}"), WAITS, conflict, YES]);
        let decision = asking.ask("deploy", "Ship it?").await;
        assert_eq!(decision, Decision::Approved { by: Some("ann".to_owned()) });
        let requests = server.await.unwrap();
        assert!(requests[0].starts_with("POST /v1/runs/hello-1/attempts/2/approvals HTTP"), "{requests:?}");
        assert!(requests[0].contains(r#""node":"deploy","question":"Ship it?""#), "{requests:?}");
        assert!(requests.iter().all(|request| *request == requests[0]), "{requests:?}");
    }

    #[tokio::test]
    async fn a_no_says_who_and_why() {
        for (told, wanted) in [
            (
                r#"{"node":"a","question":"b","since":1,"answer":{"approved":false,"by":"bob","at":2,"reason":"no"}}"#,
                "rejected by bob: no",
            ),
            (
                r#"{"node":"a","question":"b","since":1,"answer":{"approved":false,"by":"bob","at":2}}"#,
                "rejected by bob",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (listener, asking) = asking(dir.path());
            server(listener, vec![(200, told)]);
            assert_eq!(asking.ask("a", "b").await, Decision::Refused { reason: wanted.to_owned() });
        }
    }

    #[tokio::test]
    async fn a_server_that_cannot_ask_is_a_no() {
        for (status, told, wanted) in [
            (404, r#"{"error":{"code":"not-found","message":"no such route"}}"#, "older than the agent"),
            (400, r#"{"error":{"code":"invalid","message":"too long"}}"#, "too long"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (listener, asking) = asking(dir.path());
            server(listener, vec![(status, told)]);
            let Decision::Refused { reason } = asking.ask("a", "b").await else { panic!("it was approved") };
            assert!(reason.contains(wanted), "{reason}");
        }
    }

    #[tokio::test]
    async fn an_attempt_that_no_longer_counts_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, asking) = asking(dir.path());
        server(listener, vec![(410, r#"{"error":{"code":"fenced","message":"over"}}"#)]);
        tokio::select! {
            decision = asking.ask("a", "b") => panic!("{decision:?}"),
            () = asking.cancel.cancelled() => {}
        }
    }
}
