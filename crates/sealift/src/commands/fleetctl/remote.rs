//! What fleetctl did on machines: `status`, `journal`, `ssh`, and the way to a server through `--tunnel`.
//!
//! All of it that needs ssh is done by the system's own `ssh`, with its keys, its configuration and its questions. A
//! server of Sealift tells status and journal itself, so those need no ssh there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use futures_util::StreamExt as _;
use sealift_model::diagnostic::chain;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;

use super::Voice;
use super::api::{Fleet, Machine, escaped};
use super::flags::Asked;
use super::units::name_of;
use crate::commands::ssh::{code_of, quoted};
use crate::error::Error;

/// systemd's identity of this machine.
const MACHINE_ID: &str = "/etc/machine-id";

fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.into(),
    }
}

/// `ssh` as the flags want it; the machine and the command are still to come.
fn ssh(asked: &Asked, port: &str) -> Result<Command, Error> {
    let known_hosts = home(asked.text("known-hosts-file"));
    if let Some(folder) = known_hosts.parent() {
        std::fs::create_dir_all(folder).map_err(|source| Error::Io {
            action: "make",
            path: folder.into(),
            source,
        })?;
    }
    // Whoever is asked may say no; fleetctl asked in the same way.
    let strict = asked.text("strict-host-key-checking");
    let strict = if asked.is_given("strict-host-key-checking") && strict == "false" { "no" } else { "ask" };
    let timeout: f64 = asked.number("ssh-timeout")?;
    let mut command = Command::new("ssh");
    command.args(["-p", port, "-l", asked.text("ssh-username")]);
    command.arg("-o").arg(format!("UserKnownHostsFile={}", known_hosts.display()));
    command.arg("-o").arg(format!("StrictHostKeyChecking={strict}"));
    command.arg("-o").arg(format!("ConnectTimeout={}", timeout.ceil().max(1.0)));
    Ok(command)
}

/// The host and the port of `--tunnel`.
fn tunnel(asked: &Asked) -> Option<(&str, &str)> {
    let tunnel = Some(asked.text("tunnel")).filter(|tunnel| !tunnel.is_empty())?;
    Some(tunnel.rsplit_once(':').unwrap_or((tunnel, "22")))
}

/// `ssh` to a machine, through the tunnel if there is one.
fn ssh_to(asked: &Asked, machine: &Machine, forward: bool, shell: bool) -> Result<Command, Error> {
    if machine.ip.is_empty() {
        return Err(Error::plain(format!("machine {} says no address of itself", machine.id)));
    }
    let port: u16 = asked.number("ssh-port")?;
    let mut command = ssh(asked, &port.to_string())?;
    if let Some((host, port)) = tunnel(asked) {
        let through = ssh(asked, port)?;
        let words: Vec<_> = through.as_std().get_args().map(quoted).collect();
        let through = format!("ssh {} -W %h:%p -- {}", words.join(" "), quoted(host.as_ref()));
        command.arg("-o").arg(format!("ProxyCommand={through}"));
    }
    if forward {
        command.arg("-A");
    }
    if shell {
        command.arg("-t");
    }
    command.arg("--").arg(&machine.ip);
    Ok(command)
}

async fn run(mut command: Command) -> Result<u8, Error> {
    let program = command.as_std().get_program().to_owned();
    let status = command.status().await;
    let status = status.map_err(|source| Error::Io { action: "run", path: program.into(), source })?;
    Ok(code_of(status))
}

fn is_this(machine: &str) -> bool {
    std::fs::read_to_string(MACHINE_ID).is_ok_and(|id| id.trim() == machine)
}

/// Runs a command where the unit is: here if that is here.
async fn there(asked: &Asked, machine: &Machine, words: &[&str]) -> Result<u8, Error> {
    if is_this(&machine.id) {
        let (program, rest) = words.split_first().ok_or_else(|| Error::plain("no command"))?;
        let mut command = Command::new(program);
        command.args(rest);
        return run(command).await;
    }
    let mut command = ssh_to(asked, machine, false, false)?;
    command.args(words.iter().map(|word| quoted(word.as_ref())));
    run(command).await
}

/// Copies an open answer to standard output.
async fn copy(fleet: &Fleet, path: &str) -> Result<(), Error> {
    let mut chunks = fleet.client.open_bytes(path).await?;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Error::Client(sealift_client::Error::Read(error)))?;
        let mut out = std::io::stdout().lock();
        out.write_all(&chunk).and_then(|()| out.flush()).map_err(Error::Print)?;
    }
    Ok(())
}

/// Prints what a server of ours tells at `path`; where there is none, or it gets no answer from the machine, what a
/// command says there.
async fn tell(
    (fleet, asked, voice): (&Fleet, &Asked, &Voice),
    machine: &Machine,
    path: Option<String>,
    words: &[&str],
) -> Result<u8, Error> {
    if let Some(path) = path {
        match copy(fleet, &path).await {
            Ok(()) => return Ok(0),
            // The machine is connected to another server, which could not be told.
            Err(error @ Error::Client(sealift_client::Error::Refused { status: 404 | 500.., .. })) => {
                voice.err(&format!("the server cannot tell ({}); asking the machine itself", chain(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    there(asked, machine, words).await
}

pub(super) async fn status(fleet: &Fleet, asked: &Asked, voice: &Voice) -> Result<u8, Error> {
    if asked.words.is_empty() {
        return Err(Error::plain("no units were given"));
    }
    let machines = fleet.machines().await?;
    let ours = fleet.is_ours().await;
    let mut code = 0;
    for name in asked.words.iter().map(|word| name_of(word)) {
        let Some(unit) = fleet.unit(&name).await? else {
            voice.err(&format!("Unit {name} does not exist."));
            code = 1;
            continue;
        };
        let mut on: Vec<String> =
            fleet.states_of(&name).await?.into_iter().map(|state| state.machine).collect();
        if !unit.is_global() {
            on.retain(|machine| *machine == unit.machine);
        }
        if on.is_empty() {
            voice.err(&format!("Unit {name} does not appear to be running."));
            code = 1;
        }
        for id in on {
            let Some(machine) = machines.iter().find(|machine| machine.id == id) else { continue };
            let words = ["systemctl", "status", "-l", &name];
            let path = format!("/v1/units/{}/systemd?machine={id}", escaped(&name));
            let told = tell((fleet, asked, voice), machine, ours.then_some(path), &words).await;
            code = code.max(told.unwrap_or_else(|error| {
                voice.err(&format!(
                    "Unable to read the status of {name} on {}: {}",
                    machine.legend(false),
                    chain(&error)
                ));
                1
            }));
        }
    }
    Ok(code)
}

pub(super) async fn journal(fleet: &Fleet, asked: &Asked, voice: &Voice) -> Result<u8, Error> {
    let [word] = asked.words.as_slice() else {
        return Err(Error::plain("One unit file must be provided."));
    };
    let name = name_of(word);
    let unit = fleet.unit(&name).await?;
    let unit = unit.ok_or_else(|| Error::plain(format!("Unit {name} does not exist.")))?;
    if unit.is_global() {
        return Err(Error::plain(format!(
            "Unable to get journal of global unit {name}: it is on many machines"
        )));
    }
    if unit.current_state == "inactive" {
        return Err(Error::plain(format!("Unit {name} does not appear to be running.")));
    }
    let lines: u32 = asked.number("lines")?;
    let (format, follow) = (asked.text("output"), asked.is("follow"));
    let machines = fleet.machines().await?;
    let machine = machines.iter().find(|machine| machine.id == unit.machine);
    let machine = machine.ok_or_else(|| Error::plain(format!("the machine of {name} is away")))?;
    let lines = lines.to_string();
    let mut words = vec!["journalctl", "--unit", &name, "--no-pager", "-n", &lines, "--output", format];
    if asked.is("sudo") {
        words.insert(0, "sudo");
    }
    if follow {
        words.push("-f");
    }
    voice.debug(&words.join(" "));
    let path = format!(
        "/v1/units/{}/journal?lines={lines}&follow={follow}&format={}&machine={}",
        escaped(&name),
        escaped(format),
        unit.machine
    );
    tell((fleet, asked, voice), machine, fleet.is_ours().await.then_some(path), &words).await
}

pub(super) async fn shell(fleet: &Fleet, asked: &Asked) -> Result<u8, Error> {
    let (machine, unit) = (asked.text("machine"), asked.text("unit"));
    let (target, words) = match (machine, unit) {
        ("", "") => {
            let (target, words) =
                asked.words.split_first().ok_or_else(|| Error::plain("Provide one machine or unit"))?;
            (find(fleet, target, true, true).await?, words)
        }
        (machine, "") => (find(fleet, machine, true, false).await?, &*asked.words),
        ("", unit) => (find(fleet, unit, false, true).await?, &*asked.words),
        _ => return Err(Error::plain("Both machine and unit were given; name one of them")),
    };
    let mut command = ssh_to(asked, &target, asked.is("forward-agent"), words.is_empty())?;
    command.args(words);
    run(command).await
}

/// The machine that is meant by the beginning of its identity, or by a unit that it has.
async fn find(fleet: &Fleet, word: &str, machine: bool, unit: bool) -> Result<Machine, Error> {
    let machines = fleet.machines().await?;
    let mut found: Vec<&Machine> = Vec::new();
    if machine {
        let word = word.to_lowercase();
        found.extend(machines.iter().filter(|machine| machine.id.starts_with(&word)));
    }
    if unit && let Some(unit) = fleet.unit(&name_of(word)).await? {
        found.extend(machines.iter().filter(|machine| machine.id == unit.machine));
    }
    found.dedup_by_key(|machine| &machine.id);
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::plain(format!("No machine and no unit on a machine is called {word}"))),
        _ => Err(Error::plain(format!("{word} means more than one machine"))),
    }
}

/// Joins standard input and output with a Unix socket.
pub(super) async fn fd_forward(asked: &Asked) -> Result<u8, Error> {
    let [path] = asked.words.as_slice() else {
        return Err(Error::plain("the path of one socket is wanted"));
    };
    let path = path.strip_prefix("unix://").unwrap_or(path);
    let socket = UnixStream::connect(path).await;
    let socket = socket.map_err(|source| Error::Io { action: "connect to", path: path.into(), source })?;
    let io = |source| Error::Io { action: "forward", path: path.into(), source };
    let (mut read, mut write) = socket.into_split();
    let (mut input, mut output) = (tokio::io::stdin(), tokio::io::stdout());
    let there = async {
        tokio::io::copy(&mut input, &mut write).await?;
        write.shutdown().await
    };
    let back = async {
        tokio::io::copy(&mut read, &mut output).await?;
        output.flush().await
    };
    // When the far side has said all, nobody listens to us any more.
    tokio::select! {
        ended = back => ended.map_err(io)?,
        ended = async { there.await?; std::future::pending().await } => {
            let ended: std::io::Result<()> = ended;
            ended.map_err(io)?;
        }
    }
    Ok(0)
}

/// A socket here whose connections go through the tunnel to the server's own. It is gone when this is dropped.
pub(super) struct Tunnel {
    folder: PathBuf,
    host: String,
    accepting: tokio::task::JoinHandle<()>,
}

impl Tunnel {
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    /// Opens one if `--tunnel` says so. `far` is what is dialled at its end: a path, or a host and a port.
    pub(super) fn open(asked: &Asked, far: &str) -> Result<Option<Tunnel>, Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        let Some((host, port)) = tunnel(asked) else { return Ok(None) };
        let name =
            crate::state_dir::random::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let folder = std::env::temp_dir().join(format!("fleetctl-{name}"));
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(io("make", &folder))?;
        let socket = folder.join("api.sock");
        let listener = UnixListener::bind(&socket).map_err(io("listen on", &socket))?;
        let mut words: Vec<std::ffi::OsString> =
            ssh(asked, port)?.as_std().get_args().map(ToOwned::to_owned).collect();
        // One connection for all requests: the first one stays open for the others.
        for option in [
            "ControlMaster=auto".to_owned(),
            format!("ControlPath={}/ssh", folder.display()),
            "ControlPersist=10".to_owned(),
        ] {
            words.extend(["-o".into(), option.into()]);
        }
        if far.starts_with('/') {
            words.extend([
                "--".into(),
                host.into(),
                format!("fleetctl fd-forward {}", quoted(far.as_ref())).into(),
            ]);
        } else {
            words.extend(["-W".into(), far.into(), "--".into(), host.into()]);
        }
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, words.clone()));
            }
        });
        Ok(Some(Tunnel { folder, host: host.to_owned(), accepting }))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
        let control = format!("ControlPath={}/ssh", self.folder.display());
        let mut end = std::process::Command::new("ssh");
        end.args(["-o", &control, "-O", "exit", "--", &self.host]);
        // It ends by itself a little later, too.
        end.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// Carries one connection; when ssh ends, so does it.
async fn carry(stream: UnixStream, words: Vec<std::ffi::OsString>) {
    let spawned = Command::new("ssh")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return tracing::error!(%error, "cannot run ssh"),
    };
    let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else { return };
    let (mut read, mut write) = stream.into_split();
    let there = async {
        tokio::io::copy(&mut read, &mut input).await.ok();
        drop(input);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = there => {}
        _ = tokio::io::copy(&mut output, &mut write) => {}
    }
}
