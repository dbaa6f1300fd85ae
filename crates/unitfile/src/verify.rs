//! What is wrong with a unit file, as far as its name and its text tell for certain.
//!
//! An error is what systemd or fleet refuses; a warning is what they pass over in silence or in a log that nobody
//! reads. What depends on the machine (paths, users, other units, drop-ins) is left to systemd there.

use sealift_model::diagnostic::{Diagnostic, Severity};
use sealift_model::{UnitKind, UnitName};

use crate::line::Place;
use crate::unit_file::{Section, UnitFile};
use crate::{MOST_OF_A_KIND, finding, fleet, known, near, sort};

/// Everything that can be said of the file, in its order.
#[must_use]
pub fn verify(name: &UnitName, file: &UnitFile) -> Vec<Diagnostic> {
    let (_, requirements) = file.requirements(name);
    let mut check = Check { kind: name.kind(), file, findings: file.problems().to_vec() };
    check.findings.extend(requirements);
    for section in file.sections() {
        check.section(section);
    }
    check.keys();
    match name.kind() {
        UnitKind::Service => check.service(),
        UnitKind::Socket => check.needs_one_of(LISTEN, "a Listen key such as ListenStream="),
        UnitKind::Timer => check.needs_one_of(ON, "an On key such as OnCalendar="),
        UnitKind::Path => check.needs_one_of(PATH, "a path to watch, such as PathExists="),
        UnitKind::Mount => check.needs_one_of(&["What"], "What="),
        UnitKind::Device | UnitKind::Automount | UnitKind::Swap | UnitKind::Target | UnitKind::Slice => {}
    }
    sort(&mut check.findings);
    check.findings
}

const LISTEN: &[&str] = &[
    "ListenStream",
    "ListenDatagram",
    "ListenSequentialPacket",
    "ListenFIFO",
    "ListenSpecial",
    "ListenNetlink",
    "ListenMessageQueue",
    "ListenUSBFunction",
];
const ON: &[&str] = &[
    "OnCalendar",
    "OnActiveSec",
    "OnBootSec",
    "OnStartupSec",
    "OnUnitActiveSec",
    "OnUnitInactiveSec",
    "OnClockChange",
    "OnTimezoneChange",
];
const PATH: &[&str] = &["PathExists", "PathExistsGlob", "PathChanged", "PathModified", "DirectoryNotEmpty"];
const SERVICE_TYPES: [&str; 8] =
    ["simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"];
const RESTARTS: [&str; 7] =
    ["no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"];

struct Check<'a> {
    kind: UnitKind,
    file: &'a UnitFile,
    findings: Vec<Diagnostic>,
}

impl Check<'_> {
    fn add(&mut self, severity: Severity, place: Place, message: impl Into<String>, help: Option<String>) {
        self.findings.push(finding(severity, place, message.into(), help));
    }

    /// The section that only this kind of file has.
    fn own_section(&self) -> &'static str {
        match self.kind {
            UnitKind::Service => "Service",
            UnitKind::Socket => "Socket",
            UnitKind::Device => "Device",
            UnitKind::Mount => "Mount",
            UnitKind::Automount => "Automount",
            UnitKind::Swap => "Swap",
            UnitKind::Target => "Target",
            UnitKind::Path => "Path",
            UnitKind::Timer => "Timer",
            UnitKind::Slice => "Slice",
        }
    }

    /// The sections that somebody reads in this kind of file.
    fn read_sections(&self) -> [&'static str; 4] {
        ["Unit", "Install", self.own_section(), fleet::SECTION]
    }

    fn section(&mut self, section: &Section) {
        let name = section.name.as_str();
        if self.read_sections().contains(&name) {
            return;
        }
        let (message, help) = if name.eq_ignore_ascii_case(fleet::SECTION) {
            (format!("nobody reads [{name}]"), Some(format!("write [{}]", fleet::SECTION)))
        } else if name.starts_with("X-") {
            return;
        } else if known::SECTIONS.contains(&name) {
            (format!("systemd ignores [{name}] in a .{} file", self.kind.suffix()), None)
        } else {
            let help = near(name, known::SECTIONS).map(|near| format!("did you mean [{near}]?"));
            (format!("systemd knows no section [{name}]; it is ignored"), help)
        };
        self.add(Severity::Warning, section.place, message, help);
    }

    fn keys(&mut self) {
        let has = |section: &str, key: &str| known::keys(section).into_iter().flatten().any(|k| k == key);
        // The reading of requirements has its own word on [X-Fleet].
        let sections = self.file.sections().iter().filter(|section| section.name != fleet::SECTION);
        let checked = sections.filter(|section| known::keys(&section.name).is_some());
        let assignments = checked.flat_map(|section| section.assignments.iter().map(|a| (&*section.name, a)));
        let unknown = assignments.filter(|(section, a)| !a.key().starts_with("X-") && !has(section, a.key()));
        for (section, assignment) in unknown.take(MOST_OF_A_KIND) {
            let key = assignment.key();
            let message = format!("systemd knows no {key} in [{section}]; it is ignored");
            let help = if let Some(other) = self.read_sections().into_iter().find(|other| has(other, key)) {
                format!("it belongs in [{other}]")
            } else if let Some(near) = near(key, known::keys(section).into_iter().flatten()) {
                format!("did you mean {near}?")
            } else {
                // A newer systemd may know it.
                continue;
            };
            self.add(Severity::Warning, assignment.key_place(), message, Some(help));
        }
    }

    /// The place of the file's own section; without that section the file is of no use.
    fn own_place(&mut self) -> Option<Place> {
        let name = self.own_section();
        let place = self.file.section(name).map(|section| section.place);
        if place.is_none() {
            let top = Place { line: 1, column: 1, length: 1 };
            let message = format!("a .{} file needs a [{name}] section", self.kind.suffix());
            self.add(Severity::Error, top, message, None);
        }
        place
    }

    fn needs_one_of(&mut self, keys: &[&str], said: &str) {
        let Some(place) = self.own_place() else { return };
        let section = self.own_section();
        if keys.iter().all(|key| self.file.list(section, key).is_empty()) {
            let message = format!("[{section}] needs {said}; systemd refuses the file");
            self.add(Severity::Error, place, message, None);
        }
    }

    /// systemd's own conditions for loading a service, service_verify() there.
    fn service(&mut self) {
        let file = self.file;
        let acts = file.value("Unit", "SuccessAction").is_some_and(|action| !action.is_empty());
        // systemd-poweroff.service and its like do nothing but succeed.
        if acts && file.section("Service").is_none() {
            return;
        }
        let Some(place) = self.own_place() else { return };
        let starts = file.list("Service", "ExecStart");
        let value = |key| file.value("Service", key).filter(|value| !value.is_empty());
        let own_type = value("Type");
        // systemd's default.
        let one_shot = own_type.map_or(starts.is_empty(), |own| own == "oneshot");

        if starts.is_empty() {
            let stays = value("RemainAfterExit").is_some_and(is_true);
            let stops = !file.list("Service", "ExecStop").is_empty();
            if !(one_shot && (acts || stops && stays)) {
                let help = "only a oneshot service with RemainAfterExit=yes and ExecStop= can do without";
                let message = "the service has no ExecStart=; systemd refuses the file";
                self.add(Severity::Error, place, message, Some(help.into()));
            }
        }
        if let ([_, second, ..], false) = (&starts[..], one_shot) {
            let message = "only Type=oneshot may have more than one ExecStart=; systemd refuses the file";
            self.add(Severity::Error, second.key_place(), message, None);
        }
        if own_type == Some("dbus") && value("BusName").is_none() {
            self.add(Severity::Error, place, "Type=dbus needs BusName=; systemd refuses the file", None);
        }
        if let Some(restart) = file.list("Service", "Restart").last()
            && one_shot
            && matches!(restart.value(), "always" | "on-success")
        {
            let message = "a oneshot service cannot be restarted after success; systemd refuses the file";
            let help = Some("write Restart=on-failure".into());
            self.add(Severity::Error, restart.value_place(), message, help);
        }
        self.misspelt_value("Type", &SERVICE_TYPES);
        self.misspelt_value("Restart", &RESTARTS);
        self.relative_programs();
    }

    fn misspelt_value(&mut self, key: &str, known: &[&str]) {
        for assignment in self.file.list("Service", key) {
            let value = assignment.value();
            if known.contains(&value) {
                continue;
            }
            if let Some(near) = near(value, known.iter().copied()) {
                let message = format!("systemd knows no {key}={value}; it is ignored");
                let help = Some(format!("did you mean {near}?"));
                self.add(Severity::Warning, assignment.value_place(), message, help);
            }
        }
    }

    /// systemd starts `/path/to/program`, or `program` from its search path, and nothing in between.
    fn relative_programs(&mut self) {
        for key in ["ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost"] {
            for assignment in self.file.list("Service", key) {
                let program = assignment.value().split_whitespace().next().unwrap_or_default();
                let bare = program.trim_start_matches(['@', '-', ':', '+', '!']);
                // Quotes, escapes and specifiers are systemd's to resolve, and what follows `|` is a shell's.
                let plain = !bare.contains(['"', '\'', '\\', '%', '$', '|']);
                if !plain || !bare.contains('/') || bare.starts_with('/') {
                    continue;
                }
                let may_fail = program.get(..program.len() - bare.len()).is_some_and(|p| p.contains('-'));
                let (severity, does) =
                    if may_fail { (Severity::Warning, "skips") } else { (Severity::Error, "refuses") };
                let place = assignment.place_in_value(0..program.len());
                let message = format!("{bare} is a relative path; systemd {does} it");
                self.add(severity, place, message, Some("write the path from / on".into()));
            }
        }
    }
}

/// systemd's words for yes.
fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown;

    fn found(name: &str, text: &str) -> Vec<String> {
        shown(&verify(&name.parse().unwrap(), &UnitFile::parse(text)))
    }

    #[test]
    fn good_files_are_left_alone() {
        for (name, text) in [
            (
                "web@1.service",
                "# ours\n[Unit]\nDescription=Web\nAfter=net.target\nX-Note=free\n\n[Service]\nType=exec\n\
                 ExecStart=-/bin/sh -c \\\n  # why\n  'a = b'\nExecStop=kill x\nMemoryMax=1G\nSomethingQuiteNew=1\n\
                 [Install]\nWantedBy=multi-user.target\n[X-Fleet]\nMachineOf=db@%i.service\n[X-Ours]\nAny=1\n",
            ),
            ("a.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStop=/bin/a\n"),
            // Without a type and ExecStart= systemd takes the service as oneshot.
            ("a.service", "[Service]\nRemainAfterExit=1\nExecStop=/bin/a\n"),
            ("a.service", "[Unit]\nSuccessAction=reboot\n[Service]\n"),
            ("a.service", "[Unit]\nSuccessAction=reboot\n"),
            ("a.service", "[Service]\nType=oneshot\nExecStart=/bin/a\nExecStart=/bin/b\n"),
            ("a.service", "[Service]\nExecStart=/bin/a\nExecStart=\nExecStart=/bin/b\n"),
            ("a.service", "[Service]\nExecStart=%h/a\nExecStartPre=\"b/c\"\nExecStartPost=|d/e\n"),
            ("a.socket", "[Socket]\nListenStream=80\nMemoryMax=1G\n"),
            ("a.timer", "[Timer]\nOnCalendar=daily\n"),
            ("a.path", "[Path]\nDirectoryNotEmpty=/a\n"),
            ("a.mount", "[Mount]\nWhat=/dev/a\n"),
            ("a.target", ""),
            ("a.slice", "[Slice]\nCPUWeight=1\n"),
        ] {
            assert_eq!(found(name, text), [""; 0], "{text}");
        }
    }

    #[test]
    fn every_slip_is_found_by_table() {
        let service = "[Service]\nExecStart=/a\n";
        for (name, rest, wanted) in [
            (
                "a.service",
                "[Serivce]",
                "3:1+9 warning: systemd knows no section [Serivce]; it is ignored (did you mean [Service]?)",
            ),
            (
                "a.service",
                "[Fleet]",
                "3:1+7 warning: systemd knows no section [Fleet]; it is ignored (did you mean [X-Fleet]?)",
            ),
            ("a.service", "[x-fleet]", "3:1+9 warning: nobody reads [x-fleet] (write [X-Fleet])"),
            ("a.service", "[Socket]", "3:1+8 warning: systemd ignores [Socket] in a .service file"),
            (
                "a.service",
                " ExceStartPre = /b",
                "3:2+12 warning: systemd knows no ExceStartPre in [Service]; it is ignored (did you mean ExecStartPre?)",
            ),
            (
                "a.service",
                "restart=no",
                "3:1+7 warning: systemd knows no restart in [Service]; it is ignored (did you mean Restart?)",
            ),
            (
                "a.service",
                "After=b.service",
                "3:1+5 warning: systemd knows no After in [Service]; it is ignored (it belongs in [Unit])",
            ),
            (
                "a.service",
                "MachineMetadata=a=b",
                "3:1+15 warning: systemd knows no MachineMetadata in [Service]; it is ignored (it belongs in [X-Fleet])",
            ),
            (
                "a.service",
                "Type=onshot",
                "3:6+6 warning: systemd knows no Type=onshot; it is ignored (did you mean oneshot?)",
            ),
            (
                "a.service",
                "Restart=alway",
                "3:9+5 warning: systemd knows no Restart=alway; it is ignored (did you mean always?)",
            ),
            (
                "a.service",
                "ExecStart=/b",
                "3:1+9 error: only Type=oneshot may have more than one ExecStart=; systemd refuses the file",
            ),
            ("a.service", "Type=dbus", "1:1+9 error: Type=dbus needs BusName=; systemd refuses the file"),
            (
                "a.service",
                "Type=oneshot\nRestart=always",
                "4:9+6 error: a oneshot service cannot be restarted after success; systemd refuses the file (write Restart=on-failure)",
            ),
            (
                "a.service",
                "ExecStop=bin/stop now",
                "3:10+8 error: bin/stop is a relative path; systemd refuses it (write the path from / on)",
            ),
            (
                "a.service",
                "ExecStop=@-./stop now",
                "3:10+8 warning: ./stop is a relative path; systemd skips it (write the path from / on)",
            ),
            (
                "a.service",
                "[X-Fleet]\nMachineId=%i",
                "4:1+9 warning: [X-Fleet] has no key MachineId; it is ignored (did you mean MachineID?)",
            ),
        ] {
            assert_eq!(found(name, &format!("{service}{rest}\n")), [wanted], "{rest}");
        }
    }

    #[test]
    fn a_file_without_what_its_kind_needs_is_refused() {
        let no_start = "1:1+9 error: the service has no ExecStart=; systemd refuses the file (only a oneshot service \
                        with RemainAfterExit=yes and ExecStop= can do without)";
        for (name, text, wanted) in [
            ("a.service", "", "1:1+1 error: a .service file needs a [Service] section"),
            ("a.service", "[Service]\n", no_start),
            ("a.service", "[Service]\nExecStart=/a\nExecStart=\n", no_start),
            ("a.service", "[Service]\nType=simple\nRemainAfterExit=yes\nExecStop=/a\n", no_start),
            ("a.service", "[Service]\nType=oneshot\nExecStop=/a\n", no_start),
            ("a.socket", "[Unit]\n", "1:1+1 error: a .socket file needs a [Socket] section"),
            (
                "a.socket",
                "[Socket]\n",
                "1:1+8 error: [Socket] needs a Listen key such as ListenStream=; systemd refuses the file",
            ),
            (
                "a.timer",
                "[Timer]\nPersistent=yes\n",
                "1:1+7 error: [Timer] needs an On key such as OnCalendar=; systemd refuses the file",
            ),
            (
                "a.path",
                "[Path]\nUnit=a.service\n",
                "1:1+6 error: [Path] needs a path to watch, such as PathExists=; systemd refuses the file",
            ),
            ("a.mount", "[Mount]\nWhere=/a\n", "1:1+7 error: [Mount] needs What=; systemd refuses the file"),
        ] {
            assert_eq!(found(name, text), [wanted], "{text}");
        }
    }

    #[test]
    fn one_misspelt_header_hides_no_other_finding_and_all_come_in_order() {
        assert_eq!(
            found("a.service", "[Serivce]\nExecStrat=/a\nFoo\n[X-Fleet]\nGlobal=1\nMachineOf=b.service\n"),
            [
                "1:1+1 error: a .service file needs a [Service] section",
                "1:1+9 warning: systemd knows no section [Serivce]; it is ignored (did you mean [Service]?)",
                "3:1+3 error: neither a section nor Key=value; fleet refused such files, systemd ignores the line \
                 (a value goes on in the next line only when its line ends with '\\')",
                "6:1+9 error: MachineOf cannot stand together with Global (remove it, or Global in line 5)",
            ]
        );
    }

    #[test]
    fn nobody_has_to_read_a_thousand_findings() {
        let text = format!("[Service]\nExecStart=/a\n{}", "ExceStart=/a\n".repeat(1000));
        assert_eq!(found("a.service", &text).len(), MOST_OF_A_KIND);
    }
}
