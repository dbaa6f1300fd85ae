//! What the API says when it cannot do what was asked: a status, a stable code, a text for people.

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use sealift_client::api::{Failure, FailureText};

use sealift_model::diagnostic::chain;

use crate::{logs, secrets};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The code of a refusal, for the audit log. A response's extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub(super) &'static str);

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    NotFound(String),
    #[error("{message}")]
    Invalid { message: String, help: Option<String> },
    #[error("{0}")]
    Conflict(String),
    /// It can be asked for again in a moment.
    #[error("{0}")]
    Busy(&'static str),
    #[error("machine {0} is silent; is its agent connected?")]
    Silent(String),
    /// A newer attempt or session exists: what the caller says no longer counts.
    #[error("{0}")]
    Fenced(String),
    #[error("this needs a token, or a machine's certificate, that is known here")]
    Unauthorized,
    /// It is known who asks, and he may not.
    #[error("{0}")]
    Forbidden(String),
    #[error("this method is not for this route")]
    Method,
    /// The body is of another kind than the route takes.
    #[error("{0}")]
    MediaType(&'static str),
    #[error("cannot make a certificate")]
    Authority(#[source] sealift_access::AuthorityError),
    #[error("cannot make a token")]
    Token(#[source] sealift_access::TokenError),
    #[error(transparent)]
    Audit(crate::audit::Error),
    #[error("{what} did not fit into the disk of the server; make room there and try again")]
    Full { what: &'static str },
    #[error(transparent)]
    Store(sealift_store::Error),
    #[error(transparent)]
    Blob(sealift_package::blobs::Error),
    #[error(transparent)]
    Log(logs::Error),
    #[error(transparent)]
    Secrets(secrets::Error),
    #[error("cannot sign the package")]
    Sign(#[source] sealift_package::signing::Error),
    #[error("cannot write JSON")]
    Json(#[source] serde_json::Error),
    #[error("cannot read the request's body")]
    Body(#[source] std::io::Error),
    #[error("the work on this request was cut short")]
    Cut(#[source] tokio::task::JoinError),
}

impl Error {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid { message: message.into(), help: None }
    }
}

impl From<sealift_store::Error> for Error {
    fn from(error: sealift_store::Error) -> Self {
        if error.is_full() { Error::Full { what: "a change of state" } } else { Error::Store(error) }
    }
}

impl From<sealift_package::blobs::Error> for Error {
    fn from(error: sealift_package::blobs::Error) -> Self {
        if error.is_full() { Error::Full { what: "an upload" } } else { Error::Blob(error) }
    }
}

impl From<logs::Error> for Error {
    fn from(error: logs::Error) -> Self {
        match &error {
            logs::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Error::Full { what: "a run's log" }
            }
            _ => Error::Log(error),
        }
    }
}

impl From<secrets::Error> for Error {
    fn from(error: secrets::Error) -> Self {
        match &error {
            secrets::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Error::Full { what: "a secret" }
            }
            _ => Error::Secrets(error),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        use sealift_package::blobs::Error as Blob;
        let (status, code) = match &self {
            Error::NotFound(_)
            | Error::Blob(Blob::Missing(_))
            | Error::Secrets(secrets::Error::Missing { .. }) => (StatusCode::NOT_FOUND, "not-found"),
            Error::Invalid { .. } | Error::Body(_) => (StatusCode::BAD_REQUEST, "invalid"),
            Error::Blob(Blob::Mismatch { .. }) => (StatusCode::BAD_REQUEST, "digest-mismatch"),
            Error::Blob(Blob::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Error::Conflict(_) | Error::Secrets(secrets::Error::Full { .. }) => {
                (StatusCode::CONFLICT, "conflict")
            }
            Error::Store(error) if error.is_conflict() => (StatusCode::CONFLICT, "conflict"),
            Error::Store(error) if error.is_unknown() => (StatusCode::SERVICE_UNAVAILABLE, "unknown"),
            Error::Log(logs::Error::Gap { .. }) => (StatusCode::CONFLICT, "gap"),
            Error::Fenced(_) => (StatusCode::GONE, "fenced"),
            Error::Busy(_) => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            Error::Silent(_) => (StatusCode::GATEWAY_TIMEOUT, "silent"),
            Error::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Error::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Error::Method => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Error::MediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid"),
            Error::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "storage-full"),
            Error::Store(_)
            | Error::Blob(_)
            | Error::Log(_)
            | Error::Secrets(_)
            | Error::Sign(_)
            | Error::Authority(_)
            | Error::Token(_)
            | Error::Audit(_)
            | Error::Json(_)
            | Error::Cut(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let message = chain(&self);
        if status.is_server_error() {
            tracing::error!(code, message, "a request failed");
        }
        let help = match self {
            Error::Invalid { help, .. } => help,
            Error::Unauthorized => Some(
                "users show a token (SEALIFT_TOKEN, or the file 'token' of the server's state directory), machines the \
                 certificate that they were given when they joined"
                    .into(),
            ),
            _ => None,
        };
        let failure = Failure { error: FailureText { code: code.into(), message, help } };
        (status, Extension(Code(code)), Json(failure)).into_response()
    }
}

/// Gives refusals that did not come from a handler (a body or path that does not parse, another method) the form that
/// all refusals have.
pub(super) async fn in_our_form(response: Response) -> Response {
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    if !refused || response.headers().get(CONTENT_TYPE) == Some(&JSON) {
        return response;
    }
    let (status, code) = match status {
        StatusCode::METHOD_NOT_ALLOWED => (status, "method-not-allowed"),
        StatusCode::PAYLOAD_TOO_LARGE => (status, "too-large"),
        // Axum tells JSON that is broken from JSON that says the wrong things; to callers it is the same.
        StatusCode::UNPROCESSABLE_ENTITY => (StatusCode::BAD_REQUEST, "invalid"),
        status if status.is_client_error() => (status, "invalid"),
        status => (status, "internal"),
    };
    let (mut parts, body) = response.into_parts();
    // These texts are a line each.
    let text = to_bytes(body, 64 << 10).await.unwrap_or_default();
    let message = match String::from_utf8_lossy(&text).trim() {
        "" => status.to_string(),
        text => text.to_owned(),
    };
    let failure = Failure { error: FailureText { code: code.into(), message, help: None } };
    parts.status = status;
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, JSON);
    Response::from_parts(parts, Body::from(serde_json::to_vec(&failure).unwrap_or_default()))
}
