//! Presence is a matter of time, so the clock stands still here and is only turned by hand.

use std::time::Duration;

use sealift_client::api::{List, MachineStatus};
use sealift_model::{ActiveState, AttemptEnd, RunState};
use tokio::time::advance;

use crate::agent::{Agent, machine, unit_on};
use crate::house::{House, TTL, assert_refused};

/// A little more than tokio's timers may be late.
const TICK: Duration = Duration::from_millis(2);

/// While this lives, a paused clock moves by [`advance`] alone. Tokio would otherwise turn it whenever all wait,
/// which they also do while bytes are on their way through a socket. A blocking task that is under way prevents it.
pub(crate) struct Stopped(Option<std::sync::mpsc::Sender<()>>);

impl Stopped {
    pub(crate) fn clock() -> Stopped {
        let (sender, receiver) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || receiver.recv().ok());
        tokio::time::pause();
        Stopped(Some(sender))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.take();
    }
}

async fn is_present(house: &House, number: usize) -> bool {
    let machines: List<MachineStatus> = house.get("/v1/machines").await.unwrap();
    machines.items[number].presence.is_some()
}

#[tokio::test]
async fn keep_alives_in_time_keep_a_machine_and_write_nothing() {
    let _clock = Stopped::clock();
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let before = house.everything().await;
    for _ in 0..50 {
        advance(TTL * 9 / 10).await;
        agent.keep_alive().await.unwrap();
    }
    assert!(is_present(&house, 0).await);
    assert!(before == house.everything().await, "something was written");
    assert_eq!(house.store.revision().await.unwrap().0, house.status().await.revision);
    // And it is of use.
    house.push("hello", "main", 1).await;
    agent.run().await;
}

#[tokio::test]
async fn a_silent_machine_is_away_and_loses_its_runs_but_not_what_no_other_can_run() {
    let _clock = Stopped::clock();
    let house = House::open().await;
    let silent = machine(1, 2);
    let mut old = Agent::begin(&house, &silent, 1).await;
    house.deploy(&mut old, "hello", 1, &[("hello.service", &unit_on(&silent, "hello"))]).await;
    old.hear_until("the unit comes", |agent| !agent.units.is_empty()).await;
    old.report_all_up().await;
    house.app_until("hello", "it runs", |app| app.phase == sealift_model::AppPhase::Running).await;
    let run = house.push("hello", "main", 2).await.id;
    let handed = old.run().await;
    let other = Agent::begin(&house, &machine(2, 0), 1).await;

    advance(TTL - TICK).await;
    assert!(is_present(&house, 0).await);
    other.keep_alive().await.unwrap();
    advance(2 * TICK).await;
    // The server hangs up on whom it does not count any more.
    old.hear_the_end().await;
    assert!(!is_present(&house, 0).await);
    assert!(is_present(&house, 1).await, "the other one was heard in time");
    assert_refused(old.keep_alive().await, 410, "fenced");
    assert_refused(old.report(vec![], &[]).await, 410, "fenced");
    assert_refused(old.pass(&handed, None, &[]).await, 410, "fenced");

    let lost = house
        .run_until(&run, "the loss", |run| run.attempts.iter().any(|attempt| attempt.end.is_some()))
        .await;
    assert_eq!((lost.state, lost.attempts[0].end), (RunState::Queued, Some(AttemptEnd::Lost)));
    // The unit is for this machine alone: it keeps its place, and it is said why nothing is known of it.
    let app = house.app_until("hello", "it is said why", |app| app.units[0].problem.is_some()).await;
    assert_eq!(app.phase, sealift_model::AppPhase::Rolling);
    let problem = app.units[0].problem.as_ref().unwrap();
    assert!(problem.contains(silent.id.short()) && problem.contains("away"), "{problem}");

    // It comes back with a new session, to the same unit and to the same run.
    let mut new = Agent::begin(&house, &silent, 2).await;
    let again = new.run().await;
    assert_eq!((again.run.id, again.attempt), (run, 2));
    new.hear_until("the unit comes back", |agent| !agent.units.is_empty()).await;
    new.report(vec![new.status("hello.service", ActiveState::Active)], &[]).await.unwrap();
    house.app_until("hello", "it runs again", |app| app.phase == sealift_model::AppPhase::Running).await;
    assert_refused(old.keep_alive().await, 410, "fenced");
}

#[tokio::test]
async fn a_unit_that_any_machine_can_run_goes_to_another_when_its_own_is_away() {
    let _clock = Stopped::clock();
    let house = House::open().await;
    let mut one = Agent::begin(&house, &machine(1, 1), 1).await;
    house.deploy(&mut one, "hello", 1, &[("hello.service", "[Service]\nExecStart=hello\n")]).await;
    one.hear_until("the unit comes", |agent| !agent.units.is_empty()).await;
    one.report_all_up().await;
    let mut two = Agent::begin(&house, &machine(2, 0), 1).await;
    advance(TTL / 2).await;
    two.keep_alive().await.unwrap();
    assert!(two.units.is_empty());
    advance(TTL / 2 + TICK).await;
    two.hear_until("the unit comes over", |agent| !agent.units.is_empty()).await;
    two.report_all_up().await;
    let app = house.app_until("hello", "it runs", |app| app.phase == sealift_model::AppPhase::Running).await;
    assert_eq!(app.units[0].machine.as_deref(), Some("host-2"));
}

/// A server that was away for long gives agents their whole time again.
#[tokio::test]
async fn the_time_that_the_server_was_away_does_not_count() {
    let _clock = Stopped::clock();
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let house = House::on_disk(dir.clone()).await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let run = house.push("hello", "main", 1).await.id;
    let handed = agent.run().await;
    house.close().await;
    advance(TTL * 10).await;
    let house = House::on_disk(dir).await;
    agent.keep_alive().await.unwrap();
    assert_eq!(agent.fail(&handed).await.unwrap().attempts.len(), 1);
    assert_eq!(house.run(&run).await.state, RunState::Failed);
}

/// A request's key is remembered for ten minutes, so a client that tries again that long is safe.
#[tokio::test]
async fn a_request_key_is_remembered_for_ten_minutes() {
    let _clock = Stopped::clock();
    let house = House::open().await;
    let new = house.new_run("hello", "main", 1).await;
    let ask = || house.client.post::<_, sealift_model::Run>("/v1/runs", &new);
    let first = ask().await.unwrap();
    advance(Duration::from_secs(599)).await;
    assert_eq!(ask().await.unwrap(), first);
    let mut watch = house.store.watch("requests/", house.store.revision().await.unwrap()).await.unwrap();
    advance(Duration::from_secs(2)).await;
    let gone = watch.next().await.unwrap().unwrap();
    assert!(matches!(gone.events[0], sealift_store::Event::Delete { .. }));
    house.caught_up().await;
    assert_eq!(ask().await.unwrap().id.number, 2);
}
