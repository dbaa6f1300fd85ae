//! What this crate promises, checked from outside: on real files and against a real container engine.

mod corpus;
