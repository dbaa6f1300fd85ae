//! Which placed units have to leave their machines, and in which order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sealift_model::DesiredState;

use crate::planner::Planner;
use crate::state::{SetIx, UnitIx};
use crate::{Action, Reason};

impl Planner {
    /// Those that are wrong by themselves go first: they may be all that others have something against. Of two that do
    /// not go together, the one of the lower priority leaves, else the one that came later.
    pub(crate) fn next_to_leave(&mut self) -> Option<Action> {
        while let Some(name) = self.by_themselves.first() {
            let found = self
                .unit_numbers
                .get(name)
                .copied()
                .and_then(|unit| Some((unit, self.wrong_by_itself(unit)?)));
            if let Some((unit, reason)) = found {
                return self.leave(unit, reason);
            }
            self.by_themselves.pop_first();
        }
        while let Some((priority, Reverse((id, name)))) = self.beside_others.first() {
            let found = self.unit_numbers.get(name).copied().and_then(|unit| {
                let placed = self.units[unit].placed.filter(|placed| placed.id == *id)?;
                let in_turn = self.priority(unit) == *priority;
                let reason = in_turn.then(|| self.objection_of_company(unit, placed.host)).flatten()?;
                Some((unit, reason))
            });
            if let Some((unit, reason)) = found {
                return self.leave(unit, reason);
            }
            self.beside_others.pop_first();
        }
        None
    }

    fn wrong_by_itself(&mut self, unit: UnitIx) -> Option<Reason> {
        let slot = &self.units[unit];
        let host = slot.on()?;
        if let Some(reason) = slot.no_placement() {
            return Some(reason);
        }
        let reason = self.objection_to_being(unit, host);
        if reason.is_none() && !self.hosts[host].is_there() {
            self.stranded.insert(unit);
        } else {
            self.stranded.remove(&unit);
        }
        let set = self.units[unit].set;
        let with = || self.circles(unit).into_iter().flatten().collect::<Vec<_>>();
        if reason == Some(Reason::Drained) && !self.may_go_out(&with()) {
            if let Some(set) = set {
                self.sets[set].held.insert(unit);
            }
            return None;
        }
        if let Some(set) = set {
            self.sets[set].held.remove(&unit);
        }
        reason
    }

    /// Whether the policies of their sets let all of these leave at once without need.
    pub(crate) fn may_go_out(&self, units: &[UnitIx]) -> bool {
        let mut leaving: BTreeMap<SetIx, BTreeSet<UnitIx>> = BTreeMap::new();
        for unit in units {
            if let (Some(set), Some(_)) = (self.units[*unit].set, &self.units[*unit].asks().update) {
                leaving.entry(set).or_default().insert(*unit);
            }
        }
        leaving.into_iter().all(|(set, leaving)| {
            let wanted = |unit: &&UnitIx| {
                let slot = &self.units[**unit];
                slot.needs_placement()
                    && slot.unit.as_ref().is_some_and(|unit| unit.desired == DesiredState::Launched)
            };
            let members: Vec<UnitIx> = self.sets[set].members.iter().filter(wanted).copied().collect();
            let out = members.iter().filter(|unit| !leaving.contains(unit) && !self.is_up(**unit)).count();
            let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
            let most = leaving.iter().filter_map(|unit| self.units[*unit].asks().update.as_ref());
            let most = most.map(|policy| policy.max_out.of(count)).min().unwrap_or(0);
            // One that is out already takes nothing away by leaving.
            let fresh = leaving.iter().filter(|unit| self.is_up(**unit)).count();
            fresh == 0 || u32::try_from(out + leaving.len()).is_ok_and(|out| out <= most)
        })
    }

    /// It is placed, and its machine says of this placement that it is up.
    fn is_up(&self, unit: UnitIx) -> bool {
        let slot = &self.units[unit];
        slot.placed.is_some_and(|placed| {
            let mut words = slot.reported.iter().filter(|(host, _)| *host == placed.host);
            words.any(|(_, word)| word.up && word.placement == placed.id)
        })
    }

    /// Takes a unit from its machine, or first those that are only there because of it.
    pub(crate) fn leave(&self, unit: UnitIx, reason: Reason) -> Option<Action> {
        self.leaving_with(unit, &reason).into_iter().next()
    }

    /// How the unit and all that follow it on its machine leave, by however many steps: each before those that it
    /// follows, and those that follow each other in a circle at once.
    pub(crate) fn leaving_with(&self, unit: UnitIx, reason: &Reason) -> Vec<Action> {
        let Some(host) = self.units[unit].on() else { return Vec::new() };
        let machine = &self.hosts[host].id;
        let circles = self.circles(unit);
        let leaving: BTreeSet<UnitIx> = circles.iter().flatten().copied().collect();
        let action = |mut circle: Vec<UnitIx>| {
            circle.sort_by(|one, other| self.units[*one].name.cmp(&self.units[*other].name));
            let first = if circle.contains(&unit) { unit } else { *circle.first()? };
            let follows = |target: &&String| {
                self.number(target)
                    .is_some_and(|target| leaving.contains(&target) && !circle.contains(&target))
            };
            let apart =
                || circle.iter().flat_map(|one| self.units[*one].asks().machine_of.iter()).find(follows);
            let reason = if first == unit {
                reason.clone()
            } else {
                Reason::Apart { from: apart().cloned().unwrap_or_default() }
            };
            let with = circle.iter().filter(|one| **one != first).map(|one| self.units[*one].name.clone());
            Some(Action::Unplace {
                unit: self.units[first].name.clone(),
                machine: machine.clone(),
                reason,
                with: with.collect(),
            })
        };
        circles.into_iter().filter_map(action).collect()
    }

    /// All that follow `unit` on its machine and itself, in circles (most are of one unit); each circle after those that
    /// follow it. Tarjan, "Depth-first search and linear graph algorithms" (1972), without recursion.
    pub(crate) fn circles(&self, unit: UnitIx) -> Vec<Vec<UnitIx>> {
        struct Seen {
            order: usize,
            low: usize,
            open: bool,
        }
        let host = self.units[unit].on();
        let followers = |unit: UnitIx| -> Vec<UnitIx> {
            let followers = self.followers(&self.units[unit].name).rev();
            followers.filter(|one| self.units[*one].on() == host && host.is_some()).collect()
        };
        let mut seen: BTreeMap<UnitIx, Seen> =
            BTreeMap::from([(unit, Seen { order: 0, low: 0, open: true })]);
        let mut open = vec![unit];
        let mut path = vec![(unit, followers(unit))];
        let mut circles = Vec::new();
        while let Some((at, ahead)) = path.last_mut() {
            let at = *at;
            if let Some(next) = ahead.pop() {
                let low = seen.get(&next).filter(|next| next.open).map(|next| next.order);
                if !seen.contains_key(&next) {
                    let order = seen.len();
                    seen.insert(next, Seen { order, low: order, open: true });
                    open.push(next);
                    path.push((next, followers(next)));
                } else if let (Some(low), Some(at)) = (low, seen.get_mut(&at)) {
                    at.low = at.low.min(low);
                }
                continue;
            }
            path.pop();
            let Some((order, low)) = seen.get(&at).map(|at| (at.order, at.low)) else { continue };
            if let Some((before, _)) = path.last()
                && let Some(before) = seen.get_mut(before)
            {
                before.low = before.low.min(low);
            }
            if order == low {
                let from = open.iter().position(|one| *one == at).unwrap_or(0);
                let circle = open.split_off(from);
                for one in &circle {
                    if let Some(one) = seen.get_mut(one) {
                        one.open = false;
                    }
                }
                circles.push(circle);
            }
        }
        circles
    }
}
