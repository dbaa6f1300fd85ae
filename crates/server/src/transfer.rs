//! Everything that one store holds, carried over to another: from a file to etcd and back.
//!
//! Guarantees: the destination has every key without a lease, byte for byte, which is read back and compared; what
//! is under a lease (presence, the leader, requests) ends with the store that it was in. No server runs on either
//! while it lasts: this holds the leader's key of both. A copy that was cut short is known by its mark, and so is
//! the old store once all is over; no server begins on either ([`check`]). A copy can be begun again at any time.
//!
//! Revisions begin anew, so generations that machines remember would be given twice. Therefore the destination is told
//! which one was the highest, and adds that to its own revisions.
//!
//! Must not know: what kind of stores these are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealift_model::Timestamp;
use sealift_store::election::{Candidate, Leadership};
use sealift_store::{Entry, MAX_OPS, MAX_TXN, Revision, Store, Txn};
use serde::{Deserialize, Serialize};

use crate::keys::Key;

/// For the leader's key of both stores.
const TTL: Duration = Duration::from_secs(5);
/// A transfer that was killed holds the leader's key for as long as its lease lasts.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a transfer is called as a leader.
const NAME: &str = "sealift store move";
/// Room for the compare with the leader's key.
const OPS: usize = MAX_OPS - 2;
const BYTES: usize = MAX_TXN - 4096;

/// A store that nobody else uses, and what people call it.
#[derive(Debug, Clone)]
pub struct Place {
    pub store: Arc<dyn Store>,
    /// Without secrets: it is written into the other store.
    pub name: String,
}

/// What a transfer has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Done {
    pub keys: usize,
    pub bytes: usize,
    /// Keys under a lease.
    pub left_out: usize,
    /// A copy that was cut short was there, and was taken away first.
    pub begun_again: bool,
}

/// Why a store cannot be used for a server, or for a transfer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unusable {
    #[error("cannot read the store")]
    Store(#[source] sealift_store::Error),
    #[error("the store holds only a part of what was being moved to it from {from}")]
    Incomplete { from: String },
    #[error("the state was moved from this store to {to}")]
    Moved { to: String },
    #[error("the mark of a transfer in the store is not understood")]
    Mark(#[source] Arc<serde_json::Error>),
}

/// Why a transfer did not come to its end. It can be begun again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{place}")]
    Source { place: String, source: Unusable },
    #[error("a server uses {place}: {leader} leads there")]
    InUse { place: String, leader: String },
    #[error("{place} is not empty: it holds {keys} keys, {key:?} for one")]
    NotEmpty { place: String, keys: usize, key: String },
    #[error("cannot read {place}")]
    Read { place: String, source: sealift_store::Error },
    #[error("cannot write to {place}")]
    Write { place: String, source: sealift_store::Error },
    #[error("{key:?} was changed in {place} while it was copied; something else than a server writes there")]
    Changed { place: String, key: String },
    #[error("what was written to {place} is not what is read from it: {key:?} differs")]
    Differs { place: String, key: String },
    #[error("cannot write the mark of the transfer")]
    Json(#[source] serde_json::Error),
}

/// What the mark says.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    stage: Stage,
    /// The other store.
    other: String,
    at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    /// The destination of a transfer that is not through.
    Incoming,
    /// The source of one that is.
    Gone,
}

async fn mark(store: &dyn Store) -> Result<Option<Mark>, Unusable> {
    let entry = store.get(&Key::Transfer.to_string()).await.map_err(Unusable::Store)?;
    entry
        .map(|entry| serde_json::from_slice(&entry.value).map_err(|error| Unusable::Mark(Arc::new(error))))
        .transpose()
}

/// Whether a server may begin on the store.
///
/// # Errors
/// [`Unusable`] when it may not.
pub async fn check(store: &dyn Store) -> Result<(), Unusable> {
    match mark(store).await? {
        None => Ok(()),
        Some(Mark { stage: Stage::Incoming, other, .. }) => Err(Unusable::Incomplete { from: other }),
        Some(Mark { stage: Stage::Gone, other, .. }) => Err(Unusable::Moved { to: other }),
    }
}

/// Moves everything.
///
/// # Errors
/// [`Error`]. Before anything is written: [`Error::Source`], [`Error::InUse`] and [`Error::NotEmpty`].
pub async fn run(from: &Place, to: &Place, now: Timestamp) -> Result<Done, Error> {
    let left = free(to).await?;
    let begun_again = left.as_ref().is_some_and(|mark| mark.stage == Stage::Incoming);
    match check(from.store.as_ref()).await {
        Ok(()) => {}
        // It was cut short between its last two steps.
        Err(Unusable::Moved { to: other })
            if begun_again && other == to.name && left.is_some_and(|mark| mark.other == from.name) => {}
        Err(source) => return Err(Error::Source { place: from.name.clone(), source }),
    }
    let reading = lead(from).await?;
    let writing = match lead(to).await {
        Ok(writing) => writing,
        Err(error) => {
            reading.resign().await.ok();
            return Err(error);
        }
    };
    let done = carry(from, &reading, to, &writing, now).await;
    // Their leases end by themselves, if not now.
    reading.resign().await.ok();
    writing.resign().await.ok();
    done.map(|done| Done { begun_again, ..done })
}

/// Whether the destination may be written: it is empty, or holds what a transfer left there, whose mark it gives.
async fn free(to: &Place) -> Result<Option<Mark>, Error> {
    let place = to.name.clone();
    let marked = mark(to.store.as_ref()).await;
    if let Some(mark) = marked.map_err(|source| Error::Source { place: place.clone(), source })? {
        return Ok(Some(mark));
    }
    let kept = kept(&list(to).await?);
    match kept.first_key_value() {
        None => Ok(None),
        Some((key, _)) => Err(Error::NotEmpty { place, keys: kept.len(), key: key.clone() }),
    }
}

/// Becomes the leader, unless a server is.
async fn lead(place: &Place) -> Result<Leadership, Error> {
    let read = |source| Error::Read { place: place.name.clone(), source };
    let key = Key::Leader.to_string();
    let name = serde_json::Value::from(NAME).to_string();
    if let Some(leader) = place.store.get(&key).await.map_err(read)?
        && leader.value != name.as_bytes()
    {
        let leader = serde_json::from_slice(&leader.value)
            .unwrap_or_else(|_| String::from_utf8_lossy(&leader.value).into_owned());
        return Err(Error::InUse { place: place.name.clone(), leader });
    }
    let candidate = Candidate::new(place.store.clone(), key, name, TTL);
    match tokio::time::timeout(PATIENCE, candidate.campaign()).await {
        Ok(led) => led.map_err(read),
        Err(_) => {
            Err(Error::InUse { place: place.name.clone(), leader: "another server or transfer".into() })
        }
    }
}

async fn list(place: &Place) -> Result<sealift_store::Range, Error> {
    let listed = place.store.range("").await;
    listed.map_err(|source| Error::Read { place: place.name.clone(), source })
}

/// What is carried over.
fn kept(range: &sealift_store::Range) -> BTreeMap<String, Entry> {
    let own = Key::Transfer.to_string();
    let kept = range.entries.iter().filter(|entry| entry.lease.is_none() && entry.key != own);
    kept.map(|entry| (entry.key.clone(), entry.clone())).collect()
}

async fn carry(
    from: &Place,
    reading: &Leadership,
    to: &Place,
    writing: &Leadership,
    now: Timestamp,
) -> Result<Done, Error> {
    let leader = Key::Leader.to_string();
    let before = list(from).await?;
    let entries = kept(&before);
    let mut values: BTreeMap<String, Bytes> =
        entries.iter().map(|(key, entry)| (key.clone(), entry.value.clone())).collect();
    let base = Key::GenerationBase.to_string();
    values.insert(base.clone(), highest_generation(entries.get(&base), before.revision).into());
    let mark = |stage, other: &str| {
        serde_json::to_vec(&Mark { stage, other: other.to_owned(), at: now }).map_err(Error::Json)
    };
    let write = |source| Error::Write { place: to.name.clone(), source };
    let commit = async |txn| to.store.commit(writing.guard(txn)).await.map_err(write);

    // First the mark, so that from here on nobody takes a part for the whole.
    let marked = commit(Txn::new().put(Key::Transfer, mark(Stage::Incoming, &from.name)?)).await?;
    // What is there is of a transfer: the mark was there before, or nothing was.
    let old = kept(&list(to).await?);
    for txn in batches(old.into_keys().map(|key| (key, None))) {
        commit(txn).await?;
    }
    for txn in batches(values.iter().map(|(key, value)| (key.clone(), Some(value.clone())))) {
        commit(txn).await?;
    }
    let written: BTreeMap<_, _> =
        kept(&list(to).await?).into_iter().map(|(key, entry)| (key, entry.value)).collect();
    if let Some(key) = difference(&values, &written) {
        return Err(Error::Differs { place: to.name.clone(), key });
    }
    let after = kept(&list(from).await?);
    if let Some(key) = difference(&entries, &after) {
        return Err(Error::Changed { place: from.name.clone(), key });
    }
    // In this order, so that at no time a server could begin on both.
    let gone = Txn::new().put(Key::Transfer, mark(Stage::Gone, &to.name)?);
    from.store
        .commit(reading.guard(gone))
        .await
        .map_err(|source| Error::Write { place: from.name.clone(), source })?;
    commit(Txn::new().if_modified_at(Key::Transfer, marked).delete(Key::Transfer)).await?;
    Ok(Done {
        keys: entries.len(),
        bytes: entries.values().map(|entry| entry.value.len()).sum(),
        left_out: before.entries.iter().filter(|entry| entry.lease.is_some() && entry.key != leader).count(),
        begun_again: false,
    })
}

/// As a number in JSON. Each generation took a commit, so none is above the revision and what was added to it.
fn highest_generation(base: Option<&Entry>, revision: Revision) -> Vec<u8> {
    let base = base.and_then(|entry| serde_json::from_slice::<u64>(&entry.value).ok()).unwrap_or(0);
    base.saturating_add(revision.0).to_string().into_bytes()
}

/// The first key that the two do not have alike.
fn difference<T: PartialEq>(left: &BTreeMap<String, T>, right: &BTreeMap<String, T>) -> Option<String> {
    let differs = |(key, value): (&String, &T), other: &BTreeMap<String, T>| {
        (other.get(key) != Some(value)).then(|| key.clone())
    };
    left.iter()
        .find_map(|pair| differs(pair, right))
        .or_else(|| right.iter().find_map(|pair| differs(pair, left)))
}

/// Puts and deletions (without a value) in as few transactions as a store takes.
fn batches(changes: impl Iterator<Item = (String, Option<Bytes>)>) -> Vec<Txn> {
    let mut done = Vec::new();
    let mut txn = Txn::new();
    for (key, value) in changes {
        let size = key.len() + value.as_ref().map_or(0, Bytes::len);
        if txn.ops().len() >= OPS || txn.size() + size > BYTES {
            done.push(std::mem::take(&mut txn));
        }
        txn = match value {
            Some(value) => txn.put(key, value),
            None => txn.delete(key),
        };
    }
    if !txn.ops().is_empty() {
        done.push(txn);
    }
    done
}

#[cfg(test)]
mod tests {
    use sealift_store::MemoryStore;

    use super::*;

    fn place(name: &str) -> Place {
        Place { store: Arc::new(MemoryStore::new()), name: name.into() }
    }

    async fn put(place: &Place, key: &str, value: &str) -> Revision {
        place.store.commit(Txn::new().put(key, value.to_owned())).await.unwrap()
    }

    async fn keys(place: &Place) -> Vec<String> {
        let range = place.store.range("").await.unwrap();
        range.entries.into_iter().map(|entry| entry.key).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn goes_there_and_back_and_generations_only_rise() {
        let (a, b) = (place("a"), place("b"));
        for number in 0..300 {
            put(&a, &format!("units/u{number:03}.service"), &"x".repeat(9_000)).await;
        }
        let lease = a.store.grant_lease(Duration::from_secs(100)).await.unwrap();
        a.store.commit(Txn::new().put_leased("presence/m", "here", lease)).await.unwrap();
        let revision = a.store.revision().await.unwrap().0;
        let done = run(&a, &b, Timestamp(1)).await.unwrap();
        assert_eq!((done.keys, done.bytes, done.left_out), (300, 300 * 9_000, 1));
        let base: u64 =
            serde_json::from_slice(&b.store.get("counters/generations").await.unwrap().unwrap().value)
                .unwrap();
        assert!(base >= revision, "{base} {revision}");
        assert_eq!(keys(&b).await.len(), 301);
        check(b.store.as_ref()).await.unwrap();
        assert!(matches!(check(a.store.as_ref()).await, Err(Unusable::Moved { to }) if to == "b"));
        // What was moved away cannot be moved once more, and nothing is written over what is used.
        let error = run(&a, &b, Timestamp(2)).await.unwrap_err();
        assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
        let error = run(&a, &place("c"), Timestamp(2)).await.unwrap_err();
        assert!(matches!(error, Error::Source { source: Unusable::Moved { .. }, .. }), "{error}");

        put(&b, "units/new.service", "y").await;
        let revision = b.store.revision().await.unwrap().0;
        run(&b, &a, Timestamp(3)).await.unwrap();
        assert_eq!(keys(&a).await.len(), 302 + 1, "and its own presence, whose lease still lasts");
        let again: u64 =
            serde_json::from_slice(&a.store.get("counters/generations").await.unwrap().unwrap().value)
                .unwrap();
        assert!(again >= base + revision, "{again}");
        assert!(matches!(run(&b, &place("c"), Timestamp(4)).await, Err(Error::Source { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn refuses_what_is_used_or_not_empty_and_changes_nothing() {
        let (a, b) = (place("a"), place("b"));
        put(&a, "units/a.service", "1").await;
        put(&b, "units/b.service", "2").await;
        let error = run(&a, &b, Timestamp(1)).await.unwrap_err();
        assert!(matches!(&error, Error::NotEmpty { key, .. } if key == "units/b.service"), "{error}");
        assert_eq!(keys(&b).await, ["units/b.service"]);

        let c = place("c");
        put(&a, "election/leader", "\"other\"").await;
        let error = run(&a, &c, Timestamp(1)).await.unwrap_err();
        assert!(matches!(&error, Error::InUse { leader, .. } if leader == "other"), "{error}");
        assert!(keys(&c).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_cut_short_is_known_and_begun_again() {
        let (a, b) = (place("a"), place("b"));
        put(&a, "units/a.service", "1").await;
        put(&b, "units/from-before.service", "half").await;
        let mark = Mark { stage: Stage::Incoming, other: "a".into(), at: Timestamp(1) };
        put(&b, "transfer/state", &serde_json::to_string(&mark).unwrap()).await;
        assert!(matches!(check(b.store.as_ref()).await, Err(Unusable::Incomplete { from }) if from == "a"));
        assert!(run(&a, &b, Timestamp(2)).await.unwrap().begun_again);
        assert_eq!(keys(&b).await, ["counters/generations", "units/a.service"]);
        // Between its last two steps.
        let mark = Mark { stage: Stage::Incoming, other: "a".into(), at: Timestamp(2) };
        put(&b, "transfer/state", &serde_json::to_string(&mark).unwrap()).await;
        assert!(run(&a, &b, Timestamp(3)).await.unwrap().begun_again);
        assert_eq!(keys(&b).await, ["counters/generations", "units/a.service"]);
    }
}
