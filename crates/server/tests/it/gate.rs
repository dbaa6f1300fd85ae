//! A store whose door can be shut in front of some writes, so that a race comes out as the test wants it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealift_store::{Entry, Error, LeaseId, MemoryStore, Op, Range, Revision, Store, Txn, Watch};
use tokio::sync::watch;

use crate::house::soon;

/// Holds back transactions that put a text somewhere, from when it is shut until it is opened; or loses the answers.
#[derive(Debug)]
pub(crate) struct Gate {
    store: MemoryStore,
    shut_for: watch::Sender<Option<(&'static str, &'static str)>>,
    waiting: watch::Sender<usize>,
    /// Of the next transaction that puts something under such a key, and whether it is made.
    lost: Mutex<Option<(&'static str, bool)>>,
}

impl Gate {
    pub(crate) fn new() -> Arc<Gate> {
        let (shut_for, waiting) = (watch::Sender::new(None), watch::Sender::new(0));
        Arc::new(Gate { store: MemoryStore::new(), shut_for, waiting, lost: Mutex::default() })
    }

    /// From now on whoever puts a value with this text under such a key waits.
    pub(crate) fn shut(&self, prefix: &'static str, text: &'static str) {
        self.shut_for.send_replace(Some((prefix, text)));
    }

    /// Until somebody waits in front of it.
    pub(crate) async fn somebody_waits(&self) {
        self.so_many_wait(1).await;
    }

    pub(crate) async fn so_many_wait(&self, wanted: usize) {
        soon("them at the gate", self.waiting.subscribe().wait_for(|count| *count >= wanted)).await.unwrap();
    }

    pub(crate) fn open(&self) {
        self.shut_for.send_replace(None);
    }

    /// The next transaction that puts something under such a key gets no answer; it is `made` all the same or not.
    pub(crate) fn lose_answer(&self, prefix: &'static str, made: bool) {
        *self.lost.lock().unwrap() = Some((prefix, made));
    }

    /// Whether that came.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.lock().unwrap().is_none()
    }

    /// Whether to lose the answer, and then whether to make it.
    fn loses(&self, txn: &Txn) -> Option<bool> {
        let mut lost = self.lost.lock().unwrap();
        let puts = |prefix: &str| {
            txn.ops().iter().any(|op| matches!(op, Op::Put { key, .. } if key.starts_with(prefix)))
        };
        lost.take_if(|(prefix, _)| puts(prefix)).map(|(_, made)| made)
    }

    fn holds(&self, txn: &Txn) -> bool {
        let Some((prefix, text)) = *self.shut_for.borrow() else { return false };
        txn.ops().iter().any(|op| match op {
            Op::Put { key, value, .. } => {
                key.starts_with(prefix) && String::from_utf8_lossy(value).contains(text)
            }
            Op::Delete { .. } => false,
        })
    }
}

#[async_trait::async_trait]
impl Store for Gate {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.store.get(key).await
    }

    async fn range(&self, prefix: &str) -> Result<Range, Error> {
        self.store.range(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        if self.holds(&txn) {
            let mut shut_for = self.shut_for.subscribe();
            self.waiting.send_modify(|count| *count += 1);
            shut_for.wait_for(Option::is_none).await.ok();
            self.waiting.send_modify(|count| *count -= 1);
        }
        if let Some(made) = self.loses(&txn) {
            if made {
                self.store.commit(txn).await?;
            }
            return Err(Error::Unknown { cause: Arc::new(std::io::ErrorKind::ConnectionReset.into()) });
        }
        self.store.commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.store.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.store.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Revision, Error> {
        self.store.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), Error> {
        self.store.revoke_lease(lease).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.store.revision().await
    }
}
