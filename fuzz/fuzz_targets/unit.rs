//! A unit file and a drop-in of any text are kept byte for byte, and what is said of them lies inside of them.
#![no_main]

#[path = "../../crates/unitfile/tests/it/promises.rs"]
mod promises;

libfuzzer_sys::fuzz_target!(|input: (u8, String, String)| {
    let (kind, text, drop_in) = input;
    promises::unit_holds(kind, &text, &drop_in);
});
