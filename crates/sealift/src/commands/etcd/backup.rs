//! `sealift etcd backup`: a snapshot in a file that is whole or not there.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use sealift_store::etcd::SnapshotError;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::health::{Health, size};
use super::{asked, maintenance};
use crate::cli::{EtcdBackup, Global};
use crate::error::Error;
use crate::print::Printer;
use crate::state_dir::hex;

/// etcd ends a snapshot with the SHA-256 of what comes before.
const SUM: usize = 32;

/// Reads a snapshot piece by piece, and knows in the end whether it was whole.
#[derive(Default)]
struct Check {
    sum: Sha256,
    /// What may be the sum.
    last: Vec<u8>,
}

impl Check {
    fn take(&mut self, bytes: &[u8]) {
        self.last.extend_from_slice(bytes);
        let end = self.last.len().saturating_sub(SUM);
        self.sum.update(&self.last[..end]);
        self.last.drain(..end);
    }

    /// The sum of what came, if it is the one that came with it.
    fn end(self) -> Option<String> {
        let sum = self.sum.finalize();
        (sum.as_slice() == self.last).then(|| hex(&sum))
    }
}

/// The sum of the snapshot in a file.
pub(super) fn check(path: &Path) -> Result<String, Error> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let mut check = Check::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => break,
            count => check.take(buffer.get(..count).unwrap_or_default()),
        }
    }
    check.end().ok_or_else(|| {
        Error::with_help(
            format!(
                "{} is no whole snapshot: its checksum does not hold; nothing was changed",
                path.display()
            ),
            "take another backup; a member's own database file (member/snap/db) is none",
        )
    })
}

pub(super) async fn backup(args: &EtcdBackup, global: &Global) -> Result<ExitCode, Error> {
    let path = &args.file;
    let io = |action| move |source| Error::Io { action, path: path.clone(), source };
    if path.try_exists().map_err(io("look for"))? {
        return Err(Error::with_help(
            format!("{} is there already; nothing was changed", path.display()),
            "choose another name; a backup is never written over",
        ));
    }
    let cluster = maintenance(&args.etcd)?;
    let health = Health::look(&cluster).await.map_err(asked)?;
    // The newest, and not the one with the most to do; without a quorum whoever is left.
    let best = health.members.iter().filter_map(|seen| {
        let (status, url) = (seen.status.as_ref().ok()?, seen.url.as_ref()?);
        Some(((seen.is_well(), !seen.is_leader(), status.raft_applied), seen, status, url))
    });
    let Some((_, seen, status, url)) = best.max_by_key(|(rank, ..)| *rank) else {
        return Err(Error::with_help("no member answers", "see: sealift etcd status"));
    };
    let partial = path.with_extension("partial");
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial);
    let mut file = BufWriter::new(file.map_err(io("make"))?);
    let mut check = Check::default();
    let kept = cluster
        .snapshot(url, |bytes| {
            check.take(bytes);
            file.write_all(bytes)
        })
        .await;
    let bytes = match kept {
        Ok(bytes) => bytes,
        Err(error) => {
            std::fs::remove_file(&partial).ok();
            return Err(match error {
                SnapshotError::Write(source) => io("write")(source),
                SnapshotError::Store(error) => asked(error),
            });
        }
    };
    let Some(sum) = check.end() else {
        std::fs::remove_file(&partial).ok();
        return Err(Error::with_help(
            format!("the snapshot of member {} did not come whole: its checksum does not hold", seen.name()),
            "try again, with another member's URL if it lasts",
        ));
    };
    keep(file, &partial, path).map_err(io("write"))?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&json!({
            "file": path, "bytes": bytes, "sha256": sum, "member": seen.name(), "revision": status.revision,
        }))?;
    } else {
        printer.line(&format!(
            "{}: {} from member {}, at revision {} or later, checksum {} holds",
            path.display(),
            size(bytes),
            seen.name(),
            status.revision,
            &sum[..12]
        ))?;
        if !health.has_quorum() {
            printer.line("the cluster has no quorum: what only lost members had is not in it")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Outlives a power cut, and only then has its name.
fn keep(file: BufWriter<File>, partial: &Path, path: &Path) -> io::Result<()> {
    file.into_inner()?.sync_all()?;
    std::fs::rename(partial, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_whole_or_not() {
        let body = vec![7; 1000];
        let mut whole = body.clone();
        whole.extend_from_slice(&Sha256::digest(&body));
        for piece in [1, 31, 32, 33, 2000] {
            let mut check = Check::default();
            whole.chunks(piece).for_each(|bytes| check.take(bytes));
            assert!(check.end().is_some(), "{piece}");
        }
        for end in [0, 5, 32, whole.len() - 1] {
            let mut check = Check::default();
            check.take(&whole[..end]);
            assert!(check.end().is_none(), "{end}");
        }
    }
}
