//! What holds of any text, for the property tests and the fuzz target.

use std::collections::BTreeMap;

use sealift_model::{UnitKind, UnitName};
use sealift_unitfile::{FolderUnit, UnitFile, verify_folder, verify_unit};

/// Files are kept byte for byte, findings come in order and lie inside of the file that they are of, and what systemd acts
/// on has no word for us.
///
/// # Panics
/// When one of these does not hold.
pub(crate) fn unit_holds(kind: u8, text: &str, drop_in: &str) {
    let kind = UnitKind::ALL[usize::from(kind) % UnitKind::ALL.len()];
    let drop_ins = BTreeMap::from([("20-a.conf".to_owned(), drop_in.to_owned())]);
    let mut folder = BTreeMap::new();
    for stem in ["a", "a@", "a@1"] {
        let name: UnitName = format!("{stem}.{}", kind.suffix()).parse().unwrap();
        let unit = FolderUnit { text, drop_ins: &drop_ins };
        for found in verify_unit(&name, &unit) {
            let text = if found.drop_in.is_some() { drop_in } else { text };
            lies_inside(text, found.diagnostic.line, found.diagnostic.column, found.diagnostic.length);
        }
        folder.insert(name, unit);
    }
    for found in verify_folder(&folder) {
        let text = if found.drop_in.is_some() { drop_in } else { text };
        lies_inside(text, found.diagnostic.line, found.diagnostic.column, found.diagnostic.length);
    }
    for text in [text, drop_in] {
        let file = UnitFile::parse(text);
        assert_eq!(file.text(), text);
        let acted_on = file.text_for_systemd();
        let again = UnitFile::parse(&acted_on);
        assert_eq!(again.section("X-Fleet"), None, "{text:?} leaves {acted_on:?}");
        assert_eq!(again.text_for_systemd(), acted_on);
        let kept = file.sections().iter().filter(|section| section.name != "X-Fleet");
        let values = |assignments: &[sealift_unitfile::Assignment]| -> Vec<(String, String)> {
            assignments.iter().map(|a| (a.key().to_owned(), a.value().to_owned())).collect()
        };
        let all = |section: &sealift_unitfile::Section| (section.name.clone(), values(&section.assignments));
        assert!(kept.map(all).eq(again.sections().iter().map(all)), "{text:?} leaves {acted_on:?}");
    }
}

fn lies_inside(text: &str, line: usize, column: usize, length: usize) {
    let width = text.lines().nth(line - 1).map_or(0, |line| line.chars().count());
    let lines = text.lines().count().max(1);
    assert!(line <= lines && column >= 1 && length >= 1, "{line}:{column}+{length} in {text:?}");
    assert!(column - 1 + length <= width.max(1), "{line}:{column}+{length} in {text:?}");
}
