//! A file of variables is read or refused; what was read can be written and read again.
#![no_main]

use sealift_pipeline::env_file::{handed, parse};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let variables = match parse(text) {
        Ok(variables) => variables,
        Err((line, _)) => {
            assert!(line >= 1 && line <= text.lines().count());
            return;
        }
    };
    let mut written = String::new();
    for (name, value) in &variables {
        assert!(name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) && !name.is_empty());
        assert!(!name.starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(variables.iter().filter(|(known, _)| known == name).count(), 1);
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        written.push_str(&format!("export {name}=\"{value}\" # said\n"));
    }
    assert_eq!(parse(&written).as_ref(), Ok(&variables), "{written:?}");
    let count = variables.len();
    let handed = handed(variables);
    assert_eq!(handed.shown.len() + handed.hidden.len(), count);
});
