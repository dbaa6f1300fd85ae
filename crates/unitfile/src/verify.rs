//! What is wrong with a unit file, as far as its name and its text tell for certain.
//!
//! An error is what systemd or fleet refuses; a warning is what they pass over in silence or in a log that nobody
//! reads. What depends on the machine (paths, users, other units, drop-ins) is left to systemd there.

use sealift_model::diagnostic::{Diagnostic, Severity};
use sealift_model::{UnitKind, UnitName};

use crate::line::Place;
use crate::unit_file::{Assignment, Section, UnitFile};
use crate::{MOST_OF_A_KIND, finding, fleet, known, near, sort, value};

/// Where what concerns the whole file is told.
pub(crate) const TOP: Place = Place { line: 1, column: 1, length: 1 };

/// Everything that can be said of the file, in its order.
#[must_use]
pub fn verify(name: &UnitName, file: &UnitFile) -> Vec<Diagnostic> {
    if file.text().is_empty() {
        let message = "systemd takes an empty file for a masked unit, which cannot be started".into();
        return vec![finding(Severity::Error, TOP, message, Some("a line such as [Unit] is enough".into()))];
    }
    let (_, requirements) = file.requirements(name);
    let mut check = Check { name, kind: name.kind(), file, findings: file.problems().to_vec() };
    if check.kind.is_quadlet() {
        check.problems_for_quadlet();
    }
    check.findings.extend(requirements);
    check.name();
    for section in file.sections() {
        check.section(section);
    }
    check.keys();
    check.values();
    match name.kind() {
        UnitKind::Service => check.service(),
        UnitKind::Socket => check.socket(),
        UnitKind::Timer => check.needs_one_of(ON, "an On key such as OnCalendar="),
        UnitKind::Path => check.path(),
        UnitKind::Mount => {
            check.needs_one_of(&["What"], "What=");
            check.named_by("Where");
        }
        UnitKind::Automount => check.named_by("Where"),
        UnitKind::Swap => check.named_by("What"),
        UnitKind::Device | UnitKind::Target | UnitKind::Slice => {}
        UnitKind::Container
        | UnitKind::Pod
        | UnitKind::Volume
        | UnitKind::Network
        | UnitKind::Kube
        | UnitKind::Image
        | UnitKind::Build => check.quadlet(),
    }
    if matches!(name.kind(), UnitKind::Socket | UnitKind::Mount | UnitKind::Swap) || name.kind().is_service()
    {
        check.commands();
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
const EXECS: [&str; 8] = [
    "ExecCondition",
    "ExecStartPre",
    "ExecStart",
    "ExecStartPost",
    "ExecReload",
    "ExecStop",
    "ExecStopPre",
    "ExecStopPost",
];
/// Keys of systemd.resource-control(5) that hold a size.
const SIZES: [&str; 7] =
    ["MemoryMin", "MemoryLow", "MemoryHigh", "MemoryMax", "MemorySwapMax", "MemoryZSwapMax", "MemoryLimit"];
const SERVICE_TYPES: [&str; 8] =
    ["simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"];
const RESTARTS: [&str; 7] =
    ["no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"];

pub(crate) struct Check<'a> {
    pub(crate) name: &'a UnitName,
    pub(crate) kind: UnitKind,
    pub(crate) file: &'a UnitFile,
    pub(crate) findings: Vec<Diagnostic>,
}

impl Check<'_> {
    pub(crate) fn add(
        &mut self,
        severity: Severity,
        place: Place,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.findings.push(finding(severity, place, message.into(), help));
    }

    pub(crate) fn own_section(&self) -> &'static str {
        known::own_section(self.kind)
    }

    /// What the name alone tells.
    fn name(&mut self) {
        let (stem, suffix) = (self.name.stem(), self.kind.suffix());
        if stem.contains('@') && !self.kind.may_be_template() {
            let message = format!(
                "there are no templates of .{suffix} units, and no instances; systemd refuses the file"
            );
            let help = "only of services, sockets, targets, paths, timers and Quadlet files";
            self.add(Severity::Error, TOP, message, Some(help.into()));
        }
        let parts_missing = stem.starts_with('-') || stem.ends_with('-') || stem.contains("--");
        if self.kind == UnitKind::Slice && parts_missing && stem != "-" {
            let message =
                "a slice's name is those of the slices around it, divided by one '-'; systemd refuses it";
            self.add(Severity::Error, TOP, message, Some("a-b.slice is the slice b in a.slice".into()));
        }
    }

    fn section(&mut self, section: &Section) {
        let name = section.name.as_str();
        if known::read_sections(self.kind).contains(&name) {
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
        let (kind, own) = (self.kind, self.own_section());
        let quadlets = |section: &str| kind.is_quadlet() && [own, "Quadlet"].contains(&section);
        let unknown = assignments.filter(|(section, a)| {
            // Quadlet knows no private keys.
            !has(section, a.key()) && (quadlets(section) || !a.key().starts_with("X-"))
        });
        for (section, assignment) in unknown.take(MOST_OF_A_KIND) {
            let key = assignment.key();
            let other = known::read_sections(self.kind).into_iter().find(|other| has(other, key));
            let help = match other {
                Some(other) => Some(format!("it belongs in [{other}]")),
                None => near(key, known::keys(section).into_iter().flatten())
                    .map(|near| format!("did you mean {near}?")),
            };
            let (severity, message) = match (&help, quadlets(section)) {
                (Some(_), true) => {
                    (Severity::Error, format!("Quadlet knows no {key} in [{section}]; it refuses the file"))
                }
                (None, true) => {
                    let message = format!("a Quadlet that knows no {key} in [{section}] refuses the file");
                    (Severity::Warning, message)
                }
                (Some(_), false) => {
                    (Severity::Warning, format!("systemd knows no {key} in [{section}]; it is ignored"))
                }
                // A newer systemd may know it.
                (None, false) => continue,
            };
            self.add(severity, assignment.key_place(), message, help);
        }
    }

    /// Times and sizes that systemd cannot read, which it passes over.
    fn values(&mut self) {
        let sections = self.file.sections().iter();
        let checked =
            sections.filter(|section| section.name != fleet::SECTION && !section.name.starts_with("X-"));
        let assignments = checked.flat_map(|section| section.assignments.iter().map(|a| (&*section.name, a)));
        let mut bad = Vec::new();
        for (section, assignment) in assignments.filter(|(_, a)| !a.value().is_empty()) {
            let (key, text) = (assignment.key(), assignment.value());
            if text.contains('%') {
                // Percentages and specifiers.
                continue;
            }
            let known = known::keys(section).into_iter().flatten().any(|known| known == key);
            let outcome = if known && key.ends_with("Sec") {
                value::span(text).map(drop)
            } else if known && text != "infinity" && SIZES.contains(&key) && known::has_control_group(section)
            {
                value::size(text).map(drop)
            } else {
                continue;
            };
            bad.extend(outcome.err().map(|help| (assignment, help)));
        }
        for (assignment, help) in bad.into_iter().take(MOST_OF_A_KIND) {
            let message =
                format!("systemd cannot read {}={}; it is ignored", assignment.key(), assignment.value());
            self.add(Severity::Warning, assignment.value_place(), message, Some(help.into()));
        }
    }

    /// The place of the file's own section; without that section the file is of no use.
    pub(crate) fn own_place(&mut self) -> Option<Place> {
        let name = self.own_section();
        let place = self.file.section(name).map(|section| section.place);
        if place.is_none() {
            let message = format!("a .{} file needs a [{name}] section", self.kind.suffix());
            self.add(Severity::Error, TOP, message, None);
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

    fn socket(&mut self) {
        self.needs_one_of(LISTEN, "a Listen key such as ListenStream=");
        let accepts = self.file.value("Socket", "Accept").is_some_and(is_true);
        if let Some(service) = self.file.list("Socket", "Service").last().filter(|_| accepts) {
            let message = "with Accept=yes every connection has an instance of the socket's own template; \
                           systemd refuses the file";
            let help = format!("remove it; the template is {}@.service", self.name.stem());
            self.add(Severity::Error, service.key_place(), message, Some(help));
        }
    }

    fn path(&mut self) {
        let absolute = |a: &Assignment| a.value().starts_with(['/', '%']);
        for key in PATH {
            for assignment in
                self.file.list("Path", key).into_iter().filter(|a| !absolute(a)).take(MOST_OF_A_KIND)
            {
                let message = format!("{} is a relative path; systemd ignores it", assignment.value());
                let help = Some("write the path from / on".into());
                self.add(Severity::Warning, assignment.value_place(), message, help);
            }
        }
        if PATH.iter().all(|key| !self.file.list("Path", key).into_iter().any(absolute)) {
            let Some(place) = self.own_place() else { return };
            let message = "[Path] needs a path to watch, such as PathExists=; systemd refuses the file";
            self.add(Severity::Error, place, message, None);
        }
    }

    /// A mount, automount or swap is named by its path, escaped as systemd-escape --path does.
    fn named_by(&mut self, key: &str) {
        let Some(assignment) = self.file.assignments(self.own_section(), key).last() else { return };
        let path = assignment.value();
        // A specifier is systemd's to resolve. What is relative it passes over, and takes the name's path.
        if path.contains('%') || !path.starts_with('/') || self.name.stem().contains('@') {
            return;
        }
        let escaped = escaped_path(path);
        if escaped != self.name.stem() {
            let message =
                format!("{key}={path} and the file's name do not go together; systemd refuses the file");
            let help = format!("name it {escaped}.{}", self.kind.suffix());
            self.add(Severity::Error, assignment.value_place(), message, Some(help));
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
        if let Some(folder) = file.list("Service", "WorkingDirectory").last() {
            let bare = folder.value().trim_start_matches('-');
            if !bare.starts_with(['/', '~', '%']) {
                let message = format!("WorkingDirectory={bare} is a relative path; systemd refuses the file");
                let help = Some("write the path from / on; without one it is the release's folder".into());
                self.add(Severity::Error, folder.value_place(), message, help);
            }
        }
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

    /// Command lines: systemd starts `/path/to/program`, or `program` from its search path, and nothing in between.
    fn commands(&mut self) {
        let section = if self.kind.is_quadlet() { "Service" } else { self.own_section() };
        let file = self.file;
        let assignments = EXECS.iter().flat_map(|key| file.list(section, key));
        for assignment in assignments.take(MOST_OF_A_KIND) {
            let value = assignment.value();
            if let Some(quote) = open_quote(value) {
                let place = assignment.place_in_value(quote..quote + 1);
                let message = "this quote is not closed; systemd refuses the file";
                self.add(Severity::Error, place, message, Some("a quote itself is written \\\"".into()));
            }
            let program = value.split_whitespace().next().unwrap_or_default();
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

/// Where a quote stands that nothing closes.
fn open_quote(command: &str) -> Option<usize> {
    let mut open: Option<(usize, char)> = None;
    let mut chars = command.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, open) {
            ('\\', _) => drop(chars.next()),
            ('"' | '\'', None) => open = Some((at, c)),
            (c, Some((_, quote))) if c == quote => open = None,
            _ => {}
        }
    }
    open.map(|(at, _)| at)
}

/// A path as it stands in a unit's name, systemd.unit(5).
fn escaped_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() {
        return "-".to_owned();
    }
    let mut name = String::new();
    for (index, byte) in parts.join("/").bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            b':' | b'_' | b'.' => name.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => name.push(char::from(byte)),
            byte => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    name
}

/// systemd's words for yes.
pub(crate) fn is_true(value: &str) -> bool {
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
            ("a.target", "[Unit]\n"),
            ("a.device", "[Unit]\nDescription=a\n"),
            ("a.mount", "[Mount]\nWhat=/dev/a\nWhere=/a\n"),
            ("var-lib-a\\x2db.mount", "[Mount]\nWhat=/dev/a\nWhere=/var//lib/a-b/\n"),
            ("\\x2ecache-x.mount", "[Mount]\nWhat=a\nWhere=/.cache/x\n"),
            ("-.mount", "[Mount]\nWhat=a\nWhere=/\n"),
            ("a-b.mount", "[Mount]\nWhat=a\nWhere=%t/b\n"),
            ("-.slice", "[Slice]\nMemoryMax=50%\n"),
            ("a.socket", "[Socket]\nListenStream=80\nAccept=no\nService=b.service\nTimeoutSec=1min 5s\n"),
            ("a@.target", "[Unit]\nDescription=a\n"),
            (
                "a.service",
                "[Service]\nExecStart=/bin/sh -c 'a \"b' \"it's\" \\\" d\nWorkingDirectory=~\nMemoryMax=infinity\nRestartSec=infinity\n",
            ),
            (
                "a.container",
                "[Unit]\nAfter=b.volume\n[Container]\nImage=a\n[Service]\nRestart=always\n[Quadlet]\nDefaultDependencies=no\n[X-Fleet]\nGlobal=yes\n",
            ),
            ("a@1.container", "[Container]\nRootfs=/a\n"),
            ("a.volume", "[Unit]\n"),
            ("a.kube", "[Kube]\nYaml=a.yaml\n"),
            ("a.build", "[Build]\nImageTag=a\nFile=/a\n"),
            ("a.image", "[Image]\nImage=a\n"),
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
            (
                "a.service",
                "",
                "1:1+1 error: systemd takes an empty file for a masked unit, which cannot be started (a line such as [Unit] is enough)",
            ),
            ("a.service", "[Unit]\n", "1:1+1 error: a .service file needs a [Service] section"),
            (
                "a@1.mount",
                "[Mount]\nWhat=a\n",
                "1:1+1 error: there are no templates of .mount units, and no instances; systemd refuses the file (only of services, sockets, targets, paths, timers and Quadlet files)",
            ),
            (
                "a--b.slice",
                "[Slice]\n",
                "1:1+1 error: a slice's name is those of the slices around it, divided by one '-'; systemd refuses it (a-b.slice is the slice b in a.slice)",
            ),
            (
                "a.automount",
                "[Automount]\nWhere=/b-c/d\n",
                "2:7+6 error: Where=/b-c/d and the file's name do not go together; systemd refuses the file (name it b\\x2dc-d.automount)",
            ),
            (
                "a.swap",
                "[Swap]\nWhat=/b\n",
                "2:6+2 error: What=/b and the file's name do not go together; systemd refuses the file (name it b.swap)",
            ),
            (
                "a.socket",
                "[Socket]\nListenStream=80\nAccept=yes\nService=b.service\n",
                "4:1+7 error: with Accept=yes every connection has an instance of the socket's own template; systemd refuses the file (remove it; the template is a@.service)",
            ),
            (
                "a.service",
                "[Service]\nExecStart=/a 'b \\' c\n",
                "2:14+1 error: this quote is not closed; systemd refuses the file (a quote itself is written \\\")",
            ),
            (
                "a.service",
                "[Service]\nExecStart=/a\nWorkingDirectory=-b\n",
                "3:18+2 error: WorkingDirectory=b is a relative path; systemd refuses the file (write the path from / on; without one it is the release's folder)",
            ),
            (
                "a.service",
                "[Service]\nExecStart=/a\nRestartSec=5x\n",
                "3:12+2 warning: systemd cannot read RestartSec=5x; it is ignored (a time such as 10s, 2min or 1h 30min)",
            ),
            (
                "a.socket",
                "[Socket]\nListenStream=80\nMemoryMax=1GB\n",
                "3:11+3 warning: systemd cannot read MemoryMax=1GB; it is ignored (a size such as 512M or 1.5G; the units are K, M, G, T, P and E)",
            ),
            ("a.container", "[Unit]\n", "1:1+1 error: a .container file needs a [Container] section"),
            (
                "a.container",
                "[Container]\n",
                "1:1+11 error: [Container] needs Image= or Rootfs=; Quadlet refuses the file",
            ),
            (
                "a.container",
                "[Container]\nImage=a\nRootfs=/a\n",
                "3:1+6 error: Rootfs cannot stand together with Image; Quadlet refuses the file",
            ),
            (
                "a.container",
                "[Container]\nImage=a\nGroup=1\n",
                "3:1+5 error: Group= needs User= beside it; Quadlet refuses the file",
            ),
            (
                "a.container",
                "[Container]\nImage=a\nExposeHostPort=80-b\n",
                "3:16+4 error: \"80-b\" is no port and no range of ports; Quadlet refuses the file",
            ),
            (
                "a.container",
                "[Container]\nImage=a\nPublishPorts=80\n",
                "3:1+12 error: Quadlet knows no PublishPorts in [Container]; it refuses the file (did you mean PublishPort?)",
            ),
            (
                "a.container",
                "[Container]\nImage=a\nRestart=no\n",
                "3:1+7 error: Quadlet knows no Restart in [Container]; it refuses the file (it belongs in [Service])",
            ),
            (
                "a.container",
                "[Container]\nImage=a\nX-Quite-New=1\n",
                "3:1+11 warning: a Quadlet that knows no X-Quite-New in [Container] refuses the file",
            ),
            (
                "a.container",
                "[Container]\nImage=a\n[Service]\nType=simple\n",
                "4:6+6 error: Type=simple does not go with a container; Quadlet refuses the file (leave it out, or write notify or oneshot)",
            ),
            (
                "a.kube",
                "[Kube]\nYaml=a\n[Service]\nKillMode=none\n",
                "4:10+4 error: KillMode=none does not go with a container; Quadlet refuses the file (leave it out, or write mixed or control-group)",
            ),
            (
                "a.volume",
                "[Volume]\nfoo\n",
                "2:1+3 error: Quadlet cannot read the line, and then makes no service of any file on the machine (a value goes on in the next line only when its line ends with '\\')",
            ),
            ("a.kube", "[Kube]\n", "1:1+6 error: [Kube] needs Yaml=; Quadlet refuses the file"),
            ("a.image", "[Image]\n", "1:1+7 error: [Image] needs Image=; Quadlet refuses the file"),
            (
                "a.build",
                "[Build]\nImageTag=a\n",
                "1:1+7 error: [Build] needs File= or SetWorkingDirectory=; Quadlet refuses the file",
            ),
            (
                "a.build",
                "[Build]\nFile=/a\n",
                "1:1+7 error: [Build] needs ImageTag=; Quadlet refuses the file",
            ),
            (
                "a.pod",
                "[Pod]\nServiceName=a.service\n",
                "2:13+9 warning: the service will be called a.service.service (a name without .service)",
            ),
            (
                "a.pod",
                "[Pod]\nServiceName=a/b\n",
                "2:13+3 error: a/b.service is no unit's name (a name without .service)",
            ),
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
            (
                "a.path",
                "[Path]\nPathExists=/a\nPathChanged=b\n",
                "3:13+1 warning: b is a relative path; systemd ignores it (write the path from / on)",
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
