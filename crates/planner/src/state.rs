//! What a planner knows: units and machines in slots, by number, and what is where.
//!
//! Must not decide anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealift_model::{
    Availability, DesiredState, Machine, MachineId, MachineSettings, Presence, Requirements, Resources,
    Timestamp, Unit, UnitName,
};

use crate::glob::Glob;
use crate::{Reason, is_active};

pub(crate) type UnitIx = usize;
pub(crate) type HostIx = usize;
pub(crate) type SetIx = usize;
pub(crate) type PoolIx = usize;

pub(crate) static NO_REQUIREMENTS: Requirements = Requirements::NONE;

/// Slots that are used again. A number is only ever taken from [`Slots::add`], so that looking it up cannot fail as
/// long as whoever kept it forgets it when the slot is freed.
#[derive(Debug, Clone)]
pub(crate) struct Slots<T> {
    slots: Vec<T>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(crate) fn add(&mut self, value: T) -> usize {
        if let Some(number) = self.free.pop() {
            self.slots[number] = value;
            return number;
        }
        self.slots.push(value);
        self.slots.len() - 1
    }

    pub(crate) fn free(&mut self, number: usize, blank: T) {
        self.slots[number] = blank;
        self.free.push(number);
    }
}

impl<T> std::ops::Index<usize> for Slots<T> {
    type Output = T;

    fn index(&self, number: usize) -> &T {
        &self.slots[number]
    }
}

impl<T> std::ops::IndexMut<usize> for Slots<T> {
    fn index_mut(&mut self, number: usize) -> &mut T {
        &mut self.slots[number]
    }
}

/// Where a unit is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) host: HostIx,
    pub(crate) id: u64,
    pub(crate) since: Timestamp,
}

/// What of a machine's word on a unit matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) placement: u64,
    /// It is up, as far as its machine can tell, and nothing that its policy asks is still waited for.
    pub(crate) up: bool,
    /// It is up, what its policy asks is still waited for, and nothing speaks against it yet.
    pub(crate) settling: bool,
    /// What it speaks of.
    pub(crate) generation: u64,
    /// Why it is not as its policy wants it, for good.
    pub(crate) failed: Option<Arc<str>>,
}

/// A unit's name and all that is known under it: the unit itself may be gone and still be placed or stopping.
#[derive(Debug, Clone)]
pub(crate) struct UnitSlot {
    pub(crate) name: UnitName,
    pub(crate) unit: Option<Arc<Unit>>,
    pub(crate) placed: Option<Placed>,
    /// Machines that say something of it, whether they are there or not; in no order that means anything.
    pub(crate) reported: Vec<(HostIx, Word)>,
    pub(crate) conflicts: Vec<Glob>,
    pub(crate) replaces: Vec<Glob>,
    /// The instances of the same template.
    pub(crate) set: Option<SetIx>,
    /// The machines that it may come to; none if it needs no placement.
    pub(crate) pool: Option<PoolIx>,
    /// It was taken from this machine to go to another.
    pub(crate) moving_from: Option<HostIx>,
}

impl UnitSlot {
    pub(crate) fn new(name: UnitName, set: Option<SetIx>) -> UnitSlot {
        UnitSlot {
            name,
            unit: None,
            placed: None,
            reported: Vec::new(),
            conflicts: Vec::new(),
            replaces: Vec::new(),
            set,
            pool: None,
            moving_from: None,
        }
    }

    /// What it asks for; a unit that is gone asks for nothing.
    pub(crate) fn asks(&self) -> &Requirements {
        self.unit.as_ref().map_or(&NO_REQUIREMENTS, |unit| unit.asks())
    }

    fn is_active(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| is_active(&unit.name, unit.desired))
    }

    /// Runs on every machine that satisfies it.
    pub(crate) fn is_global(&self) -> bool {
        self.asks().global && self.is_active()
    }

    /// Runs on one machine that has to be chosen.
    pub(crate) fn needs_placement(&self) -> bool {
        !self.asks().global && self.is_active()
    }

    /// Why it can be on no machine whatever; none if it needs a placement.
    pub(crate) fn no_placement(&self) -> Option<Reason> {
        let Some(unit) = &self.unit else { return Some(Reason::Gone) };
        if self.name.is_template() {
            Some(Reason::Template)
        } else if unit.desired == DesiredState::Inactive {
            Some(Reason::Inactive)
        } else {
            unit.requirements.global.then_some(Reason::Global)
        }
    }

    pub(crate) fn on(&self) -> Option<HostIx> {
        self.placed.map(|placed| placed.host)
    }

    /// Nobody speaks of it any more.
    pub(crate) fn is_blank(&self) -> bool {
        self.unit.is_none() && self.placed.is_none() && self.reported.is_empty()
    }
}

/// A machine's identity and all that is known under it.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) id: MachineId,
    /// The identity as a number, which has the same order.
    pub(crate) key: u128,
    pub(crate) machine: Option<Machine>,
    pub(crate) presence: Option<Presence>,
    pub(crate) settings: MachineSettings,
    /// What it says of itself, with what operators put over it.
    pub(crate) metadata: BTreeMap<String, String>,
    /// In the order of names, as the others.
    pub(crate) placed: Vec<UnitIx>,
    pub(crate) reported: Vec<UnitIx>,
    /// Global units that are to run here.
    pub(crate) globals: Vec<UnitIx>,
    /// What is promised to all units that are or may still be here.
    pub(crate) used: Resources,
    /// Some unit here has something against others.
    pub(crate) particular: bool,
    /// A unit that is still being stopped here and of which nobody knows any more what it takes.
    pub(crate) unknown: Option<UnitIx>,
    pub(crate) pools: Vec<PoolIx>,
}

impl Host {
    pub(crate) fn new(id: MachineId) -> Host {
        Host {
            key: u128::from_str_radix(id.as_str(), 16).unwrap_or_default(),
            id,
            machine: None,
            presence: None,
            settings: MachineSettings::default(),
            metadata: BTreeMap::new(),
            placed: Vec::new(),
            reported: Vec::new(),
            globals: Vec::new(),
            used: Resources::NONE,
            particular: false,
            unknown: None,
            pools: Vec::new(),
        }
    }

    pub(crate) fn is_known(&self) -> bool {
        self.machine.is_some()
    }

    pub(crate) fn is_there(&self) -> bool {
        self.machine.is_some() && self.presence.is_some()
    }

    /// It shuts down, and is still there.
    fn is_leaving(&self) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.leaving)
    }

    /// Units may come.
    pub(crate) fn takes(&self) -> bool {
        self.is_there() && !self.is_leaving() && self.settings.availability == Availability::Active
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.settings.availability == Availability::Drained
    }

    /// What is placed here has to leave.
    pub(crate) fn is_left(&self) -> bool {
        self.is_leaving() || self.is_drained()
    }

    /// Units that are or should be running here.
    pub(crate) fn load(&self) -> usize {
        self.placed.len() + self.globals.len()
    }

    pub(crate) fn limit(&self) -> Limit {
        self.machine.as_ref().map_or(Limit::NONE, Limit::of)
    }

    pub(crate) fn class(&self) -> Option<&str> {
        self.machine.as_ref().and_then(|machine| machine.class.as_deref())
    }
}

/// What a machine can promise; of what it says nothing it has enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) memory: Option<u64>,
    pub(crate) cpu: Option<u32>,
}

impl Limit {
    pub(crate) const NONE: Limit = Limit { memory: None, cpu: None };

    pub(crate) fn of(machine: &Machine) -> Limit {
        let has = machine.allocatable();
        Limit {
            memory: (machine.capacity.memory > 0).then_some(has.memory),
            cpu: (machine.capacity.cpu > 0).then_some(has.cpu),
        }
    }

    /// What is left beside `used`.
    pub(crate) fn free(self, used: Resources) -> Resources {
        Resources {
            memory: self.memory.map_or(u64::MAX, |limit| limit.saturating_sub(used.memory)),
            cpu: self.cpu.map_or(u32::MAX, |limit| limit.saturating_sub(used.cpu)),
        }
    }
}

/// Whoever asks for nothing always has room.
pub(crate) fn covers(free: Resources, wanted: Resources) -> bool {
    (wanted.memory == 0 || wanted.memory <= free.memory) && (wanted.cpu == 0 || wanted.cpu <= free.cpu)
}

pub(crate) fn plus(one: Resources, other: Resources) -> Resources {
    Resources { memory: one.memory.saturating_add(other.memory), cpu: one.cpu.saturating_add(other.cpu) }
}

pub(crate) fn minus(one: Resources, other: Resources) -> Resources {
    Resources { memory: one.memory.saturating_sub(other.memory), cpu: one.cpu.saturating_sub(other.cpu) }
}

/// The instances of one template, whoever made them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Set {
    pub(crate) template: Option<UnitName>,
    pub(crate) members: BTreeSet<UnitIx>,
    /// Members that have an update.
    pub(crate) updating: usize,
    /// Members that are to leave and wait until more of the others are up.
    pub(crate) held: BTreeSet<UnitIx>,
    /// For metadata keys that were asked for: how many members are placed on machines of each value.
    pub(crate) counts: BTreeMap<String, BTreeMap<Option<String>, usize>>,
}
