//! The keys of `[X-Fleet]` that came after fleet: resources, classes, spread, wishes, priority, replicas, being cut off
//! and updates.
//!
//! A value that cannot be read is an error here, not a warning as with fleet's own keys: a unit that was to be held to
//! 512M should not run without a limit for a slip of the fingers. Of a key that holds one value the last one counts.

use sealift_model::diagnostic::Severity::{self, Error, Warning};
use sealift_model::{
    CutOff, OnFailure, Requirements, Resources, Share, UnitKind, UpdateOrder, UpdatePolicy, glob_matches,
};

use crate::fleet::{Item, Reader, SECTION, expand};
use crate::value::{self, Help};
use crate::{MOST_OF_A_KIND, finding, known, near};

/// More instances than this are a slip of the fingers.
const MOST_REPLICAS: u32 = 10_000;
/// A longer wait is one for ever. One year.
const LONGEST_SECONDS: u64 = 31_557_600;

/// What fleet's own keys say of the unit's machine.
pub(crate) struct Fixed<'a> {
    pub(crate) machine_id: Vec<Item<'a>>,
    pub(crate) machine_of: Vec<Item<'a>>,
    pub(crate) global: Vec<Item<'a>>,
    /// `Conflicts=` and `Replaces=`.
    pub(crate) keeps_away: [Vec<Item<'a>>; 2],
}

pub(crate) fn read(reader: &mut Reader, requirements: &mut Requirements, fixed: &Fixed) {
    resources(reader, requirements);
    classes(reader, requirements);
    spread(reader, requirements, fixed);
    wishes(reader, requirements, fixed);
    priority(reader, requirements);
    replicas(reader, requirements, fixed);
    cut_off(reader, requirements);
    updates(reader, requirements, fixed);
}

fn resources(reader: &mut Reader, requirements: &mut Requirements) {
    let memory = reader.one("Memory", value::size);
    let cpu = reader.one("CPU", value::cores);
    let memory_max = reader.one("MemoryMax", limit(value::size));
    let cpu_max = reader.one("CPUMax", limit(value::cores));
    if let (Some((wanted, at)), Some((cap, other))) = (&memory, &memory_max) {
        reader.check_cap(wanted > cap && *cap > 0, at, other);
    }
    if let (Some((wanted, at)), Some((cap, other))) = (&cpu, &cpu_max) {
        reader.check_cap(wanted > cap && *cap > 0, at, other);
    }
    let kind = reader.name.kind();
    let section = match kind {
        UnitKind::Socket => "Socket",
        UnitKind::Mount => "Mount",
        UnitKind::Swap => "Swap",
        UnitKind::Slice => "Slice",
        _ => "Service",
    };
    for (item, of_systemd) in [
        (memory_max.as_ref().map(|(_, item)| item), "MemoryMax"),
        (cpu_max.as_ref().map(|(_, item)| item), "CPUQuota"),
    ] {
        let Some(item) = item else { continue };
        if !known::has_processes(kind) {
            let message =
                format!("a .{} unit has no processes to hold to {}", kind.suffix(), item.source.key());
            reader.warn_of_key(item, message, None);
        } else if let Some(other) = reader.file.list(section, of_systemd).last() {
            let help = format!("write one of the two; {of_systemd} is in line {}", other.key_place().line);
            let message = format!("this takes the place of {of_systemd} in [{section}]");
            reader.warn_of_key(item, message, Some(help));
        }
    }
    let or_none = |read: Option<(u64, Item)>| read.map_or(0, |(value, _)| value);
    let cores_or_none = |read: Option<(u32, Item)>| read.map_or(0, |(value, _)| value);
    requirements.resources = Resources { memory: or_none(memory), cpu: cores_or_none(cpu) };
    requirements.caps = Resources { memory: or_none(memory_max), cpu: cores_or_none(cpu_max) };
}

/// A cap: `infinity` is none, and 0 would be none without looking like it.
fn limit<T: Default + PartialEq>(read: fn(&str) -> Result<T, Help>) -> impl Fn(&str) -> Result<T, Help> {
    move |text| match text {
        "infinity" => Ok(T::default()),
        text => match read(text)? {
            none if none == T::default() => Err("nothing runs with nothing; no cap is written infinity"),
            cap => Ok(cap),
        },
    }
}

fn classes(reader: &mut Reader, requirements: &mut Requirements) {
    let words = reader.words(&["MachineClass"]);
    let any = words.iter().find(|word| word.text == "*");
    if let (Some(any), Some(other)) = (any, words.iter().find(|word| word.text != "*")) {
        let message = format!("* is any machine; {} has no effect beside it", other.text);
        reader.findings.push(any.finding(Warning, message, None));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    for word in
        words.iter().filter(|word| word.text != "*" && !word.text.chars().all(plain)).take(MOST_OF_A_KIND)
    {
        let message = format!("{:?} is no class of machines", word.text);
        let help = "letters, digits, '-', '_' and '.'; or * alone for any machine";
        reader.findings.push(word.finding(Error, message, Some(help.into())));
    }
    requirements.classes = words.into_iter().map(|word| word.text).collect();
}

fn spread(reader: &mut Reader, requirements: &mut Requirements, fixed: &Fixed) {
    let key = |text: &str| match text {
        text if text.contains(['=', ' ', '\t']) => Err("one metadata key, without a value, such as zone"),
        text => Ok(text.to_owned()),
    };
    let Some((key, item)) = reader.one("Spread", key) else { return };
    let item = [item];
    for other in [&fixed.machine_id, &fixed.machine_of, &fixed.global] {
        reader.check_pair(other, &item);
    }
    let [item] = item;
    if requirements.metadata.get(&key).is_some_and(|values| values.len() == 1) {
        let message = format!("nothing to spread over: MachineMetadata leaves one value of {key}");
        reader.findings.push(item.finding(Warning, message, None));
    }
    requirements.spread = Some(key);
}

fn wishes(reader: &mut Reader, requirements: &mut Requirements, fixed: &Fixed) {
    let (metadata, pairs) = reader.pairs(&["PreferMachineMetadata"]);
    let peers = reader.items(&["PreferMachineOf"]);
    let decided = [&fixed.machine_id, &fixed.global].into_iter().flatten().next();
    for wish in [pairs.first(), peers.first()].into_iter().flatten() {
        if let Some(decided) = decided {
            let message = format!(
                "{} has no effect: {} in line {} leaves no choice",
                wish.source.key(),
                decided.source.key(),
                decided.line()
            );
            reader.warn_of_key(wish, message, None);
        }
    }
    for pair in pairs.iter().take(MOST_OF_A_KIND) {
        let (key, value) = pair.text.split_once('=').unwrap_or_default();
        if requirements.metadata.get(key).is_some_and(|values| !values.contains(value)) {
            let message = format!("no machine with {} may run it, by MachineMetadata", pair.text);
            reader.findings.push(pair.finding(Warning, message, None));
        }
    }
    for peer in peers.iter().take(MOST_OF_A_KIND) {
        if peer.text.contains(char::is_whitespace) {
            let message = format!("no unit's name matches {:?}", peer.text);
            let help = "one name or glob on each PreferMachineOf line".to_owned();
            reader.findings.push(peer.finding(Error, message, Some(help)));
        } else if let Some(glob) =
            fixed.keeps_away.iter().flatten().find(|glob| glob_matches(&glob.text, &peer.text))
        {
            let message = format!(
                "{} is wished for on the same machine, but {} in line {} keeps it away",
                peer.text,
                glob.source.key(),
                glob.line()
            );
            reader.findings.push(peer.finding(Error, message, None));
        }
    }
    requirements.prefers_metadata = metadata;
    requirements.prefers_machine_of = peers.into_iter().map(|peer| peer.text).collect();
}

fn priority(reader: &mut Reader, requirements: &mut Requirements) {
    let number = |text: &str| text.parse::<i32>().map_err(|_| "a whole number, such as 10 or -5");
    let priority = reader.one("Priority", number);
    let preempt = reader.yes("Preempt");
    if let (Some(item), None) = (&preempt, &priority) {
        let message =
            "Preempt has little effect without Priority: only units of a lower one give way".to_owned();
        reader.warn_of_key(item, message, Some("write Priority= with a number above 0".into()));
    }
    requirements.priority = priority.map_or(0, |(priority, _)| priority);
    requirements.preempts = preempt.is_some();
}

fn replicas(reader: &mut Reader, requirements: &mut Requirements, fixed: &Fixed) {
    let count = |text: &str| match text.parse::<u32>() {
        Ok(count) if count <= MOST_REPLICAS => Ok(count),
        Ok(_) => Err("at most 10000"),
        Err(_) => Err("a number of instances, such as 3"),
    };
    let Some((count, item)) = reader.one("Replicas", count) else { return };
    let item = [item];
    reader.check_pair(&fixed.global, &item);
    let [item] = item;
    if reader.name.is_template() {
        requirements.replicas = Some(count);
    } else if reader.name.instance().is_none() {
        // An instance has its template's text, in which it means something.
        let message = format!("only a template has replicas, and {} is none", reader.name);
        let help = format!("name the file {}@.{}", reader.name.stem(), reader.name.kind().suffix());
        reader.findings.push(finding(Error, item.source.key_place(), message, Some(help)));
    }
}

/// The word that makes it stop, if there is one.
fn cut_off(reader: &mut Reader, requirements: &mut Requirements) {
    let read = reader.word("CutOff", &[("keep", CutOff::Keep), ("stop", CutOff::Stop)]);
    requirements.cut_off = read.map_or(requirements.cut_off, |(cut_off, _)| cut_off);
}

fn updates(reader: &mut Reader, requirements: &mut Requirements, fixed: &Fixed) {
    let whole = |text: &str| text.parse::<u32>().map_err(|_| "a whole number, such as 1");
    let max_out = reader.one("UpdateMaxOut", value::share);
    let canary = reader.one("UpdateCanary", whole);
    let order = reader.word(
        "UpdateOrder",
        &[("stop-first", UpdateOrder::StopFirst), ("start-first", UpdateOrder::StartFirst)],
    );
    let hold = reader.one("UpdateHold", seconds);
    let timeout = reader.one("UpdateTimeout", timeout);
    let on_failure =
        reader.word("UpdateOnFailure", &[("rollback", OnFailure::Rollback), ("stop", OnFailure::Stop)]);
    // A command keeps its quotes.
    let health = reader.file.list(SECTION, "UpdateHealth").pop();
    let named = max_out.is_some()
        || canary.is_some()
        || order.is_some()
        || hold.is_some()
        || timeout.is_some()
        || on_failure.is_some()
        || health.is_some();
    if !named {
        return;
    }

    let in_parts = !fixed.global.is_empty() || reader.name.stem().contains('@');
    for item in [max_out.as_ref().map(|(_, item)| item), canary.as_ref().map(|(_, item)| item)] {
        if let Some(item) = item.filter(|_| !in_parts) {
            let key = item.source.key();
            let message = format!("{key} has nothing to divide: {} is one unit on one machine", reader.name);
            let help =
                "only the instances of a template and the machines of a Global unit are updated in parts";
            reader.findings.push(finding(Error, item.source.key_place(), message, Some(help.into())));
        }
    }
    if let Some(replicas) = requirements.replicas.filter(|replicas| *replicas > 0) {
        if let Some((count, item)) = &canary
            && *count >= replicas
        {
            let message = format!("of {replicas} replicas {count} cannot go first");
            reader.findings.push(item.finding(Error, message, Some("fewer than there are replicas".into())));
        }
        if let Some((Share::Count(count), item)) = &max_out
            && *count >= replicas
            && replicas > 1
        {
            let message = format!("all {replicas} replicas may be out at once");
            reader.findings.push(item.finding(Warning, message, None));
        }
    }
    if let Some((UpdateOrder::StartFirst, item)) = &order
        && reader.file.value(SECTION, "Replicas").is_none()
    {
        let message =
            "start-first brings one instance more while the others change, and there is no Replicas=";
        let help = "write stop-first, or make it a template with Replicas=";
        reader.findings.push(item.finding(Error, message.into(), Some(help.into())));
    }
    let mut policy = UpdatePolicy::default();
    if let Some((hold, item)) = &hold {
        let limit = timeout.as_ref().map_or(policy.timeout_seconds, |(timeout, _)| *timeout);
        if *hold >= limit {
            let message = format!("after {limit} s without an end it has failed, before this is over");
            reader.findings.push(item.finding(Error, message, Some("make UpdateTimeout longer".into())));
        }
    }
    policy.max_out = max_out.map_or(policy.max_out, |(share, _)| share);
    policy.canary = canary.map_or(policy.canary, |(count, _)| count);
    policy.order = order.map_or(policy.order, |(order, _)| order);
    policy.hold_seconds = hold.map_or(policy.hold_seconds, |(seconds, _)| seconds);
    policy.timeout_seconds = timeout.map_or(policy.timeout_seconds, |(seconds, _)| seconds);
    policy.on_failure = on_failure.map_or(policy.on_failure, |(what, _)| what);
    policy.health = health.map(|assignment| expand(assignment.value(), reader.name));
    requirements.update = Some(policy);
}

/// Seconds; parts of one count as a whole.
fn seconds(text: &str) -> Result<u32, Help> {
    let millis = value::span(text)?.ok_or("a time that ends, such as 10s")?;
    let seconds = millis.div_ceil(1000);
    u32::try_from(seconds).ok().filter(|_| seconds <= LONGEST_SECONDS).ok_or("at most a year")
}

fn timeout(text: &str) -> Result<u32, Help> {
    match seconds(text)? {
        0 => Err("in no time nothing is active; a time such as 5min"),
        seconds => Ok(seconds),
    }
}

impl<'a> Reader<'a> {
    /// The last value of a key, read; one that cannot be read is an error.
    fn one<T>(&mut self, key: &str, read: impl Fn(&str) -> Result<T, Help>) -> Option<(T, Item<'a>)> {
        let item = self.items(&[key]).pop()?;
        match read(&item.text) {
            Ok(value) => Some((value, item)),
            Err(help) => {
                let message = format!("{key}={} cannot be understood", item.text);
                self.findings.push(item.finding(Error, message, Some(help.into())));
                None
            }
        }
    }

    /// The last value of a key that holds one of these words.
    fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<(T, Item<'a>)> {
        let item = self.items(&[key]).pop()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == item.text) {
            return Some((*value, item));
        }
        let known = words.iter().map(|(word, _)| *word);
        let help = match near(&item.text, known.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("one of: {}", known.collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{key}={} cannot be understood", item.text);
        self.findings.push(item.finding(Error, message, Some(help)));
        None
    }

    fn check_cap(&mut self, above: bool, wanted: &Item, cap: &Item) {
        if above {
            let (key, other) = (wanted.source.key(), cap.source.key());
            let message =
                format!("{key}={} is above {other}={} in line {}", wanted.text, cap.text, cap.line());
            let help = "what is kept free for a unit is at most what it may use".to_owned();
            self.findings.push(wanted.finding(Error, message, Some(help)));
        }
    }

    fn warn_of_key(&mut self, item: &Item, message: String, help: Option<String>) {
        let severity: Severity = Warning;
        self.findings.push(finding(severity, item.source.key_place(), message, help));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{UnitFile, shown};

    fn read_as(name: &str, section: &str) -> (Requirements, Vec<String>) {
        let file = UnitFile::parse(&format!("[X-Fleet]\n{section}\n"));
        let (requirements, findings) = file.requirements(&name.parse().unwrap());
        (requirements, shown(&findings))
    }

    fn none() -> Requirements {
        Requirements::default()
    }

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn reads_by_table() {
        let policy = UpdatePolicy::default;
        let update = |update| Requirements { update: Some(update), ..none() };
        let ours = |memory, cpu| Resources { memory, cpu };
        for (section, wanted) in [
            ("Memory=512M\nCPU=0.5", Requirements { resources: ours(512 << 20, 500), ..none() }),
            ("Memory=1G\nMemory=\nCPU=250m", Requirements { resources: ours(0, 250), ..none() }),
            ("MemoryMax=1.5G\nCPUMax=2", Requirements { caps: ours(3 << 29, 2000), ..none() }),
            (
                "MemoryMax=infinity\nCPUMax=infinity\nMemory=1G",
                Requirements { resources: ours(1 << 30, 0), ..none() },
            ),
            (
                "MachineClass=gpu big\nMachineClass=arm",
                Requirements { classes: set(&["arm", "big", "gpu"]), ..none() },
            ),
            ("MachineClass=*", Requirements { classes: set(&["*"]), ..none() }),
            ("Spread=zone", Requirements { spread: Some("zone".into()), ..none() }),
            (
                "PreferMachineMetadata=\"a=b\" \"a=c\"\nPreferMachineMetadata=d=e",
                Requirements {
                    prefers_metadata: BTreeMap::from([
                        ("a".into(), set(&["b", "c"])),
                        ("d".into(), set(&["e"])),
                    ]),
                    ..none()
                },
            ),
            (
                "PreferMachineOf=db*\nPreferMachineOf=%p-cache.service",
                Requirements { prefers_machine_of: set(&["db*", "web-cache.service"]), ..none() },
            ),
            ("Priority=-5", Requirements { priority: -5, ..none() }),
            ("Priority=10\nPreempt=yes", Requirements { priority: 10, preempts: true, ..none() }),
            ("Priority=10\nPreempt=no", Requirements { priority: 10, ..none() }),
            // The instance's text is its template's.
            ("Replicas=3", none()),
            ("CutOff=keep", none()),
            ("CutOff=stop", Requirements { cut_off: CutOff::Stop, ..none() }),
            ("UpdateMaxOut=25%", update(UpdatePolicy { max_out: Share::Percent(25), ..policy() })),
            (
                "UpdateMaxOut=2\nUpdateCanary=1",
                update(UpdatePolicy { max_out: Share::Count(2), canary: 1, ..policy() }),
            ),
            ("UpdateHold=1min 30s", update(UpdatePolicy { hold_seconds: 90, ..policy() })),
            ("UpdateHold=1500ms", update(UpdatePolicy { hold_seconds: 2, ..policy() })),
            ("UpdateTimeout=1h", update(UpdatePolicy { timeout_seconds: 3600, ..policy() })),
            (
                "UpdateHealth=\"curl\" \"localhost/%i\"",
                update(UpdatePolicy { health: Some("\"curl\" \"localhost/1\"".into()), ..policy() }),
            ),
            ("UpdateOnFailure=stop", update(UpdatePolicy { on_failure: OnFailure::Stop, ..policy() })),
            ("UpdateOnFailure=stop\nUpdateOnFailure=", none()),
        ] {
            assert_eq!(read_as("web@1.service", section), (wanted, vec![]), "{section}");
        }
        let (requirements, findings) = read_as("web@.service", "Replicas=3\nUpdateOrder=start-first");
        assert_eq!(requirements.update.map(|policy| policy.order), Some(UpdateOrder::StartFirst));
        assert_eq!(findings, [""; 0]);
        assert_eq!(read_as("web@1.service", "Replicas=3\nUpdateOrder=start-first").1, [""; 0]);
        let (requirements, findings) = read_as("web@.service", "Replicas=3\nUpdateCanary=1");
        assert_eq!((requirements.replicas, findings), (Some(3), vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_help() {
        for (section, wanted) in [
            (
                "Memory=512m",
                "2:8+4 error: Memory=512m cannot be understood (the units are written in capitals: K, M, G, T)",
            ),
            (
                "Memory=50%",
                "2:8+3 error: Memory=50% cannot be understood (what is asked of a machine is a size such as 512M, no percentage: machines differ)",
            ),
            ("CPU=50%", "2:5+3 error: CPU=50% cannot be understood (in cores: 50% of one core is 0.5)"),
            (
                "CPUMax=two",
                "2:8+3 error: CPUMax=two cannot be understood (cores such as 0.5 or 2, or thousandths of one such as 500m)",
            ),
            (
                "MemoryMax=0",
                "2:11+1 error: MemoryMax=0 cannot be understood (nothing runs with nothing; no cap is written infinity)",
            ),
            (
                "Memory=infinity",
                "2:8+8 error: Memory=infinity cannot be understood (a size such as 512M or 1.5G; the units are K, M, G, T, P and E)",
            ),
            (
                "MachineClass=a,b",
                "2:14+3 error: \"a,b\" is no class of machines (letters, digits, '-', '_' and '.'; or * alone for any machine)",
            ),
            (
                "Spread=zone=a",
                "2:8+6 error: Spread=zone=a cannot be understood (one metadata key, without a value, such as zone)",
            ),
            (
                "Priority=high",
                "2:10+4 error: Priority=high cannot be understood (a whole number, such as 10 or -5)",
            ),
            ("CutOff=stpo", "2:8+4 error: CutOff=stpo cannot be understood (did you mean stop?)"),
            ("CutOff=yes", "2:8+3 error: CutOff=yes cannot be understood (one of: keep, stop)"),
            (
                "UpdateMaxOut=0",
                "2:14+1 error: UpdateMaxOut=0 cannot be understood (with none out at once nothing could be updated)",
            ),
            (
                "UpdateMaxOut=120%",
                "2:14+4 error: UpdateMaxOut=120% cannot be understood (a percentage is from 1% to 100%)",
            ),
            (
                "UpdateCanary=-1",
                "2:14+2 error: UpdateCanary=-1 cannot be understood (a whole number, such as 1)",
            ),
            (
                "UpdateOrder=start_first",
                "2:13+11 error: UpdateOrder=start_first cannot be understood (did you mean start-first?)",
            ),
            (
                "UpdateHold=infinity",
                "2:12+8 error: UpdateHold=infinity cannot be understood (a time that ends, such as 10s)",
            ),
            (
                "UpdateTimeout=0",
                "2:15+1 error: UpdateTimeout=0 cannot be understood (in no time nothing is active; a time such as 5min)",
            ),
            (
                "UpdateOnFailure=rolback",
                "2:17+7 error: UpdateOnFailure=rolback cannot be understood (did you mean rollback?)",
            ),
            (
                "PreferMachineOf=a b",
                "2:17+3 error: no unit's name matches \"a b\" (one name or glob on each PreferMachineOf line)",
            ),
            (
                "Priorty=3",
                "2:1+7 warning: [X-Fleet] has no key Priorty; it is ignored (did you mean Priority?)",
            ),
        ] {
            assert_eq!(read_as("a@1.service", section).1, [wanted], "{section}");
        }
        assert_eq!(
            read_as("a@.service", "Replicas=10001").1,
            ["2:10+5 error: Replicas=10001 cannot be understood (at most 10000)"]
        );
    }

    #[test]
    fn contradictions_by_table() {
        let pair = |second: &str, first: &str| {
            format!(
                "3:1+{} error: {second} cannot stand together with {first} (remove it, or {first} in line 2)",
                second.len()
            )
        };
        let alone = || {
            "2:13+11 error: start-first brings one instance more while the others change, and there is no Replicas= (write stop-first, or make it a template with Replicas=)"
                .to_owned()
        };
        for (name, section, wanted) in [
            ("a.service", "MachineID=00000001\nSpread=zone", pair("Spread", "MachineID")),
            ("a.service", "MachineOf=b.service\nSpread=zone", pair("Spread", "MachineOf")),
            ("a.service", "Global=1\nSpread=zone", pair("Spread", "Global")),
            ("a@.service", "Global=1\nReplicas=2", pair("Replicas", "Global")),
            (
                "a.service",
                "Replicas=2",
                "2:1+8 error: only a template has replicas, and a.service is none (name the file a@.service)".into(),
            ),
            (
                "a.service",
                "MemoryMax=1G\nMemory=1.5G",
                "3:8+4 error: Memory=1.5G is above MemoryMax=1G in line 2 (what is kept free for a unit is at most what it may use)".into(),
            ),
            (
                "a.service",
                "CPUMax=500m\nCPU=1",
                "3:5+1 error: CPU=1 is above CPUMax=500m in line 2 (what is kept free for a unit is at most what it may use)".into(),
            ),
            (
                "a.service",
                "Preempt=true",
                "2:1+7 warning: Preempt has little effect without Priority: only units of a lower one give way (write Priority= with a number above 0)".into(),
            ),
            (
                "a.service",
                "MachineID=00000001\nPreferMachineMetadata=a=b",
                "3:1+21 warning: PreferMachineMetadata has no effect: MachineID in line 2 leaves no choice".into(),
            ),
            (
                "a.service",
                "Global=1\nPreferMachineOf=b.service",
                "3:1+15 warning: PreferMachineOf has no effect: Global in line 2 leaves no choice".into(),
            ),
            (
                "a.service",
                "MachineMetadata=a=b\nPreferMachineMetadata=a=c",
                "3:23+3 warning: no machine with a=c may run it, by MachineMetadata".into(),
            ),
            (
                "a.service",
                "Conflicts=b*\nPreferMachineOf=b.service",
                "3:17+9 error: b.service is wished for on the same machine, but Conflicts in line 2 keeps it away".into(),
            ),
            (
                "a.service",
                "MachineMetadata=zone=a\nSpread=zone",
                "3:8+4 warning: nothing to spread over: MachineMetadata leaves one value of zone".into(),
            ),
            (
                "a.service",
                "MachineClass=* gpu",
                "2:14+5 warning: * is any machine; gpu has no effect beside it".into(),
            ),
            ("a.service", "UpdateOrder=start-first", alone()),
            ("a@1.service", "UpdateOrder=start-first", alone()),
            (
                "a.service",
                "UpdateMaxOut=2",
                "2:1+12 error: UpdateMaxOut has nothing to divide: a.service is one unit on one machine (only the instances of a template and the machines of a Global unit are updated in parts)".into(),
            ),
            (
                "a.service",
                "UpdateCanary=2",
                "2:1+12 error: UpdateCanary has nothing to divide: a.service is one unit on one machine (only the instances of a template and the machines of a Global unit are updated in parts)".into(),
            ),
            (
                "a@.service",
                "Replicas=2\nUpdateCanary=2",
                "3:14+1 error: of 2 replicas 2 cannot go first (fewer than there are replicas)".into(),
            ),
            (
                "a@.service",
                "Replicas=2\nUpdateMaxOut=2",
                "3:14+1 warning: all 2 replicas may be out at once".into(),
            ),
            (
                "a.service",
                "UpdateTimeout=10s\nUpdateHold=10s",
                "3:12+3 error: after 10 s without an end it has failed, before this is over (make UpdateTimeout longer)".into(),
            ),
            (
                "a.timer",
                "MemoryMax=1G",
                "2:1+9 warning: a .timer unit has no processes to hold to MemoryMax".into(),
            ),
            (
                "a.service",
                "CPUMax=1\n[Service]\nCPUQuota=50%",
                "2:1+6 warning: this takes the place of CPUQuota in [Service] (write one of the two; CPUQuota is in line 4)".into(),
            ),
        ] {
            assert_eq!(read_as(name, section).1, [wanted], "{section}");
        }
        for (name, allowed) in [
            (
                "a.service",
                "Global=1\nCutOff=stop\nMachineClass=gpu\nMemory=1G\nMemoryMax=1G\nPriority=1\nPreempt=1",
            ),
            ("a.service", "Global=1\nUpdateMaxOut=10%\nUpdateCanary=3"),
            ("a.service", "MachineID=00000001\nMachineClass=gpu\nUpdateHold=10s\nUpdateOnFailure=stop"),
            ("a@.service", "Replicas=0\nSpread=zone\nMachineMetadata=zone=a\nMachineMetadata=zone=b"),
            ("a@.service", "Replicas=1\nUpdateMaxOut=1\nUpdateOrder=start-first"),
            ("a.service", "MachineOf=b.service\nPreferMachineOf=c*\nPreferMachineMetadata=a=b"),
        ] {
            assert_eq!(read_as(name, allowed).1, [""; 0], "{allowed}");
        }
    }
}
