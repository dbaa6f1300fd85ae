//! Random transactions, leases and reopenings against a model too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use sealift_store::{Entry, Error, LeaseId, RedbStore, Revision, Store, Txn};

use crate::open;

const TTL: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
enum Act {
    Commit {
        checks: Vec<(u8, Check)>,
        writes: Vec<(u8, Write)>,
    },
    Grant,
    /// The how-manieth lease, of those ever granted.
    Revoke(usize),
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    Absent,
    Present,
    /// At the revision that the model knows, or at a wrong one.
    Modified(bool),
}

#[derive(Debug, Clone)]
enum Write {
    Put(u8),
    PutLeased(usize),
    Delete,
}

fn check() -> impl Strategy<Value = Check> {
    prop_oneof![1 => Just(Check::Absent), 1 => Just(Check::Present), 3 => Just(Check::Modified(true)), 1 => Just(Check::Modified(false))]
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => any::<u8>().prop_map(Write::Put),
        2 => (0..4_usize).prop_map(Write::PutLeased),
        2 => Just(Write::Delete),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (vec((0..5_u8, check()), 0..2), vec((0..5_u8, write()), 0..4))
            .prop_map(|(checks, writes)| Act::Commit { checks, writes }),
        2 => Just(Act::Grant),
        2 => (0..4_usize).prop_map(Act::Revoke),
        1 => Just(Act::Reopen),
    ]
}

#[derive(Debug, Default)]
struct Model {
    revision: u64,
    entries: BTreeMap<String, Entry>,
    granted: Vec<LeaseId>,
    live: BTreeSet<LeaseId>,
}

/// What the model expects of a commit.
#[derive(Debug, PartialEq)]
enum Answer {
    Done(Revision),
    Conflict,
    NoLease,
    Twice,
}

impl Model {
    fn lease(&self, index: usize) -> LeaseId {
        self.granted.get(index).copied().unwrap_or(LeaseId(1 << 50))
    }

    fn modified(&self, key: &str, right: bool) -> Revision {
        let known = self.entries.get(key).map_or(Revision(0), |entry| entry.modified);
        if right { known } else { Revision(known.0 + 1) }
    }

    fn txn(&self, checks: &[(u8, Check)], writes: &[(u8, Write)]) -> Txn {
        let txn = checks.iter().fold(Txn::new(), |txn, (key, check)| {
            let key = format!("k{key}");
            match check {
                Check::Absent => txn.if_absent(key),
                Check::Present => txn.if_present(key),
                Check::Modified(right) => {
                    let revision = self.modified(&key, *right);
                    txn.if_modified_at(key, revision)
                }
            }
        });
        writes.iter().fold(txn, |txn, (key, write)| {
            let key = format!("k{key}");
            match write {
                Write::Put(value) => txn.put(key, vec![*value; 9]),
                Write::PutLeased(index) => txn.put_leased(key, "leased", self.lease(*index)),
                Write::Delete => txn.delete(key),
            }
        })
    }

    fn commit(&mut self, checks: &[(u8, Check)], writes: &[(u8, Write)]) -> Answer {
        let distinct: BTreeSet<u8> = writes.iter().map(|(key, _)| *key).collect();
        if distinct.len() < writes.len() {
            return Answer::Twice;
        }
        for (key, check) in checks {
            let found = self.entries.get(&format!("k{key}"));
            let holds = match check {
                Check::Absent => found.is_none(),
                Check::Present => found.is_some(),
                Check::Modified(right) => *right && found.is_some(),
            };
            if !holds {
                return Answer::Conflict;
            }
        }
        for (_, write) in writes {
            if let Write::PutLeased(index) = write
                && !self.live.contains(&self.lease(*index))
            {
                return Answer::NoLease;
            }
        }
        let revision = Revision(self.revision + 1);
        let mut changed = false;
        for (key, write) in writes {
            let key = format!("k{key}");
            let (value, lease) = match write {
                Write::Put(value) => (Bytes::from(vec![*value; 9]), None),
                Write::PutLeased(index) => (Bytes::from("leased"), Some(self.lease(*index))),
                Write::Delete => {
                    changed |= self.entries.remove(&key).is_some();
                    continue;
                }
            };
            let old = self.entries.get(&key);
            let created = old.map_or(revision, |old| old.created);
            let version = old.map_or(1, |old| old.version + 1);
            let entry = Entry { key: key.clone(), value, created, modified: revision, version, lease };
            self.entries.insert(key, entry);
            changed = true;
        }
        self.revision += u64::from(changed);
        Answer::Done(Revision(self.revision))
    }

    fn revoke(&mut self, lease: LeaseId) {
        self.live.remove(&lease);
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.lease != Some(lease));
        self.revision += u64::from(self.entries.len() < before);
    }
}

async fn step(store: RedbStore, dir: &std::path::Path, model: &mut Model, act: &Act) -> RedbStore {
    match act {
        Act::Commit { checks, writes } => {
            let txn = model.txn(checks, writes);
            let answer = match store.commit(txn).await {
                Ok(revision) => Answer::Done(revision),
                Err(Error::Conflict { .. }) => Answer::Conflict,
                Err(Error::LeaseNotFound(_)) => Answer::NoLease,
                Err(Error::DuplicateKey { .. }) => Answer::Twice,
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(answer, model.commit(checks, writes));
        }
        Act::Grant => {
            let lease = store.grant_lease(TTL).await.unwrap();
            assert!(!model.granted.contains(&lease));
            model.granted.push(lease);
            model.live.insert(lease);
        }
        Act::Revoke(index) => {
            let lease = model.lease(*index);
            store.revoke_lease(lease).await.unwrap();
            model.revoke(lease);
        }
        Act::Reopen => {
            store.close().await;
            return open(dir).await;
        }
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(acts in vec(act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut store = open(dir.path()).await;
            let mut model = Model::default();
            for act in &acts {
                store = step(store, dir.path(), &mut model, act).await;
                let range = store.range("").await.unwrap();
                assert_eq!(range.revision, Revision(model.revision), "after {act:?}");
                assert_eq!(range.entries, model.entries.values().cloned().collect::<Vec<_>>(), "after {act:?}");
            }
        });
    }
}
