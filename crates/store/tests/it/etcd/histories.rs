//! Compare-and-set from several clients while members are killed and frozen: what the clients saw must have an order,
//! and a watch must tell just that order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sealift_store::{Error, Event, Revision, Store, Txn};
use tokio::task::JoinSet;

use super::cluster::{Cluster, has_etcd};
use super::linearizability::{Operation, Record, Value, is_linearizable};

const CLIENTS: u64 = 4;
const KEYS: [&str; 2] = ["r/0", "r/1"];
/// What is broken in turn: the leader or the member after it, by a kill or a freeze.
const FAULTS: [(Fault, usize); 4] =
    [(Fault::Kill, 0), (Fault::Freeze, 0), (Fault::Kill, 1), (Fault::Freeze, 1)];
/// Long enough for a new leader.
const BROKEN: Duration = Duration::from_millis(1700);
const WHOLE: Duration = Duration::from_millis(600);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
}

struct Clients {
    stop: AtomicBool,
    /// So that no value is written twice.
    value: AtomicU64,
}

fn parse(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

/// Reads a register and tries to change it, over and over; gives what it saw, by key.
async fn work(shared: Arc<Clients>, store: impl Store, client: u64) -> BTreeMap<&'static str, Vec<Record>> {
    let mut records: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut round = client;
    while !shared.stop.load(Ordering::Relaxed) {
        round += 1;
        let key = KEYS[usize::try_from(round).unwrap() % KEYS.len()];
        let mut note = |begin, operation| {
            records.entry(key).or_default().push(Record { begin, end: Instant::now(), operation });
        };
        let begin = Instant::now();
        // A read without an answer says nothing.
        let Ok(entry) = store.get(key).await else { continue };
        let from: Value = entry.as_ref().map(|entry| parse(&entry.value));
        note(begin, Operation::Read(from));
        let to = shared.value.fetch_add(1, Ordering::Relaxed);
        let expected = match &entry {
            Some(entry) => Txn::new().if_modified_at(key, entry.modified),
            None => Txn::new().if_absent(key),
        };
        let begin = Instant::now();
        match store.commit(expected.put(key, to.to_string())).await {
            Ok(_) => note(begin, Operation::Swapped(from, to)),
            Err(Error::Conflict { .. }) => note(begin, Operation::Refused(from)),
            Err(Error::Unknown { .. }) => note(begin, Operation::Unknown(from, to)),
            // It says that nothing was done, and so there is nothing to be seen of it: checked below.
            Err(error) => assert!(error.retryable(), "{error:?}"),
        }
        // Reads of each other's writes, and not only compare-and-set, overlap.
        tokio::time::sleep(Duration::from_millis(round % 7)).await;
    }
    records
}

/// The values that each register had, in order, as one watch tells it; ends at `until`.
async fn follow(store: impl Store, start: Revision, until: tokio::sync::oneshot::Receiver<Revision>) -> Told {
    let mut watch = store.watch("", start).await.unwrap();
    let mut told = Told::default();
    let mut until = Box::pin(until);
    let mut last: Option<Revision> = None;
    let mut newest = start;
    while last.is_none_or(|last| newest < last) {
        tokio::select! {
            Ok(revision) = &mut until, if last.is_none() => last = Some(revision),
            batch = watch.next() => {
                let batch = batch.unwrap().unwrap();
                assert!(batch.revision > newest, "{} after {newest}", batch.revision);
                newest = batch.revision;
                for event in batch.events {
                    let Event::Put(entry) = event else { panic!("nothing is deleted here") };
                    let values = told.entry(entry.key).or_default();
                    values.push(parse(&entry.value));
                    assert_eq!(entry.version, values.len() as u64, "a change was lost or told twice");
                }
            }
        }
    }
    told
}

type Told = BTreeMap<String, Vec<u64>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_under_faults_are_linearizable() {
    if !has_etcd() {
        return;
    }
    let mut cluster = Cluster::start(3);
    let options = cluster.options().timeout(Duration::from_millis(1500));
    let store = cluster.open_with(options.clone()).await;
    let start = store.revision().await.unwrap();
    let (end, until) = tokio::sync::oneshot::channel();
    let follower = tokio::spawn(follow(cluster.open_with(options.clone()).await, start, until));
    let shared = Arc::new(Clients { stop: AtomicBool::new(false), value: AtomicU64::new(1) });
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(work(Arc::clone(&shared), cluster.open_with(options.clone()).await, client));
    }
    for (fault, beside) in FAULTS {
        tokio::time::sleep(WHOLE).await;
        let number = (cluster.leader().unwrap_or_default() + beside) % cluster.len();
        match fault {
            Fault::Kill => cluster.kill(number),
            Fault::Freeze => cluster.freeze(number),
        }
        tokio::time::sleep(BROKEN).await;
        match fault {
            Fault::Kill => cluster.spawn(number),
            Fault::Freeze => cluster.thaw(number),
        }
    }
    tokio::time::sleep(WHOLE).await;
    shared.stop.store(true, Ordering::Relaxed);
    let mut history: BTreeMap<&str, Vec<Record>> = BTreeMap::new();
    for (key, records) in clients.join_all().await.into_iter().flatten() {
        history.entry(key).or_default().extend(records);
    }
    let begun = Instant::now();
    let barrier = loop {
        match store.barrier().await {
            Ok(barrier) => break barrier,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error:?}"),
        }
    };
    end.send(barrier).unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), follower).await.unwrap().unwrap();

    for key in KEYS {
        let records = &history[key];
        let count = |wanted: fn(&Operation) -> bool| {
            records.iter().filter(|record| wanted(&record.operation)).count()
        };
        let swapped = count(|operation| matches!(operation, Operation::Swapped(..)));
        let refused = count(|operation| matches!(operation, Operation::Refused(_)));
        let unknown = count(|operation| matches!(operation, Operation::Unknown(..)));
        eprintln!(
            "{key}: {} operations, {swapped} swapped, {refused} refused, {unknown} unknown",
            records.len()
        );
        assert!(swapped > 50 && refused > 0, "too little happened");
        assert!(is_linearizable(records), "{key} has no order");
        // The watch tells every change that was acknowledged, and beyond that only such as may have been made.
        let values: BTreeSet<u64> = told[key].iter().copied().collect();
        let mut possible = BTreeSet::new();
        for record in records {
            match record.operation {
                Operation::Swapped(_, to) => {
                    assert!(values.contains(&to), "{to} was acknowledged and is not told");
                    possible.insert(to);
                }
                Operation::Unknown(_, to) => drop(possible.insert(to)),
                Operation::Read(_) | Operation::Refused(_) => {}
            }
        }
        assert!(values.is_subset(&possible), "told, but not done: {:?}", values.difference(&possible));
    }
}
