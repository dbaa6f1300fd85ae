//! What readers see: the entries, the newest events and the leases, all of it already durable.
//!
//! Must not know: how a transaction is decided, and what makes it durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::overlay::Changes;
use crate::{Batch, Entry, Error, Event, HISTORY_EVENTS, LeaseId, Revision};

/// Bytes of keys and values that the history holds at most; more than the largest commit.
const HISTORY_BYTES: usize = 16 * 1024 * 1024;

/// What outlives the program.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Saved {
    pub(crate) revision: Revision,
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) leases: BTreeMap<LeaseId, Duration>,
    /// The number of the newest lease ever granted.
    pub(crate) last_lease: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) history: History,
    pub(crate) leases: Leases,
    pub(crate) last_lease: u64,
}

impl State {
    /// Takes over what was saved; every lease has its whole time to live again, counted from `now`.
    pub(crate) fn load(saved: Saved, now: Instant) -> State {
        let mut leases = Leases::default();
        for (id, ttl) in saved.leases {
            leases.grant(id, ttl, now);
        }
        for entry in saved.entries.values() {
            leases.attach(entry);
        }
        State {
            revision: saved.revision,
            entries: saved.entries,
            history: History::after(saved.revision),
            leases,
            last_lease: saved.last_lease,
        }
    }

    /// The entries below `prefix`, by key.
    pub(crate) fn range(&self, prefix: &str) -> impl Iterator<Item = &Entry> {
        self.entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry)
    }

    /// Shows changes that are durable now.
    pub(crate) fn publish(&mut self, changes: Changes, now: Instant) {
        for (id, change) in changes.leases {
            match change {
                Some(ttl) => self.leases.grant(id, ttl, now),
                None => self.leases.end(id),
            }
        }
        for (key, entry) in changes.entries {
            if let Some(old) = self.entries.remove(&key) {
                self.leases.detach(&old);
            }
            if let Some(entry) = entry {
                self.leases.attach(&entry);
                self.entries.insert(key, entry);
            }
        }
        for batch in changes.batches {
            self.history.push(batch);
        }
        self.revision = changes.revision;
        self.last_lease = changes.last_lease;
    }
}

/// The newest commits, without gaps, up to the newest revision.
#[derive(Debug)]
pub(crate) struct History {
    /// The revision right before the first batch; equal to the newest revision while there is none.
    base: Revision,
    batches: VecDeque<Arc<Batch>>,
    events: usize,
    bytes: usize,
}

impl History {
    fn after(base: Revision) -> History {
        History { base, batches: VecDeque::new(), events: 0, bytes: 0 }
    }

    fn push(&mut self, batch: Batch) {
        self.events += batch.events.len();
        self.bytes += weight(&batch);
        self.batches.push_back(Arc::new(batch));
        while self.events > HISTORY_EVENTS || self.bytes > HISTORY_BYTES {
            // The newest commit stays however large it is (a lease may take any number of keys with it), or those who
            // wait for it would never see it.
            if self.batches.len() == 1 {
                break;
            }
            let Some(oldest) = self.batches.pop_front() else { break };
            self.events -= oldest.events.len();
            self.bytes -= weight(&oldest);
            self.base = oldest.revision;
        }
    }

    /// The oldest revision that can be read on from.
    pub(crate) fn oldest(&self) -> Revision {
        self.base
    }

    /// The commit right after revision `after`; none if there is none yet.
    pub(crate) fn next(&self, after: Revision) -> Result<Option<&Arc<Batch>>, Error> {
        let Some(position) = after.0.checked_sub(self.base.0) else {
            return Err(Error::Compacted { oldest: self.base });
        };
        // A position too large for this machine's memory is behind the end just as well.
        Ok(usize::try_from(position).ok().and_then(|position| self.batches.get(position)))
    }
}

fn weight(batch: &Batch) -> usize {
    let of_entry = |entry: &Entry| entry.key.len() + entry.value.len();
    batch
        .events
        .iter()
        .map(|event| match event {
            Event::Put(entry) => of_entry(entry),
            Event::Delete { key, last } => key.len() + of_entry(last),
        })
        .sum()
}

/// The leases that were granted and whose end is not yet carried out.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    live: BTreeMap<LeaseId, Lease>,
    /// The same leases by the time they run out.
    deadlines: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<String>,
}

impl Leases {
    fn grant(&mut self, id: LeaseId, ttl: Duration, now: Instant) {
        let deadline = now + ttl;
        self.live.insert(id, Lease { ttl, deadline, keys: BTreeSet::new() });
        self.deadlines.insert((deadline, id));
    }

    fn end(&mut self, id: LeaseId) {
        if let Some(lease) = self.live.remove(&id) {
            self.deadlines.remove(&(lease.deadline, id));
        }
    }

    fn attach(&mut self, entry: &Entry) {
        if let Some(lease) = entry.lease.and_then(|id| self.live.get_mut(&id)) {
            lease.keys.insert(entry.key.clone());
        }
    }

    fn detach(&mut self, entry: &Entry) {
        if let Some(lease) = entry.lease.and_then(|id| self.live.get_mut(&id)) {
            lease.keys.remove(&entry.key);
        }
    }

    /// Whether the lease's end is not yet carried out.
    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.live.contains_key(&id)
    }

    /// Whether the lease has time left. One without counts as over even before its keys are deleted, so that nobody
    /// believes to hold what others may already see gone.
    pub(crate) fn holds(&self, id: LeaseId, now: Instant) -> bool {
        self.live.get(&id).is_some_and(|lease| lease.deadline > now)
    }

    /// Its whole time to live from `now` on; false when it is over.
    pub(crate) fn keep_alive(&mut self, id: LeaseId, now: Instant) -> bool {
        let Some(lease) = self.live.get_mut(&id).filter(|lease| lease.deadline > now) else { return false };
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = now + lease.ttl;
        self.deadlines.insert((lease.deadline, id));
        true
    }

    /// The whole time to live of every lease from `now` on, also of those that are over.
    pub(crate) fn renew_all(&mut self, now: Instant) {
        self.deadlines.clear();
        for (id, lease) in &mut self.live {
            lease.deadline = now + lease.ttl;
            self.deadlines.insert((lease.deadline, *id));
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The leases that ran out, the earliest first.
    pub(crate) fn expired(&self, now: Instant) -> impl Iterator<Item = LeaseId> {
        self.deadlines.iter().take_while(move |(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    pub(crate) fn keys(&self, id: LeaseId) -> impl Iterator<Item = &String> {
        self.live.get(&id).into_iter().flat_map(|lease| &lease.keys)
    }

    pub(crate) fn ttls(&self) -> BTreeMap<LeaseId, Duration> {
        self.live.iter().map(|(id, lease)| (*id, lease.ttl)).collect()
    }
}
