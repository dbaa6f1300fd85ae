//! The authority: keeps the roots of trust, and signs certificates of servers and machines.
//!
//! Guarantees: a certificate says only what its signer was told to say; of a request for one nothing is taken over but
//! the public key, once the request has shown that its maker holds the private one. A private key of a machine or a
//! server is never seen here.
//!
//! There may be several roots, so that one can take the place of another while machines are in contact: a new one is
//! first trusted ([`Authority::prepare`]), then signs ([`Authority::activate`]), then the old one goes
//! ([`Authority::retire`]).

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sealift_model::{MachineId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;

use crate::identity::Serial;
use crate::token::{hex, is_hex};

/// How long certificates of servers and machines are good. They are renewed after two thirds of it.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a root is good.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of machines may be behind by this much.
const SKEW: Duration = Duration::from_secs(10 * 60);
/// Roots at once: the one that signs, and one that comes or goes.
const ROOTS: usize = 2;
/// Names that a server's certificate may have.
pub const SERVER_NAME_LIMIT: usize = 50;
/// Bytes of a request for a certificate.
const REQUEST_LIMIT: usize = 8 << 10;
/// What stands before a machine's id in its certificate.
const MACHINE_URI: &str = "sealift://machine/";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this is not a pin; one reads sha256:HEX, with 64 hex digits")]
    Pin,
    #[error("the system gives no random bytes")]
    Random,
    #[error(
        "the certificate request is not understood; it wants a PEM block with a P-256 key, at most 8 KiB"
    )]
    Request,
    #[error("{0:?} is neither an address nor a host name")]
    Name(String),
    #[error("a server has 1 to {SERVER_NAME_LIMIT} names")]
    Names,
    #[error("the authority's record is damaged")]
    Damaged,
    #[error("this is not a certificate in PEM")]
    Certificate,
    #[error("cannot make a certificate")]
    Make(#[source] rcgen::Error),
    #[error("a new root is prepared already")]
    Prepared,
    #[error("no new root is prepared")]
    NotPrepared,
    #[error("there is no old root to retire")]
    NothingToRetire,
}

/// SHA-256 of a root's certificate in DER: 64 hex digits, as `openssl x509 -fingerprint -sha256` prints them with colons.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pin(String);

impl Pin {
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Pin {
        Pin(hex(&Sha256::digest(certificate)))
    }
}

impl FromStr for Pin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.strip_prefix("sha256:").unwrap_or(text);
        if is_hex(text, 64) { Ok(Pin(text.to_owned())) } else { Err(Error::Pin) }
    }
}

impl TryFrom<String> for Pin {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> String {
        pin.0
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Root {
    pin: Pin,
    /// PEM.
    certificate: String,
    /// PKCS #8 in PEM. A secret.
    key: String,
    expires_at: Timestamp,
}

/// The roots, and which of them signs. As it is stored; it holds private keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Oldest first; never empty.
    roots: Vec<Root>,
    signing: Pin,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("signing", &self.signing).field("pins", &self.pins()).finish()
    }
}

/// Where a change of roots stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preparing {
    /// There is one root.
    No,
    /// A new root is trusted and does not sign yet.
    Prepared,
    /// The new root signs, and the old one is trusted still.
    Activated,
}

/// A certificate that was just signed.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and the root that signed it, in PEM.
    pub chain: String,
    pub serial: Serial,
    pub expires_at: Timestamp,
}

/// A new key, and the request that shows that its maker holds it.
#[derive(Clone)]
pub struct KeyRequest {
    /// PKCS #8 in PEM. A secret.
    pub key: String,
    /// PKCS #10 in PEM.
    pub request: String,
}

impl std::fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}

impl KeyRequest {
    /// A new P-256 key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(Error::Make)?;
        let mut params = CertificateParams::default();
        // Who it is for is not the request's to say.
        params.distinguished_name = DistinguishedName::new();
        let request =
            params.serialize_request(&key).and_then(|request| request.pem()).map_err(Error::Make)?;
        Ok(Self { key: key.serialize_pem(), request })
    }
}

impl Authority {
    /// An authority with a new root.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn create(now: Timestamp) -> Result<Self, Error> {
        let root = new_root(now)?;
        Ok(Self { signing: root.pin.clone(), roots: vec![root] })
    }

    /// The pin of the root that signs.
    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.signing
    }

    /// The pins of all roots that are trusted, oldest first.
    #[must_use]
    pub fn pins(&self) -> Vec<Pin> {
        self.roots.iter().map(|root| root.pin.clone()).collect()
    }

    /// All roots that are trusted, in PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.roots.iter().map(|root| root.certificate.as_str()).collect()
    }

    /// When the root that signs runs out.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.roots.iter().find(|root| root.pin == self.signing).map(|root| root.expires_at)
    }

    #[must_use]
    pub fn preparing(&self) -> Preparing {
        match self.roots.last() {
            _ if self.roots.len() < 2 => Preparing::No,
            Some(newest) if newest.pin == self.signing => Preparing::Activated,
            _ => Preparing::Prepared,
        }
    }

    /// Adds a root that is trusted from now on, and signs nothing yet.
    ///
    /// # Errors
    /// When a change is under way already.
    pub fn prepare(mut self, now: Timestamp) -> Result<Self, Error> {
        if self.roots.len() >= ROOTS {
            return Err(Error::Prepared);
        }
        self.roots.push(new_root(now)?);
        Ok(self)
    }

    /// Has the new root sign from now on. Who does not trust it yet loses contact.
    ///
    /// # Errors
    /// When none is prepared.
    pub fn activate(mut self) -> Result<Self, Error> {
        match self.roots.last() {
            Some(newest) if newest.pin != self.signing => self.signing = newest.pin.clone(),
            _ => return Err(Error::NotPrepared),
        }
        Ok(self)
    }

    /// Takes away the old root. What it signed counts no more.
    ///
    /// # Errors
    /// When there is only the one that signs, or the new one does not sign yet.
    pub fn retire(mut self) -> Result<Self, Error> {
        if self.preparing() != Preparing::Activated {
            return Err(Error::NothingToRetire);
        }
        self.roots.retain(|root| root.pin == self.signing);
        Ok(self)
    }

    /// A certificate for the machine with this id and the key of this request.
    ///
    /// # Errors
    /// When the request is not sound.
    pub fn sign_machine(
        &self,
        machine: &MachineId,
        request: &str,
        now: Timestamp,
        life: Duration,
    ) -> Result<Issued, Error> {
        let uri = format!("{MACHINE_URI}{machine}");
        let name = SanType::URI(uri.try_into().map_err(Error::Make)?);
        self.sign(machine.as_str(), vec![name], ExtendedKeyUsagePurpose::ClientAuth, request, now, life)
    }

    /// A certificate for a server with these names and addresses.
    ///
    /// # Errors
    /// When a name cannot be one, there are none or too many, or the request is not sound.
    pub fn sign_server(
        &self,
        names: &[String],
        request: &str,
        now: Timestamp,
        life: Duration,
    ) -> Result<Issued, Error> {
        if names.is_empty() || names.len() > SERVER_NAME_LIMIT {
            return Err(Error::Names);
        }
        let names = names.iter().map(|name| server_name(name)).collect::<Result<_, _>>()?;
        self.sign("Sealift server", names, ExtendedKeyUsagePurpose::ServerAuth, request, now, life)
    }

    fn sign(
        &self,
        subject: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        request: &str,
        now: Timestamp,
        life: Duration,
    ) -> Result<Issued, Error> {
        if request.len() > REQUEST_LIMIT {
            return Err(Error::Request);
        }
        let public =
            CertificateSigningRequestParams::from_pem(request).map_err(|_| Error::Request)?.public_key;
        if public.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Request);
        }
        let root = self.roots.iter().find(|root| root.pin == self.signing).ok_or(Error::Damaged)?;
        let key = KeyPair::from_pem(&root.key).map_err(|_| Error::Damaged)?;
        let issuer = Issuer::from_ca_cert_pem(&root.certificate, key).map_err(|_| Error::Damaged)?;
        // What is signed by a root is of no use after it.
        let expires_at = Timestamp(now.0.saturating_add(millis(life)).min(root.expires_at.0));
        let (number, serial) = serial()?;
        let mut params = CertificateParams::default();
        params.not_before = date(Timestamp(now.0.saturating_sub(millis(SKEW))))?;
        params.not_after = date(expires_at)?;
        params.serial_number = Some(number);
        params.subject_alt_names = names;
        params.distinguished_name = common_name(subject);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&public, &issuer).map_err(Error::Make)?;
        Ok(Issued { chain: certificate.pem() + &root.certificate, serial, expires_at })
    }
}

fn new_root(now: Timestamp) -> Result<Root, Error> {
    let key = KeyPair::generate().map_err(Error::Make)?;
    let (number, serial) = serial()?;
    // To the second, as certificates tell time.
    let expires_at = Timestamp(now.0.saturating_add(millis(ROOT_LIFE)) / 1000 * 1000);
    let mut params = CertificateParams::default();
    params.not_before = date(Timestamp(now.0.saturating_sub(millis(SKEW))))?;
    params.not_after = date(expires_at)?;
    params.serial_number = Some(number);
    // Each root has a name of its own, so that whoever looks for an issuer finds the right one.
    params.distinguished_name =
        common_name(&format!("Sealift authority {}", serial.get(..8).unwrap_or_default()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(Error::Make)?;
    Ok(Root {
        pin: Pin::of(certificate.der()),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        expires_at,
    })
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// Whether a server's certificate can be for this: an address or a host name.
#[must_use]
pub fn is_server_name(name: &str) -> bool {
    server_name(name).is_ok()
}

fn server_name(name: &str) -> Result<SanType, Error> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let fits = (1..=253).contains(&name.len())
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
    let wrong = || Error::Name(name.to_owned());
    let text = name.to_owned().try_into().map_err(|_| wrong())?;
    if fits { Ok(SanType::DnsName(text)) } else { Err(wrong()) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn date(at: Timestamp) -> Result<OffsetDateTime, Error> {
    let seconds = i64::try_from(at.0 / 1000).map_err(|_| Error::Damaged)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Damaged)
}

/// 16 random bytes; the first neither zero nor negative, so that all writers write it alike.
fn serial() -> Result<(SerialNumber, Serial), Error> {
    let mut bytes = [0_u8; 16];
    default_provider().secure_random.fill(&mut bytes).map_err(|_| Error::Random)?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok((SerialNumber::from_slice(&bytes), hex(&bytes)))
}

/// What a certificate says that a peer has shown. TLS has checked that one of our roots signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// None for certificates of servers.
    pub machine: Option<MachineId>,
    pub serial: Serial,
    pub begins_at: Timestamp,
    pub expires_at: Timestamp,
}

impl PeerCertificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| Error::Certificate)?;
        let names = parsed.subject_alternative_name().map_err(|_| Error::Certificate)?;
        let mut machines =
            names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix(MACHINE_URI)?.parse().ok(),
                _ => None,
            });
        let time = |at: x509_parser::time::ASN1Time| {
            Timestamp(u64::try_from(at.timestamp()).unwrap_or(0).saturating_mul(1000))
        };
        Ok(Self {
            machine: machines.next(),
            serial: hex(parsed.raw_serial()),
            begins_at: time(parsed.validity().not_before),
            expires_at: time(parsed.validity().not_after),
        })
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none.
    pub fn read_pem(text: &str) -> Result<Self, Error> {
        Self::read(&CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| Error::Certificate)?)
    }
}

/// The machine that a certificate in PEM is for.
///
/// # Errors
/// When it is no machine's certificate.
pub fn machine_of(pem: &str) -> Result<MachineId, Error> {
    PeerCertificate::read_pem(pem)?.machine.ok_or(Error::Certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn machine() -> MachineId {
        "0123456789abcdef0123456789abcdef".parse().unwrap()
    }

    #[test]
    fn a_machine_certificate_says_who_and_until_when() {
        let authority = Authority::create(NOW).unwrap();
        let request = KeyRequest::generate().unwrap();
        let issued = authority.sign_machine(&machine(), &request.request, NOW, CERTIFICATE_LIFE).unwrap();
        let read = PeerCertificate::read_pem(&issued.chain).unwrap();
        assert_eq!(read.machine, Some(machine()));
        assert_eq!((read.serial, read.expires_at), (issued.serial.clone(), issued.expires_at));
        assert_eq!(issued.expires_at.since(NOW), CERTIFICATE_LIFE);
        let again = authority.sign_machine(&machine(), &request.request, NOW, CERTIFICATE_LIFE).unwrap();
        assert_ne!(again.serial, issued.serial);
        let server = authority.sign_server(&["::1".into()], &request.request, NOW, CERTIFICATE_LIFE).unwrap();
        assert_eq!(PeerCertificate::read_pem(&server.chain).unwrap().machine, None);
        assert!(machine_of(&server.chain).is_err());
    }

    /// A request that asks to be another machine, or an authority, is given neither.
    #[test]
    fn a_request_is_worth_its_key_and_nothing_else() {
        let authority = Authority::create(NOW).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".into()]).unwrap();
        let other = format!("{MACHINE_URI}{}", "f".repeat(32));
        params.subject_alt_names.push(SanType::URI(other.try_into().unwrap()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let issued = authority.sign_machine(&machine(), &request, NOW, CERTIFICATE_LIFE).unwrap();
        let der = CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(PeerCertificate::read(&der).unwrap().machine, Some(machine()));
    }

    #[test]
    fn requests_that_are_not_sound_are_refused() {
        let authority = Authority::create(NOW).unwrap();
        let good = KeyRequest::generate().unwrap();
        // Signed by another key than it tells: one bit of the signature is turned.
        let mut der = pem_bytes(&good.request);
        let last = der.len() - 1;
        der[last] ^= 1;
        let forged = pem_text(&der);
        let ed = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let ed = CertificateParams::default().serialize_request(&ed).unwrap().pem().unwrap();
        for request in ["", "-----BEGIN", &good.key, &forged, &ed, &"x".repeat(REQUEST_LIMIT + 1)] {
            assert!(authority.sign_machine(&machine(), request, NOW, CERTIFICATE_LIFE).is_err(), "{request}");
        }
    }

    #[test]
    fn names_of_servers() {
        let authority = Authority::create(NOW).unwrap();
        let request = KeyRequest::generate().unwrap().request;
        for (name, good) in [
            ("localhost", true),
            ("a.example.org", true),
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("", false),
            ("a b", false),
            ("-a", false),
            ("a..b", false),
            ("*.example.org", false),
            ("a/b", false),
        ] {
            let signed = authority.sign_server(&[name.into()], &request, NOW, CERTIFICATE_LIFE);
            assert_eq!(signed.is_ok(), good, "{name:?}");
        }
        assert!(authority.sign_server(&[], &request, NOW, CERTIFICATE_LIFE).is_err());
        assert!(authority.sign_server(&vec!["a".into(); 51], &request, NOW, CERTIFICATE_LIFE).is_err());
    }

    #[test]
    fn roots_change_in_three_steps() {
        let first = Authority::create(NOW).unwrap();
        let old = first.pin().clone();
        assert_eq!(first.preparing(), Preparing::No);
        assert!(first.clone().activate().is_err() && first.clone().retire().is_err());
        let prepared = first.prepare(NOW).unwrap();
        assert_eq!((prepared.preparing(), prepared.pin()), (Preparing::Prepared, &old));
        assert_eq!(prepared.pins().len(), 2);
        assert!(prepared.clone().prepare(NOW).is_err() && prepared.clone().retire().is_err());
        let active = prepared.activate().unwrap();
        assert_eq!(active.preparing(), Preparing::Activated);
        assert!(*active.pin() != old && active.pins().contains(&old));
        assert!(active.clone().activate().is_err());
        let done = active.retire().unwrap();
        assert_eq!((done.preparing(), done.pins()), (Preparing::No, vec![done.pin().clone()]));
    }

    #[test]
    fn the_record_is_read_back_and_shows_no_key() {
        let authority = Authority::create(NOW).unwrap().prepare(NOW).unwrap();
        let stored = serde_json::to_string(&authority).unwrap();
        assert!(stored.len() < 100_000 && stored.contains("PRIVATE KEY"));
        assert_eq!(serde_json::from_str::<Authority>(&stored).unwrap(), authority);
        let request = KeyRequest::generate().unwrap();
        for shown in [format!("{authority:?}"), format!("{request:?}"), authority.bundle()] {
            assert!(!shown.contains("PRIVATE"), "{shown}");
        }
    }

    #[test]
    fn no_certificate_outlives_its_root() {
        let authority = Authority::create(NOW).unwrap();
        let request = KeyRequest::generate().unwrap().request;
        let issued = authority.sign_machine(&machine(), &request, NOW, ROOT_LIFE * 2).unwrap();
        assert_eq!(Some(issued.expires_at), authority.expires_at());
    }

    fn pem_bytes(text: &str) -> Vec<u8> {
        rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap().to_vec()
    }

    fn pem_text(der: &[u8]) -> String {
        let openssl = std::process::Command::new("openssl")
            .args(["base64", "-A"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                use std::io::Write as _;
                child.stdin.take().unwrap().write_all(der)?;
                child.wait_with_output()
            })
            .unwrap();
        let text = String::from_utf8(openssl.stdout).unwrap();
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    }
}
