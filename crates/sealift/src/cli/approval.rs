//! The options of `sealift approvals`, `approve` and `reject`.

use clap::Args;
use sealift_model::{ProjectName, RunId};

#[derive(Debug, Args)]
pub(crate) struct ApprovalsArgs {
    /// Only this project's
    #[arg(long)]
    pub(crate) project: Option<ProjectName>,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    pub(crate) run: RunId,
    /// The pipeline that waits; may be left out where only one does
    pub(crate) node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RejectArgs {
    pub(crate) run: RunId,
    /// The pipeline that waits; may be left out where only one does
    pub(crate) node: Option<String>,
    /// Why, for the run's log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}
