//! How a machine becomes one of the fleet, and stays one: it joins with a token, and renews its certificate in time.
//!
//! Guarantees: the private key is made here, is the owner's alone to read and never leaves the machine. Nothing is said to
//! a server that does not show the authority which the token names. What is kept is whole: the key and its certificate are
//! one file. No unit is touched by any of this.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealift_access::{
    AuthorityError, Clock, JoinToken, KeyRequest, PeerCertificate, TlsError, Trust, client_config,
    roots_from_pem,
};
use sealift_client::api::{Join, MachineCertificate, Renew};
use sealift_client::{Client, Servers, Tls};
use sealift_model::diagnostic::chain;
use sealift_model::{MachineId, Timestamp};

/// The private key and the certificates that go with it.
const IDENTITY: &str = "identity.pem";
/// The roots that servers are checked by.
const ROOTS: &str = "roots.pem";
/// The key that packages are signed with.
const SIGNING: &str = "signing.pub";
/// Bytes of each of these files.
const LIMIT: u64 = 256 << 10;
/// Between two tries to renew, at first and at most. There are ten days for it.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// Between two looks at the clock, which may be set.
const LOOK: Duration = Duration::from_secs(3600);

/// Why a machine is not one of the fleet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf },
    #[error(
        "the certificate of machine {machine} ran out at {at}; it has to join anew, with a token made for it"
    )]
    Expired { machine: MachineId, at: Timestamp },
    #[error("cannot make a key")]
    Key(#[source] AuthorityError),
    #[error("cannot speak TLS")]
    Tls(#[source] TlsError),
    #[error("the servers do not let this machine join")]
    Join(#[source] sealift_client::Error),
    #[error("the server's answer does not hold together: {0}")]
    Answer(&'static str),
}

/// What a machine that has joined is known by. Clones share it.
#[derive(Debug)]
pub struct Membership {
    folder: PathBuf,
    clock: Clock,
    machine: MachineId,
    tls: Tls,
    /// As of the start; renewals keep their own.
    certificate: PeerCertificate,
}

impl Membership {
    /// What is kept in this folder; none if this machine has not joined.
    ///
    /// # Errors
    /// When it cannot be read, or its time is over.
    pub fn open(folder: &Path, clock: Clock) -> Result<Option<Self>, Error> {
        let identity = folder.join(IDENTITY);
        let Some(text) = read(&identity)? else { return Ok(None) };
        let damaged = || Error::Damaged { path: identity.clone() };
        let certificate = PeerCertificate::read_pem(&text).map_err(|_| damaged())?;
        let machine = certificate.machine.clone().ok_or_else(damaged)?;
        if certificate.expires_at <= (clock.0)() {
            return Err(Error::Expired { machine, at: certificate.expires_at });
        }
        let path = folder.join(ROOTS);
        let roots = read(&path)?.ok_or(Error::Damaged { path })?;
        let tls = Tls::new(config(&roots, &text, &clock)?);
        Ok(Some(Self { folder: folder.to_owned(), clock, machine, tls, certificate }))
    }

    /// Joins with a token, and keeps what comes of it in this folder, which is made if need be.
    ///
    /// # Errors
    /// When no server lets the machine in, or its answer cannot be kept.
    pub async fn join(
        folder: &Path,
        servers: Servers,
        token: &JoinToken,
        machine: &MachineId,
        clock: Clock,
    ) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "make", path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        let key = KeyRequest::generate().map_err(Error::Key)?;
        let pinned = client_config(&Trust::Pin(token.pin.clone()), None, &clock).map_err(Error::Tls)?;
        let client = Client::with_tls(servers, None, Tls::new(pinned));
        let asked = Join { token: token.reveal(), machine: machine.clone(), request: key.request.clone() };
        let answer: MachineCertificate = client.post("/v1/join", &asked).await.map_err(Error::Join)?;
        let roots = roots_from_pem(&answer.roots).map_err(Error::Tls)?;
        if !roots.iter().any(|root| sealift_access::Pin::of(root) == token.pin) {
            return Err(Error::Answer("the authority is not the token's"));
        }
        keep(folder, &answer, &key.key, machine, &clock)?;
        write(&folder.join(SIGNING), &answer.public_key)?;
        Self::open(folder, clock)?.ok_or(Error::Answer("nothing came of it"))
    }

    #[must_use]
    pub fn machine(&self) -> &MachineId {
        &self.machine
    }

    /// A client that shows this machine's certificate, the newest one at any time.
    #[must_use]
    pub fn client(&self, servers: Servers) -> Client {
        Client::with_tls(servers, None, self.tls.clone())
    }

    /// The public key that packages are signed with, as it was told when the machine joined.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn signing_key(&self) -> Result<String, Error> {
        let path = self.folder.join(SIGNING);
        Ok(read(&path)?.ok_or(Error::Damaged { path })?.trim().to_owned())
    }

    /// Renews the certificate whenever two thirds of its time are over, for as long as it is polled. From then on `client`
    /// shows the new one; its open streams go on.
    pub async fn keep(&self, client: &Client) {
        let mut certificate = self.certificate.clone();
        let mut pause = AGAIN.0;
        loop {
            let now = (self.clock.0)();
            let due = renewal(&certificate);
            if now < due {
                tokio::time::sleep(due.since(now).min(LOOK)).await;
                continue;
            }
            match self.renew(client).await {
                Ok(new) => {
                    tracing::info!(until = %new.expires_at, "this machine has a new certificate");
                    certificate = new;
                    pause = AGAIN.0;
                }
                Err(error) => {
                    let until = certificate.expires_at;
                    tracing::warn!(error = chain(&error), %until, "no new certificate yet; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(AGAIN.1);
                }
            }
        }
    }

    /// Gets a new certificate, for a new key, now.
    ///
    /// # Errors
    /// When the servers give none, or it cannot be kept: the old one is used on.
    pub async fn renew(&self, client: &Client) -> Result<PeerCertificate, Error> {
        let key = KeyRequest::generate().map_err(Error::Key)?;
        let path = format!("/v1/machines/{}/certificate", self.machine);
        let asked = Renew { request: key.request.clone() };
        let answer: MachineCertificate = client.post(&path, &asked).await.map_err(Error::Join)?;
        keep(&self.folder, &answer, &key.key, &self.machine, &self.clock)?;
        let identity = format!("{}{}", key.key, answer.certificate);
        self.tls.replace(config(&answer.roots, &identity, &self.clock)?);
        PeerCertificate::read_pem(&answer.certificate).map_err(|_| Error::Answer("it holds no certificate"))
    }
}

/// When two thirds of a certificate's time are over.
fn renewal(certificate: &PeerCertificate) -> Timestamp {
    let life = certificate.expires_at.0.saturating_sub(certificate.begins_at.0);
    Timestamp(certificate.begins_at.0.saturating_add(life / 3 * 2))
}

fn config(roots: &str, identity: &str, clock: &Clock) -> Result<sealift_access::ClientConfig, Error> {
    let trust = Trust::Roots(roots_from_pem(roots).map_err(Error::Tls)?);
    client_config(&trust, Some((identity, identity)), clock).map_err(Error::Tls)
}

/// Checks an answer and writes it down. The roots come first: with the new ones the old certificate is good too.
fn keep(
    folder: &Path,
    answer: &MachineCertificate,
    key: &str,
    machine: &MachineId,
    clock: &Clock,
) -> Result<(), Error> {
    let read = PeerCertificate::read_pem(&answer.certificate)
        .map_err(|_| Error::Answer("it holds no certificate"))?;
    if read.machine.as_ref() != Some(machine) {
        return Err(Error::Answer("the certificate is another machine's"));
    }
    let identity = format!("{key}{}", answer.certificate);
    // What cannot be used must not take the place of what can.
    config(&answer.roots, &identity, clock)?;
    write(&folder.join(ROOTS), &answer.roots)?;
    write(&folder.join(IDENTITY), &identity)
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io)?,
    };
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, LIMIT), &mut text).map_err(io)?;
    Ok(Some(text))
}

/// A file for the owner alone that is there as a whole or as it was before.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    let write = || {
        fs::remove_file(&partial).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })
}
