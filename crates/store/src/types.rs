//! What a store holds and what it tells: entries, revisions, leases, events.

use std::fmt;

use bytes::Bytes;

/// Grows with every commit that changes something. An embedded store counts them, and 0 is the empty store; in etcd
/// the commits of everybody else count too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a lease; at least 1, and never given twice by one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value and history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    /// The commit that made the key; a key that was deleted and made again has a new one.
    pub created: Revision,
    /// The commit that wrote the value.
    pub modified: Revision,
    /// How often it was written since it was made, counted from 1.
    pub version: u64,
    /// The key is deleted when this lease ends.
    pub lease: Option<LeaseId>,
}

/// The entries below a prefix, by key, as they stood at `revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub entries: Vec<Entry>,
    pub revision: Revision,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Put(Entry),
    Delete {
        key: String,
        /// As it stood before.
        last: Entry,
    },
}

impl Event {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Event::Put(entry) => &entry.key,
            Event::Delete { key, .. } => key,
        }
    }
}

/// What one commit changed, in the order of its operations; within a watch, only the keys that are watched. Without
/// events it is progress: nothing more of what is watched changed up to this revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub revision: Revision,
    pub events: Vec<Event>,
}
