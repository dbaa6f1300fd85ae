//! One run of one pipeline, from the source tree to its end.
//!
//! Guarantees: `PipelineStarted` is told first and `PipelineFinished` last and once, whatever happens; each attempt after
//! the first begins with `NodeRetried` and `PipelineStarted`; when [`execute`] is
//! back, or its future was dropped and a moment has passed, no container, network or control file of the run is left;
//! a cancelled run stops at once.
//!
//! It must not know who wanted the run, nor what becomes of its output.

mod allowed;
mod attempt;
mod caches;
mod failure;
mod nested;
mod own;
pub(crate) mod plan;
mod preview;
mod publish;
mod scene;
mod steps;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::ImageConfig;
pub(crate) use sealift_model::diagnostic::chain;
use sealift_model::{EventKind, StepResult};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::checkpoint;
use crate::config::{BoxConfig, Config, Pipeline, Settings, StepConfig};
use crate::engine::{self, Engine};
use crate::env::{self, Env};
use crate::internal;
use crate::layout::{self, Layout};
use crate::leftovers::{self, Leftovers, remove_leftovers};
use crate::mask::{self, Mask, Masking};
use crate::pull::{self, Tell};
use crate::service;
use crate::session::{self, Limits, Session};
use crate::source;
use crate::spec::Outcome;
use crate::spec::{RunSpec, Source};
use crate::steps::{self as step, Preparation, Prepared};

use self::attempt::Ended;
use self::plan::Plan;
pub use self::plan::SelectionError;
pub(crate) use allowed::{Leave, Publishing};
pub use preview::{Preview, StepPreview, preview};

/// Longest clean-up inside a container.
const SWEEP: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no pipeline {name}{why}")]
    NoPipeline { name: String, why: String },
    #[error("{message}")]
    Unusable { message: String },
    #[error("no box for pipeline {name}")]
    NoBox { name: String },
    #[error("cannot prepare {}", path.display())]
    Files {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Steps(#[from] step::Error),
    #[error("the path {path} cannot be mounted: it is not absolute, or has a colon in it")]
    Path { path: String },
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Service(#[from] service::Error),
    #[error(transparent)]
    Session(#[from] session::Error),
    #[error(transparent)]
    Mask(#[from] mask::Error),
    #[error(transparent)]
    Pull(#[from] pull::Error),
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error(
        "pipeline {pipeline} wants {}, and was not given it; `sealift run` takes it by `--secret NAME`, from its environment, or by `--secrets-file`; \
         a server keeps it with `sealift secret set NAME`",
        secrets(names)
    )]
    NoSecret { pipeline: String, names: Vec<String> },
    #[error("the run was cancelled")]
    Cancelled,
    #[error("the run's task broke off")]
    Task(#[source] tokio::task::JoinError),
}

/// Runs a pipeline. Events go to `events`; one who does not take them slows the run down, one who has gone away is
/// no longer told. A failing step is no error but an [`Outcome`].
///
/// Dropping the future cancels the run.
///
/// # Errors
/// When the run could not be carried out: no engine, no image, no such pipeline, a full disk.
pub async fn execute(
    engine: &Engine,
    config: &Config,
    mut spec: RunSpec,
    events: mpsc::Sender<EventKind>,
    cancel: CancellationToken,
) -> Result<Outcome, Error> {
    let settings = spec.settings.clone();
    let own = || config.pipeline(&spec.pipeline).map(|pipeline| pipeline.settings.clone());
    let settings = settings.or_else(own).unwrap_or_default();
    let (handed, missing) = plan::secrets(&settings.secrets, &spec.secrets);
    spec.hidden_env.extend(handed);
    let attempts = settings.retry.as_ref().map_or(1, |retry| retry.attempts);
    if let (Source::Own(dir), true) = (&spec.source, attempts > 1) {
        // Each attempt begins with the same tree. A caller with a directory of the run's own knows of no views.
        spec.source = Source::Whole(dir.clone());
        spec.tuning.copy_source = true;
    }
    let mask = Mask::new(&[spec.hidden_env.as_slice(), &spec.secrets].concat())?;
    let mut warnings = Vec::new();
    let given = |name: &&str| spec.hidden_env.iter().any(|(known, _)| known == name);
    let too_short: Vec<&str> = mask.too_short().iter().map(String::as_str).filter(given).collect();
    if !too_short.is_empty() {
        let names = too_short.join(", ");
        warnings
            .push(format!("not masked, because the value is too short to tell it from other text: {names}"));
    }
    let (sender, receiver) = mpsc::channel(events.max_capacity());
    let (events, masking) = if mask.is_empty() {
        (events, None)
    } else {
        (sender, Some(tokio::spawn(tell_masked(mask.clone(), receiver, events))))
    };
    // A task of its own, so that it can clean up even when nobody waits for it any more.
    let cancel = cancel.child_token();
    let guard = cancel.clone().drop_guard();
    let run = Run {
        engine: engine.clone(),
        config: config.clone(),
        spec,
        events,
        cancel: cancel.child_token(),
        whole: cancel,
        settings,
        missing,
        plans: Vec::new(),
        exported: Env::default(),
        exported_unknown: false,
        steps: Vec::new(),
        warnings,
        caches: Vec::new(),
        made: internal::Made::default(),
        checkpoints: Vec::new(),
        failure: None,
    };
    let result = tokio::spawn(Box::pin(run.whole())).await.map_err(Error::Task)?;
    drop(guard);
    if let Some(masking) = masking {
        masking.await.map_err(Error::Task)?;
    }
    result.map(|outcome| Outcome { message: outcome.message.map(|text| mask.apply(&text)), ..outcome })
}

/// Hands events on without the secrets in them, until the last one.
async fn tell_masked(mask: Mask, mut from: mpsc::Receiver<EventKind>, to: mpsc::Sender<EventKind>) {
    let mut masking = Masking::new(mask);
    let mut masked = Vec::new();
    while let Some(event) = from.recv().await {
        masking.event(event, &mut masked);
        for event in masked.drain(..) {
            // Nobody listening is no reason to stop: the run goes on until it is told to end.
            to.send(event).await.ok();
        }
    }
}

struct Run {
    engine: Engine,
    config: Config,
    spec: RunSpec,
    events: mpsc::Sender<EventKind>,
    /// Stops what goes on now: also when an attempt's time is over.
    cancel: CancellationToken,
    /// Stops the run.
    whole: CancellationToken,
    /// What holds for this run of the pipeline.
    settings: Settings,
    /// Secrets that it wants and that are not there.
    missing: Vec<String>,
    /// What holds for each step, after-steps behind the others.
    plans: Vec<Plan>,
    /// What the shell exported before the step that goes on, as far as it is known.
    exported: Env,
    /// It was said that the shell cannot tell.
    exported_unknown: bool,
    /// Those of the attempt that goes on.
    steps: Vec<StepResult>,
    /// To be told once it has begun.
    warnings: Vec<String>,
    caches: Vec<caches::Used>,
    made: internal::Made,
    /// The names under which the state after a step is to be kept, step by step.
    checkpoints: Vec<Option<String>>,
    /// Where the state of the step that failed is kept; the trees are still to come.
    failure: Option<PathBuf>,
}

/// The container in which the steps run.
struct Scene {
    container: String,
    /// The configuration of the box's image.
    image: ImageConfig,
    network: String,
    /// Lines for `/etc/hosts` by which the services are found.
    hosts: Vec<String>,
    /// The variables by which they are found.
    links: Vec<(String, String)>,
    layout: Layout,
    /// Where the source tree is in the box.
    root: String,
    limits: Limits,
}

impl Run {
    async fn tell(&self, event: EventKind) {
        // Nobody listening is no reason to stop.
        self.events.send(event).await.ok();
    }

    /// Tells what is to come, then does it.
    async fn begin(&mut self, session: &mut Option<Session>) -> Result<Ended, Error> {
        let name = self.spec.pipeline.clone();
        let found = self.pipeline().cloned();
        let mount = found.as_ref().ok().and_then(|pipeline| pipeline.base_path.clone());
        let root = mount.as_deref().filter(|path| !path.is_empty()).unwrap_or("/pipeline/source");
        let source_dir = match &self.config.source_dir {
            Some(below) => format!("{root}/{}", below.trim_matches('/')),
            None => root.to_owned(),
        };
        let (env, refused) = env::base(&self.spec, &source_dir);
        let the_box = found.as_ref().ok().and_then(|pipeline| self.config.box_of(pipeline)).cloned();
        let image = the_box.as_ref().map(|the_box| scene::image_of(the_box, &env)).unwrap_or_default();
        let main = found.as_ref().map(|pipeline| self.steps_of(pipeline).to_vec()).unwrap_or_default();
        let after = found.as_ref().map(|pipeline| pipeline.after_steps.clone()).unwrap_or_default();
        let steps = main.iter().chain(&after).map(|step| step.title().to_owned()).collect();
        self.tell(EventKind::PipelineStarted { pipeline: name.clone(), image: image.clone(), steps }).await;
        for text in std::mem::take(&mut self.warnings) {
            self.warn(text).await;
        }
        let pipeline = found?;
        if !self.missing.is_empty() {
            return Err(Error::NoSecret { pipeline: name, names: self.missing.clone() });
        }
        self.plans = plan::plan(&main, &after, &self.spec.selection, &plan::facts(&self.spec))?;
        if let Some(reason) = self.left_out(&main, &after).await {
            return Ok(Ended::LeftOut(reason));
        }
        let the_box = the_box.filter(|the_box| !the_box.id.is_empty()).ok_or(Error::NoBox { name })?;
        for name in refused {
            self.warn(format!("the variable `{name}` is left out: no shell takes such a name or value"))
                .await;
        }
        self.checkpoints = main.iter().map(|step| step.checkpoint.clone()).collect();
        if let Some(checkpoint) = &self.spec.resume {
            checkpoint.fits(main.iter().map(StepConfig::title))?;
        }
        let (layout, preparation) = self.prepare(&main, &after).await?;
        for text in preparation.notes {
            self.note(text).await;
        }
        for text in preparation.warnings {
            self.warn(text).await;
        }
        self.take_caches(&layout, &env).await;
        let image = self.spec.resume.as_ref().map_or(image, |checkpoint| checkpoint.image.clone());
        // Kept off the stack: it holds the states of all that a run waits for.
        Box::pin(self.go(&pipeline, &the_box, image, root, env, layout, preparation.steps, session)).await
    }

    fn pipeline(&self) -> Result<&Pipeline, Error> {
        let name = &self.spec.pipeline;
        if let Some(pipeline) = self.config.pipeline(name) {
            return match &pipeline.problem {
                Some(problem) if self.steps_of(pipeline).is_empty() => {
                    Err(Error::Unusable { message: problem.message.clone() })
                }
                _ => Ok(pipeline),
            };
        }
        let dropped = self.config.dropped.iter().find(|(dropped, _)| dropped == name);
        let why = match dropped {
            Some((_, reason)) => format!(": line {}: {}", reason.line, reason.message),
            None => {
                let known: Vec<&str> = self.config.pipelines.iter().map(|p| p.name.as_str()).collect();
                if known.is_empty() {
                    ": the file has none".into()
                } else {
                    format!("; there is {}", known.join(", "))
                }
            }
        };
        Err(Error::NoPipeline { name: name.clone(), why })
    }

    fn steps_of<'a>(&self, pipeline: &'a Pipeline) -> &'a [StepConfig] {
        let wanted = self.spec.deploy_target.as_ref();
        let target = wanted.and_then(|wanted| pipeline.targets.iter().find(|(name, _)| name == wanted));
        target.map_or(&pipeline.steps, |(_, steps)| steps)
    }

    /// Makes the directories, the copy of the source and the files of all steps.
    async fn prepare(
        &self,
        main: &[StepConfig],
        after: &[StepConfig],
    ) -> Result<(Layout, Preparation), Error> {
        let spec = self.spec.clone();
        let ignore_file = self.config.ignore_file.clone();
        let views = self.engine.shares_mounts() && !spec.tuning.copy_source;
        let files = tokio::task::spawn_blocking(move || {
            let failed = |source| Error::Files { path: spec.work_dir.clone(), source };
            let layout = layout::lay_out(&spec, ignore_file.as_deref(), views).map_err(failed)?;
            if let Some(checkpoint) = &spec.resume {
                checkpoint.restore(&spec, &layout).map_err(failed)?;
            }
            step::write_init(&layout).map_err(failed)?;
            Ok::<_, Error>(layout)
        });
        let layout = files.await.map_err(Error::Task)??;
        let steps =
            main.iter().map(|s| (s.clone(), false)).chain(after.iter().map(|s| (s.clone(), true))).collect();
        let origin = self.spec.source.dir();
        let prepared = step::prepare(&layout, origin, &self.spec.steps, steps, &self.cancel).await?;
        Ok((layout, prepared))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one run, used once")]
    async fn go(
        &mut self,
        pipeline: &Pipeline,
        the_box: &BoxConfig,
        image: String,
        root: &str,
        mut env: Env,
        layout: Layout,
        prepared: Vec<Prepared>,
        session: &mut Option<Session>,
    ) -> Result<Ended, Error> {
        let network = self.spec.docker_network.clone().unwrap_or_else(|| self.container_name(None));
        self.check()?;
        let leave = self.leave_of_box(pipeline, the_box, &mut env, &network).await?;
        let image_config = self.image(&image, the_box, &env).await?;
        if self.spec.docker_network.is_none() {
            self.create_network(&network).await?;
        }
        let services = self.services(pipeline, &env, &network, &layout).await?;
        let links: Vec<_> = services.iter().flat_map(|service| service.links.clone()).collect();
        for (name, value) in &links {
            env.set(name, value);
        }
        // Into the shell and not into the container's description, which every image of the box would have.
        let (_, secret) = env::of_box_by_secrecy(the_box, &env, &self.spec.hidden_env);
        for (name, value) in secret {
            if env.get(&name).is_none() {
                env.set(&name, value);
            }
        }
        self.check()?;
        let hosts = service::hosts(&services);
        let container = self.container_name(Some("box"));
        self.create_box(the_box, &image, root, &env, &layout, &network, &container, hosts.clone(), leave)
            .await?;
        let user = the_box
            .user
            .clone()
            .or_else(|| image_config.user.clone())
            .filter(|user| !matches!(user.as_str(), "" | "0" | "root"));
        let session =
            session.insert(Session::open(&self.engine, &container, &layout.control, user.is_none()).await?);
        if let Some(user) = &user {
            // The tree on this machine belongs to whoever started the run, not to the box's user.
            let user = user.split(':').next().unwrap_or_default().to_owned();
            let give = ["chown", "-R", &user, "/pipeline"].map(str::to_owned);
            self.engine.command(&container, Some("0"), &give, SWEEP).await?;
        }
        let limits = Limits {
            command: self.spec.tuning.command_limit.unwrap_or_else(|| self.config.command_limit()),
            silence: self.spec.tuning.no_response_limit.unwrap_or_else(|| self.config.no_response_limit()),
        };
        let by_root = user.is_none();
        let root = root.to_owned();
        let scene = Scene { container, image: image_config, network, hosts, links, layout, root, limits };
        let result = self.all_steps(&scene, &env, session, &prepared).await;
        if !self.is_aborted() {
            for service in &services {
                if let Some(ended) = service.ended(&self.engine).await {
                    self.warn(format!("{ended}")).await;
                }
            }
        }
        self.give_back(&scene.container, by_root, session).await;
        result
    }
    fn check(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Removes all that the run made, but for its tree.
    async fn clean_up(&self) -> Result<(), Error> {
        let removed = remove_leftovers(&self.engine, Leftovers::Run(&self.spec.key)).await;
        for image in self.made.images() {
            // One that another image stands on stays with it.
            if let Err(error) = self.engine.remove_image(&image).await {
                tracing::debug!(%error, "an image of the run stays");
            }
        }
        let control = self.spec.work_dir.join("control");
        source::remove(&control).map_err(|source| Error::Files { path: control, source })?;
        Ok(removed.map(drop)?)
    }

    fn reports(&self) -> Option<PathBuf> {
        let reports = self.spec.work_dir.join("pipeline/report");
        let any = source::has_files(&reports);
        any.then_some(reports)
    }
    fn container_name(&self, part: Option<&str>) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let key: String = self.spec.key.chars().map(plain).collect();
        let part: String =
            part.map(|part| format!("-{part}")).unwrap_or_default().chars().map(plain).collect();
        format!("sealift-{key}{part}")
    }

    fn labels(&self, role: &str) -> HashMap<String, String> {
        leftovers::labels(&self.spec.key, &self.spec.owner, role)
    }
}

/// `the secret TOKEN`, `the secrets A, B`.
fn secrets(names: &[String]) -> String {
    format!("the secret{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

pub(crate) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn words(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
