//! build, deploy, dev and workflow.
//!
//! Guarantees: with `--artifacts` what a pipeline made is in `WORKING-DIR/latest/output`, where deploy looks for it;
//! the newest two are kept.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use sealift_model::diagnostic::chain;
use sealift_pipeline::config::{self, Loaded};
use sealift_pipeline::{Approver, Checkpoint, Engine, RunSpec, Source, Terminal, Tuning, checkpoints};
use tokio_util::sync::CancellationToken;

use super::text;
use crate::cli::{FactArgs, VariableArgs};
use crate::commands::local::{self, Desk, Keep, Request, Stop, What};
use crate::commands::this_machine::engine_options;
use crate::error::Error;
use crate::print::{Again, Mood, View, Voice};

pub(super) async fn run(command: &str, matches: &ArgMatches, voice: &Voice) -> Result<ExitCode, Error> {
    let voice = Voice { quiet: matches.get_flag("suppress-build-logs"), ..voice.clone() };
    let here = std::env::current_dir().map_err(|source| Error::Io {
        action: "look at",
        path: ".".into(),
        source,
    })?;
    let working_dir = here.join(text(matches, "working-dir").unwrap_or(".wercker"));
    let dir = source_dir(command, matches, &working_dir)?;
    let loaded = load(matches, &dir, &here, command)?;
    let file = loaded.path.display().to_string();
    for diagnostic in &loaded.diagnostics {
        diagnostic.render(&file, &loaded.text).lines().for_each(|line| voice.raw(line));
    }
    let pipeline = text(matches, "pipeline").unwrap_or(command).to_owned();
    let mut desk = Desk::open();
    let person = desk.person();
    let what = if let ("workflow", Some(name)) = (command, text(matches, "name")) {
        let approver = person.clone().map(|person| person as Arc<dyn Approver>);
        // One after the other, as the reference ran them, whose lines do not say what they are of.
        What::Workflow {
            name: name.to_owned(),
            graph: local::graph(&loaded, name)?,
            slots: Some(1),
            approver,
        }
    } else {
        crate::commands::check_pipeline(&loaded.config, &pipeline, &file, &loaded.text)?;
        What::Pipeline
    };
    let environment = here.join(text(matches, "environment").unwrap_or(local::ENVIRONMENT));
    if matches.contains_id("environment") && text(matches, "environment").is_some() && !environment.is_file()
    {
        return Err(Error::plain(format!("there is no file {}", environment.display())));
    }
    let variables = local::collect(&VariableArgs::default(), &environment, &local::host())?;
    let mut spec = RunSpec {
        project: project(matches, &dir, &here),
        pipeline,
        // Every run of a workflow counted as a deploy.
        deploy: matches!(command, "deploy" | "workflow"),
        deploy_target: text(matches, "deploy-target").map(str::to_owned),
        source: if command == "dev" || matches.get_flag("direct-mount") {
            Source::Direct(dir.clone())
        } else {
            Source::Copy(dir.clone())
        },
        without: vec![working_dir.clone()],
        tuning: Tuning {
            command_limit: minutes(matches, "command-timeout")?,
            no_response_limit: minutes(matches, "no-response-timeout")?,
            ..Tuning::default()
        },
        started_by: local::user(),
        auth_files: local::auth_files(),
        steps: local::step_sources()?,
        memory: match text(matches, "docker-memory") {
            Some(given) => Some(megabytes(given)?),
            None => None,
        },
        checkpoint_dir: Some(working_dir.join("checkpoints")),
        docker_local: matches.get_flag("docker-local"),
        expose_ports: matches.get_flag("expose-ports"),
        enable_volumes: matches.get_flag("enable-volumes"),
        docker_network: text(matches, "docker-network").map(str::to_owned),
        // As that CLI did it, without being asked.
        allow_docker: true,
        shell_on_failure: matches.get_flag("attach-on-error"),
        terminal: person.map(|person| person as Arc<dyn Terminal>),
        ..RunSpec::default()
    };
    let facts = FactArgs {
        branch: text(matches, "git-branch").map(str::to_owned),
        commit: text(matches, "git-commit").map(str::to_owned),
        tag: text(matches, "git-tag").map(str::to_owned),
        ..FactArgs::default()
    };
    spec.git = local::facts(&here, &facts).await;
    // There is one owner; the repository's counts more.
    let owner =
        ["git-owner", "application-owner-name"].into_iter().find(|name| text(matches, name).is_some());
    let owner = owner.unwrap_or("git-owner");
    for (name, fact) in [
        ("git-domain", &mut spec.git.domain),
        ("git-repository", &mut spec.git.repository),
        (owner, &mut spec.git.owner),
        ("application-started-by-name", &mut spec.started_by),
    ] {
        if let Some(given) = text(matches, name) {
            given.clone_into(fact);
        }
    }
    if let Some(name) = text(matches, "commit") {
        let tag = text(matches, "tag").map(str::to_owned);
        let tag = tag.unwrap_or_else(|| spec.git.branch.clone()).replace('/', "_");
        spec.commit = Some(if tag.is_empty() { name.to_owned() } else { format!("{name}:{tag}") });
    }
    if let Some(name) = text(matches, "checkpoint") {
        spec.resume = Some(checkpoint(name, &working_dir.join("checkpoints"), &spec)?);
    }
    let request = Request {
        loaded,
        what,
        spec,
        variables,
        keep: if matches.get_flag("artifacts") { Keep::Latest(working_dir) } else { Keep::Nothing },
        again: Again::default(),
        said: Vec::new(),
    };
    let stop = Stop::listen()?;
    let base = local::cache_dir()?;
    let mut options = engine_options(&base);
    if let Some(host) = text(matches, "docker-host") {
        options.docker_host = Some(host.to_owned());
    }
    let engine = Engine::connect(&options).await?;
    for said in local::clear_abandoned(&engine, &base).await? {
        voice.say(Mood::Plain, &said);
    }
    let mut request = request;
    request.spec.interrupts = stop.interrupts();
    request.spec.cache = Some(local::cache(request.spec.source.dir(), &request.spec.git.branch, true)?);
    let mut view = View::wercker(voice);
    let cancel = CancellationToken::new();
    let running = local::carry_out(&engine, &request, &base, &mut view, &stop, &mut desk, cancel);
    let passed = Box::pin(running).await?.passed;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(super::FAILED) })
}

/// Where the source is.
fn source_dir(command: &str, matches: &ArgMatches, working_dir: &Path) -> Result<PathBuf, Error> {
    let given = if command == "workflow" { None } else { text(matches, "dir") };
    if let Some(url) = given.filter(|given| given.contains("://")) {
        return Err(Error::plain(format!("sources are not fetched; clone {url} and name its directory")));
    }
    let latest = working_dir.join("latest/output");
    let dir = match given {
        Some(given) => PathBuf::from(given),
        None if command == "deploy" => {
            if !latest.is_dir() {
                return Err(Error::plain(format!(
                    "there is no {}; make it with `wercker build --artifacts`, or name a directory",
                    latest.display()
                )));
            }
            latest
        }
        None => ".".into(),
    };
    dir.canonicalize().map_err(|source| Error::Io { action: "look at", path: dir, source })
}

/// The file: the one that is named, else the source's; for a deploy, whose source may have none, the one here.
fn load(matches: &ArgMatches, dir: &Path, here: &Path, command: &str) -> Result<Loaded, Error> {
    let path = match text(matches, "wercker-yml") {
        Some(path) => PathBuf::from(path),
        None => match config::find_config(dir) {
            Err(config::Error::NotFound { .. }) if command == "deploy" => config::find_config(here)?,
            found => found?,
        },
    };
    let mut loaded = config::load(&path)?;
    if let Some(ignore) = text(matches, "ignore-file") {
        loaded.config.ignore_file = Some(ignore.to_owned());
    }
    if let Some(below) = text(matches, "source-dir") {
        loaded.config.source_dir = Some(below.to_owned());
    }
    Ok(loaded)
}

/// A deploy's source is a directory `output`, which is nobody's name.
fn project(matches: &ArgMatches, dir: &Path, here: &Path) -> String {
    let name = |dir: &Path| dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let dir = if dir.file_name().is_some_and(|name| name == "output") { here } else { dir };
    text(matches, "application-name")
        .map(str::to_owned)
        .or_else(|| name(dir))
        .unwrap_or_else(|| "project".into())
}

fn megabytes(given: &str) -> Result<u64, Error> {
    let bytes = given.parse::<u64>().ok().and_then(|megabytes| megabytes.checked_mul(1024 * 1024));
    bytes.ok_or_else(|| Error::plain(format!("--docker-memory wants a number of megabytes, not {given:?}")))
}

/// The state that a run has kept behind a step.
fn checkpoint(name: &str, dir: &Path, spec: &RunSpec) -> Result<Checkpoint, Error> {
    let known = checkpoints(dir).map_err(|error| Error::plain(chain(&error)))?;
    let mut ours =
        known.into_iter().filter(|one| one.project == spec.project && one.pipeline == spec.pipeline);
    ours.find(|one| one.name == name).ok_or_else(|| {
        Error::plain(format!(
            "there is no checkpoint {name} of pipeline {}; a run makes it behind the step with `checkpoint: {name}`",
            spec.pipeline
        ))
    })
}

/// A limit in minutes; of fractions only the whole ones count, as they did.
fn minutes(matches: &ArgMatches, name: &str) -> Result<Option<Duration>, Error> {
    let Some(given) = text(matches, name) else { return Ok(None) };
    let whole = given.split('.').next().unwrap_or_default();
    let minutes: u64 = whole
        .parse()
        .map_err(|_| Error::plain(format!("--{name} wants a number of minutes, not {given:?}")))?;
    // Nought was no limit of their own, and no more than an hour was ever given.
    Ok((minutes > 0).then(|| Duration::from_secs(60 * minutes.min(60))))
}
