//! Placements that a server writes to three members of etcd on this machine, a second. The machines follow their streams and
//! confirm nothing, so that the store is asked for nothing else.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use sealift_client::api::{ChangeSettings, List, PutUnit, PutUnits, UnitView};
use sealift_model::{Availability, DesiredState};
use tokio::process::{Child, Command};

use super::fleet::{Fleet, Server, Word, machine_id, raise_open_files};
use super::{Error, Figure, Report, io, median, push};

const MEMBERS: usize = 3;
const MACHINES: u32 = 200;
const UNITS: usize = 20_000;
const ROUNDS: usize = 3;
const BATCH: usize = 5_000;
const STUCK: Duration = Duration::from_secs(120);
const PLACED: &str = "sealift_placements";
const TEXT: &str = "[Service]\nExecStart=/bin/sleep 1d\n";

pub(super) async fn run() -> Result<Report, Error> {
    raise_open_files();
    let mut rates = Vec::new();
    let mut works = Vec::new();
    for _ in 0..ROUNDS {
        let (rate, work) = round().await?;
        rates.push(rate);
        works.push(work);
    }
    let name = format!("placements written to {MEMBERS} members of etcd");
    let figures = vec![
        Figure::new(name, median(&rates), "/s").at_least(5_000.0),
        Figure::new("CPU of the server a placement", median(&works), "ms"),
    ];
    Ok(Report { bench: "commits", figures })
}

/// Placements a second, and milliseconds of the server's processor for each.
async fn round() -> Result<(f64, f64), Error> {
    let dir = tempfile::Builder::new().prefix("lab-").tempdir().map_err(io("make", "a directory"))?;
    let (_members, urls) = etcd(dir.path())?;
    let server = tokio::time::timeout(STUCK, Server::start(&urls, "60s"))
        .await
        .unwrap_or_else(|_| Err(Error::failed("no server", "etcd does not answer")))?;
    let mut fleet = Fleet::begin(&server.at, MACHINES, false);
    let mut begun = 0;
    while begun < MACHINES {
        let word = tokio::time::timeout(STUCK, fleet.words.recv()).await;
        let word = word.ok().flatten().ok_or_else(|| Error::failed("machines do not begin", begun))?;
        begun += u32::from(matches!(word, Word::Begun));
    }
    // All the work has to be there when the first of it is done.
    drain(&server, Availability::Drained).await?;
    let mut user = server.at.connect().await?;
    let units: Vec<PutUnit> = (0..UNITS)
        .map(|number| {
            let name =
                format!("u{number}.service").parse().map_err(|error| Error::failed("a name", error))?;
            let desired = Some(DesiredState::Launched);
            Ok(PutUnit { text: Some(TEXT.into()), desired, ..PutUnit::named(name) })
        })
        .collect::<Result<_, Error>>()?;
    for units in units.chunks(BATCH) {
        user.post("/v1/units", &PutUnits { units: units.to_vec(), replace: false }).await?;
    }
    let ticks = push::ticks(server.pid()?)?;
    drain(&server, Availability::Active).await?;
    let began = Instant::now();
    let count = f64::from(u32::try_from(UNITS).unwrap_or(u32::MAX));
    while server.metric(PLACED).await? < count {
        if began.elapsed() > STUCK {
            return Err(Error::failed("units are not placed", server.metric(PLACED).await?));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let work = (push::ticks(server.pid()?)? - ticks) / push::TICKS_PER_SECOND * 1000.0;
    let list: List<UnitView> = user.get("/v1/units?text=false").await?;
    // Each is as old as the transaction that wrote it.
    let mut since: Vec<_> = list
        .items
        .iter()
        .filter_map(|view| view.placement.as_ref().map(|placement| placement.since))
        .collect();
    since.sort_unstable();
    let (Some(first), Some(last)) = (since.first(), since.last()) else {
        return Err(Error::failed("no unit is placed", list.items.len()));
    };
    Ok((count / last.since(*first).as_secs_f64(), work / count))
}

/// Makes all machines take units, or none.
async fn drain(server: &Server, availability: Availability) -> Result<(), Error> {
    let mut changes = tokio::task::JoinSet::new();
    for number in 0..MACHINES {
        let at = server.at.clone();
        changes.spawn(async move {
            let path = format!("/v1/machines/{}/settings", machine_id(number));
            let change = ChangeSettings { availability: Some(availability), ..ChangeSettings::default() };
            at.connect().await?.post(&path, &change).await.map(drop)
        });
    }
    while let Some(changed) = changes.join_next().await {
        changed.unwrap_or_else(|error| Err(Error::failed("a setting", error)))?;
    }
    Ok(())
}

/// Members as processes of this machine, which end when dropped, and where they are reached.
fn etcd(dir: &Path) -> Result<(Vec<Child>, Vec<String>), Error> {
    // Kept open until all are known, so that they are different ones.
    let free = (0..MEMBERS * 2).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>();
    let ports = free.and_then(|free| {
        free.iter().map(|port| Ok(port.local_addr()?.port())).collect::<Result<Vec<_>, _>>()
    });
    let ports = ports.map_err(io("find", "free ports"))?;
    let url = |port: &u16| format!("http://127.0.0.1:{port}");
    let (clients, peers) = ports.split_at(MEMBERS);
    let all: Vec<String> =
        peers.iter().enumerate().map(|(number, port)| format!("m{number}={}", url(port))).collect();
    let mut members = Vec::new();
    for (number, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let mut command = Command::new("etcd");
        command.args([
            "--logger",
            "zap",
            "--name",
            &format!("m{number}"),
            "--initial-cluster",
            &all.join(","),
        ]);
        command.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
        command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
        command.arg("--data-dir").arg(dir.join(format!("m{number}")));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        members.push(command.spawn().map_err(io("run", "etcd"))?);
    }
    Ok((members, clients.iter().map(url).collect()))
}
