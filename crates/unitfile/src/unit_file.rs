//! A unit file as its author wrote it.
//!
//! Parsing cannot fail: what is no section and no assignment is kept as a problem, and `text` gives back exactly
//! what came in. Sections and keys are kept in their order, repeated ones too.

use std::ops::Range;

use sealift_model::diagnostic::{Diagnostic, Severity};
use sealift_model::{Requirements, UnitName};

use crate::line::{BLANKS, Comment, Line, Lines, Place};
use crate::{finding, fleet, known, sort};

/// A unit file with the place of everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    text: String,
    sections: Vec<Section>,
    comments: Vec<Comment>,
    problems: Vec<Diagnostic>,
}

/// A `[Section]` and what follows it. systemd takes sections of the same name as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub name: String,
    /// Of the header.
    pub place: Place,
    pub assignments: Vec<Assignment>,
}

/// `Key=value`. The value is joined from continued lines and trimmed, otherwise as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    line: Line,
    key: Range<usize>,
    value: Range<usize>,
}

impl Assignment {
    #[must_use]
    pub fn key(&self) -> &str {
        self.line.text().get(self.key.clone()).unwrap_or_default()
    }

    #[must_use]
    pub fn value(&self) -> &str {
        self.line.text().get(self.value.clone()).unwrap_or_default()
    }

    #[must_use]
    pub fn key_place(&self) -> Place {
        self.line.place(self.key.clone())
    }

    /// Where the value begins, up to the end of that line. Of an empty value, the key's place.
    #[must_use]
    pub fn value_place(&self) -> Place {
        if self.value.is_empty() { self.key_place() } else { self.line.place(self.value.clone()) }
    }

    /// Where these bytes of the value stand; on whichever of the continued lines that is.
    #[must_use]
    pub fn place_in_value(&self, range: Range<usize>) -> Place {
        let start = self.value.start + range.start;
        let end = (self.value.start + range.end).min(self.value.end);
        if start < end { self.line.place(start..end) } else { self.value_place() }
    }
}

impl UnitFile {
    /// Reads any text; [`UnitFile::problems`] tells what of it is not a unit file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let Lines { lines, comments, problems } = Lines::of(text);
        let mut file = Self { text: text.to_owned(), sections: Vec::new(), comments, problems };
        for line in lines {
            let content = trimmed(line.text(), 0..line.text().len());
            match line.text().get(content.clone()).unwrap_or_default() {
                "" => {}
                header if header.starts_with('[') => file.open_section(&line, content),
                _ => file.assign(line, content),
            }
        }
        sort(&mut file.problems);
        file
    }

    fn open_section(&mut self, line: &Line, content: Range<usize>) {
        let header = line.text().get(content.start + 1..content.end).unwrap_or_default();
        let place = line.place(content);
        let name = header.strip_suffix(']').unwrap_or_else(|| {
            let help = match header.split_once(']') {
                Some((name, _)) => format!("nothing may follow [{name}] on its line, not even a comment"),
                None => "close it with ']'".into(),
            };
            let message = "the section's header does not end with ']'; systemd refuses the file".into();
            self.problems.push(finding(Severity::Error, place, message, Some(help)));
            // Taken as the section that was meant, so that one slip is one finding.
            header.split(']').next().unwrap_or_default().trim_matches(BLANKS)
        });
        self.sections.push(Section { name: name.to_owned(), place, assignments: Vec::new() });
    }

    fn assign(&mut self, line: Line, content: Range<usize>) {
        let text = line.text().get(content.clone()).unwrap_or_default();
        let place = line.place(content.clone());
        let Some(equals) = text.find('=').map(|at| content.start + at) else {
            let message =
                "neither a section nor Key=value; fleet refused such files, systemd ignores the line";
            let help = "a value goes on in the next line only when its line ends with '\\'";
            self.problems.push(finding(Severity::Error, place, message.into(), Some(help.into())));
            return;
        };
        let key = trimmed(line.text(), content.start..equals);
        let value = trimmed(line.text(), equals + 1..content.end);
        if key.is_empty() {
            let message = "no key before '='; systemd ignores the line".into();
            self.problems.push(finding(Severity::Error, place, message, None));
            return;
        }
        let assignment = Assignment { line, key, value };
        match self.sections.last_mut() {
            Some(section) => section.assignments.push(assignment),
            None => self.problems.push(finding(
                Severity::Warning,
                assignment.key_place(),
                format!("{} stands before the first section; systemd ignores it", assignment.key()),
                Some("move it below a header such as [Unit]".into()),
            )),
        }
    }

    /// The file, byte for byte.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// In the order of the file.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    #[must_use]
    pub fn comments(&self) -> &[Comment] {
        &self.comments
    }

    /// What could not be read, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[Diagnostic] {
        &self.problems
    }

    /// The first header of this name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// All assignments of the key as they stand in the file, empty ones too.
    pub fn assignments<'a, 'k>(
        &'a self,
        section: &'k str,
        key: &'k str,
    ) -> impl Iterator<Item = &'a Assignment> + use<'a, 'k> {
        self.sections
            .iter()
            .filter(move |candidate| candidate.name == section)
            .flat_map(|section| &section.assignments)
            .filter(move |assignment| assignment.key() == key)
    }

    /// The value of a key that holds one value: the last one given, `""` when that is empty.
    #[must_use]
    pub fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.assignments(section, key).last().map(Assignment::value)
    }

    /// The values of a key that holds a list: an empty assignment drops those before it.
    #[must_use]
    pub fn values(&self, section: &str, key: &str) -> Vec<&str> {
        self.list(section, key).into_iter().map(Assignment::value).collect()
    }

    /// As [`UnitFile::values`], with places.
    pub(crate) fn list(&self, section: &str, key: &str) -> Vec<&Assignment> {
        let mut list = Vec::new();
        for assignment in self.assignments(section, key) {
            if assignment.value().is_empty() {
                list.clear();
            } else {
                list.push(assignment);
            }
        }
        list
    }

    /// The text without its `[X-Fleet]` sections, from their headers to the next ones: what systemd acts on. Two texts
    /// for which it is the same are the same unit to systemd.
    #[must_use]
    pub fn text_for_systemd(&self) -> String {
        let mut headers =
            self.sections.iter().map(|section| (section.place.line, section.name == fleet::SECTION));
        let mut next = headers.next();
        let mut dropped = false;
        let mut kept = String::with_capacity(self.text.len());
        for (index, line) in self.text.split_inclusive('\n').enumerate() {
            while let Some((_, fleets)) = next.filter(|(header, _)| *header == index + 1) {
                dropped = fleets;
                next = headers.next();
            }
            if !dropped {
                kept.push_str(line);
            }
        }
        kept
    }

    /// What systemd calls the unit that is made of this file: its own name, or of a Quadlet file the service's, which
    /// the file may choose with `ServiceName=`.
    #[must_use]
    pub fn name_in_systemd(&self, name: &UnitName) -> UnitName {
        let chosen = || {
            let chosen = self.value(known::own_section(name.kind()), "ServiceName")?;
            format!("{chosen}.service").parse().ok()
        };
        if name.kind().is_quadlet() { chosen().unwrap_or_else(|| name.in_systemd()) } else { name.clone() }
    }

    /// What `[X-Fleet]` asks of a machine, and what is wrong with it. With an error among the findings the
    /// requirements contradict each other, and no machine can meet them.
    #[must_use]
    pub fn requirements(&self, name: &UnitName) -> (Requirements, Vec<Diagnostic>) {
        fleet::read(self, name)
    }
}

/// `range` of the text without the blanks at its ends.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = text.get(range.clone()).unwrap_or_default();
    let start = range.start + (part.len() - part.trim_start_matches(BLANKS).len());
    start..start + part.trim_matches(BLANKS).len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{shown, verify};

    /// `[Section] Key=value` of everything that was read.
    fn read(text: &str) -> Vec<String> {
        let file = UnitFile::parse(text);
        assert_eq!(file.text(), text);
        let lines = file.sections().iter().flat_map(|section| {
            let line = |a: &Assignment| format!("[{}] {}={}", section.name, a.key(), a.value());
            section.assignments.iter().map(line).collect::<Vec<_>>()
        });
        lines.collect()
    }

    #[test]
    fn reads_by_table() {
        for (text, wanted) in [
            ("", &[][..]),
            ("\n\n", &[]),
            ("[A]\nb=c", &["[A] b=c"]),
            ("[A]\r\nb=c\r\n", &["[A] b=c"]),
            ("\u{feff}[A]\nb=c\n", &["[A] b=c"]),
            ("  [A]  \n\tb  =  c = d  \n", &["[A] b=c = d"]),
            (
                "[A]\nb=\nb=c\nb=c\n[B]\nb=d\n[A]\nb=e\n",
                &["[A] b=", "[A] b=c", "[A] b=c", "[B] b=d", "[A] b=e"],
            ),
            ("[A]\n#x\n;y\n # z\nb=#c;d\n", &["[A] b=#c;d"]),
            ("[A]\nb=c\\\n  d\\\r\n\te\nf=g\n", &["[A] b=c d e", "[A] f=g"]),
            ("[A]\nb=c \\\n# not\\\n; this\n  d\n", &["[A] b=c  d"]),
            // An empty line ends a value that goes on; so does the end of the file.
            ("[A]\nb=c\\\n\nd=e\nf=g\\", &["[A] b=c", "[A] d=e", "[A] f=g"]),
            // An escaped backslash continues nothing, a third one does.
            ("[A]\nb=c\\\\\nd=e\\\\\\\nf", &["[A] b=c\\\\", "[A] d=e\\\\ f"]),
        ] {
            assert_eq!(read(text), wanted, "{text:?}");
            assert_eq!(UnitFile::parse(text).problems(), [], "{text:?}");
        }
    }

    #[test]
    fn keeps_what_it_cannot_read_as_problems() {
        let no_value = "neither a section nor Key=value; fleet refused such files, systemd ignores the line \
                        (a value goes on in the next line only when its line ends with '\\')";
        let header = "the section's header does not end with ']'; systemd refuses the file";
        for (text, problem, rest) in [
            ("[A]\n foo bar \nb=c", format!("2:2+7 error: {no_value}"), &["[A] b=c"][..]),
            ("[A]\n = c\nb=c", "2:2+3 error: no key before '='; systemd ignores the line".into(), &["[A] b=c"]),
            (
                "a = b\n[A]\nb=c",
                "1:1+1 warning: a stands before the first section; systemd ignores it (move it below a header such as [Unit])"
                    .into(),
                &["[A] b=c"],
            ),
            ("[A\nb=c", format!("1:1+2 error: {header} (close it with ']')"), &["[A] b=c"]),
            (
                " [A] # x\nb=c",
                format!("1:2+7 error: {header} (nothing may follow [A] on its line, not even a comment)"),
                &["[A] b=c"],
            ),
            ("[", format!("1:1+1 error: {header} (close it with ']')"), &[]),
            (
                "[A]\n\u{e4}=c \\ \nb=d",
                "2:5+1 warning: the line does not go on: blanks follow the backslash (delete the blanks after it)"
                    .into(),
                &["[A] \u{e4}=c \\", "[A] b=d"],
            ),
        ] {
            assert_eq!(shown(UnitFile::parse(text).problems()), [problem], "{text:?}");
            assert_eq!(read(text), rest, "{text:?}");
        }
    }

    #[test]
    fn the_last_value_wins_and_an_empty_one_resets_a_list() {
        let file = UnitFile::parse("[A]\nb=1\nb=2\n[C]\nb=9\n[A]\nb=\nb=3\nb=4\nd=5\nd=\n");
        assert_eq!(file.value("A", "b"), Some("4"));
        assert_eq!(file.values("A", "b"), ["3", "4"]);
        assert_eq!(file.assignments("A", "b").count(), 5);
        assert_eq!((file.value("A", "d"), file.values("A", "d")), (Some(""), vec![]));
        assert_eq!((file.value("A", "x"), file.values("X", "b")), (None, vec![]));
    }

    #[test]
    fn everything_has_its_place() {
        let file = UnitFile::parse("; \u{e4}\n [A]\n\u{e4}\t= one \\\n # two\n   three\n");
        let place = |line, column, length| Place { line, column, length };
        assert_eq!(file.comments()[0], Comment { text: "; \u{e4}".into(), place: place(1, 1, 3) });
        assert_eq!(file.comments()[1].place, place(4, 2, 5));
        assert_eq!(file.sections()[0].place, place(2, 2, 3));
        let assignment = &file.sections()[0].assignments[0];
        assert_eq!((assignment.key_place(), assignment.value()), (place(3, 1, 1), "one  three"));
        assert_eq!(assignment.value_place(), place(3, 5, 5));
        assert_eq!(assignment.place_in_value(5..8), place(5, 4, 3));
        assert_eq!(assignment.place_in_value(8..999), place(5, 7, 2));
        assert_eq!(assignment.place_in_value(999..9999), assignment.value_place());
    }

    #[test]
    fn what_systemd_acts_on_is_the_text_without_fleets_sections() {
        for (text, wanted) in [
            ("", ""),
            ("[A]\nb=c\n", "[A]\nb=c\n"),
            ("# x\n[A]\nb=c\n[X-Fleet]\nGlobal=1\n# y\n", "# x\n[A]\nb=c\n"),
            ("[X-Fleet]\nGlobal=1\n[A]\r\nb=c", "[A]\r\nb=c"),
            ("[X-Fleet]\n[X-Fleet]\nGlobal=1\n [A]\n[X-Fleet]\nb\n[B]\n", " [A]\n[B]\n"),
            // A header inside a value is none.
            ("[A]\nb=c\\\n[X-Fleet]\nd=e\n", "[A]\nb=c\\\n[X-Fleet]\nd=e\n"),
        ] {
            assert_eq!(UnitFile::parse(text).text_for_systemd(), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_quadlet_file_may_choose_its_services_name() {
        for (name, text, wanted) in [
            ("a.service", "[Service]\nServiceName=b\n", "a.service"),
            ("a.container", "[Container]\nImage=x\n", "a.service"),
            ("a.container", "[Container]\nServiceName=b\nServiceName=c\n", "c.service"),
            ("a.pod", "[Pod]\nServiceName=b\n", "b.service"),
            ("a.pod", "[Container]\nServiceName=b\n", "a-pod.service"),
            ("a.pod", "[Pod]\nServiceName=b/c\n", "a-pod.service"),
            ("a.pod", "[Pod]\nServiceName=\n", "a-pod.service"),
        ] {
            assert_eq!(UnitFile::parse(text).name_in_systemd(&name.parse().unwrap()).as_str(), wanted);
        }
    }

    fn lies_inside(text: &str, place: Place) -> bool {
        let width = text.lines().nth(place.line - 1).map_or(0, |line| line.chars().count());
        place.line >= 1
            && place.column >= 1
            && place.length >= 1
            && place.column - 1 + place.length <= width.max(1)
    }

    /// Unit files with slips in them: pieces that mean something, in any order.
    fn nearly_a_unit_file() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "[",
            "]",
            "[Service]",
            "[X-Fleet]",
            "[Serivce]",
            "[Unit",
            "ExecStart",
            "Type",
            "Restart",
            "MachineOf",
            "MachineMetadata",
            "MachineID",
            "Conflicts",
            "X-Conflicts",
            "Global",
            "Replaces",
            "=",
            "=",
            "=",
            "\"",
            "\"a=b\" \"c\"",
            "a*",
            "[a-",
            "%i",
            "%",
            "true",
            "oneshot",
            "./x",
            "-/x",
            " ",
            "\t",
            "\\",
            "\\\n",
            "\n",
            "\n",
            "\n",
            "\r\n",
            "\r",
            "\0",
            "#",
            ";",
            "\u{e4}",
            "\u{feff}",
            "\u{2003}",
        ]);
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_kept_and_every_place_lies_inside(
            text in prop_oneof![any::<String>(), nearly_a_unit_file(), "(?s).{0,80}"],
            name in prop::sample::select(vec!["a.service", "a@.service", "a@1.socket", "a.timer", "a.mount", "a.slice"]),
        ) {
            let file = UnitFile::parse(&text);
            prop_assert_eq!(file.text(), &text);
            let findings = verify(&name.parse().unwrap(), &file);
            prop_assert!(findings.is_sorted_by_key(|finding| finding.line));
            for finding in findings {
                let place = Place { line: finding.line, column: finding.column, length: finding.length };
                prop_assert!(lies_inside(&text, place), "{:?}", finding);
            }
            for comment in file.comments() {
                prop_assert!(lies_inside(&text, comment.place), "{:?}", comment);
            }
            for section in file.sections() {
                prop_assert!(lies_inside(&text, section.place), "{:?}", section);
                for assignment in &section.assignments {
                    prop_assert!(lies_inside(&text, assignment.key_place()), "{:?}", assignment);
                    prop_assert!(lies_inside(&text, assignment.value_place()), "{:?}", assignment);
                }
            }
        }
    }
}
