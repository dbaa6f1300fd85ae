//! Small stories told as a person would: what happens, what the planner decides, what is where afterwards. The texts are in
//! `tests/golden`, so that a change of policy is read in review; `UPDATE_GOLDEN=1` writes them anew.

use std::fmt::Write as _;
use std::path::PathBuf;

use sealift_model::{Availability, DesiredState, MachineId, UnitName};
use sealift_planner::{Action, Planner, Reader, Snapshot, apply};

use crate::world::{NOW, World, name};

/// Rounds after one event; a policy that never comes to rest is wrong.
const ROUNDS: usize = 20;

struct Story {
    world: World,
    planner: Planner,
    told: Snapshot,
    text: String,
}

impl Story {
    fn new(title: &str) -> Story {
        let text = format!("{title}\n{}\n", "=".repeat(title.len()));
        let planner = Planner::new(Reader::PLAIN);
        Story { world: World::default(), planner, told: Snapshot::default(), text }
    }

    /// Something happens; the planner decides and the machines do as they are told, until nothing is left to do.
    fn event(mut self, what: &str, change: impl FnOnce(World) -> World) -> Story {
        writeln!(self.text, "\n* {what}").unwrap();
        self.world = change(self.world);
        self.carry_on(Vec::new())
    }

    /// Somebody asks for so many moves at most.
    fn rebalance(mut self, most: usize) -> Story {
        writeln!(self.text, "\n* Somebody asks to rebalance, with {most} moves at most.").unwrap();
        let moves = self.planner.rebalance(most, NOW);
        self.carry_on(moves)
    }

    fn carry_on(mut self, mut actions: Vec<Action>) -> Story {
        let mut said = 0;
        for _ in 0..ROUNDS {
            for change in self.world.0.changes_since(&self.told) {
                self.planner.feed(change);
            }
            actions.extend(self.planner.plan(usize::MAX, NOW));
            if actions.is_empty() {
                if said == 0 {
                    writeln!(self.text, "    nothing is to be done").unwrap();
                }
                writeln!(self.text, "  {}", self.state()).unwrap();
                return self;
            }
            if said > 0 {
                writeln!(self.text, "  - the machines have done so").unwrap();
            }
            for action in actions.drain(..) {
                assert!(apply(&mut self.world.0, &action, NOW), "{action:?}");
                writeln!(self.text, "    {}", plain(&self.world, &action)).unwrap();
                said += 1;
            }
            self.told = self.world.0.clone();
            self.world = self.world.caught_up();
        }
        panic!("no rest:\n{}", self.text)
    }

    /// What is on each machine, and what is on none.
    fn state(&self) -> String {
        let World(snapshot) = &self.world;
        let mut words: Vec<String> = Vec::new();
        for (id, (machine, presence)) in &snapshot.machines {
            let here = snapshot.placements.values().filter(|placement| placement.machine == *id);
            let here: Vec<&str> = here.map(|placement| short(&placement.unit)).collect();
            let away = if presence.is_none() { " (away)" } else { "" };
            let here = if here.is_empty() { "-".to_owned() } else { here.join(" ") };
            words.push(format!("{}{away}: {here}", machine.name));
        }
        let waiting: Vec<&str> = self.planner.unplaced().map(short).collect();
        if !waiting.is_empty() {
            words.push(format!("waiting: {}", waiting.join(" ")));
        }
        format!("=> {}", words.join("   "))
    }

    /// Compares with the text that is kept.
    fn is(self, file: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{file}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &self.text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == self.text,
            "{} says otherwise (UPDATE_GOLDEN=1 writes it anew):\n{}",
            path.display(),
            self.text
        );
    }
}

fn short(unit: &UnitName) -> &str {
    unit.as_str().strip_suffix(".service").unwrap_or(unit.as_str())
}

fn plain(world: &World, action: &Action) -> String {
    let machine = |id: &MachineId| {
        world.0.machines.get(id).map_or_else(|| id.to_string(), |(machine, _)| machine.name.clone())
    };
    match action {
        Action::PutUnit { unit } if unit.generation == 1 => format!("{} is made", short(&unit.name)),
        Action::PutUnit { unit } => format!("{} changes", short(&unit.name)),
        Action::Update { unit, machine: on, .. } => format!("{} is updated on {}", short(unit), machine(on)),
        Action::RemoveUnit { name } => format!("{} is removed", short(name)),
        Action::Place { unit, machine: on } => format!("{} goes to {}", short(unit), machine(on)),
        Action::Unplace { unit, machine: from, reason, with } => {
            let units: Vec<&str> = std::iter::once(unit).chain(with).map(short).collect();
            let leave = if with.is_empty() { "leaves" } else { "leave" };
            format!("{} {leave} {}: {reason}", units.join(" and "), machine(from))
        }
        Action::Dispatch { run, attempt, machine: to, .. } => {
            format!("attempt {attempt} of {run} goes to {}", machine(to))
        }
        Action::Lose { run, attempt, reason } => format!("attempt {attempt} of {run} is lost: {reason}"),
        Action::GiveUp { run, reason } => format!("{run} is given up: {reason}"),
    }
}

/// Units of these names that ask for the same.
fn units(world: World, names: &[&str], wanted: &str) -> World {
    names.iter().fold(world, |world, unit| world.unit(&format!("{unit}.service"), wanted))
}

fn gone(mut world: World, unit: &str) -> World {
    world.0.units.remove(&name(unit)).unwrap();
    world
}

fn back(world: World, n: u32, other: &World) -> World {
    let mut world = world;
    let id = crate::world::machine_id(n);
    world.0.machines.insert(id.clone(), other.0.machines[&id].clone());
    world
}

fn sized(world: World, n: u32, memory: u64, zone: &str) -> World {
    world.machine(n, 0, &[("zone", zone)]).sized(n, memory, 0, "")
}

#[test]
fn least_loaded() {
    Story::new("The machine with the least to do")
        .event("There are three machines, and five units are launched.", |_| {
            units(World::of(3), &["a", "b", "c", "d", "e"], "")
        })
        .event("a and b are destroyed: nobody moves because of it.", |world| {
            gone(gone(world, "a.service"), "b.service")
        })
        .event("f and g are launched.", |world| units(world, &["f", "g"], ""))
        .event("A fourth machine joins: nobody moves because of it.", |world| world.machine(4, 0, &[]))
        .event("h is launched.", |world| units(world, &["h"], ""))
        .is("least-loaded");
}

#[test]
fn room_and_spread() {
    Story::new("Units that say what they need, and a set that is spread")
        .event(
            "m1 and m2 are in zone a and m3 in zone b, of 8, 4 and 4 GiB. A set of four wants 1 GiB each.",
            |_| {
                let world = sized(sized(sized(World::default(), 1, 8, "a"), 2, 4, "a"), 3, 4, "b");
                world.unit("web@.service", "Replicas=4 Spread=zone Memory=1")
            },
        )
        .event("db wants 3 GiB: it takes the room that is just enough.", |world| {
            world.unit("db.service", "Memory=3")
        })
        .event("big wants 5 GiB, which only m1 has.", |world| world.unit("big.service", "Memory=5"))
        .event("huge wants 6 GiB, which nobody has left.", |world| world.unit("huge.service", "Memory=6"))
        .event("db is destroyed: there is room in all, and not on one machine.", |world| {
            gone(world, "db.service")
        })
        .event("m4 with 8 GiB joins.", |world| sized(world, 4, 8, "b"))
        .is("room-and-spread");
}

#[test]
fn conflicts() {
    Story::new("Conflicts")
        .event("There are two machines. a and b do not go with each other, nor with c.", |_| {
            let world = World::of(2).unit("a.service", "Conflicts=b.service");
            world.unit("b.service", "").unit("c.service", "Conflicts=a.service Conflicts=b.service")
        })
        .event("A third machine joins.", |world| world.machine(3, 0, &[]))
        .event("c now goes with a.", |world| world.unit("c.service", "Conflicts=b.service"))
        .event("m3 is away.", |world| world.away(3))
        .event("a says that it goes with no c.", |world| world.unit("a.service", "Conflicts=b* Conflicts=c*"))
        .is("conflicts");
}

#[test]
fn machine_of() {
    let first = || World::of(3).unit("db.service", "").unit("app.service", "MachineOf=db.service");
    let before = first();
    Story::new("Units that follow another (MachineOf=)")
        .event("There are three machines. log follows app, app follows db.", |_| {
            first().unit("log.service", "MachineOf=app.service")
        })
        .event("db is drained away with its machine.", |world| world.is(1, Availability::Drained))
        .event("The machine of all of them is away.", |world| world.away(2))
        .event("It is back: nobody moves because of it.", |world| back(world, 2, &before))
        .event("db is stopped for good: nothing is left to follow.", |world| {
            world.desired("db.service", DesiredState::Inactive)
        })
        .is("machine-of");
}

#[test]
fn priority() {
    Story::new("Priority and preemption")
        .event("One machine of 4 GiB. Two units of priority 0 fill it.", |_| {
            let world = sized(World::default(), 1, 4, "a");
            units(world, &["low1", "low2"], "Memory=2")
        })
        .event("mid, of priority 5, wants 2 GiB and may not preempt.", |world| {
            world.unit("mid.service", "Memory=2 Priority=5")
        })
        .event("high, of priority 10, wants 2 GiB and may preempt.", |world| {
            world.unit("high.service", "Memory=2 Priority=10 Preempt=yes")
        })
        .event("A second machine joins: those that wait come in the order of their priority.", |world| {
            sized(world, 2, 2, "a")
        })
        .event("And a third.", |world| sized(world, 3, 8, "a"))
        .is("priority");
}

#[test]
fn replicas() {
    Story::new("Replicas, up and down")
        .event("There are three machines. A template wants three.", |_| {
            World::of(3).unit("web@.service", "Replicas=3")
        })
        .event("It wants five.", |world| world.unit("web@.service", "Replicas=5"))
        .event("It wants two.", |world| world.unit("web@.service", "Replicas=2"))
        .event("It wants none.", |world| world.unit("web@.service", "Replicas=0"))
        .is("replicas");
}

#[test]
fn drain() {
    Story::new("A drained machine, and a set of which one may be out (UpdateMaxOut=1)")
        .event("Two machines. A set of four, of which one may be out, and a unit without a policy.", |_| {
            let world = World::of(2).unit("web@.service", "Replicas=4 UpdateMaxOut=1");
            world.unit("plain.service", "")
        })
        .event("m1 is drained.", |world| world.is(1, Availability::Drained))
        .event("m1 is active again: nobody moves because of it.", |world| world.is(1, Availability::Active))
        .event("m1 is cordoned, and two units are launched.", |world| {
            units(world.is(1, Availability::Cordoned), &["x", "y"], "")
        })
        .is("drain");
}

#[test]
fn lost_and_back() {
    let before = World::of(3);
    Story::new("A machine that is lost and comes back")
        .event("There are three machines, six units and one that suits m1 alone.", |_| {
            let world = units(World::of(3), &["a", "b", "c", "d", "e", "f"], "");
            world.unit("bound.service", "MachineID=00000001")
        })
        .event("m1 is away: what could go elsewhere does.", |world| world.away(1))
        .event("m2 is away too.", |world| world.away(2))
        .event("m1 is back.", |world| back(world, 1, &before))
        .event("m2 is back.", |world| back(world, 2, &before))
        .is("lost-and-back");
}

#[test]
fn rebalance() {
    Story::new("Rebalancing")
        .event("One machine has six units.", |_| units(World::of(1), &["a", "b", "c", "d", "e", "f"], ""))
        .event("Two more join: nobody moves because of it.", |world| {
            world.machine(2, 0, &[]).machine(3, 0, &[])
        })
        .rebalance(2)
        .rebalance(10)
        .rebalance(10)
        .is("rebalance");
}
