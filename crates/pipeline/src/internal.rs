//! The steps that the engine does itself: `internal/docker-push` and its like.
//!
//! It must not know of the shell: what steps exported is handed in.

use sealift_model::{EventKind, Stream};
use tokio::sync::mpsc;

use crate::config::StepConfig;
use crate::engine::Engine;
use crate::env::Env;
use crate::layout::Layout;
use crate::spec::RunSpec;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no internal step {id}")]
    Unknown { id: String },
}

/// What such a step can work with.
pub(crate) struct Context<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) spec: &'a RunSpec,
    /// The box's container.
    pub(crate) container: &'a str,
    /// The run's network.
    pub(crate) network: &'a str,
    pub(crate) layout: &'a Layout,
    /// The variables of the shell as it is now.
    pub(crate) env: &'a Env,
    pub(crate) step: usize,
    pub(crate) events: &'a mpsc::Sender<EventKind>,
}

impl Context<'_> {
    /// Tells a line of the step's output.
    pub(crate) async fn say(&self, text: String) {
        let output = EventKind::Output { step: self.step, stream: Stream::Stdout, text, partial: false };
        // Nobody listening is no reason to stop.
        self.events.send(output).await.ok();
    }
}

/// Does the step. Dropping the future stops it.
pub(crate) async fn run(config: &StepConfig, context: &Context<'_>) -> Result<(), Error> {
    context.say(format!("step {} is asked for", config.id)).await;
    Err(Error::Unknown { id: config.id.clone() })
}
