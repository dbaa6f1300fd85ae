//! Which files of a project change, for `sealift run --watch`.
//!
//! Guarantees: a burst of changes is one change; what a run itself writes to the cache, what git keeps and what the
//! ignore file names are none; directories that appear are watched as well.
//!
//! It must not know what is done about a change.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use sealift_pipeline::Ignore;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::error::Error;

/// How long it has to be quiet before a burst is over.
const QUIET: Duration = Duration::from_millis(200);
/// How long a burst is waited for that does not end.
const LONGEST: Duration = Duration::from_secs(3);
/// More directories than a system lets one watch by default.
const MOST: usize = 60_000;

/// Never part of what is watched.
const NEVER: [&str; 2] = [".git", ".wercker"];

pub(super) struct Watch {
    fd: AsyncFd<OwnedFd>,
    root: PathBuf,
    ignore: Ignore,
    /// The directories, below the root.
    dirs: HashMap<i32, PathBuf>,
}

impl Watch {
    /// Watches a directory with all below it.
    pub(super) fn start(root: &Path, ignore: Ignore) -> Result<Watch, Error> {
        let failed = |source| Error::Io { action: "watch", path: root.to_owned(), source };
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let fd = fd.map_err(|error| failed(error.into()))?;
        #[expect(deprecated, reason = "what is unsound with other types is not with a descriptor of our own")]
        let fd = AsyncFd::new(fd).map_err(failed)?;
        let mut watch = Watch { fd, root: root.to_owned(), ignore, dirs: HashMap::new() };
        watch.add(PathBuf::new()).map_err(failed)?;
        Ok(watch)
    }

    /// Waits until something has changed and it is quiet again; the first path that did, below the root.
    pub(super) async fn changed(&mut self) -> Result<PathBuf, Error> {
        let first = loop {
            let found = self.read().await.map_err(|source| Error::Io {
                action: "watch",
                path: self.root.clone(),
                source,
            })?;
            if let Some(path) = found {
                break path;
            }
        };
        let settle = async { while let Ok(Ok(_)) = timeout(QUIET, self.read()).await {} };
        // One that never ends is acted on as well.
        timeout(LONGEST, settle).await.ok();
        Ok(first)
    }

    fn add(&mut self, below: PathBuf) -> io::Result<()> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        let mut open = vec![below];
        while let Some(below) = open.pop() {
            let full = self.root.join(&below);
            match inotify::add_watch(self.fd.get_ref(), &full, flags) {
                Ok(id) => self.dirs.insert(id, below.clone()),
                // Gone again, or none of ours to look into.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::ACCESS) => {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if self.dirs.len() > MOST {
                return Err(io::Error::other(format!("it has more than {MOST} directories")));
            }
            let Ok(entries) = std::fs::read_dir(&full) else { continue };
            for entry in entries.flatten() {
                let path = below.join(entry.file_name());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !self.is_left_out(&path, true) {
                    open.push(path);
                }
            }
        }
        Ok(())
    }

    fn is_left_out(&self, path: &Path, directory: bool) -> bool {
        let first = path.components().next().map(std::path::Component::as_os_str);
        NEVER.iter().any(|never| first == Some(OsStr::new(never))) || self.ignore.matches(path, directory)
    }

    /// The first change among those that have come, if it is one.
    async fn read(&mut self) -> io::Result<Option<PathBuf>> {
        let mut events = Vec::new();
        let mut guard = self.fd.readable().await?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = Reader::new(self.fd.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    events.push((event.wd(), event.events(), name));
                    if reader.is_buffer_empty() {
                        break;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    guard.clear_ready();
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        drop(guard);
        let mut first = None;
        for (id, flags, name) in events {
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                // Something has changed, nobody knows what.
                first.get_or_insert_with(PathBuf::new);
                continue;
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.dirs.remove(&id);
                continue;
            }
            let (Some(below), Some(name)) = (self.dirs.get(&id), name) else { continue };
            let path = below.join(name);
            let directory = flags.contains(ReadFlags::ISDIR);
            if self.is_left_out(&path, directory) {
                continue;
            }
            if directory && flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                self.add(path.clone())?;
            }
            // Of a directory only its coming and going counts.
            if !(directory && flags.contains(ReadFlags::ATTRIB)) {
                first.get_or_insert(path);
            }
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sees_changes_in_new_directories_and_not_what_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".git/objects")).unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        let mut watch = Watch::start(dir.path(), Ignore::parse("*.log\nout/")).unwrap();
        std::fs::write(dir.path().join(".git/objects/x"), "").unwrap();
        std::fs::write(dir.path().join("a.log"), "").unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("src/first"), "").unwrap();
        assert_eq!(watch.changed().await.unwrap(), Path::new("src/first"));
        std::fs::create_dir(dir.path().join("src/new")).unwrap();
        assert_eq!(watch.changed().await.unwrap(), Path::new("src/new"));
        std::fs::write(dir.path().join("src/new/file"), "").unwrap();
        assert_eq!(watch.changed().await.unwrap(), Path::new("src/new/file"));
        std::fs::remove_file(dir.path().join("src/first")).unwrap();
        assert_eq!(watch.changed().await.unwrap(), Path::new("src/first"));
    }
}
