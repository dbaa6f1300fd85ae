//! fleetctl's commands that change units, and its waiting.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealift_model::UnitName;
use sealift_model::diagnostic::{Severity, chain};
use sealift_unitfile::{UnitFile, UnitOption, options_of};

use super::Voice;
use super::api::{Fleet, Unit};
use super::flags::Asked;
use crate::error::Error;

/// Between two looks; an attempt of `--block-attempts` has eight.
const LOOK: Duration = Duration::from_millis(250);
const LOOKS: u32 = 8;
/// More units than this are looked at in one list.
const FEW: usize = 4;
/// The kinds that fleet knew a name's end by.
const SUFFIXES: [&str; 13] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "snapshot",
    "slice",
    "scope",
    "container",
];

/// The unit that a word means: the last part of a path, and a service unless it says otherwise.
pub(super) fn name_of(word: &str) -> String {
    let base = Path::new(word).file_name().map_or_else(|| word.into(), |name| name.to_string_lossy());
    let known = base.rsplit_once('.').is_some_and(|(_, suffix)| SUFFIXES.contains(&suffix));
    if known { base.into_owned() } else { format!("{base}.service") }
}

fn template_of(name: &str) -> Option<String> {
    let name: UnitName = name.parse().ok()?;
    name.template().map(|template| template.to_string())
}

/// How far a command brings a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Inactive,
    Loaded,
    Launched,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Inactive => "inactive",
            State::Loaded => "loaded",
            State::Launched => "launched",
        }
    }

    fn of(text: &str) -> State {
        match text {
            "launched" => State::Launched,
            "loaded" => State::Loaded,
            _ => State::Inactive,
        }
    }
}

fn some(asked: &Asked) -> Result<(), Error> {
    if asked.words.is_empty() { Err(Error::plain("no units were given")) } else { Ok(()) }
}

/// How long to wait: so many looks, or without a limit; none: not at all.
fn looks(asked: &Asked) -> Result<Option<u32>, Error> {
    // Anything below 0 was fleetctl's own way to say --no-block.
    let attempts: i64 = asked.number("block-attempts")?;
    if asked.is("no-block") || attempts < 0 {
        return Ok(None);
    }
    Ok(Some(u32::try_from(attempts).unwrap_or(u32::MAX).saturating_mul(LOOKS)))
}

/// `submit`, `load` and `start`.
pub(super) async fn bring(fleet: &Fleet, asked: &Asked, to: State, voice: &Voice) -> Result<u8, Error> {
    some(asked)?;
    let looks = if to == State::Inactive { Some(0) } else { looks(asked)? };
    let action = match to {
        State::Inactive => "submit",
        State::Loaded => "load",
        State::Launched => "start",
    };
    let mut told: Vec<String> = Vec::new();
    let mut code = 0;
    for word in &asked.words {
        // One that cannot be made holds up no other.
        match one(fleet, asked, word, to, voice).await {
            Ok((name, true)) => voice.out(&format!("Triggered global unit {name} {action}")),
            Ok((name, false)) if !told.contains(&name) => told.push(name),
            Ok(_) => {}
            Err(error) => {
                voice.err(&format!("Error creating units: {}", chain(&error)));
                code = 1;
            }
        }
    }
    Ok(code.max(wait(fleet, &told, to, looks, action, voice).await?))
}

/// Makes one unit if need be, and says what is wanted of it; its name, and whether it is global.
async fn one(
    fleet: &Fleet,
    asked: &Asked,
    word: &str,
    to: State,
    voice: &Voice,
) -> Result<(String, bool), Error> {
    let name = name_of(word);
    let path = PathBuf::from(word).with_file_name(&name);
    let local = read(&path, &name, voice)?;
    let held = fleet.unit(&name).await?;
    let Some(held) = held else {
        let (options, from) = match local {
            Some(options) => (options, None),
            None => from_template(fleet, &path, &name, voice).await?,
        };
        if let Some(template) = from {
            tracing::debug!(unit = name, template, "is an instance");
        }
        let is_global = is_global(&options);
        fleet.put(&name, to.as_str(), Some(&options)).await?;
        return Ok((name, is_global));
    };
    let differs = local.filter(|local| *local != held.options());
    let is_global = held.is_global();
    let replace = match &differs {
        Some(_) if asked.is("replace") => {
            if State::of(&held.desired_state) > to {
                return Err(Error::plain(format!(
                    "cannot replace unit {name} in state {}, which is further than {}",
                    held.desired_state,
                    to.as_str()
                )));
            }
            true
        }
        Some(_) => {
            voice.err(&format!(
                "WARNING: Unit {name} in registry differs from local unit file {}",
                path.display()
            ));
            false
        }
        None => false,
    };
    let options = differs.filter(|_| replace);
    // What is there already is not taken back by submit, nor by load.
    if options.is_some() || (to != State::Inactive && State::of(&held.desired_state) != to) {
        fleet.put(&name, to.as_str(), options.as_deref()).await?;
    }
    Ok((name, options.as_deref().map_or(is_global, self::is_global)))
}

fn is_global(options: &[UnitOption]) -> bool {
    let unit = serde_json::json!({ "options": options.iter().map(|option| serde_json::json!({
        "section": option.section, "name": option.name, "value": option.value })).collect::<Vec<_>>() });
    serde_json::from_value::<Unit>(unit).is_ok_and(|unit| unit.is_global())
}

async fn from_template(
    fleet: &Fleet,
    path: &Path,
    name: &str,
    voice: &Voice,
) -> Result<(Vec<UnitOption>, Option<String>), Error> {
    if let Some(template) = template_of(name) {
        if let Some(held) = fleet.unit(&template).await? {
            return Ok((held.options(), Some(template)));
        }
        if let Some(options) = read(&path.with_file_name(&template), &template, voice)? {
            return Ok((options, Some(template)));
        }
    }
    Err(Error::plain(format!("unable to find Unit({name}) in Registry or on filesystem")))
}

/// A unit file as options; none if there is no such file.
fn read(path: &Path, name: &str, voice: &Voice) -> Result<Option<Vec<UnitOption>>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { action: "read", path: path.to_owned(), source }),
    };
    let file = UnitFile::parse(&text);
    if let Some(problem) = file.problems().iter().find(|problem| problem.severity == Severity::Error) {
        let place = format!("{}:{}:{}", path.display(), problem.line, problem.column);
        return Err(Error::plain(format!("{place}: {}", problem.message)));
    }
    if let Ok(name) = name.parse() {
        let (_, findings) = file.requirements(&name);
        for finding in findings.iter().filter(|finding| finding.severity != Severity::Error) {
            let place = format!("{}:{}:{}", path.display(), finding.line, finding.column);
            voice.err(&format!("WARNING: {place}: {}", finding.message));
        }
    }
    Ok(Some(options_of(&text)))
}

/// The units that words name; one that is not there is an error before anything is done.
async fn find(fleet: &Fleet, asked: &Asked) -> Result<Vec<Unit>, Error> {
    some(asked)?;
    let mut found: Vec<Unit> = Vec::new();
    for name in asked.words.iter().map(|word| name_of(word)) {
        if found.iter().any(|unit| unit.name == name) {
            continue;
        }
        let unit = fleet.unit(&name).await?;
        found.push(unit.ok_or_else(|| Error::plain(format!("could not find Unit({name})")))?);
    }
    Ok(found)
}

/// `stop` and `unload`.
pub(super) async fn take_back(fleet: &Fleet, asked: &Asked, to: State, voice: &Voice) -> Result<u8, Error> {
    let (action, did) = if to == State::Loaded { ("stop", "stopped") } else { ("unload", "unloaded") };
    let looks = looks(asked)?;
    let mut told = Vec::new();
    let mut code = 0;
    for unit in find(fleet, asked).await? {
        if unit.is_global() {
            fleet.put(&unit.name, to.as_str(), None).await?;
            voice.out(&format!("Triggered global unit {} {action}", unit.name));
            continue;
        }
        if to == State::Loaded && State::of(&unit.desired_state) == State::Inactive {
            voice.err(&format!("Unable to stop unit {} in state inactive", unit.name));
            code = 1;
            continue;
        }
        if unit.desired_state != to.as_str() {
            fleet.put(&unit.name, to.as_str(), None).await?;
        }
        told.push(unit.name);
    }
    code = code.max(wait(fleet, &told, to, looks, action, voice).await?);
    let names = told.join(" ");
    match code {
        0 => voice.err(&format!("Successfully {did} units [{names}].")),
        code => voice.err(&format!("Failed to {action} units [{names}]. exit == {code}.")),
    }
    Ok(code)
}

/// fleet's own restart could be over before it began: it waited for a state that the unit still had.
pub(super) async fn restart(fleet: &Fleet, asked: &Asked, voice: &Voice) -> Result<u8, Error> {
    let looks = looks(asked)?.unwrap_or(0);
    let (globals, units): (Vec<_>, Vec<_>) = find(fleet, asked).await?.into_iter().partition(Unit::is_global);
    let mut code = 0;
    for unit in &globals {
        let body = serde_json::json!({ "units": [{ "name": unit.name, "restart": true }] });
        match fleet.client.post::<_, serde_json::Value>("/v1/units", &body).await {
            Ok(_) => voice.out(&format!("Triggered global unit {} restart", unit.name)),
            Err(error) => {
                voice.err(&format!("Unable to restart global unit {}: {}", unit.name, chain(&error)));
                code = 1;
            }
        }
    }
    let mut names = Vec::new();
    for unit in units {
        if State::of(&unit.desired_state) == State::Inactive {
            voice.err(&format!("Unable to restart unit {} in state inactive", unit.name));
            code = 1;
            continue;
        }
        fleet.put(&unit.name, State::Loaded.as_str(), None).await?;
        names.push(unit.name);
    }
    code = code.max(wait(fleet, &names, State::Loaded, Some(looks), "restart", &Voice::QUIET).await?);
    for name in &names {
        fleet.put(name, State::Launched.as_str(), None).await?;
    }
    Ok(code.max(wait(fleet, &names, State::Launched, Some(looks), "restart", voice).await?))
}

/// Waits until machines have let go of what is destroyed, unless it is told not to; fleet had that the wrong way round.
pub(super) async fn destroy(fleet: &Fleet, asked: &Asked, voice: &Voice) -> Result<u8, Error> {
    some(asked)?;
    let limit = looks(asked)?;
    let mut destroyed = Vec::new();
    let mut code = 0;
    for name in asked.words.iter().map(|word| name_of(word)) {
        match fleet.destroy(&name).await {
            Ok(true) => destroyed.push(name),
            Ok(false) => {}
            Err(error) => {
                voice.err(&format!("Error destroying units: {}", chain(&error)));
                code = 1;
            }
        }
    }
    for name in destroyed {
        let mut count = 0;
        while let Some(limit) = limit
            && !fleet.states_of(&name).await?.is_empty()
        {
            count += 1;
            if limit != 0 && count >= limit {
                voice.err(&format!("timed out waiting for unit {name} to be gone from its machine"));
                code = 1;
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        voice.out(&format!("Destroyed {name}"));
    }
    Ok(code)
}

/// Waits until units are as wanted, and says of each when it is.
async fn wait(
    fleet: &Fleet,
    names: &[String],
    to: State,
    looks: Option<u32>,
    action: &str,
    voice: &Voice,
) -> Result<u8, Error> {
    let Some(looks) = looks else {
        names.iter().for_each(|name| voice.out(&format!("Triggered unit {name} {action}")));
        return Ok(0);
    };
    let machines = fleet.machines().await?;
    let mut waiting: Vec<&String> = names.iter().collect();
    let mut code = 0;
    let mut count = 0;
    loop {
        let found = look(fleet, &waiting, to, action != "load").await?;
        let mut still = Vec::new();
        for name in waiting {
            match found.get(name) {
                Some(Found::There { state, machine }) => {
                    let machine = machines.iter().find(|known| known.id == *machine);
                    let on =
                        machine.map_or_else(String::new, |machine| format!(" on {}", machine.legend(false)));
                    voice.out(&format!("Unit {name} {state}{on}"));
                }
                Some(Found::Failed(state)) => {
                    voice.err(&format!("Error waiting for units: unit {name} is {state}"));
                    code = 1;
                }
                None => still.push(name),
            }
        }
        waiting = still;
        if waiting.is_empty() {
            return Ok(code);
        }
        count += 1;
        if count == LOOKS || looks != 0 && count == looks {
            for name in &waiting {
                if let Some(problem) = fleet.problem(name).await {
                    voice.err(&format!("Unit {name} waits: {problem}"));
                }
            }
        }
        if looks != 0 && count >= looks {
            for name in waiting {
                voice.err(&format!(
                    "Error waiting for units: timed out waiting for unit {name} to report state {}",
                    to.as_str()
                ));
            }
            return Ok(1);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What has become of a unit that is waited for.
enum Found {
    /// As wanted, on this machine or on none.
    There {
        state: String,
        machine: String,
    },
    Failed(String),
}

/// Those that are as wanted, or never will be by themselves. `ended`: what is loaded is not to run any more.
async fn look(
    fleet: &Fleet,
    names: &[&String],
    to: State,
    ended: bool,
) -> Result<BTreeMap<String, Found>, Error> {
    let many = names.len() > FEW;
    let mut units = Vec::new();
    let mut states = Vec::new();
    if many {
        units = fleet.units().await?;
    } else {
        for name in names {
            units.extend(fleet.unit(name).await?);
        }
    }
    units.retain(|unit| {
        names.contains(&&unit.name) && (to == State::Inactive || unit.current_state == to.as_str())
    });
    if to != State::Inactive && many && !units.is_empty() {
        states = fleet.states().await?;
    } else if to != State::Inactive {
        for unit in &units {
            states.extend(fleet.states_of(&unit.name).await?);
        }
    }
    let mut found = BTreeMap::new();
    for unit in units {
        let state = states.iter().find(|state| state.name == unit.name && state.machine == unit.machine);
        let active = state.map_or("", |state| state.active.as_str());
        let runs = matches!(active, "active" | "deactivating" | "activating" | "reloading");
        let there = match to {
            // What was further before stays so: submit takes nothing back.
            State::Inactive => unit.current_state == "inactive" || unit.desired_state != "inactive",
            // systemd may start a unit that is loaded for another one's sake.
            State::Loaded => !(ended && runs),
            // One that has come to its end has been started.
            State::Launched => matches!(active, "active" | "reloading" | "inactive"),
        };
        let become_of = if there {
            Found::There { state: unit.current_state, machine: unit.machine }
        } else if to == State::Launched && active == "failed" {
            Found::Failed(active.to_owned())
        } else {
            continue;
        };
        found.insert(unit.name, become_of);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_units() {
        for (word, name) in [
            ("hello", "hello.service"),
            ("units/hello.service", "hello.service"),
            ("a.b", "a.b.service"),
            ("x@1", "x@1.service"),
            ("/etc/x.timer", "x.timer"),
        ] {
            assert_eq!(name_of(word), name);
        }
        assert_eq!(template_of("x@1.service").as_deref(), Some("x@.service"));
        assert_eq!(template_of("x.service"), None);
    }
}
