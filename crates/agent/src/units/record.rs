//! What the agent carried out for a unit, in a file a unit, so that its next life knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use sealift_model::{CutOff, Gate, ProjectName, ReleaseNumber, Timestamp, UnitName};
use serde::{Deserialize, Serialize};

use super::Error;

/// What was last started, or was about to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The placement by which it is here; 0 for a unit that needs none.
    #[serde(default)]
    pub(super) placement: u64,
    pub(super) generation: u64,
    pub(super) app: Option<ProjectName>,
    pub(super) release: Option<ReleaseNumber>,
    /// Whether it was started, and not merely made known to systemd.
    #[serde(default)]
    pub(super) launched: bool,
    /// Of the unit file and its drop-ins as systemd reads them.
    pub(super) hash: String,
    /// What systemd calls it, where that is not the unit's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) in_systemd: Option<UnitName>,
    /// The author's drop-ins that may have been written.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) drop_ins: BTreeSet<String>,
    /// Whether links that `[Install]` asks for may have been made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) enabled: bool,
    /// The systemd that was told; 0 if that is not known.
    #[serde(default)]
    pub(super) life: u64,
    /// How many restarts of it had been asked for.
    #[serde(default)]
    pub(super) restarts: u64,
    /// What becomes of it without contact to a server.
    #[serde(default)]
    pub(super) cut_off: CutOff,
    /// Whether what was started is as its update policy wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gate: Option<Gate>,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "phase")]
pub(super) enum Phase {
    /// Its files were about to be written; nothing was started by them yet.
    Writing,
    /// systemd was about to be told at this time.
    Starting {
        at: Timestamp,
    },
    Done,
    /// It was stopped, or was about to be, because the machine was cut off; it is started again when it is still wanted here.
    CutOff,
    /// systemd was about to be told to stop it, for good.
    Stopping,
}

/// A folder of records.
#[derive(Debug)]
pub(super) struct Records {
    root: PathBuf,
}

impl Records {
    pub(super) fn open(root: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&root).map_err(io_error("make", &root))?;
        Ok(Self { root })
    }

    fn path(&self, unit: &UnitName) -> PathBuf {
        self.root.join(format!("{unit}.json"))
    }

    pub(super) fn get(&self, unit: &UnitName) -> Result<Option<Record>, Error> {
        let path = self.path(unit);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::BadRecord { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { action: "read", path, source }),
        }
    }

    pub(super) fn put(&self, unit: &UnitName, record: &Record) -> Result<(), Error> {
        let path = self.path(unit);
        let bytes =
            serde_json::to_vec(record).map_err(|source| Error::BadRecord { path: path.clone(), source })?;
        let partial = self.root.join(format!("{unit}.partial"));
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            fs::rename(&partial, &path)
        };
        write().map_err(io_error("write", &path))
    }

    pub(super) fn remove(&self, unit: &UnitName) -> Result<(), Error> {
        let path = self.path(unit);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { action: "remove", path, source: error })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn all(&self) -> Result<BTreeMap<UnitName, Record>, Error> {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&self.root).map_err(io_error("read", &self.root))? {
            let name = entry.map_err(io_error("read", &self.root))?.file_name();
            let unit = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            if let Some(unit) = unit
                && let Some(record) = self.get(&unit)?
            {
                records.insert(unit, record);
            }
        }
        Ok(records)
    }
}

pub(super) fn io_error(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
