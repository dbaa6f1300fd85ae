//! What every store has to do, as test cases over the trait alone.
//!
//! A store's tests call [`contract_tests!`](crate::contract_tests) once and get every case, so that a case added here
//! reaches all stores. The cases panic when the store is wrong. Each wants an empty store of its own, which nobody
//! else writes to. How revisions are counted is not part of it: only that they grow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The cases are tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{
    Batch, Entry, Error, Event, HISTORY_EVENTS, LeaseId, MAX_KEY, MAX_OPS, MAX_TTL, MAX_TXN, MAX_VALUE,
    Revision, Store, Txn, Watch,
};

/// A store that the tasks of a case share.
pub type Shared = Arc<dyn Store>;

const TTL: Duration = Duration::from_secs(2);

/// Makes a test of every case. `make` names an async function without arguments that gives an empty store as
/// [`Shared`] and a guard that lives as long as the test (a temporary directory, say).
/// `timed` is the attribute for cases in which time passes: `tokio::test(start_paused = true)` where no other
/// process is involved.
#[macro_export]
macro_rules! contract_tests {
    ($make:path, timed: $timed:meta) => {
        $crate::contract_tests!(@cases $make, tokio::test(flavor = "multi_thread", worker_threads = 2):
            begins_empty
            counts_what_is_written
            deletes_and_makes_anew
            leaves_the_revision_when_nothing_changes
            refuses_what_does_not_hold
            compares_with_what_was_before
            counts_by_compare_and_set
            takes_prefixes_literally
            holds_the_limits
            shows_a_commit_as_one_batch
            shows_concurrent_commits_in_order
            replays_from_an_old_revision
            tells_when_history_is_gone
            tells_a_reader_that_fell_behind
            refuses_to_watch_the_future
            loses_nothing_when_a_wait_is_dropped
            shows_what_it_acknowledged
            brings_watches_to_a_barrier
            revokes_leases
            lets_go_of_leased_keys
            knows_its_leases
        );
        $crate::contract_tests!(@cases $make, $timed:
            ends_leases_in_time
            keeps_leases_alive
        );
    };
    (@cases $make:path, $attribute:meta: $($case:ident)*) => {
        $(
            #[$attribute]
            async fn $case() {
                let (store, _guard) = $make().await;
                $crate::contract::$case(store).await;
            }
        )*
    };
}

async fn put(store: &Shared, key: &str, value: &str) -> Revision {
    store.commit(Txn::new().put(key, value.to_owned())).await.unwrap()
}

async fn keys(store: &Shared, prefix: &str) -> Vec<String> {
    store.range(prefix).await.unwrap().entries.into_iter().map(|entry| entry.key).collect()
}

/// The next change, which has to come; the limit only makes a hang readable.
async fn next(watch: &mut Watch) -> Batch {
    tokio::time::timeout(Duration::from_secs(60), next_change(watch)).await.unwrap().unwrap().unwrap()
}

/// Leaves out progress.
async fn next_change(watch: &mut Watch) -> Result<Option<Batch>, Error> {
    loop {
        match watch.next().await {
            Ok(Some(batch)) if batch.events.is_empty() => {}
            other => return other,
        }
    }
}

/// The revision before the case changes anything.
async fn start(store: &Shared) -> Revision {
    store.revision().await.unwrap()
}

fn touched(batch: &Batch) -> Vec<&str> {
    batch.events.iter().map(Event::key).collect()
}

pub async fn begins_empty(store: Shared) {
    let start = start(&store).await;
    assert_eq!(store.get("a").await.unwrap(), None);
    let range = store.range("").await.unwrap();
    assert_eq!((range.entries.len(), range.revision), (0, start));
    store.watch("", start).await.unwrap();
}

pub async fn counts_what_is_written(store: Shared) {
    let start = start(&store).await;
    let one = put(&store, "a", "1").await;
    let two = put(&store, "b", "x").await;
    let three = put(&store, "a", "2").await;
    assert!(start < one && one < two && two < three);
    let a = Entry {
        key: "a".into(),
        value: Bytes::from("2"),
        created: one,
        modified: three,
        version: 2,
        lease: None,
    };
    assert_eq!(store.get("a").await.unwrap(), Some(a.clone()));
    let range = store.range("").await.unwrap();
    assert_eq!(range.revision, three);
    assert_eq!(range.entries[0], a);
    assert_eq!(range.entries[1].key, "b");
    // Both writes of one transaction happen at one revision.
    let revision = store.commit(Txn::new().put("c", "").put("d", "")).await.unwrap();
    assert_eq!(store.get("c").await.unwrap().unwrap().modified, revision);
    assert_eq!(store.get("d").await.unwrap().unwrap().modified, revision);
    assert!(revision > three);
}

pub async fn deletes_and_makes_anew(store: Shared) {
    put(&store, "a", "1").await;
    let put_last = put(&store, "a", "2").await;
    let deleted = store.commit(Txn::new().delete("a")).await.unwrap();
    assert!(deleted > put_last);
    assert_eq!(store.get("a").await.unwrap(), None);
    let anew = put(&store, "a", "3").await;
    assert!(anew > deleted);
    let entry = store.get("a").await.unwrap().unwrap();
    assert_eq!((entry.created, entry.modified, entry.version), (anew, anew, 1));
}

pub async fn leaves_the_revision_when_nothing_changes(store: Shared) {
    let one = put(&store, "a", "1").await;
    let mut watch = store.watch("", one).await.unwrap();
    assert_eq!(store.commit(Txn::new()).await.unwrap(), one);
    assert_eq!(store.commit(Txn::new().if_present("a").if_absent("b")).await.unwrap(), one);
    assert_eq!(store.commit(Txn::new().delete("b")).await.unwrap(), one);
    assert_eq!(store.revision().await.unwrap(), one);
    // The same value once more is a write all the same.
    let two = put(&store, "a", "1").await;
    assert!(two > one);
    assert_eq!(next(&mut watch).await.revision, two);
}

pub async fn refuses_what_does_not_hold(store: Shared) {
    let one = put(&store, "a", "1").await;
    for (txn, key, found) in [
        (Txn::new().if_absent("a"), "a", Some(one)),
        (Txn::new().if_present("b"), "b", None),
        (Txn::new().if_modified_at("a", Revision(one.0 + 7)), "a", Some(one)),
        (Txn::new().if_modified_at("b", one), "b", None),
        // Revision 0 is that of no key, not even of one that is not there.
        (Txn::new().if_modified_at("b", Revision(0)), "b", None),
        (Txn::new().if_present("a").if_present("b"), "b", None),
    ] {
        match store.commit(txn.clone().put("c", "no").delete("a")).await {
            Err(error @ Error::Conflict { .. }) => {
                assert!(error.is_conflict() && !error.retryable());
                let Error::Conflict { key: at, found: was } = error else { unreachable!() };
                assert_eq!((at.as_str(), was), (key, found), "{txn:?}");
            }
            other => panic!("{txn:?}: {other:?}"),
        }
    }
    assert_eq!(store.revision().await.unwrap(), one);
    assert_eq!(keys(&store, "").await, ["a"]);
}

pub async fn compares_with_what_was_before(store: Shared) {
    let one = store.commit(Txn::new().if_absent("a").put("a", "1")).await.unwrap();
    let two = store.commit(Txn::new().if_modified_at("a", one).put("a", "2")).await.unwrap();
    assert!(store.commit(Txn::new().if_modified_at("a", one).put("a", "3")).await.unwrap_err().is_conflict());
    store.commit(Txn::new().if_modified_at("a", two).delete("a")).await.unwrap();
    assert!(store.commit(Txn::new().if_present("a").put("a", "4")).await.unwrap_err().is_conflict());
    store.commit(Txn::new().if_absent("a").put("a", "5")).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "5");
}

pub async fn counts_by_compare_and_set(store: Shared) {
    const TASKS: u64 = 8;
    const EACH: u64 = 25;
    let start = start(&store).await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut conflicts = 0;
            for _ in 0..EACH {
                while !try_increment(&store).await {
                    conflicts += 1;
                }
            }
            conflicts
        });
    }
    let conflicts: u64 = tasks.join_all().await.into_iter().sum();
    let entry = store.get("count").await.unwrap().unwrap();
    assert_eq!(entry.value, (TASKS * EACH).to_string(), "after {conflicts} conflicts");
    assert_eq!(entry.version, TASKS * EACH);
    assert!(entry.modified.0 >= start.0 + TASKS * EACH);
    assert_eq!(store.revision().await.unwrap(), entry.modified);
}

async fn try_increment(store: &Shared) -> bool {
    let txn = match store.get("count").await.unwrap() {
        None => Txn::new().if_absent("count").put("count", "1"),
        Some(entry) => {
            let count: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
            Txn::new().if_modified_at("count", entry.modified).put("count", (count + 1).to_string())
        }
    };
    match store.commit(txn).await {
        Ok(_) => true,
        Err(error) if error.is_conflict() => false,
        Err(error) => panic!("{error}"),
    }
}

pub async fn takes_prefixes_literally(store: Shared) {
    let start = start(&store).await;
    let all = ["a", "a/", "a/b", "a/b/c", "a0", "b", "\u{e4}/x", "\u{10ffff}"];
    for key in all {
        put(&store, key, "").await;
    }
    for (prefix, expected) in [
        ("", &all[..]),
        ("a", &["a", "a/", "a/b", "a/b/c", "a0"]),
        ("a/", &["a/", "a/b", "a/b/c"]),
        ("a/b", &["a/b", "a/b/c"]),
        ("a/b/", &["a/b/c"]),
        ("a1", &[]),
        ("\u{e4}", &["\u{e4}/x"]),
        ("\u{10ffff}", &["\u{10ffff}"]),
        ("\u{10ffff}x", &[]),
    ] {
        assert_eq!(keys(&store, prefix).await, expected, "range {prefix:?}");
        let mut watch = store.watch(prefix, start).await.unwrap();
        for key in expected {
            assert_eq!(touched(&next(&mut watch).await), [*key], "watch {prefix:?}");
        }
    }
}

pub async fn holds_the_limits(store: Shared) {
    let start = start(&store).await;
    let many = |count: usize| (0..count).fold(Txn::new(), |txn, i| txn.put(format!("k{i}"), ""));
    let large = |size: usize| Txn::new().put("large", vec![7; size]);
    let long = |size: usize| Txn::new().put("x".repeat(size), "");
    let checks = |count: usize| (0..count).fold(Txn::new(), |txn, i| txn.if_absent(format!("no{i}")));
    assert!(
        matches!(store.commit(many(MAX_OPS + 1)).await, Err(Error::TooManyOps { count }) if count == MAX_OPS + 1)
    );
    assert!(matches!(store.commit(checks(MAX_OPS + 1)).await, Err(Error::TooManyOps { .. })));
    assert!(matches!(
        store.commit(large(MAX_VALUE + 1)).await,
        Err(Error::ValueTooLarge { key, size }) if key == "large" && size == MAX_VALUE + 1
    ));
    assert!(matches!(store.commit(long(MAX_KEY + 1)).await, Err(Error::InvalidKey { .. })));
    assert!(matches!(store.commit(long(0)).await, Err(Error::InvalidKey { .. })));
    for twice in [
        Txn::new().put("a", "1").put("a", "2"),
        Txn::new().put("a", "1").delete("a"),
        Txn::new().delete("a").delete("b").delete("a"),
    ] {
        assert!(matches!(store.commit(twice).await, Err(Error::DuplicateKey { key }) if key == "a"));
    }
    // Values of which each is small enough, but not all together: the last byte is one too many.
    let heavy = |size: usize| {
        (0..size.div_ceil(MAX_VALUE)).fold(Txn::new(), |txn, i| {
            let key = format!("heavy{i:02}");
            let value = vec![7; (size - i * MAX_VALUE).min(MAX_VALUE) - key.len()];
            txn.put(key, value)
        })
    };
    assert!(matches!(
        store.commit(heavy(MAX_TXN + 1)).await,
        Err(Error::TxnTooLarge { size }) if size == MAX_TXN + 1
    ));
    // One bad operation spoils the whole transaction.
    store.commit(Txn::new().put("good", "").put("bad", vec![0; MAX_VALUE + 1])).await.unwrap_err();
    assert_eq!(store.revision().await.unwrap(), start);
    // The longest compares go along with the most bytes.
    let compared = (0..MAX_OPS / 2)
        .fold(Txn::new(), |txn, i| txn.if_absent(format!("{i:02}{}", "x".repeat(MAX_KEY - 2))));
    for fits in [many(MAX_OPS), large(MAX_VALUE), heavy(MAX_TXN), long(MAX_KEY), checks(MAX_OPS), compared] {
        store.commit(fits).await.unwrap();
    }
    assert_eq!(store.get("large").await.unwrap().unwrap().value.len(), MAX_VALUE);
    assert_eq!(keys(&store, "k").await.len(), MAX_OPS);
}

pub async fn shows_a_commit_as_one_batch(store: Shared) {
    let start = start(&store).await;
    let mut all = store.watch("", start).await.unwrap();
    let mut below = store.watch("a/", start).await.unwrap();
    let one = store.commit(Txn::new().put("b", "1").put("a/2", "1").put("a/1", "1")).await.unwrap();
    let two = put(&store, "b", "2").await;
    let three = store.commit(Txn::new().delete("a/1").delete("none").put("c", "1")).await.unwrap();
    let first = next(&mut all).await;
    assert_eq!((first.revision, touched(&first)), (one, vec!["b", "a/2", "a/1"]));
    assert_eq!(next(&mut all).await.revision, two);
    let third = next(&mut all).await;
    assert_eq!((third.revision, touched(&third)), (three, vec!["a/1", "c"]));
    // Only what is watched, and no change for commits that do not concern it.
    let first = next(&mut below).await;
    assert_eq!((first.revision, touched(&first)), (one, vec!["a/2", "a/1"]));
    let third = next(&mut below).await;
    assert_eq!(third.revision, three);
    let [Event::Delete { key, last }] = &third.events[..] else { panic!("{third:?}") };
    assert_eq!(key, "a/1");
    assert_eq!((&last.value[..], last.modified, last.version), (&b"1"[..], one, 1));
}

pub async fn shows_concurrent_commits_in_order(store: Shared) {
    const TASKS: u64 = 8;
    const EACH: u64 = 40;
    let mut watch = store.watch("", start(&store).await).await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut committed = Vec::new();
            for i in 0..EACH {
                // Now and then a key goes away again, so that the state at the end tells order from disorder.
                let key = format!("{task}/{}", i % 5);
                let shared = format!("shared/{}", i % 3);
                let txn =
                    if i % 7 == 6 { Txn::new().delete(key) } else { Txn::new().put(key, i.to_string()) };
                committed.push(store.commit(txn.put(shared, task.to_string())).await.unwrap());
            }
            committed
        });
    }
    let mut committed: Vec<Revision> = tasks.join_all().await.into_iter().flatten().collect();
    committed.sort_unstable();
    let mut state: BTreeMap<String, Entry> = BTreeMap::new();
    for revision in committed {
        let batch = next(&mut watch).await;
        assert_eq!(batch.revision, revision, "lost, doubled or out of order");
        for event in batch.events {
            match event {
                Event::Put(entry) => drop(state.insert(entry.key.clone(), entry)),
                Event::Delete { key, last } => assert_eq!(state.remove(&key), Some(last)),
            }
        }
    }
    assert_eq!(store.range("").await.unwrap().entries, state.into_values().collect::<Vec<_>>());
}

pub async fn replays_from_an_old_revision(store: Shared) {
    // By version of the key; the first is the revision before it.
    let mut revisions = vec![start(&store).await];
    for i in 1..=10 {
        revisions.push(put(&store, "a", &i.to_string()).await);
    }
    for after in 0..=10 {
        let mut watch = store.watch("a", revisions[after]).await.unwrap();
        for (version, revision) in revisions.iter().enumerate().skip(after + 1) {
            let batch = next(&mut watch).await;
            assert_eq!(batch.revision, *revision);
            let [Event::Put(entry)] = &batch.events[..] else { panic!("{batch:?}") };
            assert_eq!(entry.value, version.to_string());
            assert_eq!(entry.version, version as u64);
        }
    }
    // From the past into the present without a seam.
    let mut watch = store.watch("a", revisions[9]).await.unwrap();
    let newest = put(&store, "a", "11").await;
    assert_eq!(next(&mut watch).await.revision, revisions[10]);
    assert_eq!(next(&mut watch).await.revision, newest);
}

/// Writes more events than any store keeps; returns the revisions.
async fn overflow_history(store: &Shared) -> Vec<Revision> {
    let mut revisions = Vec::new();
    for _ in 0..HISTORY_EVENTS / MAX_OPS + 2 {
        let txn = (0..MAX_OPS).fold(Txn::new(), |txn, i| txn.put(format!("k{i}"), ""));
        revisions.push(store.commit(txn).await.unwrap());
    }
    revisions
}

pub async fn tells_when_history_is_gone(store: Shared) {
    let first = put(&store, "a", "").await;
    let revisions = overflow_history(&store).await;
    let Err(Error::Compacted { oldest }) = store.watch("", first).await else { panic!("not compacted") };
    assert!(oldest > first && oldest < revisions[revisions.len() - 1]);
    let before = Revision(oldest.0 - 1);
    assert!(
        matches!(store.watch("", before).await, Err(Error::Compacted { oldest: same }) if same == oldest)
    );
    // What it says is still there is there, whole.
    let mut watch = store.watch("", oldest).await.unwrap();
    for revision in revisions.into_iter().filter(|revision| *revision > oldest) {
        assert_eq!(next(&mut watch).await.revision, revision);
    }
}

pub async fn tells_a_reader_that_fell_behind(store: Shared) {
    let mut slow = store.watch("", start(&store).await).await.unwrap();
    let mut told = put(&store, "a", "").await;
    assert_eq!(next(&mut slow).await.revision, told);
    // It may be told some more, or even all where it is sent ahead of being asked for, but it may not be led over a
    // gap.
    for revision in overflow_history(&store).await {
        match next_change(&mut slow).await {
            Ok(Some(batch)) => {
                assert_eq!(batch.revision, revision, "after {told}");
                told = batch.revision;
            }
            Err(Error::Compacted { oldest }) => {
                assert!(oldest > told);
                assert!(slow.next().await.is_err());
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

pub async fn refuses_to_watch_the_future(store: Shared) {
    let one = put(&store, "a", "").await;
    store.watch("", one).await.unwrap();
    let future = Revision(one.0 + 1);
    assert!(matches!(
        store.watch("", future).await,
        Err(Error::FutureRevision { after, newest }) if after == future && newest == one
    ));
}

pub async fn loses_nothing_when_a_wait_is_dropped(store: Shared) {
    let mut watch = store.watch("", start(&store).await).await.unwrap();
    for _ in 1..=20 {
        // Dropped after one look, which sees nothing or the batch.
        let early = tokio::select! {
            biased;
            batch = watch.next() => Some(batch.unwrap().unwrap()),
            () = std::future::ready(()) => None,
        };
        assert_eq!(early, None, "nothing was written yet");
        let revision = put(&store, "a", "").await;
        assert_eq!(next(&mut watch).await.revision, revision);
    }
}

pub async fn shows_what_it_acknowledged(store: Shared) {
    let mut tasks = JoinSet::new();
    for task in 0..8_u64 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for i in 0..20_u64 {
                let key = format!("{task}");
                let revision = store.commit(Txn::new().put(&key, i.to_string())).await.unwrap();
                assert!(store.revision().await.unwrap() >= revision);
                let entry = store.get(&key).await.unwrap().unwrap();
                assert_eq!((entry.modified, entry.value), (revision, Bytes::from(i.to_string())));
            }
        });
    }
    tasks.join_all().await;
}

async fn put_leased(store: &Shared, key: &str, lease: LeaseId) -> Revision {
    store.commit(Txn::new().put_leased(key, "", lease)).await.unwrap()
}

pub async fn ends_leases_in_time(store: Shared) {
    let granted = Instant::now();
    let lease = store.grant_lease(TTL).await.unwrap();
    let longer = store.grant_lease(TTL * 4).await.unwrap();
    store
        .commit(Txn::new().put_leased("a", "", lease).put_leased("b", "", lease).put("c", ""))
        .await
        .unwrap();
    put_leased(&store, "d", longer).await;
    assert_eq!(store.get("a").await.unwrap().unwrap().lease, Some(lease));
    let mut watch = store.watch("", store.revision().await.unwrap()).await.unwrap();
    let ended = next(&mut watch).await;
    assert!(granted.elapsed() >= TTL, "ended after {:?}", granted.elapsed());
    assert!(granted.elapsed() < TTL * 3, "ended after {:?}", granted.elapsed());
    // All of its keys in one commit, and no other key.
    assert_eq!(touched(&ended), ["a", "b"]);
    assert!(ended.events.iter().all(|event| matches!(event, Event::Delete { .. })));
    assert_eq!(keys(&store, "").await, ["c", "d"]);
    assert!(matches!(store.keep_alive(lease).await, Err(Error::LeaseNotFound(id)) if id == lease));
    store.keep_alive(longer).await.unwrap();
}

pub async fn keeps_leases_alive(store: Shared) {
    let lease = store.grant_lease(TTL).await.unwrap();
    let before = put_leased(&store, "a", lease).await;
    let mut watch = store.watch("", before).await.unwrap();
    for _ in 0..8 {
        // Time that passes, not a wait for something.
        tokio::time::sleep(TTL / 2).await;
        store.keep_alive(lease).await.unwrap();
    }
    let kept = Instant::now();
    // Nothing was written for it.
    assert_eq!(store.revision().await.unwrap(), before);
    assert_eq!(touched(&next(&mut watch).await), ["a"]);
    assert!(kept.elapsed() >= TTL - TTL / 10, "ended after {:?}", kept.elapsed());
}

pub async fn revokes_leases(store: Shared) {
    let lease = store.grant_lease(TTL).await.unwrap();
    let other = store.grant_lease(TTL).await.unwrap();
    put_leased(&store, "b", lease).await;
    put_leased(&store, "a", lease).await;
    let before = put_leased(&store, "c", other).await;
    let mut watch = store.watch("", before).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(keys(&store, "").await, ["c"]);
    assert_eq!(touched(&next(&mut watch).await), ["a", "b"]);
    let after = store.revision().await.unwrap();
    assert!(after > before);
    // It is over for good.
    assert!(matches!(store.keep_alive(lease).await, Err(Error::LeaseNotFound(_))));
    let put = store.commit(Txn::new().put_leased("a", "", lease)).await;
    assert!(matches!(put, Err(Error::LeaseNotFound(id)) if id == lease));
    store.revoke_lease(lease).await.unwrap();
    // A lease without keys ends without a trace.
    let bare = store.grant_lease(TTL).await.unwrap();
    store.revoke_lease(bare).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), after);
}

pub async fn lets_go_of_leased_keys(store: Shared) {
    let lease = store.grant_lease(TTL).await.unwrap();
    let other = store.grant_lease(TTL).await.unwrap();
    for key in ["kept", "moved", "again", "gone"] {
        put_leased(&store, key, lease).await;
    }
    put(&store, "kept", "").await;
    put_leased(&store, "moved", other).await;
    store.commit(Txn::new().delete("again")).await.unwrap();
    put(&store, "again", "").await;
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(keys(&store, "").await, ["again", "kept", "moved"]);
    assert_eq!(store.get("kept").await.unwrap().unwrap().lease, None);
    store.revoke_lease(other).await.unwrap();
    assert_eq!(keys(&store, "").await, ["again", "kept"]);
}

pub async fn knows_its_leases(store: Shared) {
    let start = start(&store).await;
    let unknown = LeaseId(1 << 40);
    assert!(matches!(store.keep_alive(unknown).await, Err(Error::LeaseNotFound(_))));
    store.revoke_lease(unknown).await.unwrap();
    for ttl in [Duration::ZERO, MAX_TTL + Duration::from_secs(1)] {
        assert!(matches!(store.grant_lease(ttl).await, Err(Error::InvalidTtl)));
    }
    let one = store.grant_lease(TTL).await.unwrap();
    store.revoke_lease(one).await.unwrap();
    assert_ne!(store.grant_lease(TTL).await.unwrap(), one);
    // A transaction under a lease that is not there changes nothing at all.
    let txn = Txn::new().put("a", "").put_leased("b", "", unknown);
    assert!(matches!(store.commit(txn).await, Err(Error::LeaseNotFound(id)) if id == unknown));
    assert_eq!(store.revision().await.unwrap(), start);
}

pub async fn brings_watches_to_a_barrier(store: Shared) {
    let mut watch = store.watch("", start(&store).await).await.unwrap();
    let one = put(&store, "a", "1").await;
    // Nothing that a watch shows came of these, whatever revision they were answered with.
    store.commit(Txn::new().if_present("a")).await.unwrap();
    let barrier = store.barrier().await.unwrap();
    assert!(barrier >= one);
    let mut changes = Vec::new();
    loop {
        let batch =
            tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap().unwrap();
        if !batch.events.is_empty() {
            changes.push(batch.revision);
        }
        if batch.revision >= barrier {
            break;
        }
    }
    assert_eq!(changes, [one]);
    // It is not seen otherwise.
    assert_eq!(store.get("").await.unwrap(), None);
    assert_eq!(keys(&store, "").await, ["a"]);
    let two = put(&store, "a", "2").await;
    assert!(two > barrier || barrier == one);
    assert_eq!(next(&mut watch).await.revision, two);
}
