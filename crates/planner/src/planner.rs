//! The planner that lives: it keeps what it was told, and looks again only at what a change concerns.
//!
//! Everything that may have to be done is marked when something changes that could make it necessary or possible, and
//! what is marked is looked at in one fixed order. Looking at more than is necessary does no harm, so the next action
//! depends on the state alone: a planner that was told the same state another way decides the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sealift_model::{
    ActiveState, Gate, MachineId, Placement, ProjectName, RunId, Timestamp, Unit, UnitName, UnitStatus,
    UpdateStage,
};

use crate::glob::Glob;
use crate::globals::{self, Ground, Party};
use crate::pools::{Filter, Pool, Standing};
use crate::runs::Queue;
use crate::state::{Host, HostIx, Placed, PoolIx, Set, SetIx, Slots, UnitIx, UnitSlot, Word, plus};
use crate::{Action, AppView, Change, Plan, Problem, Snapshot};

/// What is to be known of unit files, by whoever can read them.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// What the file of a template asks for when it is read as one of its instances; none if it cannot be read.
    pub requirements: fn(template: &Unit, instance: &UnitName) -> Option<sealift_model::Requirements>,
    /// Whether systemd reads the same in two texts.
    pub same_text: fn(&str, &str) -> bool,
}

impl Reader {
    /// For templates that do not name their instances, and texts of which every byte counts.
    pub const PLAIN: Reader = Reader {
        requirements: |template, _| Some(template.requirements.clone()),
        same_text: |one, other| one == other,
    };
}

/// Pools that nothing but a wish asks for, before they are thrown away.
const WISHED_POOLS: usize = 256;
/// A unit that had to leave this often since anything changed from outside is left alone until then. Giving way goes in no
/// circle, so nobody should have to; if it happens in a way that nobody thought of, the plan ends all the same.
const MAX_DISPLACED: u32 = 3;

/// Higher priorities first, then those that lead nobody's way: units that follow others and can go to one machine only.
pub(crate) type Turn = (Reverse<i32>, bool, UnitName);

/// The state, what it means, and what has to be looked at.
#[derive(Debug, Clone)]
pub struct Planner {
    pub(crate) reader: Reader,
    pub(crate) units: Slots<UnitSlot>,
    pub(crate) unit_numbers: HashMap<UnitName, UnitIx>,
    pub(crate) hosts: Slots<Host>,
    pub(crate) host_numbers: BTreeMap<MachineId, HostIx>,
    pub(crate) sets: Slots<Set>,
    pub(crate) set_numbers: BTreeMap<UnitName, SetIx>,
    pub(crate) pools: Slots<Pool>,
    pool_numbers: BTreeMap<Filter, PoolIx>,
    wished: Vec<PoolIx>,
    /// Active global units in the order of names.
    pub(crate) globals: BTreeMap<UnitName, UnitIx>,
    /// Units with `Replaces=`.
    pub(crate) replacers: BTreeMap<UnitName, UnitIx>,
    /// Units by a unit that they are `MachineOf=`, in the order of names.
    followers: HashMap<String, BTreeMap<UnitName, UnitIx>>,
    /// All placed units.
    pub(crate) placed_names: BTreeMap<String, UnitIx>,
    pub(crate) last_placement: u64,
    pub(crate) apps: BTreeMap<ProjectName, Arc<AppView>>,
    /// The apps that have a unit of this name in their current release.
    pub(crate) claims: BTreeMap<UnitName, BTreeSet<ProjectName>>,
    /// Units of each app, but for instances that a template makes.
    pub(crate) owned: BTreeMap<ProjectName, BTreeSet<UnitName>>,
    /// Instances that each template made.
    pub(crate) instances: BTreeMap<UnitName, BTreeSet<UnitName>>,
    pub(crate) problems: BTreeMap<(Option<ProjectName>, UnitName), Problem>,
    pub(crate) queue: Queue,
    /// Names whose unit may have to be made, changed or removed.
    pub(crate) names: BTreeSet<UnitName>,
    pub(crate) removals: BTreeSet<UnitName>,
    /// The generations of units that were removed since all names were looked at.
    pub(crate) removed: BTreeMap<UnitName, u64>,
    /// Placed units that may be wrong by themselves.
    pub(crate) by_themselves: BTreeSet<UnitName>,
    /// Placed units that may be wrong beside others: the lowest priority and then the newest first.
    pub(crate) beside_others: BTreeSet<(i32, Reverse<(u64, UnitName)>)>,
    /// Units that may find a machine.
    pub(crate) turns: BTreeSet<Turn>,
    /// Machines on which something may be wrong now.
    tightened: BTreeSet<HostIx>,
    /// Machines to which something may come now.
    loosened: BTreeSet<HostIx>,
    /// Placed units whose machine is away and that could go to no other.
    pub(crate) stranded: BTreeSet<UnitIx>,
    /// Where units that wait want room to be made, see `preempt`.
    pub(crate) eyes: BTreeMap<UnitIx, HostIx>,
    /// Units that may preempt others and wait.
    pub(crate) preemptors: BTreeSet<UnitIx>,
    /// All that need a machine and have none.
    pub(crate) unplaced: BTreeSet<UnitName>,
    pub(crate) displaced: BTreeMap<UnitIx, u32>,
    /// Rollouts that may go on: templates of instances that change, and other units that do.
    pub(crate) rollouts: BTreeSet<UnitName>,
    /// The generations of global units that machines were updated to.
    pub(crate) updated: BTreeMap<UnitName, BTreeMap<MachineId, u64>>,
    /// Until when units that had their turn have to be up.
    pub(crate) deadlines: BTreeSet<(Timestamp, UnitName)>,
    /// Whose turn it is.
    looked_at: Option<UnitIx>,
}

impl Planner {
    /// One that knows of nothing yet.
    #[must_use]
    pub fn new(reader: Reader) -> Planner {
        Planner {
            reader,
            units: Slots::default(),
            unit_numbers: HashMap::new(),
            hosts: Slots::default(),
            host_numbers: BTreeMap::new(),
            sets: Slots::default(),
            set_numbers: BTreeMap::new(),
            pools: Slots::default(),
            pool_numbers: BTreeMap::new(),
            wished: Vec::new(),
            globals: BTreeMap::new(),
            replacers: BTreeMap::new(),
            followers: HashMap::new(),
            placed_names: BTreeMap::new(),
            last_placement: 0,
            apps: BTreeMap::new(),
            claims: BTreeMap::new(),
            owned: BTreeMap::new(),
            instances: BTreeMap::new(),
            problems: BTreeMap::new(),
            queue: Queue::default(),
            names: BTreeSet::new(),
            removals: BTreeSet::new(),
            removed: BTreeMap::new(),
            by_themselves: BTreeSet::new(),
            beside_others: BTreeSet::new(),
            turns: BTreeSet::new(),
            tightened: BTreeSet::new(),
            loosened: BTreeSet::new(),
            stranded: BTreeSet::new(),
            eyes: BTreeMap::new(),
            preemptors: BTreeSet::new(),
            unplaced: BTreeSet::new(),
            displaced: BTreeMap::new(),
            rollouts: BTreeSet::new(),
            updated: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            looked_at: None,
        }
    }

    /// One that knows this state.
    #[must_use]
    pub fn of(snapshot: &Snapshot, reader: Reader) -> Planner {
        let mut planner = Planner::new(reader);
        for change in snapshot.changes_since(&Snapshot::default()) {
            planner.feed(change);
        }
        planner
    }

    /// Tells how an object is now.
    pub fn feed(&mut self, change: Change) {
        let changed = match change {
            Change::Machine(id, machine) => self.set_host(&id, |host| host.machine = machine),
            Change::Presence(id, presence) => self.set_host(&id, |host| host.presence = presence),
            Change::Settings(id, settings) => {
                self.set_host(&id, |host| host.settings = settings.unwrap_or_default())
            }
            Change::Unit(name, unit) => {
                self.removed.remove(&name);
                self.set_unit(&name, unit)
            }
            Change::Placement(name, placement) => self.set_placement(&name, placement.as_ref(), false),
            Change::Status(machine, unit, status) => {
                self.set_word(&machine, &unit, status.as_ref().map(word), false)
            }
            Change::Updated(machine, unit, generation) => self.set_updated(&unit, &machine, generation),
            Change::Run(id, run) => self.set_run(&id, run),
            Change::App(project, view) => self.set_app(&project, view),
            Change::LastPlacement(id) => {
                self.last_placement = id;
                false
            }
        };
        if changed && !self.displaced.is_empty() {
            // Those that had to leave too often may try again.
            for unit in std::mem::take(&mut self.displaced).into_keys() {
                self.take_turn(unit);
            }
        }
    }

    /// The next actions in their order, about `limit` at most (what belongs together stays together); none when nothing
    /// is left to do. They count as carried out at `now`: if one was not, tell how everything that it
    /// [writes](Action::writes) really is.
    pub fn plan(&mut self, limit: usize, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        while actions.len() < limit {
            let Some(step) = self.step(now) else { break };
            if !actions.is_empty() && actions.len() + step.len() > limit {
                // It is found again next time.
                self.put_back(&step);
                break;
            }
            for action in &step {
                self.carry_out(action, now);
            }
            actions.extend(step);
        }
        actions
    }

    /// What would be done if these objects were so, `limit` actions at most, as if every machine did at once what it is told.
    /// Nothing is changed. It costs a copy of everything the planner knows.
    #[must_use]
    pub fn what_if(
        &self,
        changes: impl IntoIterator<Item = Change>,
        limit: usize,
        now: Timestamp,
    ) -> Vec<Action> {
        let mut copy = self.clone();
        for change in changes {
            copy.feed(change);
        }
        copy.play_out(Vec::new(), limit, now)
    }

    /// Goes on from these actions, which it has given, to where nothing is left to do, as if every machine did at once what
    /// it is told: stops are confirmed, and what is placed comes up. Gives these actions and those that follow, about
    /// `limit` at most. For a copy: what it knows afterwards is made up.
    pub fn play_out(&mut self, begun: Vec<Action>, limit: usize, now: Timestamp) -> Vec<Action> {
        let mut actions = begun;
        let mut heard = 0;
        loop {
            let news: Vec<Action> = actions.get(heard..).unwrap_or_default().to_vec();
            heard = actions.len();
            self.hear_of(&news);
            if actions.len() >= limit {
                return actions;
            }
            let more = self.plan(limit - actions.len(), now);
            if more.is_empty() {
                return actions;
            }
            actions.extend(more);
        }
    }

    /// Machines have done what these actions want of them.
    fn hear_of(&mut self, actions: &[Action]) {
        let mut stopped: BTreeSet<(MachineId, UnitName)> = BTreeSet::new();
        for action in actions {
            if let Action::Unplace { unit, machine, with, .. } = action {
                stopped.extend(std::iter::once(unit).chain(with).map(|unit| (machine.clone(), unit.clone())));
            }
        }
        for (machine, unit) in &stopped {
            let back = self.placement(unit).is_some_and(|placement| placement.machine == *machine);
            if !back {
                self.set_word(machine, unit, None, false);
            }
        }
        for action in actions {
            match action {
                Action::Place { unit, machine } => self.comes_up(unit, machine),
                Action::PutUnit { unit } => {
                    if let Some(placement) = self.placement(&unit.name) {
                        self.comes_up(&unit.name, &placement.machine);
                    }
                }
                Action::Update { unit, machine, .. } => self.comes_up(unit, machine),
                _ => {}
            }
        }
    }

    /// The machine says that it has the unit as it is wanted, and that it is up.
    fn comes_up(&mut self, unit: &UnitName, machine: &MachineId) {
        let placement = self.placement(unit).filter(|placement| placement.machine == *machine);
        let is_global = self.slot(unit).is_some_and(UnitSlot::is_global);
        if placement.is_none() && !is_global {
            return;
        }
        let generation = self
            .unit(unit)
            .map_or(0, |unit| unit.given().map_or(unit.generation, |version| version.generation));
        let placement = placement.map_or(0, |placement| placement.id);
        let word = Word { placement, up: true, settling: false, generation, failed: None };
        self.set_word(machine, unit, Some(word), false);
    }

    /// What somebody has to look at, as far as everything was looked at.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.values().cloned().collect()
    }

    /// Units that need a machine and have none, in the order of names.
    pub fn unplaced(&self) -> impl Iterator<Item = &UnitName> {
        self.unplaced.iter()
    }

    /// How many units need a machine and have none.
    #[must_use]
    pub fn unplaced_count(&self) -> usize {
        self.unplaced.len()
    }

    /// How many machines it was told of.
    #[must_use]
    pub fn machine_count(&self) -> usize {
        self.host_numbers.len()
    }

    /// What the planner takes for the unit of this name.
    #[must_use]
    pub fn unit(&self, name: &UnitName) -> Option<&Unit> {
        self.slot(name)?.unit.as_deref()
    }

    /// What the planner takes for the unit's placement.
    #[must_use]
    pub fn placement(&self, name: &UnitName) -> Option<Placement> {
        let slot = self.slot(name)?;
        let placed = slot.placed?;
        let machine = self.hosts[placed.host].id.clone();
        Some(Placement { id: placed.id, unit: name.clone(), machine, since: placed.since })
    }

    /// The machine of every unit that is placed on one that is there.
    #[must_use]
    pub fn standing(&self) -> BTreeMap<UnitName, MachineId> {
        let placed = self.placed_names.values().map(|unit| &self.units[*unit]);
        let there = placed.filter_map(|slot| {
            let host = &self.hosts[slot.on()?];
            host.is_there().then(|| (slot.name.clone(), host.id.clone()))
        });
        there.collect()
    }

    /// Every machine that is there with the global units that are to run on it, in the order of machines and of names.
    #[must_use]
    pub fn standing_globals(&self) -> BTreeSet<(MachineId, UnitName)> {
        let there = self.host_numbers.values().map(|host| &self.hosts[*host]).filter(|host| host.is_there());
        let globals = there.flat_map(|host| {
            host.globals.iter().map(|unit| (host.id.clone(), self.units[*unit].name.clone()))
        });
        globals.collect()
    }

    /// The id of the newest placement.
    #[must_use]
    pub fn last_placement(&self) -> u64 {
        self.last_placement
    }

    /// What the planner takes for the run.
    #[must_use]
    pub fn run(&self, id: &RunId) -> Option<&sealift_model::Run> {
        self.queue.runs.get(id).map(|run| &**run)
    }

    pub(crate) fn hosts_known(&self) -> impl Iterator<Item = &Host> {
        self.host_numbers.values().map(|host| &self.hosts[*host]).filter(|host| host.is_known())
    }

    /// The instances of the template that this unit is one of.
    pub(crate) fn set_of(&self, name: &UnitName) -> Option<SetIx> {
        self.set_numbers.get(&name.template()?).copied()
    }

    pub(crate) fn slot(&self, name: &UnitName) -> Option<&UnitSlot> {
        self.unit_numbers.get(name).map(|number| &self.units[*number])
    }

    pub(crate) fn number(&self, name: &str) -> Option<UnitIx> {
        let name: UnitName = name.parse().ok()?;
        self.unit_numbers.get(&name).copied()
    }

    /// Those that name `name` in `MachineOf=`.
    pub(crate) fn followers(&self, name: &UnitName) -> impl DoubleEndedIterator<Item = UnitIx> {
        let followers = if self.followers.is_empty() { None } else { self.followers.get(name.as_str()) };
        followers.into_iter().flat_map(|units| units.values().copied())
    }

    // ---- One action.

    /// The first thing that is to be done in this state.
    fn step(&mut self, now: Timestamp) -> Option<Vec<Action>> {
        self.looked_at = None;
        loop {
            if let Some(action) = self.next_of_runs() {
                return Some(vec![action]);
            }
            if let Some(action) = self.next_of_names(now) {
                return Some(vec![action]);
            }
            if let Some(action) = self.next_of_rollouts(now) {
                return Some(vec![action]);
            }
            self.look_at_hosts();
            if let Some(action) = self.next_to_leave() {
                return Some(vec![action]);
            }
            let Some(popped) = self.turns.pop_first() else {
                let unseen = !self.names.is_empty() || !self.rollouts.is_empty();
                if self.tightened.is_empty() && self.loosened.is_empty() && !unseen {
                    return None;
                }
                continue;
            };
            // A turn that it had before it changed is not its turn any more.
            let unit = self.unit_numbers.get(&popped.2).copied();
            let Some(unit) = unit.filter(|unit| turn(&self.units[*unit]) == popped) else { continue };
            self.looked_at = Some(unit);
            if let Some(actions) = self.place(unit) {
                return Some(actions);
            }
        }
    }

    /// What a step would have done is to be found again.
    fn put_back(&mut self, step: &[Action]) {
        if let Some(unit) = self.looked_at {
            self.take_turn(unit);
        }
        for action in step {
            match action {
                Action::PutUnit { unit } => drop(self.names.insert(unit.name.clone())),
                Action::RemoveUnit { name } => drop(self.names.insert(name.clone())),
                Action::Unplace { unit, .. } => {
                    self.names.insert(unit.clone());
                    if let Some(unit) = self.unit_numbers.get(unit).copied() {
                        self.check(unit);
                    }
                }
                // Its turn was the last one.
                Action::Place { .. } | Action::Dispatch { .. } => {}
                Action::Update { unit, .. } => drop(self.rollouts.insert(unit.clone())),
                Action::Lose { run, .. } | Action::GiveUp { run, .. } => self.queue.check(run),
            }
        }
    }

    pub(crate) fn carry_out(&mut self, action: &Action, now: Timestamp) {
        match action {
            Action::PutUnit { unit } => drop(self.set_unit(&unit.name, Some(Arc::new((**unit).clone())))),
            Action::RemoveUnit { name } => drop(self.set_unit(name, None)),
            Action::Update { unit, machine, generation } => {
                self.set_updated(unit, machine, *generation);
            }
            Action::Place { unit, machine } => {
                self.last_placement += 1;
                let id = self.last_placement;
                let placement = Placement { id, unit: unit.clone(), machine: machine.clone(), since: now };
                let word = Word { placement: id, up: false, settling: false, generation: 0, failed: None };
                self.set_word(machine, unit, Some(word), true);
                self.set_placement(unit, Some(&placement), true);
            }
            Action::Unplace { unit, with, reason, .. } => {
                for name in std::iter::once(unit).chain(with) {
                    self.set_placement(name, None, true);
                }
                if let crate::Reason::GivesWay { .. } = reason
                    && let Some(number) = self.unit_numbers.get(unit).copied()
                {
                    *self.displaced.entry(number).or_default() += 1;
                }
            }
            Action::Dispatch { run, .. } | Action::Lose { run, .. } | Action::GiveUp { run, .. } => {
                if let Some(mut changed) = self.queue.runs.get(run).map(|run| (**run).clone())
                    && crate::apply::apply_to_run(&mut changed, action, now)
                {
                    self.set_run(run, Some(Arc::new(changed)));
                }
            }
        }
    }

    /// Whether it gave way too often for now.
    pub(crate) fn is_tired(&self, unit: UnitIx) -> bool {
        self.displaced.get(&unit).is_some_and(|times| *times >= MAX_DISPLACED)
    }

    // ---- Units.

    pub(crate) fn unit_number(&mut self, name: &UnitName) -> UnitIx {
        if let Some(number) = self.unit_numbers.get(name) {
            return *number;
        }
        let set = name.template().map(|template| match self.set_numbers.get(&template) {
            Some(set) => *set,
            None => {
                let set = self.sets.add(Set { template: Some(template.clone()), ..Set::default() });
                self.set_numbers.insert(template, set);
                set
            }
        });
        let number = self.units.add(UnitSlot::new(name.clone(), set));
        if let Some(set) = set {
            self.sets[set].members.insert(number);
        }
        self.unit_numbers.insert(name.clone(), number);
        number
    }

    fn forget_blank(&mut self, number: UnitIx) {
        if !self.units[number].is_blank() {
            return;
        }
        let name = self.units[number].name.clone();
        if let Some(set) = self.units[number].set {
            let members = &mut self.sets[set];
            members.members.remove(&number);
            members.held.remove(&number);
            if members.members.is_empty() {
                let template = members.template.clone();
                self.set_numbers.retain(|name, _| Some(name) != template.as_ref());
                self.sets.free(set, Set::default());
            }
        }
        self.stranded.remove(&number);
        self.displaced.remove(&number);
        self.eyes.remove(&number);
        self.unit_numbers.remove(&name);
        self.units.free(number, UnitSlot::new(name, None));
    }

    fn set_unit(&mut self, name: &UnitName, unit: Option<Arc<Unit>>) -> bool {
        if self.slot(name).map(|slot| slot.unit.as_deref()) == Some(unit.as_deref())
            || (unit.is_none() && self.slot(name).is_none())
        {
            return false;
        }
        let number = self.unit_number(name);
        let old = self.units[number].unit.clone();
        self.preemptors.remove(&number);
        self.index_unit(number, old.as_deref(), false);
        let (conflicts, replaces) = unit.as_ref().map_or_else(Default::default, |unit| {
            let globs = |globs: &BTreeSet<String>| globs.iter().map(|glob| Glob::new(glob)).collect();
            (globs(&unit.asks().conflicts), globs(&unit.asks().replaces))
        });
        let slot = &mut self.units[number];
        slot.unit = unit.clone();
        (slot.conflicts, slot.replaces) = (conflicts, replaces);
        self.index_unit(number, unit.as_deref(), true);
        self.note_update(number, old.as_deref());
        // What it was and what it is now may matter to all that is where it is.
        let hosts: Vec<HostIx> = {
            let slot = &self.units[number];
            slot.on().into_iter().chain(slot.reported.iter().map(|(host, _)| *host)).collect()
        };
        for host in hosts {
            self.change_host(host, |_| ());
            self.touch(host);
        }
        if let Some(host) = self.eyes.remove(&number) {
            self.loosened.insert(host);
        }
        self.units[number].moving_from = None;
        self.names.insert(name.clone());
        self.check_with_followers(number);
        self.take_turn(number);
        if let Some(set) = self.units[number].set {
            self.wake_held(set);
        }
        self.forget_blank(number);
        true
    }

    /// Puts the unit in all indexes of units, or takes it out of them.
    fn index_unit(&mut self, number: UnitIx, unit: Option<&Unit>, add: bool) {
        let Some(unit) = unit else { return };
        let (name, asks) = (&unit.name, unit.asks());
        for target in &asks.machine_of {
            if add {
                self.followers.entry(target.clone()).or_default().insert(name.clone(), number);
            } else if let Some(units) = self.followers.get_mut(target) {
                units.remove(name);
                if units.is_empty() {
                    self.followers.remove(target);
                }
            }
        }
        let is_global = self.units[number].is_global();
        if is_global {
            if add {
                self.globals.insert(name.clone(), number);
            } else {
                self.globals.remove(name);
            }
            let hosts: Vec<HostIx> = self.host_numbers.values().copied().collect();
            for host in hosts {
                self.change_host(host, |_| ());
                self.touch(host);
            }
        }
        if self.units[number].needs_placement() {
            if add {
                let pool = self.pool(Filter::of(asks), true);
                self.pools[pool].users += 1;
                self.units[number].pool = Some(pool);
            } else if let Some(pool) = self.units[number].pool.take() {
                self.pools[pool].waiting.remove(&number);
                self.pools[pool].users -= 1;
                // The next unit may ask for the same.
                if self.pools[pool].users == 0 && !self.wished.contains(&pool) {
                    self.wished.push(pool);
                }
            }
        }
        if !asks.replaces.is_empty() {
            if add {
                self.replacers.insert(name.clone(), number);
            } else {
                self.replacers.remove(name);
            }
            // Who replaces whom depends on all of them.
            let all: Vec<UnitIx> = self.replacers.values().copied().collect();
            for replacer in all {
                if let Some(host) = self.units[replacer].on() {
                    self.touch(host);
                }
                self.take_turn(replacer);
            }
        }
        self.note_unplaced(number, add);
        if !unit.name.is_template() {
            if let Some(template) = &unit.template {
                index(&mut self.instances, template, name, add);
            } else if let Some((project, _)) = &unit.app {
                index(&mut self.owned, project, name, add);
            }
            return;
        }
        if let (None, Some((project, _))) = (&unit.template, &unit.app) {
            index(&mut self.owned, project, name, add);
        }
        self.mark_instances(unit);
    }

    fn note_unplaced(&mut self, number: UnitIx, is_unit: bool) {
        let slot = &self.units[number];
        if is_unit && slot.needs_placement() && slot.placed.is_none() {
            if !self.unplaced.contains(&slot.name) {
                self.unplaced.insert(slot.name.clone());
            }
        } else if !self.unplaced.is_empty() {
            self.unplaced.remove(&slot.name);
        }
    }

    /// Looks for a machine for the unit when its turn comes, if it needs one.
    pub(crate) fn take_turn(&mut self, number: UnitIx) {
        let slot = &self.units[number];
        if slot.placed.is_none() && slot.needs_placement() && !self.is_tired(number) {
            self.turns.insert(turn(slot));
        }
    }

    /// Looks whether a placed unit can stay.
    fn check(&mut self, number: UnitIx) {
        let slot = &self.units[number];
        let Some(placed) = slot.placed else { return };
        self.by_themselves.insert(slot.name.clone());
        let rank = (slot.asks().priority, Reverse((placed.id, slot.name.clone())));
        self.beside_others.insert(rank);
    }

    /// The same for all that follow it, by however many steps.
    fn check_with_followers(&mut self, number: UnitIx) {
        self.check(number);
        let mut seen = BTreeSet::from([number]);
        let mut ahead = vec![number];
        while let Some(unit) = ahead.pop() {
            let followers: Vec<UnitIx> = self.followers(&self.units[unit].name).collect();
            for follower in followers {
                if seen.insert(follower) {
                    self.check(follower);
                    self.take_turn(follower);
                    ahead.push(follower);
                }
            }
        }
    }

    /// Members that waited until more of the set are up look again.
    fn wake_held(&mut self, set: SetIx) {
        let held: Vec<UnitIx> = self.sets[set].held.iter().copied().collect();
        for unit in held {
            self.check(unit);
        }
        // Members that could not be taken away before may make room now.
        let preemptors: Vec<UnitIx> = self.preemptors.iter().copied().collect();
        for unit in preemptors {
            self.take_turn(unit);
        }
    }

    // ---- Where units are.

    pub(crate) fn set_placement(
        &mut self,
        name: &UnitName,
        placement: Option<&Placement>,
        own: bool,
    ) -> bool {
        if placement.is_none() && self.slot(name).is_none_or(|slot| slot.placed.is_none()) {
            return false;
        }
        let number = self.unit_number(name);
        let new = placement.map(|placement| Placed {
            host: self.host_number(&placement.machine),
            id: placement.id,
            since: placement.since,
        });
        let old = self.units[number].placed;
        if old == new {
            return false;
        }
        if let Some(host) = old.map(|old| old.host) {
            self.units[number].placed = None;
            self.placed_names.remove(name.as_str());
            self.count(number, host, false);
            self.change_units_of(host, number, Kind::Placed, false);
            self.loosened.insert(host);
            self.stranded.remove(&number);
        }
        if let Some(Placed { host, .. }) = new {
            self.units[number].placed = new;
            self.placed_names.insert(name.as_str().to_owned(), number);
            self.units[number].moving_from = None;
            self.count(number, host, true);
            self.change_units_of(host, number, Kind::Placed, true);
            self.unwait(number);
            if !own {
                self.tightened.insert(host);
            }
        }
        self.note_unplaced(number, true);
        self.mark_rollout(number);
        if own && new.is_some() {
            let followers: Vec<UnitIx> = self.followers(name).collect();
            for follower in followers {
                self.take_turn(follower);
            }
        } else {
            self.check_with_followers(number);
            self.take_turn(number);
        }
        if let Some(set) = self.units[number].set {
            self.sets[set].held.remove(&number);
            self.wake_held(set);
        }
        if self.units[number].unit.is_none() {
            self.names.insert(name.clone());
            self.forget_blank(number);
        }
        true
    }

    /// It waits for nothing any more.
    fn unwait(&mut self, number: UnitIx) {
        if let Some(pool) = self.units[number].pool {
            self.pools[pool].waiting.remove(&number);
        }
        self.preemptors.remove(&number);
        if let Some(host) = self.eyes.remove(&number) {
            self.loosened.insert(host);
        }
    }

    /// Keeps the counts of a set over metadata values.
    fn count(&mut self, number: UnitIx, host: HostIx, add: bool) {
        let Some(set) = self.units[number].set else { return };
        let metadata = &self.hosts[host].metadata;
        for (key, values) in &mut self.sets[set].counts {
            let count = values.entry(metadata.get(key).cloned()).or_default();
            *count = if add { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    pub(crate) fn set_word(
        &mut self,
        machine: &MachineId,
        name: &UnitName,
        word: Option<Word>,
        own: bool,
    ) -> bool {
        if word.is_none() && (self.slot(name).is_none() || !self.host_numbers.contains_key(machine)) {
            return false;
        }
        let (number, host) = (self.unit_number(name), self.host_number(machine));
        let reported = &mut self.units[number].reported;
        let known = reported.iter().position(|(on, _)| *on == host);
        match (known, word) {
            (Some(at), Some(word)) => {
                if reported[at].1 == word {
                    return false;
                }
                reported[at].1 = word;
            }
            (None, Some(word)) => {
                reported.push((host, word));
                self.change_units_of(host, number, Kind::Reported, true);
            }
            (Some(at), None) => {
                reported.swap_remove(at);
                self.change_units_of(host, number, Kind::Reported, false);
                self.loosened.insert(host);
                self.take_turn(number);
            }
            (None, None) => {
                self.forget_blank(number);
                return false;
            }
        }
        self.mark_rollout(number);
        if !own && let Some(set) = self.units[number].set {
            self.wake_held(set);
        }
        self.forget_blank(number);
        true
    }

    // ---- Machines.

    pub(crate) fn host_number(&mut self, id: &MachineId) -> HostIx {
        if let Some(number) = self.host_numbers.get(id) {
            return *number;
        }
        let number = self.hosts.add(Host::new(id.clone()));
        self.host_numbers.insert(id.clone(), number);
        number
    }

    fn set_host(&mut self, id: &MachineId, set: impl FnOnce(&mut Host)) -> bool {
        let number = self.host_number(id);
        let before = self.hosts[number].clone();
        {
            let host = &mut self.hosts[number];
            set(host);
            let same = (&host.machine, &host.presence, &host.settings)
                == (&before.machine, &before.presence, &before.settings);
            if same {
                return false;
            }
            host.metadata = host
                .machine
                .as_ref()
                .map(|machine| host.settings.metadata_over(&machine.metadata))
                .unwrap_or_default();
        }
        let standing = Standing::of(&before);
        for pool in &before.pools {
            self.pools[*pool].remove(number, standing);
        }
        self.hosts[number].pools.clear();
        self.refresh(number);
        let standing = Standing::of(&self.hosts[number]);
        if self.hosts[number].takes() {
            let suited: Vec<PoolIx> = self
                .pool_numbers
                .iter()
                .filter(|(filter, _)| filter.suits(&self.hosts[number]))
                .map(|(_, pool)| *pool)
                .collect();
            for pool in &suited {
                self.pools[*pool].add(number, standing);
            }
            self.hosts[number].pools = suited;
        }
        if before.metadata != self.hosts[number].metadata {
            for set in self.set_numbers.values() {
                self.sets[*set].counts.clear();
            }
        }
        let host = &self.hosts[number];
        let free = host.machine.as_ref().map_or(0, |machine| machine.run_slots);
        let session =
            host.presence.as_ref().filter(|_| host.is_known()).map(|presence| presence.session.clone());
        self.queue.set_machine(id, session, free);
        self.touch(number);
        // Units that this machine speaks of may have been waiting for it, or be waiting for it now.
        for unit in before.reported {
            self.take_turn(unit);
        }
        for unit in self.stranded.clone() {
            self.check(unit);
        }
        self.mark_global_rollouts();
        true
    }

    pub(crate) fn loosen(&mut self, host: HostIx) {
        self.loosened.insert(host);
    }

    /// What is on the machine may be wrong now, and what is not may come.
    fn touch(&mut self, host: HostIx) {
        self.tightened.insert(host);
        self.loosened.insert(host);
    }

    fn change_units_of(&mut self, host: HostIx, unit: UnitIx, kind: Kind, add: bool) {
        let units = match kind {
            Kind::Placed => &self.hosts[host].placed,
            Kind::Reported => &self.hosts[host].reported,
        };
        let name = &self.units[unit].name;
        let at = units.binary_search_by(|other| self.units[*other].name.cmp(name));
        self.change_host(host, |host| {
            let units = match kind {
                Kind::Placed => &mut host.placed,
                Kind::Reported => &mut host.reported,
            };
            match at {
                Err(at) if add => units.insert(at, unit),
                Ok(at) if !add => drop(units.remove(at)),
                _ => {}
            }
        });
    }

    /// Changes what is on a machine, and with it which global units run there, how loaded it is and what is free.
    fn change_host(&mut self, number: HostIx, change: impl FnOnce(&mut Host)) {
        let before = Standing::of(&self.hosts[number]);
        change(&mut self.hosts[number]);
        self.refresh(number);
        let after = Standing::of(&self.hosts[number]);
        if before != after {
            for pool in &self.hosts[number].pools {
                self.pools[*pool].remove(number, before);
                self.pools[*pool].add(number, after);
            }
        }
    }

    /// Works out what follows from what is on the machine.
    fn refresh(&mut self, number: HostIx) {
        let host = &self.hosts[number];
        let globals = self.globals_of(host);
        let (mut used, mut particular, mut unknown) = (sealift_model::Resources::NONE, false, None);
        let also = globals.iter().filter(|unit| !host.placed.contains(unit));
        let others =
            host.reported.iter().filter(|unit| !host.placed.contains(unit) && !globals.contains(unit));
        for unit in others.clone() {
            if self.units[*unit].unit.is_none() {
                unknown = unknown.or(Some(*unit));
            }
        }
        for unit in host.placed.iter().chain(also).chain(others) {
            let slot = &self.units[*unit];
            used = plus(used, slot.asks().resources);
            particular |= !slot.conflicts.is_empty() || !slot.replaces.is_empty();
        }
        let before = host.globals.clone();
        let host = &mut self.hosts[number];
        (host.used, host.particular, host.unknown) = (used, particular, unknown);
        if before != globals {
            host.globals = globals;
            self.loosened.insert(number);
            self.mark_global_rollouts();
        }
    }

    fn globals_of(&self, host: &Host) -> Vec<UnitIx> {
        if self.globals.is_empty() || !host.is_known() {
            return Vec::new();
        }
        let numbers: Vec<UnitIx> = self.globals.values().copied().collect();
        let globals: Vec<Party<'_>> = numbers.iter().map(|unit| self.party(*unit)).collect();
        let placed = host.placed.iter().filter(|unit| self.units[**unit].needs_placement());
        let placed: Vec<Party<'_>> = placed.map(|unit| self.party(*unit)).collect();
        let reported: Vec<Party<'_>> = host.reported.iter().map(|unit| self.party(*unit)).collect();
        let running = globals::running(&self.ground(host), &globals, &placed, &reported);
        running.into_iter().filter_map(|number| numbers.get(number).copied()).collect()
    }

    pub(crate) fn party(&self, unit: UnitIx) -> Party<'_> {
        let slot = &self.units[unit];
        Party { name: &slot.name, asks: slot.asks(), conflicts: &slot.conflicts }
    }

    pub(crate) fn ground<'a>(&self, host: &'a Host) -> Ground<'a> {
        Ground {
            id: &host.id,
            metadata: &host.metadata,
            class: host.class(),
            drained: host.is_drained(),
            limit: host.limit(),
        }
    }

    /// Marks what may be wrong or possible on machines that changed.
    fn look_at_hosts(&mut self) {
        while let Some(host) = self.tightened.pop_first() {
            for unit in self.hosts[host].placed.clone() {
                self.check(unit);
            }
        }
        while let Some(host) = self.loosened.pop_first() {
            let pools = &self.hosts[host].pools;
            let waiting = pools.iter().flat_map(|pool| self.pools[*pool].waiting.iter().copied());
            let may_come: Vec<UnitIx> = waiting.filter(|unit| self.has_hope(*unit, host)).collect();
            for unit in may_come {
                self.take_turn(unit);
            }
        }
    }

    // ---- Pools.

    /// The pool of machines that suit the filter; `asked` if a unit asks for it, rather than wishes for it.
    pub(crate) fn pool(&mut self, filter: Filter, asked: bool) -> PoolIx {
        if let Some(pool) = self.pool_numbers.get(&filter) {
            return *pool;
        }
        if self.wished.len() >= WISHED_POOLS {
            for pool in std::mem::take(&mut self.wished) {
                self.drop_pool(pool);
            }
        }
        let number = self.pools.add(Pool::new(filter.clone()));
        let suited: Vec<HostIx> = self
            .host_numbers
            .values()
            .copied()
            .filter(|host| self.hosts[*host].takes() && filter.suits(&self.hosts[*host]))
            .collect();
        for host in suited {
            let standing = Standing::of(&self.hosts[host]);
            self.pools[number].add(host, standing);
            self.hosts[host].pools.push(number);
        }
        self.pool_numbers.insert(filter, number);
        if !asked {
            self.wished.push(number);
        }
        number
    }

    /// Makes sure that a pool's machines can be asked for by their room.
    pub(crate) fn learn_rooms(&mut self, pool: PoolIx) {
        if !self.pools[pool].knows_rooms() {
            let hosts = self.pools[pool].hosts_by_load();
            let standings: Vec<_> = hosts.map(|host| (host, Standing::of(&self.hosts[host]))).collect();
            self.pools[pool].learn_rooms(standings);
        }
    }

    fn drop_pool(&mut self, number: PoolIx) {
        if self.pools[number].users > 0 {
            return;
        }
        let hosts: Vec<HostIx> = self.pools[number].hosts_by_load().collect();
        for host in hosts {
            self.hosts[host].pools.retain(|pool| *pool != number);
        }
        let filter = std::mem::take(&mut self.pools[number].filter);
        self.pool_numbers.remove(&filter);
        self.pools.free(number, Pool::default());
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Placed,
    Reported,
}

pub(crate) fn turn(slot: &UnitSlot) -> Turn {
    let asks = slot.asks();
    (Reverse(asks.priority), asks.machine_of.is_empty(), slot.name.clone())
}

fn word(status: &UnitStatus) -> Word {
    let heard = status.load != "unheard" && status.error.is_none();
    let down =
        matches!(status.active, ActiveState::Failed | ActiveState::Activating | ActiveState::Deactivating);
    let (passed, failed) = match &status.gate {
        Some(Gate::Failed { why }) => (false, Some(why.as_str())),
        Some(Gate::Waiting { .. }) => (false, None),
        // An agent that knows of no gates says whether it is up, and why it is not.
        _ if status.active == ActiveState::Failed => {
            (true, Some(status.result.as_deref().unwrap_or("it failed")))
        }
        Some(Gate::Passed) if status.sub == "auto-restart" => {
            (true, Some(status.result.as_deref().unwrap_or("it came up, and ended")))
        }
        None | Some(Gate::Passed | Gate::Unknown) => (true, status.error.as_deref()),
    };
    Word {
        placement: status.placement,
        up: heard && !down && passed,
        settling: heard && !down && status.gate == Some(Gate::Waiting { why: None }),
        generation: status.generation,
        failed: failed.map(Arc::from),
    }
}

fn index<K: Ord + Clone>(map: &mut BTreeMap<K, BTreeSet<UnitName>>, key: &K, name: &UnitName, add: bool) {
    if add {
        map.entry(key.clone()).or_default().insert(name.clone());
    } else if let Some(names) = map.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            map.remove(key);
        }
    }
}

/// What to do, in order, as a planner says that knows only this. Planning again after all of it is
/// [applied](crate::apply()) gives no actions. Instances ask for what their template asks for.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    plan_with(snapshot, Reader::PLAIN)
}

/// The same where the files of templates can be read.
#[must_use]
pub fn plan_with(snapshot: &Snapshot, reader: Reader) -> Plan {
    let mut planner = Planner::of(snapshot, reader);
    // Newer than anything that is there.
    let placed = snapshot.placements.values().map(|placement| placement.since);
    let begun = snapshot.units.values().filter_map(|unit| match unit.update.as_deref()?.stage {
        UpdateStage::Begun { at } => Some(at),
        _ => None,
    });
    let newest = placed.chain(begun).max().unwrap_or_default();
    let now = Timestamp(newest.0.saturating_add(1));
    // Nobody says what time it is, so nobody is late.
    let now = planner.next_deadline().map_or(now, |deadline| deadline.min(now));
    let actions = planner.plan(usize::MAX, now);
    Plan { actions, problems: planner.problems() }
}
