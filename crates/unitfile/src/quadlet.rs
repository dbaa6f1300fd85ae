//! What Quadlet refuses in the files that it makes services of, podman-systemd.unit(5).
//!
//! Unlike systemd it passes over nothing in silence: with a file that it refuses there is no service, and with a line
//! that it cannot read there are none of all the files in the folder.

use sealift_model::diagnostic::Severity::{Error, Warning};
use sealift_model::{UnitKind, UnitName};

use crate::known;
use crate::verify::{Check, TOP};

impl Check<'_> {
    /// What is no line of a unit file costs all Quadlet files of the machine their services.
    pub(crate) fn problems_for_quadlet(&mut self) {
        for finding in self.findings.iter_mut().filter(|finding| finding.severity == Error) {
            "Quadlet cannot read the line, and then makes no service of any file on the machine"
                .clone_into(&mut finding.message);
        }
    }

    pub(crate) fn quadlet(&mut self) {
        match self.kind {
            UnitKind::Container => self.container(),
            UnitKind::Kube => self.quadlet_needs(&["Yaml"], "Yaml="),
            UnitKind::Image => self.quadlet_needs(&["Image"], "Image="),
            UnitKind::Build => {
                self.quadlet_needs(&["ImageTag"], "ImageTag=");
                self.quadlet_needs(&["File", "SetWorkingDirectory"], "File= or SetWorkingDirectory=");
            }
            // All of these do without a key, and without the section.
            _ => {}
        }
        if matches!(self.kind, UnitKind::Container | UnitKind::Kube) {
            self.service_value("Type", &["notify", "oneshot"]);
            self.service_value("KillMode", &["mixed", "control-group"]);
        }
        self.service_name();
    }

    fn container(&mut self) {
        self.quadlet_needs(&["Image", "Rootfs"], "Image= or Rootfs=");
        let last = |key| self.file.list("Container", key).pop();
        let mut findings = Vec::new();
        for (one, other, wrong) in [("Image", "Rootfs", true), ("ReloadCmd", "ReloadSignal", true)] {
            if let (Some(_), Some(second), true) = (last(one), last(other), wrong) {
                findings.push((second.key_place(), format!("{other} cannot stand together with {one}")));
            }
        }
        if let (Some(group), None) = (last("Group"), last("User")) {
            findings.push((group.key_place(), "Group= needs User= beside it".to_owned()));
        }
        for port in self.file.list("Container", "ExposeHostPort") {
            let (range, protocol) = port.value().split_once('/').unwrap_or((port.value(), "tcp"));
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if !number(from) || !number(to) || !matches!(protocol, "tcp" | "udp") {
                findings.push((
                    port.value_place(),
                    format!("{:?} is no port and no range of ports", port.value()),
                ));
            }
        }
        for (place, message) in findings {
            self.add(Error, place, format!("{message}; Quadlet refuses the file"), None);
        }
    }

    fn quadlet_needs(&mut self, keys: &[&str], said: &str) {
        let section = self.own_section();
        let has = |key: &&str| self.file.value(section, key).is_some_and(|value| !value.is_empty());
        if !keys.iter().any(has) {
            let Some(place) = self.own_place() else { return };
            let message = format!("[{section}] needs {said}; Quadlet refuses the file");
            self.add(Error, place, message, None);
        }
    }

    /// A key of `[Service]` that Quadlet allows these values only.
    fn service_value(&mut self, key: &str, allowed: &[&str]) {
        let Some(assignment) = self.file.assignments("Service", key).last() else { return };
        if !allowed.contains(&assignment.value()) {
            let message = format!(
                "{key}={} does not go with a container; Quadlet refuses the file",
                assignment.value()
            );
            let help = format!("leave it out, or write {}", allowed.join(" or "));
            self.add(Error, assignment.value_place(), message, Some(help));
        }
    }

    fn service_name(&mut self) {
        let section = known::own_section(self.kind);
        if let Some(chosen) = self.file.list(section, "ServiceName").pop() {
            let name = format!("{}.service", chosen.value());
            if name.parse::<UnitName>().is_err() {
                let message = format!("{name} is no unit's name");
                self.add(Error, chosen.value_place(), message, Some("a name without .service".into()));
            } else if chosen.value().ends_with(".service") {
                let message = format!("the service will be called {name}");
                self.add(Warning, chosen.value_place(), message, Some("a name without .service".into()));
            }
        } else if self.name.in_systemd().as_str().len() > 255 {
            let message = "the service that Quadlet makes of it would have more than 255 letters in its name";
            self.add(Error, TOP, message, Some("a shorter name, or ServiceName=".into()));
        }
    }
}
