//! wercker.yml to steps in containers.
//!
//! [`config`] reads the file and says what is wrong with it, by line; [`import`] makes one from other tools' files. [`Engine`] is Docker or Podman, whichever
//! answers. [`execute`] runs one pipeline in one container, tells all that happens as events, and leaves nothing
//! behind, whatever way it ends. [`execute_workflow`] does so with all pipelines of a graph.
//!
//! This crate knows nothing of servers, stores or packages: a caller hands it a source tree and gets back whether
//! the pipeline passed and where its output lies.

mod cache;
mod checkpoint;
pub mod config;
mod engine;
mod env;
pub mod env_file;
mod glob;
pub mod import;
mod internal;
mod interrupts;
mod junit;
mod layout;
mod leftovers;
mod lenient;
mod lines;
mod mask;
mod overlay;
mod pipes;
mod podman;
mod pull;
mod registry;
mod run;
mod service;
mod session;
mod shell;
mod source;
mod spec;
pub mod steps;
mod workflow;
pub mod yaml;

pub use cache::{CacheSpec, Error as CacheError};
pub use checkpoint::{
    Checkpoint, Error as CheckpointError, list as checkpoints, name_of_failure, remove as remove_checkpoint,
};
pub use engine::{Engine, EngineOptions, Error as EngineError, Interactive, Resizer};
pub use interrupts::Interrupts;
pub use layout::remove_work_dir;
pub use leftovers::{Leftovers, remove_leftovers};
pub use lenient::Error as AnswerError;
pub use mask::Error as MaskError;
pub use podman::{Error as PodmanError, stop_service};
pub use pull::Error as PullError;
pub use registry::{Error as RegistryError, auth_file_places};
pub use run::{Error, Preview, SelectionError, StepPreview, execute, preview};
pub use service::{Error as ServiceError, LastWords};
pub use session::Error as SessionError;
pub use source::{Ignore, copy_tree};
pub use spec::{Git, Outcome, RunSpec, Selection, Source, Terminal, Tuning};
pub use workflow::{
    Approver, Decision, Error as WorkflowError, Groups, NodeEnd, NodeEvent, NodeOutcome, WorkflowOutcome,
    WorkflowSpec, execute_workflow,
};
