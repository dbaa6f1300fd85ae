//! Lists and watches that are larger than one message of gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealift_store::{Event, MAX_OPS, Store, Txn};

use super::cluster::{Cluster, has_etcd};

const LARGE: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_entries_are_listed_as_of_one_revision() {
    if !has_etcd() {
        return;
    }
    const ENTRIES: usize = 100_000;
    let cluster = Cluster::start(1);
    let store = Arc::new(cluster.open().await);
    let keys: Vec<String> = (0..ENTRIES).map(|i| format!("k{i:06}")).collect();
    for some in keys.chunks(MAX_OPS) {
        let txn = some.iter().fold(Txn::new(), |txn, key| txn.put(key, "0123456789"));
        store.commit(txn).await.unwrap();
    }
    // Meanwhile the first key, the last and one in the middle are always written together.
    let (first, middle, last) = (keys[0].clone(), keys[ENTRIES / 2].clone(), keys[ENTRIES - 1].clone());
    let done = Arc::new(AtomicBool::new(false));
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let writer = {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        tokio::spawn(async move {
            let mut writes = 0;
            let mut begun = Some(begun);
            while !done.load(Ordering::Relaxed) {
                writes += 1;
                let value = writes.to_string();
                let txn = Txn::new().put(&first, value.clone()).put(&middle, value.clone()).put(&last, value);
                store.commit(txn).await.unwrap();
                if let Some(begun) = begun.take() {
                    begun.send(()).unwrap();
                }
            }
            writes
        })
    };
    has_begun.await.unwrap();
    let range = store.range("").await.unwrap();
    done.store(true, Ordering::Relaxed);
    let writes: u64 = writer.await.unwrap();
    assert!(range.entries.iter().map(|entry| &entry.key).eq(&keys), "{} entries", range.entries.len());
    let ends =
        [0, ENTRIES / 2, ENTRIES - 1].map(|i| (range.entries[i].modified, range.entries[i].value.clone()));
    assert!(ends[0] == ends[1] && ends[1] == ends[2], "{ends:?} after {writes} writes");
    assert!(range.entries.iter().all(|entry| entry.modified <= range.revision));
}

#[tokio::test]
async fn large_values_and_large_revisions_come_through() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(1);
    let store = cluster.open().await;
    let start = store.revision().await.unwrap();
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let keys: Vec<String> = (0..100).map(|i| format!("k{i:03}")).collect();
    let mut put = Vec::new();
    for some in keys.chunks(10) {
        let txn = some.iter().fold(Txn::new(), |txn, key| txn.put_leased(key, vec![7; LARGE], lease));
        put.push(store.commit(txn).await.unwrap());
    }
    let entries = store.range("").await.unwrap().entries;
    assert!(entries.iter().map(|entry| &entry.key).eq(&keys));
    assert!(entries.iter().all(|entry| entry.value.len() == LARGE));
    // One revision with ten megabytes of what was there before: etcd sends it in pieces.
    store.revoke_lease(lease).await.unwrap();
    let after = store.commit(Txn::new().put("after", "")).await.unwrap();
    let mut watch = store.watch("", start).await.unwrap();
    for revision in put {
        let batch = watch.next().await.unwrap().unwrap();
        assert_eq!((batch.revision, batch.events.len()), (revision, 10));
    }
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events.len(), 100);
    for (event, key) in batch.events.iter().zip(&keys) {
        let Event::Delete { key: deleted, last } = event else { panic!("{key} was not deleted") };
        assert_eq!((deleted, last.value.len()), (key, LARGE));
    }
    assert_eq!(watch.next().await.unwrap().unwrap().revision, after);
}
