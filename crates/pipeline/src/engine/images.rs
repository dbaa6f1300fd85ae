//! Images: pulled, pushed, committed, built, brought in and taken out.
//!
//! Guarantees: an engine that says nothing for minutes is given up; what it says of a failure is the error.
//!
//! It must not know what the images are for.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::wire::{self, Answer, Ask, Body};
use super::{Engine, Error};
use crate::lenient;
use crate::registry::{self, Credentials};

/// How long an engine may be silent while it works.
const SILENCE: Duration = Duration::from_secs(300);
/// For work that it does without a word: writing down a large container, unpacking a large archive.
const SILENT_WORK: Duration = Duration::from_secs(3600);
const JSON: &str = "application/json";
const TAR: &str = "application/x-tar";

/// One line of an engine that works.
#[derive(Debug, Default, Deserialize)]
struct Line {
    #[serde(default)]
    status: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    error: String,
    #[serde(rename = "errorDetail")]
    detail: Option<Detail>,
    aux: Option<Aux>,
}

#[derive(Debug, Default, Deserialize)]
struct Detail {
    #[serde(default)]
    message: String,
}

#[derive(Debug, Default, Deserialize)]
struct Aux {
    #[serde(rename = "Digest", default)]
    digest: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    id: String,
}

/// Work that goes on.
pub(crate) struct Progress {
    what: String,
    answer: Answer,
    last: String,
    digest: String,
}

impl Progress {
    fn new(what: String, answer: Answer) -> Progress {
        Progress { what, answer, last: String::new(), digest: String::new() }
    }

    /// What the engine does now; none when it is done. Progress of single layers is left out.
    pub(crate) async fn next(&mut self) -> Option<Result<String, Error>> {
        loop {
            let line = match timeout(SILENCE, self.answer.line()).await {
                Ok(line) => line?,
                Err(_) => return Some(Err(Error::TimedOut { what: self.what.clone(), limit: SILENCE })),
            };
            let line = match line {
                Ok(line) => line,
                Err(source) => return Some(Err(Error::Answer { what: self.what.clone(), source })),
            };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            // What cannot be read is a form of progress that is not known.
            let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
            let detail = line.detail.map(|detail| detail.message).unwrap_or_default();
            let error = if detail.is_empty() { line.error } else { detail };
            if !error.is_empty() {
                let answer = helped(error.trim());
                return Some(Err(Error::Refused { what: self.what.clone(), answer }));
            }
            if let Some(aux) = line.aux {
                keep(&mut self.digest, aux.digest);
            }
            if let Some((_, rest)) = line.status.split_once("digest: ") {
                keep(&mut self.digest, rest.split_whitespace().next().unwrap_or_default().to_owned());
            }
            let text = if line.stream.is_empty() { line.status } else { line.stream };
            let text = text.trim_end().to_owned();
            // Layers' own progress is too much to tell; what they are doing is not.
            if line.id.is_empty() && !text.is_empty() && text != self.last {
                self.last.clone_from(&text);
                return Some(Ok(text));
            }
        }
    }

    /// The digest under which a registry keeps what was pushed, once it is done.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }
}

/// An engine's words, and what to do where they are known to leave people helpless.
fn helped(answer: &str) -> String {
    if answer.contains("HTTP response to HTTPS client") {
        return format!(
            "{answer}; the registry speaks no TLS: give it a certificate, or allow it as `insecure` in \
             /etc/containers/registries.conf.d (Podman) or as `insecure-registries` in /etc/docker/daemon.json"
        );
    }
    answer.to_owned()
}

fn keep(place: &mut String, value: String) {
    if !value.is_empty() {
        *place = value;
    }
}

impl Engine {
    /// Starts to pull an image; it is there when [`Progress::next`] gives none.
    pub(crate) async fn pull(
        &self,
        image: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Progress, Error> {
        // Podman's compatible interface knows no way to leave out the encryption.
        let ask = if self.inner.podman && registry::is_loopback(registry::host_of(image)) {
            Ask::new(Method::POST, "/v4.0.0/libpod/images/pull")
                .with("reference", image)
                .with("tlsVerify", "false")
        } else {
            self.request(Method::POST, "/images/create").with("fromImage", image)
        };
        let what = format!("image {image} cannot be pulled");
        let answer = self.ask(ask.credentials(credentials), JSON, wire::bytes(""), SILENCE, &what).await?;
        Ok(Progress::new(what, answer))
    }

    /// Starts to push an image, named with its tag.
    pub(crate) async fn push(
        &self,
        name: &str,
        tag: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Progress, Error> {
        let mut ask =
            self.request(Method::POST, &format!("/images/{}/push", wire::path(name))).with("tag", tag);
        if self.inner.podman && registry::is_loopback(registry::host_of(name)) {
            ask = ask.with("tlsVerify", "false");
        }
        // Docker wants the header even when there is nothing to say in it.
        let ask = match credentials {
            None => ask.header("X-Registry-Auth", "e30=".to_owned()),
            some => ask.credentials(some),
        };
        let what = format!("image {name}:{tag} cannot be pushed");
        let answer = self.ask(ask, JSON, wire::bytes(""), SILENCE, &what).await?;
        Ok(Progress::new(what, answer))
    }

    /// Writes down a container's files as an image of this name and tag; its id. Mounted directories are not among
    /// them.
    pub(crate) async fn commit(
        &self,
        container: &str,
        image: &str,
        author: &str,
        message: &str,
    ) -> Result<String, Error> {
        let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        let ask = self.request(Method::POST, "/commit").with("container", container).with("pause", "false");
        let ask = ask.with("repo", name).with("tag", tag);
        let ask = ask.with("author", author).with("comment", message);
        let what = format!("container {container} cannot be committed");
        let answer = self.ask(ask, JSON, wire::bytes("{}"), SILENT_WORK, &what).await?;
        let made: Made = self.json(answer, &what).await?;
        Ok(made.id)
    }

    /// Starts to build an image from a context, a tar archive. `credentials` are for the registries it pulls from.
    pub(crate) async fn build(
        &self,
        options: &[(&str, String)],
        credentials: &[Credentials],
        context: Body,
    ) -> Result<Progress, Error> {
        let mut ask = self.request(Method::POST, "/build").with("rm", "1").with("forcerm", "1");
        for (key, value) in options {
            ask = ask.with(key, value);
        }
        if !credentials.is_empty() {
            ask = ask.header("X-Registry-Config", registry::build_header(credentials));
        }
        let what = "the image cannot be built".to_owned();
        let answer = self.ask(ask, TAR, context, SILENT_WORK, &what).await?;
        Ok(Progress::new(what, answer))
    }

    /// Makes an image with one layer, a tar archive; `changes` are instructions as in a Dockerfile.
    pub(crate) async fn import(&self, image: &str, changes: &[String], layer: Body) -> Result<(), Error> {
        let mut ask = self.request(Method::POST, "/images/create").with("fromSrc", "-");
        for change in changes {
            ask = ask.with("changes", change);
        }
        let what = "the image cannot be made";
        let answer = self.ask(ask, TAR, layer, SILENT_WORK, what).await?;
        // Docker says the new image's id as the last status, Podman as an id too.
        let mut answer = Progress::new(what.to_owned(), answer);
        let mut id = String::new();
        while let Some(line) = timeout(SILENCE, answer.answer.line()).await.unwrap_or_default() {
            let line = line.map_err(|source| Error::Answer { what: what.to_owned(), source })?;
            let line: Line = serde_json::from_slice(&line).unwrap_or_default();
            if !line.error.is_empty() {
                return Err(Error::Refused { what: what.to_owned(), answer: line.error });
            }
            if line.status.starts_with("sha256:") {
                id = line.status.trim().to_owned();
            }
        }
        if id.is_empty() {
            let answer = "the engine did not say which it is".to_owned();
            return Err(Error::Refused { what: what.to_owned(), answer });
        }
        let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        self.tag(&id, name, tag).await
    }

    pub(crate) async fn tag(&self, image: &str, name: &str, tag: &str) -> Result<(), Error> {
        let path = format!("/images/{}/tag", wire::path(image));
        let ask = self.request(Method::POST, &path).with("repo", name).with("tag", tag);
        let what = format!("image {image} cannot be named {name}:{tag}");
        self.ask(ask, JSON, wire::bytes(""), super::SLOW, &what).await.map(drop)
    }

    /// Takes a name away from an image, and removes it with the last one; none there is fine.
    pub(crate) async fn remove_image(&self, image: &str) -> Result<(), Error> {
        let what = format!("image {image} cannot be removed");
        let deadline = Instant::now() + super::SETTLE;
        loop {
            let ask = self.request(Method::DELETE, &format!("/images/{}", wire::path(image)));
            let removed = self.ask(ask, JSON, wire::bytes(""), super::SLOW, &what).await;
            match super::gone_is_fine(removed.map(drop)) {
                // A container that has just been removed is put away in the engine's own time, and Podman stumbles
                // over images that somebody else removes at the same moment.
                Err(Error::Refused { answer, .. })
                    if (answer.contains("in use") || answer.starts_with("500"))
                        && Instant::now() < deadline =>
                {
                    sleep(super::RETRY).await;
                }
                result => return result,
            }
        }
    }

    /// An image as an archive that engines load.
    pub(crate) async fn save(&self, image: &str) -> Result<Answer, Error> {
        let ask = self.request(Method::GET, &format!("/images/{}/get", wire::path(image)));
        let what = format!("image {image} cannot be taken out");
        self.ask(ask, JSON, wire::bytes(""), SILENT_WORK, &what).await
    }

    /// A tree of a container as a tar archive, mounted directories included; its names begin with the tree's own.
    /// None where there is no such path.
    pub(crate) async fn archive(&self, container: &str, path: &str) -> Result<Option<Answer>, Error> {
        let ask = self.request(Method::GET, &format!("/containers/{}/archive", wire::path(container)));
        let what = format!("{path} cannot be read from container {container}");
        let answer = self.ask(ask.with("path", path), JSON, wire::bytes(""), SILENT_WORK, &what).await;
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::Refused { answer, .. }) if answer.starts_with("404") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A request of the interface that Docker and Podman have in common.
    fn request(&self, method: Method, path: &str) -> Ask {
        Ask::new(method, &format!("/{}{path}", self.inner.version))
    }

    async fn ask(
        &self,
        ask: Ask,
        kind: &'static str,
        body: Body,
        limit: Duration,
        what: &str,
    ) -> Result<Answer, Error> {
        let sent = ask.send(&self.inner.address, kind, body, limit).await;
        sent.map_err(|error| match error {
            lenient::Error::Status { status, message } => {
                Error::Refused { what: what.to_owned(), answer: format!("{status} {message}") }
            }
            source => Error::Answer { what: what.to_owned(), source },
        })
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, answer: Answer, what: &str) -> Result<T, Error> {
        let read = answer.json(SILENT_WORK).await;
        read.map_err(|source| Error::Answer { what: what.to_owned(), source })
    }
}

impl Ask {
    fn credentials(self, credentials: Option<&Credentials>) -> Ask {
        match credentials {
            Some(credentials) => self.header("X-Registry-Auth", credentials.header()),
            None => self,
        }
    }
}

/// Whether it is worth to try again what failed with these words: the way to a registry, not its answer.
pub(crate) fn is_passing(error: &Error) -> bool {
    let Error::Refused { answer, .. } = error else { return false };
    let answer = answer.to_lowercase();
    // An answer that is an answer comes first: engines wrap it in words about the way.
    let firm =
        ["unauthorized", "denied", "not found", "unknown", "no such image", "http response to https", "x509"];
    let passing = [
        "connection refused",
        "connection reset",
        "i/o timeout",
        "tls handshake timeout",
        "timeout exceeded",
        "deadline exceeded",
        "unexpected eof",
        "no route to host",
        "network is unreachable",
        "no such host",
        "temporary failure in name resolution",
        "server misbehaving",
        "502 bad gateway",
        "503 service unavailable",
        "504 gateway timeout",
    ];
    let says = |words: &[&str]| words.iter().any(|word| answer.contains(word));
    says(&passing) && !says(&firm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_way_to_a_registry_is_tried_again() {
        for (answer, want) in [
            (
                "500 initializing source docker://h/a: dial tcp 127.0.0.1:5055: connect: connection refused",
                true,
            ),
            ("pinging container registry h: Get \"https://h/v2/\": dial tcp: lookup h: no such host", true),
            ("received unexpected HTTP status: 503 Service Unavailable", true),
            ("500 reading manifest a in h/b: manifest unknown", false),
            ("500 unauthorized: authentication required", false),
            ("404 pull access denied for x, repository does not exist", false),
            ("http: server gave HTTP response to HTTPS client", false),
        ] {
            let error = Error::Refused { what: "pull".into(), answer: answer.into() };
            assert_eq!(is_passing(&error), want, "{answer}");
        }
    }
}
