//! The forms in which a secret may turn up in output: as it is, by lines, in base64, percent-encoded, in hex, quoted.
//!
//! It must not know where they are looked for.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A value shorter than this (in bytes) is not looked for: it would take half of all output with it.
pub(crate) const SHORTEST: usize = 4;
/// The shortest part of an encoded value, or line of a longer one, that is looked for.
const SHORTEST_PART: usize = 8;
/// Where the usual tools wrap base64: base64(1), PEM files.
const WRAPS: [usize; 2] = [76, 64];

/// All forms of one value, without doubles.
pub(crate) fn forms(value: &str) -> Vec<String> {
    let mut forms = Vec::new();
    let mut add = |form: String, shortest: usize| {
        if form.len() >= shortest && !forms.contains(&form) {
            forms.push(form);
        }
    };
    let trimmed = value.trim();
    for text in [value, trimmed] {
        add(text.to_owned(), SHORTEST);
    }
    if trimmed.len() < SHORTEST {
        return forms;
    }
    // A step that traces or prints a key shows it line by line, perhaps with something before each.
    for line in trimmed.lines() {
        add(line.trim().to_owned(), SHORTEST_PART);
    }
    let mut texts = vec![trimmed.to_owned()];
    if value != trimmed {
        texts.push(value.to_owned());
    }
    // `echo "$SECRET" | base64`
    texts.push(format!("{trimmed}\n"));
    for text in &texts {
        for encoded in base64_forms(text.as_bytes()) {
            add(encoded, SHORTEST_PART);
        }
        for wrap in WRAPS {
            let whole = STANDARD_NO_PAD.encode(text);
            if whole.len() > wrap {
                whole.as_bytes().chunks(wrap).for_each(|line| {
                    add(String::from_utf8_lossy(line).into_owned(), SHORTEST_PART);
                });
            }
        }
        for encoded in percent_forms(text) {
            add(encoded, SHORTEST);
        }
        let hex = crate::hex::hex(text.as_bytes());
        add(hex.to_uppercase(), SHORTEST_PART);
        add(hex, SHORTEST_PART);
    }
    add(trimmed.replace('\'', r"'\''"), SHORTEST);
    let doubly: String =
        trimmed.chars().flat_map(|c| if "\"\\$`".contains(c) { vec!['\\', c] } else { vec![c] }).collect();
    add(doubly, SHORTEST);
    add(trimmed.replace('\\', "\\\\").replace('\n', "\\n").replace('\'', "\\'"), SHORTEST);
    // `printf %q` and `set -x` of bash.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c) || !c.is_ascii();
    add(trimmed.chars().flat_map(|c| if plain(c) { vec![c] } else { vec!['\\', c] }).collect(), SHORTEST);
    let json = serde_json::Value::from(trimmed).to_string();
    add(json.trim_matches('"').to_owned(), SHORTEST);
    forms
}

/// Base64 of `bytes` wherever they stand in what is encoded: a byte's place modulo 3 decides its digits. The digits
/// that depend on the neighbours are left out.
fn base64_forms(bytes: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let mut all = vec![0; before];
        all.extend_from_slice(bytes);
        // The first digit that holds none of the bits before, and behind the last that holds no bits after.
        let (first, last) = ((before * 8).div_ceil(6), all.len() * 8 / 6);
        for encoded in [STANDARD_NO_PAD.encode(&all), URL_SAFE_NO_PAD.encode(&all)] {
            forms.push(encoded.get(first..last).unwrap_or_default().to_owned());
        }
    }
    forms
}

/// Percent-encoding as the usual functions do it: which characters they leave alone, and how they write the rest.
fn percent_forms(text: &str) -> Vec<String> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let encode = |plain: &dyn Fn(u8) -> bool, lower: bool, plus: bool| -> String {
        let one = |byte: u8| match byte {
            b' ' if plus => "+".to_owned(),
            byte if plain(byte) => char::from(byte).to_string(),
            byte if lower => format!("%{byte:02x}"),
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(one).collect()
    };
    let path = |byte: u8| unreserved(byte) || byte == b'/';
    let component = |byte: u8| unreserved(byte) || b"!*'()".contains(&byte);
    let mut forms = Vec::new();
    for lower in [false, true] {
        for plus in [false, true] {
            forms.push(encode(&unreserved, lower, plus));
            forms.push(encode(&path, lower, plus));
            forms.push(encode(&component, lower, plus));
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_the_usual_encodings() {
        let secret = "pa$$ wörd/+?&=x";
        let forms = forms(secret);
        let encoded = |text: &str| STANDARD_NO_PAD.encode(text);
        for (seen, why) in [
            (secret.to_owned(), "as it is"),
            (encoded(secret), "base64"),
            (encoded(&format!("user:{secret}")), "an Authorization header"),
            (encoded(&format!("x{secret}y")), "in the middle"),
            ("pa%24%24%20w%C3%B6rd%2F%2B%3F%26%3Dx".to_owned(), "URL"),
            ("pa%24%24+w%c3%b6rd%2f%2b%3f%26%3dx".to_owned(), "a form, lower case"),
            ("7061242420".to_owned() + "77c3b672642f2b3f263d78", "hex"),
        ] {
            assert!(forms.iter().any(|form| seen.contains(form.as_str())), "{why}: {seen}");
        }
    }

    #[test]
    fn short_values_are_left_alone() {
        assert_eq!(forms("abc"), Vec::<String>::new());
        assert_eq!(forms(" \n"), Vec::<String>::new());
        assert!(forms("abcd").contains(&"abcd".to_owned()));
    }

    proptest! {
        #[test]
        fn base64_is_found_wherever_it_stands(
            secret in prop::collection::vec(any::<u8>(), 9..60),
            before in prop::collection::vec(any::<u8>(), 0..9),
            after in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let whole = STANDARD_NO_PAD.encode([before, secret.clone(), after].concat());
            prop_assert!(base64_forms(&secret).iter().any(|form| form.len() >= 8 && whole.contains(form.as_str())));
        }
    }
}
