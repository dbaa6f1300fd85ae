//! Looking into a file of another tool.

use sealift_model::diagnostic::{Diagnostic, Severity};

use crate::yaml::{Node, Place};

/// The value of a key.
pub(super) fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.mapping()?.iter().rev().find(|(known, _)| known.text() == Some(key)).map(|(_, value)| value)
}

/// The pairs of a map with their names; none where it is no map.
pub(super) fn pairs(node: &Node) -> impl Iterator<Item = (&str, Place, &Node)> {
    let pairs = node.mapping().unwrap_or_default().iter();
    pairs.filter_map(|(key, value)| Some((key.text()?, key.at, value)))
}

/// A scalar as it is written; none for null, lists and maps.
pub(super) fn text(node: &Node) -> Option<String> {
    node.text().filter(|_| !node.is_null()).map(str::to_owned)
}

/// A text, or the texts of a list, however deep.
pub(super) fn texts(node: &Node) -> Vec<String> {
    match node.sequence() {
        Some(items) => items.iter().flat_map(texts).collect(),
        None => text(node).into_iter().collect(),
    }
}

pub(super) fn is_true(node: &Node) -> bool {
    node.meaning() == Some(crate::yaml::Meaning::Bool(true))
}

/// A map of variables, or a list of `NAME=value`.
pub(super) fn variables(node: &Node) -> Vec<(String, String)> {
    if node.sequence().is_some() {
        let pair = |text: String| {
            let (name, value) = text.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        return texts(node).into_iter().filter_map(pair).collect();
    }
    // GitLab's long form has the value in a map.
    let value = |node: &Node| text(node).or_else(|| get(node, "value").and_then(text)).unwrap_or_default();
    pairs(node).map(|(name, _, node)| (name.to_owned(), value(node))).collect()
}

pub(super) fn note(at: Place, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        line: at.line,
        column: at.column,
        length: at.length.max(1),
        message,
        help: None,
    }
}

/// Replaces `$NAME` and `${NAME}` where `new` knows another name.
pub(super) fn rename(text: &str, new: &dyn Fn(&str) -> Option<&'static str>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.starts_with('{');
        let name_at = after.strip_prefix('{').unwrap_or(after);
        let end = name_at.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(name_at.len());
        let (name, tail) = name_at.split_at(end);
        out.push_str(if braced { "${" } else { "$" });
        out.push_str(new(name).unwrap_or(name));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Variables of the other tool that are left in a text, each once.
pub(super) fn unknown(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in text.split('$').skip(1) {
        let name = part.strip_prefix('{').unwrap_or(part);
        let end = name.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(name.len());
        let (name, _) = name.split_at(end);
        if name.starts_with("CI_") && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// A duration as tools write it (`1h 30m`, `2 hours`, `90 minutes`, `3600`), as ours.
pub(super) fn duration(text: &str, plain: &str) -> Option<String> {
    let mut seconds: u64 = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = if unit.is_empty() { plain } else { unit };
        let size = match unit.to_ascii_lowercase().as_str() {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(size)?)?;
        rest = after.trim_start();
    }
    (seconds > 0).then(|| crate::config::settings::print_duration(std::time::Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renames_variables() {
        let new = |name: &str| (name == "OLD").then_some("NEW");
        assert_eq!(rename("$OLD ${OLD}x $OLDER $ ${OLD:-a}$", &new), "$NEW ${NEW}x $OLDER $ ${NEW:-a}$");
    }

    #[test]
    fn finds_what_has_no_other_name() {
        assert_eq!(unknown("$CI_A ${CI_B} $CI_A $X $ CI_C"), ["CI_A", "CI_B"]);
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("1h 30m", Some("1h30m")),
            ("2 hours", Some("2h")),
            ("90 minutes", Some("1h30m")),
            ("3600", Some("1h")),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(duration(text, "s").as_deref(), want, "{text}");
        }
    }
}
