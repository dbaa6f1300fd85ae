//! The network between agents and the server: what is asked and answered, late, or not at all.

use sealift_model::{
    AttemptEnd, MachineId, PackageName, Presence, RunId, RunState, SessionId, UnitStatus, Withdrawal,
};
use sealift_planner::Change;

use super::server::Assigned;
use super::{Broken, Event, Life, Sim};

/// How long it takes to notice that nobody answers.
const SILENCE: u64 = 400;

/// What agents ask of the server.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Begin { session: SessionId },
    KeepAlive { session: SessionId },
    Stream { session: SessionId },
    Report { session: SessionId, statuses: Vec<UnitStatus>, gone: Vec<Withdrawal>, all: bool },
    Log { session: SessionId, run: RunId, attempt: u32 },
    Finish { session: SessionId, run: RunId, attempt: u32, passed: bool },
}

/// What the network makes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Once,
    /// The answer is lost.
    Unheard,
    /// It was sent before; whoever answers it speaks to nobody.
    Again,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    Connected(u64),
    /// The session is over, or the attempt no longer counts.
    Fenced,
    /// Nothing came back; the request may have arrived all the same.
    Lost,
}

impl Sim {
    pub(super) fn ask(&mut self, machine: &MachineId, life: Life, request: Request) {
        let delay = self.latency();
        if !self.calm && self.rng.chance(2) {
            match self.rng.below(3) {
                // It never arrives.
                0 => {
                    self.summary.lost_messages += 1;
                    let event = Event::Answer { machine: machine.clone(), life, request, reply: Reply::Lost };
                    self.clock.after(SILENCE, event);
                    return;
                }
                // It is answered, and nobody hears it.
                1 => {
                    self.summary.lost_messages += 1;
                    let sent = Sent::Unheard;
                    self.clock.after(delay, Event::Ask { machine: machine.clone(), life, request, sent });
                    return;
                }
                // It arrives a second time, before or after what is said next. Reports do so at once: one that comes after a
                // newer one puts older words over newer ones (ARCHITECTURE.md, known gaps).
                _ => {
                    self.summary.doubled_messages += 1;
                    let late = self.rng.between(1, 5_000);
                    let again = if matches!(request, Request::Report { .. }) { delay } else { late };
                    let (request, sent) = (request.clone(), Sent::Again);
                    self.clock.after(again, Event::Ask { machine: machine.clone(), life, request, sent });
                }
            }
        }
        self.clock.after(delay, Event::Ask { machine: machine.clone(), life, request, sent: Sent::Once });
    }

    fn is_cut(&self, machine: &MachineId) -> bool {
        self.agents.get(machine).is_none_or(|agent| agent.cut)
    }

    pub(super) fn asked(
        &mut self,
        machine: MachineId,
        life: Life,
        request: Request,
        sent: Sent,
    ) -> Result<(), Broken> {
        let arrives = !self.server.away && !self.is_cut(&machine);
        if sent == Sent::Again {
            if arrives {
                self.serve(&machine, life, &request)?;
            }
            return Ok(());
        }
        if !arrives {
            let event = Event::Answer { machine, life, request, reply: Reply::Lost };
            self.clock.after(SILENCE, event);
            return Ok(());
        }
        let reply = self.serve(&machine, life, &request)?;
        if sent == Sent::Unheard {
            let event = Event::Answer { machine, life, request, reply: Reply::Lost };
            self.clock.after(SILENCE, event);
            return Ok(());
        }
        let delay = self.latency();
        self.clock.after(delay, Event::Answer { machine, life, request, reply });
        Ok(())
    }

    fn serve(&mut self, machine: &MachineId, life: Life, request: &Request) -> Result<Reply, Broken> {
        let current = |session| self.server.is_current(machine, session);
        match request {
            Request::Begin { session } => {
                let presence = Presence { session: session.clone(), since: self.now(), leaving: false };
                if let Some(agent) = self.agents.get(machine) {
                    self.server.set(Change::Machine(machine.clone(), Some(agent.machine.clone())));
                    self.server.set(Change::Presence(machine.clone(), Some(presence)));
                }
                self.renew(machine);
                Ok(Reply::Done)
            }
            Request::KeepAlive { session } if current(session) => {
                if self.agents.get(machine).is_none_or(|agent| agent.quiet.is_none()) {
                    self.renew(machine);
                }
                Ok(Reply::Done)
            }
            Request::Stream { session } if current(session) => {
                let connection = self.open_stream(machine, session);
                // The answer is the stream's beginning: what follows on it cannot come before it.
                if let Some(agent) = self.agents.get_mut(machine).filter(|agent| agent.life() == life) {
                    agent.connection = Some(connection);
                }
                Ok(Reply::Connected(connection))
            }
            Request::Report { session, statuses, gone, all } if current(session) => {
                self.server.report(machine, statuses.clone(), gone, *all);
                Ok(Reply::Done)
            }
            Request::Log { session, run, attempt } if self.server.counts(run, *attempt, session) => {
                self.oracle.accepted(run, *attempt)?;
                Ok(Reply::Done)
            }
            Request::Finish { session, run, attempt, passed } => {
                self.finish(machine, session, run, *attempt, *passed)
            }
            _ => Ok(Reply::Fenced),
        }
    }

    /// The end of an attempt, said once or again.
    fn finish(
        &mut self,
        machine: &MachineId,
        session: &SessionId,
        run: &RunId,
        attempt: u32,
        passed: bool,
    ) -> Result<Reply, Broken> {
        let said = self.server.ended.get(run).is_some_and(|run| {
            matches!(run.state, RunState::Passed | RunState::Failed)
                && run.attempts.iter().any(|known| {
                    known.number == attempt
                        && known.session == *session
                        && matches!(known.end, Some(AttemptEnd::Passed | AttemptEnd::Failed))
                })
        });
        if said {
            return Ok(Reply::Done);
        }
        if !self.server.counts(run, attempt, session) {
            return Ok(Reply::Fenced);
        }
        self.oracle.accepted(run, attempt)?;
        let end = if passed { AttemptEnd::Passed } else { AttemptEnd::Failed };
        let now = self.now();
        let Some(ended) = self.server.end(run, end, now) else {
            return Err(Broken::NoRun { run: run.clone() });
        };
        self.oracle.ended(&ended, machine)?;
        self.summary.ended_runs += 1;
        if passed {
            let name = PackageName {
                project: run.project.clone(),
                branch: ended.branch.clone(),
                commit: ended.commit.clone(),
            };
            self.released(&ended, name);
        }
        Ok(Reply::Done)
    }

    pub(super) fn answered(&mut self, machine: &MachineId, life: Life, request: Request, reply: Reply) {
        let lost = self.server.away || self.is_cut(machine);
        let reply = if lost { Reply::Lost } else { reply };
        if self.agents.get(machine).is_some_and(|agent| agent.alive && agent.life() == life) {
            self.hear(machine, request, reply);
        }
    }

    /// The next message of a stream, if the connection still is.
    pub(super) fn deliver(&mut self, machine: &MachineId, connection: u64) {
        let cut = self.is_cut(machine);
        let Some(stream) = self.server.streams.get_mut(machine).filter(|one| one.connection == connection)
        else {
            return;
        };
        if cut {
            // The bytes wait in a socket; whether the connection lives to see the end of it is not known yet.
            self.clock.after(SILENCE, Event::Deliver { machine: machine.clone(), connection });
            return;
        }
        match stream.in_flight.pop_front() {
            Some(assigned) => self.assign(machine, connection, assigned),
            None if stream.closed => {
                self.server.streams.remove(machine);
                self.stream_lost(machine);
            }
            None => {}
        }
    }

    fn assign(&mut self, machine: &MachineId, connection: u64, assigned: Assigned) {
        let Some(agent) = self.agents.get_mut(machine) else { return };
        // A stream of another life, or one that the agent has not heard of yet: then nobody reads it.
        if !agent.alive || agent.connection != Some(connection) {
            return;
        }
        let current = agent.session.as_ref().is_some_and(|session| self.server.is_current(machine, session));
        if current {
            for (name, unit) in &assigned.units {
                if let Some(held) = agent.units.get_mut(name) {
                    held.stale = false;
                    held.global |= unit.0.requirements.global;
                }
            }
        }
        agent.assigned = Some(assigned);
        self.carry_out(machine);
    }
}
