//! The two streams that a box's steps write to, and what a shell leaves when it goes: named pipes in the control
//! directory.
//!
//! They lead from the steps to this program without an engine in between, which would copy every byte several times and
//! is the slowest part of a large output.
//!
//! Guarantees: reading can be broken off at any time and loses nothing; a pipe never ends, whoever opens and closes it.
//!
//! It must not know what is written.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use tokio::net::unix::pipe::{OpenOptions, Receiver};

/// The pipes' names in the control directory: standard output and standard error.
const NAMES: [&str; 2] = ["out", "err"];
/// The name of the pipe into which a shell that ends writes what it exported.
pub(crate) const LEFT: &str = "left";

/// How much is read at once.
const CHUNK: usize = 256 * 1024;
/// How often one stream may be preferred to the other.
const STREAK: u32 = 8;
/// How much a step may write before somebody reads. The kernel grants it to everybody unless told otherwise.
const ROOM: usize = 1024 * 1024;

/// The most that is kept of what a shell left.
const LEFT_MAX: usize = 4 * 1024 * 1024;

/// Makes the pipes in `dir`.
pub(crate) fn make_all(dir: &Path) -> io::Result<()> {
    NAMES.iter().chain([&LEFT]).try_for_each(|name| make(&dir.join(name)))
}

/// Makes a named pipe that everybody may use.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
    // Whatever our umask is: the user in the container may be anybody.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

/// Our ends of them.
#[derive(Debug)]
pub(crate) struct Pipes {
    ends: [Receiver; 2],
    left_end: Receiver,
    left: Vec<u8>,
    buffer: Box<[u8]>,
    /// How often standard output was read in a row.
    streak: u32,
}

impl Pipes {
    /// Opens the pipes in `dir`, before anybody writes to them.
    pub(crate) fn open(dir: &Path) -> io::Result<Pipes> {
        let open = |name: &str| {
            // For writing too, so that there is always a writer and the pipe never ends.
            let end = OpenOptions::new().read_write(true).open_receiver(dir.join(name))?;
            if let Err(error) = fcntl_setpipe_size(&end, ROOM) {
                tracing::debug!(%error, "a pipe keeps its usual size");
            }
            io::Result::Ok(end)
        };
        let [out, err] = NAMES;
        Ok(Pipes {
            ends: [open(out)?, open(err)?],
            left_end: open(LEFT)?,
            left: Vec::new(),
            buffer: vec![0; CHUNK].into_boxed_slice(),
            streak: 0,
        })
    }

    /// Waits for bytes: which of the two they came from, and the bytes.
    pub(crate) async fn read(&mut self) -> io::Result<(usize, &[u8])> {
        loop {
            let [out, err] = &self.ends;
            // Of what came at once, complaints come behind what they are about; but a busy stream does not silence the
            // other.
            let index = tokio::select! {
                biased;
                ready = out.readable(), if self.streak < STREAK => ready.map(|()| 0)?,
                ready = err.readable() => ready.map(|()| 1)?,
                ready = out.readable() => ready.map(|()| 0)?,
                // Now, or a shell with more to leave than fits into the pipe would wait for ever.
                ready = self.left_end.readable() => {
                    ready?;
                    match self.left_end.try_read(&mut self.buffer) {
                        Ok(length) => self.leave(length),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                    continue;
                }
            };
            self.streak = if index == 0 { self.streak + 1 } else { 0 };
            match self.ends[index].try_read(&mut self.buffer) {
                Ok(length) => return Ok((index, &self.buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What shells have left since this was asked last.
    pub(crate) fn take_left(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match rustix::io::read(&self.left_end, &mut self.buffer[..]) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(std::mem::take(&mut self.left)),
                Ok(length) => self.leave(length),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn leave(&mut self, length: usize) {
        let room = LEFT_MAX.saturating_sub(self.left.len()).min(length);
        self.left.extend_from_slice(&self.buffer[..room]);
    }

    /// What is there now, if anything.
    pub(crate) fn read_now(&mut self) -> io::Result<Option<(usize, &[u8])>> {
        for (index, end) in self.ends.iter().enumerate() {
            // The kernel is asked, and not what the runtime knows of it.
            match rustix::io::read(end, &mut self.buffer[..]) {
                Ok(length) => return Ok(Some((index, &self.buffer[..length]))),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn bytes_arrive_and_the_pipe_never_ends() {
        let dir = tempfile::tempdir().unwrap();
        make_all(dir.path()).unwrap();
        let mut pipes = Pipes::open(dir.path()).unwrap();
        assert_eq!(pipes.read_now().unwrap(), None);
        for (name, index) in [("err", 1), ("out", 0), ("out", 0)] {
            let mut file = std::fs::OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            drop(file);
            assert_eq!(pipes.read().await.unwrap(), (index, name.as_bytes()));
        }
        // A writer that is there before the other has been read.
        std::fs::OpenOptions::new()
            .write(true)
            .open(dir.path().join("err"))
            .unwrap()
            .write_all(b"e")
            .unwrap();
        assert_eq!(pipes.read_now().unwrap(), Some((1, &b"e"[..])));
        assert_eq!(pipes.read_now().unwrap(), None);
    }

    #[tokio::test]
    async fn what_a_shell_leaves_is_kept_apart_and_never_blocks_it() {
        let dir = tempfile::tempdir().unwrap();
        make_all(dir.path()).unwrap();
        let mut pipes = Pipes::open(dir.path()).unwrap();
        let open = |name| std::fs::OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
        let (mut left, mut out) = (open(LEFT), open("out"));
        // More than the pipe holds: the writer ends only because it is read while output is waited for.
        let writer = std::thread::spawn(move || {
            left.write_all(&vec![b'x'; 3 * ROOM]).unwrap();
            out.write_all(b"end").unwrap();
        });
        assert_eq!(pipes.read().await.unwrap(), (0, &b"end"[..]));
        writer.join().unwrap();
        assert_eq!(pipes.take_left().unwrap().len(), 3 * ROOM);
        assert_eq!(pipes.take_left().unwrap(), b"");
    }
}
