//! Which units there are to be: those of each app's current release, and no others of that app.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{DesiredState, Release, Unit, UnitName};

use crate::{AppView, Problem, Snapshot};

/// Changes of units, as yet without what they mean for placements.
#[derive(Debug, Default)]
pub(crate) struct UnitChanges<'a> {
    pub(crate) removals: BTreeSet<&'a UnitName>,
    pub(crate) puts: BTreeMap<&'a UnitName, Unit>,
}

pub(crate) fn decide<'a>(snapshot: &'a Snapshot, problems: &mut Vec<Problem>) -> UnitChanges<'a> {
    let mut changes = UnitChanges::default();
    // Removals first: a name that one app gives up can go to another at once.
    for (name, unit) in &snapshot.units {
        let Some((project, _)) = &unit.app else { continue };
        let release = snapshot.apps.get(project).and_then(current);
        if release.is_some_and(|release| !release.units.contains_key(name)) {
            changes.removals.insert(name);
        }
    }
    for (project, view) in &snapshot.apps {
        let Some(release) = current(view) else { continue };
        for (name, text) in &release.units {
            let old = snapshot.units.get(name).filter(|_| !changes.removals.contains(name));
            let holder = changes.puts.get(name).or(old).map(|unit| &unit.app);
            let owner = holder.map(|app| app.as_ref().map(|(project, _)| project));
            if let Some(owner) = owner.filter(|owner| *owner != Some(project)) {
                let owner = owner.cloned();
                problems.push(Problem::NameTaken { project: project.clone(), unit: name.clone(), owner });
                continue;
            }
            let Some(requirements) = view.requirements.get(name) else {
                problems.push(Problem::Unreadable { project: project.clone(), unit: name.clone() });
                continue;
            };
            let app = Some((project.clone(), release.number));
            let is_current =
                |old: &Unit| old.text == *text && old.app == app && old.requirements == *requirements;
            if old.is_some_and(is_current) {
                continue;
            }
            let unit = Unit {
                requirements: requirements.clone(),
                // Of a unit that another app gives up, too: machines remember it by its name.
                generation: generation(snapshot.units.get(name), view),
                app,
                extra: old.map(|old| old.extra.clone()).unwrap_or_default(),
                ..Unit::new(name.clone(), text.as_str(), desired(name))
            };
            changes.puts.insert(name, unit);
        }
    }
    changes
}

/// The release that is to run, if it is known. One of another number is left over from a change that is under way.
fn current(view: &AppView) -> Option<&Release> {
    view.release.as_ref().filter(|release| release.number == view.app.current)
}

fn desired(name: &UnitName) -> DesiredState {
    if name.is_template() { DesiredState::Inactive } else { DesiredState::Launched }
}

/// One more than the unit had; never below the app's generation, so that a unit that was removed and comes back is
/// newer than what machines remember of it.
fn generation(old: Option<&Unit>, view: &AppView) -> u64 {
    old.map_or(1, |old| old.generation + 1).max(view.app.generation)
}
