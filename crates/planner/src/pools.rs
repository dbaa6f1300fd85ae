//! Machines that suit a demand, in the order in which they are to be tried.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{Requirements, Resources};

use crate::globals::class_fits;
use crate::state::{Host, HostIx, UnitIx};

/// What a machine has to be like, without regard to what is on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Filter {
    pub(crate) metadata: BTreeMap<String, BTreeSet<String>>,
    pub(crate) classes: BTreeSet<String>,
    /// A metadata key that it must not have.
    pub(crate) lacks: Option<String>,
}

impl Filter {
    pub(crate) fn of(asks: &Requirements) -> Filter {
        Filter { metadata: asks.metadata.clone(), classes: asks.classes.clone(), lacks: None }
    }

    /// With one wish more; none if no machine can satisfy both.
    pub(crate) fn with(&self, key: &str, values: &BTreeSet<String>) -> Option<Filter> {
        let mut filter = self.clone();
        if filter.lacks.as_deref() == Some(key) {
            return None;
        }
        let slot = filter.metadata.entry(key.to_owned()).or_insert_with(|| values.clone());
        slot.retain(|value| values.contains(value));
        (!slot.is_empty()).then_some(filter)
    }

    pub(crate) fn without(&self, key: &str) -> Option<Filter> {
        let possible = !self.metadata.contains_key(key) && self.lacks.is_none();
        possible.then(|| Filter { lacks: Some(key.to_owned()), ..self.clone() })
    }

    pub(crate) fn suits(&self, host: &Host) -> bool {
        class_fits(&self.classes, host.class())
            && self.lacks.as_ref().is_none_or(|key| !host.metadata.contains_key(key))
            && self
                .metadata
                .iter()
                .all(|(key, values)| host.metadata.get(key).is_some_and(|value| values.contains(value)))
    }
}

/// How much is free, roughly: the sum of both, of memory, of CPU; each in quarters of a power of two.
type Rough = (u16, u16, u16);

/// The machines that take units and suit a filter. Units that ask for the same share a pool, so that none of them has
/// to look at machines that cannot suit it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    pub(crate) filter: Filter,
    /// Units that ask for exactly this; a pool without any is kept for a while, for wishes.
    pub(crate) users: usize,
    /// Its units that are placed nowhere.
    pub(crate) waiting: BTreeSet<UnitIx>,
    /// The least loaded first.
    pub(crate) by_load: BTreeSet<(usize, u128, HostIx)>,
    /// The fullest first; made when it is first asked for.
    by_room: Option<BTreeMap<Rough, BTreeSet<(Free, usize, u128, HostIx)>>>,
}

/// Free memory and CPU.
type Free = (u64, u32);

/// What of a machine gives it its place in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) load: usize,
    pub(crate) free: Resources,
    pub(crate) key: u128,
}

impl Standing {
    pub(crate) fn of(host: &Host) -> Standing {
        Standing { load: host.load(), free: host.limit().free(host.used), key: host.key }
    }
}

impl Pool {
    pub(crate) fn new(filter: Filter) -> Pool {
        Pool { filter, ..Pool::default() }
    }

    pub(crate) fn add(&mut self, host: HostIx, at: Standing) {
        self.by_load.insert((at.load, at.key, host));
        if let Some(rooms) = &mut self.by_room {
            rooms.entry(rough(at.free)).or_default().insert((exact(at.free), at.load, at.key, host));
        }
    }

    pub(crate) fn remove(&mut self, host: HostIx, at: Standing) {
        self.by_load.remove(&(at.load, at.key, host));
        if let Some(rooms) = &mut self.by_room
            && let Some(room) = rooms.get_mut(&rough(at.free))
        {
            room.remove(&(exact(at.free), at.load, at.key, host));
            if room.is_empty() {
                rooms.remove(&rough(at.free));
            }
        }
    }

    /// Whether machines can be asked for by their room.
    pub(crate) fn knows_rooms(&self) -> bool {
        self.by_room.is_some()
    }

    pub(crate) fn learn_rooms(&mut self, standings: impl IntoIterator<Item = (HostIx, Standing)>) {
        let mut rooms: BTreeMap<Rough, BTreeSet<_>> = BTreeMap::new();
        for (host, at) in standings {
            rooms.entry(rough(at.free)).or_default().insert((exact(at.free), at.load, at.key, host));
        }
        self.by_room = Some(rooms);
    }

    pub(crate) fn hosts_by_load(&self) -> impl Iterator<Item = HostIx> {
        self.by_load.iter().map(|(_, _, host)| *host)
    }

    /// Machines that have room for `wanted`, those with the least room first.
    pub(crate) fn hosts_by_room(&self, wanted: Resources) -> impl Iterator<Item = HostIx> {
        let (_, memory, cpu) = rough(wanted);
        let rooms = self.by_room.iter().flatten();
        rooms
            .filter(move |((_, has_memory, has_cpu), _)| *has_memory >= memory && *has_cpu >= cpu)
            .flat_map(|(_, hosts)| hosts.iter())
            .filter(move |((has_memory, has_cpu), _, _, _)| {
                *has_memory >= wanted.memory && *has_cpu >= wanted.cpu
            })
            .map(|(_, _, _, host)| *host)
    }
}

fn exact(free: Resources) -> Free {
    (free.memory, free.cpu)
}

fn rough(free: Resources) -> Rough {
    let (memory, cpu) = (quarter(free.memory), quarter(u64::from(free.cpu)));
    (memory + cpu, memory, cpu)
}

/// Four steps to each power of two.
fn quarter(amount: u64) -> u16 {
    let Some(power) = amount.checked_ilog2() else { return 0 };
    let below = amount - (1 << power);
    let step = if power >= 2 { below >> (power - 2) } else { (below << 2) >> power };
    u16::try_from(u64::from(power) * 4 + step + 1).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_never_less() {
        let mut last = 0;
        for amount in (0..5_000).chain((12..63).map(|power| 1_u64 << power)).chain([u64::MAX]) {
            let step = quarter(amount);
            assert!(step >= last, "{amount}");
            last = step;
        }
        assert_eq!([0, 1, 2, 3, 4, 5, 8].map(quarter), [0, 1, 5, 7, 9, 10, 13]);
    }

    #[test]
    fn the_fullest_that_has_room_comes_first() {
        let mut pool = Pool::default();
        pool.learn_rooms([]);
        let at = |memory, cpu, key| Standing { load: 0, free: Resources { memory, cpu }, key };
        for (host, standing) in
            [at(900, 1, 0), at(500, 9, 1), at(300, 9, 2), at(800, 9, 3)].into_iter().enumerate()
        {
            pool.add(host, standing);
        }
        let order = |memory, cpu| pool.hosts_by_room(Resources { memory, cpu }).collect::<Vec<_>>();
        assert_eq!(order(400, 2), [1, 3]);
        assert_eq!(order(200, 0), [0, 2, 1, 3]);
        assert_eq!(order(901, 0), [0; 0]);
        pool.remove(1, at(500, 9, 1));
        assert_eq!(pool.hosts_by_room(Resources { memory: 400, cpu: 2 }).collect::<Vec<_>>(), [3]);
    }
}
