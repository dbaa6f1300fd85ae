//! A run's log, and stopping it.

use std::process::ExitCode;

use sealift_client::Client;
use sealift_client::api::{List, LogEntry};
use sealift_model::{EventKind, Run, RunId, RunState};

use crate::cli::{AbortArgs, Global, LogsArgs};
use crate::error::Error;
use crate::print::{Printer, Style};

pub(super) async fn logs(args: LogsArgs, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let run = match args.run {
        Some(run) => run,
        None => {
            let newest: List<Run> = client.get("/v1/runs?limit=1").await?;
            let newest = newest.items.into_iter().next();
            newest.ok_or_else(|| Error::with_help("there is no run yet", "make one with: sealift push"))?.id
        }
    };
    let mut printer = Printer::new(global.output);
    stream(&client, &mut printer, &run, args.follow).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a run's log; with `follow` until the run has ended.
pub(super) async fn stream(
    client: &Client,
    printer: &mut Printer,
    run: &RunId,
    follow: bool,
) -> Result<(), Error> {
    let mut lines = client.lines::<LogEntry>(&format!("/v1/runs/{run}/log?follow={follow}")).await?;
    let mut attempt = 1;
    while let Some(entry) = lines.next().await? {
        if printer.is_json() {
            printer.json(&entry)?;
            continue;
        }
        if entry.attempt != attempt {
            attempt = entry.attempt;
            let text = format!("attempt {attempt}: the one before was lost");
            printer.line(&printer.paint(Style::Careful, &text))?;
        }
        printer.event(&entry.event)?;
        if let (EventKind::NodeWaiting { question: Some(_), .. }, Some(node)) =
            (&entry.event.kind, &entry.event.node)
            && follow
        {
            super::approvals::tell_how(client, printer, run, node).await?;
        }
    }
    Ok(())
}

pub(super) async fn abort(args: &AbortArgs, global: &Global) -> Result<ExitCode, Error> {
    let run: Run = super::client(global)?.post(&format!("/v1/runs/{}/abort", args.run), &()).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&run)?;
    } else if run.state == RunState::Aborted {
        printer.line(&format!("{} is aborted", run.id))?;
    } else {
        printer.line(&format!("{} had ended already: {}", run.id, super::list::state(run.state).1))?;
    }
    Ok(ExitCode::SUCCESS)
}
