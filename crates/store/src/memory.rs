//! A store that is gone when the program ends: for tests and for trying things out.

use crate::core::{Core, Saved, store_by_core};

/// Everything in memory, nothing on disk.
#[derive(Debug)]
pub struct MemoryStore {
    core: Core,
}

impl MemoryStore {
    /// An empty store at revision 0. Its writer is a task of the tokio runtime that this must be called within.
    #[must_use]
    pub fn new() -> MemoryStore {
        MemoryStore { core: Core::start(Saved::default(), None) }
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

store_by_core!(MemoryStore);
