//! What a machine is to do. A machine sees its own assignments and nothing else.

use serde::{Deserialize, Serialize};

use crate::{Package, Run, SessionId, Unit};

/// One thing that a machine is to do or to keep running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Assignment {
    Unit(Box<UnitAssignment>),
    Run(Box<RunAssignment>),
}

/// A unit to hold in the state it names, until the assignment is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitAssignment {
    pub unit: Unit,
    /// The placement that it follows from; 0 for a unit that needs none.
    #[serde(default)]
    pub placement: u64,
    /// The package whose files the unit runs from; none for a unit without an app.
    #[serde(default)]
    pub package: Option<Package>,
}

/// An attempt to carry out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunAssignment {
    /// As it stood when it was handed out.
    pub run: Run,
    pub attempt: u32,
    /// The agent's life that it was handed to; another life leaves it alone.
    pub session: SessionId,
}
