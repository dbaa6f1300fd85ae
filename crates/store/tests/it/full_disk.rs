//! A disk that fills up and is emptied again, for real: a small tmpfs. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_store::{Revision, Store, Txn};

use crate::open;

/// A mounted tmpfs; unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(megabytes: u32) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Tmpfs(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, because a failing test may still have the store open.
        Command::new("umount").arg("-l").arg(self.path()).status().ok();
    }
}

fn ballast(disk: &Tmpfs) -> PathBuf {
    let path = disk.path().join("ballast");
    fs::write(&path, vec![0; 2 << 20]).unwrap();
    path
}

#[tokio::test]
async fn refuses_writes_while_full_and_goes_on_after() {
    let Some(disk) = Tmpfs::mount(12) else {
        eprintln!(
            "\n*** SKIPPED: a tmpfs could not be mounted (not root?); the full disk is NOT tested ***\n"
        );
        return;
    };
    let ballast = ballast(&disk);
    let store = open(disk.path()).await;
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    let mut written = 0_u64;
    let error = loop {
        let key = format!("k{written:04}");
        match store.commit(Txn::new().put(key, vec![1; 50_000])).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "the disk never filled up");
    };
    assert!(written > 10, "full after {written}");
    // Full stays full, and says so each time; nothing of it is seen.
    assert!(error.is_full() && error.retryable(), "{error:?}");
    for _ in 0..3 {
        let txn = Txn::new().put("refused", vec![1; 100_000]).put("refused2", vec![1; 100_000]);
        let error = store.commit(txn).await.unwrap_err();
        assert!(error.is_full(), "{error:?}");
    }
    let range = store.range("").await.unwrap();
    assert_eq!((range.entries.len() as u64, range.revision), (written, Revision(written)));
    // Reading and checking go on.
    store.commit(Txn::new().if_present("k0000")).await.unwrap();

    fs::remove_file(ballast).unwrap();
    let revision = store.commit(Txn::new().put("after", "").delete("k0000")).await.unwrap();
    assert_eq!(revision, Revision(written + 1));
    for expected in 1..=written + 1 {
        assert_eq!(watch.next().await.unwrap().unwrap().revision, Revision(expected));
    }
    let before = store.range("").await.unwrap();
    store.close().await;
    assert_eq!(open(disk.path()).await.range("").await.unwrap(), before);
}
