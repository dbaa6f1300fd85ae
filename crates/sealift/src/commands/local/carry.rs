//! One run on this machine, from its directory in the cache to its end.
//!
//! Guarantees: when [`carry_out`] is back, nothing of the run is left in the engine or in the cache, or the error says
//! what is; a live view is off the terminal whenever somebody else writes to it.
//!
//! It must not know by which command line it was asked for.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sealift_model::EventKind;
use sealift_pipeline::config::{Graph, Loaded};
use sealift_pipeline::{
    Approver, Engine, Groups, Leftovers, NodeEvent, RunSpec, WorkflowSpec, execute, execute_workflow,
    remove_leftovers,
};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::ask::{Desk, Wanted};
use super::keep::Keep;
use super::place::{self, Place};
use super::stop::Stop;
use super::variables::Variables;
use crate::clock::now;
use crate::error::{Error, FAILED};
use crate::print::{Again, View};

/// Between two looks of the live view at what has happened.
const TICK: Duration = Duration::from_millis(100);
/// So long without a word, before somebody is asked something, means that there is none on its way.
const SETTLED: Duration = Duration::from_millis(50);
/// How long one who asks twice is kept waiting.
const AT_ONCE: Duration = Duration::from_secs(3);
/// As the engine knows what a run has made.
const OWNER_LABEL: &str = "dev.sealift.owner";

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) loaded: Loaded,
    pub(crate) what: What,
    /// All but what is a run's own: its id, its directory, its variables.
    pub(crate) spec: RunSpec,
    pub(crate) variables: Variables,
    pub(crate) keep: Keep,
    pub(crate) again: Again,
    /// What is told behind the event that begins it.
    pub(crate) said: Vec<EventKind>,
}

#[derive(Debug)]
pub(crate) enum What {
    /// The one that the spec names.
    Pipeline,
    Workflow {
        name: String,
        graph: Graph,
        slots: Option<usize>,
        approver: Option<Arc<dyn Approver>>,
    },
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) passed: bool,
}

impl Ended {
    pub(super) fn code(self, stop: &Stop) -> ExitCode {
        match stop.code() {
            _ if self.passed => ExitCode::SUCCESS,
            Some(code) => ExitCode::from(code),
            None => ExitCode::from(FAILED),
        }
    }
}

/// Runs it, shows it, and leaves nothing behind. `desk` is where the run asks for people and their terminal; it ends
/// early when `cancel` is.
pub(crate) async fn carry_out(
    engine: &Engine,
    request: &Request,
    base: &Path,
    view: &mut View,
    stop: &Stop,
    desk: &mut Desk,
    cancel: CancellationToken,
) -> Result<Ended, Error> {
    let place = Place::make(base)?;
    let owner = place::owner(&place.id);
    let spec = spec(request, &place);
    // By its whole path: other projects may have the same name.
    let project = request.spec.source.dir().to_string_lossy().replace('/', "_");
    let groups = base
        .join("groups")
        .join(project.chars().skip(project.chars().count().saturating_sub(200)).collect::<String>());
    let (sender, events) = mpsc::channel(1024);
    let running = async {
        let executing = execute_it(engine, request, spec, &groups, sender, cancel.clone());
        let showing = async {
            let shown = show(view, events, desk, request).await;
            if shown.is_err() {
                // Nobody reads any more.
                cancel.cancel();
            }
            shown
        };
        tokio::join!(executing, showing)
    };
    let gently = request.spec.stop.clone();
    let stopping = async {
        stop.asked(1).await;
        let mut next = 2;
        if let Some(gently) = gently {
            gently.cancel();
            stop.asked(next).await;
            next += 1;
        }
        cancel.cancel();
        stop.asked(next).await;
    };
    let ended = tokio::select! {
        ended = Box::pin(running) => Some(ended),
        () = stopping => None,
    };
    let Some((done, shown)) = ended else {
        view.pause()?;
        return end_at_once(engine, place, &owner, stop).await;
    };
    let kept = match &done.output {
        Some(output) => request.keep.keep(output, &place.id),
        None => Ok(()),
    };
    let removed = place.remove();
    let ended = view.end(&request.again);
    shown.and(ended).and(kept).and(removed)?;
    match done.failed {
        Some(error) => Err(error),
        None => Ok(Ended { passed: done.passed }),
    }
}

/// What is left to do when a run is over.
#[derive(Debug, Default)]
struct Done {
    passed: bool,
    output: Option<std::path::PathBuf>,
    /// It did not even begin.
    failed: Option<Error>,
}

async fn execute_it(
    engine: &Engine,
    request: &Request,
    spec: RunSpec,
    groups: &Path,
    events: mpsc::Sender<NodeEvent>,
    cancel: CancellationToken,
) -> Done {
    let config = &request.loaded.config;
    match &request.what {
        What::Pipeline => {
            let (sender, mut kinds) = mpsc::channel(1024);
            let forwarding = async {
                while let Some(kind) = kinds.recv().await {
                    // Nobody listening is no reason to stop.
                    events.send(NodeEvent { node: None, kind }).await.ok();
                }
            };
            let (outcome, ()) =
                tokio::join!(Box::pin(execute(engine, config, spec, sender, cancel)), forwarding);
            // A pipeline that could not be carried out has said so in its last event.
            outcome.map_or_else(
                |_| Done::default(),
                |outcome| Done { passed: outcome.passed, output: outcome.output, failed: None },
            )
        }
        What::Workflow { name, graph, slots, approver } => {
            let whole = WorkflowSpec {
                name: name.clone(),
                run: spec,
                slots: *slots,
                approver: approver.clone(),
                groups: Some(Groups { dir: groups.to_owned(), order: None }),
                ..WorkflowSpec::default()
            };
            match Box::pin(execute_workflow(engine, config, graph, whole, events, cancel)).await {
                Ok(outcome) => {
                    // Of a workflow with one end, what that made.
                    let output = outcome.nodes.last().and_then(|node| node.output.clone());
                    Done { passed: outcome.passed, output, failed: None }
                }
                Err(error) => Done { failed: Some(Error::Workflow(error)), ..Done::default() },
            }
        }
    }
}

fn spec(request: &Request, place: &Place) -> RunSpec {
    let Variables { shown, hidden, secrets, .. } = request.variables.clone();
    let mut spec = RunSpec {
        key: format!("local-{}", place.id.get(..12).unwrap_or_default()),
        owner: place::owner(&place.id),
        run_id: place.id.clone(),
        work_dir: place.work_dir(),
        env: shown,
        hidden_env: hidden,
        ..request.spec.clone()
    };
    // In Sealift's own form of the file a pipeline names the secrets that it is given.
    if request.loaded.config.version.is_some() {
        spec.secrets = secrets;
    } else {
        spec.hidden_env.extend(secrets);
    }
    spec
}

/// Shows what happens until nothing more does, and lets people be asked in between.
async fn show(
    view: &mut View,
    mut events: mpsc::Receiver<NodeEvent>,
    desk: &mut Desk,
    request: &Request,
) -> Result<(), Error> {
    // Ours come behind the event that begins it all.
    let warnings = request.variables.warnings.iter().map(|text| EventKind::Warning { text: text.clone() });
    let mut ours = request.said.iter().cloned().chain(warnings);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(NodeEvent { node, kind }) => {
                    view.take(now(), node, kind)?;
                    for kind in ours.by_ref() {
                        view.take(now(), None, kind)?;
                    }
                }
                None => return Ok(()),
            },
            Some(Wanted { taken, back }) = desk.wanted.recv() => {
                // What was told before may still be on its way.
                while let Ok(Some(NodeEvent { node, kind })) = timeout(SETTLED, events.recv()).await {
                    view.take(now(), node, kind)?;
                }
                view.hand_over()?;
                // Whoever wanted it may have gone; then it comes back at once.
                taken.send(()).ok();
                hold(view, &mut events, back).await?;
            }
            _ = ticks.tick() => view.tick(now())?,
        }
    }
}

/// Draws nothing while somebody else has the terminal. A live view takes in what happens meanwhile; lines wait.
async fn hold(
    view: &mut View,
    events: &mut mpsc::Receiver<NodeEvent>,
    mut back: tokio::sync::oneshot::Receiver<()>,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            _ = &mut back => return Ok(()),
            Some(NodeEvent { node, kind }) = events.recv(), if view.is_live() => view.take(now(), node, kind)?,
        }
    }
}

/// Asked twice: what is there is removed without waiting for anything that still goes on.
async fn end_at_once(engine: &Engine, place: Place, owner: &str, stop: &Stop) -> Result<Ended, Error> {
    let removed = tokio::select! {
        removed = timeout(AT_ONCE, remove_leftovers(engine, Leftovers::Owner(owner))) => matches!(removed, Ok(Ok(_))),
        () = stop.asked(3) => false,
    };
    let dir = place.dir.clone();
    if removed && place.remove().is_ok() {
        return Ok(Ended { passed: false });
    }
    let left = format!(
        "stopped before everything was removed: there may be containers and networks with the label \
         {OWNER_LABEL}={owner}, and there is {}",
        dir.display()
    );
    Err(Error::Stopped { left, code: stop.code().unwrap_or(FAILED) })
}
