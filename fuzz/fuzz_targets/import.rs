//! A file of another tool is refused, or makes a wercker.yml that is read without an error.
#![no_main]

use sealift_pipeline::import::Format;

#[path = "../../crates/pipeline/tests/it/promises.rs"]
mod promises;

/// As any of the formats, and as the one that is guessed.
const ALL: [Option<Format>; 5] =
    [None, Some(Format::Gitlab), Some(Format::Github), Some(Format::Woodpecker), Some(Format::Compose)];

libfuzzer_sys::fuzz_target!(|text: &str| {
    for format in ALL {
        promises::import_holds("x.yml", text, format);
    }
});
