//! One leader among several candidates, on any store: whoever holds a key under a lease leads.
//!
//! Guarantees: of the transactions that went through [`Leadership::guard`], none of an older leader is made after one
//! of a newer leader; that holds whatever clocks and processes do. Besides, a leader who cannot renew its lease stops
//! believing in it, by its own clock, before the lease can have run out; that holds as far as clocks run equally
//! fast (a machine that sleeps stops its clock), so what is not guarded may rarely happen twice. On etcd the time to
//! live has to be four of its election timeouts or more (4 s by default): so long may a leader of etcd that is cut off
//! from the others renew a lease that they are about to let run out.
//!
//! Must not know: what is led.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Error, Event, LeaseId, Revision, Store, Txn};

/// The lease is renewed this often within its time to live.
const RENEWALS: u32 = 4;
/// This part of the time to live is kept clear of: one in so many.
const MARGIN: u32 = 4;

/// Somebody who would lead.
#[derive(Debug, Clone)]
pub struct Candidate {
    store: Arc<dyn Store>,
    key: String,
    name: String,
    ttl: Duration,
}

impl Candidate {
    /// All candidates for the same thing name the same `key`; the leader's `name` is its value. A leader that vanishes
    /// is followed after `ttl`, or somewhat later as [`Store::grant_lease`] says.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        key: impl Into<String>,
        name: impl Into<String>,
        ttl: Duration,
    ) -> Candidate {
        Candidate { store, key: key.into(), name: name.into(), ttl }
    }

    /// Waits until it leads. May be dropped while it waits; whatever it had begun ends by itself within the lease.
    ///
    /// # Errors
    /// Those of the store, so that the caller decides how often to try again; [`Error::Closed`] for good.
    pub async fn campaign(&self) -> Result<Leadership, Error> {
        loop {
            self.wait_until_free().await?;
            let asked = Instant::now();
            let lease = self.store.grant_lease(self.ttl).await?;
            let take = Txn::new().if_absent(&self.key).put_leased(&self.key, self.name.clone(), lease);
            match self.store.commit(take).await {
                Ok(revision) => return Ok(Leadership::begin(self, lease, revision, asked)),
                // Somebody was faster, or it is unknown whether we have it: without the lease we have not.
                Err(error) if error.is_conflict() || error.is_unknown() => {
                    self.store.revoke_lease(lease).await?;
                }
                // It took so long that the lease is over.
                Err(Error::LeaseNotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn wait_until_free(&self) -> Result<(), Error> {
        loop {
            // Before the look, so that the watch shows all that changes after it.
            let before = self.store.revision().await?;
            if self.store.get(&self.key).await?.is_none() {
                return Ok(());
            }
            let mut watch = match self.store.watch(&self.key, before).await {
                Ok(watch) => watch,
                Err(Error::Compacted { .. }) => continue,
                Err(error) => return Err(error),
            };
            loop {
                match watch.next().await {
                    Ok(Some(batch)) => {
                        let freed =
                            |event: &Event| matches!(event, Event::Delete { key, .. } if *key == self.key);
                        if batch.events.iter().any(freed) {
                            return Ok(());
                        }
                    }
                    Ok(None) => return Err(Error::Closed),
                    Err(Error::Compacted { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// Being the leader, renewed by a task of its own until it is lost, resigned or dropped.
#[derive(Debug)]
pub struct Leadership {
    store: Arc<dyn Store>,
    key: String,
    lease: LeaseId,
    revision: Revision,
    held_until: watch::Receiver<Option<Instant>>,
    renewal: JoinHandle<()>,
}

impl Leadership {
    fn begin(candidate: &Candidate, lease: LeaseId, revision: Revision, asked: Instant) -> Leadership {
        let renewal = Renewal { store: Arc::clone(&candidate.store), lease, ttl: candidate.ttl };
        let (held, held_until) = watch::channel(Some(renewal.certain_until(asked)));
        tracing::info!(key = candidate.key, name = candidate.name, %revision, "leads");
        Leadership {
            store: Arc::clone(&candidate.store),
            key: candidate.key.clone(),
            lease,
            revision,
            held_until,
            renewal: tokio::spawn(renewal.run(asked, held)),
        }
    }

    /// Lets the transaction hold only if nobody else leads by then. Every write that only a leader may make goes
    /// through here; a conflict on the leader's key then says that the leadership is lost.
    #[must_use]
    pub fn guard(&self, txn: Txn) -> Txn {
        txn.if_modified_at(self.key.clone(), self.revision)
    }

    /// Grows from leader to leader.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether the lease cannot have run out yet, by our own clock.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held_until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it is not held any more, which it never is again.
    pub async fn lost(&self) {
        let mut held_until = self.held_until.clone();
        loop {
            let Some(until) = *held_until.borrow_and_update() else { return };
            tokio::select! {
                changed = held_until.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(until) => if !self.is_held() { return },
            }
        }
    }

    /// Lets others lead at once.
    ///
    /// # Errors
    /// Those of the store; the lease then runs out by itself.
    pub async fn resign(self) -> Result<(), Error> {
        self.renewal.abort();
        self.store.revoke_lease(self.lease).await
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

#[derive(Debug)]
struct Renewal {
    store: Arc<dyn Store>,
    lease: LeaseId,
    ttl: Duration,
}

impl Renewal {
    /// Until when the lease lasts for certain that was asked for, or renewed by a request sent, at `sent`.
    fn certain_until(&self, sent: Instant) -> Instant {
        sent + self.ttl - self.ttl / MARGIN
    }

    async fn run(self, asked: Instant, held: watch::Sender<Option<Instant>>) {
        let mut until = self.certain_until(asked);
        let mut next = asked + self.ttl / RENEWALS;
        loop {
            tokio::time::sleep_until(next.min(until)).await;
            let sent = Instant::now();
            if sent >= until {
                break;
            }
            match tokio::time::timeout_at(until, self.store.keep_alive(self.lease)).await {
                Ok(Ok(_)) => {
                    until = self.certain_until(sent);
                    held.send_replace(Some(until));
                    next = sent + self.ttl / RENEWALS;
                }
                Ok(Err(Error::LeaseNotFound(_) | Error::Closed)) => break,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the leader's lease could not be renewed; trying again");
                    next = Instant::now() + self.ttl / RENEWALS / 4;
                }
                Err(_) => break,
            }
        }
        tracing::warn!(lease = %self.lease, "does not lead any more");
        held.send_replace(None);
        // The next leader need not wait for what is left of the lease, if the store can be told.
        self.store.revoke_lease(self.lease).await.ok();
    }
}
