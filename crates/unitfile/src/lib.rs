//! systemd unit files and Quadlet files with an `[X-Fleet]` section: read with positions, given back byte for byte,
//! checked.
//!
//! Any text is a [`UnitFile`]. What systemd, Quadlet or fleet would refuse or pass over is a finding with its place in
//! the file, so that an author sees all of it at once and before a machine does. `[X-Fleet]` is read as fleet 1.0 read
//! it, the deprecated spellings included, with the keys that came after fleet.
//!
//! This crate knows no machines and no paths: it judges files by their names and texts, one alone ([`verify()`]), one with
//! its drop-ins ([`verify_unit`]) or many together ([`verify_folder`]).

mod fleet;
mod folder;
mod known;
mod later_keys;
mod line;
mod options;
mod quadlet;
mod unit_file;
mod value;
mod verify;

use std::cmp::Reverse;

use sealift_model::diagnostic::{Diagnostic, Severity, nearest};

pub use folder::{DROP_IN_OF_OURS, Finding, FolderUnit, verify_drop_in_name, verify_folder, verify_unit};
pub use line::{Comment, Place};
pub use options::{UnitOption, options_of, text_of};
pub use unit_file::{Assignment, Section, UnitFile};
pub use verify::verify;

/// The keys of `[X-Fleet]` without their deprecated spellings: fleet's own, then those that came after it.
pub fn fleet_keys() -> impl Iterator<Item = &'static str> {
    known::FLEET.split_ascii_whitespace()
}

/// A word longer than this is no slip of the fingers; comparing it with every known word would only cost time.
const LONGEST_TYPO: usize = 64;

/// More warnings of one kind nobody reads, and a large file of nothing else would take seconds to look through.
const MOST_OF_A_KIND: usize = 50;

/// The known word that was probably meant by `word`.
fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST_TYPO { None } else { nearest(word, known) }
}

fn finding(severity: Severity, place: Place, message: String, help: Option<String>) -> Diagnostic {
    let Place { line, column, length } = place;
    Diagnostic { severity, line, column, length, message, help }
}

/// In the order of the file; of two at the same place the error first.
fn sort(findings: &mut [Diagnostic]) {
    findings.sort_by_key(|f| (f.line, f.column, Reverse(f.severity == Severity::Error)));
}

/// Findings as tests compare them.
#[cfg(test)]
fn shown(findings: &[Diagnostic]) -> Vec<String> {
    let show = |f: &Diagnostic| {
        let severity = if f.severity == Severity::Error { "error" } else { "warning" };
        let help = f.help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
        format!("{}:{}+{} {severity}: {}{help}", f.line, f.column, f.length, f.message)
    };
    findings.iter().map(show).collect()
}
