//! Any text is read without a panic, and what is said of it lies inside of it.
//!
//! `SEALIFT_FUZZ_CASES=100000` makes the loops longer.

use proptest::prelude::*;
use sealift_pipeline::config::keys::MAPS;

use crate::promises::config_holds;

/// Files with all there is in them.
const SEEDS: [&str; 4] = [
    include_str!("seeds/wercker.yml"),
    include_str!("seeds/sealift.yml"),
    include_str!("seeds/settings.yml"),
    include_str!("seeds/broken.yml"),
];

pub(crate) fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("SEALIFT_FUZZ_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(default), failure_persistence: None, ..ProptestConfig::default() }
}

/// A change to a text: what to do, where (a part of the whole), and with what.
fn change() -> impl Strategy<Value = (u8, usize, usize, String)> {
    let names: Vec<String> = MAPS
        .iter()
        .flat_map(|map| map.keys)
        .flat_map(|key| [format!("{}: {}", key.name, key.example), key.name.to_owned()])
        .collect();
    let word = prop_oneof![
        proptest::sample::select(names),
        "[-:\\[\\]{}&*!|>'\"#,% \n\t~?@$a0é]{1,3}",
        any::<char>().prop_map(String::from),
    ];
    (0_u8..5, any::<usize>(), any::<usize>(), word)
}

fn apply(text: &str, (kind, at, to, word): (u8, usize, usize, String)) -> String {
    let lines = kind >= 3;
    let mut parts: Vec<String> = if lines {
        text.split_inclusive('\n').map(str::to_owned).collect()
    } else {
        text.chars().map(String::from).collect()
    };
    if parts.is_empty() {
        return word;
    }
    let (at, to) = (at % parts.len(), to % parts.len());
    match kind {
        0 => parts.insert(at, word),
        1 => parts[at] = word,
        2 => drop(parts.drain(at.min(to)..(at.min(to) + 3).min(parts.len()))),
        3 => parts.swap(at, to),
        _ => {
            let line = parts[at].clone();
            parts.insert(to, line);
        }
    }
    parts.concat()
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn any_text(text in prop_oneof![any::<String>(), "[-a-z:&*<> \\[\\]{}\"'#|\n\t,!%@~é]{0,120}"]) {
        config_holds(&text);
    }

    #[test]
    fn a_changed_file(seed in proptest::sample::select(&SEEDS[..]), changes in proptest::collection::vec(change(), 0..8)) {
        let text = changes.into_iter().fold(seed.to_owned(), |text, change| apply(&text, change));
        config_holds(&text);
    }
}
