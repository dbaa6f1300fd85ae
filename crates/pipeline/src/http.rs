//! How this crate speaks HTTP(S) itself: which certificates count, how long things may take, what is worth another try.
//!
//! Guarantees: one who wants https gets nothing over anything less, whatever the server says; no wait is without an end.
//!
//! It must not know what is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this machine trusts no certificate authority: install its ca-certificates")]
    NoRoots,
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What may differ from one use to the next.
pub(crate) struct Limits {
    /// How long one try may take.
    pub(crate) whole: Duration,
    pub(crate) redirects: u32,
}

/// A client. `plain` allows addresses without encryption; `ca_file` (PEM) counts instead of the machine's own
/// certificates. An answer's status is no error.
pub(crate) fn agent(plain: bool, ca_file: Option<&Path>, limits: &Limits) -> Result<ureq::Agent, Error> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .https_only(!plain)
        .max_redirects(limits.redirects)
        .user_agent(concat!("sealift/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .timeout_global(Some(limits.whole));
    // A plain address may be sent on to a safe one, but need not.
    let roots = roots(ca_file)?;
    if roots.is_empty() && !plain {
        return Err(Error::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::new_with_certs(&roots))
        .build();
    Ok(config.tls_config(tls).build().new_agent())
}

fn roots(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, Error> {
    let Some(path) = ca_file else {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "certificates of this machine");
        }
        return Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect());
    };
    let pem = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let certificates = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    Ok(certificates.collect())
}

/// Whether the way to the server may be open in a moment.
pub(crate) fn is_passing(error: &ureq::Error) -> bool {
    match error {
        // A certificate that is not trusted will not be trusted in a moment.
        ureq::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

/// Whether the server itself says so.
pub(crate) fn is_passing_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// Up to half of `pause`, so that those who failed together do not come back together.
pub(crate) fn jitter(pause: Duration) -> Duration {
    let mut byte = [0_u8];
    // Without random numbers there is no jitter, and nothing else is lost.
    rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::NONBLOCK).ok();
    pause * u32::from(byte[0]) / 512
}
