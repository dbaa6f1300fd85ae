//! The shell globs of `[X-Fleet]`, as Go's `path.Match` read them for fleet.

/// Whether the whole `name` matches `pattern`: `*` any characters, `?` one character, `[a-z]` and `[^a-z]` a class,
/// `\` takes the next character literally; `*` and `?` do not match `/`. A pattern that is not well formed
/// matches nothing.
#[must_use]
pub fn glob_matches(pattern: &str, name: &str) -> bool {
    if !pattern.contains(['*', '?', '[', '\\']) {
        return pattern == name;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut in_name) = (0, 0);
    // Where to go on when the last `*` has to take one character more.
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() || at < pattern.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at + 1, in_name));
            at += 1;
            continue;
        }
        if let Some(c) = name.get(in_name)
            && let Some(next) = match_one(&pattern, at, *c)
        {
            (at, in_name) = (next, in_name + 1);
            continue;
        }
        match star {
            Some((after, from)) if name.get(from).is_some_and(|c| *c != '/') => {
                star = Some((after, from + 1));
                (at, in_name) = (after, from + 1);
            }
            _ => return false,
        }
    }
    true
}

/// Matches one character at `at` of the pattern; gives the place after the element that matched.
fn match_one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => (c != '/').then_some(at + 1),
        '\\' => (*pattern.get(at + 1)? == c).then_some(at + 2),
        '[' => match_class(pattern, at + 1, c),
        literal => (*literal == c).then_some(at + 1),
    }
}

fn match_class(pattern: &[char], mut at: usize, c: char) -> Option<usize> {
    let negated = pattern.get(at) == Some(&'^');
    at += usize::from(negated);
    let mut found = false;
    let mut ranges = 0;
    while ranges == 0 || pattern.get(at)? != &']' {
        let (low, after) = class_char(pattern, at)?;
        at = after;
        let mut high = low;
        if pattern.get(at)? == &'-' {
            (high, at) = class_char(pattern, at + 1)?;
        }
        found |= (low..=high).contains(&c);
        ranges += 1;
    }
    (found != negated).then_some(at + 1)
}

fn class_char(pattern: &[char], at: usize) -> Option<(char, usize)> {
    match pattern.get(at)? {
        '-' | ']' => None,
        '\\' => Some((*pattern.get(at + 1)?, at + 2)),
        c => Some((*c, at + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::glob_matches;

    #[test]
    fn matches_by_table() {
        for (pattern, name, matches) in [
            ("web.service", "web.service", true),
            ("web.service", "web2.service", false),
            ("", "", true),
            ("*", "", true),
            ("*", "web@1.service", true),
            ("web@*.service", "web@1.service", true),
            ("web@*.service", "web@.service", true),
            ("web@*.service", "web.service", false),
            ("web@*.service", "web@1.service.d", false),
            ("*a*b*", "xaxxbx", true),
            ("*a*b*", "xbxxax", false),
            ("web?.service", "web1.service", true),
            ("web?.service", "web.service", false),
            ("?", "\u{e4}", true),
            ("web[0-3].service", "web3.service", true),
            ("web[0-3].service", "web4.service", false),
            ("web[^0-3].service", "web4.service", true),
            ("web[^0-3].service", "web1.service", false),
            ("[abx]", "x", true),
            ("[a\\-z]", "-", true),
            ("[a\\-z]", "b", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*", "a/b", false),
            ("?", "/", false),
            // Not well formed.
            ("[", "[", false),
            ("[a", "a", false),
            ("[]", "]", false),
            ("[]a]", "a", false),
            ("[-x]", "x", false),
            ("[a-]", "a", false),
            ("a\\", "a", false),
        ] {
            assert_eq!(glob_matches(pattern, name), matches, "{pattern:?} {name:?}");
        }
    }
}
