//! The store that both embedded stores share; they differ in what makes changes durable.
//!
//! Reads and keep-alives look at the state directly. Everything else goes through the [`Writer`]'s queue.

mod overlay;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) use overlay::Changes;
pub(crate) use state::Saved;
use state::State;
pub(crate) use writer::Disk;
use writer::{Answer, Request, Writer};

use crate::{Batch, Entry, Error, LeaseId, MAX_TTL, Range, Revision, Txn, Watch, WatchSource};

/// Requests that wait for the writer; whoever comes then waits with his own.
const QUEUE: usize = 1024;

/// The state that readers see. Only the writer changes it, save for the deadlines of leases.
#[derive(Debug)]
pub(crate) struct Shared(RwLock<State>);

impl Shared {
    pub(crate) fn of(saved: Saved) -> Shared {
        Shared(RwLock::new(State::load(saved, Instant::now())))
    }

    // Nothing panics while it holds the lock, so a poisoned lock would still guard a whole state.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be on disk.
    pub(crate) fn saved(&self) -> Saved {
        let state = self.read();
        Saved {
            revision: state.revision,
            entries: state.entries.clone(),
            leases: state.leases.ttls(),
            last_lease: state.last_lease,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.read().revision
    }
}

#[derive(Debug)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    newest: watch::Receiver<Revision>,
    writer: JoinHandle<()>,
}

impl Core {
    /// Takes over what was saved and starts the writer on the current tokio runtime.
    pub(crate) fn start(saved: Saved, disk: Option<Box<dyn Disk>>) -> Core {
        let shared = Arc::new(Shared::of(saved));
        let (newest_sender, newest) = watch::channel(shared.revision());
        let (requests, receiver) = mpsc::channel(QUEUE);
        let writer = Writer::new(Arc::clone(&shared), receiver, disk, newest_sender);
        Core { shared, requests, newest, writer: tokio::spawn(writer.run()) }
    }

    /// Ends once everything that was asked is answered and the disk is let go of.
    pub(crate) async fn close(self) {
        drop(self.requests);
        // It ends by itself; a runtime that is shutting down has ended it already.
        self.writer.await.ok();
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        self.shared.read().entries.get(key).cloned()
    }

    pub(crate) fn range(&self, prefix: &str) -> Range {
        let state = self.shared.read();
        Range { entries: state.range(prefix).cloned().collect(), revision: state.revision }
    }

    pub(crate) async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        txn.check()?;
        self.ask(|answer| Request::Commit(txn, answer)).await
    }

    pub(crate) fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let state = self.shared.read();
        if after > state.revision {
            return Err(Error::FutureRevision { after, newest: state.revision });
        }
        if after < state.history.oldest() {
            return Err(Error::Compacted { oldest: state.history.oldest() });
        }
        Ok(Watch::new(HistoryReader {
            shared: Arc::clone(&self.shared),
            newest: self.newest.clone(),
            prefix: prefix.to_owned(),
            after,
        }))
    }

    pub(crate) async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        if ttl.is_zero() || ttl > MAX_TTL {
            return Err(Error::InvalidTtl);
        }
        self.ask(|answer| Request::Grant(ttl, answer)).await
    }

    pub(crate) fn keep_alive(&self, lease: LeaseId) -> Result<Revision, Error> {
        let kept = self.shared.write().leases.keep_alive(lease, Instant::now());
        if kept { Ok(self.shared.revision()) } else { Err(Error::LeaseNotFound(lease)) }
    }

    pub(crate) async fn revoke_lease(&self, lease: LeaseId) -> Result<(), Error> {
        self.ask(|answer| Request::Revoke(lease, answer)).await
    }

    pub(crate) fn revision(&self) -> Revision {
        self.shared.revision()
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

/// A watch reads on in the history that all watches share: what is bounded for one is bounded for all, and a slow
/// reader costs nothing.
#[derive(Debug)]
struct HistoryReader {
    shared: Arc<Shared>,
    newest: watch::Receiver<Revision>,
    prefix: String,
    /// Everything up to here was told or does not concern this watch.
    after: Revision,
}

#[async_trait::async_trait]
impl WatchSource for HistoryReader {
    async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            // Before the look into the history: what comes after the look wakes the wait below.
            self.newest.mark_unchanged();
            if let Some(batch) = self.read_on()? {
                return Ok(Some(batch));
            }
            if self.newest.changed().await.is_err() {
                // The writer's last words may have come between the look and its end.
                return self.read_on();
            }
        }
    }
}

impl HistoryReader {
    /// The next commit in the history that concerns this watch.
    fn read_on(&mut self) -> Result<Option<Batch>, Error> {
        let state = self.shared.read();
        while let Some(batch) = state.history.next(self.after)? {
            self.after = batch.revision;
            let events: Vec<_> =
                batch.events.iter().filter(|event| event.key().starts_with(&self.prefix)).cloned().collect();
            if !events.is_empty() {
                return Ok(Some(Batch { revision: batch.revision, events }));
            }
        }
        Ok(None)
    }
}

/// Implements the trait for a store that has a `core`.
macro_rules! store_by_core {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::Store for $store {
            async fn get(&self, key: &str) -> Result<Option<$crate::Entry>, $crate::Error> {
                Ok(self.core.get(key))
            }

            async fn range(&self, prefix: &str) -> Result<$crate::Range, $crate::Error> {
                Ok(self.core.range(prefix))
            }

            async fn commit(&self, txn: $crate::Txn) -> Result<$crate::Revision, $crate::Error> {
                self.core.commit(txn).await
            }

            async fn watch(
                &self,
                prefix: &str,
                after: $crate::Revision,
            ) -> Result<$crate::Watch, $crate::Error> {
                self.core.watch(prefix, after)
            }

            async fn grant_lease(&self, ttl: std::time::Duration) -> Result<$crate::LeaseId, $crate::Error> {
                self.core.grant_lease(ttl).await
            }

            async fn keep_alive(&self, lease: $crate::LeaseId) -> Result<$crate::Revision, $crate::Error> {
                self.core.keep_alive(lease)
            }

            async fn revoke_lease(&self, lease: $crate::LeaseId) -> Result<(), $crate::Error> {
                self.core.revoke_lease(lease).await
            }

            async fn revision(&self) -> Result<$crate::Revision, $crate::Error> {
                Ok(self.core.revision())
            }
        }
    };
}
pub(crate) use store_by_core;
