//! How results look: tables and events for people, JSON for programs; colour on a terminal only.

mod live;
mod plain;
mod summary;
mod terminal;
mod tree;
mod view;
mod wercker;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use sealift_model::Timestamp;
use serde::Serialize;

use crate::cli::Output;
use crate::error::Error;

pub(crate) use summary::Again;
pub(crate) use view::View;
pub(crate) use wercker::{Mood, Voice};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";

/// Standard output.
#[derive(Debug)]
pub(crate) struct Printer {
    pub(crate) output: Output,
    colour: bool,
    /// When the first event came, which all times count from.
    began: Option<Timestamp>,
    /// Whose line has been begun but not ended: the node's.
    open_line: Option<Option<String>>,
}

impl Printer {
    pub(crate) fn new(output: Output) -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { output, colour, began: None, open_line: None }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// One JSON value on one line.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<(), Error> {
        let text = serde_json::to_string(value).map_err(Error::Json)?;
        self.line(&text)
    }

    /// A line for people.
    pub(crate) fn line(&self, text: &str) -> Result<(), Error> {
        writeln!(io::stdout().lock(), "{text}").map_err(Error::Print)
    }

    /// Text as it is.
    pub(crate) fn raw(&self, text: &str) -> Result<(), Error> {
        write!(io::stdout().lock(), "{text}").map_err(Error::Print)
    }

    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Title => BOLD,
            Style::Quiet => DIM,
            Style::Bad => RED,
            Style::Good => GREEN,
            Style::Careful => YELLOW,
        };
        if self.colour { format!("{code}{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Rows below upper-case headings, columns aligned. Cells may not be painted except the last column's.
    pub(crate) fn table(&self, headings: &[&str], rows: &[Vec<String>]) -> Result<(), Error> {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([headings[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..headings.len()).map(width).collect();
        let aligned = |cells: &[String]| {
            let mut text = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                text.push_str(cell);
                text.push_str(&" ".repeat((width + 2).saturating_sub(cell.chars().count())));
            }
            text.trim_end().to_owned()
        };
        let headings: Vec<_> = headings.iter().map(|&heading| heading.to_owned()).collect();
        self.line(&self.paint(Style::Title, &aligned(&headings)))?;
        rows.iter().try_for_each(|row| self.line(&aligned(row)))
    }
}

/// Whether standard error is a terminal that can move its cursor.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal() && terminal::size().is_some()
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Title,
    Quiet,
    Good,
    Bad,
    Careful,
}

/// `1 step`, `2 steps`
pub(crate) fn many(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// `1.23s`, `2m03.4s`
pub(crate) fn seconds(duration: Duration) -> String {
    let total = duration.as_secs();
    if total < 60 {
        format!("{:.2}s", duration.as_secs_f64())
    } else {
        format!("{}m{:02}.{}s", total / 60, total % 60, duration.subsec_millis() / 100)
    }
}

/// Output of strangers without what could move the cursor or set the title; colours stay.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            let sequence: String =
                std::iter::from_fn(|| rest.next_if(|c| *c == '[' || *c == ';' || c.is_ascii_digit()))
                    .collect();
            let end = rest.next_if(|c| !c.is_control());
            if end == Some('m') && sequence.starts_with('[') {
                out.push_str(&format!("\x1b{sequence}m"));
            }
        } else if c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{seconds, visible};

    #[test]
    fn durations_read_well() {
        for (millis, text) in [(0, "0.00s"), (1234, "1.23s"), (59_990, "59.99s"), (123_450, "2m03.4s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn only_colours_pass() {
        assert_eq!(visible("\x1b[1;31mred\x1b[0m"), "\x1b[1;31mred\x1b[0m");
        assert_eq!(visible("a\x1b[2Jb\x1b]0;title\x07c\rd"), "ab0;titlecd");
    }
}
