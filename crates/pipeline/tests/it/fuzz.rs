//! Any text is read without a panic, and what is said of it lies inside of it.
//!
//! `SEALIFT_FUZZ_CASES=100000` makes the loops longer.

use proptest::prelude::*;
use sealift_pipeline::config::{Workflow, keys::MAPS, parse, tree};

/// Files with all there is in them.
const SEEDS: [&str; 4] = [
    "box: a\nservices: [redis, {id: b, env: {A: b}}]\nbuild:\n  box: {id: c, ports: [80]}\n  steps:\n    - script:\n        name: x\n        code: |\n          make\n    - script:\n      code: y\n    - me/x@1: {flag: yes}\n  after-steps: [a]\n  prod: [b]\nworkflows:\n  - name: w\n    pipelines: [{name: build}, {name: t, pipelineName: build, requires: [build]}]\n",
    "sealift: 1\nbox: a\nx-held: &held {steps: [a]}\nbuild:\n  <<: *held\n  when: [{branch: [main, '!x'], path: src/}, {tag: 'v*'}]\n  matrix: {A: [1, 2], B: [x], exclude: [{A: 1}], include: [{A: 3}]}\n  retry: {attempts: 2, delay: 1s, on: [failed]}\n  secrets: [A, {from: B, as: C}]\n  cache: {key: '${A}-{{ checksum x }}', fallback: a, paths: [b]}\ntest:\n  needs: [build]\n  artifacts: {from: build}\n  approval: Really?\n  concurrency: {group: '{{ branch }}', cancel-superseded: true}\n  steps:\n    - script: {code: x, retry: 1, timeout: 1m, env: {A: b}, soft-fail: [1]}\nworkflows:\n  - {name: w, stages: [build, [test]]}\n",
    "sealift: 1\nbox: {id: a, user: x, memory: 1g, cpus: 0.5}\nservices: [{id: r, ready: {port: 1, timeout: 3s}, aliases: [b]}]\nbuild: {timeout: 1h, publish: [a], soft-fail: true, steps: [a]}\n---\nbox: b\n",
    "build:\n\tsteps:\n- é: ü\n",
];

pub(crate) fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("SEALIFT_FUZZ_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(default), failure_persistence: None, ..ProptestConfig::default() }
}

fn hold(text: &str) {
    let (config, found) = match parse(text) {
        Ok((config, found)) => (Some(config), found),
        Err(found) => {
            assert!(!found.is_empty(), "refused without a word: {text:?}");
            (None, found)
        }
    };
    let lines: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    for d in &found {
        let width = d.line.checked_sub(1).and_then(|index| lines.get(index)).copied();
        let width = width.unwrap_or_else(|| {
            assert!(lines.is_empty() && d.line == 1, "{d:?} of {text:?}");
            0
        });
        assert!(d.column >= 1 && d.column <= width.max(1), "{d:?} of {text:?}");
        assert!(d.length >= 1 && d.column + d.length - 1 <= width.max(1), "{d:?} of {text:?}");
        assert!(d.render("f", text).contains(&d.message));
    }
    if let Some(config) = config {
        assert!(tree(&config)["pipelines"].is_object());
        for workflow in &config.workflows {
            assert_eq!(workflow.graph(&config).is_err(), workflow.problem.is_some(), "{text:?}");
        }
        for pipeline in &config.pipelines {
            Workflow::of(&config, pipeline).graph(&config).ok();
        }
    }
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
        hold(&text);
    }

    #[test]
    fn a_changed_file(seed in proptest::sample::select(&SEEDS[..]), changes in proptest::collection::vec(change(), 0..8)) {
        let text = changes.into_iter().fold(seed.to_owned(), |text, change| apply(&text, change));
        hold(&text);
    }
}
