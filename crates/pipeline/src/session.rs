//! One shell in a container, fed step by step: what a step exports, the next one sees.
//!
//! A small supervisor starts the shell and listens on a fifo in a directory that the container can only read. The
//! shell writes `end STEP CODE` there after each step, the supervisor itself writes `exit CODE` when the shell has
//! gone, and repeats both, behind a secret nonce, on the two streams that the steps write to. So the order of output
//! and end is kept, and a step can neither close the way its end is told by nor lose its real exit code, be it by
//! `exit`, `set -e`, `exec` or `kill`.
//!
//! Guarantees: a step's end is told once; its output is told first and whole; the memory used does not depend on
//! how much a step writes; a step is left alone no longer than its limits.
//!
//! It must not know what the steps are for.

use std::time::Duration;

use bollard::container::LogOutput;
use futures_util::StreamExt;
use sealift_model::{EventKind, Stream};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::engine::{self, Attached, Engine};
use crate::lines::{LineReader, Mark, Piece};
use crate::shell;

/// Where the control directory is mounted in the container, read-only: the steps' scripts and the fifo.
pub(crate) const CONTROL: &str = "/sealift";
/// The fifo's name in it.
pub(crate) const REPORT: &str = "report";

/// How long the shell may take to read a line that is written to it.
const WRITE: Duration = Duration::from_secs(20);
/// How often a silent session is looked at: its supervisor may have been killed while others hold its streams.
const LOOK: Duration = Duration::from_secs(5);
/// Words of the supervisor fit in a pipe's atomic write. A step may have made the stream non-blocking for all who
/// share it, so a write is tried until it is done. Its own complaints go nowhere: they are no output of a step.
const SUPERVISOR: &str = r#"
IFS= read -r nonce || exit 125
exec 4>&2 2>/dev/null
tell() {
  while IFS= read -r line; do
    until printf '%s %s\n' "$nonce" "$line"; do sleep 1; done
    until printf '%s %s\n' "$nonce" "$line" >&4; do sleep 1; done
    case $line in exit*) return;; esac
  done
}
tell <>/sealift/report &
(exec "$@" 2>&4 4>&-)
echo "exit $?" >/sealift/report
wait
"#;
const DEFAULT_SHELL: &str = "if [ -x /bin/bash ]; then exec /bin/bash; fi; exec /bin/sh";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("the shell does not take its commands")]
    Write(#[source] std::io::Error),
    #[error("no random numbers for the session")]
    Random(#[source] std::io::Error),
}

/// Where the output goes.
type Events = mpsc::Sender<EventKind>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For the whole step.
    pub(crate) command: Duration,
    /// Without output.
    pub(crate) silence: Duration,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepEnd {
    /// With this code; the shell goes on or not.
    Code { code: i32, shell_lives: bool },
    /// It was silent or busy for too long; it is still there.
    TimedOut { silent: bool },
    /// It is still there.
    Cancelled,
}

pub(crate) struct Session {
    engine: Engine,
    shell: Attached,
    readers: [LineReader; 2],
}

impl Session {
    /// Starts a shell in `container` with `env` exported. `command` is the shell to use; if empty, bash where the box
    /// has it, else sh.
    pub(crate) async fn open(
        engine: &Engine,
        container: &str,
        command: &[String],
        env: &[(String, String)],
    ) -> Result<Session, Error> {
        let mut argv: Vec<String> = ["/bin/sh", "-c", SUPERVISOR, "sealift"].map(str::to_owned).to_vec();
        if command.is_empty() {
            argv.extend(["/bin/sh", "-c", DEFAULT_SHELL].map(str::to_owned));
        } else {
            argv.extend(command.iter().cloned());
        }
        let nonce = nonce()?;
        let shell = engine.attach(container, argv).await?;
        let readers = [LineReader::new(&nonce), LineReader::new(&nonce)];
        let mut session = Session { engine: engine.clone(), shell, readers };
        // By the shell's input and not in the container's description: values may be secret.
        let mut greeting = format!("{nonce}\n");
        for (name, value) in env {
            greeting.push_str(&format!("export {name}={}\n", shell::quote(value)));
        }
        greeting.push_str(&format!(". {CONTROL}/init.sh\n"));
        session.write(&greeting).await?;
        Ok(session)
    }

    /// Sources `script` (a path in the container) as step number `step`, and tells its output to `events`.
    pub(crate) async fn step(
        &mut self,
        step: usize,
        script: &str,
        limits: Limits,
        cancel: &CancellationToken,
        events: &Events,
    ) -> Result<StepEnd, Error> {
        // Whatever the step does to its first three descriptors by `exec` ends with it: they are put back from 8
        // and 9, which it cannot see. Tracing ends with it too, or our own lines would show.
        let commands = format!(
            ". {script} 8>&1 9>&2 </dev/null >&8 2>&9 8>&- 9>&-\n\
             {{ sealift_code=$?; set +xv; command echo \"end {step} $sealift_code\" >{CONTROL}/{REPORT}; }} 2>/dev/null\n"
        );
        let started = Instant::now();
        let mut heard = started;
        let mut looked = started;
        let mut marks: [Option<Mark>; 2] = [None, None];
        let mut pieces = Vec::new();
        // A shell that is gone does not read; its end is in its output.
        let written = self.write(&commands).await;
        loop {
            if let [Some(out), Some(err)] = marks {
                return Ok(end_of(out, err));
            }
            let hard = started + limits.command;
            let silent = heard + limits.silence;
            let look = looked.max(heard) + LOOK;
            let next = tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.flush(step, events).await;
                    return Ok(StepEnd::Cancelled);
                }
                next = self.shell.output.next() => next,
                () = sleep_until(hard.min(silent)) => {
                    self.flush(step, events).await;
                    return Ok(StepEnd::TimedOut { silent: silent < hard });
                }
                () = sleep_until(look) => {
                    looked = Instant::now();
                    if self.engine.exit_code(&self.shell.id).await?.is_none() {
                        continue;
                    }
                    // Gone without a word. What it wrote may still be on its way.
                    timeout(LOOK, self.shell.output.next()).await.unwrap_or_default()
                }
            };
            let (stream, bytes) = match next {
                Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                    (Stream::Stdout, message)
                }
                Some(Ok(LogOutput::StdErr { message })) => (Stream::Stderr, message),
                Some(Ok(LogOutput::StdIn { .. })) => continue,
                Some(Err(error)) => {
                    tracing::debug!(%error, "the shell's output broke off");
                    return self.lost(written, step, events).await;
                }
                None => return self.lost(written, step, events).await,
            };
            let index = usize::from(stream == Stream::Stderr);
            self.readers[index].push(&bytes, &mut pieces);
            for piece in pieces.drain(..) {
                match piece {
                    Piece::Text { text, partial } => {
                        let output = EventKind::Output { step, stream, text, partial };
                        // A reader that does not read must not keep a cancelled step alive.
                        tokio::select! { _ = events.send(output) => {}, () = cancel.cancelled() => {} }
                    }
                    Piece::Mark(mark) if concerns(mark, step) => marks[index] = Some(mark),
                    Piece::Mark(_) => {}
                }
            }
            heard = Instant::now();
        }
    }

    /// The streams have ended without a word of the supervisor: it was killed as well, the engine knows its code.
    async fn lost(
        &mut self,
        written: Result<(), Error>,
        step: usize,
        events: &Events,
    ) -> Result<StepEnd, Error> {
        self.flush(step, events).await;
        let deadline = Instant::now() + LOOK;
        loop {
            if let Some(code) = self.engine.exit_code(&self.shell.id).await? {
                let code = i32::try_from(code).unwrap_or(-1);
                // A supervisor that went away has not passed anything, whatever code it had.
                return Ok(StepEnd::Code { code: if code == 0 { -1 } else { code }, shell_lives: false });
            }
            if Instant::now() > deadline {
                written?;
                return Ok(StepEnd::Code { code: -1, shell_lives: false });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Tells what was held back of unfinished lines.
    async fn flush(&mut self, step: usize, events: &Events) {
        for (stream, reader) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&mut self.readers) {
            let mut pieces = Vec::new();
            reader.finish(&mut pieces);
            for piece in pieces {
                if let Piece::Text { text, partial } = piece {
                    // One who does not read must not hold up the end.
                    let output = EventKind::Output { step, stream, text, partial };
                    timeout(Duration::from_secs(1), events.send(output)).await.ok();
                }
            }
        }
    }

    async fn write(&mut self, text: &str) -> Result<(), Error> {
        let write = async {
            self.shell.input.write_all(text.as_bytes()).await?;
            self.shell.input.flush().await
        };
        match timeout(WRITE, write).await {
            Ok(result) => result.map_err(Error::Write),
            Err(_) => Err(Error::Write(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

fn concerns(mark: Mark, step: usize) -> bool {
    match mark {
        Mark::End { step: ended, .. } => ended == step,
        Mark::Exit { .. } => true,
    }
}

fn end_of(out: Mark, err: Mark) -> StepEnd {
    match (out, err) {
        // If the shell died right behind the step's end, the step had ended.
        (Mark::End { code, .. }, Mark::End { .. }) => StepEnd::Code { code, shell_lives: true },
        (Mark::End { code, .. }, Mark::Exit { .. })
        | (Mark::Exit { .. }, Mark::End { code, .. })
        | (Mark::Exit { code }, Mark::Exit { .. }) => StepEnd::Code { code, shell_lives: false },
    }
}

/// 128 bits as 32 hex digits.
fn nonce() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::Random(errno.into()))?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
