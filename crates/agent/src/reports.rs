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
    /// Whether this state is another than the one that was told last.
    #[must_use]
    pub fn is_news(&self, status: &UnitStatus) -> bool {
        !self.lock().units.get(&status.unit).is_some_and(|known| status.is_no_news_after(known))
    }

    /// Takes a unit's state; the same state again is no news, however much memory it uses by now.
    pub fn set(&self, status: UnitStatus) {
        let mut inner = self.lock();
        if !inner.units.get(&status.unit).is_some_and(|known| status.is_no_news_after(known)) {
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

#[cfg(test)]
mod tests {
    use sealift_model::{Placement, Timestamp, UnitStatus};

    use super::*;

    #[test]
    fn what_a_unit_uses_is_no_news_but_told_with_the_next() {
        let reports = Reports::default();
        let placement = Placement {
            id: 1,
            unit: "a.service".parse().unwrap(),
            machine: "0".repeat(32).parse().unwrap(),
            since: Timestamp(0),
        };
        let first = UnitStatus { memory: Some(1), ..UnitStatus::unheard(&placement) };
        reports.set(first.clone());
        assert_eq!(reports.all().statuses.len(), 1);
        reports.set(UnitStatus { memory: Some(2), cpu_nanos: Some(2), ..first.clone() });
        assert!(reports.lock().changed.is_empty());
        reports.set(UnitStatus { memory: Some(3), exit_code: Some(0), ..first });
        let inner = reports.lock();
        assert_eq!(inner.changed.len(), 1);
        assert_eq!(inner.units[&placement.unit].memory, Some(3));
    }
}
