//! The sockets that systemd passed, sd_listen_fds(3).
//!
//! Guarantees: only what was passed to this very process is taken. Each is taken as a copy through the process's own
//! pidfd, since a bare number cannot be made a socket safely; what was passed stays open besides.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::error::Error;

/// The number of the first.
const FIRST: i32 = 3;
/// More than this nobody passes.
const MOST: i32 = 64;

/// What was passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) unix: Vec<UnixListener>,
    pub(super) tcp: Vec<TcpListener>,
}

/// Takes what `LISTEN_FDS` says was passed to `LISTEN_PID`.
pub(super) fn passed(variable: impl Fn(&str) -> Option<String>) -> Result<Passed, Error> {
    let number = |name| variable(name).and_then(|text| text.parse::<i32>().ok());
    let own = getpid();
    let (Some(pid), Some(count)) = (number("LISTEN_PID"), number("LISTEN_FDS")) else {
        return Ok(Passed::default());
    };
    if pid != own.as_raw_nonzero().get() {
        return Ok(Passed::default());
    }
    let failed =
        |error: rustix::io::Errno| Error::plain(format!("cannot take a socket that systemd passed: {error}"));
    let process = pidfd_open(own, PidfdFlags::empty()).map_err(failed)?;
    let mut all = Passed::default();
    for number in FIRST..FIRST + count.clamp(0, MOST) {
        let socket: OwnedFd = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).map_err(failed)?;
        let unclear =
            |error: std::io::Error| Error::plain(format!("the socket {number} that systemd passed: {error}"));
        let unix = UnixListener::from(socket.try_clone().map_err(unclear)?);
        if unix.local_addr().is_ok() {
            unix.set_nonblocking(true).map_err(unclear)?;
            all.unix.push(unix);
            continue;
        }
        let tcp = TcpListener::from(socket);
        tcp.local_addr().map_err(unclear)?;
        tcp.set_nonblocking(true).map_err(unclear)?;
        all.tcp.push(tcp);
    }
    Ok(all)
}
