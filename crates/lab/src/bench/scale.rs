//! One server process with the embedded store, thousands of simulated machines and 20 units for each: how long it takes to
//! bring them up, what it weighs, and how fast one change gets to the one machine that it concerns.
//!
//! The machines are in this process and share the processors with the server, so that times are longer than they would be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use sealift_client::api::{List, PutUnit, PutUnits, UnitChange, UnitEvent, UnitView, WatchUnits};
use sealift_model::{ActiveState, DesiredState, UnitName};

use super::fleet::{Connection, Fleet, Server, Word, json, raise_open_files};
use super::{Error, Figure, Report, median, millis, percentile, push};
use crate::rng::Rng;

const UNITS_EACH: usize = 20;
/// Of which the list is measured.
const LISTED: usize = 5_000;
const LISTS: usize = 20;
/// Changes of one unit, one after the other.
const CHANGES: usize = 1_000;
/// Units that are submitted, one after the other.
const SUBMITTED: usize = 200;
/// Of one request.
const BATCH: usize = 5_000;
/// How long the server is watched doing nothing but keeping sessions alive.
const REST: Duration = Duration::from_secs(10);
/// As servers have it unless told.
const MACHINE_TTL: &str = "10s";
/// Until something counts as stuck.
const STUCK: Duration = Duration::from_secs(300);
/// In a server's `/metrics`.
const LOOKS: &str = "sealift_assignment_looks_total";
const RUNNING: &str = "sealift_units{state=\"active\"}";
const TEXT: &str = "[Unit]\nDescription=Load\n\n[Service]\nExecStart=/bin/sleep 1d\nRestart=always\n";

pub(super) async fn run(machines: u32) -> Result<Report, Error> {
    raise_open_files();
    let server = Server::start(&[], MACHINE_TTL).await?;
    let mut bench = Bench {
        fleet: Fleet::begin(&server.at, machines, true),
        user: server.at.connect().await?,
        server,
        figures: Vec::new(),
        names: Vec::new(),
    };
    bench.bring_up(machines).await?;
    bench.rest().await?;
    bench.change().await?;
    bench.submit().await?;
    bench.list(bench.names.len()).await?;
    bench.weigh()?;
    Ok(Report { bench: "scale", figures: bench.figures })
}

struct Bench {
    fleet: Fleet,
    user: Connection,
    server: Server,
    figures: Vec<Figure>,
    /// Units that run.
    names: Vec<UnitName>,
}

impl Bench {
    async fn bring_up(&mut self, machines: u32) -> Result<(), Error> {
        let count = usize::try_from(machines).unwrap_or(usize::MAX);
        self.figure(Figure::new("server at first, RSS", self.server.memory("VmRSS")?, "MiB"));
        let began = Instant::now();
        let mut begun = 0;
        while begun < count {
            begun += usize::from(matches!(self.word().await?, Word::Begun));
        }
        let took = began.elapsed().as_secs_f64();
        self.figure(Figure::new(format!("{machines} machines begin their sessions"), took, "s"));
        self.figure(Figure::new("server then, RSS", self.server.memory("VmRSS")?, "MiB"));
        let template = PutUnit { text: Some(TEXT.into()), ..PutUnit::named(name("load@.service")?) };
        self.put(vec![template]).await?;
        let units = count * UNITS_EACH;
        let first = units.min(LISTED);
        let mut took = self.start(0..first).await?;
        if first == LISTED {
            self.list(first).await?;
        }
        took += self.start(first..units).await?;
        self.figure(Figure::new(
            format!("{units} units submitted, placed and confirmed"),
            took.as_secs_f64(),
            "s",
        ));
        self.figure(Figure::new("of them a second", number(units) / took.as_secs_f64(), "/s"));
        self.weigh()
    }

    fn figure(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// What the server weighs now, and at its most.
    fn weigh(&mut self) -> Result<(), Error> {
        let units = self.names.len();
        for (key, what) in [("VmRSS", "now"), ("VmHWM", "at its most")] {
            let name = format!("server with {units} units, RSS {what}");
            self.figure(Figure::new(name, self.server.memory(key)?, "MiB").under(1024.0));
        }
        Ok(())
    }

    async fn word(&mut self) -> Result<Word, Error> {
        let word = tokio::time::timeout(STUCK, self.fleet.words.recv()).await;
        word.ok().flatten().ok_or_else(|| {
            Error::failed(
                "nothing more happens",
                format!("{} sessions were lost", self.fleet.lost_sessions()),
            )
        })
    }

    async fn put(&mut self, units: Vec<PutUnit>) -> Result<Vec<UnitChange>, Error> {
        let answer = self.user.post("/v1/units", &PutUnits { units, replace: false }).await?;
        let answer: Result<List<UnitChange>, _> = serde_json::from_slice(&answer);
        answer.map(|list| list.items).map_err(|error| Error::failed("the answer on units", error))
    }

    /// Starts instances of the template in large requests, and waits until all are confirmed.
    async fn start(&mut self, numbers: std::ops::Range<usize>) -> Result<Duration, Error> {
        let names: Vec<UnitName> =
            numbers.map(|number| name(&format!("load@{number}.service"))).collect::<Result<_, _>>()?;
        let began = Instant::now();
        for batch in names.chunks(BATCH) {
            let launched = |name: &UnitName| PutUnit {
                desired: Some(DesiredState::Launched),
                ..PutUnit::named(name.clone())
            };
            self.put(batch.iter().map(launched).collect()).await?;
        }
        let mut confirmed = 0;
        while confirmed < names.len() {
            if let Word::Confirmed(count) = self.word().await? {
                confirmed += count;
            }
        }
        self.names.extend(names);
        let took = began.elapsed();
        // After a lost session units are told of twice, so that they are counted twice.
        let began = Instant::now();
        while self.server.metric(RUNNING).await? < number(self.names.len()) {
            if began.elapsed() > STUCK {
                return Err(Error::failed("units do not run", self.server.metric(RUNNING).await?));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(took)
    }

    async fn list(&mut self, units: usize) -> Result<(), Error> {
        for (path, what) in [("/v1/units?text=false", "without texts"), ("/v1/units", "with texts")] {
            let mut times = Vec::new();
            let mut bytes = Bytes::new();
            for _ in 0..LISTS {
                let began = Instant::now();
                bytes = self.user.bytes(Method::GET, path, Bytes::new()).await?;
                times.push(millis(began.elapsed()));
            }
            let list: List<UnitView> =
                serde_json::from_slice(&bytes).map_err(|error| Error::failed("a list", error))?;
            if list.items.len() < units {
                return Err(Error::failed("a list is short", list.items.len()));
            }
            let figure = Figure::new(format!("list of {units} units {what}, median"), median(&times), "ms");
            self.figure(if units == LISTED { figure.under(100.0) } else { figure });
        }
        Ok(())
    }

    async fn rest(&mut self) -> Result<(), Error> {
        let (ticks, began) = (push::ticks(self.server.pid()?)?, Instant::now());
        // Time itself is what is measured here.
        tokio::time::sleep(REST).await;
        let cpu = (push::ticks(self.server.pid()?)? - ticks) / push::TICKS_PER_SECOND;
        let cpu = cpu / began.elapsed().as_secs_f64() * 100.0;
        self.figure(Figure::new("server at rest, CPU", cpu, "% of a core"));
        Ok(())
    }

    /// Restarts of units and starts of ones that wait, in turn: from the request to the line on the machine's stream.
    async fn change(&mut self) -> Result<(), Error> {
        let waiting: Vec<UnitName> = (0..CHANGES / 2)
            .map(|number| name(&format!("load@w{number}.service")))
            .collect::<Result<_, _>>()?;
        self.put(waiting.iter().cloned().map(PutUnit::named).collect()).await?;
        let mut rng = Rng::new(1);
        let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let (lines, looks) = (self.fleet.lines(), self.server.metric(LOOKS).await?);
        let ticks = push::ticks(self.server.pid()?)?;
        let all = Instant::now();
        for number in 0..CHANGES {
            let waiting = waiting.get(number / 2).filter(|_| number % 2 == 1);
            let (kind, unit) = match waiting {
                Some(name) => {
                    let desired = Some(DesiredState::Launched);
                    ("started", PutUnit { desired, ..PutUnit::named(name.clone()) })
                }
                None => {
                    let name = rng.pick(&self.names).ok_or_else(|| Error::failed("no unit", "none runs"))?;
                    ("changed", PutUnit { restart: true, ..PutUnit::named(name.clone()) })
                }
            };
            let wanted = unit.name.clone();
            let began = Instant::now();
            let changed = self.put(vec![unit]).await?;
            let wants = changed.first().map_or(0, |change| change.generation);
            loop {
                match self.word().await? {
                    Word::Told { unit, generation, at } if unit == wanted && generation >= wants => {
                        times.entry(kind).or_default().push(millis(at.saturating_duration_since(began)));
                        break;
                    }
                    _ => {}
                }
            }
            while !matches!(self.word().await?, Word::Confirmed(_)) {}
        }
        let seconds = all.elapsed().as_secs_f64();
        let cpu = (push::ticks(self.server.pid()?)? - ticks) / push::TICKS_PER_SECOND * 1000.0;
        // The first look of a counter is its own: nothing but changes lies in between.
        let looks = self.server.metric(LOOKS).await? - looks;
        let lines = self.fleet.lines() - lines;
        self.names.extend(waiting);
        let every: Vec<f64> = times.values().flatten().copied().collect();
        self.figure(Figure::new("change to machine, p99", percentile(&every, 99), "ms").under(1000.0));
        for (kind, times) in times {
            self.figure(Figure::new(format!("one unit {kind} to machine, median"), median(&times), "ms"));
            self.figure(Figure::new(
                format!("one unit {kind} to machine, p99"),
                percentile(&times, 99),
                "ms",
            ));
        }
        let each = |count: f64| count / number(CHANGES);
        self.figure(Figure::new("messages to machines a change", each(number_of(lines)), ""));
        self.figure(Figure::new("machines woken a change", each(looks), ""));
        self.figure(Figure::new("CPU of the server a change, keep-alives included", each(cpu), "ms"));
        self.figure(Figure::new("changes one after the other", number(CHANGES) / seconds, "/s"));
        self.figure(Figure::new("sessions lost", number_of(self.fleet.lost_sessions()), ""));
        Ok(())
    }

    /// As the command line does it: a request, and a watch until the unit runs.
    async fn submit(&mut self) -> Result<(), Error> {
        let mut times = Vec::new();
        for number in 0..SUBMITTED {
            let wanted = name(&format!("one-{number}.service"))?;
            let desired = Some(DesiredState::Launched);
            let unit = PutUnit { text: Some(TEXT.into()), desired, ..PutUnit::named(wanted.clone()) };
            let began = Instant::now();
            self.put(vec![unit]).await?;
            let watched = self.server.at.connect().await?;
            let body = json(&WatchUnits { names: vec![wanted.clone()] })?;
            let mut lines = watched.lines(Method::POST, "/v1/units/watch", body).await?;
            loop {
                let event: Option<UnitEvent> = lines.next().await?;
                let event = event.ok_or_else(|| Error::failed("a watch", "it has ended"))?;
                let statuses = event.view.into_iter().flat_map(|view| view.statuses);
                if statuses.into_iter().any(|(_, status)| status.active == ActiveState::Active) {
                    break;
                }
            }
            times.push(millis(began.elapsed()));
            self.names.push(wanted);
        }
        self.figure(Figure::new("one more unit until confirmed, median", median(&times), "ms").under(50.0));
        self.figure(
            Figure::new("one more unit until confirmed, p99", percentile(&times, 99), "ms").under(50.0),
        );
        Ok(())
    }
}

fn name(text: &str) -> Result<UnitName, Error> {
    text.parse().map_err(|error| Error::failed(text, error))
}

fn number(count: usize) -> f64 {
    number_of(u64::try_from(count).unwrap_or(u64::MAX))
}

/// Counts here are far below four thousand million.
fn number_of(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
