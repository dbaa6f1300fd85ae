//! What runs ask people: listing it, and answering.

use std::process::ExitCode;

use sealift_client::Client;
use sealift_client::api::{GiveAnswer, List, WaitingApproval};
use sealift_model::{Approval, Run, RunId};

use crate::cli::{ApprovalsArgs, ApproveArgs, Global, RejectArgs};
use crate::error::Error;
use crate::print::{Printer, Style, visible};

pub(super) async fn list(args: ApprovalsArgs, global: &Global) -> Result<ExitCode, Error> {
    let query = args.project.map_or_else(String::new, |project| format!("?project={project}"));
    let waiting: List<WaitingApproval> = super::client(global)?.get(&format!("/v1/approvals{query}")).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&waiting)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = waiting
        .items
        .iter()
        .map(|item| {
            vec![
                item.run.to_string(),
                item.project.to_string(),
                visible(&item.node),
                item.since.to_string(),
                visible(&item.question),
            ]
        })
        .collect();
    printer.table(&["RUN", "PROJECT", "NODE", "SINCE", "QUESTION"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn approve(args: ApproveArgs, global: &Global) -> Result<ExitCode, Error> {
    let ApproveArgs { run, node } = args;
    answer(&run, node, true, None, global).await
}

pub(super) async fn reject(args: RejectArgs, global: &Global) -> Result<ExitCode, Error> {
    let RejectArgs { run, node, reason } = args;
    answer(&run, node, false, reason, global).await
}

async fn answer(
    run: &RunId,
    node: Option<String>,
    approved: bool,
    reason: Option<String>,
    global: &Global,
) -> Result<ExitCode, Error> {
    let by = match super::local::user() {
        // As where nobody has logged in.
        unknown if unknown.is_empty() => format!("user {}", rustix::process::getuid().as_raw()),
        user => user,
    };
    let answer = GiveAnswer { node, approved, reason, by };
    let approval: Approval = super::client(global)?.post(&format!("/v1/runs/{run}/answer"), &answer).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&approval)?;
        return Ok(ExitCode::SUCCESS);
    }
    let word = if approved { "approved" } else { "rejected" };
    // Somebody else may have said the same before.
    let by = approval.answer.map_or(answer.by, |answer| answer.by);
    printer.line(&format!("{} of {run} is {word} by {}", visible(&approval.node), visible(&by)))?;
    Ok(ExitCode::SUCCESS)
}

/// Says how to answer, if `node` of the run still waits for it.
pub(super) async fn tell_how(
    client: &Client,
    printer: &Printer,
    id: &RunId,
    node: &str,
) -> Result<(), Error> {
    let run: Run = client.get(&format!("/v1/runs/{id}")).await?;
    let answered = run.approvals.iter().any(|approval| approval.node == node && approval.answer.is_some());
    if answered || run.state.is_end() {
        return Ok(());
    }
    let node = quoted(node);
    let text = format!("answer with: sealift approve {id} {node}   (or: sealift reject {id} {node})");
    printer.line(&printer.paint(Style::Careful, &text))
}

/// As it is typed in a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let text = visible(text);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn what_is_to_be_typed_is_quoted_where_need_be() {
        for (node, typed) in
            [("deploy", "deploy"), ("test (A=1)", "'test (A=1)'"), ("it's", "'it'\\''s'"), ("a\u{7}", "a")]
        {
            assert_eq!(quoted(node), typed);
        }
    }
}
