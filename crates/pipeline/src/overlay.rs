//! A view of a directory that can be changed while the directory stays as it is: an overlay file system.
//!
//! Guarantees: the directory below is never written to, whatever is done to the view; making a view takes no longer
//! for a large tree, unless something of it is to be hidden.
//!
//! Where the system does not let us (no right to mount, a file system that cannot lie above), the caller copies.
//!
//! It must not know what the view is for.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::source::keep_times;

/// What of newer kernels makes views cheaper: nothing is synced, and a change of owner copies no content. The last is
/// for those that know neither.
const OPTIONS: [&str; 3] = [",volatile,metacopy=on", ",volatile", ""];

/// How a file whose owner or mode is changed is taken into the layer of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    /// Without its content as long as that stays the same.
    Lazy,
    /// As a whole, so that the layer can be used by itself.
    Whole,
}

/// Makes `at` a view of `below` without the paths `hidden` (relative, none below another). `space` is a directory for
/// the changes, on the file system that is to hold them.
pub(crate) fn view(
    below: &Path,
    at: &Path,
    space: &Path,
    hidden: &[PathBuf],
    copies: Copies,
) -> io::Result<()> {
    let (upper, work) = (space.join("upper"), space.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir)?;
    }
    fs::create_dir_all(at)?;
    like(below, &upper)?;
    for path in hidden {
        hide(below, &upper, path)?;
    }
    let mut data = String::new();
    for (name, path) in [("lowerdir", below), ("upperdir", &upper), ("workdir", &work)] {
        let path = path.to_str().filter(|path| !path.contains([':', ',', '\\']));
        // Such names would have to be quoted, differently by each version of the kernel.
        let path = path.ok_or(io::ErrorKind::InvalidFilename)?;
        data.push_str(&format!("{name}={path},"));
    }
    let data = data.trim_end_matches(',');
    for options in
        OPTIONS.into_iter().filter(|options| copies == Copies::Lazy || !options.contains("metacopy"))
    {
        let data = std::ffi::CString::new(format!("{data}{options}"))?;
        let flags = MountFlags::NODEV;
        match mount("sealift", at, "overlay", flags, Some(data.as_c_str())) {
            Err(Errno::INVAL) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::INVAL.into())
}

/// Takes the view at `at` away, if there is one. What was changed in it stays in its space.
pub(crate) fn end(at: &Path) -> io::Result<()> {
    loop {
        // Lazily: a process that a container has left behind must not keep it.
        match unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // No mount, no such directory, or no right to unmount and so none to have mounted.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR | Errno::PERM) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes away all views below `dir`.
pub(crate) fn end_below(dir: &Path) -> io::Result<()> {
    let Ok(dir) = dir.canonicalize() else { return Ok(()) };
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut places: Vec<PathBuf> = table.lines().filter_map(mount_point).collect();
    places.retain(|place| place.starts_with(&dir));
    // What was mounted last may lie on what was before.
    places.iter().rev().try_for_each(|place| end(place))
}

/// The mount point in a line of mountinfo (proc_pid_mountinfo(5)), in which blanks and backslashes are octal numbers.
fn mount_point(line: &str) -> Option<PathBuf> {
    let written = line.split(' ').nth(4)?;
    let mut bytes = Vec::new();
    let mut rest = written.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

/// Marks `path` in the upper directory as not there.
fn hide(below: &Path, upper: &Path, path: &Path) -> io::Result<()> {
    let mut made = PathBuf::new();
    for part in path.parent().into_iter().flat_map(Path::components) {
        made.push(part);
        let dir = upper.join(&made);
        match fs::create_dir(&dir) {
            Ok(()) => like(&below.join(&made), &dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    // The kernel's sign for it: a device that does not exist.
    match mknodat(CWD, upper.join(path), FileType::CharacterDevice, Mode::empty(), 0) {
        // What an earlier run has put there.
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

/// Gives a directory the mode, owner and times of another.
fn like(model: &Path, dir: &Path) -> io::Result<()> {
    let metadata = fs::metadata(model)?;
    std::os::unix::fs::chown(dir, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    keep_times(model, dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place whose file system can lie above another; none, said loudly, where we may not mount.
    fn place() -> Option<tempfile::TempDir> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: views need root");
            return None;
        }
        Some(tempfile::tempdir_in("/var/tmp").unwrap())
    }

    #[test]
    fn a_view_can_be_changed_and_what_is_below_stays() {
        let Some(dir) = place() else { return };
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("below/sub/deep")).unwrap();
        for file in ["a", "sub/b", "sub/deep/c", "secret"] {
            fs::write(path("below").join(file), file).unwrap();
        }
        fs::set_permissions(path("below/sub"), fs::Permissions::from_mode(0o751)).unwrap();
        let hidden = ["secret".into(), "sub/deep".into()];
        view(&path("below"), &path("at"), &path("space"), &hidden, Copies::Lazy).unwrap();
        let at = path("at");
        assert_eq!(fs::read_to_string(at.join("sub/b")).unwrap(), "sub/b");
        assert!(!at.join("secret").is_file() && !at.join("sub/deep").is_dir());
        assert_eq!(fs::metadata(at.join("sub")).unwrap().mode() & 0o777, 0o751);
        fs::write(at.join("a"), "changed").unwrap();
        fs::remove_dir_all(at.join("sub")).unwrap();
        fs::write(at.join("secret"), "mine").unwrap();
        end(&at).unwrap();
        end(&at).unwrap();
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(path("below/a")).unwrap(), "a");
        assert_eq!(fs::read_to_string(path("below/secret")).unwrap(), "secret");
        assert_eq!(fs::read_to_string(path("below/sub/deep/c")).unwrap(), "sub/deep/c");
    }

    #[test]
    fn places_with_odd_names_are_understood() {
        for (written, want) in [("/a", "/a"), ("/a\\040b\\134c", "/a b\\c"), ("/a\\0", "/a\\0")] {
            let line = format!("36 35 98:0 /mnt1 {written} rw,noatime - overlay sealift rw");
            assert_eq!(mount_point(&line), Some(PathBuf::from(want)));
        }
        assert_eq!(mount_point("36 35"), None);
    }

    #[test]
    fn names_that_would_have_to_be_quoted_are_left_to_a_copy() {
        let Some(dir) = place() else { return };
        let below = dir.path().join("a:b");
        fs::create_dir(&below).unwrap();
        assert!(view(&below, &dir.path().join("at"), &dir.path().join("space"), &[], Copies::Whole).is_err());
    }
}
