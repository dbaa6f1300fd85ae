//! What is made before a container starts: the helper functions, the files of all steps, and for each step the file
//! that the session sources.
//!
//! Guarantees: all of it is there before anything of the project runs, and nothing secret is in it. What the session
//! sources, a pipeline's own code and Sealift's own steps lie in a directory that the container cannot write to.
//! `WERCKER_STEP_ROOT` is a directory of the step's own that it may write to, whatever kind of step it is.
//!
//! It must not know how the files are run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::StepSources;
use super::download::{self, Address, Archive};
use super::manifest::{self, Manifest, satisfies};
use super::sources::{Found, PackageError, Problem, Tree, find};
use super::unpack::{self, unpack};
use crate::config::StepConfig;
use crate::layout::{Layout, open_to_all};
use crate::session::CONTROL;
use crate::shell;
use crate::source;

/// `wercker-init`, which every step may count on.
const INIT: &str = r#"
success() { printf '%s\n' "$*"; }
info() { printf '%s\n' "$*"; }
debug() { printf 'debug: %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
error() { printf 'error: %s\n' "$*" >&2; }
setMessage() { printf '%s\n' "$*" >"$WERCKER_REPORT_MESSAGE_FILE"; }
fail() { printf 'failed: %s\n' "$*" >&2; setMessage "$*"; exit 1; }
if ! command -v sudo >/dev/null 2>&1; then
  sudo() {
    while :; do
      case ${1-} in
        -u | -g) shift 2 ;;
        -*) shift ;;
        *) break ;;
      esac
    done
    "$@"
  }
fi
"#;

/// A larger manifest than any person writes.
const MANIFEST: u64 = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", lines(.0))]
    Unknown(Vec<Problem>),
    #[error("line {line}: cannot fetch step {id} from {address}")]
    Fetch {
        line: usize,
        id: String,
        address: String,
        #[source]
        source: download::Error,
    },
    #[error("line {line}: step {id} from {address} cannot be unpacked")]
    Unpack {
        line: usize,
        id: String,
        address: String,
        #[source]
        source: unpack::Error,
    },
    #[error("line {line}: cannot fetch step {id} from package {name}")]
    Package {
        line: usize,
        id: String,
        name: String,
        #[source]
        source: PackageError,
    },
    #[error("line {line}: step {id} from {origin} has no run.sh of its own")]
    NoRun { line: usize, id: String, origin: String },
    #[error("cannot prepare {}", path.display())]
    Files {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the run was cancelled")]
    Cancelled,
    #[error("the run's task broke off")]
    Task(#[from] tokio::task::JoinError),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A step that is ready to be sourced.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) content: Content,
    /// Where its message appears, below the pipeline's directory.
    pub(crate) message: PathBuf,
    pub(crate) after: bool,
}

/// What is to be done for a step.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// The shell sources this file, named as the container sees it.
    Script(String),
    /// The engine does it, `internal/*`.
    Internal(Box<StepConfig>),
}

/// All steps of a run, and what there is to say of them.
#[derive(Debug, Default)]
pub(crate) struct Preparation {
    pub(crate) steps: Vec<Prepared>,
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Writes the helper functions.
pub(crate) fn write_init(layout: &Layout) -> io::Result<()> {
    fs::write(layout.control.join("init.sh"), INIT)
}

/// Finds and fetches all steps, and writes their files. `origin` is what the source tree was copied from; the flag
/// beside a step says whether it is an after-step.
pub(crate) async fn prepare(
    layout: &Layout,
    origin: &Path,
    sources: &StepSources,
    steps: Vec<(StepConfig, bool)>,
    cancel: &CancellationToken,
) -> Result<Preparation, Error> {
    let mut preparation = Preparation::default();
    let found = {
        let (root, origin, sources) = (layout.source.clone(), origin.to_owned(), sources.clone());
        let look = move || find_all(steps, Tree { root: &root, origin: &origin }, &sources);
        tokio::task::spawn_blocking(look).await??
    };
    let mut ready = Vec::new();
    let mut fetched = BTreeMap::new();
    for (step, after, found) in found {
        let content = match found {
            None => None,
            Some(found) => {
                let at_hand = at_hand(&step, found, layout, sources, &mut fetched, &mut preparation);
                Some(tokio::select! {
                    content = at_hand => content?,
                    // What is under way notices by itself, and leaves nothing.
                    () = cancel.cancelled() => return Err(Error::Cancelled),
                })
            }
        };
        ready.push((step, after, content));
    }
    let layout = layout.clone();
    tokio::task::spawn_blocking(move || write_all(&layout, ready, preparation)).await?
}

type FoundStep = (StepConfig, bool, Option<Found>);

/// Where each step's content is; nothing for those that the engine does itself.
fn find_all(
    steps: Vec<(StepConfig, bool)>,
    tree: Tree<'_>,
    sources: &StepSources,
) -> Result<Vec<FoundStep>, Error> {
    let mut all = Vec::new();
    let mut problems = Vec::new();
    for (step, after) in steps {
        if step.owner == "internal" {
            all.push((step, after, None));
            continue;
        }
        match find(&step, tree, sources) {
            Ok(found) => all.push((step, after, Some(found))),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(Error::Unknown(problems)) }
}

/// A step's content, on this machine.
enum AtHand {
    Script,
    Builtin(&'static super::Builtin),
    Directory { path: PathBuf, origin: String },
    Archive { file: File, origin: String },
}

/// Fetches what is not here yet; an archive that several steps name is fetched once.
async fn at_hand(
    step: &StepConfig,
    found: Found,
    layout: &Layout,
    sources: &StepSources,
    fetched: &mut BTreeMap<Address, File>,
    preparation: &mut Preparation,
) -> Result<AtHand, Error> {
    let (line, id) = (step.line, step.id.clone());
    let Preparation { notes, warnings, .. } = preparation;
    Ok(match found {
        Found::Script => AtHand::Script,
        Found::Builtin(builtin) => AtHand::Builtin(builtin),
        Found::Own(path) => AtHand::Directory { path, origin: "the project".to_owned() },
        Found::Foreign(path) => {
            let origin = path.display().to_string();
            notes.push(format!("step {id} is taken from {origin}"));
            AtHand::Directory { path, origin }
        }
        Found::Package(wanted) => {
            let name = wanted.to_string();
            let failed = |source| Error::Package { line, id: id.clone(), name: name.clone(), source };
            let store =
                sources.packages.as_ref().ok_or_else(|| failed("there is no artifact store".into()))?;
            let path = store.fetch(&wanted).await.map_err(failed)?;
            notes.push(format!("step {id} is taken from package {name}"));
            AtHand::Directory { path, origin: format!("package {name}") }
        }
        Found::Archive(address) => {
            let origin = address.to_string();
            let io = |path: &Path, source| Error::Files { path: path.to_owned(), source };
            if let Some(archive) = fetched.get(&address) {
                let file = archive.try_clone().map_err(|source| io(&layout.control, source))?;
                return Ok(AtHand::Archive { file, origin });
            }
            let failed = |source| Error::Fetch { line, id: id.clone(), address: origin.clone(), source };
            let cancel = CancellationToken::new();
            // Dropped with this future: a download that nobody waits for ends by itself.
            let guard = cancel.clone().drop_guard();
            let fetch = {
                let (address, sources, aside) = (address.clone(), sources.clone(), layout.control.clone());
                move || download::fetch(&address, &sources, &aside, &cancel)
            };
            let archive = tokio::task::spawn_blocking(fetch).await?.map_err(failed)?;
            drop(guard);
            let Archive { file, sha256, fetched: bytes } = archive;
            if let Some(bytes) = bytes {
                notes.push(format!("step {id} was fetched from {origin}, {bytes} bytes"));
            }
            if address.sha256.is_none() {
                let whoever =
                    if address.is_plain() { "anybody on the way" } else { "whoever has the server" };
                warnings.push(format!(
                    "line {line}: step {id} is fetched without a digest, so {whoever} can change it; \
                     write #sha256={sha256} behind its address"
                ));
            }
            let kept = file.try_clone().map_err(|source| io(&layout.control, source))?;
            fetched.insert(address, kept);
            AtHand::Archive { file, origin }
        }
    })
}

/// What a step consists of, in its places.
struct Files {
    /// Shell lines that run it.
    run: String,
    manifest: Option<Manifest>,
    /// Whether the manifest names all that the step reads.
    complete: bool,
}

fn write_all(
    layout: &Layout,
    steps: Vec<(StepConfig, bool, Option<AtHand>)>,
    mut preparation: Preparation,
) -> Result<Preparation, Error> {
    let mut exported: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (number, (step, after, content)) in steps.into_iter().enumerate() {
        let label = format!("{number}-{}", label(&step.name));
        let report = Path::new("report").join(&label);
        let artifacts = layout.pipeline.join(&report).join("artifacts");
        make_open(&layout.pipeline.join(&report))?;
        make_open(&artifacts)?;
        let name = step.title().to_owned();
        let message = report.join("message.txt");
        let content = match content {
            None => Content::Internal(Box::new(step)),
            Some(content) => {
                let files = place(layout, number, &label, &step, content, &mut preparation.warnings)?;
                let earlier = exported.entry(step.name.clone()).or_default();
                let text = script(&step, &label, &report, &files, earlier);
                let file = format!("{number}.sh");
                write(&layout.control.join(&file), &text)?;
                Content::Script(format!("{CONTROL}/{file}"))
            }
        };
        preparation.steps.push(Prepared { name, content, message, after });
    }
    Ok(preparation)
}

/// Puts a step's content where the container finds it, and says what does not fit.
fn place(
    layout: &Layout,
    number: usize,
    label: &str,
    step: &StepConfig,
    content: AtHand,
    warnings: &mut Vec<String>,
) -> Result<Files, Error> {
    let target = layout.pipeline.join("steps").join(label);
    let mut warn = |text: String| warnings.push(format!("line {}: step {}: {text}", step.line, step.id));
    let files = match content {
        AtHand::Script => {
            let code = step.property("code").unwrap_or_default();
            make_open(&target)?;
            let file = control_file(layout, number, &format!("{code}\n"))?;
            // As with the reference, a first line with `#!` names no interpreter: it only leaves out `set -e`.
            let strict = if code.starts_with("#!") { "" } else { "set -e\n" };
            return Ok(Files { run: format!("{strict}. {file}\n"), manifest: None, complete: false });
        }
        AtHand::Builtin(builtin) => {
            make_open(&target)?;
            let file = control_file(layout, number, builtin.run)?;
            if let Some(version) = step.version.as_deref().filter(|version| *version != "*") {
                warn(format!("version {version} is asked for; Sealift's own step of that name is used"));
            }
            Files { run: format!(". {file}\n"), manifest: builtin.manifest().ok(), complete: true }
        }
        AtHand::Directory { path, origin } => {
            let copied = source::copy(&path, &target, &[], &source::Ignore::default());
            copied.map_err(|source| Error::Files { path: target.clone(), source })?;
            from_directory(&target, label, step, origin, &mut warn)?
        }
        AtHand::Archive { file, origin } => {
            unpack(&file, &target).map_err(|source| Error::Unpack {
                line: step.line,
                id: step.id.clone(),
                address: origin.clone(),
                source,
            })?;
            from_directory(&target, label, step, origin, &mut warn)?
        }
    };
    if let Some(manifest) = &files.manifest {
        manifest.misfits(step, files.complete).into_iter().for_each(&mut warn);
    }
    Ok(files)
}

/// A file in the directory that the container only reads, named as the container sees it.
fn control_file(layout: &Layout, number: usize, text: &str) -> Result<String, Error> {
    let file = format!("{number}.run.sh");
    write(&layout.control.join(&file), text)?;
    Ok(format!("{CONTROL}/{file}"))
}

/// A step that is in its place. It is somebody else's, so nothing is read through a link out of it.
fn from_directory(
    target: &Path,
    label: &str,
    step: &StepConfig,
    origin: String,
    warn: &mut impl FnMut(String),
) -> Result<Files, Error> {
    if source::open_file(target, Path::new("run.sh")).is_none() {
        return Err(Error::NoRun { line: step.line, id: step.id.clone(), origin });
    }
    open_to_all(target).map_err(|source| Error::Files { path: target.to_owned(), source })?;
    let root = shell::quote(&format!("/pipeline/steps/{label}"));
    let mut run = String::new();
    if source::open_file(target, Path::new("init.sh")).is_some() {
        line(&mut run, format_args!(". {root}/init.sh"));
    }
    line(&mut run, format_args!(". {root}/run.sh"));
    let text = manifest::FILE_NAMES
        .iter()
        .find_map(|name| Some((name, source::read_text(target, Path::new(name), MANIFEST)?)));
    let manifest = text.and_then(|(name, text)| match Manifest::parse(&text) {
        Ok(manifest) => Some(manifest),
        Err(error) => {
            warn(format!("its {name} is not used: {error}"));
            None
        }
    });
    if let Some(wanted) = step.version.as_deref() {
        match manifest.as_ref().and_then(|manifest| manifest.version.as_deref()) {
            Some(have) if satisfies(have, wanted) => {}
            None if satisfies("", wanted) => {}
            have => {
                let have = have.map_or("says no version".to_owned(), |have| format!("is version {have}"));
                warn(format!("version {wanted} is asked for; the one from {origin} {have}"));
            }
        }
    }
    Ok(Files { run, manifest, complete: false })
}

/// The file that the session sources for a step. `earlier` are the variables that earlier steps of that name were
/// given; what this one is not given does not reach it.
fn script(
    step: &StepConfig,
    label: &str,
    report: &Path,
    files: &Files,
    earlier: &mut BTreeSet<String>,
) -> String {
    let mut text = String::from("set +e\n");
    let report = format!("/pipeline/{}", report.display());
    for (name, value) in [
        ("WERCKER_STEP_ROOT", format!("/pipeline/steps/{label}")),
        ("WERCKER_STEP_ID", label.to_owned()),
        ("WERCKER_STEP_OWNER", step.owner.clone()),
        ("WERCKER_STEP_NAME", step.name.clone()),
        ("WERCKER_REPORT_MESSAGE_FILE", format!("{report}/message.txt")),
        ("WERCKER_REPORT_NUMBERS_FILE", format!("{report}/numbers.ini")),
        ("WERCKER_REPORT_ARTIFACTS_DIR", format!("{report}/artifacts")),
    ] {
        line(&mut text, format_args!("export {name}={}", shell::quote(&value)));
    }
    let given = step.properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let defaults = files.manifest.iter().flat_map(|manifest| manifest.defaults(step));
    let mut variables = BTreeMap::new();
    for (key, value) in given.filter(|(key, _)| *key != "code").chain(defaults) {
        let name = format!("WERCKER_{}_{}", shell::upper_name(&step.name), shell::upper_name(key));
        variables.insert(name, value);
    }
    for name in earlier.iter().filter(|name| !variables.contains_key(*name)) {
        line(&mut text, format_args!("unset {name}"));
    }
    for (name, value) in &variables {
        line(&mut text, format_args!("export {name}={}", shell::quote_expanding(value)));
    }
    earlier.extend(variables.into_keys());
    line(&mut text, format_args!("cd \"$WERCKER_SOURCE_DIR\" || return 1"));
    if let Some(cwd) = step.cwd.as_ref().filter(|cwd| !cwd.is_empty()) {
        line(&mut text, format_args!("cd {} || return 1", shell::quote_expanding(cwd)));
    }
    text.push_str(&files.run);
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").ok();
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Files { path: path.to_owned(), source })
}

/// A directory that whoever the container's user is may write to.
fn make_open(dir: &Path) -> Result<(), Error> {
    let made = fs::create_dir_all(dir).and_then(|()| open_to_all(dir));
    made.map_err(|source| Error::Files { path: dir.to_owned(), source })
}

/// A step's name as part of a path.
fn label(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().map(plain).take(60).collect()
}
