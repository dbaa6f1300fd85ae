//! The unit files of a commit, with their drop-ins: what is released with what its pipeline made.
//!
//! Guarantees: what systemd would refuse is an error here, before anything is built. What is no unit file is left aside,
//! and said.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use sealift_model::UnitName;
use sealift_model::diagnostic::Severity;
use sealift_unitfile::FolderUnit;

use crate::runs::{Error, UNITS_FOLDER};

/// The folder of a unit's drop-ins is called like the unit, with this behind.
const DROP_INS: &str = ".d";

/// Unit files by name, and the files of their `<unit>.d/` folders by unit and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CommitUnits {
    pub(crate) units: BTreeMap<UnitName, String>,
    pub(crate) drop_ins: BTreeMap<UnitName, BTreeMap<String, String>>,
}

impl CommitUnits {
    /// Reads and checks a commit's folder of unit files, with warnings about them. That there is none is no error.
    pub(crate) fn read(folder: &Path) -> Result<(CommitUnits, Vec<String>), Error> {
        let (mut found, mut warnings) = (CommitUnits::default(), Vec::new());
        for (name, is_file, is_folder) in entries(folder)? {
            let shown = format!("{UNITS_FOLDER}/{name}");
            let path = folder.join(&name);
            let unit = |name: &str| name.parse::<UnitName>().ok();
            if is_file {
                match unit(&name) {
                    Some(unit) => drop(found.units.insert(unit, text(&path)?)),
                    None => warnings.push(format!("{shown} is not named like a unit file and left aside")),
                }
            } else if let Some(unit) = name.strip_suffix(DROP_INS).and_then(unit).filter(|_| is_folder) {
                let mut files = BTreeMap::new();
                for (name, is_file, _) in entries(&path)? {
                    if is_file {
                        let text = text(&path.join(&name))?;
                        files.insert(name, text);
                    } else {
                        warnings.push(format!("{shown}/{name} is not a plain file and left aside"));
                    }
                }
                found.drop_ins.insert(unit, files);
            } else {
                warnings.push(format!("{shown} is not a plain file and left aside"));
            }
        }
        let units = &found.units;
        found.drop_ins.retain(|unit, files| {
            let kept = units.contains_key(unit);
            if !kept {
                let shown = format!("{UNITS_FOLDER}/{unit}{DROP_INS}");
                warnings.push(format!("{shown} has no unit file {unit} beside it and is left aside"));
            }
            kept && !files.is_empty()
        });
        let errors = found.check(&mut warnings);
        if errors.is_empty() { Ok((found, warnings)) } else { Err(Error::Units(errors.join("\n"))) }
    }

    /// What is wrong with them, alone and together.
    fn check(&self, warnings: &mut Vec<String>) -> Vec<String> {
        let none = BTreeMap::new();
        let folder = self.units.iter().map(|(name, text)| {
            let drop_ins = self.drop_ins.get(name).unwrap_or(&none);
            (name.clone(), FolderUnit { text, drop_ins })
        });
        let mut errors = Vec::new();
        for found in sealift_unitfile::verify_folder(&folder.collect()) {
            let text = match &found.drop_in {
                Some(name) => self.drop_ins.get(&found.unit).and_then(|files| files.get(name)),
                None => self.units.get(&found.unit),
            };
            let text = text.map_or("", String::as_str);
            let rendered = found.diagnostic.render(&format!("{UNITS_FOLDER}/{}", found.file()), text);
            match found.diagnostic.severity {
                Severity::Error => errors.push(rendered),
                Severity::Warning => warnings.push(rendered),
            }
        }
        errors
    }

    /// All files by their paths in a folder of units, as the package holds them.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let drop_ins = self.drop_ins.iter().flat_map(|(unit, files)| {
            files.iter().map(move |(name, text)| (format!("{unit}{DROP_INS}/{name}"), text.clone()))
        });
        let units = self.units.iter().map(|(name, text)| (name.to_string(), text.clone()));
        units.chain(drop_ins).collect()
    }
}

/// What lies in a folder, in the order of names: each with whether it is a plain file or a folder.
fn entries(folder: &Path) -> Result<Vec<(String, bool, bool)>, Error> {
    let failed = |source| Error::Io { action: "read", path: folder.to_owned(), source };
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut entries = Vec::new();
    for entry in listed {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), kind.is_file(), kind.is_dir()));
    }
    entries.sort();
    Ok(entries)
}

fn text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_files_come_with_their_drop_ins_and_what_is_neither_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let none = CommitUnits::read(&dir.path().join("units")).unwrap();
        assert_eq!(none, (CommitUnits::default(), Vec::new()));
        write("web.service", "[Service]\nExecStart=web\n");
        write("web.service.d/20-limits.conf", "[Service]\nLimitNOFILE=65536\n");
        write("gone.service.d/20-limits.conf", "[Service]\nLimitNOFILE=65536\n");
        write("web.service.d/deep/x.conf", "");
        write("README", "");
        write("docs/README", "");
        let (found, warnings) = CommitUnits::read(dir.path()).unwrap();
        let files: Vec<_> = found.files().into_keys().collect();
        assert_eq!(files, ["web.service", "web.service.d/20-limits.conf"]);
        assert_eq!(warnings.len(), 4, "{warnings:?}");
        for wanted in
            ["README is not named", "docs is not a plain file", "d/deep is not", "no unit file gone.service"]
        {
            assert!(warnings.iter().any(|warning| warning.contains(wanted)), "{wanted}: {warnings:?}");
        }
        // What a drop-in breaks is an error in that file.
        write("web.service.d/30-bad.conf", "[Service]\nType=sideways\n[X-Fleet]\nGlobal=true\n");
        let error = CommitUnits::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("units/web.service.d/30-bad.conf:3:1: error"), "{error}");
        write("web.service.d/30-bad.conf", "");
        write("web.service.d/10-sealift.conf", "");
        let error = CommitUnits::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("Sealift's own drop-in"), "{error}");
    }
}
