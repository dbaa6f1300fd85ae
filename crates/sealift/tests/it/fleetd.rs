//! fleet's daemon: set up by fleet.conf over a real etcd, on sockets that are passed as systemd passes them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::host::sealift;
use crate::wercker::said;

/// Nothing that holds comes near it.
const PATIENCE: Duration = Duration::from_secs(120);
const SLEEP: &str = "[Service]\nExecStart=/bin/sleep 1000000\n";

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Host {
    dir: TempDir,
    etcd: Child,
    url: String,
    fleetd: Option<Child>,
    port: u16,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["fleetd", "fleetctl"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sealift"), dir.path().join(name)).unwrap();
        }
        let (url, peer) =
            (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
        let etcd = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--data-dir"])
            .arg(dir.path().join("etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is not there: scripts/install-deps test");
        Self { dir, etcd, url, fleetd: None, port: free_port() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, more: &str) {
        let text = format!(
            "# as on any host of fleet\netcd_servers=[\"{}\"]\npublic_ip=\"10.9.8.7\"\n{more}",
            self.url
        );
        std::fs::write(self.path("fleet.conf"), text).unwrap();
    }

    /// Started by the first that comes to its sockets, as by systemd.
    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        std::fs::remove_file(self.path("fleet.sock")).ok();
        let child = Command::new("systemd-socket-activate")
            .arg("-l")
            .arg(self.path("fleet.sock"))
            .args(["-l", &format!("127.0.0.1:{}", self.port), "-E", "SEALIFT_STATE_DIR"])
            .arg(self.path("fleetd"))
            .arg("-config")
            .arg(self.path("fleet.conf"))
            .env("SEALIFT_STATE_DIR", self.path("state"))
            .stdout(std::fs::File::options().create(true).append(true).open(self.path("out")).unwrap())
            .stderr(log)
            .spawn()
            .expect("systemd-socket-activate is not there: scripts/install-deps test");
        self.fleetd = Some(child);
        let socket = self.path("fleet.sock");
        eventually("the socket", || socket.try_exists().unwrap().then_some(()));
    }

    fn signal(&self, signal: Signal) {
        let child = self.fleetd.as_ref().unwrap();
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert!(self.fleetd.take().unwrap().wait().unwrap().success(), "{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn fleetctl(&self, args: &[&str]) -> (i32, String, String) {
        let endpoint = format!("unix://{}", self.path("fleet.sock").display());
        let mut command = Command::new(self.path("fleetctl"));
        said(
            &command
                .args(["--endpoint", &endpoint])
                .args(args)
                .current_dir(self.dir.path())
                .output()
                .unwrap(),
        )
    }

    fn ok(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.fleetctl(args);
        assert_eq!(code, 0, "fleetctl {args:?}: {stdout}\n{stderr}\n{}", self.log());
        stdout
    }

    /// Waits until the machine is there with this metadata.
    fn machine(&self, metadata: &str) {
        eventually(&format!("a machine with {metadata}; {}", self.log()), || {
            let (_, stdout, _) = self.fleetctl(&["list-machines", "--no-legend", "--fields=ip,metadata"]);
            (stdout == format!("10.9.8.7\t{metadata}\n")).then_some(())
        });
    }

    /// The process of a unit, as `fleetd` tells its state.
    fn pid(&self, unit: &str) -> u64 {
        let told = || std::fs::read_to_string(self.path("out")).unwrap().lines().count();
        let before = told();
        self.signal(Signal::USR1);
        eventually("the state", || (told() > before).then_some(()));
        let text = std::fs::read_to_string(self.path("out")).unwrap();
        let state: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let unit =
            state["units"]["items"].as_array().unwrap().iter().find(|view| view["name"] == unit).unwrap();
        unit["statuses"].as_object().unwrap().values().next().unwrap()["main_pid"].as_u64().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.fleetd.take() {
            child.kill().ok();
            child.wait().ok();
        }
        sealift()
            .args(["dev", "--down", "--private-systemd", "--state-dir"])
            .arg(self.path("state"))
            .output()
            .unwrap();
        self.etcd.kill().ok();
        self.etcd.wait().ok();
    }
}

fn runs(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).try_exists().unwrap()
}

#[test]
fn a_host_of_fleet_goes_on_with_sealift() {
    if std::env::var("SEALIFT_SKIP").is_ok_and(|skip| skip.split(',').any(|part| part == "etcd")) {
        return;
    }
    let mut host = Host::new();
    host.configure("metadata=zone=a,disk=ssd\nagent_ttl=5s\nenable_grpc=true\n");
    host.start();
    // The first question starts it, and is answered when it is up.
    host.machine("disk=ssd,zone=a");
    std::fs::write(host.path("a.service"), SLEEP).unwrap();
    let own = std::fs::read_to_string("/etc/machine-id").unwrap();
    let started = host.ok(&["start", "a"]);
    assert_eq!(started, format!("Unit a.service launched on {}.../10.9.8.7\n", &own[..8]));
    let pid = host.pid("a.service");
    assert!(runs(pid) && host.log().contains("enable_grpc"), "{}", host.log());

    // A configuration that cannot be read changes nothing; one that can is taken without a word to units.
    host.configure("bogus=1\n");
    host.signal(Signal::HUP);
    eventually("a refusal", || {
        host.log()
            .contains("no key \\\"bogus\\\"")
            .then_some(())
            .or_else(|| host.log().contains("bogus").then_some(()))
    });
    host.machine("disk=ssd,zone=a");
    host.configure("metadata=zone=b\nagent_ttl=5s\n");
    host.signal(Signal::HUP);
    host.machine("zone=b");
    assert_eq!(host.pid("a.service"), pid);

    // fleet stopped all units when it was stopped.
    host.stop();
    assert!(runs(pid));
    host.start();
    host.machine("zone=b");
    assert_eq!(host.pid("a.service"), pid);

    // Over TCP, where fleet let in anybody, it takes the token.
    let endpoint = format!("--endpoint=http://127.0.0.1:{}", host.port);
    let mut command = Command::new(host.path("fleetctl"));
    command.args([&endpoint, "list-machines"]).env("SEALIFT_STATE_DIR", host.path("nowhere"));
    let (code, _, stderr) = said(&command.output().unwrap());
    assert_eq!(code, 1, "{stderr}");
    let token = std::fs::read_to_string(host.path("state/token")).unwrap();
    let (code, stdout, stderr) = said(&command.env("SEALIFT_TOKEN", token.trim()).output().unwrap());
    assert!(code == 0 && stdout.contains("zone=b"), "{stdout} {stderr}");

    // Nothing of it is below fleet's own keys.
    let keys = Command::new("etcdctl")
        .args(["--endpoints", &host.url, "get", "", "--prefix", "--keys-only"])
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    let keys = String::from_utf8(keys.stdout).unwrap();
    let keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).collect();
    assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with("/_coreos.com/sealift/")), "{keys:?}");
    assert_eq!(host.ok(&["destroy", "a"]), "Destroyed a.service\n");
    eventually("the end of the process", || (!runs(pid)).then_some(()));
    host.stop();
}

#[test]
fn what_is_wrong_on_its_command_line_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let fleetd = dir.path().join("fleetd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sealift"), &fleetd).unwrap();
    let conf = dir.path().join("fleet.conf");
    std::fs::write(&conf, "etcd_servers=nowhere\n").unwrap();
    let run = |args: &[&str]| {
        said(
            &Command::new(&fleetd)
                .args(args)
                .env("SEALIFT_STATE_DIR", dir.path().join("state"))
                .output()
                .unwrap(),
        )
    };
    let (code, stdout, _) = run(&["-version"]);
    assert_eq!((code, stdout), (0, format!("fleetd version 1.0.0+sealift.{}\n", env!("CARGO_PKG_VERSION"))));
    for (args, wanted, code) in [
        (&["-bogus"][..], "flag provided but not defined: -bogus", 2),
        (&["-config"], "flag needs an argument", 2),
        (&["start"], "\"start\" is no flag of fleetd", 2),
        (&["-config", "/nowhere/fleet.conf"], "/nowhere/fleet.conf", 4),
        (&["--config", conf.to_str().unwrap()], "etcd_servers is to be a list of URLs", 4),
    ] {
        let (found, stdout, stderr) = run(args);
        assert!(found == code && stdout.is_empty() && stderr.contains(wanted), "{args:?}: {found} {stderr}");
    }
    assert!(!dir.path().join("state").try_exists().unwrap(), "nothing was made");
}
