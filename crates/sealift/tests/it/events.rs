//! docs/events.md is what programs rely on: it has every event, with every field, as the program writes it.

use std::collections::BTreeSet;

use sealift_model::{EventKind, RunEvent};

const PAGE: &str = include_str!("../../../../docs/events.md");

/// The word by which JSON names an event. A new kind does not compile here before it has its word.
fn word(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::PipelineStarted { .. } => "pipeline-started",
        EventKind::Note { .. } => "note",
        EventKind::Warning { .. } => "warning",
        EventKind::StepStarted { .. } => "step-started",
        EventKind::Output { .. } => "output",
        EventKind::StepFinished { .. } => "step-finished",
        EventKind::TestsReported { .. } => "tests-reported",
        EventKind::PipelineFinished { .. } => "pipeline-finished",
        EventKind::WorkflowStarted { .. } => "workflow-started",
        EventKind::NodeWaiting { .. } => "node-waiting",
        EventKind::NodeSkipped { .. } => "node-skipped",
        EventKind::NodeRetried { .. } => "node-retried",
        EventKind::WorkflowFinished { .. } => "workflow-finished",
    }
}

/// How many there are in `word`.
const KINDS: usize = 13;

#[test]
fn the_page_has_every_event_as_it_is_written() {
    let mut seen = BTreeSet::new();
    for block in PAGE.split("```json\n").skip(1) {
        let text = block.split("```").next().unwrap().trim();
        let event: RunEvent = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        // Written again it is the same: no field is missing, none is too much.
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        let word = word(&event.kind);
        assert!(PAGE.contains(&format!("`{word}`: ")), "{word} is not explained");
        let fields: serde_json::Value = serde_json::from_str(text).unwrap();
        for field in fields.as_object().unwrap().keys().filter(|field| *field != word) {
            assert!(
                PAGE.contains(&format!("`{field}`"))
                    || [
                        "pipeline", "image", "steps", "workflow", "nodes", "name", "text", "reason",
                        "passed", "tests", "failures", "errors", "skipped", "millis"
                    ]
                    .contains(&field.as_str()),
                "{field} is not explained"
            );
        }
        seen.insert(word);
    }
    assert_eq!(seen.len(), KINDS, "{seen:?}");
}
