//! Why a unit is, could be or cannot be on a machine, typed for programs and in words for people.

use std::collections::BTreeSet;
use std::fmt;

use sealift_model::{MachineId, Resources, UnitName};

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
    /// Operators let nothing new come.
    Cordoned,
    /// Operators let everything leave.
    Drained,
    /// `MachineClass=` does not name the machine's class, or the machine has none.
    Class {
        wanted: BTreeSet<String>,
        class: Option<String>,
    },
    /// `Memory=` or `CPU=` is more than is free, or for a unit that is there: than there is.
    NoRoom {
        wanted: Resources,
        free: Resources,
    },
    /// A unit is being stopped of which nobody knows any more what it takes.
    Stopping {
        unit: UnitName,
    },
    /// What is or becomes free is kept for a unit of a higher priority.
    Reserved {
        by: UnitName,
    },
    /// A unit of a higher priority needs the room.
    Preempted {
        by: UnitName,
    },
    /// To even out what machines have to do.
    Rebalanced {
        to: MachineId,
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
            Reason::Cordoned => f.write_str("the machine is cordoned"),
            Reason::Drained => f.write_str("the machine is drained"),
            Reason::Class { wanted, class } => {
                match class {
                    Some(class) => write!(f, "the machine is of class {class}")?,
                    None => f.write_str("the machine is of no class")?,
                }
                let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                match wanted.as_slice() {
                    [] => f.write_str(" and the unit asks for none"),
                    _ => write!(f, " and the unit asks for {}", wanted.join("|")),
                }
            }
            Reason::NoRoom { wanted, free } => no_room(f, *wanted, *free),
            Reason::Stopping { unit } => write!(f, "{unit}, which is gone, is still being stopped"),
            Reason::Reserved { by } => write!(f, "the room is kept for {by}, which has a higher priority"),
            Reason::Preempted { by } => write!(f, "{by}, which has a higher priority, needs the room"),
            Reason::Rebalanced { to } => write!(f, "machine {} has less to do", to.short()),
            Reason::StillOn { machine } => {
                write!(f, "machine {} has not confirmed that it stopped it", machine.short())
            }
        }
    }
}

fn no_room(f: &mut fmt::Formatter<'_>, wanted: Resources, free: Resources) -> fmt::Result {
    let memory = wanted.memory > free.memory;
    if memory {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        write!(f, "{} MiB of memory wanted, {} free", mib(wanted.memory), mib(free.memory))?;
    }
    if wanted.cpu > free.cpu {
        let and = if memory { " and " } else { "" };
        write!(f, "{and}{} CPU wanted, {} free", cores(wanted.cpu), cores(free.cpu))?;
    }
    Ok(())
}

/// Thousandths of a core as people write cores.
fn cores(thousandths: u32) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
