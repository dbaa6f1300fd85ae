//! The steps that the engine does itself: `internal/docker-push` and its like.
//!
//! Guarantees: what such a step makes for itself (images, containers) is known in [`Made`] before it is made, so that
//! the run's end can remove it; credentials and hidden values are never told.
//!
//! It must not know of the shell: what steps exported is handed in.

mod archive;
mod build;
mod containers;
mod ignore;
mod properties;
mod push;
mod store;
mod terminal;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard::models::ImageConfig;
use sealift_model::{EventKind, Stream};
use tokio::sync::mpsc;

use crate::config::StepConfig;
use crate::engine::{self, Engine};
use crate::env::Env;
use crate::layout::Layout;
use crate::pull::{self, Tell};
use crate::registry;
use crate::spec::RunSpec;
use properties::Properties;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no internal step {id}; there are {}", NAMES.join(", "))]
    Unknown { id: String },
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Pull(#[from] pull::Error),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("the step needs the property `{name}`{why}")]
    Missing { name: &'static str, why: &'static str },
    #[error("the property `{name}` cannot be used: {why}")]
    Property { name: &'static str, why: String },
    #[error("there is no {path} in the box")]
    NoPath { path: String },
    #[error("{what}")]
    Files {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Refused(String),
    #[error("exit code {0}")]
    Code(i64),
}

const NAMES: [&str; 9] = [
    "docker-push",
    "docker-scratch-push",
    "docker-build",
    "docker-run",
    "docker-kill",
    "store-container",
    "publish-step",
    "watch",
    "shell",
];

/// What such a step can work with.
pub(crate) struct Context<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) spec: &'a RunSpec,
    /// The box's container.
    pub(crate) container: &'a str,
    /// The configuration of the box's image.
    pub(crate) image: &'a ImageConfig,
    /// The run's network.
    pub(crate) network: &'a str,
    /// What names of containers begin with, so that no two runs take the same.
    pub(crate) prefix: &'a str,
    /// Lines for `/etc/hosts` by which the services are found.
    pub(crate) hosts: &'a [String],
    pub(crate) layout: &'a Layout,
    /// Where the source tree is in the box.
    pub(crate) root: &'a str,
    /// The variables of the shell as it is now.
    pub(crate) env: &'a Env,
    pub(crate) step: usize,
    pub(crate) events: &'a mpsc::Sender<EventKind>,
    pub(crate) made: &'a Made,
}

impl Context<'_> {
    /// Tells a line of the step's output.
    pub(crate) async fn say(&self, text: String) {
        self.tell(Stream::Stdout, text, false).await;
    }

    async fn tell(&self, stream: Stream, text: String, partial: bool) {
        let output = EventKind::Output { step: self.step, stream, text, partial };
        // Nobody listening is no reason to stop.
        self.events.send(output).await.ok();
    }

    fn files(&self, what: &str) -> impl Fn(std::io::Error) -> Error + use<> {
        let what = what.to_owned();
        move |source| Error::Files { what: what.clone(), source }
    }
}

/// What is done for a step is its output.
impl Tell for Context<'_> {
    async fn note(&self, text: String) {
        self.say(text).await;
    }

    async fn warn(&self, text: String) {
        self.events.send(EventKind::Warning { text }).await.ok();
    }
}

/// What the internal steps of a run have made so far.
#[derive(Debug, Default)]
pub(crate) struct Made(Mutex<Things>);

#[derive(Debug, Default)]
struct Things {
    /// Names of images that nobody needs after the run.
    images: Vec<String>,
    /// How many names of the run's own were given away.
    count: u32,
    /// The images of docker-build, by the name that the file gives them.
    built: HashMap<String, String>,
    /// The containers of docker-run, by alias.
    containers: HashMap<String, String>,
}

impl Made {
    fn things(&self) -> MutexGuard<'_, Things> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The images to remove at the end of the run, the newest first: it may stand on an older one.
    pub(crate) fn images(&self) -> Vec<String> {
        self.things().images.iter().rev().cloned().collect()
    }

    /// A name for an image of this run. One that goes by it is not lost when its other names are taken away.
    pub(crate) fn own_name(&self, prefix: &str) -> String {
        let mut things = self.things();
        things.count += 1;
        let prefix = prefix.to_lowercase();
        let name =
            format!("localhost/sealift-run/{}:{}", prefix.trim_end_matches(['-', '_', '.']), things.count);
        things.images.push(name.clone());
        name
    }

    fn add_image(&self, image: &str) {
        self.things().images.push(image.to_owned());
    }

    fn drop_image(&self, image: &str) {
        self.things().images.retain(|known| known != image);
    }

    /// The image of an earlier docker-build.
    fn built(&self, name: &str) -> Option<String> {
        self.things().built.get(name).cloned()
    }
}

/// Keeps the box as an image under this name, as docker-push would, but does not push it.
pub(crate) async fn commit(name: &str, context: &Context<'_>) -> Result<(), Error> {
    let config = StepConfig::default();
    let image = push::commit(&Properties::new(&config, context.env), context).await?;
    let (name, tag) = registry::split(name)?;
    Ok(context.engine.tag(&image, &name, tag.as_deref().unwrap_or("latest")).await?)
}

/// Whether a step lasts as long as somebody wants it to, whatever the limits are.
pub(crate) fn waits_for_people(config: &StepConfig) -> bool {
    matches!(config.name.as_str(), "watch" | "shell")
}

/// Does the step. Dropping the future stops it.
pub(crate) async fn run(config: &StepConfig, context: &Context<'_>) -> Result<(), Error> {
    let properties = Properties::new(config, context.env);
    match config.name.as_str() {
        "docker-push" => push::push(&properties, context).await,
        "docker-scratch-push" => push::scratch(&properties, context).await,
        "docker-build" => build::build(&properties, context).await,
        "docker-run" => containers::run(&properties, context).await,
        "docker-kill" => containers::kill(&properties, context).await,
        "store-container" => store::container(context).await,
        "publish-step" => store::step(&properties, context).await,
        "watch" => watch::watch(&properties, context).await,
        "shell" => terminal::shell(&properties, context).await,
        _ => Err(Error::Unknown { id: config.id.clone() }),
    }
}

/// Where a run's results are put, and where they are seen in the box.
fn output_dir(context: &Context<'_>) -> PathBuf {
    context.layout.pipeline.join("output")
}
