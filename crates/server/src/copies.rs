//! Copies of the living planner, for whoever wants to know what would be done if things were otherwise.
//!
//! Guarantees: one copy at a time is thought over, so that questions do not take the machine from the answers that
//! count; whoever cannot be served soon is told so. A copy knows all that the cache showed when it was asked for.
//!
//! Must not know: what is asked of a copy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealift_planner::Planner;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::api::Error;

/// How long one waits for those before him, and then for his copy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Those who wait for a copy.
#[derive(Debug)]
pub(crate) struct Copies {
    waiting: Mutex<Vec<oneshot::Sender<Planner>>>,
    asked: Notify,
    turn: Arc<Semaphore>,
}

impl Default for Copies {
    fn default() -> Self {
        Copies { waiting: Mutex::default(), asked: Notify::new(), turn: Arc::new(Semaphore::new(1)) }
    }
}

/// A copy, and the turn to think it over, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) planner: Planner,
    pub(crate) turn: OwnedSemaphorePermit,
}

impl Copies {
    pub(crate) async fn get(&self) -> Result<Copy, Error> {
        let busy = || Error::Busy("somebody else asks what a change would do; try again in a moment");
        let turn = timeout(PATIENCE, self.turn.clone().acquire_owned()).await;
        let turn = turn.ok().and_then(Result::ok).ok_or_else(busy)?;
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.asked.notify_one();
        let late = || Error::Busy("this server is occupied with changes; try again in a moment");
        let planner = timeout(PATIENCE, receiver).await.ok().and_then(Result::ok).ok_or_else(late)?;
        Ok(Copy { planner, turn })
    }

    /// Comes back when somebody has asked. Whoever keeps the planner looks at what changed, and then hands out.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Gives everybody who waits a copy. It costs nothing where nobody does.
    pub(crate) fn hand_out(&self, planner: &Planner) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for sender in waiting.into_iter().filter(|sender| !sender.is_closed()) {
            // Whoever gave up needs none.
            sender.send(planner.clone()).ok();
        }
    }
}
