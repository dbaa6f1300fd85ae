//! The terminal of whoever started a run: questions to them, and shells for them. And what they type that nobody is to
//! see, whatever it is for.
//!
//! Guarantees: one at a time; the terminal is as it was before, whatever way a question or a shell ends; what is not
//! asked any more does not eat what is typed next.
//!
//! It must not know what is asked, nor what runs in the shell.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use rustix::fs::{Mode, OFlags};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sealift_pipeline::{Approver, Decision, Interactive, Terminal};
use tokio::io::AsyncWriteExt as _;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::print::visible;

/// The longest answer that is read.
const ANSWER: usize = 1024;
/// The longest line that is read without being shown; terminals give at most 4096 bytes of one.
const HIDDEN_LINE: usize = 8192;

/// Where the terminal is asked for.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(super) wanted: mpsc::Receiver<Wanted>,
    sender: mpsc::Sender<Wanted>,
}

/// Somebody wants the terminal.
#[derive(Debug)]
pub(super) struct Wanted {
    /// It is theirs from now on.
    pub(super) taken: oneshot::Sender<()>,
    /// It is ours again; closed means the same.
    pub(super) back: oneshot::Receiver<()>,
}

impl Desk {
    pub(crate) fn open() -> Desk {
        let (sender, wanted) = mpsc::channel(8);
        Desk { wanted, sender }
    }

    /// The terminal of this process, for asking and for shells; none where there is nobody at one.
    pub(crate) fn person(&self) -> Option<Arc<Person>> {
        let somebody = io::stdin().is_terminal() && io::stdout().is_terminal();
        somebody.then(|| Arc::new(Person { desk: self.sender.clone(), one: Mutex::new(()) }))
    }
}

/// Somebody at the terminal of this process.
#[derive(Debug)]
pub(crate) struct Person {
    desk: mpsc::Sender<Wanted>,
    one: Mutex<()>,
}

impl Person {
    /// Waits for the terminal; it is given back when what this returns is dropped.
    async fn terminal(&self) -> io::Result<(Tty, oneshot::Sender<()>)> {
        let (taken, mut is_taken) = oneshot::channel();
        let (give_back, back) = oneshot::channel();
        let gone = || io::Error::other("nobody shows this run any more");
        self.desk.send(Wanted { taken, back }).await.map_err(|_| gone())?;
        (&mut is_taken).await.map_err(|_| gone())?;
        Ok((Tty::open()?, give_back))
    }

    async fn yes(&self, question: &str) -> io::Result<bool> {
        let _one = self.one.lock().await;
        let (tty, _back) = self.terminal().await?;
        // What was typed before is no answer to this.
        rustix::termios::tcflush(tty.0.get_ref(), rustix::termios::QueueSelector::IFlush)?;
        loop {
            match answer(&tty, question).await?.to_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "" | "n" | "no" => return Ok(false),
                _ => writeln!(io::stdout(), "please answer yes or no")?,
            }
        }
    }
}

/// Asks for a line; empty where the terminal ends.
async fn answer(tty: &Tty, question: &str) -> io::Result<String> {
    {
        let mut stdout = io::stdout();
        write!(stdout, "{question} [y/N] ")?;
        stdout.flush()?;
    }
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < ANSWER {
        let mut buffer = [0; 256];
        let count = tty.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&answer).trim().to_owned())
}

#[async_trait]
impl Approver for Person {
    async fn ask(&self, node: &str, question: &str) -> Decision {
        match self.yes(&format!("{}: {}", visible(node), visible(question))).await {
            Ok(true) => Decision::Approved { by: None },
            Ok(false) => Decision::Refused { reason: "the answer was no".to_owned() },
            Err(error) => Decision::Refused { reason: format!("nobody could be asked: {error}") },
        }
    }
}

impl Terminal for Person {
    fn size(&self) -> (u16, u16) {
        let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col, size.ws_row))
    }

    fn attach(&self, command: Interactive) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>> {
        Box::pin(async move {
            let _one = self.one.lock().await;
            let (tty, _back) = self.terminal().await?;
            let _raw = Changed::raw(&tty)?;
            let Interactive { mut input, mut output, resizer } = command;
            let mut resized = signal(SignalKind::window_change())?;
            let mut typed = [0; 4096];
            let mut stdin_open = true;
            // It may have been resized between the start of the command and this.
            resizer.resize(self.size()).await.ok();
            loop {
                tokio::select! {
                    piece = output.next() => match piece {
                        Some(bytes) => {
                            let mut stdout = io::stdout();
                            stdout.write_all(&bytes?)?;
                            stdout.flush()?;
                        }
                        None => return Ok(()),
                    },
                    count = tty.read(&mut typed), if stdin_open => match count? {
                        0 => stdin_open = false,
                        count => {
                            input.write_all(typed.get(..count).unwrap_or_default()).await?;
                            input.flush().await?;
                        }
                    },
                    _ = resized.recv() => {
                        // One that has just ended has no size any more.
                        resizer.resize(self.size()).await.ok();
                    }
                }
            }
        })
    }
}

/// Agrees to everything, as it was told to beforehand.
#[derive(Debug)]
pub(crate) struct Yes;

#[async_trait]
impl Approver for Yes {
    async fn ask(&self, _node: &str, _question: &str) -> Decision {
        Decision::Approved { by: Some("--yes".to_owned()) }
    }
}

/// Where nobody can be asked.
#[derive(Debug)]
pub(crate) struct Nobody;

#[async_trait]
impl Approver for Nobody {
    async fn ask(&self, _node: &str, _question: &str) -> Decision {
        Decision::Refused { reason: "there is no terminal to ask at; --yes agrees to everything".to_owned() }
    }
}

/// Asks for a line that is not shown while it is typed, without its newline; it ends early where the terminal does.
///
/// # Errors
/// `Interrupted` when a signal ends it, as Ctrl-C does; else when there is no terminal that can be read.
pub(crate) async fn hidden_line(question: &str) -> io::Result<Vec<u8>> {
    // Before the terminal is changed: from here on these signals no longer end us with the terminal as it is then.
    let mut signals =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let [interrupt, terminate, hangup] = &mut signals;
    let tty = Tty::open()?;
    let _hidden = Changed::hide(&tty)?;
    tty.write(question)?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < HIDDEN_LINE {
        let mut buffer = [0; 4096];
        let stopped = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        let count = tokio::select! {
            count = tty.read(&mut buffer) => count?,
            () = stopped => {
                // What is said next begins a line. A terminal that is gone needs none.
                tty.write("\n").ok();
                return Err(io::ErrorKind::Interrupted.into());
            }
        };
        if count == 0 {
            break;
        }
        line.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        line.truncate(end);
    }
    Ok(line)
}

/// The controlling terminal, opened anew so that nobody else's reading is changed by ours.
struct Tty(AsyncFd<File>);

impl Tty {
    fn open() -> io::Result<Tty> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open("/dev/tty", flags, Mode::empty())?;
        #[expect(
            deprecated,
            reason = "what is unsound with other types is not with a file, which keeps its descriptor"
        )]
        let tty = AsyncFd::new(File::from(file))?;
        Ok(Tty(tty))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut file = self.0.get_ref();
        file.write_all(text.as_bytes())
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|file| Ok(rustix::io::read(file.get_ref(), &mut *buffer)?)) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

/// Another way of the terminal with what is typed, until this is dropped.
struct Changed<'a> {
    tty: &'a Tty,
    before: Termios,
}

impl Changed<'_> {
    /// Every key goes to the command as it is.
    fn raw(tty: &Tty) -> io::Result<Changed<'_>> {
        Changed::set(tty, OptionalActions::Now, Termios::make_raw)
    }

    /// What is typed is not shown, but for the end of its line; what was typed before is thrown away.
    fn hide(tty: &Tty) -> io::Result<Changed<'_>> {
        Changed::set(tty, OptionalActions::Flush, |modes| {
            modes.local_modes.remove(LocalModes::ECHO);
            modes.local_modes.insert(LocalModes::ICANON | LocalModes::ECHONL);
        })
    }

    fn set(tty: &Tty, when: OptionalActions, change: impl FnOnce(&mut Termios)) -> io::Result<Changed<'_>> {
        let before = tcgetattr(tty.0.get_ref())?;
        let mut after = before.clone();
        change(&mut after);
        tcsetattr(tty.0.get_ref(), when, &after)?;
        Ok(Changed { tty, before })
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        tcsetattr(self.tty.0.get_ref(), OptionalActions::Drain, &self.before).ok();
    }
}
