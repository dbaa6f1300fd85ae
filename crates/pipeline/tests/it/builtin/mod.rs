//! Sealift's own steps: run with the real tools in a Debian box, by dash and by bash, and in boxes with busybox.
//!
//! The Debian box is made by `scripts/box-image --steps`. What cannot be had there has a stand-in that records how it
//! was called, and the test says so in its name.

mod net;
mod pages;
mod plain;
mod tools;

use sealift_model::StepOutcome;
use sealift_pipeline::Engine;

use crate::host::{Job, Ran, engine, raw, script};

/// Debian with what the steps call.
const DEBIAN: &str = "localhost/sealift/steps-box:latest";
/// The shells that it has: dash and bash.
const SHELLS: [&str; 2] = ["/bin/sh", "/bin/bash"];

/// The engine, which has the Debian box; none if the tests are to be skipped.
async fn debian() -> Option<Engine> {
    let engine = engine().await?;
    let found = raw(&engine).await.inspect_image(DEBIAN).await;
    assert!(
        found.is_ok(),
        "the image {DEBIAN} is missing: make it with scripts/box-image --steps, or set SEALIFT_SKIP=containers"
    );
    Some(engine)
}

/// A pipeline in `image` whose shell is `shell`. Steps stand at the left margin.
fn job(image: &str, shell: &str, steps: &str) -> Job {
    let mut yaml = format!("box:\n  id: {image}\n  cmd: {shell}\nbuild:\n  steps:\n");
    for line in steps.lines() {
        yaml.push_str(&format!("    {line}\n"));
    }
    Job::new(yaml)
}

/// A script step at the left margin.
fn code(name: &str, code: &str) -> String {
    script(name, code)
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line)))
        .collect()
}

/// A program that writes its arguments to /tmp/calls, one call a line, and does `more`.
fn stand_in(name: &str, more: &str) -> String {
    format!(
        "mkdir -p /tmp/bin\ncat >/tmp/bin/{name} <<'END'\n#!/bin/sh\n{{ printf '{name}'; printf ' <%s>' \"$@\"; echo; }} >>/tmp/calls\n{more}\nEND\nchmod +x /tmp/bin/{name}\n"
    )
}

impl Ran {
    /// All steps have passed.
    fn all_passed(&self) -> &Ran {
        let failed: Vec<_> =
            self.outcome().steps.iter().filter(|s| s.outcome != StepOutcome::Passed).collect();
        let said: String =
            (0..self.started()).map(|step| format!("-- {step}\n{}", self.output(step))).collect();
        assert!(failed.is_empty(), "{failed:?}\n{said}\n{:#?}", self.events.last());
        self
    }

    /// The message of a step that failed.
    fn refusal(&self, step: usize) -> String {
        let (outcome, _, message) = self.finished(step);
        assert_eq!(outcome, StepOutcome::Failed, "{}", self.output(step));
        message.unwrap_or_else(|| panic!("it failed without a word: {}", self.output(step)))
    }
}
