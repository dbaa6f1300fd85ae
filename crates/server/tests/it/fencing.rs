//! Nothing that an older session or attempt says changes anything, however the words and the plan cross.

use sealift_model::{RunState, SessionId};

use crate::agent::{self, Agent, machine, note};
use crate::gate::Gate;
use crate::house::{House, assert_refused};

#[tokio::test]
async fn words_of_an_old_attempt_change_nothing() {
    let house = House::open().await;
    let machine = machine(1, 1);
    house.push("hello", "main", 1).await;
    let artifact = house.upload("a package").await;
    let mut old = Agent::begin(&house, &machine, 1).await;
    let first = old.run().await;
    old.say(&first, vec![note(0, "of attempt 1")]).await.unwrap();
    let mut new = Agent::begin(&house, &machine, 2).await;
    let second = new.run().await;
    assert_eq!(second.attempt, 2);
    new.say(&second, vec![note(0, "of attempt 2")]).await.unwrap();

    let before = house.everything().await;
    let units = [("hello.service", "[Service]\nExecStart=hello\n")];
    let passed = old.end(true, Some(artifact.clone()), &units);
    let id = &first.run.id;
    assert_refused(old.say(&first, vec![note(1, "too late")]).await, 410, "fenced");
    assert_refused(old.finish(&first, &passed).await, 410, "fenced");
    // Neither does it help to name the new attempt, nor the new session for the old attempt, nor one to come.
    assert_refused(old.say(&second, vec![note(1, "too late")]).await, 410, "fenced");
    assert_refused(old.finish(&second, &passed).await, 410, "fenced");
    assert_refused(new.say(&first, vec![note(1, "too late")]).await, 410, "fenced");
    assert_refused(new.pass(&first, Some(artifact.clone()), &units).await, 410, "fenced");
    let end = new.end(true, Some(artifact.clone()), &units);
    assert_refused(agent::finish(&house.client, id, 3, &end).await, 410, "fenced");
    assert_refused(agent::finish(&house.client, id, 0, &end).await, 410, "fenced");
    assert_refused(
        agent::finish(&house.client, &"hello-9".parse().unwrap(), 1, &end).await,
        404,
        "not-found",
    );
    assert!(before == house.everything().await, "something was changed");

    let ended = new.pass(&second, Some(artifact), &units).await.unwrap();
    assert_eq!(ended.state, RunState::Passed);
    let log: Vec<_> = house.log(id, true).await;
    assert_eq!(log.iter().map(|entry| entry.attempt).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn an_ended_run_takes_no_more_words() {
    let house = House::open().await;
    house.push("hello", "main", 1).await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let handed = agent.run().await;
    agent.say(&handed, vec![note(0, "one")]).await.unwrap();
    agent.fail(&handed).await.unwrap();
    agent.hear_until("the run is dropped", |agent| agent.runs.is_empty()).await;
    let before = house.everything().await;
    assert_refused(agent.say(&handed, vec![note(1, "two")]).await, 410, "fenced");
    assert!(before == house.everything().await, "something was changed");
}

/// The new session is there, the plan that takes the run from the old one is not written yet.
#[tokio::test]
async fn the_old_session_is_fenced_from_the_moment_the_new_one_begins() {
    let gate = Gate::new();
    let house = House::over(gate.clone()).await;
    let machine = machine(1, 1);
    house.push("hello", "main", 1).await;
    let artifact = house.upload("a package").await;
    let mut old = Agent::begin(&house, &machine, 1).await;
    let handed = old.run().await;
    gate.shut("runs/", "\"end\":\"lost\"");
    let mut new = Agent::begin(&house, &machine, 2).await;
    gate.somebody_waits().await;

    let before = house.everything().await;
    assert_refused(old.say(&handed, vec![note(0, "too late")]).await, 410, "fenced");
    assert_refused(old.pass(&handed, Some(artifact), &[]).await, 410, "fenced");
    assert!(before == house.everything().await, "something was changed");
    gate.open();
    let again = new.run().await;
    assert_eq!((again.run.id, again.attempt), (handed.run.id, 2));
}

/// The old session's end is decided but not written when the new session begins.
#[tokio::test]
async fn an_end_that_crosses_a_new_session_does_not_count() {
    let gate = Gate::new();
    let house = House::over(gate.clone()).await;
    let machine = machine(1, 1);
    house.push("hello", "main", 1).await;
    let artifact = house.upload("a package").await;
    let mut old = Agent::begin(&house, &machine, 1).await;
    let handed = old.run().await;
    gate.shut("runs/", "\"state\":\"passed\"");
    let end = old.end(true, Some(artifact), &[]);
    let (client, id) = (house.client.clone(), handed.run.id.clone());
    let finishing = tokio::spawn(async move { agent::finish(&client, &id, 1, &end).await });
    gate.somebody_waits().await;
    let mut new = Agent::begin(&house, &machine, 2).await;
    gate.open();
    assert_refused(finishing.await.unwrap(), 410, "fenced");
    let again = new.run().await;
    assert_eq!((&again.run.id, again.attempt), (&handed.run.id, 2));
    assert_eq!(house.packages().await, []);
    assert_eq!(house.ends_of(&handed.run.id).await, []);
}

#[tokio::test]
async fn the_same_session_said_twice_keeps_its_runs() {
    let house = House::open().await;
    let machine = machine(1, 1);
    house.push("hello", "main", 1).await;
    let mut agent = Agent::begin(&house, &machine, 1).await;
    let handed = agent.run().await;
    // As when the answer to the first request was lost on the way.
    let again = Agent::begin(&house, &machine, 1).await;
    assert_eq!(again.runs.len(), 1);
    let ended = again.fail(&handed).await.unwrap();
    assert_eq!((ended.state, ended.attempts.len()), (RunState::Failed, 1));
}

#[tokio::test]
async fn a_session_that_nobody_began_hears_nothing() {
    let house = House::open().await;
    let machine = machine(1, 1);
    let nobody = SessionId::from_bytes([9; 16]);
    let answer = agent::assignments(&house.client, &machine.id, &nobody).await;
    assert_refused(answer, 410, "fenced");
    let before = house.store.revision().await.unwrap();
    let report = serde_json::json!({"session": nobody, "statuses": []});
    assert_refused(house.post(&format!("/v1/machines/{}/statuses", machine.id), report).await, 410, "fenced");
    assert_eq!(house.store.revision().await.unwrap(), before);
}
