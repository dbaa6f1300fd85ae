//! The state directory: whose it is, which version wrote it, who has it open.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sealift_model::MachineId;

use crate::error::Error;

/// The layout that this program reads and writes; a change of it that older programs cannot read raises the number.
const VERSION: &str = "1";

const LOCK: &str = "lock";
/// `sealift dev` holds it too: its agent is one like any other.
const AGENT_LOCK: &str = "agent.lock";
/// The parts of the state directory that are an agent's.
const OF_AGENT: [&str; 3] = ["agent", "engine", "systemd"];

/// The store's file.
pub(crate) const STORE: &str = "store.redb";

/// What only we may look into, and the way to the releases.
const FOLDERS: &[(&str, u32)] = &[
    ("blobs", 0o700),
    ("logs", 0o700),
    ("keys", 0o700),
    ("secrets", 0o700),
    ("engine", 0o700),
    ("systemd", 0o700),
    ("agent", 0o711),
    ("agent/units", 0o700),
    ("agent/runs", 0o700),
    ("agent/releases", 0o755),
];

/// An opened state directory; nobody else can open it until this is dropped or the process dies.
#[derive(Debug)]
pub(crate) struct StateDir {
    pub(crate) root: PathBuf,
    _lock: File,
}

/// Where the state is unless a directory is named.
pub(crate) fn default_path() -> Result<PathBuf, Error> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/sealift".into());
    }
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_STATE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("sealift"))
        .ok_or_else(|| Error::with_help("no home directory is known", "name one with --state-dir"))
}

/// The API's socket in a state directory.
pub(crate) fn socket(root: &Path) -> PathBuf {
    root.join("api.sock")
}

impl StateDir {
    /// Opens the directory, and makes it if it is not there.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let root = prepare(root)?;
        let lock = lock(&root, LOCK)?;
        make_folders(&root, FOLDERS.iter())?;
        Ok(Self { root, _lock: lock })
    }

    /// Lets others pass through to the releases, once everything else is closed to them: a unit may run as any user.
    pub(crate) fn let_units_in(&self) -> Result<(), Error> {
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|source| Error::Io {
                action: "protect",
                path: path.to_owned(),
                source,
            })
        };
        let store = self.root.join(STORE);
        // With etcd there is none.
        let there = store.try_exists().map_err(|source| Error::Io {
            action: "look for",
            path: store.clone(),
            source,
        })?;
        if there {
            mode(&store, 0o600)?;
        }
        mode(&self.root, 0o711)
    }

    /// The secret that the API asks for over TCP; made once.
    pub(crate) fn token(&self) -> Result<String, Error> {
        self.text("token", || Ok(hex(&random::<32>()?)))
    }

    /// This machine's identity in this installation; made once.
    pub(crate) fn machine_id(&self) -> Result<MachineId, Error> {
        let text = self.text("machine-id", || Ok(hex(&random::<16>()?)))?;
        text.parse().map_err(|error| {
            Error::plain(format!("the file machine-id in {} is damaged: {error}", self.root.display()))
        })
    }

    fn text(&self, name: &str, make: impl FnOnce() -> Result<String, Error>) -> Result<String, Error> {
        let path = self.root.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = make()?;
                write_once(&path, text.as_bytes())?;
                Ok(text)
            }
            Err(source) => Err(Error::Io { action: "read", path, source }),
        }
    }
}

/// What an agent that is a process of its own keeps, in the same state directory as a server's on the same machine.
#[derive(Debug)]
pub(crate) struct AgentDir {
    pub(crate) root: PathBuf,
    /// Its own part.
    pub(crate) folder: PathBuf,
    _lock: File,
}

impl AgentDir {
    /// Opens the directory, and makes it if it is not there.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let root = prepare(root)?;
        let lock = lock(&root, AGENT_LOCK)?;
        make_folders(
            &root,
            FOLDERS.iter().filter(|(folder, _)| OF_AGENT.iter().any(|of| folder.starts_with(of))),
        )?;
        // A unit may run as any user, and its release lies in here.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).map_err(|source| Error::Io {
            action: "protect",
            path: root.clone(),
            source,
        })?;
        Ok(Self { folder: root.join("agent"), root, _lock: lock })
    }
}

/// Makes the directory, or sees that it is one of ours.
fn prepare(root: &Path) -> Result<PathBuf, Error> {
    let io = |action| move |source| Error::Io { action, path: root.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(io("make"))?;
    let root = root.canonicalize().map_err(io("look at"))?;
    // A server and an agent may begin at the same time.
    let turn = File::open(&root).map_err(io("open"))?;
    rustix::fs::flock(&turn, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| io("lock")(error.into()))?;
    let version = root.join("VERSION");
    match fs::read_to_string(&version) {
        Ok(text) if text.trim() == VERSION => {}
        Ok(text) => {
            return Err(Error::with_help(
                format!(
                    "{} was written by another version of Sealift: its layout is {:?}, this program reads {VERSION:?}",
                    root.display(),
                    text.trim()
                ),
                "use the program that wrote it, or another directory with --state-dir; nothing was changed",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let empty = fs::read_dir(&root).map_err(io("read"))?.next().is_none();
            if !empty {
                return Err(Error::with_help(
                    format!(
                        "{} is not a state directory: it has no file VERSION but is not empty",
                        root.display()
                    ),
                    "name an empty or new directory with --state-dir; nothing was changed",
                ));
            }
            fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(io("protect"))?;
            write_once(&version, VERSION.as_bytes())?;
        }
        Err(source) => return Err(Error::Io { action: "read", path: version, source }),
    }
    Ok(root)
}

fn make_folders<'a>(root: &Path, folders: impl Iterator<Item = &'a (&'a str, u32)>) -> Result<(), Error> {
    for (folder, mode) in folders {
        let folder = root.join(folder);
        let made = fs::DirBuilder::new().recursive(true).mode(*mode).create(&folder);
        made.and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(*mode)))
            .map_err(|source| Error::Io { action: "make", path: folder, source })?;
    }
    Ok(())
}

/// The process that has the directory open, if one has.
pub(crate) fn holder(root: &Path) -> Result<Option<rustix::process::Pid>, Error> {
    let path = root.join(LOCK);
    let io = |action| {
        let path = path.clone();
        move |source| Error::Io { action, path, source }
    };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io("open")(source)),
    };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(io("read"))?;
            Ok(text.trim().parse().ok().and_then(rustix::process::Pid::from_raw))
        }
        Err(error) => Err(io("lock")(error.into())),
    }
}

fn lock(root: &Path, name: &str) -> Result<File, Error> {
    let path = root.join(name);
    let io = |action| {
        let path = path.clone();
        move |source| Error::Io { action, path, source }
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io("open"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let (who, help) = if name == LOCK {
                (
                    "server or `sealift dev`",
                    "it answers to `sealift status`; stop it (`sealift dev --down` stops that one), or choose another --state-dir",
                )
            } else {
                ("agent", "stop it, or choose another --state-dir")
            };
            return Err(Error::with_help(format!("another {who} uses {}", root.display()), help));
        }
        Err(error) => return Err(io("lock")(error.into())),
    }
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(io("write"))?;
    Ok(file)
}

/// Writes a file for the owner alone that appears whole or not at all.
pub(crate) fn write_once(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })
}

/// Bytes from the kernel.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let path = PathBuf::from("/dev/urandom");
    let mut bytes = [0; N];
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|source| Error::Io { action: "read", path, source })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_another_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("VERSION"), "99\n").unwrap();
        let error = StateDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("\"99\"") && error.contains("another version"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn somebody_elses_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(StateDir::open(dir.path()).unwrap_err().to_string().contains("not a state directory"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_one_has_it_open_and_secrets_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        let state = StateDir::open(&root).unwrap();
        assert!(StateDir::open(&root).unwrap_err().to_string().contains("another server or `sealift dev`"));
        assert_eq!(
            holder(&root).unwrap().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()),
            Some(std::process::id())
        );
        let (token, machine) = (state.token().unwrap(), state.machine_id().unwrap());
        assert_eq!(fs::metadata(root.join("token")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(root.join("keys")).unwrap().permissions().mode() & 0o777, 0o700);
        drop(state);
        assert!(holder(&root).unwrap().is_none());
        let state = StateDir::open(&root).unwrap();
        assert_eq!((token, machine), (state.token().unwrap(), state.machine_id().unwrap()));
    }
}
