//! The planner's running picture of who is where: made once from a snapshot, changed with every decision, so that
//! each decision sees those before it.
//!
//! Made for one plan at a time; a planner that lives on could keep it and feed it changes.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{DesiredState, Machine, MachineId, Requirements, Unit, UnitName, glob_matches};

use crate::{Reason, Snapshot, Verdict, is_active};

/// What the planner needs to know of a unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a UnitName,
    pub(crate) desired: DesiredState,
    pub(crate) requirements: &'a Requirements,
}

static NO_REQUIREMENTS: Requirements = Requirements::NONE;

impl<'a> Wanted<'a> {
    pub(crate) fn of(unit: &'a Unit) -> Wanted<'a> {
        Wanted { name: &unit.name, desired: unit.desired, requirements: &unit.requirements }
    }

    /// Runs on every machine that satisfies it.
    pub(crate) fn is_global(&self) -> bool {
        self.requirements.global && is_active(self.name, self.desired)
    }

    /// Runs on one machine that has to be chosen.
    pub(crate) fn needs_placement(&self) -> bool {
        !self.requirements.global && is_active(self.name, self.desired)
    }

    /// Why it can be on no machine whatever; none if it needs a placement.
    pub(crate) fn no_placement(&self) -> Option<Reason> {
        if self.name.is_template() {
            Some(Reason::Template)
        } else if self.desired == DesiredState::Inactive {
            Some(Reason::Inactive)
        } else {
            self.requirements.global.then_some(Reason::Global)
        }
    }

    fn conflicts_with(&self, other: &Wanted<'_>) -> bool {
        let names = |one: &Wanted<'_>, two: &Wanted<'_>| {
            one.requirements.conflicts.iter().any(|glob| glob_matches(glob, two.name.as_str()))
        };
        self.name != other.name && (names(self, other) || names(other, self))
    }
}

/// The snapshot's units as the planner sees them.
pub(crate) fn wanted(snapshot: &Snapshot) -> BTreeMap<&UnitName, Wanted<'_>> {
    snapshot.units.iter().map(|(name, unit)| (name, Wanted::of(unit))).collect()
}

/// Those of `globals` (in the order of names) that run on `machine` beside the units `placed` there. A global unit
/// steps back for placed units, and for global units before it.
pub(crate) fn running_globals<'a>(
    machine: &Machine,
    globals: impl IntoIterator<Item = Wanted<'a>>,
    placed: &[Wanted<'_>],
) -> Vec<Wanted<'a>> {
    let mut running: Vec<Wanted<'a>> = Vec::new();
    for global in globals {
        let free = own_terms(&global, machine).is_none()
            && !placed.iter().any(|other| global.conflicts_with(other))
            && !running.iter().any(|other| global.conflicts_with(other));
        if free {
            running.push(global);
        }
    }
    running
}

/// What the unit asks of the machine itself.
fn own_terms(unit: &Wanted<'_>, machine: &Machine) -> Option<Reason> {
    let requirements = unit.requirements;
    if let Some(wanted) = &requirements.machine_id
        && wanted != machine.id.as_str()
        && wanted != machine.id.short()
    {
        return Some(Reason::OtherMachine { wanted: wanted.clone() });
    }
    let (key, wanted) = lacking(&requirements.metadata, machine)?;
    Some(Reason::Metadata { key: key.clone(), wanted: wanted.clone() })
}

/// The first metadata of those wanted that the machine has not got.
fn lacking<'m>(wanted: &'m Metadata, machine: &Machine) -> Option<(&'m String, &'m BTreeSet<String>)> {
    wanted
        .iter()
        .find(|(key, values)| !machine.metadata.get(*key).is_some_and(|value| values.contains(value)))
}

/// A machine and what is on it.
#[derive(Debug)]
struct Host<'a> {
    machine: &'a Machine,
    present: bool,
    placed: BTreeMap<&'a UnitName, Wanted<'a>>,
    globals: Vec<Wanted<'a>>,
    /// What the machine says something of, placed or not.
    reported: Vec<Wanted<'a>>,
    /// The pools that it is in.
    pools: Vec<usize>,
}

impl Host<'_> {
    /// Units that are or should be running here.
    fn load(&self) -> usize {
        self.placed.len() + self.globals.len()
    }
}

/// For each key, one of the values.
type Metadata = BTreeMap<String, BTreeSet<String>>;

/// The machines that are there and have some metadata, the least loaded first. Units that ask for the same metadata
/// share a pool, so that none of them has to look at machines that cannot suit it.
type Pool<'a> = BTreeSet<(usize, &'a MachineId)>;

#[derive(Debug)]
pub(crate) struct View<'a> {
    wanted: BTreeMap<&'a UnitName, Wanted<'a>>,
    globals: Vec<Wanted<'a>>,
    /// Units with `Replaces=`.
    replacers: Vec<Wanted<'a>>,
    /// Units by a unit that they are `MachineOf=`.
    followers: BTreeMap<&'a str, Vec<&'a UnitName>>,
    hosts: BTreeMap<&'a MachineId, Host<'a>>,
    /// For each `MachineMetadata=` that was asked for, its pool.
    pool_numbers: BTreeMap<&'a Metadata, usize>,
    pools: Vec<Pool<'a>>,
    placed: BTreeMap<&'a UnitName, &'a MachineId>,
    /// Machines that are there and say something of the unit.
    reporting: BTreeMap<&'a UnitName, Vec<&'a MachineId>>,
}

impl<'a> View<'a> {
    /// The picture of `snapshot`, with `wanted` in place of its units and without the placements of `unplaced`.
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        wanted: BTreeMap<&'a UnitName, Wanted<'a>>,
        unplaced: &BTreeSet<&UnitName>,
    ) -> View<'a> {
        let mut view = View {
            globals: wanted.values().filter(|unit| unit.is_global()).copied().collect(),
            replacers: wanted
                .values()
                .filter(|unit| !unit.requirements.replaces.is_empty())
                .copied()
                .collect(),
            followers: BTreeMap::new(),
            hosts: BTreeMap::new(),
            pool_numbers: BTreeMap::new(),
            pools: Vec::new(),
            placed: BTreeMap::new(),
            reporting: BTreeMap::new(),
            wanted,
        };
        for unit in view.wanted.values() {
            for target in &unit.requirements.machine_of {
                view.followers.entry(target).or_default().push(unit.name);
            }
        }
        for (id, (machine, presence)) in &snapshot.machines {
            let host = Host {
                machine,
                present: presence.is_some(),
                placed: BTreeMap::new(),
                globals: Vec::new(),
                reported: Vec::new(),
                pools: Vec::new(),
            };
            view.hosts.insert(id, host);
        }
        for (id, name) in snapshot.statuses.keys() {
            let unit = view.wanted_or_unknown(name);
            if let Some(host) = view.hosts.get_mut(id) {
                host.reported.push(unit);
                if host.present {
                    view.reporting.entry(name).or_default().push(id);
                }
            }
        }
        for (name, placement) in snapshot.placements.iter().filter(|(name, _)| !unplaced.contains(name)) {
            let unit = view.wanted_or_unknown(name);
            view.placed.insert(name, &placement.machine);
            if let Some(host) = view.hosts.get_mut(&placement.machine) {
                host.placed.insert(name, unit);
            }
        }
        for id in snapshot.machines.keys() {
            view.update_host(id, |_| ());
        }
        view
    }

    pub(crate) fn wanted(&self, name: &UnitName) -> Option<&Wanted<'a>> {
        self.wanted.get(name)
    }

    /// Every unit, in the order of names.
    pub(crate) fn units(&self) -> impl Iterator<Item = Wanted<'a>> {
        self.wanted.values().copied()
    }

    pub(crate) fn machine_of(&self, name: &UnitName) -> Option<&'a MachineId> {
        self.placed.get(name).copied()
    }

    /// Units that name `name` in `MachineOf=`.
    pub(crate) fn followers(&self, name: &UnitName) -> &[&'a UnitName] {
        self.followers.get(name.as_str()).map_or(&[], Vec::as_slice)
    }

    /// The units placed on `machine` that give way when `unit` comes there.
    pub(crate) fn victims(&self, unit: &Wanted<'a>, machine: &MachineId) -> Vec<&'a UnitName> {
        if unit.requirements.replaces.is_empty() {
            return Vec::new();
        }
        let placed = self.hosts.get(machine).into_iter().flat_map(|host| host.placed.values());
        placed.filter(|other| self.replaces(unit, other)).map(|other| other.name).collect()
    }

    pub(crate) fn place(&mut self, unit: &Wanted<'a>, machine: &'a MachineId) {
        self.placed.insert(unit.name, machine);
        // From now on the unit counts as being there until the machine has confirmed that it is not.
        let reporting = self.reporting.entry(unit.name).or_default();
        let is_new = !reporting.contains(&machine);
        if is_new {
            reporting.push(machine);
        }
        self.update_host(machine, |host| {
            host.placed.insert(unit.name, *unit);
            if is_new {
                host.reported.push(*unit);
            }
        });
    }

    pub(crate) fn unplace(&mut self, name: &UnitName) -> Option<&'a MachineId> {
        let machine = self.placed.remove(name)?;
        self.update_host(machine, |host| {
            host.placed.remove(name);
        });
        Some(machine)
    }

    /// The least loaded machine that the unit can come to along with `group`, which are units that follow it.
    pub(crate) fn choose(&mut self, unit: &Wanted<'a>, group: &[Wanted<'a>]) -> Option<&'a MachineId> {
        // Where it can only be one machine, there is no need to ask them all.
        let only = match self.reporting.get(unit.name).map(Vec::as_slice) {
            Some([machine]) => Some(*machine),
            Some([_, ..]) => return None,
            _ => match unit.requirements.machine_of.first() {
                Some(target) => Some(self.machine_of_text(target)?),
                None => None,
            },
        };
        let pool = self.pool(&unit.requirements.metadata);
        let view = &*self;
        let fits = |machine: &MachineId| {
            view.objection_to_coming(unit, machine, group).is_none()
                && group.iter().all(|one| view.objection_to_coming_with(one, machine, unit, group).is_none())
        };
        match only {
            Some(machine) => fits(machine).then_some(machine),
            None => {
                let pool = view.pools.get(pool)?;
                pool.iter().map(|(_, machine)| *machine).find(|machine| fits(machine))
            }
        }
    }

    /// The number of the pool of machines with this metadata, which is filled when it is first asked for.
    fn pool(&mut self, metadata: &'a Metadata) -> usize {
        if let Some(number) = self.pool_numbers.get(metadata) {
            return *number;
        }
        let number = self.pools.len();
        let mut pool = Pool::new();
        for (id, host) in &mut self.hosts {
            if host.present && lacking(metadata, host.machine).is_none() {
                pool.insert((host.load(), *id));
                host.pools.push(number);
            }
        }
        self.pools.push(pool);
        self.pool_numbers.insert(metadata, number);
        number
    }

    /// What the unit and its machine are without regard to other units; the machine has to be there.
    pub(crate) fn objection_by_itself(&self, unit: &Wanted<'a>, machine: &MachineId) -> Option<Reason> {
        match self.hosts.get(machine) {
            Some(host) if host.present => own_terms(unit, host.machine),
            _ => Some(Reason::Away),
        }
    }

    /// What the unit and the machine that it is placed on are without regard to other units. That the machine is away
    /// counts only where another could take over: else the unit finds its placement again when the machine is back,
    /// and what ran there meanwhile is not touched.
    pub(crate) fn objection_to_being(&self, unit: &Wanted<'a>, machine: &MachineId) -> Option<Reason> {
        let host = self.hosts.get(machine);
        host.and_then(|host| own_terms(unit, host.machine)).or_else(|| {
            let away = host.is_none_or(|host| !host.present);
            (away && self.could_be_elsewhere(unit)).then_some(Reason::Away)
        })
    }

    /// Whether some machine that is there suits the unit and all that it has to be together with.
    fn could_be_elsewhere(&self, unit: &Wanted<'a>) -> bool {
        let mut group = vec![*unit];
        let mut next = 0;
        while let Some(one) = group.get(next) {
            let names =
                one.requirements.machine_of.iter().filter_map(|target| target.parse::<UnitName>().ok());
            let targets: Vec<Wanted<'a>> = names.filter_map(|name| self.wanted(&name)).copied().collect();
            for target in targets {
                if !group.iter().any(|known| known.name == target.name) {
                    group.push(target);
                }
            }
            next += 1;
        }
        let suits = |host: &Host<'_>| group.iter().all(|one| own_terms(one, host.machine).is_none());
        self.hosts.values().any(|host| host.present && suits(host))
    }

    /// Why the unit cannot stay on the machine that it is placed on.
    pub(crate) fn objection_to_staying(&self, unit: &Wanted<'a>, machine: &MachineId) -> Option<Reason> {
        self.objection_to_being(unit, machine)
            .or_else(|| self.apart(unit, machine, &[]))
            .or_else(|| self.objection_of_placed(unit, machine))
    }

    /// Why the unit cannot come to the machine now, other than for want of `group`, which come with it.
    fn objection_to_coming(
        &self,
        unit: &Wanted<'a>,
        machine: &MachineId,
        group: &[Wanted<'a>],
    ) -> Option<Reason> {
        self.objection_by_itself(unit, machine)
            // The units of the group follow this one: none of them can be waited for.
            .or_else(|| self.apart(unit, machine, &[]))
            .or_else(|| group.iter().find(|other| unit.conflicts_with(other)).map(conflict))
            .or_else(|| self.objection_of_placed(unit, machine))
            .or_else(|| self.objection_of_others(unit, machine))
    }

    /// The same for a unit of `group`, which follows `leader`.
    fn objection_to_coming_with(
        &self,
        unit: &Wanted<'a>,
        machine: &MachineId,
        leader: &Wanted<'a>,
        group: &[Wanted<'a>],
    ) -> Option<Reason> {
        let mut together: Vec<&str> = group.iter().map(|one| one.name.as_str()).collect();
        together.push(leader.name.as_str());
        self.objection_by_itself(unit, machine)
            .or_else(|| self.apart(unit, machine, &together))
            .or_else(|| group.iter().find(|other| unit.conflicts_with(other)).map(conflict))
            .or_else(|| self.objection_of_placed(unit, machine))
            .or_else(|| self.objection_of_others(unit, machine))
    }

    pub(crate) fn verdict(&self, unit: &Wanted<'a>, machine: &MachineId) -> Verdict {
        let host = self.hosts.get(machine);
        let is_here = if unit.is_global() {
            host.is_some_and(|host| host.globals.iter().any(|global| global.name == unit.name))
        } else {
            unit.needs_placement() && self.machine_of(unit.name) == Some(machine)
        };
        if is_here {
            return Verdict::Here;
        }
        let objection = match unit.no_placement() {
            Some(Reason::Global) => host.and_then(|host| {
                own_terms(unit, host.machine)
                    .or_else(|| host.placed.values().find(|other| unit.conflicts_with(other)).map(conflict))
                    .or_else(|| host.globals.iter().find(|other| unit.conflicts_with(other)).map(conflict))
            }),
            Some(reason) => Some(reason),
            None => self
                .objection_to_coming(unit, machine, &[])
                .or_else(|| self.machine_of(unit.name).map(|on| Reason::StillOn { machine: on.clone() })),
        };
        objection.map_or(Verdict::Fits, Verdict::No)
    }

    /// The unit as it is wanted; one that is not wanted asks for nothing.
    fn wanted_or_unknown(&self, name: &'a UnitName) -> Wanted<'a> {
        let unknown = Wanted { name, desired: DesiredState::Inactive, requirements: &NO_REQUIREMENTS };
        self.wanted.get(name).copied().unwrap_or(unknown)
    }

    fn machine_of_text(&self, name: &str) -> Option<&'a MachineId> {
        let name: UnitName = name.parse().ok()?;
        self.machine_of(&name)
    }

    /// A `MachineOf=` that is not on the machine and not in `together`.
    fn apart(&self, unit: &Wanted<'a>, machine: &MachineId, together: &[&str]) -> Option<Reason> {
        let away = unit.requirements.machine_of.iter().find(|target| {
            !together.contains(&target.as_str()) && self.machine_of_text(target) != Some(machine)
        })?;
        Some(Reason::Apart { from: away.clone() })
    }

    /// What units that are placed on the machine have against this one.
    fn objection_of_placed(&self, unit: &Wanted<'a>, machine: &MachineId) -> Option<Reason> {
        let placed = &self.hosts.get(machine)?.placed;
        if let Some(other) = placed.values().find(|other| unit.conflicts_with(other)) {
            return Some(conflict(other));
        }
        if self.replacers.is_empty() {
            return None;
        }
        let over = placed.values().find(|other| self.replaces(other, unit))?;
        Some(Reason::GivesWay { to: over.name.clone() })
    }

    /// What else keeps a unit from coming: global units, units that are still being stopped, its own former machine.
    fn objection_of_others(&self, unit: &Wanted<'a>, machine: &MachineId) -> Option<Reason> {
        let host = self.hosts.get(machine)?;
        if let Some(other) =
            host.globals.iter().chain(&host.reported).find(|other| unit.conflicts_with(other))
        {
            return Some(conflict(other));
        }
        let still_on = self.reporting.get(unit.name)?.iter().find(|other| **other != machine)?;
        Some(Reason::StillOn { machine: (*still_on).clone() })
    }

    /// Whether `unit` takes the place of `other`. Where units would replace each other in a circle, none does.
    fn replaces(&self, unit: &Wanted<'_>, other: &Wanted<'_>) -> bool {
        names_replaced(unit, other) && !self.leads_to(other, unit)
    }

    /// Whether a chain of `Replaces=` goes from `from` to `to`.
    fn leads_to(&self, from: &Wanted<'_>, to: &Wanted<'_>) -> bool {
        if from.requirements.replaces.is_empty() {
            return false;
        }
        let mut seen: BTreeSet<&UnitName> = BTreeSet::new();
        let mut ahead = vec![*from];
        while let Some(unit) = ahead.pop() {
            if names_replaced(&unit, to) {
                return true;
            }
            for next in &self.replacers {
                if names_replaced(&unit, next) && seen.insert(next.name) {
                    ahead.push(*next);
                }
            }
        }
        false
    }

    /// Changes what is on a machine, and with it which global units run there and how loaded it is.
    fn update_host(&mut self, id: &'a MachineId, change: impl FnOnce(&mut Host<'a>)) {
        let Some(host) = self.hosts.get_mut(id) else { return };
        let before = host.load();
        change(host);
        if !self.globals.is_empty() {
            let placed: Vec<Wanted<'a>> =
                host.placed.values().filter(|unit| unit.needs_placement()).copied().collect();
            host.globals = running_globals(host.machine, self.globals.iter().copied(), &placed);
        }
        for number in &host.pools {
            if let Some(pool) = self.pools.get_mut(*number) {
                pool.remove(&(before, id));
                pool.insert((host.load(), id));
            }
        }
    }
}

fn names_replaced(unit: &Wanted<'_>, other: &Wanted<'_>) -> bool {
    unit.name != other.name
        && unit.requirements.replaces.iter().any(|glob| glob_matches(glob, other.name.as_str()))
}

fn conflict(other: &Wanted<'_>) -> Reason {
    Reason::Conflict { with: other.name.clone() }
}
