//! Connections to servers: which server is asked, how it is reached, and which connections wait for the next request.
//!
//! A Unix socket and TCP get a connection a request. A TLS handshake costs a millisecond and more on both sides, so these
//! connections are kept for a while. hyper-util's pool does not say whether a connection was used before, and cannot be
//! told that the certificate is another one now; this one is small enough to be read.
//!
//! Guarantees: after [`Tls::replace`] no request goes over a connection that was made before. A connection whose other end
//! is silent for [`SILENCE`] while something is under way to it is broken.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::address::{Address, Servers};
use crate::http::{Body, Error};

/// For one server: the connection and the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait, of all servers together.
const WAITING: usize = 8;
/// How long one may have been used last. Servers close those that wait for 30 s.
const WAITS: Duration = Duration::from_secs(20);
/// How long what was sent may stay without a sign of the other end.
const SILENCE: Duration = Duration::from_secs(5);

/// How to speak TLS: what to trust, and what to show. Shared by clones, and replaced while clients use it.
#[derive(Clone)]
pub struct Tls(Arc<Mutex<Arc<ClientConfig>>>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(config))))
    }

    /// From the next request on. Those under way, and open streams, go on as they began.
    pub fn replace(&self, config: ClientConfig) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    fn config(&self) -> Arc<ClientConfig> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection that can take a request.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Body>,
    /// For the head of requests.
    pub(crate) host: String,
    /// Whether a request went over it before.
    pub(crate) reused: bool,
    /// None where there is no TLS, and so nothing to keep it for.
    config: Option<Arc<ClientConfig>>,
    used: Instant,
}

/// All connections of a client.
pub(crate) struct Connections {
    servers: Servers,
    tls: Option<Tls>,
    /// The server that was reached last.
    current: AtomicUsize,
    waiting: Mutex<Vec<Connection>>,
}

impl Connections {
    pub(crate) fn new(servers: Servers, tls: Option<Tls>) -> Self {
        Self { servers, tls, current: AtomicUsize::new(0), waiting: Mutex::default() }
    }

    /// Connections of the same kind to other servers.
    pub(crate) fn at(&self, servers: Servers) -> Connections {
        Self::new(servers, self.tls.clone())
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    pub(crate) fn current(&self) -> &Address {
        let addresses = self.servers.addresses();
        &addresses[self.current.load(Ordering::Relaxed) % addresses.len()]
    }

    /// From now on this server is asked, over a new connection.
    pub(crate) fn turn_to(&self, address: &Address) {
        if let Some(index) = self.servers.addresses().iter().position(|known| known == address) {
            self.current.store(index, Ordering::Relaxed);
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One that waits, else a new one.
    pub(crate) async fn get(&self) -> Result<Connection, Error> {
        match self.take() {
            Some(connection) => Ok(connection),
            None => self.fresh().await,
        }
    }

    fn take(&self) -> Option<Connection> {
        let config = self.tls.as_ref()?.config();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|connection| {
            !connection.sender.is_closed()
                && connection.config.as_ref().is_some_and(|made_with| Arc::ptr_eq(made_with, &config))
                // One whose answer is still read is not waiting yet.
                && (!connection.sender.is_ready() || connection.used.elapsed() < WAITS)
        });
        // The one used last: the others grow old.
        let index = waiting.iter().rposition(|connection| connection.sender.is_ready())?;
        let mut connection = waiting.remove(index);
        connection.reused = true;
        connection.used = Instant::now();
        Some(connection)
    }

    /// Keeps a connection for later, from when its answer has been read.
    pub(crate) fn keep(&self, connection: Connection) {
        if connection.config.is_none() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.push(connection);
        }
    }

    /// A new one, to the server that was reached last or the next that is reached.
    pub(crate) async fn fresh(&self) -> Result<Connection, Error> {
        let addresses = self.servers.addresses();
        let first = self.current.load(Ordering::Relaxed);
        let mut failed = None;
        for offset in 0..addresses.len() {
            let index = (first + offset) % addresses.len();
            // On the heap: it is the greater part of every request's future, and seldom needed.
            match Box::pin(self.connect(&addresses[index])).await {
                Ok(connection) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                // What the first one said is told: it is the one that was good last.
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        Err(failed.unwrap_or(Error::Timeout))
    }

    async fn connect(&self, address: &Address) -> Result<Connection, Error> {
        let config = match (address, &self.tls) {
            (Address::Tls { .. }, Some(tls)) => Some(tls.config()),
            (Address::Tls { .. }, None) => return Err(Error::NoTls { address: address.clone() }),
            _ => None,
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, open(address, config.clone())).await;
        let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|source| {
            let address = address.clone();
            // rustls' errors come as this kind; what the network says has others.
            if source.kind() == io::ErrorKind::InvalidData {
                Error::Untrusted { address, source }
            } else {
                Error::Connect { address, source }
            }
        })?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Error::Broken)?;
        // Ends with the connection, which ends with the answer's body or while it waits.
        tokio::spawn(async move { connection.await.ok() });
        let host = match address {
            Address::Unix(_) => "localhost".to_owned(),
            Address::Tcp { host, port } | Address::Tls { host, port } if host.contains(':') => {
                format!("[{host}]:{port}")
            }
            Address::Tcp { host, port } | Address::Tls { host, port } => format!("{host}:{port}"),
        };
        Ok(Connection { sender, host, reused: false, config, used: Instant::now() })
    }
}

async fn open(address: &Address, config: Option<Arc<ClientConfig>>) -> io::Result<Pin<Box<dyn Duplex>>> {
    let (host, port) = match address {
        Address::Unix(path) => return Ok(Box::pin(UnixStream::connect(path).await?)),
        Address::Tcp { host, port } | Address::Tls { host, port } => (host, *port),
    };
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    // Else an end that vanished is noticed after a quarter of an hour, or never by who only listens.
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(&stream, SILENCE / 2)?;
    sockopt::set_tcp_user_timeout(&stream, u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX))?;
    match config {
        None => Ok(Box::pin(stream)),
        Some(config) => {
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            Ok(Box::pin(TlsConnector::from(config).connect(name, stream).await?))
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}
