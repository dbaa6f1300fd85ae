//! The watch cache: the store's objects, parsed once, kept up to date by one watch. All reads of the API and the
//! controllers come from here; only writes go to the store.
//!
//! It may lag behind the store; [`Cache::reached`] waits until it shows a revision, so that whoever wrote reads his
//! own writes. A record that does not parse is skipped with a warning and holds up nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use sealift_access::{Authority, JoinRecord, MachineCredential, TokenId, UserRecord};
use sealift_client::api::Question;
use sealift_model::{
    App, Assignment, Machine, MachineId, MachineSettings, Package, PackageName, Placement, Presence,
    ProjectName, Release, ReleaseNumber, Run, RunAssignment, RunId, RunState, Unit, UnitAssignment, UnitName,
    UnitStatus,
};
use sealift_store::{Batch, Entry, Event, LeaseId, Revision, Store};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::api::Rebalancing;
use crate::keys::Key;

/// How long to wait when the store cannot be read.
const PAUSE: Duration = Duration::from_secs(1);

/// An object as the store holds it.
#[derive(Debug, Clone)]
pub(crate) struct Held<T> {
    pub(crate) value: T,
    pub(crate) modified: Revision,
    pub(crate) lease: Option<LeaseId>,
}

/// Everything, as of one revision.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) revision: Revision,
    pub(crate) machines: BTreeMap<MachineId, Held<Machine>>,
    pub(crate) presence: BTreeMap<MachineId, Held<Presence>>,
    pub(crate) settings: BTreeMap<MachineId, Held<MachineSettings>>,
    /// What machines are asked, until they answer.
    pub(crate) questions: BTreeMap<MachineId, BTreeMap<String, Held<Question>>>,
    pub(crate) units: BTreeMap<UnitName, Held<Unit>>,
    pub(crate) placements: BTreeMap<UnitName, Held<Placement>>,
    pub(crate) statuses: BTreeMap<MachineId, BTreeMap<UnitName, Held<UnitStatus>>>,
    /// The generations of global units that machines were updated to while others were not.
    pub(crate) updated: BTreeMap<MachineId, BTreeMap<UnitName, Held<u64>>>,
    /// The name of the server that leads, where several share a store.
    pub(crate) leader: Option<Held<String>>,
    /// Somebody asked to even out what machines have to do; what became of it, as long as he may not have read it.
    pub(crate) rebalance: Option<Held<Rebalancing>>,
    pub(crate) last_placement: Option<Held<u64>>,
    pub(crate) counters: BTreeMap<ProjectName, Held<u64>>,
    generation_base: Option<Held<u64>>,
    pub(crate) requests: BTreeMap<String, Held<RunId>>,
    pub(crate) runs: BTreeMap<RunId, Held<Run>>,
    pub(crate) packages: BTreeMap<PackageName, Held<Package>>,
    pub(crate) apps: BTreeMap<ProjectName, Held<App>>,
    pub(crate) releases: BTreeMap<(ProjectName, ReleaseNumber), Held<Release>>,
    pub(crate) authority: Option<Held<Authority>>,
    pub(crate) users: BTreeMap<TokenId, Held<UserRecord>>,
    pub(crate) join_tokens: BTreeMap<TokenId, Held<JoinRecord>>,
    pub(crate) credentials: BTreeMap<MachineId, Held<MachineCredential>>,
    /// Records that are there and not understood, by key.
    unread: BTreeMap<String, Revision>,
    index: Index,
}

/// What is looked up by something else than its key.
#[derive(Debug, Default)]
struct Index {
    /// Units by the machine that they are placed on.
    placed: BTreeMap<MachineId, BTreeSet<UnitName>>,
    globals: BTreeSet<UnitName>,
    /// Machines by the unit that they say something of.
    reporting: BTreeMap<UnitName, BTreeSet<MachineId>>,
    /// Runs under way by the machine of their attempt.
    runs: BTreeMap<MachineId, BTreeSet<RunId>>,
}

impl Index {
    fn insert<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: V) {
        map.entry(key).or_default().insert(value);
    }

    fn remove<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
        if let Some(values) = map.get_mut(key) {
            values.remove(value);
            if values.is_empty() {
                map.remove(key);
            }
        }
    }
}

/// The machine that a run is under way on.
fn machine_of_run(run: &Run) -> Option<&MachineId> {
    let attempt = run.attempt().filter(|_| run.state == RunState::Running)?;
    Some(&attempt.machine)
}

impl World {
    fn put(&mut self, entry: &Entry) {
        let Some(key) = Key::parse(&entry.key) else { return };
        fn held<T: DeserializeOwned>(entry: &Entry) -> Option<Held<T>> {
            match serde_json::from_slice(&entry.value) {
                Ok(value) => Some(Held { value, modified: entry.modified, lease: entry.lease }),
                Err(error) => {
                    tracing::warn!(key = entry.key, %error, "a record is not understood and left aside");
                    None
                }
            }
        }
        fn set<K: Ord, T: DeserializeOwned>(map: &mut BTreeMap<K, Held<T>>, key: K, entry: &Entry) -> bool {
            held(entry).map(|held| map.insert(key, held)).is_some()
        }
        // What was there before is over, whether its successor is understood or not.
        self.delete(&entry.key);
        let understood = match key {
            Key::Machine(id) => set(&mut self.machines, id, entry),
            Key::Presence(id) => set(&mut self.presence, id, entry),
            Key::Settings(id) => set(&mut self.settings, id, entry),
            Key::Question(machine, id) => set(self.questions.entry(machine).or_default(), id, entry),
            Key::Unit(name) => set(&mut self.units, name, entry),
            Key::Placement(name) => set(&mut self.placements, name, entry),
            Key::Status(machine, unit) => set(self.statuses.entry(machine).or_default(), unit, entry),
            Key::Updated(machine, unit) => set(self.updated.entry(machine).or_default(), unit, entry),
            Key::Leader => {
                self.leader = held(entry);
                self.leader.is_some()
            }
            Key::Rebalance => {
                self.rebalance = held(entry);
                self.rebalance.is_some()
            }
            Key::PlacementCounter => {
                self.last_placement = held(entry);
                self.last_placement.is_some()
            }
            Key::RunCounter(project) => set(&mut self.counters, project, entry),
            Key::GenerationBase => {
                self.generation_base = held(entry);
                self.generation_base.is_some()
            }
            // Looked at when a server begins; nobody writes it then.
            Key::Transfer => true,
            Key::Request(request) => set(&mut self.requests, request, entry),
            Key::Run(id) => set(&mut self.runs, id, entry),
            Key::Package(name) => set(&mut self.packages, name, entry),
            Key::App(project) => set(&mut self.apps, project, entry),
            Key::Release(project, number) => set(&mut self.releases, (project, number), entry),
            Key::Authority => {
                self.authority = held(entry);
                self.authority.is_some()
            }
            Key::User(id) => set(&mut self.users, id, entry),
            Key::Join(id) => set(&mut self.join_tokens, id, entry),
            Key::Credential(machine) => set(&mut self.credentials, machine, entry),
        };
        if !understood {
            self.unread.insert(entry.key.clone(), entry.modified);
            return;
        }
        match Key::parse(&entry.key) {
            Some(Key::Unit(name))
                if self.units.get(&name).is_some_and(|unit| unit.value.requirements.global) =>
            {
                self.index.globals.insert(name);
            }
            Some(Key::Placement(name)) => {
                if let Some(placement) = self.placements.get(&name) {
                    Index::insert(&mut self.index.placed, placement.value.machine.clone(), name);
                }
            }
            Some(Key::Status(machine, unit)) => Index::insert(&mut self.index.reporting, unit, machine),
            Some(Key::Run(id)) => {
                if let Some(machine) = self.runs.get(&id).and_then(|run| machine_of_run(&run.value)) {
                    Index::insert(&mut self.index.runs, machine.clone(), id);
                }
            }
            _ => {}
        }
    }

    fn delete(&mut self, key: &str) {
        self.unread.remove(key);
        match Key::parse(key) {
            Some(Key::Machine(id)) => drop(self.machines.remove(&id)),
            Some(Key::Presence(id)) => drop(self.presence.remove(&id)),
            Some(Key::Question(machine, id)) => {
                if let Some(questions) = self.questions.get_mut(&machine) {
                    questions.remove(&id);
                    if questions.is_empty() {
                        self.questions.remove(&machine);
                    }
                }
            }
            Some(Key::Settings(id)) => drop(self.settings.remove(&id)),
            Some(Key::Unit(name)) => {
                self.units.remove(&name);
                self.index.globals.remove(&name);
            }
            Some(Key::Placement(name)) => {
                if let Some(placement) = self.placements.remove(&name) {
                    Index::remove(&mut self.index.placed, &placement.value.machine, &name);
                }
            }
            Some(Key::Status(machine, unit)) => {
                Index::remove(&mut self.index.reporting, &unit, &machine);
                if let Some(units) = self.statuses.get_mut(&machine) {
                    units.remove(&unit);
                }
            }
            Some(Key::Rebalance) => self.rebalance = None,
            Some(Key::Updated(machine, unit)) => {
                if let Some(units) = self.updated.get_mut(&machine) {
                    units.remove(&unit);
                    if units.is_empty() {
                        self.updated.remove(&machine);
                    }
                }
            }
            Some(Key::Leader) => self.leader = None,
            Some(Key::PlacementCounter) => self.last_placement = None,
            Some(Key::RunCounter(project)) => drop(self.counters.remove(&project)),
            Some(Key::GenerationBase) => self.generation_base = None,
            Some(Key::Request(request)) => drop(self.requests.remove(&request)),
            Some(Key::Run(id)) => {
                if let Some(run) = self.runs.remove(&id)
                    && let Some(machine) = machine_of_run(&run.value)
                {
                    Index::remove(&mut self.index.runs, machine, &id);
                }
            }
            Some(Key::Package(name)) => drop(self.packages.remove(&name)),
            Some(Key::App(project)) => drop(self.apps.remove(&project)),
            Some(Key::Release(project, number)) => drop(self.releases.remove(&(project, number))),
            Some(Key::Authority) => self.authority = None,
            Some(Key::User(id)) => drop(self.users.remove(&id)),
            Some(Key::Join(id)) => drop(self.join_tokens.remove(&id)),
            Some(Key::Credential(machine)) => drop(self.credentials.remove(&machine)),
            Some(Key::Transfer) | None => {}
        }
    }

    /// No unit of this store, nor of those that its state was in before, has a generation above this one: each
    /// generation took a commit.
    pub(crate) fn newest_generation(&self) -> u64 {
        self.revision.0 + self.generation_base.as_ref().map_or(0, |held| held.value)
    }

    /// When the object at `key` was last written, if it is there: what a transaction compares with. One that is not
    /// understood is there as well, and whoever writes in its place has to say so, or he would never come to it.
    pub(crate) fn modified(&self, key: &Key) -> Option<Revision> {
        let understood = match key {
            Key::Machine(id) => self.machines.get(id).map(|held| held.modified),
            Key::Presence(id) => self.presence.get(id).map(|held| held.modified),
            Key::Settings(id) => self.settings.get(id).map(|held| held.modified),
            Key::Question(machine, id) => {
                self.questions.get(machine).and_then(|all| all.get(id)).map(|held| held.modified)
            }
            Key::Unit(name) => self.units.get(name).map(|held| held.modified),
            Key::Placement(name) => self.placements.get(name).map(|held| held.modified),
            Key::Status(machine, unit) => self.status(machine, unit).map(|held| held.modified),
            Key::Rebalance => self.rebalance.as_ref().map(|held| held.modified),
            Key::Updated(machine, unit) => {
                self.updated.get(machine).and_then(|units| units.get(unit)).map(|held| held.modified)
            }
            Key::Leader => self.leader.as_ref().map(|held| held.modified),
            Key::PlacementCounter => self.last_placement.as_ref().map(|held| held.modified),
            Key::RunCounter(project) => self.counters.get(project).map(|held| held.modified),
            Key::GenerationBase => self.generation_base.as_ref().map(|held| held.modified),
            Key::Transfer => None,
            Key::Request(request) => self.requests.get(request).map(|held| held.modified),
            Key::Run(id) => self.runs.get(id).map(|held| held.modified),
            Key::Package(name) => self.packages.get(name).map(|held| held.modified),
            Key::App(project) => self.apps.get(project).map(|held| held.modified),
            Key::Release(project, number) => {
                self.releases.get(&(project.clone(), *number)).map(|held| held.modified)
            }
            Key::Authority => self.authority.as_ref().map(|held| held.modified),
            Key::User(id) => self.users.get(id).map(|held| held.modified),
            Key::Join(id) => self.join_tokens.get(id).map(|held| held.modified),
            Key::Credential(machine) => self.credentials.get(machine).map(|held| held.modified),
        };
        understood.or_else(|| self.unread(key))
    }

    /// When the object at `key` was last written, if it is there and not understood.
    pub(crate) fn unread(&self, key: &Key) -> Option<Revision> {
        self.unread.get(&key.to_string()).copied()
    }

    /// The keys of records that are there and not understood.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &str> {
        self.unread.keys().map(String::as_str)
    }

    /// What a machine last said of a unit.
    pub(crate) fn status(&self, machine: &MachineId, unit: &UnitName) -> Option<&Held<UnitStatus>> {
        self.statuses.get(machine)?.get(unit)
    }

    /// The placement that a word of a machine speaks of, if it still stands.
    pub(crate) fn placement_of(&self, machine: &MachineId, status: &UnitStatus) -> Option<&Placement> {
        let placement = self.placements.get(&status.unit).map(|held| &held.value);
        placement.filter(|placement| placement.machine == *machine && placement.id == status.placement)
    }

    /// The machines whose assignments a change of this key may change.
    fn concerned(&self, key: &str, into: &mut BTreeSet<MachineId>) {
        match Key::parse(key) {
            Some(Key::Unit(name)) => {
                match self.units.get(&name) {
                    Some(unit) if unit.value.requirements.global => {
                        into.extend(self.machines.keys().cloned());
                    }
                    _ => {}
                }
                into.extend(self.placements.get(&name).map(|placement| placement.value.machine.clone()));
            }
            Some(Key::Placement(name)) => {
                into.extend(self.placements.get(&name).map(|placement| placement.value.machine.clone()));
            }
            Some(Key::Run(id)) => {
                let attempts = self.runs.get(&id).into_iter().flat_map(|run| &run.value.attempts);
                into.extend(attempts.map(|attempt| attempt.machine.clone()));
            }
            Some(
                Key::Presence(id)
                | Key::Machine(id)
                | Key::Settings(id)
                | Key::Question(id, _)
                | Key::Updated(id, _),
            ) => {
                into.insert(id);
            }
            _ => {}
        }
    }

    /// The units that are placed on a machine.
    pub(crate) fn placed_on(&self, machine: &MachineId) -> impl Iterator<Item = &UnitName> {
        self.index.placed.get(machine).into_iter().flatten()
    }

    /// The runs that are under way on a machine.
    pub(crate) fn runs_on(&self, machine: &MachineId) -> impl Iterator<Item = &Held<Run>> {
        self.index.runs.get(machine).into_iter().flatten().filter_map(|id| self.runs.get(id))
    }

    /// All global units, wanted or not, in the order of names.
    pub(crate) fn global_units(&self) -> impl Iterator<Item = &Held<Unit>> {
        self.index.globals.iter().filter_map(|name| self.units.get(name))
    }

    /// The global units that are to run on a machine.
    pub(crate) fn globals_on(&self, machine: &MachineId) -> impl Iterator<Item = &Held<Unit>> {
        let globals = crate::controller::globals_on(self, machine).into_iter();
        globals.filter_map(|unit| self.units.get(&unit.name))
    }

    /// The machines that a unit is to run on now.
    pub(crate) fn targets(&self, unit: &Unit) -> Vec<MachineId> {
        if !unit.requirements.global {
            return self
                .placements
                .get(&unit.name)
                .map(|held| held.value.machine.clone())
                .into_iter()
                .collect();
        }
        let machines = self.presence.keys();
        machines.filter(|machine| crate::controller::runs_on(self, unit, machine)).cloned().collect()
    }

    /// What machines last said of a unit.
    pub(crate) fn statuses_of(&self, unit: &UnitName) -> impl Iterator<Item = (&MachineId, &UnitStatus)> {
        let machines = self.index.reporting.get(unit).into_iter().flatten();
        machines.filter_map(move |machine| Some((machine, &self.status(machine, unit)?.value)))
    }

    /// A unit as this machine is to have it now: while a change of it rolls out, that may be what was before.
    pub(crate) fn given(&self, unit: &Unit, machine: &MachineId) -> Unit {
        let version = if unit.requirements.global {
            let updated = self.updated.get(machine).and_then(|units| units.get(&unit.name));
            unit.given_at(updated.map(|held| held.value))
        } else {
            unit.given()
        };
        unit.as_given(version)
    }

    /// What a machine is to do now, units first.
    pub(crate) fn assignments(&self, machine: &MachineId) -> Vec<Assignment> {
        // As long as it is placed, whatever it is to be there: so each placement is given once and taken away once.
        let units = self.placed_on(machine).filter_map(|name| self.units.get(name));
        let units = units.filter(|unit| !unit.value.requirements.global);
        let units = units.chain(self.globals_on(machine)).map(|unit| {
            let given = self.given(&unit.value, machine);
            let package = given.app.as_ref().and_then(|app| self.releases.get(app));
            let placement = self.placements.get(&unit.value.name).filter(|_| !unit.value.requirements.global);
            Assignment::Unit(Box::new(UnitAssignment {
                unit: given,
                placement: placement.map_or(0, |placement| placement.value.id),
                package: package.map(|release| release.value.package.clone()),
            }))
        });
        let runs = self.runs_on(machine).filter_map(|run| {
            let attempt = run.value.attempt()?;
            Some(Assignment::Run(Box::new(RunAssignment {
                run: run.value.clone(),
                attempt: attempt.number,
                session: attempt.session.clone(),
            })))
        });
        units.chain(runs).collect()
    }
}

/// A shared handle on the cache.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    world: Arc<RwLock<World>>,
    revision: watch::Receiver<Revision>,
    machines: Arc<std::sync::Mutex<BTreeMap<MachineId, watch::Sender<Revision>>>>,
    changed: Arc<std::sync::Mutex<Vec<Weak<Changed>>>>,
    /// Counts how often it was found to be behind the store.
    doubts: watch::Sender<u64>,
}

/// What changed since somebody last asked, for whoever keeps a picture of his own. It never falls behind: of each key it
/// is only known that it changed, and when there are too many, that everything may have.
#[derive(Debug)]
pub(crate) struct Changed(std::sync::Mutex<ChangedKeys>);

#[derive(Debug)]
pub(crate) enum ChangedKeys {
    /// The world has to be read anew.
    All,
    These(BTreeSet<String>),
}

/// More changed keys than this count as all.
const MOST_CHANGED: usize = 100_000;

impl Changed {
    /// What changed since this was last asked; at first, everything. Ask before looking at the world.
    pub(crate) fn take(&self) -> ChangedKeys {
        std::mem::replace(&mut *self.keys(), ChangedKeys::These(BTreeSet::new()))
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, ChangedKeys> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn note(&self, changed: Option<&Batch>) {
        let mut keys = self.keys();
        match (&mut *keys, changed) {
            (ChangedKeys::These(known), Some(batch)) if known.len() < MOST_CHANGED => {
                known.extend(batch.events.iter().map(|event| event.key().to_owned()));
            }
            _ => *keys = ChangedKeys::All,
        }
    }
}

impl Cache {
    /// Reads everything; [`Follower::run`] then keeps it up to date.
    pub(crate) async fn open(store: Arc<dyn Store>) -> Result<(Cache, Follower), sealift_store::Error> {
        let (told, revision) = watch::channel(Revision(0));
        let cache = Cache {
            world: Arc::default(),
            revision,
            machines: Arc::default(),
            changed: Arc::default(),
            doubts: watch::Sender::new(0),
        };
        let mut follower = Follower { store, cache: cache.clone(), told, watch: None };
        follower.list().await?;
        Ok((cache, follower))
    }

    /// The world now. Never held over an await.
    pub(crate) fn world(&self) -> RwLockReadGuard<'_, World> {
        // A panic elsewhere cannot leave a half-applied batch that matters: the batch is applied entry by entry.
        self.world.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until the cache shows this revision.
    pub(crate) async fn reached(&self, revision: Revision) {
        // An error means that the follower is gone, which only happens on the way down.
        self.revision.clone().wait_for(|seen| *seen >= revision).await.ok();
    }

    /// The newest revision that it shows.
    pub(crate) fn seen(&self) -> Revision {
        *self.revision.borrow()
    }

    /// It is behind the store, and does not catch up: everything is read anew.
    pub(crate) fn doubt(&self) {
        tracing::warn!(seen = self.seen().0, "what is known of the store is old, and is read anew");
        self.doubts.send_modify(|count| *count += 1);
    }

    /// Tells when it is found to be behind.
    pub(crate) fn doubts(&self) -> watch::Receiver<u64> {
        self.doubts.subscribe()
    }

    /// Tells of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<Revision> {
        self.revision.clone()
    }

    /// Which objects change from now on, for as long as the handle is kept.
    pub(crate) fn changed(&self) -> Arc<Changed> {
        let changed = Arc::new(Changed(std::sync::Mutex::new(ChangedKeys::All)));
        let mut all = self.changed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&changed));
        changed
    }

    /// None if the world was read anew.
    fn note_changed(&self, batch: Option<&Batch>) {
        let all = self.changed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for changed in all.iter().filter_map(Weak::upgrade) {
            changed.note(batch);
        }
    }

    /// Tells of changes that may concern this machine's assignments, and of no others.
    pub(crate) fn changes_for(&self, machine: &MachineId) -> watch::Receiver<Revision> {
        let mut machines = self.machines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        machines.entry(machine.clone()).or_insert_with(|| watch::channel(Revision(0)).0).subscribe()
    }

    fn tell(&self, concerned: &BTreeSet<MachineId>, revision: Revision) {
        let mut machines = self.machines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        machines.retain(|_, told| told.receiver_count() > 0);
        for machine in concerned {
            if let Some(told) = machines.get(machine) {
                told.send_replace(revision);
            }
        }
    }
}

/// Keeps a cache up to date.
#[derive(Debug)]
pub(crate) struct Follower {
    store: Arc<dyn Store>,
    cache: Cache,
    told: watch::Sender<Revision>,
    watch: Option<sealift_store::Watch>,
}

impl Follower {
    /// Follows the store until it is closed. A watch that fell behind begins again with a list, and so does one of a
    /// store that was set back to a backup.
    pub(crate) async fn run(mut self) -> Result<(), sealift_store::Error> {
        let mut doubts = self.cache.doubts();
        loop {
            let Some(watch) = &mut self.watch else {
                match self.list().await {
                    Err(error) if error.retryable() => {
                        tracing::warn!(%error, "the store cannot be read; trying again");
                        tokio::time::sleep(PAUSE).await;
                    }
                    listed => listed?,
                }
                continue;
            };
            let next = tokio::select! {
                next = watch.next() => next,
                Ok(()) = doubts.changed() => {
                    self.watch = None;
                    continue;
                }
            };
            match next {
                Ok(Some(batch)) => self.apply(&batch),
                Ok(None) => return Ok(()),
                Err(sealift_store::Error::Compacted { .. } | sealift_store::Error::FutureRevision { .. }) => {
                    self.watch = None;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn list(&mut self) -> Result<(), sealift_store::Error> {
        let range = self.store.range("").await?;
        self.watch = Some(self.store.watch("", range.revision).await?);
        let mut world = World { revision: range.revision, ..World::default() };
        for entry in &range.entries {
            world.put(entry);
        }
        let concerned = world.machines.keys().cloned().collect();
        *self.cache.world.write().unwrap_or_else(std::sync::PoisonError::into_inner) = world;
        self.cache.note_changed(None);
        self.cache.tell(&concerned, range.revision);
        self.told.send_replace(range.revision);
        Ok(())
    }

    fn apply(&self, batch: &Batch) {
        let mut concerned = BTreeSet::new();
        {
            let mut world = self.cache.world.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            for event in &batch.events {
                // Before and after: a moved placement concerns both machines.
                world.concerned(event.key(), &mut concerned);
                match event {
                    Event::Put(entry) => world.put(entry),
                    Event::Delete { key, .. } => {
                        world.delete(key);
                        // What has stopped makes room for global units, which are on no machine by a placement.
                        if let Some(Key::Status(machine, _)) = Key::parse(key)
                            && !world.index.globals.is_empty()
                        {
                            concerned.insert(machine);
                        }
                    }
                }
                world.concerned(event.key(), &mut concerned);
            }
            world.revision = batch.revision;
        }
        self.cache.note_changed(Some(batch));
        self.cache.tell(&concerned, batch.revision);
        self.told.send_replace(batch.revision);
    }
}
