//! A unit as files for systemd: the author's text and drop-ins, byte for byte, and a drop-in of ours that says where its
//! release is and what it is held to.
//!
//! A Quadlet file lies where Quadlet looks, and its author's drop-ins beside it. Ours is always a drop-in of the unit
//! that systemd has, so that every Quadlet does with it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sealift_model::diagnostic::Severity;
use sealift_model::{Package, Resources, Unit, UnitKind, UnitName};
use sealift_unitfile::{DROP_IN_OF_OURS, UnitFile, verify_drop_in_name};

use super::Error;
use super::record::{Record, io_error};
use crate::systemd::Manager;

/// What systemd is to read for one unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Files {
    /// The unit file, and the author's drop-ins by name.
    unit: PathBuf,
    text: String,
    drop_ins: BTreeMap<String, String>,
    /// Where ours is, and what it says if there is anything to say.
    ours: PathBuf,
    our_text: Option<String>,
    /// What systemd calls the unit.
    pub(super) in_systemd: UnitName,
    /// Whether `[Install]` asks for links that we have to make. Quadlet makes those of its services itself.
    pub(super) installs: bool,
    /// Changes exactly when systemd would run something else: `[X-Fleet]` is not in it.
    pub(super) hash: String,
}

impl Files {
    /// # Errors
    /// When the files would harm others than their unit.
    pub(super) fn of(
        manager: &Manager,
        unit: &Unit,
        package: Option<&Package>,
        folder: Option<&Path>,
    ) -> Result<Self, Error> {
        let file = UnitFile::parse(&unit.text);
        let kind = unit.name.kind();
        for (name, text) in &unit.drop_ins {
            if let Some(wrong) = verify_drop_in_name(name) {
                return Err(Error::DropIn { wrong });
            }
            check_lines(kind, name, &UnitFile::parse(text))?;
        }
        check_lines(kind, unit.name.as_str(), &file)?;
        let in_systemd = file.name_in_systemd(&unit.name);
        let our_text = our_drop_in(unit, package, folder);
        let mut hasher = blake3::Hasher::new();
        hasher.update(file.text_for_systemd().as_bytes());
        hasher.update(b"\0");
        hasher.update(our_text.as_deref().unwrap_or_default().as_bytes());
        for (name, text) in &unit.drop_ins {
            // No name and no length of the one can be taken for the other's.
            hasher.update(format!("\0{name}\0{}\0", text.len()).as_bytes());
            hasher.update(text.as_bytes());
        }
        let hash = hasher.finalize().to_hex().to_string();
        let installs = !kind.is_quadlet()
            && std::iter::once(&unit.text).chain(unit.drop_ins.values()).any(|text| {
                UnitFile::parse(text).section("Install").is_some_and(|s| !s.assignments.is_empty())
            });
        Ok(Self {
            unit: unit_path(manager, &unit.name),
            text: unit.text.clone(),
            drop_ins: unit.drop_ins.clone(),
            ours: our_path(manager, &in_systemd),
            our_text,
            in_systemd,
            installs,
            hash,
        })
    }

    /// The file that systemd will have the unit from.
    pub(super) fn unit(&self) -> &Path {
        &self.unit
    }

    /// The names of the author's drop-ins.
    pub(super) fn drop_ins(&self) -> impl Iterator<Item = &String> {
        self.drop_ins.keys()
    }

    /// Whether exactly these files are there already, and none of `old` that are not among them.
    pub(super) fn are_there(&self, old: Option<&Record>) -> Result<bool, Error> {
        for (name, text) in &self.drop_ins {
            if read(&drop_in_path(&self.unit, name))?.as_ref() != Some(text) {
                return Ok(false);
            }
        }
        for name in self.spare(old) {
            if read(&drop_in_path(&self.unit, name))?.is_some() {
                return Ok(false);
            }
        }
        Ok(read(&self.unit)?.as_ref() == Some(&self.text) && read(&self.ours)? == self.our_text)
    }

    /// Writes them, and removes those of `old` that are not among them.
    pub(super) fn write(&self, old: Option<&Record>) -> Result<(), Error> {
        for name in self.spare(old) {
            remove_file(&drop_in_path(&self.unit, name))?;
        }
        match &self.our_text {
            Some(text) => replace(&self.ours, text)?,
            None => remove_file(&self.ours)?,
        }
        for (name, text) in &self.drop_ins {
            replace(&drop_in_path(&self.unit, name), text)?;
        }
        replace(&self.unit, &self.text)
    }

    fn spare<'a>(&'a self, old: Option<&'a Record>) -> impl Iterator<Item = &'a String> {
        old.into_iter().flat_map(|old| &old.drop_ins).filter(|name| !self.drop_ins.contains_key(*name))
    }
}

/// Quadlet makes no service of any file while there is a line that it cannot read in one.
fn check_lines(kind: UnitKind, name: &str, file: &UnitFile) -> Result<(), Error> {
    let bad = file.problems().iter().find(|problem| problem.severity == Severity::Error);
    match bad.filter(|_| kind.is_quadlet()) {
        Some(problem) => Err(Error::NoLine { file: name.to_owned(), line: problem.line }),
        None => Ok(()),
    }
}

/// Where the unit runs, where its programs are looked for first (ExecSearchPath= of systemd.exec(5), since 250), and what
/// it is held to. None when there is nothing to say.
fn our_drop_in(unit: &Unit, package: Option<&Package>, folder: Option<&Path>) -> Option<String> {
    let kind = unit.name.kind();
    let section = match kind {
        UnitKind::Socket => "Socket",
        UnitKind::Mount => "Mount",
        UnitKind::Swap => "Swap",
        UnitKind::Slice => "Slice",
        kind if kind.is_service() => "Service",
        _ => return None,
    };
    let mut lines = String::new();
    if let (Some(package), Some(folder)) = (package, folder) {
        let folder = folder.display().to_string().replace('%', "%%");
        let names =
            format!("SEALIFT_PROJECT={} SEALIFT_COMMIT={}", package.name.project, package.name.commit);
        if kind == UnitKind::Service {
            lines.push_str(&format!(
                "WorkingDirectory={folder}\n\
                 ExecSearchPath={folder}/bin:{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
                 Environment={names}\n",
            ));
        } else if kind.is_quadlet() {
            // For Volume=${SEALIFT_RELEASE}/data:/data: the file cannot know where releases lie.
            let folder = folder.replace('\\', "\\\\").replace('"', "\\\"");
            lines.push_str(&format!("Environment={names} \"SEALIFT_RELEASE={folder}\"\n"));
        }
    }
    let Resources { memory, cpu } = unit.requirements.caps;
    if memory > 0 {
        lines.push_str(&format!("MemoryMax={memory}\n"));
    }
    if cpu > 0 {
        // Thousandths of a core, in percent of one.
        lines.push_str(&format!("CPUQuota={}.{}%\n", cpu / 10, cpu % 10));
    }
    (!lines.is_empty()).then(|| format!("# Written by Sealift; changes are lost.\n[{section}]\n{lines}"))
}

/// Whether anything that [`Files::write`] writes is there.
pub(super) fn any_in(manager: &Manager, unit: &UnitName, record: Option<&Record>) -> Result<bool, Error> {
    let there = |path: &Path| path.try_exists().map_err(io_error("look for", path));
    let path = unit_path(manager, unit);
    for name in record.into_iter().flat_map(|record| &record.drop_ins) {
        if there(&drop_in_path(&path, name))? {
            return Ok(true);
        }
    }
    Ok(there(&path)? || there(&our_path(manager, &in_systemd(unit, record)))?)
}

/// Removes all that [`Files::write`] wrote by this record.
pub(super) fn remove(manager: &Manager, unit: &UnitName, record: Option<&Record>) -> Result<(), Error> {
    let path = unit_path(manager, unit);
    for name in record.into_iter().flat_map(|record| &record.drop_ins) {
        remove_file(&drop_in_path(&path, name))?;
    }
    remove_file(&our_path(manager, &in_systemd(unit, record)))?;
    remove_file(&path)
}

/// Removes the drop-in of ours for a unit that systemd knew by this name.
pub(super) fn remove_ours(manager: &Manager, in_systemd: &UnitName) -> Result<(), Error> {
    remove_file(&our_path(manager, in_systemd))
}

/// What systemd calls a unit, as it was last told.
pub(super) fn in_systemd(unit: &UnitName, record: Option<&Record>) -> UnitName {
    record.and_then(|record| record.in_systemd.clone()).unwrap_or_else(|| unit.in_systemd())
}

fn unit_path(manager: &Manager, unit: &UnitName) -> PathBuf {
    let dir = if unit.kind().is_quadlet() { &manager.quadlet.dir } else { &manager.unit_dir };
    dir.join(unit.as_str())
}

fn our_path(manager: &Manager, in_systemd: &UnitName) -> PathBuf {
    drop_in_path(&manager.unit_dir.join(in_systemd.as_str()), DROP_IN_OF_OURS)
}

fn drop_in_path(unit: &Path, name: &str) -> PathBuf {
    let mut folder = unit.as_os_str().to_owned();
    folder.push(".d");
    Path::new(&folder).join(name)
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// systemd may read at any moment, so a file appears whole.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&partial, text)?;
        fs::rename(&partial, path)
    };
    write().map_err(io_error("write", path))
}

/// Removes a file, and its folder if that is a unit's for drop-ins and nobody else has any in it.
fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Io { action: "remove", path: path.to_owned(), source: error });
        }
        _ => {}
    }
    if let Some(folder) = path.parent().filter(|folder| folder.extension().is_some_and(|end| end == "d")) {
        fs::remove_dir(folder).ok();
    }
    Ok(())
}
