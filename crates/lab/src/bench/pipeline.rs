//! A pipeline beside the bare container commands in the same run: ten trivial steps and one, a gigabyte of output, a
//! source of ten thousand files, the time from the last step to the end.

use std::path::Path;
use std::time::Instant;

use sealift_model::EventKind;
use sealift_pipeline::{Engine, EngineOptions, RunSpec, Source, config, execute, remove_work_dir};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::podman::{self, IMAGE, Podman};
use super::{Error, Figure, Report, median, millis};

const ROUNDS: usize = 10;
const STEPS: usize = 10;
/// What a step writes in the measurement of output, in lines of [`LINE`] bytes.
const OUTPUT: u64 = 1_000_000_000;
const LINE: usize = 80;
const PART: u64 = 10_000_000;
const OUTPUT_ROUNDS: usize = 3;
/// The large source: this many files of this many bytes.
const FILES: usize = 10_000;
const FILE: usize = 4_100;

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
    let mut figures = steps(&engine, &podman, dir.path()).await?;
    figures.extend(output(&engine, &podman, dir.path()).await?);
    figures.extend(source(&engine, dir.path()).await?);
    Ok(Report { bench: "pipeline", figures })
}

async fn steps(engine: &Engine, podman: &Podman, dir: &Path) -> Result<Vec<Figure>, Error> {
    let small = dir.join("small");
    project(&small, 1, 6)?;
    let (mut ten, mut one, mut all_in_one, mut single, mut by_exec, mut ends) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    let codes = |count: usize| (0..count).map(|number| format!("echo {number}")).collect::<Vec<_>>();
    // The first round warms caches up and does not count.
    for round in 0..=ROUNDS {
        let long = pipeline(engine, dir, Source::Copy(small.clone()), &codes(STEPS)).await?;
        let short = pipeline(engine, dir, Source::Copy(small.clone()), &codes(1)).await?;
        let bare = [run_once(podman, STEPS).await?, run_once(podman, 1).await?, execs(podman).await?];
        if round > 0 {
            let [c, d, e] = bare;
            ten.push(long.whole);
            one.push(short.whole);
            ends.push(long.end);
            all_in_one.push(c);
            single.push(d);
            by_exec.push(e);
        }
    }
    let [ten, one, all_in_one, single, by_exec, end] =
        [ten, one, all_in_one, single, by_exec, ends].map(|values| median(&values));
    Ok(vec![
        Figure::new("pipeline of 10 steps", ten, "ms"),
        Figure::new("pipeline of 1 step", one, "ms"),
        Figure::new("podman run, all 10 commands in one shell", all_in_one, "ms"),
        Figure::new("podman run, 1 command", single, "ms"),
        Figure::new("podman run -d, 10 podman exec, podman rm", by_exec, "ms"),
        Figure::new("10 steps to one podman run of all", ten / all_in_one, "x").under(1.2),
        Figure::new("1 step to podman run of 1 command", one / single, "x"),
        Figure::new("10 steps to 10 podman exec", ten / by_exec, "x"),
        Figure::new("a step more", (ten - one) / 9.0, "ms").under(5.0),
        Figure::new("from the last step to the end", end, "ms").under(300.0),
    ])
}

/// A gigabyte through a step, and through a bare `podman run`.
async fn output(engine: &Engine, podman: &Podman, dir: &Path) -> Result<Vec<Figure>, Error> {
    let small = dir.join("output");
    project(&small, 1, 6)?;
    // By cat, since the box's `yes` is slower than what is measured.
    let code = format!(
        "yes {} | head -c {PART} >/tmp/part; n=0; while [ $n -lt {} ]; do cat /tmp/part; n=$((n + 1)); done",
        "x".repeat(LINE - 1),
        OUTPUT / PART
    );
    let (mut ours, mut bare, mut grown) = (vec![], vec![], vec![]);
    for _ in 0..OUTPUT_ROUNDS {
        let before = resident()?;
        let ran = pipeline(engine, dir, Source::Copy(small.clone()), std::slice::from_ref(&code)).await?;
        if ran.bytes != OUTPUT {
            return Err(Error::failed("the output", format!("{} bytes of {OUTPUT} arrived", ran.bytes)));
        }
        grown.push(ran.resident.saturating_sub(before) as f64 / 1e6);
        ours.push(OUTPUT as f64 / 1e6 / (ran.step / 1000.0));
        let began = Instant::now();
        podman::call_quietly(&podman.run(&["--rm", IMAGE, "sh", "-c", &code])).await?;
        bare.push(OUTPUT as f64 / 1e6 / began.elapsed().as_secs_f64());
    }
    let [ours, bare, grown] = [ours, bare, grown].map(|values| median(&values));
    Ok(vec![
        Figure::new("1 GB of output through a step", ours, "MB/s").at_least(200.0),
        Figure::new("the same through podman run, to /dev/null", bare, "MB/s"),
        Figure::new("memory grown meanwhile", grown, "MB"),
    ])
}

/// A run on a source of many files, as a view and as a bind mount.
async fn source(engine: &Engine, dir: &Path) -> Result<Vec<Figure>, Error> {
    let large = dir.join("large");
    project(&large, FILES, FILE)?;
    let code = ["find . -type f | wc -l".to_owned()];
    let (mut viewed, mut bound) = (vec![], vec![]);
    for round in 0..=ROUNDS {
        let view = pipeline(engine, dir, Source::Copy(large.clone()), &code).await?.with_removal;
        let bind = pipeline(engine, dir, Source::Direct(large.clone()), &code).await?.with_removal;
        if round > 0 {
            viewed.push(view);
            bound.push(bind);
        }
    }
    let [viewed, bound] = [viewed, bound].map(|values| median(&values));
    Ok(vec![
        Figure::new(format!("run on a source of {FILES} files, kept as it is"), viewed, "ms"),
        Figure::new("run on the same, bind-mounted", bound, "ms"),
        Figure::new("kept as it is to bind-mounted", viewed / bound, "x").under(1.1),
    ])
}

/// A project of `files` files of `bytes` bytes.
fn project(dir: &Path, files: usize, bytes: usize) -> Result<(), Error> {
    let io = |source| Error::Io { action: "make", what: "the project".to_owned(), source };
    let content = "x".repeat(bytes);
    for number in 0..files {
        let folder = dir.join(format!("d{}", number / 100));
        if number % 100 == 0 {
            std::fs::create_dir_all(&folder).map_err(io)?;
        }
        std::fs::write(folder.join(format!("f{number}")), &content).map_err(io)?;
    }
    Ok(())
}

/// The memory of this process in bytes.
fn resident() -> Result<u64, Error> {
    let io = |source| Error::Io { action: "read", what: "/proc/self/statm".to_owned(), source };
    let text = std::fs::read_to_string("/proc/self/statm").map_err(io)?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default();
    Ok(pages * rustix::param::page_size() as u64)
}

/// Times in milliseconds.
struct Ran {
    whole: f64,
    /// All of it, and the removal of what it left.
    with_removal: f64,
    /// From the end of the last step.
    end: f64,
    /// The last step.
    step: f64,
    /// What the steps wrote.
    bytes: u64,
    /// The most memory of this process while it wrote.
    resident: u64,
}

async fn pipeline(engine: &Engine, dir: &Path, source: Source, codes: &[String]) -> Result<Ran, Error> {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut yaml = format!("box: {IMAGE}\nbuild:\n  steps:\n");
    for (number, code) in codes.iter().enumerate() {
        yaml.push_str(&format!("    - script:\n        name: s{number}\n        code: {code}\n"));
    }
    let (config, _) =
        config::parse(&yaml).map_err(|errors| Error::failed("wercker.yml", format!("{errors:?}")))?;
    let key = format!("lab-{}-{number}", std::process::id());
    let work_dir = dir.join(format!("{key}-work"));
    let spec = RunSpec {
        owner: key.clone(),
        work_dir: work_dir.clone(),
        key,
        project: "lab".into(),
        pipeline: "build".into(),
        source,
        started_by: "lab".into(),
        run_id: "0123456789abcdef01234567".into(),
        ..RunSpec::default()
    };
    let (sender, mut events) = mpsc::channel(1024);
    let began = Instant::now();
    let listen = async {
        let (mut bytes, mut step_began, mut step, mut step_ended) = (0, began, 0.0, began);
        let (mut most, mut seen) = (0, 0_u64);
        while let Some(event) = events.recv().await {
            match event {
                EventKind::Output { text, partial, .. } => {
                    bytes += text.len() as u64 + u64::from(!partial);
                    seen += 1;
                    if seen.is_multiple_of(1_000_000) {
                        most = most.max(resident().unwrap_or(0));
                    }
                }
                EventKind::StepStarted { .. } => step_began = Instant::now(),
                EventKind::StepFinished { .. } => {
                    step = millis(step_began.elapsed());
                    step_ended = Instant::now();
                }
                _ => {}
            }
        }
        (bytes, step, step_ended, most)
    };
    let (outcome, (bytes, step, step_ended, resident)) =
        tokio::join!(execute(engine, &config, spec, sender, CancellationToken::new()), listen);
    let (whole, end) = (millis(began.elapsed()), millis(step_ended.elapsed()));
    remove_work_dir(&work_dir).map_err(|source| Error::Io {
        action: "remove",
        what: "the working directory".to_owned(),
        source,
    })?;
    let with_removal = millis(began.elapsed());
    match outcome {
        Ok(outcome) if outcome.passed => Ok(Ran { whole, with_removal, end, step, bytes, resident }),
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
