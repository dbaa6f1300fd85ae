//! `sealift run`, as a person uses it at a keyboard and as a script uses it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::host::{BOX, sealift, with_box};
use crate::screen::Screen;

/// A project's directory and a cache of its own.
struct Here {
    dir: TempDir,
}

impl Here {
    /// None when tests of containers are to be left out.
    fn new(yml: &str) -> Option<Here> {
        if !with_box() {
            return None;
        }
        let here = Here { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(here.project()).unwrap();
        here.write("wercker.yml", &format!("box: {BOX}\n{yml}"));
        Some(here)
    }

    fn project(&self) -> PathBuf {
        self.dir.path().join("project")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.project().join(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = sealift();
        command.arg("run").args(args).current_dir(self.project()).env("XDG_CACHE_HOME", self.cache());
        command.env("GIT_CEILING_DIRECTORIES", self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        said(&self.command(args).output().unwrap())
    }

    /// Directories of runs that are in the cache.
    fn runs(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.cache().join("sealift/runs")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    /// Containers and networks of runs with a directory in `runs`.
    fn left(runs: &[PathBuf]) -> String {
        let mut left = String::new();
        for run in runs {
            let label =
                format!("label=dev.sealift.owner=local-{}", run.file_name().unwrap().to_str().unwrap());
            left.push_str(&engine(&["ps", "--all", "--quiet", "--filter", &label]));
            left.push_str(&engine(&["network", "ls", "--quiet", "--filter", &label]));
        }
        left
    }
}

fn said(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn engine(args: &[&str]) -> String {
    let docker = Command::new("docker").arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let engine = if docker.is_ok_and(|status| status.success()) { "docker" } else { "podman" };
    String::from_utf8(Command::new(engine).args(args).output().unwrap().stdout).unwrap()
}

/// Waits until a step has told that it runs, by a line of output.
fn wait_for_line(child: &mut std::process::Child, wanted: &str) {
    use std::io::BufRead as _;
    let lines = std::io::BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.contains(wanted)), "{wanted}");
}

const FAILS: &str = "\
build:
  steps:
    - script:
        name: compile
        code: echo made
    - script:
        name: unit tests
        code: |
          for n in $(seq 1 30); do echo line $n; done
          exit 7
    - script:
        name: pack
        code: echo never
  after-steps:
    - script:
        name: tell
        code: echo $WERCKER_RESULT
";

const HANGS: &str = "\
build:
  steps:
    - script:
        name: hang
        code: |
          echo hanging
          sleep 1000
";

#[test]
fn the_screen_ends_with_a_summary_of_what_failed_and_how_to_run_it_again() {
    let Some(here) = Here::new(FAILS) else { return };
    let (status, text) = Screen::start(&here.command(&["--env", "A=b c"]), 50, 90).end();
    assert_eq!(status.code(), Some(1), "{text}");
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    let place = |wanted: &str| {
        lines.iter().position(|line| line.contains(wanted)).unwrap_or_else(|| panic!("{wanted}:\n{text}"))
    };
    let order = [
        place("compile"),
        place("unit tests (exit code 7)"),
        place("the last 20 of its 30 lines:"),
        place("| line 11"),
        place("| line 30"),
        place("not run             pack"),
        place("after-step tell"),
        place("pipeline build failed after"),
        place("sealift run --env 'A=b c' --from 'unit tests'"),
        place("sealift run --env 'A=b c' --shell-on-failure"),
    ];
    assert!(order.is_sorted(), "{text}");
    assert!(!text.contains("| line 10\n") && !text.contains("| made"), "{text}");
    // The live view has left nothing behind.
    assert!(!text.contains("runs  "), "{text}");
    assert!(here.runs().is_empty());
}

#[test]
fn the_screen_shows_what_goes_on_at_any_size_and_ctrl_c_ends_it() {
    let Some(here) = Here::new(HANGS) else { return };
    let mut screen = Screen::start(&here.command(&[]), 24, 80);
    let text = screen.wait("the step", |screen| {
        let text = screen.contents();
        text.contains("  runs ") && text.contains("hang") && text.contains("| hanging")
    });
    assert!(text.contains(&format!("pipeline build in box {BOX}")), "{text}");
    let before = here.runs();
    assert_eq!(before.len(), 1);
    // Narrow: lines are cut, and nothing of the wide view stays.
    screen.resize(24, 30);
    let text = screen.wait("a narrow view", |screen| {
        let text = screen.contents();
        text.contains("pipeline build in box") && text.contains('…') && text.contains("| hanging")
    });
    assert_eq!(text.matches("pipeline build").count(), 1, "{text}");
    // Low: what runs is still there.
    screen.resize(5, 80);
    let text = screen.wait("a low view", |screen| {
        screen.contents().contains("  runs ") && screen.contents().contains("| hanging")
    });
    assert!(text.lines().count() <= 5, "{text}");
    screen.resize(24, 80);
    screen.wait("a wide view", |screen| !screen.contents().contains('…'));
    screen.write("\x03");
    let (status, text) = screen.end();
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("aborted") && text.contains("hang"), "{text}");
    assert_eq!(Here::left(&before), "");
    assert!(here.runs().is_empty());
}

#[test]
fn frames_are_whole_and_not_too_many() {
    let Some(here) = Here::new(
        "build:\n  steps:\n    - script:\n        name: noise\n        code: for n in $(seq 1 3000); do echo line $n; done\n",
    ) else {
        return;
    };
    let began = std::time::Instant::now();
    let screen = Screen::start(&here.command(&[]), 24, 80);
    screen.wait_for("pipeline build passed");
    let most = began.elapsed().as_millis() / 100 + 2;
    let bytes = screen.bytes();
    let count = |wanted: &[u8]| bytes.windows(wanted.len()).filter(|window| *window == wanted).count();
    // Each is told to the terminal as one, and the noise of a step is not what decides on their number.
    assert_eq!(count(b"\x1b[?2026h"), count(b"\x1b[?2026l"));
    assert!(count(b"\x1b[?2026h") as u128 <= most, "{}", count(b"\x1b[?2026h"));
    let (status, text) = screen.end();
    assert!(status.success(), "{text}");
}

#[test]
fn plain_lines_for_pipes_and_for_those_who_ask() {
    let Some(here) = Here::new(FAILS) else { return };
    let (code, text) = here.run(&[]);
    assert_eq!(code, 1, "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    for line in
        ["> step: compile", "| made", "| line 1", "| line 30", "| failed", "sealift run --from 'unit tests'"]
    {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let (status, text) = Screen::start(&here.command(&["--plain"]), 80, 90).end();
    assert_eq!(status.code(), Some(1));
    assert!(text.contains("| line 1\n") && text.contains("> step: compile"), "{text}");
}

#[test]
fn variables_facts_and_secrets_reach_the_steps() {
    let Some(here) = Here::new(
        "build:\n  steps:\n    - script:\n        code: |\n          echo \"a=$A b=$B file=$FROM_FILE secret=$TOKEN,$KEY,$NPM home=$HOST_ONLY\"\n          echo \"git=$WERCKER_GIT_DOMAIN/$WERCKER_GIT_OWNER/$WERCKER_GIT_REPOSITORY@$WERCKER_GIT_BRANCH:$WERCKER_GIT_TAG:$WERCKER_GIT_COMMIT\"\n          echo \"deploy=$DEPLOY build=$BUILD target=$WERCKER_DEPLOYTARGET_NAME\"\n",
    ) else {
        return;
    };
    here.write("ENVIRONMENT", "X_FROM_FILE=yes\n");
    std::fs::write(here.dir.path().join("secrets"), "KEY=key-of-the-file\n").unwrap();
    let git = |args: &[&str]| {
        let status = Command::new("git").arg("-C").arg(here.project()).args(args).status().unwrap();
        assert!(status.success());
    };
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["remote", "add", "origin", "https://me:passw0rd-of-git@example.com/owner/name.git"]);
    let output = here
        .command(&["--env", "A=1", "--secret", "NPM", "--secrets-file", "../secrets", "--branch", "topic"])
        .args(["--tag", "v1", "--deploy-target", "staging"])
        .envs([
            ("X_B", "2"),
            ("XXX_TOKEN", "token-of-the-host"),
            ("NPM", "npm-of-the-host"),
            ("HOST_ONLY", "no"),
        ])
        .output()
        .unwrap();
    let (code, text) = said(&output);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("a=1 b=2 file=yes secret=***,***,*** home=\n"), "{text}");
    assert!(text.contains("git=example.com/owner/name@topic:v1:\n"), "{text}");
    assert!(text.contains("deploy=true build= target=staging\n"), "{text}");
    for secret in ["token-of-the-host", "npm-of-the-host", "key-of-the-file", "passw0rd-of-git"] {
        assert!(!text.contains(secret), "{secret}\n{text}");
    }
}

#[test]
fn sigterm_ends_a_run_and_leaves_nothing() {
    let Some(here) = Here::new(HANGS) else { return };
    let mut child = here.command(&[]).stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut child, "| hanging");
    let runs = here.runs();
    assert_ne!(Here::left(&runs), "", "the test sees what there is");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(Here::left(&runs), "");
    assert!(here.runs().is_empty());
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next_one_and_what_runs_is_left_alone() {
    let Some(here) = Here::new(HANGS) else { return };
    let start = || {
        let mut child = here.command(&[]).stdout(Stdio::piped()).spawn().unwrap();
        wait_for_line(&mut child, "| hanging");
        child
    };
    let mut killed = start();
    let dead = here.runs();
    let mut lives = start();
    let alive: Vec<PathBuf> = here.runs().into_iter().filter(|path| !dead.contains(path)).collect();
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().signal(), Some(9));
    assert!(dead.iter().all(|path| path.is_dir()));
    assert_ne!(Here::left(&dead), "");
    here.write(
        "wercker.yml",
        &format!("box: {BOX}\nbuild:\n  steps:\n    - script:\n        code: echo fine\n"),
    );
    let (code, text) = here.run(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("removed what a run left that was killed"), "{text}");
    assert_eq!(Here::left(&dead), "");
    assert_ne!(Here::left(&alive), "");
    assert_eq!(here.runs(), alive);
    let pid = rustix::process::Pid::from_child(&lives);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(lives.wait().unwrap().code(), Some(130));
    assert!(here.runs().is_empty() && Here::left(&alive).is_empty());
}

#[test]
fn a_second_signal_ends_a_run_at_once_and_still_leaves_nothing() {
    let Some(here) = Here::new(HANGS) else { return };
    let mut child = here.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut child, "| hanging");
    let runs = here.runs();
    let pid = rustix::process::Pid::from_child(&child);
    for _ in 0..2 {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(Here::left(&runs), "", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(here.runs().is_empty());
}

#[test]
fn artifacts_of_a_passed_run_are_copied() {
    let Some(here) = Here::new(
        "build:\n  steps:\n    - script:\n        code: cd $WERCKER_OUTPUT_DIR; mkfifo pipe; ln -s file link; echo made > file\n",
    ) else {
        return;
    };
    let out = here.dir.path().join("out");
    let (code, text) = here.run(&["--artifacts", "../out"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(std::fs::read_to_string(out.join("link")).unwrap(), "made\n");
    // Nobody waits for one who writes to it.
    assert!(out.join("pipe").symlink_metadata().is_err());
    let (code, text) = here.run(&["--artifacts", "../out"]);
    assert!(code == 4 && text.contains("is there already"), "{text}");
    assert!(Path::new(&out).is_dir());
}

#[test]
fn artifacts_in_the_project_do_not_hold_themselves() {
    // Nothing is put into the output directory, so the source is the output.
    let Some(here) = Here::new("build:\n  steps:\n    - script:\n        code: echo made > new\n") else {
        return;
    };
    for to in ["out", "deep/er/out"] {
        let (code, text) = here.run(&["--artifacts", to]);
        assert_eq!(code, 0, "{text}");
        let out = here.project().join(to);
        let mut names: Vec<_> = std::fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert!(names.contains(&"new".to_owned()) && names.contains(&"wercker.yml".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("deep") || name.ends_with(".part")), "{names:?}");
        assert!(out.join("out").symlink_metadata().is_err() || to != "out");
    }
}

const WORKFLOW: &str = "\
sealift: 1
test:
  matrix: {N: ['1', '2']}
  steps:
    - script:
        name: check
        code: echo testing $N
deploy:
  approval: Really to production?
  steps:
    - script:
        name: ship
        code: echo shipped
workflows:
  - name: ci
    stages: [test, deploy]
";

impl Here {
    fn with_workflow() -> Option<Here> {
        let here = Here::new("")?;
        let (version, rest) = WORKFLOW.split_once('\n').unwrap();
        here.write("wercker.yml", &format!("{version}\nbox: {BOX}\n{rest}"));
        Some(here)
    }
}

#[test]
fn a_workflow_asks_at_the_terminal_and_goes_on() {
    let Some(here) = Here::with_workflow() else { return };
    for (answer, code, end) in [("y\n", 0, "workflow ci passed"), ("\n", 1, "workflow ci failed")] {
        let mut screen = Screen::start(&here.command(&["--workflow", "ci"]), 40, 100);
        screen.wait_for("deploy: Really to production? [y/N]");
        screen.write("maybe\n");
        // What has ended is there to be read meanwhile.
        let shown = screen.wait_for("please answer yes or no\ndeploy: Really to production? [y/N]");
        assert!(shown.contains("passed") && shown.contains("test (N=2)"), "{shown}");
        screen.write(answer);
        let (status, text) = screen.end();
        assert_eq!(status.code(), Some(code), "{text}");
        assert!(text.contains(end) && text.contains("test (N=1)") && text.contains("test (N=2)"), "{text}");
        assert!(here.runs().is_empty());
    }
}

#[test]
fn a_workflow_without_a_terminal() {
    let Some(here) = Here::with_workflow() else { return };
    let (code, text) = here.run(&["--workflow", "ci"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("[test (N=1)] | testing 1\n") && text.contains("[test (N=2)] | testing 2\n"),
        "{text}"
    );
    assert!(text.contains("--yes agrees to everything") && !text.contains("shipped"), "{text}");
    let (code, text) = here.run(&["--workflow", "ci", "--yes"]);
    assert!(code == 0 && text.contains("[deploy] | shipped"), "{text}");
    let (code, text) = here.run(&["--workflow", "ci", "--yes", "--output", "json"]);
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(code, 0);
    assert_eq!(events[0]["event"], "workflow-started");
    assert_eq!(events.last().unwrap()["event"], "workflow-finished");
    let numbers = events.iter().map(|event| event["seq"].as_u64().unwrap());
    assert!(numbers.eq(0..events.len() as u64), "{text}");
    assert!(events.iter().any(|event| event["node"] == "deploy" && event["text"] == "shipped"), "{text}");
    let (code, text) = here.run(&["--workflow", "no"]);
    assert!(code == 4 && text.contains("no workflow \"no\"; it has: ci"), "{text}");
}

#[test]
fn a_person_can_look_around_where_a_step_failed() {
    let Some(here) = Here::new(
        "build:\n  steps:\n    - script:\n        name: first\n        code: export KEY=val-$((40 + 2))\n    - script:\n        name: second\n        code: |\n          echo left > trace\n          echo last words\n          exit 5\n",
    ) else {
        return;
    };
    let mut screen = Screen::start(&here.command(&["--shell-on-failure"]), 40, 100);
    // The prompt of the box's shell.
    screen.wait("a prompt", |screen| screen.contents().trim_end().ends_with(['#', '$']));
    let shown = screen.wait_for("here is a shell in its box");
    assert!(shown.contains("second (exit code 5)") && shown.contains("| last words"), "{shown}");
    screen.write("echo \"found $KEY $(cat trace) $(pwd)\"; stty size\n");
    screen.wait_for("found val-42 left /pipeline/source");
    screen.wait_for("40 100");
    let runs = here.runs();
    assert_ne!(Here::left(&runs), "");
    screen.write("exit\n");
    let (status, text) = screen.end();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("second (exit code 5)"), "{text}");
    assert_eq!(Here::left(&runs), "");
    let (code, text) = here.run(&["--shell-on-failure"]);
    assert!(code == 4 && text.contains("needs a terminal"), "{text}");
}

#[test]
fn a_change_runs_it_again() {
    let Some(here) = Here::new("build:\n  steps:\n    - script:\n        code: cat greeting\n") else {
        return;
    };
    here.write("greeting", "first words\n");
    let mut child = here.command(&["--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut wait = |wanted: &str| {
        assert!(lines.by_ref().map(Result::unwrap).any(|line| line.contains(wanted)), "{wanted}");
    };
    wait("| first words");
    wait("waiting for a change");
    here.write("greeting", "second words\n");
    wait("greeting has changed");
    wait("| second words");
    wait("waiting for a change");
    // A file that cannot be used is said, and mended by the next change.
    here.write("wercker.yml", "box: a\nbuild:\n");
    wait("wercker.yml has changed");
    wait("waiting for a change");
    here.write(
        "wercker.yml",
        &format!("box: {BOX}\nbuild:\n  steps:\n    - script:\n        code: echo third; sleep 1000\n"),
    );
    wait("| third");
    // A change ends what is under way.
    here.write(
        "wercker.yml",
        &format!("box: {BOX}\nbuild:\n  steps:\n    - script:\n        code: echo fourth\n"),
    );
    wait("| fourth");
    wait("waiting for a change");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(here.runs().is_empty());
}

#[test]
fn events_tell_what_is_odd_about_the_file_and_wrong_names_begin_nothing() {
    let Some(here) = Here::new(
        "bogus: 3\nbuild:\n  steps:\n    - script:\n        code: echo one\n    - script:\n        code: exit 3\n",
    ) else {
        return;
    };
    let (code, text) = here.run(&["--output", "json"]);
    assert!(code == 1 && text.contains("\"event\":\"warning\"") && text.contains("bogus"), "{text}");
    // Two steps have the same name, so the hint has the number; what the run is allowed stays so.
    let (code, text) = here.run(&["--expose-ports", "--no-cache", "--branch", "x"]);
    let hint = "sealift run --branch x --no-cache --expose-ports --from 2";
    assert!(code == 1 && text.contains("in box") && text.contains("2 steps"), "{text}");
    assert!(text.lines().any(|line| line.ends_with(hint)), "{text}");
    for (args, said) in [
        (&["--only", "no"][..], "there is no step"),
        (&["--only", "1", "--from", "2"], "nothing is left to run"),
    ] {
        let (code, text) = here.run(args);
        assert!(code == 4 && text.contains(said) && !text.contains("in box"), "{text}");
    }
    let (code, text) = here.run(&["--from", "2"]);
    assert!(code == 1 && text.contains("done by the run that failed"), "{text}");
}

#[test]
fn an_interrupt_ends_a_watch_and_the_run_goes_on() {
    let Some(here) = Here::new(
        "build:\n  steps:\n    - internal/watch:\n        code: echo watching; sleep 1000\n    - script:\n        code: echo went on; sleep 1000\n",
    ) else {
        return;
    };
    let mut child = here.command(&[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let pid = rustix::process::Pid::from_child(&child);
    for wanted in ["| watching", "| went on"] {
        assert!(lines.by_ref().map(Result::unwrap).any(|line| line.contains(wanted)), "{wanted}");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(here.runs().is_empty());
}

#[test]
fn a_cache_is_there_in_the_next_run_unless_it_is_not_wanted() {
    let Some(here) = Here::new(
        "build:\n  steps:\n    - script:\n        code: |\n          echo \"found $(cat $WERCKER_CACHE_DIR/kept || echo nothing)\"\n          echo something > $WERCKER_CACHE_DIR/kept\n",
    ) else {
        return;
    };
    for (args, found) in [(&[][..], "nothing"), (&[], "something"), (&["--no-cache"], "nothing")] {
        let (code, text) = here.run(args);
        assert!(code == 0 && text.contains(&format!("found {found}")), "{found}\n{text}");
    }
}

#[test]
fn a_run_begins_where_it_is_told_to_and_leaves_out_what_it_is_told_to() {
    let Some(here) = Here::new(
        "build:\n  steps:\n    - script: {name: one, code: echo first}\n    - script: {name: two, code: echo second}\n    - script: {name: three, code: echo third}\n",
    ) else {
        return;
    };
    for (args, ran) in [
        (&["--from", "two"][..], &["second", "third"][..]),
        (&["--only", "one", "--only", "3"], &["first", "third"]),
        (&["--skip", "two"], &["first", "third"]),
    ] {
        let (code, text) = here.run(args);
        assert_eq!(code, 0, "{text}");
        for word in ["first", "second", "third"] {
            assert_eq!(text.contains(&format!("| {word}\n")), ran.contains(&word), "{args:?} {word}\n{text}");
        }
    }
    let (code, text) = here.run(&["--from", "tow"]);
    assert!(code == 4 && text.contains("did you mean `two`?"), "{text}");
}
