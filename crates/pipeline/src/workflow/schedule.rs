//! Which node is to do what next: a state machine without time and without IO.
//!
//! Guarantees: a node is looked at when all it needs has ended well, and then once; one that something it needs keeps
//! from running is left out, once; never more than `slots` nodes run at once; when no node waits for an answer of the
//! caller, there is something to do or all have ended.
//!
//! It must not know what a node is.

use std::collections::VecDeque;

/// What the caller is to do. Nodes are named by their place in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// All it needs has ended well: see whether it may run, then call [`Schedule::clear`] or [`Schedule::end`].
    Look(usize),
    /// Run it, then call [`Schedule::end`].
    Run(usize),
    /// It will not run.
    Leave(usize, Why),
}

/// Why a node is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// This node, which it needs, did not end well.
    Needs(usize),
    /// The whole was stopped.
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    /// The caller looks whether it may run.
    Looking,
    /// It may, when there is a slot.
    Queued,
    Running,
    Ended {
        well: bool,
    },
}

#[derive(Debug)]
pub(super) struct Schedule {
    needs: Vec<Vec<usize>>,
    states: Vec<State>,
    slots: usize,
    running: usize,
    /// Those that may run, first come first served.
    queue: VecDeque<usize>,
    fail_fast: bool,
    stopped: bool,
}

impl Schedule {
    /// `needs` has for each node those that come before it; a node stands behind all it needs.
    pub(super) fn new(needs: Vec<Vec<usize>>, slots: usize, fail_fast: bool) -> Schedule {
        let states = vec![State::Pending; needs.len()];
        let slots = slots.max(1);
        Schedule { needs, states, slots, running: 0, queue: VecDeque::new(), fail_fast, stopped: false }
    }

    /// The next thing to do now; none until the caller has something to say.
    pub(super) fn next(&mut self) -> Option<Action> {
        if self.stopped
            && let Some(node) = self.queue.pop_front()
        {
            self.set(node, State::Ended { well: false });
            return Some(Action::Leave(node, Why::Stopped));
        }
        if self.running < self.slots
            && let Some(node) = self.queue.pop_front()
        {
            self.running += 1;
            self.set(node, State::Running);
            return Some(Action::Run(node));
        }
        for node in 0..self.states.len() {
            if self.state(node) != Some(State::Pending) {
                continue;
            }
            let needs = self.needs.get(node).map_or(&[][..], Vec::as_slice);
            let bad =
                needs.iter().find(|need| self.state(**need) == Some(State::Ended { well: false })).copied();
            let why = bad.map(Why::Needs).or(self.stopped.then_some(Why::Stopped));
            if let Some(why) = why {
                self.set(node, State::Ended { well: false });
                return Some(Action::Leave(node, why));
            }
            if needs.iter().all(|need| self.state(*need) == Some(State::Ended { well: true })) {
                self.set(node, State::Looking);
                return Some(Action::Look(node));
            }
        }
        None
    }

    /// A node that was looked at may run.
    pub(super) fn clear(&mut self, node: usize) {
        if self.state(node) == Some(State::Looking) {
            self.set(node, State::Queued);
            self.queue.push_back(node);
        }
    }

    /// A node that was looked at, waits for a slot, or runs has ended.
    pub(super) fn end(&mut self, node: usize, well: bool) {
        match self.state(node) {
            Some(State::Running) => self.running -= 1,
            Some(State::Queued) => self.queue.retain(|queued| *queued != node),
            Some(State::Looking) => {}
            Some(State::Pending | State::Ended { .. }) | None => return,
        }
        self.set(node, State::Ended { well });
        if !well && self.fail_fast {
            self.stopped = true;
        }
    }

    /// Nothing new is started: what has not been looked at is left out. What runs is for the caller to stop.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn is_done(&self) -> bool {
        self.states.iter().all(|state| matches!(state, State::Ended { .. }))
    }

    fn state(&self, node: usize) -> Option<State> {
        self.states.get(node).copied()
    }

    fn set(&mut self, node: usize, state: State) {
        if let Some(place) = self.states.get_mut(node) {
            *place = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_diamond_runs_side_by_side_and_in_order() {
        let mut schedule = Schedule::new(vec![vec![], vec![0], vec![0], vec![1, 2]], 2, false);
        assert_eq!(schedule.next(), Some(Action::Look(0)));
        assert_eq!(schedule.next(), None);
        schedule.clear(0);
        assert_eq!(schedule.next(), Some(Action::Run(0)));
        schedule.end(0, true);
        assert_eq!(
            [schedule.next(), schedule.next(), schedule.next()],
            [Some(Action::Look(1)), Some(Action::Look(2)), None]
        );
        schedule.clear(2);
        schedule.clear(1);
        assert_eq!([schedule.next(), schedule.next()], [Some(Action::Run(2)), Some(Action::Run(1))]);
        schedule.end(1, false);
        assert_eq!(schedule.next(), Some(Action::Leave(3, Why::Needs(1))));
        assert!(!schedule.is_done());
        schedule.end(2, true);
        assert!(schedule.is_done());
    }

    #[test]
    fn the_first_failure_stops_the_rest_if_that_is_wanted() {
        let mut schedule = Schedule::new(vec![vec![], vec![], vec![0]], 1, true);
        assert_eq!([schedule.next(), schedule.next()], [Some(Action::Look(0)), Some(Action::Look(1))]);
        schedule.clear(1);
        assert_eq!(schedule.next(), Some(Action::Run(1)));
        schedule.end(1, false);
        assert!(schedule.is_stopped());
        assert_eq!(schedule.next(), Some(Action::Leave(2, Why::Stopped)));
        schedule.end(0, false);
        assert!(schedule.is_done());
    }

    #[derive(Debug, Clone)]
    struct Case {
        needs: Vec<Vec<usize>>,
        slots: usize,
        fail_fast: bool,
        /// What is answered, and in which order those that wait for an answer get it.
        answers: Vec<(usize, bool)>,
        stop_at: Option<usize>,
    }

    fn case() -> impl Strategy<Value = Case> {
        let needs = prop::collection::vec(prop::collection::vec(0_usize..100, 0..4), 1..12);
        let answers = prop::collection::vec((0_usize..100, prop::bool::weighted(0.8)), 64);
        (needs, 1_usize..4, any::<bool>(), answers, prop::option::weighted(0.2, 0_usize..20)).prop_map(
            |(mut needs, slots, fail_fast, answers, stop_at)| {
                for (node, needs) in needs.iter_mut().enumerate() {
                    needs.retain_mut(|need| {
                        *need %= node.max(1);
                        node > 0
                    });
                }
                Case { needs, slots, fail_fast, answers, stop_at }
            },
        )
    }

    proptest! {
        #[test]
        fn any_graph_comes_to_its_end(case in case()) {
            let count = case.needs.len();
            let mut schedule = Schedule::new(case.needs.clone(), case.slots, case.fail_fast);
            let mut looking: Vec<usize> = Vec::new();
            let mut running: Vec<usize> = Vec::new();
            let mut ended: Vec<Option<bool>> = vec![None; count];
            let mut told = vec![0; count];
            let mut ran = vec![0; count];
            let mut answers = case.answers.iter().cycle();
            for round in 0.. {
                prop_assert!(round < 20 * count + 20, "it does not end");
                if case.stop_at == Some(round) {
                    schedule.stop();
                }
                match schedule.next() {
                    Some(Action::Look(node)) => {
                        prop_assert!(case.needs[node].iter().all(|need| ended[*need] == Some(true)));
                        looking.push(node);
                        continue;
                    }
                    Some(Action::Run(node)) => {
                        ran[node] += 1;
                        told[node] += 1;
                        running.push(node);
                        prop_assert!(running.len() <= case.slots);
                        continue;
                    }
                    Some(Action::Leave(node, why)) => {
                        told[node] += 1;
                        match why {
                            Why::Needs(need) => {
                                prop_assert!(case.needs[node].contains(&need) && ended[need] == Some(false));
                            }
                            Why::Stopped => prop_assert!(schedule.is_stopped()),
                        }
                        ended[node] = Some(false);
                        continue;
                    }
                    None => {}
                }
                if schedule.is_done() {
                    break;
                }
                // Nothing to do: somebody's answer is missing.
                let (which, well) = *answers.next().unwrap();
                let waiting = looking.len() + running.len();
                prop_assert!(waiting > 0, "stuck");
                let which = which % waiting;
                if which < looking.len() {
                    let node = looking.remove(which);
                    if well {
                        schedule.clear(node);
                    } else {
                        schedule.end(node, false);
                        ended[node] = Some(false);
                        told[node] += 1;
                    }
                } else {
                    let node = running.remove(which - looking.len());
                    schedule.end(node, well);
                    ended[node] = Some(well);
                }
            }
            prop_assert!(told.iter().all(|times| *times == 1), "{told:?}");
            prop_assert!(ran.iter().all(|times| *times <= 1));
            prop_assert!(ended.iter().all(Option::is_some));
            if !case.fail_fast && case.stop_at.is_none() {
                // Independent nodes go on: one runs unless something on its way failed.
                for (needs, ran) in case.needs.iter().zip(&ran) {
                    let blocked = needs.iter().any(|need| ended[*need] == Some(false));
                    prop_assert!(!blocked || *ran == 0);
                }
            }
        }
    }
}
