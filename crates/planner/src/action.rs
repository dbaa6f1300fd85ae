//! What a plan consists of.

use sealift_model::{MachineId, ProjectName, RunId, SessionId, Unit, UnitName};

use crate::Reason;

/// One decision, to be written as one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Writes a unit of an app, new or in place of its older form.
    PutUnit { unit: Box<Unit> },
    /// Takes a unit away that its app's release does not have.
    RemoveUnit { name: UnitName },
    /// Gives a unit that is placed nowhere to a machine.
    Place { unit: UnitName, machine: MachineId },
    /// Takes a unit from the machine that it is placed on.
    Unplace { unit: UnitName, machine: MachineId, reason: Reason },
    /// Hands a queued run to an agent, as its attempt of this number.
    Dispatch { run: RunId, attempt: u32, machine: MachineId, session: SessionId },
    /// Ends a running attempt as lost and puts the run back in the queue.
    Lose { run: RunId, attempt: u32, reason: String },
    /// Ends a running attempt as lost, and with it the run as failed.
    GiveUp { run: RunId, reason: String },
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
}

fn owner_text(owner: Option<&ProjectName>) -> String {
    match owner {
        Some(project) => format!("app {project}"),
        None => "a unit that was submitted by hand".to_owned(),
    }
}
