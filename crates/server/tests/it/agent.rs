//! An agent that does nothing by itself: the test says what it says.

use std::collections::{BTreeMap, BTreeSet};

use sealift_client::api::{
    AskApproval, AskSecrets, AssignmentEvent, Events, Finish, KeepAlive, NewSession, Question, RunSecrets,
    SessionBegun, Statuses,
};
use sealift_client::{Client, Error, Lines};
use sealift_model::{
    ActiveState, Approval, Assignment, Digest, EventKind, Extra, Machine, MachineId, Run, RunAssignment,
    RunEvent, RunId, SessionId, StepOutcome, StepResult, Timestamp, UnitAssignment, UnitName, UnitStatus,
    Withdrawal,
};

use tokio::task::JoinHandle;

use crate::house::{House, soon};

pub(crate) fn machine(number: u8, run_slots: u32) -> Machine {
    Machine {
        version: "0.1.0".into(),
        systemd: "private".into(),
        run_slots,
        ..Machine::new(MachineId::from_bytes([number; 16]), format!("host-{number}"))
    }
}

/// A unit file that asks for this machine.
pub(crate) fn unit_on(machine: &Machine, program: &str) -> String {
    format!("[Service]\nExecStart={program}\n\n[X-Fleet]\nMachineID={}\n", machine.id)
}

pub(crate) fn note(seq: u64, text: &str) -> RunEvent {
    RunEvent { seq, at: Timestamp(seq), node: None, kind: EventKind::Note { text: text.into() } }
}

/// One life of one machine's agent.
pub(crate) struct Agent {
    client: Client,
    pub(crate) machine: Machine,
    pub(crate) session: SessionId,
    stream: Lines<AssignmentEvent>,
    /// What is assigned, as the stream told it.
    pub(crate) units: BTreeMap<UnitName, UnitAssignment>,
    /// What was dropped, with its placement.
    dropped: BTreeMap<UnitName, u64>,
    pub(crate) runs: BTreeMap<(RunId, u32), RunAssignment>,
    taken: BTreeSet<(RunId, u32)>,
    /// What it was asked.
    pub(crate) asked: Vec<Question>,
}

impl Agent {
    /// Begins life number `life` of the machine and hears what is assigned at first.
    pub(crate) async fn begin(house: &House, machine: &Machine, life: u8) -> Agent {
        let mut bytes = [life; 16];
        bytes[0] = 0xaa;
        let session = SessionId::from_bytes(bytes);
        let new = NewSession { machine: machine.clone(), session: session.clone() };
        let path = format!("/v1/machines/{}/session", machine.id);
        let begun: SessionBegun = house.client.post(&path, &new).await.unwrap();
        assert_eq!(u128::from(begun.ttl_millis), crate::house::TTL.as_millis());
        let stream = assignments(&house.client, &machine.id, &session).await.unwrap();
        let mut agent = Agent {
            client: house.client.clone(),
            machine: machine.clone(),
            session,
            stream,
            units: BTreeMap::new(),
            dropped: BTreeMap::new(),
            runs: BTreeMap::new(),
            taken: BTreeSet::new(),
            asked: Vec::new(),
        };
        let first = agent.hear().await;
        assert!(matches!(first, Some(AssignmentEvent::All { .. })), "the first line is {first:?}");
        agent
    }

    /// The next line of the stream of assignments, taken to heart; none when the stream ended.
    pub(crate) async fn hear(&mut self) -> Option<AssignmentEvent> {
        let event = soon("assignments", self.stream.next()).await.unwrap()?;
        let put = match &event {
            AssignmentEvent::All { assignments, drop_units } => {
                self.dropped(drop_units);
                self.units.clear();
                self.runs.clear();
                assignments
            }
            AssignmentEvent::Changed { put, drop_units, drop_runs } => {
                self.dropped(drop_units);
                for run in drop_runs {
                    self.runs.remove(run).expect("what is dropped was assigned");
                }
                put
            }
            AssignmentEvent::Ask { questions } => {
                self.asked.extend(questions.iter().cloned());
                return Some(event);
            }
            AssignmentEvent::Unknown => panic!("the server says what this version does not know"),
        };
        for assignment in put {
            match assignment.clone() {
                Assignment::Unit(unit) => drop(self.units.insert(unit.unit.name.clone(), *unit)),
                Assignment::Run(run) => drop(self.runs.insert((run.run.id.clone(), run.attempt), *run)),
            }
        }
        Some(event)
    }

    fn dropped(&mut self, dropped: &[Withdrawal]) {
        for Withdrawal { unit, placement } in dropped {
            self.units.remove(unit);
            self.dropped.insert(unit.clone(), *placement);
        }
    }

    /// Hears on until its assignments are like that.
    pub(crate) async fn hear_until(&mut self, what: &str, wanted: impl Fn(&Agent) -> bool) {
        while !wanted(self) {
            assert!(self.hear().await.is_some(), "the assignments ended before {what}");
        }
    }

    /// Hears to the end of the stream, which the server closes when the session is over.
    pub(crate) async fn hear_the_end(&mut self) {
        while self.hear().await.is_some() {}
    }

    /// The next run that it is handed; each only once. What another life of it was handed, it leaves alone.
    pub(crate) async fn run(&mut self) -> RunAssignment {
        loop {
            let next =
                self.runs.iter().find(|(key, run)| run.session == self.session && !self.taken.contains(*key));
            if let Some((key, run)) = next {
                let (key, run) = (key.clone(), run.clone());
                self.taken.insert(key);
                return run;
            }
            assert!(self.hear().await.is_some(), "the assignments ended before a run came");
        }
    }

    pub(crate) async fn say(&self, run: &RunAssignment, events: Vec<RunEvent>) -> Result<(), Error> {
        let path = format!("/v1/runs/{}/attempts/{}/events", run.run.id, run.attempt);
        self.client.post(&path, &Events { session: self.session.clone(), events }).await
    }

    /// What it says at a run's end.
    pub(crate) fn end(&self, passed: bool, artifact: Option<Digest>, units: &[(&str, &str)]) -> Finish {
        let outcome = if passed { StepOutcome::Passed } else { StepOutcome::Failed };
        let exit_code = Some(i32::from(!passed));
        Finish {
            session: self.session.clone(),
            passed,
            message: (!passed).then(|| "step build failed".into()),
            steps: vec![StepResult { name: "build".into(), outcome, exit_code, millis: 5, after: false }],
            artifact,
            units: units.iter().map(|(name, text)| (name.parse().unwrap(), (*text).to_owned())).collect(),
            drop_ins: BTreeMap::new(),
        }
    }

    pub(crate) async fn finish(&self, run: &RunAssignment, end: &Finish) -> Result<Run, Error> {
        finish(&self.client, &run.run.id, run.attempt, end).await
    }

    pub(crate) async fn pass(
        &self,
        run: &RunAssignment,
        artifact: Option<Digest>,
        units: &[(&str, &str)],
    ) -> Result<Run, Error> {
        self.finish(run, &self.end(true, artifact, units)).await
    }

    pub(crate) async fn fail(&self, run: &RunAssignment) -> Result<Run, Error> {
        self.finish(run, &self.end(false, None, &[])).await
    }

    /// The secrets of this attempt's project, by name.
    pub(crate) async fn secrets(&self, run: &RunAssignment) -> Result<BTreeMap<String, String>, Error> {
        self.secrets_of(&run.run.id, run.attempt).await
    }

    pub(crate) async fn secrets_of(
        &self,
        id: &RunId,
        attempt: u32,
    ) -> Result<BTreeMap<String, String>, Error> {
        let ask = AskSecrets { session: self.session.clone() };
        let path = format!("/v1/runs/{id}/attempts/{attempt}/secrets");
        let told: RunSecrets = self.client.post(&path, &ask).await?;
        Ok(told.secrets.into_iter().map(|(name, value)| (name.to_string(), value.into())).collect())
    }

    /// Asks people whether a node of this attempt may begin, and waits as long as the server does.
    pub(crate) fn ask(&self, run: &RunAssignment, node: &str) -> JoinHandle<Result<Approval, Error>> {
        let path = format!("/v1/runs/{}/attempts/{}/approvals", run.run.id, run.attempt);
        let session = self.session.clone();
        let ask = AskApproval { session, node: node.into(), question: format!("Run {node}?") };
        let client = self.client.clone();
        tokio::spawn(async move { client.post(&path, &ask).await })
    }

    pub(crate) async fn keep_alive(&self) -> Result<(), Error> {
        let path = format!("/v1/machines/{}/keep-alive", self.machine.id);
        self.client.post(&path, &KeepAlive { session: self.session.clone() }).await
    }

    /// What it would say of a unit that it was assigned.
    pub(crate) fn status(&self, unit: &str, active: ActiveState) -> UnitStatus {
        let UnitAssignment { unit, placement, .. } = &self.units[&unit.parse::<UnitName>().unwrap()];
        let placement = *placement;
        UnitStatus {
            unit: unit.name.clone(),
            placement,
            generation: unit.generation,
            release: unit.app.as_ref().map(|(_, release)| *release),
            load: "loaded".into(),
            active,
            sub: "running".into(),
            result: Some("success".into()),
            main_pid: Some(42),
            exit_code: None,
            memory: None,
            cpu_nanos: None,
            hash: None,
            gate: None,
            error: None,
            since: Timestamp(7),
            extra: Extra::default(),
        }
    }

    pub(crate) async fn report(&self, statuses: Vec<UnitStatus>, gone: &[&str]) -> Result<(), Error> {
        let gone = gone.iter().map(|unit| {
            let unit: UnitName = unit.parse().unwrap();
            let placement = self.dropped[&unit];
            Withdrawal { unit, placement }
        });
        let gone = gone.collect();
        let session = self.session.clone();
        self.report_as(&Statuses { session, statuses, gone, all: false }).await
    }

    pub(crate) async fn report_as(&self, statuses: &Statuses) -> Result<(), Error> {
        self.client.post(&format!("/v1/machines/{}/statuses", self.machine.id), statuses).await
    }

    /// Says of everything that it was assigned that it runs.
    pub(crate) async fn report_all_up(&self) {
        let names = self.units.keys().map(|name| self.status(name.as_str(), ActiveState::Active));
        self.report(names.collect(), &[]).await.unwrap();
    }

    /// The placement that it was told to confirm the end of.
    pub(crate) fn dropped_by(&self, unit: &str) -> Option<u64> {
        self.dropped.get(&unit.parse::<UnitName>().unwrap()).copied()
    }

    /// What it is to hold.
    pub(crate) fn unit_names(&self) -> Vec<&str> {
        self.units.keys().map(UnitName::as_str).collect()
    }
}

pub(crate) async fn assignments(
    client: &Client,
    machine: &MachineId,
    session: &SessionId,
) -> Result<Lines<AssignmentEvent>, Error> {
    client.lines(&format!("/v1/machines/{machine}/assignments?session={session}")).await
}

pub(crate) async fn finish(client: &Client, id: &RunId, attempt: u32, end: &Finish) -> Result<Run, Error> {
    client.post(&format!("/v1/runs/{id}/attempts/{attempt}/finish"), end).await
}
