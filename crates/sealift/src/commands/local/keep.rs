//! Where what a run made is kept, if anywhere.

use std::path::{Path, PathBuf};

use sealift_pipeline::copy_tree;

use crate::error::Error;

/// How many builds stay in a working directory.
const BUILDS: usize = 2;

/// What becomes of a run's output.
#[derive(Debug, Clone)]
pub(crate) enum Keep {
    Nothing,
    /// It is copied to this directory, which is not there yet.
    New(PathBuf),
    /// It is copied to `builds/ID/output` below this directory, and `latest` points to it.
    Latest(PathBuf),
}

impl Keep {
    pub(super) fn keep(&self, output: &Path, id: &str) -> Result<(), Error> {
        match self {
            Keep::Nothing => Ok(()),
            Keep::New(dir) => copy(output, dir),
            Keep::Latest(dir) => {
                let builds = dir.join("builds");
                copy(output, &builds.join(id).join("output"))?;
                let latest = dir.join("latest");
                let new = dir.join("latest.new");
                let failed = |source| Error::Io { action: "write", path: latest.clone(), source };
                std::fs::remove_file(&new).ok();
                std::os::unix::fs::symlink(Path::new("builds").join(id), &new).map_err(failed)?;
                std::fs::rename(&new, &latest).map_err(failed)?;
                forget(&builds)
            }
        }
    }
}

/// Removes all but the newest builds.
fn forget(builds: &Path) -> Result<(), Error> {
    let io = |action| move |source| Error::Io { action, path: builds.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(builds).map_err(io("read"))? {
        let entry = entry.map_err(io("read"))?;
        let time = entry.metadata().and_then(|metadata| metadata.modified()).map_err(io("read"))?;
        found.push((time, entry.path()));
    }
    found.sort();
    found.reverse();
    for (_, path) in found.iter().skip(BUILDS) {
        std::fs::remove_dir_all(path).map_err(io("remove builds in"))?;
    }
    Ok(())
}

/// The paths that appear while artifacts are copied to a directory that is not there yet. They are no part of the
/// source, though they may lie in it.
pub(super) fn appears(artifacts: &Path) -> Result<Vec<PathBuf>, Error> {
    let io = |source| Error::Io { action: "find", path: artifacts.to_owned(), source };
    let whole = std::path::absolute(artifacts).map_err(io)?;
    let missing = |path: &&Path| !path.try_exists().unwrap_or(true);
    let highest = whole.ancestors().take_while(missing).last().unwrap_or(&whole);
    Ok(vec![highest.to_owned(), part(highest)])
}

/// Where a directory grows before it is there.
fn part(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    dir.with_file_name(name)
}

pub(super) fn must_be_new(artifacts: &Path) -> Result<(), Error> {
    if artifacts.try_exists().unwrap_or(true) {
        return Err(Error::plain(format!("{} is there already; name a new directory", artifacts.display())));
    }
    Ok(())
}

/// Whole or not there: a copy that breaks off does not look like one that has not.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let io = |action| move |source| Error::Io { action, path: to.to_owned(), source };
    let part = part(to);
    match std::fs::remove_dir_all(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("make")(error)),
        _ => {}
    }
    copy_tree(from, &part).map_err(io("copy what was made to"))?;
    std::fs::rename(&part, to).map_err(io("make"))
}
