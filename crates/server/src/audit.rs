//! The audit log: who changed what, one JSON line each, in `audit/<date>.ndjson` below the state folder.
//!
//! Guarantees: what was changed has its line on the disk before its answer is given. A crash between the change and the
//! line leaves a change without one, whose answer nobody got. Refusals are written and not synced. No line holds a secret
//! or a body.
//!
//! Files are kept for [`KEEP_DAYS`] days, and a day's file takes [`DAY_LIMIT`] bytes; refusals of those whom nobody knows
//! are noted [`NOBODY_PER_MINUTE`] times a minute at most, so that they cannot fill it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sealift_client::api::AuditEntry;
use sealift_model::Timestamp;
use tokio::sync::watch;

/// Days whose files are kept.
const KEEP_DAYS: usize = 400;
/// Bytes of one day's file.
const DAY_LIMIT: u64 = 256 << 20;
/// Bytes of one line; longer ones are not ours.
const LINE_LIMIT: usize = 16 << 10;
const NOBODY_PER_MINUTE: u32 = 60;

/// Why the log could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write JSON")]
    Json(#[source] serde_json::Error),
    #[error("today's audit log has as many bytes as it may have, {DAY_LIMIT}")]
    Full,
}

/// The log below a folder. Its methods block on the disk.
#[derive(Debug)]
pub(crate) struct AuditLog {
    root: PathBuf,
    writing: Mutex<Writing>,
    /// Told after each line.
    appended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Writing {
    /// The open file, its name and its size.
    file: Option<(String, File, u64)>,
    /// The minute, and how many refusals of nobody it has seen.
    nobody: (u64, u32),
}

impl AuditLog {
    /// Makes the folder if it is not there.
    pub(crate) fn open(root: PathBuf) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(|source| Error::Io {
            action: "make",
            path: root.clone(),
            source,
        })?;
        Ok(Self { root, writing: Mutex::default(), appended: watch::channel(0).0 })
    }

    /// Appends a line. `nobody` is said of refusals that anybody could cause.
    pub(crate) fn append(&self, entry: &AuditEntry, nobody: bool, sync: bool) -> Result<(), Error> {
        let mut line = serde_json::to_vec(entry).map_err(Error::Json)?;
        line.push(b'\n');
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if nobody {
            let minute = entry.at.0 / 60_000;
            let seen = if writing.nobody.0 == minute { writing.nobody.1 } else { 0 };
            writing.nobody = (minute, seen.saturating_add(1));
            if seen >= NOBODY_PER_MINUTE {
                return Ok(());
            }
        }
        let name = file_name(entry.at);
        let path = self.root.join(&name);
        let io = |action| {
            let path = path.clone();
            move |source| Error::Io { action, path, source }
        };
        if writing.file.as_ref().is_none_or(|(open, ..)| *open != name) {
            let mut file =
                File::options().create(true).append(true).mode(0o600).open(&path).map_err(io("open"))?;
            let mut size = file.metadata().map_err(io("look at"))?.len();
            // A crash may have cut the last line short; it gets an end, so that ours has a beginning.
            if size > 0 && !ends_with_newline(&path).map_err(io("read"))? {
                file.write_all(b"\n").map_err(io("write"))?;
                size += 1;
            }
            File::open(&self.root).and_then(|folder| folder.sync_all()).map_err(io("sync"))?;
            writing.file = Some((name, file, size));
            self.prune();
        }
        let Some((_, file, size)) = &mut writing.file else { return Ok(()) };
        if *size + line.len() as u64 > DAY_LIMIT {
            return Err(Error::Full);
        }
        // One write, so that a line is there as a whole or as a cut that is seen.
        let written = file.write_all(&line).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        if let Err(source) = written {
            // Opened anew next time, with a look at how it ends.
            writing.file = None;
            return Err(io("write")(source));
        }
        *size += line.len() as u64;
        drop(writing);
        self.appended.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Tells of new lines.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    /// The files from this time on, oldest first.
    pub(crate) fn files(&self, since: Timestamp) -> Result<Vec<String>, Error> {
        let first = file_name(since);
        Ok(self.names()?.into_iter().filter(|name| *name >= first).collect())
    }

    /// Whole lines of a file from an offset on, about `limit` bytes of them; gives the offset after them. What is not
    /// understood is left out.
    pub(crate) fn read(
        &self,
        name: &str,
        offset: u64,
        limit: usize,
    ) -> Result<(Vec<AuditEntry>, u64), Error> {
        let path = self.root.join(name);
        let io = |source| Error::Io { action: "read", path: path.clone(), source };
        let mut file = File::open(&path).map_err(io)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset)).map_err(io)?;
        let mut reader = BufReader::new(io::Read::take(file, (limit + LINE_LIMIT) as u64));
        let (mut entries, mut next, mut line) = (Vec::new(), offset, Vec::new());
        loop {
            line.clear();
            let count = reader.read_until(b'\n', &mut line).map_err(io)?;
            if count == 0 || line.last() != Some(&b'\n') || next - offset >= limit as u64 {
                return Ok((entries, next));
            }
            next += count as u64;
            entries.extend(serde_json::from_slice::<AuditEntry>(&line).ok());
        }
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let io = |source| Error::Io { action: "read", path: self.root.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            names.extend(name.to_str().filter(|name| name.ends_with(".ndjson")).map(ToOwned::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Removes what is too old.
    fn prune(&self) {
        let names = self.names().unwrap_or_default();
        let surplus = names.len().saturating_sub(KEEP_DAYS);
        for name in names.into_iter().take(surplus) {
            if let Err(error) = fs::remove_file(self.root.join(&name)) {
                tracing::warn!(name, %error, "an old audit log stays");
            }
        }
    }
}

fn ends_with_newline(path: &Path) -> io::Result<bool> {
    use io::{Read as _, Seek as _};
    let mut file = File::open(path)?;
    file.seek(io::SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// `2026-11-21.ndjson`, by UTC.
fn file_name(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}.ndjson", text.split('T').next().unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, who: &str) -> AuditEntry {
        AuditEntry {
            at: Timestamp(at),
            who: who.into(),
            from: "unix".into(),
            method: "POST".into(),
            route: "/v1/runs".into(),
            object: "hello-1".into(),
            status: 200,
            code: None,
        }
    }

    #[test]
    fn lines_are_appended_by_day_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path().join("audit")).unwrap();
        let day = 86_400_000;
        let told = [entry(5, "a"), entry(day - 1, "b"), entry(day, "c")];
        for entry in &told {
            log.append(entry, false, true).unwrap();
        }
        let files = log.files(Timestamp(0)).unwrap();
        assert_eq!(files, ["1970-01-01.ndjson", "1970-01-02.ndjson"]);
        assert_eq!(log.files(Timestamp(day)).unwrap(), files[1..]);
        let (first, next) = log.read(&files[0], 0, 1 << 20).unwrap();
        assert_eq!(first, told[..2]);
        assert_eq!(log.read(&files[0], next, 1 << 20).unwrap(), (vec![], next));
        // A limit of one byte gives one line at a time.
        let (one, next) = log.read(&files[0], 0, 1).unwrap();
        assert_eq!(one, told[..1]);
        assert_eq!(log.read(&files[0], next, 1).unwrap().0, told[1..2]);
    }

    #[test]
    fn a_line_that_a_crash_cut_short_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("audit");
        let log = AuditLog::open(root.clone()).unwrap();
        log.append(&entry(1, "a"), false, true).unwrap();
        drop(log);
        let path = root.join("1970-01-01.ndjson");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"at\":2,\"wh").unwrap();
        let log = AuditLog::open(root).unwrap();
        // It is not told before it is whole.
        assert_eq!(log.read("1970-01-01.ndjson", 0, 1 << 20).unwrap().0, [entry(1, "a")]);
        log.append(&entry(3, "b"), false, true).unwrap();
        assert_eq!(log.read("1970-01-01.ndjson", 0, 1 << 20).unwrap().0, [entry(1, "a"), entry(3, "b")]);
    }

    #[test]
    fn nobody_can_fill_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path().to_owned()).unwrap();
        for _ in 0..200 {
            log.append(&entry(1, "nobody"), true, false).unwrap();
        }
        log.append(&entry(1, "local"), false, true).unwrap();
        log.append(&entry(60_000, "nobody"), true, false).unwrap();
        let (read, _) = log.read("1970-01-01.ndjson", 0, 1 << 20).unwrap();
        assert_eq!(read.len(), NOBODY_PER_MINUTE as usize + 2);
    }

    #[test]
    fn only_so_many_days_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path().to_owned()).unwrap();
        for day in 0..KEEP_DAYS as u64 + 5 {
            log.append(&entry(day * 86_400_000, "a"), false, false).unwrap();
        }
        assert_eq!(log.files(Timestamp(0)).unwrap().len(), KEEP_DAYS);
    }
}
