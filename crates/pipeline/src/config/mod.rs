//! What a wercker.yml says.
//!
//! Guarantees: every file that the reference CLI accepted is accepted, and means the same; wherever the reference
//! dropped something in silence there is a diagnostic with its line. Refused files say why, by line.
//!
//! It must not know how a pipeline is run.

mod graph;
mod image;
pub mod keys;
mod read;
mod read_settings;
mod read_workflow;
mod schema;
pub mod settings;
mod step;
pub mod template;
mod tree;
pub mod when;
mod workflow;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sealift_model::diagnostic::{Diagnostic, Severity};

use crate::source;

pub use graph::{Error as GraphError, Graph, GraphNode, Input};
pub use image::interpolate;
pub use read::parse;
pub(crate) use read::{broken, keep_inside};
pub use schema::schema;
pub use settings::{Ready, Settings, StepSettings};
pub use step::StepConfig;
pub use tree::tree;
pub use workflow::{Workflow, WorkflowPipeline};

/// The versions of Sealift's own form of the file, as `sealift: 1` names them.
pub const VERSIONS: [u32; 1] = [1];

/// The names a configuration may have, in the order they are looked for.
pub const FILE_NAMES: [&str; 3] = ["ewok.yml", "wercker.yml", ".wercker.yml"];

/// Larger than any file a person writes; keeps a mistaken path from filling the memory.
const MAX_BYTES: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no configuration in {}: looked for {}", dir.display(), FILE_NAMES.join(", "))]
    NotFound { dir: PathBuf },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is larger than {MAX_BYTES} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} cannot be used: {}", path.display(), first(diagnostics))]
    Invalid {
        path: PathBuf,
        /// The file's text, to show the lines that the diagnostics speak of.
        text: String,
        diagnostics: Vec<Diagnostic>,
    },
}

fn first(diagnostics: &[Diagnostic]) -> String {
    diagnostics.first().map_or_else(String::new, |d| format!("line {}: {}", d.line, d.message))
}

/// A whole wercker.yml.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The version of Sealift's own form; none: the file means what it meant to wercker.
    pub version: Option<u32>,
    pub default_box: Option<BoxConfig>,
    pub services: Vec<BoxConfig>,
    /// In the order of the file.
    pub pipelines: Vec<Pipeline>,
    /// Pipelines that the file means but that cannot be used, with the reason.
    pub dropped: Vec<(String, Diagnostic)>,
    /// In minutes, as written.
    pub command_timeout: Option<u64>,
    /// In minutes, as written.
    pub no_response_timeout: Option<u64>,
    /// Below the source; the working directory of each step.
    pub source_dir: Option<String>,
    pub ignore_file: Option<String>,
    pub workflows: Vec<Workflow>,
}

/// The longest limit of time a file may ask for, in minutes.
const LONGEST_MINUTES: u64 = 60;

impl Config {
    #[must_use]
    pub fn pipeline(&self, name: &str) -> Option<&Pipeline> {
        self.pipelines.iter().find(|pipeline| pipeline.name == name)
    }

    #[must_use]
    pub fn workflow(&self, name: &str) -> Option<&Workflow> {
        self.workflows.iter().find(|workflow| workflow.name == name)
    }

    /// The box of a pipeline: its own, else the file's.
    #[must_use]
    pub fn box_of<'a>(&'a self, pipeline: &'a Pipeline) -> Option<&'a BoxConfig> {
        pipeline.own_box.as_ref().or(self.default_box.as_ref())
    }

    /// The services of a pipeline: its own, even if that is none, else the file's.
    #[must_use]
    pub fn services_of<'a>(&'a self, pipeline: &'a Pipeline) -> &'a [BoxConfig] {
        pipeline.services.as_deref().unwrap_or(&self.services)
    }

    /// How long one step may take: 25 minutes unless the file says otherwise, an hour at most.
    #[must_use]
    pub fn command_limit(&self) -> Duration {
        minutes(self.command_timeout, 25)
    }

    /// How long one step may be silent: 5 minutes unless the file says otherwise, an hour at most.
    #[must_use]
    pub fn no_response_limit(&self) -> Duration {
        minutes(self.no_response_timeout, 5)
    }
}

fn minutes(given: Option<u64>, default: u64) -> Duration {
    let minutes = given.filter(|minutes| *minutes > 0).unwrap_or(default);
    Duration::from_secs(60 * minutes.min(LONGEST_MINUTES))
}

/// A box or a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BoxConfig {
    /// The image as written, perhaps with registry, tag, digest and `$VARIABLES`.
    pub id: String,
    /// Overrides the tag in `id`.
    pub tag: Option<String>,
    pub name: Option<String>,
    pub cmd: Option<String>,
    pub entrypoint: Option<String>,
    /// Names in upper case, but as written in Sealift's own form.
    pub env: Vec<(String, String)>,
    /// `[ip:][host:]container[/proto]`
    pub ports: Vec<String>,
    /// Everything else that is known: volumes, url, registry, username, password, aws-*, azure-*.
    pub options: Vec<(String, String)>,
    /// When a service counts as started; none: as soon as its container runs.
    pub ready: Option<Box<Ready>>,
    /// More names in the network.
    pub aliases: Vec<String>,
    /// `user[:group]` of the container's processes.
    pub user: Option<String>,
    /// In bytes.
    pub memory: Option<u64>,
    /// In thousandths of a CPU.
    pub cpu_millis: Option<u32>,
    pub line: usize,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pipeline {
    pub name: String,
    pub own_box: Option<BoxConfig>,
    /// None: the file's; an empty list: none at all.
    pub services: Option<Vec<BoxConfig>>,
    pub steps: Vec<StepConfig>,
    pub after_steps: Vec<StepConfig>,
    pub base_path: Option<String>,
    /// Whether the pipeline wants a container engine of its own.
    pub docker: bool,
    /// Steps that replace `steps` for one deploy target.
    pub targets: Vec<(String, Vec<StepConfig>)>,
    pub settings: Settings,
    /// Why running it would not be what its author means; a run is refused with it.
    pub problem: Option<Diagnostic>,
    pub line: usize,
}

/// A file that was found, read and accepted.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub path: PathBuf,
    pub text: String,
    pub config: Config,
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// The same file, as long as there is nothing to say about it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all findings as errors when there are any.
    pub fn strict(self) -> Result<Loaded, Error> {
        if self.diagnostics.is_empty() {
            return Ok(self);
        }
        Err(Error::Invalid { path: self.path, text: self.text, diagnostics: strict(self.diagnostics) })
    }
}

/// The same findings, each of them an error.
#[must_use]
pub fn strict(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    for diagnostic in &mut diagnostics {
        diagnostic.severity = Severity::Error;
    }
    diagnostics
}

/// The configuration in `dir`, by the names it may have.
///
/// # Errors
/// [`Error::NotFound`] when none of the names is there; [`Error::Read`] when it cannot be told.
pub fn find_config(dir: &Path) -> Result<PathBuf, Error> {
    for name in FILE_NAMES {
        let path = dir.join(name);
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => return Ok(path),
            Ok(_) => {}
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Read { path, source }),
        }
    }
    Err(Error::NotFound { dir: dir.to_owned() })
}

/// Reads the file at `path`.
///
/// # Errors
/// When it cannot be read, or says something that cannot be used.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    let file = std::fs::File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    load_file(path, file)
}

/// Reads the file of the directory `dir` below `root`, which is somebody else's: links lead to it as long as they stay
/// below `root`.
pub(crate) fn load_below(root: &Path, dir: &Path) -> Result<Loaded, Error> {
    let mut files = FILE_NAMES.iter().map(|name| dir.join(name));
    let found = files.find_map(|path| Some((source::open_file(root, &path)?, path)));
    let (file, path) = found.ok_or_else(|| Error::NotFound { dir: root.join(dir) })?;
    load_file(&root.join(path), file)
}

fn load_file(path: &Path, file: std::fs::File) -> Result<Loaded, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let text = source::text_within(file, MAX_BYTES).map_err(read)?;
    let text = text.ok_or_else(|| Error::TooLarge { path: path.to_owned() })?;
    match parse(&text) {
        Ok((config, diagnostics)) => Ok(Loaded { path: path.to_owned(), text, config, diagnostics }),
        Err(diagnostics) => Err(Error::Invalid { path: path.to_owned(), text, diagnostics }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_told_to_be_so_wherever_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wercker.yml");
        for begin in ["# ", "#"] {
            std::fs::write(&path, begin.to_owned() + &"é".repeat(700_000)).unwrap();
            assert!(matches!(load(&path), Err(Error::TooLarge { .. })));
        }
        std::fs::write(&path, b"# \xff\n").unwrap();
        assert!(matches!(load(&path), Err(Error::Read { .. })));
    }
}
