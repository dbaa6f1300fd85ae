//! Rollouts: whose turn it is, how many are out meanwhile, and what goes back. The machines of these worlds carry out what
//! they are told, and what becomes of it is each test's to say.

use std::collections::BTreeMap;

use sealift_model::{
    ActiveState, DesiredState, Gate, OnFailure, Requirements, Share, Timestamp, Unit, UnitStatus,
    UpdateOrder, UpdatePolicy, UpdateStage,
};
use sealift_planner::{Action, Change, Planner, Reader, Snapshot, apply, plan, units_by_machine};

use crate::world::{NOW, World, machine_id, name, words};

/// A fleet whose machines do at once as they are told.
struct Fleet {
    truth: Snapshot,
    now: Timestamp,
    /// Texts that come to nothing, with what their machine says.
    bad: BTreeMap<String, &'static str>,
    /// The most that were out at once since this was last set.
    most_out: usize,
    said: Vec<String>,
}

impl Fleet {
    fn of(machines: u32) -> Fleet {
        Fleet { truth: World::of(machines).0, now: NOW, bad: BTreeMap::new(), most_out: 0, said: Vec::new() }
    }

    /// What its author does, as a server does it.
    fn submit(&mut self, unit: Unit) {
        let old = self.truth.units.get(&unit.name);
        let generation = old.map_or(1, |old| old.generation + 1);
        let unit = Unit { generation, ..unit };
        let unit = match old {
            Some(old) => old.followed_by(unit, |one, other| one == other),
            None => unit,
        };
        self.truth.units.insert(unit.name.clone(), unit);
    }

    /// One action, or none if nothing is left to do.
    fn act(&mut self) -> Option<String> {
        let action = Planner::of(&self.truth, Reader::PLAIN).plan(1, self.now).into_iter().next()?;
        assert!(apply(&mut self.truth, &action, self.now), "{action:?}");
        let said = words(&action);
        self.said.push(said.clone());
        Some(said)
    }

    /// What machines are to have now: the text and generation by machine and unit.
    fn given(&self) -> BTreeMap<(u32, String), (String, u64)> {
        let mut given = BTreeMap::new();
        for (machine, units) in units_by_machine(&self.truth) {
            for unit in units {
                let record = &self.truth.units[&unit];
                let updated = self.truth.updated.get(&(machine.clone(), unit.clone())).copied();
                let version =
                    if record.requirements.global { record.given_at(updated) } else { record.given() };
                let given_unit = record.as_given(version);
                let number = u32::from_str_radix(machine.short(), 16).unwrap();
                given.insert((number, unit.stem().to_owned()), (given_unit.text, given_unit.generation));
            }
        }
        given
    }

    /// Machines in contact carry out what they have not yet; gives how many units changed.
    fn carry_out(&mut self) -> usize {
        let mut changed = 0;
        let given = self.given();
        let there: Vec<_> = self.truth.statuses.keys().cloned().collect();
        for (machine, unit) in there {
            let number = u32::from_str_radix(machine.short(), 16).unwrap();
            let is_there = self.truth.presence(&machine).is_some();
            if is_there && !given.contains_key(&(number, unit.stem().to_owned())) {
                self.truth.statuses.remove(&(machine, unit));
                changed += 1;
            }
        }
        for ((number, stem), (text, generation)) in given {
            let (machine, unit) = (machine_id(number), name(&format!("{stem}.service")));
            if self.truth.presence(&machine).is_none() {
                continue;
            }
            let placement = self.truth.placements.get(&unit).map_or(0, |placement| placement.id);
            let bad = self.bad.get(&text).copied();
            let status = UnitStatus {
                placement,
                generation,
                load: "loaded".into(),
                active: if bad.is_some() { ActiveState::Failed } else { ActiveState::Active },
                sub: text,
                gate: Some(bad.map_or(Gate::Passed, |why| Gate::Failed { why: why.into() })),
                ..UnitStatus::unheard(&sealift_model::Placement {
                    id: placement,
                    unit: unit.clone(),
                    machine: machine.clone(),
                    since: NOW,
                })
            };
            changed +=
                usize::from(self.truth.statuses.insert((machine, unit), status.clone()) != Some(status));
        }
        changed
    }

    /// Units of the template or of this name that are not up as what they are to be.
    fn out(&self, stem: &str) -> Vec<String> {
        let is_up = |key: &(u32, String), (text, generation): &(String, u64)| {
            let key = (machine_id(key.0), name(&format!("{}.service", key.1)));
            self.truth.statuses.get(&key).is_some_and(|status| {
                status.active == ActiveState::Active
                    && status.sub == *text
                    && status.generation == *generation
            })
        };
        let given = self.given();
        let of = given.iter().filter(|((_, unit), _)| unit.starts_with(stem));
        of.filter(|(key, wanted)| !is_up(key, wanted)).map(|((_, unit), _)| unit.clone()).collect()
    }

    /// Server and machines take turns until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let acted = self.act().is_some();
            self.most_out = self.most_out.max(self.out("w").len());
            // As much as can be is planned before a machine does anything.
            if !acted && self.carry_out() == 0 {
                return;
            }
        }
        panic!("no end: {:?}", self.said);
    }

    fn texts(&self) -> BTreeMap<String, Vec<String>> {
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((_, unit), (text, _)) in self.given() {
            texts.entry(unit).or_default().push(text);
        }
        texts
    }

    /// The texts of all of these in the order of names.
    fn all(&self) -> Vec<String> {
        self.texts().into_values().flatten().collect()
    }

    fn begun(&self) -> Vec<&str> {
        let words = self.said.iter().filter_map(|said| said.strip_prefix("put "));
        words.filter(|said| said.ends_with("begun")).map(|said| said.split(' ').next().unwrap()).collect()
    }
}

fn policy(max_out: u32) -> UpdatePolicy {
    UpdatePolicy { max_out: Share::Count(max_out), ..UpdatePolicy::default() }
}

fn template(text: &str, replicas: u32, policy: UpdatePolicy) -> Unit {
    let requirements =
        Requirements { replicas: Some(replicas), update: Some(policy), ..Requirements::default() };
    Unit { requirements, ..Unit::new(name("w@.service"), text, DesiredState::Launched) }
}

fn global(text: &str, policy: Option<UpdatePolicy>) -> Unit {
    let requirements = Requirements { global: true, update: policy, ..Requirements::default() };
    Unit { requirements, ..Unit::new(name("w.service"), text, DesiredState::Launched) }
}

fn running(unit: Unit, machines: u32) -> Fleet {
    let mut fleet = Fleet::of(machines);
    fleet.submit(unit);
    fleet.settle();
    fleet.said.clear();
    fleet.most_out = 0;
    fleet
}

#[test]
fn a_set_changes_with_no_more_out_than_may_be() {
    for most in 1..=5 {
        let mut fleet = running(template("old", 5, policy(most)), 3);
        fleet.submit(template("new", 5, policy(most)));
        fleet.settle();
        assert_eq!(fleet.all(), ["new"; 5]);
        assert_eq!(fleet.most_out, most as usize, "{:?}", fleet.said);
        assert_eq!(fleet.begun(), ["w@1", "w@2", "w@3", "w@4", "w@5"]);
        assert!(fleet.truth.units.values().all(|unit| unit.update.is_none()), "it is over");
    }
}

#[test]
fn canaries_go_first_and_by_themselves() {
    let policy = UpdatePolicy { canary: 1, ..policy(3) };
    let mut fleet = running(template("old", 5, policy.clone()), 3);
    fleet.submit(template("new", 5, policy));
    while fleet.act().is_some() {}
    assert_eq!(fleet.begun(), ["w@1"]);
    fleet.carry_out();
    while fleet.act().is_some() {}
    assert_eq!(fleet.begun(), ["w@1", "w@2", "w@3", "w@4"]);
    fleet.settle();
    assert_eq!(fleet.all(), ["new"; 5]);
}

#[test]
fn what_turns_out_badly_goes_back_by_itself() {
    for (most, canary) in [(1, 0), (2, 0), (2, 1), (5, 0)] {
        let policy = UpdatePolicy { canary, ..policy(most) };
        let mut fleet = running(template("old", 5, policy.clone()), 3);
        fleet.bad.insert("new".into(), "exit-code");
        fleet.submit(template("new", 5, policy));
        fleet.settle();
        assert_eq!(fleet.all(), ["old"; 5], "{:?}", fleet.said);
        assert!(fleet.most_out <= most as usize, "{:?}", fleet.said);
        let first = if canary > 0 { canary } else { most };
        assert_eq!(fleet.begun().len(), first as usize, "nobody begins after a failure");
        for unit in fleet.truth.units.values().filter(|unit| !unit.name.is_template()) {
            let UpdateStage::Back { why } = &unit.update.as_ref().unwrap().stage else { panic!("{unit:?}") };
            assert!(why.starts_with("w@1.service on ") && why.ends_with(": exit-code"), "{why}");
        }
        // A change that mends it goes through, and from where they are.
        fleet.submit(template("mended", 5, self::policy(most)));
        fleet.most_out = 0;
        fleet.settle();
        assert_eq!(fleet.all(), ["mended"; 5]);
        assert_eq!(fleet.most_out, most as usize);
    }
}

#[test]
fn one_that_fails_late_takes_back_those_that_had_passed() {
    let mut fleet = running(template("old", 4, policy(1)), 2);
    fleet.submit(template("new", 4, policy(1)));
    while fleet.begun().len() < 3 {
        if fleet.act().is_none() {
            fleet.carry_out();
        }
    }
    fleet.bad.insert("new".into(), "it crashed");
    // The third fails; the two before it are up as they are, and their machines do nothing to them.
    let failing = fleet.given().into_iter().find(|((_, unit), _)| unit == "w@3").unwrap();
    let others: Vec<_> = fleet
        .truth
        .statuses
        .clone()
        .into_iter()
        .filter(|((_, unit), _)| *unit != name("w@3.service"))
        .collect();
    fleet.carry_out();
    fleet.truth.statuses.extend(others);
    fleet.bad.clear();
    assert_eq!(failing.1.0, "new");
    fleet.most_out = 0;
    fleet.settle();
    assert_eq!(fleet.all(), ["old"; 4], "{:?}", fleet.said);
    assert_eq!(fleet.most_out, 1);
}

#[test]
fn a_policy_may_leave_all_as_it_is_when_one_fails() {
    let policy = UpdatePolicy { on_failure: OnFailure::Stop, ..policy(2) };
    let mut fleet = running(template("old", 5, policy.clone()), 3);
    fleet.bad.insert("new".into(), "exit-code");
    fleet.submit(template("new", 5, policy));
    fleet.settle();
    assert_eq!(fleet.all(), ["new", "new", "old", "old", "old"]);
    // Mended on its machines, it goes on.
    fleet.bad.clear();
    fleet.settle();
    assert_eq!(fleet.all(), ["new"; 5]);
}

#[test]
fn those_that_are_down_anyway_go_first() {
    let mut fleet = running(template("old", 4, policy(1)), 2);
    fleet.bad.insert("old".into(), "it never worked");
    fleet.carry_out();
    fleet.submit(template("new", 4, policy(1)));
    fleet.settle();
    assert_eq!(fleet.all(), ["new"; 4], "what mends all that fails is not held up by what fails");
}

#[test]
fn new_ones_come_before_old_ones_stop() {
    let policy = UpdatePolicy { order: UpdateOrder::StartFirst, ..policy(1) };
    for replicas in [1, 3] {
        let mut fleet = running(template("old", replicas, policy.clone()), 2);
        fleet.submit(template("new", replicas, policy.clone()));
        let spare = format!("w@{}", replicas + 1);
        let mut fewest = usize::MAX;
        for _ in 0..200 {
            if fleet.act().is_none() && fleet.carry_out() == 0 {
                break;
            }
            let given = fleet.given();
            let units = given.keys().filter(|(_, unit)| !fleet.out("w").contains(unit)).count();
            fewest = fewest.min(units);
        }
        assert_eq!(fewest, replicas as usize, "{:?}", fleet.said);
        assert_eq!(fleet.all(), vec!["new"; replicas as usize]);
        assert!(fleet.said.contains(&format!("remove {spare}")), "{:?}", fleet.said);
        // One that fails is taken away, and no other is touched.
        fleet.bad.insert("bad".into(), "exit-code");
        fleet.said.clear();
        fleet.submit(template("bad", replicas, policy.clone()));
        fleet.settle();
        assert_eq!(fleet.all(), vec!["new"; replicas as usize], "{:?}", fleet.said);
        assert_eq!(fleet.begun(), [spare.as_str()]);
    }
}

#[test]
fn where_no_machine_takes_one_more_the_old_stops_first() {
    let policy = UpdatePolicy { order: UpdateOrder::StartFirst, ..policy(1) };
    let alone = |text: &str| {
        let mut unit = template(text, 2, policy.clone());
        unit.requirements.conflicts.insert("w@*.service".into());
        unit
    };
    let mut fleet = running(alone("old"), 2);
    fleet.submit(alone("new"));
    fleet.settle();
    assert_eq!(fleet.all(), ["new", "new"], "{:?}", fleet.said);
    assert_eq!(fleet.truth.units.len(), 3);
}

#[test]
fn units_made_by_hand_wait_for_each_other_too() {
    let worker = |n: u32, text: &str| {
        let requirements = Requirements { update: Some(policy(1)), ..Requirements::default() };
        let unit = name(&format!("w@{n}.service"));
        Unit { requirements, ..Unit::new(unit, text, DesiredState::Launched) }
    };
    let mut fleet = Fleet::of(2);
    (1..=3).for_each(|n| fleet.submit(worker(n, "old")));
    fleet.settle();
    fleet.most_out = 0;
    (1..=3).for_each(|n| fleet.submit(worker(n, "new")));
    fleet.settle();
    assert_eq!((fleet.all(), fleet.most_out), (vec!["new".to_owned(); 3], 1));
}

#[test]
fn a_unit_by_itself_goes_back_when_it_fails() {
    let alone = |text: &str| Unit {
        requirements: Requirements { update: Some(policy(1)), ..Requirements::default() },
        ..Unit::new(name("w.service"), text, DesiredState::Launched)
    };
    let mut fleet = running(alone("old"), 2);
    fleet.bad.insert("new".into(), "exit-code");
    fleet.submit(alone("new"));
    fleet.settle();
    assert_eq!(fleet.all(), ["old"]);
    assert_eq!(fleet.truth.units[&name("w.service")].text, "new", "what its author wants is not forgotten");
}

#[test]
fn one_that_finds_no_machine_goes_back_in_time() {
    let alone = |text: &str, disk: &str| Unit {
        requirements: Requirements {
            update: Some(policy(1)),
            metadata: BTreeMap::from([("disk".to_owned(), [disk.to_owned()].into())]),
            ..Requirements::default()
        },
        ..Unit::new(name("w.service"), text, DesiredState::Launched)
    };
    let mut fleet = Fleet::of(2);
    for (machine, _) in fleet.truth.machines.values_mut() {
        machine.metadata.insert("disk".into(), "ssd".into());
    }
    fleet.submit(alone("old", "ssd"));
    fleet.settle();
    fleet.submit(alone("new", "tape"));
    fleet.settle();
    assert_eq!(fleet.all(), [""; 0]);
    let deadline = Planner::of(&fleet.truth, Reader::PLAIN).next_deadline().unwrap();
    assert!(deadline > fleet.now);
    fleet.now = Timestamp(deadline.0 + 1);
    fleet.settle();
    assert_eq!(fleet.all(), ["old"], "{:?}", fleet.said);
}

#[test]
fn a_change_that_is_overtaken_is_left_where_it_is() {
    let mut fleet = running(template("old", 4, policy(1)), 2);
    fleet.submit(template("second", 4, policy(1)));
    while fleet.begun().len() < 2 {
        if fleet.act().is_none() {
            fleet.carry_out();
        }
    }
    fleet.bad.insert("third".into(), "exit-code");
    fleet.submit(template("third", 4, policy(1)));
    fleet.most_out = 0;
    fleet.settle();
    assert_eq!(fleet.all(), ["old"; 4], "back to what was good");
    assert_eq!(fleet.most_out, 1);
}

#[test]
fn global_units_change_machine_by_machine() {
    for (policy, most) in [(None, 1), (Some(policy(2)), 2)] {
        let mut fleet = running(global("old", policy.clone()), 5);
        fleet.submit(global("new", policy.clone()));
        fleet.settle();
        assert_eq!((fleet.all(), fleet.most_out), (vec!["new".to_owned(); 5], most), "{:?}", fleet.said);
        assert!(fleet.truth.updated.is_empty() && fleet.truth.units[&name("w.service")].update.is_none());
        fleet.bad.insert("bad".into(), "exit-code");
        fleet.submit(global("bad", policy));
        (fleet.most_out, fleet.said) = (0, Vec::new());
        fleet.settle();
        assert_eq!(fleet.all(), ["new"; 5], "{:?}", fleet.said);
        assert!(fleet.most_out <= most, "{:?}", fleet.said);
        let turns = fleet.said.iter().filter(|said| said.starts_with("update") && !said.ends_with("back"));
        assert_eq!(turns.count(), most);
    }
}

#[test]
fn a_machine_that_is_away_holds_up_no_rollout_and_gets_the_outcome() {
    let mut fleet = running(global("old", None), 3);
    let away = fleet.truth.machines[&machine_id(2)].1.clone();
    fleet.truth.machines.get_mut(&machine_id(2)).unwrap().1 = None;
    fleet.submit(global("new", None));
    fleet.settle();
    fleet.truth.machines.get_mut(&machine_id(2)).unwrap().1 = away;
    fleet.settle();
    assert_eq!(fleet.all(), ["new"; 3]);
}

#[test]
fn an_agent_that_knows_no_gates_is_taken_at_its_word() {
    let mut fleet = running(template("old", 2, policy(1)), 1);
    fleet.submit(template("new", 2, policy(1)));
    for _ in 0..50 {
        while fleet.act().is_some() {}
        fleet.carry_out();
        for status in fleet.truth.statuses.values_mut() {
            status.gate = None;
        }
    }
    assert!(fleet.truth.units.values().all(|unit| unit.update.is_none()), "{:?}", fleet.said);
}

#[test]
fn a_rollout_goes_on_the_same_under_any_leader() {
    // Every step above is planned by a planner that knows nothing but the state. Here one lives through all of it.
    let mut fleet = running(template("old", 6, policy(2)), 3);
    fleet.submit(template("new", 6, policy(2)));
    let mut living = Planner::of(&fleet.truth, Reader::PLAIN);
    for _ in 0..200 {
        let anew = Planner::of(&fleet.truth, Reader::PLAIN).plan(1, fleet.now);
        let action: Vec<Action> = living.plan(1, fleet.now);
        assert_eq!(action, anew);
        let before = fleet.truth.clone();
        match action.first() {
            Some(action) => assert!(apply(&mut fleet.truth, action, fleet.now)),
            None if fleet.carry_out() == 0 => break,
            None => {}
        }
        fleet.truth.changes_since(&before).into_iter().for_each(|change| living.feed(change));
    }
    assert_eq!(fleet.all(), ["new"; 6]);
}

#[test]
fn one_that_has_just_come_up_is_not_taken_for_down() {
    let mut fleet = running(template("old", 3, policy(1)), 1);
    for status in fleet.truth.statuses.values_mut() {
        status.gate = Some(Gate::Waiting { why: None });
    }
    fleet.submit(template("new", 3, policy(1)));
    while fleet.act().is_some() {}
    assert_eq!(fleet.begun(), [""; 0]);
    fleet.settle();
    assert_eq!((fleet.all(), fleet.most_out), (vec!["new".to_owned(); 3], 1));
}

#[test]
fn what_mends_a_change_need_not_wait_for_it_to_pass() {
    // The first one is up and not well by the last change, and by the one before all of them.
    for overtaken in [true, false] {
        let mut fleet = running(template("old", 3, policy(1)), 1);
        if overtaken {
            fleet.submit(template("second", 3, policy(1)));
            while fleet.begun().is_empty() {
                fleet.act();
            }
            fleet.carry_out();
        }
        let why = (!overtaken).then(|| "UpdateHealth= ended with 1".to_owned());
        for ((_, unit), status) in &mut fleet.truth.statuses {
            if !overtaken || *unit == name("w@1.service") {
                status.gate = Some(Gate::Waiting { why: why.clone() });
            }
        }
        fleet.submit(template("mended", 3, policy(1)));
        fleet.said.clear();
        while fleet.act().is_some() {}
        assert_eq!(fleet.begun(), ["w@1"], "{overtaken}");
        fleet.settle();
        assert_eq!(fleet.all(), ["mended"; 3]);
    }
}

/// A planner that lives through it: one that looks at everything anew sees it anyway.
#[test]
fn goes_on_when_the_one_that_held_it_up_is_gone() {
    let unit = |stem: &str, text: &str| {
        let requirements = Requirements { update: Some(policy(1)), ..Requirements::default() };
        Unit { requirements, ..Unit::new(name(&format!("{stem}.service")), text, DesiredState::Launched) }
    };
    let mut fleet = running(unit("w@2", "old"), 2);
    fleet.bad.insert("ill".into(), "exit-code");
    fleet.submit(unit("w@1", "ill"));
    fleet.settle();
    fleet.submit(unit("w@2", "new"));
    let mut planner = Planner::of(&fleet.truth, Reader::PLAIN);
    assert_eq!(planner.plan(10, NOW), [], "one is out, and one may be");
    planner.feed(Change::Unit(name("w@1.service"), None));
    let said: Vec<String> = planner.plan(10, NOW).iter().map(words).collect();
    assert!(said.contains(&"put w@2 2 begun".to_owned()), "{said:?}");
    let mut planner = Planner::of(&fleet.truth, Reader::PLAIN);
    let loaded = Unit { desired: DesiredState::Inactive, generation: 9, ..unit("w@1", "ill") };
    planner.feed(Change::Unit(loaded.name.clone(), Some(std::sync::Arc::new(loaded))));
    let said: Vec<String> = planner.plan(10, NOW).iter().map(words).collect();
    assert!(said.contains(&"put w@2 2 begun".to_owned()), "{said:?}");
}

#[test]
fn nobody_is_late_where_nobody_says_what_time_it_is() {
    let mut fleet = running(template("old", 1, policy(1)), 1);
    fleet.submit(template("new", 1, policy(1)));
    while fleet.act().is_some() {}
    // Another was placed by a server whose clock is an hour ahead.
    let mut placement = fleet.truth.placements[&name("w@1.service")].clone();
    placement.unit = name("x.service");
    placement.since = Timestamp(NOW.0 + 3_600_000);
    fleet.truth.placements.insert(placement.unit.clone(), placement);
    let said: Vec<String> = plan(&fleet.truth).actions.iter().map(words).collect();
    assert!(!said.iter().any(|said| said.contains("back")), "{said:?}");
}

#[test]
fn a_global_unit_waits_for_machines_that_are_all_away() {
    let mut fleet = running(global("old", None), 3);
    let there = fleet.truth.machines.clone();
    for (_, presence) in fleet.truth.machines.values_mut() {
        *presence = None;
    }
    fleet.submit(global("bad", None));
    fleet.bad.insert("bad".into(), "exit-code");
    fleet.settle();
    fleet.truth.machines = there;
    fleet.settle();
    assert_eq!((fleet.all(), fleet.most_out), (vec!["old".to_owned(); 3], 1), "{:?}", fleet.said);
}

#[test]
fn one_that_passed_and_is_restarted_again_and_again_has_failed() {
    for unit in [global as fn(&str, Option<UpdatePolicy>) -> Unit, |text, _| template(text, 3, policy(1))] {
        let mut fleet = running(unit("old", None), 3);
        fleet.submit(unit("new", None));
        while fleet.act().is_some() {}
        fleet.carry_out();
        for status in fleet.truth.statuses.values_mut().filter(|status| status.sub == "new") {
            (status.active, status.sub) = (ActiveState::Activating, "auto-restart".into());
        }
        fleet.settle();
        assert_eq!(fleet.all(), ["old"; 3], "{:?}", fleet.said);
    }
}
