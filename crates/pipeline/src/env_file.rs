//! Files of variables: one `NAME=value` a line.
//!
//! `#` begins a comment, at the start of a line; `export ` in front of a name is left out. A value may stand in single or
//! double quotes, which are taken off; in double quotes `\n` is a line's end, `\t` a tab, `\"` a quote and `\\` a
//! backslash. Nothing else is filled in: `$NAME` stays as it is.
//!
//! Guarantees: all lines are understood, or the first that is not is named; the values of a file never stand in an error.
//!
//! It must not know what the variables are for.

use std::path::{Path, PathBuf};

use crate::config::template::is_variable;
use crate::source;

/// More than any sensible list.
const LARGEST: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is larger than {LARGEST} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}, line {line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: Problem },
    #[error("{} lies outside of the source", path.display())]
    Outside { path: PathBuf },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("expected NAME=value")]
    NoEquals,
    #[error("what stands before the = is not the name of a variable: letters, digits and _, no digit first")]
    Name,
    #[error("the quote at the beginning of the value has no end")]
    Quote,
    #[error("something follows the closing quote")]
    Behind,
}

/// The variables of a file, in its order; a later one of the same name replaces an earlier one.
///
/// # Errors
/// When it cannot be read, is no UTF-8, is too large, or has a line that is not understood.
pub fn read(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let text = source::text_within(file, LARGEST).map_err(failed)?;
    let text = text.ok_or_else(|| Error::TooLarge { path: path.to_owned() })?;
    parse(&text).map_err(|(line, problem)| Error::Line { path: path.to_owned(), line, problem })
}

/// The same of a file that must lie below `root`, whatever links there are: for files that a project names.
///
/// # Errors
/// As [`read`], and when it lies elsewhere.
pub fn read_below(root: &Path, relative: &Path) -> Result<Vec<(String, String)>, Error> {
    let path = root.join(relative);
    let failed = |source| Error::Read { path: path.clone(), source };
    let found = path.canonicalize().map_err(failed)?;
    if !found.starts_with(root.canonicalize().map_err(failed)?) {
        return Err(Error::Outside { path });
    }
    read(&found)
}

/// The variables of a text.
///
/// # Errors
/// The first line (counted from 1) that is not understood, and why.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, Problem)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = pair(line).map_err(|problem| (number, problem))?;
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => variables.push((name.to_owned(), value)),
        }
    }
    Ok(variables)
}

/// What wercker made of such variables: `X_NAME` is handed on as `NAME`, `XXX_NAME` as a `NAME` that is not to be
/// shown. Others keep their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handed {
    pub shown: Vec<(String, String)>,
    pub hidden: Vec<(String, String)>,
}

/// See [`Handed`].
#[must_use]
pub fn handed(variables: Vec<(String, String)>) -> Handed {
    let mut handed = Handed::default();
    let cut = |name: &str, prefix: &str| {
        name.strip_prefix(prefix).filter(|rest| is_variable(rest)).map(str::to_owned)
    };
    for (name, value) in variables {
        if let Some(name) = cut(&name, "XXX_") {
            handed.hidden.push((name, value));
        } else if let Some(name) = cut(&name, "X_") {
            handed.shown.push((name, value));
        } else {
            handed.shown.push((name, value));
        }
    }
    handed
}

fn pair(line: &str) -> Result<(&str, String), Problem> {
    let (name, value) = line.split_once('=').ok_or(Problem::NoEquals)?;
    let name = name.trim();
    let name = name.strip_prefix("export ").map_or(name, str::trim_start);
    if !is_variable(name) {
        return Err(Problem::Name);
    }
    let value = value.trim();
    let value = if let Some(inner) = value.strip_prefix('\'') {
        let (inner, behind) = inner.split_once('\'').ok_or(Problem::Quote)?;
        comment_only(behind)?;
        inner.to_owned()
    } else if let Some(inner) = value.strip_prefix('"') {
        double_quoted(inner)?
    } else {
        value.to_owned()
    };
    Ok((name, value))
}

fn double_quoted(inner: &str) -> Result<String, Problem> {
    let mut value = String::new();
    let mut chars = inner.chars();
    loop {
        match chars.next().ok_or(Problem::Quote)? {
            '"' => break,
            '\\' => match chars.next().ok_or(Problem::Quote)? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                c @ ('"' | '\\') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    comment_only(chars.as_str())?;
    Ok(value)
}

fn comment_only(behind: &str) -> Result<(), Problem> {
    let behind = behind.trim();
    if behind.is_empty() || behind.starts_with('#') { Ok(()) } else { Err(Problem::Behind) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_all_kinds_of_lines() {
        let text = "\u{feff}# c\n\n A = b c \nexport B=\"x\\ny\\\\n\\\"\" # c\nC='a\\n$X'\nD=\nE=a=b#c\nF=\"\"\nA=again\r\nG=\"\\d\"\n";
        let want = [
            ("A", "again"),
            ("B", "x\ny\\n\""),
            ("C", "a\\n$X"),
            ("D", ""),
            ("E", "a=b#c"),
            ("F", ""),
            ("G", "\\d"),
        ];
        let want: Vec<_> =
            want.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(parse(text), Ok(want));
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        for (text, want) in [
            ("A=1\nB\n", (2, Problem::NoEquals)),
            ("1A=1", (1, Problem::Name)),
            ("A B=1", (1, Problem::Name)),
            ("=1", (1, Problem::Name)),
            ("A=\"x", (1, Problem::Quote)),
            ("A=\"x\\", (1, Problem::Quote)),
            ("A='x", (1, Problem::Quote)),
            ("A=\"x\"y", (1, Problem::Behind)),
            ("A='x' 'y'", (1, Problem::Behind)),
        ] {
            assert_eq!(parse(text), Err(want), "{text}");
        }
    }

    #[test]
    fn an_error_holds_no_value() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("env"), "A=\"hunter22\n").unwrap();
        let error = read(&dir.path().join("env")).unwrap_err();
        assert!(
            error.to_string().ends_with("env, line 1: the quote at the beginning of the value has no end")
        );
        assert!(!format!("{error:?}").contains("hunter22"));
    }

    #[test]
    fn a_project_cannot_name_a_file_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("project");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(dir.path().join("env"), "A=1\n").unwrap();
        std::fs::write(root.join("env"), "A=2\n").unwrap();
        std::os::unix::fs::symlink("../env", root.join("link")).unwrap();
        assert!(matches!(read_below(&root, Path::new("../env")), Err(Error::Outside { .. })));
        assert!(matches!(read_below(&root, Path::new("link")), Err(Error::Outside { .. })));
        assert!(matches!(read_below(&root, Path::new("none")), Err(Error::Read { .. })));
        assert_eq!(read_below(&root, Path::new("env")).unwrap(), [("A".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn prefixes_are_taken_off() {
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let given = pairs(&[("X_A", "1"), ("XXX_B", "2"), ("C", "3"), ("X_", "4"), ("X_1", "5")]);
        assert_eq!(
            handed(given),
            Handed {
                shown: pairs(&[("A", "1"), ("C", "3"), ("X_", "4"), ("X_1", "5")]),
                hidden: pairs(&[("B", "2")]),
            }
        );
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(value in "[ -~\n\t€]{0,30}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
            prop_assert_eq!(parse(&format!("A=\"{quoted}\"")), Ok(vec![("A".to_owned(), value)]));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[A=\"'\\\\n# \n]{0,40}") {
            parse(&text).ok();
        }
    }
}
