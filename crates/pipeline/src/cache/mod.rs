//! What a pipeline leaves for its next run: the directory `$WERCKER_CACHE_DIR`, and paths that the file names.
//!
//! A store holds trees by the digest of what is in them, so that the same content is there once, whoever keeps it; and
//! names that point to trees: a project's branches and keys. A run gets the tree of its own branch, else of a branch
//! that it falls back to, else the newest of its project.
//!
//! Guarantees: a kept tree is never written to by a run that uses it; what is in use is not removed; the store stays
//! below its limit, the longest unused goes first; several processes may use one store; one that is killed leaves
//! nothing that is half there.
//!
//! It must not know what the trees are for.

mod tree;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use self::tree::{DATA, Index};
use crate::source::{self, Ignore};

const LOCK: &str = "lock";
const REFS: &str = "refs";
const TREES: &str = "trees";
/// Of a tree that is being made.
const NEW: &str = "new-";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {}", path.display())]
    Files {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not what was written", path.display())]
    Index {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("it is larger than {} MB", most / 1_000_000)]
    TooLarge { most: u64 },
    #[error("it has more than {most} files")]
    TooMany { most: usize },
    #[error("the work on the cache broke off")]
    Task(#[source] tokio::task::JoinError),
}

impl Error {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Files { path, source }
    }
}

/// Where a run's cache comes from and goes to.
#[derive(Debug, Clone)]
pub struct CacheSpec {
    /// The store's directory; made if it is not there.
    pub store: PathBuf,
    /// Whose caches they are; nobody sees another's.
    pub project: String,
    pub branch: String,
    /// Branches whose cache is taken where the run's own has none, in this order, and then the newest of any branch.
    /// These branches themselves take no other's.
    pub fallback: Vec<String>,
    /// The most bytes of one cache; a larger one is not kept.
    pub most: u64,
    /// The most bytes of the store.
    pub limit: u64,
    /// Whether a run that failed keeps what it left.
    pub keep_on_failure: bool,
}

impl CacheSpec {
    /// As wercker did it: at most 1,000 MB a cache, kept by failed runs as well.
    #[must_use]
    pub fn new(store: PathBuf, project: &str, branch: &str) -> CacheSpec {
        CacheSpec {
            store,
            project: project.to_owned(),
            branch: branch.to_owned(),
            fallback: ["main", "master"].map(str::to_owned).to_vec(),
            most: 1_000_000_000,
            limit: 10_000_000_000,
            keep_on_failure: true,
        }
    }
}

/// A name in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Name {
    pub(crate) project: String,
    /// `branch NAME` or `key KEY`.
    pub(crate) name: String,
}

/// A name and what it points to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ref {
    #[serde(flatten)]
    name: Name,
    tree: String,
    /// Milliseconds since 1970, when it was last taken or kept.
    used: u64,
}

pub(crate) struct Store {
    dir: PathBuf,
}

/// A tree that is not removed as long as this is held.
#[derive(Debug)]
pub(crate) struct Held {
    /// The name it was found by.
    pub(crate) name: String,
    tree: PathBuf,
    _lock: fs::File,
}

/// What was kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Sockets and the like.
    pub(crate) left_out: u64,
    /// Whether the store had it already.
    pub(crate) known: bool,
}

impl Held {
    /// The tree, which nobody may write to.
    pub(crate) fn data(&self) -> PathBuf {
        self.tree.join(DATA)
    }

    /// Puts a copy of it at `to`, into what is there.
    pub(crate) fn copy(&self, to: &Path) -> Result<(), Error> {
        // Within, so that it is on the same file system even if `to` is a view.
        let beside = to.join(".sealift-restored");
        let files = || Error::at(to);
        source::remove(&beside).map_err(files())?;
        source::copy(&self.data(), &beside, &[], &Ignore::default()).map_err(files())?;
        source::merge(&beside, to, source::Clash::Replace).map_err(files())
    }
}

impl Store {
    pub(crate) fn open(dir: &Path) -> Result<Store, Error> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for path in [dir.to_owned(), dir.join(REFS), dir.join(TREES)] {
            builder.create(&path).map_err(Error::at(&path))?;
        }
        Ok(Store { dir: dir.to_owned() })
    }

    /// The tree that the first of these names points to; a name that ends in `*` is the newest of all that begin so.
    pub(crate) fn find(&self, project: &str, names: &[String]) -> Result<Option<Held>, Error> {
        let _lock = self.lock()?;
        for name in names {
            let mut found = match name.strip_suffix('*') {
                None => self.read(&self.path(&Name { project: project.to_owned(), name: name.clone() })),
                Some(start) => {
                    let all = self.refs()?.into_iter().map(|(_, found)| found);
                    all.filter(|found| found.name.project == project && found.name.name.starts_with(start))
                        .max_by_key(|found| found.used)
                }
            };
            let Some(found) = &mut found else { continue };
            let tree = self.tree(&found.tree);
            let path = tree.join(LOCK);
            // A name whose tree is gone is as good as none.
            let Ok(lock) = fs::File::open(&path) else { continue };
            lock.lock_shared().map_err(Error::at(&path))?;
            found.used = now();
            self.write(found)?;
            return Ok(Some(Held { name: found.name.name.clone(), tree, _lock: lock }));
        }
        Ok(None)
    }

    /// Keeps the tree `from`, or some paths in it only, under a name. `base` is what it began as, and `near` are directories with the same paths
    /// from which unchanged files may be linked. An empty tree is not kept: none if it was one.
    pub(crate) fn keep(
        &self,
        name: Name,
        from: &Path,
        only: Option<&[String]>,
        base: Option<&Held>,
        near: &[PathBuf],
        most: u64,
    ) -> Result<Option<Kept>, Error> {
        let known = base.map(|held| Index::read(&held.tree)).transpose()?;
        let index = Index::of(from, only, known.as_ref(), most)?;
        if index.is_empty() {
            return Ok(None);
        }
        let digest = index.digest();
        let tree = self.tree(&digest);
        let mut kept =
            Kept { files: index.files(), bytes: index.bytes, left_out: index.left_out, known: true };
        let lock = self.lock()?;
        if !tree.join(LOCK).is_file() {
            kept.known = false;
            // Not under the lock: it may take long. Two that make the same tree do no harm.
            drop(lock);
            let new = self.dir.join(TREES).join(format!("{NEW}{}-{}", std::process::id(), now()));
            let mut near = near.to_vec();
            near.extend(base.map(Held::data));
            let built = index.build(&new, from, &near).and_then(|()| {
                fs::write(new.join(LOCK), "").map_err(Error::at(&new))?;
                let _lock = self.lock()?;
                if tree.join(LOCK).is_file() {
                    Ok(())
                } else {
                    fs::rename(&new, &tree).map_err(Error::at(&tree))
                }
            });
            source::remove(&new).map_err(Error::at(&new))?;
            built?;
            let _lock = self.lock()?;
            self.write(&Ref { name, tree: digest, used: now() })?;
        } else {
            self.write(&Ref { name, tree: digest, used: now() })?;
        }
        Ok(Some(kept))
    }

    /// Removes the names that were not used for the longest time until what is left is at most `limit` bytes, and the
    /// trees that no name points to; how many trees went.
    pub(crate) fn bound(&self, limit: u64) -> Result<usize, Error> {
        let _lock = self.lock()?;
        let mut refs = self.refs()?;
        refs.sort_by_key(|(_, found)| std::cmp::Reverse(found.used));
        let mut wanted: Vec<String> = Vec::new();
        let mut bytes = 0;
        for (path, found) in refs {
            if wanted.contains(&found.tree) {
                continue;
            }
            let size = Index::read(&self.tree(&found.tree)).map_or(u64::MAX, |index| index.bytes);
            if size <= limit.saturating_sub(bytes) {
                bytes += size;
                wanted.push(found.tree);
            } else {
                fs::remove_file(&path).map_err(Error::at(&path))?;
            }
        }
        let mut removed = 0;
        let trees = self.dir.join(TREES);
        for entry in fs::read_dir(&trees).map_err(Error::at(&trees))? {
            let path = entry.map_err(Error::at(&trees))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if wanted.contains(&name) || name.starts_with(NEW) && is_young(&path) {
                continue;
            }
            // One that a run uses stays until the next time.
            let lock = fs::File::open(path.join(LOCK));
            if lock.is_ok_and(|lock| lock.try_lock().is_err()) {
                continue;
            }
            source::remove(&path).map_err(Error::at(&path))?;
            removed += 1;
        }
        Ok(removed)
    }

    fn lock(&self) -> Result<fs::File, Error> {
        let path = self.dir.join(LOCK);
        let file = fs::File::create(&path).map_err(Error::at(&path))?;
        file.lock().map_err(Error::at(&path))?;
        Ok(file)
    }

    fn tree(&self, digest: &str) -> PathBuf {
        self.dir.join(TREES).join(digest)
    }

    fn path(&self, name: &Name) -> PathBuf {
        let digest = blake3::hash(format!("{}\0{}", name.project, name.name).as_bytes());
        self.dir.join(REFS).join(format!("{}.json", digest.to_hex()))
    }

    fn refs(&self) -> Result<Vec<(PathBuf, Ref)>, Error> {
        let dir = self.dir.join(REFS);
        let mut refs = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::at(&dir))? {
            let path = entry.map_err(Error::at(&dir))?.path();
            refs.extend(self.read(&path).map(|found| (path, found)));
        }
        Ok(refs)
    }

    /// One that cannot be read is as good as none: a cache can be made again.
    fn read(&self, path: &Path) -> Option<Ref> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write(&self, entry: &Ref) -> Result<(), Error> {
        let path = self.path(&entry.name);
        let text = serde_json::to_vec(entry).map_err(|source| Error::Index { path: path.clone(), source })?;
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(Error::at(&path))
    }
}

/// Whether something that is being made may still be so.
fn is_young(path: &Path) -> bool {
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(3600);
    let made = fs::metadata(path).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < LONGEST))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
