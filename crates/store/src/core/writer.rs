//! The one task that changes a store: it takes what was asked in order, decides several transactions at once, makes
//! them durable together, shows them, and only then answers.
//!
//! It sleeps until something is asked or the next lease runs out; between the two it does nothing.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Shared;
use super::overlay::{Changes, Overlay};
use crate::{Error, LeaseId, Revision, Txn};

/// How many requests one durable write carries at most.
const GROUP: usize = 256;
/// How long to wait before leases that could not be ended on disk are tried again.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);
/// Who finds a lease over so late did not run, and what would have kept the lease alive was not heard either.
const FROZEN: Duration = Duration::from_millis(500);

/// Makes changes durable.
pub(crate) trait Disk: Send + Debug {
    /// Writes all of `changes` on top of `shared`, the state before them, and returns once they are durable. Blocks.
    ///
    /// After an error they may be on disk or not; the next call first makes sure that the disk holds `shared`.
    fn write(&mut self, changes: &Changes, shared: &Shared) -> io::Result<()>;
}

/// A request with where to answer. That nobody listens any more changes nothing.
#[derive(Debug)]
pub(crate) enum Request {
    Commit(Txn, Answer<Revision>),
    Grant(Duration, Answer<LeaseId>),
    Revoke(LeaseId, Answer<()>),
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// An answer that waits for the changes to become durable.
enum Pending {
    Commit(Answer<Revision>, Result<Revision, Error>),
    Grant(Answer<LeaseId>, LeaseId),
    Revoke(Answer<()>),
}

impl Pending {
    /// Sends the answer, or the reason why nothing of the whole group was made durable.
    fn send(self, failure: Option<&Error>) {
        fn tell<T>(answer: Answer<T>, result: Result<T, Error>, failure: Option<&Error>) {
            // A caller that went away needs no answer.
            answer.send(failure.map_or(result, |error| Err(error.clone()))).ok();
        }
        match self {
            Pending::Commit(answer, result) => tell(answer, result, failure),
            Pending::Grant(answer, id) => tell(answer, Ok(id), failure),
            Pending::Revoke(answer) => tell(answer, Ok(()), failure),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    disk: Option<Box<dyn Disk>>,
    /// Tells watches of a new revision; when it is dropped they know that there will be none.
    newest: watch::Sender<Revision>,
    /// Set while the disk refuses what the end of a lease changes.
    expiry_held_until: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        disk: Option<Box<dyn Disk>>,
        newest: watch::Sender<Revision>,
    ) -> Writer {
        Writer { shared, requests, disk, newest, expiry_held_until: None }
    }

    /// Works until every handle of the store is gone and everything asked is answered.
    pub(crate) async fn run(mut self) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            let expiry = self.next_expiry();
            let waits = expiry.map(|expiry| expiry.saturating_duration_since(Instant::now()));
            // By a clock that no test moves: what is looked for is a process that did not run.
            let begun = std::time::Instant::now();
            let closed = tokio::select! {
                biased;
                // First, so that a busy queue does not keep leases alive.
                () = sleep_until(expiry) => false,
                taken = self.requests.recv_many(&mut group, GROUP) => taken == 0,
            };
            let frozen = waits.is_some_and(|waits| begun.elapsed() > waits + FROZEN);
            if closed || self.serve(&mut group, frozen).await.is_err() {
                return;
            }
        }
    }

    fn next_expiry(&self) -> Option<Instant> {
        let deadline = self.shared.read().leases.next_deadline()?;
        Some(self.expiry_held_until.map_or(deadline, |held| held.max(deadline)))
    }

    /// Decides, writes, shows and answers one group, along with the leases that have run out. Fails when the disk is
    /// lost for good.
    async fn serve(&mut self, group: &mut Vec<Request>, frozen: bool) -> Result<(), Error> {
        let now = Instant::now();
        if frozen && self.expiry_held_until.is_none() {
            tracing::warn!("this process did not run for a while; leases count from now");
            self.shared.write().leases.renew_all(now);
        }
        let with_expiry = self.next_expiry().is_some_and(|expiry| expiry <= now);
        let (changes, pending) = {
            let state = self.shared.read();
            let mut overlay = Overlay::new(&state, now);
            if with_expiry {
                overlay.expire();
            }
            let pending: Vec<Pending> =
                group.drain(..).map(|request| decide(&mut overlay, request)).collect();
            (overlay.into_changes(), pending)
        };
        let mut lost = Ok(());
        let failure = if changes.is_empty() {
            None
        } else {
            match self.write(changes).await {
                Ok(changes) => {
                    self.expiry_held_until = None;
                    let revision = changes.revision;
                    // A new lease lasts from when its holder hears of it, however long the disk took.
                    self.shared.write().publish(changes, Instant::now());
                    self.newest.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
                    None
                }
                Err(error) => {
                    tracing::error!(error = %error, "store write failed");
                    self.expiry_held_until = Some(now + EXPIRY_RETRY);
                    if matches!(error, Error::Closed) {
                        lost = Err(error.clone());
                    }
                    Some(error)
                }
            }
        };
        for answer in pending {
            answer.send(failure.as_ref());
        }
        lost
    }

    /// Hands the changes back once they are durable.
    async fn write(&mut self, changes: Changes) -> Result<Changes, Error> {
        let Some(mut disk) = self.disk.take() else { return Ok(changes) };
        let shared = Arc::clone(&self.shared);
        let (disk, changes, written) = tokio::task::spawn_blocking(move || {
            let written = disk.write(&changes, &shared);
            (disk, changes, written)
        })
        .await
        .map_err(|_| Error::Closed)?;
        self.disk = Some(disk);
        written.map_err(|cause| Error::storage("write to the store", cause))?;
        Ok(changes)
    }
}

fn decide(overlay: &mut Overlay<'_>, request: Request) -> Pending {
    match request {
        Request::Commit(txn, answer) => Pending::Commit(answer, overlay.commit(txn)),
        Request::Grant(ttl, answer) => Pending::Grant(answer, overlay.grant(ttl)),
        Request::Revoke(lease, answer) => {
            overlay.end_lease(lease);
            Pending::Revoke(answer)
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
