//! One shell in a container, fed step by step: what a step exports, the next one sees.
//!
//! The box's main process is a small supervisor, whose input is attached; no `exec` is needed. It starts a shell when
//! told to and listens on a fifo in a directory that the container can only read. The shell writes `end STEP CODE`
//! there after each step, the supervisor itself writes `exit CODE` when the shell has gone, and repeats both, behind a
//! secret nonce, on the two pipes that the steps write to (see [`crate::pipes`]). So the order of output and end is kept, and a step can
//! neither close the way its end is told by nor lose its real exit code, be it by `exit`, `set -e`, `exec` or `kill`.
//!
//! The supervisor reads the same input as the shell, whenever there is no shell; it does what stands behind the nonce
//! and skips all else, which a shell that is gone has left unread. If it is killed, the box ends with its code.
//!
//! A shell that ends by itself leaves what it exported behind, so that the next one begins with that.
//!
//! Guarantees: a step's end is told once; its output is told first and whole; the memory used does not depend on
//! how much a step writes; a step is left alone no longer than its limits.
//!
//! It must not know what the steps are for.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use sealift_model::diagnostic::chain;
use sealift_model::{EventKind, Stream};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::engine::{self, Attached, Engine};
use crate::lines::{LineReader, Mark, Piece};
use crate::pipes::{LEFT, Pipes};
use crate::shell;

/// Where the control directory is mounted in the container, read-only: the steps' scripts and the fifo.
pub(crate) const CONTROL: &str = "/sealift";
/// The fifo's name in it.
pub(crate) const REPORT: &str = "report";

/// How long the shell may take to read a line that is written to it.
const WRITE: Duration = Duration::from_secs(20);
/// How often a silent session is looked at: its supervisor may have been killed while others hold its streams.
const LOOK: Duration = Duration::from_secs(5);
/// How long a shell may take to go, or a new one to come.
const CHANGE: Duration = Duration::from_secs(10);
/// How long it may take to hand all files back.
const OWN: Duration = Duration::from_secs(60);
/// The most that is kept of what a shell answers.
const COLLECTED: usize = 4 * 1024 * 1024;
/// Stands for the question after the variables where a step's number would.
const ENVIRONMENT: usize = usize::MAX;
/// Words of the supervisor fit in a pipe's atomic write. A step may have made the stream non-blocking for all who
/// share it, so a write is tried until it is done. Its own complaints go nowhere: they are no output of a step.
///
/// The first process only waits: nobody in the box can kill that one, so it lives to hand on the code of a supervisor
/// that was killed. The shell is not put in the background, where it would be deaf to interrupts for ever.
///
/// Sweeping is done when nobody is left to kill; what has been killed counts until the first process has taken note,
/// so it is tried more than once, though not for ever.
const SUPERVISOR: &str = r#"
(
exec >/sealift/out 4>/sealift/err 2>/dev/null
IFS= read -r nonce || exit 125
say() {
  until printf '%s %s\n' "$nonce" "$1"; do sleep 1; done
  until printf '%s %s\n' "$nonce" "$1" >&4; do sleep 1; done
}
tell() {
  while IFS= read -r line; do
    say "$line"
    case $line in exit*) return;; esac
  done
}
sweep() {
  tries=0
  while kill -9 -1 && [ $tries -lt 1000 ]; do tries=$((tries + 1)); done
}
told() {
  while IFS= read -r line; do
    case $line in
      "$nonce shell") return;;
      "$nonce sweep") sweep; return;;
      "$nonce own "*) sweep; chown -R "${line#"$nonce own "}" /pipeline; say ready;;
    esac
  done
  exit 0
}
while told; do
  say ready
  tell <>/sealift/report &
  (exec "$@" 2>&4 4>&-)
  echo "exit $?" >/sealift/report
  wait
done
)
exit $?
"#;
/// Prints what the shell exports, as [`variables`] reads it.
/// Found whatever the step made of PATH, and without ending a shell under `set -e`.
const ENV: &str = "command -p env -0 || command env -0 || command -p env || command env || :";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("the box does not start: it needs a /bin/sh, which the image may lack")]
    NoShell(#[source] engine::Error),
    #[error("the pipes to the box cannot be opened")]
    Pipes(#[source] std::io::Error),
    #[error("the shell does not take its commands")]
    Write(#[source] std::io::Error),
    #[error("the box has ended, or does not answer")]
    Gone,
    #[error(
        "the shell cannot tell what it exports: the box has no `env`, or more is exported than a program can be given"
    )]
    Exports,
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
    /// With this code. There is a shell or not.
    Code(i32),
    /// It was silent or busy for too long; it is still there.
    TimedOut { silent: bool },
    /// It is still there.
    Cancelled,
}

/// What there is to write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The supervisor waits to be told.
    Waiting,
    /// A shell waits for a step.
    Shell,
    /// A step that does not end, or nobody at all.
    Lost,
}

pub(crate) struct Session {
    engine: Engine,
    container: String,
    /// Whether the box's user may end every process in it.
    root: bool,
    nonce: String,
    /// Its input; its output says nothing, but ends when the box does.
    shell: Attached,
    pipes: Pipes,
    readers: [LineReader; 2],
    state: State,
    /// What the shell exported that has ended by itself; none if it could not say so, or if there is another.
    left: Option<Vec<(String, String)>>,
}

/// What the box says next.
enum Heard {
    /// On one of the streams: something, now in `pieces`.
    Pieces(usize),
    /// Nothing more: the box has ended, or the engine has let go of it.
    End,
}

/// The entrypoint and the command of a box. `shell` is the shell to use; if empty, bash where the box has it, else sh.
pub(crate) fn command(shell: &[String]) -> (Vec<String>, Vec<String>) {
    let mut command = ["-c", SUPERVISOR, "sealift"].map(str::to_owned).to_vec();
    if shell.is_empty() {
        command.extend(["/bin/sh", "-c", shell::BEST].map(str::to_owned));
    } else {
        command.extend(shell.iter().cloned());
    }
    (vec!["/bin/sh".to_owned()], command)
}

impl Session {
    /// Starts a container that was made with [`command`]. `control` is what it has at [`CONTROL`]; `root` says whether
    /// its user is root.
    pub(crate) async fn open(
        engine: &Engine,
        container: &str,
        control: &Path,
        root: bool,
    ) -> Result<Session, Error> {
        let pipes = Pipes::open(control).map_err(Error::Pipes)?;
        // Engines say it in many words, which differ; some when they prepare the box, others when they start it.
        let failed = |error: engine::Error| {
            if chain(&error).contains("/bin/sh") { Error::NoShell(error) } else { Error::Engine(error) }
        };
        let shell = engine.attach(container).await.map_err(failed)?;
        engine.start(container).await.map_err(failed)?;
        let nonce = nonce()?;
        let readers = [LineReader::new(&nonce), LineReader::new(&nonce)];
        let (engine, container, state) = (engine.clone(), container.to_owned(), State::Waiting);
        let left = None;
        let mut session = Session { engine, container, root, nonce, shell, pipes, readers, state, left };
        session.write(&format!("{}\n", session.nonce)).await?;
        Ok(session)
    }

    /// Whether a step can be run; if not, [`Session::shell`] makes it so.
    pub(crate) fn has_shell(&self) -> bool {
        self.state == State::Shell
    }

    /// Whether anybody can tell what was exported.
    pub(crate) fn knows_exports(&self) -> bool {
        self.has_shell() || self.left.is_some()
    }

    /// Starts a shell with `env` exported.
    pub(crate) async fn shell(&mut self, env: &[(String, String)]) -> Result<(), Error> {
        self.start_shell("shell", env).await
    }

    /// Ends everything that runs in the box and starts a shell with `env` exported.
    pub(crate) async fn clean_shell(&mut self, env: &[(String, String)]) -> Result<(), Error> {
        if self.root && self.end_shell().await && self.start_shell("sweep", env).await.is_ok() {
            return Ok(());
        }
        self.restart().await?;
        self.shell(env).await
    }

    /// Ends everything that runs in the box and hands the files to `owner`, which only root can. No step can be run
    /// afterwards.
    pub(crate) async fn give_back(&mut self, owner: &str) -> Result<(), Error> {
        if !self.end_shell().await {
            self.restart().await?;
        }
        let order = format!("\n{} own {owner}\n", self.nonce);
        self.write(&order).await?;
        self.ready(OWN).await
    }

    async fn start_shell(&mut self, order: &str, env: &[(String, String)]) -> Result<(), Error> {
        // By the shell's input and not in the container's description: values may be secret.
        let mut greeting = format!("\n{} {order}\n", self.nonce);
        for (name, value) in env {
            greeting.push_str(&format!("export {name}={}\n", shell::quote(value)));
        }
        greeting.push_str(&format!(". {CONTROL}/init.sh\n"));
        // A trap of a step takes its place, and then nobody tells what was exported.
        greeting.push_str(&format!("trap '{{ {ENV}; }} 2>/dev/null >{CONTROL}/{LEFT}' EXIT\n"));
        self.state = State::Lost;
        self.left = None;
        self.write(&greeting).await?;
        self.ready(CHANGE).await?;
        self.state = State::Shell;
        Ok(())
    }

    /// Ends the shell, if there is one; whether the supervisor listens now.
    async fn end_shell(&mut self) -> bool {
        if self.state == State::Shell {
            self.state = State::Lost;
            // A kill, so that no trap of a step runs where nobody listens.
            let ended = self.write("command kill -9 $$\n").await.is_ok()
                && self.skip(CHANGE, |mark| matches!(mark, Mark::Exit { .. })).await.is_ok();
            if ended {
                self.state = State::Waiting;
            }
        }
        self.state == State::Waiting
    }

    /// Ends the container and starts it again.
    async fn restart(&mut self) -> Result<(), Error> {
        self.state = State::Lost;
        self.engine.restart(&self.container).await?;
        // Only now: one that is attached to a container on its way out may be left with nothing. Nor can a word be
        // lost, for the supervisor says none before it has read one.
        self.shell = self.engine.attach(&self.container).await?;
        // What the one before has left in the pipes is told apart by its nonce.
        self.nonce = nonce()?;
        self.readers = [LineReader::new(&self.nonce), LineReader::new(&self.nonce)];
        self.state = State::Waiting;
        self.write(&format!("{}\n", self.nonce)).await
    }

    /// Waits for what the box says. Breaking off loses nothing.
    async fn hear(&mut self, pieces: &mut Vec<Piece>) -> Heard {
        loop {
            let (index, bytes) = tokio::select! {
                biased;
                read = self.pipes.read() => match read {
                    Ok(read) => read,
                    Err(error) => {
                        tracing::debug!(%error, "the box's output cannot be read");
                        return Heard::End;
                    }
                },
                next = self.shell.output.next() => match next {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => match self.pipes.read_now() {
                        Ok(Some(read)) => read,
                        Ok(None) | Err(_) => return Heard::End,
                    },
                },
            };
            self.readers[index].push(bytes, pieces);
            return Heard::Pieces(index);
        }
    }

    async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        self.skip(limit, |mark| mark == Mark::Ready).await
    }

    /// What the shell exports now, or did when it ended; none if there is nobody to tell.
    pub(crate) async fn environment(&mut self) -> Result<Option<Vec<(String, String)>>, Error> {
        if !self.has_shell() {
            return Ok(self.left.clone());
        }
        // Processes that a step left behind may write in between, so what counts stands between two words of ours.
        let word = nonce()?;
        let commands = format!(
            "{{ printf '\\n%s\\0' {word}; {ENV}; printf '%s\\n' {word}; }} 2>/dev/null\n\
             command echo 'end {ENVIRONMENT} 0' >{CONTROL}/{REPORT} 2>/dev/null\n"
        );
        self.state = State::Lost;
        self.write(&commands).await?;
        let wanted = |mark| matches!(mark, Mark::End { step: ENVIRONMENT, .. } | Mark::Exit { .. });
        let (text, mark) = self.collect(CHANGE, wanted).await?;
        if matches!(mark, Mark::Exit { .. }) {
            // Something that a step has left behind has killed it.
            self.state = State::Waiting;
            self.note_left();
            return Ok(self.left.clone());
        }
        self.state = State::Shell;
        let between = text.split_once(&word).and_then(|(_, rest)| rest.rsplit_once(&word));
        let found = variables(between.map_or("", |(between, _)| between));
        // Not even a PATH: nobody has told.
        if found.is_empty() { Err(Error::Exports) } else { Ok(Some(found)) }
    }

    /// Takes what a shell has left, which counts if there is no other.
    fn note_left(&mut self) {
        let left = self.pipes.take_left().unwrap_or_default();
        if self.state == State::Waiting && !left.is_empty() {
            self.left = Some(variables(&String::from_utf8_lossy(&left))).filter(|left| !left.is_empty());
        }
    }

    /// Reads both streams up to a mark. What comes before it belongs to no step any more.
    async fn skip(&mut self, limit: Duration, wanted: impl Fn(Mark) -> bool) -> Result<(), Error> {
        self.collect(limit, wanted).await.map(drop)
    }

    /// Reads both streams up to a mark; what came on standard output before it, [`COLLECTED`] bytes at most, and the
    /// mark.
    async fn collect(
        &mut self,
        limit: Duration,
        wanted: impl Fn(Mark) -> bool,
    ) -> Result<(String, Mark), Error> {
        let read = async {
            let mut seen: [Option<Mark>; 2] = [None, None];
            let mut pieces = Vec::new();
            let mut collected = String::new();
            loop {
                if let [Some(mark), Some(_)] = seen {
                    return Ok((collected, mark));
                }
                let Heard::Pieces(index) = self.hear(&mut pieces).await else { return Err(Error::Gone) };
                for piece in pieces.drain(..) {
                    match piece {
                        Piece::Mark(mark) if wanted(mark) => seen[index] = Some(mark),
                        Piece::Mark(_) => {}
                        Piece::Text { text, partial } if index == 0 && collected.len() < COLLECTED => {
                            collected.push_str(&text);
                            collected.push_str(if partial { "" } else { "\n" });
                        }
                        Piece::Text { .. } => {}
                    }
                }
            }
        };
        timeout(limit, read).await.unwrap_or(Err(Error::Gone))
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
        self.state = State::Lost;
        let (end, state) = self.run(step, script, limits, cancel, events).await?;
        self.state = state;
        self.note_left();
        Ok(end)
    }

    /// The step's end, and what there is after it.
    async fn run(
        &mut self,
        step: usize,
        script: &str,
        limits: Limits,
        cancel: &CancellationToken,
        events: &Events,
    ) -> Result<(StepEnd, State), Error> {
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
                    return Ok((StepEnd::Cancelled, State::Lost));
                }
                next = self.hear(&mut pieces) => next,
                () = sleep_until(hard.min(silent)) => {
                    self.flush(step, events).await;
                    return Ok((StepEnd::TimedOut { silent: silent < hard }, State::Lost));
                }
                () = sleep_until(look) => {
                    looked = Instant::now();
                    if self.engine.inspect(&self.container).await?.state.running {
                        continue;
                    }
                    // Gone without a word. What was written may still be on its way.
                    timeout(LOOK, self.hear(&mut pieces)).await.unwrap_or(Heard::End)
                }
            };
            let Heard::Pieces(index) = next else { return self.lost(written, step, events).await };
            let stream = [Stream::Stdout, Stream::Stderr][index];
            let mut told = Vec::with_capacity(pieces.len());
            for piece in pieces.drain(..) {
                match piece {
                    Piece::Text { text, partial } => {
                        told.push(EventKind::Output { step, stream, text, partial });
                    }
                    Piece::Mark(mark) if concerns(mark, step) => marks[index] = Some(mark),
                    Piece::Mark(_) => {}
                }
            }
            // A reader that does not read must not keep a cancelled step alive.
            tokio::select! { () = tell(events, told) => {}, () = cancel.cancelled() => {} }
            heard = Instant::now();
        }
    }

    /// The streams have ended without a word of the supervisor: it was killed as well, and the box ended with its code.
    async fn lost(
        &mut self,
        written: Result<(), Error>,
        step: usize,
        events: &Events,
    ) -> Result<(StepEnd, State), Error> {
        self.flush(step, events).await;
        let deadline = Instant::now() + LOOK;
        loop {
            let state = self.engine.inspect(&self.container).await?.state;
            if !state.running {
                let code = i32::try_from(state.exit_code).unwrap_or(-1);
                // A supervisor that went away has not passed anything, whatever code it had.
                let code = if code == 0 { -1 } else { code };
                return Ok((StepEnd::Code(code), State::Lost));
            }
            if Instant::now() > deadline {
                written?;
                return Ok((StepEnd::Code(-1), State::Lost));
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

/// Hands events over, many at once where there is room.
async fn tell(events: &Events, told: Vec<EventKind>) {
    let mut told = told.into_iter();
    while told.len() > 0 {
        let room = told.len().min(events.max_capacity());
        // Nobody listening is no reason to stop.
        let Ok(permits) = events.reserve_many(room).await else { return };
        permits.zip(&mut told).for_each(|(permit, event)| permit.send(event));
    }
}

/// The output of `env -0`, or of an `env` that knows no `-0`: then a value's further lines are lost.
fn variables(text: &str) -> Vec<(String, String)> {
    let text = text.trim_start_matches('\0');
    let separator = if text.contains('\0') { '\0' } else { '\n' };
    let pairs = text.split(separator).filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(name, _)| shell::is_name(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn concerns(mark: Mark, step: usize) -> bool {
    match mark {
        Mark::End { step: ended, .. } => ended == step,
        Mark::Exit { .. } => true,
        Mark::Ready => false,
    }
}

fn end_of(out: Mark, err: Mark) -> (StepEnd, State) {
    let code = match (out, err) {
        // If the shell died right behind the step's end, the step had ended.
        (Mark::End { code, .. }, Mark::End { .. }) => {
            return (StepEnd::Code(code), State::Shell);
        }
        (Mark::End { code, .. }, _) | (_, Mark::End { code, .. }) | (Mark::Exit { code }, _) => code,
        (Mark::Ready, _) => -1,
    };
    (StepEnd::Code(code), State::Waiting)
}

/// 128 bits as 32 hex digits.
fn nonce() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::Random(errno.into()))?;
    }
    Ok(crate::hex::hex(&bytes))
}
