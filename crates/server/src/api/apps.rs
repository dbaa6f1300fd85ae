//! Apps: which release runs, how far the machines are with it, and going back.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use sealift_client::api::{AppStatus, AppUnit, List, Rollback};
use sealift_model::{ActiveState, App, AppPhase, MachineId, ProjectName, UnitKind, UnitName, UpdateStage};
use sealift_store::Txn;
use tokio::sync::mpsc;

use super::{Error, json, lines, unchanged};
use crate::cache::World;
use crate::controller::Trouble;
use crate::keys::Key;
use crate::server::Inner;

pub(super) async fn list(State(inner): State<Arc<Inner>>) -> Json<List<AppStatus>> {
    let world = inner.cache.world();
    let items = world.apps.values().map(|app| view(&inner, &world, &app.value));
    Json(List { items: items.collect() })
}

pub(super) async fn show(
    State(inner): State<Arc<Inner>>,
    Path(project): Path<ProjectName>,
) -> Result<Json<AppStatus>, Error> {
    Ok(Json(current(&inner, &project)?))
}

fn current(inner: &Inner, project: &ProjectName) -> Result<AppStatus, Error> {
    let world = inner.cache.world();
    let app = world.apps.get(project).ok_or_else(|| no_app(&world, project))?;
    Ok(view(inner, &world, &app.value))
}

fn no_app(world: &World, project: &ProjectName) -> Error {
    let known: Vec<_> = world.apps.keys().map(ProjectName::as_str).collect();
    let known = if known.is_empty() {
        "there is none yet".into()
    } else {
        format!("there are: {}", known.join(", "))
    };
    Error::NotFound(format!("no app {project}; {known}"))
}

/// Every change of the app, beginning with how it is now.
pub(super) async fn watch(
    State(inner): State<Arc<Inner>>,
    Path(project): Path<ProjectName>,
) -> Result<Response, Error> {
    let mut problems = inner.problems.changes();
    let mut last = current(&inner, &project)?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let stop = inner.shutdown.clone();
        let mut changes = inner.cache.changes();
        let tell = async {
            loop {
                if sender.send(last.clone()).await.is_err() {
                    return;
                }
                last = loop {
                    tokio::select! {
                        changed = changes.changed() => if changed.is_err() { return },
                        changed = problems.changed() => if changed.is_err() { return },
                        () = sender.closed() => return,
                    }
                    match current(&inner, &project) {
                        Ok(now) if now != last => break now,
                        Ok(_) => {}
                        Err(_) => return,
                    }
                };
            }
        };
        tokio::select! { () = stop.cancelled() => {}, () = tell => {} }
    });
    Ok(lines(super::received(receiver)))
}

pub(super) async fn rollback(
    State(inner): State<Arc<Inner>>,
    Path(project): Path<ProjectName>,
    Json(wanted): Json<Rollback>,
) -> Result<Json<AppStatus>, Error> {
    let txn = {
        let world = inner.cache.world();
        let app = &world.apps.get(&project).ok_or_else(|| no_app(&world, &project))?.value;
        let releases = || world.releases.keys().filter(|(of, _)| *of == project).map(|(_, number)| *number);
        let to = match wanted.to {
            Some(number) if releases().any(|known| known == number) => number,
            Some(number) => {
                let known: Vec<_> = releases().map(|number| number.to_string()).collect();
                return Err(Error::NotFound(format!(
                    "{project} has no release {number}; it has {}",
                    known.join(", ")
                )));
            }
            None => releases().filter(|number| *number < app.current).max().ok_or_else(|| {
                Error::Conflict(format!(
                    "{project} runs its first release, {}; there is none before it",
                    app.current
                ))
            })?,
        };
        if to == app.current {
            return Err(Error::Conflict(format!("{project} already runs release {to}")));
        }
        let next =
            App { current: to, generation: app.generation + 1, changed_at: (inner.clock)(), ..app.clone() };
        let key = Key::App(project.clone());
        unchanged(Txn::new(), &world, &key).put(key, json(&next)?)
    };
    inner.commit(txn).await?;
    Ok(Json(current(&inner, &project)?))
}

/// How far the machines are with an app.
pub(super) fn view(inner: &Inner, world: &World, app: &App) -> AppStatus {
    let release = world.releases.get(&(app.project.clone(), app.current)).map(|held| held.value.clone());
    let names = release.iter().flat_map(|release| release.units.keys()).filter(|name| !name.is_template());
    let units: Vec<_> = names.map(|name| unit_view(inner, world, app, name)).collect();
    let phase = if units.is_empty() {
        AppPhase::Empty
    } else if units.iter().any(|unit| unit.lasting || unit.current && is_failed(unit)) {
        AppPhase::Failed
    } else if units.iter().all(|unit| unit.current && is_up(unit)) {
        AppPhase::Running
    } else {
        AppPhase::Rolling
    };
    AppStatus { app: app.clone(), phase, release, units }
}

fn unit_view(inner: &Inner, world: &World, app: &App, name: &UnitName) -> AppUnit {
    let unit = world.units.get(name).map(|held| &held.value);
    let on = |machine: Option<&MachineId>| {
        let machine = machine.and_then(|machine| world.machines.get(machine));
        let status =
            machine.and_then(|machine| world.status(&machine.value.id, name)).map(|held| held.value.clone());
        // What a machine that is away said last may not be so any more.
        let away = machine.filter(|machine| !world.presence.contains_key(&machine.value.id));
        let away = away.map(|machine| format!("its machine {} is away", machine.value.id.short()));
        // Current when the unit's record is of this release and the machine has carried out that generation of it.
        let current = away.is_none()
            && unit.is_some_and(|unit| {
                unit.update.is_none()
                    && unit.app.as_ref() == Some(&(app.project.clone(), app.current))
                    && status.as_ref().is_some_and(|status| status.generation == unit.generation)
            });
        let back = unit.and_then(|unit| match &unit.update.as_ref()?.stage {
            UpdateStage::Back { why } => Some(format!("the release was taken back: {why}")),
            _ => None,
        });
        let back = back.map(|text| Trouble { text, lasts: true });
        let trouble = back.or_else(|| inner.problems.get(Some(&app.project), name));
        AppUnit {
            unit: name.clone(),
            machine: machine.map(|held| held.value.name.clone()),
            current,
            status,
            lasting: trouble.as_ref().is_some_and(|trouble| trouble.lasts),
            problem: trouble.map(|trouble| trouble.text).or(away),
        }
    };
    match unit.filter(|unit| unit.requirements.global) {
        None => on(world.placements.get(name).map(|placement| &placement.value.machine)),
        // It is on several machines: told is the one that is the least far.
        Some(unit) => {
            let machines = world.targets(unit);
            let views = machines.iter().map(|machine| on(Some(machine)));
            views.min_by_key(how_far).unwrap_or_else(|| {
                let problem = Some("on no machine: none that is there suits it".into());
                AppUnit { problem, ..on(None) }
            })
        }
    }
}

fn how_far(unit: &AppUnit) -> u8 {
    match unit {
        unit if unit.current && is_failed(unit) => 0,
        unit if unit.current && is_up(unit) => 2,
        _ => 1,
    }
}

fn is_failed(unit: &AppUnit) -> bool {
    unit.status.as_ref().is_some_and(|status| status.active == ActiveState::Failed || status.error.is_some())
}

fn is_up(unit: &AppUnit) -> bool {
    unit.status.as_ref().is_some_and(|status| {
        // A one-shot service is inactive when it has done its work well.
        let done = unit.unit.kind() == UnitKind::Service
            && status.active == ActiveState::Inactive
            && status.result.as_deref() == Some("success");
        status.active == ActiveState::Active || done
    })
}
