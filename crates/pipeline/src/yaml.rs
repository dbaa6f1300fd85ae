//! YAML as a tree that remembers where everything stood.
//!
//! Guarantees: the whole tree is bounded in depth and in nodes (aliases count by what they expand to), so a hostile
//! file costs a refusal and not the machine; mappings keep their order and their duplicate keys; merge keys (`<<`)
//! are already merged in. Only the first document of a file is read.
//!
//! It must not know what the file is for.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

/// Deeper nesting than any file a person writes.
const MAX_DEPTH: usize = 64;
/// More nodes than any file a person writes, after aliases are expanded.
const MAX_NODES: usize = 100_000;

/// How many lines within brackets may stand too far left.
const MAX_MENDED: usize = 256;
/// Further right than any block that holds brackets.
const MENDED_INDENT: usize = 4 * MAX_DEPTH;

/// Why a text is no usable YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line}, column {column}: {message}", line = at.line, column = at.column)]
    Syntax { at: Place, message: String },
    #[error("line {line}: nested deeper than {MAX_DEPTH} levels", line = at.line)]
    TooDeep { at: Place },
    #[error("line {line}: more than {MAX_NODES} values after aliases are expanded", line = at.line)]
    TooLarge { at: Place },
    #[error("line {line}: an alias without its anchor", line = at.line)]
    UnknownAlias { at: Place },
}

impl Error {
    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            Error::Syntax { at, .. }
            | Error::TooDeep { at }
            | Error::TooLarge { at }
            | Error::UnknownAlias { at } => *at,
        }
    }
}

/// Where something stands: line and column counted from 1, length in characters (at least 1, within the line).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    pub length: usize,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub at: Place,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `plain` is true for text without quotes and without a tag: only such text can be a number or a boolean.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

/// What a scalar means by the rules of YAML 1.1, which wercker.yml files were written against.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Kept as written: `1.10` is not `1.1` to a person.
    Float(&'a str),
    Text(&'a str),
}

impl Node {
    #[must_use]
    pub fn meaning(&self) -> Option<Meaning<'_>> {
        match &self.value {
            Value::Scalar { text, plain: true } => Some(plain_meaning(text)),
            Value::Scalar { text, plain: false } => Some(Meaning::Text(text)),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    #[must_use]
    pub fn is_null(&self) -> bool {
        self.meaning() == Some(Meaning::Null)
    }

    #[must_use]
    pub fn mapping(&self) -> Option<&[(Node, Node)]> {
        match &self.value {
            Value::Mapping(pairs) => Some(pairs),
            Value::Scalar { .. } | Value::Sequence(_) => None,
        }
    }

    #[must_use]
    pub fn sequence(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            Value::Scalar { .. } | Value::Mapping(_) => None,
        }
    }

    fn move_places(&mut self, change: &dyn Fn(&mut Place)) {
        change(&mut self.at);
        match &mut self.value {
            Value::Scalar { .. } => {}
            Value::Sequence(items) => items.iter_mut().for_each(|item| item.move_places(change)),
            Value::Mapping(pairs) => {
                for (key, value) in pairs {
                    key.move_places(change);
                    value.move_places(change);
                }
            }
        }
    }

    /// The text of a scalar, as written.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }
}

fn plain_meaning(text: &str) -> Meaning<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Meaning::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Meaning::Bool(false)
        }
        _ => integer(text).map_or_else(
            || if is_float(text) { Meaning::Float(text) } else { Meaning::Text(text) },
            Meaning::Int,
        ),
    }
}

fn integer(text: &str) -> Option<i64> {
    let bare = text.replace('_', "");
    let (negative, digits) = match bare.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, bare.strip_prefix('+').unwrap_or(&bare)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let value = if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        i64::from_str_radix(binary, 2)
    } else if let Some(octal) = digits.strip_prefix("0o").or_else(|| digits.strip_prefix('0')) {
        if octal.is_empty() { Ok(0) } else { i64::from_str_radix(octal, 8) }
    } else {
        digits.parse()
    };
    value.ok().map(|value| if negative { -value } else { value })
}

fn is_float(text: &str) -> bool {
    let shape = text.chars().all(|c| c.is_ascii_digit() || "+-.eE_".contains(c))
        && text.contains(|c: char| c.is_ascii_digit());
    (shape && text.replace('_', "").parse::<f64>().is_ok())
        || matches!(text.trim_start_matches(['+', '-']), ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
}

/// The first document of `text`; none where the text holds nothing but comments.
///
/// # Errors
/// What is wrong and where, for the first thing that is.
pub fn parse(text: &str) -> Result<Option<Node>, Error> {
    let mut result = parse_strictly(text);
    // Within brackets indentation counts to the scanner, but never did to the reference. Only the lines that the scanner
    // stumbles over are moved, so nothing else can change.
    let mut mended = None;
    let mut lines = Vec::new();
    for _ in 0..MAX_MENDED {
        let Err(Error::Syntax { at, message }) = &result else { break };
        // The scanner's words for that, and for nothing outside of brackets.
        if message != "invalid indentation" {
            break;
        }
        let Some(next) = indent(mended.as_deref().unwrap_or(text), at.line) else { break };
        lines.push(at.line);
        result = parse_strictly(&next);
        mended = Some(next);
    }
    let back = |at: &mut Place| {
        if lines.contains(&at.line) {
            at.column = at.column.saturating_sub(MENDED_INDENT).max(1);
        }
    };
    match &mut result {
        Ok(Some(node)) if !lines.is_empty() => node.move_places(&back),
        Ok(_) => {}
        Err(
            Error::Syntax { at, .. }
            | Error::TooDeep { at }
            | Error::TooLarge { at }
            | Error::UnknownAlias { at },
        ) => back(at),
    }
    result
}

/// The text with one line further right; none where it was moved before.
fn indent(text: &str, line: usize) -> Option<String> {
    let start: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let (before, after) = (text.get(..start)?, text.get(start..)?);
    let moved = after.len() - after.trim_start_matches(' ').len() >= MENDED_INDENT;
    (!moved).then(|| format!("{before}{}{after}", " ".repeat(MENDED_INDENT)))
}

fn parse_strictly(text: &str) -> Result<Option<Node>, Error> {
    // A last line of blanks alone is no part of a block.
    let open_end = text.lines().last().filter(|last| !text.ends_with('\n') && !last.trim().is_empty());
    let open_end = open_end.map(|_| text.lines().count());
    let mut builder =
        Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, open_end };
    loop {
        let Some((event, _)) = builder.next()? else { return Ok(None) };
        match event {
            Event::DocumentStart(_) => {
                let Some((event, span)) = builder.next()? else { return Ok(None) };
                let node = builder.node(event, span, 0)?;
                // A document of comments only is an empty scalar to the parser.
                let empty = matches!(&node.value, Value::Scalar { text, plain: true } if text.is_empty());
                return Ok((!empty).then_some(node));
            }
            Event::StreamEnd => return Ok(None),
            _ => {}
        }
    }
}

/// Where a second document begins that holds something; what is in it is read by nobody.
#[must_use]
pub fn second_document(text: &str) -> Option<Place> {
    let mut documents = 0;
    let mut start = Place::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                start = place(span);
            }
            Event::Scalar(ref text, ScalarStyle::Plain, ..) if text.is_empty() => {}
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) if documents > 1 => {
                return Some(start);
            }
            _ => {}
        }
    }
    None
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// Each anchor's node and how many nodes it stands for.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    /// The last line of a text that does not end in a newline.
    open_end: Option<usize>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Error> {
        self.parser.next_event().transpose().map_err(|error| syntax(&error))
    }

    fn count(&mut self, nodes: usize, at: Place) -> Result<(), Error> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES { Err(Error::TooLarge { at }) } else { Ok(()) }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Error> {
        let at = place(span);
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep { at });
        }
        let before = self.nodes;
        self.count(1, at)?;
        let (value, anchor) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return Err(Error::UnknownAlias { at });
                };
                // Counted before it is used again, so that doubling aliases end early.
                self.count(size, at)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let mut text = text.into_owned();
                // The scanner ends a block at the end of a file with a newline that the file has not got.
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                if block && self.open_end.is_some_and(|last| span.end.line() >= last) && text.ends_with('\n')
                {
                    text.pop();
                }
                (Value::Scalar { text, plain }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            _ => (Value::Scalar { text: String::new(), plain: true }, 0),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Error> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            items.push(self.node(event, span, depth + 1)?);
        }
        Ok(Value::Sequence(items))
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Error> {
        let mut pairs = Vec::new();
        let mut merged = Vec::new();
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let Some((event, span)) = self.next()? else { break };
            let value = self.node(event, span, depth + 1)?;
            if matches!(&key.value, Value::Scalar { text, plain: true } if text == "<<") {
                merged.push(value);
            } else {
                pairs.push((key, value));
            }
        }
        for source in merged {
            merge(&mut pairs, source);
        }
        Ok(Value::Mapping(pairs))
    }
}

/// Adds the pairs of `source` (a mapping or a list of them) whose keys `pairs` has not got yet.
fn merge(pairs: &mut Vec<(Node, Node)>, source: Node) {
    match source.value {
        Value::Mapping(more) => {
            for (key, value) in more {
                if !pairs.iter().any(|(known, _)| known.value == key.value) {
                    pairs.push((key, value));
                }
            }
        }
        Value::Sequence(sources) => {
            for source in sources {
                merge(pairs, source);
            }
        }
        Value::Scalar { .. } => {}
    }
}

fn place(span: Span) -> Place {
    let (start, end) = (span.start, span.end);
    let length = if end.line() == start.line() { end.col().saturating_sub(start.col()) } else { 1 };
    Place { line: start.line(), column: start.col() + 1, length: length.max(1) }
}

fn syntax(error: &ScanError) -> Error {
    let marker = error.marker();
    let at = Place { line: marker.line().max(1), column: marker.col() + 1, length: 1 };
    Error::Syntax { at, message: error.info().to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(text: &str) -> Node {
        parse(text).unwrap().unwrap()
    }

    #[test]
    fn remembers_places_order_and_duplicates() {
        let node = tree("# c\nbox: a\nbuild:\n  steps: [x]\nbox: b\n");
        let pairs = node.mapping().unwrap();
        let keys: Vec<_> = pairs.iter().map(|(k, _)| (k.text().unwrap(), k.at.line, k.at.column)).collect();
        assert_eq!(keys, [("box", 2, 1), ("build", 3, 1), ("box", 5, 1)]);
        assert_eq!(pairs[1].1.mapping().unwrap()[0].0.at, Place { line: 4, column: 3, length: 5 });
    }

    #[test]
    fn merges_and_aliases() {
        let node = tree("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n");
        let b = node.mapping().unwrap()[1].1.mapping().unwrap();
        let seen: Vec<_> = b.iter().map(|(k, v)| (k.text().unwrap(), v.text().unwrap())).collect();
        assert_eq!(seen, [("y", "3"), ("x", "1")]);
    }

    #[test]
    fn reads_only_the_first_document_and_nothing_from_comments() {
        assert_eq!(tree("a: b\n---\n:\t:::").mapping().unwrap().len(), 1);
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("# only\n\n").unwrap(), None);
        assert_eq!(parse("---\n").unwrap(), None);
        assert_eq!(second_document("a: b\n---\nc: d\n").map(|at| (at.line, at.column)), Some((2, 1)));
        for text in ["a: b\n---\n# c\n", "---\na: b\n", "a: b\n...\n", ""] {
            assert_eq!(second_document(text), None, "{text:?}");
        }
    }

    #[test]
    fn means_what_yaml_1_1_means() {
        for (text, meaning) in [
            ("yes", Meaning::Bool(true)),
            ("n", Meaning::Bool(false)),
            ("~", Meaning::Null),
            ("0x10", Meaning::Int(16)),
            ("010", Meaning::Int(8)),
            ("0", Meaning::Int(0)),
            ("-1_000", Meaning::Int(-1000)),
            ("1.10", Meaning::Float("1.10")),
            ("1e3", Meaning::Float("1e3")),
            ("1.2.3", Meaning::Text("1.2.3")),
            ("e", Meaning::Text("e")),
            ("infinity", Meaning::Text("infinity")),
        ] {
            assert_eq!(plain_meaning(text), meaning, "{text}");
        }
        assert_eq!(tree("'yes'").meaning(), Some(Meaning::Text("yes")));
    }

    #[test]
    fn refuses_bombs() {
        let mut laughs = String::from("a0: &a0 [x, x]\n");
        for i in 1..40 {
            laughs.push_str(&format!("a{i}: &a{i} [*a{p}, *a{p}]\n", p = i - 1));
        }
        assert!(matches!(parse(&laughs), Err(Error::TooLarge { .. })));
        assert!(matches!(parse(&"[".repeat(10_000)), Err(Error::TooDeep { .. } | Error::Syntax { .. })));
    }

    #[test]
    fn within_brackets_lines_may_stand_at_the_left() {
        let node = tree("build:\n    steps: [\n  a,\n    ]\n    env: {\n      x: y\n}\nend: |\n  ]\n");
        let pairs = node.mapping().unwrap();
        let build = pairs[0].1.mapping().unwrap();
        assert_eq!((build[0].1.sequence().unwrap().len(), build[1].1.mapping().unwrap().len()), (1, 1));
        assert_eq!(build[0].1.sequence().unwrap()[0].at, Place { line: 3, column: 3, length: 1 });
        assert_eq!(pairs[1].1.text(), Some("]\n"));
        for text in ["a: b\n]\n", "]\n", "a:\n  - b\n}\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn says_where_it_broke() {
        let error = parse("box: a\nbuild:\n\tsteps: [a]\n").unwrap_err();
        assert_eq!(error.place().line, 3, "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-a-z:&*<> \\[\\]{}\"'#|\\n\\t,!%@~]{0,80}") {
            parse(&text).ok();
        }
    }
}
