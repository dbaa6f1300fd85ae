//! A run in the lines of the wercker CLI, on standard error.
//!
//! Guarantees: standard output stays empty; the lines are those of that CLI, in its order.

use std::io::Write as _;
use std::time::Duration;

use sealift_model::{EventKind, RunEvent, StepOutcome, Timestamp};
use serde_json::json;

use super::visible;

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Plain,
    Good,
    Bad,
    Careful,
}

/// Writes to standard error; where that is closed there is nobody to tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Voice {
    /// Also where it is no terminal, as that CLI had it.
    pub(crate) colours: bool,
    pub(crate) verbose: bool,
    /// Lines of our own as JSON values.
    pub(crate) json: bool,
    /// Nothing of what the steps write.
    pub(crate) quiet: bool,
}

impl Voice {
    /// A line that begins with an arrow.
    pub(crate) fn say(&self, mood: Mood, text: &str) {
        self.line(mood, "info", &format!("--> {text}"));
    }

    pub(crate) fn warn(&self, text: &str) {
        self.line(Mood::Careful, "warning", &format!("--> {text}"));
    }

    /// The last line of what failed.
    pub(crate) fn fatal(&self, text: &str) {
        if self.json {
            self.line(Mood::Bad, "fatal", text);
        } else {
            self.line(Mood::Bad, "fatal", &format!("FATAL {text}"));
        }
    }

    /// A line of somebody else's making, such as the place of a finding.
    pub(crate) fn raw(&self, text: &str) {
        writeln!(std::io::stderr().lock(), "{}", visible(text)).ok();
    }

    fn line(&self, mood: Mood, level: &str, text: &str) {
        let line = if self.json {
            json!({ "level": level, "msg": text, "time": crate::clock::now().to_string() }).to_string()
        } else {
            self.painted(mood, text)
        };
        writeln!(std::io::stderr().lock(), "{line}").ok();
    }

    fn painted(&self, mood: Mood, text: &str) -> String {
        let code = match mood {
            Mood::Plain => return text.to_owned(),
            Mood::Good => GREEN,
            Mood::Bad => RED,
            Mood::Careful => YELLOW,
        };
        if self.colours { format!("{code}{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A run, told by a [`Voice`].
#[derive(Debug, Default)]
pub(crate) struct Telling {
    pub(crate) voice: Voice,
    /// When the first step began.
    steps_since: Option<Timestamp>,
    in_after: bool,
    /// The first step that failed, with what was wrong with it.
    failed: Option<String>,
    /// Whether the steps' end was told.
    steps_ended: bool,
    open_line: bool,
}

impl Telling {
    pub(crate) fn new(voice: Voice) -> Telling {
        Telling { voice, ..Telling::default() }
    }

    /// Tells an event.
    pub(crate) fn event(&mut self, event: &RunEvent) {
        if let EventKind::Output { text, partial, .. } = &event.kind {
            if !self.voice.quiet {
                let end = if *partial { "" } else { "\n" };
                write!(std::io::stderr().lock(), "{}{end}", visible(text)).ok();
                self.open_line = *partial;
            }
            return;
        }
        if std::mem::take(&mut self.open_line) {
            writeln!(std::io::stderr().lock()).ok();
        }
        match &event.kind {
            EventKind::PipelineStarted { pipeline, .. } => {
                *self = Telling::new(self.voice.clone());
                self.voice.say(Mood::Plain, &format!("Executing pipeline: {}", visible(pipeline)));
            }
            EventKind::Note { text } => self.voice.say(Mood::Plain, &visible(text)),
            EventKind::Warning { text } => {
                for line in text.lines() {
                    self.voice.warn(&visible(line));
                }
            }
            EventKind::StepStarted { name, after, .. } => {
                if *after && !self.in_after {
                    self.end_steps(event.at);
                    self.in_after = true;
                    self.voice.say(Mood::Plain, "Starting after-steps");
                }
                self.steps_since.get_or_insert(event.at);
                self.voice.say(Mood::Plain, &format!("Running step: {}", visible(name)));
            }
            EventKind::StepFinished { name, outcome, exit_code, millis, after, message, soft, .. } => {
                let kind = if *after { "After-step" } else { "Step" };
                let (name, took) = (visible(name), took(Duration::from_millis(*millis)));
                let passed = *outcome == StepOutcome::Passed;
                if *outcome == StepOutcome::Skipped {
                    self.voice.say(Mood::Plain, &format!("{kind} skipped: {name}"));
                } else if passed && (*after || self.voice.verbose) {
                    self.voice.say(Mood::Good, &format!("{kind} passed: {name} {took}"));
                } else if !passed {
                    let code = exit_code.map(|code| format!("exit code {code}"));
                    let message = message.as_deref().map(visible).or(code);
                    let message = message.map_or_else(String::new, |message| format!(" {message}"));
                    self.voice.say(Mood::Bad, &format!("{kind} failed: {name}{message} {took}"));
                    if !after && !soft {
                        self.failed.get_or_insert(name);
                    }
                }
            }
            EventKind::TestsReported { tests, failures, errors, skipped, .. } => {
                let line = super::plain::tests_line(*tests, *failures, *errors, *skipped);
                self.voice.say(Mood::Plain, &line);
            }
            EventKind::PipelineFinished { passed, millis, message } => {
                self.end_steps(event.at);
                let took = took(Duration::from_millis(*millis));
                if *passed {
                    self.voice.say(Mood::Good, &format!("Pipeline finished: {took}"));
                } else {
                    self.voice.say(Mood::Bad, &format!("Pipeline failed: {took}"));
                    let why = match &self.failed {
                        Some(step) => format!("Step failed: {step}"),
                        None => visible(message.as_deref().unwrap_or("Pipeline failed")),
                    };
                    self.voice.fatal(&why);
                }
            }
            EventKind::WorkflowStarted { workflow, .. } => {
                self.voice.say(Mood::Plain, &format!("Executing workflow: {}", visible(workflow)));
            }
            EventKind::WorkflowFinished { passed, millis, .. } => {
                let took = took(Duration::from_millis(*millis));
                let (mood, word) = if *passed { (Mood::Good, "finished") } else { (Mood::Bad, "failed") };
                self.voice.say(mood, &format!("Workflow {word}: {took}"));
            }
            EventKind::NodeWaiting { reason, .. } | EventKind::NodeSkipped { reason, .. } => {
                let node = event.node.as_deref().unwrap_or_default();
                self.voice.say(Mood::Plain, &format!("{}: {}", visible(node), visible(reason)));
            }
            EventKind::NodeRetried { attempt, .. } => {
                self.voice.say(Mood::Plain, &format!("Attempt {attempt} follows"));
            }
            EventKind::Output { .. } => {}
        }
    }

    /// Once, and only of steps that passed.
    fn end_steps(&mut self, at: Timestamp) {
        if std::mem::replace(&mut self.steps_ended, true) || self.failed.is_some() {
            return;
        }
        if let Some(since) = self.steps_since {
            self.voice.say(Mood::Good, &format!("Steps passed: {}", took(at.since(since))));
        }
    }
}

/// Seconds with two decimals, however many.
fn took(duration: Duration) -> String {
    format!("{:.2}s", duration.as_secs_f64())
}
