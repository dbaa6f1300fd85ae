//! How a cluster is: each member asked by itself, and what a person should know before it hurts.

use std::process::ExitCode;

use futures_util::future::join_all;
use sealift_model::diagnostic::chain;
use sealift_store::etcd::{AlarmKind, Maintenance, Member, MemberStatus};
use serde_json::json;

use super::{asked, maintenance};
use crate::cli::{EtcdArgs, Global};
use crate::error::{Error, FAILED};
use crate::print::{Printer, Style, visible};

/// etcd's own, where it does not tell.
const QUOTA: u64 = 2 << 30;
/// From this part of the quota on it is said: so many of five.
const NEAR_QUOTA: u64 = 4;
/// A member that is so far behind the others is not merely a moment late.
const LAG: u64 = 1_000;
/// Free space that is not worth a word, in bytes.
const WORTH: u64 = 64 << 20;

/// A member, and how it says it is; the error if it says nothing.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) member: Member,
    /// The client URL that was asked.
    pub(super) url: Option<String>,
    pub(super) status: Result<MemberStatus, String>,
}

impl Seen {
    /// It answers and knows who leads.
    pub(super) fn is_well(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| status.leader.is_some())
    }

    pub(super) fn is_leader(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| status.leader == Some(self.member.id))
    }

    pub(super) fn name(&self) -> String {
        if self.member.name.is_empty() { id(self.member.id) } else { visible(&self.member.name) }
    }
}

/// A cluster as its members tell.
#[derive(Debug, Clone)]
pub(super) struct Health {
    pub(super) members: Vec<Seen>,
    pub(super) alarms: Vec<(String, AlarmKind)>,
}

/// As etcd prints it.
pub(super) fn id(number: u64) -> String {
    format!("{number:x}")
}

/// So many have to agree.
pub(super) fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

impl Health {
    pub(super) async fn look(cluster: &Maintenance) -> Result<Health, sealift_store::Error> {
        let members = cluster.members_without_leader().await?;
        let members = join_all(members.into_iter().map(|member| see(cluster, member))).await;
        let mut health = Health { members, alarms: Vec::new() };
        if health.has_quorum() {
            let alarms = cluster.alarms().await?;
            health.alarms = alarms
                .into_iter()
                .map(|alarm| {
                    let member = health.members.iter().find(|seen| seen.member.id == alarm.member);
                    (member.map_or_else(|| id(alarm.member), Seen::name), alarm.kind)
                })
                .collect();
        }
        Ok(health)
    }

    pub(super) fn voters(&self) -> impl Iterator<Item = &Seen> {
        self.members.iter().filter(|seen| !seen.member.is_learner)
    }

    /// Voters that answer and have a leader.
    pub(super) fn well(&self) -> usize {
        self.voters().filter(|seen| seen.is_well()).count()
    }

    pub(super) fn has_quorum(&self) -> bool {
        self.well() >= quorum(self.voters().count())
    }

    fn leader(&self) -> Option<&Seen> {
        self.members.iter().find(|seen| seen.is_leader())
    }

    /// What is wrong and does not pass by itself.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let voters = self.voters().count();
        if !self.has_quorum() {
            problems.push(format!(
                "no quorum: {} of {voters} members work together, {} have to; nothing can be written. Start members again, \
                 or restore a backup: sealift etcd restore --help",
                self.well(),
                quorum(voters)
            ));
        }
        for seen in self.members.iter().filter(|seen| !seen.is_well()) {
            let why = match &seen.status {
                Ok(_) => "it knows of no leader".to_owned(),
                Err(_) if seen.member.client_urls.is_empty() => {
                    "it was added and has not started yet".to_owned()
                }
                Err(error) => visible(error),
            };
            problems.push(format!("member {} is not well: {why}", seen.name()));
        }
        for (member, kind) in &self.alarms {
            problems.push(match kind {
                AlarmKind::NoSpace => format!(
                    "member {member} has used up its quota, and etcd takes no writes: sealift etcd defrag --all --disarm, or \
                     start the members with a larger --quota-backend-bytes"
                ),
                AlarmKind::Corrupt => format!(
                    "member {member} has other data than the rest: replace it: sealift etcd member replace {member}"
                ),
                AlarmKind::Other(number) => format!("member {member} has raised alarm {number}"),
            });
        }
        for seen in &self.members {
            // Alarms are among them, in etcd's words.
            let errors = seen.status.iter().flat_map(|status| &status.errors);
            let errors = errors.filter(|error| !error.contains("alarm:"));
            problems.extend(errors.map(|error| format!("member {}: {}", seen.name(), visible(error))));
        }
        problems
    }

    /// What works now and may not for long.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let voters = self.voters().count();
        if voters == 1 {
            warnings.push(
                "there is only one member: if its disk is lost, so is the state. Have three".to_owned(),
            );
        } else if voters.is_multiple_of(2) {
            warnings.push(format!(
                "{voters} members are an even number: they bear no more losses than {}, and one more can be lost. Have {}",
                voters - 1,
                voters + 1
            ));
        }
        if voters > 1 && self.well() == quorum(voters) {
            warnings.push("no member more may be lost: the next one that fails stops all writes".to_owned());
        }
        let up: Vec<_> = self
            .members
            .iter()
            .filter_map(|seen| seen.status.as_ref().ok().map(|status| (seen, status)))
            .collect();
        let mut versions: Vec<_> = up.iter().map(|(_, status)| status.version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        if versions.len() > 1 {
            warnings.push(format!("the members' versions differ: {}", visible(&versions.join(", "))));
        }
        let newest = up.iter().map(|(_, status)| status.raft_index).max().unwrap_or(0);
        for (seen, status) in &up {
            let name = seen.name();
            let quota = status.db_quota.unwrap_or(QUOTA);
            if status.db_size >= quota / 5 * NEAR_QUOTA {
                warnings.push(format!(
                    "the database of {name} has {}, near its quota of {}{}: sealift etcd defrag",
                    size(status.db_size),
                    size(quota),
                    if status.db_quota.is_some() { "" } else { " (etcd's default; it does not tell)" }
                ));
            }
            let free = status.db_size.saturating_sub(status.db_in_use);
            if free >= WORTH && free > status.db_size / 2 {
                warnings
                    .push(format!("{} of the database of {name} are free: sealift etcd defrag", size(free)));
            }
            let behind = newest.saturating_sub(status.raft_applied);
            if behind > LAG {
                warnings.push(format!(
                    "{name} is {behind} entries behind: its disk, its network or its clock is slow"
                ));
            }
        }
        if voters > 1 {
            for seen in &self.members {
                if let Some(url) = seen.member.peer_urls.iter().find(|url| is_loopback(url)) {
                    warnings.push(format!(
                        "{} is reached by the others at {}, which is only this machine",
                        seen.name(),
                        visible(url)
                    ));
                }
            }
        }
        warnings
    }
}

async fn see(cluster: &Maintenance, member: Member) -> Seen {
    let mut status = Err("it has told no client URL".to_owned());
    let mut asked = None;
    for url in &member.client_urls {
        asked = Some(url.clone());
        status = cluster.status(url).await.map_err(|error| chain(&error));
        // An address that moved may be another member's by now.
        if let Ok(of) = &status
            && of.member != member.id
        {
            status = Err(format!("at {url} there is another member, {}", id(of.member)));
        }
        if status.is_ok() {
            break;
        }
    }
    Seen { member, url: asked, status }
}

fn is_loopback(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
}

/// `1.5 GiB`
pub(super) fn size(bytes: u64) -> String {
    let (unit, word) = match bytes {
        0..0x10_0000 => (1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    format!("{}.{} {word}", bytes / unit, bytes % unit * 10 / unit)
}

pub(super) async fn status(args: &EtcdArgs, global: &Global) -> Result<ExitCode, Error> {
    let health = Health::look(&maintenance(args)?).await.map_err(asked)?;
    let (problems, warnings) = (health.problems(), health.warnings());
    let code = if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
    let printer = Printer::new(global.output);
    if printer.is_json() {
        let members: Vec<_> = health.members.iter().map(to_json).collect();
        let alarms: Vec<_> = health
            .alarms
            .iter()
            .map(|(member, kind)| json!({ "member": member, "alarm": format!("{kind:?}") }))
            .collect();
        printer.json(&json!({
            "healthy": problems.is_empty(),
            "quorum": health.has_quorum(),
            "leader": health.leader().map(Seen::name),
            "members": members,
            "alarms": alarms,
            "problems": problems,
            "warnings": warnings,
        }))?;
        return Ok(code);
    }
    let rows: Vec<_> = health.members.iter().map(|seen| row(&printer, seen)).collect();
    let headings = ["MEMBER", "ID", "PEERS", "CLIENTS", "VERSION", "DB", "IN USE", "TERM", "INDEX", "STATE"];
    printer.table(&headings, &rows)?;
    for problem in &problems {
        printer.line(&printer.paint(Style::Bad, &format!("problem: {problem}")))?;
    }
    for warning in &warnings {
        printer.line(&printer.paint(Style::Careful, &format!("warning: {warning}")))?;
    }
    Ok(code)
}

fn row(printer: &Printer, seen: &Seen) -> Vec<String> {
    let member = &seen.member;
    let or_dash = |text: String| if text.is_empty() { "-".into() } else { visible(&text) };
    let mut row = vec![
        seen.name(),
        id(member.id),
        or_dash(member.peer_urls.join(",")),
        or_dash(member.client_urls.join(",")),
    ];
    match &seen.status {
        Ok(status) => row.extend([
            visible(&status.version),
            size(status.db_size),
            size(status.db_in_use),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
        ]),
        Err(_) => row.extend(["-"; 5].map(str::to_owned)),
    }
    let (style, word) = match &seen.status {
        Ok(_) if seen.is_leader() => (Style::Good, "leads"),
        Ok(_) if !seen.is_well() => (Style::Bad, "no leader"),
        Ok(_) if member.is_learner => (Style::Good, "learns"),
        Ok(_) => (Style::Good, "follows"),
        Err(_) if member.client_urls.is_empty() => (Style::Bad, "not started"),
        Err(_) => (Style::Bad, "away"),
    };
    row.push(printer.paint(style, word));
    row
}

fn to_json(seen: &Seen) -> serde_json::Value {
    let member = &seen.member;
    let status = seen.status.as_ref().ok();
    json!({
        "name": member.name,
        "id": id(member.id),
        "peer_urls": member.peer_urls,
        "client_urls": member.client_urls,
        "learner": member.is_learner,
        "well": seen.is_well(),
        "leads": seen.is_leader(),
        "error": seen.status.as_ref().err(),
        "version": status.map(|status| &status.version),
        "db_size": status.map(|status| status.db_size),
        "db_in_use": status.map(|status| status.db_in_use),
        "db_quota": status.and_then(|status| status.db_quota),
        "raft_term": status.map(|status| status.raft_term),
        "raft_index": status.map(|status| status.raft_index),
        "raft_applied": status.map(|status| status.raft_applied),
        "revision": status.map(|status| status.revision),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: u64, is_up: bool) -> Seen {
        let member = Member {
            id: number,
            name: format!("m{number}"),
            peer_urls: vec![format!("http://10.0.0.{number}:2380")],
            client_urls: vec![format!("http://10.0.0.{number}:2379")],
            is_learner: false,
        };
        let status = MemberStatus {
            cluster: 1,
            member: number,
            leader: Some(1),
            version: "3.4.23".into(),
            db_size: 1 << 20,
            db_in_use: 1 << 20,
            db_quota: None,
            raft_term: 2,
            raft_index: 5_000,
            raft_applied: 5_000,
            revision: 10,
            errors: Vec::new(),
        };
        let status = if is_up { Ok(status) } else { Err("gone".into()) };
        Seen { url: member.client_urls.first().cloned(), member, status }
    }

    fn cluster(up: usize, down: usize) -> Health {
        let members = (1..=up + down).map(|number| seen(number as u64, number <= up)).collect();
        Health { members, alarms: Vec::new() }
    }

    fn status(health: &mut Health, number: usize) -> &mut MemberStatus {
        health.members[number].status.as_mut().unwrap()
    }

    #[test]
    fn what_is_said_by_table() {
        let has = |texts: &[String], word: &str| texts.iter().any(|text| text.contains(word));
        let well = cluster(3, 0);
        assert_eq!((well.problems(), well.warnings()), (vec![], vec![]));
        assert!(has(&cluster(1, 0).warnings(), "only one member"));
        assert!(has(&cluster(4, 0).warnings(), "even number") && cluster(4, 0).problems().is_empty());
        assert!(has(&cluster(2, 0).warnings(), "no member more"));
        let thin = cluster(2, 1);
        assert!(has(&thin.warnings(), "no member more") && has(&thin.problems(), "m3 is not well: gone"));
        assert!(!has(&thin.problems(), "no quorum"));
        assert!(has(&cluster(1, 2).problems(), "no quorum: 1 of 3"));

        let mut odd = cluster(3, 0);
        status(&mut odd, 0).version = "3.5.1".into();
        status(&mut odd, 1).raft_applied = 10;
        status(&mut odd, 2).db_size = QUOTA / 10 * 9;
        odd.members[0].member.peer_urls = vec!["http://127.0.0.1:2380".into()];
        let warnings = odd.warnings();
        for word in [
            "versions differ",
            "m2 is 4990 entries behind",
            "near its quota",
            "are free",
            "only this machine",
        ] {
            assert!(has(&warnings, word), "{word}: {warnings:?}");
        }
        odd.alarms = vec![("m1".into(), AlarmKind::NoSpace)];
        assert!(has(&odd.problems(), "used up its quota"));
        assert_eq!([size(2048), size(3 << 19), size(2 << 30)], ["2.0 KiB", "1.5 MiB", "2.0 GiB"]);
    }
}
