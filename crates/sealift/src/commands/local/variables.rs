//! The variables of the steps: those of this process that are meant for them, those of files, those of options.
//!
//! Guarantees: what is handed over as a secret is never among the variables that may be shown, wherever else the same
//! name is given; the last to say a name wins: ENVIRONMENT, then this process, then options.
//!
//! It must not know how they reach the steps.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sealift_model::diagnostic::chain;
use sealift_pipeline::env_file;

use crate::cli::VariableArgs;
use crate::error::Error;

/// The file that is read without being asked for.
pub(crate) const ENVIRONMENT: &str = "ENVIRONMENT";
/// Those that say by which way the network is reached.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "ftp_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "FTP_PROXY",
];

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Variables {
    pub(crate) shown: Vec<(String, String)>,
    pub(crate) hidden: Vec<(String, String)>,
    /// Handed over by name; hidden as well.
    pub(crate) secrets: Vec<(String, String)>,
    pub(crate) warnings: Vec<String>,
}

/// `usual` is a file in the form of ENVIRONMENT, which need not be there; `host` is the environment of this process.
pub(crate) fn collect(
    args: &VariableArgs,
    usual: &Path,
    host: &HashMap<String, String>,
) -> Result<Variables, Error> {
    let mut variables = Variables::default();
    let mut meant = HashMap::new();
    let mut plain = Vec::new();
    if let Some(path) = &args.env_file {
        for (name, value) in read(path)? {
            if name.starts_with("X_") || name.starts_with("XXX_") {
                meant.insert(name, value);
            } else {
                plain.push((name, value));
            }
        }
    } else if usual.is_file() {
        for (name, value) in read(usual)? {
            if is_meant(&name) {
                meant.insert(name, value);
            } else {
                let file = usual.file_name().unwrap_or_default().to_string_lossy();
                variables.warnings.push(format!("{file}: {name} reaches no step; call it X_{name} there"));
            }
        }
    }
    for (name, value) in plain {
        variables.show(&name, value);
    }
    // This process's own value wins over the file's.
    meant.extend(
        host.iter().filter(|(name, _)| is_meant(name)).map(|(name, value)| (name.clone(), value.clone())),
    );
    let mut meant: Vec<(String, String)> = meant.into_iter().collect();
    meant.sort();
    for (name, value) in meant {
        if let Some(name) = name.strip_prefix("XXX_") {
            variables.hide(name, value);
        } else {
            variables.show(name.strip_prefix("X_").unwrap_or(&name), value);
        }
    }
    for (name, value) in &args.env {
        variables.show(name, value.clone());
    }
    if let Some(path) = &args.secrets_file {
        for (name, value) in read(path)? {
            variables.keep_secret(&name, value);
        }
        let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
        if mode & 0o077 != 0 {
            let path = path.display();
            variables.warnings.push(format!("others can read {path}; make it yours alone: chmod 600 {path}"));
        }
    }
    for name in &args.secret {
        let value = host.get(name).ok_or_else(|| {
            Error::with_help(
                format!("the secret {name} is not among the variables of this shell"),
                format!("set it first: read -rs {name} && export {name}"),
            )
        })?;
        variables.keep_secret(name, value.clone());
    }
    Ok(variables)
}

/// Whether a variable of this process is for the steps.
fn is_meant(name: &str) -> bool {
    let behind = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    behind("X_") || behind("XXX_") || PROXIES.contains(&name) || name == "WERCKER_MAIN_PIPELINE_STARTED"
}

impl Variables {
    fn show(&mut self, name: &str, value: String) {
        // A name that was a secret once stays one.
        if self.hidden.iter().any(|(known, _)| known == name) {
            self.hide(name, value);
        } else {
            set(&mut self.shown, name, value);
        }
    }

    fn keep_secret(&mut self, name: &str, value: String) {
        self.shown.retain(|(known, _)| known != name);
        self.hidden.retain(|(known, _)| known != name);
        set(&mut self.secrets, name, value);
    }

    fn hide(&mut self, name: &str, value: String) {
        self.shown.retain(|(known, _)| known != name);
        set(&mut self.hidden, name, value);
    }
}

fn set(list: &mut Vec<(String, String)>, name: &str, value: String) {
    match list.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value,
        None => list.push((name.to_owned(), value)),
    }
}

/// The environment of this process, as far as it is text.
pub(crate) fn host() -> HashMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn read(path: &Path) -> Result<Vec<(String, String)>, Error> {
    env_file::read(path).map_err(|error| {
        Error::with_help(chain(&error), "write NAME=value on each line, and # before a comment")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_what_is_meant_for_the_steps_reaches_them_and_the_last_word_wins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(ENVIRONMENT), "X_A=file\nX_B=file\nXXX_C=file\nLOST=1\n").unwrap();
        let host = pairs(&[
            ("PATH", "/bin"),
            ("X_B", "host"),
            ("X_", "nothing"),
            ("XXX_TOKEN", "t"),
            ("HTTPS_PROXY", "p"),
            ("NPM", "n"),
        ]);
        let args = VariableArgs {
            env: pairs(&[("A", "option"), ("C", "still hidden")]),
            secret: vec!["NPM".into()],
            ..VariableArgs::default()
        };
        let got = collect(&args, &dir.path().join(ENVIRONMENT), &host.iter().cloned().collect()).unwrap();
        let mut shown = got.shown;
        shown.sort();
        assert_eq!(shown, pairs(&[("A", "option"), ("B", "host"), ("HTTPS_PROXY", "p")]));
        let mut hidden = got.hidden;
        hidden.sort();
        assert_eq!(hidden, pairs(&[("C", "still hidden"), ("TOKEN", "t")]));
        assert_eq!(got.secrets, pairs(&[("NPM", "n")]));
        assert_eq!(got.warnings, ["ENVIRONMENT: LOST reaches no step; call it X_LOST there"]);
    }

    #[test]
    fn a_named_file_takes_every_name_and_stands_for_the_default() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(ENVIRONMENT), "X_A=1\n").unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "B=2\nX_C=3\n").unwrap();
        let secrets = dir.path().join("secrets");
        std::fs::write(&secrets, "B=hidden\n").unwrap();
        std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o640)).unwrap();
        let args =
            VariableArgs { env_file: Some(file), secrets_file: Some(secrets), ..VariableArgs::default() };
        let got = collect(&args, &dir.path().join(ENVIRONMENT), &HashMap::new()).unwrap();
        assert_eq!((got.shown, got.secrets), (pairs(&[("C", "3")]), pairs(&[("B", "hidden")])));
        assert!(got.warnings.len() == 1 && got.warnings[0].contains("chmod 600"), "{:?}", got.warnings);
        let wanted = VariableArgs { secret: vec!["NONE".into()], ..VariableArgs::default() };
        assert!(collect(&wanted, &dir.path().join(ENVIRONMENT), &HashMap::new()).is_err());
    }
}
