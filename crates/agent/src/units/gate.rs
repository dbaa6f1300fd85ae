//! Whether a unit that was started is as its update policy wants it: active for `UpdateHold=`, and healthy by
//! `UpdateHealth=`, within `UpdateTimeout=`. A rollout goes on, or back, by what is found here.
//!
//! Times are of the machine's own steady clock. A verdict is final until the unit is started anew, and is kept in its
//! record, so that a restart of the agent asks nothing again that was answered.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealift_model::diagnostic::chain;
use sealift_model::{ActiveState, Gate, Timestamp, UnitName, UpdatePolicy};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Inner;
use super::record::{Phase, Record};
use crate::systemd::bus::unit_path;

/// Between two tries of a health command.
const AGAIN: Duration = Duration::from_secs(1);
/// For one try.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// So much of what a health command complains of is told.
const MOST_SAID: u64 = 1024;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The gates that are watched now.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<BTreeMap<UnitName, DropGuard>>);

impl Gates {
    /// What is watched of the unit counts no more.
    pub(super) fn forget(&self, unit: &UnitName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(unit);
    }

    fn watch(&self, unit: &UnitName) -> CancellationToken {
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.clone(), guard);
        token
    }
}

/// When a unit that is started now has to have passed.
pub(super) fn deadline(policy: &UpdatePolicy) -> Instant {
    Instant::now() + Duration::from_secs(policy.timeout_seconds.into())
}

/// What is watched.
struct Watched<'a> {
    unit: &'a UnitName,
    generation: u64,
    in_systemd: &'a UnitName,
}

impl Inner {
    /// Watches what the record waits for, and reports how it ends.
    pub(super) fn watch_gate(
        self: &Arc<Self>,
        unit: &UnitName,
        record: &Record,
        policy: &UpdatePolicy,
        deadline: Instant,
    ) {
        let token = self.gates.watch(unit);
        let (inner, unit, policy) = (self.clone(), unit.clone(), policy.clone());
        let in_systemd = super::files::in_systemd(&unit, Some(record));
        let generation = record.generation;
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let judged = async {
                let watched = Watched { unit: &unit, generation, in_systemd: &in_systemd };
                let gate = inner.judge(&watched, &policy, deadline).await;
                inner.note_gate(&watched, gate).await;
            };
            stop.run_until_cancelled(Box::pin(token.run_until_cancelled(judged))).await;
        });
    }

    /// Whether nothing of it has to be waited for: what was started is up.
    pub(super) fn passes_at_once(policy: &UpdatePolicy) -> bool {
        policy.hold_seconds == 0 && policy.health.is_none()
    }

    async fn note_gate(&self, watched: &Watched<'_>, gate: Gate) {
        if let Err(error) = self.write_gate(watched, gate).await {
            tracing::warn!(unit = %watched.unit, error = chain(&error), "cannot tell whether a unit is well");
        }
    }

    async fn write_gate(&self, watched: &Watched<'_>, gate: Gate) -> Result<(), super::Error> {
        let unit = watched.unit;
        let Some(record) = self.records.get(unit)? else { return Ok(()) };
        if record.generation != watched.generation || !matches!(record.phase, Phase::Done) {
            return Ok(());
        }
        let record = Record { gate: Some(gate), ..record };
        self.records.put(unit, &record)?;
        self.report(unit, &record, None).await
    }

    async fn judge(&self, watched: &Watched<'_>, policy: &UpdatePolicy, deadline: Instant) -> Gate {
        let mut complaint = None;
        let late = tokio::time::sleep_until(deadline);
        tokio::select! {
            gate = self.pass(watched, policy, &mut complaint) => return gate,
            () = late => {}
        }
        let seconds = policy.timeout_seconds;
        let why = match complaint {
            Some(complaint) => format!("it was not healthy within {seconds} s: {complaint}"),
            None if policy.hold_seconds > 0 => {
                format!("it was not active for {} s on end within {seconds} s", policy.hold_seconds)
            }
            None => format!("it was not active within {seconds} s"),
        };
        Gate::Failed { why }
    }

    /// Ends when the unit has passed, or cannot pass any more.
    async fn pass(
        &self,
        watched: &Watched<'_>,
        policy: &UpdatePolicy,
        complaint: &mut Option<String>,
    ) -> Gate {
        let in_systemd = watched.in_systemd;
        let path = unit_path(in_systemd);
        let mut changes = self.systemd.changes();
        let hold = Duration::from_secs(policy.hold_seconds.into());
        // Since when it is up, by systemd's clock to tell one time from another, and by ours to measure.
        let mut up: Option<(Timestamp, Instant)> = None;
        loop {
            let state = self.systemd.state(in_systemd).await.ok();
            let is_through =
                |result: Option<&str>| in_systemd.kind().is_service() && result == Some("success");
            match state.as_ref().map(|state| (state.active, state.result.as_deref(), state.since)) {
                Some((ActiveState::Failed, result, _)) => {
                    let why = result.filter(|result| *result != "success").unwrap_or("it failed");
                    return Gate::Failed { why: why.to_owned() };
                }
                Some((ActiveState::Active | ActiveState::Reloading, _, since)) => {
                    if up.is_none_or(|(known, _)| known != since) {
                        up = Some((since, Instant::now()));
                    }
                }
                // One that has done its work.
                Some((ActiveState::Inactive, result, since)) if is_through(result) => {
                    up = up.or(Some((since, Instant::now())));
                }
                _ => up = None,
            }
            let held = up.map(|(_, at)| at + hold);
            if held.is_some_and(|held| held <= Instant::now()) {
                let Some(command) = &policy.health else { return Gate::Passed };
                match try_health(command).await {
                    Ok(()) => return Gate::Passed,
                    // Told, so that whoever wants to change it need not wait for it to pass.
                    Err(said) if complaint.as_ref() != Some(&said) => {
                        self.note_gate(watched, Gate::Waiting { why: Some(said.clone()) }).await;
                        *complaint = Some(said);
                    }
                    Err(_) => {}
                }
            }
            let next = held.filter(|held| *held > Instant::now()).unwrap_or_else(|| Instant::now() + AGAIN);
            let changed = async {
                loop {
                    match changes.recv().await {
                        Ok(crate::systemd::bus::Change::Unit(of)) if of != path => {}
                        Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => return,
                        // systemd hangs up, and the agent with it.
                        Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            if up.is_some() {
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(next) => {}
                }
            } else {
                changed.await;
            }
        }
    }
}

/// Runs a health command once; gives what is wrong.
async fn try_health(command: &str) -> Result<(), String> {
    let child = tokio::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Its children end with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| format!("UpdateHealth= cannot be run: {error}"))?;
    let group = Group(child.id());
    let stderr = child.stderr.take();
    let ended = async {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            stderr.take(MOST_SAID).read_to_end(&mut said).await.ok();
        }
        (child.wait().await, said)
    };
    let outcome = timeout(COMMAND_TIMEOUT, ended).await;
    drop(group);
    let Ok((status, said)) = outcome else {
        return Err(format!("UpdateHealth= took more than {} s", COMMAND_TIMEOUT.as_secs()));
    };
    let status = status.map_err(|error| format!("UpdateHealth= cannot be waited for: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    // It is shown on terminals.
    let said = said.replace(|c: char| c.is_control() && c != '\n', " ");
    let line = said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("UpdateHealth= ended with {code}"),
        (None, signal) => format!("UpdateHealth= was ended by signal {}", signal.unwrap_or_default()),
    };
    Err(if line.is_empty() { how } else { format!("{how}: {line}") })
}

/// A group of processes that is killed with this.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            // It is mostly gone already.
            rustix::process::kill_process_group(id, rustix::process::Signal::KILL).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_health_command_tells_what_is_wrong() {
        assert_eq!(try_health("true").await, Ok(()));
        assert_eq!(try_health("exit 7").await, Err("UpdateHealth= ended with 7".into()));
        assert_eq!(
            try_health("echo first >&2; printf 'no\\033[31mroute\\n' >&2; exit 1").await,
            Err("UpdateHealth= ended with 1: no [31mroute".into())
        );
        assert_eq!(try_health("kill -9 $$").await, Err("UpdateHealth= was ended by signal 9".into()));
        assert_eq!(try_health("yes >&2 | head -c 1000000 >&2; test -z \"$HOME\"").await, Ok(()));
    }
}
