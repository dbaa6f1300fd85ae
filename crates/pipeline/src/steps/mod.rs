//! The steps of a pipeline: where they come from, what they may count on, and those that are part of Sealift.
//!
//! Guarantees: what a step needs is found, fetched and checked before anything of the project runs; a step that is
//! not there ends the run before its box is made.
//!
//! It must not know how steps are run.

mod builtin;
mod download;
mod manifest;
mod preparing;
mod sources;
mod unpack;

use std::path::PathBuf;
use std::sync::Arc;

pub use builtin::{BUILTINS, Builtin};
pub use download::Error as FetchError;
pub use manifest::{Error as ManifestError, Manifest, Property};
pub use preparing::Error;
pub(crate) use preparing::{Content, Preparation, Prepared, prepare, write_init};
pub use sources::{PackageError, PackageSource, Problem, WantedPackage, check};
pub use unpack::Error as UnpackError;

/// Where steps may come from besides the project itself and Sealift's own.
#[derive(Debug, Clone, Default)]
pub struct StepSources {
    /// Directories that hold steps as `OWNER/NAME/VERSION`, `OWNER/NAME` or `NAME`; the first that has one counts.
    pub library: Vec<PathBuf>,
    /// Keeps downloaded archives, by digest, up to a limit. Without it every run downloads anew.
    pub cache_dir: Option<PathBuf>,
    /// Whether `file://` may lead out of the source tree. Only where the pipeline is the caller's own: never on an
    /// agent, which runs other people's.
    pub trusted_files: bool,
    /// Fetches steps that are packages in the artifact store.
    pub packages: Option<Arc<dyn PackageSource>>,
    /// Certificates (PEM) to trust for downloads instead of the machine's own.
    pub ca_file: Option<PathBuf>,
}
