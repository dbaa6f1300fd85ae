//! Copies of source trees, and what may be read of a tree that a container has written to.
//!
//! Guarantees: a copy keeps modes, times and symbolic links, follows none, and shares blocks with its original where
//! the filesystem can; reading a file of a container's tree never leaves that tree.
//!
//! It must not know what the trees are for.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, openat2, unlinkat, utimensat,
};

/// The longest message a step may leave.
const MESSAGE: u64 = 4096;
/// How much of a file of patterns counts.
const IGNORE: u64 = 1024 * 1024;

/// What is left out of a copy: lines as in a .gitignore (without `!`).
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    glob: Vec<u8>,
    /// Holds for the path from the root, not for each name.
    anchored: bool,
    directories_only: bool,
}

impl Ignore {
    /// What a file below `root` says; nothing where there is none.
    pub(crate) fn read(root: &Path, relative: &Path) -> Ignore {
        let mut text = String::new();
        if let Some(file) = open_file(root, relative)
            && let Err(error) = file.take(IGNORE).read_to_string(&mut text)
        {
            tracing::debug!(%error, "what is to be left out cannot be read");
        }
        Ignore::parse(&text)
    }

    /// Reads the lines of such a file.
    #[must_use]
    pub fn parse(text: &str) -> Ignore {
        let mut patterns = Vec::new();
        for line in
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']))
        {
            let directories_only = line.ends_with('/');
            let glob = line.trim_end_matches('/');
            let anchored = glob.contains('/');
            let glob = glob.trim_start_matches('/').as_bytes().to_vec();
            patterns.push(Pattern { glob, anchored, directories_only });
        }
        Ignore { patterns }
    }

    /// Whether a path (from the root of the tree) is left out.
    #[must_use]
    pub fn matches(&self, relative: &Path, directory: bool) -> bool {
        let name = relative.file_name().map_or(&[][..], OsStr::as_bytes);
        self.patterns.iter().any(|pattern| {
            let text = if pattern.anchored { relative.as_os_str().as_bytes() } else { name };
            (directory || !pattern.directories_only) && glob(&pattern.glob, text)
        })
    }
}

/// `*` and `?` stay within a name, `**` does not.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', b'/', rest @ ..] => {
            glob(rest, text)
                || text.iter().enumerate().any(|(at, byte)| *byte == b'/' && glob(rest, &text[at + 1..]))
        }
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        [b'*', rest @ ..] => {
            let name = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=name).any(|at| glob(rest, &text[at..]))
        }
        [b'?', rest @ ..] => text.first().is_some_and(|byte| *byte != b'/') && glob(rest, &text[1..]),
        [byte, rest @ ..] => text.first() == Some(byte) && glob(rest, &text[1..]),
    }
}

/// The paths below `from` (relative, none below another) that `ignore` names or that are in `without`.
pub(crate) fn ignored(from: &Path, without: &[PathBuf], ignore: &Ignore) -> io::Result<Vec<PathBuf>> {
    // Those that are not there yet may come while the steps run, and are not for them either.
    let mut found: Vec<PathBuf> =
        without.iter().filter_map(|path| path.strip_prefix(from).ok()).map(Path::to_owned).collect();
    found.retain(|path| {
        let above = path.parent().is_some_and(|parent| from.join(parent).is_dir());
        above && !path.as_os_str().is_empty()
    });
    found.sort_unstable();
    found.dedup_by(|path, before| path.starts_with(before));
    if ignore.patterns.is_empty() {
        return Ok(found);
    }
    let left_out = found.clone();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        for entry in fs::read_dir(from.join(&relative))? {
            let entry = entry?;
            let directory = entry.file_type()?.is_dir();
            let relative = relative.join(entry.file_name());
            if left_out.contains(&relative) {
                continue;
            }
            if ignore.matches(&relative, directory) {
                // What lies below it is hidden with it.
                found.retain(|path| !path.starts_with(&relative));
                found.push(relative);
            } else if directory {
                open.push(relative);
            }
        }
    }
    Ok(found)
}

/// Copies the tree `from` to `to`, which must not be there. Links stay links; sockets, pipes and devices are left out.
///
/// # Errors
/// When something cannot be read or written; what was copied before stays.
pub fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    copy(from, to, &[], &Ignore::default())
}

/// Copies the tree `from` to `to`, which must not be there; leaves out what `ignore` names and the directories in
/// `without`.
pub(crate) fn copy(from: &Path, to: &Path, without: &[PathBuf], ignore: &Ignore) -> io::Result<()> {
    fs::create_dir_all(to)?;
    // A stack and not a recursion: a tree may be deeper than ours.
    let mut open = vec![PathBuf::new()];
    let mut directories = Vec::new();
    while let Some(relative) = open.pop() {
        directories.push(relative.clone());
        for entry in fs::read_dir(from.join(&relative))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let (source, relative) = (entry.path(), relative.join(entry.file_name()));
            let target = to.join(&relative);
            if ignore.matches(&relative, kind.is_dir()) || without.contains(&source) {
                continue;
            }
            if kind.is_dir() {
                fs::create_dir(&target)?;
                open.push(relative);
            } else if kind.is_symlink() {
                symlink(fs::read_link(&source)?, &target)?;
            } else if kind.is_file() {
                // Clones or copies within the kernel.
                fs::copy(&source, &target)?;
                keep_times(&source, &target)?;
            }
            // Sockets, pipes and devices are no source.
        }
    }
    // Last, and the deepest first: a directory's time and mode change with its entries.
    for relative in directories.iter().rev() {
        let (source, target) = (from.join(relative), to.join(relative));
        fs::set_permissions(&target, fs::metadata(&source)?.permissions())?;
        keep_times(&source, &target)?;
    }
    Ok(())
}

/// What becomes of a path that both trees have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clash {
    /// The one that is moved takes its place.
    Replace,
    /// The one that is there stays.
    Stay,
}

/// Moves what is in the tree `from` into the tree `to`; directories are merged.
pub(crate) fn merge(from: &Path, to: &Path, clash: Clash) -> io::Result<()> {
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        for entry in fs::read_dir(from.join(&relative))? {
            let entry = entry?;
            let relative = relative.join(entry.file_name());
            let target = to.join(&relative);
            if let Ok(known) = fs::symlink_metadata(&target) {
                match (known.is_dir(), entry.file_type()?.is_dir()) {
                    (true, true) => {
                        open.push(relative);
                        continue;
                    }
                    _ if clash == Clash::Stay => continue,
                    (true, false) => fs::remove_dir_all(&target)?,
                    (false, true) => fs::remove_file(&target)?,
                    // A rename replaces it.
                    (false, false) => {}
                }
            }
            fs::rename(entry.path(), &target)?;
        }
    }
    remove(from)
}

/// Gives one path the time of another.
pub(crate) fn keep_times(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(from)?;
    let time = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The start of a small file below `root`, which a container could write to: nothing outside of `root` is read,
/// whatever links it has laid. None where there is no such file, or nothing in it.
pub(crate) fn read_message(root: &Path, relative: &Path) -> Option<String> {
    let text = read_text(root, relative, MESSAGE)?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The first `limit` bytes of a file below `root`, reached through no link at all.
pub(crate) fn read_text(root: &Path, relative: &Path, limit: u64) -> Option<String> {
    let file = open_beneath(root, relative, OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS)?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The text of a file of at most `limit` bytes; none if it is larger.
pub(crate) fn text_within(file: fs::File, limit: u64) -> io::Result<Option<String>> {
    // As bytes: where a file that is too large is cut, half a character may stand.
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Ok(None);
    }
    String::from_utf8(bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The file at `relative` below `root`, which links may lead to as long as they stay below `root`.
pub(crate) fn open_file(root: &Path, relative: &Path) -> Option<fs::File> {
    open_beneath(root, relative, OFlags::empty(), ResolveFlags::empty())
}

fn open_beneath(root: &Path, relative: &Path, flags: OFlags, resolve: ResolveFlags) -> Option<fs::File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | flags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | resolve;
    let directory = fs::File::open(root).ok()?;
    let file = fs::File::from(openat2(&directory, relative, flags, Mode::empty(), resolve).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

/// A new file in the directory `parent` below `root`, which a container could write to: nothing outside of `root` is
/// touched, whatever links it has laid. What went by that name is removed.
pub(crate) fn create_beneath(root: &Path, parent: &Path, name: &str) -> io::Result<fs::File> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let root = fs::File::open(root)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat2(&root, parent, flags, Mode::empty(), resolve)?;
    match unlinkat(&directory, name, AtFlags::empty()) {
        Err(error) if error != rustix::io::Errno::NOENT => return Err(error.into()),
        _ => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(openat2(&directory, name, flags, Mode::from_raw_mode(0o644), resolve)?.into())
}

/// Whether `dir` is a real directory with anything in it.
pub(crate) fn has_entries(dir: &Path) -> bool {
    let real = fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.is_dir());
    real && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// Whether a real directory has anything but directories in it, at any depth.
pub(crate) fn has_files(dir: &Path) -> bool {
    if !has_entries(dir) {
        return false;
    }
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                _ => return true,
            }
        }
    }
    false
}

/// Removes a tree; none there is fine.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_gitignore() {
        let ignore = Ignore::parse("# c\n*.log\n/top\nbuild/\na/*/c\n**/deep.txt\n");
        for (path, directory, want) in [
            ("x/y.log", false, true),
            ("top", false, true),
            ("x/top", false, false),
            ("x/build", true, true),
            ("x/build", false, false),
            ("a/b/c", false, true),
            ("a/b/b/c", false, false),
            ("q/r/deep.txt", false, true),
        ] {
            assert_eq!(ignore.matches(Path::new(path), directory), want, "{path}");
        }
    }

    #[test]
    fn copies_and_leaves_out() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("sub/work")).unwrap();
        fs::write(from.join("sub/a"), "a").unwrap();
        fs::write(from.join("x.log"), "").unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        let to = dir.path().join("to");
        copy(&from, &to, &[from.join("sub/work")], &Ignore::parse("*.log")).unwrap();
        assert_eq!(fs::read_to_string(to.join("sub/a")).unwrap(), "a");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert!(!to.join("sub/work").is_dir() && !to.join("x.log").is_file());
        let times = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(times(&from.join("sub/a")), times(&to.join("sub/a")));
    }

    #[test]
    fn messages_do_not_leave_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        symlink("../secret", root.join("message")).unwrap();
        symlink("..", root.join("up")).unwrap();
        fs::write(root.join("good"), " text \n").unwrap();
        assert_eq!(read_message(&root, Path::new("message")), None);
        assert_eq!(read_message(&root, Path::new("up/secret")), None);
        assert_eq!(read_message(&root, Path::new("none")), None);
        assert_eq!(read_message(&root, Path::new("good")).as_deref(), Some("text"));

        symlink("..", root.join("output")).unwrap();
        create_beneath(&root, Path::new("output"), "secret").unwrap_err();
        fs::remove_file(root.join("output")).unwrap();
        fs::create_dir(root.join("output")).unwrap();
        symlink("../../secret", root.join("output/new")).unwrap();
        io::Write::write_all(&mut create_beneath(&root, Path::new("output"), "new").unwrap(), b"n").unwrap();
        assert_eq!(fs::read_to_string(root.join("output/new")).unwrap(), "n");
        assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), "s");
    }
}
