//! `sealift machine`: which machines there are, and what operators set of them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use sealift_client::Client;
use sealift_client::api::{ChangeSettings, List, MachineStatus};
use sealift_model::{Availability, MachineId, MachineSettings, Maintenance, Timestamp};

use super::access;
use crate::cli::{DrainArgs, Global, MachineCommand, MetadataArgs, MetadataChange};
use crate::clock::now;
use crate::error::Error;
use crate::print::{Printer, Style};

/// Between two looks at a machine that is being drained.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn machine(command: MachineCommand, global: &Global) -> Result<ExitCode, Error> {
    match command {
        MachineCommand::List => list(global).await,
        MachineCommand::Drain(args) => drain(&args, global).await,
        MachineCommand::Cordon(args) => set(&args.machine, Availability::Cordoned, global).await,
        MachineCommand::Uncordon(args) => set(&args.machine, Availability::Active, global).await,
        MachineCommand::Metadata(args) => metadata(args, global).await,
        MachineCommand::Rebalance(args) => super::rebalance::rebalance(&args, global).await,
        MachineCommand::Ssh(args) => super::ssh::machine(args, global).await,
        MachineCommand::JoinToken(args) => access::join_token(args, global).await,
        MachineCommand::Remove(args) => remove(&args.machine, global).await,
    }
}

pub(super) async fn list(global: &Global) -> Result<ExitCode, Error> {
    let machines: List<MachineStatus> = super::client(global)?.get("/v1/machines").await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&machines)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = machines.items.iter().map(|status| row(&printer, status)).collect();
    printer.table(&["MACHINE", "NAME", "ADDRESS", "METADATA", "SYSTEMD", "UNITS", "RUNS", "STATE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(printer: &Printer, status: &MachineStatus) -> Vec<String> {
    let machine = &status.machine;
    let (style, word) = match (&status.presence, status.settings.availability_at(now())) {
        (None, _) => (Style::Bad, "away"),
        (Some(_), Availability::Active) => (Style::Good, "present"),
        (Some(_), Availability::Cordoned) => (Style::Careful, "cordoned"),
        (Some(_), Availability::Drained) => (Style::Careful, "drained"),
    };
    let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
    vec![
        machine.id.short().to_owned(),
        machine.name.clone(),
        or_dash(machine.address.clone().unwrap_or_default()),
        or_dash(pairs(&status.metadata())),
        machine.systemd.clone(),
        status.units.to_string(),
        format!("{}/{}", status.runs, machine.run_slots),
        printer.paint(style, word),
    ]
}

fn pairs(metadata: &BTreeMap<String, String>) -> String {
    metadata.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The one machine that is meant by an id, the beginning of one, or a name.
pub(super) async fn find(client: &Client, word: &str) -> Result<MachineStatus, Error> {
    let machines: List<MachineStatus> = client.get("/v1/machines").await?;
    let known =
        machines.items.iter().map(|status| status.machine.name.clone()).collect::<Vec<_>>().join(", ");
    let is_meant = |status: &MachineStatus| {
        status.machine.name == word || word.len() >= 4 && status.machine.id.as_str().starts_with(word)
    };
    let mut meant: Vec<_> = machines.items.into_iter().filter(is_meant).collect();
    match (meant.pop(), meant.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(Error::with_help(
            format!("{word} is more than one machine"),
            "name it by its id: sealift machine list",
        )),
        (None, _) => {
            Err(Error::with_help(format!("there is no machine {word}"), format!("there are: {known}")))
        }
    }
}

async fn change(
    client: &Client,
    of: &MachineStatus,
    change: &ChangeSettings,
) -> Result<MachineSettings, Error> {
    Ok(client.post(&format!("/v1/machines/{}/settings", of.machine.id), change).await?)
}

async fn set(word: &str, availability: Availability, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let machine = find(&client, word).await?;
    let settings = change(&client, &machine, &availability_of(&machine, availability)).await?;
    let word = match availability {
        Availability::Active => "takes units",
        Availability::Cordoned => "takes no new units",
        Availability::Drained => "is drained",
    };
    told(global, &machine, &settings, word)
}

/// What makes a machine cordoned, drained, or take units again.
pub(super) fn availability_of(machine: &MachineStatus, availability: Availability) -> ChangeSettings {
    // Whoever says that a machine is to take units again means it of what is planned as well, if it is under way.
    let maintenance = (availability == Availability::Active).then(|| {
        let planned = machine.settings.maintenance.iter().filter(|span| now() < span.from);
        planned.copied().collect()
    });
    ChangeSettings { availability: Some(availability), maintenance, ..ChangeSettings::default() }
}

fn told(
    global: &Global,
    machine: &MachineStatus,
    settings: &MachineSettings,
    word: &str,
) -> Result<ExitCode, Error> {
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&serde_json::json!({ "machine": machine.machine.id, "settings": settings }))?;
    } else {
        printer.line(&format!("{} {word}", machine.machine.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn drain(args: &DrainArgs, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let machine = find(&client, &args.machine).await?;
    let Some(span) = args.span else {
        let settings =
            ChangeSettings { availability: Some(Availability::Drained), ..ChangeSettings::default() };
        let settings = change(&client, &machine, &settings).await?;
        if args.no_block {
            return told(global, &machine, &settings, "is being drained");
        }
        while find(&client, machine.machine.id.as_str()).await?.units > 0 {
            tokio::time::sleep(LOOK).await;
        }
        return told(global, &machine, &settings, "is drained");
    };
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let from = Timestamp(now().0.saturating_add(args.delay.map_or(0, millis)));
    let planned = Maintenance { from, until: Timestamp(from.0.saturating_add(millis(span))) };
    let mut maintenance = machine.settings.maintenance.clone();
    maintenance.push(planned);
    let settings = ChangeSettings { maintenance: Some(maintenance), ..ChangeSettings::default() };
    let settings = change(&client, &machine, &settings).await?;
    told(global, &machine, &settings, &format!("is drained from {} until {}", planned.from, planned.until))
}

async fn remove(word: &str, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    // One that joined and never began a session has an id and no name.
    let id = match word.parse::<MachineId>() {
        Ok(id) => id,
        Err(_) => find(&client, word).await?.machine.id,
    };
    client.delete(&format!("/v1/machines/{id}")).await?;
    access::removed(id.as_str(), &format!("machine {} is out", id.short()), global)
}

/// What changes metadata in these ways.
pub(super) fn metadata_of(changes: Vec<MetadataChange>) -> ChangeSettings {
    let (mut set, mut unset) = (BTreeMap::new(), BTreeSet::new());
    for change in changes {
        match change {
            MetadataChange::Set(key, value) => drop(set.insert(key, Some(value))),
            MetadataChange::Remove(key) => drop(set.insert(key, None)),
            MetadataChange::Leave(key) => drop(unset.insert(key)),
        }
    }
    ChangeSettings { metadata: set, unset, ..ChangeSettings::default() }
}

async fn metadata(args: MetadataArgs, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let mut machine = find(&client, &args.machine).await?;
    if !args.changes.is_empty() {
        machine.settings = change(&client, &machine, &metadata_of(args.changes)).await?;
    }
    let metadata = machine.metadata();
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&serde_json::json!({ "machine": machine.machine.id, "metadata": metadata }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = metadata
        .iter()
        .map(|(key, value)| {
            let set = machine.settings.metadata.contains_key(key);
            vec![key.clone(), value.clone(), if set { "set here" } else { "the machine's" }.to_owned()]
        })
        .collect();
    printer.table(&["KEY", "VALUE", "SOURCE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
