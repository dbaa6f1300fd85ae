//! What is written down before a container starts: the helper functions, and for each step the file that the session
//! sources.
//!
//! Guarantees: all of it is written before anything of the project runs, into a directory that the container cannot
//! write to; nothing secret is in it. A step of the project's own (`file://`) comes from within its source tree.
//!
//! It must not know how the files are run.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::config::StepConfig;
use crate::layout::{Layout, open_to_all};
use crate::session::CONTROL;
use crate::shell;
use crate::source;
use crate::yaml;

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
    /// It cannot be run, for this reason.
    Unusable(String),
}

/// Writes the helper functions.
pub(crate) fn write_init(layout: &Layout) -> io::Result<()> {
    fs::write(layout.control.join("init.sh"), INIT)
}

/// Writes the files of step number `number`.
pub(crate) fn prepare(
    layout: &Layout,
    number: usize,
    step: &StepConfig,
    after: bool,
) -> io::Result<Prepared> {
    let label = format!("{number}-{}", label(&step.name));
    let report = Path::new("report").join(&label);
    let message = report.join("message.txt");
    let mut prepared = Prepared {
        name: step.title().to_owned(),
        content: Content::Internal(Box::new(step.clone())),
        message: message.clone(),
        after,
    };
    let artifacts = layout.pipeline.join(&report).join("artifacts");
    fs::create_dir_all(&artifacts)?;
    open_to_all(&layout.pipeline.join(&report))?;
    open_to_all(&artifacts)?;

    if step.owner == "internal" {
        return Ok(prepared);
    }
    let content = match content(layout, number, &label, step)? {
        Ok(content) => content,
        Err(reason) => {
            prepared.content = Content::Unusable(reason);
            return Ok(prepared);
        }
    };
    let mut text = String::from("set +e\n");
    for (name, value) in [
        ("WERCKER_STEP_ROOT", content.root.as_str()),
        ("WERCKER_STEP_ID", &label),
        ("WERCKER_STEP_OWNER", &step.owner),
        ("WERCKER_STEP_NAME", &step.name),
        ("WERCKER_REPORT_MESSAGE_FILE", &format!("/pipeline/{}", message.display())),
        ("WERCKER_REPORT_NUMBERS_FILE", &format!("/pipeline/{}/numbers.ini", report.display())),
        ("WERCKER_REPORT_ARTIFACTS_DIR", &format!("/pipeline/{}/artifacts", report.display())),
    ] {
        line(&mut text, format_args!("export {name}={}", shell::quote(value)));
    }
    let given = step.properties.iter().filter(|(key, _)| key != "code");
    let defaults = content.defaults.iter().filter(|(key, _)| step.property(key).is_none());
    for (key, value) in given.chain(defaults) {
        let name = format!("WERCKER_{}_{}", shell::upper_name(&step.name), shell::upper_name(key));
        line(&mut text, format_args!("export {name}={}", shell::quote_expanding(value)));
    }
    line(&mut text, format_args!("cd \"$WERCKER_SOURCE_DIR\" || return 1"));
    if let Some(cwd) = step.cwd.as_ref().filter(|cwd| !cwd.is_empty()) {
        line(&mut text, format_args!("cd {} || return 1", shell::quote_expanding(cwd)));
    }
    text.push_str(&content.run);
    let file = format!("{number}.sh");
    fs::write(layout.control.join(&file), text)?;
    prepared.content = Content::Script(format!("{CONTROL}/{file}"));
    Ok(prepared)
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").ok();
}

/// What a step consists of.
struct Files {
    /// As the container sees it.
    root: String,
    /// Shell lines that run it.
    run: String,
    defaults: Vec<(String, String)>,
}

fn content(
    layout: &Layout,
    number: usize,
    label: &str,
    step: &StepConfig,
) -> io::Result<Result<Files, String>> {
    if let Some(url) = &step.url {
        let Some(path) = url.strip_prefix("file://") else {
            return Ok(Err(format!(
                "step `{}` cannot be fetched: only file:// is known, not {url}",
                step.id
            )));
        };
        return local(layout, label, step, path);
    }
    if step.owner == "wercker" && step.name == "script" {
        let root = format!("{CONTROL}/{number}");
        let code = step.property("code").unwrap_or_default();
        let dir = layout.control.join(number.to_string());
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("run.sh"), format!("{code}\n"))?;
        // As with the reference, a first line with `#!` names no interpreter: it only leaves out `set -e`.
        let strict = if code.starts_with("#!") { "" } else { "set -e\n" };
        return Ok(Ok(Files { run: format!("{strict}. {root}/run.sh\n"), root, defaults: Vec::new() }));
    }
    let what = "the step registry is gone";
    let help = "write it as a `script` step, or keep its files in the project and name them: `- NAME \"file://PATH\"`";
    Ok(Err(format!("step `{}` is not known: {what}; {help}", step.id)))
}

/// A step whose files are in the source tree.
fn local(layout: &Layout, label: &str, step: &StepConfig, path: &str) -> io::Result<Result<Files, String>> {
    let refused = |reason: &str| Ok(Err(format!("step `{}` cannot be used: {path} {reason}", step.id)));
    let relative: PathBuf = Path::new(path)
        .components()
        .filter(|c| !matches!(c, Component::CurDir | Component::RootDir))
        .collect();
    // On a machine that runs other people's pipelines, a step must not bring in the machine's own files.
    let root = layout.source.canonicalize()?;
    let Ok(found) = root.join(relative).canonicalize() else {
        return refused("is not in the source tree");
    };
    if !found.starts_with(&root) {
        return refused("leads out of the source tree");
    }
    if !found.join("run.sh").is_file() {
        return refused("has no run.sh");
    }
    let target = layout.pipeline.join("steps").join(label);
    source::copy(&found, &target, &[], &source::Ignore::default())?;
    let root = format!("/pipeline/steps/{label}");
    let quoted = shell::quote(&root);
    let mut run = String::new();
    if target.join("init.sh").is_file() {
        line(&mut run, format_args!(". {quoted}/init.sh"));
    }
    line(&mut run, format_args!(". {quoted}/run.sh"));
    let defaults =
        fs::read_to_string(target.join("step.yml")).map(|text| defaults(&text)).unwrap_or_default();
    Ok(Ok(Files { root, run, defaults }))
}

/// The defaults in a step.yml: `properties: [{name, default}]`.
fn defaults(text: &str) -> Vec<(String, String)> {
    let field = |node: &yaml::Node, name: &str| {
        let pairs = node.mapping()?.iter().rev();
        pairs.into_iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value.clone())
    };
    let Ok(Some(root)) = yaml::parse(text) else { return Vec::new() };
    let Some(properties) = field(&root, "properties") else { return Vec::new() };
    let one = |node: &yaml::Node| {
        let name = field(node, "name")?.text()?.to_owned();
        let default = field(node, "default")?.text()?.to_owned();
        Some((name, default))
    };
    properties.sequence().unwrap_or_default().iter().filter_map(one).collect()
}

/// A step's name as part of a path.
fn label(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().map(plain).take(60).collect()
}
