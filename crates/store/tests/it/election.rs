//! Elections on the memory store, in virtual time: who leads, for how long, and what an old leader can still do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealift_store::election::{Candidate, Leadership};
use sealift_store::{Entry, Error, LeaseId, MemoryStore, Range, Revision, Store, Txn, Watch};
use tokio::time::Instant;

const TTL: Duration = Duration::from_secs(8);

fn candidate(store: &Arc<MemoryStore>, name: &str) -> Candidate {
    Candidate::new(Arc::clone(store) as Arc<dyn Store>, "leader", name, TTL)
}

async fn leads(store: &Arc<MemoryStore>, name: &str) -> Leadership {
    candidate(store, name).campaign().await.unwrap()
}

async fn leader(store: &Arc<MemoryStore>) -> Option<String> {
    let entry = store.get("leader").await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_leader_leads_until_it_resigns() {
    let store = Arc::new(MemoryStore::new());
    let a = leads(&store, "a").await;
    let waiting = candidate(&store, "b");
    let b = tokio::spawn(async move { waiting.campaign().await.unwrap() });
    // Many leases long.
    tokio::time::sleep(TTL * 100).await;
    assert!(a.is_held() && !b.is_finished());
    assert_eq!(leader(&store).await.as_deref(), Some("a"));
    let fenced = a.guard(Txn::new().put("x", "of a"));
    store.commit(fenced.clone()).await.unwrap();

    let resigned = Instant::now();
    a.resign().await.unwrap();
    let b = b.await.unwrap();
    assert!(resigned.elapsed() < TTL / 100, "took {:?}", resigned.elapsed());
    assert_eq!(leader(&store).await.as_deref(), Some("b"));
    // What the old leader had in its hands does not count any more.
    assert!(store.commit(fenced).await.unwrap_err().is_conflict());
    store.commit(b.guard(Txn::new().put("x", "of b"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_vanishes_is_followed_within_its_lease() {
    let store = Arc::new(MemoryStore::new());
    let a = leads(&store, "a").await;
    let (other, fenced) = (leads_later(&store, "b"), a.guard(Txn::new().put("x", "")));
    tokio::time::sleep(TTL).await;
    let gone = Instant::now();
    drop(a);
    let b = other.await.unwrap();
    assert!(gone.elapsed() <= TTL, "took {:?}", gone.elapsed());
    assert!(b.is_held());
    assert!(store.commit(fenced).await.unwrap_err().is_conflict());
}

fn leads_later(store: &Arc<MemoryStore>, name: &str) -> tokio::task::JoinHandle<Leadership> {
    let candidate = candidate(store, name);
    tokio::spawn(async move { candidate.campaign().await.unwrap() })
}

#[tokio::test(start_paused = true)]
async fn a_key_beside_the_leaders_is_none_of_its_business() {
    let store = Arc::new(MemoryStore::new());
    store.commit(Txn::new().put("leader2", "")).await.unwrap();
    let a = leads(&store, "a").await;
    let b = leads_later(&store, "b");
    store.commit(Txn::new().delete("leader2")).await.unwrap();
    tokio::time::sleep(TTL).await;
    assert!(!b.is_finished() && a.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_knows_before_others_lead() {
    for is_silent in [false, true] {
        let memory = Arc::new(MemoryStore::new());
        let store = Arc::new(CutOff { store: Arc::clone(&memory), cut: AtomicBool::new(false), is_silent });
        let far: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        let a = Candidate::new(far, "leader", "a", TTL).campaign().await.unwrap();
        let b = leads_later(&memory, "b");
        tokio::time::sleep(TTL * 3).await;
        store.cut.store(true, Ordering::Relaxed);
        let cut = Instant::now();
        a.lost().await;
        assert!(!a.is_held() && !b.is_finished(), "the lease is over already");
        // The last renewal was up to a quarter of the lease ago.
        assert!(cut.elapsed() >= TTL / 2 && cut.elapsed() < TTL, "noticed after {:?}", cut.elapsed());
        assert_eq!(leader(&memory).await.as_deref(), Some("a"));
        let lost = Instant::now();
        b.await.unwrap();
        assert!(lost.elapsed() >= TTL / 8, "only {:?} between", lost.elapsed());
        // Connected again, it stays lost.
        store.cut.store(false, Ordering::Relaxed);
        tokio::time::sleep(TTL).await;
        assert!(!a.is_held());
        a.lost().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_taken_away_hears_of_it() {
    let store = Arc::new(MemoryStore::new());
    let a = leads(&store, "a").await;
    let lease = store.get("leader").await.unwrap().unwrap().lease.unwrap();
    store.revoke_lease(lease).await.unwrap();
    let revoked = Instant::now();
    a.lost().await;
    assert!(revoked.elapsed() <= TTL / 4);
}

#[tokio::test(start_paused = true)]
async fn of_many_one_leads_at_a_time() {
    let store = Arc::new(MemoryStore::new());
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..8 {
        let candidate = candidate(&store, &i.to_string());
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let leadership = candidate.campaign().await.unwrap();
            // Whoever leads finds nobody else within.
            let enter = Txn::new().if_absent("within").put("within", i.to_string());
            store.commit(leadership.guard(enter)).await.unwrap();
            tokio::time::sleep(TTL * 2).await;
            store.commit(leadership.guard(Txn::new().delete("within"))).await.unwrap();
            let revision = leadership.revision();
            leadership.resign().await.unwrap();
            revision
        });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 8);
}

/// A store that can be cut off: it fails at once, or says nothing at all.
#[derive(Debug)]
struct CutOff {
    store: Arc<MemoryStore>,
    cut: AtomicBool,
    is_silent: bool,
}

impl CutOff {
    async fn pass(&self) -> Result<(), Error> {
        if !self.cut.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.is_silent {
            std::future::pending::<()>().await;
        }
        Err(Error::Unknown { cause: Arc::new(std::io::ErrorKind::ConnectionReset.into()) })
    }
}

#[async_trait::async_trait]
impl Store for CutOff {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.pass().await?;
        self.store.get(key).await
    }

    async fn range(&self, prefix: &str) -> Result<Range, Error> {
        self.pass().await?;
        self.store.range(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        self.pass().await?;
        self.store.commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.pass().await?;
        self.store.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.pass().await?;
        self.store.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Revision, Error> {
        self.pass().await?;
        self.store.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), Error> {
        self.pass().await?;
        self.store.revoke_lease(lease).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.pass().await?;
        self.store.revision().await
    }
}
