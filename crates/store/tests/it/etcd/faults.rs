//! Members that die, freeze and come back under watches and transactions.

use std::time::{Duration, Instant};

use sealift_store::etcd::EtcdStore;
use sealift_store::{Error, Revision, Store, Txn, Watch};

use super::cluster::{Cluster, has_etcd};

/// The longest that anything may take that is said to happen in the end.
const IN_THE_END: Duration = Duration::from_secs(60);

/// Writes until it is done, as callers do: what is unknown is looked up.
async fn put(store: &EtcdStore, key: &str, value: &str) -> Revision {
    let begun = Instant::now();
    loop {
        match store.commit(Txn::new().if_absent(key).put(key, value.to_owned())).await {
            Ok(revision) => return revision,
            Err(Error::Conflict { found: Some(revision), .. }) => return revision,
            Err(error) => {
                assert!(error.is_unknown() || error.retryable(), "{error:?}");
                assert!(begun.elapsed() < IN_THE_END, "{error:?}");
            }
        }
    }
}

async fn next_change(watch: &mut Watch) -> sealift_store::Batch {
    loop {
        let batch = next(watch).await;
        if !batch.events.is_empty() {
            return batch;
        }
    }
}

async fn next(watch: &mut Watch) -> sealift_store::Batch {
    tokio::time::timeout(IN_THE_END, watch.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_every_member() {
    if !has_etcd() {
        return;
    }
    let mut cluster = Cluster::start(3);
    let options = cluster.options().timeout(Duration::from_secs(3));
    let (store, watched) = (cluster.open_with(options.clone()).await, cluster.open_with(options).await);
    let start = store.revision().await.unwrap();
    let mut watch = watched.watch("", start).await.unwrap();
    let mut expected = Vec::new();
    for number in 0..cluster.len() {
        expected.push(put(&store, &format!("{number}/before"), "").await);
        cluster.kill(number);
        expected.push(put(&store, &format!("{number}/killed"), "").await);
        cluster.spawn(number);
        expected.push(put(&store, &format!("{number}/back"), "").await);
        cluster.freeze(number);
        expected.push(put(&store, &format!("{number}/frozen"), "").await);
        // It is told while the member is still frozen, whichever the watch was on.
        for revision in expected.drain(..) {
            let batch = next(&mut watch).await;
            assert_eq!((batch.revision, batch.events.len()), (revision, 1));
        }
        cluster.thaw(number);
    }
    let barrier = loop {
        if let Ok(barrier) = store.barrier().await {
            break barrier;
        }
    };
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, batch.events.len()), (barrier, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_away_too_long_says_so() {
    if !has_etcd() {
        return;
    }
    let mut cluster = Cluster::start(1);
    let store = cluster.open().await;
    let mut watch = store.watch("", store.revision().await.unwrap()).await.unwrap();
    let first = put(&store, "first", "").await;
    assert_eq!(next(&mut watch).await.revision, first);
    cluster.kill(0);
    cluster.spawn(0);
    let store = cluster.open().await;
    put(&store, "second", "").await;
    let third = put(&store, "third", "").await;
    store.compact(third).await.unwrap();
    for _ in 0..2 {
        let error = tokio::time::timeout(IN_THE_END, watch.next()).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Compacted { oldest } if oldest == third), "{error:?}");
    }
    // As it says, from there on all is there.
    let fourth = put(&store, "fourth", "").await;
    assert_eq!(next(&mut store.watch("", third).await.unwrap()).await.revision, fourth);
    // Forgotten once is forgotten, and what is not yet there cannot be.
    store.compact(first).await.unwrap();
    let future = Revision(fourth.0 + 1000);
    assert!(matches!(store.compact(future).await, Err(Error::FutureRevision { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_costs_a_bounded_amount_and_misses_nothing() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(1);
    let store = cluster.open().await;
    let mut slow = store.watch("", store.revision().await.unwrap()).await.unwrap();
    // Far more than fits into connections; the other calls go on meanwhile.
    let mut revisions = Vec::new();
    for i in 0..60 {
        let txn = (0..5).fold(Txn::new(), |txn, k| txn.put(format!("{i}/{k}"), vec![1; 100_000]));
        revisions.push(store.commit(txn).await.unwrap());
    }
    for revision in revisions {
        let batch = next(&mut slow).await;
        assert_eq!((batch.revision, batch.events.len()), (revision, 5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_it_says_so_in_time_and_goes_on_after() {
    if !has_etcd() {
        return;
    }
    const TIMEOUT: Duration = Duration::from_secs(2);
    let mut cluster = Cluster::start(3);
    let store = cluster.open_with(cluster.options().timeout(TIMEOUT)).await;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let before = put(&store, "before", "").await;
    let mut watch = store.watch("", before).await.unwrap();
    cluster.kill(0);
    cluster.kill(1);

    let begun = Instant::now();
    let errors = tokio::join!(
        async { store.get("before").await.unwrap_err() },
        async { store.range("").await.unwrap_err() },
        async { store.revision().await.unwrap_err() },
        async { store.barrier().await.unwrap_err() },
        async { store.commit(Txn::new().if_present("before")).await.unwrap_err() },
        async { store.watch("", before).await.unwrap_err() },
        async { store.grant_lease(Duration::from_secs(60)).await.unwrap_err() },
    );
    let errors: [Error; 7] = errors.into();
    for error in &errors {
        // Nothing that could do harm was lost from sight.
        assert!(error.retryable() && !error.is_unknown(), "{error:?}");
    }
    // A leader that does not know yet that it is alone renews leases all the same.
    if let Err(error) = store.keep_alive(lease).await {
        assert!(error.retryable(), "{error:?}");
    }
    let ended = store.revoke_lease(lease).await.unwrap_err();
    let error = store.commit(Txn::new().put("within", "")).await.unwrap_err();
    for error in [&ended, &error] {
        assert!(error.retryable() || error.is_unknown(), "{error:?}");
    }
    // Seven at once, and three more; with as much again for a busy machine.
    assert!(begun.elapsed() < TIMEOUT * 8, "took {:?}", begun.elapsed());

    cluster.spawn(0);
    let after = put(&store, "after", "").await;
    let mut told = next_change(&mut watch).await;
    // The write without an answer may have been made after all, and the barrier too.
    if told.events[0].key() == "within" {
        assert!(error.is_unknown());
        told = next_change(&mut watch).await;
    }
    assert_eq!(told.revision, after);
    store.get("before").await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_an_answer_is_unknown_and_not_sent_again() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(1);
    let store = cluster.open_with(cluster.options().timeout(Duration::from_secs(1))).await;
    let one = put(&store, "a", "1").await;
    cluster.freeze(0);
    // Without a compare: sent twice, it would be made twice.
    let error = store.commit(Txn::new().put("a", "2")).await.unwrap_err();
    assert!(error.is_unknown() && !error.retryable(), "{error:?}");
    cluster.thaw(0);
    let begun = Instant::now();
    let entry = loop {
        match store.get("a").await {
            Ok(Some(entry)) if entry.version > 1 => break entry,
            _ => assert!(begun.elapsed() < IN_THE_END),
        }
        // It lay in the member's socket, which reads it now or has dropped it with the connection.
        if begun.elapsed() > Duration::from_secs(2) {
            return;
        }
    };
    assert_eq!((entry.version, entry.created), (2, one));
}
