//! Conditions on branch, tag and changed paths: `when:` of a pipeline or a step.
//!
//! Guarantees: pure; the work is bounded by the length of pattern times the length of name.
//!
//! It must not know where branch, tag and paths come from.

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
        let any = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Char(char),
    /// `?`: one character of a part.
    One,
    /// `*`: characters of one part.
    Part,
    /// `**`: any characters.
    All,
    /// `**/`: nothing, or whole parts.
    Parts,
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '?' => Token::One,
            '*' if rest.next_if_eq(&'*').is_some() => {
                let starts_part = matches!(tokens.last(), None | Some(Token::Char('/') | Token::Parts));
                if starts_part && rest.next_if_eq(&'/').is_some() { Token::Parts } else { Token::All }
            }
            '*' => Token::Part,
            '\\' => Token::Char(rest.next().unwrap_or('\\')),
            c => Token::Char(c),
        });
    }
    if pattern.ends_with('/') {
        tokens.push(Token::All);
    }
    tokens
}

/// Whether the whole name matches.
fn glob(pattern: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    // For each length of the name's beginning, whether the tokens so far match it.
    let mut reached = vec![false; name.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for token in tokens(pattern) {
        let mut next = vec![false; reached.len()];
        let mut carried = false;
        for (length, was) in reached.iter().enumerate() {
            let last = length.checked_sub(1).and_then(|index| name.get(index)).copied();
            let one_shorter = length.checked_sub(1).and_then(|index| reached.get(index)).copied();
            let matched = match token {
                Token::Char(c) => last == Some(c) && one_shorter == Some(true),
                Token::One => last.is_some_and(|last| last != '/') && one_shorter == Some(true),
                Token::Part => {
                    carried = *was || (carried && last != Some('/'));
                    carried
                }
                Token::All => {
                    carried |= *was;
                    carried
                }
                Token::Parts => {
                    let matched = *was || (carried && last == Some('/'));
                    carried |= *was;
                    matched
                }
            };
            if let Some(place) = next.get_mut(length) {
                *place = matched;
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, want) in [
            ("main", "main", true),
            ("main", "maint", false),
            ("*", "feature/x", false),
            ("feature/*", "feature/x", true),
            ("feature/*", "feature/x/y", false),
            ("feature/**", "feature/x/y", true),
            ("v?.*", "v1.2", true),
            ("v?.*", "v10.2", false),
            ("**", "a/b", true),
            ("**/x.rs", "x.rs", true),
            ("**/x.rs", "a/b/x.rs", true),
            ("**/x.rs", "a/yx.rs", false),
            ("src/**/x.rs", "src/x.rs", true),
            ("src/**/x.rs", "src/a/b/x.rs", true),
            ("docs/", "docs/a/b.md", true),
            ("docs/", "docs", false),
            ("*.md", "a.md", true),
            ("*.md", "a/b.md", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "", true),
            ("é*", "éa", true),
        ] {
            assert_eq!(glob(pattern, name), want, "{pattern} {name}");
        }
    }

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

    proptest! {
        #[test]
        fn a_name_matches_itself_and_two_stars(name in "[a-z/.]{0,20}") {
            prop_assert!(name.ends_with('/') || glob(&name, &name));
            prop_assert!(glob("**", &name));
            prop_assert_eq!(glob("*", &name), !name.contains('/'));
        }

        #[test]
        fn any_pattern_ends(pattern in "[*a/?]{0,40}", name in "[a/]{0,40}") {
            glob(&pattern, &name);
        }
    }
}
