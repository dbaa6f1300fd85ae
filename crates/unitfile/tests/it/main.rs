//! Verdicts on unit files against those who read them on a machine: systemd, and Quadlet where there is one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may stop at the first surprise too"
)]

mod page;
mod quadlet;
mod systemd;

use sealift_model::diagnostic::Severity;
use sealift_unitfile::{UnitFile, verify};

/// What we say of a file: whether it is refused, and everything that is found.
fn verdict(name: &str, text: &str) -> (bool, Vec<String>) {
    let findings = verify(&name.parse().unwrap(), &UnitFile::parse(text));
    let refused = findings.iter().any(|finding| finding.severity == Severity::Error);
    (refused, findings.iter().map(|finding| finding.render(name, text)).collect())
}
