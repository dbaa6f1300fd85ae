//! What a file store says after it was closed and opened again.

use std::time::Duration;

use sealift_store::{Error, LeaseId, Revision, Store, Txn};
use tokio::time::Instant;

use crate::open;

const TTL: Duration = Duration::from_secs(10);

#[tokio::test]
async fn has_the_same_entries_and_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for i in 0..5 {
        store.commit(Txn::new().put("a", vec![i; 10]).put(format!("b/{i}"), "")).await.unwrap();
    }
    store.commit(Txn::new().delete("b/1").put("empty", "")).await.unwrap();
    let before = store.range("").await.unwrap();
    assert_eq!(before.entries.len(), 6);
    store.close().await;
    let store = open(dir.path()).await;
    assert_eq!(store.range("").await.unwrap(), before);
    assert_eq!(store.commit(Txn::new().put("a", "")).await.unwrap(), Revision(before.revision.0 + 1));
    assert_eq!(store.get("a").await.unwrap().unwrap().version, 6);
}

#[tokio::test]
async fn begins_its_history_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for _ in 0..3 {
        store.commit(Txn::new().put("a", "")).await.unwrap();
    }
    store.close().await;
    let store = open(dir.path()).await;
    assert!(matches!(store.watch("", Revision(2)).await, Err(Error::Compacted { oldest: Revision(3) })));
    let mut watch = store.watch("", Revision(3)).await.unwrap();
    store.commit(Txn::new().put("a", "")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, Revision(4));
}

#[tokio::test(start_paused = true)]
async fn gives_leases_their_whole_time_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = store.grant_lease(TTL).await.unwrap();
    let revoked = store.grant_lease(TTL).await.unwrap();
    store.commit(Txn::new().put_leased("a", "", lease).put("b", "")).await.unwrap();
    store.revoke_lease(revoked).await.unwrap();
    tokio::time::sleep(TTL * 3 / 4).await;
    store.close().await;

    let store = open(dir.path()).await;
    let reopened = Instant::now();
    let mut watch = store.watch("", Revision(1)).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert!(reopened.elapsed() >= TTL - Duration::from_millis(10), "ended after {:?}", reopened.elapsed());
    assert_eq!((batch.events.len(), batch.events[0].key()), (1, "a"));
    // An identifier from before is not given to someone else.
    let LeaseId(new) = store.grant_lease(TTL).await.unwrap();
    assert!(new > revoked.0);
}

#[tokio::test]
async fn is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let path = dir.path().join("store.redb");
    assert!(matches!(sealift_store::RedbStore::open(&path).await, Err(Error::Storage { .. })));
    store.close().await;
    open(dir.path()).await;
}

#[tokio::test]
async fn refuses_a_file_that_is_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    std::fs::write(&path, "not a database, not even nearly, but some bytes").unwrap();
    assert!(matches!(sealift_store::RedbStore::open(&path).await, Err(Error::Storage { .. })));
    let none = dir.path().join("missing/store.redb");
    assert!(matches!(sealift_store::RedbStore::open(&none).await, Err(Error::Storage { .. })));
}
