//! What people want and what breaks, at random: units by hand, runs, releases, rollbacks; cuts, kills, reboots, outages.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{
    AttemptEnd, Availability, BranchName, CommitId, DesiredState, Digest, Extra, InvalidName, Machine,
    MachineId, MachineSettings, PackageName, ProjectName, Release, Requirements, Resources, Run, RunId,
    RunState, Timestamp, Unit, UnitName, UpdatePolicy,
};
use sealift_planner::Change;

use super::agent::Agent;
use super::clock::Millis;
use super::server::{Made, commit, package};
use super::{Broken, Event, Sim, Size, names};
use crate::rng::Rng;

const GIB: u64 = 1 << 30;
const GLOBS: [&str; 6] = ["a.service", "b*", "d@*.service", "f.service", "[ab]?*", "c.timer"];
/// A release's unit may also be one that another app or somebody has.
const APP_UNITS: [&str; 7] =
    ["a.service", "b.service", "b2.service", "c.timer", "d@.service", "d@1.service", "d@2.service"];
const HAND_UNITS: [&str; 6] = ["b.service", "e.service", "f.service", "g.service", "h.timer", "i.service"];

/// How long the end of a run is remembered, and how many releases of an app are.
const REMEMBERED: Millis = 24 * 3_600_000;
const RELEASES: usize = 5;

#[derive(Debug)]
pub(super) struct People {
    size: Size,
    /// The names that each project chooses from.
    app_units: Vec<Vec<UnitName>>,
    globs: Vec<String>,
    hand_units: Vec<UnitName>,
    projects: Vec<ProjectName>,
    branch: BranchName,
    commit: CommitId,
    digest: Digest,
    machines: Vec<Machine>,
    runs: BTreeMap<ProjectName, u64>,
    texts: u64,
}

impl People {
    pub(super) fn new(rng: &mut Rng, size: Size) -> Result<People, InvalidName> {
        let count = match size {
            Size::Small => rng.between(2, 7),
            Size::Big { machines, .. } => machines,
        };
        let mut machines = Vec::new();
        for number in 0..count {
            let id = MachineId::from_bytes(rng.bytes());
            machines.push(machine(rng, id, format!("m{number}")));
        }
        let mut people = People {
            size,
            app_units: vec![names(&APP_UNITS)?; 2],
            globs: GLOBS.map(str::to_owned).into(),
            hand_units: names(&HAND_UNITS)?,
            projects: names(&["p", "q"])?,
            branch: "main".parse()?,
            commit: commit()?,
            digest: Digest::from_bytes([7; 32]),
            machines,
            runs: BTreeMap::new(),
            texts: 0,
        };
        if let Size::Big { units, .. } = size {
            people.grow(units)?;
        }
        Ok(people)
    }

    /// So many names: two thirds are by hand, the others of apps, which share some with their neighbours.
    fn grow(&mut self, units: u64) -> Result<(), InvalidName> {
        let by_hand = (0..units * 2 / 3).map(|number| format!("h{number:04}.service"));
        self.hand_units = by_hand.map(|name| name.parse()).collect::<Result<_, _>>()?;
        let projects = units / 30 + 1;
        self.projects = (0..projects).map(|number| format!("p{number}").parse()).collect::<Result<_, _>>()?;
        let names = |project: u64| -> Result<Vec<UnitName>, InvalidName> {
            let next = (project + 1) % projects;
            let mut names = vec![format!("p{project}-t@.service"), format!("p{project}-t@1.service")];
            names.extend((0..7).map(|number| format!("p{project}-{number}.service")));
            names.push(format!("p{next}-0.service"));
            names.into_iter().map(|name| name.parse()).collect()
        };
        self.app_units = (0..projects).map(names).collect::<Result<_, _>>()?;
        // Each means about ten units, and some of an app.
        let by_hand = (0..units / 15).map(|tens| format!("h{tens:03}?.service"));
        let of_apps = (0..projects).map(|project| format!("p{project}-[012].service"));
        self.globs = by_hand.chain(of_apps).collect();
        Ok(())
    }

    pub(super) fn machine_count(&self) -> usize {
        self.machines.len()
    }

    fn is_big(&self) -> bool {
        self.size != Size::Small
    }

    fn text(&mut self) -> String {
        self.texts += 1;
        format!("text {}", self.texts)
    }

    fn requirements(&self, rng: &mut Rng) -> Requirements {
        let mut wanted = Requirements::default();
        for _ in 0..rng.below(3) {
            let glob = rng.pick(&self.globs).cloned().unwrap_or_default();
            match rng.below(20) {
                0..=2 => drop(wanted.conflicts.insert(glob)),
                3..=4 => {
                    let apps = rng.pick(&self.app_units).map(Vec::as_slice);
                    let some = if rng.chance(50) { apps } else { Some(self.hand_units.as_slice()) };
                    wanted.machine_of.extend(some.and_then(|some| rng.pick(some)).map(ToString::to_string));
                }
                5 => drop(wanted.replaces.insert(glob)),
                6..=8 => {
                    let value = if rng.chance(50) { "a" } else { "b" };
                    wanted.metadata.entry("zone".into()).or_default().insert(value.into());
                }
                9 => drop(wanted.metadata.insert("disk".into(), BTreeSet::from(["ssd".into()]))),
                // Each is one on every machine.
                10 => wanted.global = !self.is_big() || rng.chance(1),
                11..=13 => {
                    wanted.resources = Resources {
                        memory: rng.between(0, 3) * GIB,
                        cpu: u32::try_from(rng.between(0, 3)).unwrap_or(0) * 1_000,
                    };
                }
                14 => drop(wanted.classes.insert(if rng.chance(50) { "job" } else { "*" }.into())),
                15 => wanted.spread = Some("zone".into()),
                16 => drop(wanted.prefers_machine_of.insert(glob)),
                17 => {
                    wanted.priority = i32::try_from(rng.between(0, 4)).unwrap_or(0) - 1;
                    wanted.preempts = rng.chance(50);
                }
                18 => {
                    wanted.replicas = u32::try_from(rng.between(0, 4)).ok();
                    wanted.update = Some(UpdatePolicy::default());
                }
                _ => {
                    wanted.machine_id = rng.pick(&self.machines).map(|machine| machine.id.short().to_owned());
                }
            }
        }
        wanted
    }
}

fn machine(rng: &mut Rng, id: MachineId, name: String) -> Machine {
    let mut metadata = BTreeMap::new();
    if rng.chance(70) {
        metadata.insert("zone".to_owned(), if rng.chance(50) { "a" } else { "b" }.to_owned());
    }
    if rng.chance(40) {
        metadata.insert("disk".to_owned(), "ssd".to_owned());
    }
    let run_slots = u32::try_from(rng.below(4)).unwrap_or(0);
    // Some say nothing of what they have.
    let capacity = Resources {
        memory: rng.between(0, 6) * GIB,
        cpu: u32::try_from(rng.between(0, 6)).unwrap_or(0) * 1_000,
    };
    Machine {
        metadata,
        version: "1".to_owned(),
        systemd: "system".to_owned(),
        run_slots,
        capacity,
        class: rng.chance(15).then(|| "job".to_owned()),
        ..Machine::new(id, name)
    }
}

impl Sim {
    pub(super) fn first_machines(&mut self) {
        for machine in self.people.machines.clone() {
            let id = machine.id.clone();
            self.agents.add(Agent::new(machine));
            let delay = self.rng.between(0, 5_000);
            self.clock.after(delay, Event::Start { machine: id });
        }
        if self.people.is_big() {
            // Once all are there: the first would have to take everything.
            self.clock.after(15_000, Event::FirstUnits);
        }
    }

    /// A fleet that is in use.
    pub(super) fn first_units(&mut self) {
        for _ in 0..self.people.hand_units.len() {
            self.submit();
        }
    }

    pub(super) fn somebody_acts(&mut self) -> Result<(), Broken> {
        if self.calm {
            return Ok(());
        }
        let delay = match self.people.size {
            Size::Small if self.rng.chance(30) => self.rng.between(1, 50),
            Size::Small => self.rng.between(50, 3_000),
            // Some things happen close together in big worlds too.
            Size::Big { .. } if self.rng.chance(30) => self.rng.between(1, 200),
            Size::Big { pace, .. } => self.rng.between(1, pace.saturating_mul(20) / 7),
        };
        self.clock.after(delay, Event::People);
        if self.rng.below(1_000) == 0 {
            // A story of years would fill the memory with what nobody asks about any more.
            let before = self.now().0.saturating_sub(REMEMBERED);
            for run in self.server.forget_runs(Timestamp(before)) {
                self.oracle.forget(&run);
            }
        }
        // People reach the server or go away again; what breaks breaks all the same.
        let what = self.rng.below(if self.server.away { 24 } else { 100 });
        let victim = self.rng.pick(&self.people.machines).map(|machine| machine.id.clone());
        // What everybody notices does not come more often because there are more of them.
        let rare = !self.people.is_big() || self.rng.chance(5);
        match (what, victim) {
            (0..=5, Some(id)) => self.cut(&id),
            (6..=11, Some(id)) => {
                self.summary.kills += 1;
                let reboot = self.rng.chance(25);
                self.kill(&id, reboot);
                self.change_machine(&id);
                let delay = self.rng.between(20, 30_000);
                self.clock.after(delay, Event::Start { machine: id });
            }
            (12..=14, _) if !self.server.planner_away && rare => {
                self.summary.leader_changes += 1;
                self.server.planner_away = true;
                let delay = self.rng.between(100, 30_000);
                self.clock.after(delay, Event::PlannerBack);
            }
            (15..=16, _) if rare => {
                let delay = self.rng.between(100, 30_000);
                self.server_away(delay);
            }
            (24..=54, _) => self.submit(),
            (55..=62, _) => self.destroy(),
            (63..=70, _) => self.wish(),
            (71..=90, _) => self.queue(),
            (91..=94, _) => self.abort()?,
            (95..=96, _) => self.roll_back(),
            (97..=99, Some(id)) => self.set_availability(id),
            _ => {}
        }
        Ok(())
    }

    /// A machine that is started again may have been given other metadata.
    fn change_machine(&mut self, id: &MachineId) {
        if self.rng.chance(15)
            && let Some(agent) = self.agents.get_mut(id)
        {
            agent.machine = machine(&mut self.rng, id.clone(), agent.machine.name.clone());
        }
    }

    fn cut(&mut self, id: &MachineId) {
        let Some(agent) = self.agents.get_mut(id).filter(|agent| !agent.cut) else { return };
        agent.cut = true;
        self.summary.cuts += 1;
        if self.rng.chance(50) {
            self.server.streams.remove(id);
            self.stream_lost(id);
        }
        let most = if self.rng.chance(50) { 5_000 } else { 60_000 };
        let delay = self.rng.between(50, most);
        self.clock.after(delay, Event::Heal { machine: id.clone() });
    }

    pub(super) fn heal(&mut self, id: &MachineId) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.cut = false;
        }
    }

    /// Nothing breaks any more, and what is broken comes back.
    pub(super) fn heal_all(&mut self) {
        self.calm = true;
        let ids: Vec<MachineId> = self.agents.ids();
        for id in ids {
            self.heal(&id);
            self.start_agent(&id);
        }
        if self.server.away {
            self.server_back();
        }
        self.planner_back();
    }

    fn hand_unit(&mut self) -> Option<UnitName> {
        let units = &self.server.snapshot().units;
        let ours = |name: &UnitName| units.get(name).is_some_and(|unit| unit.app.is_none());
        (0..4).find_map(|_| self.rng.pick(&self.people.hand_units).filter(|name| ours(name)).cloned())
    }

    fn submit(&mut self) {
        let Some(name) = self.rng.pick(&self.people.hand_units).cloned() else { return };
        if self.server.snapshot().units.get(&name).is_some_and(|unit| unit.app.is_some()) {
            return;
        }
        let requirements = self.people.requirements(&mut self.rng);
        let desired = if self.rng.chance(85) { DesiredState::Launched } else { DesiredState::Loaded };
        let unit = Unit {
            requirements,
            generation: self.server.generations.get(&name).copied().unwrap_or(0) + 1,
            ..Unit::new(name.clone(), self.people.text(), desired)
        };
        self.server.set_unit(unit);
    }

    fn destroy(&mut self) {
        let Some(name) = self.hand_unit() else { return };
        self.server.set(Change::Unit(name, None));
    }

    fn wish(&mut self) {
        let Some(name) = self.hand_unit() else { return };
        let wishes = [DesiredState::Inactive, DesiredState::Loaded, DesiredState::Launched];
        let wish = self.rng.pick(&wishes).copied();
        let unit = self.server.snapshot().units.get(&name).cloned();
        if let (Some(mut unit), Some(wish)) = (unit, wish)
            && unit.desired != wish
        {
            unit.desired = wish;
            unit.generation += 1;
            self.server.set_unit(unit);
        }
    }

    fn queue(&mut self) {
        for _ in 0..self.rng.between(1, 3) {
            let Some(project) = self.rng.pick(&self.people.projects).cloned() else { return };
            let number = self.people.runs.entry(project.clone()).or_default();
            *number += 1;
            let id = RunId { project, number: *number };
            let run = Run {
                id,
                branch: self.people.branch.clone(),
                commit: self.people.commit.clone(),
                subject: String::new(),
                source: self.people.digest.clone(),
                pipeline: "build".to_owned(),
                state: RunState::Queued,
                attempts: Vec::new(),
                queued_at: self.now(),
                ended_at: None,
                message: None,
                steps: Vec::new(),
                package: None,
                approvals: Vec::new(),
                extra: Extra::new(),
            };
            self.server.set_run(run);
        }
    }

    fn abort(&mut self) -> Result<(), Broken> {
        let runs: Vec<RunId> = self
            .server
            .snapshot()
            .runs
            .values()
            .filter(|run| !run.state.is_end())
            .map(|run| run.id.clone())
            .collect();
        let Some(id) = self.rng.pick(&runs).cloned() else { return Ok(()) };
        let now = self.now();
        if self.server.end(&id, AttemptEnd::Aborted, now).is_some() {
            self.oracle.aborted(&id)?;
        }
        Ok(())
    }

    /// A run that passed makes a release, with other units than before.
    pub(super) fn released(&mut self, run: &Run, name: PackageName) {
        self.summary.releases += 1;
        let project = run.id.project.clone();
        let newest =
            self.server.releases.range((project.clone(), 0)..=(project.clone(), u64::MAX)).next_back();
        let number = newest.map_or(0, |((_, number), _)| *number) + 1;
        let old = newest.map(|(_, made)| made.clone());
        let (mut units, mut requirements) = (BTreeMap::new(), BTreeMap::new());
        let own = self.people.projects.iter().position(|one| *one == project);
        let names = own.and_then(|own| self.people.app_units.get(own)).cloned().unwrap_or_default();
        for _ in 0..self.rng.below(5) {
            let Some(unit) = self.rng.pick(&names).cloned() else { continue };
            let same = old.as_ref().and_then(|made| {
                Some((made.release.units.get(&unit)?.clone(), made.requirements.get(&unit)?.clone()))
            });
            let (text, wanted) = match same {
                Some(same) if self.rng.chance(50) => same,
                _ => (self.people.text(), self.people.requirements(&mut self.rng)),
            };
            units.insert(unit.clone(), text);
            // Some unit files cannot be read.
            if !self.rng.chance(2) {
                requirements.insert(unit, wanted);
            }
        }
        let now = self.now();
        let package = package(name, run.id.clone(), self.people.digest.clone(), now);
        let drop_ins = BTreeMap::new();
        let release = Release { number, package, units, drop_ins, created_at: now, extra: Extra::new() };
        self.server.releases.insert((project.clone(), number), Made { release, requirements });
        self.server.forget_releases(&project, RELEASES);
        let branch = self.people.branch.clone();
        self.server.switch(&project, number, &branch, now);
    }

    /// An operator sets a machine apart, or gives it back.
    fn set_availability(&mut self, machine: MachineId) {
        let wishes =
            [Availability::Active, Availability::Active, Availability::Cordoned, Availability::Drained];
        let availability = self.rng.pick(&wishes).copied().unwrap_or_default();
        let mut settings = MachineSettings { availability, ..MachineSettings::default() };
        if self.rng.chance(20) {
            settings.metadata.insert("zone".into(), Some("b".into()));
        }
        self.server.set(Change::Settings(machine, Some(settings)));
    }

    fn roll_back(&mut self) {
        let releases: Vec<_> = self.server.releases.keys().cloned().collect();
        let Some((project, number)) = self.rng.pick(&releases).cloned() else { return };
        let (branch, now) = (self.people.branch.clone(), self.now());
        self.server.switch(&project, number, &branch, now);
    }
}
