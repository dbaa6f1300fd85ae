//! Units of apps: made, changed, removed, never taken over.

use sealift_model::DesiredState;
use sealift_planner::{Problem, apply, plan};

use crate::world::{NOW, World, app, name, project};

#[test]
fn makes_the_units_of_the_release_and_places_them() {
    let world = World::of(1).app(app("p", 1, &[("a.service", ""), ("t@.service", "")]));
    assert_eq!(world.plan(), ["put a 1", "put t@ 1", "place a 1"]);
    let world = world.settled();
    let unit = &world.0.units[&name("a.service")];
    assert_eq!(unit.app, Some((project("p"), 1)));
    assert_eq!(unit.desired, DesiredState::Launched);
    assert_eq!(world.0.units[&name("t@.service")].desired, DesiredState::Inactive);
}

#[test]
fn brings_units_to_a_new_release_and_back() {
    let one = app("p", 1, &[("a.service", ""), ("b.service", "")]);
    let world = World::of(1).app(one).settled();
    // The same text under another release, a unit that goes, a unit that comes.
    let world = world.app(app("p", 2, &[("a.service", ""), ("c.service", "")]));
    assert_eq!(
        world.plan(),
        ["put a 2", "put c 2", "unplace b 1: the unit is gone", "remove b", "place c 1"]
    );
    let world = world.settled();
    // Back to the first release: b is newer than what machines may remember of it.
    let mut back = app("p", 1, &[("a.service", ""), ("b.service", "")]);
    back.app.generation = 3;
    let world = world.app(back);
    assert_eq!(
        world.plan(),
        ["put a 3", "put b 3", "unplace c 1: the unit is gone", "remove c", "place b 1"]
    );
    world.settled();
}

#[test]
fn a_new_wish_moves_the_unit() {
    let world = World::of(2).app(app("p", 1, &[("a.service", "")])).settled();
    let world = world.app(app("p", 2, &[("a.service", "MachineID=00000002")]));
    assert_eq!(world.plan(), ["put a 2", "unplace a 1: MachineID=00000002 is another machine"]);
    // Also where the first machine has not said a word of it: it may be starting it.
    let world = world.settled().confirmed(1, "a.service");
    assert_eq!(world.plan(), ["place a 2"]);
}

#[test]
fn leaves_what_a_user_stopped_until_the_next_release() {
    let world = World::of(1).app(app("p", 1, &[("a.service", "")])).settled();
    let world = world.desired("a.service", DesiredState::Inactive);
    assert_eq!(world.plan(), ["unplace a 1: the unit is to be inactive"]);
    let world = world.settled().app(app("p", 2, &[("a.service", "")]));
    assert_eq!(world.plan(), ["put a 2", "place a 1"]);
}

#[test]
fn takes_over_no_name() {
    let world =
        World::of(1).unit("a.service", "").app(app("p", 1, &[("a.service", "x=y"), ("b.service", "")]));
    let world = world.app(app("q", 1, &[("b.service", "x=y")]));
    let made = plan(&world.0);
    let taken = |by: &str, unit: &str, owner: Option<&str>| Problem::NameTaken {
        project: project(by),
        unit: name(unit),
        owner: owner.map(project),
    };
    assert_eq!(made.problems, [taken("p", "a.service", None), taken("q", "b.service", Some("p"))]);
    assert_eq!(
        made.problems[1].to_string(),
        "unit b.service of app q is not deployed: the name belongs to app p"
    );
    assert_eq!(world.plan(), ["put b 1", "place a 1", "place b 1"]);
    let world = world.settled();
    assert_eq!(plan(&world.0).problems, made.problems);
    // Once its owner gives the name up, it goes over: removed first, then made anew.
    let world = world.app(app("p", 2, &[]));
    let world = World(world.0).app(app("q", 1, &[("b.service", "x=y")]));
    assert_eq!(world.plan(), ["unplace b 1: the unit is gone", "remove b", "put b 2"]);
    world.settled();
}

#[test]
fn instances_go_before_their_template_can_make_them_for_another() {
    let template = [("w@.service", "Replicas=1")];
    let of_p = || World::of(1).app(app("p", 1, &template)).settled();
    let to_app = of_p().app(app("p", 2, &[])).app(app("q", 1, &template));
    let mut to_hand = of_p().app(app("p", 2, &[]));
    to_hand.0.units.remove(&name("w@.service"));
    let to_hand = to_hand.unit("w@.service", "Replicas=1");
    let from_hand = World::of(1).unit("w@.service", "Replicas=1").settled();
    let mut from_hand = from_hand.app(app("q", 1, &template));
    from_hand.0.units.remove(&name("w@.service"));
    for (world, template) in
        [(to_app, &["remove w@", "put w@ 2"][..]), (to_hand, &[]), (from_hand, &["put w@ 1"])]
    {
        let instance = ["unplace w@1 1: the unit is gone", "remove w@1", "put w@1 2", "place w@1 1"];
        assert_eq!(world.plan(), [template, &instance].concat());
        world.settled();
    }
}

#[test]
fn destroys_nothing_for_want_of_knowledge() {
    let world = World::of(1).app(app("p", 1, &[("a.service", "")])).settled();
    // The release is not known, or is not the one that is wanted.
    let mut unknown = app("p", 2, &[]);
    unknown.release = None;
    assert_eq!(world.clone().app(unknown).plan(), [""; 0]);
    let mut other = app("p", 3, &[]);
    other.app.current = 2;
    assert_eq!(world.clone().app(other).plan(), [""; 0]);
    // A unit file that nobody could read.
    let mut unreadable = app("p", 2, &[("a.service", "")]);
    unreadable.requirements.clear();
    let world = world.app(unreadable);
    let made = plan(&world.0);
    assert_eq!(made.actions, []);
    assert_eq!(made.problems, [Problem::Unreadable { project: project("p"), unit: name("a.service") }]);
    // An app that is gone altogether: whoever removes it removes its units.
    let mut orphaned = world;
    orphaned.0.apps.clear();
    assert_eq!(orphaned.plan(), [""; 0]);
}

#[test]
fn keeps_what_it_does_not_know_of_a_unit() {
    let mut world = World::of(1).app(app("p", 1, &[("a.service", "")])).settled();
    world.0.units.get_mut(&name("a.service")).unwrap().extra.insert("note".into(), "kept".into());
    let mut world = world.app(app("p", 2, &[("a.service", "")]));
    for action in plan(&world.0).actions {
        assert!(apply(&mut world.0, &action, NOW));
    }
    assert_eq!(world.0.units[&name("a.service")].extra["note"], "kept");
}

#[test]
fn drop_ins_are_a_part_of_the_release() {
    let with = |text: &str| {
        let mut view = app("p", 1, &[("a.service", ""), ("w@.service", "Replicas=1")]);
        let release = view.release.as_mut().unwrap();
        for unit in ["a.service", "w@.service"] {
            release.drop_ins.insert(name(unit), [("20-x.conf".to_owned(), text.to_owned())].into());
        }
        view
    };
    let world = World::of(1).app(with("one")).settled();
    let drop_in = |world: &World, unit: &str| world.0.units[&name(unit)].drop_ins["20-x.conf"].clone();
    assert_eq!((drop_in(&world, "a.service"), drop_in(&world, "w@1.service")), ("one".into(), "one".into()));
    let world = world.app(with("two"));
    assert_eq!(world.plan()[..2], ["put a 2", "put w@ 2"], "the unit files are the same");
    let world = world.settled();
    assert_eq!((drop_in(&world, "a.service"), drop_in(&world, "w@1.service")), ("two".into(), "two".into()));
}
