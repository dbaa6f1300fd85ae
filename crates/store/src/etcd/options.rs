//! Where an etcd cluster is, and how to be let in.

use std::fmt;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::OpenError;

/// etcd answers pings that come more often than every five seconds by hanging up.
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// A host that is gone is noticed by the kernel's own probes long before, and before the lease of a machine on it is over.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBES: u32 = 2;
/// A member that answers no ping for this long is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// The shortest time limit; anything less cannot outlast the choice of a new leader.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// The longest prefix in bytes, so that a transaction with the longest keys still fits into a request.
const MAX_PREFIX: usize = 128;

/// What [`EtcdStore::open`](super::EtcdStore::open) needs to know.
///
/// ```text
/// EtcdOptions::new(["https://a:2379", "https://b:2379", "https://c:2379"], "/sealift/")
///     .user("sealift", password)
///     .ca(pem)
/// ```
#[derive(Clone)]
pub struct EtcdOptions {
    pub(super) endpoints: Vec<String>,
    pub(super) prefix: String,
    pub(super) user: Option<(String, String)>,
    pub(super) timeout: Duration,
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl EtcdOptions {
    /// `endpoints` are the members' client URLs, `http://` or `https://`; name all of them, so that any one may fail.
    /// `prefix` goes before every key and ends in `/`. Stores whose prefixes do not begin one another do not see
    /// each other; the key that is the prefix itself is the store's own.
    #[must_use]
    pub fn new(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        prefix: impl Into<String>,
    ) -> EtcdOptions {
        EtcdOptions {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: prefix.into(),
            user: None,
            timeout: Duration::from_secs(5),
            ca: None,
            identity: None,
        }
    }

    /// A user of etcd's own; it needs read and write access to the prefix.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> EtcdOptions {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// The certificates, in PEM, one of which must have signed the members'; without them the machine's own count.
    #[must_use]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> EtcdOptions {
        self.ca = Some(pem.into());
        self
    }

    /// The client's certificate and its private key, both in PEM.
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> EtcdOptions {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// How long one call may take, all its attempts together; 5 s if nothing else is said. A list of many entries
    /// is several calls.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> EtcdOptions {
        self.timeout = timeout;
        self
    }

    /// The same for these endpoints alone, such as one member of a cluster.
    #[must_use]
    pub fn at(&self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> EtcdOptions {
        EtcdOptions { endpoints: endpoints.into_iter().map(Into::into).collect(), ..self.clone() }
    }

    /// What does not depend on etcd's answering.
    pub(super) fn check(&self) -> Result<Vec<Endpoint>, OpenError> {
        if self.endpoints.is_empty() {
            return Err(OpenError::Options("no endpoint is given; expected URLs such as https://host:2379"));
        }
        if !self.prefix.ends_with('/') || self.prefix.len() > MAX_PREFIX {
            return Err(OpenError::Options("the prefix must end in '/' and have at most 128 bytes"));
        }
        if self.timeout < MIN_TIMEOUT {
            return Err(OpenError::Options("the timeout must be at least 100 ms"));
        }
        self.endpoints.iter().map(|url| self.endpoint(url)).collect()
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, OpenError> {
        let failed = |source| OpenError::Endpoint { url: url.to_owned(), source: Box::new(source) };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(failed)?;
        let endpoint = match endpoint.uri().scheme_str() {
            Some("https") => endpoint.tls_config(self.tls()).map_err(failed)?,
            // A certificate or a password that is meant to be used must not go without encryption by a slip of pen.
            Some("http") if self.ca.is_none() && self.identity.is_none() => endpoint,
            Some("http") => {
                return Err(OpenError::Options("certificates are given, but an endpoint is not https://"));
            }
            _ => return Err(OpenError::Options("an endpoint is no URL such as https://host:2379")),
        };
        Ok(endpoint
            // Shorter than a call, so that a host that is gone leaves time for the others.
            .connect_timeout(self.timeout / 3)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .tcp_keepalive(Some(PROBE_INTERVAL))
            .tcp_keepalive_interval(Some(PROBE_INTERVAL))
            .tcp_keepalive_retries(Some(PROBES))
            .tcp_nodelay(true))
    }

    fn tls(&self) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new();
        let tls = match &self.ca {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        };
        match &self.identity {
            Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
            None => tls,
        }
    }
}

/// Without the password and the key.
impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
