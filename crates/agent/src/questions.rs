//! What people want to know of a unit that only this machine can tell: its journal, and what systemctl says of it.
//!
//! The tools of systemd answer, and what they print goes to the server as it comes. Nobody but the units that this agent
//! holds is told of.

use std::process::Stdio;
use std::sync::Arc;

use sealift_client::api::{About, Question};
use sealift_client::{Client, Servers};
use sealift_model::MachineId;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use crate::systemd::Scope;
use crate::units::Units;

/// Questions that are answered at once, followed journals among them.
const AT_ONCE: usize = 32;

/// Answers questions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Questions {
    machine: MachineId,
    client: Client,
    units: Units,
    scope: Scope,
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Questions {
    pub(crate) fn new(machine: MachineId, client: Client, units: Units, scope: Scope) -> Self {
        let (room, stop) = (Arc::new(Semaphore::new(AT_ONCE)), CancellationToken::new());
        Self { machine, client, units, scope, room, stop }
    }

    /// Ends the answers that are under way.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Answers beside everything else.
    pub(crate) fn answer(&self, question: Question) {
        let questions = self.clone();
        tokio::spawn(async move {
            let stop = questions.stop.clone();
            stop.run_until_cancelled(questions.work(question)).await;
        });
    }

    async fn work(self, question: Question) {
        let client = match question.answer_to.as_deref().map(str::parse::<Servers>) {
            Some(Ok(servers)) => self.client.at(servers),
            _ => self.client.clone(),
        };
        let path = format!("/v1/machines/{}/answers/{}", self.machine, question.id);
        let sent = match self.command(&question) {
            Ok(command) => stream(&client, &path, command).await,
            Err(why) => refuse(&client, &path, why).await,
        };
        if let Err(error) = sent
            && error.code() != Some("fenced")
        {
            tracing::info!(unit = %question.unit, %error, "an answer did not get through");
        }
    }

    fn command(&self, question: &Question) -> Result<Command, String> {
        let Ok(_room) = self.room.try_acquire() else {
            return Err(format!("{AT_ONCE} others are being answered; try again later"));
        };
        if self.scope == Scope::Private {
            return Err(
                "units of a private systemd have no journal; run the agent where systemd was booted".into()
            );
        }
        let unit = self.units.name_in_systemd(&question.unit);
        let mut command = match &question.about {
            About::Journal { lines, follow, format } => {
                let mut command = Command::new("journalctl");
                if self.scope == Scope::User {
                    command.arg("--user");
                }
                command.arg("--no-pager").arg(format!("--lines={lines}")).arg(format!("--output={format}"));
                if *follow {
                    command.arg("--follow");
                }
                command
            }
            About::Status => {
                let mut command = Command::new("systemctl");
                if self.scope == Scope::User {
                    command.arg("--user");
                }
                command.args(["status", "--full", "--no-pager", "--lines=10"]);
                command
            }
            About::Unknown => return Err("its agent is older than the question".into()),
        };
        match &question.about {
            About::Journal { .. } => command.arg(format!("--unit={unit}")),
            // A unit's name never begins with a dash.
            _ => command.arg(unit.as_str()),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }
}

/// Sends what the command prints, until it ends or nobody listens any more.
async fn stream(client: &Client, path: &str, mut command: Command) -> Result<(), sealift_client::Error> {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return refuse(client, path, format!("cannot run {:?}: {error}", command.as_std().get_program()))
                .await;
        }
    };
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    // Dropped with this future, and the child with it.
    client.post_stream::<_, ()>(path, ReaderStream::new(stdout)).await
}

async fn refuse(client: &Client, path: &str, why: String) -> Result<(), sealift_client::Error> {
    let body = futures_util::stream::once(async move { Ok(bytes::Bytes::from(why)) });
    client.post_stream::<_, ()>(&format!("{path}?failed=true"), Box::pin(body)).await
}
