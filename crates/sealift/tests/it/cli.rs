//! What the command line says, above all to people who got something wrong.

use std::process::Output;

use crate::host::{Dev, Project, sealift};

fn said(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn help_reads_like_a_tour() {
    let output = sealift().arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let tour = [
        "sealift run ",
        "sealift dev ",
        "sealift push ",
        "sealift status ",
        "sealift logs -f",
        "sealift rollback",
    ];
    let places: Vec<_> =
        tour.iter().map(|line| text.rfind(line).unwrap_or_else(|| panic!("{line}: {text}"))).collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = sealift().args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("rollback") && script.contains("state-dir"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(sealift().arg("man").arg(dir.path().join("man1")).status().unwrap().success());
    for page in ["sealift.1", "sealift-push.1", "sealift-dev.1"] {
        let text = std::fs::read_to_string(dir.path().join("man1").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}

#[test]
fn no_wercker_yml() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = said(&sealift().arg("run").arg(dir.path()).output().unwrap());
    assert_eq!(code, 4);
    assert!(text.contains("wercker.yml") && text.contains("help: write a wercker.yml"), "{text}");
}

#[test]
fn a_misspelt_key_is_shown_with_line_caret_and_the_nearest_known_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wercker.yml");
    std::fs::write(&file, "box: debian:12\nbuild:\n  stpes:\n    - script:\n        code: make\n").unwrap();
    let (code, text) = said(&sealift().arg("run").arg(dir.path()).output().unwrap());
    assert_eq!(code, 4, "{text}");
    assert!(text.contains(":3:3:"), "{text}");
    assert!(text.contains("  stpes:") && text.contains("^^^^^"), "{text}");
    assert!(text.contains("steps"), "{text}");
    let output = sealift().args(["run", "--output", "json"]).arg(dir.path()).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(value["error"]["diagnostics"][0]["line"], 3, "{value}");
}

#[test]
fn no_server() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = said(&sealift().arg("status").env("SEALIFT_STATE_DIR", dir.path()).output().unwrap());
    assert_eq!(code, 3);
    assert!(text.contains("api.sock") && text.contains("start one with: sealift dev"), "{text}");
}

#[test]
fn no_container_engine() {
    if ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"]
        .iter()
        .any(|socket| std::os::unix::net::UnixStream::connect(socket).is_ok())
    {
        eprintln!("SKIPPED: this machine's container engine always answers, so its lack cannot be shown");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("wercker.yml"),
        "box: a\nbuild:\n  steps:\n    - script:\n        code: \"true\"\n",
    )
    .unwrap();
    let output = sealift()
        .arg("run")
        .arg(dir.path())
        .env("PATH", dir.path())
        .env("XDG_CACHE_HOME", dir.path().join("cache"))
        .env_remove("DOCKER_HOST")
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap();
    let (code, text) = said(&output);
    assert_eq!(code, 4);
    assert!(text.contains("apt-get install podman"), "{text}");
}

#[test]
fn a_port_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let output = sealift()
        .args(["dev", "--listen", &address, "--state-dir"])
        .arg(dir.path().join("s"))
        .output()
        .unwrap();
    let (code, text) = said(&output);
    assert_eq!(code, 4);
    assert!(
        text.contains(&format!("port {} on 127.0.0.1 is taken", taken.local_addr().unwrap().port())),
        "{text}"
    );
    assert!(text.contains("--listen"), "{text}");
}

#[test]
fn only_loopback_is_listened_on() {
    let dir = tempfile::tempdir().unwrap();
    let output = sealift()
        .args(["dev", "--listen", "0.0.0.0:0", "--state-dir"])
        .arg(dir.path().join("s"))
        .output()
        .unwrap();
    let (code, text) = said(&output);
    assert!(code == 4 && text.contains("not a loopback address"), "{text}");
}

#[test]
fn a_state_directory_of_another_version() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("VERSION"), "7").unwrap();
    let output = sealift().args(["dev", "--listen", "none", "--state-dir"]).arg(dir.path()).output().unwrap();
    let (code, text) = said(&output);
    assert_eq!(code, 4);
    assert!(
        text.contains("another version") && text.contains("\"7\"") && text.contains("nothing was changed"),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn one_state_directory_has_one_server_and_tcp_wants_the_token() {
    let dev = Dev::start();
    let second = dev.run(&["dev", "--listen", "none"]);
    let (code, text) = said(&second);
    assert!(code == 4 && text.contains("another server or `sealift dev` uses"), "{text}");

    // A server of its own, since the first one listens on its socket alone.
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut child = sealift()
        .args(["dev", "--listen", "127.0.0.1:0", "--private-systemd", "--output", "json", "--state-dir"])
        .arg(&state)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = ready["address"].as_str().unwrap();
    let ask = |token: Option<&str>| {
        let mut command = sealift();
        command.args(["status", "--server", address, "--state-dir"]).arg(dir.path().join("elsewhere"));
        if let Some(token) = token {
            command.env("SEALIFT_TOKEN", token);
        }
        said(&command.output().unwrap())
    };
    let token = std::fs::read_to_string(state.join("token")).unwrap();
    assert_eq!(ask(Some(&token)).0, 0);
    for wrong in [None, Some(""), Some("wrong"), Some(&token[1..])] {
        let (code, text) = ask(wrong);
        assert!(code == 4 && text.contains("needs a token"), "{text}");
    }
    let down =
        sealift().args(["dev", "--down", "--private-systemd", "--state-dir"]).arg(&state).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_cannot_be_pushed_is_said_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    // No server is needed to be told.
    let push = |args: &[&str]| {
        let mut command = sealift();
        command.arg("push").args(args).env("SEALIFT_STATE_DIR", dir.path().join("none"));
        command.env("GIT_CEILING_DIRECTORIES", dir.path());
        said(&command.output().unwrap())
    };
    let plain = dir.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let (code, text) = push(&[plain.to_str().unwrap()]);
    assert!(code == 4 && text.contains("git init"), "{text}");

    let project = Project::new(dir.path());
    let (code, text) = push(&[project.path()]);
    assert!(code == 4 && text.contains("has no commit yet"), "{text}");

    project.commit("first");
    let (code, text) = push(&[project.path(), "--pipeline", "biuld"]);
    assert!(code == 4 && text.contains("no pipeline \"biuld\"; it has: build"), "{text}");

    project.git(&["checkout", "--quiet", "--detach"]);
    let (code, text) = push(&[project.path()]);
    assert!(code == 4 && text.contains("--branch"), "{text}");

    project.git(&["checkout", "--quiet", "main"]);
    project.write("wercker.yml", "box: a\nbuild:\n  stpes: []\n");
    project.commit("misspelt");
    let (code, text) = push(&[project.path()]);
    assert!(code == 4 && text.contains("wercker.yml:3:3") && text.contains("^^^^^"), "{text}");

    project.git(&["rm", "--quiet", "wercker.yml"]);
    project.commit("without");
    let (code, text) = push(&[project.path()]);
    assert!(code == 4 && text.contains("has no wercker.yml"), "{text}");
}

#[test]
fn a_full_disk_is_said_and_survived() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: a small disk can only be mounted by root");
        return;
    }
    let mut dev = Dev::start();
    dev.kill();
    // The state moves to a disk of 4 MB, of which a file takes nearly all.
    let small = dev.dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = |args: &[&str]| {
        let status = std::process::Command::new(args[0]).args(&args[1..]).arg(&small).status().unwrap();
        assert!(status.success(), "{args:?}");
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs"]);
    struct Unmount<'a>(&'a std::path::Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            std::process::Command::new("umount").arg("--lazy").arg(self.0).status().unwrap();
        }
    }
    let _unmount = Unmount(&small);
    let blobs = dev.state().join("blobs");
    std::fs::remove_dir_all(&blobs).unwrap();
    std::os::unix::fs::symlink(&small, &blobs).unwrap();
    dev.again();
    let project = Project::new(dev.dir.path());
    project.write("large", &"x".repeat(5 << 20));
    project.commit("too large");
    let (code, text) = said(&dev.run(&["push", project.path(), "--detach"]));
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("disk of the server"), "{text}");
    // Nothing half stored is left, and what fits is taken.
    assert_eq!(std::fs::read_dir(small.join("partial")).unwrap().count(), 0);
    std::fs::remove_file(project.dir.join("large")).unwrap();
    project.commit("small again");
    dev.ok(&["push", project.path(), "--detach"]);
    assert_eq!(dev.json(&["runs"])["items"].as_array().unwrap().len(), 1);
}

const NATIVE: &str = "sealift: 1\nbox: ruby:3.3\nservices: [redis]\ntest:\n  matrix: {RUBY: ['3.2', '3.3']}\n  timeout: 20m\n  steps:\n    - script:\n        name: rake\n        code: rake\n        retry: 1\ndeploy:\n  when: {branch: main}\n  approval: Really?\n  steps: [npm-install]\nworkflows:\n  - name: ci\n    stages: [test, deploy]\n";

#[test]
fn check_shows_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("wercker.yml"), NATIVE).unwrap();
    let output = sealift().arg("check").arg(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in [
        "box       ruby:3.3",
        "services  redis:latest",
        "pipeline test",
        "  matrix    RUBY=3.2",
        "    1. rake (script): 2 attempts",
        "workflow ci",
        "  test (RUBY=3.2)",
        "  deploy           after test; when branch main; approval Really?",
        "nothing is wrong",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
}

#[test]
fn check_shows_every_finding_and_strict_makes_errors_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("some.yml");
    std::fs::write(&file, "box: {id: a, tga: b}\nbuild:\n  steps: [npm-test]\n").unwrap();
    let check = |arguments: &[&str]| {
        let output = sealift().arg("check").arg(&file).args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = check(&[]);
    assert!(code == 0 && text.contains("some.yml:1:14: warning:") && text.contains("^^^"), "{text}");
    let (code, text) = check(&["--strict"]);
    assert!(
        code == 1 && text.contains("some.yml:1:14: error:") && text.contains("1 error, 0 warnings"),
        "{text}"
    );
    let (code, text) = check(&["--output", "json"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &value["box"]["id"], &value["warnings"][0]["column"]), (0, &"a".into(), &14.into()));
    std::fs::write(&file, "box: a\nbuild:\n").unwrap();
    let (code, text) = check(&["--output", "json"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &value["error"]), (1, &"pipeline build is empty".into()));
    assert_eq!(value["errors"][0]["line"], 2);
    let output = sealift().args(["run", "--strict"]).arg(dir.path()).output().unwrap();
    assert_eq!(said(&output).0, 4, "no file of a known name is there");
    std::fs::write(dir.path().join("wercker.yml"), "box: a\nbxo: a\nbuild:\n  steps: [a]\n").unwrap();
    let (code, text) = said(&sealift().args(["run", "--strict"]).arg(dir.path()).output().unwrap());
    assert!(code == 4 && text.contains(":2:1: error: unknown key `bxo`"), "{text}");
}

#[test]
fn check_prints_the_schema_that_is_shipped() {
    let output = sealift().args(["check", "--schema"]).output().unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/wercker.schema.json");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), std::fs::read_to_string(shipped).unwrap());
}

#[test]
fn import_writes_a_file_that_check_accepts_and_tells_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join(".gitlab-ci.yml"), dir.path().join("wercker.yml"));
    std::fs::write(&from, "image: debian:12\nunit:\n  tags: [big]\n  script: make test\n").unwrap();
    let import = || sealift().arg("import").arg(&from).arg("-o").arg(&to).output().unwrap();
    let (code, text) = said(&import());
    assert!(code == 0 && text.contains(":3:3: warning: job unit: `tags`"), "{text}");
    let made = std::fs::read_to_string(&to).unwrap();
    assert!(made.contains("#   3: job unit: `tags`") && made.contains("code: make test"), "{made}");
    assert!(sealift().args(["check", "--strict"]).arg(dir.path()).status().unwrap().success());
    // What is there already stays.
    let (code, text) = said(&import());
    assert!(code == 4 && text.contains("cannot make"), "{text}");
    std::fs::write(dir.path().join("x.yml"), "a: b\n").unwrap();
    let (code, text) = said(&sealift().arg("import").arg(dir.path().join("x.yml")).output().unwrap());
    assert!(code == 4 && text.contains("--from"), "{text}");
}

#[test]
fn a_dry_run_tells_what_would_be_done_and_needs_no_engine() {
    let dir = tempfile::tempdir().unwrap();
    let yml = "sealift: 1\nbox: ruby:$VERSION\nservices: [redis]\nbuild:\n  steps:\n    - script:\n        name: compile\n        code: make\n    - script:\n        name: release\n        when: {branch: main}\n        code: make release\n  after-steps: [notify]\nworkflows:\n  - name: ci\n    stages: [build]\n";
    std::fs::write(dir.path().join("wercker.yml"), yml).unwrap();
    let run = |args: &[&str]| {
        let mut command = sealift();
        command.args(["run", "--dry-run", "--env", "VERSION=3.3"]).args(args).arg(dir.path());
        command.env("PATH", "").env_remove("DOCKER_HOST").env("GIT_CEILING_DIRECTORIES", dir.path());
        let output = command.output().unwrap();
        (
            output.status.code().unwrap(),
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()),
        )
    };
    let (code, [text, error]) = run(&["--branch", "topic"]);
    assert_eq!(code, 0, "{error}");
    let want = "pipeline build\n  box       ruby:3.3\n  service   redis (redis:latest)\n    1. compile (script)\n    2. release (script): its `when` does not hold: branch topic, no tag\n    3. after-step notify\n";
    assert_eq!(text, want);
    let (_, [text, _]) = run(&["--branch", "main", "--from", "release"]);
    assert!(text.contains("1. compile (script): left out: the run begins at release\n"), "{text}");
    assert!(text.contains("2. release (script)\n"), "{text}");
    let (code, [_, error]) = run(&["--skip", "compil"]);
    assert!(code == 4 && error.contains("did you mean `compile`?"), "{error}");
    let (code, [text, _]) = run(&["--workflow", "ci", "--output", "json"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &value["pipelines"][0]["node"]), (0, &"build".into()));
    assert_eq!(value["pipelines"][0]["steps"][0]["skip"], serde_json::Value::Null);
}

#[test]
fn steps_of_our_own_are_listed_and_shown() {
    let output = sealift().arg("steps").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("slack-notifier ")), "{text}");
    let output = sealift().args(["steps", "slack-notifier"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("slack-notifier\n") && text.contains("url"), "{text}");
    let (code, text) = said(&sealift().args(["steps", "slack-notifer"]).output().unwrap());
    assert!(code == 4 && text.contains("did you mean slack-notifier?"), "{text}");
    let output = sealift().args(["steps", "--output", "json"]).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["items"].as_array().unwrap().len() > 10);
}
