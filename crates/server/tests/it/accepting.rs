//! Whoever is told that a run is queued can rely on it: it has one number, it is there once, and it stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use sealift_client::api::NewRun;
use sealift_model::{Run, RunState};
use serde_json::json;

use crate::house::{House, assert_refused, refused};
use crate::wire;

async fn fifty_at_once(house: House) {
    let mut new = Vec::new();
    for commit in 0..50 {
        new.push(house.new_run(if commit % 5 == 0 { "other" } else { "hello" }, "main", commit).await);
    }
    let asked = new.iter().map(|new| {
        let (client, new) = (house.client.clone(), new.clone());
        tokio::spawn(async move { client.post::<NewRun, Run>("/v1/runs", &new).await })
    });
    let mut numbers: [BTreeSet<u64>; 2] = Default::default();
    for (answer, new) in join_all(asked).await.into_iter().zip(&new) {
        let run = answer.unwrap().expect("every run is accepted");
        assert_eq!((&run.id.project, &run.commit), (&new.project, &new.commit));
        assert_eq!(house.run(&run.id).await, run, "the answer is what is kept");
        numbers[usize::from(run.id.project.as_str() == "other")].insert(run.id.number);
    }
    assert_eq!(numbers, [(1..=40).collect(), (1..=10).collect()]);
    assert_eq!(house.runs().await.len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_runs_at_once_get_numbers_without_gaps_in_memory() {
    fifty_at_once(House::open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_runs_at_once_get_numbers_without_gaps_on_disk() {
    fifty_at_once(House::on_disk(Arc::new(tempfile::tempdir().unwrap())).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_sent_again_gives_the_same_run() {
    let house = House::open().await;
    let new = house.new_run("hello", "main", 1).await;
    let asked = (0..10).map(|_| {
        let (client, new) = (house.client.clone(), new.clone());
        tokio::spawn(async move { client.post::<NewRun, Run>("/v1/runs", &new).await.unwrap() })
    });
    let runs: Vec<Run> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    assert!(runs.iter().all(|run| *run == runs[0]), "{runs:#?}");
    let again: Run = house.client.post("/v1/runs", &new).await.unwrap();
    assert_eq!(again, runs[0]);
    assert_eq!(house.runs().await, [again]);
    assert_eq!(house.push("hello", "main", 1).await.id.number, 2, "no number was lost");
}

#[tokio::test]
async fn a_run_without_its_source_is_refused_and_takes_no_number() {
    let house = House::open().await;
    let mut new = house.new_run("hello", "main", 1).await;
    let source = new.source.clone();
    new.source = "0".repeat(64).parse().unwrap();
    let answer = house.client.post::<_, Run>("/v1/runs", &new).await;
    let (status, code, message) = refused(answer);
    assert_eq!((status, &*code), (404, "not-found"));
    assert!(message.contains(new.source.as_str()), "{message}");
    assert_eq!(house.runs().await, []);
    // The very same request is good once the source is there.
    new.source = source;
    let run: Run = house.client.post("/v1/runs", &new).await.unwrap();
    assert_eq!(run.id.to_string(), "hello-1");
}

#[tokio::test]
async fn bad_fields_are_refused_with_what_is_wrong() {
    let house = House::open().await;
    let good = serde_json::to_value(house.new_run("hello", "main", 1).await).unwrap();
    let long = "x".repeat(101);
    for (field, value, wanted) in [
        ("request", json!(""), "request"),
        ("request", json!("a/b"), "request"),
        ("request", json!(long), "request"),
        ("pipeline", json!(""), "pipeline"),
        ("pipeline", json!("x".repeat(201)), "pipeline"),
        ("project", json!("Hello"), "project name"),
        ("project", json!("../hello"), "project name"),
        ("project", json!(7), "string"),
        ("branch", json!("a..b"), "branch name"),
        ("commit", json!("abc123"), "commit id"),
        ("source", json!("xyz"), "digest"),
        ("pipeline", json!(null), "pipeline"),
        ("commit", json!(null), "commit"),
    ] {
        let mut bad = good.clone();
        if value.is_null() {
            bad.as_object_mut().unwrap().remove(field);
        } else {
            bad[field] = value.clone();
        }
        let (status, code, message) = refused(house.post("/v1/runs", bad).await);
        assert_eq!((status, &*code), (400, "invalid"), "{field} = {value}: {message}");
        assert!(message.contains(wanted), "{field} = {value}: {message}");
    }
    for body in ["", "{", "[]", "null", "\u{0}"] {
        let stream = tokio::net::UnixStream::connect(house.socket()).await.unwrap();
        let answer =
            wire::ask(stream, "POST", "/v1/runs", &[("content-type", "application/json")], body).await;
        assert_eq!((answer.status, &*answer.code()), (400, "invalid"), "{body:?}");
    }
    assert_eq!(house.runs().await, []);
}

#[tokio::test]
async fn a_full_queue_refuses_clearly_and_only_its_own_project() {
    let house = House::open().await;
    let new = house.new_run("hello", "main", 1).await;
    let ask = |request: String| {
        let (client, new) = (house.client.clone(), NewRun { request, ..new.clone() });
        async move { client.post::<NewRun, Run>("/v1/runs", &new).await }
    };
    for number in 0..1000 {
        ask(format!("fill-{number}")).await.unwrap();
    }
    let (status, code, message) = refused(ask("one-more".into()).await);
    assert_eq!((status, &*code), (409, "conflict"));
    assert!(message.contains("hello") && message.contains("1000"), "{message}");
    // What was accepted is still told when it is asked again, and others have room.
    assert_eq!(ask("fill-999".into()).await.unwrap().id.to_string(), "hello-1000");
    assert_eq!(house.push("other", "main", 1).await.id.to_string(), "other-1");
    house.abort(&"hello-7".parse().unwrap()).await.unwrap();
    assert_eq!(ask("one-more".into()).await.unwrap().id.to_string(), "hello-1001");
    assert_refused(ask("another".into()).await, 409, "conflict");
}

/// A runtime that is dropped takes the server and its store with it, without a word of farewell.
#[test]
fn an_accepted_run_survives_the_end_of_the_server() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut known = Vec::new();
    for life in 0..3 {
        let runtime = runtime();
        let house = runtime.block_on(House::on_disk(dir.clone()));
        let (run, request) = runtime.block_on(async {
            assert_eq!(house.runs().await.len(), known.len(), "in life {life}");
            for (run, request) in &known {
                let run: &Run = run;
                assert_eq!(house.run(&run.id).await, *run);
                assert_eq!(run.state, RunState::Queued);
                // The request is known as well: a client that did not hear the answer asks again.
                let again: Run = house.client.post("/v1/runs", request).await.unwrap();
                assert_eq!(again, *run);
            }
            let new = house.new_run("hello", "main", life).await;
            (house.client.post::<_, Run>("/v1/runs", &new).await.unwrap(), new)
        });
        drop(runtime);
        drop(house);
        assert_eq!(run.id.number, u64::from(life) + 1);
        known.push((run, request));
    }
}
