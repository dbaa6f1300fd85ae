//! kill -9 of `sealift dev` at many points of a commit's way: the service does not notice, a run ends once, nothing is
//! doubled, nothing is left over.
//!
//! The points are the store's revisions and the log's events as they come: killing when a revision is seen covers
//! the time right behind each transaction that is written between a push and its service.

use std::collections::BTreeMap;
use std::process::Command;

use sealift_client::api::{AppStatus, List, LogEntry, Packages, Status};
use sealift_model::{AppPhase, AttemptEnd, Run, RunState};

use crate::host::{Dev, commit_of, ready};

/// When to kill.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// Once the store has gone on by so many revisions since before the push.
    Revision(u64),
    /// Once the run's log has so many events.
    Event(usize),
}

impl Point {
    async fn reached(self, dev: &Dev, base: u64, run: &str) -> bool {
        match self {
            Point::Revision(more) => {
                let status: Option<Status> = dev.ask("/v1/status").await;
                status.is_some_and(|status| status.revision >= base + more || settled_on(dev, run, &status))
            }
            Point::Event(count) => {
                let mut lines =
                    dev.client().lines::<LogEntry>(&format!("/v1/runs/{run}/log?follow=true")).await.unwrap();
                for _ in 0..count {
                    if lines.next().await.unwrap().is_none() {
                        break;
                    }
                }
                true
            }
        }
    }
}

/// Nothing more will happen: a point behind the end is the end.
fn settled_on(_: &Dev, run: &str, status: &Status) -> bool {
    status.apps.iter().any(|app| {
        app.phase == AppPhase::Running
            && app.release.as_ref().is_some_and(|release| release.package.run.to_string() == run)
    })
}

async fn settle(dev: &Dev, run: &str) -> Run {
    // The watch tells every change; there is nothing to poll for but the app's first appearance.
    loop {
        let run: Run = dev.ask(&format!("/v1/runs/{run}")).await.unwrap();
        if run.state.is_end() {
            break;
        }
        let mut log =
            dev.client().lines::<LogEntry>(&format!("/v1/runs/{}/log?follow=true", run.id)).await.unwrap();
        while log.next().await.unwrap().is_some() {}
    }
    let mut watch = dev.client().lines::<AppStatus>("/v1/apps/svc/watch").await.unwrap();
    while let Some(app) = watch.next().await.unwrap() {
        assert_ne!(app.phase, AppPhase::Failed, "{app:?}");
        if app.phase == AppPhase::Running {
            break;
        }
    }
    dev.ask(&format!("/v1/runs/{run}")).await.unwrap()
}

pub(super) fn containers(dev: &Dev) -> String {
    let owner = std::fs::read_to_string(dev.state().join("machine-id")).unwrap();
    let docker = Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success());
    let engine = if docker { "docker" } else { "podman" };
    let label = format!("label=dev.sealift.owner={owner}");
    let list = |args: &[&str]| {
        let output = Command::new(engine).args(args).args(["--quiet", "--filter", &label]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    format!("{}{}", list(&["ps", "--all"]), list(&["network", "ls"]))
}

#[tokio::test]
async fn a_kill_at_any_point_loses_nothing_and_doubles_nothing() {
    let Some((mut dev, project)) = ready() else { return };
    let mut current = project.commit("first");
    dev.ok(&["push", project.path()]);
    let mut ends: BTreeMap<usize, u32> = BTreeMap::new();
    let points = (1..=8).map(Point::Revision).chain([1, 2, 3, 5, 7].map(Point::Event));
    let mut pushed = 1;
    for point in points {
        let base = dev.ask::<Status>("/v1/status").await.unwrap().revision;
        let (old_pid, _) = dev.process("svc.service");
        let commit = project.commit(&format!("{point:?}"));
        dev.ok(&["push", project.path(), "--detach"]);
        pushed += 1;
        let id = format!("svc-{pushed}");
        while !point.reached(&dev, base, &id).await {}
        // Whatever runs now must go on running while nobody is there.
        let status: Status = dev.ask("/v1/status").await.unwrap();
        let was_done = settled_on(&dev, &id, &status);
        let running = was_done.then(|| dev.process("svc.service"));
        dev.kill();
        match &running {
            Some((pid, _)) => assert_eq!(commit_of(*pid).as_ref(), Some(&commit), "{point:?}"),
            None => {
                let old = commit_of(old_pid);
                assert!(old.is_none() || old.as_ref() == Some(&current), "{point:?}: {old:?}");
            }
        }
        dev.again();
        let run = settle(&dev, &id).await;
        assert_eq!(run.state, RunState::Passed, "{point:?}: {run:?}");
        let numbers: Vec<_> = run.attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, (1..=u32::try_from(numbers.len()).unwrap()).collect::<Vec<_>>(), "{point:?}");
        let (last, lost) = run.attempts.split_last().unwrap();
        assert_eq!(last.end, Some(AttemptEnd::Passed), "{point:?}");
        assert!(lost.iter().all(|attempt| attempt.end == Some(AttemptEnd::Lost)), "{point:?}: {run:?}");
        assert!(lost.len() <= 1, "{point:?}: one kill loses at most one attempt: {run:?}");
        *ends.entry(lost.len()).or_default() += 1;
        let (pid, now) = dev.process("svc.service");
        assert_eq!(now, commit, "{point:?}");
        if let Some((before, _)) = running {
            assert_eq!(pid, before, "{point:?}: what ran as wished was restarted");
        }
        // One run, one package, one release for each push.
        let runs: List<Run> = dev.ask("/v1/runs?limit=1000").await.unwrap();
        let packages: Packages = dev.ask("/v1/packages").await.unwrap();
        let app: AppStatus = dev.ask("/v1/apps/svc").await.unwrap();
        assert_eq!(
            (runs.items.len(), packages.items.len(), app.app.current),
            (pushed, pushed, pushed as u64),
            "{point:?}"
        );
        current = commit;
    }
    // Both kinds of kill were among them: before the run was over, and after.
    assert!(ends.len() == 2, "attempts lost, by how often: {ends:?}");
    assert_eq!(containers(&dev), "", "containers or networks are left over");
    assert_eq!(std::fs::read_dir(dev.state().join("agent/runs")).unwrap().count(), 0);
}

#[tokio::test]
async fn kills_in_a_row_while_it_takes_up_its_work_again() {
    let Some((mut dev, project)) = ready() else { return };
    project.commit("first");
    dev.ok(&["push", project.path()]);
    let before = dev.process("svc.service");
    let commit = project.commit("second");
    dev.ok(&["push", project.path(), "--detach"]);
    // Twice, since the third loss of a run is its last.
    for _ in 0..2 {
        dev.kill();
        assert_eq!(commit_of(before.0), Some(before.1.clone()));
        dev.again();
    }
    let run = settle(&dev, "svc-2").await;
    assert_eq!(run.state, RunState::Passed, "{run:?}");
    assert_eq!(dev.process("svc.service").1, commit);
    assert_eq!(containers(&dev), "");
}
