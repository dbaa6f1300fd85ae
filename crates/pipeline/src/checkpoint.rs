//! Checkpoints: the state of a run after a step, to start from there another time.
//!
//! A checkpoint is an image of the box, a copy of its source and output trees, and the variables that the shell
//! exported. Guarantees: no value of a hidden variable is kept among the variables; what is kept is for its owner
//! alone; of one name in one pipeline of one project only the newest is kept, and it is whole or not there.
//!
//! The trees are read from this machine's side while processes that a step left behind may still write there; it is
//! meant for one's own pipelines.
//!
//! It must not know how steps are run.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::{self, Engine};
use crate::env::Env;
use crate::layout::Layout;
use crate::overlay;
use crate::source::{self, Ignore};
use crate::spec::{RunSpec, Source};

const STATE: &str = "state.json";
const TREES: [&str; 2] = ["source", "output"];
/// What a failed run changed of the source that it had a view of.
const CHANGES: &str = "changes";
/// The copy of the source that a failed run had, where there was no view.
const LEFT: &str = "left";
/// The shell's own, and what the engine sets.
const OWN: [&str; 5] = ["PWD", "OLDPWD", "SHLVL", "_", "HOSTNAME"];
/// The most checkpoints that are listed.
const LISTED: usize = 10_000;
/// A shorter value would be found in anything.
const SHORTEST_SECRET: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("cannot use {}", path.display())]
    Files {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not what it was written as", path.display())]
    State {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("checkpoint {name} was made after step {then}, and the file has {now} there now")]
    Changed { name: String, then: String, now: String },
    #[error("the copy of the checkpoint broke off")]
    Task(#[source] tokio::task::JoinError),
}

/// The state after a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// As the file names it.
    pub name: String,
    pub project: String,
    pub pipeline: String,
    /// The titles of the steps that were done, the one with the checkpoint last.
    pub steps: Vec<String>,
    /// The image of the box, in the engine.
    pub image: String,
    /// Seconds since 1970.
    pub made_at: u64,
    variables: Vec<(String, String)>,
    #[serde(skip)]
    dir: PathBuf,
}

/// All checkpoints below a run's `checkpoint_dir`, the newest first. Those that cannot be read are left out.
///
/// # Errors
/// When the directory cannot be read; one that is not there has none.
pub fn list(checkpoint_dir: &Path) -> Result<Vec<Checkpoint>, Error> {
    let files = |source| Error::Files { path: checkpoint_dir.to_owned(), source };
    let mut found = Vec::new();
    let entries = match fs::read_dir(checkpoint_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(files)?,
    };
    for entry in entries.take(LISTED) {
        if let Ok(checkpoint) = read(&entry.map_err(files)?.path()) {
            found.push(checkpoint);
        }
    }
    found.sort_by(|a, b| (b.made_at, &a.name).cmp(&(a.made_at, &b.name)));
    Ok(found)
}

/// Removes a checkpoint, its image as well.
///
/// # Errors
/// When the engine or the filesystem refuses.
pub async fn remove(engine: &Engine, checkpoint: &Checkpoint) -> Result<(), Error> {
    engine.remove_image(&checkpoint.image).await?;
    let dir = checkpoint.dir.clone();
    source::remove(&dir).map_err(|source| Error::Files { path: dir, source })
}

fn read(dir: &Path) -> Result<Checkpoint, Error> {
    let path = dir.join(STATE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(Error::Files { path, source }),
    };
    let state: Checkpoint = serde_json::from_str(&text).map_err(|source| Error::State { path, source })?;
    Ok(Checkpoint { dir: dir.to_owned(), ..state })
}

/// What a step's end is to be kept with.
pub(crate) struct Moment<'a> {
    pub(crate) name: &'a str,
    pub(crate) container: &'a str,
    pub(crate) layout: &'a Layout,
    /// The titles of the steps so far.
    pub(crate) steps: Vec<String>,
    /// What the shell exports.
    pub(crate) variables: Vec<(String, String)>,
    /// Whether the trees are copied; else [`leave`] takes them when the run is over.
    pub(crate) trees: bool,
}

/// How the name of a failure's checkpoint begins; the project's directory follows.
const FAILED: &str = "failed ";

/// The name of the checkpoint that a run of the project in `source` leaves when it fails.
#[must_use]
pub fn name_of_failure(source: &Path) -> String {
    format!("{FAILED}{}", source.display())
}

impl Checkpoint {
    /// The directory of the project whose failed run left this; none for a checkpoint that a step asked for.
    #[must_use]
    pub fn project_that_failed(&self) -> Option<&Path> {
        self.name.strip_prefix(FAILED).map(Path::new).filter(|dir| dir.is_absolute())
    }
}

/// Moves what a failed run has changed to its checkpoint, when its container is gone.
pub(crate) fn leave(dir: &Path, work_dir: &Path) -> io::Result<()> {
    let source = work_dir.join("pipeline/source");
    let changes = work_dir.join("changes/upper");
    let (from, name) = if changes.is_dir() {
        overlay::end(&source)?;
        (changes, CHANGES)
    } else {
        (source, LEFT)
    };
    for (from, name) in [(from, name), (work_dir.join("pipeline/output"), "output")] {
        let to = dir.join(name);
        source::remove(&to)?;
        if from.is_dir() {
            fs::rename(&from, &to)?;
        }
    }
    Ok(())
}

/// Keeps the state of a run: where, and the names of variables that were left out because a secret is in them.
pub(crate) async fn save(
    engine: &Engine,
    spec: &RunSpec,
    checkpoint_dir: &Path,
    moment: Moment<'_>,
) -> Result<(PathBuf, Vec<String>), Error> {
    let key = key(&spec.project, &spec.pipeline, moment.name);
    let image = format!("localhost/sealift-checkpoint/{key}:w-{}", tag(moment.name));
    let (variables, secret) = without_secrets(moment.variables, spec);
    let made_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let dir = checkpoint_dir.join(&key);
    let checkpoint = Checkpoint {
        name: moment.name.to_owned(),
        project: spec.project.clone(),
        pipeline: spec.pipeline.clone(),
        steps: moment.steps,
        image,
        made_at,
        variables,
        dir,
    };
    let kept_in = checkpoint.dir().to_owned();
    let before = engine.image_id(&checkpoint.image).await?;
    // Under another name first: the old state counts until the new one is whole.
    let (name, tag) = checkpoint.image.rsplit_once(':').unwrap_or((&checkpoint.image, "latest"));
    let new = format!("{name}:new-{}", spec.run_id);
    let id = engine.commit(moment.container, &new, "", "").await?;
    let (layout, kept) = (moment.trees.then(|| moment.layout.clone()), checkpoint.clone());
    let copied =
        tokio::task::spawn_blocking(move || write(layout.as_ref(), &kept)).await.map_err(Error::Task);
    if let Err(error) = copied.and_then(|copied| copied) {
        engine.remove_image(&new).await?;
        return Err(error);
    }
    engine.tag(&id, name, tag).await?;
    engine.remove_image(&new).await?;
    // One that other images stand on stays until they go: that of this very run, if it began with this checkpoint.
    let stands = spec.resume.as_ref().is_some_and(|resumed| resumed.image == checkpoint.image);
    if let Some(before) = before.filter(|before| *before != id && !stands)
        && let Err(error) = engine.remove_image(&before).await
    {
        tracing::debug!(%error, "the image of an earlier checkpoint stays");
    }
    Ok((kept_in, secret))
}

fn write(layout: Option<&Layout>, checkpoint: &Checkpoint) -> Result<(), Error> {
    let new = checkpoint.dir.with_extension("new");
    let files = |source| Error::Files { path: new.clone(), source };
    source::remove(&new).map_err(files)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&new).map_err(files)?;
    if let Some(layout) = layout {
        let output = layout.pipeline.join("output");
        for (name, from) in TREES.into_iter().zip([&layout.source, &output]) {
            source::copy(from, &new.join(name), &[], &Ignore::default()).map_err(files)?;
        }
    }
    let state = new.join(STATE);
    let mut file = fs::OpenOptions::new();
    let file = file.write(true).create_new(true).mode(0o600).open(&state).map_err(files)?;
    serde_json::to_writer(file, checkpoint).map_err(|source| Error::State { path: state, source })?;
    source::remove(&checkpoint.dir).map_err(files)?;
    fs::rename(&new, &checkpoint.dir).map_err(files)
}

/// The variables that may be written down, and the names of those that hold a secret without being known as one.
fn without_secrets(variables: Vec<(String, String)>, spec: &RunSpec) -> (Vec<(String, String)>, Vec<String>) {
    let mut secret = Vec::new();
    let mut kept = Vec::new();
    for (name, value) in variables {
        if OWN.contains(&name.as_str()) || spec.hidden_env.iter().any(|(hidden, _)| *hidden == name) {
            continue;
        }
        let holds = |(_, hidden): &(String, String)| {
            hidden.len() >= SHORTEST_SECRET && value.contains(hidden.as_str())
        };
        if spec.hidden_env.iter().any(holds) {
            secret.push(name);
        } else {
            kept.push((name, value));
        }
    }
    (kept, secret)
}

impl Checkpoint {
    /// Whether the steps that it stands behind are those of the file.
    pub(crate) fn fits<'a>(&self, steps: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let mut steps = steps;
        for then in &self.steps {
            let now = steps.next().unwrap_or("none");
            if now != then {
                let (then, now) = (then.clone(), now.to_owned());
                return Err(Error::Changed { name: self.name.clone(), then, now });
            }
        }
        Ok(())
    }

    /// Puts the trees back. A source tree that is not a copy stays as it is: it may be somebody's own.
    pub(crate) fn restore(&self, spec: &RunSpec, layout: &Layout) -> io::Result<()> {
        let output = layout.pipeline.join("output");
        for (name, to) in TREES.into_iter().zip([&layout.source, &output]) {
            if !self.dir.join(name).is_dir() {
                continue;
            }
            if *to == layout.source && matches!(spec.source, Source::Own(_) | Source::Direct(_)) {
                continue;
            }
            overlay::end(to)?;
            source::remove(to)?;
            source::copy(&self.dir.join(name), to, &[], &Ignore::default())?;
        }
        let left = self.dir.join(LEFT);
        if left.is_dir() {
            // The source as it is now counts more than what a step made of it.
            source::merge(&left, &layout.source, source::Clash::Stay)?;
        }
        Ok(())
    }

    /// Moves what a failed run has changed of the source to where a view of the source keeps its changes. So the
    /// source is that of now, with what the steps made of it.
    pub(crate) fn take_changes(&self, upper: &Path) -> io::Result<()> {
        match fs::rename(self.dir.join(CHANGES), upper) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Where it is kept.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The variables as they were; those that belong to a run itself or are hidden are as they are now.
    pub(crate) fn environment(&self, now: &Env, fixed: &[(String, String)], spec: &RunSpec) -> Env {
        let mut env = now.clone();
        for (name, value) in &self.variables {
            let of_the_run = name.starts_with("WERCKER_")
                || fixed.iter().any(|(known, _)| known == name)
                || spec.hidden_env.iter().any(|(hidden, _)| hidden == name);
            if !of_the_run {
                env.set(name, value);
            }
        }
        env
    }
}

/// One directory and one image for each name of each pipeline of each project.
fn key(project: &str, pipeline: &str, name: &str) -> String {
    let sum = Sha256::digest([project, pipeline, name].join("\0"));
    let sum: String = sum.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let words: String = format!("{project}-{pipeline}").chars().map(plain).take(80).collect();
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
    format!("{}-{sum}", if words.is_empty() { "run".to_owned() } else { words.join("-") })
}

fn tag(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    name.chars().map(plain).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out() {
        let spec = RunSpec { hidden_env: vec![("TOKEN".into(), "geheim".into())], ..RunSpec::default() };
        let variables = [("A", "1"), ("TOKEN", "geheim"), ("AUTH", "Bearer geheim"), ("PWD", "/")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let (kept, secret) = without_secrets(variables, &spec);
        assert_eq!((kept, secret), (vec![("A".to_owned(), "1".to_owned())], vec!["AUTH".to_owned()]));
    }

    #[test]
    fn names_of_their_own() {
        let keys = [key("Me/App", "build", "x"), key("me/app", "build", "x"), key("me", "app-build", "x")];
        assert!(keys.iter().all(|key| key.starts_with("me-app-build-")), "{keys:?}");
        assert!(keys[0] != keys[1] && keys[1] != keys[2]);
        assert_eq!(tag("nach dem Bauen"), "nach-dem-Bauen");
    }
}
