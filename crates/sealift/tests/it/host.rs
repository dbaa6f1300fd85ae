//! What the tests stand on: a `sealift dev` of their own, git repositories, the box image.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use sealift_client::{Address, Client};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// The box that test projects are built in: busybox, so a shell and nothing else.
pub(crate) const BOX: &str = "localhost/sealift-e2e-box:latest";

/// The program with nothing of the caller's environment that would change what it does.
pub(crate) fn sealift() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealift"));
    for name in [
        "SEALIFT_SERVER",
        "SEALIFT_STATE_DIR",
        "SEALIFT_TOKEN",
        "SEALIFT_CA",
        "SEALIFT_LOG",
        "CLICOLOR_FORCE",
    ] {
        command.env_remove(name);
    }
    command
}

/// True when tests of containers are to be left out; says so.
fn skipped() -> bool {
    let skipped =
        std::env::var("SEALIFT_SKIP").is_ok_and(|skip| skip.split(',').any(|part| part == "containers"));
    if skipped {
        eprintln!("SKIPPED: SEALIFT_SKIP=containers, nothing is run in containers");
    }
    skipped
}

/// Makes the box image from this machine's busybox, once for all tests.
fn make_box() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.is_file());
        let busybox = busybox.expect("no busybox: scripts/install-deps test, or set SEALIFT_SKIP=containers");
        let tree = tempfile::tempdir().unwrap();
        let bin = tree.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for folder in ["tmp", "root", "proc", "sys", "dev", "etc"] {
            std::fs::create_dir(tree.path().join(folder)).unwrap();
        }
        std::fs::copy(busybox, bin.join("busybox")).unwrap();
        let applets = Command::new(busybox).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let docker = Command::new("docker").arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let engine = if docker.is_ok_and(|status| status.success()) { "docker" } else { "podman" };
        let mut tar = Command::new("tar")
            .arg("-C")
            .arg(tree.path())
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let imported = Command::new(engine)
            .args(["import", "-", BOX])
            .stdin(tar.stdout.take().unwrap())
            .output()
            .expect("no container engine: scripts/install-deps test, or set SEALIFT_SKIP=containers");
        assert!(tar.wait().unwrap().success());
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    });
}

/// Makes sure that there is a box; false when tests of containers are to be left out.
pub(crate) fn with_box() -> bool {
    if skipped() {
        return false;
    }
    make_box();
    true
}

/// A server and a project to push to it; none when tests of containers are to be left out.
pub(crate) fn ready() -> Option<(Dev, Project)> {
    if skipped() {
        return None;
    }
    make_box();
    let dev = Dev::start();
    let project = Project::new(dev.dir.path());
    Some((dev, project))
}

/// A `sealift dev` with a state directory and a systemd of its own. Dropped, nothing of it is left.
pub(crate) struct Dev {
    pub(crate) dir: TempDir,
    child: Option<Child>,
    level: &'static str,
}

impl Dev {
    pub(crate) fn start() -> Self {
        Self::start_telling("info")
    }

    /// One that tells in its log what it does, down to this level.
    pub(crate) fn start_telling(level: &'static str) -> Self {
        let mut dev = Self { dir: tempfile::tempdir().unwrap(), child: None, level };
        dev.again();
        dev
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Starts the program on the state that is there, and waits until it says that it is ready.
    pub(crate) fn again(&mut self) {
        assert!(self.child.is_none());
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut child = sealift()
            .args(["dev", "--listen", "none", "--private-systemd", "--output", "json", "--state-dir"])
            .arg(self.state())
            .env("SEALIFT_LOG", self.level)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.child = Some(child);
        assert!(line.contains("\"ready\":true"), "sealift dev said {line:?}\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// kill -9, at whatever moment this is.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    /// A command of the program that talks to this server.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = sealift();
        command.args(args).env("SEALIFT_STATE_DIR", self.state());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A command that has to succeed; gives its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sealift {args:?}: {stdout}\n{stderr}\n{}", self.log());
        stdout
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let args: Vec<_> = args.iter().copied().chain(["--output", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// The one machine that there is, once it has joined.
    pub(crate) fn machine(&self) -> serde_json::Value {
        let begun = std::time::Instant::now();
        loop {
            if let Some(machine) = self.json(&["machine", "list"])["items"].get(0) {
                return machine.clone();
            }
            assert!(begun.elapsed() < std::time::Duration::from_secs(120), "no machine came");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(Address::Unix(self.state().join("api.sock")), None)
    }

    /// Asks the API; none while nobody answers.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        self.client().get(path).await.ok()
    }

    /// The process that systemd runs for this unit, and the commit it was started with.
    pub(crate) fn process(&self, unit: &str) -> (u64, String) {
        let units = self.json(&["units"]);
        let unit = units["items"].as_array().unwrap().iter().find(|view| view["name"] == unit).unwrap();
        let status = unit["statuses"].as_object().unwrap().values().next().unwrap();
        let pid = status["main_pid"].as_u64().unwrap_or_else(|| panic!("{unit}"));
        // A simple service counts as active before its process has become the program.
        loop {
            if let Some(commit) = commit_of(pid) {
                return (pid, commit);
            }
            assert!(
                Path::new(&format!("/proc/{pid}")).try_exists().unwrap(),
                "process {pid} is gone: {unit}"
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let down = self.command(&["dev", "--down", "--private-systemd"]).output();
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("-- log of sealift dev:\n{}", self.log());
        } else {
            let down = down.unwrap();
            assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
        }
    }
}

/// The commit that a process runs, by its environment; none when it is not there (any more).
pub(crate) fn commit_of(pid: u64) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = environment.split(|byte| *byte == 0);
    let commit = variables.filter_map(|variable| variable.strip_prefix(b"SEALIFT_COMMIT=")).next()?;
    Some(String::from_utf8(commit.to_vec()).unwrap())
}

/// A git repository called `svc` whose pipeline makes a service.
pub(crate) struct Project {
    pub(crate) dir: PathBuf,
}

const WERCKER: &str = "\
box: localhost/sealift-e2e-box
build:
  steps:
    - script:
        name: compile
        code: |
          mkdir -p $WERCKER_OUTPUT_DIR/bin
          printf '#!/bin/sh\\nexec sleep 1000000\\n' > $WERCKER_OUTPUT_DIR/bin/serve
          chmod 755 $WERCKER_OUTPUT_DIR/bin/serve
          echo $WERCKER_GIT_COMMIT > $WERCKER_OUTPUT_DIR/commit
          export MADE=yes
    - script:
        name: test
        code: |
          test \"$MADE\" = yes
          cat greeting
          test \"$(cat greeting)\" = hello
";

impl Project {
    pub(crate) fn new(root: &Path) -> Self {
        let dir = root.join("svc");
        std::fs::create_dir_all(dir.join("units")).unwrap();
        let project = Self { dir };
        project.git(&["init", "--quiet", "--initial-branch", "main"]);
        project.write("wercker.yml", WERCKER);
        project.write("greeting", "hello\n");
        project.write("units/svc.service", "[Service]\nExecStart=serve\n");
        project
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::File::create(self.dir.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn write_unit(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.dir.join("units")).unwrap();
        self.write(&format!("units/{name}"), text);
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.dir)
            .args(["-c", "user.name=Test", "-c", "user.email=test@localhost"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits what is there; gives the commit's id.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn path(&self) -> &str {
        self.dir.to_str().unwrap()
    }
}
