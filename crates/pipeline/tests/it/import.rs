//! Files of other tools and the wercker.yml that is made of them; `SEALIFT_BLESS=1` writes these anew.

use std::path::Path;

use proptest::prelude::*;
use sealift_model::diagnostic::Severity;
use sealift_pipeline::config::parse;
use sealift_pipeline::import::{Error, Format, Imported, import};

const FILES: [(&str, &str, &str); 4] = [
    (".gitlab-ci.yml", include_str!("import/gitlab-ci.yml"), "gitlab-ci"),
    (".github/workflows/ci.yml", include_str!("import/github.yml"), "github"),
    (".woodpecker.yml", include_str!("import/woodpecker.yml"), "woodpecker"),
    ("compose.yml", include_str!("import/compose.yml"), "compose"),
];

#[test]
fn what_maps_is_taken_over_and_the_rest_is_told() {
    for (name, text, stem) in FILES {
        let Imported { text: made, notes } = import(name, text, None).unwrap();
        let (config, found) = parse(&made).unwrap();
        assert_eq!(found, [], "{made}");
        for workflow in &config.workflows {
            workflow.graph(&config).unwrap();
        }
        let golden =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/import/{stem}.wercker.yml"));
        if std::env::var_os("SEALIFT_BLESS").is_some() {
            std::fs::write(&golden, &made).unwrap();
        }
        assert_eq!(made, std::fs::read_to_string(&golden).unwrap(), "{stem}");
        // Each note stands in the file too, with its line.
        for note in &notes {
            assert!(note.severity == Severity::Warning && note.line <= text.lines().count(), "{note:?}");
            assert!(made.contains(&format!("#   {}: {}", note.line, note.message)), "{note:?}");
        }
    }
}

fn made(name: &str, text: &str) -> String {
    let imported = import(name, text, None).unwrap_or_else(|error| panic!("{error:?}"));
    imported.text.lines().skip_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// One construct at a time: what must be in the wercker.yml.
#[test]
fn constructs() {
    let gitlab = |job: &str| made(".gitlab-ci.yml", &format!("image: a\nj:\n  script: x\n{job}"));
    for (job, want) in [
        ("  needs: [k]\nk:\n  script: y\n", "\nj:\n  needs: [k]\n"),
        ("  extends: .b\n.b:\n  image: c\n", "box: c\n"),
        ("  when: manual\n", "  approval: true\n"),
        ("  allow_failure: true\n", "  soft-fail: true\n"),
        ("  retry: {max: 2}\n", "  retry: 2\n"),
        ("  only: [tags]\n", "  when:\n    tag: ['**']\n"),
        ("  except: [dev]\n", "  when:\n    branch: ['!dev']\n"),
        ("  rules: [{changes: [src/*]}]\n", "  when:\n    path: ['src/*']\n"),
        ("  rules: [{if: '$CI_COMMIT_TAG =~ /^v/'}]\n", "  when:\n    tag: ['v**']\n"),
        ("  cache: {key: $CI_COMMIT_REF_NAME, paths: [a]}\n", "    key: '${WERCKER_GIT_BRANCH}'\n"),
        ("  rules: [{if: $CI_PIPELINE_SOURCE == \"schedule\"}]\n", "  approval: true\n"),
        ("  only: [schedules]\n", "  approval: true\n"),
        ("workflows:\n  script: y\n", "\njob-workflows:\n"),
    ] {
        let text = gitlab(job);
        assert!(text.contains(want), "{job}\n{text}");
    }
    let github = |job: &str| {
        made("w.yml", &format!("on: push\njobs:\n  j:\n    container: a\n{job}    steps: [{{run: x}}]\n"))
    };
    for (job, want) in [
        ("    if: startsWith(github.ref, 'refs/tags/v')\n", "  when:\n    tag: 'v**'\n"),
        ("    if: github.event_name == 'release'\n", "  approval: true\n"),
        ("    strategy: {matrix: {a: [x], exclude: [{b: y}]}}\n", "  matrix:\n    A: [x]\n  steps"),
        ("    continue-on-error: true\n", "  soft-fail: true\n"),
        ("    concurrency: deploy-${{ github.ref }}\n", "    group: 'deploy-{{ branch }}'\n"),
        ("    env: {A: '${{ secrets.B }}'}\n", "    - from: B\n      as: A\n"),
    ] {
        let text = github(job);
        assert!(text.contains(want), "{job}\n{text}");
    }
}

#[test]
fn what_cannot_be_told_or_read_is_refused() {
    assert!(matches!(import("x.yml", "a: b\n", None), Err(Error::Unknown)));
    assert!(matches!(import("x.yml", "", None), Err(Error::Read { .. })));
    assert!(matches!(import("x.yml", "a: [\n", None), Err(Error::Read { .. })));
    let week = "image: a\nj:\n  script: x\n  timeout: 7d\n";
    let Err(Error::Result { diagnostics, .. }) = import(".gitlab-ci.yml", week, None) else { panic!() };
    assert!(diagnostics[0].message.contains("longer than 24h"), "{diagnostics:?}");
}

proptest! {
    #![proptest_config(crate::fuzz::cases(300))]

    /// Nothing panics, and what comes out is never a file that is refused.
    #[test]
    fn changed_files(
        file in proptest::sample::select(&FILES[..]),
        format in proptest::sample::select(&[Format::Gitlab, Format::Github, Format::Woodpecker, Format::Compose][..]),
        changes in proptest::collection::vec((any::<usize>(), any::<usize>(), "[-:\\[\\]{}a$/'! \n]{0,3}"), 0..6),
    ) {
        let mut lines: Vec<String> = file.1.lines().map(str::to_owned).collect();
        for (at, to, word) in changes {
            let (at, to) = (at % lines.len(), to % lines.len());
            lines.swap(at, to);
            lines[at].push_str(&word);
        }
        let text = lines.join("\n");
        for format in [None, Some(format)] {
            if let Ok(imported) = import(file.0, &text, format) {
                prop_assert!(parse(&imported.text).is_ok());
            }
        }
    }
}

#[test]
fn what_comes_from_around_the_file_is_told() {
    let told = |name: &str, text: &str| -> Vec<String> {
        import(name, text, None)
            .unwrap()
            .notes
            .into_iter()
            .map(|note| format!("{} {}", note.line, note.message))
            .collect()
    };
    let compose = "services:\n  db:\n    image: pg:${V:-15}-x\n    environment: [A=1, B]\n";
    assert!(made("compose.yml", compose).contains("pg:15-x"));
    let notes = told("compose.yml", compose).join("\n");
    assert!(notes.contains("3 service db: `${V:-15}` is taken as 15"), "{notes}");
    assert!(notes.contains("4 service db: `environment: B` has no value here"), "{notes}");
    let github = "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo A=1 >> $GITHUB_ENV\n";
    let notes = told(".github/workflows/a.yml", github).join("\n");
    assert!(notes.contains("6 job a: `$GITHUB_ENV`: `export` it"), "{notes}");
}
