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
    #[serde(flatten)]
    pub extra: Extra,
}

/// Stored under the machine's lease: it is there as long as the agent keeps the lease alive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    pub session: SessionId,
    pub since: Timestamp,
}
