//! Unpacks a step's archive, whoever made it.
//!
//! Guarantees: nothing is written outside of the target and no device or fifo is made; a symbolic link leads to a
//! place in the archive; bytes and entries are bounded, whatever they were compressed to.
//!
//! It must not know where the archive came from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use tar::EntryType;

/// More than any step of scripts holds; some carry a program.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
const MAX_ENTRIES: usize = 20_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is no tar.gz")]
    Read(#[source] io::Error),
    #[error("its entry {entry} is refused: {reason}")]
    Refused { entry: String, reason: &'static str },
    #[error("it holds more than {} MiB", MAX_BYTES / 1024 / 1024)]
    TooLarge,
    #[error("it holds more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Unpacks `archive` to `target`, which must not be there. A single directory at the top is left out.
pub(crate) fn unpack(archive: &File, target: &Path) -> Result<(), Error> {
    let mut aside = target.as_os_str().to_owned();
    aside.push(".unpacking");
    let aside = PathBuf::from(aside);
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    fs::create_dir_all(&aside).map_err(write(&aside))?;
    entries(archive, &aside)?;
    let top = only_directory(&aside).map_err(write(&aside))?;
    fs::rename(top.as_deref().unwrap_or(&aside), target).map_err(write(target))?;
    if top.is_some() {
        fs::remove_dir(&aside).map_err(write(&aside))?;
    }
    Ok(())
}

fn entries(archive: &File, root: &Path) -> Result<(), Error> {
    let mut archive = archive;
    archive.seek(SeekFrom::Start(0)).map_err(Error::Read)?;
    let mut tar = tar::Archive::new(GzDecoder::new(io::BufReader::new(archive)).take(MAX_BYTES + 1));
    let mut left = MAX_BYTES;
    // Last, so that nothing is written through one of them.
    let mut links = Vec::new();
    for (number, entry) in tar.entries().map_err(Error::Read)?.enumerate() {
        if number >= MAX_ENTRIES {
            return Err(Error::TooMany);
        }
        let mut entry = entry.map_err(Error::Read)?;
        let name = entry.path().map_err(Error::Read)?.into_owned();
        let refuse = |reason| Error::Refused { entry: name.display().to_string(), reason };
        let inner = inner(&name).ok_or_else(|| refuse("it leads out of the archive"))?;
        let path = root.join(&inner);
        let write = |source| Error::Write { path: path.clone(), source };
        let parent = path.parent().unwrap_or(root);
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => {}
            EntryType::Directory => fs::create_dir_all(&path).map_err(write)?,
            EntryType::Regular | EntryType::Continuous => {
                fs::create_dir_all(parent).map_err(write)?;
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
                let mut file = create(&path, executable).map_err(write)?;
                let copied = io::copy(&mut entry.by_ref().take(left + 1), &mut file).map_err(Error::Read)?;
                left = left.checked_sub(copied).ok_or(Error::TooLarge)?;
            }
            EntryType::Link => {
                let to = entry.link_name().map_err(Error::Read)?.unwrap_or_default();
                let from = self::inner(&to).ok_or_else(|| refuse("it is a link out of the archive"))?;
                fs::create_dir_all(parent).map_err(write)?;
                let copied = fs::copy(root.join(from), &path).map_err(write)?;
                left = left.checked_sub(copied).ok_or(Error::TooLarge)?;
            }
            EntryType::Symlink => {
                let to = entry.link_name().map_err(Error::Read)?.unwrap_or_default().into_owned();
                if !stays(&inner, &to) {
                    return Err(refuse("it is a link out of the archive"));
                }
                links.push((path, to));
            }
            _ => return Err(refuse("it is neither file, directory nor link")),
        }
    }
    for (path, to) in links {
        let write = |source| Error::Write { path: path.clone(), source };
        fs::create_dir_all(path.parent().unwrap_or(root)).map_err(write)?;
        symlink(to, &path).map_err(write)?;
    }
    Ok(())
}

fn create(path: &Path, executable: bool) -> io::Result<File> {
    let mode = if executable { 0o755 } else { 0o644 };
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)
}

/// A name without `.`; nothing for one that is absolute or climbs.
fn inner(name: &Path) -> Option<PathBuf> {
    let mut inner = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => inner.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(inner)
}

/// Whether a symbolic link at `link` leads to a place in the archive. It may climb only at its start, where what it
/// climbs through is known to be directories: behind another link nobody knows.
fn stays(link: &Path, to: &Path) -> bool {
    let depth = link.components().count().saturating_sub(1);
    let climbs = to.components().take_while(|c| matches!(c, Component::ParentDir | Component::CurDir));
    let climbed = climbs.clone().filter(|c| matches!(c, Component::ParentDir)).count();
    let mut rest = to.components().skip(climbs.count());
    climbed <= depth && rest.all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

/// The directory that is all there is in `dir`.
fn only_directory(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut entries = fs::read_dir(dir)?;
    match (entries.next().transpose()?, entries.next()) {
        (Some(entry), None) if entry.file_type()?.is_dir() => Ok(Some(entry.path())),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use flate2::write::GzEncoder;

    use super::*;

    /// An archive of entries as they are named, even where `tar` itself would not write such a name.
    fn archive(entries: &[(EntryType, &str, &str)]) -> File {
        let mut tar =
            tar::Builder::new(GzEncoder::new(tempfile::tempfile().unwrap(), flate2::Compression::fast()));
        for (kind, name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_size(0);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content.as_bytes());
            } else {
                header.set_size(content.len() as u64);
            }
            if *kind == EntryType::GNUSparse {
                header.as_gnu_mut().unwrap().set_real_size(0);
            }
            header.set_cksum();
            let body = if header.size().unwrap() > 0 { content.as_bytes() } else { &[] };
            tar.append(&header, body).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn unpacks_with_and_without_a_top() {
        use EntryType::{Directory, Link, Regular, Symlink};
        let dir = tempfile::tempdir().unwrap();
        let with = archive(&[
            (Directory, "top/", ""),
            (Regular, "top/run.sh", "run"),
            (Symlink, "top/bin/tool", "../lib/tool"),
            (Regular, "top/lib/tool", "tool"),
            (Link, "top/again", "top/run.sh"),
        ]);
        let without = archive(&[(Regular, "./run.sh", "run"), (Regular, "lib/tool", "tool")]);
        for (name, archive) in [("with", with), ("without", without)] {
            let target = dir.path().join(name);
            unpack(&archive, &target).unwrap();
            assert_eq!(fs::read_to_string(target.join("run.sh")).unwrap(), "run", "{name}");
            assert_eq!(fs::read_to_string(target.join("lib/tool")).unwrap(), "tool", "{name}");
        }
        assert_eq!(fs::read_to_string(dir.path().join("with/bin/tool")).unwrap(), "tool");
        assert_eq!(fs::read_to_string(dir.path().join("with/again")).unwrap(), "run");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something is left aside");
    }

    #[test]
    fn refuses_what_leads_out() {
        use EntryType::{Block, Char, Fifo, Link, Regular, Symlink};
        let long = "x/".repeat(30) + "a";
        for entries in [
            vec![(Regular, "../x", "x")],
            vec![(Regular, "a/../../x", "x")],
            vec![(Regular, "/etc/x", "x")],
            vec![(Symlink, "a", "/etc/passwd")],
            vec![(Symlink, "a", "../x")],
            vec![(Symlink, "a/b", "c/../../x")],
            vec![(Link, "a", "../x")],
            vec![(Link, "a", "/etc/passwd")],
            vec![(Fifo, "a", "")],
            vec![(Char, "a", "")],
            vec![(Block, "a", "")],
            vec![(EntryType::GNUSparse, "a", "")],
            // What would be written through a link finds a directory in its place.
            vec![(Symlink, "a", "b"), (Regular, "a/x", "x")],
        ] {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("step");
            assert!(unpack(&archive(&entries), &target).is_err(), "{entries:?}");
            assert!(!target.is_dir(), "{entries:?}");
            assert!(!dir.path().join("x").is_file(), "{entries:?}");
        }
        assert!(stays(Path::new(&long), Path::new("../../x")));
        assert!(!stays(Path::new("p/q/r/b"), Path::new("s/../..")));
    }

    #[test]
    fn refuses_what_is_no_archive_and_what_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        fs::write(&text, "<html>").unwrap();
        assert!(matches!(unpack(&File::open(&text).unwrap(), &dir.path().join("a")), Err(Error::Read(_))));
        let whole = archive(&[(EntryType::Regular, "run.sh", &"x".repeat(10_000))]);
        let length = whole.metadata().unwrap().len();
        whole.set_len(length - 20).unwrap();
        assert!(unpack(&whole, &dir.path().join("b")).is_err());
    }
}
