//! When a server was last heard of, and until when the machine's lease lives at least.
//!
//! A lease counts from when the server renewed it, which is never before the agent asked: what is reckoned from asking ends
//! before the lease. It is measured by the clock that goes on while the machine sleeps. Where units are not to run without
//! contact it is written down too, so that the agent's next life knows how long its machine has been alone.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Of the lease's time, in twentieths: when units that are not to run without contact are stopped, and when they are killed.
const STOP: u32 = 14;
const KILL: u32 = 17;

/// The last contact.
#[derive(Debug)]
pub(crate) struct Contact {
    last: watch::Sender<Option<Heard>>,
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    at: Instant,
    ttl: Duration,
}

impl Heard {
    /// When to stop what is not to run without contact.
    pub(crate) fn stop_at(self) -> Instant {
        self.at + self.ttl * STOP / 20
    }

    /// When what has not stopped has to be killed.
    pub(crate) fn kill_at(self) -> Instant {
        self.at + self.ttl * KILL / 20
    }
}

impl Contact {
    /// With what an earlier life of the agent wrote down, if the machine was not started anew since.
    pub(crate) fn open(file: PathBuf) -> Contact {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut words = text.split_whitespace().map(str::parse::<u64>);
        let last = match (words.next(), words.next()) {
            (Some(Ok(at)), Some(Ok(ttl))) => since_boot().checked_sub(Duration::from_millis(at)).map(|ago| {
                let ttl = Duration::from_millis(ttl);
                // The clock that tasks are woken by cannot always be set back; what is long over is over.
                let now = Instant::now();
                Heard { at: now.checked_sub(ago.min(ttl)).unwrap_or(now), ttl }
            }),
            _ => None,
        };
        Contact { last: watch::Sender::new(last), file }
    }

    /// A server has answered what it was asked at `asked`.
    pub(crate) fn heard(&self, asked: Instant, ttl: Duration, write: bool) {
        self.last.send_replace(Some(Heard { at: asked, ttl }));
        if write {
            let at = since_boot().saturating_sub(asked.elapsed()).as_millis();
            // It is of use only as long as the machine is not started anew, so nothing waits for the disk.
            if let Err(error) = std::fs::write(&self.file, format!("{at} {}\n", ttl.as_millis())) {
                tracing::warn!(%error, path = %self.file.display(), "cannot note down the last contact");
            }
        }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Option<Heard>> {
        self.last.subscribe()
    }
}

fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_life_knows_how_long_the_machine_was_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("contact");
        let ttl = Duration::from_secs(1000);
        Contact::open(file.clone()).heard(Instant::now(), ttl, true);
        let heard = Contact::open(file.clone()).last.borrow().unwrap();
        let left = heard.stop_at() - Instant::now();
        assert!(left <= ttl * STOP / 20 && left > ttl * STOP / 20 - Duration::from_secs(100), "{left:?}");
        // From before the machine was started anew.
        let future = since_boot() + Duration::from_secs(1000);
        std::fs::write(&file, format!("{} 1000000", future.as_millis())).unwrap();
        assert_eq!(*Contact::open(file.clone()).last.borrow(), None);
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(*Contact::open(file).last.borrow(), None);
    }
}
