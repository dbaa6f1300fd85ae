//! Files of other tools to a wercker.yml.
//!
//! Guarantees: what comes out is read by [`crate::config::parse`] without an error, and what was not taken over is told
//! with its line.
//!
//! It must not read other files, and knows nothing of how a pipeline is run.

mod compose;
mod draft;
mod github;
mod gitlab;
mod source;
mod woodpecker;
mod write;

use sealift_model::diagnostic::Diagnostic;

use crate::config;
use crate::yaml::{self, Node};

/// The tool that a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Gitlab,
    Github,
    Woodpecker,
    Compose,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not YAML, or holds nothing.
    #[error("the file cannot be read")]
    Read { diagnostics: Vec<Diagnostic> },
    #[error("cannot tell what tool the file is for")]
    Unknown,
    /// A value that this crate takes over but its own reader refuses, such as a timeout of a week.
    #[error("what would come out cannot be used")]
    Result {
        /// What would come out.
        text: String,
        diagnostics: Vec<Diagnostic>,
    },
}

/// A wercker.yml that was made from another file.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    pub text: String,
    /// What was not taken over, by its place in the other file.
    pub notes: Vec<Diagnostic>,
}

/// Makes a wercker.yml from the text of a file of that name. Without a format it is told by the name and the content.
///
/// # Errors
/// When the file cannot be read, or what comes out cannot be used.
pub fn import(name: &str, text: &str, format: Option<Format>) -> Result<Imported, Error> {
    let root = match yaml::parse(text) {
        Ok(Some(root)) => root,
        Ok(None) => {
            let at = yaml::Place { line: 1, column: 1, length: 1 };
            return Err(Error::Read { diagnostics: vec![source::note(at, "the file is empty".to_owned())] });
        }
        Err(error) => {
            let mut diagnostics = vec![config::broken(text, &error)];
            config::keep_inside(text, diagnostics.iter_mut());
            return Err(Error::Read { diagnostics });
        }
    };
    let format = format.or_else(|| guess(name, &root)).ok_or(Error::Unknown)?;
    let mut draft = match format {
        Format::Gitlab => gitlab::read(&root),
        Format::Github => github::read(&root),
        Format::Woodpecker => woodpecker::read(&root),
        Format::Compose => compose::read(&root),
    };
    config::keep_inside(text, draft.notes.iter_mut());
    draft.notes.sort_by_key(|note| (note.line, note.column));
    let text = draft.write(name);
    match config::parse(&text) {
        Ok((_, found)) if found.iter().all(|d| d.severity != sealift_model::diagnostic::Severity::Error) => {
            Ok(Imported { text, notes: draft.notes })
        }
        Ok((_, diagnostics)) | Err(diagnostics) => Err(Error::Result { text, diagnostics }),
    }
}

fn guess(name: &str, root: &Node) -> Option<Format> {
    let has = |key: &str| source::get(root, key).is_some();
    let file = name.rsplit('/').next().unwrap_or(name);
    if file.contains("gitlab-ci") {
        Some(Format::Gitlab)
    } else if file.contains("compose") {
        Some(Format::Compose)
    } else if name.contains("woodpecker") {
        Some(Format::Woodpecker)
    } else if name.contains(".github/") || (has("jobs") && has("on")) {
        Some(Format::Github)
    } else if has("steps") || has("pipeline") {
        Some(Format::Woodpecker)
    } else if has("services") {
        Some(Format::Compose)
    } else {
        None
    }
}

/// Commands one below the other.
fn lines(commands: &[String]) -> String {
    match commands {
        [one] => one.trim_end().to_owned(),
        many => many.iter().map(|line| format!("{}\n", line.trim_end())).collect(),
    }
}

/// Words as one line of a shell.
fn write_words(words: &[String]) -> String {
    if let [one] = words {
        return one.clone();
    }
    let quoted = |word: &String| {
        let plain =
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_./:=@%+,-$".contains(c));
        if plain { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// `$NAME` as `${NAME}`; other dollars as they are.
fn braced(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        let end = after.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        out.push_str(before);
        if config::template::is_variable(name) {
            out.push_str(&format!("${{{name}}}"));
        } else {
            out.push_str(&format!("${name}"));
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}
