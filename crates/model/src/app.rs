//! Apps and their releases: which of a project's packages runs, with which units.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{BranchName, Extra, Package, ProjectName, Timestamp, UnitName};

/// Releases of an app are counted from 1.
pub type ReleaseNumber = u64;

/// An app ties the stages of one project together: it runs one release of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    pub project: ProjectName,
    /// Passed runs of this branch become releases; other branches only make packages.
    pub branch: BranchName,
    /// The release that should run.
    pub current: ReleaseNumber,
    /// Rises with every change of `current`.
    pub generation: u64,
    pub changed_at: Timestamp,
    #[serde(flatten)]
    pub extra: Extra,
}

/// A package and the unit files of the same commit. Never changed once written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub number: ReleaseNumber,
    pub package: Package,
    /// Unit files by name, byte for byte as in the commit's `units/` folder. They are in the signed archive too,
    /// and an agent starts a unit only when both agree.
    pub units: BTreeMap<UnitName, String>,
    /// Files of units' `units/<unit>.d/` folders by their names, in the same way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drop_ins: BTreeMap<UnitName, BTreeMap<String, String>>,
    pub created_at: Timestamp,
    #[serde(flatten)]
    pub extra: Extra,
}

/// How far the machines are with an app's current release; worked out from unit states, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppPhase {
    /// Some unit is not yet up on the current release.
    Rolling,
    /// Every unit is active on the current release.
    Running,
    /// Some unit failed or could not be started.
    Failed,
    /// The release has no units.
    Empty,
}
