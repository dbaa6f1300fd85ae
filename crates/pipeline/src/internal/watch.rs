//! `internal/watch`: a command that is run again whenever the source changes.
//!
//! Guarantees: names that begin with `.` or `_`, and those that .gitignore names, wake nobody; of a series of changes
//! only the last counts; nothing of an earlier turn runs beside a later one.
//!
//! It must not know who changes the source.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::container::LogOutput;
use futures_util::StreamExt;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use sealift_model::Stream;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::properties::Properties;
use super::{Context, Error};
use crate::lines::{LineReader, Piece};
use crate::pull::Tell;
use crate::shell;
use crate::source::Ignore;
use crate::spec::Source;

/// How long it must be quiet after a change, and how long that is waited for.
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(2);
/// The most directories that are watched; each takes some of the kernel's memory.
const DIRECTORIES: usize = 8192;
/// How long it may take to end a turn.
const KILL: Duration = Duration::from_secs(20);
/// The variable by which the processes of a turn are found again.
const MARK: &str = "SEALIFT_WATCH";

/// Why a turn was left.
enum Turn {
    Ended,
    Changed(PathBuf),
    Interrupted,
}

pub(super) async fn watch(properties: &Properties<'_>, context: &Context<'_>) -> Result<(), Error> {
    let code = properties.option("code").unwrap_or_default();
    let reload = properties.flag("reload");
    let failed = context.files("cannot watch the source");
    let interrupted = context.spec.interrupts.take();
    let _no_more = interrupted.clone().drop_guard();
    let mut tree = if reload { Some(Tree::of(&context.layout.source).map_err(&failed)?) } else { None };
    if reload && matches!(context.spec.source, Source::Copy(_)) {
        let own = "for changes of your own files run with `--direct`";
        context.say(format!("watching the box's own view of the source; {own}")).await;
    }
    if tree.as_ref().is_some_and(|tree| tree.full) {
        context
            .warn(format!("more than {DIRECTORIES} directories: changes in the others are not seen"))
            .await;
    }
    loop {
        let mark = mark().map_err(&failed)?;
        let turn = turn(&code, &mark, tree.as_mut(), &interrupted, context).await?;
        end_all(&mark, context).await?;
        match turn {
            Turn::Ended | Turn::Interrupted => return Ok(()),
            Turn::Changed(path) => context.say(format!("{} has changed: once more", path.display())).await,
        }
    }
}

/// Runs the command until it is to be run again, or no more. One that ended waits for a change, if there may be any.
async fn turn(
    code: &str,
    mark: &str,
    mut tree: Option<&mut Tree>,
    interrupted: &CancellationToken,
    context: &Context<'_>,
) -> Result<Turn, Error> {
    let dir = context.env.get("WERCKER_SOURCE_DIR").unwrap_or("/");
    let script = format!("cd {} || exit 1\nset -e\n{code}", shell::quote(dir));
    let command = ["/bin/sh".to_owned(), "-c".to_owned(), script];
    let mut env = context.env.entries().to_vec();
    env.push((MARK.to_owned(), mark.to_owned()));
    let (id, _input, mut output) =
        context.engine.exec(context.container, &command, None, &env, false).await?;
    let mut readers = [LineReader::new(mark), LineReader::new(mark)];
    let failed = context.files("cannot watch the source");
    let mut running = true;
    loop {
        tokio::select! {
            piece = output.next(), if running => match piece {
                Some(Ok(piece)) => show(&mut readers, &piece, context).await,
                _ => {
                    running = false;
                    finish(&mut readers, context).await;
                    let code = context.engine.exec_code(&id).await?.unwrap_or(-1);
                    if tree.is_none() {
                        return if code == 0 { Ok(Turn::Ended) } else { Err(Error::Code(code)) };
                    }
                    context.say(format!("ended with code {code}; waiting for a change")).await;
                }
            },
            changed = changed(tree.as_deref_mut()) => {
                let path = changed.map_err(&failed)?;
                finish(&mut readers, context).await;
                return Ok(Turn::Changed(path));
            }
            () = interrupted.cancelled() => {
                finish(&mut readers, context).await;
                return Ok(Turn::Interrupted);
            }
        }
    }
}

/// 128 bits as hex digits.
fn mark() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn show(readers: &mut [LineReader; 2], piece: &LogOutput, context: &Context<'_>) {
    let (stream, index) = match piece {
        LogOutput::StdErr { .. } => (Stream::Stderr, 1),
        _ => (Stream::Stdout, 0),
    };
    let mut pieces = Vec::new();
    readers[index].push(piece.as_ref(), &mut pieces);
    for piece in pieces {
        if let Piece::Text { text, partial } = piece {
            context.tell(stream, text, partial).await;
        }
    }
}

async fn finish(readers: &mut [LineReader; 2], context: &Context<'_>) {
    for (stream, reader) in [Stream::Stdout, Stream::Stderr].into_iter().zip(readers) {
        let mut pieces = Vec::new();
        reader.finish(&mut pieces);
        for piece in pieces {
            if let Piece::Text { text, partial } = piece {
                context.tell(stream, text, partial).await;
            }
        }
    }
}

/// Kills whatever a turn has started, found by its variable wherever it has got to.
async fn end_all(mark: &str, context: &Context<'_>) -> Result<(), Error> {
    let script = format!(
        "for turn in 1 2 3; do for file in $(grep -ls '{MARK}={mark}' /proc/[0-9]*/environ); do \
         id=${{file#/proc/}}; kill -9 \"${{id%/environ}}\"; done; done"
    );
    let command = ["/bin/sh", "-c", &script].map(str::to_owned);
    context.engine.command(context.container, Some("0"), &command, KILL).await?;
    Ok(())
}

/// The next change after which it was quiet; never, where nothing is watched.
async fn changed(tree: Option<&mut Tree>) -> io::Result<PathBuf> {
    let Some(tree) = tree else { return std::future::pending().await };
    let path = tree.next().await?;
    let patience = Instant::now() + PATIENCE;
    while let Ok(Ok(next)) = timeout_at(patience, timeout(QUIET, tree.next())).await {
        next?;
    }
    Ok(path)
}

/// A directory and all below it.
struct Tree {
    root: PathBuf,
    ignore: Ignore,
    queue: AsyncFd<OwnedFd>,
    directories: HashMap<i32, PathBuf>,
    full: bool,
}

impl Tree {
    fn of(root: &Path) -> io::Result<Tree> {
        let ignore = Ignore::read(root, Path::new(".gitignore"));
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "an owned descriptor, which nobody else closes, is what it is safe with"
        )]
        let queue = AsyncFd::new(queue)?;
        let mut tree =
            Tree { root: root.to_owned(), ignore, queue, directories: HashMap::new(), full: false };
        tree.add(PathBuf::new())?;
        Ok(tree)
    }

    fn counts(&self, relative: &Path, directory: bool) -> bool {
        let name = relative.file_name().map_or(&b"."[..], |name| name.as_bytes());
        !name.starts_with(b".") && !name.starts_with(b"_") && !self.ignore.matches(relative, directory)
    }

    /// Watches a directory and all below it. One that went away meanwhile is none.
    fn add(&mut self, relative: PathBuf) -> io::Result<()> {
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        let mut open = vec![relative];
        while let Some(relative) = open.pop() {
            if self.directories.len() >= DIRECTORIES {
                self.full = true;
                return Ok(());
            }
            let path = self.root.join(&relative);
            match inotify::add_watch(&self.queue, &path, flags) {
                Ok(watch) => drop(self.directories.insert(watch, relative.clone())),
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => continue,
                Err(error) => return Err(error.into()),
            }
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                let below = relative.join(entry.file_name());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && self.counts(&below, true) {
                    open.push(below);
                }
            }
        }
        Ok(())
    }

    /// The next thing that changed.
    async fn next(&mut self) -> io::Result<PathBuf> {
        loop {
            if let Some(path) = self.read()? {
                return Ok(path);
            }
            self.queue.readable().await?.clear_ready();
        }
    }

    /// What has changed, if something has. Reads all that there is, and the first of it is the answer.
    fn read(&mut self) -> io::Result<Option<PathBuf>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut changed = None;
        let mut new = Vec::new();
        {
            let mut reader = inotify::Reader::new(self.queue.get_ref(), &mut buffer);
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(rustix::io::Errno::WOULDBLOCK) => break,
                    Err(error) => return Err(error.into()),
                };
                let flags = event.events();
                if flags.contains(ReadFlags::IGNORED) {
                    self.directories.remove(&event.wd());
                    continue;
                }
                if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    changed.get_or_insert_with(|| PathBuf::from("much"));
                    continue;
                }
                let (Some(dir), Some(name)) = (self.directories.get(&event.wd()), event.file_name()) else {
                    continue;
                };
                let path = dir.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                let directory = flags.contains(ReadFlags::ISDIR);
                if !self.counts(&path, directory) {
                    continue;
                }
                if directory && flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    new.push(path.clone());
                }
                changed.get_or_insert(path);
            }
        }
        for path in new {
            self.add(path)?;
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sees_what_counts_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::write(root.join(".gitignore"), "*.o\n").unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir_all(root.join(".git")).unwrap();
        let mut tree = Tree::of(root).unwrap();
        for path in [".git/x", ".x", "_x", "a/x.o", "a/b/seen"] {
            std::fs::write(root.join(path), "").unwrap();
        }
        assert_eq!(tree.next().await.unwrap(), Path::new("a/b/seen"));
        assert_eq!(tree.read().unwrap(), None);
        std::fs::create_dir(root.join("new")).unwrap();
        assert_eq!(tree.next().await.unwrap(), Path::new("new"));
        std::fs::write(root.join("new/deep"), "").unwrap();
        assert_eq!(tree.next().await.unwrap(), Path::new("new/deep"));
    }
}
