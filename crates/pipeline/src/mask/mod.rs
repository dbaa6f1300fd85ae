//! Takes secrets out of what a run tells.
//!
//! Guarantees: no value that was named a secret appears in an event, nor its base64, percent-encoded, hex or quoted
//! forms, also when it is spread over several lines or writes; what is held back for that is at most as long as the
//! longest form, and is told when its stream's step ends. All else is told unchanged, in its order.
//!
//! Values of fewer than four bytes are not looked for; [`Mask::too_short`] names them.
//!
//! It must not know what the secrets are for.

mod forms;

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, MatchKind};
use sealift_model::{EventKind, Stream};

/// What stands where a secret was.
const MASKED: &str = "***";
/// More than any sensible number of secrets, with all their forms.
const MOST_FORMS: usize = 50_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("too many secrets to mask, or too long ones")]
    TooMany,
    #[error("the secrets cannot be masked")]
    Build(#[from] aho_corasick::BuildError),
}

/// What to look for.
#[derive(Debug, Clone)]
pub(crate) struct Mask {
    search: AhoCorasick,
    forms: Vec<String>,
    longest: usize,
    /// By first byte: whether a form begins with it.
    begins: Box<[bool; 256]>,
    too_short: Vec<String>,
}

impl Mask {
    /// For these variables.
    pub(crate) fn new(secrets: &[(String, String)]) -> Result<Mask, Error> {
        let mut forms: Vec<String> = Vec::new();
        let mut too_short = Vec::new();
        for (name, value) in secrets {
            let of_value = forms::forms(value);
            if of_value.is_empty() && !value.trim().is_empty() {
                too_short.push(name.clone());
            }
            forms.extend(of_value);
            if forms.len() > MOST_FORMS {
                return Err(Error::TooMany);
            }
        }
        forms.sort_unstable();
        forms.dedup();
        let search = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&forms)?;
        let longest = forms.iter().map(String::len).max().unwrap_or(0);
        let mut begins = Box::new([false; 256]);
        for byte in forms.iter().filter_map(|form| form.bytes().next()) {
            begins[usize::from(byte)] = true;
        }
        Ok(Mask { search, forms, longest, begins, too_short })
    }

    /// Whether there is nothing to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Names of the variables whose values are too short to be looked for.
    pub(crate) fn too_short(&self) -> &[String] {
        &self.too_short
    }

    /// `text` without secrets.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = 0;
        for (start, end) in self.places(text) {
            out.push_str(&text[rest..start]);
            out.push_str(MASKED);
            rest = end;
        }
        out.push_str(&text[rest..]);
        out
    }

    /// Where secrets are; those that overlap as one. Forms are whole characters, so these are boundaries.
    fn places(&self, text: &str) -> Vec<(usize, usize)> {
        let mut places: Vec<(usize, usize)> =
            self.search.find_overlapping_iter(text).map(|found| (found.start(), found.end())).collect();
        places.sort_unstable();
        let mut merged: Vec<(usize, usize)> = Vec::with_capacity(places.len());
        for (start, end) in places {
            match merged.last_mut() {
                Some(last) if start < last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        merged
    }

    /// From where on `text` may be the beginning of a secret whose rest is still to come.
    fn open(&self, text: &str) -> usize {
        let from = text.len().saturating_sub(self.longest.saturating_sub(1));
        let bytes = text.as_bytes();
        (from..bytes.len())
            .filter(|at| self.begins[usize::from(bytes[*at])])
            .find(|at| {
                let tail = &bytes[*at..];
                self.forms.iter().any(|form| form.len() > tail.len() && form.as_bytes().starts_with(tail))
            })
            .unwrap_or(bytes.len())
    }
}

/// A mask over the events of a run.
#[derive(Debug)]
pub(crate) struct Masking {
    mask: Mask,
    /// What was held back of each stream of each step.
    held: BTreeMap<(usize, Stream), String>,
}

impl Masking {
    pub(crate) fn new(mask: Mask) -> Masking {
        Masking { mask, held: BTreeMap::new() }
    }

    /// What to tell when `event` is to be told.
    pub(crate) fn event(&mut self, event: EventKind, out: &mut Vec<EventKind>) {
        match event {
            EventKind::Output { step, stream, text, partial } => {
                let mut all = self.held.remove(&(step, stream)).unwrap_or_default();
                all.push_str(&text);
                if !partial {
                    all.push('\n');
                }
                let mut open = self.mask.open(&all);
                let places = self.mask.places(&all);
                // One that began before the open part and reaches into it belongs to it.
                if let Some((start, _)) = places.iter().find(|(start, end)| *start < open && *end > open) {
                    open = *start;
                }
                if open < all.len() {
                    self.held.insert((step, stream), all.split_off(open));
                }
                lines(step, stream, &self.mask.apply(&all), out);
            }
            EventKind::StepFinished { step, .. } => {
                for stream in [Stream::Stdout, Stream::Stderr] {
                    self.release(step, stream, out);
                }
                out.push(self.other(event));
            }
            EventKind::PipelineFinished { .. } => {
                for (step, stream) in self.held.keys().copied().collect::<Vec<_>>() {
                    self.release(step, stream, out);
                }
                out.push(self.other(event));
            }
            other => out.push(self.other(other)),
        }
    }

    fn release(&mut self, step: usize, stream: Stream, out: &mut Vec<EventKind>) {
        if let Some(held) = self.held.remove(&(step, stream)) {
            lines(step, stream, &self.mask.apply(&held), out);
        }
    }

    /// Events other than output have texts that are whole.
    fn other(&self, mut event: EventKind) -> EventKind {
        let apply = |text: &mut String| *text = self.mask.apply(text);
        match &mut event {
            EventKind::Note { text } | EventKind::Warning { text } => apply(text),
            EventKind::StepFinished { message, name, .. } => {
                message.as_mut().map(apply);
                apply(name);
            }
            EventKind::PipelineFinished { message, .. } => {
                message.as_mut().map(apply);
            }
            EventKind::StepStarted { name, .. } => apply(name),
            EventKind::PipelineStarted { image, steps, .. } => {
                apply(image);
                steps.iter_mut().for_each(apply);
            }
            EventKind::NodeWaiting { reason, question } => {
                apply(reason);
                question.iter_mut().for_each(apply);
            }
            EventKind::NodeSkipped { reason, .. } => apply(reason),
            EventKind::WorkflowFinished { message, .. } => {
                message.as_mut().map(apply);
            }
            EventKind::TestsReported { failed, .. } => failed.iter_mut().for_each(apply),
            EventKind::WorkflowStarted { workflow, nodes } => {
                apply(workflow);
                for node in nodes {
                    apply(&mut node.name);
                    apply(&mut node.pipeline);
                    node.needs.iter_mut().for_each(apply);
                }
            }
            EventKind::NodeRetried { .. } | EventKind::Output { .. } => {}
        }
        event
    }
}

/// A text as events of one line each.
fn lines(step: usize, stream: Stream, text: &str, out: &mut Vec<EventKind>) {
    for line in text.split_inclusive('\n') {
        let (text, partial) = match line.strip_suffix('\n') {
            Some(text) => (text, false),
            None => (line, true),
        };
        out.push(EventKind::Output { step, stream, text: text.to_owned(), partial });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealift_model::StepOutcome;

    use super::*;

    fn mask(secrets: &[&str]) -> Mask {
        let secrets: Vec<_> = secrets.iter().map(|value| ("S".to_owned(), (*value).to_owned())).collect();
        Mask::new(&secrets).unwrap()
    }

    fn output(text: &str, partial: bool) -> EventKind {
        EventKind::Output { step: 0, stream: Stream::Stdout, text: text.to_owned(), partial }
    }

    fn finished() -> EventKind {
        EventKind::StepFinished {
            step: 0,
            name: "s".into(),
            outcome: StepOutcome::Passed,
            exit_code: Some(0),
            millis: 0,
            after: false,
            message: Some("said hunter22".into()),
            soft: false,
        }
    }

    /// The text that is told of these pieces.
    fn told(mask: Mask, pieces: &[(&str, bool)]) -> String {
        let mut masking = Masking::new(mask);
        let mut out = Vec::new();
        for (text, partial) in pieces {
            masking.event(output(text, *partial), &mut out);
        }
        masking.event(finished(), &mut out);
        assert!(masking.held.is_empty());
        text_of(&out)
    }

    fn text_of(events: &[EventKind]) -> String {
        let mut all = String::new();
        for event in events {
            if let EventKind::Output { text, partial, .. } = event {
                all.push_str(text);
                all.push_str(if *partial { "" } else { "\n" });
            }
        }
        all
    }

    #[test]
    fn masks_within_a_line_and_over_pieces() {
        for (pieces, want) in [
            (&[("x hunter22 y", false)][..], "x *** y\n"),
            (&[("x hun", true), ("ter22 y", false)], "x *** y\n"),
            (&[("x hun", true), ("dred", false)], "x hundred\n"),
            (&[("a hun", true), ("", true)], "a hun"),
            (&[("hunter22hunter22", false)], "******\n"),
            (&[("nothing", false), ("else", false)], "nothing\nelse\n"),
        ] {
            assert_eq!(told(mask(&["hunter22"]), pieces), want, "{pieces:?}");
        }
    }

    #[test]
    fn masks_over_lines_and_what_overlaps() {
        assert_eq!(told(mask(&["one\ntwo"]), &[("x one", false), ("two y", false)]), "x *** y\n");
        assert_eq!(told(mask(&["one\ntwo"]), &[("x one", false), ("tw", false)]), "x one\ntw\n");
        assert_eq!(told(mask(&["abcde", "defgh"]), &[("abcde", true), ("fgh", false)]), "***\n");
    }

    #[test]
    fn masks_messages_and_names() {
        let masking = Masking::new(mask(&["hunter22"]));
        let EventKind::StepFinished { message, .. } = masking.other(finished()) else { unreachable!() };
        assert_eq!(message.as_deref(), Some("said ***"));
    }

    #[test]
    fn an_encoded_secret_is_masked() {
        // `printf user:hunter22 | base64`
        assert_eq!(
            told(mask(&["hunter22"]), &[("Basic dXNlcjpodW50ZXIyMg==", false)]),
            "Basic dXNlcjp***==\n"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
        #[test]
        fn no_secret_gets_through_however_it_is_cut(
            secrets in prop::collection::vec("[ab\n]{4,8}", 1..4),
            parts in prop::collection::vec(prop_oneof!["[abc\n]{0,12}", Just("abba".to_owned())], 0..20),
            cuts in prop::collection::vec(any::<bool>(), 20),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).filter(|s| s.trim().len() >= 4).collect();
            prop_assume!(!secrets.is_empty());
            let whole = parts.concat();
            let mut pieces: Vec<(String, bool)> = Vec::new();
            for (part, cut) in parts.iter().zip(cuts.iter().cycle()) {
                for (n, line) in part.split('\n').enumerate() {
                    if n > 0 {
                        pieces.push((String::new(), false));
                    }
                    let middle = if *cut { line.len() / 2 } else { line.len() };
                    pieces.push((line[..middle].to_owned(), true));
                    pieces.push((line[middle..].to_owned(), true));
                }
            }
            let pieces: Vec<(&str, bool)> = pieces.iter().map(|(text, partial)| (text.as_str(), *partial)).collect();
            let mask = mask(&secrets);
            let told = told(mask.clone(), &pieces);
            prop_assert_eq!(&told, &mask.apply(&whole));
            for secret in secrets {
                prop_assert!(!told.contains(secret), "{:?} in {:?}", secret, told);
            }
        }
    }
}
