//! Units together: one with its drop-ins, and many of which some may ask for each other.
//!
//! What is found between files is told at the file that would have to change; of two that exclude each other, at the
//! one whose name comes later. Units that are not among the files are not judged: they may be in the fleet.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::diagnostic::{Diagnostic, Severity};
use sealift_model::{Requirements, UnitKind, UnitName, glob_matches};

use crate::line::Place;
use crate::unit_file::{Assignment, UnitFile};
use crate::verify::TOP;
use crate::{MOST_OF_A_KIND, finding, fleet, known, verify};

/// The drop-in that the agent writes for every unit; no author's may have its name.
pub const DROP_IN_OF_OURS: &str = "10-sealift.conf";

/// The longest file name that Linux has.
const LONGEST_FILE_NAME: usize = 255;

/// A unit file and the files of its `<unit>.d/` folder.
#[derive(Debug, Clone, Copy)]
pub struct FolderUnit<'a> {
    pub text: &'a str,
    /// By name (`10-limits.conf`), in the order in which systemd reads them.
    pub drop_ins: &'a BTreeMap<String, String>,
}

/// What is wrong, and in which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub unit: UnitName,
    /// The name of the drop-in; none for the unit file.
    pub drop_in: Option<String>,
    pub diagnostic: Diagnostic,
}

impl Finding {
    /// The file as it lies in a folder of units: `web.service`, `web.service.d/10-limits.conf`.
    #[must_use]
    pub fn file(&self) -> String {
        match &self.drop_in {
            Some(drop_in) => format!("{}.d/{drop_in}", self.unit),
            None => self.unit.to_string(),
        }
    }
}

/// Why a file of this name cannot be a unit's drop-in; none if it can.
#[must_use]
pub fn verify_drop_in_name(name: &str) -> Option<String> {
    let wrong = if name == DROP_IN_OF_OURS {
        format!("{name} is the name of Sealift's own drop-in; take another number")
    } else if name.contains('/') || name.starts_with('.') || name.chars().any(char::is_control) {
        format!("{name:?} is no plain file name")
    } else if !name.ends_with(".conf") || name.len() <= ".conf".len() {
        format!("{name:?} does not end with .conf; systemd does not read it")
    } else if name.len() > LONGEST_FILE_NAME {
        format!("the name of a drop-in has at most {LONGEST_FILE_NAME} bytes")
    } else {
        return None;
    };
    Some(wrong)
}

/// A unit as systemd takes it, with its drop-ins: what one of them mends is no finding, what one of them breaks is.
#[must_use]
pub fn verify_unit(name: &UnitName, unit: &FolderUnit) -> Vec<Finding> {
    // One text, so that what resets a list or completes a section does so across the files.
    let mut whole = unit.text.to_owned();
    let mut parts = Vec::new();
    let mut findings = Vec::new();
    for (drop_in, text) in unit.drop_ins {
        let mut add = |diagnostic| {
            findings.push(Finding { unit: name.clone(), drop_in: Some(drop_in.clone()), diagnostic });
        };
        if let Some(wrong) = verify_drop_in_name(drop_in) {
            add(finding(Severity::Error, TOP, wrong, None));
        }
        let file = UnitFile::parse(text);
        let first = file.sections().first().map_or(usize::MAX, |section| section.place.line);
        file.problems().iter().filter(|problem| problem.line < first).cloned().for_each(&mut add);
        for section in file.sections().iter().filter(|section| section.name == fleet::SECTION) {
            let message = format!("[{}] is read from the unit file only", fleet::SECTION);
            let help = format!("move it to {name}");
            add(finding(Severity::Error, section.place, message, Some(help)));
        }
        // Nothing before it may go on into it.
        whole.push_str("\n\n");
        parts.push((whole.matches('\n').count(), drop_in));
        whole.push_str(&without_head_and_fleet(&file));
    }
    let file = UnitFile::parse(&whole);
    for mut diagnostic in verify(name, &file) {
        let part = parts.iter().rev().find(|(before, _)| diagnostic.line > *before);
        diagnostic.line -= part.map_or(0, |(before, _)| *before);
        let drop_in = part.map(|(_, drop_in)| (*drop_in).clone());
        findings.push(Finding { unit: name.clone(), drop_in, diagnostic });
    }
    findings.sort_by(|a, b| (&a.drop_in, a.diagnostic.line).cmp(&(&b.drop_in, b.diagnostic.line)));
    findings
}

/// A drop-in with the same lines, but those before its first section and those of `[X-Fleet]` empty.
fn without_head_and_fleet(file: &UnitFile) -> String {
    let mut headers =
        file.sections().iter().map(|section| (section.place.line, section.name == fleet::SECTION));
    let mut next = headers.next();
    let mut dropped = true;
    let mut kept = String::with_capacity(file.text().len());
    for (index, line) in file.text().split_inclusive('\n').enumerate() {
        while let Some((_, fleets)) = next.filter(|(header, _)| *header == index + 1) {
            dropped = fleets;
            next = headers.next();
        }
        kept.push_str(if dropped { "\n" } else { line });
    }
    kept
}

/// Everything that is wrong with these units, alone and together, in the order of their names.
#[must_use]
pub fn verify_folder(units: &BTreeMap<UnitName, FolderUnit>) -> Vec<Finding> {
    let mut folder = Folder { units: BTreeMap::new(), findings: Vec::new() };
    for (name, unit) in units {
        folder.findings.extend(verify_unit(name, unit));
        let file = UnitFile::parse(unit.text);
        let (requirements, _) = file.requirements(name);
        folder.units.insert(name, (file, requirements));
    }
    folder.services();
    folder.instances();
    folder.companions();
    folder.quadlet_references();
    let mut findings = folder.findings;
    findings.sort_by(|a, b| {
        let key = |f: &Finding| (f.unit.clone(), f.drop_in.clone(), f.diagnostic.line);
        key(a).cmp(&key(b))
    });
    findings
}

struct Folder<'a> {
    units: BTreeMap<&'a UnitName, (UnitFile, Requirements)>,
    findings: Vec<Finding>,
}

impl Folder<'_> {
    fn add(
        &mut self,
        unit: &UnitName,
        severity: Severity,
        place: Place,
        message: String,
        help: Option<String>,
    ) {
        let diagnostic = finding(severity, place, message, help);
        self.findings.push(Finding { unit: unit.clone(), drop_in: None, diagnostic });
    }

    /// Two files cannot be one unit.
    fn services(&mut self) {
        let mut known: BTreeMap<UnitName, &UnitName> = BTreeMap::new();
        let mut twice = Vec::new();
        for (name, (file, _)) in &self.units {
            match known.entry(file.name_in_systemd(name)) {
                std::collections::btree_map::Entry::Occupied(other) => {
                    let message =
                        format!("systemd would call it {}, as it does {}", other.key(), other.get());
                    twice.push(((*name).clone(), message));
                }
                std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(name)),
            }
        }
        for (name, message) in twice {
            self.add(&name, Severity::Error, TOP, message, Some("give one of them another name".into()));
        }
    }

    fn instances(&mut self) {
        let alone =
            |name: &UnitName| Some((name.clone(), name.template().filter(|t| !self.units.contains_key(t))?));
        let alone: Vec<_> = self.units.keys().filter_map(|name| alone(name)).collect();
        for (name, template) in alone.into_iter().take(MOST_OF_A_KIND) {
            let message = format!("an instance without its template: {template} is not here");
            let help = format!("with it, {name} needs no file of its own");
            self.add(&name, Severity::Warning, TOP, message, Some(help));
        }
    }

    /// Units that have to be on one machine must be able to be there.
    fn companions(&mut self) {
        let mut findings = Vec::new();
        for group in self.groups() {
            for (index, one) in group.iter().enumerate() {
                for other in group.iter().skip(index + 1) {
                    let pair = [(*one, *other), (*other, *one)];
                    findings.extend(pair.iter().find_map(|(a, b)| self.kept_away(a, b)));
                    findings.extend(self.apart(one, other));
                    if findings.len() >= MOST_OF_A_KIND {
                        break;
                    }
                }
            }
        }
        for (unit, place, message) in findings.into_iter().take(MOST_OF_A_KIND) {
            self.add(&unit, Severity::Error, place, message, None);
        }
    }

    /// Units that `MachineOf=` holds together, directly or through others.
    fn groups(&self) -> Vec<Vec<&UnitName>> {
        let mut beside: BTreeMap<&UnitName, BTreeSet<&UnitName>> = BTreeMap::new();
        for (name, (_, requirements)) in &self.units {
            for peer in &requirements.machine_of {
                if let Some((peer, _)) =
                    self.units.keys().find(|unit| unit.as_str() == peer).map(|peer| (*peer, ()))
                {
                    beside.entry(name).or_default().insert(peer);
                    beside.entry(peer).or_default().insert(name);
                }
            }
        }
        let mut groups = Vec::new();
        while let Some(start) = beside.keys().next().copied() {
            let (mut group, mut open) = (BTreeSet::new(), vec![start]);
            while let Some(unit) = open.pop() {
                if group.insert(unit) {
                    open.extend(beside.remove(unit).unwrap_or_default());
                }
            }
            groups.push(group.into_iter().collect());
        }
        groups
    }

    /// Whether `unit` keeps `other` off its machine.
    fn kept_away(&self, unit: &UnitName, other: &UnitName) -> Option<(UnitName, Place, String)> {
        let (file, requirements) = self.units.get(unit)?;
        // Of its own file the unit has been told.
        let own = requirements.machine_of.contains(other.as_str());
        let keys = [("Conflicts", &requirements.conflicts), ("Replaces", &requirements.replaces)];
        keys.into_iter().filter(|_| !own).find_map(|(key, globs)| {
            let glob = globs.iter().find(|glob| glob_matches(glob, other.as_str()))?;
            let place = key_place(file, &[key, "X-Conflicts"]);
            let message = format!("{key} keeps {other} away by {glob}, but MachineOf holds the two together");
            Some((unit.clone(), place, message))
        })
    }

    /// Whether no machine can be right for both.
    fn apart(&self, one: &UnitName, other: &UnitName) -> Option<(UnitName, Place, String)> {
        let (_, a) = self.units.get(one)?;
        let (file, b) = self.units.get(other)?;
        let together = format!("MachineOf holds it together with {one}");
        if let (Some(first), Some(second)) = (&a.machine_id, &b.machine_id)
            && !first.starts_with(second.as_str())
            && !second.starts_with(first.as_str())
        {
            let message = format!("{together}, which is for another machine");
            return Some((other.clone(), key_place(file, &["MachineID"]), message));
        }
        let disjoint = b
            .metadata
            .iter()
            .find(|(key, values)| a.metadata.get(*key).is_some_and(|others| others.is_disjoint(values)));
        if let Some((key, _)) = disjoint {
            let message = format!("{together}, which wants other values of {key}");
            let place = key_place(file, &["MachineMetadata", "X-ConditionMachineMetadata"]);
            return Some((other.clone(), place, message));
        }
        let any = |classes: &BTreeSet<String>| classes.contains("*");
        let none_shared =
            a.classes.is_disjoint(&b.classes) && !(a.classes.is_empty() && b.classes.is_empty());
        if none_shared && !any(&a.classes) && !any(&b.classes) {
            let message = format!("{together}, which goes to machines of another class");
            return Some((other.clone(), key_place(file, &["MachineClass"]), message));
        }
        None
    }

    /// Quadlet makes no service of a file that names another Quadlet file which is not on the machine.
    fn quadlet_references(&mut self) {
        let mut missing = Vec::new();
        for (name, (file, requirements)) in &self.units {
            let section = known::own_section(name.kind());
            let keys = ["Pod", "Network", "Volume", "Image", "Mount"].into_iter();
            let own = keys.flat_map(|key| file.list(section, key));
            let own = own.filter_map(|assignment| Some((assignment, named(assignment)?)));
            let dependencies = DEPENDENCIES.iter().flat_map(|key| file.list("Unit", key));
            let wanted = own.chain(dependencies.flat_map(|assignment| {
                let names = assignment.value().split_whitespace().filter_map(|word| word.parse().ok());
                names.filter(|name: &UnitName| name.kind().is_quadlet()).map(move |name| (assignment, name))
            }));
            for (assignment, wanted) in wanted.filter(|_| name.kind().is_quadlet()) {
                if !requirements.machine_of.contains(wanted.as_str()) && !requirements.global {
                    missing.push(((*name).clone(), assignment.value_place(), wanted));
                }
            }
        }
        for (name, place, wanted) in missing.into_iter().take(MOST_OF_A_KIND) {
            let message = format!("Quadlet refuses the file on a machine without {wanted}");
            let help = format!(
                "add MachineOf={wanted} to [X-Fleet], if nothing else brings both to the same machine"
            );
            self.add(&name, Severity::Warning, place, message, Some(help));
        }
    }
}

/// Keys of `[Unit]` in which Quadlet puts a service's name for that of its file.
const DEPENDENCIES: [&str; 8] =
    ["After", "Before", "BindsTo", "PartOf", "Requires", "Requisite", "Upholds", "Wants"];

/// The Quadlet file that a value names.
fn named(assignment: &Assignment) -> Option<UnitName> {
    let value = assignment.value();
    let word = match assignment.key() {
        "Mount" => {
            value.split(',').find_map(|part| part.strip_prefix("source=").or(part.strip_prefix("src=")))?
        }
        "Image" | "Pod" => value,
        _ => value.split(':').next()?,
    };
    let name: UnitName = word.parse().ok()?;
    let fits = match assignment.key() {
        "Pod" => name.kind() == UnitKind::Pod,
        "Network" => matches!(name.kind(), UnitKind::Network | UnitKind::Container),
        "Image" => matches!(name.kind(), UnitKind::Image | UnitKind::Build),
        _ => matches!(name.kind(), UnitKind::Volume | UnitKind::Image | UnitKind::Build),
    };
    fits.then_some(name)
}

fn key_place(file: &UnitFile, keys: &[&str]) -> Place {
    let assignment = keys.iter().find_map(|key| file.assignments(fleet::SECTION, key).last());
    assignment.map_or(TOP, Assignment::key_place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown;

    type Files = [(&'static str, &'static str)];

    /// Files by their paths, as [`Finding::file`] has them, and what is found: `file:line:column+length ...`.
    fn found(files: &Files) -> Vec<String> {
        let mut drop_ins: BTreeMap<UnitName, BTreeMap<String, String>> = BTreeMap::new();
        for (path, text) in files {
            match path.split_once(".d/") {
                Some((unit, drop_in)) => {
                    let of_unit = drop_ins.entry(unit.parse().unwrap()).or_default();
                    of_unit.insert(drop_in.to_owned(), (*text).to_owned());
                }
                None => drop(drop_ins.entry(path.parse().unwrap()).or_default()),
            }
        }
        let text = |unit: &UnitName| files.iter().find(|(path, _)| *path == unit.as_str()).unwrap().1;
        let units =
            drop_ins.iter().map(|(unit, drop_ins)| (unit.clone(), FolderUnit { text: text(unit), drop_ins }));
        let findings = verify_folder(&units.collect());
        let line = |f: &Finding| format!("{}:{}", f.file(), shown(std::slice::from_ref(&f.diagnostic))[0]);
        findings.iter().map(line).collect()
    }

    const GOOD: &str = "[Service]\nExecStart=/a\n";

    #[test]
    fn drop_ins_are_judged_with_their_unit() {
        for (files, wanted) in [
            (&[("a.service", "[Service]\n"), ("a.service.d/10-a.conf", GOOD)] as &Files, &[] as &[&str]),
            (&[("a.service", GOOD), ("a.service.d/10-a.conf", "[Service]\nMemoryMax=1G\n")], &[]),
            (
                &[("a.service", GOOD), ("a.service.d/10-a.conf", "# why\n[Service]\nExecStart=/b\n")],
                &[
                    "a.service.d/10-a.conf:3:1+9 error: only Type=oneshot may have more than one ExecStart=; systemd refuses the file",
                ],
            ),
            (&[("a.service", GOOD), ("a.service.d/10-a.conf", "[Service]\nExecStart=\nExecStart=/b\n")], &[]),
            (
                &[
                    ("a.service", "[Service]\nExecStart=/a \\"),
                    ("a.service.d/1.conf", "[Service]\nType=onshot"),
                    ("a.service.d/2.conf", "[Serivce]\nType=onshot"),
                ],
                &[
                    "a.service.d/1.conf:2:6+6 warning: systemd knows no Type=onshot; it is ignored (did you mean oneshot?)",
                    "a.service.d/2.conf:1:1+9 warning: systemd knows no section [Serivce]; it is ignored (did you mean [Service]?)",
                ],
            ),
            (
                &[
                    ("a.service", GOOD),
                    ("a.service.d/1.conf", "Type=simple\n[X-Fleet]\nGlobal=1\n[Socket]\n"),
                ],
                &[
                    "a.service.d/1.conf:1:1+4 warning: Type stands before the first section; systemd ignores it (move it below a header such as [Unit])",
                    "a.service.d/1.conf:2:1+9 error: [X-Fleet] is read from the unit file only (move it to a.service)",
                    "a.service.d/1.conf:4:1+8 warning: systemd ignores [Socket] in a .service file",
                ],
            ),
            (
                &[("a.service", GOOD), ("a.service.d/10-sealift.conf", "[Service]\n")],
                &[
                    "a.service.d/10-sealift.conf:1:1+1 error: 10-sealift.conf is the name of Sealift's own drop-in; take another number",
                ],
            ),
            (
                &[("a.service", GOOD), ("a.service.d/a", "[Service]\n")],
                &["a.service.d/a:1:1+1 error: \"a\" does not end with .conf; systemd does not read it"],
            ),
        ] {
            assert_eq!(found(files), wanted, "{files:?}");
        }
        for (name, good) in [
            ("a.conf", true),
            ("../a.conf", false),
            (".a.conf", false),
            (".conf", false),
            ("a\nb.conf", false),
        ] {
            assert_eq!(verify_drop_in_name(name).is_none(), good, "{name}");
        }
        assert!(verify_drop_in_name(&format!("{}.conf", "a".repeat(251))).is_some());
    }

    #[test]
    fn units_that_exclude_each_other_are_found() {
        let with = |section: &'static str| -> &'static str {
            Box::leak(format!("{GOOD}[X-Fleet]\n{section}").into_boxed_str())
        };
        let found = |a: &'static str, b: &'static str, c: &'static str| {
            found(&[("a.service", with(a)), ("b.service", with(b)), ("c.service", with(c))])
        };
        for (a, b, c, wanted) in [
            // Each other's machine is one machine.
            ("MachineOf=b.service", "MachineOf=a.service", "Conflicts=a*", None),
            (
                "MachineOf=b.service",
                "Conflicts=a*",
                "",
                Some(
                    "b.service:4:1+9 error: Conflicts keeps a.service away by a*, but MachineOf holds the two together",
                ),
            ),
            (
                "MachineOf=b.service",
                "MachineOf=c.service",
                "Conflicts=a*",
                Some(
                    "c.service:4:1+9 error: Conflicts keeps a.service away by a*, but MachineOf holds the two together",
                ),
            ),
            (
                "MachineOf=b.service",
                "Replaces=a.service",
                "",
                Some(
                    "b.service:4:1+8 error: Replaces keeps a.service away by a.service, but MachineOf holds the two together",
                ),
            ),
            (
                "MachineOf=c.service\nMachineMetadata=a=b",
                "MachineOf=c.service\nMachineMetadata=a=c",
                "",
                Some(
                    "b.service:5:1+15 error: MachineOf holds it together with a.service, which wants other values of a",
                ),
            ),
            (
                "MachineOf=b.service\nMachineClass=x",
                "",
                "",
                Some(
                    "b.service:1:1+1 error: MachineOf holds it together with a.service, which goes to machines of another class",
                ),
            ),
            ("MachineOf=b.service\nMachineClass=*", "", "", None),
            ("MachineOf=b.service\nMachineClass=x y", "MachineClass=y z", "", None),
            (
                "MachineOf=b.service\nMachineMetadata=a=b",
                "MachineMetadata=a=b\nMachineMetadata=a=c",
                "",
                None,
            ),
            // Nobody knows what else is in the fleet.
            ("MachineOf=x.service", "Conflicts=a*", "", None),
        ] {
            assert_eq!(found(a, b, c), wanted.into_iter().collect::<Vec<_>>(), "{a} {b} {c}");
        }
    }

    #[test]
    fn files_are_judged_by_what_stands_beside_them() {
        for (files, wanted) in [
            (
                &[("a.container", "[Container]\nImage=a\n"), ("a.service", GOOD)] as &Files,
                &[
                    "a.service:1:1+1 error: systemd would call it a.service, as it does a.container (give one of them another name)",
                ] as &[&str],
            ),
            (&[("a@1.service", GOOD), ("a@.service", GOOD)], &[]),
            (
                &[("a@1.service", GOOD)],
                &[
                    "a@1.service:1:1+1 warning: an instance without its template: a@.service is not here (with it, a@1.service needs no file of its own)",
                ],
            ),
            (
                &[
                    (
                        "a.container",
                        "[Unit]\nAfter=p.pod n.network\n[Container]\nImage=a\nVolume=d.volume:/d\nVolume=/x.volume:/x\nPod=p.pod\n[X-Fleet]\nMachineOf=p.pod\n",
                    ),
                    ("p.pod", "[Pod]\n"),
                ],
                &[
                    "a.container:2:7+15 warning: Quadlet refuses the file on a machine without n.network (add MachineOf=n.network to [X-Fleet], if nothing else brings both to the same machine)",
                    "a.container:5:8+11 warning: Quadlet refuses the file on a machine without d.volume (add MachineOf=d.volume to [X-Fleet], if nothing else brings both to the same machine)",
                ],
            ),
        ] {
            assert_eq!(found(files), wanted, "{files:?}");
        }
    }
}
