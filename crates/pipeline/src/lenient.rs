//! The two answers of an engine that must be read leniently: lists of containers, and what one container is doing.
//!
//! Podman answers with states that Docker has not got (`stopped`, for a container that has just ended), and bollard
//! refuses the whole answer then. Only the fields that are needed are read here, so that nothing else can matter.
//!
//! It must not know what the answers are for.

use std::collections::HashMap;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// More than any of these answers.
const LARGEST: usize = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("the connection failed")]
    Http(#[from] hyper::Error),
    #[error("not a request")]
    Request(#[from] hyper::http::Error),
    #[error("the answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("{status} {message}")]
    Status { status: u16, message: String },
    #[error("not the expected answer")]
    Json(#[from] serde_json::Error),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    pub(crate) id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Container {
    #[serde(default)]
    pub(crate) state: State,
    #[serde(default)]
    network_settings: NetworkSettings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct State {
    #[serde(default)]
    pub(crate) running: bool,
    #[serde(default)]
    pub(crate) exit_code: i64,
    #[serde(default)]
    pub(crate) pid: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<HashMap<String, Network>>,
}

#[derive(Debug, Deserialize)]
struct Network {
    #[serde(rename = "IPAddress", default)]
    address: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    address_v6: String,
}

impl Container {
    /// Its addresses on a network, at most one of each family and that of IPv4 first.
    pub(crate) fn addresses(&self, network: &str) -> Vec<std::net::IpAddr> {
        let network = self.network_settings.networks.as_ref().and_then(|networks| networks.get(network));
        let written = network.map(|network| [&network.address, &network.address_v6]);
        written.into_iter().flatten().filter_map(|address| address.parse().ok()).collect()
    }
}

/// The containers that carry a label, running or not.
pub(crate) async fn containers(address: &str, version: &str, label: &str) -> Result<Vec<Listed>, Error> {
    let filters = serde_json::json!({ "label": [label] }).to_string();
    get(address, &format!("/{version}/containers/json?all=1&filters={}", encode(&filters))).await
}

/// What one container is doing.
pub(crate) async fn container(address: &str, version: &str, name: &str) -> Result<Container, Error> {
    get(address, &format!("/{version}/containers/{}/json", encode(name))).await
}

async fn get<T: DeserializeOwned>(address: &str, path: &str) -> Result<T, Error> {
    if let Some(socket) = address.strip_prefix("unix://") {
        ask(UnixStream::connect(socket).await.map_err(Error::Connect)?, path).await
    } else {
        let (_, host) = address.split_once("://").unwrap_or(("", address));
        ask(TcpStream::connect(host.trim_end_matches('/')).await.map_err(Error::Connect)?, path).await
    }
}

async fn ask<T: DeserializeOwned>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
) -> Result<T, Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // There is a version in it: without one, Podman answers in a form of its own.
    let request = Request::get(path).header(HOST, "engine").body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), LARGEST).collect().await.map_err(Error::Body)?.to_bytes();
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        Err(Error::Status { status: status.as_u16(), message })
    };
    // The connection is driven here and not in a task, so that it ends with the question.
    let mut answer = std::pin::pin!(answer);
    let mut connection = std::pin::pin!(connection);
    let mut driving = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            driven = &mut connection, if driving => {
                driven?;
                driving = false;
            }
        }
    }
}

/// Percent-encoding of everything but letters and digits.
pub(crate) fn encode(text: &str) -> String {
    let one = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_podman_says_of_one_that_just_ended() {
        let text = r#"{"State":{"Status":"stopped","Running":false,"Pid":0,"ExitCode":3},
            "NetworkSettings":{"Networks":{"n":{"IPAddress":"10.89.0.2"},"m":{"IPAddress":""},
            "v6":{"IPAddress":"","GlobalIPv6Address":"fd00::2"},
            "both":{"IPAddress":"10.89.0.3","GlobalIPv6Address":"fd00::3"}}}}"#;
        let container: Container = serde_json::from_str(text).unwrap();
        assert_eq!((container.state.running, container.state.exit_code), (false, 3));
        for (network, want) in
            [("n", &["10.89.0.2"][..]), ("m", &[]), ("v6", &["fd00::2"]), ("both", &["10.89.0.3", "fd00::3"])]
        {
            let want: Vec<std::net::IpAddr> = want.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(container.addresses(network), want, "{network}");
        }
    }

    #[test]
    fn encodes() {
        assert_eq!(encode("a b/{\"é"), "a%20b%2F%7B%22%C3%A9");
    }
}
