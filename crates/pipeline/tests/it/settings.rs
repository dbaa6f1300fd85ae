//! What Sealift's own form says of steps, pipelines, boxes and services.

use std::time::Duration;

use sealift_model::{EventKind, StepOutcome};
use sealift_pipeline::{Selection, Source};

use crate::host::{Job, Ran, SH, engine};

/// A pipeline `build` in Sealift's own form: lines of its own, and the list of its steps, each a flow map.
fn native(pipeline: &str, steps: &[&str]) -> String {
    let mut yaml = format!("sealift: 1\nbox: {SH}\nbuild:\n");
    for line in pipeline.lines() {
        yaml.push_str(&format!("  {line}\n"));
    }
    yaml.push_str("  steps:\n");
    for step in steps {
        yaml.push_str(&format!("    - script: {{{step}}}\n"));
    }
    yaml
}

/// All steps' ends: name, outcome, exit code, soft.
fn ends(ran: &Ran) -> Vec<(String, StepOutcome, Option<i32>, bool)> {
    let mut ends = Vec::new();
    for event in &ran.events {
        if let EventKind::StepFinished { name, outcome, exit_code, soft, .. } = event {
            ends.push((name.clone(), *outcome, *exit_code, *soft));
        }
    }
    ends
}

fn notes(ran: &Ran) -> String {
    let mut notes = String::new();
    for event in &ran.events {
        if let EventKind::Note { text } = event {
            notes.push_str(text);
            notes.push('\n');
        }
    }
    notes
}

#[tokio::test]
async fn steps_are_left_out_by_condition_and_by_selection() {
    let Some(engine) = engine().await else { return };
    let steps = [
        "name: one, code: echo one",
        "name: released, code: echo never, when: {tag: 'v*'}",
        "name: main, code: echo main, when: {branch: main}",
        "name: docs, code: echo docs, when: {path: docs/}",
    ];
    let ran = Job::new(native("", &steps)).run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    let want = |skipped: &[&str]| -> Vec<(String, StepOutcome, Option<i32>, bool)> {
        let one = |name: &str| match skipped.contains(&name) {
            true => (name.to_owned(), StepOutcome::Skipped, None, false),
            false => (name.to_owned(), StepOutcome::Passed, Some(0), false),
        };
        ["one", "released", "main", "docs"].map(one).to_vec()
    };
    assert_eq!(ends(&ran), want(&["released"]));
    assert_eq!(ran.started(), 3);
    assert_eq!(ran.finished(1).2.as_deref(), Some("its `when` does not hold: branch main, no tag"));
    assert!(notes(&ran).contains("which paths changed is not known"), "{}", notes(&ran));

    let mut job = Job::new(native("", &steps));
    job.spec.changed = Some(vec!["src/x".into()]);
    job.spec.selection = Selection { skip: vec!["1".into()], ..Selection::default() };
    let ran = job.run(&engine).await;
    assert_eq!(ends(&ran), want(&["one", "released", "docs"]));
    assert!(!notes(&ran).contains("which paths"), "{}", notes(&ran));

    let mut job = Job::new(native("", &steps));
    job.spec.selection = Selection { from: Some("mian".into()), ..Selection::default() };
    let ran = job.run(&engine).await;
    assert_eq!(ran.error().to_string(), "there is no step `mian`; did you mean `main`?");
    assert_eq!(ran.events.len(), 2);
}

#[tokio::test]
async fn a_step_is_tried_again_with_what_earlier_steps_exported() {
    let Some(engine) = engine().await else { return };
    let steps = [
        "name: first, code: export WORD=kept",
        "name: flaky, code: 'echo \"$WORD\"; setMessage \"try $(cat n)\"; echo x >>n; [ \"$(wc -l <n)\" = 3 ]; rm n; : >\"$WERCKER_REPORT_MESSAGE_FILE\"', retry: 2",
        "name: last, code: 'echo \"$WORD\"'",
    ];
    let ran = Job::new(native("", &steps)).run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!(ran.output(1).matches("kept").count(), 3);
    assert_eq!(ran.output(2), "kept\n");
    assert_eq!(ran.started(), 3);
    let notes = notes(&ran);
    assert!(notes.contains("step flaky: try; attempt 2 of 3 follows\n"), "{notes}");
    assert!(notes.contains("step flaky: try x; attempt 3 of 3 follows\n"), "{notes}");
    assert_eq!(ran.finished(1), (StepOutcome::Passed, Some(0), None));

    // One that hangs is tried again where that is asked for, in a shell of its own.
    let steps = [
        "name: first, code: export WORD=kept",
        "name: slow, code: 'echo \"$WORD\"; [ -f again ] && exit 4; : >again; sleep 100', retry: {attempts: 5, on: timed-out}, timeout: 1s",
    ];
    let ran = Job::new(native("", &steps)).run(&engine).await;
    assert_eq!(ran.output(1), "kept\nkept\n", "{:#?}", ran.events);
    assert_eq!(ran.finished(1), (StepOutcome::Failed, Some(4), None));
    assert!(notes_of(&ran, "stopped: it took longer than 1 s; attempt 2 of 5 follows"));
}

fn notes_of(ran: &Ran, part: &str) -> bool {
    notes(ran).contains(part)
}

#[tokio::test]
async fn waiting_for_another_attempt_can_be_cancelled() {
    let Some(engine) = engine().await else { return };
    for yaml in [
        native("", &["name: a, code: exit 1, retry: {attempts: 2, delay: 1h}"]),
        native("retry: {attempts: 2, delay: 1h}", &["name: a, code: exit 1"]),
    ] {
        let ran = Job::new(yaml)
            .run_watching(&engine, |event, cancel| {
                let waits = match event {
                    EventKind::Note { text } => text.contains("follows in"),
                    EventKind::NodeRetried { after_millis, .. } => *after_millis == 3_600_000,
                    _ => false,
                };
                if waits {
                    cancel.cancel();
                }
            })
            .await;
        assert!(ran.outcome().aborted, "{:#?}", ran.events);
        assert!(ran.took < Duration::from_secs(60), "{:?}", ran.took);
    }
}

#[tokio::test]
async fn soft_failures_fail_nothing() {
    let Some(engine) = engine().await else { return };
    let steps = [
        "name: first, code: export WORD=kept",
        "name: soft, code: exit 3, soft-fail: [3]",
        "name: any, code: sleep 100, soft-fail: true, timeout: 1s",
        "name: next, code: 'echo \"$WORD\"'",
        "name: hard, code: exit 4, soft-fail: [3]",
        "name: never, code: echo never",
    ];
    let ran = Job::new(native("", &steps)).run(&engine).await;
    let outcome = ran.outcome();
    assert!(!outcome.passed && !outcome.soft);
    assert_eq!(outcome.message.as_deref(), Some("step hard failed: exit code 4"));
    let plain: Vec<_> =
        ends(&ran).into_iter().map(|(_, outcome, code, soft)| (outcome, code, soft)).collect();
    assert_eq!(
        plain,
        [
            (StepOutcome::Passed, Some(0), false),
            (StepOutcome::Failed, Some(3), true),
            (StepOutcome::TimedOut, None, true),
            (StepOutcome::Passed, Some(0), false),
            (StepOutcome::Failed, Some(4), false),
        ]
    );
    assert_eq!(ran.output(3), "kept\n");
    assert_eq!(ran.warnings(), Vec::<&str>::new());

    let ran = Job::new(native("soft-fail: [4]", &["name: a, code: exit 4"])).run(&engine).await;
    let outcome = ran.outcome();
    assert!(!outcome.passed && outcome.soft && outcome.output.is_some());
    assert_eq!(outcome.message.as_deref(), Some("step a failed: exit code 4 (a soft failure)"));
}

#[tokio::test]
async fn a_step_has_variables_of_its_own() {
    let Some(engine) = engine().await else { return };
    let steps = [
        "name: a, code: 'export KEPT=old'",
        "name: b, code: 'echo \"$KEPT $NEW $MADE\"; env | grep -c ^NEW=; export MADE=b', env: {KEPT: 'new \"x\"', NEW: '$HOME/y'}",
        "name: c, code: 'echo \"$KEPT|${NEW-none}|$MADE\"; set | grep -c ^sealift_old || true'",
    ];
    let ran = Job::new(native("", &steps)).run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!(ran.output(1), "new \"x\" /root/y \n1\n");
    assert_eq!(ran.output(2), "old|none|b\n0\n");
}

#[tokio::test]
async fn a_pipeline_has_a_limit_of_time() {
    let Some(engine) = engine().await else { return };
    let mut yaml = native(
        "timeout: 2s",
        &["name: a, code: 'echo a; sleep 100', soft-fail: true", "name: b, code: echo b"],
    );
    yaml.push_str("  after-steps:\n    - script: {name: tell, code: 'sleep 3; echo $WERCKER_RESULT $WERCKER_FAILED_STEP_MESSAGE'}\n");
    let ran = Job::new(yaml).run(&engine).await;
    let outcome = ran.outcome();
    assert!(!outcome.passed && !outcome.aborted);
    let why = "stopped: the pipeline took longer than 2 s";
    assert_eq!(outcome.message.as_deref(), Some(format!("step a failed: {why}").as_str()));
    assert_eq!(ran.finished(0), (StepOutcome::TimedOut, None, Some(why.to_owned())));
    assert_eq!(ran.output(2), format!("failed {why}\n"));
    assert_eq!(ends(&ran).len(), 2);
}

#[tokio::test]
async fn a_pipeline_is_tried_again_from_the_same_source() {
    let Some(engine) = engine().await else { return };
    let yaml = native(
        "retry: 1",
        &[
            "name: a, code: 'cat hello.txt; echo changed >hello.txt; mkdir $WERCKER_CACHE_DIR/seen'",
            "name: b, code: echo b",
        ],
    );
    // The second attempt finds what the first one left in the cache, and nothing else: it passes if we let it.
    let yaml = yaml.replace(
        "mkdir $WERCKER_CACHE_DIR/seen",
        "[ -f $WERCKER_CACHE_DIR/seen ] || { : >$WERCKER_CACHE_DIR/seen; exit 5; }",
    );
    for own in [false, true] {
        let mut job = Job::new(yaml.clone());
        if let (Source::Copy(dir), true) = (&job.spec.source, own) {
            job.spec.source = Source::Own(dir.clone());
        }
        let ran = job.run(&engine).await;
        assert!(ran.outcome().passed, "{:#?}", ran.events);
        assert_eq!(ran.output(0), "hello\nhello\n");
        let retried =
            ran.events.iter().filter(|event| matches!(event, EventKind::NodeRetried { attempt: 2, .. }));
        assert_eq!(retried.count(), 1);
        let started = ran.events.iter().filter(|event| matches!(event, EventKind::PipelineStarted { .. }));
        assert_eq!(started.count(), 2);
        let ended = ran.events.iter().filter(|event| matches!(event, EventKind::PipelineFinished { .. }));
        assert_eq!(ended.count(), 1);
        assert_eq!(ran.outcome().steps.len(), 2);
    }
}

#[tokio::test]
async fn secrets_reach_the_pipeline_that_names_them() {
    let Some(engine) = engine().await else { return };
    let given =
        || vec![("TOKEN".to_owned(), "hunter22".to_owned()), ("OTHER".to_owned(), "swordfish".to_owned())];
    let show = "name: a, code: 'echo \"[${KEY-none}] [${TOKEN-none}] [${OTHER-none}]\"; [ \"$KEY\" = hunter22 ] && echo right; echo swordfish'";
    let mut job = Job::new(native("secrets: [{from: TOKEN, as: KEY}]", &[show]));
    job.spec.secrets = given();
    let ran = job.run(&engine).await;
    // Also what it was not given is not shown, wherever it got it from.
    assert_eq!(ran.output(0), "[***] [none] [none]\nright\n***\n", "{:#?}", ran.events);

    let ran = Job::new(native("secrets: [TOKEN, KEY]", &[show])).run(&engine).await;
    let error = ran.error().to_string();
    assert!(error.starts_with("pipeline build wants the secrets TOKEN, KEY, and was not given"), "{error}");
    assert!(error.contains("--secret NAME"), "{error}");

    let mut job = Job::new(native("", &[show]).replace("sealift: 1\n", ""));
    job.spec.secrets = given();
    let ran = job.run(&engine).await;
    assert_eq!(ran.output(0), "[none] [none] [none]\n***\n", "{:#?}", ran.events);
}

#[tokio::test]
async fn named_paths_become_the_output() {
    let Some(engine) = engine().await else { return };
    let steps =
        ["name: a, code: 'mkdir -p dist/x; echo y >dist/x/y; echo z >z; echo o >$WERCKER_OUTPUT_DIR/o'"];
    let ran = Job::new(native("publish: [dist/x, hello.txt]", &steps)).run(&engine).await;
    let output = ran.outcome().output.clone().unwrap();
    assert_eq!(std::fs::read_to_string(output.join("dist/x/y")).unwrap(), "y\n");
    assert!(output.join("hello.txt").is_file() && !output.join("z").is_file() && !output.join("o").is_file());
    assert!(ran.warnings().iter().any(|text| text.contains("left aside")), "{:?}", ran.warnings());

    let ran = Job::new(native("publish: gone", &steps)).run(&engine).await;
    let outcome = ran.outcome();
    assert!(!outcome.passed && outcome.output.is_none());
    assert_eq!(
        outcome.message.as_deref(),
        Some("its output cannot be published: there is no gone in the source")
    );
}

#[tokio::test]
async fn a_condition_leaves_the_whole_pipeline_out() {
    let Some(engine) = engine().await else { return };
    let ran = Job::new(native("when: {branch: release}", &["name: a, code: echo a"])).run(&engine).await;
    let outcome = ran.outcome();
    let reason = "its `when` does not hold: branch main, no tag";
    assert!(outcome.passed && outcome.output.is_none());
    assert_eq!(outcome.skipped.as_deref(), Some(reason));
    assert!(ran.events.contains(&EventKind::NodeSkipped { reason: reason.into(), fine: true }));
    assert_eq!(ran.started(), 0);
}

#[tokio::test]
async fn test_reports_are_summed_up() {
    let Some(engine) = engine().await else { return };
    let write = "name: a, code: 'echo \"<testsuite><testcase name=\\\"one\\\"/><testcase name=\\\"two\\\"><failure/></testcase></testsuite>\" >$WERCKER_REPORT_ARTIFACTS_DIR/t.xml; exit 1'";
    let ran = Job::new(native("", &[write])).run(&engine).await;
    let want = EventKind::TestsReported {
        tests: 2,
        failures: 1,
        errors: 0,
        skipped: 0,
        millis: 0,
        failed: vec!["two".into()],
    };
    assert_eq!(ran.events.iter().rev().nth(1), Some(&want), "{:#?}", ran.events);
    let broken = write.replace("</testsuite>", "").replace("exit 1", ":");
    let ran = Job::new(native("", &[&broken])).run(&engine).await;
    assert!(ran.outcome().passed);
    assert!(ran.warnings().iter().any(|text| text.contains("t.xml is left out")), "{:?}", ran.warnings());
}

#[tokio::test]
async fn services_are_ready_when_the_file_says_so() {
    let Some(engine) = engine().await else { return };
    // Each of them is ready only after a while, and its port is not what tells.
    let service = |name: &str, code: &str, ready: &str| {
        format!("  - id: {SH}\n    name: {name}\n    cmd: sh -c '{code}'\n    ready: {{{ready}}}\n")
    };
    let services = [
        service(
            "logger",
            "sleep 1; echo now it is read; echo y to go >&2; echo ready to go; sleep 1000",
            "log: ready to go",
        ),
        service("asked", "sleep 1; touch /tmp/there; sleep 1000", "command: 'test -f /tmp/there'"),
        service("port", "sleep 1; httpd -f -p 7000 -h /etc", "port: 7000, timeout: 30s")
            .replace("    ready", "    aliases: [www, db]\n    ready"),
    ]
    .concat();
    let yaml = format!(
        "sealift: 1\nbox: {SH}\nservices:\n{services}build:\n  steps:\n    - script: {{name: a, code: 'wget -q -O - http://www:7000/group http://db:7000/group >/dev/null && echo got'}}\n"
    );
    let ran = Job::new(yaml).run(&engine).await;
    assert_eq!(ran.output(0), "got\n", "{:#?}", ran.events);
    let notes = notes(&ran);
    for text in [
        "logger is ready: its log answered",
        "asked is ready: its command answered",
        "port is ready: port 7000",
    ] {
        assert!(notes.contains(text), "{notes}");
    }
    for (code, ready, want) in [
        (
            "echo nothing; sleep 1000",
            "log: ready, timeout: 1s",
            "its log has no line with \"ready\"; its last lines:\nnothing",
        ),
        ("echo words; exit 3", "log: ready", "ended with code 3; its last lines:\nwords"),
        (
            "sleep 1000",
            "command: exit 7, timeout: 1s",
            "is not ready after 1 s: its command ends with code 7",
        ),
        ("sleep 1000", "port: 7000, timeout: 1s", "nothing accepts connections on port 7000"),
    ] {
        let yaml = format!(
            "sealift: 1\nbox: {SH}\nservices:\n{}build:\n  steps:\n    - script: {{code: echo a}}\n",
            service("s", code, ready)
        );
        let ran = Job::new(yaml).run(&engine).await;
        let error = ran.error().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[tokio::test]
async fn a_box_has_a_user_limits_and_names() {
    let Some(engine) = engine().await else { return };
    let yaml = format!(
        "sealift: 1\nbox: {{id: '{SH}', user: bob, memory: 64m, cpus: 0.5, aliases: [boxy]}}\nservices: [{{id: '{SH}', name: s, cmd: sleep 1000, user: '1000:1000', memory: 32m}}]\nbuild:\n  steps:\n    - script: {{code: 'id -un; echo x >>hello.txt; while [ ! -f /pipeline/cache/go ]; do sleep 0.1; done; echo done'}}\n"
    );
    let job = Job::new(yaml);
    let docker = crate::host::raw(&engine).await;
    let (name, service) = (format!("sealift-{}-box", job.spec.key), format!("sealift-{}-0-s", job.spec.key));
    let go = job.spec.work_dir.join("pipeline/cache/go");
    let (sender, mut inbox) = tokio::sync::mpsc::unbounded_channel();
    let running = job.run_watching(&engine, |event, _| {
        if matches!(event, EventKind::StepStarted { .. }) {
            sender.send(()).ok();
        }
    });
    let looking = async {
        inbox.recv().await;
        let mut looks = Vec::new();
        for name in [name, service] {
            let host = docker.inspect_container(&name, None).await.unwrap().host_config.unwrap();
            looks.push((host.memory, host.nano_cpus));
        }
        std::fs::write(go, "").unwrap();
        looks
    };
    let (ran, looks) = tokio::join!(running, looking);
    assert_eq!(ran.output(0), "bob\ndone\n", "{:#?}", ran.events);
    assert_eq!(looks, [(Some(64 << 20), Some(500_000_000)), (Some(32 << 20), Some(0))]);
}
