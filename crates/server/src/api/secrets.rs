//! Secrets: set by people, told to the attempt that is under way and to nobody else.
//!
//! No answer but that one holds a value, and neither does anything that is logged. Whoever may use the API is trusted
//! with the fleet: he can push a pipeline that does with a secret what he likes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use sealift_client::api::{AskSecrets, List, NewSecret, RunSecrets, SecretInfo};
use sealift_model::{ProjectName, RunId, SecretName};

use super::Error;
use super::runs::{fenced, find};
use crate::secrets::{self, Secrets};
use crate::server::Inner;

/// Takes a value. A body that is not understood is refused without quoting it, as the parser would.
pub(super) async fn set(
    State(inner): State<Arc<Inner>>,
    Path((project, name)): Path<(ProjectName, SecretName)>,
    body: Bytes,
) -> Result<Json<SecretInfo>, Error> {
    let new: NewSecret = serde_json::from_slice(&body).map_err(|_| Error::Invalid {
        message: "the body is not a secret".into(),
        help: Some("send {\"value\": TEXT}, a text of 1 byte to 64 KiB without NUL bytes".into()),
    })?;
    let changed_at = (inner.clock)();
    let info = SecretInfo { name: name.clone(), changed_at };
    on_disk(&inner, move |secrets| secrets.set(&project, name, new.value, changed_at)).await?;
    Ok(Json(info))
}

pub(super) async fn remove(
    State(inner): State<Arc<Inner>>,
    Path((project, name)): Path<(ProjectName, SecretName)>,
) -> Result<StatusCode, Error> {
    on_disk(&inner, move |secrets| secrets.remove(&project, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn list(
    State(inner): State<Arc<Inner>>,
    Path(project): Path<ProjectName>,
) -> Result<Json<List<SecretInfo>>, Error> {
    let all = on_disk(&inner, move |secrets| secrets.all(&project)).await?;
    let items = all.into_iter().map(|(name, secret)| SecretInfo { name, changed_at: secret.changed_at });
    Ok(Json(List { items: items.collect() }))
}

/// The values, for the agent that carries out this attempt.
pub(super) async fn tell(
    State(inner): State<Arc<Inner>>,
    Path((id, attempt)): Path<(RunId, u32)>,
    Json(body): Json<AskSecrets>,
) -> Result<Json<RunSecrets>, Error> {
    {
        let world = inner.cache.world();
        fenced(&world, find(&world, &id)?, attempt, &body.session)?;
    }
    let all = on_disk(&inner, move |secrets| secrets.all(&id.project)).await?;
    let secrets = all.into_iter().map(|(name, secret)| (name, secret.value)).collect();
    Ok(Json(RunSecrets { secrets }))
}

async fn on_disk<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Secrets) -> Result<T, secrets::Error> + Send + 'static,
) -> Result<T, Error> {
    let inner = inner.clone();
    let work = move || work(&inner.secrets);
    Ok(tokio::task::spawn_blocking(work).await.map_err(Error::Cut)??)
}
