//! Elections on a real cluster: a leader that is frozen, and members that are.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sealift_store::election::Candidate;
use sealift_store::etcd::{EtcdOptions, EtcdStore};
use sealift_store::{Event, Store, Txn};
use tokio::task::JoinSet;

use super::cluster::{Cluster, has_etcd};

/// Makes `child` do its work; names etcd's endpoint.
const CHILD: &str = "SEALIFT_STORE_ELECTION_CHILD";
/// A word that the test harness does not print, before what the child says.
const MARK: &str = "election=";
/// Four of etcd's election timeouts here.
const TTL: Duration = Duration::from_secs(2);

fn candidate(store: EtcdStore, name: &str) -> (Arc<dyn Store>, Candidate) {
    let store: Arc<dyn Store> = Arc::new(store);
    (Arc::clone(&store), Candidate::new(store, "leader", name, TTL))
}

/// Not a test by itself: a leader that the parent freezes and thaws.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(endpoint) = std::env::var_os(CHILD) else { return };
    let endpoint = endpoint.into_string().unwrap();
    let store = EtcdStore::open(EtcdOptions::new([endpoint], "/test/")).await.unwrap();
    let (store, candidate) = candidate(store, "child");
    let leadership = candidate.campaign().await.unwrap();
    store.commit(leadership.guard(Txn::new().put("by", "child"))).await.unwrap();
    println!("{MARK}leads");
    // The parent freezes it while it waits for this line, and writes the line before it lets it go on.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let held = leadership.is_held();
    let refused = store.commit(leadership.guard(Txn::new().put("by", "child again"))).await;
    println!("{MARK}held={held} conflict={}", refused.is_err_and(|error| error.is_conflict()));
}

fn said(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    loop {
        let line = lines.next().expect("the child ended by itself").unwrap();
        if let Some((_, said)) = line.split_once(MARK) {
            return said.to_owned();
        }
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_knows_and_can_do_nothing() {
    use std::io::Write;
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(1);
    let store = cluster.open().await;
    let process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "etcd::election::child", "--nocapture"])
        .env(CHILD, cluster.endpoint(0))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Ended(process);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert_eq!(said(&mut lines), "leads");
    let pid = Pid::from_raw(child.0.id().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();

    let (store, candidate) = candidate(store, "parent");
    let frozen = Instant::now();
    let leadership = candidate.campaign().await.unwrap();
    // Its lease was up to a quarter old; etcd looks twice a second; the rest is for a busy machine.
    assert!(frozen.elapsed() >= TTL / 2, "after {:?}", frozen.elapsed());
    assert!(frozen.elapsed() < TTL * 3, "after {:?}", frozen.elapsed());
    store.commit(leadership.guard(Txn::new().put("by", "parent"))).await.unwrap();

    child.0.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(said(&mut lines), "held=false conflict=true");
    assert_eq!(store.get("by").await.unwrap().unwrap().value, "parent");
    assert!(leadership.is_held());
    leadership.resign().await.unwrap();
    assert_eq!(store.get("leader").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_follow_one_another_while_members_freeze() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(3);
    let options = cluster.options().timeout(Duration::from_secs(1));
    let stop = Arc::new(AtomicBool::new(false));
    let watching = cluster.open_with(options.clone()).await;
    let start = watching.revision().await.unwrap();
    let mut tasks = JoinSet::new();
    for name in ["a", "b"] {
        let (store, candidate) = candidate(cluster.open_with(options.clone()).await, name);
        let stop = Arc::clone(&stop);
        tasks.spawn(async move {
            let mut terms = 0;
            while !stop.load(Ordering::Relaxed) {
                let campaign = tokio::time::timeout(TTL, candidate.campaign()).await;
                let Ok(Ok(leadership)) = campaign else { continue };
                terms += 1;
                let term = leadership.revision().to_string();
                let begun = Instant::now();
                // A term of some length, and on with the others.
                while leadership.is_held() && begun.elapsed() < TTL && !stop.load(Ordering::Relaxed) {
                    match store.commit(leadership.guard(Txn::new().put("term", term.clone()))).await {
                        Ok(_) => {}
                        Err(error) if error.is_conflict() => break,
                        Err(error) => assert!(error.retryable() || error.is_unknown(), "{error:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                leadership.resign().await.ok();
            }
            terms
        });
    }
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let number = cluster.leader().unwrap_or_default();
        cluster.freeze(number);
        tokio::time::sleep(Duration::from_millis(1700)).await;
        cluster.thaw(number);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let terms: u64 = tasks.join_all().await.into_iter().sum();
    assert!(terms >= 2, "{terms} terms");

    // No write of an earlier term comes after one of a later term.
    let begun = Instant::now();
    let barrier = loop {
        match watching.barrier().await {
            Ok(barrier) => break barrier,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error:?}"),
        }
    };
    let mut watch = watching.watch("", start).await.unwrap();
    let (mut newest, mut writes) = (0, 0);
    loop {
        let batch = watch.next().await.unwrap().unwrap();
        for event in &batch.events {
            let Event::Put(entry) = event else { continue };
            if entry.key == "term" {
                let term: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                assert!(term >= newest, "term {term} wrote after term {newest}");
                newest = term;
                writes += 1;
            }
        }
        if batch.revision >= barrier {
            break;
        }
    }
    assert!(writes > 20, "{writes} writes");
}
