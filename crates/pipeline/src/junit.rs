//! What JUnit files say: how many tests there were, and which did not pass.
//!
//! The form has no standard: roots are `testsuites` or `testsuite`, and what all writers agree on are `testcase`
//! elements with `failure`, `error` or `skipped` in them. Only these are counted; totals that a file claims are not
//! believed.
//!
//! Guarantees: the work and the memory are bounded, whatever the files are; nothing outside of the directory is read;
//! entities other than those of XML itself are not expanded. A file that is no JUnit is no failure.
//!
//! It must not know what is done with the result.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use sealift_model::EventKind;

/// Names that are kept of those that did not pass.
const NAMES: usize = 50;
/// Longest name, in bytes.
const NAME: usize = 200;
/// Files and directories of the tree that are looked at.
const ENTRIES: usize = 10_000;
/// Most bytes of one file, and of all.
const LARGEST: u64 = 16 * 1024 * 1024;
const ALL: u64 = 64 * 1024 * 1024;

/// What the files say together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tests {
    tests: u64,
    failures: u64,
    errors: u64,
    skipped: u64,
    seconds: f64,
    failed: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Found {
    /// None where no file is JUnit.
    pub(crate) tests: Option<Tests>,
    /// What could not be read, for people.
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("it is larger than {LARGEST} bytes, or all reports are larger than {ALL}")]
    TooLarge,
    #[error("it cannot be read")]
    Io(#[from] std::io::Error),
    #[error("it is no XML that can be read")]
    Xml(#[from] quick_xml::Error),
    #[error("it ends in the middle")]
    Unfinished,
}

impl Tests {
    /// What is told of them.
    pub(crate) fn event(self) -> EventKind {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the sum is positive, and a larger one becomes the largest"
        )]
        let millis = (self.seconds * 1000.0).round() as u64;
        EventKind::TestsReported {
            tests: self.tests,
            failures: self.failures,
            errors: self.errors,
            skipped: self.skipped,
            millis,
            failed: self.failed,
        }
    }

    fn add(&mut self, other: Tests) {
        self.tests += other.tests;
        self.failures += other.failures;
        self.errors += other.errors;
        self.skipped += other.skipped;
        self.seconds += other.seconds;
        self.failed.extend(other.failed);
        self.failed.truncate(NAMES);
    }

    fn count(&mut self, case: Case) {
        self.tests += 1;
        self.seconds += case.seconds;
        let bad = case.error || case.failure;
        if case.error {
            self.errors += 1;
        } else if case.failure {
            self.failures += 1;
        } else if case.skipped {
            self.skipped += 1;
        }
        if bad && self.failed.len() < NAMES {
            self.failed.push(case.name);
        }
    }
}

/// Reads all files below `dir` whose names end in `.xml`.
pub(crate) fn summarise(dir: &Path) -> Found {
    let mut found = Found::default();
    let mut left = ALL;
    for path in files(dir) {
        match read(&path, &mut left) {
            Ok(Some(tests)) => found.tests.get_or_insert_default().add(tests),
            Ok(None) => {}
            Err(error) => {
                let name = path.strip_prefix(dir).unwrap_or(&path).display().to_string();
                let error = sealift_model::diagnostic::chain(&error);
                // One word for many: a directory of broken files is one problem.
                if found.problems.len() < 5 {
                    found.problems.push(format!("the test report {name} is left out: {error}"));
                }
            }
        }
    }
    found
}

/// In the order of their names, links left out.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_owned()];
    let mut seen = 0;
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            seen += 1;
            if seen > ENTRIES {
                break;
            }
            let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "xml") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// What one file says; none where it is no JUnit. `left` is how much may still be read.
fn read(path: &Path, left: &mut u64) -> Result<Option<Tests>, Error> {
    let file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    if size > LARGEST || size > *left {
        return Err(Error::TooLarge);
    }
    *left -= size;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    // What is not UTF-8 can only be in names and in output, which do not count.
    parse(&String::from_utf8_lossy(&bytes))
}

/// A test that is being read.
#[derive(Default)]
struct Case {
    name: String,
    seconds: f64,
    failure: bool,
    error: bool,
    skipped: bool,
}

fn parse(text: &str) -> Result<Option<Tests>, Error> {
    let mut reader = Reader::from_str(text);
    let mut tests = Tests::default();
    let mut case: Option<Case> = None;
    let mut depth = 0_usize;
    loop {
        let event = reader.read_event()?;
        let (tag, empty) = match &event {
            Event::Start(tag) => (tag, false),
            Event::Empty(tag) => (tag, true),
            Event::End(tag) => {
                depth = depth.saturating_sub(1);
                if tag.local_name().as_ref() == "testcase"
                    && let Some(case) = case.take()
                {
                    tests.count(case);
                }
                continue;
            }
            Event::Eof if depth > 0 => return Err(Error::Unfinished),
            Event::Eof => return Ok(Some(tests)),
            _ => continue,
        };
        match (tag.local_name().as_ref(), case.as_mut()) {
            ("testsuites" | "testsuite", _) => {}
            _ if depth == 0 => return Ok(None),
            ("testcase", _) => {
                let new = new_case(tag);
                if empty {
                    tests.count(new);
                } else {
                    case = Some(new);
                }
            }
            ("failure", Some(case)) => case.failure = true,
            ("error", Some(case)) => case.error = true,
            ("skipped", Some(case)) => case.skipped = true,
            _ => {}
        }
        depth += usize::from(!empty);
    }
}

fn new_case(tag: &BytesStart<'_>) -> Case {
    let attribute = |name: &str| {
        let value = tag.try_get_attribute(name).ok().flatten()?.value;
        let text = value.into_owned();
        Some(quick_xml::escape::unescape(&text).map(std::borrow::Cow::into_owned).unwrap_or(text))
    };
    let name = attribute("name").unwrap_or_default();
    let mut name = match attribute("classname").filter(|class| !class.is_empty()) {
        Some(class) => format!("{class}.{name}"),
        None => name,
    };
    let mut end = name.len().min(NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    let seconds = attribute("time").and_then(|time| time.replace(',', "").parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0).unwrap_or_default();
    Case { name, seconds, ..Case::default() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> Option<EventKind> {
        parse(text).unwrap().map(Tests::event)
    }

    #[test]
    fn counts_tests() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <!DOCTYPE x [<!ENTITY e "bomb">]>
            <testsuites tests="99"><testsuite name="s">
              <testcase classname="a.B" name="one" time="0.5"/>
              <testcase classname="a.B" name="t&lt;wo&gt;&e;" time="1,000.25"><failure message="m">f</failure><failure/></testcase>
              <testcase name="three" time="NaN"><error/><failure/><system-out><![CDATA[<testcase/>]]></system-out></testcase>
              <testcase name="four"><skipped/></testcase>
              <testsuite><testcase name="five"></testcase></testsuite>
            </testsuite></testsuites>"#;
        let failed = vec!["a.B.t&lt;wo&gt;&e;".to_owned(), "three".to_owned()];
        let want = EventKind::TestsReported {
            tests: 5,
            failures: 1,
            errors: 1,
            skipped: 1,
            millis: 1_000_750,
            failed,
        };
        assert_eq!(told(text), Some(want));
    }

    #[test]
    fn other_files_are_left_alone() {
        assert_eq!(told("<coverage><testcase/></coverage>"), None);
        assert!(matches!(parse("<testsuite><testcase>"), Err(Error::Unfinished)));
        assert!(matches!(parse("<testsuite><a></b>"), Err(Error::Xml(_))));
    }

    #[test]
    fn files_of_a_tree_are_added_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("0-test/artifacts")).unwrap();
        fs::write(dir.path().join("0-test/artifacts/a.xml"), "<testsuite><testcase name='a'/></testsuite>")
            .unwrap();
        fs::write(dir.path().join("b.xml"), "<testsuite><testcase name='b'><error/></testcase></testsuite>")
            .unwrap();
        fs::write(dir.path().join("c.txt"), "<testsuite><testcase/></testsuite>").unwrap();
        fs::write(dir.path().join("d.xml"), "<testsuite><testcase>").unwrap();
        fs::write(dir.path().join("outside"), "").unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let found = summarise(dir.path());
        let tests = found.tests.unwrap();
        assert_eq!((tests.tests, tests.errors, tests.failed.as_slice()), (2, 1, &["b".to_owned()][..]));
        assert_eq!(found.problems, ["the test report d.xml is left out: it ends in the middle"]);
        assert!(summarise(&dir.path().join("none")).tests.is_none());
    }

    #[test]
    fn names_are_bounded() {
        let long = "é".repeat(300);
        let cases: String =
            (0..80).map(|_| format!("<testcase name='{long}'><failure/></testcase>")).collect();
        let tests = parse(&format!("<testsuite>{cases}</testsuite>")).unwrap().unwrap();
        assert_eq!((tests.failures, tests.failed.len(), tests.failed[0].len()), (80, NAMES, NAME));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(<testsuite>|</testsuite>|<testcase name='x' time='1'>|</testcase>|<failure/>|[<>/&a='\"!\\[-]){0,20}") {
            parse(&text).ok();
        }
    }
}
