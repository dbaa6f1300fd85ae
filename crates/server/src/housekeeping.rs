//! What a store needs now and then that does not do it by itself: to forget its history, and to give free space back.
//! The leader does both.
//!
//! Guarantees: history that is younger than asked for stays, unless there is more of it than [`HISTORY`]; at rest
//! nothing is asked of the store. A watch that is so far behind that its history is gone lists again (`cache`).
//!
//! Must not know: how a store does it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sealift_model::diagnostic::chain;
use sealift_store::Revision;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::server::Inner;

/// Revisions that are kept at most, however young: a store's memory has an end.
pub(crate) const HISTORY: u64 = 100_000;
/// The kept time is looked at in so many steps.
const STEPS: u32 = 10;
/// The longest step.
const LONGEST_STEP: Duration = Duration::from_secs(60);
/// The shortest step; nothing has to be forgotten faster.
const SHORTEST_STEP: Duration = Duration::from_millis(200);

/// What the leader does for its store; nothing, unless it is said.
#[derive(Debug, Clone, Default)]
pub struct Housekeeping {
    /// History that is older is forgotten.
    pub keep: Option<Duration>,
    pub defragment: Option<Defragment>,
}

/// How often free space is given back, and how.
#[derive(Clone)]
pub struct Defragment {
    pub every: Duration,
    /// Says what it could not do.
    pub run: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl std::fmt::Debug for Defragment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Defragment").field("every", &self.every).finish_non_exhaustive()
    }
}

/// Does it for as long as it is polled; never ends.
pub(crate) async fn run(inner: &Inner) {
    let compact = async {
        match inner.housekeeping.keep.filter(|keep| !keep.is_zero()) {
            Some(keep) => compact(inner, keep).await,
            None => std::future::pending().await,
        }
    };
    let defragment = async {
        match inner.housekeeping.defragment.as_ref().filter(|defragment| !defragment.every.is_zero()) {
            Some(defragment) => defragment_always(defragment).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(compact, defragment);
}

async fn compact(inner: &Inner, keep: Duration) {
    let step = (keep / STEPS).clamp(SHORTEST_STEP, LONGEST_STEP);
    let mut ticks = interval_at(Instant::now() + step, step);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut past = Past::default();
    loop {
        let now = ticks.tick().await;
        // The cache may lag behind, which only keeps more.
        let newest = inner.cache.world().revision;
        let Some(before) = past.forget(now, newest, keep) else { continue };
        match inner.store.compact(before).await {
            Ok(()) => tracing::debug!(%before, "the store forgot its history"),
            Err(error) => tracing::warn!(error = chain(&error), "the store's history cannot be forgotten"),
        }
    }
}

async fn defragment_always(defragment: &Defragment) {
    let mut ticks = interval_at(Instant::now() + defragment.every, defragment.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match (defragment.run)().await {
            Ok(()) => tracing::info!("the store gave its free space back"),
            Err(error) => tracing::warn!(error, "the store was not defragmented"),
        }
    }
}

/// Which revision was the newest when.
#[derive(Debug, Default)]
struct Past {
    seen: VecDeque<(Instant, Revision)>,
    forgotten: Revision,
}

impl Past {
    /// Notes the newest revision, and says up to which one all is to be forgotten; none if that was said already.
    fn forget(&mut self, now: Instant, newest: Revision, keep: Duration) -> Option<Revision> {
        if self.seen.back().is_none_or(|(_, seen)| *seen != newest) {
            self.seen.push_back((now, newest));
        }
        let mut before = Revision(newest.0.saturating_sub(HISTORY));
        // The first that was overtaken long enough ago stays the one that watches can begin at.
        while let Some((_, next)) = self.seen.get(1).copied().filter(|(at, _)| now - *at >= keep) {
            before = before.max(next);
            self.seen.pop_front();
        }
        if before <= self.forgotten {
            return None;
        }
        self.forgotten = before;
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_is_forgotten_once() {
        let (mut past, start, keep) = (Past::default(), Instant::now(), Duration::from_secs(10));
        let mut at = |seconds, revision| {
            past.forget(start + Duration::from_secs(seconds), Revision(revision), keep).map(|before| before.0)
        };
        assert_eq!(at(0, 5), None);
        assert_eq!(at(4, 8), None, "written four seconds ago");
        assert_eq!(at(13, 8), None);
        assert_eq!(at(14, 8), Some(8), "8 is the newest for ten seconds now");
        assert_eq!(at(30, 8), None, "at rest nothing is asked");
        assert_eq!(at(31, 9), None);
        assert_eq!(at(32, 9 + HISTORY), Some(9), "too much of it");
        assert_eq!(at(41, 9 + HISTORY), None);
        assert_eq!(at(42, 9 + HISTORY), Some(9 + HISTORY));
    }
}
