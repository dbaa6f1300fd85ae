//! How a command reaches servers: which, by which token, and what shows that they are ours.
//!
//! A token comes from a variable or a file, never from an argument: others would see it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealift_access::{Clock, Pin, Trust, client_config, roots_from_pem};
use sealift_client::{Address, Client, Servers, Tls};

use super::state_path;
use crate::cli::Global;
use crate::clock::now;
use crate::error::Error;
use crate::state_dir;

/// The servers that are meant: those that are named, else the one of the state directory.
pub(super) fn servers(global: &Global) -> Result<Servers, Error> {
    match &global.server {
        Some(servers) => Ok(servers.clone()),
        None => Ok(Address::Unix(state_dir::socket(&state_path(global)?)).into()),
    }
}

/// A client for these, as a user.
pub(super) fn client(global: &Global) -> Result<Client, Error> {
    let servers = servers(global)?;
    let token = token(&servers, &state_path(global)?)?;
    if !servers.tls() {
        return Ok(Client::new(servers, token));
    }
    let Some(ca) = &global.ca else {
        return Err(Error::with_help(
            format!("nothing says what shows that {servers} is yours"),
            "name the authority with --ca or SEALIFT_CA: the file with its roots, or its pin; on the server \
             `sealift authority show` tells it",
        ));
    };
    let config = client_config(&trust(ca)?, None, &clock()).map_err(Error::Tls)?;
    Ok(Client::with_tls(servers, token, Tls::new(config)))
}

pub(super) fn clock() -> Clock {
    Clock(Arc::new(now))
}

/// `sha256:HEX`, or a file with certificates in PEM.
fn trust(ca: &str) -> Result<Trust, Error> {
    if ca.starts_with("sha256:") {
        let pin: Pin =
            ca.parse().map_err(|error: sealift_access::AuthorityError| Error::plain(error.to_string()))?;
        return Ok(Trust::Pin(pin));
    }
    let text = read(Path::new(ca))?;
    let roots = roots_from_pem(&text).map_err(|error| Error::plain(format!("{ca}: {error}")))?;
    Ok(Trust::Roots(roots))
}

/// The token of whoever asks. The one of the state directory is for the server of that directory alone, and is shown to
/// nobody over a network.
pub(super) fn token(servers: &Servers, root: &Path) -> Result<Option<String>, Error> {
    if servers.addresses().iter().all(|address| matches!(address, Address::Unix(_))) {
        return Ok(None);
    }
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(token) = named("SEALIFT_TOKEN") {
        return Ok(Some(token.trim().to_owned()));
    }
    if let Some(path) = named("SEALIFT_TOKEN_FILE") {
        return Ok(Some(read(&PathBuf::from(path))?.trim().to_owned()));
    }
    if servers.tls() {
        return Ok(None);
    }
    Ok(std::fs::read_to_string(root.join("token")).ok().map(|text| text.trim().to_owned()))
}

pub(super) fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}
