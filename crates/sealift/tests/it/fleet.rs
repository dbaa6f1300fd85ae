//! fleet's command line as its documentation tells it. What both have is one script, run by the name `fleetctl` and as
//! `sealift unit` and `sealift machine`; what is fleetctl's alone (its columns and its lines) comes after.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::Dev;
use crate::wercker::said;

/// Nothing that holds comes near it.
const PATIENCE: Duration = Duration::from_secs(120);
const SLEEP: &str = "[Unit]\nDescription=Sleeps\n\n[Service]\nExecStart=/bin/sleep 1000000\n";

/// A host with a unit folder, and `fleetctl` on it.
struct Host {
    dev: Dev,
    fleetctl: PathBuf,
}

impl Host {
    fn start() -> Self {
        let dev = Dev::start();
        let fleetctl = dev.dir.path().join("fleetctl");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sealift"), &fleetctl).unwrap();
        std::fs::create_dir(dev.dir.path().join("units")).unwrap();
        let host = Self { dev, fleetctl };
        let begun = Instant::now();
        while host.ok(&["list-machines", "--no-legend"]).is_empty() {
            assert!(begun.elapsed() < PATIENCE, "no machine came");
            std::thread::sleep(Duration::from_millis(50));
        }
        host
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dev.dir.path().join("units").join(name), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.fleetctl);
        let variables = std::env::vars().filter(|(name, _)| name.starts_with("FLEETCTL_"));
        for (name, _) in variables {
            command.env_remove(name);
        }
        command.current_dir(self.dev.dir.path().join("units"));
        command.env("FLEETCTL_ENDPOINT", format!("unix://{}/api.sock", self.dev.state().display()));
        command
    }

    /// Exit code, standard output and standard error.
    fn fleetctl(&self, args: &[&str]) -> (i32, String, String) {
        said(&self.command().args(args).output().unwrap())
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.fleetctl(args);
        assert_eq!(code, 0, "fleetctl {args:?}: {stdout}\n{stderr}");
        stdout
    }

    fn unit(&self, name: &str) -> Option<Value> {
        let asking = async { self.dev.ask::<Value>(&format!("/fleet/v1/units/{name}")).await };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(asking)
    }

    /// What is wanted of a unit and what it is, as fleet's API tells it.
    fn states(&self, name: &str) -> Option<(String, String)> {
        let unit = self.unit(name)?;
        let text = |key: &str| unit[key].as_str().unwrap_or_default().to_owned();
        Some((text("desiredState"), text("currentState")))
    }
}

/// The same script, word for word, with the words of either command line in front.
#[test]
fn both_names_do_the_same() {
    let host = Host::start();
    let short =
        host.ok(&["list-machines", "--full", "--no-legend", "--fields=machine"]).trim()[..8].to_owned();
    for name in ["fleetctl", "sealift"] {
        host.write("a.service", SLEEP);
        host.write("t@.service", SLEEP);
        let run = |command: &str, units: &[&str]| {
            let output = match name {
                "fleetctl" => host.command().arg(command).args(units).output().unwrap(),
                _ => {
                    let mut words = host.dev.command(&["unit", command]);
                    words.args(units).current_dir(host.dev.dir.path().join("units")).output().unwrap()
                }
            };
            said(&output)
        };
        let (inactive, loaded, launched) = ("inactive", "loaded", "launched");
        for (command, unit, after) in [
            ("submit", "a.service", (inactive, inactive)),
            ("load", "a.service", (loaded, loaded)),
            ("start", "a.service", (launched, launched)),
            ("start", "a.service", (launched, launched)),
            ("restart", "a.service", (launched, launched)),
            ("stop", "a.service", (loaded, loaded)),
            ("start", "a.service", (launched, launched)),
            ("unload", "a.service", (inactive, inactive)),
            ("submit", "t@.service", (inactive, inactive)),
            ("start", "t@1.service", (launched, launched)),
        ] {
            let (code, stdout, stderr) = run(command, &[unit]);
            assert_eq!(code, 0, "{name} {command} {unit}: {stdout}\n{stderr}");
            let wanted = (after.0.to_owned(), after.1.to_owned());
            assert_eq!(host.states(unit), Some(wanted), "{name} {command} {unit}");
        }
        let (code, stdout, _) = run("cat", &["t@1.service"]);
        assert_eq!((code, stdout.as_str()), (0, SLEEP), "{name} cat");
        for (command, unit) in
            [("start", "t@.service"), ("start", "nowhere.service"), ("cat", "nowhere.service")]
        {
            let (code, _, stderr) = run(command, &[unit]);
            assert!(code != 0 && !stderr.is_empty(), "{name} {command} {unit}: {code}");
        }
        for unit in ["a.service", "t@1.service", "t@.service"] {
            let (code, stdout, stderr) = run("destroy", &[unit]);
            assert_eq!(code, 0, "{name} destroy {unit}: {stdout}\n{stderr}");
            assert_eq!(host.states(unit), None, "{name}");
        }
        let machines = match name {
            "fleetctl" => host.ok(&["list-machines"]),
            _ => host.dev.ok(&["machine", "list"]),
        };
        assert!(machines.contains(&short), "{name}: {machines}");
    }
}

#[test]
fn lines_and_columns_are_those_that_scripts_look_for() {
    let host = Host::start();
    assert_eq!(host.ok(&["list-units"]), "UNIT\tMACHINE\tACTIVE\tSUB\n");
    assert_eq!(host.ok(&["list-unit-files", "--no-legend"]), "");
    let machine = host.ok(&["list-machines", "-l", "--no-legend", "--fields=machine"]).trim().to_owned();
    assert_eq!(machine.len(), 32);
    let machines = host.ok(&["list-machines"]);
    assert!(machines.starts_with("MACHINE\t\tIP\t"), "{machines:?}");
    assert!(machines.lines().nth(1).unwrap().starts_with(&format!("{}...\t", &machine[..8])), "{machines:?}");
    let ip = host.ok(&["list-machines", "--no-legend", "--fields", "ip"]).trim().replace('-', "");
    let on =
        if ip.is_empty() { format!("{}...", &machine[..8]) } else { format!("{}.../{ip}", &machine[..8]) };

    host.write("hello.service", SLEEP);
    host.write("g.service", &format!("{SLEEP}\n[X-Fleet]\nGlobal=true\n"));
    // A name without its suffix, a path, and a unique beginning of a command.
    assert_eq!(host.ok(&["sub", "hello"]), "Unit hello.service inactive\n");
    assert_eq!(host.ok(&["load", "hello"]), format!("Unit hello.service loaded on {on}\n"));
    assert_eq!(host.ok(&["start", "./hello.service"]), format!("Unit hello.service launched on {on}\n"));
    assert_eq!(host.ok(&["start", "g"]), "Triggered global unit g.service start\n");
    assert_eq!(host.ok(&["start", "--no-block", "hello"]), "Triggered unit hello.service start\n");
    let hash = "798b697713434f72475021d05c49c649a44a8c83";
    let files =
        host.ok(&["list-unit-files", "--full", "--no-legend", "--fields=unit,hash,dstate,state,desc,global"]);
    let line = files.lines().find(|line| line.starts_with("hello")).unwrap();
    let cells: Vec<_> = line.split('\t').filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells, ["hello.service", hash, "launched", "launched", "Sleeps", "false"]);
    let files = host.ok(&["list-unit-files"]);
    let line = files.lines().find(|line| line.starts_with("g.service")).unwrap();
    let cells: Vec<_> = line.split('\t').filter(|cell| !cell.is_empty()).collect();
    assert_eq!((cells[2], cells[3], cells[4]), ("launched", "-", "global"));
    let units = host.ok(&["list-units", "--no-legend"]);
    let line = units.lines().find(|line| line.starts_with("hello")).unwrap();
    assert_eq!(
        line.split('\t').filter(|cell| !cell.is_empty()).collect::<Vec<_>>(),
        ["hello.service", &on, "active", "running"]
    );
    assert_eq!(host.ok(&["cat", "hello"]), SLEEP);

    // The machine itself is asked, and a private systemd has nothing to tell.
    for command in ["status", "journal"] {
        let (code, _, stderr) = host.fleetctl(&[command, "hello"]);
        assert!(code == 1 && stderr.contains("units of a private systemd have no journal"), "{stderr}");
    }

    // The registry's own text counts until somebody says otherwise.
    host.write("hello.service", &SLEEP.replace("Sleeps", "Sleeps on"));
    let (code, _, stderr) = host.fleetctl(&["start", "hello"]);
    assert_eq!(code, 0);
    assert!(stderr.contains("Unit hello.service in registry differs from local unit file"), "{stderr}");
    let (code, _, stderr) = host.fleetctl(&["load", "--replace", "hello"]);
    assert!(code == 1 && stderr.contains("cannot replace unit hello.service in state launched"), "{stderr}");
    host.ok(&["start", "--replace", "hello"]);
    assert!(host.ok(&["cat", "hello"]).contains("Sleeps on"));

    let (code, stdout, stderr) = host.fleetctl(&["stop", "hello"]);
    assert_eq!((code, stdout), (0, format!("Unit hello.service loaded on {on}\n")));
    assert_eq!(stderr, "Successfully stopped units [hello.service].\n");
    host.ok(&["unload", "hello"]);
    let (code, stdout, stderr) = host.fleetctl(&["stop", "hello"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("Unable to stop unit hello.service in state inactive\n"), "{stderr}");
    let (code, _, stderr) = host.fleetctl(&["journal", "g"]);
    assert!(code == 1 && stderr.contains("global unit g.service"), "{stderr}");
    assert_eq!(host.ok(&["destroy", "hello", "nowhere"]), "Destroyed hello.service\n");
    assert_eq!(host.ok(&["destroy", "g"]), "Destroyed g.service\n");
    assert_eq!(host.ok(&["list-units", "--no-legend"]), "");
    let version = format!("fleetctl version 1.0.0+sealift.{}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((host.ok(&["--version"]), host.ok(&["version"])), (version.clone(), version));
}

#[test]
fn what_cannot_be_is_said_and_ends_badly() {
    let host = Host::start();
    for (args, wanted) in [
        (&["bogus"][..], "unknown command \"bogus\" for \"fleetctl\""),
        (&["list-units", "--bogus"], "unknown flag: --bogus"),
        (&["start"], "no units were given"),
        (&["destroy"], "no units were given"),
        (&["list-units", "--fields=unit,bogus"], "Invalid key in output format: \"bogus\""),
        (&["start", "nowhere"], "unable to find Unit(nowhere.service) in Registry or on filesystem"),
        (&["stop", "nowhere"], "could not find Unit(nowhere.service)"),
        (&["--driver=etcd", "list-units"], "the etcd driver is gone"),
        (&["--endpoint=unix:///nowhere.sock", "list-units"], "/nowhere.sock"),
    ] {
        let (code, stdout, stderr) = host.fleetctl(args);
        assert_eq!((code, stdout.as_str()), (1, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(wanted), "{args:?}: {stderr}");
    }
    assert_eq!(host.fleetctl(&["verify", "x"]).0, 2);
    // One that cannot run holds up no other, says why, and ends the wait when its attempts are over.
    host.write("nowhere.service", &format!("{SLEEP}\n[X-Fleet]\nMachineMetadata=disk=none\n"));
    host.write("broken.service", "[Service]\nnonsense\n");
    host.write("good.service", SLEEP);
    let (code, stdout, stderr) = host.fleetctl(&["start", "--block-attempts=8", "nowhere", "broken", "good"]);
    assert_eq!(code, 1);
    assert!(stdout.starts_with("Unit good.service launched"), "{stdout}\n{stderr}");
    assert!(stderr.contains("Error creating units: broken.service:2:1"), "{stderr}");
    assert!(stderr.contains("Unit nowhere.service waits: "), "{stderr}");
    assert!(
        stderr.contains("timed out waiting for unit nowhere.service to report state launched"),
        "{stderr}"
    );
    // A unit that fails is told from one that runs; one that has done its work has started.
    host.write("once.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n");
    host.write("fails.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n");
    host.ok(&["start", "once"]);
    let (code, _, stderr) = host.fleetctl(&["start", "fails"]);
    assert!(code == 1 && stderr.contains("unit fails.service is failed"), "{stderr}");
    host.ok(&["destroy", "nowhere", "good", "once", "fails"]);
}

/// What the far side of `--tunnel` runs.
#[test]
fn a_socket_is_forwarded() {
    use std::io::{Read as _, Write as _};
    let host = Host::start();
    let socket = format!("{}/api.sock", host.dev.state().display());
    let mut command = host.command();
    command
        .args(["fd-forward", &socket])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"GET /fleet/v1/units HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"), "{answer}");
    assert!(child.wait().unwrap().success());
    drop(input);
}
