//! What a run hands on: its output directory, its source, or the paths that it publishes.
//!
//! Guarantees: what is published lies within the source, whatever links the steps have laid; nothing is followed out of it.
//!
//! It must not know who takes the output. What it reads is written by nobody any more.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::layout;
use crate::source;
use crate::spec::RunSpec;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("there is no {path} in the source")]
    Missing { path: String },
    #[error("{path} leads out of the source")]
    Outside { path: String },
    #[error("cannot copy {path}")]
    Copy {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Where published paths are put.
pub(super) fn place(spec: &RunSpec) -> PathBuf {
    spec.work_dir.join(layout::PUBLISHED)
}

fn output_dir(spec: &RunSpec) -> PathBuf {
    spec.work_dir.join("pipeline/output")
}

pub(super) fn has_output(spec: &RunSpec) -> bool {
    source::has_entries(&output_dir(spec))
}

/// What was published; else the output directory if there is anything in it, else the source.
pub(super) fn output(spec: &RunSpec) -> PathBuf {
    if source::has_entries(&place(spec)) {
        place(spec)
    } else if has_output(spec) {
        output_dir(spec)
    } else {
        layout::source_of(spec)
    }
}

/// Copies these paths below `from` to the same places below `to`, which is made anew.
pub(super) fn publish(from: &Path, to: &Path, paths: &[String]) -> Result<(), Error> {
    let failed = |path: &str| {
        let path = path.to_owned();
        move |source| Error::Copy { path, source }
    };
    source::remove(to).map_err(failed(""))?;
    let mut wanted: Vec<(PathBuf, &String)> = Vec::new();
    for path in paths {
        let parts: Vec<Component<'_>> =
            Path::new(path).components().filter(|part| !matches!(part, Component::CurDir)).collect();
        if parts.iter().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(Error::Outside { path: path.clone() });
        }
        wanted.push((parts.iter().collect(), path));
    }
    // One that lies below another comes with it.
    let paths: Vec<PathBuf> = wanted.iter().map(|(path, _)| path.clone()).collect();
    wanted.dedup_by(|(one, _), (other, _)| one == other);
    wanted.retain(|(path, _)| !paths.iter().any(|other| path != other && path.starts_with(other)));
    std::fs::create_dir_all(to).map_err(failed(""))?;
    for (relative, path) in wanted {
        let found = real(from, &relative).ok_or_else(|| Error::Missing { path: path.clone() })??;
        let target = to.join(&relative);
        let parent = target.parent().unwrap_or(to);
        std::fs::create_dir_all(parent).map_err(failed(path))?;
        if found.is_dir() {
            source::copy(&from.join(&relative), &target, &[], &source::Ignore::default())
                .map_err(failed(path))?;
        } else if found.is_symlink() {
            let link = std::fs::read_link(from.join(&relative)).map_err(failed(path))?;
            std::os::unix::fs::symlink(link, &target).map_err(failed(path))?;
        } else {
            std::fs::copy(from.join(&relative), &target).map_err(failed(path))?;
        }
    }
    Ok(())
}

/// What is at a path whose directories are none of them links; none where nothing is.
fn real(from: &Path, relative: &Path) -> Option<Result<std::fs::FileType, Error>> {
    let mut at = from.to_owned();
    let mut kind = at.symlink_metadata().ok()?.file_type();
    for part in relative.components() {
        if kind.is_symlink() && at != from {
            return Some(Err(Error::Outside { path: relative.display().to_string() }));
        }
        at.push(part);
        kind = at.symlink_metadata().ok()?.file_type();
    }
    let plain = kind.is_dir() || kind.is_file() || kind.is_symlink();
    plain.then_some(Ok(kind))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn publishes_what_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("dist/deep")).unwrap();
        for file in ["dist/a", "dist/deep/b", "x.txt", "left"] {
            fs::write(from.join(file), file).unwrap();
        }
        symlink("/etc", from.join("link")).unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        publish(&from, &to, &names(&["./dist/", "dist/deep", "x.txt", "link"])).unwrap();
        assert_eq!(fs::read_to_string(to.join("dist/deep/b")).unwrap(), "dist/deep/b");
        assert_eq!(fs::read_to_string(to.join("x.txt")).unwrap(), "x.txt");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc"));
        assert!(!to.join("left").is_file());
        publish(&from, &to, &names(&["."])).unwrap();
        assert!(to.join("left").is_file());
        for (path, want) in [
            ("none", "there is no none in the source"),
            ("link/passwd", "link/passwd leads out of the source"),
            ("../to", "../to leads out of the source"),
            ("/etc", "/etc leads out of the source"),
        ] {
            assert_eq!(publish(&from, &to, &names(&[path])).unwrap_err().to_string(), want);
        }
    }
}
