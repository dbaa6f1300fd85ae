//! kill -9 at any moment: what was acknowledged is there, and nothing is there by half.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use sealift_store::{Store, Txn};
use tokio::task::JoinSet;

use crate::open;

/// Makes `child` do its work; names the store's directory.
const CHILD: &str = "SEALIFT_STORE_KILL_CHILD";
const TASKS: u64 = 4;
/// A word that the test harness does not print, before each acknowledged number.
const MARK: &str = "acknowledged=";

/// Not a test by itself: what the parent starts and kills.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let store = Arc::new(open(Path::new(&dir)).await);
    let first = store.range("a/").await.unwrap().entries.len() as u64;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for i in 0.. {
                // Numbers of one life never meet those of another: each life begins behind the number of entries.
                let number = first * 1_000_000 + i * TASKS + task;
                let value = number.to_string().repeat(50);
                let txn = Txn::new()
                    .if_absent(format!("a/{number}"))
                    .put(format!("a/{number}"), value.clone())
                    .put(format!("b/{number}"), value)
                    .put("newest", number.to_string());
                let revision = store.commit(txn).await.unwrap();
                println!("{MARK}{number} {revision}");
            }
        });
    }
    tasks.join_next().await;
    panic!("the child ends by being killed");
}

#[tokio::test]
async fn keeps_what_it_acknowledged_over_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    for wanted in [1, 2, 7, 40, 150, 3, 99] {
        acknowledged.extend(run_child_until(dir.path(), wanted));
        let store = open(dir.path()).await;
        let newest = store.revision().await.unwrap().0;
        for (number, revision) in &acknowledged {
            let entry = store.get(&format!("a/{number}")).await.unwrap();
            let entry = entry.unwrap_or_else(|| panic!("{number} was acknowledged and is lost"));
            assert_eq!((entry.modified.0, entry.version), (*revision, 1));
            assert!(newest >= *revision);
        }
        let a = store.range("a/").await.unwrap().entries;
        let b = store.range("b/").await.unwrap().entries;
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(a.key[2..], b.key[2..], "half a transaction");
            assert_eq!((a.modified, &a.value), (b.modified, &b.value));
            assert_eq!(a.value, a.key[2..].repeat(50));
        }
        // Each commit wrote one pair, so the revision counts the pairs.
        assert_eq!(newest, a.len() as u64);
        store.close().await;
    }
}

/// Starts the child, kills it once it has acknowledged `wanted` numbers, and gives all that it acknowledged.
fn run_child_until(dir: &Path, wanted: usize) -> Vec<(String, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for line in lines {
        let line = line.unwrap();
        // The harness may have begun the line with the test's name.
        let Some((_, said)) = line.split_once(MARK) else { continue };
        let (number, revision) = said.split_once(' ').unwrap();
        acknowledged.push((number.to_owned(), revision.parse().unwrap()));
        if acknowledged.len() == wanted {
            child.kill().unwrap();
        }
    }
    assert!(acknowledged.len() >= wanted, "the child ended by itself");
    child.wait().unwrap();
    acknowledged
}
