//! The corpus: real wercker.yml files and the trees that the reference CLI made of them (`EXPECT.json`), and made-up
//! edge cases (`EDGE.json`). It is not part of the project; `SEALIFT_CORPUS` names the folder.

use std::path::PathBuf;

use sealift_model::diagnostic::Severity;
use sealift_pipeline::config::{self, tree};
use serde_json::Value;

pub(crate) fn corpus() -> Option<PathBuf> {
    let dir = std::env::var_os("SEALIFT_CORPUS").map(PathBuf::from);
    if dir.is_none() {
        println!("SKIPPED: set SEALIFT_CORPUS to the folder of the wercker corpus to run this test");
    }
    dir
}

fn read(dir: &std::path::Path, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join(name)).unwrap()).unwrap()
}

#[test]
fn real_files_mean_what_they_meant() {
    let Some(dir) = corpus() else { return };
    let mut wrong = Vec::new();
    for (file, expected) in read(&dir, "EXPECT.json").as_object().unwrap() {
        let text = std::fs::read_to_string(dir.join(file)).unwrap();
        match (config::parse(&text), expected.get("error")) {
            (Err(found), Some(_)) => assert!(found.iter().all(|d| d.line > 0), "{file}"),
            (Ok((config, _)), None) if tree(&config) == *expected => {}
            (Ok((config, _)), _) => wrong.push(format!("{file}\n ours {}\n want {expected}", tree(&config))),
            (Err(found), _) => wrong.push(format!("{file} refused: {found:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn edge_cases_are_accepted_and_refused_alike() {
    let Some(dir) = corpus() else { return };
    let mut wrong = Vec::new();
    for case in read(&dir, "EDGE.json").as_object().unwrap().values() {
        let text = case["yaml"].as_str().unwrap();
        let accepted = case["check_config_rc"] == 0;
        match config::parse(text) {
            // Digests are an addition of ours.
            Ok(_) if !accepted && text.contains("@sha256") => {}
            Ok((config, found)) if tree(&config) == case["parse"] => {
                // A workflow that cannot be run does not keep the pipelines from it.
                let errors = found.iter().any(|d| d.severity == Severity::Error);
                if accepted && errors || !accepted && !errors {
                    wrong.push(format!("{text}\n found {found:?}"));
                }
            }
            Ok((config, _)) => {
                wrong.push(format!("{text}\n ours {}\n want {}", tree(&config), case["parse"]));
            }
            Err(_) if !accepted => {}
            Err(found) => wrong.push(format!("{text}\n refused: {found:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Edge cases that the reference took in whole.
const WHOLE: [&str; 10] = [
    "box int",
    "deploy target",
    "docker yes",
    "ignore-file",
    "internal unknown",
    "merge keys",
    "ports ints",
    "step 2-key flat",
    "step int",
    "step name int",
];

#[test]
fn what_is_dropped_is_told_and_nothing_else() {
    let Some(dir) = corpus() else { return };
    for (name, case) in read(&dir, "EDGE.json").as_object().unwrap() {
        let text = case["yaml"].as_str().unwrap();
        if case["check_config_rc"] == 0 {
            let (_, found) = config::parse(text).unwrap();
            assert_eq!(found.is_empty(), WHOLE.contains(&name.as_str()), "{name}: {found:?}");
        }
    }
    let mut told = Vec::new();
    for file in read(&dir, "EXPECT.json").as_object().unwrap().keys() {
        let text = std::fs::read_to_string(dir.join(file)).unwrap();
        let (Ok((_, found)) | Err(found)) = config::parse(&text);
        told.extend(found.iter().map(|d| format!("{} {}", &file[..2], d.message)));
    }
    // One is no YAML, one has a pipeline without steps, one a box of wercker's own registry with its version.
    assert_eq!(told.len(), 3, "{told:#?}");
}
