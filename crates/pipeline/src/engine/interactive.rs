//! A command in a container with a terminal, for people.
//!
//! It must not know where the person's own terminal is.

use std::pin::Pin;

use bollard::errors::Error as ApiError;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::AsyncWrite;

use super::{Engine, Error, QUICK, SLOW, within};

/// A command that runs in a container, with a terminal of its own there.
pub struct Interactive {
    /// What is typed goes here.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What its terminal shows, control sequences included; ends with the command.
    pub output: BoxStream<'static, std::io::Result<Bytes>>,
    /// Tells it the size of the person's window.
    pub resizer: Resizer,
}

impl std::fmt::Debug for Interactive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interactive").field("resizer", &self.resizer).finish_non_exhaustive()
    }
}

/// Speaks of the size of a window, and of the command's end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resizer {
    engine: Engine,
    id: String,
}

impl Resizer {
    /// Sets the size in columns and rows.
    ///
    /// # Errors
    /// When the command has ended, or the engine does not answer.
    pub async fn resize(&self, (width, height): (u16, u16)) -> Result<(), Error> {
        let what = || "cannot set the size of the terminal".to_owned();
        let size = ResizeExecOptions { width, height };
        within(QUICK, what, self.engine.docker.resize_exec(&self.id, size)).await
    }

    /// The code of a command that has ended; none while it runs.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn code(&self) -> Result<Option<i64>, Error> {
        let what = || "cannot ask for the command's end".to_owned();
        let state = within(QUICK, what, self.engine.docker.inspect_exec(&self.id)).await?;
        Ok(if state.running == Some(true) { None } else { state.exit_code })
    }
}

impl Engine {
    /// Starts `command` in a running container, with a terminal of `size` (columns, rows). `env` is added to the
    /// container's own variables and seen by nobody else.
    ///
    /// # Errors
    /// When the container is not running, or has no such command.
    pub async fn interactive(
        &self,
        container: &str,
        command: &[String],
        dir: Option<&str>,
        env: &[(String, String)],
        size: (u16, u16),
    ) -> Result<Interactive, Error> {
        let (id, input, output) = self.exec(container, command, dir, env, true).await?;
        let resizer = Resizer { engine: self.clone(), id };
        // Podman takes a size only of what runs already.
        if let Err(error) = resizer.resize(size).await {
            tracing::debug!(%error, "the terminal keeps its first size");
        }
        let output = output.map_ok(|piece| piece.into_bytes()).map_err(std::io::Error::other);
        Ok(Interactive { input, output: output.boxed(), resizer })
    }

    /// Starts a command; its id and its streams.
    pub(crate) async fn exec(
        &self,
        container: &str,
        command: &[String],
        dir: Option<&str>,
        env: &[(String, String)],
        terminal: bool,
    ) -> Result<ExecParts, Error> {
        let options = CreateExecOptions {
            attach_stdin: Some(terminal),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(terminal),
            env: Some(env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            cmd: Some(command.to_vec()),
            working_dir: dir.map(str::to_owned),
            // Podman looks for them in what is written, and lets go in the middle of a paste.
            detach_keys: Some(String::new()),
            ..CreateExecOptions::default()
        };
        // Not the command itself: nobody knows what a person writes in there.
        let what = || format!("cannot run a command in container {container}");
        let id = within(QUICK, what, self.docker.create_exec(container, options)).await?.id;
        let start = StartExecOptions { tty: terminal, ..StartExecOptions::default() };
        match within(SLOW, what, self.docker.start_exec(&id, Some(start))).await? {
            StartExecResults::Attached { input, output } => Ok((id, input, output.boxed())),
            StartExecResults::Detached => {
                Err(Error::Refused { what: what(), answer: "the engine keeps its streams".to_owned() })
            }
        }
    }

    /// The code of a command that has ended; none while it runs.
    pub(crate) async fn exec_code(&self, id: &str) -> Result<Option<i64>, Error> {
        Resizer { engine: self.clone(), id: id.to_owned() }.code().await
    }
}

/// A command's id, its input and its output.
pub(crate) type ExecParts = (
    String,
    Pin<Box<dyn AsyncWrite + Send>>,
    BoxStream<'static, Result<bollard::container::LogOutput, ApiError>>,
);
