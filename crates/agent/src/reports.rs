//! What this machine has to say of its units: kept until the server has it, sent when it changes and never on a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use sealift_model::{UnitName, UnitStatus};
use tokio::sync::Notify;

/// The newest word on every unit, and which of them the server has not heard.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    inner: Arc<Mutex<Inner>>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    units: BTreeMap<UnitName, UnitStatus>,
    changed: BTreeSet<UnitName>,
    gone: BTreeSet<UnitName>,
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    pub statuses: Vec<UnitStatus>,
    pub gone: Vec<UnitName>,
}

impl Reports {
    /// Takes a unit's state; the same state again is no news.
    pub fn set(&self, status: UnitStatus) {
        let mut inner = self.lock();
        if inner.units.get(&status.unit) != Some(&status) {
            inner.gone.remove(&status.unit);
            inner.changed.insert(status.unit.clone());
            inner.units.insert(status.unit.clone(), status);
            self.news.notify_one();
        }
    }

    /// A unit was stopped and removed.
    pub fn remove(&self, unit: &UnitName) {
        let mut inner = self.lock();
        inner.units.remove(unit);
        inner.changed.remove(unit);
        inner.gone.insert(unit.clone());
        self.news.notify_one();
    }

    /// The newest word on a unit.
    #[must_use]
    pub fn get(&self, unit: &UnitName) -> Option<UnitStatus> {
        self.lock().units.get(unit).cloned()
    }

    /// Everything, for the first report of a session; nothing is news after that.
    #[must_use]
    pub fn all(&self) -> News {
        let mut inner = self.lock();
        inner.changed.clear();
        inner.gone.clear();
        News { statuses: inner.units.values().cloned().collect(), gone: Vec::new() }
    }

    /// Waits for news and takes them. What could not be sent is given back by [`Reports::again`].
    pub async fn next(&self) -> News {
        loop {
            {
                let mut inner = self.lock();
                if !inner.changed.is_empty() || !inner.gone.is_empty() {
                    let changed = std::mem::take(&mut inner.changed);
                    let statuses = changed.iter().filter_map(|unit| inner.units.get(unit).cloned()).collect();
                    let gone = std::mem::take(&mut inner.gone).into_iter().collect();
                    return News { statuses, gone };
                }
            }
            self.news.notified().await;
        }
    }

    /// News that did not get through; newer words on the same units stand.
    pub fn again(&self, news: News) {
        let mut inner = self.lock();
        for status in news.statuses {
            if inner.units.contains_key(&status.unit) {
                inner.changed.insert(status.unit);
            }
        }
        for unit in news.gone {
            if !inner.units.contains_key(&unit) {
                inner.gone.insert(unit);
            }
        }
        self.news.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
