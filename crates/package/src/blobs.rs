//! Bytes by their digest, in a directory: `<root>/<first two digits>/<digest>`.
//!
//! A blob appears when all of it is on disk (temporary file, fsync, rename, fsync of the folder), and the same bytes
//! are stored once. A digest that a caller names is checked against the bytes before the blob appears.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sealift_model::Digest;

/// Why bytes could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the bytes have digest {found}, not {wanted} as was said")]
    Mismatch { wanted: Digest, found: Digest },
    #[error("more than the {limit} bytes that are allowed")]
    TooLarge { limit: u64 },
    #[error("no blob {0}")]
    Missing(Digest),
}

impl Error {
    /// Whether the disk is full: room must be made before another try.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// A directory of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// Opens the directory, makes it if need be, and clears what half-written uploads left there.
    ///
    /// Only one process may have it open, since the temporary files of another would be cleared as well.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        let partial = root.join("partial");
        fs::create_dir_all(&partial).map_err(io_error("make", &partial))?;
        for entry in fs::read_dir(&partial).map_err(io_error("read", &partial))? {
            let path = entry.map_err(io_error("read", &partial))?.path();
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(Self { root })
    }

    /// Where the blob's bytes are, whether it is there or not.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let (folder, _) = digest.as_str().split_at(2);
        self.root.join(folder).join(digest.as_str())
    }

    /// Opens a blob for reading, with its size in bytes.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none, else the IO error.
    pub fn read(&self, digest: &Digest) -> Result<(File, u64), Error> {
        let path = self.path(digest);
        let file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing(digest.clone()),
            _ => Error::Io { action: "open", path: path.clone(), source },
        })?;
        let size = file.metadata().map_err(io_error("read", &path))?.len();
        Ok((file, size))
    }

    /// Begins a new blob of at most `limit` bytes. `nonce` keeps apart writers of the same process.
    ///
    /// # Errors
    /// When the temporary file cannot be made.
    pub fn write(&self, limit: u64, nonce: u64) -> Result<BlobWriter, Error> {
        let path = self.root.join("partial").join(format!("{}-{nonce}", std::process::id()));
        let file =
            File::options().write(true).create_new(true).open(&path).map_err(io_error("create", &path))?;
        Ok(BlobWriter {
            root: self.root.clone(),
            path,
            file: Some(file),
            hasher: blake3::Hasher::new(),
            size: 0,
            limit,
        })
    }
}

/// A blob on its way in. Dropped before [`BlobWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    root: PathBuf,
    path: PathBuf,
    file: Option<File>,
    hasher: blake3::Hasher,
    size: u64,
    limit: u64,
}

impl BlobWriter {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the limit is passed or the disk says no.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        self.hasher.update(bytes);
        if let Some(file) = &mut self.file {
            file.write_all(bytes).map_err(io_error("write", &self.path))?;
        }
        Ok(())
    }

    /// Puts the blob in its place and says its digest and size. `wanted`, when given, must be the digest.
    ///
    /// # Errors
    /// When the digest is another or the disk says no; nothing appears then.
    pub fn finish(mut self, wanted: Option<&Digest>) -> Result<(Digest, u64), Error> {
        let digest = Digest::from_bytes(*self.hasher.finalize().as_bytes());
        if let Some(wanted) = wanted
            && *wanted != digest
        {
            return Err(Error::Mismatch { wanted: wanted.clone(), found: digest });
        }
        let blobs = Blobs { root: self.root.clone() };
        let place = blobs.path(&digest);
        let folder = place.parent().unwrap_or(&self.root).to_owned();
        if let Some(file) = self.file.take() {
            file.sync_all().map_err(io_error("write", &self.path))?;
        }
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        fs::rename(&self.path, &place).map_err(io_error("rename", &self.path))?;
        sync_folder(&folder)?;
        sync_folder(&self.root)?;
        Ok((digest, self.size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(|error| match error {
            Error::Io { source, .. } => source,
            other => io::Error::other(other),
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After `finish` the name is gone already; a leftover is cleared by the next `open`.
        fs::remove_file(&self.path).ok();
    }
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error("sync", path))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_same_bytes_are_stored_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let store = |nonce| {
            let mut writer = blobs.write(100, nonce).unwrap();
            writer.push(b"hel").unwrap();
            writer.push(b"lo").unwrap();
            writer.finish(None).unwrap()
        };
        let (digest, size) = store(1);
        assert_eq!((digest.clone(), size), store(2));
        assert_eq!(digest.as_str(), blake3::hash(b"hello").to_hex().as_str());
        let (mut file, size) = blobs.read(&digest).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), size), ("hello", 5));
    }

    #[test]
    fn what_is_refused_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let wanted: Digest = "0".repeat(64).parse().unwrap();
        let mut writer = blobs.write(4, 1).unwrap();
        assert!(matches!(writer.push(b"hello"), Err(Error::TooLarge { limit: 4 })));
        drop(writer);
        let mut writer = blobs.write(100, 2).unwrap();
        writer.push(b"hello").unwrap();
        assert!(matches!(writer.finish(Some(&wanted)), Err(Error::Mismatch { .. })));
        assert!(matches!(blobs.read(&wanted), Err(Error::Missing(_))));
        assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn opening_clears_what_a_crash_left() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writer = blobs.write(100, 1).unwrap();
        writer.push(b"half").unwrap();
        std::mem::forget(writer);
        Blobs::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
    }
}
