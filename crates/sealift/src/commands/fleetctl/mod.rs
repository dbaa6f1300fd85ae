//! The command line of fleet, for scripts and fingers that know it: `fleetctl ARGS` by the program's name, or
//! `sealift fleetctl ARGS`.
//!
//! Guarantees: fleetctl's commands, flags, columns and the lines that scripts look for, over fleet's API alone. Where
//! fleetctl itself was wrong (it ended well whatever was asked for wrongly, or waited the wrong way round) this is right;
//! docs/from-fleet.md tells each case.

mod api;
mod flags;
mod list;
mod remote;
mod units;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use sealift_access::{Trust, client_config, roots_from_pem};
use sealift_client::{Address, Client, Tls};
use sealift_model::diagnostic::chain;

use super::connect;
use crate::error::Error;
use crate::state_dir;
use api::Fleet;
use flags::Asked;
use remote::Tunnel;
use units::State;

const FAILED: u8 = 1;
/// As `verify` ended when signatures had gone.
const GONE: u8 = 2;
/// fleet's version in the terms of semantic versions, and what this is in truth.
const VERSION: &str = concat!("fleetctl version 1.0.0+sealift.", env!("CARGO_PKG_VERSION"));

/// What the program was called as, if that means this command line: the words behind it.
pub(crate) fn asked(args: &[std::ffi::OsString]) -> Option<Vec<String>> {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let skip = match (name, args.get(1)) {
        (Some(name), _) if name == "fleetctl" => 1,
        (_, Some(first)) if first == "fleetctl" => 2,
        _ => return None,
    };
    Some(args.iter().skip(skip).map(|word| word.to_string_lossy().into_owned()).collect())
}

/// Where lines go.
struct Voice {
    out: bool,
    debug: bool,
}

impl Voice {
    /// Says only what is wrong.
    const QUIET: Voice = Voice { out: false, debug: false };

    fn out(&self, line: &str) {
        if self.out {
            // Whoever reads us may have what he wanted.
            writeln!(std::io::stdout().lock(), "{line}").ok();
        }
    }

    fn err(&self, line: &str) {
        writeln!(std::io::stderr().lock(), "{line}").ok();
    }

    fn debug(&self, line: &str) {
        if self.debug {
            self.err(&format!("DEBUG {line}"));
        }
    }
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

/// Does what is asked for.
pub(crate) fn main(words: Vec<String>) -> ExitCode {
    if matches!(words.first().map(String::as_str), Some("--version" | "-version" | "-v")) {
        print(&format!("{VERSION}\n"));
        return ExitCode::SUCCESS;
    }
    let mut voice = Voice { out: true, debug: false };
    let asked = match flags::read(words, |name| std::env::var(name).ok()) {
        Ok(asked) => asked,
        Err(error) => {
            voice.err(&format!("Error: {}\nRun 'fleetctl help' for usage.", chain(&error)));
            return ExitCode::from(FAILED);
        }
    };
    voice.debug = asked.is("debug");
    crate::start_log(if voice.debug { "debug" } else { "error" });
    let name = asked.command.map_or("help", |command| command.name);
    let wants_help = asked.is_given("help") && asked.is("help");
    let done = match name {
        _ if wants_help => {
            print(&flags::help(asked.command));
            Ok(0)
        }
        "help" => help(&asked),
        "version" => {
            print(&format!("{VERSION}\n"));
            Ok(0)
        }
        "verify" => {
            voice.err("DEPRECATED: fleet's signatures are gone, and `verify` with them");
            Ok(GONE)
        }
        _ => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.map_err(Error::Runtime).and_then(|runtime| {
                let done = runtime.block_on(Box::pin(perform(name, &asked, &voice)));
                // Standard input may be waited for in a thread that nothing can interrupt.
                runtime.shutdown_background();
                done
            })
        }
    };
    ExitCode::from(done.unwrap_or_else(|error| {
        voice.err(&format!("Error: {}", chain(&error)));
        FAILED
    }))
}

fn help(asked: &Asked) -> Result<u8, Error> {
    let command = asked.words.first().map(|word| flags::command(word)).transpose()?;
    print(&flags::help(command));
    Ok(0)
}

async fn perform(name: &str, asked: &Asked, voice: &Voice) -> Result<u8, Error> {
    if name == "fd-forward" {
        return remote::fd_forward(asked).await;
    }
    let (fleet, _tunnel) = connect(asked, voice)?;
    match name {
        "cat" => cat(&fleet, asked).await,
        "list-machines" => list::machines(&fleet, asked).await.map(|text| print(&text)).map(|()| 0),
        "list-units" => list::units(&fleet, asked).await.map(|text| print(&text)).map(|()| 0),
        "list-unit-files" => list::unit_files(&fleet, asked).await.map(|text| print(&text)).map(|()| 0),
        "submit" => units::bring(&fleet, asked, State::Inactive, voice).await,
        "load" => units::bring(&fleet, asked, State::Loaded, voice).await,
        "start" => units::bring(&fleet, asked, State::Launched, voice).await,
        "stop" => units::take_back(&fleet, asked, State::Loaded, voice).await,
        "unload" => units::take_back(&fleet, asked, State::Inactive, voice).await,
        "restart" => units::restart(&fleet, asked, voice).await,
        "destroy" => units::destroy(&fleet, asked, voice).await,
        "status" => remote::status(&fleet, asked, voice).await,
        "journal" => remote::journal(&fleet, asked, voice).await,
        "ssh" => remote::shell(&fleet, asked).await,
        _ => Err(Error::plain(format!("unknown command \"{name}\" for \"fleetctl\""))),
    }
}

/// The unit's text as it is, without a line's end of our own.
async fn cat(fleet: &Fleet, asked: &Asked) -> Result<u8, Error> {
    let [word] = asked.words.as_slice() else {
        return Err(Error::plain("One unit file must be provided"));
    };
    let name = units::name_of(word);
    let unit = fleet.unit(&name).await?.ok_or_else(|| Error::plain(format!("Unit {name} not found")))?;
    print(&unit.text());
    Ok(0)
}

/// The server that is meant, and the tunnel to it.
fn connect(asked: &Asked, voice: &Voice) -> Result<(Fleet, Option<Tunnel>), Error> {
    if !asked.text("driver").eq_ignore_ascii_case("API") {
        return Err(Error::plain("the etcd driver is gone: fleetctl asks a server, see --endpoint"));
    }
    let mut endpoint = asked.text("endpoint").split(',').next().unwrap_or_default().to_owned();
    let default = Path::new("/var/run/fleet.sock");
    let tunnelled = !asked.text("tunnel").is_empty();
    if !asked.is_given("endpoint") && !tunnelled && !default.try_exists().unwrap_or(true) {
        let root = std::env::var_os("SEALIFT_STATE_DIR").map(std::path::PathBuf::from);
        let root = root.map_or_else(state_dir::default_path, Ok)?;
        endpoint = format!("unix://{}", state_dir::socket(&root).display());
    }
    // fleetctl knew the ports of the schemes.
    let authority = endpoint.split_once("://").filter(|(scheme, _)| *scheme != "unix");
    if let Some((scheme, authority)) = authority {
        let authority = authority.split('/').next().unwrap_or_default();
        let has_port = authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
        let port = if scheme == "https" { 443 } else { 80 };
        endpoint = if has_port && !authority.ends_with(']') {
            format!("{scheme}://{authority}")
        } else {
            format!("{scheme}://{authority}:{port}")
        };
    }
    let address: Address =
        endpoint.parse().map_err(|error: String| Error::plain(format!("--endpoint: {error}")))?;
    voice.debug(&format!("asking {address}"));
    let token = connect::token(&address.clone().into(), Path::new(""))?;
    let far = match &address {
        Address::Unix(path) => path.display().to_string(),
        Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Address::Tcp { host, port } => format!("{host}:{port}"),
        Address::Tls { .. } if tunnelled => {
            return Err(Error::plain("--tunnel leads to a socket or to http; https needs no tunnel"));
        }
        Address::Tls { .. } => {
            return Ok((Fleet { client: Client::with_tls(address, token, tls(asked)?) }, None));
        }
    };
    match Tunnel::open(asked, &far)? {
        Some(tunnel) => {
            let client = Client::new(Address::Unix(tunnel.socket()), token);
            Ok((Fleet { client }, Some(tunnel)))
        }
        None => Ok((Fleet { client: Client::new(address, token) }, None)),
    }
}

/// The client's end of TLS, by the flags of either age.
fn tls(asked: &Asked) -> Result<Tls, Error> {
    let file = |name: &str, older: &str| {
        let path = [name, older].into_iter().map(|flag| asked.text(flag)).find(|path| !path.is_empty());
        path.map(|path| connect::read(Path::new(path))).transpose()
    };
    let Some(authority) = file("ca-file", "etcd-cafile")? else {
        return Err(Error::plain(
            "--ca-file is wanted: nothing else says what shows that the server is yours",
        ));
    };
    let roots = roots_from_pem(&authority).map_err(|error| Error::plain(format!("--ca-file: {error}")))?;
    let (certificate, key) = (file("cert-file", "etcd-certfile")?, file("key-file", "etcd-keyfile")?);
    let identity = certificate.as_deref().zip(key.as_deref());
    client_config(&Trust::Roots(roots), identity, &connect::clock()).map(Tls::new).map_err(Error::Tls)
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_asked_by_name_or_by_the_first_word() {
        let asked = |words: &[&str]| super::asked(&words.iter().map(Into::into).collect::<Vec<_>>());
        assert_eq!(asked(&["/usr/bin/fleetctl", "cat", "a"]), Some(vec!["cat".into(), "a".into()]));
        assert_eq!(asked(&["sealift", "fleetctl", "cat"]), Some(vec!["cat".into()]));
        assert_eq!(asked(&["sealift", "unit", "fleetctl"]), None);
    }
}
