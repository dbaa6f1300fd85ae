//! `sealift agent`: this machine's agent by itself.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sealift_access::JoinToken;
use sealift_agent::Agent;
use sealift_agent::enrolment::{self, Membership};
use sealift_client::Client;
use sealift_client::api::Status;
use sealift_model::diagnostic::chain;
use sealift_model::{Machine, MachineId};
use sealift_package::signing::PublicKey;
use tokio_util::sync::CancellationToken;

use super::connect::{clock, servers};
use super::end_asked;
use super::this_machine::{address, agent_options, capacity, host_name, keep_agent};
use crate::cli::{AgentArgs, Global};
use crate::error::Error;
use crate::print::Printer;
use crate::state_dir::{AgentDir, write_once};

/// Between two tries to reach a server for the first time.
const AGAIN: Duration = Duration::from_secs(1);
/// Below the agent's folder: what the machine is known by.
const MEMBERSHIP: &str = "membership";
/// The variable that a join token can be in.
const JOIN_TOKEN: &str = "SEALIFT_JOIN_TOKEN";
/// systemd's identity of a machine, machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";

pub(super) async fn agent(args: Box<AgentArgs>, global: &Global) -> Result<ExitCode, Error> {
    let state = AgentDir::open(&super::state_path(global)?)?;
    let member = tokio::select! {
        member = membership(&args, &state.folder, global) => member?,
        asked = end_asked() => return asked.map(|()| ExitCode::SUCCESS),
    };
    let client = match &member {
        Some(member) => member.client(servers(global)?),
        None => client(&args, global)?,
    };
    let id = match &member {
        Some(member) => member.machine().clone(),
        None => machine_id(&args)?,
    };
    let machine = Machine {
        metadata: args.metadata.iter().cloned().collect(),
        version: env!("CARGO_PKG_VERSION").into(),
        run_slots: args.run_slots,
        address: args.address.clone().or_else(address),
        class: args.class.clone(),
        capacity: capacity(),
        reserved: args.reserved(),
        ..Machine::new(id, args.name.clone().unwrap_or_else(host_name))
    };
    let trusted = tokio::select! {
        trusted = trusted_key(&state.folder, &client, member.as_ref()) => trusted?,
        asked = end_asked() => return asked.map(|()| ExitCode::SUCCESS),
    };
    let options = agent_options(machine.clone(), client.clone(), &state.root, &state.folder, trusted, false);
    let agent = Agent::build(options.clone()).await?;
    let printer = Printer::new(global.output);
    let systemd = agent.scope().as_str();
    if printer.is_json() {
        printer.json(&serde_json::json!({ "ready": true, "machine": machine.id, "systemd": systemd }))?;
    } else {
        printer.line(&format!(
            "agent of machine {} is ready; units run under the {systemd} systemd",
            machine.id.short()
        ))?;
    }
    let shutdown = CancellationToken::new();
    let keeping = tokio::spawn(keep_agent(agent, options, shutdown.clone()));
    let renewing = async {
        match &member {
            Some(member) => member.keep(&client).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        asked = end_asked() => asked?,
        () = renewing => {}
    }
    shutdown.cancel();
    keeping.await.ok();
    Ok(ExitCode::SUCCESS)
}

/// The server that is named, with the token that is named.
fn client(args: &AgentArgs, global: &Global) -> Result<Client, Error> {
    let named = super::client(global)?;
    match &args.token_file {
        None => Ok(named),
        Some(path) => {
            let token = std::fs::read_to_string(path).map_err(|source| Error::Io {
                action: "read",
                path: path.clone(),
                source,
            })?;
            Ok(named.with_token(token.trim().to_owned()))
        }
    }
}

/// What this machine is known by to servers that speak TLS: it has joined before, or joins now. None without TLS.
async fn membership(args: &AgentArgs, folder: &Path, global: &Global) -> Result<Option<Membership>, Error> {
    let servers = servers(global)?;
    if !servers.tls() {
        return Ok(None);
    }
    let folder = folder.join(MEMBERSHIP);
    let token = join_token(args)?;
    match Membership::open(&folder, clock()) {
        Ok(Some(member)) => {
            if let Some(wanted) = args.machine_id.as_ref().filter(|wanted| *wanted != member.machine()) {
                return Err(Error::with_help(
                    format!("this machine has joined as {} and not as {wanted}", member.machine()),
                    format!("remove {} to have it join anew", folder.display()),
                ));
            }
            return Ok(Some(member));
        }
        Ok(None) if token.is_none() => {
            return Err(Error::with_help(
                "this machine has not joined yet",
                "make a token with `sealift machine join-token`, and name the file that it is in with --join",
            ));
        }
        Err(error) if token.is_none() => return Err(error.into()),
        Ok(None) | Err(enrolment::Error::Expired { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let (Some(token), machine) = (token, machine_id(args)?) else { return Ok(None) };
    let mut said = String::new();
    loop {
        match Membership::join(&folder, servers.clone(), &token, &machine, clock()).await {
            Ok(member) => return Ok(Some(member)),
            // Servers may be booting beside us.
            Err(error @ enrolment::Error::Join(sealift_client::Error::Connect { .. })) => {
                let now = chain(&error);
                if now != said {
                    tracing::warn!(error = now, "no server can be reached; trying on");
                    said = now;
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The join token that is named, by a file or a variable.
fn join_token(args: &AgentArgs) -> Result<Option<JoinToken>, Error> {
    let text = match &args.join.join {
        // A machine that has joined needs it no more, and it may be gone.
        Some(path) => match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| Error::Io { action: "read", path: path.clone(), source })?,
        },
        None => match std::env::var(JOIN_TOKEN) {
            Ok(text) if !text.is_empty() => text,
            _ => return Ok(None),
        },
    };
    text.trim().parse().map(Some).map_err(|error: sealift_access::TokenError| Error::plain(error.to_string()))
}

fn machine_id(args: &AgentArgs) -> Result<MachineId, Error> {
    args.machine_id.clone().map_or_else(own_machine_id, Ok)
}

/// The identity that systemd gave this machine.
pub(super) fn own_machine_id() -> Result<MachineId, Error> {
    let text = std::fs::read_to_string(MACHINE_ID).map_err(|source| Error::Io {
        action: "read",
        path: MACHINE_ID.into(),
        source,
    })?;
    text.trim().parse().map_err(|error| {
        Error::with_help(
            format!("{MACHINE_ID} has no machine's identity: {error}"),
            "make one with systemd-machine-id-setup, or name one with --machine-id",
        )
    })
}

/// The key that packages have to be signed with: asked for once, when the machine meets the servers, and kept.
async fn trusted_key(
    folder: &Path,
    client: &Client,
    member: Option<&Membership>,
) -> Result<PublicKey, Error> {
    let path = folder.join("signing.pub");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = match member {
                Some(member) => member.signing_key()?,
                None => ask_key(client).await?,
            };
            write_once(&path, text.as_bytes())?;
            text
        }
        Err(source) => return Err(Error::Io { action: "read", path, source }),
    };
    PublicKey::from_base64(&text)
        .map_err(|error| Error::plain(format!("{} is no public key: {error}", path.display())))
}

async fn ask_key(client: &Client) -> Result<String, Error> {
    let mut said = String::new();
    loop {
        match client.get::<Status>("/v1/status").await {
            Ok(status) => return Ok(status.public_key),
            Err(error) if error.retryable() => {
                let now = chain(&error);
                if now != said {
                    tracing::warn!(error = now, "the server cannot be reached; trying on");
                    said = now;
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
