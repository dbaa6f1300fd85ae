//! What hosts leave: nothing, however they end.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{has_hosts, options, up, wait_for};

/// All that can be seen of the hosts that one process made.
struct Traces {
    /// Part of the name of each of their control groups.
    groups: String,
    namespace: PathBuf,
}

impl Traces {
    /// Of the hosts with this keeper.
    fn of(keeper: i32) -> Traces {
        let text = std::fs::read_to_string(format!("/proc/{keeper}/cgroup")).unwrap();
        let name = text.split(['/', '\n']).find(|part| part.starts_with("sealift-lab-"));
        let namespace = std::fs::read_link(format!("/proc/{keeper}/ns/net")).unwrap();
        assert_ne!(namespace, std::fs::read_link("/proc/self/ns/net").unwrap());
        Traces { groups: name.unwrap().to_owned(), namespace }
    }

    /// The processes that are in the hosts' control groups, or on their network as long as that has no successor.
    fn processes(&self) -> Vec<String> {
        let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let own = all.filter(|dir| {
            let groups = std::fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
            groups.contains(&self.groups)
                || std::fs::read_link(dir.join("ns/net")).is_ok_and(|link| link == self.namespace)
        });
        own.map(|dir| std::fs::read_to_string(dir.join("comm")).unwrap_or_default()).collect()
    }

    fn groups(&self) -> BTreeSet<PathBuf> {
        let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let roots = roots.filter(|path| path.is_dir()).chain([PathBuf::from("/sys/fs/cgroup")]);
        roots.map(|root| root.join(&self.groups)).filter(|group| group.is_dir()).collect()
    }

    fn assert_gone(&self) {
        assert_eq!(self.groups(), BTreeSet::new());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("/run/sealift-lab"), "{mounts}");
    }
}

#[test]
fn dropped_hosts_leave_nothing_also_in_a_panic() {
    if !has_hosts() {
        return;
    }
    let hosts = up(options(2));
    let traces = Traces::of(hosts.keeper());
    assert!(traces.processes().len() > 8 && !traces.groups().is_empty());
    drop(hosts);
    assert_eq!(traces.processes(), Vec::<String>::new());
    traces.assert_gone();

    let panicked = std::panic::catch_unwind(|| {
        let hosts = up(options(1));
        let traces = Traces::of(hosts.keeper());
        std::panic::panic_any(traces);
    });
    panicked.unwrap_err().downcast::<Traces>().unwrap().assert_gone();
}

#[test]
fn killed_hosts_leave_what_the_next_take_away() {
    if !has_hosts() {
        return;
    }
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"));
    let mut lab = lab.args(["hosts", "up", "2"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(lab.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.into_iter().any(|line| line.starts_with("Ctrl-C ends them")));
    let child = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let maker = child(lab.id()).trim().parse().unwrap();
    let traces = Traces::of(child(maker).trim().parse().unwrap());
    assert!(traces.processes().len() > 8);
    lab.kill().unwrap();
    lab.wait().unwrap();
    wait_for("the kernel ends all of them", || traces.processes().is_empty());
    assert!(!traces.groups().is_empty());
    // These are not there for them.
    let hosts = up(options(1));
    traces.assert_gone();
    // Hosts that are there are left alone, also those that are switched off.
    hosts.host(1).unwrap().kill().unwrap();
    let own = Traces::of(hosts.keeper());
    let before = own.groups();
    drop(up(options(1)));
    assert_eq!(own.groups(), before);
    hosts.host(1).unwrap().start().unwrap();
}
