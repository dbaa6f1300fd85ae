//! fleetctl's lists: columns by name, between tabs that stand every eight characters.

use std::collections::BTreeMap;

use super::api::{Fleet, Machine, Unit, UnitState, short_id};
use super::flags::Asked;
use crate::error::Error;

/// What stands for nothing.
const NONE: &str = "-";

/// The columns that are wanted, each with what makes its cell of a row.
type Columns<'a, R> = &'a [(&'static str, &'a dyn Fn(&R) -> String)];

/// Lists `rows`. Every column is known by its name, which is its header.
fn print<R>(asked: &Asked, columns: Columns<'_, R>, rows: &[R]) -> Result<String, Error> {
    let mut wanted = Vec::new();
    for name in asked.text("fields").split(',') {
        let found = columns.iter().find(|(known, _)| *known == name.trim());
        wanted.push(found.ok_or_else(|| Error::plain(format!("Invalid key in output format: {name:?}")))?);
    }
    let mut lines = Vec::new();
    if !asked.is("no-legend") {
        lines.push(wanted.iter().map(|(name, _)| name.to_uppercase()).collect());
    }
    for row in rows {
        let cell = |(_, cell): &&(&str, &dyn Fn(&R) -> String)| {
            Some(cell(row)).filter(|text| !text.is_empty()).unwrap_or_else(|| NONE.to_owned())
        };
        lines.push(wanted.iter().map(cell).collect());
    }
    Ok(tabbed(&lines))
}

/// Go's tab writer as fleetctl set it up: a column is as wide as its widest cell and one more, up to the next multiple
/// of eight, and filled up with tabs. The last one is not filled up.
fn tabbed(lines: &[Vec<String>]) -> String {
    let length = |text: &str| text.chars().count();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widest =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| length(cell)).max();
    let widths: Vec<usize> =
        (0..columns).map(|column| (widest(column).unwrap_or(0) + 1).next_multiple_of(8)).collect();
    let mut text = String::new();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if column + 1 < line.len() {
                text.push_str(&"\t".repeat((width - length(cell)).div_ceil(8)));
            }
        }
        text.push('\n');
    }
    text
}

fn legend(machines: &BTreeMap<String, Machine>, id: &str, full: bool) -> String {
    machines.get(id).map_or_else(|| short_id(id, full), |machine| machine.legend(full))
}

async fn by_id(fleet: &Fleet) -> Result<BTreeMap<String, Machine>, Error> {
    Ok(fleet.machines().await?.into_iter().map(|machine| (machine.id.clone(), machine)).collect())
}

fn hash_cell(hash: &str, full: bool) -> String {
    if full { hash.to_owned() } else { hash.chars().take(7).collect() }
}

pub(super) async fn machines(fleet: &Fleet, asked: &Asked) -> Result<String, Error> {
    let full = asked.is("full");
    let mut all = fleet.machines().await?;
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let metadata = |machine: &Machine| {
        machine.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    let columns: Columns<'_, Machine> = &[
        ("machine", &|machine| short_id(&machine.id, full)),
        ("ip", &|machine| machine.ip.clone()),
        ("metadata", &metadata),
    ];
    print(asked, columns, &all)
}

pub(super) async fn units(fleet: &Fleet, asked: &Asked) -> Result<String, Error> {
    let full = asked.is("full");
    let mut all = fleet.states().await?;
    all.sort_by(|a, b| (&a.name, &a.machine).cmp(&(&b.name, &b.machine)));
    let machines = by_id(fleet).await?;
    let columns: Columns<'_, UnitState> = &[
        ("unit", &|state| state.name.clone()),
        ("machine", &|state| legend(&machines, &state.machine, full)),
        ("load", &|state| state.load.clone()),
        ("active", &|state| state.active.clone()),
        ("sub", &|state| state.sub.clone()),
        ("hash", &|state| hash_cell(&state.hash, full)),
    ];
    print(asked, columns, &all)
}

pub(super) async fn unit_files(fleet: &Fleet, asked: &Asked) -> Result<String, Error> {
    let full = asked.is("full");
    let mut all = fleet.units().await?;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let machines = by_id(fleet).await?;
    let target = |unit: &Unit| match unit.is_global() {
        true => "global".to_owned(),
        false if unit.machine.is_empty() => String::new(),
        false => legend(&machines, &unit.machine, full),
    };
    let columns: Columns<'_, Unit> = &[
        ("unit", &|unit| unit.name.clone()),
        ("hash", &|unit| hash_cell(&unit.hash(), full)),
        ("dstate", &|unit| unit.desired_state.clone()),
        ("state", &|unit| if unit.is_global() { String::new() } else { unit.current_state.clone() }),
        ("target", &target),
        ("tmachine", &target),
        ("global", &|unit| unit.is_global().to_string()),
        ("desc", &|unit| unit.option("Unit", "Description").unwrap_or_default().to_owned()),
    ];
    print(asked, columns, &all)
}

#[cfg(test)]
mod tests {
    use super::tabbed;

    #[test]
    fn columns_stand_at_tab_stops() {
        let line = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let lines =
            [line(&["UNIT", "MACHINE", "SUB"]), line(&["hello.service", "4f7a8c32.../10.0.0.1", "running"])];
        let wanted = "UNIT\t\tMACHINE\t\t\tSUB\nhello.service\t4f7a8c32.../10.0.0.1\trunning\n";
        assert_eq!(tabbed(&lines), wanted);
        // A cell of seven fills its column; one of eight needs the next.
        assert_eq!(tabbed(&[line(&["1234567", "x"])]), "1234567\tx\n");
        assert_eq!(tabbed(&[line(&["12345678", "x"]), line(&["1", "y"])]), "12345678\tx\n1\t\ty\n");
        assert_eq!(tabbed(&[]), "");
    }
}
