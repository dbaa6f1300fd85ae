//! HTTP/1.1 over a Unix socket or TCP: one connection a request, a limit of time on everything but open streams.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_core::Stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::api::{Failure, FailureText};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the head of any answer and the whole of a short one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two chunks of bytes.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Answers that are read whole, and lines of streams.
const SIZE_LIMIT: usize = 16 << 20;

/// Where a server listens: `unix:///run/sealift/api.sock` or `http://127.0.0.1:4640`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Address::Unix(path.into()));
        }
        let wanted = || format!("{text:?} is not unix:///PATH or http://HOST:PORT");
        let authority = text.strip_prefix("http://").ok_or_else(wanted)?.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or_else(wanted)?;
        if host.is_empty() || host.contains('/') {
            return Err(wanted());
        }
        let port = port.parse().map_err(|_| wanted())?;
        Ok(Address::Tcp { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "http://{host}:{port}"),
        }
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach the server at {address}")]
    Connect { address: Address, source: io::Error },
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

type Body = BoxBody<Bytes, io::Error>;

/// A server to ask. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    address: Address,
    token: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for this server. A token is needed over TCP; the Unix socket is guarded by its file mode.
    #[must_use]
    pub fn new(address: Address, token: Option<String>) -> Self {
        Self { address, token }
    }

    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
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

    /// Asks for bytes, in chunks as they come.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn bytes(
        &self,
        path: &str,
    ) -> Result<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>, Error> {
        let response = self.send(Method::GET, path, None, empty()).await?;
        Ok(Box::pin(futures_util::stream::try_unfold(response.into_body(), |mut body| async {
            loop {
                match tokio::time::timeout(SILENCE_TIMEOUT, body.frame()).await {
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

    /// One request on a connection of its own; gives the head of a good answer.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Body,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, Error> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Error::Broken)?;
        // Ends with the connection, which ends with the answer's body.
        tokio::spawn(async move { connection.await.ok() });
        let host = match &self.address {
            Address::Unix(_) => "localhost".to_owned(),
            Address::Tcp { host, port } => format!("{host}:{port}"),
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body).map_err(Error::Request)?;
        let answer = sender.send_request(request);
        let response = match limit {
            Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| Error::Timeout)?,
            None => answer.await,
        }
        .map_err(Error::Broken)?;
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

    async fn connect(&self) -> Result<Pin<Box<dyn Duplex>>, Error> {
        let connecting = async {
            Ok::<Pin<Box<dyn Duplex>>, io::Error>(match &self.address {
                Address::Unix(path) => Box::pin(tokio::net::UnixStream::connect(path).await?),
                Address::Tcp { host, port } => {
                    let stream = tokio::net::TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Box::pin(stream)
                }
            })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| Error::Connect { address: self.address.clone(), source })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

fn json(value: &impl Serialize) -> Result<Body, Error> {
    let bytes = serde_json::to_vec(value).map_err(Error::NotUnderstood)?;
    Ok(Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed())
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

async fn whole<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Error> {
    let status = response.status();
    let bytes = collect(response).await?;
    let bytes = if status == StatusCode::NO_CONTENT { &b"null"[..] } else { &bytes };
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

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_are_read_and_printed() {
        for text in ["unix:///run/sealift/api.sock", "http://127.0.0.1:4640", "http://[::1]:4640"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "/run/x", "http://host", "https://host:1", "http://:80", "http://host:99999"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
