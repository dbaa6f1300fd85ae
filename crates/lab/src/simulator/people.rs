//! What people want and what breaks, at random: units by hand, runs, releases, rollbacks; cuts, kills, reboots, outages.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{
    AttemptEnd, Availability, BranchName, CommitId, DesiredState, Digest, Extra, InvalidName, Machine,
    MachineId, MachineSettings, PackageName, ProjectName, Release, Requirements, Resources, Run, RunId,
    RunState, Unit, UnitName, UpdatePolicy,
};
use sealift_planner::Change;

use super::agent::Agent;
use super::server::{Made, commit, package};
use super::{Broken, Event, Sim, names};
use crate::rng::Rng;

const GIB: u64 = 1 << 30;
const GLOBS: [&str; 6] = ["a.service", "b*", "d@*.service", "f.service", "[ab]?*", "c.timer"];
/// A release's unit may also be one that another app or somebody has.
const APP_UNITS: [&str; 7] =
    ["a.service", "b.service", "b2.service", "c.timer", "d@.service", "d@1.service", "d@2.service"];
const HAND_UNITS: [&str; 6] = ["b.service", "e.service", "f.service", "g.service", "h.timer", "i.service"];

#[derive(Debug)]
pub(super) struct People {
    app_units: Vec<UnitName>,
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
    pub(super) fn new(rng: &mut Rng) -> Result<People, InvalidName> {
        let count = rng.between(2, 7);
        let mut machines = Vec::new();
        for number in 0..count {
            let id = MachineId::from_bytes(rng.bytes());
            machines.push(machine(rng, id, format!("m{number}")));
        }
        Ok(People {
            app_units: names(&APP_UNITS)?,
            hand_units: names(&HAND_UNITS)?,
            projects: names(&["p", "q"])?,
            branch: "main".parse()?,
            commit: commit()?,
            digest: Digest::from_bytes([7; 32]),
            machines,
            runs: BTreeMap::new(),
            texts: 0,
        })
    }

    fn text(&mut self) -> String {
        self.texts += 1;
        format!("text {}", self.texts)
    }

    fn requirements(&self, rng: &mut Rng) -> Requirements {
        let mut wanted = Requirements::default();
        let all: Vec<&UnitName> = self.app_units.iter().chain(&self.hand_units).collect();
        for _ in 0..rng.below(3) {
            let glob = rng.pick(&GLOBS).copied().unwrap_or("*").to_owned();
            match rng.below(20) {
                0..=2 => drop(wanted.conflicts.insert(glob)),
                3..=4 => wanted.machine_of.extend(rng.pick(&all).map(ToString::to_string)),
                5 => drop(wanted.replaces.insert(glob)),
                6..=8 => {
                    let value = if rng.chance(50) { "a" } else { "b" };
                    wanted.metadata.entry("zone".into()).or_default().insert(value.into());
                }
                9 => drop(wanted.metadata.insert("disk".into(), BTreeSet::from(["ssd".into()]))),
                10 => wanted.global = true,
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
    }

    pub(super) fn somebody_acts(&mut self) -> Result<(), Broken> {
        if self.calm {
            return Ok(());
        }
        let delay = if self.rng.chance(30) { self.rng.between(1, 50) } else { self.rng.between(50, 3_000) };
        self.clock.after(delay, Event::People);
        // People reach the server or go away again; what breaks breaks all the same.
        let what = self.rng.below(if self.server.away { 24 } else { 100 });
        let ids: Vec<MachineId> = self.agents.ids();
        let victim = self.rng.pick(&ids).cloned();
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
            (12..=14, _) if !self.server.planner_away => {
                self.server.planner_away = true;
                let delay = self.rng.between(100, 30_000);
                self.clock.after(delay, Event::PlannerBack);
            }
            (15..=16, _) => {
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
        let ours = |unit: &&Unit| unit.app.is_none();
        let units: Vec<_> =
            self.server.snapshot().units.values().filter(ours).map(|unit| unit.name.clone()).collect();
        self.rng.pick(&units).cloned()
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
        for _ in 0..self.rng.below(5) {
            let Some(unit) = self.rng.pick(&self.people.app_units).cloned() else { continue };
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
        let release = Release { number, package, units, created_at: now, extra: Extra::new() };
        self.server.releases.insert((project.clone(), number), Made { release, requirements });
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
