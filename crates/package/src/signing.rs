//! Detached Ed25519 signatures in minisign's format (<https://jedisct1.github.io/minisign/>): the file's bytes are
//! hashed by BLAKE2b-512, and a trusted comment, one line of text, is signed along with them.
//!
//! The secret key lives in the control plane and never leaves it. Public keys are what machines are given.
//! `minisign -V -p key.pub -m FILE -x FILE.minisig` checks what is made here.

use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// What can go wrong with keys and signatures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a key in minisign's format", path.display())]
    BadKey { path: PathBuf, source: minisign::PError },
    #[error("cannot make a key or a signature")]
    Sign(#[source] minisign::PError),
    #[error("not a public key in minisign's format")]
    BadPublicKey(#[source] minisign::PError),
    #[error("not a signature in minisign's format")]
    BadSignature(#[source] minisign::PError),
    #[error("the signature does not fit the bytes, or was made by a key that is not trusted")]
    Refused(#[source] minisign::PError),
    #[error("the signature is for another package: it says {found:?}, wanted {wanted:?}")]
    OtherStatement { wanted: String, found: String },
}

/// The control plane's key pair.
pub struct SigningKey {
    public: minisign::PublicKey,
    secret: minisign::SecretKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public.to_base64()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads `<dir>/signing.key`, or makes a key pair there (`signing.key` for the owner alone, `signing.pub`).
    ///
    /// # Errors
    /// When files cannot be read or written, or hold no key.
    pub fn load_or_create(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(io_error("make", dir))?;
        let secret_path = dir.join("signing.key");
        let public_path = dir.join("signing.pub");
        let bad = |source| Error::BadKey { path: secret_path.clone(), source };
        let key = match fs::read_to_string(&secret_path) {
            Ok(text) => {
                let secret = minisign::SecretKeyBox::from_string(&text)
                    .and_then(minisign::SecretKeyBox::into_unencrypted_secret_key)
                    .map_err(bad)?;
                Self { public: minisign::PublicKey::from_secret_key(&secret).map_err(bad)?, secret }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair = minisign::KeyPair::generate_unencrypted_keypair().map_err(Error::Sign)?;
                let text = pair.sk.to_box(Some("Sealift signing key")).map_err(Error::Sign)?.into_string();
                write_new(&secret_path, text.as_bytes(), 0o600)?;
                Self { public: pair.pk, secret: pair.sk }
            }
            Err(source) => return Err(Error::Io { action: "read", path: secret_path, source }),
        };
        // The public half follows from the secret one, so a crash between the two files mends itself here.
        let text = key.public.to_box().map_err(Error::Sign)?.into_string();
        if fs::read_to_string(&public_path).ok().as_deref() != Some(&text) {
            write_new(&public_path, text.as_bytes(), 0o644)?;
        }
        Ok(key)
    }

    /// Signs all of `data` and the one-line `statement`; gives the text of a `.minisig` file.
    ///
    /// # Errors
    /// When `data` cannot be read.
    pub fn sign(&self, data: impl Read, statement: &str) -> Result<String, Error> {
        minisign::sign(Some(&self.public), &self.secret, data, Some(statement), Some("signed by Sealift"))
            .map(minisign::SignatureBox::into_string)
            .map_err(Error::Sign)
    }

    /// The half that machines are given.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.public.clone())
    }
}

/// A key whose signatures are trusted.
#[derive(Debug, Clone)]
pub struct PublicKey(minisign::PublicKey);

impl PublicKey {
    /// Reads the base64 line of a `.pub` file.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_base64(text: &str) -> Result<Self, Error> {
        minisign::PublicKey::from_base64(text.trim()).map(Self).map_err(Error::BadPublicKey)
    }

    /// The line that [`PublicKey::from_base64`] reads, and that `minisign -P` takes.
    #[must_use]
    pub fn to_base64(&self) -> String {
        self.0.to_base64()
    }

    /// Checks that this key signed all of `data` together with exactly `statement`.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::OtherStatement`] when it did not.
    pub fn verify(&self, data: impl Read + io::Seek, signature: &str, statement: &str) -> Result<(), Error> {
        let signature = minisign::SignatureBox::from_string(signature).map_err(Error::BadSignature)?;
        // Legacy signatures (not pre-hashed) are not accepted: nothing of ours makes them.
        minisign::verify(&self.0, &signature, data, true, false, false).map_err(Error::Refused)?;
        let found = signature.trusted_comment().map_err(Error::BadSignature)?;
        if found == statement {
            Ok(())
        } else {
            Err(Error::OtherStatement { wanted: statement.to_owned(), found })
        }
    }
}

/// Writes a file that appears whole or not at all.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    let write = || -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        fs::File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    write().map_err(io_error("write", path))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_create(dir.path()).unwrap();
        let data = b"what a pipeline made".to_vec();
        let signature = key.sign(Cursor::new(&data), "project=hello").unwrap();
        key.public().verify(Cursor::new(&data), &signature, "project=hello").unwrap();
        for bit in 0..data.len() * 8 {
            let mut altered = data.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(
                key.public().verify(Cursor::new(altered), &signature, "project=hello").is_err(),
                "bit {bit}"
            );
        }
        // The first line is an untrusted comment by the format's own definition; all others count.
        let trusted = signature.find('\n').unwrap() + 1;
        for index in trusted..signature.trim_end().len() {
            let mut altered = signature.clone().into_bytes();
            altered[index] ^= 1;
            let Ok(altered) = String::from_utf8(altered) else { continue };
            let outcome = key.public().verify(Cursor::new(&data), &altered, "project=hello");
            // Changing the words "trusted comment: " themselves is refused as a format error.
            assert!(outcome.is_err(), "byte {index} of the signature");
        }
    }

    #[test]
    fn a_good_signature_for_another_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_create(dir.path()).unwrap();
        let signature = key.sign(Cursor::new(b"x"), "project=hello").unwrap();
        assert!(matches!(
            key.public().verify(Cursor::new(b"x"), &signature, "project=billing"),
            Err(Error::OtherStatement { .. })
        ));
        let other = SigningKey::load_or_create(&dir.path().join("other")).unwrap();
        assert!(matches!(
            other.public().verify(Cursor::new(b"x"), &signature, "project=hello"),
            Err(Error::Refused(_))
        ));
    }

    #[test]
    fn the_key_is_the_owners_and_survives() {
        let dir = tempfile::tempdir().unwrap();
        let first = SigningKey::load_or_create(dir.path()).unwrap().public().to_base64();
        let mode = fs::metadata(dir.path().join("signing.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_file(dir.path().join("signing.pub")).unwrap();
        assert_eq!(SigningKey::load_or_create(dir.path()).unwrap().public().to_base64(), first);
        assert!(fs::read_to_string(dir.path().join("signing.pub")).unwrap().contains(&first));
    }

    #[test]
    fn the_minisign_tool_agrees() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_create(dir.path()).unwrap();
        let file = dir.path().join("archive");
        fs::write(&file, b"bytes").unwrap();
        let signature = key.sign(Cursor::new(b"bytes"), "project=hello branch=main").unwrap();
        fs::write(dir.path().join("archive.minisig"), signature).unwrap();
        let check = || {
            std::process::Command::new("minisign")
                .args(["-V", "-P", &key.public().to_base64(), "-m"])
                .arg(&file)
                .output()
                .expect("minisign must be installed: scripts/install-deps test")
        };
        let good = check();
        assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
        assert!(String::from_utf8_lossy(&good.stdout).contains("project=hello branch=main"));
        fs::write(&file, b"bytez").unwrap();
        assert!(!check().status.success());
    }
}
