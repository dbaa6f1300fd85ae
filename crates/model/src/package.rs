//! Packages: what a run made, under project, branch and commit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{BranchName, CommitId, Digest, Extra, ProjectName, RunId, Timestamp};

/// A package's name: `project/branch/commit`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackageName {
    pub project: ProjectName,
    pub branch: BranchName,
    pub commit: CommitId,
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.project, self.branch, self.commit)
    }
}

/// A stored package: where its bytes are and who vouches for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Package {
    pub name: PackageName,
    pub run: RunId,
    /// The archive (tar, compressed by zstd), by digest.
    pub digest: Digest,
    /// Bytes of the archive.
    pub size: u64,
    /// A detached signature in minisign's format over the archive; its trusted comment holds
    /// [`Package::statement`], so a good archive cannot be passed off under another name.
    pub signature: String,
    pub created_at: Timestamp,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Package {
    /// The line that is signed along with the archive's bytes.
    #[must_use]
    pub fn statement(name: &PackageName, digest: &Digest) -> String {
        format!(
            "sealift package project={} branch={} commit={} blake3={digest}",
            name.project, name.branch, name.commit
        )
    }
}
