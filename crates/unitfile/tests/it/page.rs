//! The examples of docs/unit-files.md.
