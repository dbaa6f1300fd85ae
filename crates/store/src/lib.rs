//! The control plane's state: revisions, watches, leases and transactions, shaped after etcd's v3 API so that etcd
//! stands behind the same trait as the embedded stores.
//!
//! Guarantees: what a caller was told is done is on disk; readers and watchers never see what is not; every commit
//! that changes something has a higher revision than all before it, and a watch shows each of them once and in order.
//!
//! Must not know: what the keys and values mean.

#[cfg(feature = "contract")]
pub mod contract;
mod core;
pub mod election;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
mod memory;
mod redb_store;
mod txn;
mod types;
mod watch;

use std::fmt::Debug;
use std::time::Duration;

pub use error::Error;
pub use memory::MemoryStore;
pub use redb_store::RedbStore;
pub use txn::{Compare, Expected, Op, Txn};
pub use types::{Batch, Entry, Event, LeaseId, Range, Revision};
pub use watch::{Watch, WatchSource};

/// The largest value in bytes.
pub const MAX_VALUE: usize = 100_000;
/// The longest key in bytes.
pub const MAX_KEY: usize = 1_024;
/// The most operations, and the most compares, of one transaction; etcd's default.
pub const MAX_OPS: usize = 128;
/// The most bytes of keys and values in one transaction; what etcd takes by default, less its own share.
pub const MAX_TXN: usize = 1 << 20;
/// The longest time to live of a lease.
pub const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// An embedded store keeps this many of the newest events for watches that start in the past or fall behind.
pub const HISTORY_EVENTS: usize = 10_000;

/// A store of UTF-8 keys and small values.
///
/// A future of [`commit`](Store::commit), [`grant_lease`](Store::grant_lease) or
/// [`revoke_lease`](Store::revoke_lease) that is dropped before it is done leaves open whether the change was made.
/// So does [`Error::Unknown`]. And so does [`Error::Storage`] of an embedded store if the program ends right after it:
/// while it lives, the change counts as not made.
#[async_trait::async_trait]
pub trait Store: Send + Sync + Debug {
    /// The entry of `key`, if there is one.
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// Every entry whose key begins with `prefix`, by key, all as of one revision. An empty prefix means everything.
    async fn range(&self, prefix: &str) -> Result<Range, Error>;

    /// Makes all of the transaction's changes or none, and says at which revision. A transaction that changes nothing
    /// (no operations, or only deletions of keys that are not there) is answered with the revision it was checked
    /// at. Waits while the queue of transactions is full.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a compare does not hold; [`Error::LeaseNotFound`]; the limits, before anything else.
    async fn commit(&self, txn: Txn) -> Result<Revision, Error>;

    /// Changes of keys that begin with `prefix`, from the commit right after revision `after` on. It may tell of
    /// progress in between, as a [`Batch`] without events.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the changes after `after` are not kept any more: list again and watch from there.
    /// [`Error::FutureRevision`] when `after` is not reached yet: it comes from another store.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error>;

    /// A new lease that ends after `ttl` without a [`keep_alive`](Store::keep_alive), and never before; etcd rounds up
    /// to whole seconds and to one and a half of its election timeouts, and takes up to a second more to notice.
    /// Identifiers are never used again.
    ///
    /// # Errors
    /// [`Error::InvalidTtl`] when `ttl` is zero or longer than [`MAX_TTL`].
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error>;

    /// Gives the lease its whole time to live again. Nothing is written. Tells the newest revision that whoever did it
    /// knows of: who has seen less has missed something.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] when it is over, even if its keys are still about to be deleted.
    async fn keep_alive(&self, lease: LeaseId) -> Result<Revision, Error>;

    /// Ends the lease and deletes its keys in one commit. A lease that is not there (any more) is no error.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), Error>;

    /// The newest revision.
    async fn revision(&self) -> Result<Revision, Error>;

    /// A revision at or after every commit made before this call, which every watch of the empty prefix comes to, by
    /// a change or as progress: what a cache has to reach to be as fresh as the store was now. The newest
    /// revision is not always of that kind, because in etcd it may be of somebody else's commit.
    async fn barrier(&self) -> Result<Revision, Error> {
        self.revision().await
    }

    /// Lets the store forget what was changed before `revision`. Watches cannot start, or go on, before it then. A
    /// revision that is forgotten already is no error. Embedded stores forget by themselves, and do nothing here.
    ///
    /// # Errors
    /// [`Error::FutureRevision`] when `revision` is not reached yet.
    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let newest = self.revision().await?;
        if revision > newest { Err(Error::FutureRevision { after: revision, newest }) } else { Ok(()) }
    }
}
