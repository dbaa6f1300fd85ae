//! `sealift run`: a pipeline here and now. The same engine and the same events as on a server.

mod ask;
mod carry;
mod dry;
mod git;
mod keep;
mod place;
mod stop;
mod variables;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use sealift_model::EventKind;
use sealift_pipeline::config::{self, Graph, Loaded};
use sealift_pipeline::steps::StepSources;
use sealift_pipeline::{
    Approver, CacheSpec, Checkpoint, Engine, Git, Ignore, RunSpec, Selection, Source, auth_file_places,
    checkpoints, name_of_failure, preview, remove_checkpoint,
};
use tokio_util::sync::CancellationToken;

use crate::cli::{FactArgs, Global, RunArgs};
use crate::error::Error;
use crate::print::{Again, Printer, Style, View, visible};

pub(crate) use ask::{Desk, hidden_line};
use ask::{Nobody, Yes};
pub(crate) use carry::{Request, What, carry_out};
pub(crate) use keep::Keep;
pub(crate) use place::{cache_dir, clear_abandoned};
pub(crate) use stop::Stop;
pub(crate) use variables::{ENVIRONMENT, collect, host};

/// How many failed runs of all projects can be gone on from.
const FAILURES: usize = 10;

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
    let said = say_diagnostics(&view.printer, &loaded)?;
    let file = loaded.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let what = match &args.workflow {
        Some(name) => {
            let graph = graph(&loaded, name)?;
            What::Workflow { name: name.clone(), graph, slots: args.slots, approver: None }
        }
        None => {
            super::check_pipeline(&loaded.config, &args.pipeline, &file, &loaded.text)?;
            // Who selects steps wants this pipeline alone.
            let alone = args.from.is_some() || !args.only.is_empty() || !args.skip.is_empty();
            let graph = if alone { None } else { graph_of(&loaded, &args.pipeline)? };
            match graph {
                Some(graph) => {
                    let name = args.pipeline.clone();
                    What::Workflow { name, graph, slots: args.slots, approver: None }
                }
                None => What::Pipeline,
            }
        }
    };
    let variables = collect(&args.variables, &dir.join(ENVIRONMENT), &host())?;
    let git = facts(&dir, &args.facts).await;
    let cache = if args.no_cache { None } else { Some(cache(&dir, &git.branch, !args.cache_on_success)?) };
    let mut request = Request {
        again: Again { arguments: again(&args) },
        what,
        spec: RunSpec {
            project: dir
                .file_name()
                .map_or_else(|| "project".into(), |name| name.to_string_lossy().into_owned()),
            pipeline: args.pipeline,
            deploy: args.facts.deploy || args.facts.deploy_target.is_some(),
            deploy_target: args.facts.deploy_target,
            changed: match &args.facts.since {
                Some(revision) => Some(git::changed(&dir, revision).await?),
                None => None,
            },
            selection: Selection { only: args.only, skip: args.skip, from: args.from },
            source: if args.direct { Source::Direct(dir) } else { Source::Copy(dir) },
            without: args.artifacts.as_deref().map(keep::appears).transpose()?.unwrap_or_default(),
            started_by: user(),
            expose_ports: args.expose_ports,
            enable_volumes: args.enable_volumes,
            allow_docker: args.allow_docker,
            auth_files: auth_files(),
            steps: step_sources()?,
            cache,
            git,
            shell_on_failure: args.shell_on_failure,
            stop: args.after_steps_on_cancel.then(CancellationToken::new),
            ..RunSpec::default()
        },
        loaded,
        variables,
        keep: args.artifacts.map_or(Keep::Nothing, Keep::New),
        said,
    };
    if matches!(request.what, What::Pipeline) {
        // What was selected in vain is told before anything begins.
        dry::look(&request.loaded.config, &request.spec)?;
        begin_where_it_failed(&mut request, &mut view)?;
    }
    if args.dry_run {
        request.spec.env.clone_from(&request.variables.shown);
        dry::print(&request, &view.printer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let base = cache_dir()?;
    let stop = Stop::listen()?;
    request.spec.interrupts = stop.interrupts();
    let engine = Engine::connect(&super::this_machine::engine_options(&base)).await?;
    for text in clear_abandoned(&engine, &base).await? {
        request.said.extend(say_note(&view.printer, &text)?);
    }
    let mut desk = Desk::open();
    let person = desk.person().filter(|_| !view.printer.is_json());
    if let What::Workflow { approver, .. } = &mut request.what {
        let asked: Arc<dyn Approver> = match &person {
            _ if args.yes => Arc::new(Yes),
            Some(person) => person.clone(),
            None => Arc::new(Nobody),
        };
        *approver = Some(asked);
    }
    match person {
        Some(person) => request.spec.terminal = Some(person),
        None if args.shell_on_failure => {
            return Err(Error::plain("--shell-on-failure needs a terminal on standard input and output"));
        }
        None => {}
    }
    if args.watch {
        return Box::pin(again_and_again(&engine, request, &base, &mut view, &stop, &mut desk)).await;
    }
    let cancel = CancellationToken::new();
    let ended = Box::pin(carry_out(&engine, &request, &base, &mut view, &stop, &mut desk, cancel)).await?;
    if matches!(request.what, What::Pipeline) {
        forget_failures(&engine, &request.spec, ended.passed).await;
    }
    Ok(ended.code(&stop))
}

/// Removes what failures have left that nobody will go on from: of this pipeline if it has passed, of projects that are
/// gone, and all but the newest. That something stays is no reason to say more than that.
async fn forget_failures(engine: &Engine, spec: &RunSpec, passed: bool) {
    let Some(dir) = &spec.checkpoint_dir else { return };
    let mut kept = 0;
    for found in checkpoints(dir).unwrap_or_default() {
        let Some(project) = found.project_that_failed() else { continue };
        let over = passed && is_failure_of(&found, spec) || !project.is_dir();
        kept += usize::from(!over);
        if (over || kept > FAILURES)
            && let Err(error) = remove_checkpoint(engine, &found).await
        {
            tracing::info!(%error, "the state of an earlier failure stays");
        }
    }
}

/// Whether a checkpoint is what a run of the same pipeline of the same project left when it failed.
fn is_failure_of(checkpoint: &Checkpoint, spec: &RunSpec) -> bool {
    checkpoint.name == name_of_failure(spec.source.dir())
        && checkpoint.project == spec.project
        && checkpoint.pipeline == spec.pipeline
}

/// Runs it now and whenever a file changes, until somebody stops it. A change ends the run under way.
async fn again_and_again(
    engine: &Engine,
    mut request: Request,
    base: &Path,
    view: &mut View,
    stop: &Stop,
    desk: &mut Desk,
) -> Result<ExitCode, Error> {
    let dir = request.spec.source.dir().to_owned();
    let ignore_file = request.loaded.config.ignore_file.clone();
    let ignore_file = dir.join(ignore_file.as_deref().unwrap_or(".werckerignore"));
    let ignore = Ignore::parse(&std::fs::read_to_string(ignore_file).unwrap_or_default());
    let mut watch = watch::Watch::start(&dir, ignore)?;
    loop {
        let cancel = CancellationToken::new();
        let mut changed = {
            let mut running = Box::pin(carry_out(engine, &request, base, view, stop, desk, cancel.clone()));
            tokio::select! {
                ended = &mut running => {
                    ended?;
                    None
                }
                changed = watch.changed() => {
                    cancel.cancel();
                    running.await?;
                    Some(changed?)
                }
            }
        };
        loop {
            if let Some(code) = stop.code() {
                return Ok(ExitCode::from(code));
            }
            if let Some(path) = changed.take() {
                say_note(&view.printer, &format!("{} has changed", visible(&path.display().to_string())))?;
                // The file itself may be what changed; while it is wrong, the next change is waited for.
                match reload(&mut request) {
                    Ok(()) => break,
                    // Said, and that is all there is to do about it.
                    Err(error) => drop(crate::error::report(&error, view.printer.output)),
                }
            }
            say_note(&view.printer, "waiting for a change; Ctrl-C ends it")?;
            tokio::select! {
                path = watch.changed() => changed = Some(path?),
                () = stop.asked(1) => {}
            }
        }
    }
}

/// The same file as it is now, as long as it still has what is to be run.
fn reload(request: &mut Request) -> Result<(), Error> {
    let loaded = config::load(&request.loaded.path)?;
    match &mut request.what {
        What::Pipeline => {
            let file = loaded.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            super::check_pipeline(&loaded.config, &request.spec.pipeline, &file, &loaded.text)?;
        }
        What::Workflow { name, graph: now, .. } => {
            let of_pipeline = graph_of(&loaded, name)?;
            *now = match of_pipeline.filter(|_| loaded.config.workflow(name).is_none()) {
                Some(graph) => graph,
                None => graph(&loaded, name)?,
            };
        }
    }
    request.loaded = loaded;
    // It was said of another file.
    request.said.clear();
    Ok(())
}

/// A pipeline with all that belongs to a run of it, where that is more than itself.
fn graph_of(loaded: &Loaded, name: &str) -> Result<Option<Graph>, Error> {
    let graph = loaded.config.graph_of(name);
    graph.map_err(|error| Error::plain(sealift_model::diagnostic::chain(&error)))
}

/// A workflow of the file, as its graph.
pub(crate) fn graph(loaded: &Loaded, name: &str) -> Result<Graph, Error> {
    let Some(workflow) = loaded.config.workflow(name) else {
        let file = loaded.path.file_name().unwrap_or_default().to_string_lossy();
        let known: Vec<_> = loaded.config.workflows.iter().map(|workflow| workflow.name.as_str()).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(Error::with_help(
            format!("{file} has no workflow {name:?}; it has: {known}"),
            "choose one with --workflow, or run a pipeline with --pipeline",
        ));
    };
    workflow.graph(&loaded.config).map_err(|error| Error::plain(sealift_model::diagnostic::chain(&error)))
}

/// Where steps come from that are neither the project's nor Sealift's own. The pipeline is the user's own.
pub(crate) fn step_sources() -> Result<StepSources, Error> {
    let data = std::env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
    Ok(StepSources {
        library: data.map(|data| data.join("sealift/steps")).into_iter().collect(),
        cache_dir: Some(cache_dir()?.join("steps")),
        trusted_files: true,
        ..StepSources::default()
    })
}

/// Lets the run begin with what the last one left when it failed, if it failed at the step that is asked for.
fn begin_where_it_failed(request: &mut Request, view: &mut View) -> Result<(), Error> {
    let dir = cache_dir()?.join("checkpoints");
    let spec = &mut request.spec;
    spec.checkpoint_dir = Some(dir.clone());
    spec.checkpoint_on_failure = true;
    let Some(pipeline) = request.loaded.config.pipeline(&spec.pipeline) else { return Ok(()) };
    let Some(from) = spec.selection.from.clone() else { return Ok(()) };
    if !spec.selection.only.is_empty() {
        return Ok(());
    }
    let alone =
        RunSpec { selection: Selection { from: Some(from.clone()), ..Selection::default() }, ..spec.clone() };
    let all = preview(
        &request.loaded.config,
        pipeline,
        &RunSpec { selection: Selection::default(), ..alone.clone() },
    );
    // A wrong name is told by the run itself.
    let (Ok(all), Ok(some)) = (all, preview(&request.loaded.config, pipeline, &alone)) else { return Ok(()) };
    let before = all.steps.iter().zip(&some.steps).take_while(|(all, some)| all.skip != some.skip).count();
    let known = checkpoints(&dir).map_err(|error| Error::plain(sealift_model::diagnostic::chain(&error)))?;
    let found = known.into_iter().find(|found| {
        is_failure_of(found, spec)
            && found.steps.len() == before
            && found.steps.iter().zip(&all.steps).all(|(then, now)| *then == now.name)
    });
    match found {
        Some(found) => {
            spec.selection.from = None;
            spec.resume = Some(found);
        }
        None => request.said.extend(say_note(
            &view.printer,
            &format!("no run has failed at {from:?}: it begins without what the steps before it leave"),
        )?),
    }
    Ok(())
}

/// The cache of the project in a directory, on a branch.
pub(crate) fn cache(dir: &Path, branch: &str, keep_on_failure: bool) -> Result<CacheSpec, Error> {
    let store = cache_dir()?.join("caches");
    Ok(CacheSpec { keep_on_failure, ..CacheSpec::new(store, &dir.to_string_lossy(), branch) })
}

/// Where this user's credentials for registries are.
pub(crate) fn auth_files() -> Vec<PathBuf> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (home, docker, runtime) = (path("HOME"), path("DOCKER_CONFIG"), path("XDG_RUNTIME_DIR"));
    auth_file_places(home.as_deref(), docker.as_deref(), runtime.as_deref())
}

/// Says what is odd about the file; what is to be said as events instead, where those are asked for.
fn say_diagnostics(printer: &Printer, loaded: &Loaded) -> Result<Vec<EventKind>, Error> {
    let file = loaded.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut said = Vec::new();
    for diagnostic in &loaded.diagnostics {
        let text = diagnostic.render(&file, &loaded.text);
        if printer.is_json() {
            said.push(EventKind::Warning { text });
        } else {
            printer.line(&printer.paint(Style::Careful, &text))?;
        }
    }
    Ok(said)
}

/// Says it, or hands back the event that says it.
fn say_note(printer: &Printer, text: &str) -> Result<Option<EventKind>, Error> {
    if printer.is_json() {
        return Ok(Some(EventKind::Note { text: text.to_owned() }));
    }
    printer.line(&printer.paint(Style::Quiet, text)).map(|()| None)
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
    let FactArgs { deploy, deploy_target, branch, commit, tag, since } = &args.facts;
    for (name, value) in [
        ("--deploy-target", deploy_target),
        ("--branch", branch),
        ("--commit", commit),
        ("--tag", tag),
        ("--since", since),
    ] {
        if let Some(value) = value {
            option(name, value);
        }
    }
    for (name, given) in [
        ("--deploy", *deploy && deploy_target.is_none()),
        ("--strict", args.strict),
        ("--direct", args.direct),
        ("--no-cache", args.no_cache),
        ("--cache-on-success", args.cache_on_success),
        ("--expose-ports", args.expose_ports),
        ("--enable-volumes", args.enable_volumes),
        ("--allow-docker", args.allow_docker),
        ("--after-steps-on-cancel", args.after_steps_on_cancel),
    ] {
        if given {
            words.push(name.to_owned());
        }
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

pub(crate) fn user() -> String {
    std::env::var("USER").unwrap_or_default()
}
