//! Commands with a limit of time, and what they said.
//!
//! It must not know what the commands are for.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::Error;
use crate::light_host::ends;

/// More of a command's output than this is not kept.
const KEPT: u64 = 16 << 20;
/// So many lines of what a command complained about are told.
const TOLD: usize = 12;

/// The output of a command that has to succeed within this time; else it is ended, with what it has started.
///
/// # Errors
/// When it cannot be started, fails or takes longer.
pub fn run(mut command: Command, limit: Duration) -> Result<String, Error> {
    let what = words(&command);
    let spawned =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
    let mut child = spawned.map_err(|source| Error::Spawn { what: what.clone(), source })?;
    let io = |source| Error::Spawn { what: what.clone(), source };
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let group = group.ok_or_else(|| io(std::io::Error::other("its number is out of range")))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let is_late = std::thread::scope(|scope| {
        let out = scope.spawn(move || text(out));
        let err = scope.spawn(move || text(err));
        let process = pidfd_open(group, PidfdFlags::empty()).map_err(|error| io(error.into()))?;
        let is_late = !ends(&process, limit);
        if is_late {
            kill_process_group(group, Signal::KILL).ok();
        }
        let status = child.wait().map_err(io)?;
        let texts = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        Ok((is_late, status, texts))
    });
    match is_late? {
        (true, ..) => Err(Error::Late { what, limit }),
        (false, status, (out, _)) if status.success() => Ok(out),
        (false, status, (out, err)) => {
            let said = if err.trim().is_empty() { out } else { err };
            let lines: Vec<_> = said.trim().lines().collect();
            let told = lines.get(lines.len().saturating_sub(TOLD)..).unwrap_or_default();
            Err(Error::Failed { what, said: format!("{status}: {}", told.join("\n")) })
        }
    }
}

fn text(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What could be read of a process that was killed is enough.
        from.take(KEPT).read_to_end(&mut bytes).ok();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The command as one would type it, without what it takes to get into a host.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let own = words.iter().position(|word| word == "--").map_or(0, |at| at + 1);
    words.get(own..).unwrap_or_default().join(" ")
}
