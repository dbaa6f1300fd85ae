//! Resources, classes, spread, wishes, priorities, replicas, and machines that operators set apart.

use sealift_model::{Availability, DesiredState, Requirements, Unit, UnitName};
use sealift_planner::{Change, Planner, Problem, Reader, Reason, Verdict, plan_with};

use crate::world::{NOW, World, machine_id, name, requirements, words};

/// `count` machines of this many GiB and cores.
fn sized(count: u32, memory: u64, cpu: u32) -> World {
    (1..=count).fold(World::of(count), |world, n| world.sized(n, memory, cpu, ""))
}

#[test]
fn goes_where_the_least_is_left_over() {
    let world = sized(1, 8, 8).machine(2, 0, &[]).sized(2, 4, 4, "").machine(3, 0, &[]).sized(3, 2, 8, "");
    for (wanted, expected) in [
        ("Memory=1", "place u 3"),
        ("Memory=3", "place u 2"),
        ("Memory=3 CPU=5", "place u 1"),
        // Of both together.
        ("CPU=3", "place u 3"),
        // Nothing asked: the least loaded, as fleet.
        ("", "place u 1"),
    ] {
        assert_eq!(world.clone().unit("u.service", wanted).plan(), [expected], "{wanted}");
    }
    assert_eq!(world.clone().unit("u.service", "Memory=9").plan(), [""; 0]);
    // A machine that says nothing of itself has room for anything, and is taken last.
    let world = world.machine(4, 0, &[]).unit("u.service", "Memory=9");
    let largest = world.plan();
    assert_eq!(largest, ["place u 4"]);
    assert_eq!(world.unit("u.service", "Memory=1").plan(), ["place u 3"]);
}

#[test]
fn never_promises_what_is_not_there() {
    let world = sized(1, 4, 4)
        .unit("a.service", "Memory=2")
        .unit("b.service", "Memory=2")
        .unit("c.service", "Memory=1");
    assert_eq!(world.plan(), ["place a 1", "place b 1"]);
    // What is being stopped counts until it has stopped.
    let full = world.settled().caught_up();
    let stopping = full.desired("a.service", DesiredState::Inactive).settled();
    assert_eq!(stopping.where_is().len(), 1);
    assert_eq!(stopping.caught_up().plan(), ["place c 1"]);
    // Of one that is gone nobody knows what it takes.
    let gone = sized(1, 4, 4).unit("c.service", "Memory=1").status(1, "x.service");
    assert_eq!(gone.plan(), [""; 0]);
    // Global units have their part, and step back for nobody who comes.
    let global = sized(1, 4, 4).unit("g.service", "Global=yes Memory=3").unit("c.service", "Memory=2");
    assert_eq!(global.plan(), [""; 0]);
    assert_eq!(global.unit("c.service", "Memory=1").plan(), ["place c 1"]);
    // A machine that shrank keeps those of the highest priority, then those that came first.
    let shrunk = sized(1, 8, 8)
        .unit("a.service", "Memory=3")
        .placed("a.service", 1)
        .unit("b.service", "Memory=3 Priority=1")
        .placed("b.service", 1)
        .sized(1, 4, 4, "");
    let said = shrunk.plan();
    assert_eq!(said, ["unplace a 1: 3072 MiB of memory wanted, 1024 free"]);
}

#[test]
fn classes_are_for_those_that_name_them() {
    let world = World::of(2).sized(2, 0, 0, "job");
    for (wanted, expected) in
        [("", "place u 1"), ("MachineClass=job", "place u 2"), ("MachineClass=*", "place u 1")]
    {
        assert_eq!(world.clone().unit("u.service", wanted).plan(), [expected], "{wanted}");
    }
    assert_eq!(world.clone().unit("u.service", "MachineClass=gpu").plan(), [""; 0]);
    let moved = world.unit("u.service", "").placed("u.service", 2);
    assert_eq!(moved.plan()[0], "unplace u 2: the machine is of class job and the unit asks for none");
}

#[test]
fn instances_are_spread_and_kept_apart() {
    let zones = ["a", "a", "a", "b"];
    let world =
        (1..).zip(zones).fold(World::default(), |world, (n, zone)| world.machine(n, 0, &[("zone", zone)]));
    let names = ["w@1.service", "w@2.service", "w@3.service", "w@4.service"];
    let spread = names.iter().fold(world, |world, unit| world.unit(unit, "Spread=zone"));
    assert_eq!(spread.plan(), ["place w@1 1", "place w@2 4", "place w@3 2", "place w@4 4"]);
    // With room for all on one machine they still go to different ones.
    let apart = names.iter().fold(sized(3, 8, 8), |world, unit| world.unit(unit, "Memory=1"));
    assert_eq!(apart.plan(), ["place w@1 1", "place w@2 2", "place w@3 3", "place w@4 1"]);
}

#[test]
fn wishes_are_satisfied_where_they_can_be() {
    let world = World::of(2).machine(3, 0, &[("disk", "ssd")]).unit("x.service", "MachineID=00000003");
    let world = world.placed("x.service", 3);
    assert_eq!(world.clone().unit("u.service", "Prefer=disk:ssd").plan(), ["place u 3"]);
    assert_eq!(world.clone().unit("u.service", "Prefer=disk:none").plan(), ["place u 1"]);
    assert_eq!(world.clone().unit("u.service", "PreferMachineOf=x*").plan(), ["place u 3"]);
    assert_eq!(world.unit("u.service", "PreferMachineOf=y* Conflicts=x*").plan(), ["place u 1"]);
}

#[test]
fn higher_priorities_come_first_and_may_drive_others_away() {
    let world = sized(1, 4, 4).unit("a.service", "Memory=4").unit("z.service", "Memory=4 Priority=5");
    assert_eq!(world.plan(), ["place z 1"]);
    let full = sized(1, 4, 4)
        .unit("a.service", "Memory=2")
        .unit("b.service", "Memory=1")
        .unit("c.service", "Memory=1");
    let full = full.settled().caught_up();
    assert_eq!(
        full.clone().unit("z.service", "Memory=1 Priority=5").plan(),
        [""; 0],
        "nobody asked for preemption"
    );
    // As few as will do, of the lowest priority, the newest.
    let wanted = full
        .clone()
        .unit("b.service", "Memory=1 Priority=1")
        .unit("z.service", "Memory=1 Priority=5 Preempt=yes");
    assert_eq!(wanted.plan(), ["unplace c 1: z.service, which has a higher priority, needs the room"]);
    // The room is kept for it, also from who was there and from who comes.
    let stopping = wanted.settled();
    let waiting = stopping.unit("d.service", "Memory=1").caught_up();
    assert_eq!(waiting.plan(), ["place z 1"]);
    assert_eq!(waiting.settled().where_is().len(), 3);
    // Never of its own priority.
    let equal = full.unit("z.service", "Memory=4 Preempt=yes");
    assert_eq!(equal.plan(), [""; 0]);
}

#[test]
fn a_drained_machine_becomes_empty() {
    let world = World::of(2)
        .unit("a.service", "")
        .placed("a.service", 1)
        .unit("only.service", "MachineID=00000001")
        .placed("only.service", 1)
        .unit("g.service", "Global=yes");
    let cordoned = world.clone().is(1, Availability::Cordoned).unit("n.service", "").unit("o.service", "");
    assert_eq!(cordoned.plan(), ["place n 2", "place o 2"]);
    let drained = world.is(1, Availability::Drained);
    assert_eq!(
        drained.plan(),
        ["unplace a 1: the machine is drained", "unplace only 1: the machine is drained", "place a 2"]
    );
    let planner = Planner::of(&drained.0, Reader::PLAIN);
    let why =
        |unit: &str| planner.explain(&name(unit)).into_iter().map(|(_, verdict)| verdict).next().unwrap();
    assert_eq!(why("g.service"), Verdict::No(Reason::Drained));
    // Never more of a set at once than may be.
    let set = |world: World, n: u32| {
        let unit = format!("w@{n}.service");
        world.unit(&unit, "UpdateMaxOut=1").placed(&unit, 1).status(1, &unit)
    };
    let mut world = set(set(set(World::of(2), 1), 2), 3).is(1, Availability::Drained);
    for n in 1..=3 {
        assert_eq!(world.plan(), [format!("unplace w@{n} 1: the machine is drained")]);
        world = world.settled().confirmed(1, &format!("w@{n}.service")).settled();
        assert_eq!(world.plan(), [""; 0], "one is not up yet");
        world = world.caught_up();
    }
    assert_eq!(world.where_is().into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn a_global_unit_without_room_keeps_no_other_away() {
    let world = World::of(1)
        .sized(1, 1, 0, "")
        .unit("a.service", "Global=yes Memory=3 Conflicts=b.service")
        .unit("b.service", "Global=yes");
    let on = sealift_planner::units_by_machine(&world.0).remove(&machine_id(1)).unwrap();
    assert_eq!(on.into_iter().collect::<Vec<_>>(), [name("b.service")]);
}

#[test]
fn a_machine_that_shuts_down_is_left_while_it_is_still_there() {
    let mut world = World::of(2).unit("a.service", "").placed("a.service", 1).status(1, "a.service");
    world.0.machines.get_mut(&machine_id(1)).unwrap().1.as_mut().unwrap().leaving = true;
    assert_eq!(
        world.plan(),
        ["unplace a 1: the machine is drained"],
        "and it has to confirm that it stopped"
    );
    let world = world.settled().confirmed(1, "a.service");
    assert_eq!(world.plan(), ["place a 2"]);
}

/// As in a unit file, where `%i` is the instance.
fn read(template: &Unit, instance: &UnitName) -> Option<Requirements> {
    Some(requirements(&template.text.replace("%i", instance.instance()?)))
}

const READER: Reader = Reader { requirements: read, same_text: |_, _| true };

#[test]
fn a_template_makes_its_replicas() {
    let template = |text: &str| Unit {
        requirements: requirements(text),
        ..Unit::new(name("w@.service"), text, DesiredState::Launched)
    };
    let told = |world: &World| plan_with(&world.0, READER).actions.iter().map(words).collect::<Vec<_>>();
    let carried_out = |mut world: World| {
        for action in plan_with(&world.0, READER).actions {
            assert!(sealift_planner::apply(&mut world.0, &action, NOW));
        }
        assert_eq!(told(&world), [""; 0]);
        world
    };
    let mut world = World::of(2);
    world.0.units.insert(name("w@.service"), template("Replicas=3 Conflicts=x%i.service"));
    assert_eq!(
        told(&world),
        ["put w@1 1", "put w@2 1", "put w@3 1", "place w@1 1", "place w@2 2", "place w@3 1"]
    );
    let mut world = carried_out(world);
    let made = &world.0.units[&name("w@2.service")];
    assert_eq!(made.template, Some(name("w@.service")));
    assert!(made.requirements.conflicts.contains("x2.service") && made.requirements.replicas.is_none());
    // Fewer; those above go.
    world
        .0
        .units
        .insert(name("w@.service"), Unit { generation: 2, ..template("Replicas=1 Conflicts=x%i.service") });
    let said = told(&world);
    assert_eq!(
        said,
        [
            "put w@1 2",
            "unplace w@2 2: the unit is gone",
            "remove w@2",
            "unplace w@3 1: the unit is gone",
            "remove w@3"
        ]
    );
    let mut world = carried_out(world);
    // One that somebody made by hand stays his.
    world = world.unit("w@2.service", "");
    world.0.units.insert(name("w@.service"), Unit { generation: 3, ..template("Replicas=2") });
    let plan = plan_with(&world.0, READER);
    assert_eq!(
        plan.problems,
        [Problem::InstanceTaken { template: name("w@.service"), unit: name("w@2.service") }]
    );
    // Without the template, none.
    world.0.units.remove(&name("w@2.service"));
    world.0.units.remove(&name("w@.service"));
    assert_eq!(told(&world), ["unplace w@1 1: the unit is gone", "remove w@1"]);
}

#[test]
fn rebalances_by_a_bounded_number_of_moves() {
    let many: Vec<String> = (1..=6).map(|n| format!("u{n}.service")).collect();
    let world =
        many.iter().fold(World::of(3), |world, unit| world.unit(unit, "").placed(unit, 1).status(1, unit));
    let mut planner = Planner::of(&world.0, Reader::PLAIN);
    assert_eq!(planner.plan(100, NOW), []);
    let moves = planner.rebalance(10, NOW);
    // Until no machine has two more than another.
    let said: Vec<String> = moves.iter().map(words).collect();
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!(said[0], "unplace u1 1: machine 00000002 has less to do");
    // They do not go back, and come as soon as the stop is confirmed.
    assert_eq!(planner.plan(100, NOW), []);
    for n in 1..=4 {
        planner.feed(Change::Status(machine_id(1), name(&format!("u{n}.service")), None));
    }
    let placed: Vec<String> = planner.plan(100, NOW).iter().map(words).collect();
    assert_eq!(placed, ["place u1 2", "place u2 3", "place u3 2", "place u4 3"]);
    assert_eq!(planner.rebalance(10, NOW), []);
    let mut bounded = Planner::of(&world.0, Reader::PLAIN);
    assert_eq!(bounded.rebalance(2, NOW).len(), 2);
}

#[test]
fn says_what_a_change_would_do_and_does_nothing() {
    let world = World::of(2).unit("a.service", "").placed("a.service", 1).status(1, "a.service");
    let planner = Planner::of(&world.0, Reader::PLAIN);
    let drained = world.clone().is(1, Availability::Drained);
    let said = planner.what_if(drained.0.changes_since(&world.0), 100, NOW);
    let said: Vec<String> = said.iter().map(words).collect();
    assert_eq!(said, ["unplace a 1: the machine is drained", "place a 2"]);
    assert_eq!(planner.what_if([], 100, NOW), []);
    assert_eq!(planner.what_if(drained.0.changes_since(&world.0), 1, NOW).len(), 1);
}

/// Servers' clocks differ and go back: which placement is newer is told by its number.
#[test]
fn wall_clocks_decide_nothing() {
    let both = |wanted: &str, n| {
        let world = World::of(2).unit("a.service", wanted).unit("z.service", wanted);
        world.placed("z.service", 1).placed("a.service", 1).sized(1, n, 0, "")
    };
    for world in [both("Conflicts=?.service", 0), both("Memory=2", 3)] {
        let mut skewed = world.clone();
        skewed.0.placements.get_mut(&name("z.service")).unwrap().since.0 = 9_000;
        let said = world.plan();
        assert!(said[0].starts_with("unplace a 1"), "the newer one leaves: {said:?}");
        assert_eq!(said, skewed.plan());
    }
    // Of two that may both give way it is the newer one, too.
    let world = both("Memory=2", 4).is(2, Availability::Drained);
    let mut skewed = world.unit("n.service", "Memory=2 Priority=5 Preempt=yes");
    skewed.0.placements.get_mut(&name("z.service")).unwrap().since.0 = 9_000;
    assert!(skewed.plan()[0].starts_with("unplace a 1: n.service"), "{:?}", skewed.plan());
}

#[test]
fn plays_out_what_it_began_as_if_machines_obeyed_at_once() {
    let many: Vec<String> = (1..=4).map(|n| format!("u{n}.service")).collect();
    let world =
        many.iter().fold(World::of(2), |world, unit| world.unit(unit, "").placed(unit, 1).status(1, unit));
    let mut planner = Planner::of(&world.0, Reader::PLAIN);
    let begun = planner.rebalance(10, NOW);
    let said: Vec<String> = planner.play_out(begun, 100, NOW).iter().map(words).collect();
    assert_eq!(
        said,
        [
            "unplace u1 1: machine 00000002 has less to do",
            "unplace u2 1: machine 00000002 has less to do",
            "place u1 2",
            "place u2 2"
        ]
    );
    let standing = planner.standing();
    let on = |machine| standing.values().filter(|id| **id == machine_id(machine)).count();
    assert_eq!((on(1), on(2)), (2, 2));

    // What waits for others of its set to be up leaves in the end.
    let set: Vec<String> = (1..=3).map(|n| format!("w@{n}.service")).collect();
    let world = set
        .iter()
        .fold(World::of(2), |world, unit| world.unit(unit, "UpdateMaxOut=1").placed(unit, 1).status(1, unit));
    let planner = Planner::of(&world.0, Reader::PLAIN);
    let drained = world.clone().is(1, Availability::Drained);
    let said = planner.what_if(drained.0.changes_since(&world.0), 100, NOW);
    assert_eq!(said.iter().filter(|action| words(action).starts_with("place ")).count(), 3, "{said:?}");
}

#[test]
fn knows_what_stands_on_machines_that_are_there() {
    let world = World::of(2).unit("a.service", "MachineID=00000001").placed("a.service", 1);
    let world = world.status(1, "a.service").unit("g.service", "Global=yes");
    let mut planner = Planner::of(&world.0, Reader::PLAIN);
    assert_eq!(planner.standing().into_iter().collect::<Vec<_>>(), [(name("a.service"), machine_id(1))]);
    assert_eq!(planner.standing_globals().len(), 2);
    planner.feed(Change::Presence(machine_id(1), None));
    planner.play_out(Vec::new(), 100, NOW);
    assert!(planner.standing().is_empty(), "it waits for its machine");
    assert_eq!(
        planner.standing_globals().into_iter().collect::<Vec<_>>(),
        [(machine_id(2), name("g.service"))]
    );
}
