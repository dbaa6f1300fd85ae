//! One cached tree: what is in it, under a digest of that, and how it is taken in and put back.
//!
//! Guarantees: trees with the same names, modes and contents have the same digest; a tree is whole in its place or not
//! there; a file that has not changed since the tree was put back is neither read nor copied again.
//!
//! Sockets, pipes, devices and names that are not UTF-8 are left out and counted.
//!
//! It must not know for whom a tree is kept.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::source::keep_times;

/// The files themselves, in a tree's directory.
pub(super) const DATA: &str = "data";
const INDEX: &str = "index.json";
/// More entries than any tree of dependencies has.
const MOST_ENTRIES: usize = 2_000_000;

/// What a tree holds, by path, in order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) bytes: u64,
    entries: Vec<Entry>,
    /// Left out, for whatever reason.
    #[serde(skip)]
    pub(super) left_out: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: String,
    mode: u32,
    owner: (u32, u32),
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Kind {
    Dir,
    Link { target: String },
    File { size: u64, mtime: (i64, i64), digest: String },
}

impl Index {
    pub(super) fn read(tree: &Path) -> Result<Index, Error> {
        let path = tree.join(INDEX);
        let bytes = fs::read(&path).map_err(Error::at(&path))?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Index { path, source })
    }

    /// Looks at the tree `from`, or at some paths in it only; the digests of files that are as in `base` are taken from
    /// there. `most` is the most bytes that it may have.
    pub(super) fn of(
        from: &Path,
        only: Option<&[String]>,
        base: Option<&Index>,
        most: u64,
    ) -> Result<Index, Error> {
        let known: HashMap<&str, &Entry> = base
            .into_iter()
            .flat_map(|base| &base.entries)
            .map(|entry| (entry.path.as_str(), entry))
            .collect();
        let mut index = Index::default();
        let mut open = Vec::new();
        match only {
            None => open.push(String::new()),
            Some(paths) => index.begin(from, paths, &known, &mut open)?,
        }
        while let Some(dir) = open.pop() {
            let place = from.join(&dir);
            for entry in fs::read_dir(&place).map_err(Error::at(&place))? {
                let entry = entry.map_err(Error::at(&place))?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else {
                    index.left_out += 1;
                    continue;
                };
                let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
                if index.add(&entry.path(), path.clone(), &known)? {
                    open.push(path);
                }
                if index.bytes > most {
                    return Err(Error::TooLarge { most });
                }
            }
        }
        index.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        index.entries.dedup_by(|a, b| a.path == b.path);
        Ok(index)
    }

    /// Adds some paths and the directories above them; those to be opened go to `open`. A path that is not there, or
    /// that a link stands above, is passed over: it might lead out of the tree.
    fn begin(
        &mut self,
        from: &Path,
        paths: &[String],
        known: &HashMap<&str, &Entry>,
        open: &mut Vec<String>,
    ) -> Result<(), Error> {
        for path in paths {
            let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            let mut place = from.to_owned();
            let mut leads = !parts.contains(&"..");
            for (number, part) in parts.iter().enumerate() {
                place.push(part);
                let found = place.symlink_metadata().ok();
                let last = number + 1 == parts.len();
                leads &= found.is_some_and(|found| last || found.is_dir());
            }
            if !leads {
                continue;
            }
            for number in 1..=parts.len() {
                let path = parts[..number].join("/");
                if self.add(&from.join(&path), path.clone(), known)? && number == parts.len() {
                    open.push(path);
                }
            }
        }
        Ok(())
    }

    /// Adds one path; whether it is a directory.
    fn add(&mut self, place: &Path, path: String, known: &HashMap<&str, &Entry>) -> Result<bool, Error> {
        let metadata = fs::symlink_metadata(place).map_err(Error::at(place))?;
        let Some(kind) = kind(place, &path, &metadata, known)? else {
            self.left_out += 1;
            return Ok(false);
        };
        if let Kind::File { size, .. } = &kind {
            self.bytes += size;
        }
        let owner = (metadata.uid(), metadata.gid());
        self.entries.push(Entry { path, mode: metadata.mode() & 0o7777, owner, kind });
        if self.entries.len() > MOST_ENTRIES {
            return Err(Error::TooMany { most: MOST_ENTRIES });
        }
        Ok(metadata.is_dir())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn files(&self) -> usize {
        self.entries.len()
    }

    /// The same for trees that are the same but for their times and owners.
    pub(super) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for entry in &self.entries {
            let (kind, what) = match &entry.kind {
                Kind::Dir => ("dir", ""),
                Kind::Link { target } => ("link", target.as_str()),
                Kind::File { digest, .. } => ("file", digest.as_str()),
            };
            // No part can hold the byte between them.
            let line = format!("{}\0{:o}\0{kind}\0{what}\0", entry.path, entry.mode);
            hasher.update(line.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Makes the directory `tree`, which must not be there, from the files in `from`. Each is linked from where it is
    /// there already and unchanged: in one of `near` (directories that nobody will write to any more).
    pub(super) fn build(&self, tree: &Path, from: &Path, near: &[PathBuf]) -> Result<(), Error> {
        let data = tree.join(DATA);
        fs::create_dir_all(&data).map_err(Error::at(&data))?;
        for entry in &self.entries {
            let to = data.join(&entry.path);
            let made = match &entry.kind {
                Kind::Dir => fs::create_dir(&to),
                Kind::Link { target } => symlink(target, &to),
                Kind::File { .. } => self.take(entry, &from.join(&entry.path), &to, near),
            };
            made.map_err(Error::at(&to))?;
            if !matches!(entry.kind, Kind::File { .. }) {
                own(&to, entry.owner).map_err(Error::at(&to))?;
            }
        }
        // The deepest first, so that none becomes unwritable too early.
        for entry in self.entries.iter().rev().filter(|entry| entry.kind == Kind::Dir) {
            let to = data.join(&entry.path);
            let from = from.join(&entry.path);
            fs::set_permissions(&to, fs::Permissions::from_mode(entry.mode)).map_err(Error::at(&to))?;
            keep_times(&from, &to).map_err(Error::at(&to))?;
        }
        let path = tree.join(INDEX);
        let text = serde_json::to_vec(self).map_err(|source| Error::Index { path: path.clone(), source })?;
        fs::write(&path, text).map_err(Error::at(&path))
    }

    fn take(&self, entry: &Entry, from: &Path, to: &Path, near: &[PathBuf]) -> io::Result<()> {
        for dir in near {
            let candidate = dir.join(&entry.path);
            let same = fs::symlink_metadata(&candidate).is_ok_and(|metadata| is_as(entry, &metadata));
            if same && fs::hard_link(&candidate, to).is_ok() {
                return Ok(());
            }
        }
        fs::copy(from, to)?;
        own(to, entry.owner)?;
        // Behind the owner, whose change takes some of it away.
        fs::set_permissions(to, fs::Permissions::from_mode(entry.mode))?;
        keep_times(from, to)
    }
}

/// What an entry is; none if it is nothing that is kept.
fn kind(
    place: &Path,
    path: &str,
    metadata: &fs::Metadata,
    known: &HashMap<&str, &Entry>,
) -> Result<Option<Kind>, Error> {
    if metadata.is_dir() {
        return Ok(Some(Kind::Dir));
    }
    if metadata.is_symlink() {
        let target = fs::read_link(place).map_err(Error::at(place))?;
        return Ok(target.to_str().map(|target| Kind::Link { target: target.to_owned() }));
    }
    if !metadata.is_file() {
        return Ok(None);
    }
    if let Some(entry) = known.get(path).filter(|entry| is_as(entry, metadata)) {
        return Ok(Some(entry.kind.clone()));
    }
    let mut hasher = blake3::Hasher::new();
    let file = fs::File::open(place).map_err(Error::at(place))?;
    hasher.update_reader(file).map_err(Error::at(place))?;
    let digest = hasher.finalize().to_hex().to_string();
    let mtime = (metadata.mtime(), metadata.mtime_nsec());
    Ok(Some(Kind::File { size: metadata.len(), mtime, digest }))
}

/// Whether a file is as an entry says, as far as can be seen without reading it.
fn is_as(entry: &Entry, metadata: &fs::Metadata) -> bool {
    let Kind::File { size, mtime, .. } = &entry.kind else { return false };
    metadata.is_file()
        && metadata.len() == *size
        && (metadata.mtime(), metadata.mtime_nsec()) == *mtime
        && metadata.mode() & 0o7777 == entry.mode
        && (metadata.uid(), metadata.gid()) == entry.owner
}

/// Gives a path an owner, as far as we may.
fn own(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}
