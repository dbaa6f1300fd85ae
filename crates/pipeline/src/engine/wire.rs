//! Requests with long bodies or long answers: pulls, pushes, builds, archives.
//!
//! They do not go through bollard, because it gives every call the same short limit of time and encodes credentials
//! in an alphabet that engines do not read.
//!
//! Guarantees: neither what is sent nor what comes is held in memory as a whole; dropping an answer closes its
//! connection; silence has an end.
//!
//! It must not know what is asked for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::lenient::{Error, encode};

/// The longest line of an answer, and the longest answer that is read as a whole.
const LARGEST: usize = 4 * 1024 * 1024;
/// How much of a refusal is read.
const REFUSAL: usize = 64 * 1024;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Nothing but these bytes.
pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What a stream gives.
pub(crate) fn stream(stream: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// A request in the making.
#[derive(Debug)]
pub(crate) struct Ask {
    method: Method,
    uri: String,
    headers: Vec<(&'static str, String)>,
}

impl Ask {
    /// A path that begins with the interface's version, such as `/v1.41/images/NAME/push`; names in it go through
    /// [`path`].
    pub(crate) fn new(method: Method, path: &str) -> Ask {
        Ask { method, uri: path.to_owned(), headers: Vec::new() }
    }

    pub(crate) fn with(mut self, key: &str, value: &str) -> Ask {
        let mark = if self.uri.contains('?') { '&' } else { '?' };
        self.uri.push(mark);
        self.uri.push_str(&format!("{key}={}", encode(value)));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: String) -> Ask {
        self.headers.push((name, value));
        self
    }

    /// Sends it and waits for the answer's first line.
    pub(crate) async fn send(
        self,
        address: &str,
        kind: &'static str,
        body: Body,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let slow = |_| Error::Connect(std::io::ErrorKind::TimedOut.into());
        let sent = async {
            if let Some(socket) = address.strip_prefix("unix://") {
                let stream = UnixStream::connect(socket).await.map_err(Error::Connect)?;
                self.over(stream, kind, body).await
            } else {
                let (_, host) = address.split_once("://").unwrap_or(("", address));
                let stream = TcpStream::connect(host.trim_end_matches('/')).await.map_err(Error::Connect)?;
                self.over(stream, kind, body).await
            }
        };
        timeout(limit, sent).await.map_err(slow)?
    }

    async fn over(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        kind: &'static str,
        body: Body,
    ) -> Result<Answer, Error> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the engine broke off");
            }
        });
        let connection = AbortOnDropHandle::new(connection);
        let mut request = Request::builder().method(self.method).uri(self.uri).header(HOST, "engine");
        request = request.header(CONTENT_TYPE, kind);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let response = sender.send_request(request.body(body)?).await?;
        let status = response.status();
        let mut answer = Answer {
            body: response.into_body(),
            held: BytesMut::new(),
            ended: false,
            _connection: connection,
        };
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.whole(REFUSAL).await.unwrap_or_default();
        let told: Option<Told> = serde_json::from_slice(&text).ok();
        let message =
            told.map_or_else(|| String::from_utf8_lossy(&text).trim().to_owned(), |told| told.message);
        Err(Error::Status { status: status.as_u16(), message })
    }
}

#[derive(serde::Deserialize)]
struct Told {
    message: String,
}

/// A name as part of a path: slashes and colons stay as they are.
pub(crate) fn path(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:.-_@".contains(c);
    name.chars().map(|c| if plain(c) { c.to_string() } else { encode(&c.to_string()) }).collect()
}

/// An answer that comes in.
pub(crate) struct Answer {
    body: Incoming,
    held: BytesMut,
    ended: bool,
    _connection: AbortOnDropHandle<()>,
}

impl Answer {
    /// The next piece of it.
    pub(crate) async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(Error::Http(error))),
            }
        }
    }

    /// The next line of it without its end.
    pub(crate) async fn line(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.held) {
                let line = self.held.split_to(at + 1).freeze();
                return Some(Ok(line.slice(..at)));
            }
            if self.ended {
                let rest = self.held.split().freeze();
                return (!rest.is_empty()).then_some(Ok(rest));
            }
            if self.held.len() > LARGEST {
                return Some(Err(Error::Body("a line without an end".into())));
            }
            match self.chunk().await {
                Some(Ok(bytes)) => self.held.extend_from_slice(&bytes),
                Some(Err(error)) => return Some(Err(error)),
                None => self.ended = true,
            }
        }
    }

    /// All of it.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(mut self, limit: Duration) -> Result<T, Error> {
        let slow = |_| Error::Body("it stopped in the middle".into());
        let text = timeout(limit, self.whole(LARGEST)).await.map_err(slow)??;
        Ok(serde_json::from_slice(&text)?)
    }

    async fn whole(&mut self, most: usize) -> Result<BytesMut, Error> {
        let mut text = BytesMut::new();
        while let Some(bytes) = self.chunk().await {
            text.extend_from_slice(&bytes?);
            if text.len() > most {
                return Err(Error::Body("it is too long".into()));
            }
        }
        Ok(text)
    }

    /// As a stream of bytes.
    pub(crate) fn into_stream(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        futures_util::stream::unfold(self, |mut answer| async move {
            let chunk = answer.chunk().await?;
            Some((chunk.map_err(std::io::Error::other), answer))
        })
    }
}
