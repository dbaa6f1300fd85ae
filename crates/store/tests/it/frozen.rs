//! A process that did not run for a while, as one that was stopped or a machine that was suspended.

use std::time::Duration;

use sealift_store::{MemoryStore, Store, Txn};

const TTL: Duration = Duration::from_secs(1);

#[tokio::test]
async fn leases_count_from_when_it_runs_again() {
    let store = MemoryStore::new();
    let lease = store.grant_lease(TTL).await.unwrap();
    store.commit(Txn::new().put_leased("a", "", lease)).await.unwrap();
    // No task runs in between: what was to keep the lease alive meanwhile is heard only after it.
    std::thread::sleep(TTL * 3);
    tokio::task::yield_now().await;
    assert!(store.get("a").await.unwrap().is_some());
    // Whoever is really gone is so, one time to live later.
    let revision = store.revision().await.unwrap();
    let mut watch = store.watch("", revision).await.unwrap();
    assert!(watch.next().await.unwrap().is_some());
    assert!(store.get("a").await.unwrap().is_none());
}
