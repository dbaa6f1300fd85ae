//! One node: whether it may run, and its run.
//!
//! It must not know which nodes there are besides.

use std::path::PathBuf;

use sealift_model::EventKind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::groups::{self, Claim, Entry, Ticket};
use super::tree::{self, Tree};
use super::{Decision, NodeEnd, NodeEvent, WorkflowSpec};
use crate::config::template::Values;
use crate::config::{Config, GraphNode};
use crate::engine::Engine;
use crate::env_file::Handed;
use crate::layout;
use crate::mask::Mask;
use crate::run::{self, chain, plan};
use crate::spec::{Outcome, RunSpec, Source};

/// What all nodes share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) config: Config,
    pub(super) spec: WorkflowSpec,
    pub(super) mask: Mask,
    pub(super) events: mpsc::Sender<NodeEvent>,
}

/// Whether a node may run.
#[derive(Debug)]
pub(super) enum Looked {
    /// It may; in its group, if it has one, it is its turn.
    Clear(Option<Ticket>),
    /// It may not.
    Leave { reason: String, fine: bool },
    /// That is no longer wanted.
    Stopped,
}

/// How a node's run ended.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) end: NodeEnd,
    pub(super) message: Option<String>,
    pub(super) outcome: Option<Outcome>,
    /// What it hands on.
    pub(super) tree: Tree,
}

/// A node that is to run, with all that is its own.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) index: usize,
    pub(super) node: GraphNode,
    pub(super) variables: Handed,
    /// Its own directory.
    pub(super) dir: PathBuf,
}

impl Shared {
    pub(super) async fn tell(&self, node: Option<&str>, kind: EventKind) {
        // Nobody listening is no reason to stop.
        self.events.send(NodeEvent { node: node.map(str::to_owned), kind }).await.ok();
    }
}

impl Job {
    /// Condition, approval and group, in this order: nobody is asked in vain, and no group waits for a person.
    pub(super) async fn look(&self, shared: &Shared, cancel: &CancellationToken) -> Looked {
        let refused = |reason| Looked::Leave { reason, fine: false };
        let settings = &self.node.settings;
        if let Some(when) = &settings.when {
            let facts = plan::facts(&shared.spec.run);
            if facts.changed.is_none() && plan::asks_for_paths(Some(when)) {
                let text = plan::NO_PATHS.to_owned();
                shared.tell(Some(&self.node.name), EventKind::Note { text }).await;
            }
            if !when.matches(&facts) {
                return Looked::Leave { reason: plan::condition(&facts), fine: true };
            }
        }
        let waiting = |reason: String, question: Option<String>| async move {
            let reason = shared.mask.apply(&reason);
            shared.tell(Some(&self.node.name), EventKind::NodeWaiting { reason, question }).await;
        };
        if let Some(approval) = settings.approval.as_ref().filter(|approval| approval.wanted) {
            let question = shared.mask.apply(&approval.asks(&self.node.name));
            waiting(format!("for an approval: {question}"), Some(question.clone())).await;
            let Some(approver) = &shared.spec.approver else {
                return refused("it wants an approval, and there is nobody to ask here".to_owned());
            };
            let decision = tokio::select! {
                decision = approver.ask(&self.node.name, &question) => decision,
                () = cancel.cancelled() => return Looked::Stopped,
            };
            match decision {
                Decision::Refused { reason } => return refused(format!("not approved: {reason}")),
                Decision::Approved { by } => {
                    let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
                    let text = format!("approved{by}");
                    shared.tell(Some(&self.node.name), EventKind::Note { text }).await;
                }
            }
        }
        let Some(concurrency) = &settings.concurrency else { return Looked::Clear(None) };
        let name = match concurrency.group.fill(&Filling { job: self, shared }) {
            Ok(name) => name,
            Err(error) => return refused(format!("its group cannot be told: {error}")),
        };
        let groups = shared.spec.groups.as_ref();
        let dir = groups.map_or_else(|| shared.spec.run.work_dir.join("groups"), |groups| groups.dir.clone());
        let order = groups.and_then(|groups| groups.order);
        let claim = Claim { run: shared.spec.run.key.clone(), order };
        let (told, mut hears) = mpsc::channel(8);
        let mut tell = |before| {
            // One that is not heard is outdated.
            told.try_send(before).ok();
        };
        let mut entering = std::pin::pin!(groups::enter(
            &dir,
            &name,
            claim,
            concurrency.cancel_superseded,
            &mut tell,
            cancel
        ));
        let entry = loop {
            tokio::select! {
                entry = &mut entering => break entry,
                Some(before) = hears.recv() => waiting(format!("for group {name}: {before} before it"), None).await,
            }
        };
        match entry {
            Ok(Entry::Ours(ticket)) => Looked::Clear(Some(ticket)),
            Ok(Entry::Refused(reason)) => refused(reason),
            Ok(Entry::Cancelled) => Looked::Stopped,
            Err(error) => refused(chain(&error)),
        }
    }

    /// Runs it.
    pub(super) async fn run(
        &self,
        shared: &Shared,
        tree: Tree,
        ticket: Option<&Ticket>,
        cancel: CancellationToken,
    ) -> Ran {
        let source = match self.source(shared, tree.clone()).await {
            Ok(source) => source,
            Err(error) => {
                let reason = shared.mask.apply(&format!("its source cannot be made: {error}"));
                shared
                    .tell(
                        Some(&self.node.name),
                        EventKind::NodeSkipped { reason: reason.clone(), fine: false },
                    )
                    .await;
                return Ran { end: NodeEnd::Failed, message: Some(reason), outcome: None, tree };
            }
        };
        // If it makes nothing of its own, it hands on what it was given.
        let given = if let Source::Own(path) = &source { Tree::Made(path.clone()) } else { tree };
        let cancel = cancel.child_token();
        let (sender, mut inbox) = mpsc::channel(shared.events.max_capacity());
        let forward = async {
            while let Some(kind) = inbox.recv().await {
                shared.tell(Some(&self.node.name), kind).await;
            }
        };
        let running = Box::pin(run::execute(
            &shared.engine,
            &shared.config,
            self.spec(shared, source),
            sender,
            cancel.clone(),
        ));
        let mut unwanted = None;
        let watch = async {
            match ticket {
                Some(ticket) => ticket.unwanted().await,
                None => std::future::pending().await,
            }
        };
        let result = {
            let mut both = std::pin::pin!(async { tokio::join!(running, forward).0 });
            let mut watch = std::pin::pin!(watch);
            loop {
                tokio::select! {
                    result = &mut both => break result,
                    reason = &mut watch, if unwanted.is_none() => {
                        cancel.cancel();
                        unwanted = Some(reason);
                    }
                }
            }
        };
        let soft = self.node.settings.soft_fail.as_ref();
        let (end, message, outcome) = match result {
            Ok(outcome) if outcome.aborted => {
                (NodeEnd::Aborted, unwanted.or_else(|| outcome.message.clone()), Some(outcome))
            }
            Ok(outcome) => {
                let end = match &outcome {
                    Outcome { skipped: Some(_), .. } => NodeEnd::Skipped { fine: true },
                    Outcome { passed: true, .. } => NodeEnd::Passed,
                    Outcome { soft: true, .. } => NodeEnd::Soft,
                    _ => NodeEnd::Failed,
                };
                (end, outcome.message.clone(), Some(outcome))
            }
            Err(error) => {
                let covered = soft.is_some_and(|soft| soft.covers(None));
                let message = shared.mask.apply(&chain(&error));
                (if covered { NodeEnd::Soft } else { NodeEnd::Failed }, Some(message), None)
            }
        };
        let made = outcome.as_ref().and_then(|outcome| outcome.output.clone());
        let tree = made.map_or(given, Tree::Made);
        if end == NodeEnd::Passed
            && let Some(ticket) = ticket
            && let Err(error) = ticket.passed().await
        {
            let text = format!("it is not noted that this run has passed in its group: {}", chain(&error));
            shared.tell(Some(&self.node.name), EventKind::Warning { text }).await;
        }
        Ran { end, message, outcome, tree }
    }

    /// Makes the source that it is given.
    async fn source(&self, shared: &Shared, tree: Tree) -> std::io::Result<Source> {
        let run = shared.spec.run.clone();
        let to = self.dir.join("source");
        let ignore = shared.config.ignore_file.clone();
        let make = move || match tree {
            Tree::Project => Ok(run.source),
            Tree::Made(path) => Ok(Source::Whole(path)),
            Tree::Several(_) | Tree::Over(_) => {
                crate::source::remove(&to)?;
                std::fs::create_dir_all(to.parent().unwrap_or(&to))?;
                tree::make(&tree, &to, &|to| layout::copy_source(&run, to, ignore.as_deref()))?;
                Ok(Source::Own(to))
            }
        };
        tokio::task::spawn_blocking(make).await.map_err(std::io::Error::other)?
    }

    fn spec(&self, shared: &Shared, source: Source) -> RunSpec {
        let run = shared.spec.run.clone();
        let mut settings = self.node.settings.clone();
        // Looked at already.
        settings.when = None;
        let mut env = self.variables.shown.clone();
        env.extend(run.env);
        env.extend(self.node.variables.iter().cloned());
        let mut hidden_env = self.variables.hidden.clone();
        hidden_env.extend(run.hidden_env);
        let native = shared.config.version.is_some();
        let start: String = run.run_id.chars().take(20).collect();
        RunSpec {
            key: format!("{}-{}", run.key, self.index + 1),
            run_id: format!("{start}{:04x}", self.index + 1),
            pipeline: self.node.pipeline.clone(),
            // As the reference ran them.
            deploy: run.deploy || !native,
            source,
            work_dir: layout::node_work_dir(&self.dir),
            without: run.without.into_iter().chain([run.work_dir]).collect(),
            env,
            hidden_env,
            settings: Some(settings),
            selection: crate::spec::Selection::default(),
            resume: None,
            ..run
        }
    }
}

/// Where the name of a group takes its values from.
struct Filling<'a> {
    job: &'a Job,
    shared: &'a Shared,
}

impl Values for Filling<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        let lists = [&self.job.variables.shown, &self.shared.spec.run.env, &self.job.node.variables];
        let found = lists.into_iter().rev().flatten().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }

    fn branch(&self) -> String {
        self.shared.spec.run.git.branch.clone()
    }

    fn checksum(&self, _files: &[String]) -> Option<String> {
        None
    }
}
