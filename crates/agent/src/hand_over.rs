//! What an agent does before its machine is switched off: its units go elsewhere first.
//!
//! Where there is a logind, it tells that a shutdown was asked for and waits a little (`InhibitDelayMaxSec=`, 5 s if nothing
//! else is said) before systemd stops anything. Where there is none, systemd ends the agent while the machine goes down.
//! Must not hold up a shutdown beyond its limit, and does nothing where only the agent ends.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use sealift_client::api::KeepAlive;
use tokio_util::sync::CancellationToken;
use zbus::OwnedFd;

use crate::agent::Agent;
use crate::systemd::Scope;

/// Beyond this a shutdown is not held up.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at what is still here.
const LOOK: Duration = Duration::from_millis(50);
const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const LOGIND_MANAGER: &str = "org.freedesktop.login1.Manager";

impl Agent {
    /// Ends when the agent is to end, after its units have gone elsewhere if the machine goes down with it.
    pub(crate) async fn leave(&self, shutdown: &CancellationToken) {
        tokio::select! {
            () = self.await_shutdowns() => {}
            () = shutdown.cancelled() => {
                if self.manager.scope == Scope::System && self.units.machine_goes_down().await {
                    self.hand_over().await;
                }
            }
        }
    }

    /// Hands over whenever logind says that the machine is about to be shut down. Never ends.
    async fn await_shutdowns(&self) {
        if self.manager.scope == Scope::System {
            // Without a logind there is nothing to wait for.
            while let Ok(mut notice) = Notice::ask_for(&self.manager.socket).await {
                if notice.is_given().await {
                    self.hand_over().await;
                }
                // It is let go here; a shutdown that is called off is followed by another one.
            }
        }
        std::future::pending::<()>().await;
    }

    /// Asks for the units to go elsewhere and waits until they have; not for ever.
    async fn hand_over(&self) {
        let handed = async {
            let session = self.session.borrow().clone();
            let Some(session) = session else { return };
            let path = format!("/v1/machines/{}/leave", self.options.machine.id);
            tracing::info!(
                units = self.units.movable(),
                "the machine is shutting down; its units go elsewhere"
            );
            if let Err(error) = self.options.client.post::<_, ()>(&path, &KeepAlive { session }).await {
                tracing::warn!(%error, "the servers cannot be told that the machine is shutting down");
                return;
            }
            while self.units.movable() > 0 || self.reports.has_news() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(LIMIT, handed).await.is_err() {
            tracing::warn!(
                units = self.units.movable(),
                "units are still here, and go down with the machine"
            );
        }
    }
}

/// logind's word that the machine is about to be shut down, which it delays as long as this is held.
struct Notice {
    signals: zbus::MessageStream,
    _lock: OwnedFd,
}

impl Notice {
    async fn ask_for(socket: &Path) -> Result<Notice, zbus::Error> {
        let stream =
            tokio::net::UnixStream::connect(socket).await.and_then(tokio::net::UnixStream::into_std)?;
        let connection = zbus::connection::Builder::unix_stream(stream).build().await?;
        let rule = zbus::MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .path(LOGIND_PATH)
            .member("PrepareForShutdown")
            .build()?;
        let signals = zbus::MessageStream::for_match_rule(rule, &connection, None).await?;
        let why = ("shutdown", "sealift agent", "units go to other machines first", "delay");
        let reply =
            connection.call_method(Some(LOGIND), LOGIND_PATH, Some(LOGIND_MANAGER), "Inhibit", &why).await?;
        Ok(Notice { signals, _lock: reply.body().deserialize()? })
    }

    /// Whether a shutdown is beginning; not if one was called off. Where nobody tells any more it never ends.
    async fn is_given(&mut self) -> bool {
        match self.signals.next().await {
            Some(Ok(message)) => message.body().deserialize().unwrap_or(false),
            _ => std::future::pending().await,
        }
    }
}
