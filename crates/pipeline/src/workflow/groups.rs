//! Groups of `concurrency`: one at a time, the first to come first, and nothing old after something new.
//!
//! A group is a directory. Whoever wants to run in it holds a ticket: a file there, with a lock of the kernel (flock(2)) on it.
//! The lock ends with its process, whatever way that ends, so a ticket without one is nobody's and is taken away. The
//! oldest ticket's turn it is. All looking and writing is done under one more lock, which is never held for long.
//!
//! Guarantees: of one group at most one runs on this machine; a run that is older than one that has passed there is
//! refused; nothing is left that a killed program could block others with.
//!
//! It must not know what is run.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// How often a turn that is waited for is looked at, and whether one that runs is to end.
const LOOK: Duration = Duration::from_millis(100);
/// Longest name of a file.
const LONGEST: usize = 200;
/// More than a ticket holds.
const LARGEST: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the name of group {0:?} is empty or too long")]
    Name(String),
    #[error("cannot use the group's directory {}", path.display())]
    Files {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the group's task broke off")]
    Task(#[source] tokio::task::JoinError),
}

/// Who wants to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// The whole that it is part of: parts of one never end each other.
    pub(super) run: String,
    /// Grows from older runs to newer ones.
    pub(super) order: Option<u64>,
}

/// A claim with its place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    number: u64,
    claim: Claim,
}

/// What a place in the queue means now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Go,
    /// So many are before it.
    Wait(usize),
    /// One that is newer has passed.
    TooOld {
        newest: u64,
    },
}

fn turn(own: &Place, others: &[Place], newest: Option<u64>) -> Turn {
    if let (Some(order), Some(newest)) = (own.claim.order, newest)
        && order < newest
    {
        return Turn::TooOld { newest };
    }
    match others.iter().filter(|other| other.number < own.number).count() {
        0 => Turn::Go,
        before => Turn::Wait(before),
    }
}

/// Whether `newer` makes `older` needless.
fn supersedes(newer: &Place, older: &Place) -> bool {
    if newer.claim.run == older.claim.run {
        return false;
    }
    match (newer.claim.order, older.claim.order) {
        (Some(new), Some(old)) if new != old => new > old,
        _ => newer.number > older.number,
    }
}

/// How waiting for a turn ended.
#[derive(Debug)]
pub(super) enum Entry {
    /// It is ours until the ticket is dropped.
    Ours(Ticket),
    /// It must not run, for this reason.
    Refused(String),
    Cancelled,
}

/// A place in a group. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Ticket {
    group: Group,
    place: Place,
    /// Holds the lock.
    _file: File,
}

#[derive(Debug, Clone)]
struct Group {
    dir: PathBuf,
}

/// Takes a place in a group and waits for its turn. `waiting` is told how many are before it, whenever that changes.
pub(super) async fn enter(
    groups: &Path,
    name: &str,
    claim: Claim,
    end_older: bool,
    waiting: &mut (dyn FnMut(usize) + Send),
    cancel: &CancellationToken,
) -> Result<Entry, Error> {
    let group = Group { dir: groups.join(file_name(name)?) };
    let Some(ticket) = group.locked(cancel, move |group| group.take(claim.clone(), end_older)).await? else {
        return Ok(Entry::Cancelled);
    };
    let mut said = None;
    loop {
        let own = ticket.place.clone();
        let Some(looked) = ticket.group.locked(cancel, move |group| group.look(&own)).await? else {
            return Ok(Entry::Cancelled);
        };
        match looked {
            Err(by) => return Ok(Entry::Refused(superseded(&by))),
            Ok(Turn::Go) => return Ok(Entry::Ours(ticket)),
            Ok(Turn::TooOld { newest }) => {
                let order = ticket.place.claim.order.unwrap_or_default();
                return Ok(Entry::Refused(format!(
                    "superseded: a newer run ({newest}) has passed in group {name} already, and this one is older ({order})"
                )));
            }
            Ok(Turn::Wait(before)) if said != Some(before) => {
                said = Some(before);
                waiting(before);
            }
            Ok(Turn::Wait(_)) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = cancel.cancelled() => return Ok(Entry::Cancelled),
        }
    }
}

fn superseded(by: &str) -> String {
    format!("superseded by {by}, which is newer")
}

impl Ticket {
    /// Comes back with the reason when a newer run wants this one to end.
    pub(super) async fn unwanted(&self) -> String {
        let mark = self.group.mark(self.place.number);
        loop {
            if let Ok(by) = read(&mark) {
                return superseded(&by);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What was run has passed: nothing older will run in this group any more.
    pub(super) async fn passed(&self) -> Result<(), Error> {
        let Some(order) = self.place.claim.order else { return Ok(()) };
        let never = CancellationToken::new();
        self.group.locked(&never, move |group| group.note_newest(order)).await.map(drop)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // The mark first: once the ticket is gone, its number may be another one's. What cannot be removed is nobody's
        // as soon as the file is closed.
        fs::remove_file(self.group.mark(self.place.number)).ok();
        fs::remove_file(self.group.ticket(self.place.number)).ok();
    }
}

impl Group {
    /// Does something while nobody else looks at the group; none when it was cancelled before.
    async fn locked<T: Send + 'static>(
        &self,
        cancel: &CancellationToken,
        mut work: impl FnMut(&Group) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let mut work = {
            let group = self.clone();
            move || {
                fs::create_dir_all(&group.dir)?;
                let lock = File::options().create(true).append(true).open(group.dir.join("lock"))?;
                match lock.try_lock() {
                    Ok(()) => work(&group).map(Some),
                    Err(TryLockError::WouldBlock) => Ok(None),
                    Err(TryLockError::Error(error)) => Err(error),
                }
            }
        };
        loop {
            if cancel.is_cancelled() {
                return Ok(None);
            }
            let (result, again) =
                tokio::task::spawn_blocking(move || (work(), work)).await.map_err(Error::Task)?;
            work = again;
            let result = result.map_err(|source| Error::Files { path: self.dir.clone(), source })?;
            if result.is_some() {
                return Ok(result);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn ticket(&self, number: u64) -> PathBuf {
        self.dir.join(format!("ticket-{number}"))
    }

    fn mark(&self, number: u64) -> PathBuf {
        self.dir.join(format!("end-{number}"))
    }

    fn take(&self, claim: Claim, end_older: bool) -> io::Result<Ticket> {
        let others = self.others(None)?;
        let number = others.iter().map(|place| place.number).max().unwrap_or(0) + 1;
        let mut file = File::create(self.ticket(number))?;
        // Nobody else can have it: it is new, and looked at under the group's lock only.
        file.try_lock().map_err(io::Error::from)?;
        fs::remove_file(self.mark(number)).or_else(none_is_fine)?;
        file.write_all(&serde_json::to_vec(&claim)?)?;
        let place = Place { number, claim };
        let ticket = Ticket { group: self.clone(), place, _file: file };
        for older in others.iter().filter(|other| end_older && supersedes(&ticket.place, other)) {
            fs::write(self.mark(older.number), &ticket.place.claim.run)?;
        }
        Ok(ticket)
    }

    /// Whose turn it is, or who wants it to end.
    fn look(&self, own: &Place) -> io::Result<Result<Turn, String>> {
        if let Ok(by) = read(&self.mark(own.number)) {
            return Ok(Err(by));
        }
        Ok(Ok(turn(own, &self.others(Some(own.number))?, self.newest())))
    }

    /// The places that are somebody's; others' leavings are removed.
    fn others(&self, own: Option<u64>) -> io::Result<Vec<Place>> {
        let mut places = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let Some(number) = name.strip_prefix("ticket-").and_then(|number| number.parse().ok()) else {
                continue;
            };
            if Some(number) == own {
                continue;
            }
            let file = match File::open(&path) {
                Ok(file) => file,
                // Given up in this moment: that needs no lock.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match file.try_lock() {
                Ok(()) => {
                    fs::remove_file(&path).or_else(none_is_fine)?;
                    fs::remove_file(self.mark(number)).or_else(none_is_fine)?;
                }
                Err(TryLockError::WouldBlock) => {
                    let mut text = Vec::new();
                    file.take(LARGEST).read_to_end(&mut text)?;
                    places.push(Place { number, claim: serde_json::from_slice(&text)? });
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(places)
    }

    /// The newest that has passed.
    fn newest(&self) -> Option<u64> {
        read(&self.dir.join("newest")).ok()?.parse().ok()
    }

    fn note_newest(&self, order: u64) -> io::Result<()> {
        if self.newest().is_some_and(|known| known >= order) {
            return Ok(());
        }
        // Whole or not there, also after a power failure.
        let new = self.dir.join("newest.new");
        let mut file = File::create(&new)?;
        file.write_all(order.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.dir.join("newest"))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn none_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// A group's name as the name of a directory, a different one for each.
fn file_name(name: &str) -> Result<String, Error> {
    let one = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    let encoded: String = name.bytes().map(one).collect();
    if encoded.is_empty() || encoded.len() > LONGEST {
        return Err(Error::Name(name.to_owned()));
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(run: &str, order: Option<u64>) -> Claim {
        Claim { run: run.to_owned(), order }
    }

    fn place(number: u64, run: &str, order: Option<u64>) -> Place {
        Place { number, claim: claim(run, order) }
    }

    #[test]
    fn whose_turn_it_is() {
        let others = [place(2, "b", Some(5)), place(4, "d", None)];
        for (own, newest, want) in [
            (place(1, "a", None), Some(9), Turn::Go),
            (place(3, "c", Some(7)), None, Turn::Wait(1)),
            (place(5, "e", Some(7)), Some(7), Turn::Wait(2)),
            (place(5, "e", Some(6)), Some(7), Turn::TooOld { newest: 7 }),
            (place(1, "a", Some(6)), Some(7), Turn::TooOld { newest: 7 }),
        ] {
            assert_eq!(turn(&own, &others, newest), want, "{own:?}");
        }
    }

    #[test]
    fn which_one_is_newer() {
        for (newer, older, want) in [
            (place(2, "b", None), place(1, "a", None), true),
            (place(2, "a", None), place(1, "a", None), false),
            (place(2, "b", Some(3)), place(1, "a", Some(4)), false),
            (place(1, "b", Some(5)), place(2, "a", Some(4)), true),
            (place(2, "b", Some(4)), place(1, "a", Some(4)), true),
            (place(1, "b", None), place(2, "a", Some(4)), false),
        ] {
            assert_eq!(supersedes(&newer, &older), want, "{newer:?} {older:?}");
        }
    }

    #[test]
    fn names_of_groups() {
        assert_eq!(file_name("deploy-main").unwrap(), "deploy-main");
        assert_eq!(file_name("../x y").unwrap(), "%2E%2E%2Fx%20y");
        assert!(file_name("").is_err() && file_name(&"/".repeat(100)).is_err());
    }

    proptest! {
        #[test]
        fn one_at_a_time_and_the_newest_last(
            runs in prop::collection::vec((0_u64..5, prop::option::weighted(0.8, 0_u64..6)), 1..8),
        ) {
            // All wait at once, and each that may go ends at once: the queue empties in its order.
            let mut places: Vec<Place> = runs
                .iter()
                .zip(1..)
                .map(|((run, order), number)| place(number, &run.to_string(), *order))
                .collect();
            let mut newest = None;
            let mut passed: Vec<u64> = Vec::new();
            while !places.is_empty() {
                let turns: Vec<Turn> = places
                    .iter()
                    .map(|own| {
                        let others: Vec<Place> = places.iter().filter(|other| *other != own).cloned().collect();
                        turn(own, &others, newest)
                    })
                    .collect();
                prop_assert!(turns.iter().filter(|turn| **turn == Turn::Go).count() <= 1);
                let done = turns.iter().position(|turn| !matches!(turn, Turn::Wait(_)));
                prop_assert!(done.is_some(), "stuck");
                let index = done.unwrap();
                let ended = places.remove(index);
                if turns[index] == Turn::Go {
                    passed.extend(ended.claim.order);
                    newest = newest.max(ended.claim.order);
                }
            }
            prop_assert!(passed.is_sorted(), "{passed:?}");
        }
    }

    async fn go(dir: &Path, run: &str, order: Option<u64>, end_older: bool) -> Entry {
        let cancel = CancellationToken::new();
        enter(dir, "g", claim(run, order), end_older, &mut |_| {}, &cancel).await.unwrap()
    }

    fn ours(entry: Entry) -> Ticket {
        match entry {
            Entry::Ours(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    /// One that has to wait, and the word that it waits.
    fn waits(
        dir: &Path,
        run: &'static str,
        order: Option<u64>,
        end_older: bool,
    ) -> (tokio::task::JoinHandle<Entry>, tokio::sync::mpsc::UnboundedReceiver<usize>) {
        let dir = dir.to_owned();
        let (told, hears) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let cancel = CancellationToken::new();
            let mut waiting = |before| told.send(before).unwrap();
            enter(&dir, "g", claim(run, order), end_older, &mut waiting, &cancel).await.unwrap()
        });
        (task, hears)
    }

    #[tokio::test]
    async fn the_first_to_come_is_the_first_to_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = ours(go(dir.path(), "a", Some(1), false).await);
        let (second, mut told) = waits(dir.path(), "b", Some(2), false);
        assert_eq!(told.recv().await, Some(1));
        let (third, mut told) = waits(dir.path(), "c", Some(3), false);
        assert_eq!(told.recv().await, Some(2));
        drop(first);
        let second = ours(second.await.unwrap());
        assert_eq!(told.recv().await, Some(1));
        drop(second);
        drop(ours(third.await.unwrap()));
        let left: Vec<_> =
            fs::read_dir(dir.path().join("g")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }

    #[tokio::test]
    async fn what_is_older_than_what_has_passed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let new = ours(go(dir.path(), "new", Some(7), false).await);
        let (old, mut told) = waits(dir.path(), "old", Some(6), false);
        told.recv().await.unwrap();
        new.passed().await.unwrap();
        drop(new);
        let Entry::Refused(reason) = old.await.unwrap() else { panic!("it ran") };
        assert!(
            reason.contains("a newer run (7) has passed in group g") && reason.contains("(6)"),
            "{reason}"
        );
        // The same once more, and what has no order, may.
        drop(ours(go(dir.path(), "again", Some(7), false).await));
        drop(ours(go(dir.path(), "free", None, false).await));
        // One that failed refuses nobody.
        drop(ours(go(dir.path(), "failed", Some(9), false).await));
        drop(ours(go(dir.path(), "eight", Some(8), false).await));
    }

    #[tokio::test]
    async fn a_newer_one_ends_those_that_wait_and_the_one_that_runs() {
        let dir = tempfile::tempdir().unwrap();
        let runs = ours(go(dir.path(), "a", Some(1), false).await);
        let (waiting, mut told) = waits(dir.path(), "b", Some(2), false);
        told.recv().await.unwrap();
        let (newest, mut told) = waits(dir.path(), "c", Some(3), true);
        told.recv().await.unwrap();
        let Entry::Refused(reason) = waiting.await.unwrap() else { panic!("it ran") };
        assert_eq!(reason, "superseded by c, which is newer");
        assert_eq!(runs.unwanted().await, "superseded by c, which is newer");
        drop(runs);
        drop(ours(newest.await.unwrap()));
    }

    #[tokio::test]
    async fn a_ticket_whose_owner_was_killed_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        drop(ours(go(dir.path(), "a", None, false).await));
        // As a kill leaves it: the file is there, and no lock on it.
        fs::write(dir.path().join("g/ticket-1"), "{\"run\":\"dead\",\"order\":5}").unwrap();
        fs::write(dir.path().join("g/ticket-2"), "").unwrap();
        fs::write(dir.path().join("g/end-1"), "somebody").unwrap();
        let ticket = ours(go(dir.path(), "b", None, false).await);
        assert_eq!(ticket.place.number, 1);
        drop(ticket);
    }

    /// A process of its own for the test below: takes a place and waits to be killed.
    #[tokio::test]
    #[allow(clippy::print_stdout, reason = "the other process listens to it")]
    async fn holder() {
        let Some(dir) = std::env::var_os("SEALIFT_TEST_GROUPS") else { return };
        let ticket = ours(go(Path::new(&dir), "killed", Some(1), false).await);
        println!("holds");
        std::future::pending::<()>().await;
        drop(ticket);
    }

    #[tokio::test]
    async fn a_program_that_is_killed_holds_nobody_up() {
        use tokio::io::{AsyncBufReadExt, BufReader};
        let dir = tempfile::tempdir().unwrap();
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "workflow::groups::tests::holder", "--nocapture"])
            .env("SEALIFT_TEST_GROUPS", dir.path())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().expect("it holds").contains("holds") {}
        let (next, mut told) = waits(dir.path(), "next", Some(2), false);
        assert_eq!(told.recv().await, Some(1));
        child.kill().await.unwrap();
        drop(ours(next.await.unwrap()));
    }

    #[tokio::test]
    async fn waiting_can_be_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let first = ours(go(dir.path(), "a", None, false).await);
        let cancel = CancellationToken::new();
        let mut waiting = |_| cancel.cancel();
        let entry = enter(dir.path(), "g", claim("b", None), false, &mut waiting, &cancel).await.unwrap();
        assert!(matches!(entry, Entry::Cancelled));
        drop(first);
    }
}
