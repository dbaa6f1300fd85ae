//! `sealift unit verify`: what is wrong with unit files by themselves; and where a server is in reach, what of it no
//! machine can give.

use std::process::ExitCode;

use sealift_client::api::{List, MachineStatus};
use sealift_model::diagnostic::{Diagnostic, Severity, chain};
use sealift_unitfile::UnitFile;
use serde::Serialize;

use super::unmet::unmet;
use super::{remark, words};
use crate::cli::{Global, UnitVerify};
use crate::error::{Error, FAILED};
use crate::print::{Printer, many};

#[derive(Debug, Serialize)]
struct Verified {
    file: String,
    findings: Vec<Diagnostic>,
}

pub(super) async fn verify(args: &UnitVerify, global: &Global) -> Result<ExitCode, Error> {
    let printer = Printer::new(global.output);
    let machines = machines(global, &printer).await?;
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
        let parsed = UnitFile::parse(&text);
        let mut findings = sealift_unitfile::verify(&name, &parsed);
        findings.extend(unmet(&name, &parsed, machines.as_deref().unwrap_or_default()));
        findings.sort_by_key(|finding| (finding.line, finding.column));
        let bad = findings.iter().filter(|finding| finding.severity == Severity::Error).count() as u64;
        errors += bad;
        warnings += findings.len() as u64 - bad;
        if !printer.is_json() {
            findings.iter().try_for_each(|finding| printer.line(&finding.render(&file, &text)))?;
        }
        all.push(Verified { file, findings });
    }
    if printer.is_json() {
        printer.json(&serde_json::json!({ "items": all, "machines": machines.map(|all| all.len()) }))?;
    } else {
        let files = many(all.len() as u64, "file");
        printer.line(&format!("{files}: {}, {}", many(errors, "error"), many(warnings, "warning")))?;
    }
    let failed = errors > 0 || args.strict && warnings > 0;
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// The machines that are there; none if no server is in reach and none was named.
async fn machines(global: &Global, printer: &Printer) -> Result<Option<Vec<MachineStatus>>, Error> {
    let asked = async {
        let machines: List<MachineStatus> = crate::commands::client(global)?.get("/v1/machines").await?;
        Ok::<_, Error>(machines.items)
    };
    let machines = match asked.await {
        Ok(machines) => machines,
        Err(error) if global.server.is_some() => return Err(error),
        Err(error) => {
            if !printer.is_json() {
                remark(&format!("machines were not asked: {}", chain(&error)));
            }
            return Ok(None);
        }
    };
    let there: Vec<_> = machines.into_iter().filter(|machine| machine.presence.is_some()).collect();
    if there.is_empty() && !printer.is_json() {
        remark("machines were not asked: none is there");
    }
    Ok(Some(there))
}
