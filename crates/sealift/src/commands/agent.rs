//! `sealift agent`: this machine's agent by itself.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sealift_agent::{Agent, Options};
use sealift_client::Client;
use sealift_client::api::Status;
use sealift_model::diagnostic::chain;
use sealift_model::{Machine, MachineId};
use sealift_package::signing::PublicKey;
use tokio_util::sync::CancellationToken;

use super::end_asked;
use super::this_machine::{
    address, capacity, engine_options, host_name, keep_agent, new_session, surroundings,
};
use crate::cli::{AgentArgs, Global};
use crate::clock::now;
use crate::error::Error;
use crate::print::Printer;
use crate::state_dir::{AgentDir, write_once};

/// Between two tries to reach a server for the first time.
const AGAIN: Duration = Duration::from_secs(1);
/// systemd's identity of a machine, machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";

pub(super) async fn agent(args: Box<AgentArgs>, global: &Global) -> Result<ExitCode, Error> {
    let state = AgentDir::open(&super::state_path(global)?)?;
    let client = client(&args, global)?;
    let machine = Machine {
        metadata: args.metadata.iter().cloned().collect(),
        version: env!("CARGO_PKG_VERSION").into(),
        run_slots: args.run_slots,
        address: args.address.clone().or_else(address),
        class: args.class.clone(),
        capacity: capacity(),
        reserved: args.reserved(),
        ..Machine::new(machine_id(&args)?, args.name.clone().unwrap_or_else(host_name))
    };
    let trusted = tokio::select! {
        trusted = trusted_key(&state.folder, &client) => trusted?,
        asked = end_asked() => return asked.map(|()| ExitCode::SUCCESS),
    };
    let make = {
        let (root, folder) = (state.root.clone(), state.folder.clone());
        let (client, machine) = (client.clone(), machine.clone());
        move || {
            Agent::build(Options {
                machine: machine.clone(),
                client: client.clone(),
                state_dir: folder.clone(),
                trusted: trusted.clone(),
                surroundings: surroundings(&root, false),
                engine: engine_options(&root),
                clock: Arc::new(now),
                sessions: Arc::new(new_session),
            })
        }
    };
    let agent = make().await?;
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
    let keeping = tokio::spawn(keep_agent(agent, make, shutdown.clone()));
    end_asked().await?;
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
            Ok(Client::new(named.address().clone(), Some(token.trim().to_owned())))
        }
    }
}

fn machine_id(args: &AgentArgs) -> Result<MachineId, Error> {
    if let Some(id) = &args.machine_id {
        return Ok(id.clone());
    }
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
async fn trusted_key(folder: &Path, client: &Client) -> Result<PublicKey, Error> {
    let path = folder.join("signing.pub");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = ask_key(client).await?;
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
