//! What there is: the overview, and packages.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use sealift_client::api::{List, Packages, Status};
use sealift_model::{ProjectName, RunState};
use serde::Deserialize;

use crate::server::Inner;

pub(super) async fn status(State(inner): State<Arc<Inner>>) -> Json<Status> {
    let world = inner.cache.world();
    let count = |state| world.runs.values().filter(|run| run.value.state == state).count();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        revision: world.revision.0,
        machines_present: world.presence.len(),
        machines: world.machines.len(),
        leader: world.leader.as_ref().map(|held| held.value.clone()),
        runs_queued: count(RunState::Queued),
        runs_running: count(RunState::Running),
        unreadable: world.unreadable().map(str::to_owned).collect(),
        approvals: world.runs.values().map(|run| run.value.unanswered().count()).sum(),
        packages: world.packages.len(),
        apps: world.apps.values().map(|app| super::apps::view(&inner, &world, &app.value)).collect(),
        public_key: inner.signing.public().to_base64(),
    })
}

#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    project: Option<ProjectName>,
}

pub(super) async fn packages(
    State(inner): State<Arc<Inner>>,
    Query(filter): Query<Filter>,
) -> Json<Packages> {
    let world = inner.cache.world();
    let mut items: Vec<_> = world
        .packages
        .values()
        .map(|held| &held.value)
        .filter(|package| filter.project.as_ref().is_none_or(|project| *project == package.name.project))
        .cloned()
        .collect();
    items.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.name.cmp(&b.name)));
    Json(List { items })
}
