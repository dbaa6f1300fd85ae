//! Whole workflows.

use std::sync::Arc;
use std::time::Instant;

use sealift_model::{EventKind, StepOutcome};
use sealift_pipeline::config::{self, Workflow};
use sealift_pipeline::{
    Approver, Decision, Engine, Groups, Leftovers, NodeEnd, NodeEvent, WorkflowError, WorkflowOutcome,
    WorkflowSpec, execute_workflow, remove_leftovers, remove_work_dir,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::host::{Job, SH, engine};

/// A workflow to be.
struct Flow {
    job: Job,
    workflow: &'static str,
    spec: WorkflowSpec,
}

/// What came of it.
struct Ran {
    result: Result<WorkflowOutcome, WorkflowError>,
    events: Vec<NodeEvent>,
    job: tempfile::TempDir,
}

impl Drop for Ran {
    fn drop(&mut self) {
        // Views of sources, which would stay mounted when the directory is gone.
        remove_work_dir(&self.job.path().join("work")).unwrap();
    }
}

impl Flow {
    /// `yaml` without its box.
    fn new(yaml: &str) -> Flow {
        let job = Job::new(format!("box: {SH}\n{yaml}"));
        Flow { job, workflow: "ci", spec: WorkflowSpec { slots: Some(4), ..WorkflowSpec::default() } }
    }

    async fn run(self, engine: &Engine) -> Ran {
        self.run_watching(engine, |_, _| ()).await
    }

    /// Runs it, collects its events, and checks what holds for all.
    async fn run_watching(
        self,
        engine: &Engine,
        mut watch: impl FnMut(&NodeEvent, &CancellationToken),
    ) -> Ran {
        let Flow { job, workflow, spec } = self;
        let (config, _) = config::parse(&job.yaml).unwrap_or_else(|found| panic!("{found:?}\n{}", job.yaml));
        let workflow = match config.workflow(workflow) {
            Some(workflow) => workflow.clone(),
            None => Workflow::of(&config, config.pipeline(workflow).unwrap()),
        };
        let graph = workflow.graph(&config).unwrap();
        let (owner, work_dir) = (job.spec.owner.clone(), job.spec.work_dir.clone());
        let spec = WorkflowSpec { name: workflow.name.clone(), run: job.spec, ..spec };
        let (sender, mut inbox) = mpsc::channel(64);
        let run = execute_workflow(engine, &config, &graph, spec, sender, job.cancel.clone());
        let collect = async {
            let mut events = Vec::new();
            while let Some(event) = inbox.recv().await {
                watch(&event, &job.cancel);
                events.push(event);
            }
            events
        };
        let (result, events) = tokio::join!(run, collect);
        assert!(
            matches!(&events[0].kind, EventKind::WorkflowStarted { nodes, .. } if nodes.len() == graph.nodes.len())
        );
        assert!(matches!(&events.last().unwrap().kind, EventKind::WorkflowFinished { .. }), "{events:#?}");
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event.node.is_none(), index == 0 || index + 1 == events.len(), "{event:?}");
        }
        assert_eq!(remove_leftovers(engine, Leftovers::Owner(&owner)).await.unwrap(), 0, "{events:#?}");
        if let Ok(outcome) = &result {
            let names: Vec<&str> = outcome.nodes.iter().map(|node| node.name.as_str()).collect();
            assert_eq!(names, graph.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>());
            for node in &outcome.nodes {
                let skipped =
                    position(&events, &node.name, |kind| matches!(kind, EventKind::NodeSkipped { .. }));
                let started =
                    position(&events, &node.name, |kind| matches!(kind, EventKind::PipelineStarted { .. }));
                assert!(skipped.is_some() != started.is_some(), "{node:?} {events:#?}");
            }
        }
        let ran = Ran { result, events, job: job.dir };
        // Outputs are looked at before that by their content only; what is mounted goes with the directory.
        ran.check_removal(&work_dir);
        ran
    }
}

/// Where a node's first event of a kind is.
fn position(events: &[NodeEvent], node: &str, matches: impl Fn(&EventKind) -> bool) -> Option<usize> {
    events.iter().position(|event| event.node.as_deref() == Some(node) && matches(&event.kind))
}

fn started(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StepStarted { .. })
}

fn finished(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StepFinished { .. })
}

impl Ran {
    fn check_removal(&self, work_dir: &std::path::Path) {
        remove_work_dir(work_dir).unwrap();
        assert!(!work_dir.is_dir());
    }

    fn outcome(&self) -> &WorkflowOutcome {
        self.result.as_ref().unwrap_or_else(|error| panic!("{error:?}\n{:#?}", self.events))
    }

    fn ends(&self) -> Vec<(&str, NodeEnd)> {
        self.outcome().nodes.iter().map(|node| (node.name.as_str(), node.end)).collect()
    }

    /// All that a node's steps wrote.
    fn output(&self, node: &str) -> String {
        let mut out = String::new();
        for event in &self.events {
            if let (Some(name), EventKind::Output { text, .. }) = (&event.node, &event.kind)
                && name == node
            {
                out.push_str(text);
                out.push('\n');
            }
        }
        out
    }

    fn reason(&self, node: &str) -> String {
        self.outcome()
            .nodes
            .iter()
            .find(|known| known.name == node)
            .unwrap()
            .message
            .clone()
            .unwrap_or_default()
    }

    fn at(&self, node: &str, matches: impl Fn(&EventKind) -> bool) -> usize {
        position(&self.events, node, matches).unwrap_or_else(|| panic!("{node}: {:#?}", self.events))
    }
}

/// A pipeline of one step, as a line of YAML.
fn pipeline(name: &str, more: &str, code: &str) -> String {
    format!("{name}: {{{more}steps: [{{script: {{code: '{code}'}}}}]}}\n")
}

#[tokio::test]
async fn outputs_fan_out_and_in() {
    let Some(engine) = engine().await else { return };
    let yaml = [
        pipeline("build", "", "mkdir $WERCKER_OUTPUT_DIR/bin; echo made >$WERCKER_OUTPUT_DIR/bin/app; echo $DEPLOY $CI"),
        pipeline("left", "", "cat bin/app; ls; echo left >bin/app"),
        pipeline("right", "", "cat bin/app; echo right >$WERCKER_OUTPUT_DIR/r"),
        pipeline("join", "", "ls; cat left/bin/app right/r"),
        pipeline("picks", "", "ls; cat r"),
        "workflows: [{name: ci, pipelines: [{name: build}, {name: left, requires: [build]}, {name: right, requires: [build]}, {name: join, requires: [left, right]}, {name: picks, requires: [left, right], artifactPipeline: right}]}]\n".into(),
    ]
    .concat();
    let ran = Flow::new(&yaml).run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    // Without `sealift: 1` all of them are deploys, as with the reference.
    assert_eq!(ran.output("build"), "true true\n");
    assert_eq!(ran.output("left"), "made\nbin\n");
    // What the one did to its source is not seen by the other, nor in what both were given.
    assert_eq!(ran.output("right"), "made\n");
    assert_eq!(ran.output("join"), "left\nright\nleft\nright\n");
    assert_eq!(ran.output("picks"), "r\nright\n");
    let needs = |node: &str, need: &str| {
        let ended = ran.at(need, |kind| matches!(kind, EventKind::PipelineFinished { .. }));
        assert!(ended < ran.at(node, |kind| matches!(kind, EventKind::PipelineStarted { .. })));
    };
    for (node, need) in [("left", "build"), ("right", "build"), ("join", "left"), ("join", "right")] {
        needs(node, need);
    }
}

/// Without an output directory the source goes on, from view to view, further than views can be stacked.
#[tokio::test]
async fn a_source_goes_through_many_hands() {
    let Some(engine) = engine().await else { return };
    let names = ["a", "b", "c", "d", "e"];
    let mut yaml: String = names
        .iter()
        .map(|name| pipeline(name, "", &format!("echo {name} >>hello.txt; cat hello.txt")))
        .collect();
    yaml.push_str("workflows: [{name: ci, pipelines: [{name: a}");
    for pair in names.windows(2) {
        yaml.push_str(&format!(", {{name: {}, requires: [{}]}}", pair[1], pair[0]));
    }
    yaml.push_str("]}]\n");
    let ran = Flow::new(&yaml).run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!(ran.output("e"), "hello\na\nb\nc\nd\ne\n");
    assert_eq!(ran.output("a"), "hello\na\n");
}

#[tokio::test]
async fn outputs_are_laid_over_the_project_where_they_are_asked_for() {
    let Some(engine) = engine().await else { return };
    let yaml = [
        "sealift: 1\n".to_owned(),
        pipeline(
            "build",
            "matrix: {V: [1, 2]}, ",
            "echo $V $CI $DEPLOY | tee $WERCKER_OUTPUT_DIR/v$V >$WERCKER_OUTPUT_DIR/last",
        ),
        pipeline("lint", "when: {branch: none}, ", "echo never"),
        pipeline("ship", "needs: [lint], artifacts: {from: [build, lint]}, ", "ls; cat last hello.txt"),
        pipeline("after", "needs: [lint], ", "cat hello.txt"),
        "workflows: [{name: ci, pipelines: [build, lint, ship, after]}]\n".to_owned(),
    ]
    .concat();
    let ran = Flow::new(&yaml).run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!(ran.output("ship"), "hello.txt\nlast\nv1\nv2\n2 true\nhello\n");
    assert_eq!(ran.ends()[2], ("lint", NodeEnd::Skipped { fine: true }));
    assert_eq!(ran.output("after"), "hello\n");
}

#[tokio::test]
async fn independent_nodes_run_side_by_side() {
    let Some(engine) = engine().await else { return };
    // Each waits for a word of the other, which it can only have when both run.
    let meet = |own: &str, other: &str| {
        format!(
            "touch /pipeline/cache/up; echo {own} is up; until [ -f /pipeline/cache/{other} ]; do sleep 0.1; done; echo met"
        )
    };
    let yaml = [
        "sealift: 1\n".to_owned(),
        pipeline("a", "", &meet("a", "b")),
        pipeline("b", "", &meet("b", "a")),
        "workflows: [{name: ci, pipelines: [a, b]}]\n".to_owned(),
    ]
    .concat();
    let flow = Flow::new(&yaml);
    let nodes = flow.job.spec.work_dir.join("nodes");
    let ran = flow
        .run_watching(&engine, |event, _| {
            // The word goes by way of us: nothing else is shared.
            if let (Some(node), EventKind::Output { text, .. }) = (event.node.as_deref(), &event.kind)
                && text.ends_with("is up")
            {
                let other = if node == "a" { "b" } else { "a" };
                let cache = nodes.join(other).join("work/pipeline/cache");
                std::fs::create_dir_all(&cache).unwrap();
                std::fs::write(cache.join(node), "").unwrap();
            }
        })
        .await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    for (one, other) in [("a", "b"), ("b", "a")] {
        assert!(ran.at(one, started) < ran.at(other, finished));
    }
}

#[tokio::test]
async fn slots_bound_how_many_run() {
    let Some(engine) = engine().await else { return };
    let yaml = format!(
        "sealift: 1\n{}workflows: [{{name: ci, pipelines: [a]}}]\n",
        pipeline("a", "matrix: {N: [1, 2, 3]}, ", "echo $N")
    );
    let mut flow = Flow::new(&yaml);
    flow.spec.slots = Some(1);
    let ran = flow.run(&engine).await;
    assert!(ran.outcome().passed);
    let mut running = 0;
    for event in &ran.events {
        match event.kind {
            EventKind::PipelineStarted { .. } => running += 1,
            EventKind::PipelineFinished { .. } => running -= 1,
            _ => {}
        }
        assert!(running <= 1, "{:#?}", ran.events);
    }
}

#[tokio::test]
async fn a_failure_stops_what_needs_it_and_softly_nothing() {
    let Some(engine) = engine().await else { return };
    let nodes = [
        pipeline("bad", "", "exit 1"),
        pipeline("soft", "soft-fail: [3], ", "echo out >$WERCKER_OUTPUT_DIR/o; exit 3"),
        pipeline("behind", "artifacts: {from: [soft]}, ", "cat o"),
        pipeline("never", "needs: [bad], ", "echo never"),
        pipeline("neither", "needs: [never], ", "echo never"),
    ]
    .concat();
    let yaml = format!(
        "sealift: 1\n{nodes}workflows: [{{name: ci, pipelines: [bad, soft, behind, never, neither]}}]\n"
    );
    let ran = Flow::new(&yaml).run(&engine).await;
    let outcome = ran.outcome();
    assert!(!outcome.passed && !outcome.aborted);
    assert_eq!(outcome.message.as_deref(), Some("bad: step script failed: exit code 1"));
    let skipped = NodeEnd::Skipped { fine: false };
    let want = [
        ("bad", NodeEnd::Failed),
        ("soft", NodeEnd::Soft),
        ("behind", NodeEnd::Passed),
        ("never", skipped),
        ("neither", skipped),
    ];
    assert_eq!(ran.ends(), want);
    assert_eq!(ran.output("behind"), "out\n");
    assert_eq!(ran.reason("never"), "bad did not pass");
    assert_eq!(ran.reason("neither"), "never did not pass");
}

#[tokio::test]
async fn the_first_failure_ends_all_where_that_is_wanted() {
    let Some(engine) = engine().await else { return };
    let yaml = [
        "sealift: 1\n".to_owned(),
        pipeline("slow", "", "echo up; sleep 1000"),
        pipeline("bad", "", "until [ -f /pipeline/cache/go ]; do sleep 0.1; done; exit 1"),
        pipeline("more", "needs: [slow], ", "echo never"),
        "workflows: [{name: ci, pipelines: [slow, bad, more]}]\n".to_owned(),
    ]
    .concat();
    let mut flow = Flow::new(&yaml);
    flow.spec.fail_fast = Some(true);
    let cache = flow.job.spec.work_dir.join("nodes/bad/work/pipeline/cache");
    let ran = flow
        .run_watching(&engine, |event, _| {
            if matches!(&event.kind, EventKind::Output { text, .. } if text == "up") {
                std::fs::create_dir_all(&cache).unwrap();
                std::fs::write(cache.join("go"), "").unwrap();
            }
        })
        .await;
    let want =
        [("slow", NodeEnd::Aborted), ("bad", NodeEnd::Failed), ("more", NodeEnd::Skipped { fine: false })];
    assert_eq!(ran.ends(), want, "{:#?}", ran.events);
    assert!(!ran.outcome().aborted);
    assert_eq!(ran.outcome().message.as_deref(), Some("bad: step script failed: exit code 1"));
    assert_eq!(ran.reason("more"), "stopped, because bad did not pass");
}

#[tokio::test]
async fn cancelling_ends_all_nodes_and_leaves_nothing() {
    let Some(engine) = engine().await else { return };
    let yaml = format!(
        "sealift: 1\n{}{}workflows: [{{name: ci, pipelines: [a, b]}}]\n",
        pipeline("a", "matrix: {N: [1, 2]}, ", "echo up; sleep 1000"),
        pipeline("b", "needs: [a], ", "echo never"),
    );
    let (mut up, mut cancelled, mut ended) = (0, None, Vec::new());
    let ran = Flow::new(&yaml)
        .run_watching(&engine, |event, cancel| match &event.kind {
            EventKind::Output { .. } => {
                up += 1;
                if up == 2 {
                    cancelled = Some(Instant::now());
                    cancel.cancel();
                }
            }
            EventKind::StepFinished { outcome, .. } => {
                assert_eq!(*outcome, StepOutcome::Aborted);
                ended.push(Instant::now());
            }
            _ => {}
        })
        .await;
    assert!(ran.outcome().aborted && !ran.outcome().passed);
    assert_eq!(ran.outcome().message.as_deref(), Some("aborted"));
    assert_eq!(ended.len(), 2);
    for at in ended {
        assert!(at - cancelled.unwrap() < std::time::Duration::from_secs(1));
    }
    assert_eq!(ran.ends()[2], ("b", NodeEnd::Skipped { fine: false }));
}

/// Says what it is told to say, and writes down what it was asked.
#[derive(Debug)]
struct Person {
    decision: Option<Decision>,
    asked: std::sync::Mutex<Vec<(String, String)>>,
}

#[async_trait::async_trait]
impl Approver for Person {
    async fn ask(&self, node: &str, question: &str) -> Decision {
        self.asked.lock().unwrap().push((node.to_owned(), question.to_owned()));
        match &self.decision {
            Some(decision) => decision.clone(),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn a_person_agrees_or_not() {
    let Some(engine) = engine().await else { return };
    let yaml = format!(
        "sealift: 1\n{}{}workflows: [{{name: ci, pipelines: [a, b]}}]\n",
        pipeline("a", "approval: Ship it?, ", "echo shipped"),
        pipeline("b", "needs: [a], ", "echo b"),
    );
    let skipped = NodeEnd::Skipped { fine: false };
    for (decision, ends, reason) in [
        (Some(Decision::Approved { by: Some("ann".into()) }), [NodeEnd::Passed; 2], ""),
        (
            Some(Decision::Refused { reason: "not on a Friday".into() }),
            [skipped; 2],
            "not approved: not on a Friday",
        ),
        (None, [skipped; 2], "it wants an approval, and there is nobody to ask here"),
    ] {
        let mut flow = Flow::new(&yaml);
        let person = Arc::new(Person { decision: decision.clone(), asked: std::sync::Mutex::default() });
        flow.spec.approver = decision.map(|_| person.clone() as Arc<dyn Approver>);
        let asks = flow.spec.approver.is_some();
        let ran = flow.run(&engine).await;
        assert_eq!(ran.ends(), [("a", ends[0]), ("b", ends[1])], "{:#?}", ran.events);
        assert_eq!(ran.reason("a"), reason);
        assert_eq!(person.asked.lock().unwrap().len(), usize::from(asks));
        let waits = ran.at("a", |kind| matches!(kind, EventKind::NodeWaiting { .. }));
        assert_eq!(
            ran.events[waits].kind,
            EventKind::NodeWaiting {
                reason: "for an approval: Ship it?".into(),
                question: Some("Ship it?".into())
            }
        );
    }
    // Nobody answers: it can be cancelled.
    let mut flow = Flow::new(&yaml);
    flow.spec.approver = Some(Arc::new(Person { decision: None, asked: std::sync::Mutex::default() }));
    let ran = flow
        .run_watching(&engine, |event, cancel| {
            if matches!(event.kind, EventKind::NodeWaiting { .. }) {
                cancel.cancel();
            }
        })
        .await;
    assert!(ran.outcome().aborted);
    assert_eq!(ran.reason("a"), "the workflow was cancelled");
}

#[tokio::test]
async fn an_older_run_does_not_overwrite_a_newer_deploy() {
    let Some(engine) = engine().await else { return };
    let shared = tempfile::tempdir().unwrap();
    let flow = |order: u64, more: &str, code: &str| {
        let yaml = format!(
            "sealift: 1\n{}workflows: [{{name: ci, pipelines: [a]}}]\n",
            pipeline("a", &format!("concurrency: {{group: \"deploy-{{{{ branch }}}}\"{more}}}, "), code)
        );
        let mut flow = Flow::new(&yaml);
        flow.spec.groups = Some(Groups { dir: shared.path().to_owned(), order: Some(order) });
        flow
    };
    assert!(flow(7, "", "echo seven").run(&engine).await.outcome().passed);
    let old = flow(6, "", "echo six").run(&engine).await;
    assert_eq!(old.ends(), [("a", NodeEnd::Skipped { fine: false })]);
    let reason = old.reason("a");
    assert!(reason.contains("a newer run (7) has passed in group deploy-main"), "{reason}");
    assert!(!old.outcome().passed && old.output("a").is_empty());

    // One that runs is ended by a newer one, where that is asked for; that one waits for it.
    let (go, gone) = tokio::sync::oneshot::channel();
    let mut go = Some(go);
    let eight = flow(8, "", "echo up; sleep 1000");
    let slow = eight.run_watching(&engine, |event, _| {
        if matches!(event.kind, EventKind::Output { .. }) {
            go.take().unwrap().send(()).unwrap();
        }
    });
    let newer = async {
        gone.await.unwrap();
        flow(9, ", cancel-superseded: true", "echo nine").run(&engine).await
    };
    let (slow, newer) = tokio::join!(slow, newer);
    assert_eq!(slow.ends(), [("a", NodeEnd::Aborted)]);
    assert!(slow.reason("a").starts_with("superseded by "), "{}", slow.reason("a"));
    assert!(newer.outcome().passed, "{:#?}", newer.events);
    newer.at("a", |kind| matches!(kind, EventKind::NodeWaiting { .. }));
}

#[tokio::test]
async fn nodes_have_variables_from_their_files() {
    let Some(engine) = engine().await else { return };
    let yaml = format!(
        "{}{}workflows: [{{name: ci, pipelines: [{{name: a, envFile: test.env}}, {{name: b, requires: [a]}}]}}]\n",
        pipeline("a", "", "echo \"$PLAIN\"; echo \"$SECRET$WORD\"; [ \"$SECRET\" = hunter22 ] && echo right"),
        pipeline("b", "", "echo [$WORD]"),
    );
    let flow = Flow::new(&yaml);
    std::fs::write(
        flow.job.dir.path().join("project/test.env"),
        "# c\nPLAIN=p\nX_WORD=\"a\\nb\"\nXXX_SECRET=hunter22\n",
    )
    .unwrap();
    let ran = flow.run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!(ran.output("a"), "p\n***a\nb\nright\n");
    assert_eq!(ran.output("b"), "[]\n");

    let ran = Flow::new(&yaml).run(&engine).await;
    let error = ran.result.as_ref().unwrap_err();
    assert_eq!(error.to_string(), "the variables of a");
    let EventKind::WorkflowFinished { passed: false, message: Some(message), .. } = &ran.events[1].kind
    else {
        panic!("{:#?}", ran.events);
    };
    assert!(message.starts_with("the variables of a: cannot read "), "{message}");
}

#[tokio::test]
async fn a_node_is_tried_again_from_what_it_was_given() {
    let Some(engine) = engine().await else { return };
    let yaml = [
        "sealift: 1\n".to_owned(),
        pipeline("a", "", "echo a >$WERCKER_OUTPUT_DIR/a"),
        pipeline("b", "", "echo b >$WERCKER_OUTPUT_DIR/b"),
        pipeline(
            "c",
            "artifacts: {from: [a, b]}, retry: 1, ",
            "cat a b; rm a; [ -f /pipeline/cache/seen ] || { touch /pipeline/cache/seen; exit 1; }",
        ),
    ]
    .concat();
    let mut flow = Flow::new(&yaml);
    // A pipeline alone brings what it needs.
    flow.workflow = "c";
    let ran = flow.run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!(ran.output("c"), "a\nb\na\nb\n");
    ran.at("c", |kind| matches!(kind, EventKind::NodeRetried { attempt: 2, .. }));
    assert!(ran.job.path().is_dir());
}

/// The example that docs/workflows.md shows, and that it is the one that is there.
#[tokio::test]
async fn the_example_runs() {
    let Some(engine) = engine().await else { return };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let example = std::fs::read_to_string(root.join("examples/workflow/wercker.yml")).unwrap();
    let docs = std::fs::read_to_string(root.join("docs/workflows.md")).unwrap();
    assert!(docs.contains(&format!("```yaml\n{example}```")), "docs/workflows.md shows another example");
    let mut flow = Flow::new("");
    flow.job.yaml = example.replace("box: busybox", &format!("box: {SH}"));
    let person =
        Person { decision: Some(Decision::Approved { by: None }), asked: std::sync::Mutex::default() };
    flow.spec.approver = Some(Arc::new(person));
    let ran = flow.run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    let want = [
        ("build", NodeEnd::Passed),
        ("test (PAGE=index.html)", NodeEnd::Passed),
        ("test (PAGE=missing.html)", NodeEnd::Soft),
        ("ship", NodeEnd::Passed),
    ];
    assert_eq!(ran.ends(), want);
}
