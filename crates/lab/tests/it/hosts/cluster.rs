//! Whole clusters: an etcd, servers and agents on hosts of their own, and what happens to units when something fails.
//!
//! After every story the judge looks at what systemd on each host says, see [`judge`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use sealift_lab::cluster::judge::{self, Seen};
use sealift_lab::cluster::{AGENT, Cluster, LONG, MACHINE_TTL, Plan, SERVER};
use sealift_lab::hosts::{self, Host};
use sealift_model::UnitName;

use super::{has_hosts, wait_for};

const TEXT: &str = "[Service]\nExecStart=/bin/sleep 1d\n";

pub(super) fn cluster(hosts: usize, servers: usize) -> Cluster {
    cluster_with(hosts, servers, MACHINE_TTL)
}

fn cluster_with(hosts: usize, servers: usize, machine_ttl: Duration) -> Cluster {
    let tests = std::env::current_exe().unwrap();
    // target/debug/deps/it-... beside target/debug/sealift
    let program: PathBuf = tests.parent().unwrap().with_file_name("sealift");
    let plan = Plan { hosts, servers, base: hosts::base(None).unwrap(), program, machine_ttl };
    match Cluster::start(&plan) {
        Ok(cluster) => cluster,
        Err(error) => panic!("{error} (or leave these tests out with SEALIFT_SKIP=hosts): {error:?}"),
    }
}

pub(super) fn names(range: std::ops::Range<usize>) -> BTreeSet<UnitName> {
    range.map(|number| format!("tried-{number}.service").parse().unwrap()).collect()
}

pub(super) fn launch(cluster: &Cluster, names: &BTreeSet<UnitName>) {
    cluster.launch(&names.iter().cloned().collect::<Vec<_>>(), TEXT).unwrap();
}

/// Fails with what is on the hosts' journals, which say more than the judge.
pub(super) fn settle(cluster: &Cluster, hosts: &[&Host], wanted: &BTreeSet<UnitName>) -> Vec<Seen> {
    judge::settle(hosts, wanted, LONG).unwrap_or_else(|error| {
        let folder = std::env::temp_dir().join(format!("sealift-lab-{}", std::process::id()));
        cluster.hosts().save_logs(&folder).unwrap();
        panic!("{error}\nthe hosts' logs are in {}", folder.display())
    })
}

pub(super) fn count_on(seen: &[Seen], host: &Host) -> usize {
    seen.iter().filter(|seen| seen.host == host.name() && seen.active == "active").count()
}

fn assert_left_alone(cluster: &Cluster, before: &[Seen], after: &[Seen]) {
    let disturbed = judge::disturbed(before, after);
    if !disturbed.is_empty() {
        let folder = std::env::temp_dir().join(format!("sealift-lab-{}", std::process::id()));
        cluster.hosts().save_logs(&folder).unwrap();
        panic!("{disturbed:?} of {before:?}, and now {after:?}\nthe hosts' logs are in {}", folder.display());
    }
}

fn on_all(hosts: &[&Host], action: &str, services: &[&str]) {
    for host in hosts {
        let mut words = vec![action];
        words.extend(services);
        host.run("systemctl", &words).unwrap();
    }
}

#[test]
fn three_hosts_keep_units_running() {
    if !has_hosts() {
        return;
    }
    let cluster = cluster(3, 3);
    let all: Vec<_> = cluster.hosts().all().iter().collect();
    let mut wanted = names(0..9);
    launch(&cluster, &wanted);
    let placed = settle(&cluster, &all, &wanted);
    assert!(all.iter().all(|host| count_on(&placed, host) == 3), "{placed:?}");

    // Without servers, without agents, without both: nothing happens to units, and nothing when they come back.
    for services in [&[SERVER][..], &[AGENT], &[SERVER, AGENT]] {
        on_all(&all, "stop", services);
        assert_left_alone(&cluster, &placed, &judge::look(&all).unwrap());
        on_all(&all, "start", services);
        for host in &all {
            cluster.wait_for_server(host, LONG).unwrap();
        }
        cluster.wait_for_machines(3, LONG).unwrap();
        assert_left_alone(&cluster, &placed, &settle(&cluster, &all, &wanted));
    }

    // etcd without its leader: units stay, and new ones start.
    let leader = cluster.etcd().leader(cluster.hosts()).unwrap().unwrap();
    leader.run("systemctl", &["kill", "--signal=KILL", "etcd"]).unwrap();
    wanted.extend(names(9..12));
    launch_until_taken(&cluster, &wanted);
    let placed_more = settle(&cluster, &all, &wanted);
    assert_left_alone(&cluster, &placed, &placed_more);
    cluster.etcd().wait_all(cluster.hosts(), LONG).unwrap();

    // A host that loses its power: what it had runs elsewhere, the rest is left alone, and it can come back.
    let (dead, living) = (all[2], [all[0], all[1]]);
    let of_living: Vec<_> = placed_more.iter().filter(|seen| seen.host != dead.name()).cloned().collect();
    dead.kill().unwrap();
    let moved = settle(&cluster, &living, &wanted);
    assert_left_alone(&cluster, &of_living, &moved);
    dead.start().unwrap();
    cluster.wait_for_machines(3, LONG).unwrap();
    let back = settle(&cluster, &all, &wanted);
    assert_left_alone(&cluster, &moved, &back);

    // Destroyed is gone.
    let gone: Vec<_> = names(0..6).into_iter().collect();
    cluster.destroy(&gone).unwrap();
    wanted.retain(|name| !gone.contains(name));
    settle(&cluster, &all, &wanted);
}

/// A server that has just lost its etcd's leader may not know whether it did what it was told.
fn launch_until_taken(cluster: &Cluster, names: &BTreeSet<UnitName>) {
    let names: Vec<_> = names.iter().cloned().collect();
    wait_for("a server takes the units", || cluster.launch(&names, TEXT).is_ok());
}

#[test]
fn a_host_that_is_cut_off_keeps_its_units_until_it_is_back() {
    if !has_hosts() {
        return;
    }
    let cluster = cluster(5, 3);
    let all: Vec<_> = cluster.hosts().all().iter().collect();
    let wanted = names(0..10);
    launch(&cluster, &wanted);
    let placed = settle(&cluster, &all, &wanted);
    assert!(all.iter().all(|host| count_on(&placed, host) == 2), "{placed:?}");

    // One with a server and a member of etcd beside its agent, and one with an agent alone.
    for cut in [all[1], all[4]] {
        let before = judge::look(&all).unwrap();
        let others: Vec<_> = all.iter().copied().filter(|host| host.number() != cut.number()).collect();
        let of = |seen: &[Seen], host: &Host| -> Vec<Seen> {
            seen.iter().filter(|seen| seen.host == host.name()).cloned().collect()
        };
        cut.cut().unwrap();
        // Until the servers know, the units' copies on it are the only ones.
        let moved = settle(&cluster, &others, &wanted);
        let kept = judge::look(&[cut]).unwrap();
        assert_left_alone(&cluster, &of(&before, cut), &kept);
        cut.uncut().unwrap();
        let begun = std::time::Instant::now();
        let healed = settle(&cluster, &all, &wanted);
        println!("{} was in contact and without doubles after {:?}", cut.name(), begun.elapsed());
        // What runs elsewhere by now stays there.
        assert_left_alone(&cluster, &moved, &healed);
        cluster.wait_for_machines(5, LONG).unwrap();
    }

    // All at once, and all gone.
    cluster.destroy(&wanted.iter().cloned().collect::<Vec<_>>()).unwrap();
    settle(&cluster, &all, &BTreeSet::new());
}

#[test]
fn a_host_that_is_switched_off_hands_its_units_over_first() {
    if !has_hosts() {
        return;
    }
    // A lease is longer than the whole test: nothing but the host's own word makes its units move.
    let cluster = cluster_with(3, 1, Duration::from_secs(3600));
    let all: Vec<_> = cluster.hosts().all().iter().collect();
    let wanted = names(0..6);
    launch(&cluster, &wanted);
    let placed = settle(&cluster, &all, &wanted);
    let leaving = all[2];
    assert_eq!(count_on(&placed, leaving), 2, "{placed:?}");
    // The end of its agent alone moves nothing, and its next life restarts nothing.
    leaving.run("systemctl", &["restart", AGENT]).unwrap();
    cluster.wait_for_machines(3, LONG).unwrap();
    assert_left_alone(&cluster, &placed, &judge::look(&all).unwrap());
    leaving.power_off().unwrap();
    let moved = settle(&cluster, &all[..2], &wanted);
    assert_eq!(moved.iter().filter(|seen| seen.active == "active").count(), 6, "{moved:?}");
}

/// When systemd noted this of a unit, in microseconds of the clock that all hosts have.
fn noted(host: &Host, unit: &UnitName, what: &str) -> u64 {
    let words = ["show", "--value", "-p", what, unit.as_str()];
    let text = host.run("systemctl", &words).unwrap();
    text.trim().parse().unwrap_or(0)
}

#[test]
fn a_unit_that_is_not_to_run_cut_off_stops_before_it_runs_elsewhere() {
    if !has_hosts() {
        return;
    }
    let cluster = cluster(3, 1);
    let all: Vec<_> = cluster.hosts().all().iter().collect();
    let alone = all[2];
    let words = ["machine", "metadata", &alone.machine_id(), "side=far"];
    cluster.call(all[0], &words, LONG).unwrap();
    let (stops, keeps) = (names(0..1), names(1..2));
    let here = "[X-Fleet]\nPreferMachineMetadata=side=far\n";
    // The one that stops would take an hour to do so, and is killed before the lease is over.
    let stubborn =
        "[Service]\nExecStart=/bin/sh -c 'trap : TERM; while :; do sleep 1; done'\nTimeoutStopSec=1h\n";
    let unit = |names: &BTreeSet<UnitName>, text: &str| {
        cluster.launch(&names.iter().cloned().collect::<Vec<_>>(), text).unwrap();
    };
    unit(&stops, &format!("{stubborn}{here}CutOff=stop\n"));
    unit(&keeps, &format!("{TEXT}{here}"));
    let wanted: BTreeSet<_> = stops.union(&keeps).cloned().collect();
    let placed = settle(&cluster, &all, &wanted);
    assert_eq!(count_on(&placed, alone), 2, "{placed:?}");
    let name = stops.first().unwrap();
    let is_active = |hosts: &[&Host], name: &UnitName| {
        let seen = judge::look(hosts).unwrap();
        seen.iter().any(|seen| seen.unit == name.as_str() && seen.active == "active")
    };

    alone.cut().unwrap();
    wait_for("it runs elsewhere", || is_active(&all[..2], name));
    // By then it was over here, as systemd noted down on both.
    let began = all[..2].iter().map(|host| noted(host, name, "ActiveEnterTimestampMonotonic")).max().unwrap();
    let ended = noted(alone, name, "InactiveEnterTimestampMonotonic");
    assert!(0 < ended && ended <= began, "it ran twice: it ended at {ended}, and began elsewhere at {began}");
    // The agent's next life knows that it is cut off, and the other unit runs on.
    alone.run("systemctl", &["restart", AGENT]).unwrap();
    assert!(!is_active(&[alone], name) && is_active(&[alone], keeps.first().unwrap()));
    alone.uncut().unwrap();
    settle(&cluster, &all, &wanted);
}

#[test]
fn a_global_unit_changes_host_by_host_whoever_leads() {
    if !has_hosts() {
        return;
    }
    let cluster = cluster(3, 3);
    let all: Vec<_> = cluster.hosts().all().iter().collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tried-0.service");
    let start = |days: u32| {
        let text = format!("[Service]\nExecStart=/bin/sleep {days}d\n[X-Fleet]\nGlobal=true\n");
        std::fs::write(&file, text).unwrap();
        let words = ["unit", "start", "--replace", "--no-block", &file.display().to_string()];
        cluster.call(all[0], &words, LONG).unwrap();
    };
    let name = names(0..1).pop_first().unwrap();
    let runs = |host: &Host, days: u32| {
        let command = host.run("systemctl", &["show", "--value", "-p", "ExecStart", name.as_str()]).unwrap();
        let active = host.run("systemctl", &["show", "--value", "-p", "ActiveState", name.as_str()]).unwrap();
        active.trim() == "active" && command.contains(&format!("sleep {days}d"))
    };
    start(1);
    wait_for("it runs everywhere", || all.iter().all(|host| runs(host, 1)));
    // Whoever leads is lost as soon as the first host has had its turn.
    start(2);
    wait_for("the first host has it", || all.iter().any(|host| runs(host, 2)));
    let leader = cluster.leader().unwrap().unwrap();
    let led = all.iter().find(|host| host.name() == leader).unwrap();
    led.run("systemctl", &["kill", "--signal=KILL", SERVER]).unwrap();
    wait_for("all hosts have it", || all.iter().all(|host| runs(host, 2)));
    let mut out: Vec<(u64, u64)> = all
        .iter()
        .map(|host| {
            let stopped = noted(host, &name, "InactiveEnterTimestampMonotonic");
            (stopped, noted(host, &name, "ActiveEnterTimestampMonotonic"))
        })
        .collect();
    out.sort_unstable();
    assert!(out.iter().all(|(stopped, started)| 0 < *stopped && stopped < started), "{out:?}");
    assert!(out.windows(2).all(|two| two[0].1 <= two[1].0), "two were out at once: {out:?}");
}
