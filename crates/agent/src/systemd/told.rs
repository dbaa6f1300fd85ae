//! What systemd's signals told of its units, so that it is not asked for it again.
//!
//! A signal carries all properties of one interface that can change, and systemd sends those of the kind (`Service`) before
//! those that all units have (`Unit`): with the latter the picture is whole. It must not know what it is for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use sealift_model::{ActiveState, Timestamp};
use zbus::OwnedVariant;

pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(super) const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// Properties by name, as a signal carries them.
pub(super) type Properties = HashMap<String, OwnedVariant>;

/// What all units have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OfUnit {
    pub(super) active: ActiveState,
    pub(super) sub: String,
    pub(super) since: Timestamp,
}

/// What services have besides.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OfService {
    pub(super) result: String,
    pub(super) main_pid: u32,
    pub(super) code: i32,
    pub(super) status: i32,
}

/// By systemd's object path. Whatever systemd forgets, or reads again, is forgotten here.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeMap<String, Known>>);

type Known = (Option<OfUnit>, Option<OfService>);

impl Told {
    /// Takes in a signal; true if the unit's picture is whole with it.
    pub(super) fn note(&self, path: &str, interface: &str, properties: Properties) -> bool {
        match interface {
            UNIT => {
                let of_unit = of_unit(properties);
                self.change(path, |known| known.0 = of_unit);
                true
            }
            SERVICE => {
                let of_service = of_service(properties);
                self.change(path, |known| known.1 = of_service);
                false
            }
            // What sockets, timers and others have is told with the unit's own.
            _ => false,
        }
    }

    pub(super) fn forget(&self, path: &str) {
        self.lock().remove(path);
    }

    pub(super) fn get(&self, path: &str) -> Known {
        self.lock().get(path).cloned().unwrap_or_default()
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Known)) {
        change(self.lock().entry(path.to_owned()).or_default());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_unit(mut properties: Properties) -> Option<OfUnit> {
    Some(OfUnit {
        active: super::bus::active_state(&take::<String>(&mut properties, "ActiveState")?),
        sub: take(&mut properties, "SubState")?,
        since: Timestamp(take::<u64>(&mut properties, "StateChangeTimestamp")? / 1000),
    })
}

fn of_service(mut properties: Properties) -> Option<OfService> {
    Some(OfService {
        result: take(&mut properties, "Result")?,
        main_pid: take(&mut properties, "MainPID")?,
        code: take(&mut properties, "ExecMainCode")?,
        status: take(&mut properties, "ExecMainStatus")?,
    })
}

fn take<T: TryFrom<OwnedVariant>>(properties: &mut Properties, name: &str) -> Option<T> {
    T::try_from(properties.remove(name)?).ok()
}
