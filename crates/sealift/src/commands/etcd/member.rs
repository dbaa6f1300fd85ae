//! Changes of a cluster's members. What would leave the rest without a quorum is refused, with the way out.

use std::process::ExitCode;

use sealift_store::etcd::{Maintenance, Member, NewMember};
use serde_json::json;

use super::health::{Health, Seen, id, quorum};
use super::{asked, maintenance};
use crate::cli::{EtcdArgs, Global, MemberAdd, MemberCommand, MemberMove, MemberReplace, OneMember};
use crate::error::Error;
use crate::print::Printer;

pub(super) async fn member(command: MemberCommand, global: &Global) -> Result<ExitCode, Error> {
    match command {
        MemberCommand::Add(args) => add(args, global).await,
        MemberCommand::Remove(args) => remove(&args, global).await,
        MemberCommand::Replace(args) => replace(args, global).await,
        MemberCommand::Move(args) => move_to(args, global).await,
    }
}

async fn look(args: &EtcdArgs) -> Result<(Maintenance, Health), Error> {
    let cluster = maintenance(args)?;
    let health = Health::look(&cluster).await.map_err(asked)?;
    if health.has_quorum() {
        return Ok((cluster, health));
    }
    let voters = health.voters().count();
    Err(Error::with_help(
        format!(
            "the cluster has no quorum: {} of {voters} members work together, {} have to; nothing was changed",
            health.well(),
            quorum(voters)
        ),
        "start members again, or restore a backup: sealift etcd restore --help",
    ))
}

fn find<'a>(health: &'a Health, word: &str) -> Result<&'a Seen, Error> {
    let is_meant = |seen: &&Seen| {
        let member = &seen.member;
        member.name == word
            || id(member.id) == word
            || member.peer_urls.iter().chain(&member.client_urls).any(|url| url.trim_end_matches('/') == word)
    };
    let mut meant = health.members.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(seen), None) => Ok(seen),
        (Some(_), Some(_)) => Err(Error::with_help(
            format!("{word} is more than one member"),
            "name it by its id: sealift etcd status",
        )),
        (None, _) => {
            let known: Vec<_> = health.members.iter().map(Seen::name).collect();
            Err(Error::plain(format!("there is no member {word}; there are {}", known.join(", "))))
        }
    }
}

async fn add(args: MemberAdd, global: &Global) -> Result<ExitCode, Error> {
    let (cluster, health) = look(&args.etcd).await?;
    urls(&args.peer_url)?;
    if let Some(other) = health.members.iter().find(|seen| seen.member.name == args.name) {
        return Err(Error::with_help(
            format!("there is a member {} already, {}", args.name, id(other.member.id)),
            "choose another name, or see: sealift etcd member replace --help",
        ));
    }
    let voters = health.voters().count();
    // With one member there is no other way.
    if voters > 1 && health.well() < quorum(voters + 1) {
        return Err(Error::with_help(
            format!(
                "with one member more {} have to work together, and {} do; nothing was changed",
                quorum(voters + 1),
                health.well()
            ),
            "replace the member that is away: sealift etcd member replace --help",
        ));
    }
    let added = cluster.add(args.peer_url).await.map_err(asked)?;
    tell(&added, &args.name, &health, voters == 1, global)
}

/// How the new member is started.
fn tell(
    added: &NewMember,
    name: &str,
    health: &Health,
    alone: bool,
    global: &Global,
) -> Result<ExitCode, Error> {
    let peers = added.member.peer_urls.join(",");
    let initial = initial_cluster(&added.members, added.member.id, name);
    let join = health.members.iter().find(|seen| seen.is_well()).and_then(|seen| seen.url.clone());
    let command = format!(
        "sealift etcd start --name {name} --data-dir /var/lib/etcd --peer-url {peers} --join {}",
        join.unwrap_or_default()
    );
    let environment = [
        ("ETCD_NAME", name.to_owned()),
        ("ETCD_INITIAL_CLUSTER", initial),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", peers),
        ("ETCD_INITIAL_CLUSTER_STATE", "existing".to_owned()),
    ];
    let printer = Printer::new(global.output);
    if printer.is_json() {
        let environment: std::collections::BTreeMap<_, _> = environment.into_iter().collect();
        printer.json(&json!({
            "added": { "id": id(added.member.id), "name": name, "peer_urls": added.member.peer_urls },
            "command": command,
            "environment": environment,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.line(&format!("member {name} is added as {}; start it on its machine:", id(added.member.id)))?;
    printer.line(&format!("\n  {command}\n\nor its etcd, with an empty data directory and:\n"))?;
    for (key, value) in environment {
        printer.line(&format!("  {key}={value}"))?;
    }
    if alone {
        printer.line("\nUntil it runs nothing can be written: two members need both.")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// As etcd takes it; the new member has told no name yet.
pub(super) fn initial_cluster(members: &[Member], new: u64, name: &str) -> String {
    let parts = members.iter().flat_map(|member| {
        let name = if member.id == new { name } else { &member.name };
        member.peer_urls.iter().map(move |url| format!("{name}={url}"))
    });
    parts.collect::<Vec<_>>().join(",")
}

fn may_go(health: &Health, seen: &Seen) -> Result<(), Error> {
    let rest: Vec<_> = health.voters().filter(|other| other.member.id != seen.member.id).collect();
    let well = rest.iter().filter(|other| other.is_well()).count();
    if rest.is_empty() {
        return Err(Error::plain("it is the last member; nothing was changed"));
    }
    if !seen.member.is_learner && well < quorum(rest.len()) {
        return Err(Error::with_help(
            format!(
                "without {} there are {} members of whom {} have to work together, and {well} do; nothing was changed",
                seen.name(),
                rest.len(),
                quorum(rest.len())
            ),
            "start the members that are away first: sealift etcd status",
        ));
    }
    Ok(())
}

async fn remove(args: &OneMember, global: &Global) -> Result<ExitCode, Error> {
    let (cluster, health) = look(&args.etcd).await?;
    let seen = find(&health, &args.member)?;
    may_go(&health, seen)?;
    cluster.remove(seen.member.id).await.map_err(asked)?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&json!({ "removed": { "id": id(seen.member.id), "name": seen.member.name } }))?;
    } else {
        printer
            .line(&format!("member {} is removed; its data directory is of no use any more", seen.name()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn replace(args: MemberReplace, global: &Global) -> Result<ExitCode, Error> {
    let (cluster, health) = look(&args.etcd).await?;
    let lost = find(&health, &args.member)?;
    if lost.is_well() {
        return Err(Error::with_help(
            format!("member {} is there and well; nothing was changed", lost.name()),
            "stop it first; if only its address is another: sealift etcd member move --help",
        ));
    }
    may_go(&health, lost)?;
    let peer_urls = if args.peer_url.is_empty() { lost.member.peer_urls.clone() } else { args.peer_url };
    urls(&peer_urls)?;
    let name = args.name.unwrap_or_else(|| lost.name());
    cluster.remove(lost.member.id).await.map_err(asked)?;
    let added = cluster.add(peer_urls.clone()).await.map_err(|error| {
        let Error::Plain { message, .. } = asked(error) else {
            return Error::plain("the new member could not be added");
        };
        Error::with_help(
            format!("{} is removed, and the new member could not be added: {message}", lost.name()),
            format!("sealift etcd member add {name} --peer-url {}", peer_urls.join(",")),
        )
    })?;
    tell(&added, &name, &health, false, global)
}

async fn move_to(args: MemberMove, global: &Global) -> Result<ExitCode, Error> {
    let (cluster, health) = look(&args.etcd).await?;
    let seen = find(&health, &args.member)?;
    urls(&args.peer_url)?;
    // Until it is started there, the others have to do without it.
    let voters = health.voters().count();
    let rest = health.voters().filter(|other| other.member.id != seen.member.id && other.is_well()).count();
    if voters > 1 && rest < quorum(voters) {
        return Err(Error::with_help(
            format!(
                "until {} runs at its new address only {rest} members work together, and {} have to; nothing was changed",
                seen.name(),
                quorum(voters)
            ),
            "start the members that are away first: sealift etcd status",
        ));
    }
    cluster.update(seen.member.id, args.peer_url.clone()).await.map_err(asked)?;
    let peers = args.peer_url.join(",");
    let command = format!(
        "sealift etcd start --name {} --data-dir /var/lib/etcd --peer-url {peers} --client-url http://NEW-ADDRESS:2379",
        seen.name()
    );
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&json!({
            "moved": { "id": id(seen.member.id), "name": seen.member.name, "peer_urls": args.peer_url },
            "command": command,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.line(&format!(
        "the others look for {} at {peers} now; start it there with its data:",
        seen.name()
    ))?;
    printer
        .line(&format!("\n  {command}\n\nIf its client URL is another too, change --etcd of the servers."))?;
    Ok(ExitCode::SUCCESS)
}

fn urls(urls: &[String]) -> Result<(), Error> {
    for url in urls {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let port = rest.and_then(|rest| rest.rsplit_once(':')).and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return Err(Error::with_help(
                format!("{url} is no peer URL; nothing was changed"),
                "expected http:// or https://, a host and a port, such as http://10.0.0.4:2380",
            ));
        }
    }
    Ok(())
}
