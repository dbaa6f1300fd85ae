//! Why a unit is, could be or cannot be on a machine, typed for programs and in words for people.

use std::collections::BTreeSet;
use std::fmt;

use sealift_model::{MachineId, UnitName};

/// What a machine is to a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The unit is placed here, or is global and runs here.
    Here,
    /// It could come.
    Fits,
    No(Reason),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Here => f.write_str("it is here"),
            Verdict::Fits => f.write_str("it fits"),
            Verdict::No(reason) => reason.fmt(f),
        }
    }
}

/// Why a unit cannot be on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The machine is away or was never known.
    Away,
    /// There is no such unit (any more).
    Gone,
    Inactive,
    Template,
    /// It needs no placement.
    Global,
    /// `MachineID=` names another machine.
    OtherMachine {
        wanted: String,
    },
    /// `MachineMetadata=` asks for one of these values.
    Metadata {
        key: String,
        wanted: BTreeSet<String>,
    },
    /// `MachineOf=` names a unit that is not placed on this machine.
    Apart {
        from: String,
    },
    /// `Conflicts=` of either of the two.
    Conflict {
        with: UnitName,
    },
    /// `Replaces=` of a unit on the machine.
    GivesWay {
        to: UnitName,
    },
    /// Another machine in contact has not confirmed that it stopped the unit.
    StillOn {
        machine: MachineId,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Away => f.write_str("the machine is away"),
            Reason::Gone => f.write_str("the unit is gone"),
            Reason::Inactive => f.write_str("the unit is to be inactive"),
            Reason::Template => f.write_str("a template itself runs nowhere"),
            Reason::Global => f.write_str("the unit is global"),
            Reason::OtherMachine { wanted } => write!(f, "MachineID={wanted} is another machine"),
            Reason::Metadata { key, wanted } => {
                let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                write!(f, "the machine has not the metadata {key}={}", wanted.join("|"))
            }
            Reason::Apart { from } => write!(f, "MachineOf={from} is not placed here"),
            Reason::Conflict { with } => write!(f, "it conflicts with {with}"),
            Reason::GivesWay { to } => write!(f, "it gives way to {to}"),
            Reason::StillOn { machine } => {
                write!(f, "machine {} has not confirmed that it stopped it", machine.short())
            }
        }
    }
}
