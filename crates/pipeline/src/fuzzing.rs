//! Private parts of this crate for the targets in `fuzz/`, and for nobody else: it is there only with `--cfg fuzzing`.
//!
//! It must not do anything of its own.

use sealift_model::{EventKind, Stream};

use crate::lines::LineReader;
use crate::mask::{Mask, Masking};

/// What the reader of lines makes of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text {
        text: String,
        partial: bool,
    },
    /// The mark's words, as its type prints them.
    Mark(String),
}

/// The pieces of a stream that arrives in these chunks.
#[must_use]
pub fn read_lines<'a>(nonce: &str, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Piece> {
    let mut reader = LineReader::new(nonce);
    let mut out = Vec::new();
    for chunk in chunks {
        reader.push(chunk, &mut out);
    }
    reader.finish(&mut out);
    let piece = |piece| match piece {
        crate::lines::Piece::Text { text, partial } => Piece::Text { text, partial },
        crate::lines::Piece::Mark(mark) => Piece::Mark(format!("{mark:?}")),
    };
    out.into_iter().map(piece).collect()
}

/// What is told of a step's output, as pieces of lines with whether they are partial. None: the secrets are too many.
#[must_use]
pub fn mask(secrets: &[(String, String)], pieces: &[(String, bool)]) -> Option<Vec<(String, bool)>> {
    let mut masking = Masking::new(Mask::new(secrets).ok()?);
    let mut out = Vec::new();
    for (text, partial) in pieces {
        let (text, partial) = (text.clone(), *partial);
        masking.event(EventKind::Output { step: 0, stream: Stream::Stdout, text, partial }, &mut out);
    }
    masking.event(EventKind::PipelineFinished { passed: true, millis: 0, message: None }, &mut out);
    let told = |event| match event {
        EventKind::Output { text, partial, .. } => Some((text, partial)),
        _ => None,
    };
    Some(out.into_iter().filter_map(told).collect())
}

/// All that is looked for because of a secret.
#[must_use]
pub fn forms(value: &str) -> Vec<String> {
    crate::mask::forms(value)
}
