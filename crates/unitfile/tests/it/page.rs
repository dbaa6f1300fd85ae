//! The examples of docs/unit-files.md are right, and it names every key of `[X-Fleet]`.

use std::collections::BTreeMap;

use sealift_model::UnitName;
use sealift_unitfile::{FolderUnit, fleet_keys, verify_unit};

const PAGE: &str = include_str!("../../../../docs/unit-files.md");

/// Every example with the file name in its first line.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks = PAGE.split("```ini\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.map(|text| (text.strip_prefix("# ").unwrap().lines().next().unwrap(), text)).collect()
}

#[test]
fn every_example_is_right() {
    let examples = examples();
    assert!(examples.len() > 10);
    let mut units: BTreeMap<UnitName, (&str, BTreeMap<String, String>)> = BTreeMap::new();
    for (file, text) in examples {
        if let Some((unit, drop_in)) = file.split_once(".d/") {
            let (_, drop_ins) =
                units.get_mut(&unit.parse().unwrap()).expect("the unit stands before its drop-in");
            drop_ins.insert(drop_in.to_owned(), text.to_owned());
        } else {
            units.insert(file.parse().unwrap(), (text, BTreeMap::new()));
        }
    }
    for (name, (text, drop_ins)) in &units {
        assert_eq!(verify_unit(name, &FolderUnit { text, drop_ins }), [], "{name}");
    }
}

#[test]
fn every_key_is_there_with_an_example() {
    for key in fleet_keys() {
        assert!(PAGE.contains(&format!("`{key}=")), "{key} is not explained");
        let shown = examples().iter().any(|(_, text)| text.contains(&format!("\n{key}=")));
        assert!(shown, "{key} has no example");
    }
}
