//! What a unit file asks for that no machine which is there can give, whatever runs on them now.
//!
//! Guarantees: it is the planner that judges, one requirement at a time. It says nothing of what depends on other units.

use std::collections::BTreeMap;

use sealift_client::api::MachineStatus;
use sealift_model::diagnostic::{Diagnostic, Severity};
use sealift_model::{Availability, DesiredState, MachineSettings, Requirements, Resources, Unit, UnitName};
use sealift_planner::{Reason, Snapshot, Verdict, explain};
use sealift_unitfile::{Assignment, Place, UnitFile};

const SECTION: &str = "X-Fleet";
/// Machines whose reasons are told.
const FEW: usize = 3;

/// A warning for each requirement that none of these machines meets, at its place; where each is met by some and all
/// together by none, one for all.
pub(super) fn unmet(name: &UnitName, file: &UnitFile, machines: &[MachineStatus]) -> Vec<Diagnostic> {
    if machines.is_empty() {
        return Vec::new();
    }
    let machines = Machines::of(machines);
    let (asks, _) = file.requirements(name);
    let findings: Vec<Diagnostic> = single(&asks)
        .into_iter()
        .filter_map(|(keys, part, requirements)| {
            let place = place(name, file, keys, &part)?;
            let no = machines.none_takes(name, requirements)?;
            Some(warning(place, said(keys, &part, &asks, &no), None))
        })
        .collect();
    if !findings.is_empty() || depends_on_the_instance(name, file) {
        return findings;
    }
    let all = Requirements {
        machine_id: asks.machine_id,
        metadata: asks.metadata,
        classes: asks.classes,
        resources: asks.resources,
        ..Requirements::default()
    };
    let Some(no) = machines.none_takes(name, all) else { return Vec::new() };
    let place =
        file.section(SECTION).map_or(Place { line: 1, column: 1, length: 1 }, |section| section.place);
    let mut whys: Vec<String> =
        no.iter().take(FEW).map(|(machine, reason)| format!("{machine}: {reason}")).collect();
    if no.len() > FEW {
        whys.push(format!("and {} others", no.len() - FEW));
    }
    let message = "no machine that is there can take this unit".to_owned();
    vec![warning(place, message, Some(whys.join("; ")))]
}

const MACHINE_ID: &[&str] = &["MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID"];
const METADATA: &[&str] = &["MachineMetadata", "X-ConditionMachineMetadata"];
const CLASS: &[&str] = &["MachineClass"];
const MEMORY: &[&str] = &["Memory"];
const CPU: &[&str] = &["CPU"];

/// Each requirement by itself: the keys that ask for it, what its value begins with, and what asks for it alone.
fn single(asks: &Requirements) -> Vec<(&'static [&'static str], String, Requirements)> {
    // Whatever the machine's class.
    let any = || Requirements { classes: ["*".to_owned()].into(), ..Requirements::default() };
    let mut single = Vec::new();
    if let Some(id) = &asks.machine_id {
        single.push((MACHINE_ID, String::new(), Requirements { machine_id: Some(id.clone()), ..any() }));
    }
    for (key, values) in &asks.metadata {
        let metadata = [(key.clone(), values.clone())].into();
        single.push((METADATA, format!("{key}="), Requirements { metadata, ..any() }));
    }
    if !asks.classes.is_empty() {
        let classes = asks.classes.clone();
        single.push((CLASS, String::new(), Requirements { classes, ..Requirements::default() }));
    }
    let Resources { memory, cpu } = asks.resources;
    for (keys, resources) in [(MEMORY, Resources { memory, cpu: 0 }), (CPU, Resources { memory: 0, cpu })] {
        if !resources.is_none() {
            single.push((keys, String::new(), Requirements { resources, ..any() }));
        }
    }
    single
}

/// Where it is asked for; none if that cannot be judged, because it is another for each instance.
fn place(name: &UnitName, file: &UnitFile, keys: &[&str], part: &str) -> Option<Place> {
    let asked = keys.iter().flat_map(|key| file.assignments(SECTION, key));
    let asked: Vec<&Assignment> = asked.filter(|assignment| assignment.value().contains(part)).collect();
    if name.is_template() && asked.iter().any(|assignment| assignment.value().contains('%')) {
        return None;
    }
    asked.last().map(|assignment| assignment.value_place())
}

fn depends_on_the_instance(name: &UnitName, file: &UnitFile) -> bool {
    let sections = file.sections().iter().filter(|section| section.name == SECTION);
    name.is_template()
        && sections.flat_map(|section| &section.assignments).any(|asked| asked.value().contains('%'))
}

fn said(keys: &[&str], part: &str, asks: &Requirements, no: &BTreeMap<String, Reason>) -> String {
    let most = |of: fn(Resources) -> u64| {
        let free = no.values().filter_map(|reason| match reason {
            Reason::NoRoom { free, .. } => Some(of(*free)),
            _ => None,
        });
        free.max().unwrap_or(0)
    };
    let or = |values: &std::collections::BTreeSet<String>| {
        values.iter().map(String::as_str).collect::<Vec<_>>().join(" or ")
    };
    match keys {
        METADATA => {
            let values = asks.metadata.get(part.trim_end_matches('=')).map(or).unwrap_or_default();
            format!("no machine that is there has {part}{values}")
        }
        CLASS => format!("no machine that is there is of class {}", or(&asks.classes)),
        MEMORY => format!(
            "no machine that is there has so much memory for units; the most is {} MiB",
            most(|free| free.memory) >> 20
        ),
        CPU => {
            let most = most(|free| u64::from(free.cpu));
            format!(
                "no machine that is there has so much CPU for units; the most is {}.{:03} cores",
                most / 1000,
                most % 1000
            )
        }
        _ => {
            format!("no machine that is there has the id {}", asks.machine_id.as_deref().unwrap_or_default())
        }
    }
}

fn warning(place: Place, message: String, help: Option<String>) -> Diagnostic {
    let Place { line, column, length } = place;
    Diagnostic { severity: Severity::Warning, line, column, length, message, help }
}

/// Machines as if nothing ran on them and all took units.
struct Machines(Snapshot);

impl Machines {
    fn of(machines: &[MachineStatus]) -> Machines {
        let mut snapshot = Snapshot::default();
        for status in machines {
            let id = status.machine.id.clone();
            snapshot.machines.insert(id.clone(), (status.machine.clone(), status.presence.clone()));
            let settings = MachineSettings {
                metadata: status.settings.metadata.clone(),
                availability: Availability::Active,
                ..MachineSettings::default()
            };
            snapshot.settings.insert(id, settings);
        }
        Machines(snapshot)
    }

    /// Why no machine takes a unit that asks for this, by their names; none if one does.
    fn none_takes(&self, name: &UnitName, asks: Requirements) -> Option<BTreeMap<String, Reason>> {
        let name = if name.is_template() { name.with_instance("1")? } else { name.clone() };
        let unit = Unit { requirements: asks, ..Unit::new(name.clone(), "", DesiredState::Launched) };
        let mut snapshot = self.0.clone();
        snapshot.units.insert(name.clone(), unit);
        let mut no = BTreeMap::new();
        for (machine, verdict) in explain(&snapshot, &name) {
            let Verdict::No(reason) = verdict else { return None };
            let known = self.0.machines.get(&machine).map(|(machine, _)| machine.name.clone());
            no.insert(known.unwrap_or_else(|| machine.short().to_owned()), reason);
        }
        Some(no)
    }
}

#[cfg(test)]
mod tests {
    use sealift_model::{Machine, MachineId, Presence, SessionId, Timestamp};

    use super::*;

    fn machine(number: u8, class: Option<&str>, metadata: &str, gib: u64) -> MachineStatus {
        let pairs = metadata.split_whitespace().filter_map(|pair| pair.split_once('='));
        MachineStatus {
            machine: Machine {
                class: class.map(str::to_owned),
                metadata: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                capacity: Resources { memory: gib << 30, cpu: 2000 },
                ..Machine::new(MachineId::from_bytes([number; 16]), format!("node-{number}"))
            },
            presence: Some(Presence { session: SessionId::from_bytes([number; 16]), since: Timestamp(0) }),
            units: 0,
            runs: 0,
            settings: MachineSettings { availability: Availability::Drained, ..MachineSettings::default() },
        }
    }

    #[test]
    fn what_no_machine_gives_by_table() {
        let machines =
            [machine(1, None, "disk=ssd zone=a", 4), machine(2, Some("gpu"), "disk=hdd zone=b", 64)];
        let said = |name: &str, section: &str| {
            let text = format!("[Service]\nExecStart=a\n[X-Fleet]\n{section}\n");
            let found = unmet(&name.parse().unwrap(), &UnitFile::parse(&text), &machines);
            let shown = found.iter().map(|one| format!("{}:{} {}", one.line, one.column, one.message));
            shown.collect::<Vec<_>>()
        };
        for (section, wanted) in [
            ("MachineMetadata=disk=ssd", vec![]),
            ("MachineMetadata=disk=floppy", vec!["4:17 no machine that is there has disk=floppy"]),
            (
                "MachineMetadata=zone=a\nMachineMetadata=disk=floppy\nMachineMetadata=disk=tape",
                vec!["6:17 no machine that is there has disk=floppy or tape"],
            ),
            ("MachineClass=gpu\nMemory=32G", vec![]),
            ("MachineClass=tpu", vec!["4:14 no machine that is there is of class tpu"]),
            (
                "Memory=100G\nCPU=8",
                vec![
                    "4:8 no machine that is there has so much memory for units; the most is 65536 MiB",
                    "5:5 no machine that is there has so much CPU for units; the most is 2.000 cores",
                ],
            ),
            ("MachineID=0101010101010101", vec!["4:11 no machine that is there has the id 0101010101010101"]),
            ("MachineID=01010101", vec![]),
            // Each by some, all by none.
            ("Memory=32G", vec!["3:1 no machine that is there can take this unit"]),
            ("MachineMetadata=zone=b", vec!["3:1 no machine that is there can take this unit"]),
            // What depends on other units is not looked at.
            ("MachineOf=nobody.service\nConflicts=*", vec![]),
        ] {
            assert_eq!(said("a.service", section), wanted, "{section}");
        }
        assert_eq!(said("a@.service", "MachineMetadata=zone=%i"), [""; 0], "it is another for each instance");
        assert_eq!(said("a@.service", "MachineMetadata=zone=c").len(), 1);
        assert!(
            unmet(&"a.service".parse().unwrap(), &UnitFile::parse("[X-Fleet]\nCPU=99\n"), &[]).is_empty()
        );
    }
}
