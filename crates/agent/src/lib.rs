//! The agent: makes one machine match its assignments. Units go to the machine's systemd, runs to a container engine,
//! and what becomes of both goes back to the server.
//!
//! It talks to servers only, never to the store, and decides nothing: what is to be where comes assigned.

mod agent;
mod approvals;
mod commit_units;
mod contact;
pub mod enrolment;
mod questions;
pub mod releases;
pub mod reports;
pub mod runs;
mod step_packages;
pub mod systemd;
pub mod units;

use std::path::Path;

pub use agent::{Agent, Error, Options};
use systemd::Scope;
use systemd::launch::{self, Surroundings};

/// Ends what an agent with this state folder left running: its units, and its private systemd if it has one. Gives the
/// number of units. The agent itself must not be running.
///
/// # Errors
/// When systemd or the disk says no.
pub async fn remove_all(state_dir: &Path, around: &Surroundings) -> Result<usize, Error> {
    let (manager, systemd) = match launch::connect_running(around).await {
        // Its units ended with it; what was noted down of them is of no use.
        Err(launch::Error::NotRunning(_)) => {
            return units::forget_all(state_dir.join("units")).map_err(Error::Units);
        }
        connected => connected?,
    };
    let count = units::remove_all(&manager, &systemd, state_dir.join("units")).await.map_err(Error::Units)?;
    if manager.scope == Scope::Private {
        launch::end_private(&around.private_dir, &systemd).await?;
    }
    Ok(count)
}
