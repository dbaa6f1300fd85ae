//! Stories of the simulator: the real planner keeps its promises, and a broken one is caught.

use std::time::Instant;

use sealift_lab::simulator::{Broken, Failure, Length, Options, Planning, Size, Summary, simulate};
use sealift_planner::invariants::Violation;
use sealift_planner::{Action, Plan, Snapshot};

/// As many stories at once as there are processors, in the order of seeds.
fn stories(seeds: std::ops::Range<u64>, options: &Options) -> Vec<Result<Summary, Box<Failure>>> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let seeds: Vec<u64> = seeds.collect();
    std::thread::scope(|scope| {
        let parts: Vec<_> = seeds
            .chunks(seeds.len().div_ceil(threads).max(1))
            .map(|part| scope.spawn(|| part.iter().map(|seed| simulate(*seed, options)).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

/// All of them end well.
fn end_well(seeds: std::ops::Range<u64>, options: &Options) -> Summary {
    let (mut total, began) = (Summary::default(), Instant::now());
    for story in stories(seeds, options) {
        match story {
            Ok(summary) => total += summary,
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{total:#?}\n{}", total.speed(began.elapsed().as_secs_f64()));
    total
}

/// The whole world is judged after each event, and the part of it that the event can have changed: both say the same.
#[test]
fn stories_end_well_before_every_eye() {
    end_well(0..16, &Options::default());
}

#[test]
fn a_thousand_stories_end_well() {
    let options = Options { length: Length::Events(600), full_every: 200, ..Options::default() };
    let total = end_well(1_000..2_000, &options);
    assert!(
        total.expired > 0 && total.kills > 0 && total.outages > 0 && total.leader_changes > 0,
        "{total:?}"
    );
}

#[test]
fn a_fleet_of_a_thousand_machines_ends_well() {
    let size = Size::Big { machines: 1_000, units: 3_000, pace: 4_000 };
    let length = Length::Millis(1_800_000);
    let total = end_well(0..1, &Options { size, length, full_every: 20_000, ..Options::default() });
    assert!(total.placed > 1_000 && total.expired > 0 && total.sessions > 1_000, "{total:?}");
}

#[test]
fn a_seed_tells_the_same_story_again() {
    let options = Options::default();
    assert_eq!(simulate(3, &options).unwrap(), simulate(3, &options).unwrap());
    assert_ne!(simulate(3, &options).unwrap(), simulate(4, &options).unwrap());
}

/// The first failure of these seeds that is as wanted.
fn caught(seeds: std::ops::Range<u64>, options: &Options, wanted: fn(&Broken) -> bool) -> Box<Failure> {
    let failures = stories(seeds, options).into_iter().filter_map(Result::err);
    let mut others = Vec::new();
    for failure in failures {
        if wanted(&failure.broken) {
            // The one line that repeats it does.
            let again = simulate(failure.seed, options).unwrap_err();
            assert_eq!((again.event, again.broken.to_string()), (failure.event, failure.broken.to_string()));
            let line = format!("simulate --seed {} --events 2000", failure.seed);
            assert!(failure.to_string().lines().last().unwrap().contains(&line), "{failure}");
            return failure;
        }
        others.push(failure.broken.to_string());
    }
    panic!("nothing of the kind was caught, but: {others:#?}")
}

/// Gives a unit to the next machine without waiting for what the old one says.
fn waits_for_nobody(snapshot: &Snapshot) -> Plan {
    let mut deaf = snapshot.clone();
    deaf.statuses.clear();
    sealift_planner::plan(&deaf)
}

/// Sees no `Conflicts=`.
fn sees_no_conflicts(snapshot: &Snapshot) -> Plan {
    let mut blind = snapshot.clone();
    for unit in blind.units.values_mut() {
        unit.requirements.conflicts.clear();
    }
    let mut plan = sealift_planner::plan(&blind);
    // Units that it takes for changed because it sees less of them stay as they are.
    let due = sealift_planner::plan(snapshot).actions;
    plan.actions.retain(|action| !matches!(action, Action::PutUnit { .. }) || due.contains(action));
    plan
}

/// Thinks that every machine has a slot more than it has.
fn overbooks(snapshot: &Snapshot) -> Plan {
    let mut wider = snapshot.clone();
    for (machine, _) in wider.machines.values_mut() {
        machine.run_slots += 1;
    }
    sealift_planner::plan(&wider)
}

/// Leaves attempts with the machines that are gone.
fn never_gives_up_hope(snapshot: &Snapshot) -> Plan {
    let mut plan = sealift_planner::plan(snapshot);
    plan.actions.retain(|action| !matches!(action, Action::Lose { .. } | Action::GiveUp { .. }));
    plan
}

#[test]
fn a_planner_that_does_not_wait_is_caught_by_its_actions() {
    let options = Options { planning: Planning::Once(waits_for_nobody), ..Options::default() };
    let twice = |violation: &Violation| matches!(violation, Violation::PlacedTwice { .. });
    caught(
        0..20,
        &options,
        |broken| matches!(broken, Broken::Action { violations, .. } if !violations.is_empty()),
    );
    let failure = caught(0..8, &options, |broken| matches!(broken, Broken::Action { .. }));
    let Broken::Action { violations, .. } = &failure.broken else { unreachable!() };
    assert!(violations.iter().any(twice), "{failure}");
}

#[test]
fn a_planner_that_does_not_wait_is_caught_by_what_the_machines_do() {
    let options =
        Options { planning: Planning::Once(waits_for_nobody), check_actions: false, ..Options::default() };
    caught(0..8, &options, |broken| matches!(broken, Broken::Twice { .. }));
}

/// What is judged after each event alone catches the same as the whole world does, at the same event.
#[test]
fn the_part_that_an_event_changed_shows_what_the_whole_shows() {
    let planners: [fn(&Snapshot) -> Plan; 4] =
        [waits_for_nobody, sees_no_conflicts, overbooks, never_gives_up_hope];
    let mut caught = 0;
    for planner in planners {
        for check_actions in [true, false] {
            let whole = Options { planning: Planning::Once(planner), check_actions, ..Options::default() };
            let whole = Options { length: Length::Events(800), ..whole };
            let part = Options { full_every: usize::MAX, ..whole.clone() };
            for seed in 0..4 {
                // Where it ends well or late, a planner was not asked as often.
                let (whole, part) = (simulate(seed, &whole), simulate(seed, &part));
                let event = |story: &Result<Summary, Box<Failure>>| {
                    story.as_ref().err().map(|failure| (failure.event, failure.broken.to_string()))
                };
                assert_eq!(event(&whole), event(&part));
                caught += usize::from(whole.is_err());
            }
        }
    }
    assert!(caught >= 16, "only {caught} were caught");
}

#[test]
fn other_broken_planners_are_caught() {
    let with = |plan| Options { planning: Planning::Once(plan), ..Options::default() };
    caught(0..30, &with(sees_no_conflicts), |broken| {
        let conflict = |violation: &Violation| matches!(violation, Violation::Conflict { .. });
        matches!(broken, Broken::Action { violations, .. } if violations.iter().any(conflict))
    });
    caught(0..8, &with(overbooks), |broken| {
        let overload = |violation: &Violation| matches!(violation, Violation::Overload { .. });
        matches!(broken, Broken::Action { violations, .. } if violations.iter().any(overload))
    });
    let by_the_world = Options { check_actions: false, ..with(overbooks) };
    caught(0..8, &by_the_world, |broken| matches!(broken, Broken::Slots { .. }));
    caught(0..8, &with(never_gives_up_hope), |broken| matches!(broken, Broken::Misfit { .. }));
}
