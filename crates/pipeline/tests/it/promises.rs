//! What holds for any text, whoever wrote it. The tests here use it, and the targets in `fuzz/`.

use sealift_model::diagnostic::{Diagnostic, Severity};
use sealift_pipeline::config::{Workflow, parse, strict, tree};
use sealift_pipeline::import::{Error, Format, import};

/// A wercker.yml is read or refused, and what is said of it lies inside of it.
pub(crate) fn config_holds(text: &str) {
    let (config, found) = match parse(text) {
        Ok((config, found)) => (Some(config), found),
        Err(found) => {
            assert!(!found.is_empty(), "refused without a word: {text:?}");
            (None, found)
        }
    };
    lie_inside(text, &found);
    let errors = strict(found.clone());
    assert!(errors.len() == found.len() && errors.iter().all(|d| d.severity == Severity::Error));
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

/// A file of another tool is refused, or makes a wercker.yml that is read without an error.
pub(crate) fn import_holds(name: &str, text: &str, format: Option<Format>) {
    match import(name, text, format) {
        Ok(imported) => {
            lie_inside(text, &imported.notes);
            let (_, found) = parse(&imported.text).unwrap_or_else(|found| panic!("{found:?} of {text:?}"));
            assert!(found.iter().all(|d| d.severity != Severity::Error), "{found:?} of {text:?}");
            config_holds(&imported.text);
        }
        Err(Error::Read { diagnostics }) => {
            assert!(!diagnostics.is_empty(), "refused without a word: {text:?}");
            lie_inside(text, &diagnostics);
        }
        Err(Error::Result { text: made, diagnostics }) => {
            assert!(diagnostics.iter().any(|d| d.severity == Severity::Error), "{text:?}");
            lie_inside(&made, &diagnostics);
        }
        Err(Error::Unknown) => assert_eq!(format, None),
    }
}

fn lie_inside(text: &str, found: &[Diagnostic]) {
    let lines: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    for d in found {
        let width = d.line.checked_sub(1).and_then(|index| lines.get(index)).copied();
        let width = width.unwrap_or_else(|| {
            assert!(lines.is_empty() && d.line == 1, "{d:?} of {text:?}");
            0
        });
        assert!(d.column >= 1 && d.column <= width.max(1), "{d:?} of {text:?}");
        assert!(d.length >= 1 && d.column + d.length - 1 <= width.max(1), "{d:?} of {text:?}");
        assert!(d.render("f", text).contains(&d.message));
    }
}
