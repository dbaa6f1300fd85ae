//! Both stores against the contract, and the file store against kills, full disks and a naive model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod election;
mod etcd;
mod frozen;
mod full_disk;
mod kill;
mod model;
mod reopen;

use std::path::Path;
use std::sync::Arc;

use sealift_store::{MemoryStore, RedbStore, contract};

mod memory {
    use super::*;

    async fn make() -> (contract::Shared, ()) {
        (Arc::new(MemoryStore::new()), ())
    }

    sealift_store::contract_tests!(make, timed: tokio::test(start_paused = true));
}

mod redb {
    use super::*;

    async fn make() -> (contract::Shared, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Arc::new(open(dir.path()).await), dir)
    }

    sealift_store::contract_tests!(make, timed: tokio::test(start_paused = true));
}

/// The store in `dir`, made if need be.
async fn open(dir: &Path) -> RedbStore {
    RedbStore::open(dir.join("store.redb")).await.unwrap()
}
