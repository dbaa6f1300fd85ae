//! Pure placement: how many decisions the planner makes in a second, and what one change costs once it knows a fleet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealift_model::{
    DesiredState, InvalidName, Machine, MachineId, Presence, Requirements, Resources, SessionId, Timestamp,
    Unit,
};
use sealift_planner::{Change, Planner, Reader};

use super::{Error, Figure, Report, median, millis};

const NOW: Timestamp = Timestamp(1_000);
const ZONES: u32 = 10;
/// As a server asks for them: as many as one transaction takes.
const SLICE: usize = 25;
const GIB: u64 = 1 << 30;

/// What units ask for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Demands {
    None,
    /// One in ten wants a zone, and not to be beside its like.
    Some,
    /// All want memory and CPU.
    Resources,
}

impl Demands {
    fn words(self) -> &'static str {
        match self {
            Demands::None => "",
            Demands::Some => ", one in ten with demands",
            Demands::Resources => ", all with memory and CPU",
        }
    }
}

pub(super) fn run() -> Result<Report, Error> {
    let mut figures = Vec::new();
    for demands in [Demands::None, Demands::Some, Demands::Resources] {
        let name = |of: &str| format!("{of}, 100000 units on 5000 machines{}", demands.words());
        let measured = measure(100_000, 5_000, demands)?;
        let ratio = measured.per_second / 100_000.0;
        figures.push(Figure::new(name("placing"), measured.per_second, "decisions/s").at_least(100_000.0));
        figures.push(Figure::new(name("placing, to the bar"), ratio, "x").at_least(1.0));
        figures.push(Figure::new(name("one more unit, median"), measured.unit.0, "ms").under(1.0));
        figures.push(Figure::new(name("one more unit, p99"), measured.unit.1, "ms").under(1.0));
        figures
            .push(Figure::new(name("a unit changed and moved, median"), measured.moved.0, "ms").under(1.0));
        figures.push(Figure::new(name("a unit changed and moved, p99"), measured.moved.1, "ms").under(1.0));
        figures.push(Figure::new(name("a machine lost, median"), measured.lost.0, "ms"));
        figures.push(Figure::new(name("a machine lost, p99"), measured.lost.1, "ms"));
    }
    let measured = measure(100_000, 1_000, Demands::None)?;
    let name = |of: &str| format!("{of}, 100000 units on 1000 machines");
    figures.push(Figure::new(name("placing"), measured.per_second, "decisions/s"));
    figures.push(Figure::new(name("one more unit, median"), measured.unit.0, "ms").under(1.0));
    figures.push(Figure::new(name("one more unit, p99"), measured.unit.1, "ms").under(1.0));
    Ok(Report { bench: "placement", figures })
}

/// Milliseconds: median and 99th percentile.
type Times = (f64, f64);

struct Measured {
    per_second: f64,
    unit: Times,
    moved: Times,
    lost: Times,
}

fn measure(units: u32, machines: u32, demands: Demands) -> Result<Measured, Error> {
    let failed = |error: InvalidName| Error::failed("cannot make a fleet", error);
    let changes = fleet(units, machines, demands).map_err(failed)?;
    let (mut rates, mut made) = (Vec::new(), Planner::new(Reader::PLAIN));
    for _ in 0..3 {
        let mut planner = Planner::new(Reader::PLAIN);
        for change in changes.clone() {
            planner.feed(change);
        }
        let began = Instant::now();
        let count = decide(&mut planner);
        rates.push(f64::from(count) / began.elapsed().as_secs_f64());
        if count != units {
            let said = format!("{count} of {units} units placed");
            return Err(Error::failed("a fleet with room for all", said));
        }
        made = planner;
    }
    let mut planner = made;
    let mut times = Vec::new();
    for number in 0..300 {
        let new = unit(units + number, demands).map_err(failed)?;
        let change = Change::Unit(new.name.clone(), Some(Arc::new(new)));
        times.push(timed(&mut planner, vec![change], 1)?);
    }
    let unit_times = summary(times);
    // A unit that wants another zone leaves, and comes there once its machine says that it has stopped.
    let mut times = Vec::new();
    for number in 0..300 {
        let mut changed = unit(number * 7, demands).map_err(failed)?;
        changed
            .requirements
            .metadata
            .insert("zone".into(), BTreeSet::from([format!("z{}", (number + 3) % ZONES)]));
        changed.generation = 2;
        let name = changed.name.clone();
        let Some(was) = planner.placement(&name) else { return Err(Error::failed("a placed unit", name)) };
        let began = Instant::now();
        planner.feed(Change::Unit(name.clone(), Some(Arc::new(changed))));
        decide(&mut planner);
        planner.feed(Change::Status(was.machine, name, None));
        decide(&mut planner);
        times.push(began.elapsed());
    }
    let moved = summary(times);
    let mut times = Vec::new();
    for number in 0..100 {
        let id = machine_id(number * 11);
        let began = Instant::now();
        planner.feed(Change::Presence(id, None));
        decide(&mut planner);
        times.push(began.elapsed());
    }
    let lost = summary(times);
    Ok(Measured { per_second: median(&rates), unit: unit_times, moved, lost })
}

/// Takes all that is to be done, in slices; gives how many actions those were.
fn decide(planner: &mut Planner) -> u32 {
    let mut count = 0;
    loop {
        let actions = planner.plan(SLICE, NOW).len();
        if actions == 0 {
            return count;
        }
        count += u32::try_from(actions).unwrap_or(u32::MAX);
    }
}

fn timed(planner: &mut Planner, changes: Vec<Change>, wanted: u32) -> Result<Duration, Error> {
    let began = Instant::now();
    for change in changes {
        planner.feed(change);
    }
    let count = decide(planner);
    let time = began.elapsed();
    if count == wanted { Ok(time) } else { Err(Error::failed("one change", format!("{count} actions"))) }
}

fn summary(mut times: Vec<Duration>) -> Times {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().map_or(0.0, millis);
    (at(50), at(99))
}

/// Spread as real identities are.
pub(super) fn machine_id(number: u32) -> MachineId {
    MachineId::from_bytes(
        u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes(),
    )
}

fn fleet(units: u32, machines: u32, demands: Demands) -> Result<Vec<Change>, InvalidName> {
    let mut changes = Vec::new();
    for number in 0..machines {
        let id = machine_id(number);
        let machine = Machine {
            metadata: [("zone".to_owned(), format!("z{}", number % ZONES))].into(),
            version: "1".to_owned(),
            systemd: "system".to_owned(),
            run_slots: 2,
            capacity: match demands {
                Demands::Resources => Resources { memory: 64 * GIB, cpu: 32_000 },
                _ => Resources::NONE,
            },
            ..Machine::new(id.clone(), format!("m{number}"))
        };
        let session = SessionId::from_bytes(u128::from(number).to_be_bytes());
        changes.push(Change::Machine(id.clone(), Some(machine)));
        changes.push(Change::Presence(id, Some(Presence { session, since: NOW, leaving: false })));
    }
    for number in 0..units {
        let unit = unit(number, demands)?;
        changes.push(Change::Unit(unit.name.clone(), Some(Arc::new(unit))));
    }
    Ok(changes)
}

fn unit(number: u32, demands: Demands) -> Result<Unit, InvalidName> {
    let mut requirements = Requirements::default();
    let group = number / 200;
    let particular = demands == Demands::Some && number.is_multiple_of(10);
    if particular {
        let zones = BTreeSet::from([format!("z{}", number / 10 % ZONES)]);
        requirements.metadata.insert("zone".to_owned(), zones);
        requirements.conflicts.insert(format!("g{group}-*.service"));
    }
    if demands == Demands::Resources {
        // From 256 MiB and 0.1 cores up, 2.5 GiB and 1 core in the middle.
        let step = u64::from(number.wrapping_mul(2_654_435_761) >> 16 & 15);
        requirements.resources =
            Resources { memory: GIB / 4 + step * GIB / 4, cpu: 100 + u32::try_from(step).unwrap_or(0) * 100 };
    }
    let name = if particular { format!("g{group}-{number}.service") } else { format!("u{number}.service") };
    let text = "[Service]\nExecStart=/bin/true\n";
    Ok(Unit { requirements, ..Unit::new(name.parse()?, text, DesiredState::Launched) })
}
