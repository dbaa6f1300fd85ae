//! Units: those that people submit by hand, and how all of them are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use sealift_client::api::{
    Change, DestroyUnits, List, MachineVerdict, PutUnit, PutUnits, ReplicasView, Suitability, UnitChange,
    UnitEvent, UnitView, WatchUnits,
};
use sealift_model::diagnostic::Severity;
use sealift_model::{
    ActiveState, DesiredState, Gate, MOST_VERSION_BYTES, OnFailure, Unit, UnitName, UpdateStage,
};
use sealift_planner::Verdict;
use sealift_store::{MAX_OPS, MAX_TXN, MAX_VALUE, Revision, Txn};
use sealift_unitfile::UnitFile;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Error, json, lines, unchanged};
use crate::cache::World;
use crate::controller;
use crate::keys::Key;
use crate::server::Inner;

/// Of one request.
const MOST_UNITS: usize = 10_000;

#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    #[serde(default = "yes")]
    text: bool,
}

fn yes() -> bool {
    true
}

pub(super) async fn list(
    State(inner): State<Arc<Inner>>,
    Query(listing): Query<Listing>,
) -> Json<List<UnitView>> {
    let world = inner.cache.world();
    let items = world.units.values().map(|unit| view(&inner, &world, &unit.value, listing.text));
    Json(List { items: items.collect() })
}

pub(super) async fn show(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<UnitName>,
) -> Result<Json<UnitView>, Error> {
    let world = inner.cache.world();
    let unit = world.units.get(&name).ok_or_else(|| no_unit(&world, &name))?;
    Ok(Json(view(&inner, &world, &unit.value, true)))
}

fn no_unit(world: &World, name: &UnitName) -> Error {
    if world.unread(&Key::Unit(name.clone())).is_some() {
        return Error::Conflict(format!(
            "the record of {name} is not understood; destroy or replace the unit"
        ));
    }
    Error::NotFound(format!("there is no unit {name}"))
}

fn view(inner: &Inner, world: &World, unit: &Unit, text: bool) -> UnitView {
    let name = &unit.name;
    let shown = if text { unit.clone() } else { unit.without_texts() };
    let statuses = world.statuses_of(name);
    let away = world.statuses_of(name).filter(|(machine, _)| !world.presence.contains_key(*machine));
    UnitView {
        unit: shown,
        placement: world.placements.get(name).map(|held| held.value.clone()),
        targets: world.targets(unit),
        statuses: statuses.map(|(machine, status)| (machine.to_string(), status.clone())).collect(),
        away: away.map(|(machine, _)| machine.clone()).collect(),
        problem: inner
            .problems
            .get(unit.app.as_ref().map(|(project, _)| project), name)
            .map(|trouble| trouble.text),
        replicas: replicas(inner, world, unit),
    }
}

/// The names of a template's instances that are wanted.
fn instances(unit: &Unit) -> impl Iterator<Item = UnitName> {
    let wanted = unit.requirements.replicas.filter(|_| unit.name.is_template());
    let wanted = wanted.filter(|_| unit.desired != DesiredState::Inactive).unwrap_or(0);
    (1..=wanted).filter_map(|number| unit.name.with_instance(&number.to_string()))
}

fn replicas(inner: &Inner, world: &World, unit: &Unit) -> Option<ReplicasView> {
    let mut view = ReplicasView { wanted: 0, ready: 0, problem: None, failed: false };
    for name in instances(unit) {
        view.wanted += 1;
        match instance_trouble(inner, world, unit, &name) {
            None => view.ready += 1,
            Some((problem, failed)) => {
                if failed || view.problem.is_none() {
                    view.problem = Some(format!("{name}: {problem}"));
                }
                view.failed |= failed;
            }
        }
    }
    (view.wanted > 0).then_some(view)
}

/// Why an instance is not as its template wants it, and whether it failed; none if it is so.
fn instance_trouble(
    inner: &Inner,
    world: &World,
    template: &Unit,
    name: &UnitName,
) -> Option<(String, bool)> {
    let waiting = |why: &str| Some((why.to_owned(), false));
    let Some(unit) = world.units.get(name).map(|held| &held.value) else {
        let trouble = inner.problems.get(None, name).map(|trouble| (trouble.text, trouble.lasts));
        return trouble.or_else(|| waiting("it is not made yet"));
    };
    if unit.text != template.text || unit.desired != template.desired {
        return waiting("it has its template's former text");
    }
    match unit.update.as_ref().map(|update| &update.stage) {
        Some(UpdateStage::Back { why }) => {
            let placed = world.placements.get(name).map(|held| &held.value.machine);
            let status = placed.and_then(|machine| world.status(machine, name));
            let previous = unit.given().map(|version| version.generation);
            return match status.filter(|held| Some(held.value.generation) == previous) {
                Some(_) => Some((format!("the change was taken back: {why}"), true)),
                None => waiting(&format!("the change is being taken back: {why}")),
            };
        }
        Some(UpdateStage::Waiting) => return waiting("it waits for its turn in the rollout"),
        Some(UpdateStage::Begun { .. }) => {
            let placed = world.placements.get(name).map(|held| &held.value.machine);
            let status = placed.and_then(|machine| world.status(machine, name)).map(|held| &held.value);
            let stops = unit.policy().is_some_and(|policy| policy.on_failure == OnFailure::Stop);
            return match status.map(|status| (&status.gate, status.generation)) {
                Some((Some(Gate::Failed { why }), generation)) if stops && generation == unit.generation => {
                    Some((format!("{why}; the rollout stops here"), true))
                }
                _ => waiting("the rollout is not over yet"),
            };
        }
        None => {}
    }
    let Some(placement) = world.placements.get(name).map(|held| &held.value) else {
        let trouble = inner.problems.get(None, name).map(|trouble| trouble.text);
        return waiting(trouble.as_deref().unwrap_or("no machine was chosen yet"));
    };
    let status = world.status(&placement.machine, name).map(|held| &held.value);
    let Some(status) = status.filter(|status| status.generation >= unit.generation) else {
        return waiting("its machine has not carried it out yet");
    };
    if let Some(error) = &status.error {
        return Some((error.clone(), true));
    }
    match (unit.desired, status.active) {
        (DesiredState::Launched, ActiveState::Active | ActiveState::Reloading) => None,
        (DesiredState::Launched, ActiveState::Failed) => {
            Some((status.result.clone().unwrap_or_else(|| "it failed".into()), true))
        }
        (DesiredState::Launched, _) => waiting(&format!("it is {}", status.sub)),
        (_, ActiveState::Inactive | ActiveState::Failed) => None,
        _ => waiting("it is being stopped"),
    }
}

pub(super) async fn explain(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<UnitName>,
) -> Result<Json<List<MachineVerdict>>, Error> {
    let world = inner.cache.world();
    if !world.units.contains_key(&name) {
        return Err(no_unit(&world, &name));
    }
    let verdicts = sealift_planner::explain(&controller::snapshot(&world, (inner.clock)()), &name);
    let items = verdicts.into_iter().map(|(machine, verdict)| MachineVerdict {
        name: world.machines.get(&machine).map_or_else(String::new, |held| held.value.name.clone()),
        machine,
        reason: verdict.to_string(),
        verdict: match verdict {
            Verdict::Here => Suitability::Here,
            Verdict::Fits => Suitability::Fits,
            Verdict::No(_) => Suitability::No,
        },
    });
    Ok(Json(List { items: items.collect() }))
}

pub(super) async fn put(
    State(inner): State<Arc<Inner>>,
    Json(wanted): Json<PutUnits>,
) -> Result<Json<List<UnitChange>>, Error> {
    check(&wanted)?;
    let mut outcomes: BTreeMap<UnitName, UnitChange> = BTreeMap::new();
    loop {
        let (txns, changes) = {
            let world = inner.cache.world();
            changes(&world, &wanted)?
        };
        for change in changes {
            // What an earlier try wrote is unchanged by now.
            let known = outcomes.entry(change.name.clone()).or_insert_with(|| change.clone());
            known.generation = change.generation;
        }
        match inner.commit_all(txns).await {
            Ok(()) => break,
            Err(error) if error.wants_another_look() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
    let items = wanted.units.iter().filter_map(|unit| outcomes.get(&unit.name).cloned());
    Ok(Json(List { items: items.collect() }))
}

/// What is wrong with the request whatever the units are now.
fn check(wanted: &PutUnits) -> Result<(), Error> {
    most(wanted.units.len())?;
    let mut seen = BTreeSet::new();
    for unit in &wanted.units {
        if !seen.insert(&unit.name) {
            return Err(Error::invalid(format!("{} is named twice", unit.name)));
        }
        if let Some(text) = &unit.text {
            read(&unit.name, text)?;
        }
        let bad = |name: &&String| !name.ends_with(".conf") || name.contains('/') || name.starts_with('.');
        if let Some(bad) = unit.drop_ins.keys().find(bad) {
            return Err(Error::invalid(format!("the drop-in {bad:?} of {} is no NAME.conf", unit.name)));
        }
    }
    Ok(())
}

fn most(count: usize) -> Result<(), Error> {
    if count > MOST_UNITS {
        return Err(Error::invalid(format!(
            "{count} units are more than the {MOST_UNITS} one request may name"
        )));
    }
    Ok(())
}

/// What the text asks for; refused if it cannot be used.
fn read(name: &UnitName, text: &str) -> Result<sealift_model::Requirements, Error> {
    let (requirements, findings) = UnitFile::parse(text).requirements(name);
    let Some(finding) = findings.iter().find(|finding| finding.severity == Severity::Error) else {
        return Ok(requirements);
    };
    let message = format!("{name}:{}:{}: {}", finding.line, finding.column, finding.message);
    Err(Error::Invalid { message, help: finding.help.clone() })
}

/// The units of the request as they would be.
pub(super) fn wanted_units(world: &World, wanted: &PutUnits) -> Result<Vec<(Unit, UnitChange)>, Error> {
    check(wanted)?;
    wanted.units.iter().map(|unit| change(world, unit, wanted.replace)).collect()
}

/// Refuses to destroy what is not there by hand, or too much.
pub(super) fn check_destroyed(world: &World, names: &[UnitName]) -> Result<(), Error> {
    most(names.len())?;
    for name in names {
        let app = world.units.get(name).and_then(|unit| unit.value.app.as_ref());
        if let Some((app, _)) = app {
            return Err(Error::Conflict(format!("{name} belongs to app {app}; it goes with a push")));
        }
    }
    Ok(())
}

/// The transactions that make all of it so, each no larger than a store takes, and what each unit is afterwards.
fn changes(world: &World, wanted: &PutUnits) -> Result<(Vec<Txn>, Vec<UnitChange>), Error> {
    let mut txns = Transactions::default();
    let mut changes = Vec::new();
    for unit in &wanted.units {
        let (next, change) = change(world, unit, wanted.replace)?;
        if change.change != Change::Unchanged {
            let key = Key::Unit(next.name.clone());
            let bytes = json(&next)?;
            if bytes.len() > MAX_VALUE {
                let size = bytes.len();
                return Err(Error::invalid(format!(
                    "{} with {size} bytes is larger than {MAX_VALUE}",
                    next.name
                )));
            }
            txns.add(world, &key, Some(bytes));
        }
        changes.push(change);
    }
    Ok((txns.done, changes))
}

fn change(world: &World, wanted: &PutUnit, replace: bool) -> Result<(Unit, UnitChange), Error> {
    let name = &wanted.name;
    let held = world.units.get(name).map(|held| &held.value);
    if let Some((app, _)) = held.and_then(|unit| unit.app.as_ref()) {
        return Err(Error::Conflict(format!(
            "{name} belongs to app {app}; it changes with a push or a rollback"
        )));
    }
    let made_by = held.and_then(|unit| unit.template.as_ref());
    if let Some(template) = made_by.filter(|_| {
        let to_another = |desired| Some(desired) != held.map(|unit| unit.desired);
        wanted.text.is_some() || wanted.desired.is_some_and(to_another)
    }) {
        return Err(made(name, template));
    }
    let (mut next, differs) = match (held, &wanted.text) {
        (Some(held), Some(text)) => {
            let same = held.text == *text && held.drop_ins == wanted.drop_ins;
            let next = if replace && !same {
                Unit { text: text.clone(), drop_ins: wanted.drop_ins.clone(), ..held.clone() }
            } else {
                held.clone()
            };
            (next, !same && !replace)
        }
        (Some(held), None) => (held.clone(), false),
        (None, Some(text)) => {
            let unit = Unit::new(name.clone(), text.clone(), DesiredState::Inactive);
            (Unit { drop_ins: wanted.drop_ins.clone(), ..unit }, false)
        }
        (None, None) => (instance(world, name)?, false),
    };
    if held.is_none_or(|held| held.text != next.text) {
        next.requirements = read(name, &next.text)?;
    }
    next.desired = wanted.desired.unwrap_or(next.desired);
    if name.is_template() && next.desired != DesiredState::Inactive && next.requirements.replicas.is_none() {
        return Err(Error::Invalid {
            message: format!("{name} is a template, which itself runs nowhere"),
            help: Some(format!(
                "start an instance of it such as {}, or give it Replicas= in its [X-Fleet] section",
                name.as_str().replacen('@', "@1", 1)
            )),
        });
    }
    if wanted.restart && name.is_template() {
        return Err(Error::Invalid {
            message: format!("{name} is a template, which itself runs nowhere"),
            help: Some(format!("restart its instances: '{}'", name.as_str().replacen('@', "@*", 1))),
        });
    }
    if wanted.restart {
        next.restarts += 1;
    }
    let change = match held {
        None => Change::Created,
        Some(held) if *held == next => Change::Unchanged,
        Some(_) => Change::Changed,
    };
    let size = |unit: &Unit| unit.text.len() + unit.drop_ins.values().map(String::len).sum::<usize>();
    if next.requirements.update.is_some() && 2 * size(&next) > MOST_VERSION_BYTES {
        return Err(Error::Invalid {
            message: format!("{name} with {} bytes is too large to be rolled out", size(&next)),
            help: Some(format!(
                "leave out Update*= of its [X-Fleet] section, or make it smaller than {} bytes",
                MOST_VERSION_BYTES / 2
            )),
        });
    }
    next.generation = match (held, change) {
        (Some(held), Change::Unchanged) => held.generation,
        (Some(held), _) => held.generation + 1,
        // Newer than whatever machines remember of a unit of this name that was destroyed.
        (None, _) => world.newest_generation() + 1,
    };
    let change = UnitChange { name: name.clone(), generation: next.generation, change, differs };
    let next = match held {
        Some(held) if change.change == Change::Changed => held.followed_by(next, controller::same_text),
        _ => next,
    };
    Ok((next, change))
}

fn made(name: &UnitName, template: &UnitName) -> Error {
    Error::Conflict(format!(
        "{name} is made by {template}, which has Replicas=; stop, change or destroy that, or change its Replicas="
    ))
}

/// A new instance with its template's text, which from then on is its own.
fn instance(world: &World, name: &UnitName) -> Result<Unit, Error> {
    let template = name.template().ok_or_else(|| no_unit(world, name))?;
    let template = world.units.get(&template).ok_or_else(|| {
        Error::NotFound(format!("there is neither a unit {name} nor its template {template}"))
    })?;
    let unit = Unit::new(name.clone(), template.value.text.clone(), DesiredState::Inactive);
    Ok(Unit { drop_ins: template.value.drop_ins.clone(), ..unit })
}

/// Changes gathered into as few transactions as a store takes.
#[derive(Debug, Default)]
struct Transactions {
    done: Vec<Txn>,
}

impl Transactions {
    /// Puts or deletes what is at `key`, if it is as `world` shows it.
    fn add(&mut self, world: &World, key: &Key, value: Option<Vec<u8>>) {
        let size = value.as_ref().map_or(0, Vec::len) + 2 * key.to_string().len();
        let room = |txn: &Txn| txn.ops().len() < MAX_OPS && txn.size() + size <= MAX_TXN;
        let txn = match self.done.pop() {
            Some(txn) if room(&txn) => txn,
            Some(full) => {
                self.done.push(full);
                Txn::new()
            }
            None => Txn::new(),
        };
        let txn = unchanged(txn, world, key);
        self.done.push(match value {
            Some(bytes) => txn.put(key.clone(), bytes),
            None => txn.delete(key.clone()),
        });
    }
}

pub(super) async fn destroy(
    State(inner): State<Arc<Inner>>,
    Json(wanted): Json<DestroyUnits>,
) -> Result<Json<List<UnitName>>, Error> {
    let mut destroyed = BTreeSet::new();
    loop {
        let txns = {
            let world = inner.cache.world();
            check_destroyed(&world, &wanted.names)?;
            let mut txns = Transactions::default();
            for name in wanted.names.iter().collect::<BTreeSet<_>>() {
                let key = Key::Unit(name.clone());
                let template = world.units.get(name).and_then(|unit| unit.value.template.as_ref());
                // Without its template it goes by itself.
                if let Some(template) = template.filter(|template| !wanted.names.contains(template)) {
                    return Err(made(name, template));
                }
                if world.modified(&key).is_some() {
                    txns.add(&world, &key, None);
                    destroyed.insert(name.clone());
                }
            }
            txns.done
        };
        match inner.commit_all(txns).await {
            Ok(()) => break,
            Err(error) if error.wants_another_look() => inner.look_again().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(List { items: destroyed.into_iter().collect() }))
}

impl Inner {
    /// Commits one after the other; what was written before one that fails stays.
    async fn commit_all(&self, txns: Vec<Txn>) -> Result<(), sealift_store::Error> {
        let mut last = None;
        for txn in txns {
            last = Some(self.store.commit(txn).await?);
        }
        if let Some(revision) = last {
            self.cache.reached(revision).await;
        }
        Ok(())
    }
}

pub(super) async fn watch(
    State(inner): State<Arc<Inner>>,
    Json(wanted): Json<WatchUnits>,
) -> Result<Response, Error> {
    most(wanted.names.len())?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let stop = inner.shutdown.clone();
        stop.run_until_cancelled(tell(&inner, wanted.names, sender)).await;
    });
    Ok(lines(super::received(receiver)))
}

/// What a unit's view is made of, so that one that has not changed need not be made.
#[derive(Debug, PartialEq)]
struct Seen {
    records: Vec<Revision>,
    /// Of the machines that say something of it, those in contact.
    present: usize,
    targets: usize,
    problem: Option<String>,
}

async fn tell(inner: &Inner, names: Vec<UnitName>, sender: mpsc::Sender<UnitEvent>) {
    let mut changes = inner.cache.changes();
    let mut problems = inner.problems.changes();
    let mut told: BTreeMap<&UnitName, Seen> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        problems.mark_unchanged();
        let mut news = Vec::new();
        {
            let world = inner.cache.world();
            for name in &names {
                let seen = seen(inner, &world, name);
                if told.get(name) != Some(&seen) {
                    news.push(event(inner, &world, name));
                    told.insert(name, seen);
                }
            }
        }
        for event in news {
            if sender.send(event).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = problems.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

fn seen(inner: &Inner, world: &World, name: &UnitName) -> Seen {
    let unit = world.units.get(name);
    let placement = world.placements.get(name).map(|held| held.modified);
    let statuses = world.statuses_of(name).filter_map(|(machine, _)| world.status(machine, name));
    let records = unit.map(|held| held.modified).into_iter().chain(placement);
    let app = unit.and_then(|held| held.value.app.as_ref()).map(|(project, _)| project);
    let of_instances = unit.into_iter().flat_map(|held| instances(&held.value)).flat_map(|name| {
        let unit = world.units.get(&name).map(|held| held.modified);
        let placement = world.placements.get(&name).map(|held| held.modified);
        let statuses = world.statuses_of(&name).filter_map(|(machine, _)| world.status(machine, &name));
        let statuses: Vec<_> = statuses.map(|held| held.modified).collect();
        unit.into_iter().chain(placement).chain(statuses)
    });
    Seen {
        records: records.chain(statuses.map(|held| held.modified)).chain(of_instances).collect(),
        present: world.statuses_of(name).filter(|(machine, _)| world.presence.contains_key(*machine)).count(),
        targets: unit
            .filter(|held| held.value.requirements.global)
            .map_or(0, |held| world.targets(&held.value).len()),
        problem: inner.problems.get(app, name).map(|trouble| trouble.text),
    }
}

fn event(inner: &Inner, world: &World, name: &UnitName) -> UnitEvent {
    let unit = world.units.get(name);
    let leaving = world.statuses_of(name).map(|(machine, _)| machine);
    let leaving = leaving.filter(|machine| world.presence.contains_key(*machine)).cloned();
    UnitEvent {
        name: name.clone(),
        view: unit.map(|held| view(inner, world, &held.value, false)),
        leaving: if unit.is_some() { Vec::new() } else { leaving.collect() },
    }
}
