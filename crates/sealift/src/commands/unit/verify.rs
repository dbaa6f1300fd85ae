//! `sealift unit verify`: what is wrong with unit files, without a server.

use std::process::ExitCode;

use sealift_model::diagnostic::{Diagnostic, Severity};
use sealift_unitfile::UnitFile;
use serde::Serialize;

use super::words;
use crate::cli::{Global, UnitVerify};
use crate::error::{Error, FAILED};
use crate::print::{Printer, many};

#[derive(Debug, Serialize)]
struct Verified {
    file: String,
    findings: Vec<Diagnostic>,
}

pub(super) fn verify(args: &UnitVerify, global: &Global) -> Result<ExitCode, Error> {
    let printer = Printer::new(global.output);
    let (mut all, mut errors, mut warnings) = (Vec::new(), 0, 0);
    for path in &args.files {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let base = path.file_name().and_then(|base| base.to_str()).unwrap_or_default();
        let name = words::name(base)?;
        let file = path.display().to_string();
        let findings = sealift_unitfile::verify(&name, &UnitFile::parse(&text));
        let bad = findings.iter().filter(|finding| finding.severity == Severity::Error).count() as u64;
        errors += bad;
        warnings += findings.len() as u64 - bad;
        if !printer.is_json() {
            findings.iter().try_for_each(|finding| printer.line(&finding.render(&file, &text)))?;
        }
        all.push(Verified { file, findings });
    }
    if printer.is_json() {
        printer.json(&serde_json::json!({ "items": all }))?;
    } else {
        let files = many(all.len() as u64, "file");
        printer.line(&format!("{files}: {}, {}", many(errors, "error"), many(warnings, "warning")))?;
    }
    let failed = errors > 0 || args.strict && warnings > 0;
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
