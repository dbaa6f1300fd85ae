//! A part of a fleet is judged as the whole of it is.

use proptest::collection::vec;
use proptest::prelude::*;
use sealift_model::Availability;
use sealift_planner::invariants::{self, Violation};
use sealift_planner::{Action, Change, Concern, Ledger, Snapshot, apply, plan, units_by_machine};

use crate::random::worlds;
use crate::world::{NOW, World, machine_id, name, words};

fn sorted(mut violations: Vec<Violation>) -> Vec<Violation> {
    violations.sort();
    violations.dedup();
    violations
}

/// What a step brings, what it ends, and what is wrong with the step itself.
fn judged(before: &Snapshot, after: &Snapshot) -> [Vec<Violation>; 3] {
    let (was, is) = (invariants::state(before), invariants::state(after));
    let ended = invariants::new_since(&is, was.clone());
    [invariants::new_since(&was, is), ended, invariants::step(before, after)].map(sorted)
}

/// Any mixture of one world and the next breaks rules by the dozen, and each change on the way breaks or mends some.
fn changes() -> impl Strategy<Value = Vec<(Change, usize)>> {
    vec(worlds(), 2..4).prop_flat_map(|worlds| {
        let mut known = Snapshot::default();
        let mut changes = Vec::new();
        for World(wanted) in worlds {
            changes.extend(wanted.changes_since(&known));
            known = wanted;
        }
        let count = changes.len();
        vec(any::<usize>(), count).prop_map(move |order| changes.clone().into_iter().zip(order).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_change_breaks_and_mends_the_same_in_a_part_as_in_the_whole(changes in changes()) {
        let mut ledger = Ledger::default();
        let mut rest = changes;
        while let Some((_, order)) = rest.first() {
            // Mostly in their order, so that worlds come about; some much earlier than they belong.
            let next = if order % 4 == 0 { order / 4 % rest.len() } else { 0 };
            let (change, _) = rest.remove(next);
            let before = ledger.clone();
            let concern = ledger.set(change.clone());
            let whole = judged(before.snapshot(), ledger.snapshot());
            let parts = (before.part(&concern), ledger.part(&concern));
            prop_assert_eq!(&whole, &judged(&parts.0, &parts.1), "{:?}", change);
            // What is left once all is at rest is seen in the part, and nothing that is not so.
            let (was, is) = (invariants::settled(before.snapshot()), invariants::settled(ledger.snapshot()));
            let pieces = ledger.pieces(&concern).flat_map(|piece| invariants::settled(&piece));
            let seen: Vec<_> = pieces.collect();
            prop_assert!(seen.iter().all(|one| is.contains(one)), "{:?}", change);
            prop_assert!(invariants::new_since(&was, is).iter().all(|one| seen.contains(one)), "{:?}", change);
        }
        // The indexes are what they would be had it been told this and nothing else.
        prop_assert_eq!(&ledger, &Ledger::of(ledger.snapshot()));
    }

    #[test]
    fn an_action_is_carried_out_and_judged_in_a_part_as_in_the_whole(World(snapshot) in worlds()) {
        let mut ledger = Ledger::of(&snapshot);
        let mut plain = snapshot;
        for action in plan(&plain).actions {
            let before = plain.clone();
            prop_assert!(apply(&mut plain, &action, NOW));
            let applied = ledger.apply(&action, NOW);
            prop_assert!(applied.fits);
            prop_assert_eq!(ledger.snapshot(), &plain);
            let units_change = words(&action).starts_with("put") || words(&action).starts_with("remove");
            let ([new, _, step], [whole_new, _, whole_step]) =
                (judged(&applied.before, &applied.after), judged(&before, &plain));
            prop_assert_eq!(step, whole_step);
            prop_assert!(units_change || new == whole_new, "{}: {:?} {:?}", words(&action), new, whole_new);
            prop_assert!(!ledger.apply(&action, NOW).fits || units_change);
        }
    }
}

/// Too many of a set that are out are on other machines than the one that the step is about.
#[test]
fn a_set_is_judged_as_a_whole() {
    let set = ["d@1.service", "d@2.service", "d@3.service"];
    let world = set.iter().zip(1..).fold(World::of(3), |world, (unit, n)| {
        world.unit(unit, "UpdateMaxOut=1").placed(unit, n).status(n, unit).is(n, Availability::Drained)
    });
    let mut ledger = Ledger::of(&world.0);
    let mut leaves = |unit: &str| {
        let before = ledger.clone();
        let concern = ledger.set(Change::Placement(name(unit), None));
        let parts = (before.part(&concern), ledger.part(&concern));
        assert_eq!(
            invariants::step(before.snapshot(), ledger.snapshot()),
            invariants::step(&parts.0, &parts.1)
        );
        invariants::step(&parts.0, &parts.1).len()
    };
    assert_eq!((leaves("d@1.service"), leaves("d@2.service")), (0, 1));
}

/// Agents are told what is theirs by such parts.
#[test]
fn a_part_has_the_global_units_of_its_machines() {
    let world = World::of(3).unit("g.service", "Global=yes").unit("u.service", "").placed("u.service", 2);
    let mut ledger = Ledger::of(&world.0);
    let machine = |n| Concern { machines: [machine_id(n)].into(), ..Concern::default() };
    let whole = units_by_machine(ledger.snapshot());
    for n in 1..4 {
        let part = units_by_machine(&ledger.part(&machine(n)));
        assert_eq!(part, [(machine_id(n), whole[&machine_id(n)].clone())].into());
    }
    assert!(ledger.set(Change::Unit(name("g.service"), None)).everything);
    // Nor is it forgotten how far its change was.
    let updated = |generation| Change::Updated(machine_id(1), name("g.service"), generation);
    ledger.set(updated(Some(2)));
    assert_eq!(ledger.part(&machine(1)).updated.len(), 1);
    let back = Action::Update { unit: name("g.service"), machine: machine_id(1), generation: None };
    assert_eq!(ledger.apply(&back, NOW).changes, [updated(None)]);
    assert!(!ledger.set(Change::Unit(name("u.service"), None)).everything);
}
