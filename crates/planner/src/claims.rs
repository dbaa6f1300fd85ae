//! Which units there are to be: those of each app's current release, the instances that templates ask for with
//! `Replicas=`, what people submitted by hand, and no others of an app or a template.

use std::sync::Arc;

use sealift_model::{DesiredState, ProjectName, Requirements, Timestamp, Unit, UnitName};

use crate::planner::Planner;
use crate::{Action, AppView, Problem, Reason};

/// So many instances of a template at most, whatever it asks for.
pub const MAX_REPLICAS: u32 = 10_000;

/// Who has a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Hand,
    App(ProjectName),
    Template(UnitName),
}

impl Owner {
    fn of(unit: &Unit) -> Owner {
        match (&unit.template, &unit.app) {
            (Some(template), _) => Owner::Template(template.clone()),
            (None, Some((project, _))) => Owner::App(project.clone()),
            (None, None) => Owner::Hand,
        }
    }
}

/// What is to become of the unit of a name.
enum Fate {
    Stays,
    Changes(Box<Unit>),
    Goes,
}

impl Planner {
    pub(crate) fn set_app(&mut self, project: &ProjectName, view: Option<Arc<AppView>>) -> bool {
        if self.apps.get(project) == view.as_ref() {
            return false;
        }
        let old = match &view {
            Some(view) => self.apps.insert(project.clone(), view.clone()),
            None => self.apps.remove(project),
        };
        for name in old.iter().flat_map(|view| names(view)) {
            if let Some(projects) = self.claims.get_mut(name) {
                projects.remove(project);
                if projects.is_empty() {
                    self.claims.remove(name);
                }
            }
            self.names.insert(name.clone());
        }
        for name in view.iter().flat_map(|view| names(view)) {
            self.claims.entry(name.clone()).or_default().insert(project.clone());
            self.names.insert(name.clone());
        }
        self.names.extend(self.owned.get(project).into_iter().flatten().cloned());
        true
    }

    /// Marks the instances that a template has or wants.
    pub(crate) fn mark_instances(&mut self, template: &Unit) {
        self.names.extend(self.instances.get(&template.name).into_iter().flatten().cloned());
        for number in 1..=replicas(template) {
            self.names.extend(template.name.with_instance(&number.to_string()));
        }
    }

    /// Units first change and come, so that what is taken away is judged by what they are then; then those go that are
    /// not to be any more, and with them those that follow them leave their machines.
    pub(crate) fn next_of_names(&mut self, now: Timestamp) -> Option<Action> {
        while let Some(name) = self.names.pop_first() {
            match self.fate(&name, now) {
                Fate::Stays => drop(self.removals.remove(&name)),
                Fate::Changes(unit) => {
                    self.removals.remove(&name);
                    return Some(Action::PutUnit { unit });
                }
                Fate::Goes => drop(self.removals.insert(name)),
            }
        }
        let Some(name) = self.removals.first().cloned() else {
            self.removed.clear();
            return None;
        };
        let number = self.unit_numbers.get(&name).copied();
        if let Some(number) = number.filter(|number| self.units[*number].placed.is_some()) {
            return self.leave(number, Reason::Gone);
        }
        self.removals.remove(&name);
        // Who comes under this name next is newer than what machines remember of it.
        if let Some(unit) = number.and_then(|number| self.units[number].unit.as_ref()) {
            self.removed.insert(name.clone(), unit.generation);
        }
        Some(Action::RemoveUnit { name })
    }

    fn fate(&mut self, name: &UnitName, now: Timestamp) -> Fate {
        self.problems.retain(|(_, of), _| of != name);
        let old = self.slot(name).and_then(|slot| slot.unit.clone());
        let owner = old.as_ref().map(|unit| Owner::of(unit));
        let claimants: Vec<ProjectName> = self.claims.get(name).into_iter().flatten().cloned().collect();
        let template = self.wanted_by_template(name);
        match &owner {
            Some(Owner::App(project)) => {
                let release = self.apps.get(project).and_then(|view| view.current());
                if release.is_some_and(|release| !release.units.contains_key(name)) {
                    return Fate::Goes;
                }
            }
            // What an app names itself is not made from a template.
            Some(Owner::Template(of)) if !claimants.is_empty() || template.as_ref() != Some(of) => {
                return Fate::Goes;
            }
            // Nobody takes over what another had: the template is another's by now, under the same name.
            Some(Owner::Template(of)) => {
                let now = self.slot(of).and_then(|slot| slot.unit.as_deref());
                if old.as_deref().map(project_of) != now.map(project_of) {
                    return Fate::Goes;
                }
            }
            _ => {}
        }
        let mut owner = owner;
        let mut fate = Fate::Stays;
        for project in &claimants {
            if owner.as_ref().is_some_and(|owner| *owner != Owner::App(project.clone())) {
                let owner = match &owner {
                    Some(Owner::App(owner)) => Some(owner.clone()),
                    _ => None,
                };
                let problem = Problem::NameTaken { project: project.clone(), unit: name.clone(), owner };
                self.problems.insert((Some(project.clone()), name.clone()), problem);
                continue;
            }
            let Some(view) = self.apps.get(project) else { continue };
            let (Some(release), Some(requirements)) = (view.current(), view.requirements.get(name)) else {
                let problem = Problem::Unreadable { project: project.clone(), unit: name.clone() };
                self.problems.insert((Some(project.clone()), name.clone()), problem);
                continue;
            };
            let Some(text) = release.units.get(name) else { continue };
            owner = Some(Owner::App(project.clone()));
            let app = Some((project.clone(), release.number));
            let drop_ins = release.drop_ins.get(name).cloned().unwrap_or_default();
            let is_current = |old: &Unit| {
                let same_text = old.text == *text && old.drop_ins == drop_ins;
                same_text && old.app == app && old.requirements == *requirements
            };
            if old.as_deref().is_some_and(is_current) {
                continue;
            }
            let wanted = Unit {
                drop_ins,
                requirements: requirements.clone(),
                // One more than the unit had; never below the app's generation, so that a unit that was removed and
                // comes back is newer than what machines remember of it.
                generation: (self.generation(name, old.as_deref()) + 1).max(view.app.generation),
                app,
                extra: old.as_ref().map(|old| old.extra.clone()).unwrap_or_default(),
                ..Unit::new(name.clone(), text.as_str(), desired(name, requirements))
            };
            fate = Fate::Changes(Box::new(self.changed(old.as_deref(), wanted)));
        }
        match (owner, template) {
            // What an app names and nobody could read is not made from a template either.
            (None | Some(Owner::Template(_)), Some(template)) if claimants.is_empty() => {
                self.instance(name, &template, old.as_deref(), now)
            }
            (Some(_), Some(template)) if claimants.is_empty() => {
                let problem = Problem::InstanceTaken { template, unit: name.clone() };
                self.problems.insert((None, name.clone()), problem);
                fate
            }
            _ => fate,
        }
    }

    /// The newest generation that is known of a name; 0 if there is none.
    fn generation(&self, name: &UnitName, unit: Option<&Unit>) -> u64 {
        unit.map(|unit| unit.generation).or_else(|| self.removed.get(name).copied()).unwrap_or(0)
    }

    /// The template that wants an instance of this name.
    fn wanted_by_template(&self, name: &UnitName) -> Option<UnitName> {
        let template = name.template()?;
        let number = number(name)?;
        let unit = self.slot(&template)?.unit.as_ref()?;
        let wanted = replicas(unit);
        let is_wanted = (1..=wanted).contains(&number)
            || (number > wanted && wanted > 0 && number - wanted <= self.spares(unit));
        is_wanted.then_some(template)
    }

    /// What becomes of a unit that is to be `wanted`.
    fn changed(&self, old: Option<&Unit>, wanted: Unit) -> Unit {
        match old {
            Some(old) => old.followed_by(wanted, self.reader.same_text),
            None => wanted,
        }
    }

    fn instance(&mut self, name: &UnitName, template: &UnitName, old: Option<&Unit>, now: Timestamp) -> Fate {
        let Some(from) = self.slot(template).and_then(|slot| slot.unit.clone()) else { return Fate::Stays };
        let Some(requirements) = (self.reader.requirements)(&from, name) else {
            let problem = Problem::InstanceUnreadable { template: template.clone(), unit: name.clone() };
            self.problems.insert((None, name.clone()), problem);
            return Fate::Stays;
        };
        let wanted = Unit {
            drop_ins: from.drop_ins.clone(),
            requirements: Requirements { replicas: None, ..requirements },
            generation: (self.generation(name, old) + 1).max(from.generation),
            app: from.app.clone(),
            template: Some(template.clone()),
            // Asked for of this one alone.
            restarts: old.map_or(0, |old| old.restarts),
            extra: old.map(|old| old.extra.clone()).unwrap_or_default(),
            ..Unit::new(name.clone(), from.text.as_str(), from.desired)
        };
        match old {
            Some(old) => {
                let (generation, update) = (old.generation, old.update.clone());
                if (Unit { generation, update, ..wanted.clone() }) == *old {
                    return Fate::Stays;
                }
                Fate::Changes(Box::new(self.changed(Some(old), wanted)))
            }
            None => {
                let update = self.joins(name, &wanted, now);
                Fate::Changes(Box::new(Unit { update, ..wanted }))
            }
        }
    }
}

fn project_of(unit: &Unit) -> Option<&ProjectName> {
    unit.app.as_ref().map(|(project, _)| project)
}

/// The number that an instance made from a template has.
pub(crate) fn number(name: &UnitName) -> Option<u32> {
    name.instance().filter(|text| !text.starts_with('0'))?.parse().ok()
}

/// So many instances a template makes.
pub(crate) fn replicas(template: &Unit) -> u32 {
    let asks = &template.requirements;
    let makes = template.name.is_template() && template.desired != DesiredState::Inactive && !asks.global;
    if makes { asks.replicas.unwrap_or(0).min(MAX_REPLICAS) } else { 0 }
}

fn names(view: &AppView) -> impl Iterator<Item = &UnitName> {
    view.current().into_iter().flat_map(|release| release.units.keys())
}

/// A template is only kept for its instances, unless it makes them.
fn desired(name: &UnitName, requirements: &Requirements) -> DesiredState {
    if name.is_template() && requirements.replicas.is_none() {
        DesiredState::Inactive
    } else {
        DesiredState::Launched
    }
}
