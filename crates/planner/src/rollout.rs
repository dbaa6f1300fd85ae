//! Whose turn it is when a unit has changed, and what goes back.
//!
//! Units that change together are the instances of a template, whoever made them, and the machines of a global unit; any
//! other unit is by itself. Whether one is up, and has passed what its policy asks, is its machine's word: no clock is
//! looked at, but for a unit that had its turn and then came up nowhere at all. So a rollout goes on the same whichever
//! server leads.

use std::collections::BTreeMap;

use sealift_model::{
    DesiredState, OnFailure, Timestamp, Unit, UnitName, Update, UpdateOrder, UpdatePolicy, UpdateStage,
};

use crate::Action;
use crate::planner::Planner;
use crate::state::{HostIx, UnitIx, Word};

/// A machine that is in contact tells itself that a unit was not up in time; a unit that no machine speaks of counts as
/// failed so much later, in milliseconds.
const UNHEARD_OF: u64 = 30_000;

/// A launched unit of a set.
struct Member<'a> {
    number: UnitIx,
    unit: &'a Unit,
    update: Option<&'a Update>,
    policy: Option<&'a UpdatePolicy>,
    /// It is up as what its machine is to have, and has passed.
    ready: bool,
    /// It is up, and it is not known yet whether it has passed: it is neither changed nor counted on.
    settling: bool,
    /// It is there beyond what its template wants, while the others change.
    spare: bool,
}

impl Member<'_> {
    fn is(&self, stage: impl Fn(&UpdateStage) -> bool) -> bool {
        self.update.is_some_and(|update| stage(&update.stage))
    }

    fn is_waiting(&self) -> bool {
        self.is(|stage| *stage == UpdateStage::Waiting)
    }

    fn has_begun(&self) -> bool {
        self.is(|stage| matches!(stage, UpdateStage::Begun { .. }))
    }

    fn went_back(&self) -> Option<&str> {
        match &self.update?.stage {
            UpdateStage::Back { why } => Some(why),
            _ => None,
        }
    }

    /// It has what it would go back to.
    fn is_back(&self) -> bool {
        self.update.is_some_and(|update| self.unit.given() == Some(&update.previous))
    }

    fn most_out(&self, of: usize) -> usize {
        most_out(self.policy, of)
    }
}

fn most_out(policy: Option<&UpdatePolicy>, of: usize) -> usize {
    let of = u32::try_from(of).unwrap_or(u32::MAX);
    policy.map_or(usize::MAX, |policy| usize::try_from(policy.max_out.of(of)).unwrap_or(usize::MAX))
}

/// Those that were changed into the same as this one, itself among them.
fn siblings<'m, 'u>(members: &'m [Member<'u>], of: &'m Member<'u>) -> impl Iterator<Item = &'m Member<'u>> {
    members.iter().filter(|member| member.update.is_some() && same_change(member.unit, of.unit))
}

/// Both were changed into the same.
fn same_change(one: &Unit, other: &Unit) -> bool {
    one.text == other.text && one.drop_ins == other.drop_ins && one.app == other.app
}

fn at_stage(unit: &Unit, stage: Option<UpdateStage>) -> Action {
    let update = unit.update.as_deref().cloned().zip(stage);
    let update = update.map(|(update, stage)| Box::new(Update { stage, ..update }));
    Action::PutUnit { unit: Box::new(Unit { update, ..unit.clone() }) }
}

impl Planner {
    /// The key under which a unit's rollout is looked at: its template's name or its own.
    fn rollout_of(&self, number: UnitIx) -> UnitName {
        let slot = &self.units[number];
        let global = slot.unit.as_ref().is_some_and(|unit| unit.requirements.global);
        slot.name.template().filter(|_| !global).unwrap_or_else(|| slot.name.clone())
    }

    /// Looks at the unit's rollout, if it is in one.
    pub(crate) fn mark_rollout(&mut self, number: UnitIx) {
        let slot = &self.units[number];
        let own = slot.unit.as_ref().is_some_and(|unit| unit.update.is_some());
        if own || slot.set.is_some_and(|set| self.sets[set].updating > 0) {
            self.rollouts.insert(self.rollout_of(number));
        }
    }

    /// What a unit's change means to the rollout that it was or is in.
    pub(crate) fn note_update(&mut self, number: UnitIx, old: Option<&Unit>) {
        let update = |unit: Option<&Unit>| unit.and_then(|unit| unit.update.as_deref()).is_some();
        let new = self.units[number].unit.clone();
        let (before, after) = (update(old), update(new.as_deref()));
        if let Some(set) = self.units[number].set {
            let set = &mut self.sets[set];
            set.updating = set.updating.saturating_sub(usize::from(before)) + usize::from(after);
        }
        let deadline = |unit: &Unit| Some((unit_deadline(unit)?, unit.name.clone()));
        if let Some(deadline) = old.and_then(deadline) {
            self.deadlines.remove(&deadline);
        }
        self.deadlines.extend(new.as_deref().and_then(deadline));
        // Its own, whichever rollout it is in: where a unit was updated is noted by its name.
        let updated = self.updated.contains_key(&self.units[number].name);
        if updated {
            self.rollouts.insert(self.units[number].name.clone());
        }
        // Even one that does not change may have been out, and was one of how many may be.
        let set = self.units[number].set.map(|set| &self.sets[set]).filter(|set| set.updating > 0);
        self.rollouts.extend(set.and_then(|set| set.template.clone()));
        if !before && !after && !updated {
            return;
        }
        self.rollouts.insert(self.rollout_of(number));
        // Instances beyond those that are wanted come and go with the rollout.
        let template = self.units[number].name.template().and_then(|template| self.slot(&template));
        let template = template.and_then(|slot| slot.unit.clone());
        if let Some(template) = template
            && template.policy().is_some_and(|policy| policy.order == UpdateOrder::StartFirst)
        {
            let wanted = crate::claims::replicas(&template);
            for number in wanted + 1..=wanted + self.spares(&template) {
                self.names.extend(template.name.with_instance(&number.to_string()));
            }
            let beyond = |name: &&UnitName| crate::claims::number(name).is_some_and(|number| number > wanted);
            let there = self.instances.get(&template.name).into_iter().flatten();
            let there: Vec<UnitName> = there.filter(beyond).cloned().collect();
            self.names.extend(there);
        }
    }

    /// When a unit that had its turn counts as failed next, if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(crate) fn next_of_rollouts(&mut self, now: Timestamp) -> Option<Action> {
        while let Some((_, name)) = self.deadlines.first().filter(|(at, _)| *at < now).cloned() {
            self.deadlines.pop_first();
            if let Some(number) = self.unit_numbers.get(&name).copied() {
                self.mark_rollout(number);
            }
        }
        while let Some(name) = self.rollouts.first().cloned() {
            let action = match self.unit_numbers.get(&name).copied() {
                _ if name.is_template() => self.roll_set(&name, now),
                Some(unit)
                    if self.units[unit].unit.as_ref().is_some_and(|unit| !unit.requirements.global) =>
                {
                    self.forget_updates(&name).or_else(|| self.roll(vec![unit], now))
                }
                Some(unit) => self.roll_global(unit),
                None => self.forget_updates(&name),
            };
            if action.is_some() {
                return action;
            }
            self.rollouts.remove(&name);
        }
        None
    }

    /// So many instances beyond those that a template wants are there while the others change.
    pub(crate) fn spares(&self, template: &Unit) -> u32 {
        let policy = template.requirements.update.as_ref();
        let Some(policy) = policy.filter(|policy| policy.order == UpdateOrder::StartFirst) else { return 0 };
        let wanted = crate::claims::replicas(template);
        let mut changing = false;
        for name in self.instances.get(&template.name).into_iter().flatten() {
            let unit = self.slot(name).and_then(|slot| slot.unit.as_deref());
            let Some(update) = unit.and_then(|unit| unit.update.as_deref()) else { continue };
            if matches!(update.stage, UpdateStage::Back { .. }) {
                return 0;
            }
            changing |= crate::claims::number(name).is_some_and(|number| number <= wanted);
        }
        if changing { policy.max_out.of(wanted).min(wanted) } else { 0 }
    }

    /// What an instance that is made now has to do with a change that the others are in.
    pub(crate) fn joins(&self, name: &UnitName, unit: &Unit, now: Timestamp) -> Option<Box<Update>> {
        let set = self.set_of(name)?;
        let members = self.sets[set].members.iter();
        let mut units = members.filter_map(|member| self.units[*member].unit.as_deref());
        let update =
            units.find(|other| other.update.is_some() && same_change(other, unit))?.update.as_deref()?;
        let stage = match &update.stage {
            UpdateStage::Back { .. } => update.stage.clone(),
            UpdateStage::Waiting | UpdateStage::Begun { .. } => UpdateStage::Begun { at: now },
        };
        Some(Box::new(Update { previous: update.previous.clone(), between: Vec::new(), stage }))
    }

    fn roll_set(&self, template: &UnitName, now: Timestamp) -> Option<Action> {
        let set = self.set_numbers.get(template)?;
        self.roll(self.sets[*set].members.iter().copied().collect(), now)
    }

    fn members(&self, units: Vec<UnitIx>) -> Vec<Member<'_>> {
        let member = |number: UnitIx| {
            let unit = self.units[number].unit.as_deref()?;
            let wanted = unit.desired == DesiredState::Launched && self.units[number].needs_placement();
            let template = unit.template.as_ref().and_then(|template| self.slot(template)?.unit.as_deref());
            let most = template.map(crate::claims::replicas);
            let beyond = most.zip(crate::claims::number(&unit.name)).is_some_and(|(most, n)| n > most);
            let given = unit.given().map_or(unit.generation, |version| version.generation);
            let word = self.word_of(number);
            wanted.then(|| Member {
                number,
                unit,
                update: unit.update.as_deref(),
                policy: unit.policy(),
                ready: word
                    .is_some_and(|word| word.up && (unit.update.is_none() || word.generation == given)),
                settling: word.is_some_and(|word| word.settling),
                spare: beyond,
            })
        };
        let mut members: Vec<Member<'_>> = units.into_iter().filter_map(member).collect();
        members.sort_by_key(|member| (crate::claims::number(&member.unit.name), &member.unit.name));
        members
    }

    /// What its machine says of its placement.
    pub(crate) fn word_of(&self, number: UnitIx) -> Option<&Word> {
        let slot = &self.units[number];
        let placed = slot.placed?;
        let (_, word) = slot.reported.iter().find(|(host, _)| *host == placed.host)?;
        Some(word).filter(|word| word.placement == placed.id)
    }

    /// Why the change that has begun turned out badly.
    fn failure(&self, member: &Member<'_>, now: Timestamp) -> Option<String> {
        if !member.has_begun() {
            return None;
        }
        let name = &member.unit.name;
        let word = self.word_of(member.number).filter(|word| word.generation == member.unit.generation);
        if let Some(why) = word.and_then(|word| word.failed.as_ref()) {
            let host = self.units[member.number].on()?;
            return Some(format!("{name} on {}: {why}", self.hosts[host].id.short()));
        }
        let late = !member.ready && unit_deadline(member.unit).is_some_and(|deadline| deadline < now);
        late.then(|| format!("{name} did not come up on any machine in time"))
    }

    fn roll(&self, units: Vec<UnitIx>, now: Timestamp) -> Option<Action> {
        let members = self.members(units);
        let regular = || members.iter().filter(|member| !member.spare);
        let count = regular().count();
        let out = regular().filter(|member| !member.ready).count();
        let failures: BTreeMap<UnitIx, String> =
            members.iter().filter_map(|member| Some((member.number, self.failure(member, now)?))).collect();
        for member in regular().filter(|member| member.is_waiting() || member.has_begun()) {
            let goes_back = member.policy.is_some_and(|policy| policy.on_failure == OnFailure::Rollback);
            let why = siblings(&members, member).find_map(|sibling| {
                let failed = failures.get(&sibling.number).filter(|_| goes_back);
                sibling.went_back().or_else(|| failed.map(String::as_str))
            });
            let free = member.is_back() || !member.ready || out < member.most_out(count);
            if let Some(why) = why.filter(|_| free) {
                return Some(at_stage(member.unit, Some(UpdateStage::Back { why: why.to_owned() })));
            }
        }
        let is_bad = |member: &Member<'_>| {
            siblings(&members, member)
                .any(|sibling| sibling.went_back().is_some() || failures.contains_key(&sibling.number))
        };
        let done = members.iter().find(|member| {
            member.has_begun()
                && !is_bad(member)
                && siblings(&members, member)
                    .all(|sibling| sibling.spare || (sibling.has_begun() && sibling.ready))
        });
        if let Some(done) = done {
            return Some(at_stage(done.unit, None));
        }
        let under_way = regular().filter(|member| !member.ready && !member.is_waiting());
        let under_way = under_way.filter(|member| member.update.is_some()).count();
        let may_begin = |member: &&Member<'_>| {
            let most = member.most_out(count);
            let begun = siblings(&members, member).filter(|sibling| sibling.has_begun() && !sibling.spare);
            let (passed, not_yet): (Vec<_>, Vec<_>) = begun.partition(|sibling| sibling.ready);
            let canary = member.policy.map_or(0, |policy| policy.canary);
            let canary = usize::try_from(canary).unwrap_or(usize::MAX);
            let alone = passed.len() + not_yet.len() >= canary && passed.len() < canary;
            if alone || is_bad(member) {
                return false;
            }
            if !member.ready {
                return under_way < most;
            }
            match self.held_up(member, &members) {
                Some(enough) => enough,
                None => out < most,
            }
        };
        // One whose last change was overtaken before it had passed is out already.
        let free =
            |member: &&Member<'_>| !member.settling || member.update.is_some_and(|u| !u.between.is_empty());
        let waiting = || regular().filter(|member| member.is_waiting()).filter(free);
        let down = waiting().filter(|member| !member.ready).find(may_begin);
        let next = down.or_else(|| waiting().filter(|member| member.ready).find(may_begin))?;
        Some(at_stage(next.unit, Some(UpdateStage::Begun { at: now })))
    }

    /// Whether there are enough new instances beside the wanted ones that this one can stop; none where it need not wait
    /// for any, because its policy does not say so or no machine takes one.
    fn held_up(&self, member: &Member<'_>, members: &[Member<'_>]) -> Option<bool> {
        let template = self.slot(member.unit.template.as_ref()?)?.unit.as_deref()?;
        let spares = usize::try_from(self.spares(template)).unwrap_or(usize::MAX);
        if spares == 0 {
            return None;
        }
        let ready = members.iter().filter(|member| member.ready).count();
        let wanted = members.iter().filter(|member| !member.spare).count();
        if ready > wanted {
            return Some(true);
        }
        // One that waits for a machine has asked all of them.
        let nowhere = |member: &&Member<'_>| {
            let slot = &self.units[member.number];
            let waits = |pool| self.pools[pool].waiting.contains(&member.number);
            member.spare && slot.placed.is_none() && slot.pool.is_some_and(waits)
        };
        let nowhere = members.iter().filter(nowhere).count();
        (nowhere < spares).then_some(false)
    }

    // ---- Global units.

    fn roll_global(&self, number: UnitIx) -> Option<Action> {
        let slot = &self.units[number];
        let (Some(unit), Some(update)) =
            (slot.unit.as_deref(), slot.unit.as_ref().and_then(|unit| unit.update.as_deref()))
        else {
            return self.forget_updates(&slot.name);
        };
        struct Place {
            host: HostIx,
            updated: Option<u64>,
            ready: bool,
            settling: bool,
            failed: Option<String>,
        }
        let updated = self.updated.get(&slot.name);
        let place = |host: HostIx| {
            let updated = updated.and_then(|updated| updated.get(&self.hosts[host].id)).copied();
            let given = unit.given_at(updated).map_or(unit.generation, |version| version.generation);
            let word = slot.reported.iter().find(|(on, _)| *on == host).map(|(_, word)| word);
            let word = word.filter(|word| word.generation == given);
            let failed = word.and_then(|word| word.failed.as_deref()).filter(|_| given == unit.generation);
            Place {
                host,
                updated,
                ready: word.is_some_and(|word| word.up),
                settling: word.is_some_and(|word| word.settling),
                failed: failed.map(|why| format!("{} on {}: {why}", slot.name, self.hosts[host].id.short())),
            }
        };
        let hosts = self.host_numbers.values().copied();
        let hosts =
            hosts.filter(|host| self.hosts[*host].is_there() && self.hosts[*host].globals.contains(&number));
        let places: Vec<Place> = hosts.map(place).collect();
        let policy = unit.policy();
        let most = most_out(policy, places.len());
        let out = places.iter().filter(|place| !place.ready).count();
        let give = |place: &Place, generation: Option<u64>| Action::Update {
            unit: slot.name.clone(),
            machine: self.hosts[place.host].id.clone(),
            generation,
        };
        if let UpdateStage::Back { .. } = update.stage {
            let not_back = || places.iter().filter(|place| place.updated.is_some());
            let down = not_back().find(|place| !place.ready);
            let next = down.or_else(|| not_back().find(|_| out < most));
            return next.map(|place| give(place, None));
        }
        if let Some(why) = places.iter().find_map(|place| place.failed.clone()) {
            let goes_back = policy.is_some_and(|policy| policy.on_failure == OnFailure::Rollback);
            return goes_back.then(|| at_stage(unit, Some(UpdateStage::Back { why })));
        }
        let is_updated = |place: &&Place| place.updated == Some(unit.generation);
        let waiting = || places.iter().filter(|place| !is_updated(place));
        let begun = places.iter().filter(is_updated).count();
        let passed = places.iter().filter(is_updated).filter(|place| place.ready).count();
        // One that is away may be back; where no machine is to run it, there is nobody to turn out badly on.
        let away = || self.hosts_known().any(|host| !host.is_there() && host.globals.contains(&number));
        if places.is_empty() && away() {
            return None;
        }
        if waiting().next().is_none() {
            return (passed == begun).then(|| at_stage(unit, None));
        }
        let canary = policy.map_or(0, |policy| policy.canary);
        let canary = usize::try_from(canary).unwrap_or(usize::MAX).min(places.len());
        if begun >= canary && passed < canary {
            return None;
        }
        let down = waiting().find(|place| !place.ready && !place.settling && begun - passed < most);
        let next = down.or_else(|| waiting().find(|place| place.ready && out < most))?;
        Some(give(next, Some(unit.generation)))
    }

    /// Which machines were updated matters no more for a unit that is in no rollout.
    fn forget_updates(&self, name: &UnitName) -> Option<Action> {
        let (machine, _) = self.updated.get(name)?.first_key_value()?;
        Some(Action::Update { unit: name.clone(), machine: machine.clone(), generation: None })
    }

    pub(crate) fn set_updated(
        &mut self,
        name: &UnitName,
        machine: &sealift_model::MachineId,
        generation: Option<u64>,
    ) -> bool {
        let updated = self.updated.entry(name.clone()).or_default();
        let before = match generation {
            Some(generation) => updated.insert(machine.clone(), generation),
            None => updated.remove(machine),
        };
        if updated.is_empty() {
            self.updated.remove(name);
        }
        self.rollouts.insert(name.clone());
        before != generation
    }

    /// Machines came or went: global units that are changing may go on.
    pub(crate) fn mark_global_rollouts(&mut self) {
        let changing =
            |unit: &&UnitIx| self.units[**unit].unit.as_ref().is_some_and(|unit| unit.update.is_some());
        let changing: Vec<UnitIx> = self.globals.values().filter(changing).copied().collect();
        for unit in changing {
            self.mark_rollout(unit);
        }
    }
}

/// When a unit that had its turn counts as failed if nobody says anything of it.
fn unit_deadline(unit: &Unit) -> Option<Timestamp> {
    let UpdateStage::Begun { at } = unit.update.as_deref()?.stage else { return None };
    let limit = u64::from(unit.policy()?.timeout_seconds) * 1000 + UNHEARD_OF;
    Some(Timestamp(at.0.saturating_add(limit)))
}
