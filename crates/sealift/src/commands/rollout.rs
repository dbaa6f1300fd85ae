//! `sealift rollout`: how far changes of units are, and what people say about it.

use std::process::ExitCode;
use std::time::Duration;

use sealift_client::Client;
use sealift_client::api::{List, RolloutState, RolloutView, SteerRollout};
use sealift_model::{MachineId, UnitName};
use tokio::time::Instant;

use super::unit::machine_names;
use crate::cli::{Global, OneRollout, RolloutCommand};
use crate::error::{Error, FAILED};
use crate::print::{Printer, Style};

/// Between two looks at a rollout.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn rollout(command: RolloutCommand, global: &Global) -> Result<ExitCode, Error> {
    match command {
        RolloutCommand::List => list(global).await,
        RolloutCommand::Back(args) => steer(&args, SteerRollout::Back, global).await,
        RolloutCommand::Again(args) => steer(&args, SteerRollout::Again, global).await,
    }
}

async fn views(client: &Client) -> Result<Vec<RolloutView>, Error> {
    let list: List<RolloutView> = client.get("/v1/rollouts").await?;
    Ok(list.items)
}

async fn list(global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let rollouts = views(&client).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&List { items: rollouts })?;
        return Ok(ExitCode::SUCCESS);
    }
    let machines = machine_names(&client).await?;
    let called = |target: &String| {
        let id: Option<MachineId> = target.parse().ok();
        id.and_then(|id| machines.get(&id)).unwrap_or(target).clone()
    };
    let rows: Vec<_> = rollouts
        .iter()
        .map(|rollout| {
            let (style, word) = word(rollout.state);
            let next = rollout.waiting.first().map_or_else(|| "-".into(), called);
            let of = rollout.updated.len() + rollout.waiting.len();
            vec![
                rollout.name.to_string(),
                printer.paint(style, word),
                format!("{}/{of}", rollout.updated.len()),
                next,
                rollout.why.clone().unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    printer.table(&["ROLLOUT", "STATE", "UPDATED", "NEXT", "WHY"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn word(state: RolloutState) -> (Style, &'static str) {
    match state {
        RolloutState::Rolling => (Style::Good, "rolling"),
        RolloutState::Failed => (Style::Bad, "stopped"),
        RolloutState::Back => (Style::Careful, "back"),
        RolloutState::Unknown => (Style::Quiet, "unknown"),
    }
}

async fn steer(args: &OneRollout, to: SteerRollout, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let changed: List<UnitName> = client.post(&format!("/v1/rollouts/{}", args.unit), &to).await?;
    let printer = Printer::new(global.output);
    let nothing = changed.items.is_empty();
    let end = args.wait.timeout.map(|timeout| Instant::now() + timeout);
    let (outcome, why) = loop {
        let rollout = views(&client).await?.into_iter().find(|rollout| {
            rollout.name == args.unit || args.unit.template().as_ref() == Some(&rollout.name)
        });
        let over = match (&rollout, to) {
            (None, _) => Some(("over", None)),
            (Some(rollout), SteerRollout::Back) => {
                (rollout.state == RolloutState::Back && rollout.updated.is_empty()).then_some(("back", None))
            }
            (Some(rollout), SteerRollout::Again) => {
                let over = rollout.state != RolloutState::Rolling;
                over.then(|| (word(rollout.state).1, rollout.why.clone()))
            }
        };
        if args.wait.no_block {
            break ("to be seen to", None);
        }
        if let Some(over) = over {
            break over;
        }
        if end.is_some_and(|end| end <= Instant::now()) {
            break ("not in time", None);
        }
        tokio::time::sleep(LOOK).await;
    };
    let failed = outcome == "not in time" || (to == SteerRollout::Again && why.is_some());
    if printer.is_json() {
        printer.json(&serde_json::json!({
            "rollout": args.unit, "state": outcome, "reason": why, "changed": changed.items,
        }))?;
    } else {
        let style = if failed { Style::Bad } else { Style::Good };
        let so = if nothing { " already" } else { "" };
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        printer.line(&format!("{} is{so} {}{why}", args.unit, printer.paint(style, outcome)))?;
    }
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
