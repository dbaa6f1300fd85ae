//! Units with `CutOff=stop`: what they are stopped by when no server has been heard of for too long.

use std::sync::atomic::Ordering;

use sealift_model::diagnostic::chain;
use sealift_model::{CutOff, UnitName};
use tokio::time::Instant;

use super::record::{Phase, Record};
use super::{Error, Inner, Units, files};

impl Units {
    /// Whether anything is here that is not to run without contact.
    #[must_use]
    pub fn stop_when_cut_off(&self) -> bool {
        self.inner.held().values().any(|held| held.cut_off == CutOff::Stop)
    }

    /// Stops all that is not to run without contact, and begins nothing until it is told anew what is assigned. What has
    /// not stopped by `latest` is killed.
    pub async fn cut_off(&self, latest: Instant) {
        self.inner.is_cut_off.store(true, Ordering::SeqCst);
        self.wait();
        let records = match self.inner.records.all() {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "cannot tell which units are not to run without contact"
                );
                return;
            }
        };
        let stopping = records.into_iter().filter(|(_, record)| self.inner.stops(record)).map(|(unit, record)| async move {
            if let Err(error) = self.inner.stop_cut_off(&unit, record, latest).await {
                tracing::error!(unit = %unit, error = chain(&error), "a unit that is not to run without contact was not stopped");
            }
        });
        futures_util::future::join_all(stopping).await;
    }
}

impl Inner {
    fn stops(&self, record: &Record) -> bool {
        let runs = matches!(record.phase, Phase::Done | Phase::Starting { .. });
        record.cut_off == CutOff::Stop && record.launched && runs && self.is_of_this_life(record)
    }

    async fn stop_cut_off(&self, unit: &UnitName, record: Record, latest: Instant) -> Result<(), Error> {
        self.gates.forget(unit);
        // Noted down first: whoever comes after us is not to take it for running.
        let record = Record { phase: Phase::CutOff, ..record };
        self.records.put(unit, &record)?;
        let in_systemd = files::in_systemd(unit, Some(&record));
        let stopping = self.systemd.stop(&in_systemd);
        let stopped = tokio::time::timeout_at(latest, stopping).await;
        if !matches!(&stopped, Ok(Ok(result)) if result.is_done()) {
            tracing::warn!(unit = %unit, "it did not stop without contact, and is killed");
            self.systemd.kill(&in_systemd).await?;
        }
        tracing::warn!(unit = %unit, "stopped: there is no contact to a server");
        self.report(unit, &record, None).await
    }
}
