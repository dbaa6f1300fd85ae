//! Ctrl-C and its like: the first ends a run in order, the second at once, the third without any more care.
//!
//! Guarantees: signals are heard from the moment that [`Stop::listen`] is back, also while the terminal takes nothing.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::Error;

/// What people who run the program have asked for.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<Asked>);

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    times: u32,
    /// As a shell says of a command that the first signal ended.
    code: u8,
}

impl Stop {
    /// Listens to SIGINT, SIGTERM, SIGHUP and SIGQUIT until the program ends.
    pub(crate) fn listen() -> Result<Stop, Error> {
        let (sender, receiver) = watch::channel(Asked::default());
        let kinds = [
            (SignalKind::interrupt(), 130),
            (SignalKind::terminate(), 143),
            (SignalKind::hangup(), 129),
            (SignalKind::quit(), 131),
        ];
        for (kind, code) in kinds {
            let mut signal = signal(kind).map_err(Error::Runtime)?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while signal.recv().await.is_some() {
                    sender.send_modify(|asked| {
                        asked.times += 1;
                        if asked.times == 1 {
                            asked.code = code;
                        }
                    });
                }
            });
        }
        Ok(Stop(receiver))
    }

    /// Waits until it was asked so many times.
    pub(crate) async fn asked(&self, times: u32) {
        let mut receiver = self.0.clone();
        // Where nobody listens any more, nobody asks.
        if receiver.wait_for(|asked| asked.times >= times).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// As a shell says of a command that a signal ended; none if no signal came.
    pub(crate) fn code(&self) -> Option<u8> {
        let asked = *self.0.borrow();
        (asked.times > 0).then_some(asked.code)
    }
}
