//! What machines are told to do: all of it at first, then each change as one message, to those whom it concerns.

use sealift_client::api::AssignmentEvent;
use sealift_model::{ActiveState, Assignment, UnitName, Withdrawal};
use sealift_store::{Event, Revision};

use crate::agent::{Agent, machine, unit_on};
use crate::house::House;

/// The names of what a message puts, and what it drops.
fn told(event: Option<AssignmentEvent>) -> (Vec<String>, Vec<String>, Vec<String>) {
    let Some(AssignmentEvent::Changed { put, drop_units, drop_runs }) = event else {
        panic!("not a change: {event:?}");
    };
    let put = put.into_iter().map(|assignment| match assignment {
        Assignment::Unit(unit) => unit.unit.name.to_string(),
        Assignment::Run(run) => run.run.id.to_string(),
    });
    (
        put.collect(),
        drop_units.iter().map(|dropped| dropped.unit.to_string()).collect(),
        drop_runs.iter().map(|(run, attempt)| format!("{run}.{attempt}")).collect(),
    )
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn a_release_is_one_message_with_all_of_its_units() {
    let house = House::open().await;
    let mut builder = Agent::begin(&house, &machine(1, 1), 1).await;
    let mut agent = Agent::begin(&house, &machine(2, 0), 1).await;
    let here = |program: &str| unit_on(&agent.machine, program);
    let (one, two) = (here("one"), here("two"));
    let first: [(&str, &str); 5] = [
        ("a.service", &one),
        ("b.service", &one),
        ("c.socket", &one),
        ("d.service", &one),
        ("e.timer", &one),
    ];
    let second: [(&str, &str); 5] = [
        ("a.service", &one),
        ("b.service", &two),
        ("c.socket", &one),
        ("d.service", &two),
        ("f.service", &two),
    ];
    house.deploy(&mut builder, "hello", 1, &first).await;
    let (put, drop_units, drop_runs) = told(agent.hear().await);
    assert_eq!(put, names(&["a.service", "b.service", "c.socket", "d.service", "e.timer"]));
    assert_eq!((drop_units, drop_runs), (vec![], vec![]));
    let assigned = &agent.units[&"b.service".parse::<UnitName>().unwrap()];
    assert_eq!(assigned.unit.text, one, "byte for byte");
    let package = assigned.package.clone().unwrap();
    assert_eq!(Some(&package.name), house.run(&"hello-1".parse().unwrap()).await.package.as_ref());
    agent.report_all_up().await;

    house.deploy(&mut builder, "hello", 2, &second).await;
    let (put, drop_units, _) = told(agent.hear().await);
    assert_eq!(put, names(&["a.service", "b.service", "c.socket", "d.service", "f.service"]));
    assert_eq!(drop_units, names(&["e.timer"]));
    let generations: Vec<_> = agent.units.values().map(|unit| unit.unit.generation).collect();
    assert!(generations.iter().all(|generation| *generation >= 2), "{generations:?}");
    agent.report_all_up().await;
    agent.report(vec![], &["e.timer"]).await.unwrap();

    house.post("/v1/apps/hello/rollback", serde_json::json!({})).await.unwrap();
    let (put, drop_units, _) = told(agent.hear().await);
    assert_eq!(put, names(&["a.service", "b.service", "c.socket", "d.service", "e.timer"]));
    assert_eq!(drop_units, names(&["f.service"]));
    let assigned = &agent.units[&"b.service".parse::<UnitName>().unwrap()];
    assert_eq!((&assigned.unit.text, assigned.package.as_ref()), (&one, Some(&package)));
}

#[tokio::test]
async fn whoever_is_not_concerned_is_told_nothing() {
    let house = House::open().await;
    let mut busy = Agent::begin(&house, &machine(1, 1), 1).await;
    let mut quiet = Agent::begin(&house, &machine(2, 0), 1).await;
    let (busy_unit, quiet_unit) = (unit_on(&busy.machine, "busy"), unit_on(&quiet.machine, "quiet"));
    for commit in 0..5 {
        house.deploy(&mut busy, "busy", commit, &[("busy.service", &busy_unit)]).await;
        busy.hear_until("its unit", |agent| !agent.units.is_empty() && agent.runs.is_empty()).await;
        busy.report_all_up().await;
    }
    let failing = house.push("busy", "main", 9).await.id;
    let handed = busy.run().await;
    assert_eq!(handed.run.id, failing);
    house.abort(&failing).await.unwrap();
    quiet.keep_alive().await.unwrap();
    Agent::begin(&house, &machine(3, 0), 1).await;
    house.deploy(&mut busy, "quiet", 1, &[("quiet.service", &quiet_unit)]).await;
    // Of all that happened, this is the first that it hears of.
    assert_eq!(told(quiet.hear().await), (names(&["quiet.service"]), vec![], vec![]));
    quiet.report_all_up().await;
    house.deploy(&mut busy, "busy", 10, &[("busy.service", &busy_unit)]).await;
    house.deploy(&mut busy, "quiet", 2, &[]).await;
    assert_eq!(told(quiet.hear().await), (vec![], names(&["quiet.service"]), vec![]));
}

#[tokio::test]
async fn runs_come_and_go_by_attempt() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 2), 1).await;
    house.push("hello", "main", 1).await;
    assert_eq!(told(agent.hear().await), (names(&["hello-1"]), vec![], vec![]));
    let handed = agent.run().await;
    house.push("hello", "main", 2).await;
    assert_eq!(told(agent.hear().await), (names(&["hello-2"]), vec![], vec![]));
    agent.fail(&handed).await.unwrap();
    assert_eq!(told(agent.hear().await), (vec![], vec![], names(&["hello-1.1"])));
    house.abort(&"hello-2".parse().unwrap()).await.unwrap();
    assert_eq!(told(agent.hear().await), (vec![], vec![], names(&["hello-2.1"])));
}

#[tokio::test]
async fn a_connection_that_is_made_anew_begins_with_all() {
    let house = House::open().await;
    let machine = machine(1, 1);
    let mut agent = Agent::begin(&house, &machine, 1).await;
    house.deploy(&mut agent, "hello", 1, &[("hello.service", &unit_on(&machine, "hello"))]).await;
    agent.hear_until("the unit", |agent| !agent.units.is_empty()).await;
    house.push("hello", "main", 2).await;
    agent.run().await;
    // The same session, another connection; the first may live on for a while.
    let again = Agent::begin(&house, &machine, 1).await;
    assert_eq!((&again.units, &again.runs), (&agent.units, &agent.runs));
    assert_eq!((again.unit_names(), again.runs.len()), (vec!["hello.service"], 1));
}

/// At no time do two machines hold one unit: the second gets it when the first has confirmed that it is gone.
#[tokio::test]
async fn a_unit_that_moves_leaves_before_it_comes() {
    let house = House::open().await;
    let mut one = Agent::begin(&house, &machine(1, 1), 1).await;
    let mut two = Agent::begin(&house, &machine(2, 0), 1).await;
    let here = unit_on(&one.machine, "hello");
    house.deploy(&mut one, "hello", 1, &[("hello.service", &here)]).await;
    one.hear_until("the unit", |agent| !agent.units.is_empty()).await;
    one.report(vec![one.status("hello.service", ActiveState::Active)], &[]).await.unwrap();
    house.deploy(&mut one, "hello", 2, &[("hello.service", &unit_on(&two.machine, "hello"))]).await;
    one.hear_until("the unit is dropped", |agent| agent.units.is_empty()).await;
    let app = house.app_until("hello", "why it waits", |app| app.units[0].problem.is_some()).await;
    let problem = app.units[0].problem.as_ref().unwrap();
    assert!(problem.contains("not confirmed"), "{problem}");
    assert!(two.units.is_empty());
    one.report(vec![], &["hello.service"]).await.unwrap();
    two.hear_until("the unit comes", |agent| !agent.units.is_empty()).await;

    // In the order of what was written, too.
    let mut watch = house.store.watch("", Revision(0)).await.unwrap();
    let mut moves = Vec::new();
    let newest = house.store.revision().await.unwrap();
    loop {
        let batch = watch.next().await.unwrap().unwrap();
        for event in &batch.events {
            match event {
                Event::Put(entry) if entry.key.starts_with("placements/") => moves.push("placed"),
                Event::Delete { key, .. } if key.starts_with("placements/") => moves.push("taken away"),
                Event::Delete { key, .. } if key.starts_with("statuses/") => moves.push("confirmed"),
                _ => {}
            }
        }
        if batch.revision == newest {
            break;
        }
    }
    assert_eq!(moves, ["placed", "taken away", "confirmed", "placed"]);
}

/// A machine that has not said a word of a unit may be starting it; and an old confirmation is none of a new placement.
#[tokio::test]
async fn a_unit_waits_for_a_machine_that_was_silent_and_for_a_confirmation_of_its_own() {
    let house = House::open().await;
    let mut one = Agent::begin(&house, &machine(1, 1), 1).await;
    let mut two = Agent::begin(&house, &machine(2, 0), 1).await;
    let (here, there) = (unit_on(&one.machine, "hello"), unit_on(&two.machine, "hello"));
    let confirm = |placement| sealift_client::api::Statuses {
        session: one.session.clone(),
        statuses: vec![],
        gone: vec![Withdrawal { unit: "hello.service".parse().unwrap(), placement }],
        all: false,
    };
    let (late, early) = (confirm(1), confirm(0));
    house.deploy(&mut one, "hello", 1, &[("hello.service", &here)]).await;
    house.deploy(&mut one, "hello", 2, &[("hello.service", &there)]).await;
    one.hear_until("the unit is dropped", |agent| agent.dropped_by("hello.service") == Some(1)).await;
    one.report_as(&early).await.unwrap();
    let app = house.app_until("hello", "why it waits", |app| app.units[0].problem.is_some()).await;
    assert!(two.units.is_empty(), "{app:?}");
    one.report_as(&late).await.unwrap();
    two.hear_until("the unit comes", |agent| !agent.units.is_empty()).await;

    // Back again, and away again before a word of it; the first confirmation comes a second time.
    house.deploy(&mut one, "hello", 3, &[("hello.service", &here)]).await;
    two.hear_until("the unit is dropped", |agent| agent.units.is_empty()).await;
    two.report(vec![], &["hello.service"]).await.unwrap();
    one.hear_until("the unit is back", |agent| !agent.units.is_empty()).await;
    house.deploy(&mut one, "hello", 4, &[("hello.service", &there)]).await;
    one.hear_until("the unit is dropped", |agent| agent.units.is_empty()).await;
    one.report_as(&late).await.unwrap();
    let app = house.app_until("hello", "why it waits", |app| app.units[0].problem.is_some()).await;
    assert!(two.units.is_empty(), "{app:?}");
    one.report(vec![], &["hello.service"]).await.unwrap();
    two.hear_until("the unit comes", |agent| !agent.units.is_empty()).await;
}

#[tokio::test]
async fn a_global_unit_comes_to_every_machine_that_suits_it() {
    let house = House::open().await;
    let mut east = machine(1, 1);
    east.metadata.insert("region".into(), "east".into());
    let mut one = Agent::begin(&house, &east, 1).await;
    let west = Agent::begin(&house, &machine(2, 0), 1).await;
    let text = "[Service]\nExecStart=x\n[X-Fleet]\nGlobal=true\nMachineMetadata=region=east\n";
    house.deploy(&mut one, "watcher", 1, &[("watcher.service", text)]).await;
    one.hear_until("the unit", |agent| !agent.units.is_empty()).await;
    assert!(west.units.is_empty());
    // A machine that comes later has it from the beginning.
    let mut other_east = machine(3, 0);
    other_east.metadata.clone_from(&east.metadata);
    let mut late = Agent::begin(&house, &other_east, 1).await;
    assert_eq!(late.unit_names(), ["watcher.service"]);
    house.deploy(&mut one, "watcher", 2, &[]).await;
    late.hear_until("the unit is dropped", |agent| agent.units.is_empty()).await;
    one.hear_until("the unit is dropped", |agent| agent.units.is_empty()).await;
}
