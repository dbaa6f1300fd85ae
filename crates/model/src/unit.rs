//! Units: what systemd runs on machines, what was asked for and what is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Extra, MachineId, ProjectName, ReleaseNumber, Timestamp, UnitName};

/// What the author of a unit wants of it; fleet's three desired states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// Known, on no machine.
    Inactive,
    /// On a machine, known to its systemd, not started by us.
    Loaded,
    /// On a machine and started.
    Launched,
}

/// A unit as its author wants it. Stored once, without where it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    pub name: UnitName,
    /// The unit file, byte for byte as it came.
    pub text: String,
    /// What the file's `[X-Fleet]` section asks of a machine, read once from `text`.
    #[serde(default)]
    pub requirements: Requirements,
    pub desired: DesiredState,
    /// Rises by one with every change of this record by its author.
    pub generation: u64,
    /// The app and release it belongs to; none for a unit that was submitted by hand.
    #[serde(default)]
    pub app: Option<(ProjectName, ReleaseNumber)>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a unit asks of its machine, as fleet read `[X-Fleet]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Requirements {
    /// Only this machine: a full id or its first 8 digits.
    pub machine_id: Option<String>,
    /// Together with each of these units.
    pub machine_of: BTreeSet<String>,
    /// For each key, one of the values.
    pub metadata: BTreeMap<String, BTreeSet<String>>,
    /// Not together with units whose names match one of these shell globs; counts for both sides.
    pub conflicts: BTreeSet<String>,
    /// On every machine that has the metadata and no conflict.
    pub global: bool,
    /// Units that give way when this one comes to their machine (shell globs).
    pub replaces: BTreeSet<String>,
}

/// Where a unit that is not global is to run. At most one per unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// Rises with every placement of any unit, so that a late word on an earlier one is told from a word on this. From 1.
    #[serde(default)]
    pub id: u64,
    pub unit: UnitName,
    pub machine: MachineId,
    pub since: Timestamp,
}

/// A unit that is not to be, or no more is, on a machine by the placement of this id or an earlier one. 0 is for
/// units that need no placement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Withdrawal {
    pub unit: UnitName,
    #[serde(default)]
    pub placement: u64,
}

/// systemd's ActiveState, org.freedesktop.systemd1(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActiveState {
    Active,
    Reloading,
    Inactive,
    Failed,
    Activating,
    Deactivating,
    /// Anything that a newer systemd may say.
    #[serde(other)]
    Other,
}

/// What a machine says of a unit: systemd's words and which generation of the unit it speaks of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitStatus {
    pub unit: UnitName,
    /// The placement that it speaks of; 0 for a unit that needs none.
    #[serde(default)]
    pub placement: u64,
    /// The newest generation that this machine has carried out.
    pub generation: u64,
    /// The release whose files it runs from.
    #[serde(default)]
    pub release: Option<ReleaseNumber>,
    pub load: String,
    pub active: ActiveState,
    pub sub: String,
    /// `success`, or why the service failed (`exit-code`, `signal`, ...).
    #[serde(default)]
    pub result: Option<String>,
    #[serde(default)]
    pub main_pid: Option<u32>,
    /// Why the agent could not carry out the assignment, when it could not.
    #[serde(default)]
    pub error: Option<String>,
    /// When the unit came into its ActiveState.
    pub since: Timestamp,
    #[serde(flatten)]
    pub extra: Extra,
}

impl UnitStatus {
    /// What stands for a machine's own word on a unit from its placement until there is one. So a unit counts as being
    /// on the machine that was given it, until that machine says that it is not.
    #[must_use]
    pub fn unheard(placement: &Placement) -> UnitStatus {
        UnitStatus {
            unit: placement.unit.clone(),
            placement: placement.id,
            generation: 0,
            release: None,
            load: "unheard".to_owned(),
            active: ActiveState::Inactive,
            sub: "unheard".to_owned(),
            result: None,
            main_pid: None,
            error: None,
            since: placement.since,
            extra: Extra::new(),
        }
    }
}
