//! What is written of the built-in steps: manifests, pages, and the files that people have.

use std::collections::BTreeSet;
use std::path::Path;

use sealift_pipeline::config;
use sealift_pipeline::steps::{BUILTINS, Builtin, Manifest, StepSources, check};

fn upper(text: &str) -> String {
    text.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

fn manifest(builtin: &Builtin) -> Manifest {
    builtin.manifest().unwrap_or_else(|error| panic!("{}: {error}", builtin.name))
}

fn docs(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/steps").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn manifests_say_all_that_the_steps_read() {
    for builtin in BUILTINS {
        let manifest = manifest(builtin);
        assert_eq!(manifest.name.as_deref(), Some(builtin.name));
        assert!(manifest.version.is_some() && manifest.summary.is_some(), "{}", builtin.name);
        let prefix = format!("WERCKER_{}_", upper(builtin.name));
        let mut read: BTreeSet<&str> = BTreeSet::new();
        for (at, _) in builtin.run.match_indices(&prefix) {
            let rest = &builtin.run[at + prefix.len()..];
            let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            read.insert(&rest[..end]);
        }
        for property in &manifest.properties {
            let description = property.description.as_deref().unwrap_or_default();
            let kind = property.kind.as_deref().unwrap_or_default();
            assert!(["string", "bool", "int"].contains(&kind), "{}: {}", builtin.name, property.name);
            let unused = description.starts_with("Not used") || description.starts_with("Has no effect");
            let variable = upper(&property.name);
            assert_eq!(read.remove(variable.as_str()), !unused, "{}: {}", builtin.name, property.name);
            assert!(!description.is_empty(), "{}: {}", builtin.name, property.name);
        }
        // What is left are the numbers that the two steps for GitHub hand on.
        read.remove("ID");
        assert!(read.is_empty(), "{} reads {read:?}, which its step.yml does not name", builtin.name);
    }
}

#[test]
fn names_are_sorted_and_one_step_has_each() {
    let names: Vec<_> = BUILTINS.iter().map(|builtin| builtin.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
}

#[test]
fn every_step_has_a_page_that_is_true() {
    let index = docs("README.md");
    for builtin in BUILTINS {
        let (name, manifest) = (builtin.name, manifest(builtin));
        let summary = manifest.summary.as_deref().unwrap();
        assert!(index.contains(&format!("| [{name}]({name}.md) | {summary} |")), "{name} in README.md");
        let page = docs(&format!("{name}.md"));
        let (_, rest) = page.split_once("## Properties").unwrap();
        let (table, rest) = rest.split_once("## Example").unwrap();
        let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let want: Vec<String> = manifest
            .properties
            .iter()
            .map(|property| {
                let default = match property.default.as_deref() {
                    _ if property.required => "required".to_owned(),
                    Some(" ") => "a blank".to_owned(),
                    Some(default) => format!("`{default}`"),
                    None => String::new(),
                };
                let kind = property.kind.as_deref().unwrap();
                let description = property.description.as_deref().unwrap();
                format!("| `{}` | {kind} | {default} | {description} |", property.name)
            })
            .collect();
        assert_eq!(rows, want, "{name}.md");
        let (_, rest) = rest.split_once("```yaml\n").unwrap();
        let (example, rest) = rest.split_once("```").unwrap();
        assert!(rest.contains("## Differences to the original\n\n- "), "{name}.md");
        example_is_good(name, example);
    }
}

fn example_is_good(page: &str, example: &str) {
    let (config, found) = config::parse(example).unwrap_or_else(|found| panic!("{page}: {found:?}"));
    // A pipeline whose work is in its after-steps may be shown without other steps.
    let found: Vec<_> = found.iter().filter(|found| !found.message.ends_with("has no steps")).collect();
    assert!(found.is_empty(), "{page}: {found:?}");
    let mut names = BTreeSet::new();
    for pipeline in &config.pipelines {
        let nowhere = Path::new("/nowhere");
        let unknown = check(&config, example, &pipeline.name, None, nowhere, &StepSources::default());
        assert!(unknown.is_empty(), "{page}: {unknown:?}");
        for step in pipeline.steps.iter().chain(&pipeline.after_steps) {
            names.insert(step.name.as_str());
            let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.name == step.name) else { continue };
            let manifest = manifest(builtin);
            for (key, _) in &step.properties {
                assert!(manifest.property(key).is_some(), "{page}: {} knows no {key}", step.name);
            }
            for property in manifest.properties.iter().filter(|property| property.required) {
                assert!(
                    step.property(&property.name).is_some(),
                    "{page}: {} wants {}",
                    step.name,
                    property.name
                );
            }
        }
    }
    assert!(names.contains(page), "{page}: the example does not show the step");
}

/// Every property that real files give to a step of ours is known to it.
#[test]
fn properties_of_real_files_are_known() {
    let Some(dir) = std::env::var_os("SEALIFT_CORPUS") else {
        println!("SKIPPED: set SEALIFT_CORPUS to the folder of the wercker corpus to run this test");
        return;
    };
    let (mut uses, mut ours) = (0, 0);
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        let Ok((config, _)) = config::parse(&std::fs::read_to_string(&path).unwrap()) else { continue };
        for pipeline in &config.pipelines {
            let targets = pipeline.targets.iter().flat_map(|(_, steps)| steps);
            for step in pipeline.steps.iter().chain(&pipeline.after_steps).chain(targets) {
                if step.owner == "internal" || step.name == "script" {
                    continue;
                }
                uses += 1;
                let found = BUILTINS.iter().find(|builtin| builtin.is(&step.owner, &step.name));
                let Some(builtin) = found else { continue };
                ours += 1;
                let manifest = manifest(builtin);
                for (key, _) in step.properties.iter().filter(|(key, _)| manifest.property(key).is_none()) {
                    wrong.push(format!("{}:{}: {} knows no {key}", path.display(), step.line, step.id));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{ours} of {uses} uses of steps are steps of ours");
    assert!(ours > 80, "only {ours} of {uses}: is this the corpus?");
}
