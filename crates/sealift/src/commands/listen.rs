//! Where a server listens: a Unix socket for this machine's own, and TCP.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::net::{TcpListener, UnixListener};

use crate::error::Error;

/// unix(7): `sun_path` with its closing NUL has 108 bytes.
const SOCKET_PATH_LIMIT: usize = 107;

/// The caller holds the lock of the folder that the socket is in.
pub(super) fn unix(socket: &Path) -> Result<UnixListener, Error> {
    let length = socket.as_os_str().len();
    if length > SOCKET_PATH_LIMIT {
        return Err(Error::with_help(
            format!(
                "the path {} has {length} bytes, more than the {SOCKET_PATH_LIMIT} a socket may have",
                socket.display()
            ),
            "use a shorter --state-dir",
        ));
    }
    let io = |action| move |source| Error::Io { action, path: socket.to_owned(), source };
    // We hold the directory's lock, so a socket that is there is a dead one's.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove")(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(io("listen on"))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(io("protect"))?;
    Ok(listener)
}

/// Where `--listen` says; nowhere for `none`. Without TLS only this machine may be served, unless the user says that he
/// knows better.
pub(super) async fn tcp(listen: &str, anywhere: bool) -> Result<Option<TcpListener>, Error> {
    if listen == "none" {
        return Ok(None);
    }
    let address: SocketAddr = listen.parse().map_err(|_| {
        Error::plain(format!(
            "--listen wants an address and port such as 127.0.0.1:4640, or none; not {listen:?}"
        ))
    })?;
    if !anywhere && !address.ip().is_loopback() {
        return Err(Error::with_help(
            format!("{} is not a loopback address", address.ip()),
            "without TLS only this machine is served",
        ));
    }
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Error::with_help(
            format!("port {} on {} is taken by another program", address.port(), address.ip()),
            "choose another with --listen 127.0.0.1:PORT, or --listen none for the Unix socket alone",
        )),
        Err(source) => Err(Error::Io { action: "listen on", path: listen.into(), source }),
    }
}
