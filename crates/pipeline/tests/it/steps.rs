//! Where steps come from, and what a step that is somebody's own may count on.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sealift_model::{EventKind, StepOutcome};
use sealift_pipeline::steps::{PackageError, PackageSource, StepSources, WantedPackage};

use crate::host::{BASH, BOB, Job, Ran, SH, engine, script, scripts};

/// A step below the job's project (or wherever `dir` is).
fn lay(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn with_steps(image: &str, steps: &str) -> Job {
    let mut yaml = format!("box: {image}\nbuild:\n  steps:\n");
    for line in steps.lines() {
        yaml.push_str(&format!("    {line}\n"));
    }
    Job::new(yaml)
}

fn notes(ran: &Ran) -> Vec<&str> {
    let mut notes = Vec::new();
    for event in &ran.events {
        if let EventKind::Note { text } = event {
            notes.push(text.as_str());
        }
    }
    notes
}

/// A line of YAML in double quotes, which hold everything.
fn yaml_text(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

#[tokio::test]
async fn values_arrive_as_with_the_reference() {
    let Some(engine) = engine().await else { return };
    // What is given, and what the step finds.
    let cases = [
        ("plain", "plain"),
        ("it's", "it's"),
        ("say \"hi\"", "say \"hi\""),
        ("a\\b\\\\c", "a\\b\\\\c"),
        ("`date`", "`date`"),
        ("$NAME and ${NAME}", "Ada and Ada"),
        ("\\$NAME", "\\Ada"),
        ("$(echo out $NAME)", "out Ada"),
        ("one\ntwo\n", "one\\ntwo\\n"),
        ("tab\there", "tab\there"),
        ("ünï → 漢字 🚀", "ünï → 漢字 🚀"),
        ("  edges  ", "  edges  "),
        ("*? [a] ~ # ; | & < > ( ) ! %", "*? [a] ~ # ; | & < > ( ) ! %"),
        ("$MISSING", ""),
        ("", ""),
    ];
    for image in [SH, BASH] {
        let mut steps = String::from("- me/show:\n");
        for (number, (given, _)) in cases.iter().enumerate() {
            steps.push_str(&format!("    v-{number}: {}\n", yaml_text(given)));
        }
        let mut job = with_steps(image, &steps);
        job.spec.env = vec![("NAME".into(), "Ada".into())];
        let run: String = (0..cases.len())
            .map(|number| format!("printf '%s|\\n' \"$WERCKER_SHOW_V_{number}\"\n"))
            .collect();
        lay(&job.dir.path().join("project/steps/show"), &[("run.sh", &run)]);
        let ran = job.run(&engine).await;
        let want: String = cases.iter().map(|(_, want)| format!("{want}|\n")).collect();
        assert_eq!(ran.output(0), want, "{image}: {:#?}", ran.events);
    }
}

#[tokio::test]
async fn a_step_of_ones_own_finds_all_it_may_count_on() {
    let Some(engine) = engine().await else { return };
    for image in [SH, BASH, BOB] {
        let steps = "- me/greet:\n    who: $NAME \"q\"\n    cwd: sub\n- me/greet\n- script:\n    name: after\n    code: |\n      echo \"$FROM_INIT ${WERCKER_GREET_WHO-unset}\"\n      touch $WERCKER_STEP_ROOT/mine && ls $WERCKER_STEP_ROOT\n- create-file:\n    filename: $WERCKER_STEP_ROOT/made\n    content: x\n";
        let mut job = with_steps(image, steps);
        job.spec.env = vec![("NAME".into(), "Ada".into())];
        let project = job.dir.path().join("project");
        std::fs::create_dir(project.join("sub")).unwrap();
        lay(
            &project.join(".sealift/steps/greet"),
            &[
                ("init.sh", "export FROM_INIT=init\n"),
                (
                    "run.sh",
                    "echo \"${WERCKER_GREET_WHO-unset} $WERCKER_GREET_WORD $FROM_INIT\"\npwd\nls $WERCKER_STEP_ROOT\n\
                     touch $WERCKER_STEP_ROOT/mine\necho $WERCKER_STEP_NAME $WERCKER_STEP_OWNER $WERCKER_STEP_ID\n\
                     setMessage all well\necho seconds=3 >$WERCKER_REPORT_NUMBERS_FILE\n\
                     echo kept >$WERCKER_REPORT_ARTIFACTS_DIR/result\n",
                ),
                (
                    "step.yml",
                    "name: greet\nversion: 1.0.0\nproperties:\n  - {name: word, default: hi}\n  - {name: who, required: true}\n",
                ),
            ],
        );
        let ran = job.run(&engine).await;
        assert!(ran.outcome().passed, "{image}: {:#?}", ran.events);
        let rest = "init.sh\nrun.sh\nstep.yml\ngreet me";
        assert_eq!(
            ran.output(0),
            format!("Ada \"q\" hi init\n/pipeline/source/sub\n{rest} 0-greet\n"),
            "{image}"
        );
        // What the first one was given is not the second one's.
        assert_eq!(ran.output(1), format!("unset hi init\n/pipeline/source\n{rest} 1-greet\n"), "{image}");
        assert_eq!(ran.output(2), "init unset\nmine\n", "{image}");
        assert_eq!(ran.finished(0), (StepOutcome::Passed, Some(0), Some("all well".into())), "{image}");
        assert_eq!(ran.finished(3).0, StepOutcome::Passed, "{image}: {}", ran.output(3));
        assert_eq!(
            ran.warnings(),
            ["line 7: step me/greet: it wants the property `who`, which is not given"],
            "{image}"
        );
        let reports = ran.outcome().reports.clone().unwrap();
        let read = |name: &str| std::fs::read_to_string(reports.join(name)).unwrap();
        assert_eq!(read("0-greet/artifacts/result"), "kept\n", "{image}");
        assert_eq!(read("1-greet/numbers.ini"), "seconds=3\n", "{image}");
    }
}

#[tokio::test]
async fn reports_outlive_a_failure_and_are_none_where_nothing_was_reported() {
    let Some(engine) = engine().await else { return };
    let ran = Job::new(scripts(SH, &["echo x >$WERCKER_REPORT_ARTIFACTS_DIR/x; exit 3"])).run(&engine).await;
    assert!(!ran.outcome().passed);
    let reports = ran.outcome().reports.clone().unwrap();
    assert_eq!(std::fs::read_to_string(reports.join("0-script/artifacts/x")).unwrap(), "x\n");
    let ran = Job::new(scripts(SH, &["exit 3"])).run(&engine).await;
    assert_eq!(ran.outcome().reports, None);
}

#[tokio::test]
async fn both_forms_of_the_manifest() {
    let Some(engine) = engine().await else { return };
    let job = with_steps(
        SH,
        "- old:\n    count: many\n- both@2.0.0\n- broken\n- linked\n- script:\n    code: echo end\n",
    );
    let steps = job.dir.path().join("project/steps");
    let run = |name: &str| format!("echo \"$WERCKER_{name}_WORD\"\n");
    let old = "name: old\ndescription: Old\nkeywords: [a]\nproperties:\n  word: {type: string, default: \"from $0 map\"}\n  count: {type: int}\n";
    lay(&steps.join("old"), &[("run.sh", &run("OLD")), ("wercker-step.yml", old)]);
    let new = "version: 1.2.3\nproperties: [{name: word, default: list}]\n";
    lay(&steps.join("both"), &[("run.sh", &run("BOTH")), ("wercker-step.yml", old), ("step.yml", new)]);
    lay(&steps.join("broken"), &[("run.sh", &run("BROKEN")), ("step.yml", "properties: [\n")]);
    // What lies outside of a step is not read for it.
    lay(&steps.join("linked"), &[("run.sh", &run("LINKED"))]);
    std::os::unix::fs::symlink("/etc/passwd", steps.join("linked/step.yml")).unwrap();
    let ran = job.run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert!(ran.output(0).starts_with("from ") && ran.output(0).ends_with(" map\n"), "{}", ran.output(0));
    assert_eq!((ran.output(1), ran.output(2)), ("list\n".into(), "\n".into()));
    let warnings = ran.warnings();
    assert_eq!(warnings[0], "line 4: step old: its property `count` is a whole number, not `many`");
    assert_eq!(
        warnings[1],
        "line 6: step both@2.0.0: version 2.0.0 is asked for; the one from the project is version 1.2.3"
    );
    assert!(warnings[2].starts_with("line 7: step broken: its step.yml is not used: line "), "{warnings:?}");
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[tokio::test]
async fn an_unknown_step_ends_the_run_before_it_begins() {
    let Some(engine) = engine().await else { return };
    // An image that is nowhere: nobody may ask for it.
    let mut yaml = scripts("localhost/sealift-test-none", &["echo never"]);
    yaml.push_str("    - npm-instal\n    - you/never-heard-of:\n        a: b\n  after-steps:\n    - slack-notifyer:\n        url: x\n");
    let ran = Job::new(yaml).run(&engine).await;
    assert_eq!(ran.started(), 0);
    let error = ran.error().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[0], "line 8: step `npm-instal` is not known; did you mean `npm-install`?");
    assert!(lines[1].starts_with("line 9: step `you/never-heard-of` is not known; the registry"), "{error}");
    assert_eq!(lines[2], "line 12: step `slack-notifyer` is not known; did you mean `slack-notifier`?");
    match ran.events.last() {
        Some(EventKind::PipelineFinished { passed: false, message: Some(message), .. }) => {
            assert_eq!(*message, error);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn files_outside_of_the_tree_are_for_those_who_own_the_machine() {
    let Some(engine) = engine().await else { return };
    for trusted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), &[("run.sh", "echo outside\n")]);
        let mut job = with_steps(SH, &format!("- me/x \"file://{}\"\n", dir.path().display()));
        job.spec.steps.trusted_files = trusted;
        let ran = job.run(&engine).await;
        if trusted {
            assert_eq!(ran.output(0), "outside\n", "{:#?}", ran.events);
            assert!(notes(&ran)[0].starts_with("step me/x is taken from /"), "{:?}", notes(&ran));
        } else {
            let error = ran.error().to_string();
            assert!(error.ends_with("is not in the source tree"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_library_of_the_machine_serves_steps() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    for version in ["1.9.0", "1.10.0"] {
        let step = dir.path().join("me/greet").join(version);
        lay(
            &step,
            &[("run.sh", &format!("echo {version}\n")), ("step.yml", &format!("version: {version}\n"))],
        );
    }
    let mut job = with_steps(SH, "- me/greet\n- me/greet@1.9.0\n- me/greet@2.0\n- npm-test@9\n");
    job.spec.steps.library = vec!["/nowhere".into(), dir.path().to_owned()];
    let ran = job.run(&engine).await;
    assert_eq!(
        (ran.output(0), ran.output(1), ran.output(2)),
        ("1.10.0\n".into(), "1.9.0\n".into(), "1.10.0\n".into())
    );
    let warnings = ran.warnings();
    assert!(
        warnings[0].starts_with("line 6: step me/greet@2.0: version 2.0 is asked for; the one from "),
        "{warnings:?}"
    );
    assert_eq!(
        warnings[1],
        "line 7: step npm-test@9: version 9 is asked for; Sealift's own step of that name is used"
    );
    assert_eq!(warnings.len(), 2);
}

/// Packages that lie unpacked in a directory.
#[derive(Debug)]
struct Unpacked(PathBuf);

impl PackageSource for Unpacked {
    fn fetch<'a>(&'a self, wanted: &'a WantedPackage) -> BoxFuture<'a, Result<PathBuf, PackageError>> {
        let dir = self.0.join(wanted.to_string());
        async move { if dir.is_dir() { Ok(dir) } else { Err("there is no such package".into()) } }.boxed()
    }
}

#[tokio::test]
async fn packages_serve_steps() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    lay(
        &dir.path().join("greet/feature/x/latest"),
        &[("run.sh", "echo from a package $WERCKER_GREET_WHO\n")],
    );
    let packages: Arc<dyn PackageSource> = Arc::new(Unpacked(dir.path().to_owned()));
    for (address, want) in [
        ("greet/feature/x/latest", Ok("from a package Ada\n")),
        ("greet/main/latest", Err("line 4: cannot fetch step me/greet from package greet/main/latest")),
    ] {
        let mut job = with_steps(SH, &format!("- 'me/greet \"package:{address}\"':\n    who: Ada\n"));
        job.spec.steps.packages = Some(packages.clone());
        let ran = job.run(&engine).await;
        match want {
            Ok(output) => assert_eq!(ran.output(0), output, "{:#?}", ran.events),
            Err(error) => assert_eq!(ran.error().to_string(), error),
        }
    }
}

/// A step as an archive with a directory at its top.
fn archive(run: &str) -> Vec<u8> {
    let mut tar =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()));
    for (name, text) in [("greet-1.0/run.sh", run), ("greet-1.0/step.yml", "version: 1.0.0\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A server that answers everything with `body`, as long as the tests run.
fn serve(body: Vec<u8>) -> String {
    let (listener, address) = listen();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).ok();
        }
    });
    address
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/greet.tar.gz", listener.local_addr().unwrap());
    (listener, address)
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn archives_are_fetched_and_checked() {
    let Some(engine) = engine().await else { return };
    let body = archive("echo fetched; ls $WERCKER_STEP_ROOT; touch $WERCKER_STEP_ROOT/mine\n");
    let sum = digest(&body);
    let address = serve(body);
    let cache = tempfile::tempdir().unwrap();
    for (fragment, fetched) in
        [(format!("#sha256={sum}"), true), (format!("#sha256={sum}"), false), (String::new(), true)]
    {
        let mut job = with_steps(SH, &format!("- me/greet@1.0 \"{address}{fragment}\"\n"));
        job.spec.steps = StepSources { cache_dir: Some(cache.path().to_owned()), ..StepSources::default() };
        let ran = job.run(&engine).await;
        assert_eq!(ran.output(0), "fetched\nrun.sh\nstep.yml\n", "{:#?}", ran.events);
        let told =
            notes(&ran).iter().any(|note| note.starts_with("step me/greet@1.0 was fetched from http://"));
        assert_eq!(told, fetched);
        let warnings = ran.warnings();
        if fragment.is_empty() {
            // The warning names what makes it go away.
            assert!(warnings[0].contains(&format!("write #sha256={sum} behind")), "{warnings:?}");
        } else {
            assert!(warnings.is_empty(), "{warnings:?}");
        }
    }
    let job = with_steps(SH, &format!("- me/greet \"{address}#sha256={}\"\n", "0".repeat(64)));
    let ran = job.run(&engine).await;
    assert_eq!(ran.started(), 0);
    let EventKind::PipelineFinished { message: Some(message), .. } = ran.events.last().unwrap() else {
        panic!()
    };
    assert!(message.ends_with(&format!("it is not the expected one: its sha256 is {sum}")), "{message}");
}

#[tokio::test]
async fn a_run_that_fetches_can_be_cancelled() {
    let Some(engine) = engine().await else { return };
    let (listener, address) = listen();
    let job = with_steps(SH, &format!("- me/greet \"{address}\"\n"));
    let cancel = job.cancel.clone();
    // A server that takes the question and never answers.
    let server = std::thread::spawn(move || {
        let asked = listener.accept().unwrap();
        cancel.cancel();
        asked
    });
    let ran = job.run(&engine).await;
    server.join().unwrap();
    assert!(ran.outcome().aborted, "{:?}", ran.events);
}

#[tokio::test]
async fn archives_that_are_none_are_refused() {
    let Some(engine) = engine().await else { return };
    for (body, want) in [
        (b"<html>".to_vec(), "cannot be unpacked: it is no tar.gz"),
        (archive("")[..40].to_vec(), "cannot be unpacked"),
    ] {
        let address = serve(body);
        let ran = with_steps(SH, &format!("- me/greet \"{address}\"\n")).run(&engine).await;
        let EventKind::PipelineFinished { message: Some(message), .. } = ran.events.last().unwrap() else {
            panic!()
        };
        assert!(message.contains(want), "{message}");
        assert_eq!(ran.started(), 0);
    }
}

#[tokio::test]
async fn what_a_step_does_to_the_steps_directory_does_not_stop_a_script() {
    let Some(engine) = engine().await else { return };
    let mut yaml = scripts(SH, &["rm -rf /pipeline/steps/*"]);
    yaml.push_str(&script("next", "echo next"));
    yaml.push_str("    - create-file: {filename: made, content: x}\n");
    let ran = Job::new(yaml).run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!((ran.output(1), ran.output(2)), ("next\n".into(), "create-file: wrote made\nx\n".into()));
}
