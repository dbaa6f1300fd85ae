//! The judge: whether a cluster is as it promises to be, by what systemd says on each host.
//!
//! It asks no server and no agent, so that none of them is believed. It looks from outside, at the first of the things that must
//! always be true: among machines in contact a unit runs on at most one, all that is to run runs, and nothing runs that is not to;
//! and, by systemd's own number for each life of a unit, that what should have been left alone was.
//!
//! It must not know what was done to the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealift_model::UnitName;

use super::{Cluster, Error, wait};
use crate::hosts::{self, Host};

/// What the names of units that the lab tries begin with.
pub const PREFIX: &str = "tried-";

/// One unit on one host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub unit: String,
    pub host: String,
    /// systemd's ActiveState.
    pub active: String,
    /// systemd's number for this life of the unit.
    pub invocation: String,
}

impl Seen {
    /// Whether processes of it may be there.
    fn runs(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed")
    }
}

/// The lab's units on these hosts.
///
/// # Errors
/// When a host is off, or its systemd does not answer.
pub fn look(hosts: &[&Host]) -> Result<Vec<Seen>, hosts::Error> {
    let mut seen = Vec::new();
    for host in hosts {
        let pattern = format!("{PREFIX}*");
        let properties = "--property=Id,ActiveState,InvocationID";
        let text = host.run("systemctl", &["show", "--all", properties, &pattern])?;
        seen.extend(read(host.name(), &text));
    }
    seen.sort();
    Ok(seen)
}

/// systemctl's answer: lines of KEY=VALUE, an empty line between two units.
fn read(host: &str, text: &str) -> Vec<Seen> {
    let blocks = text.split("\n\n").filter_map(|block| {
        let fields: BTreeMap<_, _> = block.lines().filter_map(|line| line.split_once('=')).collect();
        let field = |name| fields.get(name).map(|value: &&str| (*value).to_owned());
        let (unit, active) = (field("Id")?, field("ActiveState")?);
        Some(Seen {
            unit,
            host: host.to_owned(),
            active,
            invocation: field("InvocationID").unwrap_or_default(),
        })
    });
    blocks.collect()
}

/// What is wrong at rest with the units that are to run, on hosts that are in contact.
#[must_use]
pub fn judge(wanted: &BTreeSet<UnitName>, seen: &[Seen]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for one in seen.iter().filter(|seen| seen.runs()) {
        places.entry(&one.unit).or_default().push(one);
    }
    let mut complaints = Vec::new();
    for (unit, places) in &places {
        let at: Vec<_> = places.iter().map(|seen| format!("{} ({})", seen.host, seen.active)).collect();
        let at = at.join(" and ");
        if !wanted.iter().any(|name| name.as_str() == *unit) {
            complaints.push(format!("{unit} runs on {at}, and is not to"));
        } else if places.len() > 1 {
            complaints.push(format!("{unit} runs on {at}"));
        } else if places.iter().any(|seen| seen.active != "active") {
            complaints.push(format!("{unit} is not active on {at}"));
        }
    }
    let missing = wanted.iter().filter(|name| !places.contains_key(name.as_str()));
    complaints.extend(missing.map(|name| format!("{name} runs nowhere")));
    complaints
}

/// Which of the units that ran before have not been left alone: they run elsewhere, not at all, or another life.
#[must_use]
pub fn disturbed(before: &[Seen], after: &[Seen]) -> Vec<String> {
    let is_there = |seen: &&Seen| !after.contains(seen);
    let gone = before.iter().filter(|seen| seen.runs()).filter(is_there);
    gone.map(|seen| format!("{} on {} was not left alone", seen.unit, seen.host)).collect()
}

/// Waits until the judge has nothing to say of these hosts, which are to be in contact; gives what was seen then.
///
/// # Errors
/// When there is still something after this time; the message says what.
pub fn settle(hosts: &[&Host], wanted: &BTreeSet<UnitName>, limit: Duration) -> Result<Vec<Seen>, Error> {
    let last = std::cell::RefCell::new(Vec::new());
    wait("the cluster settles", limit, || {
        *last.borrow_mut() = look(hosts)?;
        Ok(judge(wanted, &last.borrow()))
    })?;
    Ok(last.into_inner())
}

impl Cluster {
    /// As [`settle`], with all hosts.
    ///
    /// # Errors
    /// As [`settle`].
    pub fn settle(&self, wanted: &BTreeSet<UnitName>, limit: Duration) -> Result<Vec<Seen>, Error> {
        settle(&self.hosts.all().iter().collect::<Vec<_>>(), wanted, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(unit: &str, host: &str, active: &str) -> Seen {
        let text = |text: &str| text.to_owned();
        Seen { unit: text(unit), host: text(host), active: text(active), invocation: text("1") }
    }

    #[test]
    fn complaints_by_table() {
        let wanted: BTreeSet<UnitName> =
            ["tried-a.service", "tried-b.service"].map(|name| name.parse().unwrap()).into();
        let (a, b) = (seen("tried-a.service", "h1", "active"), seen("tried-b.service", "h2", "active"));
        assert_eq!(
            judge(&wanted, &[a.clone(), b.clone(), seen("tried-a.service", "h2", "inactive")]),
            [""; 0]
        );
        assert_eq!(judge(&wanted, std::slice::from_ref(&a)), ["tried-b.service runs nowhere"]);
        assert_eq!(
            judge(&wanted, &[a.clone(), b.clone(), seen("tried-a.service", "h3", "deactivating")]),
            ["tried-a.service runs on h1 (active) and h3 (deactivating)"]
        );
        assert_eq!(
            judge(&wanted, &[a.clone(), seen("tried-b.service", "h2", "activating")]),
            ["tried-b.service is not active on h2 (activating)"]
        );
        assert_eq!(
            judge(&wanted, &[a.clone(), b.clone(), seen("tried-c.service", "h1", "active")]),
            ["tried-c.service runs on h1 (active), and is not to"]
        );
        assert_eq!(disturbed(&[a.clone(), b.clone()], &[b.clone(), a.clone()]), [""; 0]);
        let again = Seen { invocation: "2".into(), ..a.clone() };
        assert_eq!(disturbed(&[a, b.clone()], &[again, b]), ["tried-a.service on h1 was not left alone"]);
    }

    #[test]
    fn reads_what_systemctl_says() {
        let text = "Id=tried-a.service\nActiveState=active\nInvocationID=1\n\nId=tried-b.service\nActiveState=failed\nInvocationID=\n";
        let failed = Seen { invocation: String::new(), ..seen("tried-b.service", "h1", "failed") };
        assert_eq!(read("h1", text), [seen("tried-a.service", "h1", "active"), failed]);
        assert_eq!(read("h1", ""), []);
    }
}
