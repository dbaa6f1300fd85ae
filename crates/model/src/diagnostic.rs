//! What is wrong with a file that a person wrote: the place, what is there, what was expected.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// How many characters of a line are shown.
const WIDEST: usize = 160;

/// Whether the file can be used in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    Error,
}

/// One finding in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// Characters to underline; at least 1.
    pub length: usize,
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// The finding as a person reads it: place, line of the file, caret and help. Ends without a newline.
    #[must_use]
    pub fn render(&self, file: &str, text: &str) -> String {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let mut out = format!("{file}:{}:{}: {severity}: {}", self.line, self.column, self.message);
        if let Some(line) = text.lines().nth(self.line.saturating_sub(1)) {
            // Of a line that no terminal shows at once, only the neighbourhood of the place.
            let skipped =
                if line.chars().count() > WIDEST { self.column.saturating_sub(WIDEST / 2) } else { 0 };
            let line: String = line.chars().skip(skipped).take(WIDEST).collect();
            let column = self.column - skipped;
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            // Tabs stay tabs under the line, so that the caret stands where the terminal puts the text.
            let pad: String = line
                .chars()
                .chain(std::iter::repeat(' '))
                .take(column.saturating_sub(1))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let rest = line.chars().count().saturating_sub(column.saturating_sub(1)).max(1);
            let carets = "^".repeat(self.length.clamp(1, rest));
            // Writing to a String cannot fail.
            write!(out, "\n {margin} |\n {number} | {line}\n {margin} | {pad}{carets}").ok();
        }
        if let Some(help) = &self.help {
            write!(out, "\n  help: {help}").ok();
        }
        out
    }
}

/// An error with all its sources on one line: errors of the house do not repeat their source.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The known word nearest to `word`, when it is near enough to be a slip of the fingers.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Of a word of three letters one may be wrong: with two, anything is near to anything.
    let limit = if word.chars().count() <= 3 { 1 } else { word.chars().count() / 3 + 1 };
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance with transpositions of neighbours (optimal string alignment), letter case left aside.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitution = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitution.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_place_with_a_caret() {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            line: 2,
            column: 3,
            length: 5,
            message: "unknown key \"stpes\"".into(),
            help: Some("did you mean \"steps\"?".into()),
        };
        let text = "build:\n\t stpes:\n";
        assert_eq!(
            diagnostic.render("wercker.yml", text),
            "wercker.yml:2:3: error: unknown key \"stpes\"\n   |\n 2 | \t stpes:\n   | \t ^^^^^\n  help: did you mean \"steps\"?"
        );
    }

    #[test]
    fn of_a_long_line_the_neighbourhood_is_shown() {
        for column in [1, 500, 9_999, 20_000] {
            let diagnostic = Diagnostic {
                severity: Severity::Error,
                line: 1,
                column,
                length: 3,
                message: "m".into(),
                help: None,
            };
            let text: String = (0..10_000).map(|n| if n + 1 == column { '!' } else { '.' }).collect();
            let shown = diagnostic.render("f", &text);
            assert!(shown.len() < 3 * WIDEST, "{}", shown.len());
            let lines: Vec<&str> = shown.lines().collect();
            if column <= 10_000 {
                assert_eq!(lines[2].find('!'), lines[3].find('^'), "{shown}");
            }
        }
    }

    #[test]
    fn a_place_behind_the_end_does_no_harm() {
        let diagnostic = Diagnostic {
            severity: Severity::Warning,
            line: 9,
            column: 90,
            length: 0,
            message: "x".into(),
            help: None,
        };
        assert_eq!(diagnostic.render("f", "a\n"), "f:9:90: warning: x");
    }

    #[test]
    fn finds_the_nearest_word() {
        let known = ["steps", "services", "box", "after-steps"];
        for (word, found) in [
            ("stpes", Some("steps")),
            ("servcies", Some("services")),
            ("Steps", Some("steps")),
            ("bx", Some("box")),
            ("foo", None),
            ("zzzz", None),
            ("a", None),
        ] {
            assert_eq!(nearest(word, known), found, "{word}");
        }
    }
}
