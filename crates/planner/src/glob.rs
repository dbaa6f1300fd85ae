//! Globs of units, parsed once: most are a plain name or have a single `*`.

use sealift_model::glob_matches;

/// Matches exactly what [`glob_matches`] matches.
#[derive(Debug, Clone)]
pub(crate) enum Glob {
    Exact(String),
    /// Text, one `*`, text.
    Around(String, String),
    Other(String),
}

impl Glob {
    pub(crate) fn new(pattern: &str) -> Glob {
        if pattern.contains(['?', '[', '\\']) {
            return Glob::Other(pattern.to_owned());
        }
        match pattern.split_once('*') {
            None => Glob::Exact(pattern.to_owned()),
            Some((before, after)) if !after.contains('*') => Glob::Around(before.into(), after.into()),
            Some(_) => Glob::Other(pattern.to_owned()),
        }
    }

    /// `name` is a unit's name, which holds no `/`.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Glob::Exact(text) => text == name,
            Glob::Around(before, after) => {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            }
            Glob::Other(pattern) => glob_matches(pattern, name),
        }
    }

    /// What every name that matches begins with.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Glob::Exact(text) => text,
            Glob::Around(before, _) => before,
            Glob::Other(pattern) => pattern.split(['*', '?', '[', '\\']).next().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_the_model_does() {
        let patterns =
            ["a.service", "a*", "*e", "a*e", "*", "a*b*c", "a?b", "[ab]*", "aa*aa", "", "a\\*", "ab*bc"];
        for pattern in patterns {
            for name in
                ["a.service", "a", "ab", "aab", "aa", "aaa", "aaaa", "abc", "a*", "be", "", "axbxc", "abbc"]
            {
                let glob = Glob::new(pattern);
                assert_eq!(glob.matches(name), glob_matches(pattern, name), "{pattern} {name}");
                assert!(!glob.matches(name) || name.starts_with(glob.prefix()), "{pattern} {name}");
            }
        }
    }
}
