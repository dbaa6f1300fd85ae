//! `sealift secret`, without a run.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::host::{Dev, Project, sealift};
use crate::screen::Screen;

/// Runs a command with this as its standard input.
pub(crate) fn with_input(mut command: Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // One that refuses its arguments does not read.
    child.stdin.take().unwrap().write_all(input).ok();
    child.wait_with_output().unwrap()
}

/// The value as the server has it.
fn kept(dev: &Dev, project: &str, name: &str) -> Option<String> {
    let text = std::fs::read(dev.state().join(format!("secrets/{project}.json"))).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    Some(json["secrets"][name]["value"].as_str()?.to_owned())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

#[test]
fn secrets_are_set_listed_and_removed_and_never_shown() {
    let dev = Dev::start();
    let project = Project::new(dev.dir.path());
    let here = |args: &[&str]| {
        let mut command = dev.command(args);
        command.current_dir(project.dir.join("units"));
        command
    };
    // The project is the repository around, as for a push; one newline at the end is the shell's.
    for (input, value) in [
        (&b"geheim\n"[..], "geheim"),
        (b"geheim\r\n", "geheim"),
        (b"geheim\n\n", "geheim\n"),
        (b" two\nlines", " two\nlines"),
    ] {
        let output = with_input(here(&["secret", "set", "TOKEN"]), input);
        assert!(output.status.success() && said(&output).contains("TOKEN is set for svc"), "{output:?}");
        assert!(!said(&output).contains("geheim"), "{output:?}");
        assert_eq!(kept(&dev, "svc", "TOKEN").as_deref(), Some(value));
    }
    // A file is taken as it is.
    let file = dev.dir.path().join("key");
    std::fs::write(&file, "geheim key\n").unwrap();
    let file = file.to_str().unwrap();
    dev.ok(&["secret", "set", "KEY", "--from-file", file, "--project", "other"]);
    assert_eq!(kept(&dev, "other", "KEY").as_deref(), Some("geheim key\n"));
    let output = with_input(here(&["secret", "set", "A", "--output", "json"]), b"a");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["name"] == "A" && json["changed_at"].is_u64() && json["value"].is_null(), "{json}");

    let output = here(&["secret", "list"]).output().unwrap();
    let text = said(&output);
    let names: Vec<_> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["SECRET", "A", "TOKEN"], "{text}");
    let json = dev.json(&["secret", "list", "--project", "other"]);
    assert_eq!(json["items"][0]["name"], "KEY");
    assert!(!text.contains("lines") && !json.to_string().contains("geheim"), "{text} {json}");

    let output = here(&["secret", "rm", "TOKEN"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(kept(&dev, "svc", "TOKEN"), None);
    let output = here(&["secret", "rm", "TOKEN"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(said(&output).contains("svc has no secret TOKEN"), "{output:?}");
}

#[test]
fn what_cannot_be_a_secret_is_said_without_it() {
    // All of this is said before a server is asked.
    let set = |args: &[&str], input: &[u8]| {
        let mut command = sealift();
        command.args(["--server", "unix:///nowhere", "secret", "set"]).args(args);
        let output = with_input(command, input);
        (output.status.code().unwrap(), said(&output))
    };
    let long = "geheim".repeat(20_000);
    for (input, why) in [
        (&b""[..], "is empty"),
        (b"\n", "is empty"),
        (long.as_bytes(), "more than 64 KiB"),
        (b"geheim\0", "NUL"),
        (b"geheim\xff", "base64"),
    ] {
        let (code, text) = set(&["A", "--project", "hello"], input);
        assert!(code == 4 && text.contains(why) && !text.contains("geheim"), "{why}: {text}");
    }
    let (code, text) = set(&["A-B", "--project", "hello"], b"geheim");
    assert!(code == 2 && text.contains("as a variable is named"), "{text}");
    // A value is no argument.
    assert_eq!(set(&["A", "geheim", "--project", "hello"], b"").0, 2);
    let (code, text) = set(&["A", "--project", "hello"], b"geheim");
    assert!(code == 3 && !text.contains("geheim"), "{text}");
    let outside = tempfile::tempdir().unwrap();
    let mut command = sealift();
    command.args(["secret", "list"]).current_dir(outside.path());
    let output = command.output().unwrap();
    assert!(output.status.code() == Some(4) && said(&output).contains("--project"), "{output:?}");
}

#[test]
fn on_a_terminal_a_secret_is_asked_for_and_not_shown() {
    let dev = Dev::start();
    let command = dev.command(&["secret", "set", "TOKEN", "--project", "hello"]);
    let mut screen = Screen::start(&command, 24, 80);
    screen.wait_for("TOKEN for hello: ");
    screen.write("geheim and more\n");
    let (status, text) = screen.end();
    assert!(
        status.success() && text.contains("\nTOKEN is set for hello") && !text.contains("geheim"),
        "{text}"
    );
    assert_eq!(kept(&dev, "hello", "TOKEN").as_deref(), Some("geheim and more"));

    // Ctrl-C changes nothing and gives the terminal back as it was.
    let shell = format!(
        "'{}' secret set TOKEN --project hello; echo \"code $?\"; stty -a; read line",
        env!("CARGO_BIN_EXE_sealift")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap : INT; {shell}")]).env("SEALIFT_STATE_DIR", dev.state());
    let mut screen = Screen::start(&command, 24, 80);
    screen.wait_for("TOKEN for hello: ");
    screen.write("geheim\u{3}");
    let text = screen.wait("the modes", |screen| screen.contents().contains("echoke"));
    assert!(text.contains("nothing was changed") && text.contains("code 4"), "{text}");
    assert!(text.contains(" echo ") && !text.contains("-echo ") && !text.contains("geheim"), "{text}");
    screen.write("\n");
    assert!(screen.end().0.success());
    assert_eq!(kept(&dev, "hello", "TOKEN").as_deref(), Some("geheim and more"));

    // What a terminal cuts off is no secret.
    let command = dev.command(&["secret", "set", "TOKEN", "--project", "hello"]);
    let mut screen = Screen::start(&command, 24, 80);
    screen.wait_for("TOKEN for hello: ");
    screen.write(&format!("{}\n", "x".repeat(5000)));
    let (status, text) = screen.end();
    assert!(status.code() == Some(4) && text.contains("--from-file"), "{text}");
    assert_eq!(kept(&dev, "hello", "TOKEN").as_deref(), Some("geheim and more"));
}
