//! Decides transactions one after another over the state that readers see, and gathers what is to become durable.
//!
//! Must not know: disks, queues, who asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::state::State;
use crate::{Batch, Compare, Entry, Error, Event, Expected, LeaseId, Op, Revision, Txn};

/// What a group of transactions changes, taken together.
#[derive(Debug)]
pub(crate) struct Changes {
    /// The revision after them.
    pub(crate) revision: Revision,
    /// The new entries; none for keys that are gone.
    pub(crate) entries: BTreeMap<String, Option<Entry>>,
    /// Leases granted with their time to live; none for leases that ended.
    pub(crate) leases: BTreeMap<LeaseId, Option<Duration>>,
    pub(crate) last_lease: u64,
    /// The events, one batch for each revision.
    pub(crate) batches: Vec<Batch>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.leases.is_empty()
    }
}

/// The state with the changes of the transactions so far on top.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    base: &'a State,
    now: Instant,
    changes: Changes,
    /// The keys that these transactions put under a lease; some may have been taken off again.
    attached: BTreeMap<LeaseId, BTreeSet<String>>,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(base: &'a State, now: Instant) -> Overlay<'a> {
        let changes = Changes {
            revision: base.revision,
            entries: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: base.last_lease,
            batches: Vec::new(),
        };
        Overlay { base, now, changes, attached: BTreeMap::new() }
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    /// Checks `txn` and carries it out, or changes nothing.
    pub(crate) fn commit(&mut self, txn: Txn) -> Result<Revision, Error> {
        for compare in txn.compares() {
            self.compare(compare)?;
        }
        for op in txn.ops() {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.lease_holds(*lease)
            {
                return Err(Error::LeaseNotFound(*lease));
            }
        }
        Ok(self.apply(txn.ops().iter().cloned()))
    }

    pub(crate) fn grant(&mut self, ttl: Duration) -> LeaseId {
        self.changes.last_lease += 1;
        let id = LeaseId(self.changes.last_lease);
        self.changes.leases.insert(id, Some(ttl));
        id
    }

    /// Ends a lease and deletes its keys in one revision. One that is not there is left alone.
    pub(crate) fn end_lease(&mut self, id: LeaseId) {
        let known =
            self.changes.leases.get(&id).map_or_else(|| self.base.leases.contains(id), Option::is_some);
        if !known {
            return;
        }
        let mut keys: BTreeSet<String> = self.base.leases.keys(id).cloned().collect();
        keys.extend(self.attached.remove(&id).unwrap_or_default());
        keys.retain(|key| self.get(key).is_some_and(|entry| entry.lease == Some(id)));
        self.apply(keys.into_iter().map(|key| Op::Delete { key }));
        self.changes.leases.insert(id, None);
    }

    /// Ends every lease that has run out.
    pub(crate) fn expire(&mut self) {
        for id in self.base.leases.expired(self.now) {
            self.end_lease(id);
        }
    }

    fn get(&self, key: &str) -> Option<&Entry> {
        match self.changes.entries.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.base.entries.get(key),
        }
    }

    fn compare(&self, compare: &Compare) -> Result<(), Error> {
        let found = self.get(&compare.key).map(|entry| entry.modified);
        let holds = match compare.expected {
            Expected::Absent => found.is_none(),
            Expected::Present => found.is_some(),
            Expected::ModifiedAt(revision) => found == Some(revision),
        };
        if holds { Ok(()) } else { Err(Error::Conflict { key: compare.key.clone(), found }) }
    }

    fn lease_holds(&self, id: LeaseId) -> bool {
        match self.changes.leases.get(&id) {
            Some(change) => change.is_some(),
            None => self.base.leases.holds(id, self.now),
        }
    }

    fn apply(&mut self, ops: impl Iterator<Item = Op>) -> Revision {
        let revision = Revision(self.changes.revision.0 + 1);
        let mut events = Vec::new();
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    let (created, version) =
                        self.get(&key).map_or((revision, 0), |old| (old.created, old.version));
                    let version = version + 1;
                    if let Some(lease) = lease {
                        self.attached.entry(lease).or_default().insert(key.clone());
                    }
                    let entry =
                        Entry { key: key.clone(), value, created, modified: revision, version, lease };
                    events.push(Event::Put(entry.clone()));
                    self.changes.entries.insert(key, Some(entry));
                }
                Op::Delete { key } => {
                    if let Some(last) = self.get(&key).cloned() {
                        self.changes.entries.insert(key.clone(), None);
                        events.push(Event::Delete { key, last });
                    }
                }
            }
        }
        if !events.is_empty() {
            self.changes.revision = revision;
            self.changes.batches.push(Batch { revision, events });
        }
        self.changes.revision
    }
}
