//! Which unit goes to which machine, by fleet's rules.
//!
//! First everything that cannot stay is taken away, then everything that can come is placed. Units that follow others
//! (`MachineOf=`) are taken away before them and placed after them, so that their wish holds at every step.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{MachineId, Unit, UnitName};

use crate::apps::UnitChanges;
use crate::view::{self, View, Wanted};
use crate::{Action, Reason, Snapshot};

/// How often a unit gives way in one plan before it is left for the next.
const MAX_DISPLACEMENTS: u32 = 3;

pub(crate) fn decide(snapshot: &Snapshot, changes: &UnitChanges<'_>, actions: &mut Vec<Action>) {
    let put = |unit: &Unit| Action::PutUnit { unit: Box::new(unit.clone()) };
    // A name that goes from one app to another is removed before it is put; all other units change first, so that
    // what is taken away is judged by what they are then.
    let (moved, changed): (Vec<_>, Vec<_>) =
        changes.puts.iter().partition(|(name, _)| changes.removals.contains(*name));
    let mut wanted = view::wanted(snapshot);
    for (name, unit) in changed {
        actions.push(put(unit));
        wanted.insert(name, Wanted::of(unit));
    }
    let mut view = View::new(snapshot, wanted.clone(), &BTreeSet::new());
    if !changes.removals.is_empty() {
        let mut placing = Placing::new(view, actions);
        for name in &changes.removals {
            placing.unplace(name, Reason::Gone);
        }
        let unplaced = placing.unplaced;
        for name in &changes.removals {
            actions.push(Action::RemoveUnit { name: (*name).clone() });
            wanted.remove(name);
        }
        for (name, unit) in moved {
            actions.push(put(unit));
            wanted.insert(name, Wanted::of(unit));
        }
        view = View::new(snapshot, wanted, &unplaced);
    }
    let mut placing = Placing::new(view, actions);
    placing.unplace_misplaced(snapshot);
    placing.place_all();
}

#[derive(Debug)]
struct Placing<'a, 'p> {
    view: View<'a>,
    actions: &'p mut Vec<Action>,
    /// How often a unit gave way to others in this plan.
    displaced: BTreeMap<&'a UnitName, u32>,
    /// Units that were taken from their machines.
    unplaced: BTreeSet<&'a UnitName>,
}

impl<'a, 'p> Placing<'a, 'p> {
    fn new(view: View<'a>, actions: &'p mut Vec<Action>) -> Placing<'a, 'p> {
        Placing { view, actions, displaced: BTreeMap::new(), unplaced: BTreeSet::new() }
    }

    fn unplace_misplaced(&mut self, snapshot: &'a Snapshot) {
        // Those that are wrong by themselves go first: they may be all that others have something against.
        for (name, placement) in &snapshot.placements {
            let reason = match self.view.wanted(name) {
                None => Some(Reason::Gone),
                Some(unit) => {
                    unit.no_placement().or_else(|| self.view.objection_to_being(unit, &placement.machine))
                }
            };
            if let Some(reason) = reason {
                self.unplace(name, reason);
            }
        }
        // Of two that do not go together, the one that came later leaves.
        let mut left: Vec<_> = snapshot.placements.values().collect();
        left.sort_by_key(|placement| Reverse((placement.since, &placement.unit)));
        for placement in left {
            let (Some(unit), Some(machine)) =
                (self.view.wanted(&placement.unit), self.view.machine_of(&placement.unit))
            else {
                continue;
            };
            if let Some(reason) = self.view.objection_to_staying(unit, machine) {
                self.unplace(&placement.unit, reason);
            }
        }
    }

    /// Takes a unit from its machine, after the units that are only there because of it.
    fn unplace(&mut self, name: &'a UnitName, reason: Reason) {
        for (name, reason) in self.leaving_with(name, reason) {
            if let Some(machine) = self.view.unplace(name) {
                self.unplaced.insert(name);
                self.actions.push(Action::Unplace { unit: name.clone(), machine: machine.clone(), reason });
            }
        }
    }

    /// The unit and all that follow it on its machine, by however many steps; each before those that it follows, unless
    /// they follow each other in a circle.
    fn leaving_with(&self, name: &'a UnitName, reason: Reason) -> Vec<(&'a UnitName, Reason)> {
        let machine = self.view.machine_of(name);
        let mut leaving = Vec::new();
        let mut seen = BTreeSet::from([name]);
        // Depth first without recursion: a unit leaves when all of its followers have been dealt with.
        let mut path = vec![(name, reason, self.view.followers(name).iter())];
        while let Some((target, _, followers)) = path.last_mut() {
            let target: &'a UnitName = target;
            match followers.next() {
                Some(follower) if self.view.machine_of(follower) == machine && seen.insert(follower) => {
                    let reason = Reason::Apart { from: target.to_string() };
                    path.push((follower, reason, self.view.followers(follower).iter()));
                }
                Some(_) => {}
                None => leaving.extend(path.pop().map(|(name, reason, _)| (name, reason))),
            }
        }
        leaving
    }

    fn place_all(&mut self) {
        loop {
            let before: u32 = self.displaced.values().sum();
            let units: Vec<Wanted<'a>> = self.view.units().filter(Wanted::needs_placement).collect();
            for unit in units {
                self.place_with_followers(unit);
            }
            // Whoever gave way needs another machine, and may have been what kept others away.
            if self.displaced.values().sum::<u32>() == before {
                return;
            }
        }
    }

    /// Places a unit and then those that waited for it.
    fn place_with_followers(&mut self, unit: Wanted<'a>) {
        let mut ahead = vec![unit];
        while let Some(unit) = ahead.pop() {
            if self.view.machine_of(unit.name).is_none() && self.place(&unit) {
                let followers = self.view.followers(unit.name).iter().rev();
                ahead.extend(
                    followers.filter_map(|name| self.view.wanted(name)).filter(|one| one.needs_placement()),
                );
            }
        }
    }

    fn place(&mut self, unit: &Wanted<'a>) -> bool {
        // Replacing goes in no circle, so nobody should have to give way over and over; if it happens in a way that
        // nobody thought of, the plan ends all the same.
        if self.displaced.get(unit.name).is_some_and(|times| *times >= MAX_DISPLACEMENTS) {
            return false;
        }
        let Some(machine) = self.choose(unit) else { return false };
        let gives_way = || Reason::GivesWay { to: unit.name.clone() };
        let victims = self.view.victims(unit, machine);
        // A unit cannot drive away what it is itself bound to.
        let bound = |(name, _): (&UnitName, Reason)| unit.requirements.machine_of.contains(name.as_str());
        if victims.iter().any(|victim| self.leaving_with(victim, gives_way()).into_iter().any(bound)) {
            return false;
        }
        for victim in victims {
            *self.displaced.entry(victim).or_default() += 1;
            self.unplace(victim, gives_way());
        }
        self.view.place(unit, machine);
        self.actions.push(Action::Place { unit: unit.name.clone(), machine: machine.clone() });
        true
    }

    /// A machine for the unit and all that wait for it; where there is none, one for the unit alone, so that a
    /// companion that fits nowhere does not keep it down.
    fn choose(&mut self, unit: &Wanted<'a>) -> Option<&'a MachineId> {
        let group = self.waiting_for(unit);
        let together = if group.is_empty() { None } else { self.view.choose(unit, &group) };
        together.or_else(|| self.view.choose(unit, &[]))
    }

    /// The units that follow `unit`, by however many steps, and are not placed.
    fn waiting_for(&self, unit: &Wanted<'a>) -> Vec<Wanted<'a>> {
        let mut group: Vec<Wanted<'a>> = Vec::new();
        let mut seen = BTreeSet::from([unit.name]);
        let mut targets = vec![unit.name];
        while let Some(target) = targets.pop() {
            for follower in self.view.followers(target).iter().filter_map(|name| self.view.wanted(name)) {
                let waits = follower.needs_placement() && self.view.machine_of(follower.name).is_none();
                if waits && seen.insert(follower.name) {
                    group.push(*follower);
                    targets.push(follower.name);
                }
            }
        }
        group
    }
}
