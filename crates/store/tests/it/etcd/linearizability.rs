//! Whether what some clients saw of one register can have happened in one order, each operation at one moment between
//! its begin and its end.
//!
//! The search is Wing and Gong's (1993) with Lowe's memory of what was tried (2017): take any operation that began
//! before the first end of those not yet taken, if its result fits the state; go back where none does. An operation
//! whose outcome is unknown has no end: it may be taken at any time after its begin, or never.

use std::collections::HashSet;
use std::time::Instant;

/// What a register holds; none before it is made. Values are never written twice, so a value stands for its revision.
pub(super) type Value = Option<u64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Saw this.
    Read(Value),
    /// Changed the one into the other.
    Swapped(Value, u64),
    /// Was told that the register is not the one, which it wanted to change into another.
    Refused(Value),
    /// May have changed the one into the other, and may still.
    Unknown(Value, u64),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) operation: Operation,
}

impl Operation {
    /// The state after it, if it fits the state before it.
    fn step(self, state: Value) -> Option<Value> {
        match self {
            Operation::Read(value) => (state == value).then_some(state),
            Operation::Swapped(from, to) | Operation::Unknown(from, to) => {
                (state == from).then_some(Some(to))
            }
            Operation::Refused(from) => (state != from).then_some(state),
        }
    }
}

/// Whether there is such an order, beginning with no value.
pub(super) fn is_linearizable(history: &[Record]) -> bool {
    let mut records = history.to_vec();
    records.sort_by_key(|record| record.begin);
    let mut taken = vec![0_u64; records.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, Value)> = HashSet::new();
    // What was taken, with the state before it and the record to go on with if that leads nowhere.
    let mut order: Vec<(usize, Value)> = Vec::new();
    let mut state = None;
    let mut next = 0;
    loop {
        match candidate(&records, &taken, state, next) {
            Search::Done => return true,
            Search::Take(number, after) => {
                set(&mut taken, number);
                if tried.insert((taken.clone(), after)) {
                    order.push((number, state));
                    state = after;
                    next = 0;
                } else {
                    clear(&mut taken, number);
                    next = number + 1;
                }
            }
            Search::DeadEnd => {
                let Some((number, before)) = order.pop() else { return false };
                clear(&mut taken, number);
                state = before;
                next = number + 1;
            }
        }
    }
}

enum Search {
    /// Only unknown ones are left.
    Done,
    Take(usize, Value),
    DeadEnd,
}

/// The first record from `next` on that can be taken now.
fn candidate(records: &[Record], taken: &[u64], state: Value, next: usize) -> Search {
    let left = || (0..records.len()).filter(|number| !is_set(taken, *number));
    let has_end = |number: &usize| !matches!(records[*number].operation, Operation::Unknown(..));
    // Records are by their begin, so those that can hold the first end are few: stop where all begin after it.
    let mut first_end: Option<Instant> = None;
    for number in left() {
        if first_end.is_some_and(|end| records[number].begin > end) {
            break;
        }
        if has_end(&number) {
            let end = records[number].end;
            first_end = Some(first_end.map_or(end, |first| first.min(end)));
        }
    }
    let Some(first_end) = first_end else { return Search::Done };
    for number in left() {
        let record = &records[number];
        if record.begin > first_end {
            break;
        }
        if number >= next
            && let Some(after) = record.operation.step(state)
        {
            return Search::Take(number, after);
        }
    }
    Search::DeadEnd
}

fn is_set(bits: &[u64], number: usize) -> bool {
    bits[number / 64] & (1 << (number % 64)) != 0
}

fn set(bits: &mut [u64], number: usize) {
    bits[number / 64] |= 1 << (number % 64);
}

fn clear(bits: &mut [u64], number: usize) {
    bits[number / 64] &= !(1 << (number % 64));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Operation::{Read, Refused, Swapped, Unknown};
    use super::*;

    fn check(history: &[(u64, u64, Operation)]) -> bool {
        let origin = Instant::now();
        let at = |millis: u64| origin + Duration::from_millis(millis);
        let records: Vec<_> = history
            .iter()
            .map(|(begin, end, operation)| Record { begin: at(*begin), end: at(*end), operation: *operation })
            .collect();
        is_linearizable(&records)
    }

    #[test]
    fn finds_an_order_where_there_is_one() {
        assert!(check(&[]));
        assert!(check(&[(0, 1, Read(None)), (2, 3, Swapped(None, 1)), (4, 5, Read(Some(1)))]));
        // A read beside a write may see either.
        assert!(check(&[(0, 9, Swapped(None, 1)), (1, 2, Read(None)), (3, 4, Read(Some(1)))]));
        // Taken late: a read in the meantime did not see it.
        assert!(check(&[(0, 1, Unknown(None, 1)), (2, 3, Read(None)), (4, 5, Read(Some(1)))]));
        // Never taken.
        assert!(check(&[(0, 1, Unknown(None, 1)), (2, 3, Swapped(None, 2)), (4, 5, Read(Some(2)))]));
        // Refused because of one that is itself unknown.
        assert!(check(&[(0, 1, Unknown(None, 1)), (2, 3, Refused(None)), (4, 5, Swapped(Some(1), 2))]));
        // The right order is not that of the begins, and the wrong one is only seen to be wrong later.
        assert!(check(&[
            (0, 10, Swapped(Some(2), 3)),
            (1, 10, Swapped(Some(1), 2)),
            (2, 10, Swapped(None, 1)),
            (3, 10, Refused(Some(1))),
            (11, 12, Read(Some(3))),
        ]));
    }

    #[test]
    fn finds_planted_violations() {
        let stale_read = [(0, 1, Swapped(None, 1)), (2, 3, Swapped(Some(1), 2)), (4, 5, Read(Some(1)))];
        let lost_write = [(0, 1, Swapped(None, 1)), (2, 3, Read(None))];
        let two_winners =
            [(0, 1, Swapped(None, 1)), (2, 8, Swapped(Some(1), 2)), (3, 7, Swapped(Some(1), 3))];
        let from_nothing = [(0, 1, Read(Some(7)))];
        let refused_for_nothing = [(0, 1, Swapped(None, 1)), (2, 3, Refused(Some(1)))];
        let back_in_time = [(0, 9, Swapped(None, 1)), (1, 2, Read(Some(1))), (3, 4, Read(None))];
        let unknown_undone = [(0, 1, Unknown(None, 1)), (2, 3, Read(Some(1))), (4, 5, Read(None))];
        let unknown_before_its_begin = [(0, 1, Read(Some(1))), (2, 3, Unknown(None, 1))];
        for (name, history) in [
            ("stale read", &stale_read[..]),
            ("lost write", &lost_write),
            ("two winners", &two_winners),
            ("from nothing", &from_nothing),
            ("refused for nothing", &refused_for_nothing),
            ("back in time", &back_in_time),
            ("unknown undone", &unknown_undone),
            ("unknown before its begin", &unknown_before_its_begin),
        ] {
            assert!(!check(history), "{name} was not found");
        }
    }

    #[test]
    fn finds_one_wrong_read_in_a_long_history() {
        // Four clients whose operations overlap, and an unknown one now and then.
        let mut history: Vec<_> = (0..4000_u64)
            .map(|i| {
                let (from, to) = ((i > 0).then_some(i), i + 1);
                (i * 10, i * 10 + 12, Swapped(from, to))
            })
            .collect();
        for i in (50..4000).step_by(100) {
            history.push((i * 10, i * 10 + 1, Unknown(Some(1_000_000), 2_000_000 + i)));
        }
        assert!(check(&history));
        history.push((20_000, 20_005, Read(Some(1500))));
        assert!(!check(&history));
    }
}
