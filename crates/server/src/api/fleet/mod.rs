//! fleet's HTTP API, `/fleet/v1` and its alias `/v1-alpha`: over the same cache and the same writes as our own API.
//!
//! Guarantees: paths, entities, statuses and the form of refusals are fleet's. What fleet took and could not give back
//! (an unknown state, an active template, options that are no unit file) is refused, and a record that is not
//! understood is listed by its name and can be deleted. Refusals to people who may not ask, which fleet never made,
//! keep our own form.

pub(super) mod discovery;
pub(super) mod machines;
mod page;
pub(super) mod state;
pub(super) mod units;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, SERVER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sealift_client::api::Failure;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Error;

/// The version of fleet whose API this is, and what it is in truth.
const NAME: &str = concat!("fleetd/1.0.0 sealift/", env!("CARGO_PKG_VERSION"));
const PREFIXES: [&str; 2] = ["/fleet/v1", "/v1-alpha"];
/// Of a refusal's text.
const LONGEST_REFUSAL: usize = 1 << 20;

/// Gives what is answered below fleet's paths fleet's form.
pub(super) async fn in_fleets_form(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let ours = |prefix: &&str| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_fleets = PREFIXES.iter().any(ours);
    let mut response = next.run(request).await;
    if !is_fleets {
        return response;
    }
    response.headers_mut().insert(SERVER, HeaderValue::from_static(NAME));
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    if !refused || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, LONGEST_REFUSAL).await.unwrap_or_default();
    let message = serde_json::from_slice::<Failure>(&bytes)
        .map_or_else(|_| status.to_string(), |failure| failure.error.message);
    let refusal = json!({ "error": { "code": status.as_u16(), "message": message } });
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(refusal.to_string()))
}

/// A body in JSON that says so.
fn decode<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Error> {
    let mut types = headers.get_all(CONTENT_TYPE).iter().filter_map(|value| value.to_str().ok());
    let is_json = |value: &str| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    if !types.next().is_some_and(is_json) || types.next().is_some() {
        return Err(Error::MediaType("application/json is only supported Content-Type"));
    }
    serde_json::from_slice(body).map_err(|error| Error::invalid(format!("unable to decode body: {error}")))
}

/// An answer without a body, which fleet called JSON all the same.
fn done(status: StatusCode) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))]).into_response()
}
