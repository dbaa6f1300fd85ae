//! What would be done, asked without doing it; and evening out on request.

use std::sync::Arc;

use sealift_client::Error;
use sealift_client::api::{
    ChangeSettings, DestroyUnits, List, Move, PlanRequest, PlanStep, PlanView, PutUnit, PutUnits, Rebalance,
    StepKind, UnitChange,
};
use sealift_model::{Availability, DesiredState, MachineId};
use sealift_store::MemoryStore;

use crate::agent::{Agent, machine};
use crate::house::{House, assert_refused, refused};

const SLEEP: &str = "[Service]\nExecStart=/bin/sleep 1d\n";

fn put(name: &str, fleet: &str) -> PutUnit {
    PutUnit {
        text: Some(format!("{SLEEP}\n[X-Fleet]\n{fleet}\n")),
        desired: Some(DesiredState::Launched),
        ..PutUnit::named(name.parse().unwrap())
    }
}

async fn launch(house: &House, units: Vec<PutUnit>) {
    let count = units.len();
    let request = PutUnits { units, replace: true };
    let changes: List<UnitChange> = house.client.post("/v1/units", &request).await.unwrap();
    assert_eq!(changes.items.len(), count);
}

async fn plan(house: &House, request: PlanRequest) -> Result<PlanView, Error> {
    house.client.post("/v1/plan", &request).await
}

async fn plan_units(house: &House, units: Vec<PutUnit>) -> PlanView {
    plan(house, PlanRequest::Units(PutUnits { units, replace: true })).await.unwrap()
}

fn drain(machine: &MachineId) -> PlanRequest {
    let settings = ChangeSettings { availability: Some(Availability::Drained), ..ChangeSettings::default() };
    PlanRequest::Settings { machine: machine.clone(), settings }
}

/// `move a.service 1 2: why`, machines by the number that their test gave them.
fn words(step: &PlanStep) -> String {
    let number = |id: &MachineId| id.as_str().trim_start_matches('0')[..1].to_owned();
    let mut words = vec![serde_json::to_value(step.step).unwrap().as_str().unwrap().to_owned()];
    words.extend(step.unit.iter().map(ToString::to_string));
    words.extend(step.run.iter().map(ToString::to_string));
    words.extend(step.from.iter().map(number));
    words.extend(step.to.iter().map(number));
    let words = words.join(" ");
    step.reason.as_ref().map_or(words.clone(), |reason| format!("{words}: {reason}"))
}

fn steps(view: &PlanView) -> Vec<String> {
    view.steps.iter().map(words).collect()
}

fn lost(view: &PlanView) -> Vec<(String, String)> {
    let told = view.nowhere.iter();
    told.map(|one| (one.unit.to_string(), one.reason.clone().unwrap_or_default())).collect()
}

#[tokio::test]
async fn a_plan_says_what_would_be_done_and_does_nothing() {
    let house = House::open().await;
    let mut one = Agent::begin(&house, &machine(1, 1), 1).await;
    launch(
        &house,
        vec![
            put("a.service", ""),
            put("b.service", &format!("MachineID={}", one.machine.id)),
            put("g.service", "Global=yes"),
        ],
    )
    .await;
    one.hear_until("its units", |agent| agent.units.len() == 3).await;
    let mut two = Agent::begin(&house, &machine(2, 0), 1).await;
    two.hear_until("the global unit", |agent| agent.units.len() == 1).await;
    let run = house.push("hello", "main", 1).await;
    one.run().await;
    let before = house.everything().await;

    let view = plan(&house, drain(&one.machine.id)).await.unwrap();
    assert_eq!(
        steps(&view),
        [
            "move a.service 1 2: the machine is drained",
            "leave b.service 1: the machine is drained",
            "stop g.service 1: the machine is drained"
        ]
    );
    let (unit, why) = lost(&view).remove(0);
    assert!(unit == "b.service" && why.contains("MachineID="), "{why}");
    assert_eq!(view.nowhere.len(), 1, "a global unit that still runs somewhere is not lost");

    let view = plan(&house, PlanRequest::Lose { machine: one.machine.id.clone() }).await.unwrap();
    let said = steps(&view);
    assert!(said[0].starts_with(&format!("requeue {}: ", run.id)), "{said:?}");
    assert_eq!(
        said[1..],
        ["move a.service 1 2: the machine is away", "stop g.service 1: the machine is away"]
    );
    let (unit, why) = lost(&view).remove(0);
    assert!(unit == "b.service" && why.contains("waits for machine"), "{why}");

    // Units that are not known yet, one that is changed in place, one that no machine takes, and a set.
    let view = plan_units(
        &house,
        vec![
            put("new.service", ""),
            put("a.service", "Priority=3"),
            put("far.service", "disk=floppy\nMachineMetadata=disk=floppy"),
        ],
    )
    .await;
    assert_eq!(steps(&view), ["place new.service 2", "change a.service 1: its text is another"]);
    let (unit, why) = lost(&view).remove(0);
    assert!(unit == "far.service" && why.contains("disk=floppy"), "{why}");
    let view = plan_units(&house, vec![put("w@.service", "Replicas=3\nConflicts=w@*.service")]).await;
    assert_eq!(steps(&view), ["place w@1.service 2", "place w@2.service 1"]);
    assert_eq!(lost(&view)[0].0, "w@3.service");

    // What is stopped, taken away or destroyed is not lost.
    let stop = |desired| PutUnit { desired: Some(desired), ..PutUnit::named("a.service".parse().unwrap()) };
    let view = plan_units(&house, vec![stop(DesiredState::Loaded)]).await;
    assert_eq!((steps(&view), lost(&view)), (vec!["change a.service 1: it is stopped".to_owned()], vec![]));
    let view = plan_units(&house, vec![stop(DesiredState::Inactive)]).await;
    assert_eq!((&*steps(&view)[0], lost(&view)), ("leave a.service 1: the unit is to be inactive", vec![]));
    let names = vec!["a.service".parse().unwrap(), "g.service".parse().unwrap()];
    let view = plan(&house, PlanRequest::Destroy(DestroyUnits { names })).await.unwrap();
    let kinds: Vec<StepKind> = view.steps.iter().map(|step| step.step).collect();
    assert_eq!((kinds, view.nowhere), (vec![StepKind::Leave, StepKind::Stop, StepKind::Stop], vec![]));

    assert_eq!(house.everything().await, before, "a question changes nothing");
}

#[tokio::test]
async fn what_cannot_be_asked_for_cannot_be_planned_either() {
    let house = House::open().await;
    let ghost: MachineId = "f".repeat(32).parse().unwrap();
    assert_refused(plan(&house, drain(&ghost)).await, 404, "not-found");
    assert_refused(plan(&house, PlanRequest::Lose { machine: ghost }).await, 404, "not-found");
    let unknown = vec![PutUnit::named("nobody.service".parse().unwrap())];
    let request = PlanRequest::Units(PutUnits { units: unknown, replace: false });
    assert_refused(plan(&house, request).await, 404, "not-found");
    let odd = vec![put("odd.service", "Global=true\nMachineOf=a.service")];
    let (status, _, message) =
        refused(plan(&house, PlanRequest::Units(PutUnits { units: odd, replace: false })).await);
    assert!(status == 400 && message.contains("odd.service:6:1"), "{message}");
    for most in [0, 101] {
        assert_refused(plan(&house, PlanRequest::Rebalance(Rebalance { most })).await, 400, "invalid");
        let answer: Result<List<Move>, Error> = house.client.post("/v1/rebalance", &Rebalance { most }).await;
        assert_refused(answer, 400, "invalid");
    }
}

#[tokio::test]
async fn many_ask_at_once_and_all_are_answered() {
    let house = House::open().await;
    let agent = Agent::begin(&house, &machine(1, 0), 1).await;
    launch(&house, (1..=50).map(|n| put(&format!("u{n}.service"), "")).collect()).await;
    let plans = (0..20).map(|_| plan(&house, drain(&agent.machine.id)));
    for view in futures_util::future::join_all(plans).await {
        assert_eq!(view.unwrap().nowhere.len(), 50);
    }
}

/// The server that is asked is not the one that decides; the moves are its all the same.
#[tokio::test]
async fn any_server_plans_and_evens_out() {
    let store = Arc::new(MemoryStore::new());
    let leader = House::sharing(store.clone(), "a").await;
    let mut one = Agent::begin(&leader, &machine(1, 0), 1).await;
    launch(&leader, (1..=4).map(|n| put(&format!("u{n}.service"), "")).collect()).await;
    one.hear_until("its units", |agent| agent.units.len() == 4).await;
    one.report_all_up().await;
    let other = House::sharing(store.clone(), "b").await;
    let mut two = Agent::begin(&other, &machine(2, 0), 1).await;

    let view = plan(&other, PlanRequest::Rebalance(Rebalance { most: 10 })).await.unwrap();
    let less = format!("machine {} has less to do", two.machine.id.short());
    assert_eq!(
        steps(&view),
        [format!("move u1.service 1 2: {less}"), format!("move u2.service 1 2: {less}")]
    );
    let view = plan(&other, drain(&one.machine.id)).await.unwrap();
    assert_eq!((view.steps.len(), view.nowhere.len()), (4, 0));

    let begun: List<Move> = other.client.post("/v1/rebalance", &Rebalance { most: 1 }).await.unwrap();
    let [moved] = begun.items.as_slice() else { panic!("{begun:?}") };
    assert_eq!(
        (moved.unit.as_str(), &moved.from, &moved.to),
        ("u1.service", &one.machine.id, &two.machine.id)
    );
    // It does not come back, and begins elsewhere once its end is confirmed.
    one.hear_until("the end", |agent| agent.units.len() == 3).await;
    assert!(other.units().await["u1.service"].placement.is_none());
    one.report(Vec::new(), &["u1.service"]).await.unwrap();
    two.hear_until("the unit", |agent| agent.unit_names() == ["u1.service"]).await;
    two.report_all_up().await;
    let placed = other.units().await["u1.service"].placement.clone().unwrap();
    assert!(placed.machine == two.machine.id && placed.id > moved.placement);
    // The next may be asked for at once, of the leader as well; then all is even.
    let begun: List<Move> = leader.client.post("/v1/rebalance", &Rebalance { most: 100 }).await.unwrap();
    assert_eq!(begun.items.len(), 1);
    one.hear_until("the end", |agent| agent.units.len() == 2).await;
    one.report(Vec::new(), &["u2.service"]).await.unwrap();
    two.hear_until("the unit", |agent| agent.units.len() == 2).await;
    let begun: List<Move> = leader.client.post("/v1/rebalance", &Rebalance { most: 100 }).await.unwrap();
    assert_eq!(begun.items, []);
}
