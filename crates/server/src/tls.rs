//! The TLS door: a certificate of our own authority, made anew before it runs out, and connections whose peer is known.
//!
//! Guarantees: a handshake that does not come to an end holds up no other and is cut off; connections are bounded, in all
//! and for each address while they shake hands. The server's key is made at every start and never leaves the process.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use sealift_access::{
    Authority, AuthorityError, CERTIFICATE_LIFE, Clock, KeyRequest, PeerCertificate, TlsError, server_config,
};
use sealift_model::Timestamp;
use sealift_store::Txn;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::api::{Peer, unchanged};
use crate::keys::Key;
use crate::server::Inner;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may wait for its next request, and a request for the end of its head.
const HEAD: Duration = Duration::from_secs(30);
/// Connections at once. What comes beyond is closed.
const CONNECTIONS: usize = 32_768;
/// Handshakes at once from one address.
const HANDSHAKES: usize = 512;
/// Between two looks at the clock, for certificates that run out.
const LOOK: Duration = Duration::from_secs(600);
/// When the system gives no connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Where TLS is spoken.
#[derive(Debug)]
pub struct Options {
    pub listener: TcpListener,
    /// The addresses and host names that clients know this server by.
    pub names: Vec<String>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(sealift_store::Error),
    #[error(transparent)]
    Authority(AuthorityError),
    #[error(transparent)]
    Tls(TlsError),
    #[error("the authority's record cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    #[error("the authority's record is there and not understood; is it a newer version's?")]
    NotUnderstood,
}

/// The certificate that this server shows now, and what it was made from.
struct Shown {
    config: Arc<ServerConfig>,
    authority: Authority,
    from: Timestamp,
    until: Timestamp,
}

/// The TLS door before it is opened.
pub(crate) struct Door {
    options: Options,
    shown: RwLock<Shown>,
}

/// Makes the authority if there is none yet. Of several servers that begin at once one makes it.
pub(crate) async fn found_authority(inner: &Inner) -> Result<Authority, Error> {
    loop {
        let txn = {
            let world = inner.cache.world();
            if let Some(held) = &world.authority {
                return Ok(held.value.clone());
            }
            if world.unread(&Key::Authority).is_some() {
                return Err(Error::NotUnderstood);
            }
            let authority = Authority::create((inner.clock)()).map_err(Error::Authority)?;
            let bytes = serde_json::to_vec(&authority).map_err(Error::Json)?;
            unchanged(Txn::new(), &world, &Key::Authority).put(Key::Authority, bytes)
        };
        match inner.store.commit(txn).await {
            Ok(_) => tracing::info!("a new authority was made"),
            Err(error) if error.wants_another_look() => {}
            Err(error) => return Err(Error::Store(error)),
        }
        // The follower does not run yet: what is there now is read by hand.
        let entry = inner.store.get(&Key::Authority.to_string()).await.map_err(Error::Store)?;
        if let Some(entry) = entry {
            return serde_json::from_slice(&entry.value).map_err(|_| Error::NotUnderstood);
        }
    }
}

impl Door {
    pub(crate) async fn build(inner: &Inner, options: Options) -> Result<Self, Error> {
        let authority = found_authority(inner).await?;
        let shown = show(inner, &options.names, authority)?;
        Ok(Self { options, shown: RwLock::new(shown) })
    }

    /// Serves until `stop`, and then what is under way.
    pub(crate) async fn serve(
        self,
        inner: &Arc<Inner>,
        router: Router,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let shaking = Arc::new(Shaking::default());
        let graceful = Arc::new(GracefulShutdown::new());
        let accepting = async {
            loop {
                let (stream, address) = match self.options.listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // One that was gone again, or no file descriptor is left.
                        tracing::debug!(%error, "a connection could not be taken");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
                let Ok(permit) = connections.clone().try_acquire_owned() else {
                    tracing::warn!("too many connections; one is closed");
                    continue;
                };
                let Some(place) = shaking.begin(address.ip()) else { continue };
                let config = self.shown.read().unwrap_or_else(PoisonError::into_inner).config.clone();
                let (inner, router, watcher) = (inner.clone(), router.clone(), graceful.watcher());
                tokio::spawn(async move {
                    let _permit = permit;
                    let taken = tokio::time::timeout(HANDSHAKE, shake(stream, config)).await;
                    drop(place);
                    let Ok(Ok((stream, certificate))) = taken else {
                        inner.metrics.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(%address, "a TLS handshake failed");
                        return;
                    };
                    let peer = Peer { address, certificate };
                    let router = router.layer(axum::Extension(peer));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD)
                        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
                    // A connection that breaks is its client's to notice.
                    watcher.watch(connection).await.ok();
                });
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = accepting => {}
            () = self.renew(inner) => {}
        }
        // Who watches is told, and ends when its request does.
        match Arc::try_unwrap(graceful) {
            Ok(graceful) => graceful.shutdown().await,
            Err(_) => tracing::warn!("connections are cut"),
        }
        Ok(())
    }

    /// Shows a new certificate when the old one is two thirds through, or the authority is another.
    async fn renew(&self, inner: &Inner) {
        let mut changes = inner.cache.changes();
        loop {
            changes.mark_unchanged();
            let authority = inner.cache.world().authority.as_ref().map(|held| held.value.clone());
            let due = {
                let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
                authority.filter(|authority| {
                    *authority != shown.authority || due(shown.from, shown.until, (inner.clock)())
                })
            };
            if let Some(authority) = due {
                match show(inner, &self.options.names, authority) {
                    Ok(new) => {
                        tracing::info!(until = %new.until, "the server shows a new certificate");
                        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = new;
                    }
                    Err(error) => tracing::error!(%error, "no new certificate for this server"),
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return std::future::pending().await },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// Whether two thirds of a time are over.
fn due(from: Timestamp, until: Timestamp, now: Timestamp) -> bool {
    now.since(from) >= until.since(from) * 2 / 3
}

fn show(inner: &Inner, names: &[String], authority: Authority) -> Result<Shown, Error> {
    let request = KeyRequest::generate().map_err(Error::Authority)?;
    let from = (inner.clock)();
    let issued =
        authority.sign_server(names, &request.request, from, CERTIFICATE_LIFE).map_err(Error::Authority)?;
    let clock = Clock(inner.clock.clone());
    let config =
        server_config(&issued.chain, &request.key, &authority.bundle(), &clock).map_err(Error::Tls)?;
    Ok(Shown { config: Arc::new(config), authority, from, until: issued.expires_at })
}

type Shaken = (tokio_rustls::server::TlsStream<TcpStream>, Option<PeerCertificate>);

async fn shake(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Shaken> {
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.map(PeerCertificate::read).transpose().map_err(io::Error::other)?;
    Ok((stream, certificate))
}

/// Handshakes under way, by address.
#[derive(Debug, Default)]
struct Shaking(Mutex<BTreeMap<IpAddr, usize>>);

impl Shaking {
    /// A place for one more; none when the address has too many.
    fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = places.entry(address).or_default();
        if *count >= HANDSHAKES {
            return None;
        }
        *count += 1;
        Some(Place { all: self.clone(), address })
    }
}

struct Place {
    all: Arc<Shaking>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = places.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                places.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_handshakes_and_no_more() {
        let shaking = Arc::new(Shaking::default());
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut places: Vec<_> = (0..HANDSHAKES).map(|_| shaking.begin(one).unwrap()).collect();
        assert!(shaking.begin(one).is_none());
        assert!(shaking.begin(other).is_some());
        places.pop();
        places.push(shaking.begin(one).unwrap());
        assert!(shaking.begin(one).is_none());
        drop(places);
        assert!(shaking.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_time() {
        let at = |millis| due(Timestamp(1000), Timestamp(4000), Timestamp(millis));
        assert_eq!([at(0), at(2999), at(3000), at(5000)], [false, false, true, true]);
    }
}
