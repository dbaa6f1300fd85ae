//! The messages as other versions of Sealift send and read them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod wire;
