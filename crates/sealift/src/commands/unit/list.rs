//! How units are: lists, one unit's file, all there is to know of it, why it is where it is.

use std::collections::BTreeSet;
use std::process::ExitCode;

use sealift_client::Client;
use sealift_client::api::{List, MachineVerdict, Suitability, UnitView};
use sealift_model::{DesiredState, UnitName, UnitStatus, UpdateStage};

use super::{machine_names, words};
use crate::cli::Global;
use crate::error::Error;
use crate::print::{Printer, Style};

/// The units that are named; all if none is.
async fn views(client: &Client, units: &[String], text: bool) -> Result<List<UnitView>, Error> {
    let mut list: List<UnitView> = client.get(&format!("/v1/units?text={text}")).await?;
    if !units.is_empty() {
        let names: BTreeSet<_> = words::names(units, client).await?.into_iter().collect();
        if let Some(missing) =
            names.iter().find(|name| !list.items.iter().any(|view| view.unit.name == **name))
        {
            return Err(Error::with_help(
                format!("there is no unit {missing}"),
                "sealift unit list shows them all",
            ));
        }
        list.items.retain(|view| names.contains(&view.unit.name));
    }
    Ok(list)
}

pub(in crate::commands) async fn list(units: &[String], global: &Global) -> Result<ExitCode, Error> {
    let client = crate::commands::client(global)?;
    let units = views(&client, units, false).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&units)?;
        return Ok(ExitCode::SUCCESS);
    }
    let machines = machine_names(&client).await?;
    let mut rows = Vec::new();
    for view in &units.items {
        let unit = &view.unit;
        let app = unit.app.as_ref().map_or_else(|| "-".into(), |(app, release)| format!("{app}@{release}"));
        let dash = || "-".to_owned();
        if view.statuses.is_empty() {
            let machine = view.placement.as_ref().and_then(|placed| machines.get(&placed.machine));
            let set = view.replicas.as_ref().map(|set| match &set.problem {
                Some(problem) => format!("{} of {} replicas are as wanted; {problem}", set.ready, set.wanted),
                None => format!("all {} replicas are as wanted", set.wanted),
            });
            let why = view.problem.clone().or(set).unwrap_or_else(|| match unit.desired {
                DesiredState::Inactive => dash(),
                DesiredState::Loaded | DesiredState::Launched => "not reported yet".into(),
            });
            rows.push(vec![
                unit.name.to_string(),
                app,
                machine.cloned().unwrap_or_else(dash),
                dash(),
                dash(),
                why,
            ]);
            continue;
        }
        for (machine, status) in &view.statuses {
            let id = machine.parse().ok();
            let name = id.as_ref().and_then(|id| machines.get(id)).unwrap_or(machine).clone();
            let away = id.is_some_and(|id| view.away.contains(&id));
            rows.push(vec![
                unit.name.to_string(),
                app.clone(),
                name,
                active(status)?,
                status.sub.clone(),
                if away { "the machine is away".into() } else { trouble(status).unwrap_or_else(dash) },
            ]);
        }
    }
    printer.table(&["UNIT", "APP", "MACHINE", "ACTIVE", "SUB", "PROBLEM"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// systemd's own word.
fn active(status: &UnitStatus) -> Result<String, Error> {
    let word = serde_json::to_value(status.active).map_err(Error::Json)?;
    Ok(word.as_str().unwrap_or("-").to_owned())
}

fn trouble(status: &UnitStatus) -> Option<String> {
    status.error.clone().or(status.result.clone().filter(|result| result != "success"))
}

fn wanted(desired: DesiredState) -> &'static str {
    match desired {
        DesiredState::Inactive => "inactive",
        DesiredState::Loaded => "loaded",
        DesiredState::Launched => "launched",
    }
}

pub(super) async fn files(units: &[String], global: &Global) -> Result<ExitCode, Error> {
    let client = crate::commands::client(global)?;
    let units = views(&client, units, true).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&units)?;
        return Ok(ExitCode::SUCCESS);
    }
    let machines = machine_names(&client).await?;
    let rows: Vec<_> = units
        .items
        .iter()
        .map(|view| {
            let target = match &view.placement {
                Some(placed) => machines.get(&placed.machine).map_or(placed.machine.short(), String::as_str),
                None if view.unit.requirements.global => "global",
                None => "-",
            };
            vec![
                view.unit.name.to_string(),
                wanted(view.unit.desired).to_owned(),
                view.unit.generation.to_string(),
                view.unit.text.len().to_string(),
                target.to_owned(),
            ]
        })
        .collect();
    printer.table(&["UNIT", "WANTED", "GENERATION", "BYTES", "TARGET"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn cat(unit: &UnitName, global: &Global) -> Result<ExitCode, Error> {
    let view: UnitView = crate::commands::client(global)?.get(&format!("/v1/units/{unit}")).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        let text = serde_json::json!({
            "unit": view.unit.name, "text": view.unit.text, "drop_ins": view.unit.drop_ins,
        });
        printer.json(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.raw(&view.unit.text)?;
    for (name, text) in &view.unit.drop_ins {
        printer.line(&format!("\n# {unit}.d/{name}"))?;
        printer.raw(text)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn status(units: &[String], global: &Global) -> Result<ExitCode, Error> {
    let client = crate::commands::client(global)?;
    let units = views(&client, units, false).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&units)?;
        return Ok(ExitCode::SUCCESS);
    }
    let machines = machine_names(&client).await?;
    for (number, view) in units.items.iter().enumerate() {
        if number > 0 {
            printer.line("")?;
        }
        printer.line(&printer.paint(Style::Title, view.unit.name.as_str()))?;
        printer.line(&format!(
            "  wanted   {}, generation {}",
            wanted(view.unit.desired),
            view.unit.generation
        ))?;
        if let Some((app, release)) = &view.unit.app {
            printer.line(&format!("  app      {app}, release {release}"))?;
        }
        let stage = match view.unit.update.as_ref().map(|update| &update.stage) {
            Some(UpdateStage::Back { why }) => Some(format!("taken back: {why}")),
            Some(UpdateStage::Waiting) => Some("waits for its turn".to_owned()),
            Some(UpdateStage::Begun { .. }) => Some("given to its machine".to_owned()),
            None => None,
        };
        if let Some(stage) = stage {
            printer.line(&format!("  change   {stage}"))?;
        }
        if let Some(problem) = &view.problem {
            printer.line(&format!("  problem  {problem}"))?;
        }
        for (machine, status) in &view.statuses {
            let name = machine.parse().ok().and_then(|id| machines.get(&id)).unwrap_or(machine);
            let active = active(status)?;
            printer.line(&format!(
                "  machine  {name}: {} {active} ({}) since {}",
                status.load, status.sub, status.since
            ))?;
            let pid = status.main_pid.map(|pid| format!("main PID {pid}"));
            let about: Vec<_> = pid.into_iter().chain(trouble(status)).collect();
            if !about.is_empty() {
                printer.line(&format!("           {}", about.join("; ")))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn explain(unit: &UnitName, global: &Global) -> Result<ExitCode, Error> {
    let client = crate::commands::client(global)?;
    let verdicts: List<MachineVerdict> = client.get(&format!("/v1/units/{unit}/explain")).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&verdicts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = verdicts
        .items
        .iter()
        .map(|verdict| {
            let style = match verdict.verdict {
                Suitability::Here => Style::Good,
                Suitability::Fits => Style::Quiet,
                Suitability::No => Style::Careful,
            };
            vec![
                verdict.machine.short().to_owned(),
                verdict.name.clone(),
                printer.paint(style, &verdict.reason),
            ]
        })
        .collect();
    printer.table(&["MACHINE", "NAME", "VERDICT"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
