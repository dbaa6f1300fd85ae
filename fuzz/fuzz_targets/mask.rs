//! However output is cut, no secret gets through in a form that the documentation names, and all else is told unchanged.
#![no_main]

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use sealift_pipeline::fuzzing::{forms, mask};

/// Encoded, a shorter value leaves too few digits that do not depend on its neighbours.
const SHORTEST: usize = 9;
const MASKED: &str = "***";

libfuzzer_sys::fuzz_target!(|input: (Vec<String>, Vec<(u8, u8, String)>, Vec<u8>)| {
    let (values, parts, cuts) = input;
    // A star in a secret could be that of another one's mask.
    let values: Vec<String> =
        values.into_iter().take(4).map(|value| value.replace('*', "+")).filter(|v| v.len() < 256).collect();
    let secrets: Vec<(String, String)> = values.iter().map(|value| ("S".to_owned(), value.clone())).collect();

    let mut text = String::new();
    let mut hidden: Vec<String> = Vec::new();
    for (kind, which, word) in &parts {
        match values.get(usize::from(*which) % values.len().max(1)) {
            Some(value) if kind % 12 != 0 => {
                let shown = shown(kind % 12, value.trim(), word);
                text.push_str(&shown);
                if value.trim().len() >= SHORTEST {
                    hidden.push(shown);
                }
            }
            _ => text.push_str(&word.replace('*', "+")),
        }
    }

    let Some(pieces) = mask(&secrets, &cut(&text, &cuts)) else { return };
    let told: String =
        pieces.iter().flat_map(|(text, partial)| [text.as_str(), if *partial { "" } else { "\n" }]).collect();
    assert_eq!(told, expected(&text, &values), "{values:?} in {text:?}");
    for shown in hidden {
        assert!(!told.contains(&shown), "{shown:?} in {told:?}, of {values:?}");
    }
});

/// A secret as a step may print it.
fn shown(kind: u8, secret: &str, word: &str) -> String {
    match kind {
        1 => STANDARD.encode(secret),
        2 => STANDARD.encode(format!("{word}:{secret}")),
        3 => STANDARD.encode(format!("{secret}\n{word}")),
        4 => URL_SAFE.encode(format!("{word}{secret}{word}")),
        5 => hex(secret, "").to_lowercase(),
        6 => hex(secret, ""),
        7 => percent(secret, "-_.~"),
        8 => percent(secret, "-_.!~*'()"),
        9 => format!("'{}'", secret.replace('\'', "'\\''")),
        10 => serde_json::Value::from(secret).to_string(),
        _ => secret.to_owned(),
    }
}

fn hex(text: &str, before: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        write!(out, "{before}{byte:02X}").unwrap();
        out
    })
}

fn percent(text: &str, plain: &str) -> String {
    let one = |c: char| match c {
        c if c.is_ascii_alphanumeric() || plain.contains(c) => c.to_string(),
        c => hex(&c.to_string(), "%"),
    };
    text.chars().map(one).collect()
}

/// Pieces of lines, as the reader of lines gives them.
fn cut(text: &str, cuts: &[u8]) -> Vec<(String, bool)> {
    let mut pieces = Vec::new();
    let mut cuts = cuts.iter().cycle();
    for line in text.split_inclusive('\n') {
        let (mut rest, partial) = line.strip_suffix('\n').map_or((line, true), |line| (line, false));
        while let Some(cut) = cuts.next()
            && let Some((at, _)) = rest.char_indices().nth(usize::from(*cut))
        {
            pieces.push((rest[..at].to_owned(), true));
            rest = &rest[at..];
            if pieces.len() > 4096 {
                break;
            }
        }
        pieces.push((rest.to_owned(), partial));
    }
    pieces
}

/// The text without whatever is looked for, found byte by byte.
fn expected(text: &str, values: &[String]) -> String {
    let bytes = text.as_bytes();
    let forms: Vec<String> = values.iter().flat_map(|value| forms(value)).collect();
    // How many bytes from each place on are covered, at least by one form.
    let mut out = String::new();
    let mut at = 0;
    let longest = |at: usize| {
        let found = forms.iter().filter(|form| bytes[at..].starts_with(form.as_bytes()));
        found.map(String::len).max()
    };
    while at < bytes.len() {
        let Some(length) = longest(at) else {
            let next = (at + 1..=bytes.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(bytes.len());
            out.push_str(&text[at..next]);
            at = next;
            continue;
        };
        let mut end = at + length;
        while at < end {
            end = end.max(at + longest(at).unwrap_or(0));
            at += 1;
        }
        out.push_str(MASKED);
    }
    out
}
