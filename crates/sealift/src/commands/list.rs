//! What there is: status, runs, packages.

use std::process::ExitCode;

use sealift_client::api::{AppStatus, List, Packages, Status};
use sealift_model::{AppPhase, Run, RunState};

use crate::cli::{Global, PackagesArgs, RunsArgs};
use crate::error::Error;
use crate::print::{Printer, Style, seconds};

pub(super) async fn status(global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let status: Status = client.get("/v1/status").await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.line(&format!("server    {} at {}", status.version, client.address()))?;
    printer.line(&format!("machines  {} present of {}", status.machines_present, status.machines))?;
    let waiting = match status.approvals {
        0 => String::new(),
        1 => ", 1 waits for an approval: sealift approvals".to_owned(),
        count => format!(", {count} wait for an approval: sealift approvals"),
    };
    printer.line(&format!(
        "runs      {} queued, {} running{waiting}",
        status.runs_queued, status.runs_running
    ))?;
    printer.line(&format!("packages  {}, signed by {}", status.packages, status.public_key))?;
    if status.apps.is_empty() {
        printer.line("apps      none yet: push a commit that has unit files in units/")?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.line("")?;
    let rows: Vec<_> = status.apps.iter().map(|app| app_row(&printer, app)).collect();
    printer.table(&["APP", "BRANCH", "RELEASE", "COMMIT", "STATE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn app_row(printer: &Printer, status: &AppStatus) -> Vec<String> {
    let commit = status.release.as_ref().map_or("-", |release| release.package.name.commit.short());
    let (style, word) = phase(status.phase);
    let why = status.units.iter().find_map(|unit| {
        let text = unit.problem.as_ref().or(unit.status.as_ref().and_then(|status| status.error.as_ref()))?;
        Some(format!(" ({}: {text})", unit.unit))
    });
    let state = format!("{word}{}", why.unwrap_or_default());
    vec![
        status.app.project.to_string(),
        status.app.branch.to_string(),
        status.app.current.to_string(),
        commit.to_owned(),
        printer.paint(style, &state),
    ]
}

/// How an app's phase is shown.
pub(super) fn phase(phase: AppPhase) -> (Style, &'static str) {
    match phase {
        AppPhase::Running => (Style::Good, "running"),
        AppPhase::Rolling => (Style::Careful, "rolling out"),
        AppPhase::Failed => (Style::Bad, "failed"),
        AppPhase::Empty => (Style::Quiet, "no units"),
    }
}

pub(super) async fn runs(args: RunsArgs, global: &Global) -> Result<ExitCode, Error> {
    let project = args.project.map_or_else(String::new, |project| format!("&project={project}"));
    let path = format!("/v1/runs?limit={}{project}", args.limit);
    let runs: List<Run> = super::client(global)?.get(&path).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&runs)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = runs
        .items
        .iter()
        .map(|run| {
            let (style, word) = state(run.state);
            let took = run.ended_at.map_or_else(|| "-".into(), |ended| seconds(ended.since(run.queued_at)));
            vec![
                run.id.to_string(),
                run.branch.to_string(),
                run.commit.short().to_owned(),
                run.attempt().map_or(0, |attempt| attempt.number).to_string(),
                run.queued_at.to_string(),
                took,
                printer.paint(style, word),
            ]
        })
        .collect();
    printer.table(&["RUN", "BRANCH", "COMMIT", "ATTEMPT", "QUEUED", "TOOK", "STATE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// How a run's state is shown.
pub(super) fn state(state: RunState) -> (Style, &'static str) {
    match state {
        RunState::Queued => (Style::Quiet, "queued"),
        RunState::Running => (Style::Careful, "running"),
        RunState::Passed => (Style::Good, "passed"),
        RunState::Failed => (Style::Bad, "failed"),
        RunState::Aborted => (Style::Bad, "aborted"),
    }
}

pub(super) async fn packages(args: PackagesArgs, global: &Global) -> Result<ExitCode, Error> {
    let query = args.project.map_or_else(String::new, |project| format!("?project={project}"));
    let packages: Packages = super::client(global)?.get(&format!("/v1/packages{query}")).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&packages)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = packages
        .items
        .iter()
        .map(|package| {
            vec![
                format!("{}/{}/{}", package.name.project, package.name.branch, package.name.commit.short()),
                package.run.to_string(),
                package.size.to_string(),
                package.digest.as_str()[..12].to_owned(),
                package.created_at.to_string(),
            ]
        })
        .collect();
    printer.table(&["PACKAGE", "RUN", "BYTES", "DIGEST", "CREATED"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
