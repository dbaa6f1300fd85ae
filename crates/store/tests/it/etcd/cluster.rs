//! etcd members as processes on this machine, which tests start, freeze, kill and start again.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sealift_store::etcd::{EtcdOptions, EtcdStore};
use tempfile::TempDir;

/// How long members may take to answer on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Some members that are one cluster; ended, and their files removed, when dropped.
pub(crate) struct Cluster {
    members: Vec<Member>,
    arguments: Vec<String>,
    dir: TempDir,
}

struct Member {
    name: String,
    client: String,
    peer: String,
    process: Option<Child>,
}

/// Whether to test with etcd. Where it is missing the tests fail, unless SEALIFT_SKIP names it.
pub(crate) fn has_etcd() -> bool {
    if std::env::var("SEALIFT_SKIP").is_ok_and(|skip| skip.split(',').any(|part| part == "etcd")) {
        eprintln!("SKIPPED: SEALIFT_SKIP=etcd, the store on etcd is not tested");
        return false;
    }
    let version = Command::new("etcd").arg("--version").stdout(Stdio::null()).status();
    version.expect("no etcd: scripts/install-deps test, or set SEALIFT_SKIP=etcd");
    true
}

impl Cluster {
    /// So many members, without TLS.
    pub(crate) fn start(members: usize) -> Cluster {
        Cluster::start_with(members, "http", |_| Vec::new())
    }

    /// Members with more arguments, made by `arguments` from the cluster's directory.
    pub(crate) fn start_with(
        members: usize,
        scheme: &str,
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Cluster {
        // In memory where there is such a place: what is tested here does not hang on the disk.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("sealift-etcd-").tempdir_in(place).unwrap();
        let arguments = arguments(dir.path());
        let ports = free_ports(members * 2);
        let members = ports.chunks(2).enumerate().map(|(i, ports)| Member {
            name: format!("m{i}"),
            client: format!("{scheme}://127.0.0.1:{}", ports[0]),
            peer: format!("http://127.0.0.1:{}", ports[1]),
            process: None,
        });
        let mut cluster = Cluster { members: members.collect(), arguments, dir };
        for number in 0..cluster.members.len() {
            cluster.spawn(number);
        }
        cluster
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    pub(crate) fn endpoint(&self, number: usize) -> String {
        self.members[number].client.clone()
    }

    pub(crate) fn options(&self) -> EtcdOptions {
        EtcdOptions::new(self.endpoints(), "/test/")
    }

    /// A store on the cluster, once that answers.
    pub(crate) async fn open(&self) -> EtcdStore {
        self.open_with(self.options()).await
    }

    pub(crate) async fn open_with(&self, options: EtcdOptions) -> EtcdStore {
        let begun = Instant::now();
        loop {
            match EtcdStore::open(options.clone()).await {
                Ok(store) => return store,
                Err(error) if begun.elapsed() > START => {
                    panic!("etcd does not answer: {error:?}\n{}", self.logs());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Starts a member, or starts it again with what it has.
    pub(crate) fn spawn(&mut self, number: usize) {
        let peers: Vec<_> =
            self.members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
        let peers = peers.join(",");
        let member = &mut self.members[number];
        let log = std::fs::File::options().create(true).append(true).open(log(self.dir.path(), &member.name));
        let log = log.unwrap();
        // Ended by the kernel if the test is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--logger", "zap", "--name", &member.name])
            .arg("--data-dir")
            .arg(self.dir.path().join(&member.name))
            .args(["--listen-client-urls", &member.client, "--advertise-client-urls", &member.client])
            .args(["--listen-peer-urls", &member.peer, "--initial-advertise-peer-urls", &member.peer])
            .args(["--initial-cluster", &peers, "--initial-cluster-state", "new"])
            // Half of what is usual, so that tests wait less for a new leader.
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        member.process = Some(process);
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.members[number].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops a member as it stands; its connections stay open and silent.
    pub(crate) fn freeze(&self, number: usize) {
        self.signal(number, Signal::STOP);
        // The signal is on its way when kill(2) returns, and the member may still answer.
        let process = self.members[number].process.as_ref().unwrap().id();
        while !is_stopped(process) {
            std::thread::yield_now();
        }
    }

    pub(crate) fn thaw(&self, number: usize) {
        self.signal(number, Signal::CONT);
    }

    fn signal(&self, number: usize, signal: Signal) {
        let process = self.members[number].process.as_ref().unwrap();
        kill_process(Pid::from_raw(process.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Which member leads, by etcdctl; none while there is no leader.
    pub(crate) fn leader(&self) -> Option<usize> {
        (0..self.len()).find(|number| {
            let out = self.etcdctl(&[self.endpoint(*number)], &["endpoint", "status", "--write-out=fields"]);
            let field = |name: &str| {
                out.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
            };
            let (leader, member) = (field("\"Leader\" :"), field("\"MemberID\" :"));
            leader.is_some() && leader == member
        })
    }

    /// What etcdctl says.
    pub(crate) fn etcdctl(&self, endpoints: &[String], arguments: &[&str]) -> String {
        let out = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--dial-timeout=1s", "--command-timeout=3s", "--endpoints"])
            .arg(endpoints.join(","))
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn logs(&self) -> String {
        let tail = |member: &Member| {
            let text = std::fs::read_to_string(log(self.dir.path(), &member.name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(8).collect();
            format!("{}:\n{}", member.name, lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        self.members.iter().map(tail).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut process) = member.process.take() {
                process.kill().ok();
                process.wait().ok();
            }
        }
    }
}

fn log(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

/// Ports that nobody has at the moment.
/// Whether all threads of a process are stopped, proc(5).
fn is_stopped(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before it may hold anything.
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
    })
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
