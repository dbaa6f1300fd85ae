//! `sealift machine ssh` and `sealift unit ssh`, against a real sshd: its host key, an agent with the user's key.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::Dev;
use crate::wercker::said;

/// Nothing that holds comes near it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An sshd on a port of its own, and an ssh-agent with a key that it takes. Both end with this.
struct Peer {
    dir: PathBuf,
    address: String,
    port: u16,
    sshd: Child,
    agent: Child,
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("missing: scripts/install-deps test installs it");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn keygen(file: &Path) {
    std::fs::remove_file(file).ok();
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file));
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Peer {
    fn start(dir: &Path, address: &str) -> Peer {
        // The empty folder that sshd shuts itself into; a package's service makes it where there is one.
        if run(Command::new("id").arg("-u")).trim() == "0" {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let dir = dir.join("ssh");
        std::fs::create_dir(&dir).unwrap();
        keygen(&dir.join("host"));
        keygen(&dir.join("user"));
        let socket = dir.join("agent.sock");
        let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
        let agent = agent.expect("no ssh-agent: scripts/install-deps test");
        wait_for("ssh-agent", || socket.try_exists().unwrap());
        run(Command::new("ssh-add").arg("-q").arg(dir.join("user")).env("SSH_AUTH_SOCK", &socket));
        // Taken from the system and given back at once: nobody else is likely to get it before sshd does.
        let port = std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress {address}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/user.pub\nStrictModes no\n\
             UsePAM no\nPidFile none\nPasswordAuthentication no\nAllowAgentForwarding yes\n",
            dir.display()
        );
        std::fs::write(dir.join("config"), config).unwrap();
        let mut peer = Peer { sshd: sshd(&dir), dir, address: address.to_owned(), port, agent };
        peer.reached();
        peer
    }

    fn reached(&mut self) {
        wait_for("sshd", || TcpStream::connect((&*self.address, self.port)).is_ok());
    }

    /// The same address and another host key, as of somebody who stands in between.
    fn other_key(&mut self) {
        self.sshd.kill().unwrap();
        self.sshd.wait().unwrap();
        wait_for("sshd's end", || TcpStream::connect((&*self.address, self.port)).is_err());
        keygen(&self.dir.join("host"));
        self.sshd = sshd(&self.dir);
        self.reached();
    }

    /// Makes the file of known hosts say that the key which the host has now is right.
    fn know(&self) -> String {
        let key = std::fs::read_to_string(self.dir.join("host.pub")).unwrap();
        let file = self.dir.join("known hosts");
        std::fs::write(&file, format!("[{}]:{} {key}", self.address, self.port)).unwrap();
        file.display().to_string()
    }

    fn ssh(&self, dev: &Dev, args: &[&str], command: &[&str]) -> (i32, String, String) {
        let port = self.port.to_string();
        let args: Vec<&str> = [&args[..2], &["--port", &port], &args[2..], command].concat();
        let mut command = dev.command(&args);
        command.env("SSH_AUTH_SOCK", self.dir.join("agent.sock")).stdin(Stdio::null());
        said(&command.output().unwrap())
    }
}

fn sshd(dir: &Path) -> Child {
    let log = std::fs::File::create(dir.join("sshd.log")).unwrap();
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(dir.join("config")).stderr(log);
    command.spawn().expect("no sshd: scripts/install-deps test")
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in [&mut self.sshd, &mut self.agent] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[test]
fn one_gets_to_a_unit_s_machine_only_by_a_host_key_that_is_known() {
    let dev = Dev::start();
    let machine = dev.machine();
    let name = machine["name"].as_str().unwrap().to_owned();
    let address = machine["address"].as_str().expect("this machine has no route to anywhere").to_owned();
    let mut peer = Peer::start(dev.dir.path(), &address);
    let unit = dev.dir.path().join("web.service");
    std::fs::write(&unit, "[Service]\nExecStart=/bin/sleep 1d\n").unwrap();
    dev.ok(&["unit", "start", &unit.display().to_string()]);

    let known = peer.know();
    let on_machine = ["machine", "ssh", "--known-hosts", &known, &name];
    let (code, text, told) = peer.ssh(&dev, &on_machine, &["echo", "here", "$((6 * 7))"]);
    assert_eq!((code, &*text), (0, "here 42\n"), "{told}");
    let (code, ..) = peer.ssh(&dev, &["unit", "ssh", "--known-hosts", &known, "web"], &["exit", "37"]);
    assert_eq!(code, 37, "the command's own code");
    // The agent stays here unless it is meant to go along.
    let ask = ["echo", "agent=$SSH_AUTH_SOCK"];
    let (_, text, _) = peer.ssh(&dev, &on_machine, &ask);
    assert_eq!(text, "agent=\n");
    let (_, text, _) = peer.ssh(&dev, &["machine", "ssh", "-A", "--known-hosts", &known, &name], &ask);
    assert!(text.len() > "agent=\n".len(), "{text}");

    peer.other_key();
    let (code, text, told) = peer.ssh(&dev, &on_machine, &["echo", "here"]);
    assert!(code == 255 && text.is_empty() && told.contains("HOST IDENTIFICATION HAS CHANGED"), "{told}");
    // Nor to one that nobody knows: without a terminal there is nobody to ask.
    let empty = dev.dir.path().join("none");
    let unknown = ["machine", "ssh", "--known-hosts", &empty.display().to_string(), &name];
    let (code, text, told) = peer.ssh(&dev, &unknown, &["echo", "here"]);
    assert!(code == 255 && text.is_empty() && told.contains("verification failed"), "{told}");
    assert!(!empty.try_exists().unwrap(), "and nothing was taken for known");

    // Through a host in between, which here is the same one by another address, and goes by the user's own known hosts.
    peer.know();
    let jump = format!("127.0.0.1:{}", peer.port);
    let (code, _, told) =
        peer.ssh(&dev, &["machine", "ssh", "-J", &jump, "--known-hosts", &known, &name], &["echo", "here"]);
    assert!(code == 255 && told.contains("Host key verification failed"), "{told}");
}

#[test]
fn what_cannot_be_reached_is_told_before_ssh_is_asked() {
    let dev = Dev::start();
    let unit = dev.dir.path().join("far.service");
    std::fs::write(&unit, "[Service]\nExecStart=/bin/sleep 1d\n[X-Fleet]\nMachineMetadata=region=moon\n")
        .unwrap();
    dev.run(&["unit", "start", "--timeout", "1s", &unit.display().to_string()]);
    for (args, wanted) in [
        (&["unit", "ssh", "far.service"][..], "region=moon"),
        (&["unit", "ssh", "nobody"], "there is no unit nobody.service"),
        (&["machine", "ssh", "mars"], "there is no machine mars"),
    ] {
        let (code, _, told) = said(&dev.run(args));
        assert!(code == 4 && told.contains(wanted), "sealift {args:?}: {told}");
    }
}
