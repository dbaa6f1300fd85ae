//! Bytes by digest: sources come in, packages go out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::TryStreamExt as _;
use sealift_client::api::Stored;
use sealift_model::Digest;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use super::Error;
use crate::server::Inner;

/// The reference's limit for artifacts.
const LIMIT: u64 = 5_000_000_000;

pub(super) async fn write(State(inner): State<Arc<Inner>>, body: Body) -> Result<Json<Stored>, Error> {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
    let blobs = inner.blobs.clone();
    let stream = body.into_data_stream().map_err(std::io::Error::other);
    let mut reader = SyncIoBridge::new(StreamReader::new(stream));
    tokio::task::spawn_blocking(move || {
        let mut writer = blobs.write(LIMIT, nonce)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match std::io::Read::read(&mut reader, &mut buffer).map_err(Error::Body)? {
                0 => break,
                count => writer.push(&buffer[..count])?,
            }
        }
        let (digest, size) = writer.finish(None)?;
        Ok(Json(Stored { digest, size }))
    })
    .await
    .map_err(Error::Cut)?
}

pub(super) async fn read(
    State(inner): State<Arc<Inner>>,
    Path(digest): Path<Digest>,
) -> Result<Response, Error> {
    let (file, size) = inner.blobs.read(&digest)?;
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 << 10);
    let headers =
        [("content-type", "application/octet-stream".to_owned()), ("content-length", size.to_string())];
    Ok((headers, Body::from_stream(stream)).into_response())
}
