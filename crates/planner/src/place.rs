//! Which machine a unit goes to.
//!
//! Among the machines that it can come to, and its companions with it: first evenly over the values of its `Spread=`
//! key, then where its wishes are satisfied, then where nothing is asked for the least loaded one, as fleet did; a unit
//! that asks for memory or CPU goes where the least is left over, but rather not beside another of its template.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use sealift_model::{Requirements, Resources, UnitName};

use crate::glob::Glob;
use crate::planner::Planner;
use crate::pools::Filter;
use crate::state::{HostIx, PoolIx, UnitIx, plus};
use crate::{Action, Reason};

/// So many machines with room are compared by how many of the same template they have.
const COMPARED: usize = 32;
/// Units that a wish to be beside others finds at most.
const BESIDE: usize = 64;
/// Metadata wishes that are looked at together; of more, only all at once and each alone.
const WISHES_TOGETHER: usize = 3;
/// Units that leave a machine for one at most.
const MAX_VICTIMS: usize = 16;

impl Planner {
    /// Finds a machine for a unit whose turn it is; what gives way to it leaves before it comes.
    pub(crate) fn place(&mut self, unit: UnitIx) -> Option<Vec<Action>> {
        let slot = &self.units[unit];
        if slot.placed.is_some() || !slot.needs_placement() || self.is_tired(unit) {
            return None;
        }
        if let Some(actions) = self.choose(unit).and_then(|host| self.come(unit, host)) {
            return Some(actions);
        }
        let pool = self.units[unit].pool?;
        self.pools[pool].waiting.insert(unit);
        // A rollout that waits for it to come goes on without.
        self.mark_rollout(unit);
        if self.units[unit].asks().preempts && !self.demand(unit).is_none() {
            self.preemptors.insert(unit);
            return self.preempt(unit);
        }
        None
    }

    fn come(&self, unit: UnitIx, host: HostIx) -> Option<Vec<Action>> {
        let name = &self.units[unit].name;
        let mut actions: Vec<Action> = Vec::new();
        let mut leaving: BTreeSet<UnitName> = BTreeSet::new();
        if !self.units[unit].replaces.is_empty() {
            let victims = self.hosts[host].placed.iter().filter(|other| self.replaces(unit, **other));
            for victim in victims {
                for action in self.leaving_with(*victim, &Reason::GivesWay { to: name.clone() }) {
                    if let Action::Unplace { unit, with, .. } = &action
                        && leaving.insert(unit.clone())
                    {
                        leaving.extend(with.iter().cloned());
                        actions.push(action);
                    }
                }
            }
            // A unit cannot drive away what it is itself bound to.
            let bound = &self.units[unit].asks().machine_of;
            if leaving.len() > MAX_VICTIMS * 2 || leaving.iter().any(|name| bound.contains(name.as_str())) {
                return None;
            }
        }
        actions.push(Action::Place { unit: name.clone(), machine: self.hosts[host].id.clone() });
        Some(actions)
    }

    /// A machine for the unit and all that wait for it; where there is none, one for the unit alone, so that a
    /// companion that fits nowhere does not keep it down.
    fn choose(&mut self, unit: UnitIx) -> Option<HostIx> {
        let group = self.waiting_for(unit);
        let together = if group.is_empty() { None } else { self.choose_for(unit, &group) };
        together.or_else(|| self.choose_for(unit, &[]))
    }

    /// The units that follow `unit`, by however many steps, and are not placed.
    fn waiting_for(&self, unit: UnitIx) -> Vec<UnitIx> {
        let mut group: Vec<UnitIx> = Vec::new();
        let mut seen = BTreeSet::from([unit]);
        let mut targets = vec![unit];
        while let Some(target) = targets.pop() {
            for follower in self.followers(&self.units[target].name) {
                let slot = &self.units[follower];
                if slot.needs_placement() && slot.placed.is_none() && seen.insert(follower) {
                    group.push(follower);
                    targets.push(follower);
                }
            }
        }
        group
    }

    fn fits(&self, unit: UnitIx, host: HostIx, group: &[UnitIx]) -> bool {
        self.objection_to_coming(unit, host, group).is_none()
            && group.iter().all(|one| self.objection_to_coming_with(*one, host, unit, group).is_none())
    }

    fn choose_for(&mut self, unit: UnitIx, group: &[UnitIx]) -> Option<HostIx> {
        let slot = &self.units[unit];
        // Where it can only be one machine, there is no need to ask them all.
        let still_on: Vec<HostIx> =
            slot.reported.iter().map(|(host, _)| *host).filter(|host| self.hosts[*host].is_there()).collect();
        let only = match still_on.as_slice() {
            [host] if slot.moving_from == Some(*host) => return None,
            [host] => Some(*host),
            [_, ..] => return None,
            [] => match slot.asks().machine_of.first() {
                Some(target) => Some(self.units[self.number(target)?].on()?),
                None => None,
            },
        };
        if let Some(host) = only {
            return self.fits(unit, host, group).then_some(host);
        }
        if let Some(id) = &slot.asks().machine_id {
            let named = self
                .host_numbers
                .iter()
                .filter(|(machine, _)| machine.as_str() == id || machine.short() == id);
            let mut named = named.map(|(_, host)| *host);
            return named.find(|host| self.fits(unit, *host, group));
        }
        let moving_from = slot.moving_from;
        let found = self.search(unit, group, moving_from);
        if found.is_none() && moving_from.is_some() {
            self.units[unit].moving_from = None;
            return self.search(unit, group, None);
        }
        found
    }

    fn search(&mut self, unit: UnitIx, group: &[UnitIx], not: Option<HostIx>) -> Option<HostIx> {
        let Some((spread, wishes, beside)) = wishes_of(self.units[unit].asks()) else {
            let pool = self.units[unit].pool?;
            return self.best(unit, group, pool, not);
        };
        let base = Filter::of(self.units[unit].asks());
        let spreads = match &spread {
            Some(key) => self.by_value(unit, key, &base),
            None => vec![base],
        };
        let globs: Vec<Glob> = beside.iter().map(|glob| Glob::new(glob)).collect();
        let near = self.near(unit, &globs);
        for filter in spreads {
            let filters = with_wishes(&filter, &wishes);
            for near_only in [true, false] {
                if near_only && near.is_empty() {
                    continue;
                }
                for filter in &filters {
                    if near_only {
                        let suits = |host: &&HostIx| {
                            filter.suits(&self.hosts[**host])
                                && Some(**host) != not
                                && self.fits(unit, **host, group)
                        };
                        if let Some(host) = near.iter().find(suits) {
                            return Some(*host);
                        }
                    } else {
                        let pool = self.pool(filter.clone(), false);
                        if let Some(host) = self.best(unit, group, pool, not) {
                            return Some(host);
                        }
                    }
                }
            }
        }
        None
    }

    /// The best machine of a pool, without regard to spread and wishes.
    fn best(&mut self, unit: UnitIx, group: &[UnitIx], pool: PoolIx, not: Option<HostIx>) -> Option<HostIx> {
        let wanted = group.iter().fold(self.demand(unit), |sum, one| plus(sum, self.demand(*one)));
        let may = |planner: &Planner, host: &HostIx| Some(*host) != not && planner.fits(unit, *host, group);
        if wanted.is_none() {
            return self.pools[pool].hosts_by_load().find(|host| may(self, host));
        }
        self.learn_rooms(pool);
        // One that may still have some of them has more room for them than it looks.
        let has: Vec<HostIx> = std::iter::once(&unit)
            .chain(group)
            .flat_map(|one| self.units[*one].reported.iter().map(|(host, _)| *host))
            .collect();
        let has = has.into_iter().filter(|host| self.hosts[*host].pools.contains(&pool));
        let mut best: Option<(usize, HostIx)> = None;
        let hosts = has.chain(self.pools[pool].hosts_by_room(wanted));
        for host in hosts.filter(|host| may(self, host)).take(COMPARED) {
            let alike = self.alike_on(unit, host);
            if best.is_none_or(|(least, _)| alike < least) {
                best = Some((alike, host));
            }
            if alike == 0 {
                break;
            }
        }
        best.map(|(_, host)| host)
    }

    /// How many of the unit's template are placed there.
    fn alike_on(&self, unit: UnitIx, host: HostIx) -> usize {
        let Some(set) = self.units[unit].set else { return 0 };
        self.hosts[host].placed.iter().filter(|other| self.units[**other].set == Some(set)).count()
    }

    /// `base` for each value of the metadata key, that with the fewest of the unit's template first; last without the key.
    fn by_value(&mut self, unit: UnitIx, key: &str, base: &Filter) -> Vec<Filter> {
        let pool = self.pool(base.clone(), false);
        let hosts = self.pools[pool].hosts_by_load();
        let values: BTreeSet<String> =
            hosts.filter_map(|host| self.hosts[host].metadata.get(key).cloned()).collect();
        let counts = self.counts(unit, key);
        let count = |value: &String| counts.get(&Some(value.clone())).copied().unwrap_or(0);
        let mut values: Vec<(usize, String)> =
            values.into_iter().map(|value| (count(&value), value)).collect();
        values.sort();
        let with = values.into_iter().filter_map(|(_, value)| base.with(key, &BTreeSet::from([value])));
        with.chain(base.without(key)).collect()
    }

    /// How many of the unit's template are on machines of each value.
    fn counts(&mut self, unit: UnitIx, key: &str) -> BTreeMap<Option<String>, usize> {
        let Some(set) = self.units[unit].set else { return BTreeMap::new() };
        if !self.sets[set].counts.contains_key(key) {
            let mut counts: BTreeMap<Option<String>, usize> = BTreeMap::new();
            for member in &self.sets[set].members {
                if let Some(host) = self.units[*member].on() {
                    *counts.entry(self.hosts[host].metadata.get(key).cloned()).or_default() += 1;
                }
            }
            self.sets[set].counts.insert(key.to_owned(), counts);
        }
        self.sets[set].counts.get(key).cloned().unwrap_or_default()
    }

    /// Machines with units that match one of the globs, those with the most first.
    fn near(&self, unit: UnitIx, globs: &[Glob]) -> Vec<HostIx> {
        let mut units: BTreeSet<UnitIx> = BTreeSet::new();
        for glob in globs {
            units.extend(self.placed_like(glob).filter(|other| *other != unit).take(BESIDE));
        }
        let mut counts: BTreeMap<(u128, HostIx), usize> = BTreeMap::new();
        for host in units.into_iter().filter_map(|unit| self.units[unit].on()) {
            *counts.entry((self.hosts[host].key, host)).or_default() += 1;
        }
        let mut hosts: Vec<_> =
            counts.into_iter().map(|((key, host), count)| (Reverse(count), key, host)).collect();
        hosts.sort_unstable();
        hosts.into_iter().map(|(_, _, host)| host).collect()
    }

    fn placed_like<'a>(&'a self, glob: &'a Glob) -> impl Iterator<Item = UnitIx> + 'a {
        let from = glob.prefix();
        let names = self.placed_names.range::<str, _>((Bound::Included(from), Bound::Unbounded));
        names
            .take_while(move |(name, _)| name.starts_with(from))
            .filter(move |(name, _)| glob.matches(name))
            .map(|(_, unit)| *unit)
    }

    // ---- Making room.

    /// Works out where room is kept for whom, without doing anything about it.
    pub(crate) fn reserve(&mut self) {
        let units: Vec<UnitIx> =
            self.turns.iter().filter_map(|(_, _, name)| self.unit_numbers.get(name).copied()).collect();
        for unit in units {
            let preempts = self.units[unit].asks().preempts && !self.demand(unit).is_none();
            if preempts && self.choose(unit).is_none() {
                self.preempt(unit);
            }
        }
    }

    /// Takes units of lower priorities away where that makes room. They count until they have stopped, so the unit comes
    /// later; until then the room is kept for it.
    fn preempt(&mut self, unit: UnitIx) -> Option<Vec<Action>> {
        let before = self.eyes.remove(&unit);
        let still_on = self.units[unit].reported.iter().any(|(host, _)| self.hosts[*host].is_there());
        let pool = self.units[unit].pool?;
        let best = {
            let ranked = self.pools[pool].hosts_by_load().filter_map(|host| {
                let ((worst, count), _) = self.victims_of_rank(unit, host)?;
                Some((count > 0, worst, count, self.hosts[host].key, host))
            });
            if still_on { None } else { ranked.min() }
        };
        let Some((_, _, _, _, host)) = best else {
            if let Some(before) = before {
                self.loosen(before);
            }
            return None;
        };
        if let Some(before) = before.filter(|before| *before != host) {
            self.loosen(before);
        }
        self.eyes.insert(unit, host);
        let (_, victims) = self.victims_of_rank(unit, host)?;
        let reason = Reason::Preempted { by: self.units[unit].name.clone() };
        let mut actions: Vec<Action> = Vec::new();
        for victim in victims {
            for action in self.leaving_with(victim, &reason) {
                let is_same = |other: &Action| match (other, &action) {
                    (Action::Unplace { unit: one, .. }, Action::Unplace { unit: other, .. }) => one == other,
                    _ => false,
                };
                if !actions.iter().any(is_same) {
                    actions.push(action);
                }
            }
        }
        if actions.is_empty() { None } else { Some(actions) }
    }

    /// Units of lower priorities that would have to leave the machine, as few and as low as will do, so that there is room
    /// once all that is being stopped has stopped: the highest priority among them, how many, and which.
    pub(crate) fn victims_of_rank(&self, unit: UnitIx, host: HostIx) -> Option<((i32, usize), Vec<UnitIx>)> {
        let (wanted, priority) = (self.demand(unit), self.priority(unit));
        if wanted.is_none() || self.objection_but_room(unit, host, &[], &[]).is_some() {
            return None;
        }
        let on = &self.hosts[host];
        let limit = on.limit();
        let lower = |one: &UnitIx| self.priority(*one) < priority && !self.demand(*one).is_none();
        let (mut lower, fixed): (Vec<UnitIx>, Vec<UnitIx>) = on.placed.iter().partition(|one| lower(one));
        let rank = (Reverse(priority), &self.units[unit].name);
        let ahead = self.eyes_on(host).filter(|(other, _)| {
            *other != unit && (Reverse(self.priority(*other)), &self.units[*other].name) < rank
        });
        let ahead = ahead.fold(Resources::NONE, |sum, (_, demand)| plus(sum, demand));
        let mut used = fixed
            .iter()
            .chain(&on.globals)
            .fold(plus(wanted, ahead), |sum, one| plus(sum, self.demand(*one)));
        if !crate::fit::fits_limit(limit, used) {
            return None;
        }
        // Those that may stay: the highest priorities first, then those that came first.
        lower.sort_by_key(|one| {
            let slot = &self.units[*one];
            (Reverse(slot.asks().priority), slot.placed.map(|placed| placed.id), slot.name.clone())
        });
        let mut victims = Vec::new();
        for one in lower {
            let with = plus(used, self.demand(one));
            if crate::fit::fits_limit(limit, with) {
                used = with;
            } else {
                victims.push(one);
            }
        }
        let leaving: BTreeSet<UnitIx> = victims.iter().flat_map(|one| self.circles(*one)).flatten().collect();
        let bound = self.bound_to(unit);
        let may = leaving.len() <= MAX_VICTIMS
            && leaving.iter().all(|one| self.priority(*one) < priority && !bound.contains(one))
            && self.may_go_out(&leaving.iter().copied().collect::<Vec<_>>());
        let worst = victims.iter().map(|one| self.priority(*one)).max().unwrap_or(i32::MIN);
        may.then_some(((worst, victims.len()), victims))
    }

    /// All that the unit follows, by however many steps.
    fn bound_to(&self, unit: UnitIx) -> BTreeSet<UnitIx> {
        let mut bound = BTreeSet::new();
        let mut ahead = vec![unit];
        while let Some(one) = ahead.pop() {
            for target in self.units[one].asks().machine_of.iter().filter_map(|target| self.number(target)) {
                if bound.insert(target) {
                    ahead.push(target);
                }
            }
        }
        bound
    }

    // ---- On request.

    /// Takes up to `most` units from machines that have more to do than others, so that they come to those. Each is
    /// placed once its machine has confirmed the stop; if no other machine takes it then, it goes back. Companions,
    /// units that are bound to a machine, and sets of which as many are out as may be stay where they are.
    pub fn rebalance(&mut self, most: usize, now: sealift_model::Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        // Moves that are under way count already.
        let mut coming: BTreeMap<HostIx, usize> = BTreeMap::new();
        let mut names: Vec<(usize, UnitName, UnitIx)> = self
            .placed_names
            .values()
            .filter_map(|unit| {
                Some((self.hosts[self.units[*unit].on()?].load(), self.units[*unit].name.clone(), *unit))
            })
            .collect();
        // From the most loaded machine first.
        names.sort_by(|one, other| (other.0, &one.1).cmp(&(one.0, &other.1)));
        for (_, _, unit) in names {
            if actions.len() >= most {
                break;
            }
            let Some((from, to)) = self.better_place(unit, &coming) else { continue };
            let reason = Reason::Rebalanced { to: self.hosts[to].id.clone() };
            let Some(action) = self.leave(unit, reason) else { continue };
            self.carry_out(&action, now);
            self.units[unit].moving_from = Some(from);
            self.turns.remove(&crate::planner::turn(&self.units[unit]));
            self.take_turn(unit);
            *coming.entry(to).or_default() += 1;
            actions.push(action);
        }
        actions
    }

    /// Where a unit that can move would go if it came anew, if that is clearly better.
    fn better_place(&mut self, unit: UnitIx, coming: &BTreeMap<HostIx, usize>) -> Option<(HostIx, HostIx)> {
        let slot = &self.units[unit];
        let from = slot.on().filter(|host| self.hosts[*host].is_there())?;
        let asks = slot.asks();
        let free = asks.machine_of.is_empty() && asks.machine_id.is_none() && slot.needs_placement();
        if !free || self.followers(&slot.name).next().is_some() || !self.may_go_out(&[unit]) {
            return None;
        }
        let spread = asks.spread.clone();
        let pool = slot.pool?;
        let counts = spread.as_ref().map(|key| self.counts(unit, key)).unwrap_or_default();
        let load = |host: HostIx| self.hosts[host].load() + coming.get(&host).copied().unwrap_or(0);
        // As a unit that is nowhere it could come to these.
        let could_come = |host: &HostIx| {
            *host != from
                && self.objection_but_room_elsewhere(unit, *host)
                && self.no_room(unit, *host, &[]).is_none()
        };
        if let Some(key) = spread {
            let value = |host: HostIx| self.hosts[host].metadata.get(&key).cloned();
            let count = |host: HostIx| {
                let there = |other: &&HostIx| value(**other) == value(host);
                let more: usize = coming.keys().filter(there).filter_map(|host| coming.get(host)).sum();
                counts.get(&value(host)).copied().unwrap_or(0) + more
            };
            let here = count(from);
            let hosts = self.pools[pool].hosts_by_load();
            let found = hosts
                .filter(|host| count(*host) + 2 <= here && could_come(host))
                .min_by_key(|host| (count(*host), load(*host), self.hosts[*host].key));
            return found.map(|to| (from, to));
        }
        let here = load(from);
        let to = if self.demand(unit).is_none() {
            // The pool is in the order of loads as they are; what is coming can only add.
            let hosts =
                self.pools[pool].hosts_by_load().take_while(|host| self.hosts[*host].load() + 2 <= here);
            hosts
                .filter(|host| load(*host) + 2 <= here && could_come(host))
                .min_by_key(|host| (load(*host), self.hosts[*host].key))?
        } else {
            let alike = self.alike_on(unit, from);
            let hosts = self.pools[pool].hosts_by_load();
            let better = |host: &HostIx| self.alike_on(unit, *host) + 2 <= alike && could_come(host);
            hosts.filter(|host| !coming.contains_key(host)).find(better)?
        };
        Some((from, to))
    }

    /// Whether nothing but room could keep the placed unit from another machine once it has stopped.
    fn objection_but_room_elsewhere(&self, unit: UnitIx, host: HostIx) -> bool {
        match self.objection_but_room(unit, host, &[], &[]) {
            None => true,
            Some(Reason::StillOn { machine }) => {
                let from = self.units[unit].on().map(|host| &self.hosts[host].id);
                from == Some(&machine)
            }
            Some(_) => false,
        }
    }
}

/// The filter with as many of the wishes as possible first, down to none of them.
fn with_wishes(base: &Filter, wishes: &BTreeMap<String, BTreeSet<String>>) -> Vec<Filter> {
    let wishes: Vec<_> = wishes.iter().collect();
    let count = wishes.len();
    let mut choices: Vec<Vec<usize>> = if count <= WISHES_TOGETHER {
        (0..1_usize << count).map(|bits| (0..count).filter(|at| bits >> at & 1 == 1).collect()).collect()
    } else {
        let each = (0..count).map(|at| vec![at]);
        each.chain([(0..count).collect(), Vec::new()]).collect()
    };
    choices.sort_by(|one, other| (other.len(), one).cmp(&(one.len(), other)));
    let filter = |choice: Vec<usize>| {
        choice
            .into_iter()
            .filter_map(|at| wishes.get(at))
            .try_fold(base.clone(), |filter, (key, values)| filter.with(key, values))
    };
    choices.into_iter().filter_map(filter).collect()
}

type Wishes = (Option<String>, BTreeMap<String, BTreeSet<String>>, BTreeSet<String>);

/// Spread and wishes, if there are any.
fn wishes_of(asks: &Requirements) -> Option<Wishes> {
    let none =
        asks.spread.is_none() && asks.prefers_metadata.is_empty() && asks.prefers_machine_of.is_empty();
    (!none).then(|| (asks.spread.clone(), asks.prefers_metadata.clone(), asks.prefers_machine_of.clone()))
}
