//! Several servers on one store: all serve, one decides.

use std::sync::Arc;

use sealift_client::api::{List, PutUnit, PutUnits, UnitChange, UnitView};
use sealift_model::{DesiredState, UnitName};
use sealift_store::MemoryStore;

use crate::agent::{Agent, machine};
use crate::house::{House, soon};

/// Waits until the server says that somebody leads for whom this holds.
async fn leader(house: &House, wanted: impl Fn(&str) -> bool) -> String {
    soon("a leader", async {
        let mut changes = house.store.watch("", house.store.revision().await.unwrap()).await.unwrap();
        loop {
            house.caught_up().await;
            if let Some(leader) = house.status().await.leader.filter(|leader| wanted(leader)) {
                return leader;
            }
            changes.next().await.unwrap();
        }
    })
    .await
}

async fn launch(house: &House, name: &str) {
    put(house, name, "[Service]\nExecStart=/bin/sleep 1d\n").await;
}

async fn put(house: &House, name: &str, text: &str) {
    let name: UnitName = name.parse().unwrap();
    let unit =
        PutUnit { text: Some(text.into()), desired: Some(DesiredState::Launched), ..PutUnit::named(name) };
    let request = PutUnits { units: vec![unit], replace: false };
    let changes: List<UnitChange> = house.client.post("/v1/units", &request).await.unwrap();
    assert_eq!(changes.items.len(), 1);
}

#[tokio::test]
async fn one_leads_and_the_other_takes_over_when_it_ends() {
    let store = Arc::new(MemoryStore::new());
    let a = House::sharing(store.clone(), "a").await;
    let first = leader(&a, |_| true).await;
    assert_eq!(first, "a");
    let b = House::sharing(store.clone(), "b").await;
    assert_eq!(leader(&b, |_| true).await, "a", "who comes later does not take over");

    // Either serves whoever asks: the unit is put at the one, the machine is at the other.
    let mut agent = Agent::begin(&b, &machine(1, 0), 1).await;
    launch(&b, "one.service").await;
    agent.hear_until("a unit placed by the leader", |agent| agent.unit_names() == ["one.service"]).await;

    // Why a unit is nowhere, the one that does not decide can tell as well.
    put(&b, "nowhere.service", "[Service]\nExecStart=/bin/true\n[X-Fleet]\nMachineMetadata=disk=ssd\n").await;
    soon("a reason", async {
        loop {
            let view: UnitView = b.get("/v1/units/nowhere.service").await.unwrap();
            match view.problem {
                Some(problem) => return assert!(problem.contains("disk=ssd"), "{problem}"),
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;

    a.close().await;
    assert_eq!(leader(&b, |leader| leader != "a").await, "b");
    launch(&b, "two.service").await;
    agent.hear_until("a unit placed by the next", |agent| agent.unit_names().len() == 2).await;
}
