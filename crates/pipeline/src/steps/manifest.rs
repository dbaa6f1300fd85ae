//! What a step says of itself: `step.yml`, or the older `wercker-step.yml`.
//!
//! Guarantees: both forms of `properties`, a list and a map, mean the same; names are compared as the variables made
//! of them are, so `bucket_url` is `bucket-url`.
//!
//! It must not know where steps come from.

use sealift_model::diagnostic::nearest;

use crate::config::StepConfig;
use crate::shell;
use crate::yaml::{self, Meaning, Node};

/// The names the file may have, in the order they are looked for.
pub(super) const FILE_NAMES: [&str; 2] = ["step.yml", "wercker-step.yml"];

/// Properties that belong to every step and are handed to none.
const RESERVED: [&str; 4] = ["name", "code", "cwd", "checkpoint"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Yaml(#[from] yaml::Error),
    #[error("it is no map of a name, a version and properties")]
    NoMap,
}

/// What a step says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub name: Option<String>,
    pub version: Option<String>,
    /// One line on what it does.
    pub summary: Option<String>,
    pub properties: Vec<Property>,
}

/// What a step can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Property {
    pub name: String,
    /// `string`, `bool`, `int` and the like; nothing is refused for it.
    pub kind: Option<String>,
    pub required: bool,
    pub default: Option<String>,
    pub description: Option<String>,
}

impl Manifest {
    /// Reads the text of a `step.yml` or `wercker-step.yml`.
    ///
    /// # Errors
    /// When it is no YAML, or no map.
    pub fn parse(text: &str) -> Result<Manifest, Error> {
        let Some(root) = yaml::parse(text)? else { return Ok(Manifest::default()) };
        if root.mapping().is_none() {
            return Err(Error::NoMap);
        }
        let properties = match field(&root, "properties") {
            None => Vec::new(),
            Some(node) => match (node.sequence(), node.mapping()) {
                (Some(items), _) => items
                    .iter()
                    .filter_map(|item| Some(property(text_of(field(item, "name")?)?, item)))
                    .collect(),
                (None, Some(pairs)) => {
                    pairs.iter().filter_map(|(key, node)| Some(property(text_of(key)?, node))).collect()
                }
                (None, None) => Vec::new(),
            },
        };
        let text = |name: &str| field(&root, name).and_then(text_of);
        Ok(Manifest {
            name: text("name"),
            version: text("version"),
            summary: text("summary").or_else(|| text("description")),
            properties,
        })
    }

    /// The property of that name, however its words are joined.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.iter().find(|property| same(&property.name, name))
    }

    /// The defaults of what is not given.
    pub(super) fn defaults<'a>(
        &'a self,
        step: &'a StepConfig,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        let missing = |property: &&Property| {
            !RESERVED.contains(&property.name.as_str())
                && !step.properties.iter().any(|(key, _)| same(key, &property.name))
        };
        let pair = |property: &'a Property| Some((property.name.as_str(), property.default.as_deref()?));
        self.properties.iter().filter(missing).filter_map(pair)
    }

    /// What does not fit between this and what a pipeline gives, for people. `complete` says that the step reads
    /// nothing but what is declared here.
    pub(super) fn misfits(&self, step: &StepConfig, complete: bool) -> Vec<String> {
        let mut found = Vec::new();
        for property in &self.properties {
            let name = &property.name;
            let given = match step.properties.iter().find(|(key, _)| same(key, name)) {
                Some((_, value)) => Some(value.as_str()),
                None if name == "name" => step.display.as_deref(),
                None => None,
            };
            match given {
                None if property.required && property.default.is_none() => {
                    found.push(format!("it wants the property `{name}`, which is not given"));
                }
                Some(value) => {
                    if let Some(kind) = unlike(property.kind.as_deref().unwrap_or_default(), value) {
                        found.push(format!("its property `{name}` is {kind}, not `{}`", excerpt(value)));
                    }
                }
                None => {}
            }
        }
        if complete {
            let known = || self.properties.iter().map(|property| property.name.as_str());
            for (key, _) in &step.properties {
                if self.property(key).is_none() {
                    let near = nearest(key, known());
                    let help = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                    found.push(format!("it knows no property `{key}`{help}"));
                }
            }
        }
        found
    }
}

/// Whether two names give the same variable.
fn same(one: &str, other: &str) -> bool {
    shell::upper_name(one) == shell::upper_name(other)
}

fn property(name: String, node: &Node) -> Property {
    let text = |name: &str| field(node, name).and_then(text_of);
    let required = field(node, "required").and_then(Node::meaning) == Some(Meaning::Bool(true));
    Property {
        name,
        kind: text("type"),
        required,
        default: text("default"),
        description: text("description"),
    }
}

/// Among duplicate keys the last counts.
fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    node.mapping()?.iter().rev().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
}

/// A scalar as written; nothing where it is null.
fn text_of(node: &Node) -> Option<String> {
    if node.is_null() { None } else { node.text().map(str::to_owned) }
}

/// What a value should have been, if it is clear that it is not. What a shell is yet to fill in is never clear.
fn unlike(kind: &str, value: &str) -> Option<&'static str> {
    if value.contains('$') || value.is_empty() {
        return None;
    }
    let (fits, what) = match kind.to_ascii_lowercase().as_str() {
        "bool" | "boolean" => {
            let words = ["true", "false", "yes", "no", "on", "off", "1", "0"];
            (words.contains(&value.to_ascii_lowercase().as_str()), "true or false")
        }
        "int" | "integer" => (value.parse::<i64>().is_ok(), "a whole number"),
        "number" | "float" => (value.parse::<f64>().is_ok(), "a number"),
        _ => (true, ""),
    };
    (!fits).then_some(what)
}

fn excerpt(value: &str) -> String {
    const LONGEST: usize = 40;
    let line = value.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(LONGEST).collect();
    if short.len() < value.trim_end().len() {
        short.push_str("..");
    }
    short
}

/// Whether a version fits what was asked for: any, the same, or one that begins with the same numbers.
pub(super) fn satisfies(have: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<String> {
        text.trim().trim_start_matches('v').split('.').map(str::to_owned).collect()
    };
    let wanted = wanted.trim();
    matches!(wanted, "" | "*" | "latest") || numbers(have).starts_with(&numbers(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "name: s\nversion: 1.2.3\nsummary: Does it\nproperties:\n  - name: word\n    type: string\n    required: true\n  - {name: count, type: int, default: 010}\n  - {name: flag, type: bool, default: yes}\n  - {name: none, default: ~}\n";
    const MAP: &str = "name: s\nversion: 1.2.3\ndescription: Does it\nkeywords: [a]\nproperties:\n  word:\n    type: string\n    required: true\n  count: {type: int, default: 010}\n  flag: {type: bool, default: yes}\n  none: {default: ~}\n";

    fn step(properties: &[(&str, &str)]) -> StepConfig {
        StepConfig {
            properties: properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..StepConfig::default()
        }
    }

    #[test]
    fn both_forms_mean_the_same() {
        let manifest = Manifest::parse(LIST).unwrap();
        assert_eq!(manifest, Manifest::parse(MAP).unwrap());
        assert_eq!(manifest.version.as_deref(), Some("1.2.3"));
        assert_eq!(manifest.summary.as_deref(), Some("Does it"));
        let given = step(&[("flag", "no")]);
        let defaults: Vec<_> = manifest.defaults(&given).collect();
        assert_eq!(defaults, [("count", "010")], "as written, not as a number");
    }

    #[test]
    fn says_what_does_not_fit() {
        let manifest = Manifest::parse(LIST).unwrap();
        for (given, complete, want) in [
            (&[("word", "x")][..], true, &[][..]),
            (&[], false, &["it wants the property `word`, which is not given"]),
            (
                &[("word", "x"), ("count", "many")],
                false,
                &["its property `count` is a whole number, not `many`"],
            ),
            (&[("word", "x"), ("count", "$MANY")], false, &[]),
            (
                &[("word", "x"), ("flag", "maybe")],
                false,
                &["its property `flag` is true or false, not `maybe`"],
            ),
            (&[("word", "x"), ("cuont", "1")], false, &[]),
            (
                &[("word", "x"), ("cuont", "1")],
                true,
                &["it knows no property `cuont`; did you mean `count`?"],
            ),
            (&[("WORD", "x")], true, &[]),
        ] {
            assert_eq!(manifest.misfits(&step(given), complete), want, "{given:?}");
        }
    }

    #[test]
    fn strange_files_are_no_panic() {
        assert!(Manifest::parse("- a\n").is_err());
        assert!(Manifest::parse("a:\n\tb").is_err());
        for text in ["", "properties: x", "properties: [a, {}, {name: [1]}]", "properties: {a: b, [c]: d}"] {
            Manifest::parse(text).unwrap();
        }
    }

    #[test]
    fn versions_fit_or_not() {
        for (have, wanted, fits) in [
            ("1.2.3", "*", true),
            ("1.2.3", "1.2.3", true),
            ("1.2.3", "v1.2", true),
            ("1.2.3", "1", true),
            ("1.20.3", "1.2", false),
            ("1.2.3", "2.0.0", false),
        ] {
            assert_eq!(satisfies(have, wanted), fits, "{have} {wanted}");
        }
    }
}
