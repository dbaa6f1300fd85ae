//! Machines: what runs units and pipelines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Extra, MachineId, SessionId, Timestamp};

/// A machine as its agent describes it. Stays when the machine is away; [`Presence`] says whether it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub id: MachineId,
    /// The host name, for people; not unique.
    pub name: String,
    /// Key and value pairs that units ask for with `MachineMetadata=`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The program's version, for rolling upgrades.
    pub version: String,
    /// Which systemd the agent drives: `system`, `user` or `private`.
    pub systemd: String,
    /// How many runs it takes at once; 0 takes none.
    pub run_slots: u32,
    /// Where others reach it: an address or a host name, for people, fleet's API and ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Machines of a class take only units that name it with `MachineClass=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// All that it has.
    #[serde(default, skip_serializing_if = "Resources::is_none")]
    pub capacity: Resources,
    /// What of it is kept for the machine itself and never promised to units.
    #[serde(default, skip_serializing_if = "Resources::is_none")]
    pub reserved: Resources,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Machine {
    /// A machine that says nothing of itself yet.
    #[must_use]
    pub fn new(id: MachineId, name: impl Into<String>) -> Machine {
        Machine {
            id,
            name: name.into(),
            metadata: BTreeMap::new(),
            version: String::new(),
            systemd: String::new(),
            run_slots: 0,
            address: None,
            class: None,
            capacity: Resources::NONE,
            reserved: Resources::NONE,
            extra: Extra::new(),
        }
    }

    /// What units can be promised.
    #[must_use]
    pub fn allocatable(&self) -> Resources {
        Resources {
            memory: self.capacity.memory.saturating_sub(self.reserved.memory),
            cpu: self.capacity.cpu.saturating_sub(self.reserved.cpu),
        }
    }
}

/// Memory and CPU, of a machine or for a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes.
    pub memory: u64,
    /// Thousandths of a core.
    pub cpu: u32,
}

impl Resources {
    pub const NONE: Resources = Resources { memory: 0, cpu: 0 };

    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Resources::NONE
    }
}

/// What operators set of a machine; the machine itself says the rest. Kept while the machine is away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineSettings {
    /// Put over the metadata that the machine says; null takes a key away.
    pub metadata: BTreeMap<String, Option<String>>,
    pub availability: Availability,
    /// Times at which it counts as drained, whatever `availability` says; those that are over are removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<Maintenance>,
    /// Whether maintenance is under way, as was written when it began: for all who look at no clock.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_maintenance: bool,
    #[serde(flatten)]
    pub extra: Extra,
}

impl MachineSettings {
    /// Metadata as units see it: that of the machine with what is set here over it.
    #[must_use]
    pub fn metadata_over(&self, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut metadata = own.clone();
        for (key, value) in &self.metadata {
            match value {
                Some(value) => metadata.insert(key.clone(), value.clone()),
                None => metadata.remove(key),
            };
        }
        metadata
    }

    /// What it is to be at this moment, with regard to maintenance.
    #[must_use]
    pub fn availability_at(&self, now: Timestamp) -> Availability {
        if self.maintenance_at(now) { Availability::Drained } else { self.availability }
    }

    /// Whether a span of maintenance is under way at this moment.
    #[must_use]
    pub fn maintenance_at(&self, now: Timestamp) -> bool {
        self.maintenance.iter().any(|span| span.from <= now && now < span.until)
    }

    /// The settings as they are at this moment: maintenance that is over is gone, and it is noted whether some is under way.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> MachineSettings {
        self.maintenance.retain(|span| now < span.until);
        self.in_maintenance = self.maintenance_at(now);
        self
    }

    /// Whether everything is to leave the machine, as far as it was written down.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.availability == Availability::Drained || self.in_maintenance
    }
}

/// Whether a machine takes units. The greater, the less it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    #[default]
    Active,
    /// What is there stays; nothing new comes.
    Cordoned,
    /// Nothing comes, and all that can go elsewhere leaves. Global units stop.
    Drained,
}

/// A time set apart for work on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    pub from: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
}

/// Stored under the machine's lease: it is there as long as the agent keeps the lease alive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    pub session: SessionId,
    pub since: Timestamp,
}
