//! Checkpoints, and runs that start from them.

use sealift_model::StepOutcome;
use sealift_pipeline::{RunSpec, Source, checkpoints, name_of_failure, remove_checkpoint, remove_work_dir};

use crate::host::{Job, SH, engine, raw, script, scripts};

fn yaml(first: &str, last: &str) -> String {
    let mut first = script("prepare", first);
    first.push_str("        checkpoint: prepared\n");
    format!("box: {SH}\nbuild:\n  steps:\n{first}{}", script("use", last))
}

#[tokio::test]
async fn a_run_starts_where_another_was() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let keep = dir.path().join("checkpoints");
    let set = |spec: &mut RunSpec| {
        spec.project = format!("me/checkpoint-{}", std::process::id());
        spec.checkpoint_dir = Some(keep.clone());
        spec.hidden_env = vec![("TOKEN".into(), "geheim-4711".into())];
    };
    let first = "export KEPT='a b' LEAKED=\"x $TOKEN\" WERCKER_RUN_ID=fake\ntouch /installed\necho s >made\necho o >$WERCKER_OUTPUT_DIR/o";
    let last = "cat made $WERCKER_OUTPUT_DIR/o\nls /installed\necho \"$KEPT,$LEAKED,$TOKEN,$WERCKER_RUN_ID\"";
    let mut job = Job::new(yaml(first, last));
    set(&mut job.spec);
    let ran = job.run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    let notes = format!("{:?}", ran.events);
    assert!(notes.contains("checkpoint prepared is kept ("), "{notes}");
    assert_eq!(
        ran.warnings(),
        ["checkpoint prepared is without the variable LEAKED: the value of a hidden variable is in it"]
    );

    let found = checkpoints(&keep).unwrap();
    assert_eq!(found.len(), 1);
    let checkpoint = found.into_iter().next().unwrap();
    assert_eq!(
        (checkpoint.name.as_str(), checkpoint.steps.as_slice()),
        ("prepared", &["prepare".to_owned()][..])
    );
    let state = std::fs::read_dir(&keep).unwrap().next().unwrap().unwrap().path().join("state.json");
    assert!(!std::fs::read_to_string(&state).unwrap().contains("geheim-4711"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&state.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // Twice: a checkpoint is not used up. The step before is another one now, and does not matter.
    for _ in 0..2 {
        let mut job = Job::new(yaml("exit 1", last));
        set(&mut job.spec);
        job.spec.resume = Some(checkpoint.clone());
        let ran = job.run(&engine).await;
        assert!(ran.outcome().passed, "{:#?}", ran.events);
        assert_eq!(ran.finished(0).0, StepOutcome::Skipped);
        assert_eq!(ran.output(1), "s\no\n/installed\na b,,***,0123456789abcdef01234567\n");
        assert!(
            ran.outcome()
                .steps
                .iter()
                .map(|step| step.outcome)
                .eq([StepOutcome::Skipped, StepOutcome::Passed])
        );
    }

    // The newest of a name is the only one.
    let mut job = Job::new(yaml("touch /second", "true"));
    set(&mut job.spec);
    assert!(job.run(&engine).await.outcome().passed);
    let found = checkpoints(&keep).unwrap();
    assert_eq!(found.len(), 1);
    let docker = raw(&engine).await;
    docker.inspect_image(&found[0].image).await.unwrap();

    // One that stands behind another step is not what the file means.
    let mut job = Job::new(yaml("true", last).replace("prepare\n", "renamed\n"));
    set(&mut job.spec);
    job.spec.resume = Some(found[0].clone());
    let error = job.run(&engine).await.error().to_string();
    assert!(error.contains("after step prepare") && error.contains("renamed"), "{error}");

    remove_checkpoint(&engine, &found[0]).await.unwrap();
    assert_eq!(checkpoints(&keep).unwrap(), []);
    docker.inspect_image(&found[0].image).await.unwrap_err();
}

#[tokio::test]
async fn without_a_place_the_step_goes_on() {
    let Some(engine) = engine().await else { return };
    let ran = Job::new(yaml("true", "echo on")).run(&engine).await;
    assert!(ran.outcome().passed);
    assert_eq!(ran.warnings(), ["checkpoint prepared is not kept: the run has no place for it"]);
    assert_eq!(ran.output(1), "on\n");
}

#[tokio::test]
async fn a_run_begins_where_the_last_one_failed() {
    let Some(engine) = engine().await else { return };
    let make = "echo x >product; export VER=42; touch /root/installed; echo o >$WERCKER_OUTPUT_DIR/o";
    let look = "cat product hello.txt; echo $VER \"$TOKEN\"; ls /root/installed; cat $WERCKER_OUTPUT_DIR/o
                echo tried >>tries; cat tries; test -e mended";
    for copy in [false, true] {
        // Where the file systems of /tmp cannot lie above another, this would not show a view.
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        let kept = place.path().join("checkpoints");
        let job = |number: &str| {
            let mut job = Job::new(scripts(SH, &[make, look]));
            job.spec.work_dir = place.path().join(number);
            job.spec.tuning.copy_source = copy;
            job.spec.checkpoint_dir = Some(kept.clone());
            job.spec.checkpoint_on_failure = true;
            job.spec.hidden_env = vec![("TOKEN".into(), "geheim-4711".into())];
            job
        };
        let first = job("first").run(&engine).await;
        assert_eq!(first.finished(1).0, StepOutcome::Failed);
        remove_work_dir(&place.path().join("first")).unwrap();
        let project = first.dir.path().join("project");
        let found = checkpoints(&kept).unwrap();
        assert_eq!((found.len(), found[0].name.clone()), (1, name_of_failure(&project)));
        assert_eq!(found[0].steps, ["s0"]);
        // The person mends the source; what the steps made is there as well.
        std::fs::write(project.join("mended"), "").unwrap();
        std::fs::write(project.join("hello.txt"), "hello again\n").unwrap();
        let mut second = job("second");
        second.spec.source = Source::Copy(project);
        second.spec.resume = Some(found[0].clone());
        let second = second.run(&engine).await;
        assert!(second.outcome().passed, "copy {copy}: {:#?}", second.events);
        assert_eq!(second.finished(0).0, StepOutcome::Skipped);
        let want = "x\nhello again\n42 ***\n/root/installed\no\ntried\ntried\n";
        assert_eq!(second.output(1), want, "copy {copy}");
        remove_work_dir(&place.path().join("second")).unwrap();
        for checkpoint in checkpoints(&kept).unwrap() {
            remove_checkpoint(&engine, &checkpoint).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0);
    }
}
