//! One unit: its files written, the unit started, stopped and taken away.
//!
//! What is about to be done is noted down first, so that a life of the agent that ends on the way leaves nothing that the next
//! one does not know of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sealift_model::{
    ActiveState, CutOff, DesiredState, Gate, UnitAssignment, UnitKind, UnitName, Withdrawal,
};

use super::files::{self, Files};
use super::gate;
use super::record::{Phase, Record};
use super::{Error, GroupKey, Inner};
use crate::systemd::{Manager, Systemd, bus};

/// A unit whose files are written and that is still to be started.
pub(super) struct Prepared<'a> {
    pub(super) assignment: &'a UnitAssignment,
    record: Record,
    pub(super) in_systemd: UnitName,
    /// systemd knew of no file for it before, and reads nothing else for its sake.
    pub(super) is_new: bool,
    restart: bool,
    /// It was started as it is now, and is not started again unless it failed.
    same: bool,
    was_launched: bool,
    /// What was found of it when it was started last.
    gate: Option<Gate>,
}

impl Inner {
    /// Fetches and writes what the unit needs; none when it already is as assigned.
    pub(super) async fn prepare<'a>(
        self: &Arc<Self>,
        assignment: &'a UnitAssignment,
    ) -> Result<Option<Prepared<'a>>, Error> {
        let unit = &assignment.unit;
        let mut folder = None;
        if let Some((app, _)) = &unit.app {
            let package = assignment
                .package
                .as_ref()
                .ok_or_else(|| Error::NoPackage { unit: unit.name.clone(), app: app.clone() })?;
            folder = Some(self.releases.ensure(package).await.map_err(Error::Release)?);
            // The store could have been altered; the archive is signed.
            let signed = self.releases.unit_text(package, unit.name.as_str()).map_err(Error::Release)?;
            if signed.as_deref() != Some(&unit.text) {
                return Err(Error::Altered(unit.name.clone()));
            }
            for (name, text) in &unit.drop_ins {
                let path = format!("{}.d/{name}", unit.name);
                let plain = sealift_unitfile::verify_drop_in_name(name).is_none();
                let signed = self.releases.unit_text(package, &path).map_err(Error::Release)?;
                if !plain || signed.as_ref() != Some(text) {
                    return Err(Error::Altered(unit.name.clone()));
                }
            }
        }
        if unit.name.is_template() {
            return Err(Error::Template(unit.name.clone()));
        }
        let files = Files::of(&self.manager, unit, assignment.package.as_ref(), folder.as_deref())?;
        let old = self.records.get(&unit.name)?;
        // The machine's own unit of that name is neither taken over nor, later, removed.
        let listed = self.systemd.listed(&files.in_systemd).await?;
        let origin = match listed.is_unknown() {
            true => None,
            false => self.systemd.origin(&files.in_systemd).await?,
        };
        if let Some(file) = origin.filter(|file| file != files.unit()) {
            return Err(Error::NotOurs { unit: files.in_systemd, file });
        }
        let written = files.are_there(old.as_ref())?;
        // The links of [Install] belong to other units, which systemd has read, and Quadlet runs when it reads all.
        let has_links = files.installs || old.as_ref().is_some_and(|old| old.enabled);
        let is_unknown = listed.is_unknown() && listed.active == ActiveState::Inactive;
        let is_new = is_unknown && !written && !has_links && !unit.name.kind().is_quadlet();
        // The same unit by another placement is left as it is.
        let old = match old {
            Some(old) if old.placement != assignment.placement => {
                let record = Record { placement: assignment.placement, ..old };
                self.records.put(&unit.name, &record)?;
                Some(record)
            }
            old => old,
        };
        if let Some(old) = &old
            && old.generation == unit.generation
            && old.hash == files.hash
            && written
            && self.is_of_this_life(old)
        {
            match old.phase {
                Phase::Done if old.restarts == unit.restarts => {
                    // An earlier life of the agent may have been watching.
                    if let Some(policy) =
                        unit.policy().filter(|_| matches!(old.gate, Some(Gate::Waiting { .. })))
                    {
                        self.watch_gate(&unit.name, old, policy, gate::deadline(policy));
                    }
                    self.report(&unit.name, old, None).await?;
                    return Ok(None);
                }
                Phase::Starting { at } => {
                    // We were killed around the start: it is done if the unit was started after we noted it down.
                    if self.systemd.started_at(&unit.name).await?.is_some_and(|started| started >= at) {
                        let gate = unit.policy().map(|_| Gate::Waiting { why: None });
                        let record = Record { phase: Phase::Done, gate, ..old.clone() };
                        self.records.put(&unit.name, &record)?;
                        if let Some(policy) = unit.policy() {
                            self.watch_gate(&unit.name, &record, policy, gate::deadline(policy));
                        }
                        self.report(&unit.name, &record, None).await?;
                        return Ok(None);
                    }
                }
                // It came back before its stop was through, or was not begun.
                Phase::Stopping | Phase::Writing | Phase::CutOff | Phase::Done => {}
            }
        }
        if unit.name.kind().is_quadlet() {
            self.manager.quadlet.check().await?;
        }
        if !written {
            self.write(assignment, &files, old.as_ref()).await?;
        }
        // The record names what was last started, so a unit whose text is the same is not restarted for a new number.
        let restart = old.as_ref().is_some_and(|old| {
            old.hash != files.hash
                || old.restarts != unit.restarts
                || matches!(old.phase, Phase::Starting { .. })
        });
        let same = old.as_ref().is_some_and(|old| {
            old.launched
                && old.hash == files.hash
                && old.restarts == unit.restarts
                && matches!(old.phase, Phase::Done)
                && self.is_of_this_life(old)
        });
        let record = self.record(assignment, &files, Phase::Starting { at: (self.clock)() });
        let was_launched = old.as_ref().is_some_and(|old| old.launched);
        let gate = old.and_then(|old| old.gate);
        let in_systemd = files.in_systemd;
        Ok(Some(Prepared { assignment, record, in_systemd, is_new, restart, same, was_launched, gate }))
    }

    fn record(&self, assignment: &UnitAssignment, files: &Files, phase: Phase) -> Record {
        let unit = &assignment.unit;
        Record {
            placement: assignment.placement,
            generation: unit.generation,
            release: unit.app.as_ref().map(|(_, number)| *number),
            app: unit.app.as_ref().map(|(project, _)| project.clone()),
            launched: unit.desired == DesiredState::Launched,
            hash: files.hash.clone(),
            in_systemd: Some(files.in_systemd.clone()).filter(|name| *name != unit.name),
            drop_ins: files.drop_ins().cloned().collect(),
            enabled: files.installs,
            life: self.life,
            restarts: unit.restarts,
            cut_off: unit.requirements.cut_off,
            gate: None,
            phase,
        }
    }

    /// Puts a unit's files where systemd reads them, and makes the links that `[Install]` asks for.
    async fn write(
        &self,
        assignment: &UnitAssignment,
        files: &Files,
        old: Option<&Record>,
    ) -> Result<(), Error> {
        let unit = &assignment.unit.name;
        // Noted down first: if we are killed on the way, nothing of it is forgotten.
        let fresh = self.record(assignment, files, Phase::Writing);
        let noted = match old {
            Some(old) => Record {
                drop_ins: old.drop_ins.union(&fresh.drop_ins).cloned().collect(),
                enabled: old.enabled || fresh.enabled,
                ..old.clone()
            },
            None => Record { launched: false, ..fresh },
        };
        if Some(&noted) != old {
            self.records.put(unit, &noted)?;
        }
        if let Some(old) = old {
            if old.enabled {
                self.systemd.disable(unit).await?;
            }
            // Under another name it is another unit to systemd.
            let before = files::in_systemd(unit, Some(old));
            if before != files.in_systemd {
                stop(&self.systemd, &before).await?;
                files::remove_ours(&self.manager, &before)?;
            }
        }
        files.write(old)?;
        if files.installs {
            self.systemd.enable(unit).await?;
        }
        if unit.kind().is_quadlet() {
            self.quadlet_files.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    pub(super) async fn start(self: &Arc<Self>, prepared: &Prepared<'_>) -> Result<(), Error> {
        let Prepared { assignment, in_systemd, .. } = prepared;
        let unit = &assignment.unit;
        self.gates.forget(&unit.name);
        if unit.name.kind().is_quadlet() && self.systemd.state(in_systemd).await?.load == "not-found" {
            let said = self.manager.quadlet.complaint(&unit.name).await?;
            return Err(Error::NoService { service: in_systemd.clone(), said });
        }
        let mut record = Record { phase: Phase::Starting { at: (self.clock)() }, ..prepared.record.clone() };
        let launched = unit.desired == DesiredState::Launched;
        let policy = unit.policy().filter(|_| launched);
        let deadline = policy.map(gate::deadline);
        let mut gate = policy.map(|_| Gate::Waiting { why: None });
        let result = if launched && self.runs_as_wished(prepared).await? {
            gate = gate.map(|gate| prepared.gate.clone().unwrap_or(gate));
            bus::JobResult("done".into())
        } else {
            self.records.put(&unit.name, &record)?;
            // systemd counts starts against StartLimitBurst=; a start that was asked for is not one of a crash loop.
            // What is new to systemd has none, and was reset when it was taken away.
            if !prepared.is_new {
                self.systemd.reset_failed(in_systemd).await?;
            }
            let job = async {
                Ok::<_, bus::Error>(match unit.desired {
                    // A device comes by itself, and cannot be stopped either.
                    _ if unit.name.kind() == UnitKind::Device => bus::JobResult("done".into()),
                    DesiredState::Launched if prepared.restart => self.systemd.restart(in_systemd).await?,
                    DesiredState::Launched => self.systemd.start(in_systemd).await?,
                    // Loaded: systemd knows it, and whoever wants it starts it. What we started before is ours to stop.
                    DesiredState::Loaded | DesiredState::Inactive if prepared.was_launched => {
                        self.systemd.stop(in_systemd).await?
                    }
                    DesiredState::Loaded | DesiredState::Inactive => bus::JobResult("done".into()),
                })
            };
            // It goes on starting; nobody waits for it any more.
            match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, job)
                    .await
                    .unwrap_or_else(|_| Ok(bus::JobResult("too slow for UpdateTimeout=".into())))?,
                None => job.await?,
            }
        };
        // What was cut off meanwhile was stopped as well.
        let stays = record.cut_off == CutOff::Keep || !self.is_cut_off.load(Ordering::SeqCst);
        record.phase = if stays { Phase::Done } else { Phase::CutOff };
        let error = (!result.is_done()).then(|| Error::Job { result: result.0 });
        record.gate = match (&error, gate) {
            (Some(error), Some(Gate::Waiting { .. })) => {
                let state = self.systemd.state(in_systemd).await?;
                let result = state.result.filter(|_| state.active == ActiveState::Failed);
                Some(Gate::Failed { why: result.unwrap_or_else(|| error.to_string()) })
            }
            (_, gate) => gate,
        };
        let waited = policy.zip(deadline).filter(|_| matches!(record.gate, Some(Gate::Waiting { .. })));
        let at_once = waited.is_some_and(|(policy, _)| Self::passes_at_once(policy));
        if at_once && self.systemd.state(in_systemd).await?.active.is_up() {
            record.gate = Some(Gate::Passed);
        }
        self.records.put(&unit.name, &record)?;
        // What is found counts only beside the record.
        if let Some((policy, deadline)) = waited.filter(|_| record.gate != Some(Gate::Passed)) {
            self.watch_gate(&unit.name, &record, policy, deadline);
        }
        self.report(&unit.name, &record, error.as_ref()).await?;
        Ok(())
    }

    /// Whether what was started before is what is wished now. It may have done its work meanwhile; what failed is started
    /// again.
    async fn runs_as_wished(&self, prepared: &Prepared<'_>) -> Result<bool, bus::Error> {
        Ok(prepared.same && self.systemd.state(&prepared.in_systemd).await?.active != ActiveState::Failed)
    }

    pub(super) async fn remove(&self, key: &GroupKey, unit: &UnitName, placement: u64) -> Result<(), Error> {
        self.gates.forget(unit);
        // Gone already, or meanwhile another group's.
        if self.held().get(unit).map(|held| &held.group) != Some(key) {
            return Ok(());
        }
        // Noted down first: if we are killed on the way, the unit is not taken for running.
        let record = self.records.get(unit)?;
        if let Some(record) = &record {
            self.records.put(unit, &Record { phase: Phase::Stopping, ..record.clone() })?;
        }
        if files::any_in(&self.manager, unit, record.as_ref())? {
            let in_systemd = files::in_systemd(unit, record.as_ref());
            take_away(&self.manager, &self.systemd, unit, record.as_ref()).await?;
            self.systemd.reset_failed(&in_systemd).await?;
            // systemd forgets what it has no use for. What others still name, or what others have read of it, it forgets
            // when it reads all files again.
            let has_links = record.as_ref().is_none_or(|record| record.enabled);
            if has_links || unit.kind().is_quadlet() || !self.systemd.listed(&in_systemd).await?.is_unknown()
            {
                self.reload().await?;
                self.systemd.reset_failed(&in_systemd).await?;
            }
            if unit.kind().is_quadlet() {
                self.quadlet_files.send_modify(|count| *count += 1);
            }
        }
        self.records.remove(unit)?;
        self.held().remove(unit);
        self.reports.remove(Withdrawal { unit: unit.clone(), placement });
        Ok(())
    }
}

/// Stops a unit and removes its files and links; systemd has to read its files again after it.
pub(super) async fn take_away(
    manager: &Manager,
    systemd: &Systemd,
    unit: &UnitName,
    record: Option<&Record>,
) -> Result<(), Error> {
    if unit.kind() != UnitKind::Device {
        stop(systemd, &files::in_systemd(unit, record)).await?;
    }
    if record.is_some_and(|record| record.enabled) {
        systemd.disable(unit).await?;
    }
    files::remove(manager, unit, record)
}

/// What systemd does not know is stopped.
async fn stop(systemd: &Systemd, unit: &UnitName) -> Result<(), bus::Error> {
    match systemd.stop(unit).await {
        Err(error) if !error.is_unknown_unit() => Err(error),
        _ => Ok(()),
    }
}
