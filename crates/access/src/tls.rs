//! The two ends of TLS: 1.3 only, certificates of our own authority only.
//!
//! A client trusts roots that it was given, or the one root that a pin names; it presents a certificate if it has one.
//! A server takes clients without a certificate, so that users can come with a token, and none with one that another
//! authority signed or that has run out.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use sealift_model::Timestamp;

use crate::authority::Pin;

/// Tells the time at which certificates are judged.
#[derive(Clone)]
pub struct Clock(pub Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis((self.0)().0)))
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no certificate in PEM is in it")]
    NoCertificate,
    #[error("no private key in PEM is in it")]
    NoKey,
    #[error("the certificates or the key cannot be used")]
    Use(#[source] rustls::Error),
    #[error("the roots cannot be used")]
    Roots(#[source] rustls::server::VerifierBuilderError),
}

/// What a client believes.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Servers with a certificate of one of these.
    Roots(Vec<CertificateDer<'static>>),
    /// Servers that show this root, and a certificate of it.
    Pin(Pin),
}

/// The certificates of a PEM text.
///
/// # Errors
/// When there is none.
pub fn roots_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::NoCertificate),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(Error::Use)?;
    }
    Ok(Arc::new(store))
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::NoKey)
}

/// How a client connects. `identity` is its chain and its key, both in PEM.
///
/// # Errors
/// When something of it cannot be read or does not go together.
pub fn client_config(
    trust: &Trust,
    identity: Option<(&str, &str)>,
    clock: &Clock,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(Error::Use)?;
    let builder = match trust {
        Trust::Roots(roots) => builder.with_root_certificates(store(roots)?),
        Trust::Pin(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { pin: pin.clone(), provider: provider() })),
    };
    let mut config = match identity {
        Some((chain, private)) => {
            builder.with_client_auth_cert(roots_from_pem(chain)?, key(private)?).map_err(Error::Use)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// How a server takes connections. `roots` are those whose machines it takes, all in PEM.
///
/// # Errors
/// When something of it cannot be read or does not go together.
pub fn server_config(chain: &str, private: &str, roots: &str, clock: &Clock) -> Result<ServerConfig, Error> {
    let roots = store(&roots_from_pem(roots)?)?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(Error::Roots)?;
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(Error::Use)?;
    let builder = builder.with_client_cert_verifier(clients);
    let mut config = builder.with_single_cert(roots_from_pem(chain)?, key(private)?).map_err(Error::Use)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Takes only servers whose chain holds the root that the pin names.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = intermediates.iter().find(|certificate| Pin::of(certificate) == self.pin);
        let root = root.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
