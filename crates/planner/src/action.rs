//! What a plan consists of.

use sealift_model::{MachineId, ProjectName, RunId, SessionId, Unit, UnitName};

use crate::Reason;

/// One decision, to be written as one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Writes a unit of an app or a template, new or in place of its older form; or how far a change of any unit is.
    PutUnit { unit: Box<Unit> },
    /// Gives a machine a global unit as of this generation, or takes that back.
    Update { unit: UnitName, machine: MachineId, generation: Option<u64> },
    /// Takes a unit away that its app's release does not have.
    RemoveUnit { name: UnitName },
    /// Gives a unit that is placed nowhere to a machine.
    Place { unit: UnitName, machine: MachineId },
    /// Takes a unit from the machine that it is placed on.
    Unplace {
        unit: UnitName,
        machine: MachineId,
        reason: Reason,
        /// Units that it follows and that follow it (`MachineOf=` in a circle): they leave in the same step.
        with: Vec<UnitName>,
    },
    /// Hands a queued run to an agent, as its attempt of this number.
    Dispatch { run: RunId, attempt: u32, machine: MachineId, session: SessionId },
    /// Ends a running attempt as lost and puts the run back in the queue.
    Lose { run: RunId, attempt: u32, reason: String },
    /// Ends a running attempt as lost, and with it the run as failed.
    GiveUp { run: RunId, reason: String },
}

/// What an action writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Unit(UnitName),
    Placement(UnitName),
    Status(MachineId, UnitName),
    Updated(MachineId, UnitName),
    Run(RunId),
    /// The id of the newest placement.
    LastPlacement,
}

impl Action {
    /// All that is other afterwards.
    #[must_use]
    pub fn writes(&self) -> Vec<Subject> {
        match self {
            Action::PutUnit { unit } => vec![Subject::Unit(unit.name.clone())],
            Action::Update { unit, machine, .. } => vec![Subject::Updated(machine.clone(), unit.clone())],
            Action::RemoveUnit { name } => vec![Subject::Unit(name.clone())],
            Action::Place { unit, machine } => vec![
                Subject::Placement(unit.clone()),
                Subject::Status(machine.clone(), unit.clone()),
                Subject::LastPlacement,
            ],
            Action::Unplace { unit, with, .. } => {
                std::iter::once(unit).chain(with).map(|unit| Subject::Placement(unit.clone())).collect()
            }
            Action::Dispatch { run, .. } | Action::Lose { run, .. } | Action::GiveUp { run, .. } => {
                vec![Subject::Run(run.clone())]
            }
        }
    }
}

/// Actions in the order in which they are to be carried out, and what somebody has to look at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub problems: Vec<Problem>,
}

/// Something in an app's release that no action mends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The unit stays with whoever has it.
    #[error("unit {unit} of app {project} is not deployed: the name belongs to {}", owner_text(owner.as_ref()))]
    NameTaken {
        project: ProjectName,
        unit: UnitName,
        /// The app that has the name; none if the unit was submitted by hand.
        owner: Option<ProjectName>,
    },
    /// Whoever filled in the snapshot could not read the unit file.
    #[error("unit {unit} of app {project} is not deployed: its unit file cannot be read")]
    Unreadable { project: ProjectName, unit: UnitName },
    /// A unit that was submitted by hand has the name of an instance.
    #[error(
        "unit {unit} of template {template} is not made: the name belongs to a unit that was submitted by hand"
    )]
    InstanceTaken { template: UnitName, unit: UnitName },
    /// The template's file makes no sense as this instance.
    #[error("unit {unit} of template {template} is not made: its unit file cannot be read")]
    InstanceUnreadable { template: UnitName, unit: UnitName },
}

impl Problem {
    /// The unit that is not as it is wanted.
    #[must_use]
    pub fn unit(&self) -> &UnitName {
        match self {
            Problem::NameTaken { unit, .. }
            | Problem::Unreadable { unit, .. }
            | Problem::InstanceTaken { unit, .. }
            | Problem::InstanceUnreadable { unit, .. } => unit,
        }
    }

    /// The app that wants it; none where a template alone does.
    #[must_use]
    pub fn project(&self) -> Option<&ProjectName> {
        match self {
            Problem::NameTaken { project, .. } | Problem::Unreadable { project, .. } => Some(project),
            Problem::InstanceTaken { .. } | Problem::InstanceUnreadable { .. } => None,
        }
    }
}

fn owner_text(owner: Option<&ProjectName>) -> String {
    match owner {
        Some(project) => format!("app {project}"),
        None => "a unit that was submitted by hand".to_owned(),
    }
}
