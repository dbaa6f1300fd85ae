//! The HTTP API, `/v1`: one file a noun. Handlers read from the cache, write to the store and leave deciding to the
//! controllers.

mod access;
mod approvals;
mod apps;
mod blobs;
mod error;
mod fleet;
mod gate;
mod machines;
mod plan;
mod questions;
mod rebalance;
mod rollouts;
mod runs;
mod secrets;
mod status;
mod units;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use bytes::Bytes;
use futures_util::Stream;
use sealift_store::{Revision, Txn};
use serde::Serialize;
use tokio::sync::mpsc;

pub(crate) use error::Error;
use fleet::units as fleets;
pub(crate) use gate::{Door, Peer};
pub(crate) use questions::Questions;
pub(crate) use rebalance::Rebalancing;

use crate::cache::World;
use crate::keys::Key;
use crate::server::Inner;

/// JSON requests; bytes have a limit of their own.
const JSON_LIMIT: usize = 8 << 20;
/// What somebody may send whom nobody knows.
const JOIN_LIMIT: usize = 16 << 10;

/// The routes, each with its rule in [`gate::RULES`]; all but `/healthz` are guarded by it.
pub(crate) fn router(inner: Arc<Inner>, door: Door) -> Router {
    let router = Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/units", get(units::list).post(units::put))
        .route("/v1/units/destroy", post(units::destroy))
        .route("/v1/rollouts", get(rollouts::list))
        .route("/v1/rollouts/{unit}", post(rollouts::steer))
        .route("/v1/units/watch", post(units::watch))
        .route("/v1/units/{unit}", get(units::show))
        .route("/v1/units/{unit}/explain", get(units::explain))
        .route("/v1/units/{unit}/journal", get(questions::journal))
        .route("/v1/units/{unit}/systemd", get(questions::systemd))
        .route("/v1/plan", post(plan::plan))
        .route("/v1/rebalance", post(rebalance::rebalance))
        .route("/v1/packages", get(status::packages))
        .route("/v1/machines", get(machines::list))
        .route("/v1/machines/{machine}", delete(access::remove_machine))
        .route("/v1/machines/{machine}/certificate", post(access::renew))
        .route("/v1/machines/{machine}/settings", post(machines::change_settings))
        // Its body is read as it comes, so the limit below does not hold for it.
        .route("/v1/machines/{machine}/answers/{question}", post(questions::answer))
        .route("/v1/machines/{machine}/session", post(machines::begin_session))
        .route("/v1/machines/{machine}/keep-alive", post(machines::keep_alive))
        .route("/v1/machines/{machine}/assignments", get(machines::assignments))
        .route("/v1/machines/{machine}/statuses", post(machines::report))
        .route("/v1/runs", get(runs::list).post(runs::create))
        .route("/v1/runs/{run}", get(runs::show))
        .route("/v1/runs/{run}/abort", post(runs::abort))
        .route("/v1/runs/{run}/log", get(runs::log))
        .route("/v1/runs/{run}/attempts/{attempt}/events", post(runs::events))
        .route("/v1/runs/{run}/attempts/{attempt}/finish", post(runs::finish))
        .route("/v1/runs/{run}/attempts/{attempt}/secrets", post(secrets::tell))
        .route("/v1/runs/{run}/attempts/{attempt}/approvals", post(approvals::ask))
        .route("/v1/runs/{run}/answer", post(approvals::answer))
        .route("/v1/approvals", get(approvals::list))
        .route("/v1/projects/{project}/secrets", get(secrets::list))
        .route("/v1/projects/{project}/secrets/{name}", put(secrets::set).delete(secrets::remove))
        .route("/v1/apps", get(apps::list))
        .route("/v1/apps/{project}", get(apps::show))
        .route("/v1/apps/{project}/watch", get(apps::watch))
        .route("/v1/apps/{project}/rollback", post(apps::rollback))
        .route("/v1/blobs/{digest}", get(blobs::read))
        .route("/v1/tokens", get(access::tokens).post(access::make_token))
        .route("/v1/tokens/{token}", delete(access::revoke_token))
        .route("/v1/join-tokens", get(access::join_tokens).post(access::make_join_token))
        .route("/v1/join-tokens/{token}", delete(access::revoke_join_token))
        .route("/v1/authority", get(access::show_authority))
        .route("/v1/authority/{step}", post(access::change_authority))
        .route("/v1/audit", get(access::audit))
        .route("/fleet/v1/units", get(fleets::list))
        .route("/fleet/v1/units/{unit}", get(fleets::show).put(fleets::put).delete(fleets::destroy))
        .route("/fleet/v1/state", get(fleet::state::list))
        .route("/fleet/v1/state/{unit}", get(fleet::state::show))
        .route("/fleet/v1/machines", get(fleet::machines::list).patch(fleet::machines::change))
        .route("/fleet/v1/discovery", get(fleet::discovery::discovery))
        .route("/v1-alpha/units", get(fleets::list))
        .route("/v1-alpha/units/{unit}", get(fleets::show).put(fleets::put).delete(fleets::destroy))
        .route("/v1-alpha/state", get(fleet::state::list))
        .route("/v1-alpha/state/{unit}", get(fleet::state::show))
        .route("/v1-alpha/machines", get(fleet::machines::list).patch(fleet::machines::change))
        .route("/v1-alpha/discovery", get(fleet::discovery::discovery))
        .route("/metrics", get(access::metrics))
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .route("/v1/join", post(access::join).layer(DefaultBodyLimit::max(JOIN_LIMIT)))
        .route("/v1/blobs", post(blobs::write).layer(DefaultBodyLimit::disable()))
        .route_layer(axum::middleware::from_fn_with_state((inner.clone(), door), gate::authorize))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { Error::NotFound("no such route".into()) })
        .layer(axum::middleware::map_response(error::in_our_form))
        .layer(axum::middleware::from_fn(fleet::in_fleets_form));
    router.with_state(inner)
}

impl Inner {
    /// Commits, and waits until the cache shows it, so that an answer is true when it is given.
    pub(crate) async fn commit(&self, txn: Txn) -> Result<Revision, sealift_store::Error> {
        let revision = self.store.commit(txn).await?;
        self.cache.reached(revision).await;
        Ok(revision)
    }

    /// Waits until the cache is as fresh as the store is now.
    pub(crate) async fn look_again(&self) -> Result<(), sealift_store::Error> {
        let barrier = self.store.barrier().await?;
        self.cache.reached(barrier).await;
        Ok(())
    }
}

/// Makes a transaction hold only if `key` is as `world` shows it.
pub(crate) fn unchanged(txn: Txn, world: &World, key: &Key) -> Txn {
    as_seen(txn, key, world.modified(key))
}

/// Only if what is at `key` was last written then; none: if it is not there.
pub(crate) fn as_seen(txn: Txn, key: &Key, modified: Option<Revision>) -> Txn {
    match modified {
        Some(revision) => txn.if_modified_at(key.to_string(), revision),
        None => txn.if_absent(key.to_string()),
    }
}

/// An object as it is stored.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(Error::Json)
}

/// What a task sends, as a stream that ends with the task.
fn received<T>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|value| (value, receiver))
    })
}

/// A stream of JSON values, one a line.
fn lines<T: Serialize>(values: impl Stream<Item = T> + Send + 'static) -> Response {
    use futures_util::StreamExt as _;
    let lines = values.map(|value| {
        let mut line = serde_json::to_vec(&value)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    ([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
