//! A run comes to one end, once; what it made comes with that end or not at all.

use std::collections::BTreeSet;

use sealift_model::{AttemptEnd, Package, Run, RunState};
use sealift_package::blobs::Blobs;
use sealift_store::Revision;

use crate::agent::{self, Agent, machine, note};
use crate::gate::Gate;
use crate::house::{House, assert_refused};

const UNITS: [(&str, &str); 1] = [("hello.service", "[Service]\nExecStart=hello\n")];

#[tokio::test]
async fn an_end_brings_package_and_release_in_one_change_and_counts_once() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let pushed = house.push("hello", "main", 1).await;
    let handed = agent.run().await;
    agent.say(&handed, vec![note(0, "work")]).await.unwrap();
    let artifact = house.upload("what it made").await;
    let end = agent.end(true, Some(artifact.clone()), &UNITS);
    let ended = agent.finish(&handed, &end).await.unwrap();
    assert_eq!(ended.state, RunState::Passed);
    assert_eq!((ended.steps.len(), ended.attempts[0].end), (1, Some(AttemptEnd::Passed)));

    // Sent again, as when the answer was lost; and once more with other words.
    assert_eq!(agent.finish(&handed, &end).await.unwrap(), ended);
    assert_eq!(agent.fail(&handed).await.unwrap(), ended);
    assert_eq!(house.run(&pushed.id).await, ended);
    assert_eq!(house.ends_of(&pushed.id).await, [RunState::Passed]);
    let packages = house.packages().await;
    assert_eq!(packages.len(), 1);
    assert_eq!(house.release_numbers(&pushed.id.project).await, [1]);
    let app = house.app("hello").await;
    let release = app.release.unwrap();
    assert_eq!((app.app.current, app.app.branch.as_str()), (1, "main"));
    assert_eq!(release.package, packages[0]);
    assert_eq!(release.units.len(), 1);

    // All of it became visible at once.
    let mut watch = house.store.watch("", Revision(0)).await.unwrap();
    let keys = loop {
        let batch = watch.next().await.unwrap().unwrap();
        let keys: Vec<_> = batch.events.iter().map(|event| event.key().to_owned()).collect();
        if keys.iter().any(|key| key.starts_with("packages/")) {
            break keys;
        }
    };
    for kind in ["packages/", "releases/", "apps/", "runs/"] {
        assert!(keys.iter().any(|key| key.starts_with(kind)), "{kind} is not in {keys:?}");
    }
}

#[tokio::test]
async fn the_package_is_signed_for_its_name_and_bytes() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let pushed = house.push("hello", "feature/x", 1).await;
    let handed = agent.run().await;
    let artifact = house.upload("what it made").await;
    let ended = agent.pass(&handed, Some(artifact.clone()), &[]).await.unwrap();
    let [package] = house.packages().await.try_into().unwrap();
    assert_eq!(ended.package.as_ref(), Some(&package.name));
    assert_eq!((&package.digest, package.size, &package.run), (&artifact, 12, &pushed.id));
    assert_eq!(package.name.to_string(), format!("hello/feature/x/{}", pushed.commit));
    let blobs = Blobs::open(house.dir.path().join("blobs")).unwrap();
    let verify = |statement: &str| {
        house.public_key.verify(blobs.read(&artifact).unwrap().0, &package.signature, statement)
    };
    verify(&Package::statement(&package.name, &artifact)).unwrap();
    let other = sealift_model::PackageName { branch: "main".parse().unwrap(), ..package.name.clone() };
    assert!(verify(&Package::statement(&other, &artifact)).is_err());
    assert_eq!(house.status().await.public_key, house.public_key.to_base64());
}

#[tokio::test]
async fn a_failed_run_and_one_without_artifact_make_nothing() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let artifact = house.upload("what it made").await;
    house.push("hello", "main", 1).await;
    let failed = agent.run().await;
    // Even if it says that it made something.
    let ended = agent.finish(&failed, &agent.end(false, Some(artifact), &UNITS)).await.unwrap();
    assert_eq!((ended.state, ended.package), (RunState::Failed, None));
    assert_eq!(ended.message.as_deref(), Some("step build failed"));
    assert_eq!(ended.attempts[0].end, Some(AttemptEnd::Failed));
    house.push("hello", "main", 2).await;
    let passed = agent.run().await;
    let ended = agent.pass(&passed, None, &UNITS).await.unwrap();
    assert_eq!((ended.state, ended.package), (RunState::Passed, None));
    assert_eq!(house.packages().await, []);
    assert_eq!(house.status().await.apps, []);
}

#[tokio::test]
async fn a_run_whose_artifact_is_not_there_goes_on() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    house.push("hello", "main", 1).await;
    let handed = agent.run().await;
    let missing = "0".repeat(64).parse().unwrap();
    assert_refused(agent.pass(&handed, Some(missing), &UNITS).await, 404, "not-found");
    assert_eq!(house.run(&handed.run.id).await.state, RunState::Running);
    let artifact = house.upload("what it made").await;
    assert_eq!(agent.pass(&handed, Some(artifact), &UNITS).await.unwrap().state, RunState::Passed);
}

#[tokio::test]
async fn an_app_follows_the_branch_it_came_from() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    house.deploy(&mut agent, "hello", 1, &UNITS).await;
    house.push("hello", "feature/x", 2).await;
    let handed = agent.run().await;
    let artifact = house.upload("of the branch").await;
    let ended = agent.pass(&handed, Some(artifact), &UNITS).await.unwrap();
    assert_eq!((ended.state, ended.message), (RunState::Passed, None));
    assert_eq!(house.packages().await.len(), 2);
    assert_eq!(house.app("hello").await.app.current, 1);
    assert_eq!(house.release_numbers(&"hello".parse().unwrap()).await, [1]);
    house.deploy(&mut agent, "hello", 3, &UNITS).await;
    assert_eq!(house.app("hello").await.app.current, 2);
}

#[tokio::test]
async fn a_commit_without_unit_files_makes_no_app() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    house.deploy(&mut agent, "library", 1, &[]).await;
    assert_eq!(house.packages().await.len(), 1);
    assert_refused(house.get::<serde_json::Value>("/v1/apps/library").await, 404, "not-found");
}

#[tokio::test]
async fn a_slow_old_run_does_not_cover_a_newer_release() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 3), 1).await;
    house.deploy(&mut agent, "hello", 1, &UNITS).await;
    house.push("hello", "main", 2).await;
    let slow = agent.run().await;
    house.deploy(&mut agent, "hello", 3, &UNITS).await;
    let artifact = house.upload("package of commit 2").await;
    let ended = agent.pass(&slow, Some(artifact), &UNITS).await.unwrap();
    assert_eq!(ended.state, RunState::Passed);
    let message = ended.message.clone().unwrap();
    assert!(message.contains("not released") && message.contains("newer"), "{message}");
    // The package is kept all the same.
    assert!(house.packages().await.iter().any(|package| Some(&package.name) == ended.package.as_ref()));
    let app = house.app("hello").await;
    assert_eq!((app.app.current, app.release.unwrap().package.run.number), (2, 3));
    assert_eq!(house.release_numbers(&"hello".parse().unwrap()).await, [1, 2]);

    // Nor does it after somebody went back: what counts is what was released, not what runs.
    house.push("hello", "main", 4).await;
    let slow = agent.run().await;
    house.deploy(&mut agent, "hello", 5, &UNITS).await;
    house.post("/v1/apps/hello/rollback", serde_json::json!({"to": 1})).await.unwrap();
    let artifact = house.upload("package of commit 4").await;
    let ended = agent.pass(&slow, Some(artifact), &UNITS).await.unwrap();
    assert!(ended.message.unwrap().contains("not released"));
    assert_eq!(house.app("hello").await.app.current, 1);
}

/// Too long as they are, as JSON, and with what is read from them.
#[tokio::test]
async fn a_run_whose_unit_files_fit_into_no_release_fails_and_says_so() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let artifact = house.upload("what it made").await;
    let conflicts: String = (0..9000).map(|n| format!(" c{n}")).collect();
    let texts = [
        "#".repeat((64 << 10) + 1),
        "\"".repeat(60 << 10),
        format!("[X-Fleet]\nConflicts={conflicts}\n"),
        format!("[X-Fleet]\nConflicts={}\n", "%n".repeat(20_000)),
    ];
    for (text, commit) in texts.iter().zip(1..) {
        house.push("hello", "main", commit).await;
        let handed = agent.run().await;
        let end = agent.end(true, Some(artifact.clone()), &[("hello.service", text)]);
        let ended = agent.finish(&handed, &end).await.unwrap();
        assert_eq!((ended.state, &ended.package), (RunState::Failed, &None));
        let message = ended.message.as_deref().unwrap();
        assert!(message.contains("unit files") && message.contains("64 KiB"), "{message}");
        assert_eq!(agent.finish(&handed, &end).await.unwrap(), ended);
    }
    assert_eq!((house.packages().await, house.status().await.apps), (vec![], vec![]));
    // What just fits goes all the way to the machine.
    let text = "[Service]\nExecStart=hello\n";
    let text = format!("{text}{}", "#".repeat((64 << 10) - text.len()));
    house.deploy(&mut agent, "hello", 9, &[("hello.service", &text)]).await;
    agent.hear_until("the unit", |agent| !agent.units.is_empty()).await;
}

#[tokio::test]
async fn however_much_an_agent_has_to_say_the_run_ends() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    house.push("hello", "main", 1).await;
    let handed = agent.run().await;
    let mut end = agent.end(false, None, &[]);
    end.message = Some("\u{1f600}\"\n".repeat(100_000));
    let ended = agent.finish(&handed, &end).await.unwrap();
    assert_eq!(ended.state, RunState::Failed);
    assert!(end.message.unwrap().starts_with(&ended.message.unwrap()));
}

#[tokio::test]
async fn abort_ends_a_queued_run() {
    let house = House::open().await;
    let run = house.push("hello", "main", 1).await;
    let next = house.push("hello", "main", 2).await;
    let aborted = house.abort(&run.id).await.unwrap();
    assert_eq!((aborted.state, aborted.attempts.len()), (RunState::Aborted, 0));
    assert!(aborted.message.as_deref().unwrap().contains("abort"), "{aborted:?}");
    assert!(aborted.ended_at.is_some());
    // It is never handed out.
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    assert_eq!(agent.run().await.run.id, next.id);
    assert_eq!(house.abort(&run.id).await.unwrap(), aborted, "the second time is the first");
    assert_refused(house.abort(&"hello-9".parse().unwrap()).await, 404, "not-found");
    assert_eq!(house.ends_of(&run.id).await, [RunState::Aborted]);
}

#[tokio::test]
async fn abort_takes_a_running_run_from_its_agent() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let run = house.push("hello", "main", 1).await.id;
    let handed = agent.run().await;
    agent.say(&handed, vec![note(0, "work")]).await.unwrap();
    let artifact = house.upload("what it made").await;
    let aborted = house.abort(&run).await.unwrap();
    assert_eq!((aborted.state, aborted.attempts[0].end), (RunState::Aborted, Some(AttemptEnd::Aborted)));
    agent.hear_until("the run is dropped", |agent| agent.runs.is_empty()).await;
    let before = house.everything().await;
    assert_refused(agent.say(&handed, vec![note(1, "more")]).await, 410, "fenced");
    assert_refused(agent.pass(&handed, Some(artifact), &UNITS).await, 410, "fenced");
    assert!(before == house.everything().await, "something was changed");
    // The slot is free.
    house.push("hello", "main", 2).await;
    assert_eq!(agent.run().await.run.id.number, 2);
}

#[tokio::test]
async fn abort_of_an_ended_run_changes_nothing() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let ended = house.deploy(&mut agent, "hello", 1, &[]).await;
    let before = house.store.revision().await.unwrap();
    assert_eq!(house.abort(&ended.id).await.unwrap(), ended);
    assert_eq!(house.store.revision().await.unwrap(), before);
}

#[tokio::test]
async fn an_abort_that_crosses_the_hand_out_ends_the_run() {
    let gate = Gate::new();
    let house = House::over(gate.clone()).await;
    let run = house.push("hello", "main", 1).await.id;
    gate.shut("runs/", "aborted by request");
    let (client, path) = (house.client.clone(), format!("/v1/runs/{run}/abort"));
    let aborting = tokio::spawn(async move { client.post::<_, Run>(&path, &()).await });
    gate.somebody_waits().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    agent.run().await;
    gate.open();
    let aborted = aborting.await.unwrap().expect("an abort that lost a race is decided again");
    assert_eq!((aborted.state, aborted.attempts[0].end), (RunState::Aborted, Some(AttemptEnd::Aborted)));
    agent.hear_until("the run is dropped", |agent| agent.runs.is_empty()).await;
}

#[tokio::test]
async fn an_abort_that_comes_after_the_end_tells_that_end() {
    let gate = Gate::new();
    let house = House::over(gate.clone()).await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let run = house.push("hello", "main", 1).await.id;
    let handed = agent.run().await;
    gate.shut("runs/", "aborted by request");
    let (client, path) = (house.client.clone(), format!("/v1/runs/{run}/abort"));
    let aborting = tokio::spawn(async move { client.post::<_, Run>(&path, &()).await });
    gate.somebody_waits().await;
    let ended = agent.fail(&handed).await.unwrap();
    gate.open();
    assert_eq!(aborting.await.unwrap().unwrap(), ended);
    assert_eq!(house.ends_of(&run).await, [RunState::Failed]);
}

#[tokio::test]
async fn an_end_that_crosses_an_abort_makes_nothing() {
    let gate = Gate::new();
    let house = House::over(gate.clone()).await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let run = house.push("hello", "main", 1).await.id;
    let handed = agent.run().await;
    let end = agent.end(true, Some(house.upload("what it made").await), &UNITS);
    gate.shut("runs/", "\"state\":\"passed\"");
    let (client, id) = (house.client.clone(), run.clone());
    let finishing = tokio::spawn(async move { agent::finish(&client, &id, handed.attempt, &end).await });
    gate.somebody_waits().await;
    house.abort(&run).await.unwrap();
    gate.open();
    assert_refused(finishing.await.unwrap(), 410, "fenced");
    assert_eq!(house.ends_of(&run).await, [RunState::Aborted]);
    assert_eq!(house.packages().await, []);
    assert_eq!(house.status().await.apps, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ends_and_an_abort_at_once_come_to_one_end() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let artifact = house.upload("what it made").await;
    let mut releases = 0;
    for round in 0..30 {
        let run = house.push("hello", "main", round).await.id;
        let handed = agent.run().await;
        let finish = |end| {
            let (client, id, attempt) = (house.client.clone(), run.clone(), handed.attempt);
            tokio::spawn(async move { agent::finish(&client, &id, attempt, &end).await })
        };
        let passing = finish(agent.end(true, Some(artifact.clone()), &UNITS));
        let failing = finish(agent.end(false, None, &[]));
        let aborting = {
            let (client, path) = (house.client.clone(), format!("/v1/runs/{run}/abort"));
            tokio::spawn(async move { client.post::<_, Run>(&path, &()).await })
        };
        let (passing, failing, aborting) = tokio::join!(passing, failing, aborting);
        let ended = house.run(&run).await;
        assert!(ended.state.is_end());
        assert_eq!(house.ends_of(&run).await, [ended.state], "round {round}");
        for answer in [passing.unwrap(), failing.unwrap()] {
            match answer {
                Ok(run) => assert_eq!(run, ended),
                Err(error) => {
                    assert_eq!((error.code(), ended.state), (Some("fenced"), RunState::Aborted));
                }
            }
        }
        assert_eq!(aborting.unwrap().unwrap(), ended);
        releases += usize::from(ended.state == RunState::Passed);
        let commits: BTreeSet<_> =
            house.packages().await.into_iter().map(|package| package.name.commit).collect();
        assert_eq!(commits.contains(&ended.commit), ended.state == RunState::Passed);
        assert_eq!(commits.len(), releases);
        assert_eq!(house.release_numbers(&run.project).await.len(), releases);
    }
}
