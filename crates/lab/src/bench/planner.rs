//! The planner alone: how many decisions it makes in a second, and what one change costs.

use std::collections::BTreeSet;
use std::time::Instant;

use sealift_model::{
    DesiredState, InvalidName, Machine, MachineId, Presence, Requirements, SessionId, Timestamp, Unit,
};
use sealift_planner::{Snapshot, apply, plan};

use super::{Error, Figure, Report, median, millis};

const NOW: Timestamp = Timestamp(1_000);
const ZONES: u32 = 10;

pub(super) fn run() -> Result<Report, Error> {
    let mut figures = Vec::new();
    for (units, machines, times) in [(1_000, 100, 20), (100_000, 5_000, 3)] {
        for demanding in [false, true] {
            let (per_second, change) = measure(units, machines, times, demanding)?;
            let what = if demanding { ", one in ten with demands" } else { "" };
            let name = |of: &str| format!("{of}, {units} units on {machines} machines{what}");
            let large = units == 100_000;
            let placing = Figure::new(name("placing"), per_second, "decisions/s");
            let changing = Figure::new(name("one change"), change, "ms");
            figures.push(if large { placing.at_least(100_000.0) } else { placing });
            figures.push(if large { changing.under(1.0) } else { changing });
        }
    }
    Ok(Report { bench: "planner", figures })
}

/// Decisions a second of the first plan, and the milliseconds of a plan after one more unit.
fn measure(units: u32, machines: u32, times: usize, demanding: bool) -> Result<(f64, f64), Error> {
    let failed = |error: InvalidName| Error::failed("cannot make a fleet", error);
    let empty = fleet(units, machines, demanding).map_err(failed)?;
    let mut rates = Vec::new();
    let mut made = plan(&empty);
    for _ in 0..times {
        let began = Instant::now();
        made = plan(&empty);
        let count = u32::try_from(made.actions.len()).unwrap_or(u32::MAX);
        rates.push(f64::from(count) / began.elapsed().as_secs_f64());
        if count != units {
            return Err(Error::failed(
                "a fleet with room for all",
                format!("{count} of {units} units placed"),
            ));
        }
    }
    let mut placed = empty;
    for action in &made.actions {
        apply(&mut placed, action, NOW);
    }
    let mut changes = Vec::new();
    for number in 0..u32::try_from(times).unwrap_or(1) {
        let mut changed = placed.clone();
        let new = unit(units + number, false).map_err(failed)?;
        changed.units.insert(new.name.clone(), new);
        let began = Instant::now();
        let count = plan(&changed).actions.len();
        changes.push(millis(began.elapsed()));
        if count != 1 {
            return Err(Error::failed("one new unit", format!("{count} actions")));
        }
    }
    Ok((median(&rates), median(&changes)))
}

fn fleet(units: u32, machines: u32, demanding: bool) -> Result<Snapshot, InvalidName> {
    let mut snapshot = Snapshot::default();
    for number in 0..machines {
        // Spread as real identities are.
        let id = MachineId::from_bytes(
            u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes(),
        );
        let machine = Machine {
            metadata: [("zone".to_owned(), format!("z{}", number % ZONES))].into(),
            version: "1".to_owned(),
            systemd: "system".to_owned(),
            run_slots: 2,
            ..Machine::new(id.clone(), format!("m{number}"))
        };
        let session = SessionId::from_bytes(u128::from(number).to_be_bytes());
        snapshot.machines.insert(id, (machine, Some(Presence { session, since: NOW })));
    }
    for number in 0..units {
        let unit = unit(number, demanding && number % 10 == 0)?;
        snapshot.units.insert(unit.name.clone(), unit);
    }
    Ok(snapshot)
}

/// A unit with demands wants a zone, and not to be beside its like.
fn unit(number: u32, demanding: bool) -> Result<Unit, InvalidName> {
    let mut requirements = Requirements::default();
    let group = number / 200;
    if demanding {
        let zones = BTreeSet::from([format!("z{}", number / 10 % ZONES)]);
        requirements.metadata.insert("zone".to_owned(), zones);
        requirements.conflicts.insert(format!("g{group}-*.service"));
    }
    let name = if demanding { format!("g{group}-{number}.service") } else { format!("u{number}.service") };
    let text = "[Service]\nExecStart=/bin/true\n";
    Ok(Unit { requirements, ..Unit::new(name.parse()?, text, DesiredState::Launched) })
}
