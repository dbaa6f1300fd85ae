//! The directories of runs in the user's cache, and what runs leave there and in the engine when they are killed.
//!
//! Guarantees: a directory is somebody's as long as its lock is held, whatever the process was called; a run that is
//! alive is never touched; containers and networks go before the directory that tells of them.
//!
//! Layout: `runs/lock` is held while a directory is made or looked for, `runs/<id>/lock` as long as its run lives.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sealift_model::diagnostic::chain;
use sealift_pipeline::{Engine, Leftovers, remove_leftovers, remove_work_dir};

use crate::error::Error;
use crate::state_dir::{hex, random};

const RUNS: &str = "runs";
const LOCK: &str = "lock";

/// A run's own directory; its lock is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// 24 hex digits.
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    _lock: File,
}

/// Where users' caches are kept.
pub(crate) fn cache_dir() -> Result<PathBuf, Error> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("sealift"))
        .ok_or_else(|| Error::plain("neither HOME nor XDG_CACHE_HOME is set"))
}

/// Who a run's containers and networks belong to, by its id.
pub(crate) fn owner(id: &str) -> String {
    format!("local-{id}")
}

impl Place {
    /// Makes a directory for a new run.
    pub(crate) fn make(base: &Path) -> Result<Place, Error> {
        let runs = base.join(RUNS);
        std::fs::create_dir_all(&runs).map_err(failed("make", &runs))?;
        let _making = all_runs(&runs)?;
        let id = hex(&random::<12>()?);
        let dir = runs.join(&id);
        std::fs::create_dir(&dir).map_err(failed("make", &dir))?;
        let lock = open_lock(&dir)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| failed("lock", &dir)(error.into()))?;
        Ok(Place { id, dir, _lock: lock })
    }

    /// Where the run works.
    pub(crate) fn work_dir(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Removes the directory.
    pub(crate) fn remove(self) -> Result<(), Error> {
        remove_work_dir(&self.work_dir()).map_err(failed("remove", &self.dir))?;
        std::fs::remove_dir_all(&self.dir).map_err(failed("remove", &self.dir))
    }
}

/// Runs whose process is gone without having cleaned up; they are ours as long as they are held.
fn abandoned(base: &Path) -> Result<Vec<Place>, Error> {
    let runs = base.join(RUNS);
    let entries = match std::fs::read_dir(&runs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("read", &runs))?,
    };
    let _looking = all_runs(&runs)?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("read", &runs))?;
        let Ok(id) = entry.file_name().into_string() else { continue };
        let ours = id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let dir = entry.path();
        // One that goes away at this moment is no leftover.
        let Ok(lock) = open_lock(&dir) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            found.push(Place { id, dir, _lock: lock });
        }
    }
    Ok(found)
}

/// Removes what abandoned runs left in the engine and in the cache; what happened, for people.
pub(crate) async fn clear_abandoned(engine: &Engine, base: &Path) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    for place in abandoned(base)? {
        let dir = place.dir.display().to_string();
        let result = match remove_leftovers(engine, Leftovers::Owner(&owner(&place.id))).await {
            Ok(_) => place.remove(),
            Err(error) => Err(error.into()),
        };
        said.push(match result {
            Ok(()) => format!("removed what a run left that was killed: {dir}"),
            Err(error) => {
                format!("a run that was killed left something that cannot be removed: {}", chain(&error))
            }
        });
    }
    Ok(said)
}

fn all_runs(runs: &Path) -> Result<File, Error> {
    let lock = open_lock(runs)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed("lock", runs)(error.into()))?;
    Ok(lock)
}

fn open_lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    File::options().create(true).truncate(false).write(true).open(&path).map_err(|source| Error::Io {
        action: "open",
        path,
        source,
    })
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_abandoned() {
        let base = tempfile::tempdir().unwrap();
        assert!(abandoned(base.path()).unwrap().is_empty());
        let (alive, dead) = (Place::make(base.path()).unwrap(), Place::make(base.path()).unwrap());
        let strange = base.path().join("runs/notes");
        std::fs::create_dir(&strange).unwrap();
        let id = dead.id.clone();
        drop(dead);
        let found = abandoned(base.path()).unwrap();
        assert_eq!(found.iter().map(|place| &place.id).collect::<Vec<_>>(), [&id]);
        // As long as one clears it, another leaves it alone.
        assert!(abandoned(base.path()).unwrap().is_empty());
        for place in found {
            place.remove().unwrap();
        }
        assert!(alive.dir.is_dir() && strange.is_dir() && !base.path().join("runs").join(id).is_dir());
    }
}
