//! Going back to an earlier release, and waiting until an app is up: `push` waits the same way.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use sealift_client::Client;
use sealift_client::api::{AppStatus, List, Rollback};
use sealift_model::{AppPhase, ProjectName};

use crate::cli::{Global, RollbackArgs};
use crate::error::{Error, FAILED};
use crate::print::{Printer, Style, seconds};

/// Longer than systemd's own limit for a start (90 s), so that it is systemd that gives up first.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn rollback(args: RollbackArgs, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let app = match args.app {
        Some(app) => app,
        None => only_app(&client).await?,
    };
    let began = Instant::now();
    let status: AppStatus =
        client.post(&format!("/v1/apps/{app}/rollback"), &Rollback { to: args.to }).await?;
    let printer = Printer::new(global.output);
    if !printer.is_json() {
        let commit = status.release.as_ref().map_or("-", |release| release.package.name.commit.short());
        printer.line(&format!("{app} goes back to release {} (commit {commit})", status.app.current))?;
    }
    if args.detach {
        if printer.is_json() {
            printer.json(&status)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    wait_until_up(&client, &printer, &app, status.app.generation, began).await
}

async fn only_app(client: &Client) -> Result<ProjectName, Error> {
    let apps: List<AppStatus> = client.get("/v1/apps").await?;
    let mut names: Vec<_> = apps.items.into_iter().map(|status| status.app.project).collect();
    match (names.pop(), names.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(Error::with_help("there is no app yet", "make one with: sealift push")),
        (Some(last), false) => {
            names.push(last);
            let names: Vec<_> = names.iter().map(ProjectName::as_str).collect();
            Err(Error::plain(format!("there are several apps; name one of: {}", names.join(", "))))
        }
    }
}

/// Follows an app until its release of this generation runs or has failed, and prints what changes.
pub(super) async fn wait_until_up(
    client: &Client,
    printer: &Printer,
    app: &ProjectName,
    generation: u64,
    began: Instant,
) -> Result<ExitCode, Error> {
    let mut lines = client.lines::<AppStatus>(&format!("/v1/apps/{app}/watch")).await?;
    let mut shown = Vec::new();
    let mut last: Option<AppStatus> = None;
    let follow = async {
        while let Some(status) = lines.next().await? {
            if !printer.is_json() {
                tell_units(printer, &status, &mut shown, began)?;
            }
            let superseded = status.app.generation > generation;
            let settled = status.phase != AppPhase::Rolling;
            last = Some(status);
            if superseded || settled {
                break;
            }
        }
        Ok::<(), Error>(())
    };
    // Nothing is wrong yet when patience runs out: the app is still rolling out, and that is what is said.
    if let Ok(outcome) = tokio::time::timeout(PATIENCE, follow).await {
        outcome?;
    }
    let status = last.ok_or_else(|| Error::plain("the server ended the watch of the app"))?;
    if printer.is_json() {
        printer.json(&status)?;
    } else {
        let number = status.app.current;
        let text = match status.phase {
            _ if status.app.generation > generation => {
                format!("release {number} came after; see sealift status")
            }
            AppPhase::Running => format!("{app} runs release {number} after {}", seconds(began.elapsed())),
            AppPhase::Failed if number > 1 => {
                format!("release {number} of {app} failed; go back with: sealift rollback {app}")
            }
            AppPhase::Failed => format!("release {number} of {app} failed; see sealift units"),
            AppPhase::Rolling => {
                format!("release {number} of {app} is still rolling out; see sealift status")
            }
            AppPhase::Empty => format!("release {number} of {app} has no units to run"),
        };
        printer.line(&printer.paint(super::list::phase(status.phase).0, &text))?;
    }
    let up =
        matches!(status.phase, AppPhase::Running | AppPhase::Empty) || status.app.generation > generation;
    Ok(if up { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// A line for each unit whose state is news.
fn tell_units(
    printer: &Printer,
    status: &AppStatus,
    shown: &mut Vec<String>,
    began: Instant,
) -> Result<(), Error> {
    for unit in &status.units {
        let machine = unit.machine.as_deref().unwrap_or("no machine yet");
        let state = match (&unit.problem, &unit.status) {
            (Some(problem), _) => problem.clone(),
            (None, Some(state)) if unit.current => {
                let why =
                    state.error.as_ref().or(state.result.as_ref().filter(|result| *result != "success"));
                let error = why.map_or_else(String::new, |why| format!(": {why}"));
                format!("{} ({}){error}", format!("{:?}", state.active).to_lowercase(), state.sub)
            }
            (None, Some(state)) if state.error.is_some() => state.error.clone().unwrap_or_default(),
            _ => continue,
        };
        let text = format!("{} on {machine}: {state}", unit.unit);
        if !shown.contains(&text) {
            let elapsed = printer.paint(Style::Quiet, &format!("{:>8}", seconds(began.elapsed())));
            printer.line(&format!("{elapsed} > {text}"))?;
            shown.push(text);
        }
    }
    Ok(())
}
