//! Secrets of projects: one file a project, `<root>/<project>.json`, for the owner alone.
//!
//! Guarantees: a file is whole or as it was before; a value is in these files and nowhere else, and no error tells one.
//!
//! It must not know who asks: the API says who is given a value.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealift_model::{ProjectName, SecretName, SecretValue, Timestamp};
use serde::{Deserialize, Serialize};

/// Secrets that one project may have.
const COUNT: usize = 100;
/// Bytes of one project's file. All its values go over the API in one answer.
const FILE: usize = 8 << 20;
/// What is being written. No project is named like that.
const PARTIAL: &str = ".partial";

/// Why secrets could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// What exactly does not fit stays unsaid: the parser's words may quote a value.
    #[error("{} is damaged at line {line}, column {column}", path.display())]
    Damaged { path: PathBuf, line: usize, column: usize },
    #[error("cannot write secrets as JSON")]
    Json(#[source] serde_json::Error),
    #[error("{project} has no secret {name}")]
    Missing { project: ProjectName, name: SecretName },
    #[error(
        "{project} has as many secrets as it may have, {COUNT} or {} MiB in all; remove some first",
        FILE >> 20
    )]
    Full { project: ProjectName },
}

/// One secret, as it is in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Secret {
    pub(crate) value: SecretValue,
    pub(crate) changed_at: Timestamp,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    secrets: BTreeMap<SecretName, Secret>,
}

/// All secrets below a folder. Its methods block on the disk.
#[derive(Debug)]
pub(crate) struct Secrets {
    root: PathBuf,
    /// Held by whoever changes a file. Who only reads finds a file as it was before or after.
    changing: Mutex<()>,
}

impl Secrets {
    /// Makes the folder if it is not there, closes it to others, and removes what a crash cut short.
    pub(crate) fn open(root: PathBuf) -> Result<Self, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.and_then(|()| fs::set_permissions(&root, Permissions::from_mode(0o700)))
            .map_err(|source| Error::Io { action: "make", path: root.clone(), source })?;
        let secrets = Self { root, changing: Mutex::default() };
        remove_file(secrets.root.join(PARTIAL))?;
        Ok(secrets)
    }

    /// Sets one secret, from now on.
    pub(crate) fn set(
        &self,
        project: &ProjectName,
        name: SecretName,
        value: SecretValue,
        changed_at: Timestamp,
    ) -> Result<(), Error> {
        let _turn = self.turn();
        let mut secrets = self.all(project)?;
        secrets.insert(name, Secret { value, changed_at });
        self.write(project, secrets)
    }

    /// Removes one secret.
    pub(crate) fn remove(&self, project: &ProjectName, name: &SecretName) -> Result<(), Error> {
        let _turn = self.turn();
        let mut secrets = self.all(project)?;
        if secrets.remove(name).is_none() {
            return Err(Error::Missing { project: project.clone(), name: name.clone() });
        }
        self.write(project, secrets)
    }

    /// The secrets of a project; none if nobody gave it any.
    pub(crate) fn all(&self, project: &ProjectName) -> Result<BTreeMap<SecretName, Secret>, Error> {
        let path = self.path(project);
        let mut bytes = Vec::new();
        // A larger file is not ours, and fails to parse.
        let read = File::open(&path).and_then(|file| file.take(FILE as u64).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(Error::Io { action: "read", path, source }),
        }
        let content = serde_json::from_slice::<Content>(&bytes);
        let content =
            content.map_err(|error| Error::Damaged { path, line: error.line(), column: error.column() })?;
        Ok(content.secrets)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, project: &ProjectName) -> PathBuf {
        self.root.join(format!("{project}.json"))
    }

    fn write(&self, project: &ProjectName, secrets: BTreeMap<SecretName, Secret>) -> Result<(), Error> {
        let path = self.path(project);
        if secrets.is_empty() {
            remove_file(path)?;
        } else {
            let count = secrets.len();
            let bytes = serde_json::to_vec(&Content { secrets }).map_err(Error::Json)?;
            if count > COUNT || bytes.len() > FILE {
                return Err(Error::Full { project: project.clone() });
            }
            let partial = self.root.join(PARTIAL);
            // An earlier write may have failed half-way. A new file is nobody else's to read from its first byte on.
            remove_file(partial.clone())?;
            let write = || {
                let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                fs::rename(&partial, &path)
            };
            if let Err(source) = write() {
                fs::remove_file(&partial).ok();
                return Err(Error::Io { action: "write", path, source });
            }
        }
        let synced = File::open(&self.root).and_then(|folder| folder.sync_all());
        synced.map_err(|source| Error::Io { action: "sync", path: self.root.clone(), source })
    }
}

/// Removes a file that need not be there.
fn remove_file(path: PathBuf) -> Result<(), Error> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_told_without_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::open(dir.path().join("secrets")).unwrap();
        let project = "hello".parse().unwrap();
        for text in ["geheim", "{\"secrets\": \"geheim\"}", "{\"secrets\": {\"A\": \"geheim\"}}"] {
            fs::write(dir.path().join("secrets/hello.json"), text).unwrap();
            let error = secrets.all(&project).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains("hello.json") && !said.contains("geheim"), "{said}");
            // And it is not written over.
            assert!(secrets.set(&project, "B".parse().unwrap(), value("b"), Timestamp(1)).is_err());
            assert_eq!(fs::read_to_string(dir.path().join("secrets/hello.json")).unwrap(), text);
        }
    }

    #[test]
    fn what_a_crash_cut_short_is_gone_and_hinders_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("secrets");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join(PARTIAL), "geheim").unwrap();
        let secrets = Secrets::open(root.clone()).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(root.join(PARTIAL), "geheim").unwrap();
        let project = "hello".parse().unwrap();
        secrets.set(&project, "A".parse().unwrap(), value("a"), Timestamp(1)).unwrap();
        assert_eq!(secrets.all(&project).unwrap().len(), 1);
        let mode = fs::metadata(root.join("hello.json")).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, fs::read_dir(&root).unwrap().count()), (0o600, 1));
    }

    fn value(text: &str) -> SecretValue {
        SecretValue::try_from(text.to_owned()).unwrap()
    }
}
