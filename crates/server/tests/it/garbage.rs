//! A record that cannot be read is left aside; everything else goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealift_model::{Run, RunState};
use sealift_store::{MemoryStore, Store, Txn};

use crate::agent::{Agent, machine, note};
use crate::house::House;

const RUBBISH: [&[u8]; 4] = [b"not json", b"{}", b"\xff\xfe\x00", b""];

/// A store in which these keys hold rubbish.
async fn with_rubbish(keys: &[String]) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    for (key, rubbish) in keys.iter().zip(RUBBISH.iter().cycle()) {
        store.commit(Txn::new().put(key.clone(), *rubbish)).await.unwrap();
    }
    store
}

#[tokio::test]
async fn records_that_cannot_be_read_hold_up_nothing() {
    let (here, gone) = ("01".repeat(16), "ee".repeat(16));
    let commit = "ab".repeat(20);
    let store = with_rubbish(&[
        // Of others, and of the very project that is then worked with.
        "units/broken.service".into(),
        "units/hello.service".into(),
        "units/web.service".into(),
        "units/no unit name".into(),
        "placements/hello.service".into(),
        "placements/broken.service".into(),
        format!("statuses/{here}/hello.service"),
        format!("statuses/{gone}/broken.service"),
        format!("machines/{here}"),
        format!("machines/{gone}"),
        format!("presence/{here}"),
        format!("presence/{gone}"),
        "counters/runs/broken".into(),
        "requests/broken".into(),
        "runs/broken/000000000001".into(),
        "runs/broken/000000000002".into(),
        "runs/broken/none".into(),
        format!("packages/broken/main/{commit}"),
        "releases/broken/000000000001".into(),
        "apps/broken".into(),
        "from-the-future/x".into(),
        "keyless".into(),
    ])
    .await;
    let house = House::over(store.clone()).await;
    assert_eq!((house.runs().await, house.packages().await), (vec![], vec![]));
    assert_eq!(house.status().await.machines, 0);
    assert!(house.units().await.is_empty());

    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let text = "[Service]\nExecStart=hello\n";
    let run = house.deploy(&mut agent, "hello", 1, &[("hello.service", text), ("web.service", text)]).await;
    assert_eq!(run.id.to_string(), "hello-1");
    agent.hear_until("the units", |agent| agent.units.len() == 2).await;
    agent.report_all_up().await;
    house.app_until("hello", "it runs", |app| app.phase == sealift_model::AppPhase::Running).await;
    // Records that nobody had to write anew are as they were.
    for key in ["from-the-future/x", "keyless", "runs/broken/000000000001", "units/broken.service"] {
        assert!(RUBBISH.contains(&&*store.get(key).await.unwrap().unwrap().value), "{key}");
    }
}

/// The project whose own records are broken goes on as far as it can, and covers no record of the past.
#[tokio::test]
async fn a_project_with_broken_records_takes_runs_again() {
    let keys = ["counters/runs/hello", "runs/hello/000000000002", "runs/hello/000000000001"];
    let store = with_rubbish(&keys.map(String::from)).await;
    let house = House::over(store.clone()).await;
    let run = house.push("hello", "main", 1).await;
    assert_eq!(run.id.number, 3);
    assert_eq!(house.push("hello", "main", 2).await.id.number, 4);
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let handed = agent.run().await;
    agent.say(&handed, vec![note(0, "work")]).await.unwrap();
    assert_eq!(agent.fail(&handed).await.unwrap().state, RunState::Failed);
    for key in &keys[1..] {
        assert!(RUBBISH.contains(&&*store.get(key).await.unwrap().unwrap().value), "{key}");
    }
}

/// Which release runs is not known then, so none is put over it; the run ends and its package is kept.
#[tokio::test]
async fn a_run_of_an_app_that_cannot_be_read_ends_without_a_release() {
    let store = with_rubbish(&["apps/hello".into()]).await;
    let house = House::over(store).await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    house.push("hello", "main", 1).await;
    let handed = agent.run().await;
    let artifact = house.upload("what it made").await;
    let units = [("hello.service", "[Service]\nExecStart=hello\n")];
    let ended = agent.pass(&handed, Some(artifact), &units).await.unwrap();
    assert_eq!(ended.state, RunState::Passed);
    let message = ended.message.unwrap();
    assert!(message.contains("not released"), "{message}");
    assert_eq!(house.packages().await.len(), 1);
    assert!(house.release_numbers(&"hello".parse().unwrap()).await.is_empty());
}

/// Rubbish that comes while the server runs takes the place of what was there, as it would after a restart.
#[tokio::test]
async fn a_record_that_breaks_while_the_server_runs_is_written_anew_where_it_is_wanted() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let text = "[Service]\nExecStart=hello\n";
    house.deploy(&mut agent, "hello", 1, &[("hello.service", text)]).await;
    agent.hear_until("the unit", |agent| !agent.units.is_empty() && agent.runs.is_empty()).await;
    let run = house.push("hello", "main", 2).await;
    agent.run().await;
    let rubbish = Txn::new().put("units/hello.service", "rubbish").put("runs/hello/000000000002", "rubbish");
    house.store.commit(rubbish).await.unwrap();
    agent.hear_until("the run is gone", |agent| agent.runs.is_empty()).await;
    let next = house.push("hello", "main", 3).await;
    assert_eq!(agent.run().await.run.id, next.id);
    agent.hear_until("the unit is there", |agent| !agent.units.is_empty()).await;
    let known: BTreeMap<u64, Run> = house.runs().await.into_iter().map(|run| (run.id.number, run)).collect();
    assert_eq!(known.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert!(house.get::<Run>(&format!("/v1/runs/{}", run.id)).await.is_err());
}
