//! Ten trivial steps and one, in one container, beside the bare container commands in the same run.

use std::time::Instant;

use sealift_pipeline::{Engine, EngineOptions, Git, RunSpec, Source, config, execute};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::podman::{self, IMAGE, Podman};
use super::{Error, Figure, Report, median, millis};

const ROUNDS: usize = 10;
const STEPS: usize = 10;

pub(super) async fn run() -> Result<Report, Error> {
    let podman = Podman::find().await?;
    let dir = tempfile::Builder::new().prefix("lab-").tempdir().map_err(|source| Error::Io {
        action: "make",
        what: "a directory".to_owned(),
        source,
    })?;
    let engine = Engine::connect(&EngineOptions {
        address: None,
        docker_host: None,
        xdg_runtime_dir: None,
        path: podman::path(),
        socket_dir: dir.path().join("engine"),
    })
    .await
    .map_err(|error| Error::failed("no engine", error))?;
    if !engine.name().starts_with("Podman") {
        let name = engine.name();
        return Err(Error::Needs(format!(
            "the engine here is {name}; the comparison is with podman's command line"
        )));
    }
    let (mut ten, mut one, mut all_in_one, mut single, mut by_exec) =
        (vec![], vec![], vec![], vec![], vec![]);
    // The first round warms caches up and does not count.
    for round in 0..=ROUNDS {
        let figures = [
            pipeline(&engine, dir.path(), STEPS, round).await?,
            pipeline(&engine, dir.path(), 1, round).await?,
            run_once(&podman, STEPS).await?,
            run_once(&podman, 1).await?,
            execs(&podman).await?,
        ];
        if round > 0 {
            let [a, b, c, d, e] = figures;
            ten.push(a);
            one.push(b);
            all_in_one.push(c);
            single.push(d);
            by_exec.push(e);
        }
    }
    let [ten, one, all_in_one, single, by_exec] =
        [ten, one, all_in_one, single, by_exec].map(|values| median(&values));
    let figures = vec![
        Figure::new("pipeline of 10 steps", ten, "ms"),
        Figure::new("pipeline of 1 step", one, "ms"),
        Figure::new("podman run, all 10 commands in one shell", all_in_one, "ms"),
        Figure::new("podman run, 1 command", single, "ms"),
        Figure::new("podman run -d, 10 podman exec, podman rm", by_exec, "ms"),
        Figure::new("10 steps to one podman run of all", ten / all_in_one, "x").under(1.2),
        Figure::new("1 step to podman run of 1 command", one / single, "x"),
        Figure::new("10 steps to 10 podman exec", ten / by_exec, "x"),
        Figure::new("a step more", (ten - one) / 9.0, "ms").under(5.0),
    ];
    Ok(Report { bench: "steps", figures })
}

async fn pipeline(engine: &Engine, dir: &std::path::Path, steps: usize, round: usize) -> Result<f64, Error> {
    let mut yaml = format!("box: {IMAGE}\nbuild:\n  steps:\n");
    for number in 0..steps {
        yaml.push_str(&format!("    - script:\n        name: s{number}\n        code: echo {number}\n"));
    }
    let (config, _) =
        config::parse(&yaml).map_err(|errors| Error::failed("wercker.yml", format!("{errors:?}")))?;
    let key = format!("lab-{}-{steps}-{round}", std::process::id());
    let source = dir.join(format!("{key}-source"));
    let io = |source| Error::Io { action: "make", what: "the project".to_owned(), source };
    std::fs::create_dir(&source).map_err(io)?;
    std::fs::write(source.join("hello.txt"), "hello\n").map_err(io)?;
    let spec = RunSpec {
        owner: key.clone(),
        work_dir: dir.join(format!("{key}-work")),
        key,
        project: "lab".into(),
        pipeline: "build".into(),
        deploy: false,
        deploy_target: None,
        source: Source::Copy(source),
        git: Git::default(),
        started_by: "lab".into(),
        env: Vec::new(),
        hidden_env: Vec::new(),
        run_id: "0123456789abcdef01234567".into(),
        ..RunSpec::default()
    };
    let (sender, mut events) = mpsc::channel(1024);
    let began = Instant::now();
    let listen = async { while events.recv().await.is_some() {} };
    let (outcome, ()) =
        tokio::join!(execute(engine, &config, spec, sender, CancellationToken::new()), listen);
    let took = millis(began.elapsed());
    match outcome {
        Ok(outcome) if outcome.passed => Ok(took),
        Ok(outcome) => Err(Error::failed("the pipeline", outcome.message.unwrap_or_default())),
        Err(error) => Err(Error::failed("the pipeline", error)),
    }
}

/// One container that does all and goes.
async fn run_once(podman: &Podman, commands: usize) -> Result<f64, Error> {
    let script = (0..commands).map(|number| format!("echo {number}")).collect::<Vec<_>>().join("; ");
    let began = Instant::now();
    podman::call(&podman.run(&["--rm", IMAGE, "sh", "-c", &script])).await?;
    Ok(millis(began.elapsed()))
}

/// One container that waits while commands are run in it.
async fn execs(podman: &Podman) -> Result<f64, Error> {
    let began = Instant::now();
    let id = podman::call(&podman.run(&["-d", IMAGE, "sleep", "1000"])).await?;
    let mut outcome = Ok(String::new());
    for number in 0..STEPS {
        if outcome.is_ok() {
            outcome =
                podman::call(&podman.other(&["exec", &id, "sh", "-c", &format!("echo {number}")])).await;
        }
    }
    podman::call(&podman.other(&["rm", "-f", "-t", "0", &id])).await?;
    outcome?;
    Ok(millis(began.elapsed()))
}
