//! A run line by line, as it goes: for logs, for pipes and for those who want to see all of it.
//!
//! Guarantees: nothing that a step wrote is left out but what could move the cursor; lines of one node of a workflow
//! are never mixed into another's.

use std::io::{self, Write as _};
use std::time::Duration;

use sealift_model::{EventKind, RunEvent, StepOutcome, Stream};

use super::{Printer, Style, many, seconds, visible};
use crate::error::Error;

impl Printer {
    /// An event of a run, with the time since the first one, and the node of the workflow that it concerns.
    pub(crate) fn event(&mut self, event: &RunEvent) -> Result<(), Error> {
        let began = *self.began.get_or_insert(event.at);
        let elapsed = self.paint(Style::Quiet, &format!("{:>8}", seconds(event.at.since(began))));
        let node = event.node.as_ref().map_or_else(String::new, |node| format!(" [{}]", visible(node)));
        let mut stdout = io::stdout().lock();
        if let EventKind::Output { text, partial, stream, .. } = &event.kind {
            let text = visible(text);
            let shown = if *stream == Stream::Stderr { self.paint(Style::Careful, &text) } else { text };
            let start = match self.open_line.take() {
                Some(open) if open == event.node => String::new(),
                Some(_) => format!("\n{elapsed}{node} | "),
                None => format!("{elapsed}{node} | "),
            };
            let end = if *partial { "" } else { "\n" };
            self.open_line = partial.then(|| event.node.clone());
            return write!(stdout, "{start}{shown}{end}").map_err(Error::Print);
        }
        let text = self.words(&event.kind);
        let before = if self.open_line.take().is_some() { "\n" } else { "" };
        let indented = text.replace('\n', "\n           ");
        writeln!(stdout, "{before}{elapsed}{node} > {indented}").map_err(Error::Print)
    }

    /// What an event says; nothing for output.
    pub(super) fn words(&self, event: &EventKind) -> String {
        match event {
            EventKind::Output { .. } => String::new(),
            EventKind::PipelineStarted { pipeline, image, steps } => self.paint(
                Style::Title,
                &format!(
                    "pipeline {} in box {}, {}",
                    visible(pipeline),
                    visible(image),
                    many(steps.len() as u64, "step")
                ),
            ),
            EventKind::Note { text } => lines(text),
            EventKind::Warning { text } => self.paint(Style::Careful, &format!("warning: {}", lines(text))),
            EventKind::StepStarted { name, after, .. } => {
                let kind = if *after { "after-step" } else { "step" };
                self.paint(Style::Title, &format!("{kind}: {}", visible(name)))
            }
            EventKind::StepFinished { name, outcome, exit_code, millis, message, soft, .. } => {
                let took = seconds(Duration::from_millis(*millis));
                let code = exit_code.filter(|code| *code != 0);
                let code = code.map_or_else(String::new, |code| format!(" (exit code {code})"));
                let (style, word) = outcome_word(*outcome);
                let (style, soft) = if *soft { (Style::Careful, ", may fail") } else { (style, "") };
                self.paint(style, &format!("{word} {took}: {}{code}{}{soft}", visible(name), behind(message)))
            }
            EventKind::TestsReported { tests, failures, errors, skipped, failed, .. } => {
                let style = if failures + errors == 0 { Style::Good } else { Style::Bad };
                let mut text = tests_line(*tests, *failures, *errors, *skipped);
                for name in failed {
                    text.push_str(&format!("\n  did not pass: {}", visible(name)));
                }
                self.paint(style, &text)
            }
            EventKind::PipelineFinished { passed, millis, message } => {
                self.finished("pipeline", *passed, *millis, message)
            }
            EventKind::WorkflowStarted { workflow, nodes } => {
                let mut text = self.paint(
                    Style::Title,
                    &format!("workflow {}, {}", visible(workflow), many(nodes.len() as u64, "pipeline")),
                );
                for node in nodes {
                    let after = if node.needs.is_empty() { String::new() } else { node.needs.join(", ") };
                    let after = if after.is_empty() { after } else { format!(" after {}", visible(&after)) };
                    text.push_str(&format!("\n  {}{after}", visible(&node.name)));
                }
                text
            }
            EventKind::NodeWaiting { reason, .. } => format!("waiting: {}", visible(reason)),
            EventKind::NodeSkipped { reason, fine } => {
                let style = if *fine { Style::Quiet } else { Style::Careful };
                self.paint(style, &format!("skipped: {}", visible(reason)))
            }
            EventKind::NodeRetried { attempt, after_millis } => {
                let wait = seconds(Duration::from_millis(*after_millis));
                self.paint(Style::Careful, &format!("attempt {attempt} follows in {wait}"))
            }
            EventKind::WorkflowFinished { passed, millis, message } => {
                self.finished("workflow", *passed, *millis, message)
            }
        }
    }

    fn finished(&self, what: &str, passed: bool, millis: u64, message: &Option<String>) -> String {
        let took = seconds(Duration::from_millis(millis));
        let (style, word) = if passed { (Style::Good, "passed") } else { (Style::Bad, "failed") };
        self.paint(style, &format!("{what} {word} after {took}{}", behind(message)))
    }
}

/// Several lines of somebody else's.
fn lines(text: &str) -> String {
    text.lines().map(visible).collect::<Vec<_>>().join("\n")
}

fn behind(message: &Option<String>) -> String {
    message.as_ref().map_or_else(String::new, |text| format!(": {}", lines(text)))
}

pub(super) fn outcome_word(outcome: StepOutcome) -> (Style, &'static str) {
    match outcome {
        StepOutcome::Passed => (Style::Good, "passed"),
        StepOutcome::Failed => (Style::Bad, "failed"),
        StepOutcome::TimedOut => (Style::Bad, "timed out"),
        StepOutcome::Aborted => (Style::Bad, "aborted"),
        StepOutcome::Skipped => (Style::Quiet, "skipped"),
    }
}

/// `12 tests: 2 failures, 1 skipped`
pub(super) fn tests_line(tests: u64, failures: u64, errors: u64, skipped: u64) -> String {
    let counts = [
        (failures, many(failures, "failure")),
        (errors, many(errors, "error")),
        (skipped, format!("{skipped} skipped")),
    ];
    let said: Vec<String> =
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(_, said)| said).collect();
    let said = if said.is_empty() { "all passed".to_owned() } else { said.join(", ") };
    format!("{}: {said}", many(tests, "test"))
}
