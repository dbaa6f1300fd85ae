//! How runs end that do not come to their own end, and what is left then: nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use sealift_model::{EventKind, StepOutcome};
use sealift_pipeline::{Engine, Error, Leftovers, config, execute, remove_leftovers, remove_work_dir};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::host::{self, BASH, Job, SH, engine, script, scripts};

#[tokio::test]
async fn limits_of_time_hold() {
    let Some(engine) = engine().await else { return };
    for (code, silent) in
        [("printf quiet; sleep 100", true), ("while :; do echo busy; sleep 0.1; done", false)]
    {
        let mut yaml = scripts(SH, &[code, "echo never"]);
        yaml.push_str("  after-steps:\n");
        yaml.push_str(&script("after", "echo $WERCKER_RESULT"));
        let mut job = Job::new(yaml);
        job.spec.tuning.command_limit = Some(Duration::from_millis(1500));
        job.spec.tuning.no_response_limit = Some(Duration::from_millis(700));
        let ran = job.run(&engine).await;
        let (outcome, code, message) = ran.finished(0);
        assert_eq!((outcome, code), (StepOutcome::TimedOut, None));
        assert!(message.unwrap().contains(if silent { "no output" } else { "longer" }));
        assert!(ran.output(0).starts_with(if silent { "quiet" } else { "busy" }));
        assert_eq!(ran.output(2), "failed\n", "{:#?}", ran.events);
        assert!(!ran.outcome().passed);
    }
}

#[tokio::test]
async fn cancelling_stops_within_a_second_and_removes_all() {
    let Some(engine) = engine().await else { return };
    for image in [SH, BASH] {
        let mut cancelled = None;
        let mut ended = None;
        let job = Job::new(scripts(image, &["trap '' TERM INT; echo started; sleep 100"]));
        let ran = job
            .run_watching(&engine, |event, cancel| match event {
                EventKind::Output { .. } => {
                    cancelled = Some(Instant::now());
                    cancel.cancel();
                }
                EventKind::StepFinished { .. } => ended = Some(Instant::now()),
                _ => {}
            })
            .await;
        let outcome = ran.outcome();
        assert!(outcome.aborted && !outcome.passed);
        assert_eq!(ran.finished(0).0, StepOutcome::Aborted);
        let took = ended.unwrap() - cancelled.unwrap();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

/// Podman keeps a process for minutes after each command that is started in a container besides its main one.
#[tokio::test]
async fn no_process_of_the_engine_is_left() {
    let Some(engine) = engine().await else { return };
    if !engine.name().starts_with("Podman") {
        return println!("SKIPPED: this machine's engine is {}", engine.name());
    }
    let mut yaml = scripts(SH, &["sleep 1234 & echo one", "echo two; exit 0", "echo three"]);
    yaml.push_str("  after-steps:\n");
    yaml.push_str(&script("after", "echo $WERCKER_RESULT; ps | grep '[s]leep 1234' || echo alone"));
    let job = Job::new(yaml);
    let container = format!("sealift-{}-box", job.spec.key);
    let mut seen = 0;
    let ran = job
        .run_watching(&engine, |event, _| {
            if matches!(event, EventKind::Output { .. }) {
                seen = seen.max(monitors(&container));
            }
        })
        .await;
    assert_eq!(ran.output(3), "passed\nalone\n", "{:#?}", ran.events);
    if seen == 0 {
        return println!("SKIPPED: the engine's processes cannot be seen from here");
    }
    // The one of the container itself ends when it has noted the container's end.
    let deadline = Instant::now() + Duration::from_secs(20);
    while monitors(&container) > 0 {
        assert!(Instant::now() < deadline, "{} of {container} are left", monitors(&container));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many conmon processes there are for a container of that name.
fn monitors(container: &str) -> usize {
    let mut count = 0;
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        // Most are no processes, and one may have gone by now.
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let is_conmon = words.first().is_some_and(|program| program.ends_with(b"conmon"));
        count += usize::from(is_conmon && words.contains(&container.as_bytes()));
    }
    count
}

#[tokio::test]
async fn dropping_the_future_removes_all() {
    let Some(engine) = engine().await else { return };
    let job = Job::new(scripts(SH, &["echo started; sleep 100"]));
    let (config, _) = config::parse(&job.yaml).unwrap();
    let (events, mut inbox) = mpsc::channel(16);
    let key = job.spec.key.clone();
    let work_dir = job.spec.work_dir.clone();
    let run = execute(&engine, &config, job.spec, events, job.cancel);
    let started = async {
        while let Some(event) = inbox.recv().await {
            if matches!(event, EventKind::Output { .. }) {
                break;
            }
        }
    };
    tokio::select! { _ = run => panic!("it ended"), () = started => {} }
    // The channel closes when the run's own task is done.
    tokio::time::timeout(Duration::from_secs(20), async { while inbox.recv().await.is_some() {} })
        .await
        .unwrap();
    assert_eq!(remove_leftovers(&engine, Leftovers::Run(&key)).await.unwrap(), 0);
    // Its tree is the caller's, and a view of the source in it.
    remove_work_dir(&work_dir).unwrap();
}

#[tokio::test]
async fn leftovers_of_an_owner_are_found() {
    let Some(engine) = engine().await else { return };
    let job = Job::new(scripts(SH, &["sleep 0.2; echo started; sleep 100"]));
    let owner = job.spec.owner.clone();
    assert_eq!(remove_leftovers(&engine, Leftovers::Owner(&owner)).await.unwrap(), 0);
    // Removed under the run's feet: as after a crash there are a box and its network.
    let other = engine.clone();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let mut go = Some(go);
    let sweep = async move {
        gone.await.unwrap();
        remove_leftovers(&other, Leftovers::Owner(&owner)).await.unwrap()
    };
    let run = job.run_watching(&engine, |event, _| {
        if matches!(event, EventKind::Output { .. })
            && let Some(go) = go.take()
        {
            go.send(()).unwrap();
        }
    });
    let (ran, removed) = tokio::join!(run, sweep);
    assert_eq!(removed, 2);
    assert!(ran.result.as_ref().is_ok_and(|outcome| !outcome.passed) || ran.result.is_err());
    assert!(ran.took < Duration::from_secs(60), "{:?}", ran.took);
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let Some(engine) = engine().await else { return };
    let ran = Job::new("box: 127.0.0.1:1/none\nbuild:\n  steps: [npm-test]\n".into()).run(&engine).await;
    let error = ran.error();
    assert!(error.to_string().starts_with("image 127.0.0.1:1/none:latest cannot be pulled: "), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");

    let mut job = Job::new(scripts(SH, &["true"]));
    job.spec.pipeline = "dploy".into();
    let ran = job.run(&engine).await;
    assert_eq!(ran.error().to_string(), "there is no pipeline dploy; there is build");

    let ran = Job::new(format!("box: {SH}\nbuild:\n  stpes: [a]\n")).run(&engine).await;
    let error = ran.error();
    assert!(matches!(error, Error::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("did you mean `steps` at line 3?"), "{error}");
}

#[tokio::test]
async fn a_podman_service_is_started_and_ends_with_the_engine() {
    let Some(engine) = engine().await else { return };
    if !engine.name().starts_with("Podman") {
        return println!("SKIPPED: this machine's engine is {}", engine.name());
    }
    let dir = tempfile::tempdir().unwrap();
    let nothing = host::options(dir.path().into(), "/nowhere".into());
    if nothing.docker_host.is_some() || Engine::connect(&nothing).await.is_ok() {
        return println!("SKIPPED: a service is running on this machine already");
    }
    let error = Engine::connect(&nothing).await.unwrap_err().to_string();
    assert!(error.contains("apt-get install podman") && error.contains("/run/docker.sock"), "{error}");
    let options = host::options(dir.path().into(), std::env::var_os("PATH").unwrap());
    let started = Engine::connect(&options).await.unwrap();
    // The next program finds the one that runs.
    let second = Engine::connect(&nothing).await.unwrap();
    assert_eq!(started.address(), second.address());
    let third = Engine::connect(&options).await.unwrap();
    assert_eq!(started.address(), third.address());
    // Whoever started it may be the first to go.
    drop(started);
    let ran = Job::new(scripts(SH, &["echo hi"])).run(&third).await;
    assert!(ran.outcome().passed);
    drop(third);
    let socket = dir.path().join("podman.sock");
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        assert!(Instant::now() < deadline, "the service did not end");
        tokio::task::yield_now().await;
    }
    assert!(Path::new(&socket).parent().is_some());
}

#[tokio::test]
async fn one_who_stops_gently_gets_the_after_steps() {
    let Some(engine) = engine().await else { return };
    let mut yaml = scripts(SH, &["echo begun; sleep 1000", "echo never"]);
    yaml.push_str("  after-steps:\n");
    yaml.push_str(&script("tell", "echo after $WERCKER_RESULT"));
    yaml.push_str(&script("last", "sleep 1000"));
    let mut job = Job::new(yaml);
    let stop = CancellationToken::new();
    job.spec.stop = Some(stop.clone());
    let ran = job
        .run_watching(&engine, |event, cancel| match event {
            EventKind::Output { text, .. } if text == "begun" => stop.cancel(),
            // The last after-step, ended like any other.
            EventKind::StepStarted { step: 3, .. } => cancel.cancel(),
            _ => {}
        })
        .await;
    assert!(ran.outcome().aborted && !ran.outcome().passed);
    assert_eq!(ran.finished(0).0, StepOutcome::Aborted);
    assert_eq!((ran.output(2).as_str(), ran.finished(2).0), ("after failed\n", StepOutcome::Passed));
    assert_eq!(ran.finished(3).0, StepOutcome::Aborted);
    assert_eq!(ran.started(), 3);
}
