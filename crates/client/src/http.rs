//! HTTP/1.1 over a Unix socket, TCP or TLS, with a limit of time on everything but open streams.
//!
//! A request goes to one server. Only when none is reached by it is the next one tried, so nothing is done twice.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_core::Stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::address::{Address, Servers};
use crate::api::{Failure, FailureText};
use crate::connections::{Connection, Connections, Tls};

/// For the head of any answer and the whole of a short one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two chunks of bytes.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Answers that are read whole, and lines of streams.
const SIZE_LIMIT: usize = 16 << 20;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach the server at {address}")]
    Connect { address: Address, source: io::Error },
    /// It answers, and its certificate is not of an authority that we trust, or it does not take ours.
    #[error("the server at {address} does not show that it is ours")]
    Untrusted { address: Address, source: io::Error },
    #[error("{address} wants TLS, and no authority is known to check the server by")]
    NoTls { address: Address },
    #[error("the connection to the server broke")]
    Broken(#[source] hyper::Error),
    #[error("the server did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    #[error("{}", .failure.message)]
    Refused { status: u16, failure: FailureText },
    #[error("the server's answer is not understood; is it another version?")]
    NotUnderstood(#[source] serde_json::Error),
    #[error("the server's answer is longer than {SIZE_LIMIT} bytes")]
    TooLong,
    #[error("cannot read what is to be sent")]
    Read(#[source] io::Error),
    #[error("cannot make the request")]
    Request(#[source] hyper::http::Error),
}

impl Error {
    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Broken(_) | Error::Timeout => true,
            Error::Refused { status, .. } => matches!(status, 429 | 500..=599),
            _ => false,
        }
    }

    /// The code of a refusal, see [`FailureText::code`].
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused { failure, .. } => Some(&failure.code),
            _ => None,
        }
    }
}

const JSON: &str = "application/json";

/// Bytes as they come.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// Servers to ask. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    connections: Arc<Connections>,
    token: Option<Arc<str>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("Client").field("servers", self.servers()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for these servers. A token is needed over TCP; the Unix socket is guarded by its file mode.
    #[must_use]
    pub fn new(servers: impl Into<Servers>, token: Option<String>) -> Self {
        Self::over(servers.into(), token, None)
    }

    /// A client for servers some of which speak TLS.
    #[must_use]
    pub fn with_tls(servers: impl Into<Servers>, token: Option<String>, tls: Tls) -> Self {
        Self::over(servers.into(), token, Some(tls))
    }

    fn over(servers: Servers, token: Option<String>, tls: Option<Tls>) -> Self {
        Self { connections: Arc::new(Connections::new(servers, tls)), token: token.map(Into::into) }
    }

    #[must_use]
    pub fn servers(&self) -> &Servers {
        self.connections.servers()
    }

    /// The same servers, asked with another token.
    #[must_use]
    pub fn with_token(&self, token: String) -> Self {
        Self { connections: self.connections.clone(), token: Some(token.into()) }
    }

    /// The server that was reached last, else the first.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.connections.current()
    }

    /// Requests from now on go to this one of the servers, over new connections. Those under way, and open streams, are left
    /// to whoever waits for them.
    pub fn turn_to(&self, server: &Address) {
        self.connections.turn_to(server);
    }

    /// Asks for a JSON value.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let response = self.send(Method::GET, path, None, empty()).await?;
        whole(response).await
    }

    /// Sends a JSON value and reads one. An answer without a body reads as `null`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Error> {
        self.send_json(Method::POST, path, body).await
    }

    /// Puts a JSON value where it is to be and reads one; the same again changes nothing more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Error> {
        self.send_json(Method::PUT, path, body).await
    }

    /// Has something deleted.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let response = self.send(Method::DELETE, path, None, empty()).await?;
        whole(response).await
    }

    async fn send_json<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let response = self.send(method, path, Some(JSON), json(body)?).await?;
        whole(response).await
    }

    /// The same client for another server.
    #[must_use]
    pub fn at(&self, servers: impl Into<Servers>) -> Client {
        Client { connections: Arc::new(self.connections.at(servers.into())), token: self.token.clone() }
    }

    /// Sends bytes as they come; the answer may take as long as the bytes do.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn post_stream<S, T>(&self, path: &str, bytes: S) -> Result<T, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
        T: DeserializeOwned,
    {
        let frames = futures_util::StreamExt::map(bytes, |chunk| chunk.map(Frame::data));
        let body = StreamBody::new(frames).boxed();
        let response =
            self.exchange(Method::POST, path, Some("application/octet-stream"), body, None).await?;
        whole(response).await
    }

    /// Asks for a stream of JSON values, one a line. It lasts until the server ends it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn lines<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, Error> {
        let response = self.send(Method::GET, path, None, empty()).await?;
        Ok(Lines { body: response.into_body(), buffer: BytesMut::new(), item: std::marker::PhantomData })
    }

    /// Sends a JSON value and asks for a stream of them, as [`Client::lines`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn post_lines<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Lines<T>, Error> {
        let response = self.send(Method::POST, path, Some(JSON), json(body)?).await?;
        Ok(Lines { body: response.into_body(), buffer: BytesMut::new(), item: std::marker::PhantomData })
    }

    /// Asks for bytes, in chunks as they come. The server is given up when it is silent for long.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn bytes(&self, path: &str) -> Result<Chunks, Error> {
        self.chunks(path, SILENCE_TIMEOUT).await
    }

    /// The same for bytes that come when there are some, which may be never.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open_bytes(&self, path: &str) -> Result<Chunks, Error> {
        self.chunks(path, Duration::MAX).await
    }

    async fn chunks(&self, path: &str, silence: Duration) -> Result<Chunks, Error> {
        let response = self.send(Method::GET, path, None, empty()).await?;
        Ok(Box::pin(futures_util::stream::try_unfold(response.into_body(), move |mut body| async move {
            loop {
                match tokio::time::timeout(silence, body.frame()).await {
                    Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                    Ok(None) => return Ok(None),
                    Ok(Some(Err(error))) => return Err(io::Error::other(error)),
                    Ok(Some(Ok(frame))) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some((data, body)));
                        }
                    }
                }
            }
        })))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Body,
    ) -> Result<Response<Incoming>, Error> {
        self.exchange(method, path, content_type, body, Some(ANSWER_TIMEOUT)).await
    }

    /// Gives the head of a good answer.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Body,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, Error> {
        let mut connection = self.connections.get().await?;
        let mut request = self.request(&method, path, content_type, body, &connection)?;
        let response = loop {
            let reused = connection.reused;
            let answer = connection.sender.try_send_request(request);
            let answered = match limit {
                Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| Error::Timeout)?,
                None => answer.await,
            };
            let mut failed = match answered {
                Ok(response) => break response,
                Err(failed) => failed,
            };
            // A connection that waited may have been closed by the server in this moment. What was not sent is sent anew,
            // and so is a question, which changes nothing.
            request = match failed.take_message() {
                Some(request) if reused => request,
                _ if reused && method == Method::GET => {
                    self.request(&method, path, content_type, empty(), &connection)?
                }
                _ => return Err(Error::Broken(failed.into_error())),
            };
            connection = self.connections.fresh().await?;
        };
        self.connections.keep(connection);
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = collect(response).await?;
        let failure = serde_json::from_slice::<Failure>(&bytes).map_or_else(
            |_| FailureText {
                code: "unknown".into(),
                message: format!("the server answered {status}"),
                help: None,
            },
            |failure| failure.error,
        );
        Err(Error::Refused { status: status.as_u16(), failure })
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        content_type: Option<&str>,
        body: Body,
        connection: &Connection,
    ) -> Result<Request<Body>, Error> {
        let mut request =
            Request::builder().method(method.clone()).uri(path).header(header::HOST, &connection.host);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|error| Error::Request(error.into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(body).map_err(Error::Request)
    }
}

fn json(value: &impl Serialize) -> Result<Body, Error> {
    let bytes = serde_json::to_vec(value).map_err(Error::NotUnderstood)?;
    Ok(Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed())
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

async fn whole<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Error> {
    let bytes = collect(response).await?;
    let bytes = if bytes.is_empty() { &b"null"[..] } else { &bytes };
    serde_json::from_slice(bytes).map_err(Error::NotUnderstood)
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, Error> {
    let reading = http_body_util::Limited::new(response.into_body(), SIZE_LIMIT).collect();
    let body = tokio::time::timeout(ANSWER_TIMEOUT, reading).await.map_err(|_| Error::Timeout)?;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => Error::Broken(*error),
        Err(_) => Error::TooLong,
    })
}

/// A stream of JSON values, one a line.
#[derive(Debug)]
pub struct Lines<T> {
    body: Incoming,
    buffer: BytesMut,
    item: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next value; none when the server has ended the stream in good order. Safe to drop while waiting.
    ///
    /// # Errors
    /// When the connection breaks or a line is not understood.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return serde_json::from_slice(&line).map(Some).map_err(Error::NotUnderstood);
            }
            if self.buffer.len() > SIZE_LIMIT {
                return Err(Error::TooLong);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::Broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
