//! A cluster on three hosts beside bare `systemctl` on the same hosts: starting units, destroying them, rest, and a lost host.
//!
//! The hosts' disks are in memory, those of etcd too: what is measured is the work, not a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealift_model::UnitName;

use super::{Error, Figure, Report, median, millis};
use crate::cluster::{AGENT, Cluster, LONG, MACHINE_TTL, Plan, SERVER, judge};
use crate::hosts::{self, Host};

const HOSTS: usize = 3;
const ROUNDS: usize = 5;
const UNITS: usize = 200;
/// So many are destroyed in one command.
const DESTROYED: usize = 50;
/// How long the cluster is watched doing nothing.
const REST: Duration = Duration::from_secs(60);
/// `_SC_CLK_TCK` of Linux on every machine that matters here, proc(5).
const TICKS_PER_SECOND: f64 = 100.0;
const TEXT: &str = "[Service]\nExecStart=/bin/sleep 1d\n";
/// systemd itself, which is no service.
const FIRST: &str = "init.scope";
/// The bars of the design.
const RATIO: f64 = 1.5;
const ONE_MILLIS: f64 = 50.0;
const DESTROY_MILLIS: f64 = 1000.0;

pub(super) fn run() -> Result<Report, Error> {
    let binary =
        std::env::current_exe().map_err(super::io("find", "this program"))?.with_file_name("sealift");
    let base = hosts::base(None).map_err(failed("no tree to boot from"))?;
    let plan = Plan { hosts: HOSTS, servers: HOSTS, base, program: binary };
    let cluster = Cluster::start(&plan).map_err(failed("no cluster"))?;
    let mut figures = start_and_destroy(&cluster)?;
    figures.extend(rest_and_loss(&cluster)?);
    Ok(Report { bench: "cluster", figures })
}

/// With what it comes from.
fn failed<E: std::error::Error>(what: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::failed(what, sealift_model::diagnostic::chain(&error))
}

fn start_and_destroy(cluster: &Cluster) -> Result<Vec<Figure>, Error> {
    let hosts = cluster.hosts().all();
    for host in hosts {
        host.write("/etc/systemd/system/bare@.service", TEXT).map_err(failed("no unit file"))?;
        host.run("systemctl", &["daemon-reload"]).map_err(failed("no reload"))?;
    }
    let mut times = Times::default();
    for round in 0..ROUNDS {
        times.bare.push(bare(hosts, round)?);
        let template = format!("tried-{round}@");
        command(cluster, "submit", &template, TEXT)?;
        let before = works(cluster)?;
        times.ours.push(command(cluster, "start", &format!("{template}{{1..{UNITS}}}.service"), "")?);
        for ((what, before), (_, after)) in before.into_iter().zip(works(cluster)?) {
            times.work.entry(what).or_default().push((after - before) / TICKS_PER_SECOND * 1000.0);
        }
        let all = names(&template, 1..=UNITS);
        // What the command says has to be so.
        cluster.settle(&all, Duration::ZERO).map_err(failed("the command came back too early"))?;
        times.one.push(command(cluster, "start", &format!("{template}one.service"), "")?);
        let some = format!("{template}{{1..{DESTROYED}}}.service");
        times.destroyed.push(command(cluster, "destroy", &some, "")?);
        command(cluster, "destroy", &format!("{template}*"), "")?;
        cluster.settle(&BTreeSet::new(), LONG).map_err(failed("units stay"))?;
    }
    let (bare, ours) = (median(&times.bare), median(&times.ours));
    let mut figures = vec![
        Figure::new(format!("{UNITS} units, bare systemctl start"), bare, "ms"),
        Figure::new(format!("{UNITS} units, sealift unit start"), ours, "ms"),
        Figure::new("the latter over the former", ours / bare, "times").under(RATIO),
    ];
    let work = times.work.iter();
    figures.extend(
        work.map(|(what, of)| Figure::new(format!("of it CPU of {what}, all hosts"), median(of), "ms")),
    );
    figures.extend([
        Figure::new("one unit more", median(&times.one), "ms").under(ONE_MILLIS),
        Figure::new(format!("{DESTROYED} units destroyed"), median(&times.destroyed), "ms")
            .under(DESTROY_MILLIS),
    ]);
    Ok(figures)
}

/// In milliseconds, one a round.
#[derive(Debug, Default)]
struct Times {
    bare: Vec<f64>,
    ours: Vec<f64>,
    one: Vec<f64>,
    destroyed: Vec<f64>,
    /// Of the processor, while units are started, by what uses it.
    work: BTreeMap<&'static str, Vec<f64>>,
}

/// What each of those that take part in a start has used so far on all hosts, in ticks.
fn works(cluster: &Cluster) -> Result<Vec<(&'static str, f64)>, Error> {
    let of = |(what, service): (&'static str, &str)| Ok((what, ticks(cluster, service)?));
    [("servers", SERVER), ("agents", AGENT), ("etcd", "etcd"), ("systemd", FIRST), ("the bus", "dbus")]
        .into_iter()
        .map(of)
        .collect()
}

/// Starts as many units, spread the same way, all hosts at once; stops them again.
fn bare(hosts: &[Host], round: usize) -> Result<f64, Error> {
    let on = |host: &Host, action: &str| {
        let own = (1..=UNITS).filter(|number| number % hosts.len() + 1 == host.number());
        let units: Vec<_> = own.map(|number| format!("bare@{round}-{number}.service")).collect();
        let mut words = vec![action];
        words.extend(units.iter().map(String::as_str));
        host.run("systemctl", &words).map(drop)
    };
    let begun = Instant::now();
    Host::at_once(hosts, |host| on(host, "start")).map_err(failed("systemctl start"))?;
    let took = millis(begun.elapsed());
    Host::at_once(hosts, |host| on(host, "stop")).map_err(failed("systemctl stop"))?;
    Ok(took)
}

/// How long `sealift unit ACTION NAME` takes from its start to its end; with a text it is given a file.
fn command(cluster: &Cluster, action: &str, name: &str, text: &str) -> Result<f64, Error> {
    let dir = tempfile::tempdir().map_err(super::io("make", "a directory"))?;
    let unit = if text.is_empty() {
        name.to_owned()
    } else {
        let file = dir.path().join(format!("{name}.service"));
        std::fs::write(&file, text).map_err(super::io("write", "a unit file"))?;
        file.display().to_string()
    };
    let server = cluster.hosts().host(1).map_err(failed("no host"))?;
    let begun = Instant::now();
    cluster.call(server, &["unit", action, &unit], LONG).map_err(failed("the command"))?;
    Ok(millis(begun.elapsed()))
}

fn names(template: &str, numbers: std::ops::RangeInclusive<usize>) -> BTreeSet<UnitName> {
    numbers.filter_map(|number| format!("{template}{number}.service").parse().ok()).collect()
}

fn rest_and_loss(cluster: &Cluster) -> Result<Vec<Figure>, Error> {
    let template = "tried-rest@";
    command(cluster, "submit", template, TEXT)?;
    command(cluster, "start", &format!("{template}{{1..{UNITS}}}.service"), "")?;
    let all = names(template, 1..=UNITS);
    cluster.settle(&all, LONG).map_err(failed("units do not run"))?;
    let (messages, writes) =
        (store(cluster, "grpc_server_msg_received_total")?, store(cluster, "etcd_mvcc_put_total")?);
    let ticks = [ticks(cluster, SERVER)?, ticks(cluster, AGENT)?];
    let begun = Instant::now();
    // Nothing is waited for here: this is what is measured.
    std::thread::sleep(REST);
    let messages = store(cluster, "grpc_server_msg_received_total")? - messages;
    let writes = store(cluster, "etcd_mvcc_put_total")? - writes;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = |service, before| {
        Ok::<_, Error>((self::ticks(cluster, service)? - before) / TICKS_PER_SECOND / seconds * 100.0)
    };
    let [of_servers, of_agents] = ticks;
    let (servers, agents) = (cpu(SERVER, of_servers)?, cpu(AGENT, of_agents)?);
    let (dead, rest) = loss(cluster)?;
    let begun = Instant::now();
    dead.kill().map_err(failed("no power cut"))?;
    let one = rest.first().ok_or_else(|| Error::Needs("another host".into()))?;
    cluster.wait_until_away(one, dead, LONG).map_err(failed("the lease goes on"))?;
    let away = begun.elapsed().as_secs_f64();
    // By the server's word, which costs less to ask for; what it says has to be so.
    cluster.wait_until_run(one, &all, LONG).map_err(failed("units are lost"))?;
    let lost = begun.elapsed().as_secs_f64();
    judge::settle(&rest, &all, Duration::ZERO).map_err(failed("the server says so too early"))?;
    Ok(vec![
        Figure::new(format!("at rest with {UNITS} units, messages to the store"), messages / seconds, "/s"),
        Figure::new("at rest, values written to the store", writes / seconds, "/s"),
        Figure::new(format!("at rest, {HOSTS} servers"), servers, "% of a core"),
        Figure::new(format!("at rest, {HOSTS} agents"), agents, "% of a core"),
        Figure::new("a killed host counts as away", away, "s"),
        Figure::new("its units run elsewhere", lost, "s").under(MACHINE_TTL.as_secs_f64() + 1.0),
    ])
}

/// A host whose loss costs neither store nor controllers their leader, and the others.
fn loss(cluster: &Cluster) -> Result<(&Host, Vec<&Host>), Error> {
    let leads = cluster.etcd().leader(cluster.hosts()).map_err(failed("no leader"))?.map(Host::number);
    let decides = cluster.leader().map_err(failed("no leader"))?;
    let hosts = cluster.hosts().all();
    let dead =
        hosts.iter().find(|host| Some(host.number()) != leads && Some(host.name()) != decides.as_deref());
    let dead = dead.ok_or_else(|| Error::Needs("a host that leads nothing".into()))?;
    Ok((dead, hosts.iter().filter(|host| host.number() != dead.number()).collect()))
}

/// What all members have counted.
fn store(cluster: &Cluster, name: &str) -> Result<f64, Error> {
    let of = |host| cluster.etcd().metric(cluster.hosts(), host, name).map_err(failed("no metric"));
    cluster.server_hosts().iter().map(of).sum()
}

/// What the service has used on all hosts, proc(5).
fn ticks(cluster: &Cluster, service: &str) -> Result<f64, Error> {
    let of = |host: &Host| {
        let pid = match service {
            FIRST => "1".to_owned(),
            service => host
                .run("systemctl", &["show", "--property=MainPID", "--value", service])
                .map_err(failed("no process"))?,
        };
        let stat = host.run("cat", &[&format!("/proc/{}/stat", pid.trim())]).map_err(failed("no process"))?;
        let fields: Vec<_> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let field = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let sum = field(11).zip(field(12)).map(|(user, system)| user + system);
        sum.ok_or_else(|| Error::failed("cannot read the process's times", stat))
    };
    cluster.hosts().all().iter().map(of).sum()
}
