//! A process that did not run for a while, as one that was stopped or a machine that was suspended.

use std::time::Duration;

use sealift_store::{MemoryStore, Store, Txn};

const TTL: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn leases_count_from_when_it_runs_again() {
    let store = MemoryStore::new();
    let lease = store.grant_lease(TTL).await.unwrap();
    store.commit(Txn::new().put_leased("a", "", lease)).await.unwrap();
    // Nobody's task runs in between: what was to keep the lease alive meanwhile is heard only after it.
    tokio::time::advance(TTL * 10).await;
    tokio::task::yield_now().await;
    assert!(store.get("a").await.unwrap().is_some());
    store.keep_alive(lease).await.unwrap();
    // Whoever is really gone is so, one time to live later.
    tokio::time::sleep(TTL + Duration::from_secs(1)).await;
    assert!(store.get("a").await.unwrap().is_none());
}
