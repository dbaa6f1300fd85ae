//! `sealift machine rebalance`: units go from machines that have more to do than others to those.

use std::collections::BTreeMap;
use std::process::ExitCode;

use sealift_client::api::{List, Move, PlanRequest, Rebalance, UnitEvent};
use sealift_model::{DesiredState, MachineId, UnitName};

use super::unit::wait::{self, Goal, Outcome, Progress};
use super::unit::{self, say};
use crate::cli::{Global, RebalanceArgs};
use crate::error::Error;
use crate::print::{Printer, Style};

pub(super) async fn rebalance(args: &RebalanceArgs, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let wanted = Rebalance { most: args.max };
    if args.dry_run {
        return super::plan::show(&client, &PlanRequest::Rebalance(wanted), global).await;
    }
    let begun: List<Move> = client.post("/v1/rebalance", &wanted).await?;
    let printer = Printer::new(global.output);
    if begun.items.is_empty() && !printer.is_json() {
        printer.line("nothing can be evened out")?;
    }
    let machines = unit::machine_names(&client).await?;
    let name = |id: &MachineId| machines.get(id).cloned().unwrap_or_else(|| id.short().to_owned());
    if args.wait.no_block {
        for moved in &begun.items {
            let to = [name(&moved.to)];
            say(&printer, &moved.unit, "is to come to be", Style::Quiet, &to, None)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let moves: BTreeMap<&UnitName, &Move> = begun.items.iter().map(|moved| (&moved.unit, moved)).collect();
    let judge = |event: &UnitEvent| match moves.get(&event.name) {
        Some(moved) => progress(moved, event),
        None => Progress::Done(Vec::new()),
    };
    let shown = unit::Progress::new(&printer, moves.len());
    let failed =
        wait::follow(&client, moves.keys().copied(), args.wait.timeout, judge, |unit, outcome, left| {
            shown.clear();
            match outcome {
                Outcome::Done(on) => {
                    let went = moves.get(unit).is_none_or(|moved| !on.contains(&moved.from));
                    let (style, word) =
                        if went { (Style::Good, "moved") } else { (Style::Careful, "went back") };
                    let on: Vec<String> = on.iter().map(name).collect();
                    say(&printer, unit, word, style, &on, None)?;
                }
                Outcome::Failed(why) => say(&printer, unit, "failed", Style::Bad, &[], Some(why))?,
                Outcome::TimedOut(why) => say(&printer, unit, "not in time", Style::Bad, &[], Some(why))?,
            }
            shown.show(left);
            Ok(())
        })
        .await?;
    Ok(unit::ended(&printer, failed, moves.len(), "moved"))
}

/// How far a unit is that was taken from its machine. It is waited for as long as it has to be stopped: nothing else can
/// keep it from a machine, since it can go back.
fn progress(moved: &Move, event: &UnitEvent) -> Progress {
    let Some(view) = &event.view else { return Progress::Failed("somebody destroyed it".into()) };
    let goal = match view.unit.desired {
        DesiredState::Launched => Goal::Launched,
        DesiredState::Loaded => Goal::Loaded,
        DesiredState::Inactive => return Progress::Failed("somebody unloaded it".into()),
    };
    match view.placement.as_ref().filter(|placement| placement.id > moved.placement) {
        None => Progress::Waiting(format!("machine {} has not confirmed its stop", moved.from.short())),
        Some(placement) => match wait::on_machine(view, &placement.machine, view.unit.generation, goal) {
            Progress::Done(_) => Progress::Done(vec![placement.machine.clone()]),
            other => other,
        },
    }
}
