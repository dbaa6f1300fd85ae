//! Fetches a step's archive over HTTP(S), and keeps it.
//!
//! Guarantees: what a digest is given for has that digest, from the network and from the cache alike; sizes, waits and
//! tries are bounded, retries back off; the cache holds whole files only and stays below its limits; what may be
//! secret in an address is in no message.
//!
//! It must not know what is in the archive.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::StepSources;
use crate::hex::hex;
use crate::http::{self, Limits, jitter};

/// The largest archive.
const MAX_BYTES: u64 = 128 * 1024 * 1024;
const LIMITS: Limits = Limits { whole: Duration::from_secs(300), redirects: 5 };
const TRIES: u32 = 4;
/// Before the second try; doubled after that, and a random part more.
const PAUSE: Duration = Duration::from_millis(300);
/// How often a pause looks whether the run was cancelled.
const LOOK: Duration = Duration::from_millis(50);
/// What the cache keeps at most.
const CACHE_BYTES: u64 = 1024 * 1024 * 1024;
const CACHE_FILES: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the server answered with status {0}")]
    Status(u16),
    #[error("it does not arrive")]
    Transport(#[source] Box<ureq::Error>),
    #[error("it breaks off")]
    Body(#[source] io::Error),
    #[error("it is larger than {} MiB", MAX_BYTES / 1024 / 1024)]
    TooLarge,
    #[error("it is not the expected one: its sha256 is {found}")]
    Digest { found: String },
    #[error(transparent)]
    Client(#[from] http::Error),
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the run was cancelled")]
    Cancelled,
}

/// Where an archive is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    url: String,
    /// 64 hex digits in lower case.
    pub(crate) sha256: Option<String>,
}

impl Address {
    /// Reads `https://host/x.tar.gz#sha256=HEX`; what is wrong with it, if something is.
    pub(crate) fn parse(text: &str) -> Result<Address, String> {
        let (url, fragment) = text.split_once('#').map_or((text, None), |(url, rest)| (url, Some(rest)));
        let sha256 = match fragment.map(|fragment| fragment.strip_prefix("sha256=")) {
            None => None,
            Some(Some(hex)) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Some(hex.to_ascii_lowercase())
            }
            Some(_) => return Err("behind the # stands sha256= and 64 hex digits".to_owned()),
        };
        if url.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
            return Err("an address has no blanks".to_owned());
        }
        Ok(Address { url: url.to_owned(), sha256 })
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.url.starts_with("http://")
    }
}

/// Without what may be secret: a user before the host, a query behind the path.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.url.split('?').next().unwrap_or_default();
        let (scheme, rest) = shown.split_once("://").unwrap_or(("", shown));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.rsplit('@').next().unwrap_or_default();
        write!(f, "{scheme}://{host}/{path}")
    }
}

/// An archive on this machine.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) file: File,
    /// 64 hex digits in lower case.
    pub(crate) sha256: String,
    /// Bytes that were fetched for it; none if it was in the cache.
    pub(crate) fetched: Option<u64>,
}

/// Fetches an archive, or takes it from the cache. `aside` is a directory for a file that is gone at once; it is used
/// where there is no cache. Blocks.
pub(crate) fn fetch(
    address: &Address,
    sources: &StepSources,
    aside: &Path,
    cancel: &CancellationToken,
) -> Result<Archive, Error> {
    let cache = sources.cache_dir.as_deref();
    if let (Some(cache), Some(sha256)) = (cache, &address.sha256)
        && let Some(file) = cached(cache, sha256)
    {
        return Ok(Archive { file, sha256: sha256.clone(), fetched: None });
    }
    let agent = http::agent(address.is_plain(), sources.ca_file.as_deref(), &LIMITS)?;
    let folder = cache.unwrap_or(aside);
    fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        let error = match try_once(&agent, address, folder, cancel) {
            Ok(new) => return keep(new, address, cache),
            Err(error) => error,
        };
        if tries == TRIES || !worth_another_try(&error) {
            return Err(error);
        }
        tracing::debug!(%error, %address, tries, "cannot fetch a step, trying again");
        wait(pause + jitter(pause), cancel)?;
        pause *= 2;
        tries += 1;
    }
}

/// A download that is whole.
struct New {
    file: NewFile,
    sha256: String,
    bytes: u64,
}

fn try_once(
    agent: &ureq::Agent,
    address: &Address,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<New, Error> {
    if cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let transport = |error| Error::Transport(Box::new(error));
    let mut response = agent.get(&address.url).call().map_err(transport)?;
    if !response.status().is_success() {
        return Err(Error::Status(response.status().as_u16()));
    }
    let mut body = response.body_mut().with_config().limit(MAX_BYTES + 1).reader();
    let mut new = NewFile::create(folder)?;
    let mut hash = Sha256::new();
    let mut bytes = 0_u64;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = body.read(&mut buffer).map_err(Error::Body)?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { break };
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        bytes += piece.len() as u64;
        if bytes > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        hash.update(piece);
        new.file.write_all(piece).map_err(|source| Error::Io { path: new.path.clone(), source })?;
    }
    Ok(New { file: new, sha256: hex(&hash.finalize()), bytes })
}

fn keep(new: New, address: &Address, cache: Option<&Path>) -> Result<Archive, Error> {
    let New { mut file, sha256, bytes } = new;
    if address.sha256.as_ref().is_some_and(|wanted| *wanted != sha256) {
        return Err(Error::Digest { found: sha256 });
    }
    if let Some(cache) = cache {
        let place = place(cache, &sha256);
        fs::rename(&file.path, &place).map_err(|source| Error::Io { path: place, source })?;
        file.settled = true;
        if let Err(error) = prune(cache) {
            tracing::debug!(%error, "cannot prune the cache of steps");
        }
    }
    let fetched = Some(bytes);
    let file = file.file.try_clone().map_err(|source| Error::Io { path: file.path.clone(), source })?;
    Ok(Archive { file, sha256, fetched })
}

fn worth_another_try(error: &Error) -> bool {
    match error {
        Error::Status(status) => http::is_passing_status(*status),
        Error::Body(_) => true,
        Error::Transport(error) => http::is_passing(error),
        _ => false,
    }
}

fn wait(pause: Duration, cancel: &CancellationToken) -> Result<(), Error> {
    let end = Instant::now() + pause;
    while !cancel.is_cancelled() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
    Err(Error::Cancelled)
}

// --- The cache: one file an archive, named by its digest -----------------------------------------------------

fn place(cache: &Path, sha256: &str) -> PathBuf {
    cache.join(format!("{sha256}.tar.gz"))
}

/// The archive with that digest. One that has another by now is removed.
fn cached(cache: &Path, sha256: &str) -> Option<File> {
    let path = place(cache, sha256);
    let file = File::open(&path).ok()?;
    let mut hash = Sha256::new();
    io::copy(&mut &file, &mut hash).ok()?;
    if hex(&hash.finalize()) != sha256 {
        tracing::warn!(path = %path.display(), "a step's archive in the cache was altered; it is fetched anew");
        fs::remove_file(&path).ok();
        return None;
    }
    // The oldest go first, and what is used is young.
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    futimens(&file, &Timestamps { last_access: now, last_modification: now }).ok();
    Some(file)
}

/// Removes what was not used for longest, until the cache is within its limits. A file that is open stays readable.
fn prune(cache: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
    let mut count = files.len();
    for (_, length, path) in files {
        if bytes <= CACHE_BYTES && count <= CACHE_FILES {
            break;
        }
        fs::remove_file(path)?;
        bytes -= length;
        count -= 1;
    }
    Ok(())
}

/// A file that is gone with this unless it was settled.
struct NewFile {
    path: PathBuf,
    file: File,
    settled: bool,
}

impl NewFile {
    fn create(folder: &Path) -> Result<NewFile, Error> {
        let mut bytes = [0_u8; 8];
        let io = |path: &Path, source| Error::Io { path: path.to_owned(), source };
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| io(folder, error.into()))?;
        let path = folder.join(format!(".new-{}", hex(&bytes)));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| io(&path, source))?;
        Ok(NewFile { path, file, settled: false })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.settled {
            fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, mpsc};

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");

    /// A server that gives each connection the next answer; what it was asked comes out of the channel.
    fn serve(tls: bool, answers: Vec<Vec<u8>>) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls { "https" } else { "http" };
        let address = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let (sender, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                if tls {
                    let session = rustls::ServerConnection::new(tls_config()).unwrap();
                    converse(rustls::StreamOwned::new(session, stream), &answer, &sender);
                } else {
                    converse::<TcpStream>(stream, &answer, &sender);
                }
            }
        });
        (address, asked)
    }

    fn converse<S: Read + io::Write>(mut stream: S, answer: &[u8], asked: &mpsc::Sender<String>) {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            // One who does not trust our certificate says nothing.
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            request.push(byte[0]);
        }
        asked.send(String::from_utf8(request).unwrap()).ok();
        stream.write_all(answer).ok();
        stream.flush().ok();
    }

    fn tls_config() -> Arc<rustls::ServerConfig> {
        let certificates = CertificateDer::pem_file_iter(format!("{TLS}/server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(format!("{TLS}/server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(builder.with_single_cert(certificates.map(Result::unwrap).collect(), key).unwrap())
    }

    fn answer(status: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    fn get(url: &str, sources: &StepSources, aside: &Path) -> Result<Archive, Error> {
        fetch(&Address::parse(url).unwrap(), sources, aside, &CancellationToken::new())
    }

    fn text(mut file: File) -> String {
        use std::io::Seek;
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    fn digest(bytes: &[u8]) -> String {
        hex(&Sha256::digest(bytes))
    }

    #[test]
    fn reads_addresses() {
        let sum = "AB".repeat(32);
        let address =
            Address::parse(&format!("https://me:secret@host/a/x.tar.gz?key=secret#sha256={sum}")).unwrap();
        assert_eq!(address.sha256, Some("ab".repeat(32)));
        assert_eq!(address.to_string(), "https://host/a/x.tar.gz");
        for wrong in
            ["https://host/x#sha256=12", "https://host/x#md5=00", "https://host/x#", "https://host/a b"]
        {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tries_again_and_keeps_what_it_got() {
        let dir = tempfile::tempdir().unwrap();
        let sources = StepSources { cache_dir: Some(dir.path().join("cache")), ..StepSources::default() };
        let cut = answer("200 OK", b"whole")[..60].to_vec();
        let answers =
            vec![answer("503 Busy", b""), cut, answer("200 OK", b"whole"), answer("200 OK", b"whole")];
        let (address, asked) = serve(false, answers);
        let url = format!("{address}/x.tar.gz#sha256={}", digest(b"whole"));
        let archive = get(&url, &sources, dir.path()).unwrap();
        assert_eq!((archive.fetched, text(archive.file).as_str()), (Some(5), "whole"));
        assert_eq!(asked.try_iter().count(), 3);
        // From the cache, without a word to the server.
        let archive = get(&url, &sources, dir.path()).unwrap();
        assert_eq!((archive.fetched, text(archive.file).as_str()), (None, "whole"));
        assert_eq!(asked.try_iter().count(), 0);
        // What somebody has altered there is not used.
        fs::write(place(&dir.path().join("cache"), &digest(b"whole")), "other").unwrap();
        let archive = get(&url, &sources, dir.path()).unwrap();
        assert_eq!((archive.fetched, text(archive.file).as_str()), (Some(5), "whole"));
        assert_eq!(fs::read_dir(dir.path().join("cache")).unwrap().count(), 1);
    }

    #[test]
    fn without_a_cache_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (address, _asked) = serve(false, vec![answer("200 OK", b"whole")]);
        let archive = get(&address, &StepSources::default(), dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!((archive.sha256.clone(), text(archive.file)), (digest(b"whole"), "whole".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let sources = StepSources { cache_dir: Some(dir.path().to_owned()), ..StepSources::default() };
        let (address, asked) = serve(false, vec![answer("404 Gone", b""), answer("200 OK", b"other")]);
        let url = format!("{address}/x#sha256={}", digest(b"whole"));
        assert!(matches!(get(&url, &sources, dir.path()), Err(Error::Status(404))));
        match get(&url, &sources, dir.path()) {
            Err(Error::Digest { found }) => assert_eq!(found, digest(b"other")),
            other => panic!("{other:?}"),
        }
        assert_eq!(asked.try_iter().count(), 2, "neither is tried again");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let cancel = CancellationToken::new();
        cancel.cancel();
        let cancelled = fetch(&Address::parse(&address).unwrap(), &sources, dir.path(), &cancel);
        assert!(matches!(cancelled, Err(Error::Cancelled)));
    }

    #[test]
    fn certificates_count() {
        let dir = tempfile::tempdir().unwrap();
        let ca_file = Some(PathBuf::from(format!("{TLS}/ca.pem")));
        let trusting = StepSources { ca_file, ..StepSources::default() };
        let (plain, asked) = serve(false, vec![answer("200 OK", b"plain")]);
        let away = format!("HTTP/1.1 302 Found\r\nLocation: {plain}/x\r\nContent-Length: 0\r\n\r\n");
        let answers = vec![
            answer("200 OK", b"safe"),
            away.into_bytes(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
        ];
        let (address, _asked) = serve(true, answers);
        assert_eq!(text(get(&address, &trusting, dir.path()).unwrap().file), "safe");
        assert!(matches!(get(&address, &trusting, dir.path()), Err(Error::Transport(_))));
        assert_eq!(asked.try_iter().count(), 0, "was led from https to http");
        let refused = get(&address, &StepSources::default(), dir.path());
        assert!(
            matches!(refused, Err(Error::Transport(_) | Error::Client(http::Error::NoRoots))),
            "{refused:?}"
        );
    }

    #[test]
    fn the_oldest_leave_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..CACHE_FILES + 3 {
            let file = File::create(dir.path().join(format!("{number:03}"))).unwrap();
            let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000 - number as u64);
            file.set_modified(time).unwrap();
        }
        prune(dir.path()).unwrap();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), CACHE_FILES);
        assert!(!names.iter().any(|name| *name == *"202") && names.iter().any(|name| *name == *"000"));
    }
}
