//! One host: its disk, its power and what can be run on it.
//!
//! The disk is an overlay over the common tree, in memory and in the keeper's mounts: it stays when the host is off. Whether
//! a host is on is asked of its control group, never remembered, so that any process that finds the keeper can tell.
//!
//! It must not know what the host is for.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::keeper::SHORT;
use super::{Error, PREFIX_LENGTH, RETRY, WORK, World, process};

/// A host boots in one to three seconds; a busy machine may take much longer.
const BOOT: Duration = Duration::from_secs(120);
/// systemd gives services 90 s to end when it is switched off in order.
const END: Duration = Duration::from_secs(120);
/// How many lines of a console are told when a host does not come up.
const TOLD: usize = 15;

/// What every host has beside the tree: its address, and a target that tells when it can be worked with. That does not
/// wait for services like etcd, which are only up when others are.
const NETWORK_UNIT: &str = "[Unit]\nDescription=Address of the lab's network\nDefaultDependencies=no\n\
    Before=network.target network-online.target\nWants=network.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=/bin/ip address replace ADDRESS dev host0\nExecStart=/bin/ip link set host0 up\n";
const UP_UNIT: &str = "[Unit]\nDescription=The host can be worked with\n\
    Requires=basic.target lab-network.service dbus.socket\nAfter=basic.target lab-network.service dbus.socket\n";
/// Services that go by the host's clock read its offset from this file, anew each time.
const CLOCK_FILE: &str = "/etc/lab-clock";
const CLOCK_DROP_IN: &str = "[Service]\nEnvironment=LD_PRELOAD=/usr/lib/sealift-lab/clock.so\n";

/// A host.
#[derive(Debug)]
pub struct Host {
    name: String,
    number: usize,
    address: Ipv4Addr,
    pub(super) world: Arc<World>,
}

impl Host {
    pub(super) fn new(number: usize, world: &Arc<World>) -> Host {
        let last = u8::try_from(number).unwrap_or(u8::MAX);
        let address = Ipv4Addr::new(10, 77, 0, last);
        Host { name: format!("h{number}"), number, address, world: Arc::clone(world) }
    }

    /// Does something with some hosts at the same time.
    ///
    /// # Errors
    /// The first that there was; the others are finished even so.
    pub fn at_once(hosts: &[Host], work: impl Fn(&Host) -> Result<(), Error> + Sync) -> Result<(), Error> {
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = hosts.iter().map(|host| scope.spawn(move || work(host))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let outcomes: Vec<_> = threads.into_iter().map(join).collect();
            outcomes.into_iter().collect()
        })
    }

    /// `h1` and so on; also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From 1 on.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What /etc/machine-id says on it.
    #[must_use]
    pub fn machine_id(&self) -> String {
        format!("5ea11f7000004000a000{:012}", self.number)
    }

    /// Its end of the cable, on the bridge.
    pub(super) fn port(&self) -> String {
        port(self.number)
    }

    /// Where a file of the host's disk is seen from here, whether it is on or off.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        let path = path.trim_start_matches('/');
        // A volume lies over the disk only in the host's own view.
        let volumes = self.world.options.volumes.iter().enumerate();
        let mut on_volume = volumes.filter_map(|(at, volume)| {
            let top = volume.path.strip_prefix("/").unwrap_or(&volume.path);
            Some((at, Path::new(path).strip_prefix(top).ok()?))
        });
        let inner = match on_volume.next_back() {
            Some((at, rest)) => self.volume(at).join(rest),
            None => self.work().join("root").join(path),
        };
        self.world.keeper.path(&inner)
    }

    /// Writes a file to the host's disk, and makes the folders above it.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&self, path: &str, text: &str) -> Result<(), Error> {
        let path = self.path(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
        }
        std::fs::write(&path, text).map_err(Error::io("write", &path))
    }

    /// Makes a service start with the host, whose unit file is in /etc/systemd/system or comes with a package.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn enable(&self, unit: &str) -> Result<(), Error> {
        let own = format!("/etc/systemd/system/{unit}");
        let target = if self.path(&own).is_file() { own } else { format!("/lib/systemd/system/{unit}") };
        let wants = self.path("/etc/systemd/system/multi-user.target.wants");
        std::fs::create_dir_all(&wants).map_err(Error::io("make", &wants))?;
        let link = wants.join(unit);
        match std::os::unix::fs::symlink(target, &link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::io("make", &link)(error))
            }
            _ => Ok(()),
        }
    }

    fn work(&self) -> PathBuf {
        Path::new(WORK).join(&self.name)
    }

    fn volume(&self, at: usize) -> PathBuf {
        self.work().join("volumes").join(at.to_string())
    }

    /// Mounts the disk and the volumes, and writes what every host has.
    pub(super) fn make_disk(&self) -> Result<(), Error> {
        let work = self.work();
        let inner = |name: &str| work.join(name).display().to_string();
        let make = |path: &Path| {
            let path = self.world.keeper.path(path);
            std::fs::create_dir_all(&path).map_err(Error::io("make", &path))
        };
        ["changes", "scratch", "root"].iter().try_for_each(|name| make(&work.join(name)))?;
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.world.options.base.display(),
            inner("changes"),
            inner("scratch")
        );
        self.world.keeper.run("mount", &["-t", "overlay", "-o", &layers, "sealift-lab", &inner("root")])?;
        for (at, volume) in self.world.options.volumes.iter().enumerate() {
            let (folder, size) = (self.volume(at), format!("mode=755,size={}m", volume.mebibytes));
            make(&folder)?;
            self.world
                .keeper
                .run("mount", &["-t", "tmpfs", "-o", &size, "sealift-lab", &folder.display().to_string()])?;
        }
        let address = format!("{}/{PREFIX_LENGTH}", self.address);
        self.write("/etc/systemd/system/lab-network.service", &NETWORK_UNIT.replace("ADDRESS", &address))?;
        self.write("/etc/systemd/system/lab-up.target", UP_UNIT)?;
        self.enable("lab-network.service")?;
        self.enable("lab-up.target")?;
        self.write("/etc/machine-id", &format!("{}\n", self.machine_id()))?;
        self.write("/etc/hostname", &format!("{}\n", self.name))?;
        let mut names = String::from("127.0.0.1 localhost\n");
        for number in 1..=self.world.options.count {
            let host = Host::new(number, &self.world);
            names.push_str(&format!("{} {}\n", host.address, host.name));
        }
        self.write("/etc/hosts", &names)?;
        for service in &self.world.options.clocked {
            self.write(&format!("/etc/systemd/system/{service}.service.d/lab-clock.conf"), CLOCK_DROP_IN)?;
        }
        self.set_clock(0)
    }

    /// The process that is the host's init, seen from here. None while the host is off, or not as far yet.
    #[must_use]
    pub fn init(&self) -> Option<i32> {
        let is_init = |pid: &i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            // One number for each pid namespace: this machine's, maybe more, the keeper's, the host's.
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let is_first = numbers.is_some_and(|numbers| numbers.split_whitespace().next_back() == Some("1"));
            is_first && status.lines().next() == Some("Name:\tsystemd")
        };
        self.world.groups.processes(&self.name).into_iter().find(is_init)
    }

    /// Whether anything runs on it.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.world.groups.processes(&self.name).is_empty()
    }

    /// Switches the host on and waits until it is up: its network is there, and systemd takes orders. Services may still
    /// be on their way.
    ///
    /// # Errors
    /// When it is on, or does not come up.
    pub fn start(&self) -> Result<(), Error> {
        if self.is_on() {
            return Err(self.state("on"));
        }
        let groups = self.world.groups.make(&self.name)?;
        // Without a word to its own child bash would not be told when that ends: the keeper takes it over.
        let script = "for group in \"${@:2:$1}\"; do echo 0 >\"$group/cgroup.procs\"; done; shift $(($1 + 1))\n\
            setsid \"$@\" </dev/null >>\"$CONSOLE\" 2>&1 &";
        let mut command = self.world.keeper.command("bash");
        command.args(["-euc", script, "host", &groups.len().to_string()]).args(groups);
        command.args([
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--boot",
            "--settings=no",
        ]);
        command.args(["--link-journal=no", "--resolv-conf=off", "--timezone=off", "--network-bridge=br0"]);
        command.args(["--capability=all", "--system-call-filter=@keyring bpf"]);
        command.arg(format!("--machine={}", self.name)).arg(format!("--uuid={}", self.machine_id()));
        command.arg(format!("--directory={}", self.work().join("root").display()));
        for bind in &self.world.options.binds {
            command.arg(format!("--bind-ro={}:{}", bind.from.display(), bind.to.display()));
        }
        for (at, volume) in self.world.options.volumes.iter().enumerate() {
            command.arg(format!("--bind={}:{}", self.volume(at).display(), volume.path.display()));
        }
        command.env("CONSOLE", self.work().join("console")).env("UNIFIED_CGROUP_HIERARCHY", "1");
        process::run(command, SHORT)?;
        self.wait_up()
    }

    fn wait_up(&self) -> Result<(), Error> {
        let deadline = Instant::now() + BOOT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(init) = self.init()
                && Path::new(&format!("/proc/{init}/root/run/systemd/private"))
                    .try_exists()
                    .is_ok_and(|is| is)
                && self.run_within("systemctl", &["start", "lab-up.target"], left).is_ok()
            {
                return Ok(());
            }
            if left.is_zero() || !self.is_on() {
                let console = self.world.keeper.path(&self.work().join("console"));
                let text = std::fs::read_to_string(console).unwrap_or_default();
                let lines: Vec<_> = text.trim().lines().collect();
                let said = lines.get(lines.len().saturating_sub(TOLD)..).unwrap_or_default().join("\n");
                return Err(Error::Boot { host: self.name.clone(), said });
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Cuts the power: its network falls silent, then all its processes end. The disk stays as it is.
    ///
    /// # Errors
    /// When it was off.
    pub fn kill(&self) -> Result<(), Error> {
        let init = self.init().and_then(Pid::from_raw).ok_or_else(|| self.state("off"))?;
        // Else the kernel would tell the other ends that their connections are closed.
        self.cut()?;
        kill_process(init, Signal::KILL)
            .map_err(|error| Error::io("kill", Path::new(&self.name))(error.into()))?;
        // What ends the rest of the host may have been frozen with it.
        self.world.groups.freeze(&self.name, false).ok();
        self.wait_off()
    }

    /// Shuts the host down in order.
    ///
    /// # Errors
    /// When it was off, or does not end.
    pub fn power_off(&self) -> Result<(), Error> {
        self.run("systemctl", &["poweroff", "--no-block"])?;
        self.wait_off()
    }

    fn wait_off(&self) -> Result<(), Error> {
        if self.world.groups.is_empty_within(&self.name, END) {
            Ok(())
        } else {
            Err(Error::Late { what: format!("the end of host {}", self.name), limit: END })
        }
    }

    fn state(&self, state: &'static str) -> Error {
        Error::State { host: self.name.clone(), state }
    }

    /// A command on the host, as root. It is in none of the host's services, so it goes on while the host is frozen.
    ///
    /// # Errors
    /// When the host is off.
    pub fn command(&self, program: &str) -> Result<Command, Error> {
        let init = self.init().ok_or_else(|| self.state("off"))?;
        let mut command = Command::new("nsenter");
        command.args(["--all", "--root", "--wd", &format!("--target={init}"), "--", program]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin");
        command.envs([("HOME", "/root"), ("LANG", "C.UTF-8")]);
        Ok(command)
    }

    /// What a command on the host prints; it has to succeed.
    ///
    /// # Errors
    /// When the host is off, or the command fails or takes longer than half a minute.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        self.run_within(program, arguments, SHORT)
    }

    /// As [`Host::run`], with another limit.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub fn run_within(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<String, Error> {
        let mut command = self.command(program)?;
        command.args(arguments);
        process::run(command, limit)
    }

    /// A command with this machine's programs on the host's side of its cable.
    pub(super) fn beside(&self, program: &str) -> Result<Command, Error> {
        let init = self.init().ok_or_else(|| self.state("off"))?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{init}/ns/net")).args(["--", program]);
        Ok(command)
    }

    /// Sets by how many seconds the host's wall clock is ahead, or behind.
    ///
    /// It holds at once and for what is running, but only for the services that [`Options::clocked`] names, as far as they ask
    /// their C library for the time of day. It does not hold for systemd itself, for programs that ask the kernel (as those
    /// in Go do, etcd among them), for the times of files, and for clocks that count from the boot.
    ///
    /// [`Options::clocked`]: super::Options::clocked
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn set_clock(&self, ahead: i64) -> Result<(), Error> {
        // In one step, because it is read while it is written.
        let (file, new) = (self.path(CLOCK_FILE), self.path(&format!("{CLOCK_FILE}.new")));
        std::fs::write(&new, format!("{ahead:+}\n")).map_err(Error::io("write", &new))?;
        std::fs::rename(&new, &file).map_err(Error::io("write", &file))
    }

    pub(super) fn save_logs(&self, folder: &Path) -> Result<(), Error> {
        let console = self.world.keeper.path(&self.work().join("console"));
        let to = folder.join(format!("{}.console", self.name));
        // A host that was never on has none.
        let text = std::fs::read(console).unwrap_or_default();
        std::fs::write(&to, text).map_err(Error::io("write", &to))?;
        let mut command = Command::new("journalctl");
        command
            .args(["--no-pager", "--output=short-precise", "--directory"])
            .arg(self.path("/var/log/journal"));
        let to = folder.join(format!("{}.journal", self.name));
        let text = process::run(command, SHORT).unwrap_or_else(|error| error.to_string());
        std::fs::write(&to, text).map_err(Error::io("write", &to))
    }
}

/// The end of a host's cable that is on the bridge.
pub(super) fn port(number: usize) -> String {
    format!("vb-h{number}")
}
