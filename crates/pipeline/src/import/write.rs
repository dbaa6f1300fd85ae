//! YAML as a person would write it.
//!
//! Guarantees: what is written is read back by [`crate::yaml`] as the same.

use crate::yaml::{self, Meaning};

/// A value to write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Out {
    /// A number or a boolean, as it is.
    Plain(String),
    Text(String),
    List(Vec<Out>),
    Map(Vec<(String, Out)>),
}

impl Out {
    pub(super) fn text(text: impl Into<String>) -> Out {
        Out::Text(text.into())
    }

    pub(super) fn texts(texts: impl IntoIterator<Item = String>) -> Out {
        Out::List(texts.into_iter().map(Out::Text).collect())
    }

    pub(super) fn map<const N: usize>(pairs: [(&str, Out); N]) -> Out {
        Out::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    pub(super) fn variables(pairs: &[(String, String)]) -> Out {
        Out::Map(pairs.iter().map(|(name, value)| (name.clone(), Out::text(value))).collect())
    }
}

/// The pairs of a map, in block style, `indent` deep.
pub(super) fn write_map(pairs: &[(String, Out)], indent: usize, out: &mut String) {
    for (key, value) in pairs {
        let pad = " ".repeat(indent);
        out.push_str(&format!("{pad}{}:", scalar(key)));
        write_value(value, indent, out);
    }
}

/// What stands behind `key:` or, for a list's entry, behind its dash.
fn write_value(value: &Out, indent: usize, out: &mut String) {
    if let Some(line) = one_line(value) {
        out.push_str(&format!(" {line}\n"));
        return;
    }
    match value {
        Out::Text(text) => write_block(text, indent + 2, out),
        Out::Map(pairs) => {
            out.push('\n');
            write_map(pairs, indent + 2, out);
        }
        Out::List(items) => {
            out.push('\n');
            for item in items {
                out.push_str(&format!("{}-", " ".repeat(indent + 2)));
                match item {
                    // The first pair stands beside the dash.
                    Out::Map(pairs) if one_line(item).is_none() => {
                        let mut inner = String::new();
                        write_map(pairs, indent + 4, &mut inner);
                        out.push(' ');
                        out.push_str(inner.trim_start_matches(' '));
                    }
                    _ => write_value(item, indent + 2, out),
                }
            }
        }
        Out::Plain(text) => out.push_str(&format!(" {text}\n")),
    }
}

fn write_block(text: &str, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
    for line in text.lines() {
        if line.is_empty() { out.push('\n') } else { out.push_str(&format!("{pad}{line}\n")) }
    }
}

/// Scalars, and lists of them that fit into a line.
fn one_line(value: &Out) -> Option<String> {
    match value {
        Out::Plain(text) => Some(text.clone()),
        Out::Text(text) => (!fits_block(text)).then(|| scalar(text)),
        Out::List(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| match item {
                    Out::Plain(_) | Out::Text(_) => one_line(item),
                    Out::List(_) | Out::Map(_) => None,
                })
                .collect();
            items.map(|items| format!("[{}]", items.join(", "))).filter(|line| line.len() < 90)
        }
        Out::Map(pairs) if pairs.is_empty() => Some("{}".to_owned()),
        Out::Map(_) => None,
    }
}

/// Whether a text can stand below `|` and come back as it was.
fn fits_block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\n', '\t'])
        && text.lines().all(|line| !line.chars().all(char::is_whitespace) || line.is_empty())
        && text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c))
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A text on one line, in quotes where it needs them.
pub(super) fn scalar(text: &str) -> String {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || "_./@+=-".contains(c);
    let inner = |c: char| ordinary(c) || c == ' ' || c == ':';
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_./".contains(c))
        && text.chars().all(inner)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.starts_with("...");
    let meant = yaml::parse(text).ok().flatten();
    let is_text = meant.as_ref().is_some_and(|node| node.meaning() == Some(Meaning::Text(text)));
    if plain && is_text {
        text.to_owned()
    } else if text.chars().all(is_printable) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        let one = |c: char| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\t' => "\\t".to_owned(),
            c if is_printable(c) => c.to_string(),
            c => format!("\\U{:08x}", u32::from(c)),
        };
        format!("\"{}\"", text.chars().map(one).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::Node;

    fn back(node: &Node) -> Out {
        if let Some(items) = node.sequence() {
            Out::List(items.iter().map(back).collect())
        } else if let Some(pairs) = node.mapping() {
            Out::Map(pairs.iter().map(|(k, v)| (k.text().unwrap().to_owned(), back(v))).collect())
        } else {
            match node.meaning() {
                Some(Meaning::Text(text)) => Out::text(text),
                _ => Out::Plain(node.text().unwrap().to_owned()),
            }
        }
    }

    fn out() -> impl Strategy<Value = Out> {
        let text = prop_oneof![
            any::<String>(),
            "[a-z:#'\"\\-\\[\\]{}&*!|>%@` \n\t,~?0-9.]{0,20}",
            "([a-z #:]{0,6}\n){0,4}[a-z]{0,3}"
        ];
        let leaf = prop_oneof![text.prop_map(Out::Text), (0_i64..99).prop_map(|n| Out::Plain(n.to_string()))];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key = "[a-z.:# -]{1,8}";
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Out::List),
                proptest::collection::btree_map(key, inner, 0..4)
                    .prop_map(|map| Out::Map(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn is_read_back_as_it_was(value in out()) {
            let mut text = String::new();
            write_map(&[("key".to_owned(), value.clone()), ("end".to_owned(), Out::text("x"))], 0, &mut text);
            let read = yaml::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).unwrap();
            prop_assert_eq!(back(&read.mapping().unwrap()[0].1), value, "{}", text);
        }
    }
}
