//! The virtual clock: events in the order of their time, and in the order of their making at the same time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Milliseconds of the simulation.
pub(super) type Millis = u64;

#[derive(Debug)]
pub(super) struct Clock<E> {
    pub(super) now: Millis,
    made: u64,
    heap: BinaryHeap<Reverse<Entry<E>>>,
}

#[derive(Debug)]
struct Entry<E> {
    at: Millis,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Clock<E> {
    pub(super) fn new() -> Clock<E> {
        // Zero is the time of what never happened.
        Clock { now: 1_000, made: 0, heap: BinaryHeap::new() }
    }

    /// Something that happens so much later.
    pub(super) fn after(&mut self, delay: Millis, event: E) {
        self.made += 1;
        self.heap.push(Reverse(Entry { at: self.now + delay, number: self.made, event }));
    }

    pub(super) fn has_next(&self) -> bool {
        !self.heap.is_empty()
    }

    /// The next event; time has passed until then.
    pub(super) fn next(&mut self) -> Option<E> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}
