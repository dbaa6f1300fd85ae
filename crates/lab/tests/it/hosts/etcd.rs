//! Members of an etcd on hosts: there is a majority or there is none, and data outlives its host's power.

use std::time::Duration;

use sealift_lab::hosts::etcd::Etcd;
use sealift_lab::hosts::{Error, Host, Hosts};

use super::{LONG, has_hosts, options, wait_for};

fn etcdctl(hosts: &Hosts, host: &Host, arguments: &[&str]) -> Result<String, Error> {
    let endpoint = format!("--endpoints=http://{}:2379", host.address());
    let mut all = vec!["ETCDCTL_API=3", "etcdctl", "--command-timeout=5s", &endpoint];
    all.extend(arguments);
    hosts.run_outside("env", &all, LONG)
}

#[test]
fn an_etcd_lives_through_what_happens_to_its_hosts() {
    if !has_hosts() {
        return;
    }
    let hosts = Hosts::make(options(3)).unwrap();
    let etcd = Etcd::install(&hosts.all().iter().collect::<Vec<_>>()).unwrap();
    hosts.start().unwrap();
    etcd.wait_all(&hosts, LONG).unwrap();
    let leader = etcd.leader(&hosts).unwrap().unwrap();
    let others: Vec<_> = hosts.all().iter().filter(|host| host.number() != leader.number()).collect();
    put(&hosts, others[0], "kept");

    leader.kill().unwrap();
    wait_for("another leads", || etcd.leader(&hosts).unwrap().is_some());
    assert_ne!(etcd.leader(&hosts).unwrap().unwrap().number(), leader.number());
    put(&hosts, others[1], "written without it");
    leader.start().unwrap();
    etcd.wait_all(&hosts, LONG).unwrap();
    assert_eq!(get(&hosts, leader).unwrap().trim(), "key\nwritten without it");

    // Two of three without the third go on; one alone does not.
    let (alone, pair) = (others[0], [others[1], leader]);
    hosts.partition(&[alone], &pair).unwrap();
    wait_for("the pair has a leader", || etcd.wait(&hosts, pair[0], Duration::ZERO).is_ok());
    wait_for("one alone knows that it is", || etcd.wait(&hosts, alone, Duration::ZERO).is_err());
    put(&hosts, pair[0], "written by two");
    hosts.heal().unwrap();
    etcd.wait_all(&hosts, LONG).unwrap();
    assert_eq!(get(&hosts, alone).unwrap().trim(), "key\nwritten by two");
    assert!(etcd.metric(&hosts, alone, "etcd_mvcc_put_total").unwrap() >= 3.0);
}

fn put(hosts: &Hosts, host: &Host, value: &str) {
    etcdctl(hosts, host, &["put", "key", value]).unwrap();
}

fn get(hosts: &Hosts, host: &Host) -> Result<String, Error> {
    etcdctl(hosts, host, &["get", "key"])
}
