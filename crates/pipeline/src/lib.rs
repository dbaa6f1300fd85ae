//! wercker.yml to steps in containers.
//!
//! [`config`] reads the file and says what is wrong with it, by line. [`Engine`] is Docker or Podman, whichever
//! answers. [`execute`] runs one pipeline in one container, tells all that happens as events, and leaves nothing
//! behind, whatever way it ends.
//!
//! This crate knows nothing of servers, stores or packages: a caller hands it a source tree and gets back whether
//! the pipeline passed and where its output lies.

pub mod config;
pub mod yaml;
