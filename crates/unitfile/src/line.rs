//! Lines as systemd joins them before it looks for keys and values.
//!
//! A `\` at the end of a line joins it with the next one and counts as a blank; comment lines in between are left
//! out. Every character of a joined line can be traced back to where it stands in the file.

use std::ops::Range;

use sealift_model::diagnostic::{Diagnostic, Severity};

use crate::finding;

/// What systemd trims from lines, keys and values. Not Unicode's idea of white space.
pub(crate) const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// Where something stands in the file; on one line of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// In characters, at least 1.
    pub length: usize,
}

/// A comment line, with its `#` or `;`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    pub text: String,
    pub place: Place,
}

/// One line, or several that are continued.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Line {
    text: String,
    pieces: Vec<Piece>,
}

/// The part of a [`Line`] that stands on one line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    /// Byte offset in the joined text.
    start: usize,
    line: usize,
    column: usize,
}

impl Line {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Where these bytes of the text stand, as far as they stand on one line of the file.
    pub(crate) fn place(&self, range: Range<usize>) -> Place {
        let after = self.pieces.partition_point(|piece| piece.start <= range.start);
        let end = self.pieces.get(after).map_or(self.text.len(), |next| next.start).min(range.end);
        let chars = |from, to| self.text.get(from..to).map_or(0, |part| part.chars().count());
        let length = chars(range.start, end).max(1);
        match after.checked_sub(1).and_then(|last| self.pieces.get(last)) {
            Some(piece) => {
                let column = piece.column + chars(piece.start, range.start);
                Place { line: piece.line, column, length }
            }
            None => Place { line: 1, column: 1, length },
        }
    }

    /// Adds what stands on one line of the file. True when the line goes on.
    fn push(&mut self, content: &str, line: usize, column: usize) -> bool {
        self.pieces.push(Piece { start: self.text.len(), line, column });
        let goes_on = ends_with_escape(content);
        // One character for one character, so that columns stay true.
        match content.strip_suffix('\\') {
            Some(rest) if goes_on => self.text.extend([rest, " "]),
            _ => self.text.push_str(content),
        }
        goes_on
    }
}

/// `\\` at the end is an escaped backslash and continues nothing.
fn ends_with_escape(content: &str) -> bool {
    (content.len() - content.trim_end_matches('\\').len()) % 2 == 1
}

/// A file cut into its lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<Line>,
    pub(crate) comments: Vec<Comment>,
    pub(crate) problems: Vec<Diagnostic>,
}

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        let mut all = Self::default();
        let mut open: Option<Line> = None;
        for (index, raw) in text.lines().enumerate() {
            let number = index + 1;
            let unmarked = if index == 0 { raw.strip_prefix('\u{feff}').unwrap_or(raw) } else { raw };
            let content = unmarked.trim_start_matches(BLANKS);
            let before = raw.len() - content.len();
            let column = raw.get(..before).map_or(0, |indent| indent.chars().count()) + 1;
            if content.starts_with(['#', ';']) {
                let place = Place { line: number, column, length: content.chars().count() };
                all.comments.push(Comment { text: content.to_owned(), place });
                continue;
            }
            let mut line = open.take().unwrap_or_default();
            if line.push(content, number, column) {
                open = Some(line);
            } else {
                all.warn_of_broken_continuation(content, number, column);
                all.lines.push(line);
            }
        }
        // systemd takes a last line that ends with `\` as it is.
        all.lines.extend(open);
        all
    }

    fn warn_of_broken_continuation(&mut self, content: &str, line: usize, column: usize) {
        let trimmed = content.trim_end_matches(BLANKS);
        if trimmed.len() == content.len() || !ends_with_escape(trimmed) {
            return;
        }
        let place = Place { line, column: column + trimmed.chars().count() - 1, length: 1 };
        self.problems.push(finding(
            Severity::Warning,
            place,
            "the line does not go on: blanks follow the backslash".into(),
            Some("delete the blanks after it".into()),
        ));
    }
}
