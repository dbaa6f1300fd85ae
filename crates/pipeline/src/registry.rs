//! Names of registries, and whose credentials go with an image.
//!
//! Guarantees: what is picked depends on nothing but what is handed in; credentials are never printed, not even by
//! `Debug`; those for one registry are not given to another.
//!
//! It must not know how an engine is asked.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;

use crate::ecr;

/// The registry of names that name none.
const HUB: &str = "docker.io";
/// Other names of it, as they stand in old files.
const HUB_TOO: [&str; 4] =
    ["index.docker.io", "registry.hub.docker.com", "registry-1.docker.io", "hub.docker.com"];
/// Registries that were shut down with the service.
const GONE: [&str; 2] = ["wcr.io", "wercker.io"];
/// Larger than any file of credentials.
const LARGEST: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "image {image} cannot be had: the registry {host} was shut down; name a copy in another registry"
    )]
    Gone { image: String, host: String },
    #[error("image {image}: the aws-* keys cannot be used")]
    Aws {
        image: String,
        #[source]
        source: ecr::Error,
    },
    #[error("image {image}: `{given}` is given without `{missing}`, or with nothing in it")]
    Half { image: String, given: &'static str, missing: &'static str },
    #[error("`{text}` is no name of an image: a registry, names in lower case with slashes between, a tag")]
    Name { text: String },
}

/// What a registry wants to know of its user.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    server: String,
    username: String,
    password: String,
    /// A token in the place of both.
    token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.server)
    }
}

impl Credentials {
    pub(crate) fn new(server: &str, username: String, password: String) -> Credentials {
        Credentials { server: server.to_owned(), username, password, token: String::new() }
    }

    /// The value of `X-Registry-Auth`. Engines read the alphabet for URLs and no other.
    pub(crate) fn header(&self) -> String {
        URL_SAFE.encode(self.json().to_string())
    }

    fn json(&self) -> serde_json::Value {
        if self.token.is_empty() {
            serde_json::json!({
                "username": self.username, "password": self.password, "serveraddress": self.server
            })
        } else {
            serde_json::json!({ "identitytoken": self.token, "serveraddress": self.server })
        }
    }
}

/// The value of `X-Registry-Config`, for a build that pulls.
pub(crate) fn build_header(all: &[Credentials]) -> String {
    let mut map = serde_json::Map::new();
    for one in all {
        let server = if one.server == HUB { "https://index.docker.io/v1/" } else { one.server.as_str() };
        map.insert(server.to_owned(), one.json());
    }
    URL_SAFE.encode(serde_json::Value::Object(map).to_string())
}

/// Looks up what stands beside an image's name, variables filled in.
pub(crate) type Lookup<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// What was found for an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Picked {
    pub(crate) credentials: Option<Credentials>,
    /// Keys that Amazon gives a password for.
    pub(crate) aws: Option<ecr::Keys>,
    /// Something that the user ought to know if it does not work.
    pub(crate) note: Option<String>,
}

/// The registry in an image's name.
pub(crate) fn host_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => plain(first),
        _ => HUB,
    }
}

/// The host in what stands as `registry:`, such as `https://host:5000/v2`.
pub(crate) fn host(registry: &str) -> &str {
    let rest = registry.split_once("://").map_or(registry, |(_, rest)| rest);
    plain(rest.split('/').next().unwrap_or_default())
}

fn plain(host: &str) -> &str {
    if HUB_TOO.contains(&host) { HUB } else { host }
}

/// Whether the registry is on this machine: there is no wire to listen on, so it may go without encryption, as with
/// Docker.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Puts the host that the options name in front of an image's name that has none.
pub(crate) fn qualify(image: &str, option: &dyn Fn(&str) -> Option<String>) -> String {
    let named = match image.split_once('/') {
        Some((first, _)) => first.contains(['.', ':']) || first == "localhost",
        None => false,
    };
    let given = |key: &str| option(key).filter(|value| !value.is_empty());
    let registry = given("registry")
        .or_else(|| given("azure-login-server"))
        .or_else(|| given("azure-registry-name").map(|name| format!("{}.azurecr.io", name.to_lowercase())))
        .or_else(|| ecr::host(option));
    match registry.as_deref().map(host) {
        Some(host) if !named && !host.is_empty() && host != HUB => format!("{host}/{image}"),
        _ => image.to_owned(),
    }
}

/// An image's name without its tag, and the tag.
///
/// # Errors
/// When an engine would not take it.
pub(crate) fn split(text: &str) -> Result<(String, Option<String>), Error> {
    let wrong = || Error::Name { text: text.to_owned() };
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    };
    let name = name.to_lowercase();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_:[]".contains(c);
    let part = |part: &str| !part.is_empty() && part.chars().all(plain);
    if !name.split('/').all(part) || tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(wrong());
    }
    Ok((name, tag.map(str::to_owned)))
}

/// Whether a registry takes it as a tag.
pub(crate) fn is_tag(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=128).contains(&text.len()) && text.chars().all(plain) && !text.starts_with(['.', '-'])
}

/// The credentials for an image: those beside its name (`username` and `password`, `azure-client-id` and
/// `azure-client-secret`, or the `aws-*` keys), else the best entry of the files, in their order.
///
/// # Errors
/// When what is given cannot work.
pub(crate) fn pick(
    image: &str,
    option: &dyn Fn(&str) -> Option<String>,
    files: &[AuthFile],
) -> Result<Picked, Error> {
    let host = host_of(image);
    if GONE.contains(&host) {
        return Err(Error::Gone { image: image.to_owned(), host: host.to_owned() });
    }
    for (name, secret) in [
        ("username", "password"),
        ("azure-client-id", "azure-client-secret"),
        ("aws-access-key", "aws-secret-key"),
    ] {
        let given = |key: &str| option(key).map(|value| value.trim().to_owned());
        let half = |given, missing| Err(Error::Half { image: image.to_owned(), given, missing });
        match (given(name), given(secret)) {
            (None, None) => {}
            (Some(username), Some(password)) if !username.is_empty() && !password.is_empty() => {
                if name == "aws-access-key" {
                    let keys = ecr::Keys::new(host, username, password, option)
                        .map_err(|source| Error::Aws { image: image.to_owned(), source })?;
                    return Ok(Picked { aws: Some(keys), ..Picked::default() });
                }
                let credentials = Credentials::new(host, username, password);
                return Ok(Picked { credentials: Some(credentials), ..Picked::default() });
            }
            (Some(username), _) if !username.is_empty() => return half(name, secret),
            (_, Some(_)) => return half(secret, name),
            // Written down, but its variable is empty: as good as not written.
            (Some(_), None) => {}
        }
    }
    let mut picked = Picked::default();
    for file in files {
        if let Some(entry) = file.best(host, image) {
            match entry.credentials(host) {
                Some(credentials) => {
                    return Ok(Picked { credentials: Some(credentials), ..Picked::default() });
                }
                None => picked.note.get_or_insert_with(|| {
                    format!("the entry for {host} in {} has no password in it", file.path.display())
                }),
            };
        }
        if let Some(helper) = file.helper(host) {
            picked.note = Some(format!(
                "{} leaves the password for {host} to the helper docker-credential-{helper}, which is not asked; \
                 give `username` and `password` instead",
                file.path.display()
            ));
        }
    }
    Ok(picked)
}

/// A file of credentials as Docker and Podman write it: `config.json`, `auth.json`.
#[derive(Clone, Default)]
pub(crate) struct AuthFile {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Default, Deserialize)]
struct Content {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, Entry>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers", default)]
    helpers: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(rename = "identitytoken", default)]
    token: String,
}

impl Entry {
    fn credentials(&self, server: &str) -> Option<Credentials> {
        let decoded = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((username, password)) => (username.to_owned(), password.to_owned()),
            None => (self.username.clone(), self.password.clone()),
        };
        let usable = !self.token.is_empty() || !username.is_empty() && !password.is_empty();
        usable.then(|| Credentials {
            server: server.to_owned(),
            username,
            password,
            token: self.token.clone(),
        })
    }
}

impl AuthFile {
    pub(crate) fn parse(path: &Path, text: &str) -> Result<AuthFile, serde_json::Error> {
        Ok(AuthFile { path: path.to_owned(), content: serde_json::from_str(text)? })
    }

    /// The entry whose key says most of the image's name: `host/me/app` before `host/me` before `host`.
    fn best(&self, host: &str, image: &str) -> Option<&Entry> {
        let bare = image.split('@').next().unwrap_or_default();
        let bare = match bare.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => bare,
        };
        let full = if host == HUB && !bare.starts_with("docker.io/") {
            format!("{HUB}/{bare}")
        } else {
            bare.to_owned()
        };
        let said = |key: &str| {
            let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
            let (first, path) = rest.split_once('/').unwrap_or((rest, ""));
            // Docker's own keys end in the version of an interface.
            let path = path.trim_end_matches('/');
            let path = if matches!(path, "v1" | "v2") { "" } else { path };
            let key =
                if path.is_empty() { plain(first).to_owned() } else { format!("{}/{path}", plain(first)) };
            let covers = full == key || full.starts_with(&format!("{key}/"));
            (covers && plain(first) == host).then_some(key.len())
        };
        let entries = self.content.auths.iter().filter_map(|(key, entry)| Some((said(key)?, entry)));
        entries.max_by_key(|(length, _)| *length).map(|(_, entry)| entry)
    }

    fn helper(&self, host: &str) -> Option<&str> {
        let helpers = &self.content.helpers;
        let own = helpers.iter().find(|(key, _)| self::host(key) == host).map(|(_, helper)| helper.as_str());
        own.or(self.content.store.as_deref()).filter(|helper| !helper.is_empty())
    }
}

/// All that the files hold, for a build that may pull from anywhere; of two for one registry the first.
pub(crate) fn all(files: &[AuthFile]) -> Vec<Credentials> {
    let mut all: Vec<Credentials> = Vec::new();
    for (key, entry) in files.iter().flat_map(|file| &file.content.auths) {
        let server = host(key);
        if let Some(credentials) = entry.credentials(server)
            && all.iter().all(|known| known.server != server)
        {
            all.push(credentials);
        }
    }
    all
}

/// What a file gives for a build: `{"HOST": {"username": .., "password": ..}}`, perhaps below `auths`.
pub(crate) fn given(text: &str) -> Result<Vec<Credentials>, serde_json::Error> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    let value = if value.get("auths").is_some() { value } else { serde_json::json!({ "auths": value }) };
    let content = serde_json::from_value(value)?;
    Ok(all(&[AuthFile { path: PathBuf::new(), content }]))
}

/// Where the engines' own clients keep credentials, the most private first: `docker_config` is the value of
/// `DOCKER_CONFIG`, `runtime_dir` that of `XDG_RUNTIME_DIR`.
#[must_use]
pub fn auth_file_places(
    home: Option<&Path>,
    docker_config: Option<&Path>,
    runtime_dir: Option<&Path>,
) -> Vec<PathBuf> {
    let mut places = Vec::new();
    places.extend(runtime_dir.map(|dir| dir.join("containers/auth.json")));
    places.extend(home.map(|home| home.join(".config/containers/auth.json")));
    match docker_config {
        Some(dir) => places.push(dir.join("config.json")),
        None => places.extend(home.map(|home| home.join(".docker/config.json"))),
    }
    places
}

/// Reads the files that are there. With them comes what is wrong with the others.
pub(crate) fn read(paths: &[PathBuf]) -> (Vec<AuthFile>, Vec<String>) {
    let mut files = Vec::new();
    let mut wrong = Vec::new();
    for path in paths {
        let text = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Ok(metadata) if metadata.len() > LARGEST => Err(format!("larger than {LARGEST} bytes")),
            _ => std::fs::read_to_string(path).map_err(|error| error.to_string()),
        };
        match text.and_then(|text| {
            AuthFile::parse(path, &text).map_err(|error| format!("line {}: not its format", error.line()))
        }) {
            Ok(file) => files.push(file),
            Err(reason) => wrong.push(format!("{}: {reason}", path.display())),
        }
    }
    (files, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(image: &str, options: &[(&str, &str)], files: &[AuthFile]) -> Result<String, String> {
        let option =
            |key: &str| options.iter().find(|(known, _)| *known == key).map(|(_, value)| (*value).to_owned());
        let picked = pick(image, &option, files).map_err(|error| error.to_string())?;
        let keys = picked.aws.map(|keys| format!("{keys:?}"));
        let said =
            picked.credentials.map(|c| format!("{}:{}{}@{}", c.username, c.password, c.token, c.server));
        Ok(said.or(keys).or(picked.note).unwrap_or_default())
    }

    #[test]
    fn what_stands_beside_the_image_comes_first() {
        let file = AuthFile::parse(Path::new("f"), r#"{"auths":{"quay.io":{"auth":"YTpi"}}}"#).unwrap();
        let files = [file];
        for (image, options, want) in [
            ("quay.io/me/app:1", &[("username", "u"), ("password", "p:q")][..], Ok("u:p:q@quay.io")),
            ("quay.io/me/app:1", &[], Ok("a:b@quay.io")),
            ("quay.io:443/me/app", &[], Ok("")),
            ("redis:latest", &[("username", "u"), ("password", "p")], Ok("u:p@docker.io")),
            (
                "x.azurecr.io/a",
                &[("azure-client-id", "i"), ("azure-client-secret", "s")],
                Ok("i:s@x.azurecr.io"),
            ),
            ("localhost:5000/a@sha256:00", &[("username", "u"), ("password", "p")], Ok("u:p@localhost:5000")),
            // Both variables are empty where a fork runs the file: nothing is given then.
            ("quay.io/a", &[("username", ""), ("password", "")], Err("without `username`")),
            (
                "quay.io/a",
                &[("username", "u"), ("password", "")],
                Err("`username` is given without `password`"),
            ),
            ("quay.io/a", &[("password", "p")], Err("`password` is given without `username`")),
            (
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a",
                &[("aws-access-key", "k"), ("aws-secret-key", "s")],
                Ok("Keys(123456789012.dkr.ecr.eu-west-1.amazonaws.com in eu-west-1)"),
            ),
            (
                "quay.io/a",
                &[("aws-access-key", "k")],
                Err("`aws-access-key` is given without `aws-secret-key`"),
            ),
            (
                "quay.io/a",
                &[("aws-access-key", "k"), ("aws-secret-key", "s")],
                Err("aws-* keys cannot be used"),
            ),
            ("wcr.io/me/app", &[], Err("was shut down")),
        ] {
            match (picked(image, options, &files), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{image}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{image}: {got}"),
                (got, _) => panic!("{image}: {got:?}"),
            }
        }
    }

    #[test]
    fn the_longest_key_of_a_file_counts() {
        let text = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOjE="},
            "quay.io":{"auth":"YWxsOjI="},
            "quay.io/me":{"username":"me","password":"3"},
            "host:5000":{"identitytoken":"tok"},
            "empty.io":{}},
            "credHelpers":{"gcr.io":"gcloud"}}"#;
        let files = [AuthFile::parse(Path::new("f"), text).unwrap()];
        for (image, want) in [
            ("redis", "hub:1@docker.io"),
            ("docker.io/library/redis:7", "hub:1@docker.io"),
            ("quay.io/you/app", "all:2@quay.io"),
            ("quay.io/me/app:1", "me:3@quay.io"),
            ("quay.io/meyer/app", "all:2@quay.io"),
            ("host:5000/a/b", ":tok@host:5000"),
            ("host:5001/a/b", ""),
            ("empty.io/a", "the entry for empty.io in f has no password in it"),
        ] {
            assert_eq!(picked(image, &[], &files).unwrap(), want, "{image}");
        }
        assert!(picked("gcr.io/a", &[], &files).unwrap().contains("docker-credential-gcloud"));
    }

    #[test]
    fn credentials_are_not_printed() {
        let all = Credentials {
            server: "s".into(),
            username: "u".into(),
            password: "geheim>>>???".into(),
            token: String::new(),
        };
        assert!(!format!("{all:?}").contains("geheim"));
        assert!(!all.header().contains(['+', '/']));
        let text = String::from_utf8(URL_SAFE.decode(all.header()).unwrap()).unwrap();
        assert!(text.contains(r#""password":"geheim>>>???""#), "{text}");
    }

    #[test]
    fn names_and_hosts() {
        assert_eq!(split("Me/App:1.0").unwrap(), ("me/app".into(), Some("1.0".into())));
        assert_eq!(split("h:5000/me/app").unwrap(), ("h:5000/me/app".into(), None));
        for wrong in ["", "a//b", "a b", "a:b c", "-/:", "a:-x"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
        for (host, want) in [
            ("127.0.0.1:5000", true),
            ("localhost", true),
            ("[::1]:5000", true),
            ("128.0.0.1", false),
            ("l.io", false),
        ] {
            assert_eq!(is_loopback(host), want, "{host}");
        }
        let registry = |value: &'static str| move |key: &str| (key == "registry").then(|| value.to_owned());
        assert_eq!(qualify("me/app", &registry("https://quay.io/v2")), "quay.io/me/app");
        assert_eq!(qualify("quay.io/me/app", &registry("https://gcr.io")), "quay.io/me/app");
        assert_eq!(qualify("me/app", &registry("https://index.docker.io/v1")), "me/app");
        let azure = |key: &str| (key == "azure-registry-name").then(|| "Shop".to_owned());
        assert_eq!(qualify("me/app", &azure), "shop.azurecr.io/me/app");
        let aws = |key: &str| match key {
            "aws-registry-id" => Some("123456789012".to_owned()),
            "aws-region" => Some("eu-west-1".to_owned()),
            _ => None,
        };
        assert_eq!(qualify("me/app", &aws), "123456789012.dkr.ecr.eu-west-1.amazonaws.com/me/app");
    }
}
