//! The command line against a cluster: from any host, by any server, to units on another host.

use std::process::Stdio;

use sealift_lab::cluster::{AGENT, LONG, judge};
use sealift_lab::hosts::Host;
use serde_json::Value;

use super::cluster::{cluster, count_on, launch, names, settle};
use super::{has_hosts, wait_for};

/// Tells how often it has come by, every tenth of a second.
const CHATTY: &str =
    "[Service]\nExecStart=/bin/sh -c 'n=0; while :; do n=$((n+1)); echo round $n; sleep 0.1; done'\n";

fn sealift(host: &Host, words: &[&str]) -> String {
    host.run_within("sealift", words, LONG).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

#[test]
fn units_are_told_of_planned_and_evened_out_from_any_host() {
    if !has_hosts() {
        return;
    }
    let cluster = cluster(3, 3);
    let all: Vec<_> = cluster.hosts().all().iter().collect();
    let [one, two, three] = all.as_slice() else { panic!("three hosts") };

    // A journal is followed through the server here, the leader's store and the agent there.
    let chatty = "chatty.service".parse().unwrap();
    cluster.launch(&[chatty], CHATTY).unwrap();
    wait_for("the unit runs", || {
        sealift(one, &["unit", "status", "chatty.service"]).contains("active (running)")
    });
    let status: Value =
        serde_json::from_str(&sealift(two, &["unit", "status", "chatty", "--output", "json"])).unwrap();
    let said = status["items"][0]["statuses"].as_object().unwrap().values().next().unwrap();
    assert_eq!((&said["active"], &said["sub"]), (&"active".into(), &"running".into()), "{status}");
    for from in &all {
        let mut follow = from.command("sealift").unwrap();
        follow.args(["unit", "journal", "--follow", "--lines", "1", "--format", "cat", "chatty"]);
        let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));
        let rounds: Vec<u64> = lines
            .map(|line| line.unwrap())
            .filter_map(|line| line.strip_prefix("round ").and_then(|round| round.parse().ok()))
            .take(5)
            .collect();
        follow.kill().unwrap();
        follow.wait().unwrap();
        assert!(rounds.len() == 5 && rounds.windows(2).all(|pair| pair[1] == pair[0] + 1), "{rounds:?}");
    }
    cluster.destroy(&["chatty.service".parse().unwrap()]).unwrap();

    // Two hosts are away while units come, and are empty when they are back.
    for host in [two, three] {
        sealift(one, &["machine", "drain", host.name()]);
    }
    let wanted = names(0..6);
    launch(&cluster, &wanted);
    let placed = settle(&cluster, &all, &wanted);
    assert_eq!(count_on(&placed, one), 6, "{placed:?}");
    for host in [two, three] {
        sealift(one, &["machine", "uncordon", host.name()]);
    }
    for from in &all {
        // Each server says the same, and nothing is lost.
        let plan = sealift(from, &["plan", "lose", one.name()]);
        assert_eq!(plan.lines().last(), Some("6 move"), "{plan}");
        let plan = sealift(from, &["machine", "rebalance", "--dry-run"]);
        assert_eq!(plan.lines().last(), Some("4 move"), "{plan}");
    }
    let moved = sealift(three, &["machine", "rebalance"]);
    assert_eq!(moved.lines().filter(|line| line.contains(" moved on ")).count(), 4, "{moved}");
    let after = settle(&cluster, &all, &wanted);
    assert!(all.iter().all(|host| count_on(&after, host) == 2), "{after:?}");
    let of = |seen: &[judge::Seen]| -> Vec<judge::Seen> {
        seen.iter().filter(|seen| seen.host == one.name()).cloned().collect()
    };
    let stayed = of(&after);
    let before: Vec<_> =
        of(&placed).into_iter().filter(|seen| stayed.iter().any(|other| other.unit == seen.unit)).collect();
    assert_eq!(judge::disturbed(&before, &after), Vec::<String>::new(), "what did not move ran on");

    // A machine whose agent is gone is asked in vain, and that is said.
    two.run("systemctl", &["stop", AGENT]).unwrap();
    wait_for("the machine is away", || {
        let machines = cluster.machines().unwrap();
        machines.iter().filter(|machine| machine.presence.is_some()).count() == 2
    });
    let plan = sealift(one, &["plan", "lose", two.name()]);
    assert_eq!(plan.lines().last(), Some("nothing would be done"), "it is gone already: {plan}");
}
