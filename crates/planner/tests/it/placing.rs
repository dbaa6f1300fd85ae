//! fleet's placement rules.

use std::collections::BTreeMap;

use sealift_model::DesiredState;
use sealift_planner::{Reason, Verdict, explain, runs_on, units_by_machine};

use crate::world::{World, machine_id, name};

#[test]
fn goes_to_the_least_loaded_machine() {
    // Two units on 1, one on 2, one global on 1 and 3, nothing on 4.
    let world = World::of(3)
        .machine(4, 0, &[("bare", "yes")])
        .unit("a.service", "")
        .placed("a.service", 1)
        .unit("b.service", "")
        .placed("b.service", 1)
        .unit("c.service", "")
        .placed("c.service", 2);
    assert_eq!(world.clone().unit("n.service", "").plan(), ["place n 3"]);
    let world = world.unit("g.service", "Global=yes Conflicts=nothing");
    // Global units count: 1 has 3, 2 has 2, 3 and 4 have 1.
    let many = ["n1.service", "n2.service", "n3.service", "n4.service"];
    let world = many.iter().fold(world, |world, unit| world.unit(unit, ""));
    assert_eq!(world.plan(), ["place n1 3", "place n2 4", "place n3 2", "place n4 3"]);
    world.settled();
}

#[test]
fn fits_what_the_unit_asks_for() {
    let world = World::default()
        .machine(1, 0, &[("zone", "a"), ("disk", "ssd")])
        .machine(2, 0, &[("zone", "b")])
        .machine(3, 0, &[("zone", "c"), ("disk", "ssd")]);
    let full = format!("MachineID={}", machine_id(2));
    for (wanted, expected) in [
        ("zone=c", Some(3)),
        ("zone=b zone=c", Some(2)),
        ("zone=b zone=c disk=ssd", Some(3)),
        ("zone=d", None),
        ("rack=1", None),
        (full.as_str(), Some(2)),
        ("MachineID=00000003", Some(3)),
        ("MachineID=0000000", None),
        ("MachineID=00000001 zone=b", None),
        ("MachineOf=missing.service", None),
    ] {
        let settled = world.clone().unit("u.service", wanted).settled();
        assert_eq!(settled.where_is().get("u").copied(), expected, "{wanted}");
    }
}

#[test]
fn only_machines_that_are_there() {
    let world = World::of(2).away(1).unit("u.service", "");
    assert_eq!(world.plan(), ["place u 2"]);
    assert_eq!(world.away(2).plan(), [""; 0]);
}

#[test]
fn takes_away_what_cannot_stay() {
    let base = || World::of(2).unit("u.service", "").placed("u.service", 1);
    let inactive = base().desired("u.service", DesiredState::Inactive);
    assert_eq!(inactive.plan(), ["unplace u 1: the unit is to be inactive"]);
    assert_eq!(base().desired("u.service", DesiredState::Loaded).plan(), [""; 0]);
    assert_eq!(base().away(1).plan(), ["unplace u 1: the machine is away", "place u 2"]);
    let changed = base().unit("u.service", "MachineID=00000002");
    assert_eq!(changed.plan(), ["unplace u 1: MachineID=00000002 is another machine", "place u 2"]);
    let changed = base().unit("u.service", "zone=a zone=b");
    assert_eq!(changed.plan(), ["unplace u 1: the machine has not the metadata zone=a|b"]);
    let global = base().unit("u.service", "Global=yes");
    assert_eq!(global.plan(), ["unplace u 1: the unit is global"]);
    assert_eq!(World::of(1).placed("u.service", 1).plan(), ["unplace u 1: the unit is gone"]);
    // A machine that nobody knows is away, too.
    assert_eq!(base().placed("u.service", 9).plan(), ["unplace u 9: the machine is away", "place u 1"]);
}

#[test]
fn stays_on_a_machine_that_is_away_while_nobody_could_take_over() {
    let alone = World::of(1).unit("u.service", "").placed("u.service", 1).away(1);
    assert_eq!(alone.plan(), [""; 0]);
    let pinned = World::of(2).unit("u.service", "MachineID=00000001").placed("u.service", 1).away(1);
    assert_eq!(pinned.plan(), [""; 0]);
    // What follows it stays with it, wherever it could go by itself.
    let both = pinned.unit("f.service", "MachineOf=u.service").placed("f.service", 1);
    assert_eq!(both.plan(), [""; 0]);
    // And if it is not to run any more, it goes.
    let stopped = World::of(1).unit("u.service", "").placed("u.service", 1).away(1);
    assert_eq!(stopped.desired("u.service", DesiredState::Inactive).plan().len(), 1);
}

#[test]
fn templates_and_inactive_units_come_nowhere() {
    let world = World::of(1).unit("t@.service", "").unit("u.service", "").unit("t@1.service", "");
    assert_eq!(world.desired("u.service", DesiredState::Inactive).plan(), ["place t@1 1"]);
    assert_eq!(
        World::of(1).unit("t@.service", "").placed("t@.service", 1).plan(),
        ["unplace t@ 1: a template itself runs nowhere"]
    );
}

#[test]
fn conflicts_count_for_both_sides() {
    for (one, other) in
        [("Conflicts=b.service", ""), ("", "Conflicts=a.service"), ("Conflicts=*", "Conflicts=*")]
    {
        let world =
            World::of(2).unit("a.service", one).unit("b.service", other).unit("c@1.timer", "zone=none");
        assert_eq!(world.plan(), ["place a 1", "place b 2"], "{one:?} {other:?}");
        let alone = World::of(1).unit("a.service", one).unit("b.service", other);
        assert_eq!(alone.plan(), ["place a 1"], "{one:?} {other:?}");
        // The one that came later leaves, whatever its name.
        let both = World::of(2).unit("a.service", one).unit("b.service", other);
        let both = both.placed("b.service", 1).placed("a.service", 1);
        assert_eq!(both.plan(), ["unplace a 1: conflict b", "place a 2"], "{one:?} {other:?}");
    }
    // A unit does not conflict with itself.
    assert_eq!(World::of(1).unit("w@1.service", "Conflicts=w@*").plan(), ["place w@1 1"]);
}

#[test]
fn nothing_comes_beside_what_is_still_being_stopped() {
    let world = World::of(1).unit("new.service", "Conflicts=old*").status(1, "old.service");
    assert_eq!(world.plan(), [""; 0]);
    let world =
        World::of(1).unit("new.service", "").unit("old.service", "Conflicts=new*").status(1, "old.service");
    let world = world.desired("old.service", DesiredState::Inactive);
    assert_eq!(world.plan(), [""; 0]);
    // It keeps out, but it drives nobody away.
    assert_eq!(world.placed("new.service", 1).plan(), [""; 0]);
}

#[test]
fn moves_only_after_the_stop_is_confirmed() {
    let moving = World::of(3).unit("u.service", "MachineID=00000002").placed("u.service", 1);
    let stopping = moving.status(1, "u.service").settled();
    assert_eq!(stopping.where_is(), BTreeMap::new());
    let mut stopped = stopping.clone();
    stopped.0.statuses.clear();
    assert_eq!(stopped.plan(), ["place u 2"]);
    // Lost from sight counts as stopped.
    assert_eq!(stopping.away(1).plan(), ["place u 2"]);
    // Where it still runs, it may stay.
    assert_eq!(World::of(3).unit("u.service", "").status(3, "u.service").plan(), ["place u 3"]);
    let twice = World::of(3).unit("u.service", "").status(2, "u.service").status(3, "u.service");
    assert_eq!(twice.plan(), [""; 0]);
}

#[test]
fn companions_come_and_go_together() {
    let pair = |world: World| world.unit("app.service", "").unit("a-log.service", "MachineOf=app.service");
    // The companion's name comes first; it waits all the same.
    assert_eq!(pair(World::of(2)).plan(), ["place app 1", "place a-log 1"]);
    // A machine that suits both, though another has less on it.
    let world = pair(World::of(1).machine(2, 0, &[("disk", "ssd")])).unit("x.service", "MachineID=00000002");
    let world = world.placed("x.service", 2).unit("b-store.service", "MachineOf=app.service disk=ssd");
    assert_eq!(world.plan(), ["place app 2", "place a-log 2", "place b-store 2"]);
    // One that fits nowhere keeps nobody down.
    let world = pair(World::of(2)).unit("b-store.service", "MachineOf=app.service disk=none");
    assert_eq!(world.plan(), ["place app 1", "place a-log 1"]);
    // They follow, leaving before it and coming after it.
    let world = pair(World::of(2)).placed("app.service", 1).placed("a-log.service", 1);
    let world = world.unit("app.service", "MachineID=00000002");
    assert_eq!(
        world.plan(),
        [
            "unplace a-log 1: apart app",
            "unplace app 1: MachineID=00000002 is another machine",
            "place app 2",
            "place a-log 2"
        ]
    );
    // One that stands apart goes to the other.
    let world = pair(World::of(2)).placed("app.service", 1).placed("a-log.service", 2);
    assert_eq!(world.plan(), ["unplace a-log 2: apart app", "place a-log 1"]);
}

#[test]
fn chains_of_companions_hold_and_circles_wait() {
    let world = World::of(2)
        .unit("a.service", "MachineOf=b.service")
        .unit("b.service", "MachineOf=c.service")
        .unit("c.service", "Conflicts=x.service")
        .unit("x.service", "MachineID=00000001")
        .placed("x.service", 1);
    assert_eq!(world.plan(), ["place c 2", "place b 2", "place a 2"]);
    let circle =
        World::of(1).unit("a.service", "MachineOf=b.service").unit("b.service", "MachineOf=a.service");
    assert_eq!(circle.plan(), [""; 0]);
    // Of two units at once: only where both are.
    let both = World::of(2)
        .unit("a.service", "")
        .unit("b.service", "")
        .unit("z.service", "MachineOf=a.service MachineOf=b.service");
    assert_eq!(both.clone().placed("a.service", 1).placed("b.service", 2).plan(), [""; 0]);
    assert_eq!(both.placed("a.service", 2).placed("b.service", 2).plan(), ["place z 2"]);
}

#[test]
fn a_unit_that_replaces_sends_others_elsewhere() {
    let world =
        World::of(2).unit("new.service", "Replaces=old*").unit("old.service", "").unit("x.service", "");
    let world =
        world.placed("old.service", 1).placed("x.service", 2).unit("y.service", "").placed("y.service", 2);
    assert_eq!(world.plan(), ["unplace old 1: for new", "place new 1", "place old 2"]);
    let settled = world.clone().settled();
    assert_eq!(settled.where_is()["old"], 2);
    // It does not come back to where it gave way.
    let alone =
        World::of(1).unit("new.service", "Replaces=old*").unit("old.service", "").placed("old.service", 1);
    assert_eq!(alone.plan(), ["unplace old 1: for new", "place new 1"]);
    // While it is being stopped it waits.
    let stopping = world.status(1, "old.service");
    assert_eq!(stopping.plan(), ["unplace old 1: for new", "place new 1"]);
    // Replacing each other, straight or around a corner, is ignored.
    let mutual = World::of(1).unit("a.service", "Replaces=b*").unit("b.service", "Replaces=a*");
    assert_eq!(mutual.plan(), ["place a 1", "place b 1"]);
    let circle = World::of(1)
        .unit("a.service", "Replaces=b.service")
        .unit("b.service", "Replaces=c.service")
        .unit("c.service", "Replaces=a.service");
    assert_eq!(circle.settled().where_is().len(), 3);
    // What follows the one that gives way goes with it.
    let world =
        World::of(1).unit("new.service", "Replaces=old*").unit("old.service", "").placed("old.service", 1);
    let world = world.unit("log.service", "MachineOf=old.service").placed("log.service", 1);
    assert_eq!(world.plan(), ["unplace log 1: apart old", "unplace old 1: for new", "place new 1"]);
    // Nobody drives away what he is bound to.
    let bound = World::of(1).unit("a.service", "MachineOf=b.service Replaces=b*").unit("b.service", "");
    assert_eq!(bound.plan(), ["place b 1"]);
}

#[test]
fn global_units_run_where_they_fit() {
    let world = World::of(2)
        .machine(3, 0, &[("zone", "a")])
        .unit("g.service", "Global=yes")
        .unit("h.service", "Global=yes zone=a Conflicts=x.service")
        .unit("i.service", "Global=yes Conflicts=g.service")
        .unit("off.service", "Global=yes")
        .desired("off.service", DesiredState::Inactive)
        .unit("t@.service", "Global=yes")
        .unit("u.service", "")
        .placed("u.service", 1);
    // Of global units that conflict the first one runs.
    let expected = [(1, vec!["g", "u"]), (2, vec!["g"]), (3, vec!["g", "h"])];
    let on = |world: &World| -> Vec<(u32, Vec<String>)> {
        let numbers = 1..;
        let stems = |(n, (_, units)): (u32, (_, std::collections::BTreeSet<_>))| {
            (n, units.iter().map(|unit: &sealift_model::UnitName| unit.stem().to_owned()).collect())
        };
        numbers.zip(units_by_machine(&world.0)).map(stems).collect()
    };
    let expected: Vec<(u32, Vec<String>)> =
        expected.into_iter().map(|(n, units)| (n, units.into_iter().map(str::to_owned).collect())).collect();
    assert_eq!(on(&world), expected);
    assert_eq!(world.plan(), [""; 0]);
    // That a machine is away changes nothing about what it is to run.
    assert_eq!(on(&world.clone().away(3)), expected);
    for (id, units) in units_by_machine(&world.0) {
        for unit in world.0.units.values() {
            assert_eq!(runs_on(&world.0, unit, &id), units.contains(&unit.name), "{} on {id}", unit.name);
        }
    }
    // A placed unit keeps a global one away; one that would come does not drive it away.
    let placed = world.clone().unit("x.service", "MachineID=00000003").placed("x.service", 3);
    assert!(!units_by_machine(&placed.0)[&machine_id(3)].contains(&name("h.service")));
    assert_eq!(placed.plan(), [""; 0]);
    assert_eq!(world.unit("x.service", "MachineID=00000003").plan(), [""; 0]);
}

#[test]
fn explains_every_machine() {
    let world = World::of(3)
        .away(3)
        .machine(4, 0, &[("zone", "a")])
        .unit("b.service", "Conflicts=u*")
        .placed("b.service", 2)
        .unit("u.service", "")
        .unit("here.service", "")
        .placed("here.service", 4)
        .status(4, "here.service");
    let no = |reason| Verdict::No(reason);
    let verdicts = |world: &World, unit: &str| -> Vec<Verdict> {
        explain(&world.0, &name(unit)).into_iter().map(|(_, verdict)| verdict).collect()
    };
    let conflict = no(Reason::Conflict { with: name("b.service") });
    assert_eq!(verdicts(&world, "u.service"), [Verdict::Fits, conflict, no(Reason::Away), Verdict::Fits]);
    let still = no(Reason::StillOn { machine: machine_id(4) });
    assert_eq!(
        verdicts(&world, "here.service"),
        [still.clone(), still, no(Reason::Away), Verdict::Here],
        "of a unit that is placed"
    );
    assert_eq!(verdicts(&world, "none.service"), []);
    let world = world
        .unit("w.service", "MachineOf=u.service")
        .unit("t@.service", "")
        .unit("g.service", "Global=yes zone=a");
    assert_eq!(verdicts(&world, "w.service")[0], no(Reason::Apart { from: "u.service".to_owned() }));
    assert_eq!(verdicts(&world, "t@.service")[0], no(Reason::Template));
    assert_eq!(verdicts(&world, "g.service")[3], Verdict::Here);
    assert!(
        matches!(&verdicts(&world, "g.service")[0], Verdict::No(Reason::Metadata { key, .. }) if key == "zone")
    );
    assert_eq!(verdicts(&world, "g.service")[0].to_string(), "the machine has not the metadata zone=a");
}
