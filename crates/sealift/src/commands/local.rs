//! `sealift run`: a pipeline here and now. The same engine and the same events as on a server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sealift_model::Timestamp;
use sealift_pipeline::{Engine, Git, RunSpec, Source, config};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::{Global, RunArgs};
use crate::error::{Error, FAILED};
use crate::print::{Printer, Style};
use crate::state_dir::{hex, random};

/// As a shell says of a command that SIGINT ended.
const INTERRUPTED: u8 = 130;

pub(super) async fn run(args: RunArgs, global: &Global) -> Result<ExitCode, Error> {
    let dir = args.dir.canonicalize().map_err(|source| Error::Io {
        action: "look at",
        path: args.dir.clone(),
        source,
    })?;
    if let Some(artifacts) = &args.artifacts
        && artifacts.try_exists().unwrap_or(true)
    {
        return Err(Error::plain(format!("{} is there already; name a new directory", artifacts.display())));
    }
    let loaded = config::load(&config::find_config(&dir)?)?;
    let loaded = if args.strict { loaded.strict()? } else { loaded };
    let mut printer = Printer::new(global.output);
    let file = loaded.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for diagnostic in loaded.diagnostics.iter().filter(|_| global.output == crate::cli::Output::Text) {
        printer.line(&printer.paint(Style::Careful, &diagnostic.render(&file, &loaded.text)))?;
    }
    super::check_pipeline(&loaded.config, &args.pipeline, &file, &loaded.text)?;
    let base = cache_dir()?;
    let engine = Engine::connect(&super::dev::engine_options(&base)).await?;
    let id = hex(&random::<12>()?);
    let work_dir = base.join("runs").join(&id);
    std::fs::create_dir_all(&work_dir).map_err(|source| Error::Io {
        action: "make",
        path: work_dir.clone(),
        source,
    })?;
    let project =
        dir.file_name().map_or_else(|| "project".into(), |name| name.to_string_lossy().into_owned());
    let spec = RunSpec {
        key: format!("local-{}", &id[..12]),
        owner: format!("local-{}", std::process::id()),
        run_id: id,
        project,
        pipeline: args.pipeline,
        git: git_facts(&dir).await,
        source: Source::Copy(dir),
        work_dir: work_dir.clone(),
        env: args.env,
        hidden_env: Vec::new(),
        deploy: false,
        deploy_target: None,
        started_by: std::env::var("USER").unwrap_or_default(),
        ..RunSpec::default()
    };
    let cancel = CancellationToken::new();
    let (sender, mut events) = mpsc::channel(1024);
    let interrupted = {
        let cancel = cancel.clone();
        async move {
            // Without a handler there is nothing to wait for.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            cancel.cancel();
            tokio::signal::ctrl_c().await.ok();
        }
    };
    let running = async {
        let executing = sealift_pipeline::execute(&engine, &loaded.config, spec, sender, cancel);
        let printing = async {
            let mut seq = 0;
            while let Some(kind) = events.recv().await {
                let at = now();
                if printer.is_json() {
                    printer.json(&sealift_model::RunEvent { seq, at, node: None, kind })?;
                } else {
                    printer.event(at, &kind)?;
                }
                seq += 1;
            }
            Ok::<(), Error>(())
        };
        tokio::join!(executing, printing)
    };
    let (outcome, printed) = tokio::select! {
        outcome = running => outcome,
        // Asked twice: at once, and what is left is cleared by the engine or by hand.
        () = interrupted => return Ok(ExitCode::from(INTERRUPTED)),
    };
    // A pipeline that could not be carried out has said so in its last event.
    let outcome = outcome.map_or(Ok(None), |outcome| {
        if let (Some(wanted), Some(output), true) = (&args.artifacts, &outcome.output, outcome.passed) {
            copy(output, wanted)?;
        }
        Ok::<_, Error>(Some(outcome))
    });
    let removed = sealift_pipeline::remove_work_dir(&work_dir);
    printed?;
    let outcome = outcome?;
    removed.map_err(|source| Error::Io { action: "remove", path: work_dir, source })?;
    Ok(if outcome.is_some_and(|outcome| outcome.passed) { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

pub(super) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn cache_dir() -> Result<PathBuf, Error> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("sealift"))
        .ok_or_else(|| Error::plain("neither HOME nor XDG_CACHE_HOME is set"))
}

/// What git says of the directory; a directory without git has none.
async fn git_facts(dir: &Path) -> Git {
    let git = async |args: &[&str]| {
        let output = tokio::process::Command::new("git").arg("-C").arg(dir).args(args).output().await.ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let tags = git(&["tag", "--points-at", "HEAD"]).await.unwrap_or_default();
    Git {
        branch: git(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await.unwrap_or_default(),
        commit: git(&["rev-parse", "--verify", "--quiet", "HEAD"]).await.unwrap_or_default(),
        tag: tags.lines().last().unwrap_or_default().to_owned(),
        ..Git::default()
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    std::fs::create_dir_all(to).map_err(io("make", to))?;
    for entry in std::fs::read_dir(from).map_err(io("read", from))? {
        let entry = entry.map_err(io("read", from))?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(io("read", &path))?;
        if kind.is_dir() {
            copy(&path, &place)?;
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).map_err(io("read", &path))?;
            std::os::unix::fs::symlink(target, &place).map_err(io("write", &place))?;
        } else {
            std::fs::copy(&path, &place).map_err(io("write", &place))?;
        }
    }
    Ok(())
}
