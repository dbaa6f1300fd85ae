//! Packages on this machine: fetched, checked, unpacked, each in a folder of its own that appears whole or not at all.
//!
//! Nothing is unpacked whose digest or signature does not fit, or that was signed under another name. A folder that is
//! there has passed these checks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use sealift_client::Client;
use sealift_model::{Package, ProjectName};
use sealift_package::archive::{self, Limits, UNITS};
use sealift_package::blobs::{self, Blobs};
use sealift_package::signing::{self, PublicKey};

/// Releases of a project that stay on the machine besides those in use, for a rollback without a transfer.
const KEPT: usize = 5;

/// Why a package is not on this machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot fetch package {package}")]
    Fetch { package: String, source: sealift_client::Error },
    #[error("the transfer of package {package} broke off")]
    Transfer { package: String, source: io::Error },
    #[error("cannot keep package {package}")]
    Store { package: String, source: blobs::Error },
    #[error("package {package} is refused")]
    Signature { package: String, source: signing::Error },
    #[error("cannot unpack package {package}")]
    Unpack { package: String, source: archive::Error },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the work was cut short")]
    Cut(#[source] tokio::task::JoinError),
}

impl Error {
    /// Whether another try may succeed. Bytes that do not fit their signature never will.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Error::Fetch { source, .. } => source.retryable(),
            Error::Transfer { .. } | Error::Io { .. } | Error::Cut(_) => true,
            Error::Store { source, .. } => matches!(source, blobs::Error::Io { .. }),
            Error::Unpack { source, .. } => matches!(source, archive::Error::Io { .. }),
            Error::Signature { .. } => false,
        }
    }
}

/// The machine's folder of releases. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Releases {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    partial: PathBuf,
    downloads: Blobs,
    trusted: PublicKey,
    client: Client,
    nonce: AtomicU64,
}

impl Releases {
    /// Opens the folder and clears what a crash left half done.
    ///
    /// # Errors
    /// When the folder cannot be made or cleared.
    pub fn open(root: PathBuf, trusted: PublicKey, client: Client) -> Result<Self, Error> {
        let partial = root.join(".partial");
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { action: "clear", path: partial, source: error });
            }
            _ => {}
        }
        fs::create_dir_all(&partial).map_err(io_error("make", &partial))?;
        let downloads = Blobs::open(partial.join("downloads"))
            .map_err(|source| Error::Store { package: "downloads".into(), source })?;
        let inner = Inner { root, partial, downloads, trusted, client, nonce: AtomicU64::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where the package's files are or will be. The digest is part of the name, so two builds of one commit differ.
    #[must_use]
    pub fn path(&self, package: &Package) -> PathBuf {
        let digest = &package.digest.as_str()[..12];
        self.inner.root.join(package.name.project.as_str()).join(format!("{}-{digest}", package.name.commit))
    }

    /// The folder of the package's files, fetched if they are not there yet.
    ///
    /// # Errors
    /// See [`Error`]; the folder is not there then.
    pub async fn ensure(&self, package: &Package) -> Result<PathBuf, Error> {
        let place = self.path(package);
        if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
            return Ok(place);
        }
        let shown = || package.name.to_string();
        let nonce = self.inner.nonce.fetch_add(1, Ordering::Relaxed);
        let stored = |source| Error::Store { package: shown(), source };
        let mut stream = self
            .inner
            .client
            .bytes(&format!("/v1/blobs/{}", package.digest))
            .await
            .map_err(|source| Error::Fetch { package: shown(), source })?;
        let mut writer = self.inner.downloads.write(package.size, nonce).map_err(stored)?;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|source| Error::Transfer { package: shown(), source })?;
            writer.push(&chunk).map_err(stored)?;
        }
        let (this, package) = (self.clone(), package.clone());
        let work = move || {
            writer
                .finish(Some(&package.digest))
                .map_err(|source| Error::Store { package: package.name.to_string(), source })?;
            this.install(&package, nonce)
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::Cut)?
    }

    fn install(&self, package: &Package, nonce: u64) -> Result<PathBuf, Error> {
        let shown = || package.name.to_string();
        let archive = self.inner.downloads.path(&package.digest);
        let open = || File::open(&archive).map_err(io_error("open", &archive));
        let statement = Package::statement(&package.name, &package.digest);
        let checked = self.inner.trusted.verify(open()?, &package.signature, &statement);
        if let Err(source) = checked {
            fs::remove_file(&archive).ok();
            return Err(Error::Signature { package: shown(), source });
        }
        let partial = self.inner.partial.join(format!("tree-{nonce}"));
        fs::create_dir(&partial).map_err(io_error("make", &partial))?;
        let place = self.path(package);
        let outcome = archive::unpack(open()?, &partial, Limits::default())
            .map_err(|source| Error::Unpack { package: shown(), source })
            .and_then(|()| put_in_place(&partial, &place));
        if outcome.is_err() {
            fs::remove_dir_all(&partial).ok();
        }
        fs::remove_file(&archive).ok();
        outcome.map(|()| place)
    }

    /// The commit's unit files as they are in the signed archive.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn unit_text(&self, package: &Package, unit: &str) -> Result<Option<String>, Error> {
        let path = self.path(package).join(UNITS).join(unit);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { action: "read", path, source }),
        }
    }

    /// Removes all but the newest releases of a project and those in use.
    ///
    /// # Errors
    /// When the folder cannot be read or cleared.
    pub fn prune(&self, project: &ProjectName, in_use: &[PathBuf]) -> Result<(), Error> {
        let folder = self.inner.root.join(project.as_str());
        let mut by_age = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
            let path = entry.map_err(io_error("read", &folder))?.path();
            let made =
                fs::metadata(&path).and_then(|found| found.modified()).map_err(io_error("read", &path))?;
            if !in_use.contains(&path) {
                by_age.insert((made, path.clone()), path);
            }
        }
        let surplus = by_age.len().saturating_sub(KEPT);
        for (number, path) in by_age.into_values().take(surplus).enumerate() {
            // Out of sight first: a folder that is there is a whole release.
            let nonce = self.inner.nonce.fetch_add(1, Ordering::Relaxed);
            let hidden = self.inner.partial.join(format!("old-{nonce}-{number}"));
            fs::rename(&path, &hidden).map_err(io_error("move", &path))?;
            fs::remove_dir_all(&hidden).map_err(io_error("remove", &hidden))?;
        }
        Ok(())
    }
}

fn put_in_place(partial: &Path, place: &Path) -> Result<(), Error> {
    let folder = place.parent().unwrap_or(place);
    // A unit may run as any user; what others must not read lies elsewhere.
    fs::set_permissions(partial, fs::Permissions::from_mode(0o755)).map_err(io_error("open up", partial))?;
    fs::create_dir_all(folder).map_err(io_error("make", folder))?;
    // All of the tree is on the disk before its name is.
    let tree = File::open(partial).map_err(io_error("open", partial))?;
    rustix::fs::syncfs(&tree).map_err(|error| Error::Io {
        action: "sync",
        path: partial.to_owned(),
        source: error.into(),
    })?;
    fs::rename(partial, place).map_err(io_error("rename", partial))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
