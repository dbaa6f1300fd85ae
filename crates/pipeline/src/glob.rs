//! Patterns for names with `*`, `?` and `**`.
//!
//! Guarantees: pure; the work is bounded by the length of pattern times the length of name.
//!
//! It must not know what the names are of.

/// A pattern for whole names: `*` and `?` stop at `/`, `**` does not, `\` takes away what the next character means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Glob(Vec<Token>);

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Char(char),
    /// `?`: one character of a part.
    One,
    /// `[a-z]`, `[^a-z]`: one character of a part, out of these ranges or of none of them.
    OneOf {
        ranges: Vec<(char, char)>,
        not: bool,
    },
    /// `*`: characters of one part.
    Part,
    /// `**`: any characters.
    All,
    /// `**/`: nothing, or whole parts.
    Parts,
}

impl Glob {
    /// One that may end in `/`, which means all below it.
    pub(crate) fn new(pattern: &str) -> Glob {
        let mut tokens = tokens(pattern, false);
        if pattern.ends_with('/') {
            tokens.push(Token::All);
        }
        Glob(tokens)
    }

    /// One that knows `[a-z]` as well.
    pub(crate) fn with_sets(pattern: &str) -> Glob {
        Glob(tokens(pattern, true))
    }

    /// Whether the whole name matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // For each length of the name's beginning, whether the tokens so far match it.
        let mut reached = vec![false; name.len() + 1];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        for token in &self.0 {
            let mut next = vec![false; reached.len()];
            let mut carried = false;
            for (length, was) in reached.iter().enumerate() {
                let last = length.checked_sub(1).and_then(|index| name.get(index)).copied();
                let one_shorter = length.checked_sub(1).and_then(|index| reached.get(index)).copied();
                let matched = match token {
                    Token::Char(c) => last == Some(*c) && one_shorter == Some(true),
                    Token::One => last.is_some_and(|last| last != '/') && one_shorter == Some(true),
                    Token::OneOf { ranges, not } => {
                        let within = |c: char| ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                        last.is_some_and(|last| last != '/' && within(last) != *not)
                            && one_shorter == Some(true)
                    }
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
}

fn tokens(pattern: &str, sets: bool) -> Vec<Token> {
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
            '[' if sets => set(&mut rest),
            c => Token::Char(c),
        });
    }
    tokens
}

/// What stands between `[` and `]`. One without an end goes to the end of the pattern.
fn set(rest: &mut impl Iterator<Item = char>) -> Token {
    let mut rest = rest.take_while(|c| *c != ']').peekable();
    let not = rest.next_if(|c| matches!(c, '^' | '!')).is_some();
    let mut ranges = Vec::new();
    while let Some(from) = rest.next() {
        let to = if rest.next_if_eq(&'-').is_some() { rest.next().unwrap_or('-') } else { from };
        ranges.push((from, to));
    }
    Token::OneOf { ranges, not }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).matches(name)
    }

    #[test]
    fn sets() {
        for (pattern, name, want) in [
            ("*.py[cod]", "a.pyc", true),
            ("*.py[cod]", "a.py", false),
            ("*.py[cod]", "a.pyx", false),
            ("[a-c0]x", "bx", true),
            ("[a-c0]x", "0x", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("a[^x]b", "a/b", false),
            ("\\[a]", "[a]", true),
            ("[a", "a", true),
        ] {
            assert_eq!(Glob::with_sets(pattern).matches(name), want, "{pattern} {name}");
        }
        assert!(glob("[a]", "[a]"));
    }

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
