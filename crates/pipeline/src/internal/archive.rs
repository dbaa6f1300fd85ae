//! Tar archives put together while they are read: parts of the box under new names, and small files.
//!
//! Guarantees: no more than a few pieces are in memory; nothing is written to this machine's disk; when a part breaks
//! off, the whole does too, and is not taken for a short one.
//!
//! It must not know what the archives are for.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::ignore::Ignore;
use super::{Context, Error};
use crate::engine::{Answer, Body, body_of};

/// Pieces of an archive that wait for the engine.
const PIECES: usize = 8;
/// How much is written at once.
const PIECE: usize = 64 * 1024;
/// The most that is read of a file that stands for itself.
const SMALL: u64 = 1024 * 1024;

/// A tree of the box and the name it gets in the archive; the empty name puts its entries at the top.
pub(super) struct Part {
    answer: Answer,
    name: PathBuf,
    ignore: Ignore,
}

impl Part {
    /// The tree at `path` of the box; an error where there is none.
    pub(super) async fn of(context: &Context<'_>, path: &str, name: &str) -> Result<Part, Error> {
        let answer = context.engine.archive(context.container, path).await?;
        let answer = answer.ok_or_else(|| Error::NoPath { path: path.to_owned() })?;
        Ok(Part { answer, name: PathBuf::from(name), ignore: Ignore::default() })
    }

    /// The same, but for what `ignore` leaves out of the archive.
    pub(super) fn without(self, ignore: Ignore) -> Part {
        Part { ignore, ..self }
    }
}

/// The text of a small file of the box; none where there is no such file.
pub(super) async fn text(context: &Context<'_>, path: &str) -> Result<Option<String>, Error> {
    let Some(answer) = context.engine.archive(context.container, path).await? else { return Ok(None) };
    let reader = SyncIoBridge::new(StreamReader::new(answer.into_stream().boxed()));
    let read = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Archive::new(reader);
        let Some(entry) = archive.entries()?.next().transpose()? else { return Ok(None) };
        if !entry.header().entry_type().is_file() {
            return Ok(None);
        }
        let mut text = String::new();
        entry.take(SMALL).read_to_string(&mut text).map(|_| Some(text))
    });
    let failed = context.files(&format!("cannot read {path}"));
    read.await.map_err(io::Error::other).and_then(|read| read).map_err(failed)
}

/// An archive of small files and parts, as a request's body.
pub(super) fn pack(files: Vec<(&'static str, String)>, parts: Vec<Part>) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES);
    let failed = sender.clone();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let pipe = Pipe { sender, held: Vec::new() };
        let parts = parts.into_iter().map(|part| {
            let reader = StreamReader::new(part.answer.into_stream().boxed());
            (SyncIoBridge::new_with_handle(reader, runtime.clone()), part.name, part.ignore)
        });
        if let Err(error) = write(pipe, files, parts) {
            tracing::debug!(%error, "an archive broke off");
            failed.blocking_send(Err(error)).ok();
        }
    });
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    body_of(pieces)
}

fn write(
    pipe: impl Write,
    files: Vec<(&'static str, String)>,
    parts: impl Iterator<Item = (impl Read, PathBuf, Ignore)>,
) -> io::Result<()> {
    let mut whole = tar::Builder::new(pipe);
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        whole.append_data(&mut header, name, text.as_bytes())?;
    }
    for (reader, name, ignore) in parts {
        copy(&mut whole, reader, &name, &ignore)?;
    }
    whole.into_inner()?.flush()
}

/// Copies the entries of an archive, the first part of their names replaced by `name`, but for those that `ignore` leaves
/// out under their new names.
pub(super) fn copy(
    whole: &mut tar::Builder<impl Write>,
    from: impl Read,
    name: &Path,
    ignore: &Ignore,
) -> io::Result<()> {
    let renamed = |path: &Path| -> PathBuf {
        let inner = path.components().filter(|part| matches!(part, Component::Normal(_))).skip(1);
        inner.fold(name.to_owned(), |path, part| path.join(part))
    };
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = renamed(&entry.path()?);
        if path.as_os_str().is_empty() || ignore.leaves_out(&path.to_string_lossy()) {
            continue;
        }
        let mut header = entry.header().clone();
        let kind = header.entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let Some(target) = entry.link_name()?.map(std::borrow::Cow::into_owned) else { continue };
            // A hard link names another entry of the archive.
            let target = if kind.is_hard_link() { renamed(&target) } else { target };
            whole.append_link(&mut header, &path, &target)?;
        } else if kind.is_dir() || kind.is_file() {
            header.set_size(entry.size());
            whole.append_data(&mut header, &path, &mut entry)?;
        }
        // Sockets, pipes and devices are no content.
    }
    Ok(())
}

/// The writing end of a body.
struct Pipe {
    sender: mpsc::Sender<io::Result<Bytes>>,
    held: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.held));
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_get_their_new_place() {
        let mut from = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        from.append_data(&mut header, "source/", &[][..]).unwrap();
        let long = format!("source/{}/file", "d".repeat(150));
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(2);
        from.append_data(&mut header, &long, &b"hi"[..]).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        from.append_link(&mut header, "source/link", "/etc/passwd").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        from.append_link(&mut header, "source/hard", &long).unwrap();
        let from = from.into_inner().unwrap();

        let names = |name: &str| {
            let mut to = tar::Builder::new(Vec::new());
            copy(&mut to, from.as_slice(), Path::new(name), &Ignore::default()).unwrap();
            let to = to.into_inner().unwrap();
            let mut archive = tar::Archive::new(to.as_slice());
            let mut names = Vec::new();
            for entry in archive.entries().unwrap() {
                let entry = entry.unwrap();
                let link = entry.link_name().unwrap().map(|link| format!(" -> {}", link.display()));
                names.push(format!("{}{}", entry.path().unwrap().display(), link.unwrap_or_default()));
            }
            names
        };
        let deep = "d".repeat(150);
        assert_eq!(
            names(""),
            [format!("{deep}/file"), "link -> /etc/passwd".into(), format!("hard -> {deep}/file")]
        );
        assert_eq!(names("new/place")[0].trim_end_matches('/'), "new/place");
        assert_eq!(names("new/place")[1], format!("new/place/{deep}/file"));
    }

    #[test]
    fn a_broken_part_breaks_the_whole() {
        let mut to = tar::Builder::new(Vec::new());
        assert!(
            copy(
                &mut to,
                &b"no archive at all, but long enough to be read as a header".repeat(20)[..],
                Path::new("x"),
                &Ignore::default()
            )
            .is_err()
        );
    }
}
