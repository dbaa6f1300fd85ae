//! Folders as archives: tar, compressed by zstd when it is to be stored or sent.
//!
//! Packing is deterministic: entries sorted by name, owner 0, time 0, so the same tree gives the same bytes.
//! Unpacking trusts nothing: names that are absolute or climb out, links that lead out, devices, fifos, entries below
//! a link, more bytes or entries than allowed are refused, and the destination holds nothing the caller did not ask for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

/// Where a package keeps the commit's unit files, beside what the pipeline made.
pub const UNITS: &str = ".sealift/units";

/// Why a folder could not be packed or an archive not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    #[error("the archive's entry {entry:?} is refused: {reason}")]
    Refused { entry: String, reason: &'static str },
    #[error("the archive holds more than the {limit} {what} that are allowed")]
    TooLarge { limit: u64, what: &'static str },
    #[error("{0:?} is reserved for Sealift's own files and cannot be part of a pipeline's output")]
    Reserved(String),
}

/// What an archive may hold at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    pub entries: u64,
}

impl Default for Limits {
    /// The reference's 5,000 MB for artifacts; a million entries.
    fn default() -> Self {
        Self { bytes: 5_000_000_000, entries: 1_000_000 }
    }
}

/// Writes the folder `tree`, and `units` below [`UNITS`], as a compressed archive.
///
/// # Errors
/// When something cannot be read or written, or the tree holds an entry that is neither file, folder nor link.
pub fn pack<W: Write>(tree: &Path, units: &BTreeMap<String, String>, out: W) -> Result<W, Error> {
    let mut encoder = zstd::Encoder::new(out, 3).map_err(Error::Write)?;
    encoder.include_checksum(true).map_err(Error::Write)?;
    let mut builder = tar::Builder::new(encoder);
    append_folder(&mut builder, tree, Path::new(""))?;
    for (name, text) in units {
        let mut header = plain_header(tar::EntryType::Regular, 0o644);
        header.set_size(text.len() as u64);
        builder
            .append_data(&mut header, Path::new(UNITS).join(name), text.as_bytes())
            .map_err(Error::Write)?;
    }
    builder.into_inner().and_then(zstd::Encoder::finish).map_err(Error::Write)
}

fn append_folder<W: Write>(builder: &mut tar::Builder<W>, root: &Path, below: &Path) -> Result<(), Error> {
    let folder = root.join(below);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
        names.push(entry.map_err(io_error("read", &folder))?.file_name());
    }
    names.sort();
    for name in names {
        let inside = below.join(&name);
        let path = root.join(&inside);
        if below.as_os_str().is_empty() && name == ".sealift" {
            return Err(Error::Reserved(".sealift".into()));
        }
        let found = fs::symlink_metadata(&path).map_err(io_error("read", &path))?;
        let mode = found.permissions().mode() & 0o777;
        if found.is_dir() {
            let mut header = plain_header(tar::EntryType::Directory, mode);
            header.set_size(0);
            builder.append_data(&mut header, &inside, io::empty()).map_err(Error::Write)?;
            append_folder(builder, root, &inside)?;
        } else if found.is_symlink() {
            let target = fs::read_link(&path).map_err(io_error("read", &path))?;
            let mut header = plain_header(tar::EntryType::Symlink, 0o777);
            header.set_size(0);
            builder.append_link(&mut header, &inside, target).map_err(Error::Write)?;
        } else if found.is_file() {
            let file = File::open(&path).map_err(io_error("open", &path))?;
            let mut header = plain_header(tar::EntryType::Regular, mode);
            header.set_size(found.len());
            // `take` and the header agree even when the file grows meanwhile; a file that shrinks is an error.
            builder.append_data(&mut header, &inside, file.take(found.len())).map_err(Error::Write)?;
        } else {
            return Err(Error::Refused {
                entry: inside.display().to_string(),
                reason: "only files, folders and links can be packed",
            });
        }
    }
    Ok(())
}

fn plain_header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Unpacks a compressed archive as [`pack`] writes it into `dest`, which must exist and be empty.
///
/// # Errors
/// When the archive is damaged, refused or too large; what was unpacked by then stays for the caller to remove.
pub fn unpack(archive: impl Read, dest: &Path, limits: Limits) -> Result<(), Error> {
    let decoder = zstd::Decoder::new(archive).map_err(Error::Read)?;
    unpack_tar(decoder, dest, limits)
}

/// Unpacks a plain tar archive, such as `git archive` writes, into `dest`, which must exist and be empty.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_tar(archive: impl Read, dest: &Path, limits: Limits) -> Result<(), Error> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = 0;
    let mut bytes = 0_u64;
    // Folders get their modes last: a folder without write permission must still take its entries.
    let mut folders = Vec::new();
    for entry in archive.entries().map_err(Error::Read)? {
        let mut entry = entry.map_err(Error::Read)?;
        let kind = entry.header().entry_type();
        if matches!(kind, tar::EntryType::XGlobalHeader) {
            continue;
        }
        entries += 1;
        if entries > limits.entries {
            return Err(Error::TooLarge { limit: limits.entries, what: "entries" });
        }
        let shown = entry.path().map_err(Error::Read)?.display().to_string();
        let refuse = |reason| Error::Refused { entry: shown.clone(), reason };
        let inside = inside(&entry.path().map_err(Error::Read)?).map_err(refuse)?;
        let path = dest.join(&inside);
        if inside.as_os_str().is_empty() {
            continue;
        }
        make_parents(dest, &inside).map_err(|found| match found {
            Parent::Link => refuse("it lies below a link"),
            Parent::Io(source) => Error::Io { action: "make the folder of", path: path.clone(), source },
        })?;
        let mode = entry.header().mode().map_err(Error::Read)? & 0o777;
        match kind {
            tar::EntryType::Directory => {
                match fs::create_dir(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                            return Err(refuse("it comes twice, as a folder and as something else"));
                        }
                    }
                    Err(source) => return Err(Error::Io { action: "make", path, source }),
                }
                folders.push((path, mode));
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                bytes = bytes.saturating_add(entry.size());
                if bytes > limits.bytes {
                    return Err(Error::TooLarge { limit: limits.bytes, what: "bytes" });
                }
                // create_new follows no link and overwrites nothing.
                let mut file = File::options()
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(&path)
                    .map_err(io_error("create", &path))?;
                io::copy(&mut entry, &mut file).map_err(|source| Error::Io {
                    action: "write",
                    path: path.clone(),
                    source,
                })?;
                // The umask may have taken bits away.
                file.set_permissions(fs::Permissions::from_mode(mode)).map_err(io_error("write", &path))?;
            }
            tar::EntryType::Symlink => {
                let target = entry
                    .link_name()
                    .map_err(Error::Read)?
                    .ok_or_else(|| refuse("it is a link to nowhere"))?
                    .into_owned();
                if !stays_inside(&inside, &target) {
                    return Err(refuse("it is a link that leads out of the archive"));
                }
                std::os::unix::fs::symlink(&target, &path).map_err(io_error("link", &path))?;
            }
            _ => return Err(refuse("only files, folders and symbolic links are accepted")),
        }
    }
    for (path, mode) in folders.into_iter().rev() {
        // The owner can always look into and clear a release's folders, whatever the archive says.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o700))
            .map_err(io_error("write", &path))?;
    }
    Ok(())
}

enum Parent {
    Link,
    Io(io::Error),
}

/// Makes the folders above an entry, and refuses to go through anything but real folders.
fn make_parents(dest: &Path, inside: &Path) -> Result<(), Parent> {
    let mut folder = dest.to_owned();
    for part in inside.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        match fs::symlink_metadata(&folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Parent::Link),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&folder).map_err(Parent::Io)?;
            }
            Err(error) => return Err(Parent::Io(error)),
        }
    }
    Ok(())
}

/// The entry's name without `.` parts, if it stays below the root.
fn inside(name: &Path) -> Result<PathBuf, &'static str> {
    let mut inside = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("its name climbs out of the archive"),
            Component::RootDir | Component::Prefix(_) => return Err("its name is absolute"),
        }
    }
    Ok(inside)
}

/// Whether a link at `link` (relative to the root) with this target points below the root, read as text.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.parent().map_or(0, |parent| parent.components().count());
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(tree: &Path) -> Vec<u8> {
        pack(tree, &BTreeMap::from([("web.service".to_owned(), "[Service]\n".to_owned())]), Vec::new())
            .unwrap()
    }

    #[test]
    fn a_tree_comes_back_as_it_was_and_packs_to_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::create_dir_all(tree.join("empty")).unwrap();
        fs::write(tree.join("bin/hello"), b"#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("bin/hello"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("hello", tree.join("bin/hi")).unwrap();
        std::os::unix::fs::symlink("../bin", tree.join("empty/bin")).unwrap();
        let bytes = packed(&tree);
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        unpack(&*bytes, &out, Limits::default()).unwrap();
        assert_eq!(fs::read(out.join("bin/hi")).unwrap(), b"#!/bin/sh\n");
        assert_eq!(fs::metadata(out.join("bin/hello")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_to_string(out.join(UNITS).join("web.service")).unwrap(), "[Service]\n");
        fs::remove_dir_all(out.join(".sealift")).unwrap();
        assert_eq!(packed(&out), bytes);
    }

    /// An archive written byte for byte, since the library refuses to write hostile names itself.
    fn hostile(name: &str, kind: tar::EntryType, link: &str) -> Vec<u8> {
        let mut header = plain_header(kind, 0o644);
        header.set_size(0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([0; 1024]);
        bytes
    }

    #[test]
    fn hostile_archives_are_refused() {
        use tar::EntryType as T;
        for (name, kind, link) in [
            ("../out", T::Regular, ""),
            ("a/../../out", T::Regular, ""),
            ("/etc/out", T::Regular, ""),
            ("dev", T::Block, ""),
            ("dev", T::Char, ""),
            ("fifo", T::Fifo, ""),
            ("hard", T::Link, "/etc/passwd"),
            ("soft", T::Symlink, "/etc/passwd"),
            ("soft", T::Symlink, "../x"),
            ("a/soft", T::Symlink, "../../x"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let dest = dir.path().join("dest");
            fs::create_dir(&dest).unwrap();
            let outcome = unpack_tar(&*hostile(name, kind, link), &dest, Limits::default());
            assert!(matches!(outcome, Err(Error::Refused { .. })), "{name} {kind:?} {link}: {outcome:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{name} wrote outside");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("dest");
        fs::create_dir_all(dest.join("real")).unwrap();
        let mut bytes = hostile("link", tar::EntryType::Symlink, "real");
        bytes.truncate(512);
        bytes.extend(hostile("link/file", tar::EntryType::Regular, ""));
        assert!(matches!(unpack_tar(&*bytes, &dest, Limits::default()), Err(Error::Refused { .. })));
        assert_eq!(fs::read_dir(dest.join("real")).unwrap().count(), 0);
    }

    #[test]
    fn limits_hold_before_the_disk_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("big"), vec![0; 100_000]).unwrap();
        let bytes = packed(&tree);
        for limits in [Limits { bytes: 99_999, entries: 10 }, Limits { bytes: 1_000_000, entries: 1 }] {
            let out = tempfile::tempdir().unwrap();
            assert!(matches!(unpack(&*bytes, out.path(), limits), Err(Error::TooLarge { .. })), "{limits:?}");
        }
    }

    #[test]
    fn the_reserved_folder_cannot_be_smuggled_in() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".sealift")).unwrap();
        assert!(matches!(pack(dir.path(), &BTreeMap::new(), Vec::new()), Err(Error::Reserved(_))));
    }

    proptest! {
        #[test]
        fn damaged_archives_never_panic_or_escape(flips in prop::collection::vec((0_usize..2048, any::<u8>()), 1..8)) {
            let dir = tempfile::tempdir().unwrap();
            let dest = dir.path().join("dest");
            fs::create_dir(&dest).unwrap();
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = plain_header(tar::EntryType::Regular, 0o644);
            header.set_size(3);
            builder.append_data(&mut header, "a/b", &b"abc"[..]).unwrap();
            let mut bytes = builder.into_inner().unwrap();
            for (at, value) in flips {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            unpack_tar(&*bytes, &dest, Limits { bytes: 1000, entries: 10 }).ok();
            prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
