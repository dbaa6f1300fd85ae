//! Whether a unit can be on a machine: what it asks for, what others there have against it, whether there is room.

use std::collections::BTreeSet;

use sealift_model::{MachineId, Resources, UnitName};

use crate::globals::own_terms;
use crate::planner::Planner;
use crate::state::{HostIx, UnitIx, covers, minus, plus};
use crate::{Reason, Verdict};

impl Planner {
    fn own_terms(&self, unit: UnitIx, host: HostIx) -> Option<Reason> {
        own_terms(self.units[unit].asks(), &self.ground(&self.hosts[host]))
    }

    fn conflict(&self, one: UnitIx, other: UnitIx) -> bool {
        self.party(one).conflicts_with(&self.party(other))
    }

    fn conflict_among(&self, unit: UnitIx, others: &[UnitIx]) -> Option<Reason> {
        let other = others.iter().find(|other| self.conflict(unit, **other))?;
        Some(Reason::Conflict { with: self.units[*other].name.clone() })
    }

    /// Why no unit can come to the machine; none if it takes some.
    fn closed(&self, host: HostIx) -> Option<Reason> {
        let host = &self.hosts[host];
        match () {
            () if !host.is_there() => Some(Reason::Away),
            () if host.takes() => None,
            () if host.is_left() => Some(Reason::Drained),
            () => Some(Reason::Cordoned),
        }
    }

    /// What the unit and the machine that it is placed on are without regard to other units. That the machine is away
    /// counts only where another could take over: else the unit finds its placement again when the machine is back,
    /// and what ran there meanwhile is not touched.
    pub(crate) fn objection_to_being(&self, unit: UnitIx, host: HostIx) -> Option<Reason> {
        let known = self.hosts[host].is_known();
        known.then(|| self.own_terms(unit, host)).flatten().or_else(|| {
            if self.hosts[host].is_left() {
                return Some(Reason::Drained);
            }
            (!self.hosts[host].is_there() && self.could_be_elsewhere(unit)).then_some(Reason::Away)
        })
    }

    /// Whether some machine that takes units suits the unit and all that it has to be together with.
    fn could_be_elsewhere(&self, unit: UnitIx) -> bool {
        let mut group = vec![unit];
        let mut next = 0;
        while let Some(one) = group.get(next).copied() {
            for target in &self.units[one].asks().machine_of {
                // Of a unit that is gone nobody knows what it would ask for.
                if let Some(target) = self.number(target)
                    && self.units[target].unit.is_some()
                    && !group.contains(&target)
                {
                    group.push(target);
                }
            }
            next += 1;
        }
        let Some(pool) = self.units[unit].pool else { return false };
        self.pools[pool]
            .hosts_by_load()
            .any(|host| group.iter().all(|one| self.own_terms(*one, host).is_none()))
    }

    /// Why the unit cannot stay on the machine that it is placed on because of other units, or for want of them.
    pub(crate) fn objection_of_company(&self, unit: UnitIx, host: HostIx) -> Option<Reason> {
        self.apart(unit, host, &[])
            .or_else(|| self.objection_of_placed(unit, host))
            .or_else(|| self.too_much(unit, host))
    }

    /// Why the unit cannot come to the machine now, other than for want of `group`, which follow it and come with it.
    pub(crate) fn objection_to_coming(&self, unit: UnitIx, host: HostIx, group: &[UnitIx]) -> Option<Reason> {
        self.objection_but_room(unit, host, &[], group).or_else(|| self.no_room(unit, host, group))
    }

    /// The same for a unit of `group`, which follows `leader`. Their room is looked at with the leader's.
    pub(crate) fn objection_to_coming_with(
        &self,
        unit: UnitIx,
        host: HostIx,
        leader: UnitIx,
        group: &[UnitIx],
    ) -> Option<Reason> {
        let mut together = group.to_vec();
        together.push(leader);
        self.objection_but_room(unit, host, &together, group)
    }

    /// Why the unit could not come even if there were room. Targets in `together` need not be there yet.
    pub(crate) fn objection_but_room(
        &self,
        unit: UnitIx,
        host: HostIx,
        together: &[UnitIx],
        group: &[UnitIx],
    ) -> Option<Reason> {
        self.closed(host)
            .or_else(|| self.own_terms(unit, host))
            .or_else(|| self.apart(unit, host, together))
            .or_else(|| self.conflict_among(unit, group))
            .or_else(|| self.objection_of_placed(unit, host))
            .or_else(|| self.objection_of_others(unit, host))
    }

    /// Whether the unit, which waits, might come to this machine now: it is worth its turn.
    pub(crate) fn has_hope(&self, unit: UnitIx, host: HostIx) -> bool {
        if self.eyes.get(&unit) == Some(&host) {
            return true;
        }
        if self.objection_but_room(unit, host, &[], &[]).is_some() {
            return false;
        }
        self.no_room(unit, host, &[]).is_none()
            || (self.units[unit].asks().preempts && self.victims_of_rank(unit, host).is_some())
    }

    pub(crate) fn verdict(&self, unit: UnitIx, host: HostIx) -> Verdict {
        let slot = &self.units[unit];
        let on = &self.hosts[host];
        let is_here = if slot.is_global() {
            on.globals.contains(&unit)
        } else {
            slot.needs_placement() && slot.on() == Some(host)
        };
        if is_here {
            return Verdict::Here;
        }
        let objection = match slot.no_placement() {
            Some(Reason::Global) => on.is_drained().then_some(Reason::Drained).or_else(|| {
                self.own_terms(unit, host)
                    .or_else(|| self.conflict_among(unit, &on.placed))
                    .or_else(|| self.conflict_among(unit, &on.globals))
                    .or_else(|| self.no_room(unit, host, &[]))
            }),
            Some(reason) => Some(reason),
            None => self
                .objection_to_coming(unit, host, &[])
                .or_else(|| slot.on().map(|on| Reason::StillOn { machine: self.hosts[on].id.clone() })),
        };
        objection.map_or(Verdict::Fits, Verdict::No)
    }

    /// For every machine, why the unit is there, could come or cannot; in the order of machines. Empty for an unknown
    /// unit.
    #[must_use]
    pub fn explain(&self, name: &UnitName) -> Vec<(MachineId, Verdict)> {
        let unit = self.unit_numbers.get(name).copied().filter(|unit| self.units[*unit].unit.is_some());
        let Some(unit) = unit else { return Vec::new() };
        let known = self.host_numbers.iter().filter(|(_, host)| self.hosts[**host].is_known());
        known.map(|(machine, host)| (machine.clone(), self.verdict(unit, *host))).collect()
    }

    /// Why a unit is on no machine, in words for people: machine by machine where there are few, else each reason with
    /// how many machines it holds for, the commonest first.
    #[must_use]
    pub fn why_nowhere(&self, name: &UnitName) -> String {
        /// So many machines are told one by one.
        const MACHINES: usize = 50;
        /// So many reasons are told.
        const FEW: usize = 8;
        let verdicts = self.explain(name);
        if verdicts.is_empty() {
            return "there is no machine".to_owned();
        }
        if verdicts.len() <= MACHINES {
            let words = verdicts.iter().map(|(machine, verdict)| format!("{}: {verdict}", machine.short()));
            return words.collect::<Vec<_>>().join("; ");
        }
        let mut counts: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
        for (_, verdict) in &verdicts {
            // How much is free differs from machine to machine.
            let words = match verdict {
                Verdict::No(Reason::NoRoom { .. }) => "there is no room for it".to_owned(),
                verdict => verdict.to_string(),
            };
            *counts.entry(words).or_default() += 1;
        }
        let mut counts: Vec<(usize, String)> =
            counts.into_iter().map(|(words, count)| (count, words)).collect();
        counts.sort_by(|one, other| (other.0, &one.1).cmp(&(one.0, &other.1)));
        let more = counts.len().saturating_sub(FEW);
        let mut words: Vec<String> =
            counts.into_iter().take(FEW).map(|(count, words)| format!("{count} machines: {words}")).collect();
        if more > 0 {
            words.push(format!("{more} other reasons"));
        }
        words.join("; ")
    }

    /// A `MachineOf=` that is not on the machine and not in `together`.
    fn apart(&self, unit: UnitIx, host: HostIx, together: &[UnitIx]) -> Option<Reason> {
        let away = self.units[unit].asks().machine_of.iter().find(|target| {
            !self
                .number(target)
                .is_some_and(|target| together.contains(&target) || self.units[target].on() == Some(host))
        })?;
        Some(Reason::Apart { from: away.clone() })
    }

    /// What units that are placed on the machine have against this one.
    fn objection_of_placed(&self, unit: UnitIx, host: HostIx) -> Option<Reason> {
        let host = &self.hosts[host];
        if !host.particular && self.units[unit].conflicts.is_empty() {
            return None;
        }
        let over = || {
            let over = host.placed.iter().find(|other| self.replaces(**other, unit))?;
            Some(Reason::GivesWay { to: self.units[*over].name.clone() })
        };
        self.conflict_among(unit, &host.placed).or_else(over)
    }

    /// What else keeps a unit from coming: global units, units that are still being stopped, its own former machine.
    fn objection_of_others(&self, unit: UnitIx, host: HostIx) -> Option<Reason> {
        let on = &self.hosts[host];
        let slot = &self.units[unit];
        if on.particular || !slot.conflicts.is_empty() {
            let conflict =
                self.conflict_among(unit, &on.globals).or_else(|| self.conflict_among(unit, &on.reported));
            if conflict.is_some() {
                return conflict;
            }
        }
        let still = slot.reported.iter().map(|(other, _)| *other);
        let still = still.filter(|other| *other != host && self.hosts[*other].is_there());
        let still_on = still.min_by_key(|other| self.hosts[*other].key)?;
        Some(Reason::StillOn { machine: self.hosts[still_on].id.clone() })
    }

    // ---- Who replaces whom.

    fn names_replaced(&self, unit: UnitIx, other: UnitIx) -> bool {
        unit != other
            && self.units[unit].replaces.iter().any(|glob| glob.matches(self.units[other].name.as_str()))
    }

    /// Whether `unit` takes the place of `other`. Where units would replace each other in a circle, none does, and
    /// nobody replaces a unit of a higher priority.
    pub(crate) fn replaces(&self, unit: UnitIx, other: UnitIx) -> bool {
        !self.units[unit].replaces.is_empty()
            && self.names_replaced(unit, other)
            && self.priority(unit) >= self.priority(other)
            && !self.leads_to(other, unit)
    }

    /// Whether a chain of `Replaces=` goes from `from` to `to`.
    fn leads_to(&self, from: UnitIx, to: UnitIx) -> bool {
        let mut seen: BTreeSet<UnitIx> = BTreeSet::new();
        let mut ahead = vec![from];
        while let Some(unit) = ahead.pop() {
            if self.units[unit].replaces.is_empty() {
                continue;
            }
            if self.names_replaced(unit, to) {
                return true;
            }
            for next in self.replacers.values() {
                if self.names_replaced(unit, *next) && seen.insert(*next) {
                    ahead.push(*next);
                }
            }
        }
        false
    }

    pub(crate) fn priority(&self, unit: UnitIx) -> i32 {
        self.units[unit].asks().priority
    }

    // ---- Room.

    pub(crate) fn demand(&self, unit: UnitIx) -> Resources {
        self.units[unit].asks().resources
    }

    /// Why there is no room for the unit and all of `group` beside everything that is or may still be on the machine.
    pub(crate) fn no_room(&self, unit: UnitIx, host: HostIx, group: &[UnitIx]) -> Option<Reason> {
        let all = std::iter::once(&unit).chain(group);
        let wanted = all.clone().fold(Resources::NONE, |sum, one| plus(sum, self.demand(*one)));
        if wanted.is_none() {
            return None;
        }
        let on = &self.hosts[host];
        let limit = on.limit();
        if limit == crate::state::Limit::NONE {
            return None;
        }
        if let Some(unknown) = on.unknown {
            return Some(Reason::Stopping { unit: self.units[unknown].name.clone() });
        }
        // Where one of them may still be, it takes no more than it has.
        let has = all.filter(|one| on.reported.contains(one) && !on.placed.contains(one));
        let used = has.fold(on.used, |used, one| minus(used, self.demand(*one)));
        let free = limit.free(used);
        if !covers(free, wanted) {
            return Some(Reason::NoRoom { wanted, free });
        }
        if self.eyes.is_empty() {
            return None;
        }
        let ahead = self.eyes_on(host).filter(|(other, _)| self.priority(*other) > self.priority(unit));
        let (by, kept) = ahead.fold((None, Resources::NONE), |(by, kept), (other, demand)| {
            (by.or(Some(other)), plus(kept, demand))
        });
        let by = by?;
        // What is being stopped will be free.
        let later = self.fixed(host);
        let free = limit.free(plus(later, kept));
        (!covers(free, wanted)).then(|| Reason::Reserved { by: self.units[by].name.clone() })
    }

    /// Units that want room to be made on this machine, the highest priority first.
    pub(crate) fn eyes_on(&self, host: HostIx) -> impl Iterator<Item = (UnitIx, Resources)> {
        let mut eyes: Vec<UnitIx> =
            self.eyes.iter().filter(|(_, on)| **on == host).map(|(unit, _)| *unit).collect();
        eyes.sort_by_key(|unit| (std::cmp::Reverse(self.priority(*unit)), self.units[*unit].name.clone()));
        eyes.into_iter().map(|unit| (unit, self.demand(unit)))
    }

    /// What is promised to placed and global units: all but what is being stopped.
    fn fixed(&self, host: HostIx) -> Resources {
        let on = &self.hosts[host];
        on.placed.iter().chain(&on.globals).fold(Resources::NONE, |sum, unit| plus(sum, self.demand(*unit)))
    }

    /// Whether the machine cannot hold all that is placed there and it is this unit that has to leave. Those of a
    /// higher priority stay, then those that came first.
    fn too_much(&self, unit: UnitIx, host: HostIx) -> Option<Reason> {
        let on = &self.hosts[host];
        let limit = on.limit();
        let wanted = self.demand(unit);
        let all = on.placed.iter().fold(Resources::NONE, |sum, one| plus(sum, self.demand(*one)));
        if wanted.is_none() || fits_limit(limit, all) {
            return None;
        }
        let mut ranked: Vec<UnitIx> = on.placed.clone();
        ranked.sort_by_key(|one| {
            let slot = &self.units[*one];
            (std::cmp::Reverse(slot.asks().priority), slot.placed.map(|placed| placed.id), slot.name.clone())
        });
        let mut used = Resources::NONE;
        for one in ranked {
            let free = limit.free(used);
            let fits = covers(free, self.demand(one));
            if one == unit {
                return (!fits).then_some(Reason::NoRoom { wanted, free });
            }
            if fits {
                used = plus(used, self.demand(one));
            }
        }
        None
    }
}

/// Whether all of it fits.
pub(crate) fn fits_limit(limit: crate::state::Limit, used: Resources) -> bool {
    limit.memory.is_none_or(|memory| used.memory <= memory) && limit.cpu.is_none_or(|cpu| used.cpu <= cpu)
}
