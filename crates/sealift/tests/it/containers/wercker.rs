//! The command line of the wercker CLI, with pipelines in containers.

use std::path::Path;

use crate::host::{BOX, with_box};
use crate::wercker::{said, wercker};

const YML: &str = "\
build:
  steps:
    - script:
        name: compile
        code: |
          echo made
          echo $GREETING > $WERCKER_OUTPUT_DIR/made
    - script:
        name: last
        code: test ! -e .wercker
  after-steps:
    - script:
        name: notify
        code: echo result $WERCKER_RESULT
fails:
  steps:
    - script:
        name: bad
        code: |
          echo \"no end of it\" > $WERCKER_REPORT_MESSAGE_FILE
          exit 3
deploy:
  steps:
    - script:
        name: show
        code: echo deploying $(cat made) by $DEPLOY
  staging:
    - script:
        name: stage
        code: echo staging $WERCKER_DEPLOYTARGET_NAME
dev:
  steps:
    - script:
        code: echo here > written
";

/// A directory with the file; none when tests of containers are to be left out.
fn project() -> Option<tempfile::TempDir> {
    if !with_box() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("wercker.yml"), format!("box: {BOX}\n{YML}")).unwrap();
    Some(dir)
}

/// Its lines, with each time as `0.00s`.
fn run(dir: &Path, args: &[&str]) -> (i32, Vec<String>) {
    let mut command = wercker(dir, args);
    command.env("XDG_CACHE_HOME", dir.join("../cache")).env("GIT_CEILING_DIRECTORIES", dir);
    let (code, stdout, stderr) = said(&command.env("X_GREETING", "hello").output().unwrap());
    assert_eq!(stdout, "", "{stderr}");
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((rest, time)) if time.ends_with('s') && time.trim_end_matches('s').parse::<f64>().is_ok() => {
            format!("{rest} 0.00s")
        }
        _ => line.to_owned(),
    };
    (code, stderr.lines().map(line).collect())
}

#[test]
fn a_build_that_passes() {
    let Some(dir) = project() else { return };
    let (code, lines) = run(dir.path(), &["--no-colors", "build"]);
    let want = [
        "--> Executing pipeline: build",
        "--> Running step: compile",
        "made",
        "--> Running step: last",
        "--> Steps passed: 0.00s",
        "--> Starting after-steps",
        "--> Running step: notify",
        "result passed",
        "--> After-step passed: notify 0.00s",
        "--> Pipeline finished: 0.00s",
    ];
    assert_eq!((code, lines), (0, want.map(str::to_owned).to_vec()));
    let (code, lines) = run(dir.path(), &["-verbose", "b"]);
    assert_eq!(code, 0);
    assert!(lines.iter().any(|line| line.starts_with("\x1b[32m--> Step passed: compile 0.")), "{lines:?}");
}

#[test]
fn a_build_that_fails() {
    let Some(dir) = project() else { return };
    let (code, lines) = run(dir.path(), &["--no-colors", "build", "--pipeline", "fails"]);
    let want = [
        "--> Executing pipeline: fails",
        "--> Running step: bad",
        "--> Step failed: bad no end of it 0.00s",
        "--> Pipeline failed: 0.00s",
        "FATAL Step failed: bad",
    ];
    assert_eq!((code, lines), (1, want.map(str::to_owned).to_vec()));
}

#[test]
fn a_deploy_takes_what_the_build_left() {
    let Some(dir) = project() else { return };
    let (code, lines) = run(dir.path(), &["--no-colors", "deploy"]);
    assert!(code == 1 && lines.concat().contains("wercker build --artifacts"), "{lines:?}");
    for _ in 0..3 {
        // What earlier builds left is no part of the source, which the pipeline itself looks at.
        let (code, lines) = run(dir.path(), &["--no-colors", "build", "--artifacts"]);
        assert_eq!(code, 0, "{lines:?}");
    }
    let builds = std::fs::read_dir(dir.path().join(".wercker/builds")).unwrap().count();
    assert_eq!(builds, 2);
    let (code, lines) = run(dir.path(), &["--no-colors", "deploy"]);
    assert!(code == 0 && lines.contains(&"deploying hello by true".to_owned()), "{lines:?}");
    let (code, lines) = run(dir.path(), &["--no-colors", "deploy", "--deploy-target", "staging"]);
    assert!(code == 0 && lines.contains(&"staging staging".to_owned()), "{lines:?}");
}

#[test]
fn dev_works_on_the_directory_itself() {
    let Some(dir) = project() else { return };
    let (code, lines) = run(dir.path(), &["dev"]);
    assert_eq!(code, 0, "{lines:?}");
    assert_eq!(std::fs::read_to_string(dir.path().join("written")).unwrap(), "here\n");
}
