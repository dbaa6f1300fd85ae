//! `[X-Fleet]` as fleet 1.0 read it. The keys that came after fleet are in `later_keys.rs`.
//!
//! One rule is systemd's and not fleet's: an empty assignment resets its key. fleet took it as a machine or a unit
//! without a name, which nothing can meet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sealift_model::diagnostic::{Diagnostic, Severity};
use sealift_model::{Requirements, UnitName};

use crate::unit_file::{Assignment, UnitFile};
use crate::{MOST_OF_A_KIND, finding, known, later_keys, near, sort};
use sealift_model::glob_matches;

pub(crate) const SECTION: &str = "X-Fleet";

// Every key with its old spellings, in the order in which fleet looked at them.
const MACHINE_ID: &[&str] = &["MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID"];
const MACHINE_OF: &[&str] = &["X-ConditionMachineOf", "MachineOf"];
const METADATA: &[&str] = &["X-ConditionMachineMetadata", "MachineMetadata"];
const CONFLICTS: &[&str] = &["X-Conflicts", "Conflicts"];
const REPLACES: &[&str] = &["Replaces"];
const GLOBAL: &str = "Global";

/// Old spellings and what to write instead.
const DEPRECATED: [(&str, &str); 5] = [
    ("X-ConditionMachineID", "MachineID"),
    ("X-ConditionMachineBootID", "MachineID"),
    ("X-ConditionMachineOf", "MachineOf"),
    ("X-ConditionMachineMetadata", "MachineMetadata"),
    ("X-Conflicts", "Conflicts"),
];

/// One value out of an assignment, specifiers replaced.
pub(crate) struct Item<'a> {
    pub(crate) text: String,
    pub(crate) source: &'a Assignment,
    /// Its bytes in the assignment's value.
    range: Range<usize>,
}

impl Item<'_> {
    pub(crate) fn line(&self) -> usize {
        self.source.place_in_value(self.range.clone()).line
    }

    pub(crate) fn finding(&self, severity: Severity, message: String, help: Option<String>) -> Diagnostic {
        finding(severity, self.source.place_in_value(self.range.clone()), message, help)
    }
}

pub(crate) fn read(file: &UnitFile, name: &UnitName) -> (Requirements, Vec<Diagnostic>) {
    let mut reader = Reader { file, name, findings: Vec::new() };
    reader.check_keys();
    let machine_id = reader.machine_id();
    let machine_of = reader.machine_of();
    let conflicts = reader.conflicts();
    let replaces = reader.replaces();
    let global = reader.global();

    let texts = |items: &[Item]| items.iter().map(|item| item.text.clone()).collect();
    let mut requirements = Requirements {
        machine_id: machine_id.first().map(|item| item.text.clone()),
        machine_of: texts(&machine_of),
        conflicts: texts(&conflicts),
        global: !global.is_empty(),
        replaces: texts(&replaces),
        ..Requirements::default()
    };
    requirements.metadata = reader.pairs(METADATA).0;

    for (one, other) in [
        (&machine_id, &machine_of),
        (&machine_id, &conflicts),
        (&machine_id, &global),
        (&machine_id, &replaces),
        (&global, &machine_of),
        (&global, &replaces),
        (&conflicts, &replaces),
    ] {
        reader.check_pair(one, other);
    }
    for keeps_away in [&conflicts, &replaces] {
        reader.check_peers(&machine_of, keeps_away);
    }
    let fixed = later_keys::Fixed { machine_id, machine_of, global, keeps_away: [conflicts, replaces] };
    later_keys::read(&mut reader, &mut requirements, &fixed);
    let mut findings = reader.findings;
    sort(&mut findings);
    (requirements, findings)
}

pub(crate) struct Reader<'a> {
    pub(crate) file: &'a UnitFile,
    pub(crate) name: &'a UnitName,
    pub(crate) findings: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    fn check_keys(&mut self) {
        let is_known = |key| known::FLEET.split_ascii_whitespace().any(|known| known == key);
        let sections = self.file.sections().iter().filter(|section| section.name == SECTION);
        let assignments = sections.flat_map(|section| &section.assignments);
        for assignment in assignments.filter(|a| !is_known(a.key())).take(MOST_OF_A_KIND) {
            let key = assignment.key();
            let (message, help) = if let Some((_, modern)) = DEPRECATED.iter().find(|(old, _)| *old == key) {
                (format!("{key} is deprecated"), Some(format!("write {modern}")))
            } else {
                let known = known::FLEET.split_ascii_whitespace().chain(DEPRECATED.map(|(old, _)| old));
                let help = near(key, known).map(|near| format!("did you mean {near}?"));
                (format!("[{SECTION}] has no key {key}; it is ignored"), help)
            };
            self.findings.push(finding(Severity::Warning, assignment.key_place(), message, help));
        }
    }

    /// At most one counts: the first of the best spelling.
    fn machine_id(&mut self) -> Vec<Item<'a>> {
        let mut items = self.items(MACHINE_ID);
        for spare in items.drain(items.len().min(1)..).take(MOST_OF_A_KIND) {
            let message = format!("only one machine can be asked for; {} is ignored", spare.text);
            self.findings.push(spare.finding(Severity::Warning, message, None));
        }
        for item in &items {
            let hex = item.text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !(hex && matches!(item.text.len(), 8 | 32)) {
                let message = format!("no machine has the id {:?}", item.text);
                let help = "an id is 32 hex digits in lower case; its first 8 will do".into();
                self.findings.push(item.finding(Severity::Warning, message, Some(help)));
            }
        }
        items
    }

    fn machine_of(&mut self) -> Vec<Item<'a>> {
        let items = self.items(MACHINE_OF);
        // A template's own text need not make sense before its instance is known.
        let judged = items.iter().filter(|_| !self.name.is_template());
        let invalid = judged.filter_map(|item| Some((item, item.text.parse::<UnitName>().err()?)));
        for (item, reason) in invalid.take(MOST_OF_A_KIND) {
            let help = if item.text.contains(char::is_whitespace) {
                "one unit on each MachineOf line"
            } else {
                "the exact name, with its suffix"
            };
            self.findings.push(item.finding(Severity::Warning, reason.to_string(), Some(help.into())));
        }
        items
    }

    fn conflicts(&self) -> Vec<Item<'a>> {
        self.words(CONFLICTS)
    }

    /// The words of all values of these keys.
    pub(crate) fn words(&self, keys: &[&str]) -> Vec<Item<'a>> {
        let mut words = Vec::new();
        for Item { text, source, range } in self.items(keys) {
            words.extend(text.split_whitespace().map(|word| Item {
                text: word.to_owned(),
                source,
                range: range.clone(),
            }));
        }
        words
    }

    fn replaces(&mut self) -> Vec<Item<'a>> {
        let items = self.items(REPLACES);
        let invalid = items.iter().filter(|item| item.text.contains(char::is_whitespace));
        for item in invalid.take(MOST_OF_A_KIND) {
            let message = format!("no unit's name matches {:?}", item.text);
            let help = "one name or glob on each Replaces line".into();
            self.findings.push(item.finding(Severity::Warning, message, Some(help)));
        }
        items
    }

    /// The word that makes the unit global, if there is one. The last assignment decides.
    fn global(&mut self) -> Vec<Item<'a>> {
        self.yes(GLOBAL).into_iter().collect()
    }

    /// The word that says yes to a key, if the last one does.
    pub(crate) fn yes(&mut self, key: &str) -> Option<Item<'a>> {
        let last = self.items(&[key]).pop()?;
        match last.text.to_lowercase().as_str() {
            "true" | "yes" | "1" | "on" | "t" => return Some(last),
            "false" | "no" | "0" | "off" | "f" => {}
            _ => {
                let message = format!("{:?} is neither true nor false, and counts as false", last.text);
                self.findings.push(last.finding(Severity::Warning, message, None));
            }
        }
        None
    }

    /// The `key=value` pairs of these keys, and the values that they were read from.
    pub(crate) fn pairs(&mut self, keys: &[&str]) -> (BTreeMap<String, BTreeSet<String>>, Vec<Item<'a>>) {
        let mut pairs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let (mut good, mut malformed) = (Vec::new(), Vec::new());
        for item in self.items(keys) {
            match item.text.split('=').collect::<Vec<_>>()[..] {
                [key, value] if !key.is_empty() && !value.is_empty() => {
                    pairs.entry(key.to_owned()).or_default().insert(value.to_owned());
                    good.push(item);
                }
                _ => malformed.push(item),
            }
        }
        for item in malformed.iter().take(MOST_OF_A_KIND) {
            let message = format!("{:?} is not key=value; it is ignored", item.text);
            let help = "several pairs are written \"a=b\" \"c=d\", each in quotes, or on lines of their own";
            self.findings.push(item.finding(Severity::Warning, message, Some(help.into())));
        }
        (pairs, good)
    }

    /// fleet refused a unit that has both; the finding stands at the one that comes later in the file.
    pub(crate) fn check_pair(&mut self, one: &[Item], other: &[Item]) {
        let (Some(one), Some(other)) = (one.first(), other.first()) else { return };
        let (first, second) = if one.line() <= other.line() { (one, other) } else { (other, one) };
        self.findings.push(finding(
            Severity::Error,
            second.source.key_place(),
            format!("{} cannot stand together with {}", second.source.key(), first.source.key()),
            Some(format!("remove it, or {} in line {}", first.source.key(), first.line())),
        ));
    }

    /// A unit cannot ask for another one and keep it away.
    fn check_peers(&mut self, peers: &[Item], keeps_away: &[Item]) {
        let kept_away = peers.iter().filter_map(|peer| {
            Some((peer, keeps_away.iter().find(|glob| glob_matches(&glob.text, &peer.text))?))
        });
        for (peer, glob) in kept_away.take(MOST_OF_A_KIND) {
            let message = format!(
                "{} is wanted on the same machine, but {} in line {} keeps it away",
                peer.text,
                glob.source.key(),
                glob.line()
            );
            self.findings.push(peer.finding(Severity::Error, message, None));
        }
    }

    /// The values of these keys, key by key.
    pub(crate) fn items(&self, keys: &[&str]) -> Vec<Item<'a>> {
        let assignments = keys.iter().flat_map(|key| self.file.list(SECTION, key));
        assignments
            .flat_map(|source| {
                let pieces = pieces(source.value()).into_iter();
                pieces.map(move |(text, range)| Item { text: expand(&text, self.name), source, range })
            })
            .filter(|item| !item.text.is_empty())
            .collect()
    }
}

/// `"a" "b"` is two values. Only a value that begins and ends with a quote is taken apart; any other is one value.
fn pieces(value: &str) -> Vec<(String, Range<usize>)> {
    if !(value.starts_with('"') && value.ends_with('"')) {
        return vec![(value.to_owned(), 0..value.len())];
    }
    let mut pieces = Vec::new();
    let (mut piece, mut start, mut quoted) = (String::new(), 0, false);
    for (at, c) in value.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                pieces.push((std::mem::take(&mut piece), start..at));
                start = at + 1;
            }
            c => piece.push(c),
        }
    }
    pieces.push((piece, start..value.len()));
    pieces
}

/// Replaces `%n` (full name), `%N` (without suffix), `%p` (before the `@`) and `%i` (after it). fleet knew no other
/// specifiers, `%%` included.
pub(crate) fn expand(text: &str, name: &UnitName) -> String {
    let (prefix, instance) = name.stem().split_once('@').unwrap_or((name.stem(), ""));
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        let value = match after.chars().next() {
            Some('n') => Some(name.as_str()),
            Some('N') => Some(name.stem()),
            Some('p') => Some(prefix),
            Some('i') => Some(instance),
            _ => None,
        };
        out.push_str(before);
        out.push_str(value.unwrap_or("%"));
        // The specifiers are one byte long.
        rest = after.get(usize::from(value.is_some())..).unwrap_or_default();
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::shown;

    fn read_as(name: &str, section: &str) -> (Requirements, Vec<String>) {
        let file = UnitFile::parse(&format!("[X-Fleet]\n{section}\n"));
        let (requirements, findings) = file.requirements(&name.parse().unwrap());
        (requirements, shown(&findings))
    }

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn none() -> Requirements {
        Requirements::default()
    }

    #[test]
    fn reads_by_table() {
        let metadata = |pairs: &[(&str, &[&str])]| -> BTreeMap<String, BTreeSet<String>> {
            pairs.iter().map(|(key, values)| ((*key).to_owned(), set(values))).collect()
        };
        for (section, wanted) in [
            ("", none()),
            ("MachineID=0123abcd", Requirements { machine_id: Some("0123abcd".into()), ..none() }),
            (
                "MachineID=01234567\nMachineID=\nMachineID=89abcdef",
                Requirements { machine_id: Some("89abcdef".into()), ..none() },
            ),
            (
                "MachineOf=a.service\nMachineOf=b.service",
                Requirements { machine_of: set(&["a.service", "b.service"]), ..none() },
            ),
            ("MachineOf=a.service\nMachineOf=\n", none()),
            (
                "MachineOf=\"a.service\" \"b.service\"",
                Requirements { machine_of: set(&["a.service", "b.service"]), ..none() },
            ),
            (
                "MachineMetadata=\"a=b\" \"a=c\" \\\n # why\n \"d=e f\"\nMachineMetadata=g=h",
                Requirements {
                    metadata: metadata(&[("a", &["b", "c"]), ("d", &["e f"]), ("g", &["h"])]),
                    ..none()
                },
            ),
            (
                "Conflicts=a* b?.service\nConflicts=c",
                Requirements { conflicts: set(&["a*", "b?.service", "c"]), ..none() },
            ),
            ("Global=TRUE", Requirements { global: true, ..none() }),
            ("Global=t", Requirements { global: true, ..none() }),
            ("Global=on\nGlobal=no", none()),
            (
                "Replaces=a.service\nReplaces=b*",
                Requirements { replaces: set(&["a.service", "b*"]), ..none() },
            ),
            (
                "Conflicts=%n %N %p@%i %%x %x %",
                Requirements {
                    conflicts: set(&["web@1.service", "web@1", "web@1", "%%x", "%x", "%"]),
                    ..none()
                },
            ),
        ] {
            assert_eq!(read_as("web@1.service", section), (wanted, vec![]), "{section}");
        }
    }

    #[test]
    fn old_spellings_count_and_are_told() {
        let (requirements, findings) = read_as(
            "a.service",
            "X-ConditionMachineOf=b.service\nX-ConditionMachineMetadata=a=b\nMachineMetadata=a=c\nX-Conflicts=c*\nConflicts=d*",
        );
        assert_eq!(requirements.machine_of, set(&["b.service"]));
        assert_eq!(requirements.metadata["a"], set(&["b", "c"]));
        assert_eq!(requirements.conflicts, set(&["c*", "d*"]));
        assert_eq!(
            findings,
            [
                "2:1+20 warning: X-ConditionMachineOf is deprecated (write MachineOf)",
                "3:1+26 warning: X-ConditionMachineMetadata is deprecated (write MachineMetadata)",
                "5:1+11 warning: X-Conflicts is deprecated (write Conflicts)",
            ]
        );
        for (section, wanted) in [
            ("X-ConditionMachineID=00000001\nMachineID=00000002", "00000002"),
            ("X-ConditionMachineBootID=00000001\nX-ConditionMachineID=00000002", "00000002"),
            ("X-ConditionMachineBootID=00000001", "00000001"),
        ] {
            assert_eq!(read_as("a.service", section).0.machine_id.as_deref(), Some(wanted), "{section}");
        }
    }

    #[test]
    fn what_cannot_help_is_told_with_its_place() {
        let pairs = "several pairs are written \"a=b\" \"c=d\", each in quotes, or on lines of their own";
        for (section, wanted) in [
            ("MachineMetadata=\"a=b\" \\\n  \"c\"", format!("3:3+3 warning: \"c\" is not key=value; it is ignored ({pairs})")),
            ("MachineMetadata=a=b c=d", format!("2:17+7 warning: \"a=b c=d\" is not key=value; it is ignored ({pairs})")),
            ("MachineMetadata=a=", format!("2:17+2 warning: \"a=\" is not key=value; it is ignored ({pairs})")),
            ("Global=ture", "2:8+4 warning: \"ture\" is neither true nor false, and counts as false".into()),
            ("Confilcts=a", "2:1+9 warning: [X-Fleet] has no key Confilcts; it is ignored (did you mean Conflicts?)".into()),
            ("Weight=3", "2:1+6 warning: [X-Fleet] has no key Weight; it is ignored".into()),
            ("Replaces=a b", "2:10+3 warning: no unit's name matches \"a b\" (one name or glob on each Replaces line)".into()),
            ("MachineID=xyz", "2:11+3 warning: no machine has the id \"xyz\" (an id is 32 hex digits in lower case; its first 8 will do)".into()),
            ("MachineID=00000001\nMachineID=00000002", "3:11+8 warning: only one machine can be asked for; 00000002 is ignored".into()),
        ] {
            assert_eq!(read_as("a.service", section).1, [wanted], "{section}");
        }
        for (name, wanted) in [
            ("b.service c.service", "one unit on each"),
            ("b*.service", "the exact name"),
            ("b", "the exact name"),
        ] {
            let (_, findings) = read_as("a.service", &format!("MachineOf={name}"));
            assert!(findings.len() == 1 && findings[0].contains(wanted), "{findings:?}");
        }
        assert_eq!(read_as("a@.service", "MachineOf=%i.service").1, [""; 0]);
    }

    #[test]
    fn contradictions_are_errors() {
        for (one, other) in [
            ("MachineID=00000001", "MachineOf=b.service"),
            ("MachineID=00000001", "Conflicts=b"),
            ("MachineID=00000001", "Global=true"),
            ("MachineID=00000001", "Replaces=b"),
            ("Global=true", "MachineOf=b.service"),
            ("Global=true", "Replaces=b"),
            ("Conflicts=c", "Replaces=b"),
        ] {
            for (first, second) in [(one, other), (other, one)] {
                let key = |line: &'static str| line.split_once('=').unwrap().0;
                let wanted = format!(
                    "3:1+{} error: {} cannot stand together with {} (remove it, or {} in line 2)",
                    key(second).len(),
                    key(second),
                    key(first),
                    key(first)
                );
                assert_eq!(read_as("a.service", &format!("{first}\n{second}")).1, [wanted]);
            }
        }
        for allowed in [
            "MachineID=00000001\nMachineMetadata=a=b",
            "MachineID=00000001\nGlobal=false",
            "Global=true\nConflicts=b",
            "MachineOf=b.service\nConflicts=c*",
            "MachineOf=b.service\nReplaces=c*",
        ] {
            assert_eq!(read_as("a.service", allowed).1, [""; 0], "{allowed}");
        }
        for key in ["Conflicts", "Replaces"] {
            assert_eq!(
                read_as("a.service", &format!("MachineOf=b.service\n{key}=b*")).1,
                [format!(
                    "2:11+9 error: b.service is wanted on the same machine, but {key} in line 3 keeps it away"
                )]
            );
        }
    }
}
