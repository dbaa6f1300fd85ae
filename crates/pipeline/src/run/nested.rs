//! Services that are projects themselves: `url: file://DIR[#PIPELINE]` is built first, by a run of its own, and its box
//! becomes the service's image.
//!
//! Guarantees: such a project lies within the source tree of the run; building is not nested for ever; the image goes
//! with the run that wanted it.
//!
//! It must not know what the service is used for.

use std::future::Future;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;

use sealift_model::EventKind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Error, Run, execute};
use crate::config::{self, BoxConfig, Config};
use crate::engine::Engine;
use crate::env::Env;
use crate::layout::Layout;
use crate::pull::Tell;
use crate::spec::{Outcome, RunSpec, Source};

/// How deep projects may stand on each other.
const DEEPEST: u8 = 3;
/// The pipeline where the address names none.
const PIPELINE: &str = "build";
/// Events that may wait to be told.
const EVENTS: usize = 64;

impl Run {
    /// The image of a service that is given by an address; none where it is given by an image.
    pub(super) async fn built_service(
        &self,
        service: &BoxConfig,
        env: &Env,
        layout: &Layout,
    ) -> Result<Option<String>, Error> {
        let Some(url) = service.option("url").map(|url| env.fill(url)) else { return Ok(None) };
        let alias = service.alias();
        let refused =
            |why: String| Error::Unusable { message: format!("service {alias} from `url: {url}`: {why}") };
        if alias.is_empty() {
            return Err(refused("it has no `name`, by which others could find it".to_owned()));
        }
        if self.spec.nesting >= DEEPEST {
            return Err(refused(format!("more than {DEEPEST} projects that stand on each other")));
        }
        let (dir, pipeline) = parse(&url).ok_or_else(|| refused("only file:// is known".to_owned()))?;
        let root = layout.source.canonicalize();
        let root = root.map_err(|source| Error::Files { path: layout.source.clone(), source })?;
        // On a machine that runs other people's pipelines, the machine's own files are none of theirs.
        let dir = root.join(dir).canonicalize().ok().filter(|dir| dir.starts_with(&root));
        let dir = dir.ok_or_else(|| refused("there is no such directory in the source tree".to_owned()))?;
        // Nor is what links lead to that steps have laid.
        let loaded = config::load_below(&root, dir.strip_prefix(&root).unwrap_or(&dir));
        let loaded = loaded.map_err(|error| refused(error.to_string()))?;

        self.note(format!("building service {alias} from {url}")).await;
        let image = self.made.own_name(&self.container_name(None));
        let spec = RunSpec {
            key: format!("{}.{alias}", self.spec.key),
            pipeline: pipeline.to_owned(),
            source: Source::Copy(dir),
            // The same in each run, for the sake of its cache.
            work_dir: self.spec.work_dir.join("services").join(directory(&alias)),
            commit: Some(image.clone()),
            nesting: self.spec.nesting + 1,
            deploy_target: None,
            checkpoint_dir: None,
            resume: None,
            docker_network: None,
            ..self.spec.clone()
        };
        let (sender, mut inbox) = mpsc::channel(EVENTS);
        let run = boxed(self.engine.clone(), loaded.config, spec, sender, self.cancel.clone());
        let tell = async {
            while let Some(event) = inbox.recv().await {
                match event {
                    EventKind::Note { text } | EventKind::Output { text, .. } => {
                        self.note(format!("{alias}: {text}")).await;
                    }
                    EventKind::Warning { text } => self.warn(format!("{alias}: {text}")).await,
                    EventKind::StepStarted { name, .. } => self.note(format!("{alias}: step {name}")).await,
                    _ => {}
                }
            }
        };
        let (outcome, ()) = tokio::join!(run, tell);
        let outcome = outcome.map_err(|error| refused(super::chain(&error)))?;
        match outcome {
            Outcome { aborted: true, .. } => Err(Error::Cancelled),
            Outcome { passed: true, .. } => Ok(Some(image)),
            Outcome { message, .. } => Err(refused(message.unwrap_or_default())),
        }
    }
}

/// An alias as the name of a directory.
fn directory(alias: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    alias.chars().map(plain).take(60).collect()
}

/// A run in a run: without a type of its own, so that it may hold another one.
fn boxed(
    engine: Engine,
    config: Config,
    spec: RunSpec,
    events: mpsc::Sender<EventKind>,
    cancel: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<Outcome, Error>> + Send>> {
    Box::pin(async move { execute(&engine, &config, spec, events, cancel).await })
}

/// The directory and the pipeline in an address.
fn parse(url: &str) -> Option<(PathBuf, &str)> {
    let (path, pipeline) = match url.split_once('#') {
        Some((path, pipeline)) if !pipeline.is_empty() => (path, pipeline),
        Some((path, _)) => (path, PIPELINE),
        None => (url, PIPELINE),
    };
    let path = Path::new(path.strip_prefix("file://")?);
    let inner = path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
    Some((inner.collect(), pipeline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        for (url, want) in [
            ("file://./web", Some(("web", "build"))),
            ("file://web#deploy", Some(("web", "deploy"))),
            ("file:///web/#", Some(("web", "build"))),
            ("https://x/y", None),
        ] {
            let want = want.map(|(dir, pipeline)| (PathBuf::from(dir), pipeline));
            assert_eq!(parse(url), want, "{url}");
        }
    }
}
