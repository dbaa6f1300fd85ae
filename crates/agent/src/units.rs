//! Holds the machine's units as they are assigned.
//!
//! Units are kept in groups, an app's units together and every other unit alone: within a group all files are written,
//! then systemd reads them, by itself where they are new to it, then units are started. Groups do not wait for each
//! other, so one that fails or hangs holds up no other. What was carried out is written to a record a unit, so that a
//! restart of the agent touches nothing that already runs as wished, and cleans up what is no longer wished.
//!
//! A unit is known by its file's name, here and in reports. systemd may have it by another: `web.container` is its
//! `web.service`, which Quadlet makes when systemd reads its files.

mod cut_off;
mod files;
mod gate;
mod one;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealift_model::diagnostic::chain;
use sealift_model::{
    ActiveState, CutOff, Gate, ProjectName, Timestamp, UnitAssignment, UnitKind, UnitName, UnitStatus,
    Withdrawal,
};
use sealift_unitfile::UnitFile;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::releases::{self, Releases};
use crate::reports::Reports;
use crate::systemd::bus::{self, Change, unit_path};
use crate::systemd::{Manager, Systemd, UnitState, Usage, quadlet};
use one::{Prepared, take_away};
use record::{Phase, Record, Records};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Why a unit is not as it was assigned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the release is not on this machine")]
    Release(#[source] releases::Error),
    #[error("the text of {0} is not the one in the signed package")]
    Altered(UnitName),
    #[error("{unit} is assigned without the package of its app {app}")]
    NoPackage { unit: UnitName, app: ProjectName },
    #[error("{unit} is the machine's own already, from {}; give yours another name", file.display())]
    NotOurs { unit: UnitName, file: PathBuf },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the record {} is not understood", path.display())]
    BadRecord { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Systemd(#[from] bus::Error),
    #[error("systemd ended the job as {result:?}")]
    Job { result: String },
    #[error("{0} is a template; only its instances run")]
    Template(UnitName),
    #[error("{wrong}")]
    DropIn { wrong: String },
    #[error(
        "line {line} of {file} is neither a section nor Key=value; Quadlet would make no service of any file"
    )]
    NoLine { file: String, line: usize },
    #[error(transparent)]
    Quadlet(#[from] quadlet::Error),
    #[error("Quadlet makes no {service} of it: {said}")]
    NoService { service: UnitName, said: String },
}

impl Error {
    fn retryable(&self) -> bool {
        match self {
            Error::Release(error) => error.retryable(),
            Error::Io { .. } => true,
            Error::Systemd(error) => {
                !matches!(error, bus::Error::Call { source: zbus::Error::MethodError(..), .. })
            }
            Error::Quadlet(error) => error.retryable(),
            // What Quadlet refuses it may take when there are other files; that is not waited for by the clock.
            Error::NoService { .. }
            | Error::Altered(_)
            | Error::NoPackage { .. }
            | Error::NotOurs { .. }
            | Error::BadRecord { .. }
            | Error::Job { .. }
            | Error::Template(_)
            | Error::DropIn { .. }
            | Error::NoLine { .. } => false,
        }
    }
}

/// An app's units, or one unit without an app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum GroupKey {
    App(ProjectName),
    Unit(UnitName),
}

/// What a group is to be.
type Wanted = BTreeMap<UnitName, Wish>;

/// What is to become of a unit.
#[derive(Debug, Clone)]
enum Wish {
    Hold(Box<UnitAssignment>),
    /// It is to go, and to be told to have gone by this placement.
    Go {
        placement: u64,
    },
}

impl Wish {
    fn assignment(&self) -> Option<&UnitAssignment> {
        match self {
            Wish::Hold(assignment) => Some(assignment),
            Wish::Go { .. } => None,
        }
    }
}

/// The keeper of the machine's units. Cheap to clone.
#[derive(Clone)]
pub struct Units {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Units {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Units").field("manager", &self.inner.manager).finish_non_exhaustive()
    }
}

/// A unit that we hold.
#[derive(Debug, Clone)]
struct Held {
    group: GroupKey,
    /// The object that systemd has of it.
    path: String,
    cut_off: CutOff,
}

struct Inner {
    manager: Manager,
    systemd: Systemd,
    releases: Releases,
    reports: Reports,
    records: Records,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Of systemd: what was started in an earlier one does not run any more.
    life: u64,
    groups: Mutex<BTreeMap<GroupKey, watch::Sender<Wanted>>>,
    held: Mutex<BTreeMap<UnitName, Held>>,
    /// Rises when a Quadlet file comes, changes or goes: what Quadlet says of the others may be different then.
    quadlet_files: watch::Sender<u64>,
    gates: gate::Gates,
    /// Units with `CutOff=stop` are not to run until it is told anew what is.
    is_cut_off: AtomicBool,
    written: AtomicU64,
    reloaded: tokio::sync::Mutex<u64>,
    stop: CancellationToken,
}

impl Units {
    /// Takes over what an earlier life of the agent left, without touching it, and reports how it is.
    ///
    /// # Errors
    /// When records cannot be read or systemd not be asked.
    pub async fn open(
        manager: Manager,
        systemd: Systemd,
        state_dir: PathBuf,
        releases: Releases,
        reports: Reports,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Result<Self, Error> {
        let records = Records::open(state_dir)?;
        std::fs::create_dir_all(&manager.unit_dir).map_err(|source| Error::Io {
            action: "make",
            path: manager.unit_dir.clone(),
            source,
        })?;
        let life = systemd.life().await?;
        let inner = Inner {
            manager,
            life,
            systemd,
            releases,
            reports,
            records,
            clock,
            groups: Mutex::default(),
            held: Mutex::default(),
            quadlet_files: watch::Sender::new(0),
            gates: gate::Gates::default(),
            is_cut_off: AtomicBool::new(false),
            written: AtomicU64::new(0),
            reloaded: tokio::sync::Mutex::new(0),
            stop: CancellationToken::new(),
        };
        let units = Self { inner: Arc::new(inner) };
        for (unit, record) in units.inner.records.all()? {
            let group = record.app.clone().map_or(GroupKey::Unit(unit.clone()), GroupKey::App);
            let path = unit_path(&files::in_systemd(&unit, Some(&record)));
            let held = Held { group, path, cut_off: record.cut_off };
            units.inner.held().insert(unit.clone(), held);
            // What is not done is told as well: a unit that is left out counts as not being here.
            let carried_out = match record.phase {
                Phase::Done if units.inner.is_of_this_life(&record) => record,
                Phase::Done | Phase::Writing | Phase::Starting { .. } | Phase::CutOff | Phase::Stopping => {
                    Record { generation: record.generation.saturating_sub(1), ..record }
                }
            };
            units.inner.report(&unit, &carried_out, None).await?;
        }
        Ok(units)
    }

    /// What systemd calls a unit that is held; of any other, what its name says.
    #[must_use]
    pub fn name_in_systemd(&self, unit: &UnitName) -> UnitName {
        let record = self.inner.records.get(unit).ok().flatten();
        files::in_systemd(unit, record.as_ref())
    }

    /// Whether the machine is being shut down; not if systemd does not say.
    pub async fn machine_goes_down(&self) -> bool {
        self.inner.systemd.is_going_down().await.unwrap_or(false)
    }

    /// How many units are here that could be elsewhere.
    #[must_use]
    pub fn movable(&self) -> usize {
        let held = self.inner.held();
        let is_placed =
            |unit: &&UnitName| self.inner.reports.get(unit).is_some_and(|status| status.placement > 0);
        held.keys().filter(is_placed).count()
    }

    /// Touches no unit from now on. What runs goes on running.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    /// Everything that is assigned; what is held and not among it goes. `dropped` is what is wanted to be confirmed to
    /// be gone.
    pub fn set_all(&self, assignments: Vec<UnitAssignment>, mut dropped: Vec<Withdrawal>) {
        self.inner.is_cut_off.store(false, Ordering::SeqCst);
        let wanted: BTreeSet<_> = assignments.iter().map(|assignment| &assignment.unit.name).collect();
        let known: BTreeSet<_> = dropped.iter().map(|dropped| dropped.unit.clone()).collect();
        for unit in self.inner.held().keys().filter(|unit| !wanted.contains(unit) && !known.contains(*unit)) {
            // The server knows nothing of it.
            let placement = self.inner.reports.get(unit).map_or(0, |status| status.placement);
            dropped.push(Withdrawal { unit: unit.clone(), placement });
        }
        self.change(assignments, dropped);
    }

    /// Begins nothing that was assigned until now and is not begun yet: it may be another machine's by now. What is held
    /// stays as it is until [`Units::set_all`].
    pub fn wait(&self) {
        let groups = self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in groups.values() {
            sender.send_replace(Wanted::new());
        }
    }

    /// What changed, together.
    pub fn change(&self, put: Vec<UnitAssignment>, dropped: Vec<Withdrawal>) {
        let mut by_group: BTreeMap<GroupKey, Wanted> = BTreeMap::new();
        {
            let mut held = self.inner.held();
            for assignment in put {
                let unit = assignment.unit.name.clone();
                let app = assignment.unit.app.as_ref().map(|(project, _)| project.clone());
                let key = app.map_or(GroupKey::Unit(unit.clone()), GroupKey::App);
                let text = UnitFile::parse(&assignment.unit.text);
                let path = unit_path(&text.name_in_systemd(&unit));
                let cut_off = assignment.unit.requirements.cut_off;
                held.insert(unit.clone(), Held { group: key.clone(), path, cut_off });
                by_group.entry(key).or_default().insert(unit, Wish::Hold(Box::new(assignment)));
            }
            for dropped in dropped {
                match held.get(&dropped.unit) {
                    Some(held) => {
                        let wish = Wish::Go { placement: dropped.placement };
                        by_group.entry(held.group.clone()).or_default().insert(dropped.unit, wish);
                    }
                    // What we never held is gone already.
                    None => self.inner.reports.remove(dropped),
                }
            }
        }
        let mut groups = self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, changes) in by_group {
            let sender = groups.entry(key.clone()).or_insert_with(|| {
                let (sender, receiver) = watch::channel(Wanted::new());
                let stop = self.inner.stop.clone();
                let keeping = keep_group(self.inner.clone(), key, receiver);
                tokio::spawn(async move { stop.run_until_cancelled(keeping).await });
                sender
            });
            sender.send_modify(|wanted| wanted.extend(changes));
        }
    }

    /// Follows systemd's signals and reports what changes; ends when systemd hangs up.
    pub async fn follow(&self) -> bus::Error {
        use tokio::sync::broadcast::error::{RecvError, TryRecvError};
        let mut changes = self.inner.systemd.changes();
        loop {
            // A unit that changes tells so several times; it is looked at once for all that is told by now.
            let mut changed = BTreeSet::new();
            let mut all = false;
            let mut next = changes.recv().await;
            loop {
                match next {
                    Ok(Change::Unit(path)) => drop(changed.insert(path)),
                    Ok(Change::Gone) | Err(RecvError::Closed) => return bus::Error::Gone,
                    Err(RecvError::Lagged(_)) => all = true,
                }
                next = match changes.try_recv() {
                    Ok(change) => Ok(change),
                    Err(TryRecvError::Lagged(count)) => Err(RecvError::Lagged(count)),
                    Err(TryRecvError::Closed) => Err(RecvError::Closed),
                    Err(TryRecvError::Empty) => break,
                };
            }
            let concerned: Vec<_> = {
                let held = self.inner.held();
                let is_concerned = |held: &Held| all || changed.contains(&held.path);
                held.iter().filter(|(_, held)| is_concerned(held)).map(|(unit, _)| unit.clone()).collect()
            };
            let refreshing =
                concerned.iter().map(|unit| async move { (unit, self.inner.refresh(unit).await) });
            for (unit, outcome) in futures_util::future::join_all(refreshing).await {
                if let Err(error) = outcome {
                    tracing::warn!(unit = %unit, error = chain(&error), "cannot tell a unit's state");
                }
            }
        }
    }
}

/// Makes a group as it is wanted, again whenever that changes, and again after a while when it could not.
async fn keep_group(inner: Arc<Inner>, key: GroupKey, mut wanted: watch::Receiver<Wanted>) {
    let mut pause = RETRY_FIRST;
    let mut quadlet_files = inner.quadlet_files.subscribe();
    loop {
        quadlet_files.mark_unchanged();
        let now = wanted.borrow_and_update().clone();
        match inner.carry_out(&key, &now, &wanted).await {
            Pass::Outdated => {}
            Pass::Settled => {
                pause = RETRY_FIRST;
                if wanted.changed().await.is_err() {
                    return;
                }
            }
            Pass::Refused => {
                pause = RETRY_FIRST;
                // When this pass wrote files itself there is one pass more, which writes none.
                tokio::select! {
                    changed = wanted.changed() => if changed.is_err() { return },
                    // The sender is in `inner`.
                    _ = quadlet_files.changed() => {}
                }
            }
            Pass::TryAgain => {
                tracing::info!(group = ?key, ?pause, "a group of units is tried again");
                tokio::select! {
                    changed = wanted.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_LONGEST),
                }
            }
        }
    }
}

/// How a pass over a group ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Nothing is left that another try could mend.
    Settled,
    /// Quadlet refuses a file, and may take it when there are others.
    Refused,
    TryAgain,
    /// Something else is wanted by now.
    Outdated,
}

impl Inner {
    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<UnitName, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what was noted down was done by the systemd that runs now. Older records do not say.
    fn is_of_this_life(&self, record: &Record) -> bool {
        record.life == 0 || record.life == self.life
    }

    /// One pass over a group.
    async fn carry_out(
        self: &Arc<Self>,
        key: &GroupKey,
        wanted: &Wanted,
        newer: &watch::Receiver<Wanted>,
    ) -> Pass {
        let mut settled = Pass::Settled;
        let mut note = |unit: &UnitName, error: &Error| {
            tracing::warn!(unit = %unit, error = chain(error), "a unit is not as it was assigned");
            if error.retryable() {
                settled = Pass::TryAgain;
            } else if settled == Pass::Settled && matches!(error, Error::NoService { .. }) {
                settled = Pass::Refused;
            }
        };
        let mut prepared = Vec::new();
        for (unit, wish) in wanted {
            let outcome = match wish {
                Wish::Hold(assignment) => self.prepare(assignment).await.map(|ready| prepared.extend(ready)),
                Wish::Go { placement } => self.remove(key, unit, *placement).await,
            };
            if let Err(error) = outcome {
                note(unit, &error);
                if let Some(assignment) = wish.assignment() {
                    self.report_error(assignment, &error).await;
                }
            }
        }
        if prepared.is_empty() {
            return settled;
        }
        if let Err(error) = self.read(&prepared).await {
            note(&prepared[0].assignment.unit.name, &Error::Systemd(error));
            return settled;
        }
        // Fetching may have taken long: what is no longer wanted is not started.
        if newer.has_changed().unwrap_or(true) {
            return Pass::Outdated;
        }
        // Sockets, timers and their like first: systemd refuses to start a socket whose service is running.
        prepared.sort_by_key(|unit| unit.in_systemd.kind() == UnitKind::Service);
        let services = prepared.partition_point(|unit| unit.in_systemd.kind() != UnitKind::Service);
        for stage in [&prepared[..services], &prepared[services..]] {
            let starting = stage.iter().map(|unit| async move { (unit, self.start(unit).await) });
            for (unit, outcome) in futures_util::future::join_all(starting).await {
                if let Err(error) = outcome {
                    note(&unit.assignment.unit.name, &error);
                    self.report_error(unit.assignment, &error).await;
                }
            }
        }
        let in_use: Vec<_> = wanted
            .values()
            .filter_map(Wish::assignment)
            .filter_map(|assignment| assignment.package.as_ref())
            .map(|package| self.releases.path(package))
            .collect();
        let package = |wish: &'_ Wish| wish.assignment().and_then(|assignment| assignment.package.clone());
        if let Some(package) = wanted.values().find_map(package)
            && let Err(error) = self.releases.prune(&package.name.project, &in_use)
        {
            tracing::warn!(project = %package.name.project, %error, "cannot remove old releases");
        }
        settled
    }

    /// Makes systemd read what was written for these. It finds a file by itself where it knew of none; a reload, which runs
    /// all generators and reads all files, takes longer than everything else about a unit.
    async fn read(&self, prepared: &[Prepared<'_>]) -> Result<(), bus::Error> {
        let mut found = prepared.iter().all(|unit| unit.is_new);
        if found {
            let listed = prepared.iter().map(|unit| self.systemd.listed(&unit.in_systemd));
            let listed = futures_util::future::try_join_all(listed).await?;
            found = listed.iter().all(bus::Listed::is_loaded);
        }
        if found { Ok(()) } else { self.reload().await }
    }

    /// Makes systemd read what was written before this call; calls that come together share one reload.
    async fn reload(&self) -> Result<(), bus::Error> {
        let ticket = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = self.reloaded.lock().await;
        if *done < ticket {
            let covers = self.written.load(Ordering::SeqCst);
            self.systemd.reload().await?;
            *done = covers;
        }
        Ok(())
    }

    /// Reports a unit that changed by itself.
    async fn refresh(&self, unit: &UnitName) -> Result<(), Error> {
        match self.records.get(unit)? {
            // While it is being started, the end of the job reports it.
            Some(record) if matches!(record.phase, Phase::Done) && self.is_of_this_life(&record) => {
                self.report(unit, &record, None).await
            }
            _ => Ok(()),
        }
    }

    async fn report(&self, unit: &UnitName, record: &Record, error: Option<&Error>) -> Result<(), Error> {
        let in_systemd = files::in_systemd(unit, Some(record));
        let status = async |usage: Usage| -> Result<UnitStatus, Error> {
            let state = self.systemd.state(&in_systemd).await?;
            Ok(UnitStatus {
                unit: unit.clone(),
                placement: record.placement,
                generation: record.generation,
                release: record.release,
                load: state.load,
                active: state.active,
                sub: state.sub,
                result: state.result,
                main_pid: state.main_pid,
                exit_code: state.exit_code,
                memory: usage.memory,
                cpu_nanos: usage.cpu_nanos,
                hash: Some(record.hash.clone()),
                gate: record.gate.clone(),
                // A job that failed is told by the unit's own state, unless the unit does not show it.
                error: error.filter(|_| state.active != ActiveState::Failed).map(|error| chain(error)),
                since: state.since,
                extra: serde_json::Map::default(),
            })
        };
        let known = self.reports.get(unit);
        let is_other = known
            .is_none_or(|known| (known.placement, known.generation) != (record.placement, record.generation));
        if is_other || self.reports.is_news(&status(Usage::default()).await?) {
            // Asked for what it uses first: its state is not to be older than need be.
            let usage = self.systemd.usage(&in_systemd).await?;
            self.reports.set(status(usage).await?);
        }
        Ok(())
    }

    /// Reports a unit that could not be made as assigned. For good: as carried out, with the error. For now: as it was.
    async fn report_error(&self, assignment: &UnitAssignment, error: &Error) {
        let unit = &assignment.unit;
        let old = self.reports.get(&unit.name);
        let generation = match &old {
            Some(old) if error.retryable() => old.generation,
            None if error.retryable() => 0,
            _ => unit.generation,
        };
        let in_systemd = UnitFile::parse(&unit.text).name_in_systemd(&unit.name);
        // Of a template there is no state.
        let usage = self.systemd.usage(&in_systemd).await.unwrap_or_default();
        let state = self.systemd.state(&in_systemd).await.ok();
        let text = |get: fn(&UnitState) -> &str, other: &str| {
            state.as_ref().map_or_else(|| other.to_owned(), |state| get(state).to_owned())
        };
        self.reports.set(UnitStatus {
            unit: unit.name.clone(),
            placement: assignment.placement,
            generation,
            release: old.as_ref().and_then(|old| old.release),
            load: text(|state| &state.load, "unknown"),
            active: state.as_ref().map_or(ActiveState::Other, |state| state.active),
            sub: text(|state| &state.sub, "unknown"),
            result: state.as_ref().and_then(|state| state.result.clone()),
            main_pid: state.as_ref().and_then(|state| state.main_pid),
            exit_code: state.as_ref().and_then(|state| state.exit_code),
            memory: usage.memory,
            cpu_nanos: usage.cpu_nanos,
            hash: old.and_then(|old| old.hash),
            gate: unit.policy().map(|_| match error.retryable() {
                true => Gate::Waiting { why: None },
                false => Gate::Failed { why: chain(error) },
            }),
            error: Some(chain(error)),
            since: state.map_or_else(|| (self.clock)(), |state| state.since),
            extra: serde_json::Map::default(),
        });
    }
}

/// Stops and removes every unit that an agent with this record folder holds; none of its lives may be running.
///
/// # Errors
/// When systemd or the disk says no.
pub async fn remove_all(manager: &Manager, systemd: &Systemd, state_dir: PathBuf) -> Result<usize, Error> {
    let records = Records::open(state_dir)?;
    let all = records.all()?;
    // Sockets first, so that none of them starts its service again.
    let mut names: Vec<_> = all.keys().collect();
    names.sort_by_key(|unit| unit.kind().is_service());
    for unit in &names {
        take_away(manager, systemd, unit, all.get(unit)).await?;
    }
    systemd.reload().await?;
    for unit in &names {
        systemd.reset_failed(&files::in_systemd(unit, all.get(unit))).await?;
        records.remove(unit)?;
    }
    Ok(all.len())
}

/// Removes the records of units whose systemd is gone; gives their number.
///
/// # Errors
/// When the disk says no.
pub fn forget_all(state_dir: PathBuf) -> Result<usize, Error> {
    let records = Records::open(state_dir)?;
    let all = records.all()?;
    all.keys().try_for_each(|unit| records.remove(unit))?;
    Ok(all.len())
}
