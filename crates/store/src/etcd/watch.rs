//! A watch on etcd that outlives its connection: it begins again right after the last revision that it told.
//!
//! Bounded: answers are read when the reader asks for more, so a slow reader is held up by the connection's own
//! window and then by etcd, which reads its history again later; once etcd has forgotten that, the watch is over.
//!
//! Must not know: what the changes mean.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tokio::sync::watch::Receiver;
use tonic::Streaming;

use super::client::{self, CallError, Client, Repeat};
use super::{
    after_prefix, failed, is_about_user, is_compacted, is_future, revision_of, to_entry, to_i64, to_key,
    to_u64, wire,
};
use crate::{Batch, Error, Event, Revision, WatchSource};

#[derive(Debug)]
pub(super) struct EtcdWatch {
    client: Arc<Client>,
    preferred: Receiver<usize>,
    /// The store's.
    prefix: String,
    key: Vec<u8>,
    range_end: Vec<u8>,
    /// The newest revision of which everything is told or in `ready`.
    seen: Revision,
    ready: VecDeque<Batch>,
    /// The revision whose last fragment is still to come.
    partial: Option<Batch>,
    connection: Option<Connection>,
    /// How often in a row connecting failed.
    failures: usize,
    /// Why the watch is over.
    over: Option<Error>,
}

#[derive(Debug)]
struct Connection {
    member: usize,
    answers: Streaming<wire::WatchResponse>,
}

impl EtcdWatch {
    pub(super) async fn open(
        client: Arc<Client>,
        store_prefix: &str,
        prefix: &str,
        after: Revision,
    ) -> Result<EtcdWatch, Error> {
        let mut watch = EtcdWatch::new(client, store_prefix, prefix, after);
        watch.connect().await?;
        Ok(watch)
    }

    fn new(client: Arc<Client>, store_prefix: &str, prefix: &str, after: Revision) -> EtcdWatch {
        let key = [store_prefix.as_bytes(), prefix.as_bytes()].concat();
        EtcdWatch {
            preferred: client.preferred(),
            client,
            prefix: store_prefix.to_owned(),
            range_end: after_prefix(&key),
            key,
            seen: after,
            ready: VecDeque::new(),
            partial: None,
            connection: None,
            failures: 0,
            over: None,
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        self.partial = None;
        let message = self.create(to_i64(self.seen.0).saturating_add(1));
        let mut first_attempt = true;
        loop {
            let (member, first, answers) = self
                .client
                .subscribe::<_, wire::WatchResponse>(wire::WATCH, message.clone())
                .await
                .map_err(|error| failed("watch etcd", error))?;
            self.check_history().await?;
            match self.check_cancelled(&first) {
                Ok(()) => {
                    self.connection = Some(Connection { member, answers });
                    return Ok(());
                }
                // A watch is refused like this for an old token as well, and the call before has got a new one.
                Err(Error::Storage { cause, .. }) if is_denied(&cause) && first_attempt => {
                    first_attempt = false;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn create(&self, start_revision: i64) -> wire::WatchRequest {
        wire::WatchRequest {
            create: Some(wire::WatchCreateRequest {
                key: self.key.clone(),
                range_end: self.range_end.clone(),
                start_revision,
                progress_notify: true,
                prev_kv: true,
                fragment: true,
            }),
        }
    }

    /// Whether etcd still has, or already has, the state that the watch goes on from. A watch that begins right at
    /// the oldest revision would be accepted, but may miss the deletions of that revision.
    async fn check_history(&self) -> Result<(), Error> {
        let message = wire::RangeRequest {
            key: self.key.clone(),
            // The empty store is revision 1 there.
            revision: to_i64(self.seen.0.max(1)),
            count_only: true,
            ..Default::default()
        };
        match self.client.call::<_, wire::RangeResponse>(wire::RANGE, message, Repeat::Harmless).await {
            Ok(_) => Ok(()),
            Err(CallError::Refused(status)) if is_future(&status) => {
                let message =
                    wire::RangeRequest { key: self.key.clone(), count_only: true, ..Default::default() };
                let newest = self
                    .client
                    .call::<_, wire::RangeResponse>(wire::RANGE, message, Repeat::Harmless)
                    .await
                    .map_err(|error| failed("watch etcd", error))?;
                Err(Error::FutureRevision { after: self.seen, newest: revision_of(newest.header.as_ref()) })
            }
            Err(CallError::Refused(status)) if is_compacted(&status) => {
                Err(Error::Compacted { oldest: self.oldest().await? })
            }
            Err(error) => Err(failed("watch etcd", error)),
        }
    }

    /// The oldest revision that etcd has, which it tells to watches that begin before it.
    async fn oldest(&self) -> Result<Revision, Error> {
        let lost = |error| failed("watch etcd", error);
        let (_, _, mut answers) = self
            .client
            .subscribe::<_, wire::WatchResponse>(wire::WATCH, self.create(1))
            .await
            .map_err(lost)?;
        let told = async {
            while let Ok(Some(answer)) = answers.message().await {
                if answer.compact_revision > 0 {
                    return Revision(to_u64(answer.compact_revision));
                }
            }
            // It went away meanwhile. What is certain is that the next revision is not there.
            Revision(self.seen.0 + 1)
        };
        Ok(tokio::time::timeout(self.client.timeout(), told).await.unwrap_or(Revision(self.seen.0 + 1)))
    }

    fn check_cancelled(&self, answer: &wire::WatchResponse) -> Result<(), Error> {
        if !answer.canceled {
            return Ok(());
        }
        if answer.compact_revision > 0 {
            return Err(Error::Compacted { oldest: Revision(to_u64(answer.compact_revision)) });
        }
        // Everything else passes (no leader) or is said again by the next attempt (no permission).
        let kind = if is_about_user(&answer.cancel_reason) {
            io::ErrorKind::PermissionDenied
        } else {
            io::ErrorKind::ConnectionAborted
        };
        Err(Error::storage("watch etcd", io::Error::new(kind, answer.cancel_reason.clone())))
    }

    /// Takes in one answer; whole revisions become ready.
    fn take(&mut self, answer: wire::WatchResponse) -> Result<(), Error> {
        self.check_cancelled(&answer)?;
        if answer.created {
            return Ok(());
        }
        let is_progress = answer.events.is_empty();
        for event in answer.events {
            let Some(kv) = event.kv else { continue };
            let revision = Revision(to_u64(kv.mod_revision));
            if revision <= self.seen {
                continue;
            }
            if self.partial.as_ref().is_some_and(|partial| partial.revision != revision) {
                self.finish_partial();
            }
            let batch = self.partial.get_or_insert_with(|| Batch { revision, events: Vec::new() });
            if event.r#type == i32::from(wire::EventType::Delete) {
                let Some(key) = to_key(&self.prefix, &kv.key) else { continue };
                let last = event.prev_kv.and_then(|last| to_entry(&self.prefix, last));
                // etcd has forgotten how it was before, so it is about to forget this as well.
                let last = last.ok_or(Error::Compacted { oldest: revision })?;
                batch.events.push(Event::Delete { key, last });
            } else if let Some(entry) = to_entry(&self.prefix, kv) {
                batch.events.push(Event::Put(entry));
            }
        }
        if !answer.fragment {
            self.finish_partial();
        }
        let revision = revision_of(answer.header.as_ref());
        if is_progress && self.partial.is_none() && revision > self.seen {
            self.seen = revision;
            self.ready.push_back(Batch { revision, events: Vec::new() });
        }
        Ok(())
    }

    fn finish_partial(&mut self) {
        if let Some(batch) = self.partial.take() {
            self.seen = batch.revision;
            self.ready.push_back(batch);
        }
    }
}

fn is_denied(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::PermissionDenied
}

#[async_trait::async_trait]
impl WatchSource for EtcdWatch {
    /// Dropped while it waits, it has lost nothing: what was read is kept here, and a connection that was being made
    /// is made again.
    async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if let Some(error) = &self.over {
                return Err(error.clone());
            }
            let Some(connection) = &mut self.connection else {
                match self.connect().await {
                    Ok(()) => self.failures = 0,
                    Err(error @ (Error::Compacted { .. } | Error::FutureRevision { .. })) => {
                        self.over = Some(error);
                    }
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        // Once is enough to be told.
                        if self.failures == 0 {
                            tracing::warn!(%error, cause, "a watch is cut off from etcd; trying on");
                        }
                        self.failures += 1;
                        tokio::time::sleep(client::pause(self.failures)).await;
                    }
                }
                continue;
            };
            let member = connection.member;
            let answer = tokio::select! {
                answer = connection.answers.message() => answer,
                // Others found that member wanting, perhaps before this connection shows it.
                Ok(_) = self.preferred.wait_for(|preferred| *preferred != member) => {
                    self.connection = None;
                    continue;
                }
            };
            let taken = match answer {
                Ok(Some(answer)) => self.take(answer),
                Ok(None) => Err(Error::storage("watch etcd", io::ErrorKind::UnexpectedEof.into())),
                Err(status) => {
                    tracing::debug!(reason = client::text(&status), "a watch lost its connection");
                    Err(Error::storage("watch etcd", io::Error::other(client::text(&status))))
                }
            };
            match taken {
                Ok(()) => {}
                Err(error @ Error::Compacted { .. }) => self.over = Some(error),
                Err(_) => {
                    self.connection = None;
                    self.client.give_up(member);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::transport::Endpoint;

    use super::*;
    use crate::etcd::wire::{EventType, KeyValue, ResponseHeader, WatchResponse};

    /// A watch after revision 10 that is connected to nothing.
    fn watch() -> EtcdWatch {
        let endpoint = Endpoint::from_static("http://127.0.0.1:1");
        let client = Arc::new(Client::new(vec![endpoint], None, Duration::from_secs(1)));
        EtcdWatch::new(client, "/p/", "", Revision(10))
    }

    fn event(kind: EventType, key: &str, revision: i64) -> wire::Event {
        let kv = KeyValue { key: format!("/p/{key}").into(), mod_revision: revision, ..Default::default() };
        wire::Event { r#type: kind.into(), prev_kv: None, kv: Some(kv) }
    }

    fn answer(revision: i64, fragment: bool, events: &[(&str, i64)]) -> WatchResponse {
        let events = events.iter().map(|(key, revision)| event(EventType::Put, key, *revision)).collect();
        WatchResponse {
            header: Some(ResponseHeader { revision, ..Default::default() }),
            fragment,
            events,
            ..Default::default()
        }
    }

    fn told(watch: &mut EtcdWatch) -> Vec<(u64, Vec<String>)> {
        let keys = |batch: Batch| batch.events.iter().map(|event| event.key().to_owned()).collect();
        watch.ready.drain(..).map(|batch| (batch.revision.0, keys(batch))).collect()
    }

    fn batch(revision: u64, keys: &[&str]) -> (u64, Vec<String>) {
        (revision, keys.iter().map(|key| (*key).to_owned()).collect())
    }

    #[tokio::test]
    async fn puts_revisions_together_from_fragments() {
        let mut watch = watch();
        watch.take(answer(14, true, &[("a", 11), ("b", 11), ("a", 12)])).unwrap();
        // The end of 12 may be still to come.
        assert_eq!(told(&mut watch), [batch(11, &["a", "b"])]);
        watch.take(answer(14, true, &[("b", 12)])).unwrap();
        assert_eq!(told(&mut watch), []);
        watch.take(answer(14, false, &[("c", 12), ("a", 14)])).unwrap();
        assert_eq!(told(&mut watch), [batch(12, &["a", "b", "c"]), batch(14, &["a"])]);
        // After a new connection, which tells again what was in pieces and perhaps more.
        watch.take(answer(16, true, &[("a", 15)])).unwrap();
        watch.partial = None;
        watch.take(answer(16, false, &[("a", 14), ("a", 15), ("b", 15), ("a", 16)])).unwrap();
        assert_eq!(told(&mut watch), [batch(15, &["a", "b"]), batch(16, &["a"])]);
    }

    #[tokio::test]
    async fn tells_progress_once_and_only_forwards() {
        let mut watch = watch();
        for revision in [10, 12, 12, 11] {
            watch.take(answer(revision, false, &[])).unwrap();
        }
        assert_eq!(told(&mut watch), [batch(12, &[])]);
        // The store's own key, and one that is not the store's, are progress too.
        watch.take(answer(14, false, &[("", 13)])).unwrap();
        let mut foreign = answer(14, false, &[("x", 14)]);
        foreign.events[0].kv.as_mut().unwrap().key.push(0xff);
        watch.take(foreign).unwrap();
        assert_eq!(told(&mut watch), [batch(13, &[]), batch(14, &[])]);
    }

    #[tokio::test]
    async fn a_deletion_that_etcd_half_forgot_ends_the_watch() {
        let mut watch = watch();
        let mut half = answer(11, false, &[]);
        half.events.push(event(EventType::Delete, "a", 11));
        assert!(matches!(watch.take(half), Err(Error::Compacted { oldest: Revision(11) })));
        let cancelled = WatchResponse { canceled: true, compact_revision: 20, ..Default::default() };
        assert!(matches!(watch.take(cancelled), Err(Error::Compacted { oldest: Revision(20) })));
    }
}
