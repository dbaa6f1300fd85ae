//! The whole way of a commit through the real program: `sealift dev` on a private systemd, a small git repository,
//! `sealift push` again and again. What happened when is read from the timestamps that the program itself writes down.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::light_host::Rest;

use super::podman::{IMAGE, Podman};
use super::{Error, Figure, Report, io, median};

const ROUNDS: usize = 10;
/// How long the program is watched doing nothing.
const REST: Duration = Duration::from_secs(5);
/// `_SC_CLK_TCK` of Linux on every machine that matters here, proc(5).
pub(super) const TICKS_PER_SECOND: f64 = 100.0;

const PIPELINE: &str = "    - script:\n        name: keep\n        code: |\n          echo $WERCKER_GIT_COMMIT >\"$WERCKER_OUTPUT_DIR/commit\"\n";

pub(super) async fn run() -> Result<Report, Error> {
    let sealift = binary()?;
    Podman::find().await?;
    // Sockets have short paths.
    let dir = tempfile::Builder::new().prefix("lab-").tempdir().map_err(io("make", "a directory"))?;
    let bench = Bench {
        sealift,
        state: dir.path().join("state"),
        project: dir.path().join("hello"),
        marker: dir.path().join("running"),
    };
    bench.make_project().await?;
    let mut server = bench.start().await?;
    let host = Rest::behind(&bench.state.join("systemd/run/bus")).await;
    let measured = bench.measure(&server).await;
    // Units and their systemd go in any case.
    let down = bench.call(&["dev", "--down", "--private-systemd"]).await;
    let ended = server.wait().await;
    let figures = measured?;
    down?;
    ended.map_err(io("wait for", "sealift dev"))?;
    // The manager was asked to exit and may still be about it.
    let gone = host.map_err(|error| Error::failed("no private systemd", error))?.go().await;
    gone.map_err(|error| Error::failed("the private systemd is not gone", error))?;
    Ok(Report { bench: "push", figures })
}

/// The program that lies beside this one.
pub(super) fn binary() -> Result<PathBuf, Error> {
    let path = std::env::current_exe().map_err(io("find", "this program"))?.with_file_name("sealift");
    if path.is_file() {
        Ok(path)
    } else {
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        Err(Error::Needs(format!(
            "there is no {}; build it: cargo build -p sealift{profile}",
            path.display()
        )))
    }
}

struct Bench {
    sealift: PathBuf,
    state: PathBuf,
    project: PathBuf,
    /// The service writes its commit here when it starts.
    marker: PathBuf,
}

/// When things happened on one commit's way, in milliseconds of the machine's clock.
struct Way {
    pushed: u64,
    queued: u64,
    handed_out: u64,
    first_step: u64,
    steps_done: u64,
    pipeline_done: u64,
    stored: u64,
    active: u64,
    told: u64,
}

impl Bench {
    async fn make_project(&self) -> Result<(), Error> {
        let write =
            |path: &str, text: &str| std::fs::write(self.project.join(path), text).map_err(io("write", path));
        std::fs::create_dir_all(self.project.join("units")).map_err(io("make", "the project"))?;
        write("wercker.yml", &format!("box: {IMAGE}\nbuild:\n  steps:\n{PIPELINE}"))?;
        // Started only when the new commit is there to be seen.
        let unit = format!(
            "[Service]\nType=exec\nExecStartPre=/bin/cp commit {}\nExecStart=/bin/sleep infinity\n",
            self.marker.display()
        );
        write("units/hello.service", &unit)?;
        self.git(&["init", "--quiet", "--initial-branch", "main"]).await?;
        self.git(&["add", "."]).await.map(drop)
    }

    async fn git(&self, args: &[&str]) -> Result<String, Error> {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=lab", "-c", "user.email=lab@localhost", "-C"]);
        command.arg(&self.project).args(args);
        said(command, "git").await
    }

    async fn call(&self, args: &[&str]) -> Result<String, Error> {
        said(self.command(args), "sealift").await
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.sealift);
        command.args(args).arg("--state-dir").arg(&self.state).args(["--output", "json"]);
        command.env_remove("SEALIFT_SERVER").env_remove("SEALIFT_STATE_DIR").current_dir(&self.project);
        command
    }

    /// Starts the server and waits until it says that it is ready.
    async fn start(&self) -> Result<Child, Error> {
        let mut command = self.command(&["dev", "--listen", "none", "--private-systemd"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(io("run", "sealift dev"))?;
        let stdout = child.stdout.take().ok_or_else(|| Error::failed("sealift dev", "it has no output"))?;
        let line = BufReader::new(stdout).lines().next_line().await.map_err(io("read", "sealift dev"))?;
        match line {
            Some(line) if line.contains("\"ready\":true") => Ok(child),
            other => Err(Error::failed("sealift dev is not ready", other.unwrap_or_default())),
        }
    }

    async fn measure(&self, server: &Child) -> Result<Vec<Figure>, Error> {
        let mut ways = Vec::new();
        // The first push finds nothing there and does not count.
        for round in 0..=ROUNDS {
            let way = self.push(round).await?;
            if round > 0 {
                ways.push(way);
            }
        }
        let pid = server.id().ok_or_else(|| Error::failed("sealift dev", "it has ended"))?;
        let mut figures = stages(&ways);
        figures.extend(at_rest(pid).await?);
        figures.push(Figure::new(
            "store after 11 releases",
            file_size(&self.state.join("store.redb"))?,
            "MB",
        ));
        Ok(figures)
    }

    async fn push(&self, round: usize) -> Result<Way, Error> {
        self.git(&["commit", "--quiet", "--allow-empty", "--message", &format!("Round {round}")]).await?;
        let commit = self.git(&["rev-parse", "HEAD"]).await?;
        let pushed = now();
        let output = self.call(&["push"]).await?;
        let told = now();
        let running = std::fs::read_to_string(&self.marker).map_err(io("read", "what the service wrote"))?;
        if running.trim() != commit.trim() {
            return Err(Error::failed("the service shows another commit", running.trim()));
        }
        let lines: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let missing =
            |what: &str| Error::failed(format!("the output of sealift push has no {what}"), &output);
        let event = |name: &str| {
            lines
                .iter()
                .filter(|line| line["event"] == name)
                .filter_map(|line| line["at"].as_u64())
                .next_back()
        };
        let run = lines.iter().find(|line| line.get("queued_at").is_some()).ok_or_else(|| missing("run"))?;
        let app = lines.iter().find(|line| line.get("phase").is_some()).ok_or_else(|| missing("app"))?;
        let at = |value: &Value, what: &str| value.as_u64().ok_or_else(|| missing(what));
        Ok(Way {
            pushed,
            queued: at(&run["queued_at"], "time in the queue")?,
            handed_out: at(&run["attempts"][0]["started_at"], "attempt")?,
            first_step: event("step-started").ok_or_else(|| missing("step"))?,
            steps_done: event("step-finished").ok_or_else(|| missing("end of a step"))?,
            pipeline_done: event("pipeline-finished").ok_or_else(|| missing("end of the pipeline"))?,
            stored: at(&app["release"]["created_at"], "release")?,
            active: at(&app["units"][0]["status"]["since"], "unit")?,
            told,
        })
    }
}

async fn said(mut command: Command, what: &str) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output().await.map_err(io("run", what))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    Err(Error::failed(format!("{what} ended with {}", output.status), text))
}

/// As the program writes timestamps down.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn stages(ways: &[Way]) -> Vec<Figure> {
    let between = |name: &str, from: fn(&Way) -> u64, to: fn(&Way) -> u64| {
        let millis: Vec<f64> = ways
            .iter()
            .map(|way| Duration::from_millis(to(way).saturating_sub(from(way))).as_secs_f64() * 1000.0)
            .collect();
        Figure::new(name, median(&millis), "ms")
    };
    vec![
        between("push command to queued", |way| way.pushed, |way| way.queued),
        between("queued to handed out", |way| way.queued, |way| way.handed_out),
        between("queued to first step", |way| way.queued, |way| way.first_step),
        between("steps", |way| way.first_step, |way| way.steps_done),
        between("steps done to pipeline cleaned up", |way| way.steps_done, |way| way.pipeline_done),
        between("pipeline done to package stored, a release", |way| way.pipeline_done, |way| way.stored),
        between("release to unit active on it", |way| way.stored, |way| way.active),
        between("unit active to push command done", |way| way.active, |way| way.told),
        between("push to unit active on the new commit", |way| way.pushed, |way| way.active),
        between("push command, whole", |way| way.pushed, |way| way.told),
    ]
}

/// Memory and CPU of a process that has nothing to do.
async fn at_rest(pid: u32) -> Result<Vec<Figure>, Error> {
    let before = ticks(pid)?;
    // Time itself is what is measured here.
    tokio::time::sleep(REST).await;
    let cpu = (ticks(pid)? - before) / TICKS_PER_SECOND / REST.as_secs_f64() * 100.0;
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_err(io("read", "smaps_rollup"))?;
    let megabytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes =
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse::<f64>().ok());
        kilobytes
            .map(|kilobytes| kilobytes * 1024.0 / 1e6)
            .ok_or_else(|| Error::failed("smaps_rollup", &text))
    };
    Ok(vec![
        Figure::new("sealift dev at rest, RSS", megabytes("Rss:")?, "MB").under(65.0),
        Figure::new("sealift dev at rest, PSS", megabytes("Pss:")?, "MB").under(65.0),
        Figure::new("sealift dev at rest, CPU", cpu, "% of a core"),
    ])
}

/// The time in user and system mode, from proc_pid_stat(5).
pub(super) fn ticks(pid: u32) -> Result<f64, Error> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(io("read", "stat"))?;
    let fields: Vec<f64> = text
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .unwrap_or_default();
    // The state letter is no number, so that utime and stime, the 14th and 15th, come 11th and 12th here.
    match (fields.get(10), fields.get(11)) {
        (Some(user), Some(system)) => Ok(user + system),
        _ => Err(Error::failed("/proc/PID/stat", text)),
    }
}

fn file_size(path: &Path) -> Result<f64, Error> {
    let size = std::fs::metadata(path).map_err(io("look at", "the store"))?.len();
    // Kilobytes fit where bytes may not, and are exact enough.
    Ok(f64::from(u32::try_from(size / 1000).unwrap_or(u32::MAX)) / 1000.0)
}
