//! Where a step comes from: its own address, the project, a library, or Sealift itself.
//!
//! Guarantees: looking changes nothing and asks no network; a step of the project lies within its tree; a name that
//! could lead anywhere else is looked for nowhere.
//!
//! It must not know how a step is prepared.

use std::fs;
use std::path::{Component, Path, PathBuf};

use futures_util::future::BoxFuture;
use sealift_model::diagnostic::{Diagnostic, Severity, nearest};
use sealift_model::{BranchName, CommitId, ProjectName};

use super::StepSources;
use super::builtin::{BUILTINS, Builtin};
use super::download::Address;
use super::manifest::satisfies;
use crate::config::{Config, Pipeline, StepConfig};

/// Where a project keeps steps of its own, below its tree.
const OWN: [&str; 3] = ["steps", ".wercker/steps", ".sealift/steps"];

/// Fetches packages that hold a step.
pub trait PackageSource: std::fmt::Debug + Send + Sync {
    /// The directory of the unpacked package, which stays as it is until the run is prepared.
    fn fetch<'a>(&'a self, wanted: &'a WantedPackage) -> BoxFuture<'a, Result<PathBuf, PackageError>>;
}

/// Why a package could not be fetched.
pub type PackageError = Box<dyn std::error::Error + Send + Sync>;

/// A package by name, as a pipeline asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPackage {
    pub project: ProjectName,
    pub branch: BranchName,
    /// None: the latest of the branch.
    pub commit: Option<CommitId>,
}

impl std::fmt::Display for WantedPackage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/", self.project, self.branch)?;
        match &self.commit {
            Some(commit) => write!(f, "{commit}"),
            None => f.write_str("latest"),
        }
    }
}

/// What a step is made of.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// Its own property `code`.
    Script,
    Builtin(&'static Builtin),
    /// Below the source tree.
    Own(PathBuf),
    /// Elsewhere on this machine.
    Foreign(PathBuf),
    Archive(Address),
    Package(WantedPackage),
}

/// A step that cannot be had.
#[derive(Debug, Clone)]
pub struct Problem {
    line: usize,
    message: String,
    help: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

/// Looks for all steps of a pipeline before anything is run: one finding for each that is not there. What is fetched
/// from elsewhere is not asked for. `text` is the configuration's, `source` the project's tree.
#[must_use]
pub fn check(
    config: &Config,
    text: &str,
    pipeline: &str,
    deploy_target: Option<&str>,
    source: &Path,
    sources: &StepSources,
) -> Vec<Diagnostic> {
    let Some(pipeline) = config.pipeline(pipeline) else { return Vec::new() };
    let tree = Tree { root: source, origin: source };
    let main = steps_of(pipeline, deploy_target);
    let steps = main.iter().chain(&pipeline.after_steps).filter(|step| step.owner != "internal");
    let diagnostic = |step: &StepConfig| {
        let Problem { line, message, help } = find(step, tree, sources).err()?;
        let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let before = written.split_once(&step.id).map_or(0, |(before, _)| before.chars().count());
        let (column, length) = (before + 1, step.id.chars().count().max(1));
        Some(Diagnostic { severity: Severity::Error, line, column, length, message, help })
    };
    steps.filter_map(diagnostic).collect()
}

fn steps_of<'a>(pipeline: &'a Pipeline, deploy_target: Option<&str>) -> &'a [StepConfig] {
    let target =
        deploy_target.and_then(|wanted| pipeline.targets.iter().find(|(name, _)| name.as_str() == wanted));
    target.map_or(&pipeline.steps, |(_, steps)| steps)
}

/// The project's files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'a> {
    /// What the run works on.
    pub(super) root: &'a Path,
    /// What it was copied from, if it was.
    pub(super) origin: &'a Path,
}

/// Where the content of a step is.
pub(super) fn find(step: &StepConfig, tree: Tree<'_>, sources: &StepSources) -> Result<Found, Problem> {
    let problem = |message: String, help: Option<String>| Problem { line: step.line, message, help };
    if let Some(url) = &step.url {
        return by_url(step, url, tree, sources)
            .map_err(|why| problem(format!("step `{}` cannot be used: {why}", step.id), None));
    }
    if step.owner == "wercker" && step.name == "script" {
        return Ok(Found::Script);
    }
    if let Some(found) = own(step, tree.root).map_err(|why| problem(why, None))? {
        return Ok(Found::Own(found));
    }
    if let Some(found) = in_library(step, &sources.library) {
        return Ok(Found::Foreign(found));
    }
    if let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.is(&step.owner, &step.name)) {
        return Ok(Found::Builtin(builtin));
    }
    let names = BUILTINS.iter().map(|builtin| builtin.name).chain(["script"]);
    let help = match nearest(&step.name, names) {
        Some(near) if near != step.name => format!("did you mean `{near}`?"),
        _ => format!(
            "the registry it came from is gone: put its files into the project as steps/{}/run.sh, \
             or write it as a `script` step",
            step.name
        ),
    };
    Err(problem(format!("step `{}` is not known", step.id), Some(help)))
}

fn by_url(step: &StepConfig, url: &str, tree: Tree<'_>, sources: &StepSources) -> Result<Found, String> {
    if let Some(path) = url.strip_prefix("file://") {
        return by_path(path, tree, sources.trusted_files);
    }
    if url.starts_with("http://") || url.starts_with("https://") {
        return Address::parse(url).map(Found::Archive).map_err(|why| format!("{url}: {why}"));
    }
    if let Some(name) = url.strip_prefix("package:") {
        if sources.packages.is_none() {
            return Err(format!("there is no artifact store here to fetch {name} from"));
        }
        let wanted = package_name(name).ok_or_else(|| {
            format!("`{url}` is no package: write package:PROJECT/BRANCH/COMMIT, or latest for the commit")
        })?;
        return Ok(Found::Package(wanted));
    }
    let known = format!("- {} \"file://PATH\"", step.id);
    Err(format!(
        "`{url}` is no address: it starts with file://, https://, http:// or package:, as in `{known}`"
    ))
}

/// A branch may have slashes in its name.
fn package_name(name: &str) -> Option<WantedPackage> {
    let (project, rest) = name.split_once('/')?;
    let (branch, commit) = rest.rsplit_once('/')?;
    let commit = if commit == "latest" { None } else { Some(commit.parse().ok()?) };
    Some(WantedPackage { project: project.parse().ok()?, branch: branch.parse().ok()?, commit })
}

/// A directory named by `file://`: below the source tree, whether written with a slash at its start or not. Elsewhere
/// only where that is permitted.
fn by_path(path: &str, tree: Tree<'_>, trusted: bool) -> Result<Found, String> {
    let below: PathBuf = Path::new(path)
        .components()
        .filter(|c| !matches!(c, Component::CurDir | Component::RootDir))
        .collect();
    match within(tree.root, &below) {
        Ok(Some(found)) => return Ok(Found::Own(found)),
        Ok(None) | Err(_) if trusted => {
            // An absolute path replaces what it is joined to.
            if let Ok(found) = tree.origin.join(path).canonicalize()
                && is_step(&found)
            {
                return Ok(Found::Foreign(found));
            }
        }
        Err(why) => return Err(format!("{path} {why}")),
        Ok(None) => {}
    }
    let place = if trusted { "on this machine" } else { "in the source tree" };
    let is_there = |path: PathBuf| path.symlink_metadata().is_ok();
    let there = is_there(tree.root.join(&below)) || (trusted && is_there(tree.origin.join(path)));
    Err(if there { format!("{path} has no run.sh") } else { format!("{path} is not {place}") })
}

/// A step at `below` in the tree; none where there is none.
fn within(root: &Path, below: &Path) -> Result<Option<PathBuf>, &'static str> {
    let Ok(root) = root.canonicalize() else { return Ok(None) };
    let Ok(found) = root.join(below).canonicalize() else { return Ok(None) };
    // On a machine that runs other people's pipelines, a step must not bring in the machine's own files.
    if !found.starts_with(&root) {
        return Err("leads out of the source tree");
    }
    Ok(is_step(&found).then_some(found))
}

fn own(step: &StepConfig, root: &Path) -> Result<Option<PathBuf>, String> {
    for below in OWN {
        for name in names(step) {
            let place = Path::new(below).join(name);
            match within(root, &place) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(why) => return Err(format!("step `{}`: {} {why}", step.id, place.display())),
            }
        }
    }
    Ok(None)
}

fn in_library(step: &StepConfig, library: &[PathBuf]) -> Option<PathBuf> {
    let wanted = step.version.as_deref().unwrap_or("*");
    for dir in library {
        for name in names(step) {
            let place = dir.join(name);
            if is_step(&place) {
                return Some(place);
            }
            let versions = fs::read_dir(&place).into_iter().flatten().flatten();
            let mut versions: Vec<_> = versions
                .filter(|entry| is_step(&entry.path()))
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect();
            versions.sort_by_key(|version| (satisfies(version, wanted), numbers(version)));
            if let Some(best) = versions.pop() {
                return Some(place.join(best));
            }
        }
    }
    None
}

/// A version in the order of versions: 1.10 comes after 1.9.
fn numbers(version: &str) -> Vec<u64> {
    version.trim_start_matches('v').split(['.', '-']).map(|part| part.parse().unwrap_or(0)).collect()
}

/// The paths at which a step may lie below a directory of steps.
fn names(step: &StepConfig) -> Vec<PathBuf> {
    let plain = |name: &str| {
        !matches!(name, "" | "." | "..")
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    if !plain(&step.name) || !plain(&step.owner) {
        return Vec::new();
    }
    vec![Path::new(&step.owner).join(&step.name), PathBuf::from(&step.name)]
}

fn is_step(dir: &Path) -> bool {
    dir.join("run.sh").is_file()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl PackageSource for Nothing {
        fn fetch<'a>(&'a self, _: &'a WantedPackage) -> BoxFuture<'a, Result<PathBuf, PackageError>> {
            Box::pin(async { Err("nothing".into()) })
        }
    }

    fn step(id: &str, url: Option<&str>) -> StepConfig {
        let written = url.map_or_else(|| id.to_owned(), |url| format!("{id} \"{url}\""));
        let text = format!("box: a\nbuild:\n  steps:\n    - '{written}'\n");
        let (config, _) = crate::config::parse(&text).unwrap();
        config.pipelines[0].steps[0].clone()
    }

    fn lay(dir: &Path, below: &str) {
        fs::create_dir_all(dir.join(below)).unwrap();
        fs::write(dir.join(below).join("run.sh"), below).unwrap();
    }

    /// What was found, as a word that a table can hold.
    fn word(found: Result<Found, Problem>, base: &Path) -> String {
        let below =
            |path: PathBuf| path.strip_prefix(base.canonicalize().unwrap()).unwrap().display().to_string();
        match found {
            Ok(Found::Script) => "script".into(),
            Ok(Found::Builtin(builtin)) => format!("builtin {}", builtin.name),
            Ok(Found::Own(path)) => format!("own {}", below(path)),
            Ok(Found::Foreign(path)) => format!("foreign {}", below(path.canonicalize().unwrap())),
            Ok(Found::Archive(address)) => format!("archive {address}"),
            Ok(Found::Package(wanted)) => format!("package {wanted}"),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn the_order_of_places() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        for below in [
            "tree/steps/npm-test",
            "tree/.wercker/steps/me/greet",
            "tree/.sealift/steps/greet",
            "tree/tools/x",
            "tree/steps/script",
            "library/me/greet",
            "library/me/many/1.9.0",
            "library/me/many/1.10.0",
            "library/plain",
            "outside",
        ] {
            lay(base, below);
        }
        fs::create_dir_all(base.join("tree/empty")).unwrap();
        std::os::unix::fs::symlink("../outside", base.join("tree/link")).unwrap();
        let sources = StepSources { library: vec![base.join("library")], ..StepSources::default() };
        let root = base.join("tree");
        let tree = Tree { root: &root, origin: &root };
        for (id, url, want) in [
            ("script", None, "script"),
            ("npm-test", None, "own tree/steps/npm-test"),
            ("npm-install", None, "builtin npm-install"),
            ("wercker/npm-install@1.0", None, "builtin npm-install"),
            ("me/greet", None, "own tree/.wercker/steps/me/greet"),
            ("you/greet@0.3", None, "own tree/.sealift/steps/greet"),
            ("me/many", None, "foreign library/me/many/1.10.0"),
            ("me/many@1.9", None, "foreign library/me/many/1.9.0"),
            ("me/many@3", None, "foreign library/me/many/1.10.0"),
            ("plain", None, "foreign library/plain"),
            ("x", Some("file://tools/x"), "own tree/tools/x"),
            ("x", Some("file:///tools/x"), "own tree/tools/x"),
            ("x", Some("https://u:p@h/x.tar.gz"), "archive https://h/x.tar.gz"),
            ("x", Some("file://none"), "line 4: step `x` cannot be used: none is not in the source tree"),
            ("x", Some("file://empty"), "line 4: step `x` cannot be used: empty has no run.sh"),
            ("x", Some("file://link"), "line 4: step `x` cannot be used: link leads out of the source tree"),
            (
                "x",
                Some("file://../outside"),
                "line 4: step `x` cannot be used: ../outside leads out of the source tree",
            ),
            ("npm-instal", None, "line 4: step `npm-instal` is not known; did you mean `npm-install`?"),
            (
                "me/npm-installer",
                None,
                "line 4: step `me/npm-installer` is not known; did you mean `npm-install`?",
            ),
            ("me/../../outside", None, "line 4: step `me/../../outside` is not known"),
            (
                "x",
                Some("package:p/b/latest"),
                "line 4: step `x` cannot be used: there is no artifact store here",
            ),
            ("x", Some("ftp://h/x"), "line 4: step `x` cannot be used: `ftp://h/x` is no address"),
            (
                "x",
                Some("https://h/x#sha256=1"),
                "line 4: step `x` cannot be used: https://h/x#sha256=1: behind",
            ),
        ] {
            let found = word(find(&step(id, url), tree, &sources), base);
            assert!(found.starts_with(want), "{id} {url:?}: {found}, wanted {want}");
        }
        // Absolute paths are the machine's own, and only for those who own the machine.
        let outside = format!("file://{}", base.join("outside").display());
        let found = word(find(&step("x", Some(&outside)), tree, &sources), base);
        assert!(found.ends_with("is not in the source tree"), "{found}");
        let trusting = StepSources { trusted_files: true, ..StepSources::default() };
        for url in [outside.as_str(), "file://../outside", "file://link"] {
            assert_eq!(word(find(&step("x", Some(url)), tree, &trusting), base), "foreign outside", "{url}");
        }
    }

    #[test]
    fn packages_by_name() {
        let commit = "0123456789012345678901234567890123456789";
        let sources = StepSources { packages: Some(Arc::new(Nothing)), ..StepSources::default() };
        let tree = Tree { root: Path::new("/nowhere"), origin: Path::new("/nowhere") };
        for (name, good) in [
            (format!("greet/main/{commit}"), true),
            ("greet/feature/x/latest".to_owned(), true),
            ("greet/latest".to_owned(), false),
            ("greet/main/abc".to_owned(), false),
            ("Greet/main/latest".to_owned(), false),
        ] {
            match find(&step("x", Some(&format!("package:{name}"))), tree, &sources) {
                Ok(Found::Package(wanted)) => assert!(good && wanted.to_string() == name, "{name}"),
                Err(problem) => assert!(!good && problem.to_string().contains("is no package"), "{problem}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_check_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let text = "box: a\nbuild:\n  steps:\n    - npm-tset\n    - internal/docker-push: {tag: a}\n  after-steps:\n    - slack-notifer:\n        url: x\n";
        let (config, _) = crate::config::parse(text).unwrap();
        let found = check(&config, text, "build", None, dir.path(), &StepSources::default());
        let places: Vec<_> =
            found.iter().map(|d| (d.line, d.column, d.length, d.help.clone().unwrap())).collect();
        assert_eq!(
            places,
            [
                (4, 7, 8, "did you mean `npm-test`?".into()),
                (7, 7, 13, "did you mean `slack-notifier`?".into())
            ]
        );
    }
}
