//! Light hosts side by side, and what is left of them: nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use sealift_lab::LightHost;
use sealift_model::{ActiveState, UnitName};

fn unit() -> UnitName {
    "same.service".parse().unwrap()
}

async fn hosts(count: usize) -> Vec<LightHost> {
    let started = join_all((0..count).map(|_| LightHost::start())).await;
    started.into_iter().map(|host| host.expect("a light host (scripts/install-deps test)")).collect()
}

/// Starts a unit that has the same name on every host and says in the host's folder that it runs.
async fn start_unit(host: &LightHost) -> u32 {
    let marker = host.dir().join("marker");
    let text =
        format!("[Service]\nExecStartPre=/bin/touch {}\nExecStart=/bin/sleep infinity\n", marker.display());
    std::fs::create_dir_all(&host.manager().unit_dir).unwrap();
    std::fs::write(host.manager().unit_dir.join(unit().as_str()), text).unwrap();
    host.systemd().reload().await.unwrap();
    assert!(host.systemd().start(&unit()).await.unwrap().is_done());
    assert!(marker.try_exists().unwrap());
    host.systemd().state(&unit()).await.unwrap().main_pid.unwrap()
}

fn lives(pid: u32) -> bool {
    // A dead process that nobody has waited for yet is dead.
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// All that can be seen of a host from outside.
#[derive(Debug)]
struct Traces {
    pids: Vec<u32>,
    groups: Vec<PathBuf>,
    dir: PathBuf,
}

impl Traces {
    fn of(host: &LightHost, unit_pid: u32) -> Traces {
        let manager = u32::try_from(host.pid().unwrap()).unwrap();
        Traces { pids: vec![manager, unit_pid], groups: host.groups().to_vec(), dir: host.dir().to_owned() }
    }

    fn assert_there(&self) {
        assert!(self.pids.iter().all(|pid| lives(*pid)), "{self:?}");
        assert!(self.groups.iter().all(|group| group.is_dir()), "{self:?}");
        if rustix::process::geteuid().is_root() {
            assert!(!self.groups.is_empty(), "a manager of root's has control groups of its own");
        }
    }

    fn assert_gone(&self) {
        assert!(!self.pids.iter().any(|pid| lives(*pid)), "{self:?}");
        assert!(!self.groups.iter().any(|group| group.is_dir()), "{self:?}");
        assert!(!self.dir.try_exists().unwrap(), "{self:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.to_str().unwrap()), "{mounts}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_do_not_touch_each_other_and_leave_nothing() {
    let mut hosts = hosts(5).await;
    let pids = join_all(hosts.iter().map(start_unit)).await;
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), hosts.len(), "{pids:?}");
    let traces: Vec<_> = hosts.iter().zip(&pids).map(|(host, pid)| Traces::of(host, *pid)).collect();
    for traces in &traces {
        traces.assert_there();
    }
    // One unit is stopped, the others of that name run on.
    assert!(hosts[0].systemd().stop(&unit()).await.unwrap().is_done());
    assert!(!lives(pids[0]));
    for (host, pid) in hosts.iter().zip(&pids).skip(1) {
        let state = host.systemd().state(&unit()).await.unwrap();
        assert_eq!((state.active, state.main_pid), (ActiveState::Active, Some(*pid)));
    }
    // One host goes, the others' units run on.
    hosts.remove(1).stop().await.unwrap();
    traces[1].assert_gone();
    assert!(pids[2..].iter().all(|pid| lives(*pid)));
    // One is dropped without a word.
    drop(hosts.remove(1));
    traces[2].assert_gone();
    assert!(pids[3..].iter().all(|pid| lives(*pid)));
    for stopped in join_all(hosts.into_iter().map(LightHost::stop)).await {
        stopped.unwrap();
    }
    for traces in &traces {
        traces.assert_gone();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_will_not_stop_is_killed_with_its_host() {
    let host = hosts(1).await.remove(0);
    // Out of its manager's sight: a process that left its session and ignores signals.
    let text = "[Service]\nType=oneshot\nRemainAfterExit=yes\nKillMode=none\n\
                ExecStart=/bin/sh -c 'trap \"\" TERM HUP INT; setsid sleep infinity & echo $! >\"$XDG_RUNTIME_DIR/pid\"'\n";
    std::fs::create_dir_all(&host.manager().unit_dir).unwrap();
    std::fs::write(host.manager().unit_dir.join(unit().as_str()), text).unwrap();
    host.systemd().reload().await.unwrap();
    assert!(host.systemd().start(&unit()).await.unwrap().is_done());
    let pid_file: &Path = &host.dir().join("systemd/run/pid");
    let pid = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    assert!(lives(pid));
    let traces = Traces::of(&host, pid);
    host.stop().await.unwrap();
    traces.assert_gone();
}
