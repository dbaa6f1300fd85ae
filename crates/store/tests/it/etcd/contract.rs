//! The contract on one member, which each case has to itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sealift_store::etcd::EtcdStore;
use sealift_store::{
    Entry, Error, HISTORY_EVENTS, LeaseId, MemoryStore, Range, Revision, Store, Txn, Watch, contract,
};

use super::cluster::{Cluster, has_etcd};

async fn make() -> (contract::Shared, Option<Cluster>) {
    if !has_etcd() {
        // Something that passes; the skip was said aloud.
        return (Arc::new(MemoryStore::new()), None);
    }
    let cluster = Cluster::start(1);
    let store = Forgetful { store: cluster.open().await, events: AtomicUsize::new(0) };
    (Arc::new(store), Some(cluster))
}

sealift_store::contract_tests!(make, timed: tokio::test);

/// etcd that forgets its history in time, as the embedded stores do by themselves; otherwise its operator has it done.
#[derive(Debug)]
struct Forgetful {
    store: EtcdStore,
    events: AtomicUsize,
}

#[async_trait::async_trait]
impl Store for Forgetful {
    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        let more = txn.ops().len();
        let revision = self.store.commit(txn).await?;
        if self.events.fetch_add(more, Ordering::Relaxed) > HISTORY_EVENTS {
            self.store.compact(Revision(revision.0 - 20)).await?;
        }
        Ok(revision)
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.store.get(key).await
    }

    async fn range(&self, prefix: &str) -> Result<Range, Error> {
        self.store.range(prefix).await
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

    async fn barrier(&self) -> Result<Revision, Error> {
        self.store.barrier().await
    }
}
