//! Ctrl-C and its like: the first ends a run in order, the second at once, the third without any more care.
//!
//! An interrupt that a step waits for (`internal/watch`) is that step's and does not count.
//!
//! Guarantees: signals are heard from the moment that [`Stop::listen`] is back, also while the terminal takes nothing.

use std::sync::Arc;

use sealift_pipeline::Interrupts;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::Error;

/// What people who run the program have asked for.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    asked: watch::Receiver<Asked>,
    interrupts: Arc<Interrupts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    times: u32,
    /// As a shell says of a command that the first signal ended.
    code: u8,
}

impl Stop {
    /// Listens to SIGINT, SIGTERM, SIGHUP and SIGQUIT until the program ends.
    pub(crate) fn listen() -> Result<Stop, Error> {
        let (sender, asked) = watch::channel(Asked::default());
        let interrupts = Arc::new(Interrupts::default());
        let kinds = [
            (SignalKind::interrupt(), 130),
            (SignalKind::terminate(), 143),
            (SignalKind::hangup(), 129),
            (SignalKind::quit(), 131),
        ];
        for (kind, code) in kinds {
            let mut signal = signal(kind).map_err(Error::Runtime)?;
            let sender = sender.clone();
            let interrupts = Arc::clone(&interrupts);
            tokio::spawn(async move {
                while signal.recv().await.is_some() {
                    if kind == SignalKind::interrupt() && interrupts.deliver() {
                        continue;
                    }
                    sender.send_modify(|asked| {
                        asked.times += 1;
                        if asked.times == 1 {
                            asked.code = code;
                        }
                    });
                }
            });
        }
        Ok(Stop { asked, interrupts })
    }

    /// Where steps wait for an interrupt.
    pub(crate) fn interrupts(&self) -> Arc<Interrupts> {
        Arc::clone(&self.interrupts)
    }

    /// Waits until it was asked so many times.
    pub(crate) async fn asked(&self, times: u32) {
        let mut receiver = self.asked.clone();
        // Where nobody listens any more, nobody asks.
        if receiver.wait_for(|asked| asked.times >= times).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// As a shell says of a command that a signal ended; none if no signal came.
    pub(crate) fn code(&self) -> Option<u8> {
        let asked = *self.asked.borrow();
        (asked.times > 0).then_some(asked.code)
    }
}
