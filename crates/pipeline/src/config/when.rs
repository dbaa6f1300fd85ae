//! Conditions on branch, tag and changed paths: `when:` of a pipeline or a step.
//!
//! Guarantees: pure; the work is bounded by the length of pattern times the length of name.
//!
//! It must not know where branch, tag and paths come from.

use crate::glob::Glob;

/// When something is to happen: any one of the conditions is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct When(pub Vec<Condition>);

/// All kinds that are given must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    pub branch: Option<Patterns>,
    pub tag: Option<Patterns>,
    pub path: Option<Patterns>,
}

/// Globs; one that begins with `!` excludes. `*` and `?` stop at `/`, `**` does not, and a pattern that ends in `/`
/// means all below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patterns {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

/// What a run is about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    pub branch: Option<&'a str>,
    pub tag: Option<&'a str>,
    /// The paths that changed, from the root of the source; none where that is not known.
    pub changed: Option<&'a [String]>,
}

impl When {
    /// Whether it is to happen. A branch or a tag that is asked for and not there does not match; where the changed
    /// paths are not known, conditions on them hold, so that nothing is left out by mistake.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().any(|condition| condition.matches(facts))
    }
}

impl Condition {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let named = |patterns: &Option<Patterns>, name: Option<&str>| {
            patterns
                .as_ref()
                .is_none_or(|patterns| name.is_some_and(|name| !name.is_empty() && patterns.matches(name)))
        };
        let changed = |patterns: &Patterns| {
            facts.changed.is_none_or(|paths| paths.iter().any(|path| patterns.matches(path)))
        };
        named(&self.branch, facts.branch)
            && named(&self.tag, facts.tag)
            && self.path.as_ref().is_none_or(changed)
    }
}

impl Patterns {
    /// Patterns as written, `!` in front of those that exclude.
    pub fn new(written: impl IntoIterator<Item = String>) -> Self {
        let mut patterns = Patterns::default();
        for pattern in written {
            match pattern.strip_prefix('!') {
                Some(rest) => patterns.exclude.push(rest.to_owned()),
                None => patterns.include.push(pattern),
            }
        }
        patterns
    }

    /// Whether one includes the name, or none is there to include, and none excludes it.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| Glob::new(pattern).matches(name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(written: &[&str]) -> Option<Patterns> {
        Some(Patterns::new(written.iter().map(|text| (*text).to_owned())))
    }

    #[test]
    fn all_kinds_must_match_and_any_condition_is_enough() {
        let paths = ["docs/a.md".to_owned(), "src/x.rs".to_owned()];
        let on = |branch, tag, changed| Facts { branch, tag, changed };
        let main = Condition { branch: patterns(&["main", "release/*"]), ..Condition::default() };
        let tagged = Condition { tag: patterns(&["v*", "!*-rc*"]), ..Condition::default() };
        let code = Condition { path: patterns(&["**", "!docs/"]), ..main.clone() };
        for (when, facts, want) in [
            (When(vec![main.clone()]), on(Some("main"), None, None), true),
            (When(vec![main.clone()]), on(Some("release/1"), None, None), true),
            (When(vec![main.clone()]), on(Some("x"), None, None), false),
            (When(vec![main.clone()]), on(None, Some("v1"), None), false),
            (When(vec![main.clone()]), on(Some(""), None, None), false),
            (When(vec![tagged.clone()]), on(None, Some("v1"), None), true),
            (When(vec![tagged.clone()]), on(None, Some("v1-rc1"), None), false),
            (When(vec![main, tagged]), on(None, Some("v1"), None), true),
            (When(vec![code.clone()]), on(Some("main"), None, None), true),
            (When(vec![code.clone()]), on(Some("main"), None, Some(&paths)), true),
            (When(vec![code.clone()]), on(Some("main"), None, Some(&paths[..1])), false),
            (When(vec![code]), on(Some("main"), None, Some(&[])), false),
        ] {
            assert_eq!(when.matches(&facts), want, "{when:?} {facts:?}");
        }
    }
}
