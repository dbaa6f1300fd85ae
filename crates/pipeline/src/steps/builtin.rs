//! The steps that are part of Sealift, written anew for those whose registry is gone.
//!
//! Guarantees: each has a manifest that names all it reads, and a page in `docs/steps/`.
//!
//! It must not know how they are run.

use super::manifest::{Error, Manifest};

/// A step that is part of Sealift.
#[derive(Debug)]
pub struct Builtin {
    pub name: &'static str,
    /// Whose steps of that name it stands for, besides `wercker`.
    pub owners: &'static [&'static str],
    /// The text of its `step.yml`.
    pub manifest: &'static str,
    /// The text of its `run.sh`.
    pub run: &'static str,
}

impl Builtin {
    /// Whether a pipeline that names this owner and step means it.
    #[must_use]
    pub fn is(&self, owner: &str, name: &str) -> bool {
        self.name == name && (owner == "wercker" || self.owners.contains(&owner))
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// Never for those in [`BUILTINS`]: a test reads them all.
    pub fn manifest(&self) -> Result<Manifest, Error> {
        Manifest::parse(self.manifest)
    }
}

macro_rules! builtins {
    ($($name:literal: [$($owner:literal),*],)*) => {
        &[$(Builtin {
            name: $name,
            owners: &[$($owner),*],
            manifest: include_str!(concat!("../../steps/", $name, "/step.yml")),
            run: include_str!(concat!("../../steps/", $name, "/run.sh")),
        }),*]
    };
}

/// All of them, by name.
pub const BUILTINS: &[Builtin] = builtins! {
    "add-ssh-key": [],
    "add-to-known_hosts": [],
    "bash-template": [],
    "bundle-install": [],
    "create-file": [],
    "github-create-release": [],
    "github-upload-asset": [],
    "golint": ["AlmogBaku"],
    "heroku-deploy": [],
    "hipchat-notify": [],
    "install-packages": [],
    "kubectl": [],
    "npm-install": [],
    "npm-test": [],
    "nvm": [],
    "pip-install": [],
    "rails-database-yml": [],
    "rvm-use": [],
    "s3sync": [],
    "setup-go-workspace": ["MiCHiLU"],
    "shellcheck": [],
    "slack-notifier": ["alianza"],
    "virtualenv": [],
};
