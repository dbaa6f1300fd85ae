//! Why a store refused or failed.

use std::io;
use std::sync::Arc;

use crate::{LeaseId, MAX_KEY, MAX_OPS, MAX_TTL, MAX_TXN, MAX_VALUE, Revision};

/// Why a store did not do what was asked. Nothing was changed then, but for [`Error::Unknown`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A compare did not hold.
    #[error("conflict on key {key:?}: {}", found_text(*found))]
    Conflict {
        key: String,
        /// When the key was last written; none if it is not there.
        found: Option<Revision>,
    },
    /// The wanted changes are not kept any more. List again and watch from the list's revision.
    #[error("changes up to revision {oldest} are not kept any more")]
    Compacted {
        /// The oldest revision that a watch can start after.
        oldest: Revision,
    },
    /// A watch was to start after a revision that the store has not come to.
    #[error("revision {after} is not reached yet, the newest is {newest}")]
    FutureRevision { after: Revision, newest: Revision },
    #[error("lease {0} is over or was never granted")]
    LeaseNotFound(LeaseId),
    #[error("a lease lasts longer than 0 and at most {} s", MAX_TTL.as_secs())]
    InvalidTtl,
    #[error("key {key:?} is empty or longer than {MAX_KEY} bytes")]
    InvalidKey { key: String },
    #[error("value of key {key:?} has {size} bytes, more than {MAX_VALUE}")]
    ValueTooLarge { key: String, size: usize },
    #[error("a transaction of {count} operations or compares is longer than {MAX_OPS}")]
    TooManyOps { count: usize },
    #[error("a transaction of {size} bytes of keys and values is longer than {MAX_TXN}")]
    TxnTooLarge { size: usize },
    #[error("key {key:?} is written twice in one transaction")]
    DuplicateKey { key: String },
    /// The disk, or whatever keeps the data, failed.
    #[error("cannot {doing}")]
    Storage {
        doing: &'static str,
        /// Shared, because one failed write fails every transaction that it carried.
        #[source]
        cause: Arc<io::Error>,
    },
    /// The change was sent and no answer came: it was made, or will be in a moment, or never. Read again, at a
    /// [`barrier`](crate::Store::barrier), and decide anew; the very same transaction is only safe to repeat if
    /// its compares no longer hold once it was made.
    #[error("no answer came to a change of the store; whether it was made is unknown")]
    Unknown {
        #[source]
        cause: Arc<io::Error>,
    },
    #[error("the store is closed")]
    Closed,
}

impl Error {
    pub(crate) fn storage(doing: &'static str, cause: io::Error) -> Error {
        Error::Storage { doing, cause: Arc::new(cause) }
    }

    /// Whether the very same call may succeed later. A conflict is not of that kind: read again and decide anew.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Error::Storage { cause, .. } if cause.kind() != io::ErrorKind::PermissionDenied)
    }

    /// Whether to read again and decide anew: the change was not made because things are not as they were, or it may
    /// have been made all the same.
    #[must_use]
    pub fn wants_another_look(&self) -> bool {
        self.is_conflict() || self.is_unknown()
    }

    /// Whether the change may have been made all the same.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Error::Unknown { .. })
    }

    /// Whether a compare did not hold.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict { .. })
    }

    /// Whether there is no room left to write to.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Error::Storage { cause, .. } = self else { return false };
        matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

fn found_text(found: Option<Revision>) -> String {
    match found {
        Some(revision) => format!("it was last written at revision {revision}"),
        None => "it is not there".to_owned(),
    }
}
