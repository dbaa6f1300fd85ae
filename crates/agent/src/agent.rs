//! The agent's life: find systemd, begin a session with the server, keep it alive, do what is assigned, tell how it is.
//!
//! Losing the server stops no unit. The connection is taken up again as soon as it can be; a session that ended
//! meanwhile is followed by a new one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sealift_client::api::{AssignmentEvent, KeepAlive, NewSession, SessionBegun, Statuses};
use sealift_client::{Address, Client, Lines};
use sealift_model::{Assignment, Machine, SessionId, Timestamp};
use sealift_package::signing::PublicKey;
use sealift_pipeline::EngineOptions;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::contact::Contact;
use crate::questions::Questions;
use crate::releases::{self, Releases};
use crate::reports::Reports;
use crate::runs::{self, Runs};
use crate::step_packages::StepPackages;
use crate::systemd::launch::{self, Surroundings};
use crate::systemd::{Manager, Scope};
use crate::units::{self, Units};

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How long attempts may take to clear up once the agent is to stop.
const GRACE: Duration = Duration::from_secs(5);

/// What an agent is made of.
#[derive(Clone)]
pub struct Options {
    /// The machine as it is to be registered; `systemd` is filled in with what was found.
    pub machine: Machine,
    pub client: Client,
    /// Releases, records and the folders of runs are kept below this folder.
    pub state_dir: PathBuf,
    /// Only packages signed by this key are used.
    pub trusted: PublicKey,
    pub surroundings: Surroundings,
    pub engine: EngineOptions,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// A new name for each session, never given twice.
    pub sessions: Arc<dyn Fn() -> SessionId + Send + Sync>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Systemd(#[from] launch::Error),
    #[error("cannot open the folder of releases")]
    Releases(#[source] releases::Error),
    #[error("cannot take over the units of an earlier life")]
    Units(#[source] units::Error),
}

/// An agent that is ready to run.
#[derive(Debug)]
pub struct Agent {
    pub(crate) options: Options,
    pub(crate) manager: Manager,
    pub(crate) units: Units,
    runs: Runs,
    pub(crate) reports: Reports,
    questions: Questions,
    contact: Contact,
    /// Counts how often the machine was found to be cut off: a session ends with it.
    cut_off: watch::Sender<u64>,
    /// Held while units are stopped for it: nothing begins anew before they are.
    stopping: tokio::sync::Mutex<()>,
    /// The session with the server, if there is one.
    pub(crate) session: watch::Sender<Option<SessionId>>,
}

impl Agent {
    /// Connects to systemd and takes over what an earlier life of the agent left running.
    ///
    /// # Errors
    /// When there is no systemd to talk to or the state folder cannot be used.
    pub async fn build(mut options: Options) -> Result<Self, Error> {
        let (manager, systemd) = launch::connect(&options.surroundings).await?;
        manager.scope.as_str().clone_into(&mut options.machine.systemd);
        let releases = Releases::open(
            options.state_dir.join("releases"),
            options.trusted.clone(),
            options.client.clone(),
        )
        .map_err(Error::Releases)?;
        let step_packages =
            Releases::open(options.state_dir.join("steps"), options.trusted.clone(), options.client.clone())
                .map_err(Error::Releases)?;
        let reports = Reports::default();
        let units = Units::open(
            manager.clone(),
            systemd,
            options.state_dir.join("units"),
            releases,
            reports.clone(),
            options.clock.clone(),
        )
        .await
        .map_err(Error::Units)?;
        let run_options = runs::Options {
            machine: options.machine.id.clone(),
            work_dir: options.state_dir.join("runs"),
            cache_dir: options.state_dir.join("caches"),
            steps: Arc::new(StepPackages::new(options.client.clone(), step_packages)),
            engine: options.engine.clone(),
        };
        let runs = Runs::new(run_options, options.client.clone(), options.clock.clone());
        let questions =
            Questions::new(options.machine.id.clone(), options.client.clone(), units.clone(), manager.scope);
        let contact = Contact::open(options.state_dir.join("contact"));
        let cut_off = watch::Sender::new(0);
        Ok(Self {
            options,
            manager,
            units,
            runs,
            reports,
            questions,
            contact,
            cut_off,
            stopping: tokio::sync::Mutex::default(),
            session: watch::Sender::new(None),
        })
    }

    /// Which systemd it drives.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.manager.scope
    }

    /// Works until shutdown. Units go on running after that; runs under way are stopped and will be handed out anew.
    ///
    /// # Errors
    /// When systemd hangs up; the caller starts a new agent then.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        if let Err(error) = self.runs.clear().await {
            tracing::warn!(%error, "cannot clear what earlier runs left; the next run tries again");
        }
        let outcome = tokio::select! {
            () = self.leave(&shutdown) => Ok(()),
            error = self.units.follow() => Err(Error::Systemd(launch::Error::System(error))),
            () = self.sessions() => Ok(()),
            () = self.guard() => Ok(()),
        };
        self.units.stop();
        self.questions.stop();
        self.runs.stop_all_but(&[]);
        tokio::time::timeout(GRACE, self.runs.settled()).await.ok();
        outcome
    }

    /// One session after the other.
    async fn sessions(&self) {
        loop {
            let session = (self.options.sessions)();
            let new = NewSession { machine: self.options.machine.clone(), session: session.clone() };
            // From here on we may be in contact again, and what we were told before may not hold any more.
            drop(self.stopping.lock().await);
            self.units.wait();
            let mut cut_off = self.cut_off.subscribe();
            let begun = self.begin_session(&new).await;
            tracing::info!(%session, "a session with the server began");
            self.session.send_replace(Some(session.clone()));
            let ttl = Duration::from_millis(begun.ttl_millis);
            let turned = watch::Sender::new(());
            tokio::select! {
                () = self.keep_alive(&session, ttl, &turned) => {}
                () = self.follow_assignments(&session, turned.subscribe()) => {}
                () = self.report(&session, turned.subscribe()) => {}
                // It begins anew, so that we are told anew what is still ours.
                Ok(()) = cut_off.changed() => {}
            }
            self.session.send_replace(None);
            tracing::warn!(%session, "the session is over");
            // Attempts belong to their session.
            self.runs.stop_all_but(&[]);
            self.runs.settled().await;
        }
    }

    /// Tries until it succeeds.
    async fn begin_session(&self, new: &NewSession) -> SessionBegun {
        let path = format!("/v1/machines/{}/session", self.options.machine.id);
        let mut pause = RETRY_FIRST;
        loop {
            let asked = Instant::now();
            match self.options.client.post::<_, SessionBegun>(&path, new).await {
                Ok(begun) => {
                    self.heard(asked, Duration::from_millis(begun.ttl_millis));
                    return begun;
                }
                Err(error) => tracing::warn!(%error, "the server cannot be reached; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    fn heard(&self, asked: Instant, ttl: Duration) {
        self.contact.heard(asked, ttl, self.units.stop_when_cut_off());
    }

    /// Stops units with `CutOff=stop` before the machine's lease can have run out. Never ends.
    async fn guard(&self) {
        let mut changes = self.contact.changes();
        loop {
            let heard = *changes.borrow_and_update();
            let due = async {
                match heard {
                    Some(heard) => tokio::time::sleep_until(heard.stop_at()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = changes.changed() => continue,
                () = due => {}
            }
            if let Some(heard) = heard.filter(|_| self.units.stop_when_cut_off()) {
                tracing::warn!("no server was heard of for too long: units with CutOff=stop are stopped");
                let _stopping = self.stopping.lock().await;
                self.cut_off.send_modify(|count| *count += 1);
                self.units.cut_off(heard.kill_at()).await;
            }
            // The sender is in `self`.
            changes.changed().await.ok();
        }
    }

    /// Returns when the server says that the session is over. Says when another server is asked from now on, because the one
    /// before is silent: what waits for that one need not wait until its connection breaks.
    async fn keep_alive(&self, session: &SessionId, ttl: Duration, turned: &watch::Sender<()>) {
        loop {
            tokio::time::sleep(ttl / 3).await;
            let asked = Instant::now();
            match self.renew(session, ttl / 6).await {
                Ok(None) => self.heard(asked, ttl),
                Ok(Some(server)) => {
                    self.heard(asked, ttl);
                    let silent = self.options.client.address().clone();
                    tracing::warn!(%silent, %server, "the server is silent; another one is asked from now on");
                    self.options.client.turn_to(&server);
                    turned.send_replace(());
                }
                Err(error) if error.code() == Some("fenced") => return,
                Err(error) => tracing::warn!(%error, "a keep-alive did not get through"),
            }
        }
    }

    /// Asks the server to keep the session alive, and each time that nobody answered for `patience` one server more: which of
    /// them does it is the same. Gives the one that did it, if it is another than is asked for everything else.
    async fn renew(
        &self,
        session: &SessionId,
        patience: Duration,
    ) -> Result<Option<Address>, sealift_client::Error> {
        let path = &format!("/v1/machines/{}/keep-alive", self.options.machine.id);
        let body = &KeepAlive { session: session.clone() };
        let ask = |client: Client, server: Option<Address>| async move {
            client.post::<_, ()>(path, body).await.map(|()| server)
        };
        let current = self.options.client.address().clone();
        let all = self.options.client.servers().addresses();
        let at = all.iter().position(|server| *server == current).unwrap_or(0);
        // In the order in which they would be asked without an answer.
        let mut others = all.iter().cycle().skip(at + 1).take(all.len().saturating_sub(1));
        let mut asked = FuturesUnordered::from_iter([ask(self.options.client.clone(), None)]);
        let mut next = others.next();
        loop {
            let failed = tokio::select! {
                Some(answer) = asked.next() => match answer {
                    Err(error) if error.code() != Some("fenced") => Some(error),
                    answer => return answer,
                },
                () = tokio::time::sleep(patience), if next.is_some() => None,
            };
            match (next, failed) {
                (Some(server), _) => {
                    asked.push(ask(self.options.client.at(server.clone()), Some(server.clone())));
                    next = others.next();
                }
                (None, Some(error)) if asked.is_empty() => return Err(error),
                (None, _) => {}
            }
        }
    }

    /// Returns when the server says that the session is over.
    async fn follow_assignments(&self, session: &SessionId, mut turned: watch::Receiver<()>) {
        let path = format!("/v1/machines/{}/assignments?session={session}", self.options.machine.id);
        let mut pause = RETRY_FIRST;
        loop {
            turned.mark_unchanged();
            let lines = tokio::select! {
                lines = self.options.client.lines::<AssignmentEvent>(&path) => lines,
                Ok(()) = turned.changed() => continue,
            };
            match lines {
                Ok(lines) => {
                    pause = RETRY_FIRST;
                    tokio::select! {
                        () = self.carry_out(session, lines) => {}
                        Ok(()) = turned.changed() => {}
                    }
                }
                Err(error) if error.code() == Some("fenced") => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot follow the assignments");
                    // It answers, and cannot tell: another one may.
                    if error.code().is_some() {
                        self.ask_the_next();
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    /// Turns to the server after the one that is asked now.
    fn ask_the_next(&self) {
        let (current, all) =
            (self.options.client.address().clone(), self.options.client.servers().addresses());
        let at = all.iter().position(|server| *server == current).unwrap_or(0);
        if let Some(next) = all.iter().cycle().nth(at + 1).filter(|next| **next != current) {
            self.options.client.turn_to(next);
        }
    }

    /// May be dropped while it waits.
    async fn carry_out(&self, session: &SessionId, mut lines: Lines<AssignmentEvent>) {
        loop {
            match lines.next().await {
                Ok(Some(AssignmentEvent::All { assignments, drop_units })) => {
                    let (units, runs) = apart(assignments);
                    let keep: Vec<_> =
                        runs.iter().map(|assigned| (assigned.run.id.clone(), assigned.attempt)).collect();
                    self.runs.stop_all_but(&keep);
                    self.units.set_all(units, drop_units);
                    self.begin(session, runs);
                }
                Ok(Some(AssignmentEvent::Changed { put, drop_units, drop_runs })) => {
                    for (run, attempt) in drop_runs {
                        self.runs.stop(&run, attempt);
                    }
                    let (units, runs) = apart(put);
                    self.units.change(units, drop_units);
                    self.begin(session, runs);
                }
                Ok(Some(AssignmentEvent::Ask { questions })) => {
                    questions.into_iter().for_each(|question| self.questions.answer(question));
                }
                Ok(Some(AssignmentEvent::Unknown)) => {}
                Ok(None) => return,
                Err(error) => {
                    tracing::info!(%error, "the stream of assignments broke off");
                    return;
                }
            }
        }
    }

    fn begin(&self, session: &SessionId, runs: Vec<sealift_model::RunAssignment>) {
        // What another life was handed is lost with it; the server hands it out anew.
        for run in runs.into_iter().filter(|run| run.session == *session) {
            self.runs.begin(run);
        }
    }

    /// Returns when the server says that the session is over.
    async fn report(&self, session: &SessionId, mut turned: watch::Receiver<()>) {
        let path = format!("/v1/machines/{}/statuses", self.options.machine.id);
        let mut news = self.reports.all();
        let mut all = true;
        loop {
            let body = Statuses {
                session: session.clone(),
                statuses: news.statuses.clone(),
                gone: news.gone.clone(),
                all,
            };
            turned.mark_unchanged();
            let answer = tokio::select! {
                answer = self.options.client.post::<_, ()>(&path, &body) => answer,
                // Said twice is as good as once.
                Ok(()) = turned.changed() => continue,
            };
            match answer {
                Ok(()) => {
                    all = false;
                    news = self.reports.next().await;
                }
                Err(error) if error.code() == Some("fenced") => return,
                Err(error) => {
                    tracing::warn!(%error, "a report did not get through");
                    tokio::time::sleep(RETRY_FIRST).await;
                    self.reports.again(news);
                    news = if all { self.reports.all() } else { self.reports.next().await };
                }
            }
        }
    }
}

fn apart(
    assignments: Vec<Assignment>,
) -> (Vec<sealift_model::UnitAssignment>, Vec<sealift_model::RunAssignment>) {
    let (mut units, mut runs) = (Vec::new(), Vec::new());
    for assignment in assignments {
        match assignment {
            Assignment::Unit(unit) => units.push(*unit),
            Assignment::Run(run) => runs.push(*run),
        }
    }
    (units, runs)
}
