//! systemd's D-Bus interface, org.freedesktop.systemd1(5).
//!
//! Jobs are waited for by their `JobRemoved` signal, and changes of units are told by signals: nothing here polls.
//! The way is over the bus and not over systemd's private socket, because systemd signs its messages there with a
//! well-known name, which zbus refuses as malformed. A bus that goes away is told as [`Change::Gone`].
//!
//! Every question costs systemd, the bus and us, and many units change together. So what signals told is not asked again, and
//! those who ask for units while a question is under way share the next one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use sealift_model::{ActiveState, Timestamp, UnitKind, UnitName};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, broadcast, oneshot};
use zbus::zvariant::{DynamicType, Type};
use zbus::{Connection, MessageStream, OwnedObjectPath, OwnedVariant};

use super::told::{Properties, SERVICE, Told, UNIT};

const NAME: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A single call is answered by systemd at once unless it hangs; jobs have their own limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than systemd's own default limits for start and stop (90 s each) together, so that systemd decides first.
const JOB_TIMEOUT: Duration = Duration::from_secs(200);
/// waitid(2): a process that ended by itself, and by no signal.
const CLD_EXITED: i32 = 1;
/// Calls under way at once. The bus refuses more than 128 of one connection (max_replies_per_connection of dbus-daemon(1)).
const CALLS: usize = 64;
/// Signals that may wait for a slow reader before it has to look at the state itself.
const SIGNALS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(4096).unwrap();

/// Why systemd could not be asked or said no.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to systemd at {}", socket.display())]
    Connect { socket: PathBuf, source: zbus::Error },
    #[error("systemd refused {method}")]
    Call { method: &'static str, source: zbus::Error },
    #[error("systemd did not answer {method} in time")]
    Timeout { method: &'static str },
    #[error("systemd hung up")]
    Gone,
}

impl Error {
    /// Whether systemd says that it knows no such unit, or has none loaded: then nothing of it runs.
    #[must_use]
    pub fn is_unknown_unit(&self) -> bool {
        matches!(self, Error::Call { source: zbus::Error::MethodError(name, _, _), .. }
            if matches!(name.as_str(), "org.freedesktop.systemd1.NoSuchUnit"
                | "org.freedesktop.systemd1.LoadFailed"
                | "org.freedesktop.systemd1.UnitMasked"))
    }
}

/// How a job of systemd ended; `done` is the good end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobResult(pub String);

impl JobResult {
    /// Whether the job did what it was for.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0 == "done"
    }
}

/// What systemd says of a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitState {
    pub load: String,
    pub active: ActiveState,
    pub sub: String,
    /// Services only.
    pub result: Option<String>,
    /// Services with a main process only.
    pub main_pid: Option<u32>,
    /// When ActiveState last changed.
    pub since: Timestamp,
    /// Of a service whose main process ended by itself: its exit status.
    pub exit_code: Option<i32>,
}

/// What a unit uses, where systemd counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub memory: Option<u64>,
    /// CPU time used since the start, in nanoseconds.
    pub cpu_nanos: Option<u64>,
}

/// What systemd lists of a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// LoadState: `not-found` if systemd has no file of that name.
    pub load: String,
    pub active: ActiveState,
    pub sub: String,
}

impl Listed {
    fn unknown() -> Listed {
        Listed { load: "not-found".into(), active: ActiveState::Inactive, sub: "dead".into() }
    }

    /// Whether systemd has no file of that name, nor can do without one, as with slices and mounts. If one comes, systemd
    /// from 246 on finds it by itself; what it has read once it reads again only when it is told to.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.load == "not-found"
    }

    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.load == "loaded"
    }
}

/// What systemd told us unasked.
#[derive(Debug, Clone)]
pub enum Change {
    /// Something about this unit changed. The name is systemd's object path; compare with [`unit_path`].
    Unit(String),
    /// systemd hung up; nothing more will come.
    Gone,
}

/// The end of a job, by its object path; none when systemd hung up.
type Ended = Option<(String, JobResult)>;

/// A connection to one manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Systemd {
    connection: Connection,
    changes: broadcast::Sender<Change>,
    ended: broadcast::Sender<Ended>,
    told: Arc<Told>,
    questions: Arc<Questions>,
    calls: Arc<Semaphore>,
}

/// Who waits for a list of units. One list is asked for at a time, and answers all who came before it.
#[derive(Debug, Default)]
struct Questions {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

type Waiting = (UnitName, oneshot::Sender<Result<Listed, Error>>);

impl Questions {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Systemd {
    /// Connects to the manager that is on the bus with this socket.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(socket: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Connect { socket: socket.to_owned(), source };
        let stream = tokio::net::UnixStream::connect(socket)
            .await
            .and_then(tokio::net::UnixStream::into_std)
            .map_err(|error| failed(zbus::Error::from(error)))?;
        let connection = zbus::connection::Builder::unix_stream(stream)
            .method_timeout(CALL_TIMEOUT)
            .build()
            .await
            .map_err(failed)?;
        let rule = zbus::MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(NAME)
            .path_namespace(ROOT)
            .build()
            .map_err(failed)?;
        let stream = MessageStream::for_match_rule(rule, &connection, Some(SIGNALS)).await.map_err(failed)?;
        let systemd = Self {
            connection,
            changes: broadcast::channel(SIGNALS.get()).0,
            ended: broadcast::channel(SIGNALS.get()).0,
            told: Arc::default(),
            questions: Arc::default(),
            calls: Arc::new(Semaphore::new(CALLS)),
        };
        tokio::spawn(forward(stream, systemd.changes.clone(), systemd.ended.clone(), systemd.told.clone()));
        // Without a subscriber systemd sends no signals; this also proves that it is on the bus.
        systemd.call::<_, ()>(ROOT, MANAGER, "Subscribe", &()).await?;
        Ok(systemd)
    }

    /// What systemd tells from now on. A reader that lags is told so and must look at the units themselves.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Makes systemd read unit files again.
    ///
    /// # Errors
    /// When systemd says no.
    pub async fn reload(&self) -> Result<(), Error> {
        self.call(ROOT, MANAGER, "Reload", &()).await
    }

    /// Starts a unit and waits for the job's end.
    ///
    /// # Errors
    /// When systemd refuses the job; a job that fails is an `Ok` whose result is not done.
    pub async fn start(&self, unit: &UnitName) -> Result<JobResult, Error> {
        self.job("StartUnit", unit).await
    }

    /// Stops a unit and waits for the job's end.
    ///
    /// # Errors
    /// As [`Systemd::start`].
    pub async fn stop(&self, unit: &UnitName) -> Result<JobResult, Error> {
        self.job("StopUnit", unit).await
    }

    /// Restarts a unit and waits for the job's end.
    ///
    /// # Errors
    /// As [`Systemd::start`].
    pub async fn restart(&self, unit: &UnitName) -> Result<JobResult, Error> {
        self.job("RestartUnit", unit).await
    }

    /// Sends SIGKILL to all of the unit's processes. A unit that has none is fine.
    ///
    /// # Errors
    /// When systemd says no.
    pub async fn kill(&self, unit: &UnitName) -> Result<(), Error> {
        const SIGKILL: i32 = 9;
        match self.call(ROOT, MANAGER, "KillUnit", &(unit.as_str(), "all", SIGKILL)).await {
            Err(error) if error.is_unknown_unit() => Ok(()),
            other => other,
        }
    }

    /// Forgets that a unit failed. A unit that systemd has already forgotten is fine.
    ///
    /// # Errors
    /// When systemd says no.
    pub async fn reset_failed(&self, unit: &UnitName) -> Result<(), Error> {
        match self.call(ROOT, MANAGER, "ResetFailedUnit", &(unit.as_str(),)).await {
            Err(error) if error.is_unknown_unit() => Ok(()),
            other => other,
        }
    }

    /// What systemd lists of the unit now, which it reads the file of if there is one that it has not read yet.
    ///
    /// # Errors
    /// When systemd cannot be asked.
    pub async fn listed(&self, unit: &UnitName) -> Result<Listed, Error> {
        loop {
            let (sender, mut receiver) = oneshot::channel();
            self.questions.waiting().push((unit.clone(), sender));
            let turn = self.questions.turn.lock().await;
            // Who had the turn before may have asked for us, too.
            match receiver.try_recv() {
                Ok(answer) => return answer,
                // He was dropped while he asked.
                Err(oneshot::error::TryRecvError::Closed) => continue,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let asked = std::mem::take(&mut *self.questions.waiting());
            let names: Vec<_> = asked.iter().map(|(name, _)| name.as_str()).collect();
            let answers = self.list(&names).await;
            for ((_, sender), answer) in asked.into_iter().zip(answers) {
                // Who does not wait any more needs no answer.
                sender.send(answer).ok();
            }
            drop(turn);
            if let Ok(answer) = receiver.await {
                return answer;
            }
        }
    }

    /// An answer for each of these names, in their order.
    async fn list(&self, names: &[&str]) -> Vec<Result<Listed, Error>> {
        type Line =
            (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
        let ask = async |names: &[&str]| -> Result<Vec<Listed>, Error> {
            let lines: Vec<Line> = self.call(ROOT, MANAGER, "ListUnitsByNames", &(names,)).await?;
            let line =
                |(_, _, load, active, sub, ..): Line| Listed { load, active: active_state(&active), sub };
            Ok(lines.into_iter().map(line).collect())
        };
        match ask(names).await {
            Ok(lines) if lines.len() == names.len() => return lines.into_iter().map(Ok).collect(),
            // One name that systemd does not take, such as a template's, costs the others their answer, or a line.
            Ok(_) | Err(Error::Call { .. }) => {}
            Err(error) => return names.iter().map(|_| Err(error.clone())).collect(),
        }
        let mut answers = Vec::new();
        for name in names {
            let line = ask(&[name]).await.map(|lines| lines.into_iter().next());
            answers.push(line.map(|line| line.unwrap_or_else(Listed::unknown)));
        }
        answers
    }

    /// What systemd says of the unit now; a unit it does not know has the load state `not-found`.
    ///
    /// # Errors
    /// When systemd cannot be asked.
    pub async fn state(&self, unit: &UnitName) -> Result<UnitState, Error> {
        let Listed { load, active, sub } = self.listed(unit).await?;
        let path = unit_path(unit);
        let service = unit.kind() == UnitKind::Service;
        let (of_unit, of_service) = self.told.get(&path);
        let of_unit = of_unit.filter(|told| told.active == active && told.sub == sub);
        let (since, result, main_pid, ended, status) = match (of_unit, of_service) {
            (Some(of_unit), Some(told)) if service => {
                let since = Some(of_unit.since);
                (since, Some(told.result), Some(told.main_pid), Some(told.code), Some(told.status))
            }
            (Some(of_unit), _) if !service => (Some(of_unit.since), None, None, None, None),
            _ => {
                let own = Some(SERVICE).filter(|_| service);
                let (since, result, main_pid, ended, status) = tokio::try_join!(
                    self.property::<u64>(&path, UNIT, "StateChangeTimestamp"),
                    self.property_if::<String>(&path, own, "Result"),
                    self.property_if::<u32>(&path, own, "MainPID"),
                    self.property_if::<i32>(&path, own, "ExecMainCode"),
                    self.property_if::<i32>(&path, own, "ExecMainStatus"),
                )?;
                (since.map(|since| Timestamp(since / 1000)), result, main_pid, ended, status)
            }
        };
        Ok(UnitState {
            load,
            active,
            sub,
            result,
            main_pid: main_pid.filter(|pid| *pid != 0),
            since: since.unwrap_or(Timestamp(0)),
            exit_code: status.filter(|_| ended == Some(CLD_EXITED)),
        })
    }

    /// What the unit uses now.
    ///
    /// # Errors
    /// When systemd cannot be asked.
    pub async fn usage(&self, unit: &UnitName) -> Result<Usage, Error> {
        let (path, own) = (unit_path(unit), own_interface(unit.kind()));
        let known = |counted: Option<u64>| counted.filter(|counted| *counted != u64::MAX);
        let (memory, cpu_nanos) = tokio::try_join!(
            self.property_if::<u64>(&path, own, "MemoryCurrent"),
            self.property_if::<u64>(&path, own, "CPUUsageNSec"),
        )?;
        Ok(Usage { memory: known(memory), cpu_nanos: known(cpu_nanos) })
    }

    /// Makes the links that `[Install]` asks for, until the next boot. systemd has to read its files again after it.
    ///
    /// # Errors
    /// When systemd says no, such as for a unit in `Also=` that is not there.
    pub async fn enable(&self, unit: &UnitName) -> Result<(), Error> {
        type Links = (bool, Vec<(String, String, String)>);
        let body = (vec![unit.as_str()], true, true);
        self.call::<_, Links>(ROOT, MANAGER, "EnableUnitFiles", &body).await.map(drop)
    }

    /// Removes the links that [`Systemd::enable`] made. Links that are not there are fine.
    ///
    /// # Errors
    /// When systemd says no.
    pub async fn disable(&self, unit: &UnitName) -> Result<(), Error> {
        type Links = Vec<(String, String, String)>;
        let outcome =
            self.call::<_, Links>(ROOT, MANAGER, "DisableUnitFiles", &(vec![unit.as_str()], true)).await;
        match outcome {
            Err(error) if !error.is_unknown_unit() => Err(error),
            _ => Ok(()),
        }
    }

    /// The file that systemd has the unit from: of a generated unit the one that the generator made it of. None for a
    /// unit that it knows of no file for.
    ///
    /// # Errors
    /// When systemd cannot be asked.
    pub async fn origin(&self, unit: &UnitName) -> Result<Option<PathBuf>, Error> {
        // Asking loads a unit that has a file and that nothing has needed so far.
        let path: OwnedObjectPath = self.call(ROOT, MANAGER, "LoadUnit", &(unit.as_str(),)).await?;
        let file = async |name| -> Result<Option<PathBuf>, Error> {
            let file: Option<String> = self.property(path.as_str(), UNIT, name).await?;
            Ok(file.filter(|file| !file.is_empty()).map(PathBuf::from))
        };
        let fragment = file("FragmentPath").await?;
        let generated = |fragment: &PathBuf| {
            fragment.parent().is_some_and(|dir| {
                dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("generator"))
            })
        };
        if fragment.as_ref().is_some_and(generated)
            && let Some(source) = file("SourcePath").await?
        {
            return Ok(Some(source));
        }
        Ok(fragment)
    }

    /// What tells one life of systemd from the next: the time at which it began, in microseconds.
    ///
    /// # Errors
    /// When systemd cannot be asked.
    pub async fn life(&self) -> Result<u64, Error> {
        Ok(self.property(ROOT, MANAGER, "UserspaceTimestamp").await?.unwrap_or(0))
    }

    /// When the unit last began to start, if it ever did.
    ///
    /// # Errors
    /// When systemd cannot be asked.
    pub async fn started_at(&self, unit: &UnitName) -> Result<Option<Timestamp>, Error> {
        let micros: Option<u64> = self.property(&unit_path(unit), UNIT, "InactiveExitTimestamp").await?;
        Ok(micros.filter(|micros| *micros > 0).map(|micros| Timestamp(micros / 1000)))
    }

    /// Asks the manager to stop all units and then exit. For private managers only.
    ///
    /// # Errors
    /// When systemd says no.
    pub async fn exit(&self) -> Result<(), Error> {
        // The method Exit would leave the units' processes running; this target stops them first, systemd.special(7).
        let body = ("exit.target", "replace-irreversibly");
        self.call::<_, OwnedObjectPath>(ROOT, MANAGER, "StartUnit", &body).await.map(drop)
    }

    async fn job(&self, method: &'static str, unit: &UnitName) -> Result<JobResult, Error> {
        // Listening begins before the call, so that a job that ends at once is not missed.
        let mut ended = self.ended.subscribe();
        let job: OwnedObjectPath = self.call(ROOT, MANAGER, method, &(unit.as_str(), "replace")).await?;
        let wait = async {
            loop {
                match ended.recv().await {
                    Ok(Some((path, result))) if path == job.as_str() => return Ok(result),
                    Ok(None) | Err(broadcast::error::RecvError::Closed) => return Err(Error::Gone),
                    Ok(Some(_)) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        // The signal may be among those we lost: a job that is over has no object any more.
                        let state: Option<String> =
                            self.property(job.as_str(), "org.freedesktop.systemd1.Job", "State").await?;
                        if state.is_none() {
                            let failed = self.state(unit).await?.active == ActiveState::Failed;
                            return Ok(JobResult(if failed { "failed" } else { "done" }.into()));
                        }
                    }
                }
            }
        };
        tokio::time::timeout(JOB_TIMEOUT, wait).await.map_err(|_| Error::Timeout { method })?
    }

    /// A property, or none when the object is not there (any more).
    async fn property<T>(&self, path: &str, interface: &str, name: &str) -> Result<Option<T>, Error>
    where
        T: TryFrom<OwnedVariant>,
    {
        match self.call::<_, OwnedVariant>(path, PROPERTIES, "Get", &(interface, name)).await {
            Ok(value) => Ok(T::try_from(value).ok()),
            Err(Error::Call { source: zbus::Error::MethodError(..), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn property_if<T>(
        &self,
        path: &str,
        interface: Option<&str>,
        name: &str,
    ) -> Result<Option<T>, Error>
    where
        T: TryFrom<OwnedVariant>,
    {
        match interface {
            Some(interface) => self.property(path, interface, name).await,
            None => Ok(None),
        }
    }

    async fn call<B, R>(
        &self,
        path: &str,
        interface: &str,
        method: &'static str,
        body: &B,
    ) -> Result<R, Error>
    where
        B: serde::Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let failed = |source| match source {
            zbus::Error::InputOutput(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                Error::Timeout { method }
            }
            source => Error::Call { method, source },
        };
        // Never closed; and nobody who waits holds one.
        let _permit = self.calls.acquire().await.ok();
        let reply = self
            .connection
            .call_method(Some(NAME), path, Some(interface), method, body)
            .await
            .map_err(failed)?;
        reply.body().deserialize().map_err(failed)
    }
}

/// The interface with what only units of this kind have, of kinds whose use of memory and CPU systemd can count.
fn own_interface(kind: UnitKind) -> Option<&'static str> {
    match kind {
        UnitKind::Service => Some(SERVICE),
        UnitKind::Socket => Some("org.freedesktop.systemd1.Socket"),
        UnitKind::Mount => Some("org.freedesktop.systemd1.Mount"),
        UnitKind::Swap => Some("org.freedesktop.systemd1.Swap"),
        UnitKind::Slice => Some("org.freedesktop.systemd1.Slice"),
        _ => None,
    }
}

async fn forward(
    mut stream: MessageStream,
    changes: broadcast::Sender<Change>,
    ended: broadcast::Sender<Ended>,
    told: Arc<Told>,
) {
    while let Some(Ok(message)) = stream.next().await {
        if message.message_type() != zbus::message::Type::Signal {
            continue;
        }
        let header = message.header();
        let body = message.body();
        // Without a reader there is nobody to tell.
        match header.member().map(zbus::names::MemberName::as_str) {
            Some("JobRemoved") => {
                if let Ok((_, path, _, result)) = body.deserialize::<(u32, OwnedObjectPath, String, String)>()
                {
                    ended.send(Some((path.to_string(), JobResult(result)))).ok();
                }
            }
            Some("UnitRemoved") => {
                if let Ok((_, path)) = body.deserialize::<(String, OwnedObjectPath)>() {
                    told.forget(path.as_str());
                }
            }
            Some("PropertiesChanged") => {
                let Some(path) = header.path() else { continue };
                let is_whole = match body.deserialize::<(String, Properties, Vec<String>)>() {
                    Ok((interface, properties, _)) => told.note(path.as_str(), &interface, properties),
                    // It has to be asked for.
                    Err(_) => true,
                };
                if is_whole {
                    changes.send(Change::Unit(path.to_string())).ok();
                }
            }
            _ => {}
        }
    }
    changes.send(Change::Gone).ok();
    ended.send(None).ok();
}

/// The object path of a unit: what is not a letter or digit becomes `_` and two hex digits (sd_bus_path_encode(3)).
#[must_use]
pub fn unit_path(unit: &UnitName) -> String {
    let mut path = format!("{ROOT}/unit/");
    for (index, byte) in unit.as_str().bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && index > 0) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

pub(super) fn active_state(text: &str) -> ActiveState {
    match text {
        "active" => ActiveState::Active,
        "reloading" => ActiveState::Reloading,
        "inactive" => ActiveState::Inactive,
        "failed" => ActiveState::Failed,
        "activating" => ActiveState::Activating,
        "deactivating" => ActiveState::Deactivating,
        _ => ActiveState::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::unit_path;

    #[test]
    fn escapes_as_systemd_does() {
        for (name, path) in [
            ("hello.service", "/org/freedesktop/systemd1/unit/hello_2eservice"),
            ("web@1.service", "/org/freedesktop/systemd1/unit/web_401_2eservice"),
            ("1a-b.timer", "/org/freedesktop/systemd1/unit/_31a_2db_2etimer"),
        ] {
            assert_eq!(unit_path(&name.parse().unwrap()), path);
        }
    }
}
