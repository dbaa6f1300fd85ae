//! Units: what systemd runs on machines, what was asked for and what is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Extra, MachineId, ProjectName, ReleaseNumber, Resources, Timestamp, UnitName, Update};

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
    /// Files of its `<unit>.d/` folder by name (`10-limits.conf`), byte for byte.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drop_ins: BTreeMap<String, String>,
    /// What the file's `[X-Fleet]` section asks of a machine, read once from `text`.
    #[serde(default)]
    pub requirements: Requirements,
    pub desired: DesiredState,
    /// Rises with every change of this record by its author.
    pub generation: u64,
    /// How often somebody asked for a restart.
    #[serde(default, skip_serializing_if = "none_yet")]
    pub restarts: u64,
    /// The app and release it belongs to; none for a unit that was submitted by hand.
    #[serde(default)]
    pub app: Option<(ProjectName, ReleaseNumber)>,
    /// The template whose `Replicas=` it is one of; such an instance is made, changed and removed with its template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<UnitName>,
    /// A change that its machines do not all have yet, or that was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Box<Update>>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn none_yet(count: &u64) -> bool {
    *count == 0
}

impl Unit {
    /// The first generation of a unit that belongs to no app.
    #[must_use]
    pub fn new(name: UnitName, text: impl Into<String>, desired: DesiredState) -> Unit {
        Unit {
            name,
            text: text.into(),
            drop_ins: BTreeMap::new(),
            requirements: Requirements::default(),
            desired,
            generation: 1,
            restarts: 0,
            app: None,
            template: None,
            update: None,
            extra: Extra::new(),
        }
    }
}

/// What a unit asks of its machine and of us: `[X-Fleet]` as fleet read it, and the keys that came after fleet.
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
    /// What is kept free for it on its machine: `Memory=` and `CPU=`.
    #[serde(skip_serializing_if = "Resources::is_none")]
    pub resources: Resources,
    /// What systemd holds it to: `MemoryMax=` and `CPUMax=`; 0 is no cap.
    #[serde(skip_serializing_if = "Resources::is_none")]
    pub caps: Resources,
    /// `MachineClass=`: classes of machines that it may go to; none: to machines without a class. `*` is any machine.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub classes: BTreeSet<String>,
    /// `Spread=`: evenly over the values of this metadata key, among units of the same template (or of the same name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
    /// `PreferMachineMetadata=`: rather on a machine that has one of the values, key by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub prefers_metadata: BTreeMap<String, BTreeSet<String>>,
    /// `PreferMachineOf=`: rather beside units whose names match one of these shell globs.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub prefers_machine_of: BTreeSet<String>,
    /// `Priority=`: the higher is placed first. fleet's units have 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// `Preempt=`: where there is no room, units of a lower priority make it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preempts: bool,
    /// `Replicas=` of a template: that many instances, `x@1` to `x@N`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// `CutOff=`: what its machine does with it without contact to a server.
    #[serde(skip_serializing_if = "CutOff::is_keep")]
    pub cut_off: CutOff,
    /// `Update*=`: how a change of it is rolled out; none: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdatePolicy>,
}

impl Requirements {
    /// A unit that asks for nothing.
    pub const NONE: Requirements = Requirements {
        machine_id: None,
        machine_of: BTreeSet::new(),
        metadata: BTreeMap::new(),
        conflicts: BTreeSet::new(),
        global: false,
        replaces: BTreeSet::new(),
        resources: Resources::NONE,
        caps: Resources::NONE,
        classes: BTreeSet::new(),
        spread: None,
        prefers_metadata: BTreeMap::new(),
        prefers_machine_of: BTreeSet::new(),
        priority: 0,
        preempts: false,
        replicas: None,
        cut_off: CutOff::Keep,
        update: None,
    };
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// What a unit does while its machine has lost all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutOff {
    /// It runs on; if it has moved meanwhile, this copy is stopped within a second of contact.
    #[default]
    Keep,
    /// The agent stops it before the machine's lease can have run out, so that it never runs twice.
    Stop,
}

impl CutOff {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
    fn is_keep(&self) -> bool {
        *self == CutOff::Keep
    }
}

/// How units that run already are brought to a new text. Counts are of the instances that change together: those of a
/// template, or the machines of a global unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdatePolicy {
    /// `UpdateMaxOut=`: never more out at once than this, as a share; and so as many in a batch.
    pub max_out: Share,
    /// `UpdateCanary=`: so many first, and by themselves.
    pub canary: u32,
    /// `UpdateOrder=`
    pub order: UpdateOrder,
    /// `UpdateHold=`: seconds that one has to be active before the next begin.
    pub hold_seconds: u32,
    /// `UpdateHealth=`: a command on the unit's machine that has to exit with 0 besides.
    pub health: Option<String>,
    /// `UpdateTimeout=`: seconds after which one that is not active and healthy has failed.
    pub timeout_seconds: u32,
    /// `UpdateOnFailure=`
    pub on_failure: OnFailure,
}

impl Default for UpdatePolicy {
    fn default() -> UpdatePolicy {
        UpdatePolicy {
            max_out: Share::Count(1),
            canary: 0,
            order: UpdateOrder::StopFirst,
            // A simple service counts as active before its program has begun.
            hold_seconds: 1,
            health: None,
            timeout_seconds: 300,
            on_failure: OnFailure::Rollback,
        }
    }
}

/// A count, or a part of the whole in percent, which is rounded down but never to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    Count(u32),
    Percent(u8),
}

impl Share {
    /// So many of `whole`; at least one.
    #[must_use]
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Share::Count(count) => count,
            Share::Percent(percent) => {
                u32::try_from(u64::from(whole) * u64::from(percent) / 100).unwrap_or(whole)
            }
        }
        .max(1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    #[default]
    StopFirst,
    /// The new one is active before the old one stops, where both can run on different machines.
    StartFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Those that were changed go back to the text they had.
    #[default]
    Rollback,
    /// All stay as they are, for somebody to look at.
    Stop,
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

impl ActiveState {
    /// It runs.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, ActiveState::Active | ActiveState::Reloading)
    }

    /// As systemd says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ActiveState::Active => "active",
            ActiveState::Reloading => "reloading",
            ActiveState::Inactive => "inactive",
            ActiveState::Failed => "failed",
            ActiveState::Activating => "activating",
            ActiveState::Deactivating => "deactivating",
            ActiveState::Other => "other",
        }
    }
}

/// What became of a unit that was started under an update policy: active for `UpdateHold=`, and healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Gate {
    Waiting {
        /// What it was not well by when it was looked at last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    Passed,
    /// It will not pass any more, unless it is started again.
    Failed {
        why: String,
    },
    #[serde(other)]
    Unknown,
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
    /// The exit status of a main process that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Bytes in use when this was said. No news by itself: it is as old as the last change of anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// CPU time used since the start, in nanoseconds. As `memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_nanos: Option<u64>,
    /// BLAKE3 of what systemd was given, as hex digits: the unit without `[X-Fleet]`, its drop-ins and ours. While it stays,
    /// nothing is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Whether it is as its update policy wants it, for the generation that this speaks of; none where no policy holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
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
            exit_code: None,
            memory: None,
            cpu_nanos: None,
            hash: None,
            gate: None,
            error: None,
            since: placement.since,
            extra: Extra::new(),
        }
    }

    /// Whether it tells nothing that `other` does not, the use of memory and CPU aside.
    #[must_use]
    pub fn is_no_news_after(&self, other: &UnitStatus) -> bool {
        let aside = |status: &UnitStatus| UnitStatus { memory: None, cpu_nanos: None, ..status.clone() };
        aside(self) == aside(other)
    }
}
