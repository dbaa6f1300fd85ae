//! A store that does not say whether it made a change: it was made or not, and everything goes on as if it had said.

use std::sync::Arc;

use sealift_model::RunState;
use sealift_store::{MemoryStore, Store, Txn};

use crate::agent::{Agent, machine};
use crate::gate::Gate;
use crate::house::House;

const UNITS: [(&str, &str); 1] = [("hello.service", "[Service]\nExecStart=hello\n")];

#[tokio::test]
async fn whatever_became_of_a_change_it_counts_once() {
    for made in [true, false] {
        let store = Gate::new();
        let house = House::over(store.clone()).await;
        // A push.
        store.lose_answer("runs/", made);
        let pushed = house.push("hello", "main", 1).await;
        assert!(store.has_lost());
        assert_eq!(house.runs().await.len(), 1);

        // Handing the run to a machine that comes.
        store.lose_answer("runs/", made);
        let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
        let handed = agent.run().await;
        assert!(store.has_lost());
        assert_eq!((&handed.run.id, handed.attempt), (&pushed.id, 1));

        // Its end, with all that comes with it.
        let artifact = house.upload("what it made").await;
        store.lose_answer("packages/", made);
        agent.pass(&handed, Some(artifact), &UNITS).await.unwrap();
        assert!(store.has_lost());
        assert_eq!(house.ends_of(&pushed.id).await, [RunState::Passed]);
        assert_eq!(house.packages().await.len(), 1);
        assert_eq!(house.release_numbers(&pushed.id.project).await, [1]);

        // Placing the unit of the next release.
        house.push("other", "main", 2).await;
        let handed = agent.run().await;
        store.lose_answer("placements/", made);
        let artifact = house.upload("what that made").await;
        let units = [("other.service", "[Service]\nExecStart=other\n")];
        agent.pass(&handed, Some(artifact), &units).await.unwrap();
        agent
            .hear_until("other.service", |agent| {
                agent.units.keys().any(|name| name.as_str() == "other.service")
            })
            .await;
        assert!(store.has_lost());
    }
}

#[tokio::test]
async fn a_plan_larger_than_a_transaction_is_carried_out_in_parts() {
    // Thirty apps whose units have sixty kilobytes each.
    let text = format!("[Service]\nExecStart=hello\n#{}\n", "x".repeat(60_000));
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    for i in 0..30 {
        house.push(&format!("p{i}"), "main", i).await;
        let handed = agent.run().await;
        let artifact = house.upload(format!("what {i} made")).await;
        agent.pass(&handed, Some(artifact), &[(&format!("u{i}.service"), &text)]).await.unwrap();
    }
    // A server that finds them all at once has all their units to make.
    let store = Arc::new(MemoryStore::new());
    for entry in house.store.range("").await.unwrap().entries {
        if ["apps/", "releases/", "packages/"].iter().any(|prefix| entry.key.starts_with(prefix)) {
            store.commit(Txn::new().put(entry.key, entry.value)).await.unwrap();
        }
    }
    let house = House::over(store).await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 2).await;
    agent.hear_until("all units", |agent| agent.units.len() == 30).await;
}
