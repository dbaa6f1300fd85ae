//! What is known of a run from its events: pipelines, steps, times, last lines. The live view and the summary show it.
//!
//! Guarantees: its size is bounded by the number of steps, however much they write; events that it does not expect
//! (a run that was joined late) change nothing.
//!
//! It must not know how anything is shown.

use std::collections::VecDeque;
use std::time::Duration;

use sealift_model::{EventKind, RunEvent, StepOutcome, Timestamp};

/// How many of a step's last lines are kept.
pub(super) const TAIL: usize = 20;
/// The longest line that is kept, in bytes.
const LINE: usize = 4096;
/// How many warnings are kept.
const WARNINGS: usize = 50;

#[derive(Debug, Default)]
pub(super) struct Tree {
    /// None for a single pipeline.
    pub(super) workflow: Option<String>,
    pub(super) nodes: Vec<Node>,
    pub(super) warnings: VecDeque<String>,
    pub(super) began: Option<Timestamp>,
    pub(super) end: Option<End>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct End {
    pub(super) passed: bool,
    pub(super) took: Duration,
    pub(super) message: Option<String>,
}

/// A pipeline of the run.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// None for the pipeline of a run without a workflow.
    pub(super) name: Option<String>,
    pub(super) pipeline: String,
    pub(super) image: String,
    pub(super) state: NodeState,
    pub(super) began: Option<Timestamp>,
    pub(super) steps: Vec<Step>,
    /// What it does outside of its steps.
    pub(super) note: Option<String>,
    pub(super) tests: Option<Tests>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum NodeState {
    #[default]
    Planned,
    Waiting(String),
    Running,
    Skipped(String),
    Ended(End),
}

#[derive(Debug, Clone)]
pub(super) struct Tests {
    pub(super) tests: u64,
    pub(super) failures: u64,
    pub(super) errors: u64,
    pub(super) skipped: u64,
    pub(super) failed: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) after: bool,
    pub(super) state: StepState,
    pub(super) tail: Tail,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum StepState {
    #[default]
    Planned,
    Running {
        since: Timestamp,
    },
    Ended {
        outcome: StepOutcome,
        soft: bool,
        exit_code: Option<i32>,
        took: Duration,
        message: Option<String>,
    },
}

/// The last lines of a step's output.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) lines: VecDeque<String>,
    /// Lines in all.
    pub(super) count: u64,
    /// Whether the last one has not ended.
    open: bool,
}

impl Tail {
    fn push(&mut self, text: &str, partial: bool) {
        let joined = self.open;
        self.open = partial;
        if let (true, Some(last)) = (joined, self.lines.back_mut()) {
            last.push_str(text);
            shorten(last);
            return;
        }
        let mut line = text.to_owned();
        shorten(&mut line);
        if self.lines.len() == TAIL {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.count += 1;
    }
}

fn shorten(line: &mut String) {
    if line.len() > LINE {
        let cut = (0..=LINE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(cut);
    }
}

impl Node {
    /// The step under way.
    pub(super) fn running(&self) -> Option<&Step> {
        self.steps.iter().find(|step| matches!(step.state, StepState::Running { .. }))
    }

    /// The first step that failed the pipeline, by its own fault.
    pub(super) fn failed(&self) -> Option<&Step> {
        let failed = |step: &&Step| match &step.state {
            StepState::Ended { outcome, soft, .. } => {
                !soft && !matches!(outcome, StepOutcome::Passed | StepOutcome::Skipped)
            }
            StepState::Planned | StepState::Running { .. } => false,
        };
        self.steps.iter().find(failed)
    }

    fn step(&mut self, number: usize) -> Option<&mut Step> {
        self.steps.get_mut(number)
    }
}

impl Tree {
    pub(super) fn take(&mut self, event: &RunEvent) {
        self.began.get_or_insert(event.at);
        match &event.kind {
            EventKind::WorkflowStarted { workflow, nodes } => {
                self.workflow = Some(workflow.clone());
                let node = |plan: &sealift_model::NodePlan| Node {
                    name: Some(plan.name.clone()),
                    pipeline: plan.pipeline.clone(),
                    ..Node::default()
                };
                self.nodes = nodes.iter().map(node).collect();
            }
            EventKind::WorkflowFinished { passed, millis, message } => {
                self.end = Some(end(*passed, *millis, message));
            }
            EventKind::Warning { text } => {
                let text = match &event.node {
                    Some(node) => format!("{node}: {text}"),
                    None => text.clone(),
                };
                if self.warnings.len() == WARNINGS {
                    self.warnings.pop_front();
                }
                self.warnings.push_back(text);
            }
            kind => {
                let whole = self.workflow.is_none();
                let node = self.node(event.node.as_deref());
                node.take(event.at, kind);
                if let (true, NodeState::Ended(end)) = (whole, &node.state) {
                    self.end = Some(end.clone());
                }
            }
        }
    }

    fn node(&mut self, name: Option<&str>) -> &mut Node {
        let known = self.nodes.iter().position(|node| node.name.as_deref() == name);
        let index = known.unwrap_or_else(|| {
            self.nodes.push(Node { name: name.map(str::to_owned), ..Node::default() });
            self.nodes.len() - 1
        });
        &mut self.nodes[index]
    }
}

impl Node {
    fn take(&mut self, at: Timestamp, kind: &EventKind) {
        match kind {
            EventKind::PipelineStarted { pipeline, image, steps } => {
                let step = |name: &String| Step { name: name.clone(), ..Step::default() };
                *self = Node {
                    name: self.name.take(),
                    pipeline: pipeline.clone(),
                    image: image.clone(),
                    state: NodeState::Running,
                    began: Some(at),
                    steps: steps.iter().map(step).collect(),
                    ..Node::default()
                };
            }
            EventKind::Note { text } => self.note = Some(text.clone()),
            EventKind::StepStarted { step, after, .. } => {
                self.note = None;
                if let Some(step) = self.step(*step) {
                    step.after = *after;
                    step.tail = Tail::default();
                    step.state = StepState::Running { since: at };
                }
            }
            EventKind::Output { step, text, partial, .. } => {
                if let Some(step) = self.step(*step) {
                    step.tail.push(text, *partial);
                }
            }
            EventKind::StepFinished { step, outcome, exit_code, millis, after, message, soft, .. } => {
                if let Some(step) = self.step(*step) {
                    step.after = *after;
                    step.state = StepState::Ended {
                        outcome: *outcome,
                        soft: *soft,
                        exit_code: *exit_code,
                        took: Duration::from_millis(*millis),
                        message: message.clone(),
                    };
                }
            }
            EventKind::TestsReported { tests, failures, errors, skipped, failed, .. } => {
                self.tests = Some(Tests {
                    tests: *tests,
                    failures: *failures,
                    errors: *errors,
                    skipped: *skipped,
                    failed: failed.clone(),
                });
            }
            EventKind::PipelineFinished { passed, millis, message } => {
                self.note = None;
                self.state = NodeState::Ended(end(*passed, *millis, message));
            }
            EventKind::NodeWaiting { reason, .. } => self.state = NodeState::Waiting(reason.clone()),
            EventKind::NodeSkipped { reason, .. } => self.state = NodeState::Skipped(reason.clone()),
            EventKind::NodeRetried { attempt, .. } => {
                self.state = NodeState::Waiting(format!("attempt {attempt} follows"));
            }
            EventKind::Warning { .. }
            | EventKind::WorkflowStarted { .. }
            | EventKind::WorkflowFinished { .. } => {}
        }
    }
}

fn end(passed: bool, millis: u64, message: &Option<String>) -> End {
    End { passed, took: Duration::from_millis(millis), message: message.clone() }
}

#[cfg(test)]
mod tests {
    use sealift_model::Stream;

    use super::*;

    pub(super) fn tree(events: Vec<EventKind>) -> Tree {
        let mut tree = Tree::default();
        for (seq, kind) in events.into_iter().enumerate() {
            let seq = seq as u64;
            tree.take(&RunEvent { seq, at: Timestamp(seq * 1000), node: None, kind });
        }
        tree
    }

    fn output(text: &str, partial: bool) -> EventKind {
        EventKind::Output { step: 0, stream: Stream::Stdout, text: text.into(), partial }
    }

    #[test]
    fn keeps_the_last_lines_whole_and_no_more() {
        let mut events = vec![EventKind::PipelineStarted {
            pipeline: "build".into(),
            image: "a".into(),
            steps: vec!["one".into()],
        }];
        events.extend((0..100).map(|n| output(&n.to_string(), false)));
        events.extend([output("a", true), output("b", true), output("c", false), output("d", false)]);
        let tree = tree(events);
        let tail = &tree.nodes[0].steps[0].tail;
        assert_eq!(tail.lines.len(), TAIL);
        assert_eq!(tail.lines.iter().rev().take(3).collect::<Vec<_>>(), ["d", "abc", "99"]);
        assert_eq!(tail.count, 102);
    }

    #[test]
    fn a_long_line_in_pieces_does_not_grow_for_ever() {
        let mut tail = Tail::default();
        for _ in 0..100 {
            tail.push(&"ä".repeat(4000), true);
        }
        assert!(tail.lines.len() == 1 && tail.lines[0].len() <= LINE);
    }

    #[test]
    fn events_out_of_place_change_nothing() {
        let tree = tree(vec![output("a", false)]);
        assert!(tree.nodes[0].steps.is_empty() && tree.end.is_none());
    }
}
