//! `sealift unit`: units that belong to no app, and how all units are.

mod journal;
mod list;
mod unmet;
mod verify;
pub(super) mod wait;
pub(super) mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use sealift_client::Client;
use sealift_client::api::{DestroyUnits, List, MachineStatus, PutUnit, PutUnits, UnitChange};
use sealift_model::{DesiredState, MachineId, UnitName};

use crate::cli::{Global, UnitCommand, UnitFiles, UnitNames, Wait};
use crate::error::{Error, FAILED};
use crate::print::{Printer, Style, many};
use wait::{Goal, Outcome, Waited};
use words::Named;

pub(super) use list::list;

pub(super) async fn unit(command: UnitCommand, global: &Global) -> Result<ExitCode, Error> {
    match command {
        UnitCommand::Submit(args) => put(args, Goal::Inactive, global).await,
        UnitCommand::Load(args) => put(args, Goal::Loaded, global).await,
        UnitCommand::Start(args) => put(args, Goal::Launched, global).await,
        UnitCommand::Stop(args) => change(args, Change::To(Goal::Loaded), global).await,
        UnitCommand::Unload(args) => change(args, Change::To(Goal::Inactive), global).await,
        UnitCommand::Restart(args) => change(args, Change::Restart, global).await,
        UnitCommand::Destroy(args) => destroy(args, global).await,
        UnitCommand::List(args) => list(&args.units, global).await,
        UnitCommand::Files(args) => list::files(&args.units, global).await,
        UnitCommand::Cat(args) => list::cat(&args.unit, global).await,
        UnitCommand::Status(args) => list::status(&args.units, global).await,
        UnitCommand::Journal(args) => journal::journal(&args, global).await,
        UnitCommand::Ssh(args) => super::ssh::unit(args, global).await,
        UnitCommand::Verify(args) => verify::verify(&args, global).await,
        UnitCommand::Explain(args) => list::explain(&args.unit, global).await,
    }
}

fn desired(goal: Goal) -> DesiredState {
    match goal {
        Goal::Launched => DesiredState::Launched,
        Goal::Loaded => DesiredState::Loaded,
        Goal::Inactive | Goal::Destroyed => DesiredState::Inactive,
    }
}

/// Submits what is not known and wants it to come to the goal, but takes nothing back: a running unit that is submitted
/// or loaded again runs on.
async fn put(args: UnitFiles, goal: Goal, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    // Submitting wants nothing of a unit that is there.
    let units = units(&args.units, (goal != Goal::Inactive).then(|| desired(goal)), &client).await?;
    let request = PutUnits { units, replace: args.replace };
    let changes: List<UnitChange> = client.post("/v1/units", &request).await?;
    let printer = Printer::new(global.output);
    for change in changes.items.iter().filter(|change| change.differs) {
        warn_of_other_text(&change.name);
    }
    if goal == Goal::Inactive {
        for change in &changes.items {
            say(&printer, &change.name, "submitted", Style::Good, &[], None)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    finish(&client, &printer, &changes.items, goal, args.wait).await
}

/// What these words ask for: files that lie here, or units that are known. Says what is odd about files.
pub(super) async fn units(
    words: &[String],
    desired: Option<DesiredState>,
    client: &Client,
) -> Result<Vec<PutUnit>, Error> {
    let named = if words.iter().any(|word| word.contains(['*', '?'])) {
        let names = words::names(words, client).await?;
        names.into_iter().map(|name| Named { name, file: None }).collect()
    } else {
        words::files(words)?
    };
    // Instances of one file have the same to be said of them.
    let mut odd = BTreeSet::new();
    for named in &named {
        odd.extend(words::check(named)?);
    }
    odd.iter().for_each(|text| remark(text));
    let units = named.iter().map(|named| {
        let file = named.file.as_ref();
        PutUnit {
            text: file.map(|file| file.text.clone()),
            drop_ins: file.map(|file| file.drop_ins.clone()).unwrap_or_default(),
            desired,
            ..PutUnit::named(named.name.clone())
        }
    });
    Ok(units.collect())
}

pub(super) fn warn_of_other_text(unit: &UnitName) {
    warn(&format!("{unit} is known with another text, which it keeps; --replace gives it this one"));
}

/// What is asked of units that are known.
#[derive(Debug, Clone, Copy)]
enum Change {
    To(Goal),
    Restart,
}

async fn change(args: UnitNames, change: Change, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let names = words::names(&args.units, &client).await?;
    let (goal, restart) = match change {
        Change::To(goal) => (goal, false),
        Change::Restart => (Goal::Launched, true),
    };
    let units = names
        .into_iter()
        .map(|name| PutUnit { desired: Some(desired(goal)), restart, ..PutUnit::named(name) })
        .collect();
    let request = PutUnits { units, replace: false };
    let changes: List<UnitChange> = client.post("/v1/units", &request).await?;
    finish(&client, &Printer::new(global.output), &changes.items, goal, args.wait).await
}

async fn destroy(args: UnitNames, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let names = words::names(&args.units, &client).await?;
    let destroyed: List<UnitName> =
        client.post("/v1/units/destroy", &DestroyUnits { names: names.clone() }).await?;
    for name in names.iter().filter(|name| !destroyed.items.contains(name)) {
        warn(&format!("there is no unit {name}"));
    }
    // Of what was destroyed before, some machine may still have a copy.
    let waited = names.into_iter().map(|name| (name, 0)).collect();
    finish_waited(&client, &Printer::new(global.output), &waited, Goal::Destroyed, args.wait).await
}

async fn finish(
    client: &Client,
    printer: &Printer,
    changes: &[UnitChange],
    goal: Goal,
    wait: Wait,
) -> Result<ExitCode, Error> {
    let waited = changes.iter().map(|change| (change.name.clone(), change.generation)).collect();
    finish_waited(client, printer, &waited, goal, wait).await
}

async fn finish_waited(
    client: &Client,
    printer: &Printer,
    waited: &Waited,
    goal: Goal,
    wait: Wait,
) -> Result<ExitCode, Error> {
    let word = match goal {
        Goal::Launched => "active",
        Goal::Loaded => "loaded",
        Goal::Inactive => "inactive",
        Goal::Destroyed => "destroyed",
    };
    if wait.no_block {
        for name in waited.keys() {
            say(printer, name, &format!("to be {word}"), Style::Quiet, &[], None)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let machines = machine_names(client).await?;
    let names = |ids: &[MachineId]| -> Vec<String> {
        ids.iter().map(|id| machines.get(id).cloned().unwrap_or_else(|| id.short().to_owned())).collect()
    };
    let progress = Progress::new(printer, waited.len());
    let failed = wait::wait(client, waited, goal, wait.timeout, |name, outcome, left| {
        progress.clear();
        match outcome {
            Outcome::Done(on) => say(printer, name, word, Style::Good, &names(on), None)?,
            Outcome::Failed(why) => say(printer, name, "failed", Style::Bad, &[], Some(why))?,
            Outcome::TimedOut(why) => say(printer, name, "not in time", Style::Bad, &[], Some(why))?,
        }
        progress.show(left);
        Ok(())
    })
    .await?;
    Ok(ended(printer, failed, waited.len(), word))
}

/// The exit code of a command that waited for units, and what is said at its end.
pub(super) fn ended(printer: &Printer, failed: usize, all: usize, word: &str) -> ExitCode {
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    if !printer.is_json() {
        let all = many(all as u64, "unit");
        warn(&format!(
            "{failed} of {all} did not come to be {word}; sealift unit status and unit explain tell more"
        ));
    }
    ExitCode::from(FAILED)
}

/// Machines' names by their ids.
pub(super) async fn machine_names(client: &Client) -> Result<BTreeMap<MachineId, String>, Error> {
    let machines: List<MachineStatus> = client.get("/v1/machines").await?;
    Ok(machines.items.into_iter().map(|status| (status.machine.id, status.machine.name)).collect())
}

/// One line on one unit.
pub(super) fn say(
    printer: &Printer,
    name: &UnitName,
    state: &str,
    style: Style,
    machines: &[String],
    why: Option<&str>,
) -> Result<(), Error> {
    if printer.is_json() {
        return printer.json(&serde_json::json!({
            "unit": name, "state": state, "machines": machines, "reason": why,
        }));
    }
    let on = match machines {
        [] => String::new(),
        [one] => format!(" on {one}"),
        [first, rest @ ..] => format!(" on {first} and {}", many(rest.len() as u64, "other machine")),
    };
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    printer.line(&format!("{name} {}{on}{why}", printer.paint(style, state)))
}

#[expect(clippy::print_stderr, reason = "a remark is neither a result nor a reason to end")]
fn remark(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stderr, reason = "a warning is neither a result nor a reason to end")]
fn warn(text: &str) {
    eprintln!("warning: {text}");
}

/// How many are still waited for, on a terminal.
pub(super) struct Progress {
    shown: bool,
    all: usize,
}

impl Progress {
    pub(super) fn new(printer: &Printer, all: usize) -> Progress {
        let progress = Progress { shown: !printer.is_json() && crate::print::is_terminal(), all };
        progress.show(all);
        progress
    }

    #[expect(clippy::print_stderr, reason = "not a part of the result")]
    pub(super) fn show(&self, left: usize) {
        if self.shown && left > 0 {
            eprint!("\r\x1b[K{} of {} done", self.all - left, many(self.all as u64, "unit"));
        }
    }

    #[expect(clippy::print_stderr, reason = "not a part of the result")]
    pub(super) fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
