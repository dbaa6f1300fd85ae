//! The live view of a run: its pipelines and steps with their times, and the last lines of what runs now, drawn again
//! and again in the same place of the terminal.
//!
//! Guarantees: no line is wider and the view no higher than the terminal; a frame is written in one piece; the cursor
//! is where the view began, and shown, when it has been cleared.
//!
//! It must not know what is told at the end.

use std::io::{self, Write as _};
use std::time::Duration;

use sealift_model::Timestamp;

use super::plain::outcome_word;
use super::terminal::{Size, cut, width};
use super::tree::{Node, NodeState, Step, StepState, Tree};
use super::{Printer, Style, visible};
use crate::error::Error;

/// The most lines of output that are shown of what runs.
const OUTPUT: usize = 12;
/// The fewest, however much else there is to show.
const LEAST_OUTPUT: usize = 3;
/// As terminals that know it show all of a frame at once.
const BEGIN_FRAME: &str = "\x1b[?2026h\x1b[?25l";
const END_FRAME: &str = "\x1b[?25h\x1b[?2026l";

/// What of the view is on the terminal.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The widths of the lines drawn last; the cursor is at the end of the last one.
    drawn: Vec<usize>,
}

impl Live {
    pub(super) fn draw(
        &mut self,
        printer: &Printer,
        tree: &Tree,
        now: Timestamp,
        size: Size,
    ) -> Result<(), Error> {
        let lines = frame(printer, tree, now, size);
        let mut text = String::from(BEGIN_FRAME);
        text.push_str(&self.home(size));
        for (index, line) in lines.iter().enumerate() {
            if index > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            // In this order, so that nothing is empty for a moment.
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        text.push_str(END_FRAME);
        self.drawn = lines.iter().map(|line| width(line)).collect();
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Print)
    }

    /// Takes the view off the terminal.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        if self.drawn.is_empty() {
            return Ok(());
        }
        let text = format!("{}\x1b[J\x1b[?25h", self.home(super::terminal::size().unwrap_or(LARGE)));
        self.drawn.clear();
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Print)
    }

    /// To where the view began. A terminal that has become too small for it may have broken its lines, or not; then
    /// nobody knows where that is, and the screen is begun anew.
    fn home(&self, size: Size) -> String {
        let fits = self.drawn.iter().all(|width| *width <= size.columns) && self.drawn.len() <= size.rows;
        match self.drawn.len() {
            _ if !fits => "\x1b[H\x1b[2J".to_owned(),
            0 => String::new(),
            1 => "\r".to_owned(),
            lines => format!("\r\x1b[{}A", lines - 1),
        }
    }
}

const LARGE: Size = Size { columns: usize::MAX, rows: usize::MAX };

/// What a line is about, for choosing what to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matter {
    Head,
    Done,
    Now,
    ToCome,
}

struct Line {
    matter: Matter,
    text: String,
}

/// The lines of the view.
fn frame(printer: &Printer, tree: &Tree, now: Timestamp, size: Size) -> Vec<String> {
    // The last row stays free: a terminal that is written to its end scrolls.
    let rows = size.rows.saturating_sub(1).max(1);
    let columns = size.columns.saturating_sub(1).max(1);
    let mut lines = Vec::new();
    head(printer, tree, now, &mut lines);
    for node in &tree.nodes {
        draw_node(printer, node, tree.workflow.is_some(), now, &mut lines);
    }
    let running: Vec<(&Node, &Step)> =
        tree.nodes.iter().filter_map(|node| Some((node, node.running()?))).collect();
    let wanted = if running.is_empty() { 0 } else { OUTPUT };
    let output = rows.saturating_sub(lines.len()).clamp(LEAST_OUTPUT.min(wanted), wanted);
    let output = output.min(rows.saturating_sub(1));
    shorten(printer, &mut lines, rows - output);
    let mut out: Vec<String> = lines.into_iter().map(|line| line.text).collect();
    last_lines(printer, &running, output, &mut out);
    out.iter().map(|line| cut(line, columns)).collect()
}

fn head(printer: &Printer, tree: &Tree, now: Timestamp, lines: &mut Vec<Line>) {
    let took = tree.began.map_or_else(String::new, |began| tenths(now.since(began)));
    let what = match (&tree.workflow, tree.nodes.first()) {
        (Some(workflow), _) => format!("workflow {}", visible(workflow)),
        (None, Some(node)) if !node.image.is_empty() => {
            format!("pipeline {} in box {}", visible(&node.pipeline), visible(&node.image))
        }
        (None, _) => "starting".to_owned(),
    };
    let text = format!("{}  {took}", printer.paint(Style::Title, &what));
    lines.push(Line { matter: Matter::Head, text });
}

fn draw_node(printer: &Printer, node: &Node, in_workflow: bool, now: Timestamp, lines: &mut Vec<Line>) {
    let note = node.note.as_ref().map(|note| visible(note.lines().next().unwrap_or_default()));
    let mut indent = "  ";
    let mut open = true;
    if in_workflow {
        let name = visible(node.name.as_deref().unwrap_or(&node.pipeline));
        let (matter, style, word, took, more) = match &node.state {
            NodeState::Planned => (Matter::ToCome, Style::Quiet, "", String::new(), String::new()),
            NodeState::Waiting(reason) => {
                (Matter::Now, Style::Careful, "waits", String::new(), format!(": {}", visible(reason)))
            }
            NodeState::Running => {
                let took = node.began.map_or_else(String::new, |began| tenths(now.since(began)));
                (Matter::Now, Style::Title, "runs", took, String::new())
            }
            NodeState::Skipped(reason) => {
                (Matter::Done, Style::Quiet, "skipped", String::new(), format!(": {}", visible(reason)))
            }
            NodeState::Ended(end) => {
                let (style, word) = if end.passed { (Style::Good, "passed") } else { (Style::Bad, "failed") };
                (Matter::Done, style, word, tenths(end.took), String::new())
            }
        };
        open = matches!(node.state, NodeState::Running);
        let text = printer.paint(style, &format!("  {word:<9} {took:>7}  {name}{more}"));
        lines.push(Line { matter, text });
        indent = "      ";
    }
    if !open {
        return;
    }
    for step in &node.steps {
        lines.push(draw_step(printer, step, indent, now));
    }
    if let Some(note) = note {
        lines.push(Line {
            matter: Matter::Now,
            text: printer.paint(Style::Quiet, &format!("{indent}({note})")),
        });
    }
}

fn draw_step(printer: &Printer, step: &Step, indent: &str, now: Timestamp) -> Line {
    let name = visible(&step.name);
    let (matter, style, word, took, more) = match &step.state {
        StepState::Planned => (Matter::ToCome, Style::Quiet, "", String::new(), String::new()),
        StepState::Running { since } => {
            (Matter::Now, Style::Title, "runs", tenths(now.since(*since)), String::new())
        }
        StepState::Ended { outcome, took, message, soft, .. } => {
            let (style, word) = outcome_word(*outcome);
            let message = message.as_ref().and_then(|message| message.lines().next());
            let message = message.map_or_else(String::new, |message| format!(": {}", visible(message)));
            let style = if *soft { Style::Careful } else { style };
            (Matter::Done, style, word, tenths(*took), message)
        }
    };
    let after = if step.after { "after-step " } else { "" };
    Line { matter, text: printer.paint(style, &format!("{indent}{word:<9} {took:>7}  {after}{name}{more}")) }
}

/// Leaves out what is done, from the top, then what is to come, from the end.
fn shorten(printer: &Printer, lines: &mut Vec<Line>, rows: usize) {
    if lines.len() <= rows {
        return;
    }
    // One row says how much is missing.
    let mut missing = 0;
    while lines.len() + 1 > rows.max(2) {
        let done = lines.iter().position(|line| line.matter == Matter::Done);
        let index = done.or_else(|| lines.iter().rposition(|line| line.matter == Matter::ToCome));
        let index = index.unwrap_or(lines.len() - 1);
        lines.remove(index);
        missing += 1;
    }
    let text = printer.paint(Style::Quiet, &format!("  ({missing} more)"));
    lines.insert(1.min(lines.len()), Line { matter: Matter::Head, text });
    lines.truncate(rows);
}

/// The last lines of each step under way, in `rows` rows.
fn last_lines(printer: &Printer, running: &[(&Node, &Step)], rows: usize, out: &mut Vec<String>) {
    if running.is_empty() || rows == 0 {
        return;
    }
    let each = (rows / running.len()).max(1);
    for (node, step) in running.iter().take(rows) {
        let mut space = each;
        if running.len() > 1 && each > 1 {
            let name = visible(node.name.as_deref().unwrap_or_default());
            out.push(printer.paint(Style::Quiet, &format!("  {name}: {}", visible(&step.name))));
            space -= 1;
        }
        let skip = step.tail.lines.len().saturating_sub(space);
        for line in step.tail.lines.iter().skip(skip) {
            out.push(format!("{} {}", printer.paint(Style::Quiet, "  |"), visible(line)));
        }
    }
}

/// `1.2s`, `2m03s`
fn tenths(duration: Duration) -> String {
    let total = duration.as_secs();
    if total < 60 {
        format!("{total}.{}s", duration.subsec_millis() / 100)
    } else {
        format!("{}m{:02}s", total / 60, total % 60)
    }
}

#[cfg(test)]
mod tests {
    use sealift_model::{EventKind, RunEvent, StepOutcome, Stream};

    use super::*;
    use crate::cli::Output;

    fn printer() -> Printer {
        Printer { output: Output::Text, colour: false, began: None, open_line: None }
    }

    fn tree(steps: usize, done: usize, lines: usize) -> Tree {
        let names: Vec<_> = (0..steps).map(|n| format!("step {n}")).collect();
        let mut kinds = vec![EventKind::PipelineStarted {
            pipeline: "build".into(),
            image: "a:1".into(),
            steps: names.clone(),
        }];
        for (step, name) in names.into_iter().enumerate().take(done + 1) {
            kinds.push(EventKind::StepStarted { step, name: name.clone(), after: false });
            if step < done {
                kinds.push(EventKind::StepFinished {
                    step,
                    name,
                    outcome: StepOutcome::Passed,
                    exit_code: Some(0),
                    millis: 1500,
                    after: false,
                    message: None,
                    soft: false,
                });
            }
        }
        for n in 0..lines {
            let text = format!("\x1b[2Jline {n}");
            kinds.push(EventKind::Output { step: done, stream: Stream::Stdout, text, partial: false });
        }
        let mut tree = Tree::default();
        for kind in kinds {
            tree.take(&RunEvent { seq: 0, at: Timestamp(0), node: None, kind });
        }
        tree
    }

    #[test]
    fn shows_steps_times_and_the_last_lines() {
        let size = Size { columns: 40, rows: 24 };
        let lines = frame(&printer(), &tree(3, 1, 30), Timestamp(2300), size);
        assert_eq!(lines[0], "pipeline build in box a:1  2.3s");
        assert_eq!(lines[1], "  passed       1.5s  step 0");
        assert_eq!(lines[2], "  runs         2.3s  step 1");
        assert_eq!(lines[3].trim(), "step 2");
        assert_eq!(lines.len(), 4 + OUTPUT);
        assert_eq!(lines.last().unwrap(), "  | line 29");
    }

    #[test]
    fn fits_into_any_terminal() {
        for (steps, done) in [(1, 0), (3, 2), (60, 30), (60, 59)] {
            for columns in [1, 2, 10, 200] {
                for rows in [1, 2, 3, 5, 10, 24, 100] {
                    let lines =
                        frame(&printer(), &tree(steps, done, 50), Timestamp(0), Size { columns, rows });
                    let what = format!("{steps} {done} {columns}x{rows}: {lines:#?}");
                    assert!(!lines.is_empty() && lines.len() <= rows.max(1), "{what}");
                    assert!(lines.iter().all(|line| width(line) <= columns), "{what}");
                    if rows >= 10 && columns > 20 {
                        assert!(lines.iter().any(|line| line.contains(&format!("step {done}"))), "{what}");
                        assert!(lines.iter().any(|line| line.contains("line 49")), "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn goes_back_to_where_it_began_and_starts_anew_when_it_cannot_know() {
        let live = Live { drawn: vec![10, 20, 5] };
        assert_eq!(live.home(Size { columns: 20, rows: 3 }), "\r\x1b[2A");
        assert_eq!(live.home(Size { columns: 19, rows: 3 }), "\x1b[H\x1b[2J");
        assert_eq!(live.home(Size { columns: 20, rows: 2 }), "\x1b[H\x1b[2J");
    }
}
