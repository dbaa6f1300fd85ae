//! What a step may count on, in a box with busybox only and in one with bash.

use sealift_model::{EventKind, StepOutcome, Stream};

use crate::host::{BASH, BOB, Job, SH, engine, script, scripts};

#[tokio::test]
async fn what_a_step_exports_flows_on() {
    let Some(engine) = engine().await else { return };
    for image in [SH, BASH] {
        let codes = [
            "export A='it is \"so\" $HOME'; f() { echo \"f $1\"; }; B=plain; cd /tmp; echo ${BASH_VERSION:+bash}",
            "echo \"$A|$B\"; f x; pwd; cat hello.txt",
            "echo $WERCKER $CI $WERCKER_GIT_BRANCH $WERCKER_STEP_NAME \"$LITERAL\" $X; pwd",
        ];
        let mut job = Job::new(scripts(image, &codes));
        let literal = ("LITERAL".into(), "a'b\"c\nd $HOME".into());
        job.spec.env = vec![("X".into(), "x".into()), ("not-a-name".into(), "x".into()), literal];
        let ran = job.run(&engine).await;
        assert!(ran.outcome().passed, "{:#?}", ran.events);
        assert_eq!(ran.output(0), if image == BASH { "bash\n" } else { "\n" });
        assert_eq!(ran.output(1), "it is \"so\" $HOME|plain\nf x\n/pipeline/source\nhello\n", "{image}");
        assert_eq!(ran.output(2), "true true main script a'b\"c\nd $HOME x\n/pipeline/source\n", "{image}");
        assert_eq!(ran.warnings().len(), 1, "{:?}", ran.warnings());
    }
}

#[tokio::test]
async fn exit_codes_are_real_and_the_last_output_is_there() {
    let Some(engine) = engine().await else { return };
    let cases = [
        ("echo one; printf two; exit 7", 7, "one\ntwo"),
        ("echo a; sh -c 'exit 3'; echo b", 3, "a\n"),
        ("printf x; kill -9 $$", 137, "x"),
        ("echo before; exec sh -c 'printf after; exit 4'", 4, "before\nafter"),
        ("echo shown; exec >/dev/null; echo hidden; exit 5", 5, "shown\n"),
        ("echo shown; exec >&- 2>&-; exit 6", 6, "shown\n"),
        ("echo w; false", 1, "w\n"),
        ("set +e; echo g; false; (exit 9)", 9, "g\n"),
        ("trap 'echo trapped' EXIT; exit 8", 8, "trapped\n"),
        ("echo r; return 11", 11, "r\n"),
        ("nosuchcommand 2>/dev/null", 127, ""),
        ("kill -9 $PPID; kill -9 $$", 137, ""),
    ];
    for image in [SH, BASH] {
        for (code, want, output) in cases {
            let ran = Job::new(scripts(image, &[code, "echo never"])).run(&engine).await;
            assert!(!ran.outcome().passed);
            assert_eq!(ran.finished(0), (StepOutcome::Failed, Some(want), None), "{image}: {code}");
            assert_eq!(ran.output(0), output, "{image}: {code}");
            assert_eq!((ran.started(), ran.outcome().steps.len()), (1, 1), "{image}: {code}");
        }
    }
}

#[tokio::test]
async fn a_step_may_do_as_it_likes_to_its_streams() {
    let Some(engine) = engine().await else { return };
    for image in [SH, BASH] {
        let codes = [
            "exec >/dev/null; echo no",
            "exec >&- 2>&- </etc/passwd",
            "set -x; set -eu; cat",
            "exec 9>/tmp/lock 8>/tmp/lock; echo here",
            "printf 'no newline'",
            "printf 'a\\000\\377b\\n'; echo err >&2",
            "echo last",
        ];
        let ran = Job::new(scripts(image, &codes)).run(&engine).await;
        assert!(ran.outcome().passed, "{:#?}", ran.events);
        let outputs: Vec<_> = (0..codes.len()).map(|step| ran.stream(step, Some(Stream::Stdout))).collect();
        let want = ["", "", "", "here\n", "no newline", "a\0\u{fffd}b\n", "last\n"];
        assert_eq!(outputs, want, "{image}");
        assert_eq!(ran.stream(5, Some(Stream::Stderr)), "err\n", "{image}");
        assert!(!ran.output(2).contains("sealift"), "{}", ran.output(2));
    }
}

#[tokio::test]
async fn a_step_that_ends_the_shell_well_has_passed() {
    let Some(engine) = engine().await else { return };
    for image in [SH, BASH] {
        let codes = [
            "export A=\"$(printf 'its\\n1')\"; (exit 0); export B=2; (B=3; exit 4) | cat; exit 0",
            "echo \"A=$A B=$B\"; exit",
            "echo \"A=$A\"; unset B; export C=3 PATH=/nowhere; exit 0",
            "echo \"A=$A B=$B C=$C $PATH\"; export C=4; trap 'echo bye' EXIT; exit 0",
            "echo \"C=$C\"; export C=5; exec /bin/true",
            "echo \"C=$C\"; export C=6; kill -9 $$",
            "never",
        ];
        let ran = Job::new(scripts(image, &codes)).run(&engine).await;
        assert_eq!(ran.finished(5).1, Some(137), "{:#?}", ran.events);
        let outputs: Vec<_> = (0..6).map(|step| ran.output(step)).collect();
        // A trap of the step's own, and exec, leave nobody to tell what was exported; what was before is known.
        let want = ["", "A=its\n1 B=2\n", "A=its\n1\n", "A=its\n1 B= C=3 /nowhere\nbye\n", "C=3\n", "C=3\n"];
        assert_eq!(outputs, want, "{image}");
        assert_eq!(ran.warnings().len(), 2, "{:?}", ran.warnings());
    }
}

#[tokio::test]
async fn fifty_megabytes_arrive_whole() {
    let Some(engine) = engine().await else { return };
    let code = "i=0; while [ $i -lt 50 ]; do seq 1000001 1065536; i=$((i+1)); done | sed 's/^/00000000/'";
    let ran = Job::new(scripts(SH, &[code])).run(&engine).await;
    assert!(ran.outcome().passed, "{:?}", ran.finished(0));
    let mut want = blake3::Hasher::new();
    for _ in 0..50 {
        for number in 1_000_001..=1_065_536 {
            want.update(format!("{number:015}\n").as_bytes());
        }
    }
    let got = ran.output(0);
    assert_eq!(got.len(), 50 * 65536 * 16);
    assert_eq!(blake3::hash(got.as_bytes()), want.finalize());
}

#[tokio::test]
async fn one_long_line_arrives_in_pieces() {
    let Some(engine) = engine().await else { return };
    let ran =
        Job::new(scripts(SH, &["head -c 100000 /dev/zero | tr '\\0' x; printf end"])).run(&engine).await;
    assert!(ran.outcome().passed);
    assert_eq!(ran.output(0), format!("{}end", "x".repeat(100_000)));
    let longest =
        |event: &EventKind| matches!(event, EventKind::Output { text, .. } if text.len() > 16 * 1024);
    assert!(!ran.events.iter().any(longest));
}

#[tokio::test]
async fn a_background_child_holds_nothing_up() {
    let Some(engine) = engine().await else { return };
    for image in [SH, BASH] {
        let codes = ["sleep 1000 & echo $! >pid", "kill -0 $(cat pid) && echo alive"];
        let ran = Job::new(scripts(image, &codes)).run(&engine).await;
        assert!(ran.outcome().passed);
        assert_eq!(ran.output(1), "alive\n");
        assert!(ran.took.as_secs() < 20, "{:?}", ran.took);
    }
}

#[tokio::test]
async fn after_steps_see_how_it_ended() {
    let Some(engine) = engine().await else { return };
    for (image, code, result) in
        [(SH, "fail 'no luck'", "failed"), (BASH, "export LOST=1; echo x >made", "passed")]
    {
        let mut yaml = scripts(image, &[code]);
        yaml.push_str("  after-steps:\n");
        yaml.push_str(&script("tell", "echo \"$WERCKER_RESULT|$WERCKER_FAILED_STEP_DISPLAY_NAME|$WERCKER_FAILED_STEP_MESSAGE|$LOST\"; ls made || true"));
        yaml.push_str(&script("bad", "exit 3"));
        let ran = Job::new(yaml).run(&engine).await;
        let outcome = ran.outcome();
        assert_eq!(outcome.passed, result == "passed", "{:#?}", ran.events);
        let said = ran.stream(1, Some(Stream::Stdout));
        if result == "failed" {
            assert_eq!(ran.finished(0), (StepOutcome::Failed, Some(1), Some("no luck".into())));
            assert_eq!(said, "failed|s0|no luck|\n");
            assert_eq!(outcome.message.as_deref(), Some("step s0 failed: no luck"));
        } else {
            assert_eq!(said, "passed|||\nmade\n");
        }
        assert_eq!(ran.finished(2), (StepOutcome::Failed, Some(3), None));
        assert!(outcome.steps[1].after && outcome.steps[2].after && !outcome.steps[0].after);
    }
}

#[tokio::test]
async fn after_steps_run_whatever_a_step_has_killed() {
    let Some(engine) = engine().await else { return };
    for image in [SH, BASH, BOB] {
        let codes = ["sleep 1234 & trap 'echo trapped' EXIT", "printf last; kill -9 -1; wait"];
        for kept in 1..=codes.len() {
            let mut yaml = scripts(image, &codes[..kept]);
            yaml.push_str("  after-steps:\n");
            yaml.push_str(&script("after", "echo $WERCKER_RESULT; ps | grep '[s]leep 1234' || echo alone"));
            let ran = Job::new(yaml).run(&engine).await;
            let (want, result) = if kept == 1 {
                ((StepOutcome::Passed, Some(0), None), "passed")
            } else {
                ((StepOutcome::Failed, Some(137), None), "failed")
            };
            assert_eq!(ran.finished(kept - 1), want, "{image}: {:#?}", ran.events);
            let last = ran.stream(kept - 1, Some(Stream::Stdout));
            assert_eq!(last, if kept == 1 { "" } else { "last" }, "{image}");
            let said = ran.stream(kept, Some(Stream::Stdout));
            assert_eq!(said, format!("{result}\nalone\n"), "{image}: {:#?}", ran.events);
        }
    }
}

#[tokio::test]
async fn a_step_hears_interrupts() {
    let Some(engine) = engine().await else { return };
    for image in [SH, BASH] {
        let code = "sh -c 'trap \"echo heard; exit 3\" INT; kill -INT $$; echo deaf'";
        let ran = Job::new(scripts(image, &[code])).run(&engine).await;
        assert_eq!((ran.output(0), ran.finished(0).1), ("heard\n".to_owned(), Some(3)), "{image}");
    }
}

#[tokio::test]
async fn output_directory_or_source_comes_out() {
    let Some(engine) = engine().await else { return };
    let ran = Job::new(scripts(SH, &["echo made >$WERCKER_OUTPUT_DIR/file"])).run(&engine).await;
    let output = ran.outcome().output.clone().unwrap();
    assert_eq!(std::fs::read_to_string(output.join("file")).unwrap(), "made\n");
    let ran = Job::new(scripts(SH, &["echo more >made"])).run(&engine).await;
    let output = ran.outcome().output.clone().unwrap();
    assert_eq!(std::fs::read_to_string(output.join("made")).unwrap(), "more\n");
    assert!(output.join("hello.txt").is_file());
    assert!(!ran.dir.path().join("project/made").is_file(), "the user's own directory was changed");
    // A link in place of the directory is no output of the run.
    let code = "rmdir $WERCKER_OUTPUT_DIR; ln -s /etc $WERCKER_OUTPUT_DIR";
    let ran = Job::new(scripts(SH, &[code])).run(&engine).await;
    assert!(ran.outcome().output.clone().unwrap().ends_with("source"));
}

#[tokio::test]
async fn a_box_with_its_own_shell_and_variables() {
    let Some(engine) = engine().await else { return };
    let yaml = format!(
        "box:\n  id: {}\n  tag: $TAG\n  cmd: /bin/sh\n  env:\n    from_box: \"$TAG!\"\nsource-dir: sub\nbuild:\n  steps:\n{}",
        BASH.strip_suffix(":latest").unwrap(),
        script("a", "echo ${BASH_VERSION-none} $FROM_BOX; pwd")
    );
    let mut job = Job::new(yaml);
    std::fs::create_dir(job.dir.path().join("project/sub")).unwrap();
    job.spec.env = vec![("TAG".into(), "latest".into())];
    let ran = job.run(&engine).await;
    assert_eq!(ran.output(0), "none latest!\n/pipeline/source/sub\n", "{:#?}", ran.events);
}

#[tokio::test]
async fn a_user_who_is_not_root_may_write() {
    let Some(engine) = engine().await else { return };
    let codes = [
        "id -un; echo x >>hello.txt; echo y >$WERCKER_OUTPUT_DIR/y; echo z >$WERCKER_CACHE_DIR/z",
        "fail so",
    ];
    let ran = Job::new(scripts(BOB, &codes)).run(&engine).await;
    assert_eq!(ran.output(0), "bob\n", "{:#?}", ran.events);
    assert_eq!(ran.finished(1), (StepOutcome::Failed, Some(1), Some("so".into())));
    assert_eq!(std::fs::read_to_string(ran.dir.path().join("work/pipeline/cache/z")).unwrap(), "z\n");
}
