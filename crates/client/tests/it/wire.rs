//! What an older version says is understood, and what a newer one says more is no harm: an old agent works with a new server,
//! a new agent with an old server, and both with records that the other wrote.
//!
//! `tests/wire/VERSION/messages.json` has every message and record as that version wrote it, with every field;
//! `required.txt` the fields without which it was refused. Both stay as they are: a later version gets a folder of its own.
//! `UPDATE_GOLDEN=1` writes `required.txt` anew, for a folder that is being made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;

use sealift_client::api::{
    AppStatus, AskApproval, AskSecrets, AssignmentEvent, AuditEntry, AuthorityInfo, AuthorityStep,
    ChangeSettings, DestroyUnits, Events, Failure, Finish, GiveAnswer, Join, JoinTokenInfo, KeepAlive,
    LogEntry, MachineCertificate, MachineStatus, MachineVerdict, Made, NewJoinToken, NewRun, NewSecret,
    NewSession, NewToken, PutUnits, Renew, Rollback, RunSecrets, SecretInfo, SessionBegun, Status, Statuses,
    Stored, TokenInfo, UnitChange, UnitEvent, UnitView, WaitingApproval, WatchUnits,
};
use sealift_model::{
    App, Approval, Machine, MachineSettings, Package, Placement, Presence, Release, Run, Unit, UnitStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Reads a message and writes it again, as this version does.
type Reader = fn(&Value) -> Result<(Value, String), serde_json::Error>;

fn read<T: DeserializeOwned + Serialize + Debug>(
    message: &Value,
) -> Result<(Value, String), serde_json::Error> {
    let parsed: T = serde_json::from_value(message.clone())?;
    Ok((serde_json::to_value(&parsed)?, format!("{parsed:?}")))
}

macro_rules! readers {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), read::<$name> as Reader)),*] };
}

type MadeToken = Made<TokenInfo>;

fn readers() -> BTreeMap<&'static str, Reader> {
    readers![
        App,
        AppStatus,
        Approval,
        AskApproval,
        AskSecrets,
        AssignmentEvent,
        AuditEntry,
        AuthorityInfo,
        AuthorityStep,
        ChangeSettings,
        DestroyUnits,
        Events,
        Failure,
        Finish,
        GiveAnswer,
        Join,
        JoinTokenInfo,
        KeepAlive,
        LogEntry,
        Machine,
        MachineCertificate,
        MachineSettings,
        MachineStatus,
        MachineVerdict,
        MadeToken,
        NewJoinToken,
        NewRun,
        NewSecret,
        NewSession,
        NewToken,
        Package,
        Placement,
        Presence,
        PutUnits,
        Release,
        Renew,
        Rollback,
        Run,
        RunSecrets,
        SecretInfo,
        SessionBegun,
        Status,
        Statuses,
        Stored,
        TokenInfo,
        Unit,
        UnitChange,
        UnitEvent,
        UnitStatus,
        UnitView,
        WaitingApproval,
        WatchUnits,
    ]
    .into()
}

type Messages = BTreeMap<String, Vec<Value>>;

/// Each version with its folder.
fn versions() -> Vec<(PathBuf, Messages)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let versions: Vec<_> = folders
        .map(|folder| {
            let text = std::fs::read_to_string(folder.join("messages.json")).unwrap();
            (folder, serde_json::from_str(&text).unwrap())
        })
        .collect();
    assert!(!versions.is_empty());
    versions
}

/// Whether all of the first is in the second; lists have the same length. Gives the place where it is not.
fn missing(wanted: &Value, found: &Value, at: &str) -> Option<String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().find_map(|(key, value)| {
            let at = format!("{at}.{key}");
            found.get(key).map_or(Some(at.clone()), |found| missing(value, found, &at))
        }),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => wanted
            .iter()
            .zip(found)
            .enumerate()
            .find_map(|(number, (wanted, found))| missing(wanted, found, &format!("{at}[{number}]"))),
        _ => (wanted != found).then(|| at.to_owned()),
    }
}

/// Objects whose keys are names that people or machines gave, or the one word that says which of several forms it is.
const NO_FIELDS: [&str; 9] = [
    "metadata",
    "prefers_metadata",
    "drop_ins",
    "statuses",
    "units",
    "secrets",
    "max_out",
    "projects",
    "update.max_out",
];

/// Every object with fields, by its place.
fn objects(value: &Value, place: &str, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if !NO_FIELDS.contains(&name) {
                found.push(place.to_owned());
            }
            for (key, value) in fields {
                objects(value, &format!("{place}/{key}"), key, found);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                objects(item, &format!("{place}/{number}"), "", found);
            }
        }
        _ => {}
    }
}

fn fields_of(message: &Value) -> Vec<String> {
    let mut found = Vec::new();
    objects(message, "", "", &mut found);
    found
}

#[test]
fn every_message_of_every_version_is_read_and_none_of_its_fields_is_forgotten() {
    let readers = readers();
    for (folder, messages) in versions() {
        assert_eq!(
            messages.keys().map(String::as_str).collect::<Vec<_>>(),
            readers.keys().copied().collect::<Vec<_>>()
        );
        for (name, messages) in &messages {
            for message in messages {
                let (again, debug) = readers[name.as_str()](message)
                    .unwrap_or_else(|error| panic!("{name} of {} is refused: {error}", folder.display()));
                assert_eq!(missing(message, &again, name), None, "of {}", folder.display());
                // A field that was renamed would be kept beside the known ones, and mean nothing.
                assert!(
                    !debug.contains("extra: {\""),
                    "{name} has a field that is not known any more: {debug}"
                );
            }
        }
    }
}

#[test]
fn what_a_newer_version_says_more_is_tolerated() {
    let readers = readers();
    for (_, messages) in versions() {
        for (name, messages) in &messages {
            for message in messages {
                let mut newer = message.clone();
                for place in fields_of(message) {
                    let fields = newer.pointer_mut(&place).and_then(Value::as_object_mut).unwrap();
                    fields.insert("of_a_newer_version".into(), json!({"more": ["than", 1]}));
                }
                let (again, _) =
                    readers[name.as_str()](&newer).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(missing(message, &again, name), None);
            }
        }
    }
}

/// What old servers must not lose when they write a record that a newer one wrote.
#[test]
fn records_keep_what_a_newer_version_wrote() {
    let readers = readers();
    for (_, messages) in versions() {
        for name in ["App", "Machine", "MachineSettings", "Package", "Release", "Run", "Unit", "UnitStatus"] {
            for message in &messages[name] {
                let mut newer = message.clone();
                newer["of_a_newer_version"] = json!({"more": ["than", 1]});
                assert_eq!(readers[name](&newer).unwrap().0, newer);
            }
        }
    }
}

/// `Unit /requirements/update` and so on: without that field the message is refused.
fn required(messages: &Messages) -> BTreeSet<String> {
    let readers = readers();
    let mut required = BTreeSet::new();
    for (name, messages) in messages {
        for message in messages {
            for place in fields_of(message) {
                let keys: Vec<String> =
                    message.pointer(&place).and_then(Value::as_object).unwrap().keys().cloned().collect();
                for key in keys {
                    let mut without = message.clone();
                    without.pointer_mut(&place).and_then(Value::as_object_mut).unwrap().remove(&key);
                    if readers[name.as_str()](&without).is_err() {
                        required.insert(format!("{name} {place}/{key}"));
                    }
                }
            }
        }
    }
    required
}

#[test]
fn no_field_became_required() {
    for (folder, messages) in versions() {
        let (file, now) = (folder.join("required.txt"), required(&messages));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, now.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        }
        let known = std::fs::read_to_string(&file).unwrap();
        let known: BTreeSet<String> = known.lines().map(str::to_owned).collect();
        let new: Vec<_> = now.difference(&known).collect();
        assert!(new.is_empty(), "an older version may leave these out: {new:#?}");
    }
}
