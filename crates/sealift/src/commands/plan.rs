//! `sealift plan`: what a change would do, before it is made.

use std::collections::BTreeMap;
use std::process::ExitCode;

use sealift_client::Client;
use sealift_client::api::{
    ChangeSettings, DestroyUnits, PlanNowhere, PlanRequest, PlanStep, PlanView, PutUnit, PutUnits, Rebalance,
    StepKind,
};
use sealift_model::{Availability, DesiredState, MachineId};

use super::machine::{availability_of, find, metadata_of};
use super::unit;
use crate::cli::{Global, PlanCommand};
use crate::error::{Error, FAILED};
use crate::print::{Printer, Style};

pub(super) async fn plan(command: PlanCommand, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let files = async |words: &[String], replace, desired| {
        let units = unit::units(words, Some(desired), &client).await?;
        Ok::<_, Error>(PlanRequest::Units(PutUnits { units, replace }))
    };
    let names = async |words: &[String], desired| {
        let names = unit::words::names(words, &client).await?.into_iter();
        let units = names.map(|name| PutUnit { desired: Some(desired), ..PutUnit::named(name) }).collect();
        Ok::<_, Error>(PlanRequest::Units(PutUnits { units, replace: false }))
    };
    let request = match command {
        PlanCommand::Start(args) => files(&args.units, args.replace, DesiredState::Launched).await?,
        PlanCommand::Load(args) => files(&args.units, args.replace, DesiredState::Loaded).await?,
        PlanCommand::Stop(args) => names(&args.units, DesiredState::Loaded).await?,
        PlanCommand::Unload(args) => names(&args.units, DesiredState::Inactive).await?,
        PlanCommand::Destroy(args) => {
            PlanRequest::Destroy(DestroyUnits { names: unit::words::names(&args.units, &client).await? })
        }
        PlanCommand::Drain(args) => available(&client, &args.machine, Availability::Drained).await?,
        PlanCommand::Cordon(args) => available(&client, &args.machine, Availability::Cordoned).await?,
        PlanCommand::Uncordon(args) => available(&client, &args.machine, Availability::Active).await?,
        PlanCommand::Metadata(args) => {
            if args.changes.is_empty() {
                return Err(Error::with_help(
                    "no change of metadata is given",
                    "such as: sealift plan metadata node-3 disk=ssd",
                ));
            }
            settings(&client, &args.machine, |_| metadata_of(args.changes)).await?
        }
        PlanCommand::Lose(args) => {
            PlanRequest::Lose { machine: find(&client, &args.machine).await?.machine.id }
        }
        PlanCommand::Rebalance(args) => PlanRequest::Rebalance(Rebalance { most: args.max }),
    };
    show(&client, &request, global).await
}

async fn available(client: &Client, machine: &str, availability: Availability) -> Result<PlanRequest, Error> {
    settings(client, machine, |machine| availability_of(machine, availability)).await
}

async fn settings(
    client: &Client,
    word: &str,
    change: impl FnOnce(&sealift_client::api::MachineStatus) -> ChangeSettings,
) -> Result<PlanRequest, Error> {
    let machine = find(client, word).await?;
    let settings = change(&machine);
    Ok(PlanRequest::Settings { machine: machine.machine.id, settings })
}

/// Asks, and prints the answer.
pub(super) async fn show(client: &Client, request: &PlanRequest, global: &Global) -> Result<ExitCode, Error> {
    let view: PlanView = client.post("/v1/plan", request).await?;
    view.kept.iter().for_each(unit::warn_of_other_text);
    let printer = Printer::new(global.output);
    if printer.is_json() {
        json(&printer, &view)?;
    } else {
        let machines = unit::machine_names(client).await?;
        view.steps.iter().try_for_each(|step| printer.line(&line(&printer, step, &machines)))?;
        view.nowhere.iter().try_for_each(|one| printer.line(&lost(&printer, one, &machines)))?;
        printer.line(&summary(&view))?;
    }
    Ok(if view.nowhere.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn json(printer: &Printer, view: &PlanView) -> Result<(), Error> {
    view.steps.iter().try_for_each(|step| printer.json(step))?;
    for one in &view.nowhere {
        printer.json(&serde_json::json!({
            "step": "nowhere", "unit": one.unit, "from": one.from, "reason": one.reason,
        }))?;
    }
    let count = |kind: StepKind| view.steps.iter().filter(|step| step.step == kind).count();
    printer.json(&serde_json::json!({ "summary": {
        "place": count(StepKind::Place),
        "move": count(StepKind::Move),
        "leave": count(StepKind::Leave),
        "start": count(StepKind::Start),
        "stop": count(StepKind::Stop),
        "change": count(StepKind::Change),
        "requeue": count(StepKind::Requeue),
        "nowhere": view.nowhere.len(),
        "cut": view.cut,
    }}))
}

fn line(printer: &Printer, step: &PlanStep, machines: &BTreeMap<MachineId, String>) -> String {
    let named = |id: &Option<MachineId>| id.as_ref().map(|id| name(id, machines)).unwrap_or_default();
    let (from, to) = (named(&step.from), named(&step.to));
    let what = match (&step.unit, &step.run) {
        (Some(unit), _) => unit.to_string(),
        (None, Some(run)) => format!("run {run}"),
        (None, None) => String::new(),
    };
    let (style, does) = match step.step {
        StepKind::Place => (Style::Good, format!("comes to {to}")),
        StepKind::Move => (Style::Careful, format!("moves from {from} to {to}")),
        StepKind::Leave => (Style::Careful, format!("leaves {from}")),
        StepKind::Start => (Style::Good, format!("starts on {to}")),
        StepKind::Stop => (Style::Careful, format!("stops on {from}")),
        StepKind::Change => (Style::Quiet, format!("stays on {to}")),
        StepKind::Requeue => (Style::Careful, "starts anew".to_owned()),
    };
    let why = step.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{what} {}{why}", printer.paint(style, &does))
}

fn lost(printer: &Printer, one: &PlanNowhere, machines: &BTreeMap<MachineId, String>) -> String {
    let had = one.from.as_ref().map_or_else(String::new, |id| format!(", now on {}", name(id, machines)));
    let why = one.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{} {}{had}{why}", one.unit, printer.paint(Style::Bad, "would be on no machine"))
}

fn name(id: &MachineId, machines: &BTreeMap<MachineId, String>) -> String {
    machines.get(id).cloned().unwrap_or_else(|| id.short().to_owned())
}

/// `2 come, 1 moves; 1 would be on no machine`
fn summary(view: &PlanView) -> String {
    const KINDS: [(StepKind, &str, &str); 7] = [
        (StepKind::Place, "comes", "come"),
        (StepKind::Move, "moves", "move"),
        (StepKind::Leave, "leaves", "leave"),
        (StepKind::Start, "starts", "start"),
        (StepKind::Stop, "stops", "stop"),
        (StepKind::Change, "changes where it is", "change where they are"),
        (StepKind::Requeue, "run starts anew", "runs start anew"),
    ];
    let counts = KINDS.iter().filter_map(|(kind, one, many)| {
        match view.steps.iter().filter(|step| step.step == *kind).count() {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        }
    });
    let counts: Vec<String> = counts.collect();
    let mut text = if counts.is_empty() { "nothing would be done".to_owned() } else { counts.join(", ") };
    if view.cut {
        text.push_str(" and more");
    }
    if !view.nowhere.is_empty() {
        text.push_str(&format!("; {} would be on no machine", view.nowhere.len()));
    }
    text
}
