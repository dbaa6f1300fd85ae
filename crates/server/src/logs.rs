//! Run logs: one file an attempt, `<root>/<project>/<number>/<attempt>.ndjson`, a [`RunEvent`] a line.
//!
//! Events are numbered, so a batch that an agent sends again is taken once. A line that a crash cut short is dropped
//! when the file is next written, and the agent sends it again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;

use sealift_model::{RunEvent, RunId};
use tokio::sync::watch;

/// Bytes of log that one attempt may write; what comes after is left out, and the log says so.
const LIMIT: u64 = 256 << 20;

/// Why a log could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("events up to number {next} are missing")]
    Gap { next: u64 },
    #[error("cannot write an event as JSON")]
    Json(#[source] serde_json::Error),
}

#[derive(Debug)]
struct Open {
    file: File,
    next: u64,
    size: u64,
}

/// All logs below a folder. Its methods block on the disk.
#[derive(Debug)]
pub(crate) struct Logs {
    root: PathBuf,
    open: Mutex<BTreeMap<(RunId, u32), Open>>,
    told: Mutex<BTreeMap<RunId, watch::Sender<u64>>>,
}

impl Logs {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, open: Mutex::default(), told: Mutex::default() }
    }

    fn path(&self, run: &RunId, attempt: u32) -> PathBuf {
        self.root.join(run.project.as_str()).join(run.number.to_string()).join(format!("{attempt}.ndjson"))
    }

    /// Appends events that are not there yet. `sync` waits until they are on the disk.
    pub(crate) fn append(
        &self,
        run: &RunId,
        attempt: u32,
        events: &[RunEvent],
        sync: bool,
    ) -> Result<(), Error> {
        let path = self.path(run, attempt);
        let failed = |action| {
            let path = path.clone();
            move |source| Error::Io { action, path, source }
        };
        {
            let mut logs = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let key = (run.clone(), attempt);
            let log = match logs.entry(key.clone()) {
                std::collections::btree_map::Entry::Occupied(log) => log.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    if let Some(folder) = path.parent() {
                        fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
                    }
                    place.insert(open(&path).map_err(failed("open"))?)
                }
            };
            let mut text = Vec::new();
            let mut next = log.next;
            for event in events {
                if event.seq < next {
                    continue;
                }
                if event.seq > next {
                    // Nothing of the batch is taken, so the missing events begin where the file ends.
                    return Err(Error::Gap { next: log.next });
                }
                next += 1;
                if log.size + (text.len() as u64) < LIMIT {
                    serde_json::to_writer(&mut text, event).map_err(Error::Json)?;
                    text.push(b'\n');
                }
            }
            let written =
                log.file.write_all(&text).and_then(|()| if sync { log.file.sync_all() } else { Ok(()) });
            if let Err(source) = written {
                // What is in the file now is not known; the next append reads it anew.
                logs.remove(&key);
                return Err(failed("write")(source));
            }
            log.next = next;
            log.size += text.len() as u64;
            if sync {
                logs.remove(&key);
            }
        }
        let told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(told) = told.get(run) {
            told.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Whole lines from `offset` on, at most about `limit` bytes, and the offset behind them.
    pub(crate) fn read(
        &self,
        run: &RunId,
        attempt: u32,
        offset: u64,
        limit: usize,
    ) -> Result<(Vec<RunEvent>, u64), Error> {
        let path = self.path(run, attempt);
        let failed = |source| Error::Io { action: "read", path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), offset)),
            Err(error) => return Err(failed(error)),
        };
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut bytes = Vec::new();
        // A line that is longer than the limit is read to its end, or nobody would ever come past it.
        while (&file).take(limit as u64).read_to_end(&mut bytes).map_err(failed)? > 0
            && !bytes.contains(&b'\n')
        {}
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = bytes[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok((events, offset + end as u64))
    }

    /// Tells when something was appended to any attempt of this run.
    pub(crate) fn changes(&self, run: &RunId) -> watch::Receiver<u64> {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        told.retain(|_, told| told.receiver_count() > 0);
        told.entry(run.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }
}

/// Opens a log behind its last whole line.
fn open(path: &std::path::Path) -> io::Result<Open> {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let last = bytes[..end].split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    let next =
        last.and_then(|line| serde_json::from_slice::<RunEvent>(line).ok()).map_or(0, |event| event.seq + 1);
    file.set_len(end as u64)?;
    file.seek(SeekFrom::Start(end as u64))?;
    Ok(Open { file, next, size: end as u64 })
}

#[cfg(test)]
mod tests {
    use sealift_model::{EventKind, Timestamp};

    use super::*;

    fn event(seq: u64) -> RunEvent {
        RunEvent {
            seq,
            at: Timestamp(seq),
            node: None,
            kind: EventKind::Note { text: format!("line {seq}\nof text") },
        }
    }

    #[test]
    fn resent_batches_are_taken_once_and_gaps_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let run = "hello-1".parse().unwrap();
        let logs = Logs::new(dir.path().to_owned());
        logs.append(&run, 1, &[event(0), event(1)], false).unwrap();
        logs.append(&run, 1, &[event(1), event(2)], false).unwrap();
        assert!(matches!(logs.append(&run, 1, &[event(4)], false), Err(Error::Gap { next: 3 })));
        logs.append(&run, 2, &[event(0)], true).unwrap();
        let (events, offset) = logs.read(&run, 1, 0, 1 << 20).unwrap();
        assert_eq!(events, [event(0), event(1), event(2)]);
        assert_eq!(logs.read(&run, 1, offset, 1 << 20).unwrap(), (vec![], offset));
        // A limit in the middle of a line gives the whole lines before it.
        let (events, offset) = logs.read(&run, 1, 0, usize::try_from(offset).unwrap() - 1).unwrap();
        assert_eq!(events, [event(0), event(1)]);
        assert_eq!(logs.read(&run, 1, offset, 1 << 20).unwrap().0, [event(2)]);
    }

    #[test]
    fn a_line_cut_by_a_crash_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let run = "hello-1".parse().unwrap();
        Logs::new(dir.path().to_owned()).append(&run, 1, &[event(0), event(1)], false).unwrap();
        let path = dir.path().join("hello/1/1.ndjson");
        let text = fs::read(&path).unwrap();
        for cut in 0..text.len() {
            fs::write(&path, &text[..cut]).unwrap();
            let logs = Logs::new(dir.path().to_owned());
            logs.append(&run, 1, &[], false).unwrap();
            let kept = logs.read(&run, 1, 0, 1 << 20).unwrap().0.len() as u64;
            let rest: Vec<_> = (kept..3).map(event).collect();
            logs.append(&run, 1, &rest, true).unwrap();
            assert_eq!(
                logs.read(&run, 1, 0, 1 << 20).unwrap().0,
                [event(0), event(1), event(2)],
                "cut at {cut}"
            );
        }
    }
}
