//! A unit as files for systemd: the author's text, byte for byte, and a drop-in that says where its release is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sealift_model::{Package, Unit, UnitKind, UnitName};

use super::Error;
use super::record::io_error;

/// After the administrator's own drop-ins would be too late to let them win; 10 comes before most.
const DROP_IN: &str = "10-sealift.conf";

/// What systemd is to read for one unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Files {
    name: UnitName,
    text: String,
    drop_in: Option<String>,
    /// Of both; changes exactly when systemd would run something else.
    pub(super) hash: String,
}

impl Files {
    pub(super) fn of(unit: &Unit, package: Option<&Package>, folder: Option<&Path>) -> Self {
        let drop_in = match (package, folder) {
            (Some(package), Some(folder)) if unit.name.kind() == UnitKind::Service => {
                Some(service_drop_in(package, folder))
            }
            _ => None,
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(unit.text.as_bytes());
        hasher.update(b"\0");
        hasher.update(drop_in.as_deref().unwrap_or_default().as_bytes());
        let hash = hasher.finalize().to_hex().to_string();
        Self { name: unit.name.clone(), text: unit.text.clone(), drop_in, hash }
    }

    /// Whether exactly these files are there already.
    pub(super) fn are_in(&self, unit_dir: &Path) -> Result<bool, Error> {
        let text = read(&unit_dir.join(self.name.as_str()))?;
        let drop_in = read(&drop_in_path(unit_dir, &self.name))?;
        Ok(text.as_deref() == Some(&self.text) && drop_in == self.drop_in)
    }

    pub(super) fn write(&self, unit_dir: &Path) -> Result<(), Error> {
        let drop_in = drop_in_path(unit_dir, &self.name);
        if let Some(text) = &self.drop_in {
            let folder = drop_in.parent().unwrap_or(unit_dir);
            fs::create_dir_all(folder).map_err(io_error("make", folder))?;
            replace(&drop_in, text)?;
        } else {
            remove_file(&drop_in)?;
        }
        replace(&unit_dir.join(self.name.as_str()), &self.text)
    }
}

/// Where the unit runs and where its programs are looked for first (ExecSearchPath= of systemd.exec(5), since 250).
fn service_drop_in(package: &Package, folder: &Path) -> String {
    let folder = folder.display().to_string().replace('%', "%%");
    format!(
        "# Written by Sealift; changes are lost.\n\
         [Service]\n\
         WorkingDirectory={folder}\n\
         ExecSearchPath={folder}/bin:{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         Environment=SEALIFT_PROJECT={} SEALIFT_COMMIT={}\n",
        package.name.project, package.name.commit
    )
}

/// Whether anything that [`Files::write`] writes is there.
pub(super) fn any_in(unit_dir: &Path, unit: &UnitName) -> Result<bool, Error> {
    let there = |path: PathBuf| path.try_exists().map_err(io_error("look for", &path));
    Ok(there(unit_dir.join(unit.as_str()))? || there(drop_in_path(unit_dir, unit))?)
}

/// Removes all that [`Files::write`] wrote.
pub(super) fn remove(unit_dir: &Path, unit: &UnitName) -> Result<(), Error> {
    let drop_in = drop_in_path(unit_dir, unit);
    remove_file(&drop_in)?;
    if let Some(folder) = drop_in.parent() {
        // Others' drop-ins stay, and then so does the folder.
        fs::remove_dir(folder).ok();
    }
    remove_file(&unit_dir.join(unit.as_str()))
}

fn drop_in_path(unit_dir: &Path, unit: &UnitName) -> PathBuf {
    unit_dir.join(format!("{unit}.d")).join(DROP_IN)
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
    fs::write(&partial, text).and_then(|()| fs::rename(&partial, path)).map_err(io_error("write", path))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
