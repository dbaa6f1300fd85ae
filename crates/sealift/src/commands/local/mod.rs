//! `sealift run`: a pipeline here and now. The same engine and the same events as on a server.

mod git;
mod keep;
mod place;
mod stop;
mod variables;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sealift_model::EventKind;
use sealift_pipeline::config::{self, Loaded};
use sealift_pipeline::{Engine, Git, Leftovers, RunSpec, Source, remove_leftovers};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::{FactArgs, Global, RunArgs};
use crate::clock::now;
use crate::error::{Error, FAILED};
use crate::print::{Again, Printer, Style, View};

pub(crate) use keep::Keep;
use place::Place;
pub(crate) use place::{cache_dir, clear_abandoned};
pub(crate) use stop::Stop;
pub(crate) use variables::{ENVIRONMENT, Variables, collect, host};

/// Between two looks of the live view at what has happened.
const TICK: Duration = Duration::from_millis(100);
/// How long one who asks twice is kept waiting.
const AT_ONCE: Duration = Duration::from_secs(3);

pub(super) async fn run(args: RunArgs, global: &Global) -> Result<ExitCode, Error> {
    let dir = args.dir.canonicalize().map_err(|source| Error::Io {
        action: "look at",
        path: args.dir.clone(),
        source,
    })?;
    if let Some(artifacts) = &args.artifacts {
        keep::must_be_new(artifacts)?;
    }
    let loaded = config::load(&config::find_config(&dir)?)?;
    let loaded = if args.strict { loaded.strict()? } else { loaded };
    let mut view = View::new(global.output, args.plain);
    say_diagnostics(&view.printer, &loaded)?;
    let file = loaded.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    super::check_pipeline(&loaded.config, &args.pipeline, &file, &loaded.text)?;
    let variables = collect(&args.variables, &dir.join(ENVIRONMENT), &host())?;
    let request = Request {
        again: Again { arguments: again(&args) },
        spec: RunSpec {
            project: dir
                .file_name()
                .map_or_else(|| "project".into(), |name| name.to_string_lossy().into_owned()),
            pipeline: args.pipeline,
            git: facts(&dir, &args.facts).await,
            deploy: args.facts.deploy || args.facts.deploy_target.is_some(),
            deploy_target: args.facts.deploy_target,
            source: if args.direct { Source::Direct(dir) } else { Source::Copy(dir) },
            ..RunSpec::default()
        },
        loaded,
        variables,
        keep: args.artifacts.map_or(Keep::Nothing, Keep::New),
    };
    let stop = Stop::listen()?;
    let base = cache_dir()?;
    let engine = Engine::connect(&super::dev::engine_options(&base)).await?;
    for text in clear_abandoned(&engine, &base).await? {
        say_note(&view.printer, &text)?;
    }
    let ended = carry_out(&engine, &request, &base, &mut view, &stop).await?;
    Ok(ended.code(&stop))
}

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) loaded: Loaded,
    /// All but what is a run's own: its id, its directory, its variables.
    pub(crate) spec: RunSpec,
    pub(crate) variables: Variables,
    pub(crate) keep: Keep,
    pub(crate) again: Again,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) passed: bool,
}

impl Ended {
    fn code(self, stop: &Stop) -> ExitCode {
        match stop.code() {
            _ if self.passed => ExitCode::SUCCESS,
            Some(code) => ExitCode::from(code),
            None => ExitCode::from(FAILED),
        }
    }
}

/// Runs it, shows it, and leaves nothing behind.
pub(crate) async fn carry_out(
    engine: &Engine,
    request: &Request,
    base: &Path,
    view: &mut View,
    stop: &Stop,
) -> Result<Ended, Error> {
    let place = Place::make(base)?;
    let owner = place::owner(&place.id);
    let spec = spec(request, &place);
    let cancel = CancellationToken::new();
    let (sender, events) = mpsc::channel(1024);
    let running = async {
        let executing =
            sealift_pipeline::execute(engine, &request.loaded.config, spec, sender, cancel.clone());
        let showing = async {
            let shown = show(view, events, &request.variables.warnings).await;
            if shown.is_err() {
                // Nobody reads any more.
                cancel.cancel();
            }
            shown
        };
        tokio::join!(executing, showing)
    };
    let stopping = async {
        stop.asked(1).await;
        cancel.cancel();
        stop.asked(2).await;
    };
    let ended = tokio::select! {
        ended = Box::pin(running) => Some(ended),
        () = stopping => None,
    };
    let Some((outcome, shown)) = ended else {
        view.pause()?;
        return end_at_once(engine, place, &owner, stop).await;
    };
    // A pipeline that could not be carried out has said so in its last event.
    let outcome = outcome.ok();
    let kept = match outcome.as_ref().and_then(|outcome| outcome.output.as_ref()) {
        Some(output) => request.keep.keep(output, &place.id),
        None => Ok(()),
    };
    let removed = place.remove();
    let ended = view.end(&request.again);
    shown.and(ended).and(kept).and(removed)?;
    Ok(Ended { passed: outcome.is_some_and(|outcome| outcome.passed) })
}

fn spec(request: &Request, place: &Place) -> RunSpec {
    let mut spec = request.spec.clone();
    if spec.started_by.is_empty() {
        spec.started_by = user();
    }
    RunSpec {
        key: format!("local-{}", place.id.get(..12).unwrap_or_default()),
        owner: place::owner(&place.id),
        run_id: place.id.clone(),
        work_dir: place.work_dir(),
        env: request.variables.shown.clone(),
        hidden_env: request.variables.hidden.clone(),
        ..spec
    }
}

/// Shows what happens until nothing more does.
async fn show(
    view: &mut View,
    mut events: mpsc::Receiver<EventKind>,
    warnings: &[String],
) -> Result<(), Error> {
    // Ours come behind the event that begins it all.
    let mut warnings = warnings.iter();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(kind) => {
                    view.take(now(), None, kind)?;
                    for text in warnings.by_ref() {
                        view.take(now(), None, EventKind::Warning { text: text.clone() })?;
                    }
                }
                None => return Ok(()),
            },
            _ = ticks.tick() => view.tick(now())?,
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

/// As the engine knows what a run has made.
const OWNER_LABEL: &str = "dev.sealift.owner";

fn say_diagnostics(printer: &Printer, loaded: &Loaded) -> Result<(), Error> {
    let file = loaded.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for diagnostic in loaded.diagnostics.iter().filter(|_| !printer.is_json()) {
        printer.line(&printer.paint(Style::Careful, &diagnostic.render(&file, &loaded.text)))?;
    }
    Ok(())
}

fn say_note(printer: &Printer, text: &str) -> Result<(), Error> {
    if printer.is_json() { Ok(()) } else { printer.line(&printer.paint(Style::Quiet, text)) }
}

/// The options with which the same thing could be run again.
fn again(args: &RunArgs) -> Vec<String> {
    let mut words = Vec::new();
    if args.dir != Path::new(".") {
        words.push(args.dir.display().to_string());
    }
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    for (name, value) in &args.variables.env {
        option("--env", &format!("{name}={value}"));
    }
    for (name, path) in
        [("--env-file", &args.variables.env_file), ("--secrets-file", &args.variables.secrets_file)]
    {
        if let Some(path) = path {
            option(name, &path.display().to_string());
        }
    }
    for name in &args.variables.secret {
        option("--secret", name);
    }
    if let Some(target) = &args.facts.deploy_target {
        option("--deploy-target", target);
    } else if args.facts.deploy {
        words.push("--deploy".to_owned());
    }
    words
}

/// What git says, unless somebody says otherwise.
pub(crate) async fn facts(dir: &Path, args: &FactArgs) -> Git {
    let mut git = git::facts(dir).await;
    for (fact, given) in
        [(&mut git.branch, &args.branch), (&mut git.commit, &args.commit), (&mut git.tag, &args.tag)]
    {
        if let Some(given) = given {
            fact.clone_from(given);
        }
    }
    if git.owner.is_empty() {
        git.owner = user();
    }
    git
}

fn user() -> String {
    std::env::var("USER").unwrap_or_default()
}
