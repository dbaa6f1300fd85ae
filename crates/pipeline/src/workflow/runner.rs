//! The course of a workflow: asks the schedule what is next, does it, and tells the schedule what came of it.
//!
//! It must not know how a node is run, nor decide which.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use sealift_model::{EventKind, NodePlan};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::groups::Ticket;
use super::node::{Job, Looked, Ran, Shared};
use super::schedule::{Action, Schedule, Why};
use super::tree::{self, Tree};
use super::{Error, NodeEnd, NodeEvent, NodeOutcome, WorkflowOutcome, WorkflowSpec};
use crate::config::{Config, Graph, Input};
use crate::engine::Engine;
use crate::env_file::{self, Handed};
use crate::layout;
use crate::mask::Mask;
use crate::run::millis;
use crate::spec::Source;

/// What a node has come to.
enum News {
    Looked(Looked),
    Ran(Box<Ran>, Option<Ticket>),
}

struct Runner {
    shared: Arc<Shared>,
    graph: Graph,
    jobs: Vec<Arc<Job>>,
    schedule: Schedule,
    /// Stops all that runs.
    stop: CancellationToken,
    /// Ends the whole.
    cancel: CancellationToken,
    /// The turn in its group of each node that has one.
    tickets: HashMap<usize, Ticket>,
    /// What each node hands on; the project's source as long as it has not ended.
    trees: Vec<Tree>,
    ends: Vec<Option<NodeOutcome>>,
    /// What goes on.
    going: FuturesUnordered<BoxFuture<'static, (usize, News)>>,
}

pub(super) async fn run(
    engine: Engine,
    config: Config,
    graph: Graph,
    spec: WorkflowSpec,
    events: mpsc::Sender<NodeEvent>,
    cancel: CancellationToken,
) -> Result<WorkflowOutcome, Error> {
    let started = Instant::now();
    let plan = |node: &crate::config::GraphNode| NodePlan {
        name: node.name.clone(),
        pipeline: node.pipeline.clone(),
        needs: node.needs.clone(),
    };
    let nodes = graph.nodes.iter().map(plan).collect();
    let first = EventKind::WorkflowStarted { workflow: spec.name.clone(), nodes };
    events.send(NodeEvent { node: None, kind: first }).await.ok();
    let result = match Runner::new(engine, config, graph, spec, events.clone(), &cancel) {
        Ok(runner) => Ok(runner.whole(&cancel).await),
        Err(error) => Err(error),
    };
    let (passed, message) = match &result {
        Ok(outcome) => (outcome.passed, outcome.message.clone()),
        Err(error) => (false, Some(crate::run::chain(error))),
    };
    let last = EventKind::WorkflowFinished { passed, millis: millis(started), message };
    events.send(NodeEvent { node: None, kind: last }).await.ok();
    result
}

impl Runner {
    fn new(
        engine: Engine,
        config: Config,
        graph: Graph,
        mut spec: WorkflowSpec,
        events: mpsc::Sender<NodeEvent>,
        cancel: &CancellationToken,
    ) -> Result<Runner, Error> {
        let mut hidden = [spec.run.hidden_env.clone(), spec.run.secrets.clone()].concat();
        let (Source::Own(project) | Source::Copy(project) | Source::Whole(project) | Source::Direct(project)) =
            spec.run.source.clone();
        let mut jobs: Vec<Arc<Job>> = Vec::new();
        let mut dirs: Vec<String> = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            let variables = match &node.env_file {
                Some(file) => env_file::handed(
                    env_file::read_below(&project, file.as_ref())
                        .map_err(|source| Error::EnvFile { node: node.name.clone(), source })?,
                ),
                None => Handed::default(),
            };
            hidden.extend(variables.hidden.iter().cloned());
            // Part of what is mounted, where not every character may stand.
            let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
            let mut dir: String = tree::dir_name(&node.name).chars().map(plain).collect();
            while dirs.contains(&dir) {
                dir.push('-');
            }
            dirs.push(dir.clone());
            let dir = layout::nodes(&spec.run.work_dir).join(dir);
            jobs.push(Arc::new(Job { index, node: node.clone(), variables, dir }));
        }
        let mask = Mask::new(&hidden)?;
        // A source that may be changed is so by one node only: others would find what it did.
        let given = graph.nodes.iter().filter(|node| !matches!(node.input, Input::Instead(_)));
        let wanted_once = given.count() == 1;
        if !wanted_once {
            spec.run.source = match spec.run.source {
                Source::Own(dir) => Source::Whole(dir),
                Source::Direct(dir) => Source::Copy(dir),
                other => other,
            };
        }
        let needs = graph.nodes.iter().map(|node| {
            let index = |name: &String| graph.nodes.iter().position(|other| other.name == *name);
            node.needs.iter().filter_map(index).collect()
        });
        let fail_fast = spec.fail_fast.unwrap_or(config.version.is_none());
        let schedule = Schedule::new(needs.collect(), spec.slots.unwrap_or_else(default_slots), fail_fast);
        let count = graph.nodes.len();
        Ok(Runner {
            shared: Arc::new(Shared { engine, config, spec, mask, events }),
            graph,
            jobs,
            schedule,
            stop: cancel.child_token(),
            cancel: cancel.clone(),
            tickets: HashMap::new(),
            trees: vec![Tree::Project; count],
            ends: vec![None; count],
            going: FuturesUnordered::new(),
        })
    }

    async fn whole(mut self, cancel: &CancellationToken) -> WorkflowOutcome {
        loop {
            while let Some(action) = self.schedule.next() {
                self.act(action).await;
            }
            if self.schedule.is_done() {
                break;
            }
            tokio::select! {
                Some((index, news)) = self.going.next() => self.hear(index, news).await,
                () = cancel.cancelled(), if !self.schedule.is_stopped() => self.schedule.stop(),
            }
            if self.schedule.is_stopped() {
                self.stop.cancel();
            }
        }
        let nodes: Vec<NodeOutcome> = self.ends.into_iter().flatten().collect();
        let aborted = cancel.is_cancelled();
        let passed = !aborted && nodes.iter().all(|node| node.end.is_fine());
        // The one that failed says more than those that were left out for it.
        let by_end = |end: fn(NodeEnd) -> bool| nodes.iter().find(|node| end(node.end));
        let first = by_end(|end| end == NodeEnd::Failed)
            .or_else(|| by_end(|end| end == NodeEnd::Aborted))
            .or_else(|| by_end(|end| !end.is_fine()));
        let message = first
            .map(|node| format!("{}: {}", node.name, node.message.as_deref().unwrap_or("it did not pass")));
        let message = if aborted { Some("aborted".to_owned()) } else { message };
        WorkflowOutcome { passed, aborted, message, nodes }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Look(index) => {
                let Some(job) = self.jobs.get(index).cloned() else { return };
                let (shared, stop) = (self.shared.clone(), self.stop.clone());
                self.going
                    .push(Box::pin(async move { (index, News::Looked(job.look(&shared, &stop).await)) }));
            }
            Action::Run(index) => {
                let Some(job) = self.jobs.get(index).cloned() else { return };
                let (shared, stop) = (self.shared.clone(), self.stop.clone());
                let tree = tree::source_of(&self.graph, &job.node, &self.trees);
                let ticket = self.tickets.remove(&index);
                self.going.push(Box::pin(async move {
                    let ran = job.run(&shared, tree, ticket.as_ref(), stop).await;
                    (index, News::Ran(Box::new(ran), ticket))
                }));
            }
            Action::Leave(index, why) => {
                let reason = match why {
                    Why::Needs(need) => {
                        let needed = self.jobs.get(need).map(|job| job.node.name.as_str());
                        format!("{} did not pass", needed.unwrap_or_default())
                    }
                    Why::Stopped => self.why_stopped(),
                };
                self.leave(index, reason, false).await;
            }
        }
    }

    async fn hear(&mut self, index: usize, news: News) {
        match news {
            News::Looked(Looked::Clear(ticket)) => {
                self.tickets.extend(ticket.map(|ticket| (index, ticket)));
                self.schedule.clear(index);
            }
            News::Looked(Looked::Leave { reason, fine }) => {
                self.schedule.end(index, fine);
                self.leave(index, reason, fine).await;
            }
            News::Looked(Looked::Stopped) => {
                self.schedule.end(index, false);
                let reason = self.why_stopped();
                self.leave(index, reason, false).await;
            }
            News::Ran(ran, ticket) => {
                drop(ticket);
                let Some(job) = self.jobs.get(index) else { return };
                let Ran { end, message, outcome, tree } = *ran;
                let output = match &tree {
                    Tree::Made(path) if end.is_fine() => Some(path.clone()),
                    _ => None,
                };
                let steps = outcome.map(|outcome| outcome.steps).unwrap_or_default();
                let (name, pipeline) = (job.node.name.clone(), job.node.pipeline.clone());
                self.set(index, NodeOutcome { name, pipeline, end, message, steps, output }, tree);
                self.schedule.end(index, end.is_fine());
            }
        }
    }

    /// Tells that a node will not run, and why. One that is left out as it should be hands on what it was given.
    async fn leave(&mut self, index: usize, reason: String, fine: bool) {
        let Some(job) = self.jobs.get(index) else { return };
        // Another may have its turn.
        self.tickets.remove(&index);
        let reason = self.shared.mask.apply(&reason);
        let kind = EventKind::NodeSkipped { reason: reason.clone(), fine };
        self.shared.tell(Some(&job.node.name), kind).await;
        let tree = tree::source_of(&self.graph, &job.node, &self.trees);
        let outcome = NodeOutcome {
            name: job.node.name.clone(),
            pipeline: job.node.pipeline.clone(),
            end: NodeEnd::Skipped { fine },
            message: Some(reason),
            steps: Vec::new(),
            output: None,
        };
        self.set(index, outcome, tree);
    }

    fn set(&mut self, index: usize, outcome: NodeOutcome, tree: Tree) {
        if let (Some(end), Some(place)) = (self.ends.get_mut(index), self.trees.get_mut(index)) {
            *end = Some(outcome);
            *place = tree;
        }
    }

    fn why_stopped(&self) -> String {
        if self.cancel.is_cancelled() {
            return "the workflow was cancelled".to_owned();
        }
        let failed = self.ends.iter().flatten().find(|node| node.end == NodeEnd::Failed);
        let failed = failed.or_else(|| self.ends.iter().flatten().find(|node| !node.end.is_fine()));
        match failed {
            Some(node) => format!("stopped, because {} did not pass", node.name),
            None => "the workflow was cancelled".to_owned(),
        }
    }
}

fn default_slots() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cpus / 2).clamp(2, 8)
}
