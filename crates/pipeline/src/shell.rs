//! The little of the shell's own grammar that is needed to speak to one: quoting, splitting, names.
//!
//! It must not know what is said.

/// A script that becomes the shell which people and steps expect in a box.
pub(crate) const BEST: &str = "if [ -x /bin/bash ]; then exec /bin/bash; fi; exec /bin/sh";

/// `text` as one word that the shell leaves as it is.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `text` as one word in which the shell still fills in `$NAME` and `$(..)`; a newline arrives as `\n`. This is how
/// the reference handed properties to steps, and steps rely on it.
pub(crate) fn quote_expanding(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' | '`' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether the shell takes it as the name of a variable.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

/// A part of a variable's name: upper case, everything else an underscore.
pub(crate) fn upper_name(text: &str) -> String {
    text.to_uppercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Splits a command into words by blanks, quotes and backslashes; nothing is filled in.
pub(crate) fn split(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quote_expanding("a\"b\\c`d $X\ne"), "\"a\\\"b\\\\c\\`d $X\\ne\"");
    }

    #[test]
    fn splits_words() {
        assert_eq!(split(r#"sh -c "a b" 'c'd e\ f """#), ["sh", "-c", "a b", "cd", "e f", ""]);
        assert_eq!(split("  "), Vec::<String>::new());
    }

    #[test]
    fn names() {
        assert!(is_name("A_1") && !is_name("1A") && !is_name("A-B") && !is_name(""));
        assert_eq!(upper_name("my-step.x"), "MY_STEP_X");
    }
}
