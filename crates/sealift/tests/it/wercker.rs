//! The command line of the wercker CLI, as far as it needs no container.

use std::path::Path;
use std::process::{Command, Output};

use crate::host::sealift;

/// `wercker ARGS` in a directory.
pub(crate) fn wercker(dir: &Path, args: &[&str]) -> Command {
    let mut command = sealift();
    command.arg("wercker").args(args).current_dir(dir);
    command
}

/// Exit code, standard output and standard error.
pub(crate) fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    said(&wercker(dir, args).output().unwrap())
}

#[test]
fn a_link_of_that_name_is_that_program() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("wercker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sealift"), &link).unwrap();
    let output = Command::new(&link).args(["version", "--no-colors"]).output().unwrap();
    let (code, stdout, stderr) = said(&output);
    assert_eq!((code, stdout.as_str()), (0, ""));
    assert_eq!(stderr, format!("--> Version: {} (Sealift)\n", env!("CARGO_PKG_VERSION")));
    let (code, stdout, _) = said(&Command::new(&link).args(["-v"]).output().unwrap());
    assert!(code == 1 && stdout.is_empty(), "as for all it does not know");
    let (code, stdout, stderr) = run(dir.path(), &["v", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, stderr.as_str(), &value["version"]), (0, "", &env!("CARGO_PKG_VERSION").into()));
}

#[test]
fn what_is_gone_says_so_and_what_to_do_instead() {
    let dir = tempfile::tempdir().unwrap();
    for (args, instead) in [
        (&["login"][..], "no login is needed"),
        (&["logout"], "no login is needed"),
        (&["pull", "owner/name", "--branch", "x"], "sealift packages"),
        (&["runner", "start", "--token", "t"], "sealift dev"),
        (&["doc"], "docs/wercker-cli.md"),
        (&["docker", "ps", "-a"], "docker or podman"),
    ] {
        let (code, stdout, stderr) = run(dir.path(), args);
        assert_eq!((code, stdout.as_str()), (1, ""), "{args:?}");
        assert!(stderr.contains("FATAL the wercker service is gone") && stderr.contains(instead), "{stderr}");
    }
}

#[test]
fn lines_are_coloured_or_plain_or_json() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, stderr) = run(dir.path(), &["login"]);
    assert!(stderr.starts_with("\x1b[31mFATAL "), "{stderr:?}");
    let (_, _, stderr) = run(dir.path(), &["--no-colors", "login"]);
    assert!(stderr.starts_with("FATAL "), "{stderr:?}");
    let (_, _, stderr) = run(dir.path(), &["--log-json", "login"]);
    let value: serde_json::Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!(value["level"], "fatal");
    assert!(value["msg"].as_str().unwrap().starts_with("the wercker service is gone"), "{value}");
}

#[test]
fn flags_without_effect_warn_and_flags_that_matter_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(dir.path(), &["build", "--store-s3", "--no-colors"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("FATAL --store-s3 is not possible:"), "{stderr}");
    // There is no file, which is said after what was wrong with the flags.
    let (code, _, stderr) = run(dir.path(), &["--no-colors", "build", "-mnt-root", "/x", "--store-s3=false"]);
    assert_eq!(code, 1);
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines[0].starts_with("--> --mnt-root has no effect:"), "{stderr}");
    assert!(lines[1].starts_with("FATAL no configuration in"), "{stderr}");
    let (code, _, stderr) = run(dir.path(), &["build", "--no-such-flag"]);
    assert!(code == 1 && stderr.contains("--no-such-flag"), "{stderr}");
    let (code, _, stderr) = run(dir.path(), &["build", "https://example.com/a.git"]);
    assert!(code == 1 && stderr.contains("clone https://example.com/a.git"), "{stderr}");
}

#[test]
fn check_config_lists_what_is_there_and_shows_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wercker.yml");
    std::fs::write(&file, "box: a\nbuild:\n  steps: [npm-install]\n").unwrap();
    let (code, stdout, stderr) = run(dir.path(), &["--no-colors", "check-config"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert_eq!(stderr, "Found pipeline section: build\n  with box: a:latest\n");
    std::fs::write(&file, "box: a\nbuild:\n").unwrap();
    let (code, _, stderr) = run(dir.path(), &["--no-colors", "check-config"]);
    assert!(code == 1 && stderr.contains("wercker.yml:2:"), "{stderr}");
    assert!(stderr.lines().last().unwrap().starts_with("FATAL "), "{stderr}");
    let other = dir.path().join("other.yml");
    std::fs::write(&other, "box: a\ndeploy:\n  steps: [x]\n").unwrap();
    let (code, _, stderr) = run(dir.path(), &["check-config", "--wercker-yml", "other.yml"]);
    assert!(code == 0 && stderr.contains("Found pipeline section: deploy\n"), "{stderr}");
}

#[test]
fn detect_writes_a_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(dir.path(), &["--no-colors", "detect"]);
    assert!(code == 1 && stderr.contains("Gemfile"), "{stderr}");
    std::fs::write(dir.path().join("Gemfile"), "").unwrap();
    let (code, stdout, stderr) = run(dir.path(), &["--no-colors", "de"]);
    assert_eq!((code, stdout.as_str()), (0, ""));
    assert!(stderr.starts_with("--> Detected: ruby\n"), "{stderr}");
    let written = std::fs::read_to_string(dir.path().join("wercker.yml")).unwrap();
    assert!(written.contains("bundle install"), "{written}");
    let (code, _, _) = run(dir.path(), &["check-config"]);
    assert_eq!(code, 0);
    std::fs::write(dir.path().join("wercker.yml"), "mine").unwrap();
    let (code, _, stderr) = run(dir.path(), &["detect"]);
    assert!(code == 0 && stderr.contains("stays as it is"), "{stderr}");
    assert_eq!(std::fs::read_to_string(dir.path().join("wercker.yml")).unwrap(), "mine");
}

#[test]
fn a_step_is_checked_and_packed_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let step = dir.path().join("step");
    std::fs::create_dir_all(step.join("lib")).unwrap();
    std::fs::create_dir(step.join(".git")).unwrap();
    std::fs::write(step.join(".git/config"), "secret").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", step.join("link")).unwrap();
    std::fs::write(step.join("run.sh"), "echo hello\n").unwrap();
    std::fs::write(step.join("lib/a"), "a").unwrap();
    let publish = || run(dir.path(), &["--no-colors", "step", "publish", "step", "--owner", "me"]);
    for (manifest, wrong) in [
        ("version: 1.2.3\nsummary: s\n", "`name` is missing"),
        ("name: ../x\nversion: 1.2.3\nsummary: s\n", "`name` is missing or is not made of"),
        ("name: greet\nversion: '1.2'\nsummary: s\n", "it has to be like 1.2.3"),
        ("name: greet\nversion: 1.2.3\n", "`summary` is missing"),
    ] {
        std::fs::write(step.join("step.yml"), manifest).unwrap();
        let (code, stdout, stderr) = publish();
        assert!(code == 1 && stdout.is_empty() && stderr.contains(wrong), "{stderr}");
    }
    std::fs::write(step.join("step.yml"), "name: greet\nversion: 1.2.3\nsummary: Says hello\n").unwrap();
    let (code, stdout, stderr) = publish();
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    let file = dir.path().join("greet-1.2.3.tar.gz");
    let sum = Command::new("sha256sum").arg(&file).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap();
    let digest = sum.split(' ').next().unwrap();
    assert!(stderr.contains(&format!("--> sha256: {digest}\n")), "{stderr}");
    assert!(stderr.contains("- me/greet \"https://HOST/greet-1.2.3.tar.gz\""), "{stderr}");
    let list = Command::new("tar").arg("-tzf").arg(&file).output().unwrap().stdout;
    assert_eq!(String::from_utf8(list).unwrap(), "lib/a\nrun.sh\nstep.yml\n");
    let first = std::fs::read(&file).unwrap();
    std::fs::remove_file(step.join("lib/a")).unwrap();
    std::fs::write(step.join("lib/a"), "a").unwrap();
    assert_eq!(publish().0, 0);
    assert_eq!(std::fs::read(&file).unwrap(), first);
}

#[test]
fn check_config_says_of_the_edge_cases_what_that_cli_said() {
    let Some(corpus) = std::env::var_os("SEALIFT_CORPUS") else {
        println!("SKIPPED: set SEALIFT_CORPUS to the folder of the wercker corpus to run this test");
        return;
    };
    let text = std::fs::read_to_string(std::path::Path::new(&corpus).join("EDGE.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, case) in cases.as_object().unwrap() {
        let yaml = case["yaml"].as_str().unwrap();
        // Digests are an addition of ours.
        if yaml.contains("@sha256") {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("wercker.yml"), yaml).unwrap();
        let (code, stdout, stderr) = run(dir.path(), &["--no-colors", "check-config"]);
        let crashed = case["check_config_output"][0] == "(the reference crashes)";
        let want = if crashed { 1 } else { case["check_config_rc"].as_i64().unwrap() };
        assert_eq!((i64::from(code), stdout.as_str()), (want, ""), "{name}: {stderr}");
        // Of what it refused we say more: the line, and what to do.
        let lines = case["check_config_output"].as_array().unwrap().iter().filter_map(|line| line.as_str());
        let found: Vec<&str> =
            lines.filter(|line| line.contains("Found") || line.starts_with("  with")).collect();
        let ours: Vec<&str> = stderr.lines().take(found.len()).collect();
        assert_eq!(ours, found, "{name}");
    }
}
