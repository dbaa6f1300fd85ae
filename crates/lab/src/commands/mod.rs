//! The commands of the lab's program that take more than a few lines.

pub(crate) mod hosts;
pub(crate) mod soak;
