//! Random fleets: every plan is the same twice, breaks nothing on the way and leaves nothing to do.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sealift_model::{Availability, DesiredState, Run, RunState, Unit, glob_matches};
use sealift_planner::invariants::{self, Violation};
use sealift_planner::{
    Action, Ledger, Planner, Reader, Snapshot, Verdict, apply, explain, plan, runs_on, units_by_machine,
};

use crate::world::{NOW, World, app, name, run, words};

const NAMES: [&str; 8] = [
    "a.service",
    "b.service",
    "b2.service",
    "c.timer",
    "d@1.service",
    "d@2.service",
    "d@.service",
    "e.service",
];
const GLOBS: [&str; 7] = ["a.service", "b*", "d@*.service", "e.service", "c.timer", "[ab]?*", "*"];

fn requirement() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(&NAMES[..]).prop_map(|name| format!("MachineOf={name}")),
        4 => select(&GLOBS[..]).prop_map(|glob| format!("Conflicts={glob}")),
        3 => select(&GLOBS[..]).prop_map(|glob| format!("Replaces={glob}")),
        3 => select(&["zone=a", "zone=b", "disk=ssd"][..]).prop_map(str::to_owned),
        2 => Just("Global=yes".to_owned()),
        1 => (1..4_u32).prop_map(|n| format!("MachineID={n:08x}")),
        4 => (1..4_u32, select(&["Memory", "CPU"][..])).prop_map(|(n, key)| format!("{key}={n}")),
        2 => select(&["a", "b", "*"][..]).prop_map(|class| format!("MachineClass={class}")),
        1 => Just("Spread=zone".to_owned()),
        1 => select(&["Prefer=zone:a", "Prefer=disk:ssd", "PreferMachineOf=b*"][..]).prop_map(str::to_owned),
        2 => (-1..3_i32).prop_map(|n| format!("Priority={n}")),
        1 => Just("Preempt=yes Priority=3 Memory=2".to_owned()),
        1 => (0..4_u32).prop_map(|n| format!("Replicas={n}")),
        1 => (1..3_u32).prop_map(|n| format!("UpdateMaxOut={n}")),
    ]
}

fn requirements() -> impl Strategy<Value = String> {
    vec(requirement(), 0..4).prop_map(|words| words.join(" "))
}

fn machines() -> impl Strategy<Value = World> {
    let availability = prop_oneof![
        8 => Just(Availability::Active),
        1 => Just(Availability::Cordoned),
        1 => Just(Availability::Drained),
    ];
    let size = (0..6_u64, 0..6_u32, select(&["", "", "", "a"][..]));
    let there = prop::bool::weighted(0.8);
    let machine = (0..4_u32, option::of(select(&["a", "b"][..])), any::<bool>(), there, size, availability);
    vec(machine, 0..6).prop_map(|machines| {
        (1..).zip(machines).fold(
            World::default(),
            |world, (n, (slots, zone, ssd, there, size, availability))| {
                let mut metadata = Vec::from_iter(zone.map(|zone| ("zone", zone)));
                metadata.extend(ssd.then_some(("disk", "ssd")));
                let world = world.machine(n, slots, &metadata).sized(n, size.0, size.1, size.2);
                let world =
                    if availability == Availability::Active { world } else { world.is(n, availability) };
                if there { world } else { world.away(n) }
            },
        )
    })
}

fn with_units(world: World) -> impl Strategy<Value = World> {
    let wish = prop_oneof![
        1 => Just(DesiredState::Inactive),
        2 => Just(DesiredState::Loaded),
        6 => Just(DesiredState::Launched),
    ];
    let units = subsequence(NAMES.to_vec(), 0..=NAMES.len()).prop_shuffle();
    let places = vec((select(&NAMES[..]), 1..7_u32), 0..6);
    let statuses = vec((1..6_u32, select(&NAMES[..])), 0..5);
    (units, vec((requirements(), wish), NAMES.len()), places, statuses).prop_map(
        move |(units, about, places, statuses)| {
            let mut world = world.clone();
            for (unit, (wanted, wish)) in units.into_iter().zip(about) {
                world = world.unit(unit, &wanted).desired(unit, wish);
            }
            world = places.into_iter().fold(world, |world, (unit, n)| world.placed(unit, n));
            statuses.into_iter().fold(world, |world, (n, unit)| world.status(n, unit))
        },
    )
}

fn with_apps(world: World) -> impl Strategy<Value = World> {
    let units = || vec((select(&NAMES[..]), requirements()), 0..4);
    // Two releases of one app, of which the first may have been carried out, and one of another app.
    (units(), units(), units(), any::<bool>()).prop_map(move |(first, second, other, was_first)| {
        fn unit_list<'a>(units: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
            units.iter().map(|(unit, wanted)| (*unit, wanted.as_str())).collect()
        }
        let mut world = world.clone();
        if was_first {
            world = world.app(app("p", 1, &unit_list(&first)));
            for action in plan(&world.0).actions {
                assert!(apply(&mut world.0, &action, NOW));
            }
        }
        world.app(app("p", 2, &unit_list(&second))).app(app("q", 1, &unit_list(&other)))
    })
}

/// Runs as they can be: no machine has more of them than slots.
fn with_runs(world: World) -> impl Strategy<Value = World> {
    vec((0..5_u64, 0..3_u32, option::of(1..7_u32)), 0..8).prop_map(move |runs| {
        (1..).zip(runs).fold(world.clone(), |world, (number, (queued_at, lost, on))| {
            let added = world.clone().run(run(number, queued_at, lost, on));
            let overload = |one: &Violation| matches!(one, Violation::Overload { .. });
            if invariants::state(&added.0).iter().any(overload) { world } else { added }
        })
    })
}

pub(crate) fn worlds() -> impl Strategy<Value = World> {
    machines().prop_flat_map(with_units).prop_flat_map(with_apps).prop_flat_map(with_runs)
}

/// Carries the plan out step by step; nothing may break that was not broken before.
fn carry_out(snapshot: &mut Snapshot) {
    let made = plan(snapshot);
    assert_eq!(made, plan(&snapshot.clone()), "another plan for the same snapshot");
    let mut broken = invariants::state(snapshot);
    for action in &made.actions {
        let before = snapshot.clone();
        assert!(apply(snapshot, action, NOW), "{}", words(action));
        // A unit that goes from one app to another is removed in between, so no single step takes it over.
        assert_eq!(invariants::step(&before, snapshot), [], "after {}", words(action));
        let after = invariants::state(snapshot);
        // A unit that changes may be wrong where it is until the actions that follow.
        if !matches!(action, Action::PutUnit { .. } | Action::RemoveUnit { .. }) {
            let new = invariants::new_since(&broken, after.clone());
            assert!(new.is_empty(), "after {}: {new:?}", words(action));
        }
        broken = after;
    }
    let left = invariants::settled(snapshot);
    assert_eq!(left, [], "after {:?}", made.actions.iter().map(words).collect::<Vec<_>>());
    let again = plan(snapshot);
    assert_eq!(again.actions.iter().map(words).collect::<Vec<_>>(), [""; 0], "after {:?}", made.actions);
    assert_eq!(again.problems, made.problems);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn plans_settle_and_break_nothing(world in worlds(), lost in 1..6_u32) {
        let mut snapshot = world.0;
        carry_out(&mut snapshot);
        // A machine goes, the others finish stopping what they were told to stop.
        if let Some((_, presence)) = snapshot.machines.get_mut(&crate::world::machine_id(lost)) {
            *presence = None;
        }
        snapshot.statuses.clear();
        carry_out(&mut snapshot);
    }

    #[test]
    fn what_is_explained_agrees_with_what_is_done(world in worlds()) {
        let mut snapshot = world.0;
        carry_out(&mut snapshot);
        let by_machine = units_by_machine(&snapshot);
        for unit in snapshot.units.values() {
            let placed = snapshot.placements.get(&unit.name).map(|placement| &placement.machine);
            for (machine, verdict) in explain(&snapshot, &unit.name) {
                let runs = runs_on(&snapshot, unit, &machine);
                prop_assert_eq!(runs, verdict == Verdict::Here);
                prop_assert_eq!(runs, by_machine[&machine].contains(&unit.name));
                // Whatever could come has come.
                if verdict == Verdict::Fits {
                    let bound = replaces_what_it_is_bound_to(&snapshot, unit);
                    prop_assert!(placed.is_some() || bound, "{} fits {}", unit.name, machine);
                }
            }
        }
        for run in snapshot.runs.values().filter(|run| run.state == RunState::Queued) {
            for (machine, presence) in snapshot.machines.values() {
                let running = |other: &&Run| {
                    other.state == RunState::Running && other.attempt().unwrap().machine == machine.id
                };
                let running = snapshot.runs.values().filter(running).count();
                let full = running >= usize::try_from(machine.run_slots).unwrap();
                prop_assert!(presence.is_none() || full, "{} waits beside free slots", run.id);
            }
        }
    }
}

/// Such a unit would drive its own companion away, directly or with what that one follows.
fn replaces_what_it_is_bound_to(snapshot: &Snapshot, unit: &Unit) -> bool {
    let replaces = |target: &String| unit.requirements.replaces.iter().any(|glob| glob_matches(glob, target));
    bound_to(snapshot, unit).iter().any(replaces)
}

/// What the unit follows, by however many steps.
fn bound_to(snapshot: &Snapshot, unit: &Unit) -> Vec<String> {
    let mut bound: Vec<String> = unit.requirements.machine_of.iter().cloned().collect();
    let mut next = 0;
    while let Some(target) = bound.get(next).cloned() {
        if let Some(target) = snapshot.units.get(&name(&target)) {
            let more = target.requirements.machine_of.iter().filter(|one| !bound.contains(one)).cloned();
            let more: Vec<String> = more.collect();
            bound.extend(more);
        }
        next += 1;
    }
    bound
}

/// What a living planner and one that is made anew decide in the same state, and the actions.
fn same_as_anew(living: &mut Planner, truth: &Snapshot) -> Vec<Action> {
    let mut anew = Planner::of(truth, Reader::PLAIN);
    let actions = living.plan(usize::MAX, NOW);
    let expected = anew.plan(usize::MAX, NOW);
    assert_eq!(actions.iter().map(words).collect::<Vec<_>>(), expected.iter().map(words).collect::<Vec<_>>());
    assert_eq!(actions, expected);
    assert_eq!(living.problems(), anew.problems());
    assert_eq!(living.unplaced().collect::<Vec<_>>(), anew.unplaced().collect::<Vec<_>>());
    for name in truth.units.keys() {
        assert_eq!(living.explain(name), anew.explain(name), "{name}");
    }
    actions
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default() })]

    /// One world turns into the next, and not all that was decided is carried out.
    #[test]
    fn decisions_depend_on_the_state_alone(worlds in vec((worlds(), any::<u64>()), 1..5)) {
        let mut living = Planner::new(Reader::PLAIN);
        let mut truth = Ledger::default();
        for (World(wanted), choice) in worlds {
            // Some of the changes, in an order of their own; some are told twice.
            let mut changes = wanted.changes_since(truth.snapshot());
            let mut random = choice;
            let mut next = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as usize
            };
            for at in (1..changes.len()).rev() {
                changes.swap(at, next() % (at + 1));
            }
            changes.truncate(changes.len() * (next() % 4 + 1) / 4);
            let before = truth.snapshot().clone();
            for change in changes {
                truth.set(change);
            }
            for change in truth.snapshot().changes_since(&before) {
                living.feed(change.clone());
                if next() % 4 == 0 {
                    living.feed(change);
                }
                if next() % 8 == 0 {
                    // It decides before it has been told all, and learns that nothing came of it.
                    for action in living.plan(1, NOW) {
                        for subject in action.writes() {
                            living.feed(truth.change(subject));
                        }
                    }
                }
            }
            let actions = same_as_anew(&mut living, truth.snapshot());
            let done = if next() % 2 == 0 { actions.len() } else { next() % (actions.len() + 1) };
            for (at, action) in actions.iter().enumerate() {
                if at < done {
                    assert!(truth.apply(action, NOW).fits, "{}", words(action));
                }
            }
            for subject in actions.iter().skip(done).flat_map(Action::writes) {
                living.feed(truth.change(subject));
            }
        }
        same_as_anew(&mut living, truth.snapshot());
    }
}
