//! A run that asks before it goes on: answered from another terminal, refused, and killed while it waits.

use std::io::{BufRead as _, BufReader};
use std::process::{Output, Stdio};

use sealift_client::api::LogEntry;
use sealift_model::{Run, RunState};
use serde_json::Value;

use super::crash::containers;
use crate::host::{Dev, Project, with_box};

const FILE: &str = "\
sealift: 1
box: localhost/sealift-e2e-box
build:
  steps: [{script: {code: echo it is built}}]
deploy:
  approval: Ship it?
  steps: [{script: {code: echo it is shipped}}]
workflows: [{name: ci, stages: [build, deploy]}]
";

/// Waits until this run, and nothing else, waits for an answer.
fn waiting(dev: &Dev, run: &str) -> Value {
    loop {
        let list = dev.json(&["approvals", "--project", "svc"]);
        if let [item] = &list["items"].as_array().unwrap()[..] {
            assert_eq!(item["run"], run);
            return item.clone();
        }
        let newest = &dev.json(&["runs", "--limit", "1"])["items"][0];
        assert!(newest["ended_at"].is_null(), "it did not wait: {}", dev.ok(&["logs"]));
    }
}

fn answer(dev: &Dev, args: &[&str]) -> Output {
    dev.command(args).env("USER", "ann").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// Follows the run to its end.
async fn ended(dev: &Dev, id: &str) -> Run {
    let mut log = dev.client().lines::<LogEntry>(&format!("/v1/runs/{id}/log?follow=true")).await.unwrap();
    while log.next().await.unwrap().is_some() {}
    dev.ask(&format!("/v1/runs/{id}")).await.unwrap()
}

#[tokio::test]
async fn a_run_waits_for_a_person_and_does_what_they_say() {
    if !with_box() {
        return;
    }
    let mut dev = Dev::start();
    let project = Project::new(dev.dir.path());
    std::fs::remove_dir_all(project.dir.join("units")).unwrap();
    project.write("wercker.yml", FILE);
    project.commit("first");
    let push = ["push", project.path(), "--pipeline", "ci"];
    let detached = [&push[..], &["--detach"]].concat();

    dev.ok(&detached);
    let item = waiting(&dev, "svc-1");
    assert_eq!(
        [&item["project"], &item["node"], &item["question"], &item["branch"]],
        ["svc", "deploy", "Ship it?", "main"]
    );
    assert_eq!(containers(&dev), "", "something is held while it waits");
    let list = dev.ok(&["approvals"]);
    assert!(list.starts_with("RUN") && list.contains("svc-1  svc      deploy"), "{list}");
    assert!(dev.ok(&["status"]).contains("1 waits for an approval"));
    let output = answer(&dev, &["approve", "svc-1"]);
    assert!(
        output.status.success() && said(&output).contains("deploy of svc-1 is approved by ann"),
        "{output:?}"
    );
    assert_eq!(ended(&dev, "svc-1").await.state, RunState::Passed);
    let log = dev.ok(&["logs", "svc-1"]);
    assert!(log.contains("approved by ann") && log.contains("it is shipped"), "{log}");
    let output = answer(&dev, &["reject", "svc-1", "deploy"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(said(&output).contains("deploy of svc-1 was approved by ann"), "{output:?}");

    // Whoever follows the push is told what to type.
    let mut child = dev.command(&push).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("sealift approve svc-2 deploy")), "nothing was said");
    waiting(&dev, "svc-2");
    let output =
        answer(&dev, &["reject", "svc-2", "deploy", "--reason", "not on a Friday", "--output", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        [&json["answer"]["by"], &json["answer"]["approved"]],
        [&Value::from("ann"), &Value::from(false)]
    );
    let rest: Vec<_> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let rest = rest.join("\n");
    assert!(rest.contains("not approved: rejected by ann: not on a Friday"), "{rest}");
    assert!(!rest.contains("it is shipped"), "{rest}");

    // Killed while it waits, it asks again.
    dev.ok(&detached);
    waiting(&dev, "svc-3");
    dev.kill();
    dev.again();
    waiting(&dev, "svc-3");
    assert!(answer(&dev, &["approve", "svc-3", "deploy"]).status.success());
    let run = ended(&dev, "svc-3").await;
    assert_eq!((run.state, run.attempts.len()), (RunState::Passed, 2), "{run:?}");
    assert!(dev.ok(&["logs", "svc-3"]).contains("it is shipped"));

    // Aborted while it waits, it waits no longer.
    dev.ok(&detached);
    waiting(&dev, "svc-4");
    dev.ok(&["abort", "svc-4"]);
    assert_eq!(dev.json(&["approvals"])["items"], Value::Array(Vec::new()));
    let output = answer(&dev, &["approve", "svc-4"]);
    assert!(said(&output).contains("svc-4 has ended, and waits for no approval"), "{output:?}");
}
