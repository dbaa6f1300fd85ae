//! Snapshots in few words.

use std::collections::BTreeMap;
use std::fmt;

use sealift_model::{
    ActiveState, App, Attempt, AttemptEnd, Availability, DesiredState, Extra, Machine, MachineId, Package,
    PackageName, Placement, Presence, ProjectName, Release, Requirements, Resources, Run, RunId, RunState,
    SessionId, Share, Timestamp, Unit, UnitName, UnitStatus, UpdatePolicy, UpdateStage,
};
use sealift_planner::{Action, AppView, Reason, Snapshot, apply, plan};

pub(crate) const NOW: Timestamp = Timestamp(1_000);

pub(crate) fn machine_id(n: u32) -> MachineId {
    format!("{n:08x}{:024x}", 7).parse().unwrap()
}

pub(crate) fn session(n: u32) -> SessionId {
    format!("{n:032x}").parse().unwrap()
}

pub(crate) fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

pub(crate) fn project(text: &str) -> ProjectName {
    text.parse().unwrap()
}

/// `MachineOf=b.service Conflicts=c* Global=yes` and so on, each word one value.
pub(crate) fn requirements(text: &str) -> Requirements {
    let mut wanted = Requirements::default();
    for word in text.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap();
        let owned = value.to_owned();
        match key {
            "MachineID" => wanted.machine_id = Some(owned),
            "MachineOf" => drop(wanted.machine_of.insert(owned)),
            "Conflicts" => drop(wanted.conflicts.insert(owned)),
            "Replaces" => drop(wanted.replaces.insert(owned)),
            "Global" => wanted.global = value == "yes",
            // GiB and cores, in whole.
            "Memory" => wanted.resources.memory = value.parse::<u64>().unwrap() << 30,
            "CPU" => wanted.resources.cpu = value.parse::<u32>().unwrap() * 1_000,
            "MachineClass" => drop(wanted.classes.insert(owned)),
            "Spread" => wanted.spread = Some(owned),
            "PreferMachineOf" => drop(wanted.prefers_machine_of.insert(owned)),
            "Prefer" => {
                let (key, value) = value.split_once(':').unwrap();
                wanted.prefers_metadata.entry(key.to_owned()).or_default().insert(value.to_owned());
            }
            "Priority" => wanted.priority = value.parse().unwrap(),
            "Preempt" => wanted.preempts = value == "yes",
            "Replicas" => wanted.replicas = Some(value.parse().unwrap()),
            "UpdateMaxOut" => {
                let max_out = Share::Count(value.parse().unwrap());
                wanted.update = Some(UpdatePolicy { max_out, ..UpdatePolicy::default() });
            }
            _ => drop(wanted.metadata.entry(key.to_owned()).or_default().insert(owned)),
        }
    }
    wanted
}

pub(crate) fn unit(text: &str, wanted: &str) -> Unit {
    Unit { requirements: requirements(wanted), ..Unit::new(name(text), wanted, DesiredState::Launched) }
}

pub(crate) fn release(number: u64, units: &[(&str, &str)]) -> Release {
    let project = project("p");
    let package = Package {
        name: PackageName {
            project: project.clone(),
            branch: "main".parse().unwrap(),
            commit: "a".repeat(40).parse().unwrap(),
        },
        run: RunId { project, number: 1 },
        digest: "d".repeat(64).parse().unwrap(),
        size: 0,
        signature: String::new(),
        created_at: NOW,
        extra: Extra::new(),
    };
    let units = units.iter().map(|(unit, text)| (name(unit), (*text).to_owned())).collect();
    Release { number, package, units, drop_ins: BTreeMap::new(), created_at: NOW, extra: Extra::new() }
}

/// An app at a release whose unit files are what [`requirements`] reads.
pub(crate) fn app(of: &str, number: u64, units: &[(&str, &str)]) -> AppView {
    AppView {
        app: App {
            project: project(of),
            branch: "main".parse().unwrap(),
            current: number,
            generation: number,
            changed_at: NOW,
            extra: Extra::new(),
        },
        release: Some(release(number, units)),
        requirements: units.iter().map(|(unit, text)| (name(unit), requirements(text))).collect(),
    }
}

/// A run that was lost `lost` times, and is at work on machine `on` in the session of that number if there is one.
pub(crate) fn run(number: u64, queued_at: u64, lost: u32, on: Option<u32>) -> Run {
    let attempt = |number, machine, end| Attempt {
        number,
        machine: machine_id(machine),
        session: session(machine),
        started_at: NOW,
        end,
        waited: false,
    };
    let mut attempts: Vec<Attempt> =
        (1..=lost).map(|number| attempt(number, 99, Some(AttemptEnd::Lost))).collect();
    attempts.extend(on.map(|machine| attempt(lost + 1, machine, None)));
    Run {
        id: RunId { project: project("p"), number },
        branch: "main".parse().unwrap(),
        commit: "a".repeat(40).parse().unwrap(),
        subject: String::new(),
        source: "d".repeat(64).parse().unwrap(),
        pipeline: "build".to_owned(),
        state: if on.is_some() { RunState::Running } else { RunState::Queued },
        attempts,
        queued_at: Timestamp(queued_at),
        ended_at: None,
        message: None,
        steps: Vec::new(),
        package: None,
        approvals: Vec::new(),
        extra: Extra::new(),
    }
}

#[derive(Clone, Default)]
pub(crate) struct World(pub(crate) Snapshot);

/// A line for each thing, so that a failing random world can be read.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let World(snapshot) = self;
        for (id, (machine, presence)) in &snapshot.machines {
            let there = if presence.is_some() { "there" } else { "away" };
            let settings = snapshot.settings.get(id).map(|settings| settings.availability);
            let (slots, about) = (machine.run_slots, (&machine.metadata, machine.capacity, &machine.class));
            writeln!(f, "machine {} {slots} {about:?} {there} {settings:?}", id.short())?;
        }
        for unit in snapshot.units.values() {
            let app = unit.app.as_ref().map(|(project, number)| format!("{project} {number}"));
            writeln!(f, "unit {} {:?} {:?} {app:?}", unit.name, unit.text, unit.desired)?;
        }
        for placement in snapshot.placements.values() {
            writeln!(f, "placed {} {} {}", placement.unit, placement.machine.short(), placement.since.0)?;
        }
        for (machine, unit) in snapshot.statuses.keys() {
            writeln!(f, "status {} {unit}", machine.short())?;
        }
        for (project, view) in &snapshot.apps {
            let units = view.release.as_ref().map(|release| &release.units);
            writeln!(f, "app {project} {} {units:?}", view.app.current)?;
        }
        for run in snapshot.runs.values() {
            writeln!(f, "{run:?}")?;
        }
        Ok(())
    }
}

impl World {
    /// Machines 1 to `count`, there, each with session of its number and no run slots.
    pub(crate) fn of(count: u32) -> World {
        (1..=count).fold(World::default(), |world, n| world.machine(n, 0, &[]))
    }

    pub(crate) fn machine(mut self, n: u32, run_slots: u32, metadata: &[(&str, &str)]) -> World {
        let id = machine_id(n);
        let machine = Machine {
            metadata: metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            version: "1".to_owned(),
            systemd: "system".to_owned(),
            run_slots,
            ..Machine::new(id.clone(), format!("m{n}"))
        };
        self.0.machines.insert(id, (machine, Some(Presence { session: session(n), since: NOW })));
        self
    }

    /// With GiB and cores; of a class if it is not empty.
    pub(crate) fn sized(mut self, n: u32, memory: u64, cpu: u32, class: &str) -> World {
        let (machine, _) = self.0.machines.get_mut(&machine_id(n)).unwrap();
        machine.capacity = Resources { memory: memory << 30, cpu: cpu * 1_000 };
        machine.class = (!class.is_empty()).then(|| class.to_owned());
        self
    }

    pub(crate) fn is(mut self, n: u32, availability: Availability) -> World {
        self.0.settings.entry(machine_id(n)).or_default().availability = availability;
        self
    }

    /// All machines have confirmed what was taken from them, and say that what is placed is up.
    pub(crate) fn caught_up(mut self) -> World {
        let placements = &self.0.placements;
        self.0.statuses.retain(|(machine, unit), _| {
            placements.get(unit).is_some_and(|placement| placement.machine == *machine)
        });
        for ((_, unit), status) in &mut self.0.statuses {
            status.load = "loaded".to_owned();
            status.active = ActiveState::Active;
            status.placement = placements.get(unit).map_or(0, |placement| placement.id);
        }
        self
    }

    pub(crate) fn away(mut self, n: u32) -> World {
        self.0.machines.get_mut(&machine_id(n)).unwrap().1 = None;
        self
    }

    pub(crate) fn unit(mut self, text: &str, wanted: &str) -> World {
        self.0.units.insert(name(text), unit(text, wanted));
        self
    }

    pub(crate) fn desired(mut self, text: &str, desired: DesiredState) -> World {
        self.0.units.get_mut(&name(text)).unwrap().desired = desired;
        self
    }

    /// Placed at a time of its own, later than those before it.
    pub(crate) fn placed(mut self, text: &str, n: u32) -> World {
        let since = Timestamp(self.0.placements.len() as u64);
        self.0.last_placement += 1;
        let id = self.0.last_placement;
        let placement = Placement { id, unit: name(text), machine: machine_id(n), since };
        self.0.placements.insert(name(text), placement);
        self
    }

    pub(crate) fn status(mut self, n: u32, text: &str) -> World {
        let status = UnitStatus {
            unit: name(text),
            placement: self.0.placements.get(&name(text)).map_or(0, |placement| placement.id),
            generation: self.0.units.get(&name(text)).map_or(1, |unit| unit.generation),
            release: None,
            load: "loaded".to_owned(),
            active: ActiveState::Active,
            sub: "running".to_owned(),
            result: None,
            main_pid: None,
            exit_code: None,
            memory: None,
            cpu_nanos: None,
            hash: None,
            gate: None,
            error: None,
            since: NOW,
            extra: Extra::new(),
        };
        self.0.statuses.insert((machine_id(n), name(text)), status);
        self
    }

    /// The machine has confirmed that the unit is not there.
    pub(crate) fn confirmed(mut self, n: u32, text: &str) -> World {
        self.0.statuses.remove(&(machine_id(n), name(text))).unwrap();
        self
    }

    pub(crate) fn run(mut self, run: Run) -> World {
        self.0.runs.insert(run.id.clone(), run);
        self
    }

    pub(crate) fn app(mut self, view: AppView) -> World {
        self.0.apps.insert(view.app.project.clone(), view);
        self
    }

    /// The plan in few words, see [`words`].
    pub(crate) fn plan(&self) -> Vec<String> {
        plan(&self.0).actions.iter().map(words).collect()
    }

    /// The world after its plan, which has to leave nothing to do.
    pub(crate) fn settled(mut self) -> World {
        for action in plan(&self.0).actions {
            assert!(apply(&mut self.0, &action, NOW), "{action:?}");
        }
        assert_eq!(self.plan(), [""; 0], "a second plan");
        self
    }

    /// Where each placed unit is.
    pub(crate) fn where_is(&self) -> BTreeMap<String, u32> {
        let number = |id: &MachineId| u32::from_str_radix(id.short(), 16).unwrap();
        self.0.placements.values().map(|at| (at.unit.stem().to_owned(), number(&at.machine))).collect()
    }
}

/// `place a 1`, `unplace a 1: the machine is away` and so on.
pub(crate) fn words(action: &Action) -> String {
    let number = |id: &MachineId| u32::from_str_radix(id.short(), 16).unwrap();
    match action {
        Action::PutUnit { unit } => {
            let stage = match unit.update.as_ref().map(|update| &update.stage) {
                None => String::new(),
                Some(UpdateStage::Waiting) => " waiting".to_owned(),
                Some(UpdateStage::Begun { .. }) => " begun".to_owned(),
                Some(UpdateStage::Back { why }) => format!(" back: {why}"),
            };
            format!("put {} {}{stage}", unit.name.stem(), unit.generation)
        }
        Action::Update { unit, machine, generation } => match generation {
            Some(generation) => format!("update {} {}: {generation}", unit.stem(), number(machine)),
            None => format!("update {} {}: back", unit.stem(), number(machine)),
        },
        Action::RemoveUnit { name } => format!("remove {}", name.stem()),
        Action::Place { unit, machine } => format!("place {} {}", unit.stem(), number(machine)),
        Action::Unplace { unit, machine, reason, with } => {
            let units: Vec<&str> = std::iter::once(unit).chain(with).map(UnitName::stem).collect();
            format!("unplace {} {}: {}", units.join("+"), number(machine), brief(reason))
        }
        Action::Dispatch { run, attempt, machine, session: agent } => {
            let session_number = u32::from_str_radix(&agent.as_str()[24..], 16).unwrap();
            format!("dispatch {}.{attempt} {}/{session_number}", run.number, number(machine))
        }
        Action::Lose { run, attempt, reason } => format!("lose {}.{attempt}: {reason}", run.number),
        Action::GiveUp { run, reason } => format!("give up {}: {reason}", run.number),
    }
}

fn brief(reason: &Reason) -> String {
    match reason {
        Reason::Conflict { with } => format!("conflict {}", with.stem()),
        Reason::GivesWay { to } => format!("for {}", to.stem()),
        Reason::Apart { from } => format!("apart {}", from.trim_end_matches(".service")),
        other => other.to_string(),
    }
}
