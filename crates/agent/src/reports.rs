//! What this machine has to say of its units: kept until the server has it, sent when it changes and never on a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use sealift_model::{UnitName, UnitStatus, Withdrawal};
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
    /// With the placement by which each was here last.
    gone: BTreeMap<UnitName, u64>,
}

impl Inner {
    fn take_gone(&mut self) -> Vec<Withdrawal> {
        let gone = std::mem::take(&mut self.gone).into_iter();
        gone.map(|(unit, placement)| Withdrawal { unit, placement }).collect()
    }
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    pub statuses: Vec<UnitStatus>,
    pub gone: Vec<Withdrawal>,
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

    /// A unit is not here: it was stopped and removed, or never came.
    pub fn remove(&self, Withdrawal { unit, placement }: Withdrawal) {
        let mut inner = self.lock();
        inner.units.remove(&unit);
        inner.changed.remove(&unit);
        inner.gone.insert(unit, placement);
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
        News { statuses: inner.units.values().cloned().collect(), gone: inner.take_gone() }
    }

    /// Waits for news and takes them. What could not be sent is given back by [`Reports::again`].
    pub async fn next(&self) -> News {
        loop {
            {
                let mut inner = self.lock();
                if !inner.changed.is_empty() || !inner.gone.is_empty() {
                    let changed = std::mem::take(&mut inner.changed);
                    let statuses = changed.iter().filter_map(|unit| inner.units.get(unit).cloned()).collect();
                    return News { statuses, gone: inner.take_gone() };
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
        for Withdrawal { unit, placement } in news.gone {
            if !inner.units.contains_key(&unit) {
                let known = inner.gone.entry(unit).or_default();
                *known = placement.max(*known);
            }
        }
        self.news.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
