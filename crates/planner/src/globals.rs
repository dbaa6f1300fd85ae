//! Which global units run on a machine.

use sealift_model::{MachineId, Requirements, Resources, UnitName};

use crate::Reason;
use crate::glob::Glob;
use crate::state::{Limit, covers, plus};

/// A unit as others on its machine see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Party<'a> {
    pub(crate) name: &'a UnitName,
    pub(crate) asks: &'a Requirements,
    pub(crate) conflicts: &'a [Glob],
}

impl Party<'_> {
    pub(crate) fn conflicts_with(&self, other: &Party<'_>) -> bool {
        let has_against = |one: &Party<'_>, two: &Party<'_>| {
            one.conflicts.iter().any(|glob| glob.matches(two.name.as_str()))
        };
        (!self.conflicts.is_empty() || !other.conflicts.is_empty())
            && self.name != other.name
            && (has_against(self, other) || has_against(other, self))
    }
}

/// A machine as units see it that do not look at other units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) id: &'a MachineId,
    pub(crate) metadata: &'a std::collections::BTreeMap<String, String>,
    pub(crate) class: Option<&'a str>,
    pub(crate) drained: bool,
    pub(crate) limit: Limit,
}

/// What a unit that asks for this has against the machine itself.
pub(crate) fn own_terms(asks: &Requirements, ground: &Ground<'_>) -> Option<Reason> {
    if let Some(wanted) = &asks.machine_id
        && wanted != ground.id.as_str()
        && wanted != ground.id.short()
    {
        return Some(Reason::OtherMachine { wanted: wanted.clone() });
    }
    if !class_fits(&asks.classes, ground.class) {
        let class = ground.class.map(str::to_owned);
        return Some(Reason::Class { wanted: asks.classes.clone(), class });
    }
    let lacking = asks
        .metadata
        .iter()
        .find(|(key, values)| !ground.metadata.get(*key).is_some_and(|value| values.contains(value)));
    lacking.map(|(key, wanted)| Reason::Metadata { key: key.clone(), wanted: wanted.clone() })
}

pub(crate) fn class_fits(classes: &std::collections::BTreeSet<String>, class: Option<&str>) -> bool {
    classes.contains("*")
        || match class {
            None => classes.is_empty(),
            Some(class) => classes.contains(class),
        }
}

/// The numbers of those of `globals` (in the order of names) that run on the machine beside the units `placed` there,
/// while `stopping` are still being stopped and others are `reported`.
///
/// A global unit steps back for placed units, and for global units before it. Where there is not room for all, those
/// that are reported go first, so that a new one drives none away; what is to stop counts until it has stopped.
pub(crate) fn running(
    ground: &Ground<'_>,
    globals: &[Party<'_>],
    placed: &[Party<'_>],
    reported: &[Party<'_>],
) -> Vec<usize> {
    if ground.drained {
        return Vec::new();
    }
    let mut running: Vec<usize> = Vec::new();
    for (number, global) in globals.iter().enumerate() {
        let free = own_terms(global.asks, ground).is_none()
            && !placed.iter().any(|other| global.conflicts_with(other))
            && !running
                .iter()
                .any(|other| globals.get(*other).is_some_and(|other| global.conflicts_with(other)));
        if free {
            running.push(number);
        }
    }
    let asks = |number: &usize| globals.get(*number).map_or(Resources::NONE, |global| global.asks.resources);
    if ground.limit == Limit::NONE || running.iter().all(|number| asks(number).is_none()) {
        return running;
    }
    let is_in = |name: &UnitName, among: &[Party<'_>]| among.iter().any(|other| other.name == name);
    let is_here = |number: &usize| globals.get(*number).is_some_and(|global| is_in(global.name, reported));
    // Placed units, and those that are neither placed nor to run and are still being stopped.
    let stays = |name: &UnitName| {
        is_in(name, placed)
            || running.iter().any(|number| globals.get(*number).is_some_and(|global| global.name == name))
    };
    let mut used = placed.iter().fold(Resources::NONE, |sum, unit| plus(sum, unit.asks.resources));
    for unit in reported.iter().filter(|unit| !stays(unit.name)) {
        used = plus(used, unit.asks.resources);
    }
    let (here, new): (Vec<usize>, Vec<usize>) = running.iter().partition(|number| is_here(number));
    let mut kept = Vec::new();
    let mut stopping = Resources::NONE;
    for number in here {
        if covers(ground.limit.free(used), asks(&number)) {
            used = plus(used, asks(&number));
            kept.push(number);
        } else {
            stopping = plus(stopping, asks(&number));
        }
    }
    for number in new {
        if covers(ground.limit.free(plus(used, stopping)), asks(&number)) {
            used = plus(used, asks(&number));
            kept.push(number);
        }
    }
    // One that found no room keeps away none that it conflicts with.
    let among = |one: &Party<'_>, numbers: &[usize]| {
        numbers.iter().any(|number| globals.get(*number).is_some_and(|other| one.conflicts_with(other)))
    };
    for (number, global) in globals.iter().enumerate().filter(|(number, _)| !running.contains(number)) {
        let free = own_terms(global.asks, ground).is_none()
            && !placed.iter().any(|other| global.conflicts_with(other))
            && !among(global, &kept);
        if free && covers(ground.limit.free(plus(used, stopping)), asks(&number)) {
            used = plus(used, asks(&number));
            kept.push(number);
        }
    }
    kept.sort_unstable();
    kept
}
