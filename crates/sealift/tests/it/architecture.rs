//! The floors of ARCHITECTURE.md: an arrow between our crates only goes down.

use std::collections::BTreeMap;

/// From the ground up. A crate may use crates of lower floors only.
const FLOORS: &[&[&str]] = &[
    &["sealift-model"],
    &["sealift-unitfile", "sealift-store"],
    &["sealift-planner", "sealift-client", "sealift-access", "sealift-package", "sealift-pipeline"],
    &["sealift-server", "sealift-agent"],
    &["sealift", "lab"],
];

/// Arrows that a floor alone would allow but the house does not.
const NEVER: &[(&str, &str)] = &[
    ("sealift-planner", "sealift-store"),
    ("sealift-planner", "sealift-unitfile"),
    ("sealift-agent", "sealift-store"),
    ("sealift-agent", "sealift-planner"),
    ("sealift-server", "sealift-pipeline"),
    ("sealift-pipeline", "sealift-unitfile"),
    ("sealift-pipeline", "sealift-store"),
    ("sealift-package", "sealift-store"),
];

/// What the program is made of, by crate: our own crates that it uses, or is built with, outside of tests.
fn arrows() -> BTreeMap<String, Vec<String>> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let uses = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap();
        let product = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
        let names = product.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("sealift")).collect()
    };
    packages.iter().map(|package| (package["name"].as_str().unwrap().to_owned(), uses(package))).collect()
}

fn wrong(arrows: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    let mut wrong = Vec::new();
    for (from, uses) in arrows {
        let Some(height) = floor(from) else {
            wrong.push(format!("{from} has no floor"));
            continue;
        };
        for to in uses {
            if floor(to).is_none_or(|below| below >= height) {
                wrong.push(format!("{from} -> {to} goes up or sideways"));
            }
            if NEVER.contains(&(from, to)) {
                wrong.push(format!("{from} -> {to} is never allowed"));
            }
        }
    }
    wrong
}

#[test]
fn arrows_only_go_down() {
    let arrows = arrows();
    assert_eq!(arrows.len(), FLOORS.iter().map(|floor| floor.len()).sum::<usize>(), "{arrows:?}");
    assert_eq!(wrong(&arrows), Vec::<String>::new());
}

#[test]
fn an_arrow_that_goes_up_is_found() {
    let mut arrows = arrows();
    arrows.get_mut("sealift-model").unwrap().push("sealift-server".into());
    arrows.get_mut("sealift-agent").unwrap().push("sealift-store".into());
    assert_eq!(
        wrong(&arrows),
        [
            "sealift-agent -> sealift-store is never allowed",
            "sealift-model -> sealift-server goes up or sideways"
        ]
    );
}
