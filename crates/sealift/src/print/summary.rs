//! What is told at the end of a run: each pipeline and step with its time, why it failed, and how to get at it again.
//!
//! It must not know how the run was shown while it went on.

use super::plain::{outcome_word, tests_line};
use super::tree::{Node, NodeState, Step, StepState, Tree};
use super::{Printer, Style, seconds, visible};
use crate::error::Error;

/// How a run can be asked for again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Again {
    /// What every command needs besides the pipeline: a directory, options that change what is run.
    pub(crate) arguments: Vec<String>,
}

impl Again {
    /// `sealift run ARGUMENTS --pipeline NAME MORE`
    fn command(&self, pipeline: &str, more: &[&str]) -> String {
        let mut words = vec!["sealift".to_owned(), "run".to_owned()];
        words.extend(self.arguments.iter().cloned());
        if pipeline != "build" {
            words.extend(["--pipeline".to_owned(), pipeline.to_owned()]);
        }
        words.extend(more.iter().map(|&word| word.to_owned()));
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// All of it, for those who have seen nothing that stays.
    All,
    /// What the lines before have not said.
    Rest,
    /// What has ended, for those who are asked something in the middle of it.
    SoFar,
}

impl Printer {
    pub(super) fn summary(&self, tree: &Tree, detail: Detail, again: &Again) -> Result<(), Error> {
        let mut lines = Vec::new();
        if detail == Detail::All {
            for warning in &tree.warnings {
                let text = warning.lines().map(visible).collect::<Vec<_>>().join("\n  ");
                lines.push(self.paint(Style::Careful, &format!("warning: {text}")));
            }
        }
        if detail == Detail::All || tree.workflow.is_some() {
            for node in &tree.nodes {
                self.node(tree, node, detail, &mut lines);
            }
        }
        self.end(tree, detail, &mut lines);
        for node in &tree.nodes {
            self.again(node, detail, again, &mut lines, tree.workflow.is_some());
        }
        lines.iter().try_for_each(|line| self.line(line))
    }

    /// What has happened until now.
    pub(super) fn so_far(&self, tree: &Tree) -> Result<(), Error> {
        let mut lines = Vec::new();
        for node in tree.nodes.iter().filter(|node| node.state != NodeState::Planned) {
            self.node(tree, node, Detail::SoFar, &mut lines);
            lines.extend(node.note.as_ref().map(|note| self.paint(Style::Quiet, &visible(note))));
        }
        lines.iter().try_for_each(|line| self.line(line))
    }

    fn node(&self, tree: &Tree, node: &Node, detail: Detail, lines: &mut Vec<String>) {
        let mut indent = "  ";
        if tree.workflow.is_some() {
            let name = visible(node.name.as_deref().unwrap_or(&node.pipeline));
            let (style, word, took, more) = match &node.state {
                NodeState::Planned => (Style::Quiet, "not run", String::new(), String::new()),
                NodeState::Waiting(_) if detail == Detail::SoFar => {
                    (Style::Quiet, "waiting", String::new(), String::new())
                }
                NodeState::Running if detail == Detail::SoFar => {
                    (Style::Quiet, "running", String::new(), String::new())
                }
                NodeState::Waiting(reason) | NodeState::Skipped(reason) => {
                    (Style::Quiet, "not run", String::new(), format!(": {}", visible(reason)))
                }
                NodeState::Running => (Style::Bad, "broke off", String::new(), String::new()),
                NodeState::Ended(end) if end.passed => {
                    (Style::Good, "passed", seconds(end.took), String::new())
                }
                NodeState::Ended(end) => (Style::Bad, "failed", seconds(end.took), message(&end.message)),
            };
            lines.push(self.paint(style, &format!("  {word:<9} {took:>8}  {name}{more}")));
            indent = "      ";
        }
        if detail == Detail::Rest {
            return;
        }
        for step in &node.steps {
            if detail == Detail::SoFar && !matches!(step.state, StepState::Ended { .. }) {
                continue;
            }
            lines.push(self.step(step, indent));
            let failed = node.failed().is_some_and(|failed| std::ptr::eq(failed, step));
            if failed && !step.tail.lines.is_empty() {
                let (shown, all) = (step.tail.lines.len(), step.tail.count);
                let title = if shown as u64 == all {
                    "its output:".to_owned()
                } else {
                    format!("the last {shown} of its {all} lines:")
                };
                lines.push(self.paint(Style::Quiet, &format!("{indent}  {title}")));
                let bar = self.paint(Style::Quiet, "|");
                lines.extend(step.tail.lines.iter().map(|line| format!("{indent}  {bar} {}", visible(line))));
            }
        }
        if let Some(tests) = &node.tests {
            let line = tests_line(tests.tests, tests.failures, tests.errors, tests.skipped);
            let style = if tests.failures + tests.errors == 0 { Style::Good } else { Style::Bad };
            lines.push(self.paint(style, &format!("{indent}{line}")));
            for name in &tests.failed {
                lines.push(self.paint(Style::Bad, &format!("{indent}  did not pass: {}", visible(name))));
            }
        }
    }

    fn step(&self, step: &Step, indent: &str) -> String {
        let name = visible(&step.name);
        let after = if step.after { "after-step " } else { "" };
        let (style, word, took, more) = match &step.state {
            StepState::Planned => (Style::Quiet, "not run", String::new(), String::new()),
            StepState::Running { .. } => (Style::Bad, "broke off", String::new(), String::new()),
            StepState::Ended { outcome, soft, exit_code, took, message: text } => {
                let (style, word) = outcome_word(*outcome);
                let code = exit_code.filter(|code| *code != 0);
                let code = code.map_or_else(String::new, |code| format!(" (exit code {code})"));
                let (style, soft) = if *soft { (Style::Careful, ", may fail") } else { (style, "") };
                (style, word, seconds(*took), format!("{code}{soft}{}", message(text)))
            }
        };
        self.paint(style, &format!("{indent}{word:<9} {took:>8}  {after}{name}{more}"))
    }

    fn end(&self, tree: &Tree, detail: Detail, lines: &mut Vec<String>) {
        // The plain view has said it.
        let Some(end) = tree.end.as_ref().filter(|_| detail == Detail::All) else { return };
        let what = match (&tree.workflow, tree.nodes.first()) {
            (Some(workflow), _) => format!("workflow {}", visible(workflow)),
            (None, node) => format!("pipeline {}", node.map_or_else(String::new, |n| visible(&n.pipeline))),
        };
        let (style, word) = if end.passed { (Style::Good, "passed") } else { (Style::Bad, "failed") };
        let text = format!("{what} {word} after {}{}", seconds(end.took), message(&end.message));
        lines.push(self.paint(style, &text));
    }

    /// How to get at it again. A node of a workflow has what others made, which a run of its pipeline alone has not.
    fn again(&self, node: &Node, detail: Detail, again: &Again, lines: &mut Vec<String>, in_workflow: bool) {
        let Some(failed) = node.failed() else { return };
        let StepState::Ended { outcome, .. } = &failed.state else { return };
        if *outcome == sealift_model::StepOutcome::Aborted || failed.after || in_workflow {
            return;
        }
        lines.push(String::new());
        let same = node.steps.iter().filter(|step| step.name == failed.name).count();
        let number = node.steps.iter().take_while(|step| !std::ptr::eq(*step, failed)).count() + 1;
        let from = if same == 1 { failed.name.clone() } else { number.to_string() };
        let mut rows = vec![
            ("again from this step", again.command(&node.pipeline, &["--from", &from])),
            ("a shell where it fails", again.command(&node.pipeline, &["--shell-on-failure"])),
        ];
        if detail == Detail::All {
            rows.push(("all of the output", again.command(&node.pipeline, &["--plain"])));
        }
        for (what, command) in rows {
            lines.push(format!("{}  {command}", self.paint(Style::Quiet, &format!("{what:<22}"))));
        }
    }
}

fn message(text: &Option<String>) -> String {
    let lines = text.iter().flat_map(|text| text.lines()).map(visible).collect::<Vec<_>>();
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" / ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        let again = Again { arguments: vec!["my dir".into()] };
        assert_eq!(again.command("build", &["--from", "a'b"]), r"sealift run 'my dir' --from 'a'\''b'");
        assert_eq!(
            Again::default().command("test", &["--from", "rake"]),
            "sealift run --pipeline test --from rake"
        );
    }
}
