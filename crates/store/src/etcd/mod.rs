//! A store on an etcd v3 cluster (3.4 or newer), below a prefix of its own.
//!
//! Guarantees: reads, transactions and watches are etcd's, which are strictly serializable; no call takes longer than
//! its time limit; a change is sent again only if it was certainly not made, and otherwise [`Error::Unknown`] says so.
//! Nothing is kept here but connections, so a store that is dropped leaves nothing undone.
//!
//! Left to the caller: that etcd forgets old revisions ([`Store::compact`]), its backups and its members (both in
//! [`Maintenance`]), and its quota; a full one is [`Error::is_full`].
//!
//! Must not know: what the keys and values mean, and who else uses the cluster.

mod client;
mod maintenance;
mod options;
mod watch;
mod wire;

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::{Code, Status};

use client::{CallError, Client, Repeat};
pub use maintenance::{Alarm, AlarmKind, Maintenance, Member, MemberStatus, NewMember, SnapshotError};
pub use options::EtcdOptions;

use crate::{Entry, Error, Expected, LeaseId, MAX_TTL, Op, Range, Revision, Store, Txn, Watch};

/// Entries of one page of a list; of the largest values they stay below what one answer may have.
const PAGE: i64 = 500;
/// A list that etcd forgot under our hands is begun anew this often.
const LIST_ATTEMPTS: usize = 3;

/// Why a cluster could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("{0}")]
    Options(&'static str),
    #[error("cannot use the etcd endpoint {url}")]
    Endpoint {
        url: String,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("cannot reach etcd at {endpoints}")]
    Unreachable {
        endpoints: String,
        #[source]
        source: Error,
    },
}

/// A handle on a cluster; see the module's description.
#[derive(Debug)]
pub struct EtcdStore {
    client: Arc<Client>,
    prefix: String,
}

impl EtcdStore {
    /// Checks the options, and that the cluster answers and lets us in.
    ///
    /// # Errors
    /// [`OpenError`]; with [`OpenError::Unreachable`] it may be worth trying again later.
    pub async fn open(options: EtcdOptions) -> Result<EtcdStore, OpenError> {
        let endpoints = options.check()?;
        let client = Client::new(endpoints, options.user, options.timeout);
        let store = EtcdStore { client: Arc::new(client), prefix: options.prefix };
        match store.revision().await {
            Ok(_) => Ok(store),
            Err(source) => Err(OpenError::Unreachable { endpoints: options.endpoints.join(", "), source }),
        }
    }

    /// The key as etcd has it.
    fn full(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    async fn page(&self, message: wire::RangeRequest) -> Result<wire::RangeResponse, CallError> {
        self.client.call(wire::RANGE, message, Repeat::Harmless).await
    }

    /// All pages at the revision of the first; none when etcd forgot that revision before the last.
    async fn list(&self, prefix: &str) -> Result<Option<Range>, Error> {
        let (mut from, range_end) = (self.full(prefix), after_prefix(&self.full(prefix)));
        if prefix.is_empty() {
            // The prefix itself is the store's own key.
            from.push(0);
        }
        let mut range = Range { entries: Vec::new(), revision: Revision(0) };
        loop {
            let message = wire::RangeRequest {
                key: from,
                range_end: range_end.clone(),
                limit: PAGE,
                revision: to_i64(range.revision.0),
                ..Default::default()
            };
            let page = match self.page(message).await {
                Ok(page) => page,
                Err(CallError::Refused(status)) if is_compacted(&status) => return Ok(None),
                Err(error) => return Err(failed("list entries of etcd", error)),
            };
            if range.revision == Revision(0) {
                range.revision = revision_of(page.header.as_ref());
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            range.entries.extend(page.kvs.into_iter().filter_map(|kv| to_entry(&self.prefix, kv)));
            match last {
                Some(mut last) if page.more => {
                    last.push(0);
                    from = last;
                }
                _ => return Ok(Some(range)),
            }
        }
    }

    fn to_request(&self, txn: &Txn) -> wire::TxnRequest {
        let compare = txn.compares().iter().map(|compare| {
            use wire::{CompareResult, CompareTarget, Target};
            // A key that is not there has revision 0 in etcd, which nobody can expect of a key that is.
            let (result, target, target_union) = match compare.expected {
                Expected::Absent => (CompareResult::Equal, CompareTarget::Create, Target::Create(0)),
                Expected::Present => (CompareResult::Greater, CompareTarget::Create, Target::Create(0)),
                Expected::ModifiedAt(Revision(0)) => {
                    (CompareResult::Less, CompareTarget::Mod, Target::Mod(0))
                }
                Expected::ModifiedAt(Revision(at)) => {
                    (CompareResult::Equal, CompareTarget::Mod, Target::Mod(to_i64(at)))
                }
            };
            let key = self.full(&compare.key);
            wire::Compare {
                result: result.into(),
                target: target.into(),
                key,
                target_union: Some(target_union),
            }
        });
        let success = txn.ops().iter().map(|op| match op {
            Op::Put { key, value, lease } => wire::Op::Put(wire::PutRequest {
                key: self.full(key).into(),
                value: value.clone(),
                lease: lease.map_or(0, |lease| to_i64(lease.0)),
            }),
            Op::Delete { key } => wire::Op::Delete(wire::DeleteRangeRequest { key: self.full(key) }),
        });
        // If it does not hold, etcd tells how the compared keys are.
        let failure = txn.compares().iter().map(|compare| {
            wire::Op::Range(wire::RangeRequest {
                key: self.full(&compare.key),
                keys_only: true,
                ..Default::default()
            })
        });
        let op = |op| wire::RequestOp { request: Some(op) };
        wire::TxnRequest {
            compare: compare.collect(),
            success: success.map(op).collect(),
            failure: failure.map(op).collect(),
        }
    }

    /// Which of the transaction's leases is over. etcd does not say.
    async fn missing_lease(&self, txn: &Txn) -> Result<LeaseId, Error> {
        let mut leases = txn.ops().iter().filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        let mut named = leases.next().unwrap_or(LeaseId(0));
        for lease in std::iter::once(named).chain(leases) {
            named = lease;
            let message = wire::LeaseRequest { id: to_i64(lease.0) };
            let answer: wire::LeaseResponse = self
                .client
                .call(wire::LEASE_TIME_TO_LIVE, message, Repeat::Harmless)
                .await
                .map_err(|error| failed("look up a lease in etcd", error))?;
            if answer.ttl <= 0 {
                break;
            }
        }
        Ok(named)
    }
}

#[async_trait::async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let message = wire::RangeRequest { key: self.full(key), ..Default::default() };
        let answer = self.page(message).await.map_err(|error| failed("read from etcd", error))?;
        Ok(answer.kvs.into_iter().find_map(|kv| to_entry(&self.prefix, kv)))
    }

    async fn range(&self, prefix: &str) -> Result<Range, Error> {
        for _ in 0..LIST_ATTEMPTS {
            if let Some(range) = self.list(prefix).await? {
                return Ok(range);
            }
        }
        let cause = io::Error::new(
            io::ErrorKind::TimedOut,
            "etcd forgets revisions faster than a list takes; let it keep them for longer",
        );
        Err(Error::storage("list entries of etcd", cause))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        txn.check()?;
        let repeat = if txn.ops().is_empty() { Repeat::Harmless } else { Repeat::Never };
        let answer: wire::TxnResponse = match self.client.call(wire::TXN, self.to_request(&txn), repeat).await
        {
            Ok(answer) => answer,
            Err(CallError::Refused(status)) if is_lease_not_found(&status) => {
                return Err(Error::LeaseNotFound(self.missing_lease(&txn).await?));
            }
            Err(error) => return Err(failed("write to etcd", error)),
        };
        if answer.succeeded {
            return Ok(revision_of(answer.header.as_ref()));
        }
        let found = answer.responses.iter().map(|response| {
            let kv = response.range.as_ref().and_then(|range| range.kvs.first());
            kv.map(|kv| Revision(to_u64(kv.mod_revision)))
        });
        for (compare, found) in txn.compares().iter().zip(found) {
            let holds = match compare.expected {
                Expected::Absent => found.is_none(),
                Expected::Present => found.is_some(),
                Expected::ModifiedAt(at) => found == Some(at),
            };
            if !holds {
                return Err(Error::Conflict { key: compare.key.clone(), found });
            }
        }
        let cause = io::Error::new(io::ErrorKind::InvalidData, "it refused compares that hold");
        Err(Error::storage("understand etcd", cause))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let watch = watch::EtcdWatch::open(Arc::clone(&self.client), &self.prefix, prefix, after).await?;
        Ok(Watch::new(watch))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        if ttl.is_zero() || ttl > MAX_TTL {
            return Err(Error::InvalidTtl);
        }
        // Whole seconds, upwards.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let message = wire::LeaseGrantRequest { ttl: to_i64(seconds) };
        // A lease too many, whose answer was lost, holds no keys and ends by itself.
        let answer: wire::LeaseGrantResponse = self
            .client
            .call(wire::LEASE_GRANT, message, Repeat::Harmless)
            .await
            .map_err(|error| failed("get a lease from etcd", error))?;
        Ok(LeaseId(to_u64(answer.id)))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Revision, Error> {
        let message = wire::LeaseRequest { id: to_i64(lease.0) };
        let answer: wire::LeaseResponse = self
            .client
            .call_stream(wire::LEASE_KEEP_ALIVE, message)
            .await
            .map_err(|error| failed("keep a lease alive in etcd", error))?;
        if answer.ttl > 0 {
            Ok(revision_of(answer.header.as_ref()))
        } else {
            Err(Error::LeaseNotFound(lease))
        }
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), Error> {
        let message = wire::LeaseRequest { id: to_i64(lease.0) };
        match self.client.call::<_, wire::Done>(wire::LEASE_REVOKE, message, Repeat::Idempotent).await {
            Ok(_) => Ok(()),
            Err(CallError::Refused(status)) if is_lease_not_found(&status) => Ok(()),
            Err(error) => Err(failed("end a lease in etcd", error)),
        }
    }

    async fn revision(&self) -> Result<Revision, Error> {
        let message = wire::RangeRequest { key: self.full(""), count_only: true, ..Default::default() };
        let answer = self.page(message).await.map_err(|error| failed("read from etcd", error))?;
        Ok(revision_of(answer.header.as_ref()))
    }

    /// Writes the store's own key, which watches of the empty prefix turn into progress. etcd can be asked for
    /// progress without a write, but before 3.4.25 and 3.5.8 its answer may overtake changes
    /// (<https://github.com/etcd-io/etcd/issues/15220>).
    async fn barrier(&self) -> Result<Revision, Error> {
        let put = wire::PutRequest { key: self.full("").into(), value: Bytes::new(), lease: 0 };
        let success = vec![wire::RequestOp { request: Some(wire::Op::Put(put)) }];
        let message = wire::TxnRequest { success, ..Default::default() };
        let answer: wire::TxnResponse = self
            .client
            .call(wire::TXN, message, Repeat::Harmless)
            .await
            .map_err(|error| failed("write to etcd", error))?;
        Ok(revision_of(answer.header.as_ref()))
    }

    /// For all who use the cluster.
    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let message = wire::CompactionRequest { revision: to_i64(revision.0) };
        match self.client.call::<_, wire::Done>(wire::COMPACT, message, Repeat::Idempotent).await {
            Ok(_) => Ok(()),
            Err(CallError::Refused(status)) if is_compacted(&status) => Ok(()),
            Err(CallError::Refused(status)) if is_future(&status) => {
                Err(Error::FutureRevision { after: revision, newest: self.revision().await? })
            }
            Err(error) => Err(failed("compact etcd", error)),
        }
    }
}

/// The entry as the store's users see it; none when its key is not one that the store made.
fn to_entry(prefix: &str, kv: wire::KeyValue) -> Option<Entry> {
    let key = to_key(prefix, &kv.key)?;
    Some(Entry {
        key,
        value: Bytes::from(kv.value),
        created: Revision(to_u64(kv.create_revision)),
        modified: Revision(to_u64(kv.mod_revision)),
        version: to_u64(kv.version),
        lease: (kv.lease != 0).then(|| LeaseId(to_u64(kv.lease))),
    })
}

fn to_key(prefix: &str, key: &[u8]) -> Option<String> {
    let below = key.strip_prefix(prefix.as_bytes())?;
    match String::from_utf8(below.to_vec()) {
        Ok(key) => (!key.is_empty()).then_some(key),
        Err(_) => {
            tracing::warn!(key = %key.escape_ascii(), "a key below the store's prefix is not the store's");
            None
        }
    }
}

/// The first key behind all that begin with `prefix`, which ends in no 0xff because it is UTF-8.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn revision_of(header: Option<&wire::ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| to_u64(header.revision)))
}

/// etcd's numbers are signed and never negative.
fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A number that etcd cannot have becomes its largest, which nothing has.
fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn is_compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("has been compacted")
}

fn is_future(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("future revision")
}

fn is_lease_not_found(status: &Status) -> bool {
    status.code() == Code::NotFound && status.message().contains("lease not found")
}

/// What a call without a good answer means to the caller, who was `doing` something.
fn failed(doing: &'static str, error: CallError) -> Error {
    match error {
        CallError::Unknown(cause) => Error::Unknown { cause: Arc::new(cause) },
        CallError::NotDone(cause) => Error::storage(doing, cause),
        CallError::Refused(status) => {
            let kind = match status.code() {
                _ if is_about_user(status.message()) => io::ErrorKind::PermissionDenied,
                Code::ResourceExhausted if status.message().contains("space exceeded") => {
                    io::ErrorKind::StorageFull
                }
                _ => io::ErrorKind::Other,
            };
            Error::storage(doing, io::Error::new(kind, client::text(&status)))
        }
    }
}

/// Whether etcd does not let us in, or not do this; its codes differ from call to call.
fn is_about_user(message: &str) -> bool {
    [
        "permission denied",
        "invalid auth token",
        "user name is empty",
        "invalid user ID or password",
        "authentication is not enabled",
    ]
    .iter()
    .any(|said| message.contains(said))
}
