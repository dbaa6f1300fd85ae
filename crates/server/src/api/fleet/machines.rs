//! fleet's machines: those that are there, and their metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use sealift_client::api::ChangeSettings;
use sealift_model::MachineId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Error;
use super::super::machines as ours;
use super::units::Paging;
use super::{decode, done, page};
use crate::server::Inner;

pub(in crate::api) async fn list(
    State(inner): State<Arc<Inner>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Value>, Error> {
    let world = inner.cache.world();
    let present = world.machines.iter().filter(|(id, _)| world.presence.contains_key(*id));
    let entities = present.map(|(id, machine)| {
        let own = &machine.value.metadata;
        let metadata =
            world.settings.get(id).map_or_else(|| own.clone(), |held| held.value.metadata_over(own));
        let mut entity = json!({ "id": id });
        if let Some(object) = entity.as_object_mut() {
            object.extend(machine.value.address.as_ref().map(|address| ("primaryIP".into(), json!(address))));
            object.extend((!metadata.is_empty()).then(|| ("metadata".into(), json!(metadata))));
        }
        entity
    });
    page::of("machines", entities, paging.next_page_token.as_deref()).map(Json)
}

/// One operation of a PATCH.
#[derive(Debug, Deserialize)]
struct Operation {
    #[serde(default)]
    op: String,
    #[serde(default)]
    path: String,
    value: Option<Given>,
}

/// A value as fleet's documentation had it, and as fleet took it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Given {
    Plain(String),
    Nested { value: String },
}

pub(in crate::api) async fn change(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    apply(inner, decode(&headers, &body)?).await?;
    Ok(done(StatusCode::NO_CONTENT))
}

/// Nothing is changed unless all of it is understood and every machine is known.
async fn apply(inner: Arc<Inner>, operations: Vec<Operation>) -> Result<(), Error> {
    let mut changes: BTreeMap<MachineId, BTreeMap<String, Option<String>>> = BTreeMap::new();
    for operation in operations {
        let (machine, key, value) = read(operation)?;
        if !inner.cache.world().machines.contains_key(&machine) {
            return Err(Error::NotFound(format!("machine {machine} does not exist")));
        }
        changes.entry(machine).or_default().insert(key, value);
    }
    for (machine, metadata) in changes {
        let change = ChangeSettings { metadata, ..ChangeSettings::default() };
        drop(ours::change_settings(State(inner.clone()), Path(machine), Json(change)).await?);
    }
    Ok(())
}

fn read(operation: Operation) -> Result<(MachineId, String, Option<String>), Error> {
    let Operation { op, path, value } = operation;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let parts = path.strip_prefix('/').and_then(|path| path.split_once("/metadata/"));
    let parts = parts.filter(|(_, key)| !key.is_empty() && key.bytes().all(known));
    let parts = parts.and_then(|(machine, key)| Some((machine.parse().ok()?, key.to_owned())));
    let Some((machine, key)) = parts else {
        return Err(Error::invalid(format!("invalid path {path:?}: it is /MACHINE-ID/metadata/KEY")));
    };
    let value = match (op.as_str(), value) {
        ("remove", _) => None,
        ("add" | "replace", Some(Given::Plain(value) | Given::Nested { value })) if !value.is_empty() => {
            Some(value)
        }
        ("add" | "replace", _) => return Err(Error::invalid(format!("{op} of {path} has no value"))),
        _ => return Err(Error::invalid(format!("invalid op {op:?}: expect add, replace, or remove"))),
    };
    Ok((machine, key, value))
}
