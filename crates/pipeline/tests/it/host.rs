//! The engine, the images and the runs that the tests share.
//!
//! Images are made here from busybox and bash of this machine: no registry is needed. Without an engine or without
//! busybox a test fails and says what to install; `SEALIFT_SKIP=containers` skips it, loudly.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use sealift_model::{EventKind, StepOutcome, Stream};
use sealift_pipeline::{
    Engine, EngineOptions, Error, Git, Leftovers, Outcome, RunSpec, Source, config, execute,
    remove_leftovers, remove_work_dir,
};
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;

/// A box with busybox only.
pub(crate) const SH: &str = "localhost/sealift-test-sh:latest";
/// A box that has bash as well.
pub(crate) const BASH: &str = "localhost/sealift-test-bash:latest";

/// The first one, for a user who is not root.
pub(crate) const BOB: &str = "localhost/sealift-test-bob:latest";

/// The engine with all images; none if the tests are to be skipped.
pub(crate) async fn engine() -> Option<Engine> {
    static READY: OnceCell<()> = OnceCell::const_new();
    if std::env::var("SEALIFT_SKIP").is_ok_and(|skip| skip.split(',').any(|part| part == "containers")) {
        println!("SKIPPED: SEALIFT_SKIP=containers, nothing is run in containers");
        return None;
    }
    let socket_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("podman");
    // An empty PATH: the service is started below, so that it outlives each single test.
    let options = options(socket_dir.clone(), OsString::new());
    READY
        .get_or_init(|| async {
            std::fs::create_dir_all(&socket_dir).unwrap();
            // Each test may be a process of its own. Two services at one socket would be one too many: the first to
            // end takes the other's socket with it.
            let lock = std::fs::File::create(socket_dir.join("lock")).unwrap();
            lock.lock().unwrap();
            if Engine::connect(&options).await.is_err() {
                start_podman(&socket_dir);
            }
            drop(lock);
            let engine = Engine::connect(&options).await.expect("a container engine");
            make_images(&engine).await;
        })
        .await;
    Some(Engine::connect(&options).await.unwrap())
}

pub(crate) fn options(socket_dir: PathBuf, path: OsString) -> EngineOptions {
    EngineOptions {
        address: None,
        docker_host: std::env::var("DOCKER_HOST").ok(),
        xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR").map(Into::into),
        path,
        socket_dir,
    }
}

/// A service that ends by itself when the tests are over.
#[allow(
    clippy::zombie_processes,
    reason = "it outlives the tests by some seconds; nobody is left to wait for it"
)]
fn start_podman(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let socket = dir.join("podman.sock");
    std::fs::remove_file(&socket).ok();
    let mut command = Command::new("podman");
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").is_file() {
        command.args(["--runtime", "runc"]);
    }
    command.args(["system", "service", "--time=600"]).arg(format!("unix://{}", socket.display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn();
    let mut child =
        child.expect("no container engine: apt-get install podman runc, or set SEALIFT_SKIP=containers");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "podman ended at once");
        assert!(Instant::now() < deadline, "podman does not listen");
        std::thread::yield_now();
    }
}

async fn make_images(engine: &Engine) {
    import(engine, SH, tree().into_inner().unwrap(), &[]).await;
    import(engine, BOB, tree().into_inner().unwrap(), &["USER bob"]).await;
    let mut tree = tree();
    let bash = Path::new("/bin/bash");
    file(&mut tree, bash, "bin/bash");
    let libraries = Command::new("ldd").arg(bash).output().unwrap().stdout;
    for word in String::from_utf8(libraries).unwrap().split_whitespace().filter(|word| word.starts_with('/'))
    {
        file(&mut tree, Path::new(word), word.trim_start_matches('/'));
    }
    import(engine, BASH, tree.into_inner().unwrap(), &[]).await;
}

/// The files of a box with busybox.
fn tree() -> tar::Builder<Vec<u8>> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.is_file());
    let busybox =
        busybox.expect("no busybox: apt-get install busybox-static, or set SEALIFT_SKIP=containers");
    let list = Command::new(busybox).arg("--list").output().unwrap().stdout;
    let mut tree = tar::Builder::new(Vec::new());
    file(&mut tree, busybox, "bin/busybox");
    for applet in String::from_utf8(list).unwrap().lines().filter(|applet| *applet != "busybox") {
        link(&mut tree, &format!("bin/{applet}"), "/bin/busybox");
    }
    for (dir, mode) in [("tmp", 0o1777), ("root", 0o700), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        tree.append_data(&mut header, dir, &[][..]).unwrap();
    }
    text(&mut tree, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/tmp:/bin/sh\n");
    text(&mut tree, "etc/group", "root:x:0:\nbob:x:1000:\n");
    tree
}

fn file(tree: &mut tar::Builder<Vec<u8>>, from: &Path, to: &str) {
    let bytes = std::fs::read(from).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(bytes.len() as u64);
    tree.append_data(&mut header, to, bytes.as_slice()).unwrap();
}

fn text(tree: &mut tar::Builder<Vec<u8>>, to: &str, text: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    tree.append_data(&mut header, to, text.as_bytes()).unwrap();
}

fn link(tree: &mut tar::Builder<Vec<u8>>, at: &str, to: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tree.append_link(&mut header, at, to).unwrap();
}

async fn import(engine: &Engine, image: &str, tree: Vec<u8>, changes: &[&str]) {
    let docker = raw(engine).await;
    let repository = image.strip_suffix(":latest").unwrap();
    let known = docker.inspect_image(image).await.ok().and_then(|image| image.id);
    let options = bollard::query_parameters::CreateImageOptionsBuilder::default()
        .from_src("-")
        .changes(changes.iter().map(|change| (*change).to_owned()).collect())
        .repo(repository)
        .build();
    let mut answers = docker.create_image(Some(options), Some(bollard::body_full(tree.into())), None);
    while let Some(answer) = answers.next().await {
        answer.unwrap();
    }
    if let Some(known) = known {
        // Or each run of the tests would leave another nameless image; one that is in use stays.
        docker.remove_image(&known, None::<bollard::query_parameters::RemoveImageOptions>, None).await.ok();
    }
}

/// The engine's API itself, to look behind the crate's back.
pub(crate) async fn raw(engine: &Engine) -> bollard::Docker {
    let docker = bollard::Docker::connect_with_host(engine.address()).unwrap();
    docker.negotiate_version().await.unwrap()
}

/// Takes a name away from an image. A container that was made of it may take a moment to be put away.
pub(crate) async fn forget(engine: &Engine, image: &str) {
    let docker = raw(engine).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let options = None::<bollard::query_parameters::RemoveImageOptions>;
        match docker.remove_image(image, options, None).await {
            Ok(_) => return,
            Err(error) => {
                assert!(Instant::now() < deadline && error.to_string().contains("in use"), "{error}");
            }
        }
    }
}

/// A run to be, with defaults that suit most tests.
pub(crate) struct Job {
    pub(crate) yaml: String,
    pub(crate) spec: RunSpec,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cancel: CancellationToken,
}

/// What came of it.
pub(crate) struct Ran {
    pub(crate) result: Result<Outcome, Error>,
    pub(crate) events: Vec<EventKind>,
    pub(crate) took: Duration,
    /// The run's working directory and all else, as long as this lives.
    pub(crate) dir: tempfile::TempDir,
}

/// A wercker.yml with one box and one pipeline `build` of script steps.
pub(crate) fn scripts(image: &str, codes: &[&str]) -> String {
    let mut yaml = format!("box: {image}\nbuild:\n  steps:\n");
    for (number, code) in codes.iter().enumerate() {
        yaml.push_str(&script(&format!("s{number}"), code));
    }
    yaml
}

/// One script step, indented to stand below `steps:` of a pipeline.
pub(crate) fn script(name: &str, code: &str) -> String {
    let mut yaml = format!("    - script:\n        name: {name}\n        code: |\n");
    for line in code.lines() {
        yaml.push_str(&format!("          {line}\n"));
    }
    yaml
}

impl Job {
    pub(crate) fn new(yaml: String) -> Job {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("project");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("hello.txt"), "hello\n").unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let key = format!("it-{}-{number}.1", std::process::id());
        let spec = RunSpec {
            owner: format!("owner-{key}"),
            key,
            project: "me/hello".into(),
            pipeline: "build".into(),
            source: Source::Copy(source),
            work_dir: dir.path().join("work"),
            git: Git { branch: "main".into(), commit: "abc".into(), ..Git::default() },
            started_by: "tester".into(),
            run_id: "0123456789abcdef01234567".into(),
            ..RunSpec::default()
        };
        Job { yaml, spec, dir, cancel: CancellationToken::new() }
    }

    /// Runs it, collects its events, and checks that nothing is left.
    pub(crate) async fn run(self, engine: &Engine) -> Ran {
        self.run_watching(engine, |_, _| ()).await
    }

    /// The same; `watch` sees each event as it comes.
    pub(crate) async fn run_watching(
        self,
        engine: &Engine,
        mut watch: impl FnMut(&EventKind, &CancellationToken),
    ) -> Ran {
        let (config, _) =
            config::parse(&self.yaml).unwrap_or_else(|found| panic!("{found:?}\n{}", self.yaml));
        let (events, mut inbox) = mpsc::channel(64);
        let key = self.spec.key.clone();
        let started = Instant::now();
        let run = execute(engine, &config, self.spec, events, self.cancel.clone());
        let collect = async {
            let mut events = Vec::new();
            while let Some(event) = inbox.recv().await {
                watch(&event, &self.cancel);
                events.push(event);
            }
            events
        };
        let (result, events) = tokio::join!(run, collect);
        let took = started.elapsed();
        assert!(matches!(events.first(), Some(EventKind::PipelineStarted { .. })), "{events:?}");
        assert!(matches!(events.last(), Some(EventKind::PipelineFinished { .. })), "{events:?}");
        assert_eq!(
            remove_leftovers(engine, Leftovers::Run(&key)).await.unwrap(),
            0,
            "something was left of {key}: {events:#?}"
        );
        assert!(!self.dir.path().join("work/control").is_dir(), "the control directory is still there");
        Ran { result, events, took, dir: self.dir }
    }
}

impl Drop for Ran {
    fn drop(&mut self) {
        // Its view of the source, which would stay mounted when the directory is gone.
        remove_work_dir(&self.dir.path().join("work")).unwrap();
    }
}

impl Ran {
    /// Why it could not be carried out.
    pub(crate) fn error(&self) -> &Error {
        self.result.as_ref().unwrap_err()
    }

    pub(crate) fn outcome(&self) -> &Outcome {
        self.result.as_ref().unwrap_or_else(|error| panic!("{error:?}\n{:#?}", self.events))
    }

    /// Both streams of a step, in the order they came.
    pub(crate) fn output(&self, step: usize) -> String {
        self.stream(step, None)
    }

    pub(crate) fn stream(&self, wanted: usize, only: Option<Stream>) -> String {
        let mut out = String::new();
        for event in &self.events {
            if let EventKind::Output { step, stream, text, partial } = event
                && *step == wanted
                && only.is_none_or(|only| only == *stream)
            {
                out.push_str(text);
                if !partial {
                    out.push('\n');
                }
            }
        }
        out
    }

    /// Outcome, exit code and message of a step.
    pub(crate) fn finished(&self, wanted: usize) -> (StepOutcome, Option<i32>, Option<String>) {
        self.events
            .iter()
            .find_map(|event| match event {
                EventKind::StepFinished { step, outcome, exit_code, message, .. } if *step == wanted => {
                    Some((*outcome, *exit_code, message.clone()))
                }
                _ => None,
            })
            .unwrap_or_else(|| panic!("step {wanted} has no end: {:#?}", self.events))
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        let mut warnings = Vec::new();
        for event in &self.events {
            if let EventKind::Warning { text } = event {
                warnings.push(text.as_str());
            }
        }
        warnings
    }

    /// How many steps were started.
    pub(crate) fn started(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, EventKind::StepStarted { .. })).count()
    }
}
