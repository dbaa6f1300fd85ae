//! The control groups of a set of hosts: one for the set in every hierarchy that is mounted, and in it one a host.
//!
//! Guarantees: only groups below a name that begins with [`PREFIX`] are ever touched, and of another set's only those
//! that no process is in any more.
//!
//! It must not know what a host is.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Error, RETRY};

/// What the groups' names begin with.
const PREFIX: &str = "sealift-lab-";
/// How long the kernel may take to freeze processes, or to be done with those that were killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A set's groups.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Groups {
    /// The set's own group in each hierarchy; the first is of version 2.
    tops: Vec<PathBuf>,
}

impl Groups {
    /// The groups of the set with this name; whether they are there is another matter.
    pub(super) fn of(name: &str) -> Result<Groups, Error> {
        let tops = hierarchies()?.into_iter().map(|root| root.join(format!("{PREFIX}{name}"))).collect();
        Ok(Groups { tops })
    }

    /// Makes a group anew, in every hierarchy, and says where.
    pub(super) fn make(&self, child: &str) -> Result<Vec<PathBuf>, Error> {
        let mut made = Vec::new();
        for top in &self.tops {
            let group = top.join(child);
            remove(&group)?;
            for dir in [top, &group] {
                match std::fs::create_dir(dir) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(Error::io("make", dir)(error));
                    }
                    _ => {}
                }
                adopt(dir);
            }
            made.push(group);
        }
        Ok(made)
    }

    /// The processes that are in a group or below it.
    pub(super) fn processes(&self, child: &str) -> Vec<i32> {
        self.tops.first().map_or_else(Vec::new, |top| processes(&top.join(child)))
    }

    /// Whether all processes of a group have ended within this time.
    pub(super) fn is_empty_within(&self, child: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.processes(child).is_empty() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(RETRY);
        }
        true
    }

    /// Freezes all processes of a group, or lets them go on, and waits until the kernel says it is so.
    pub(super) fn freeze(&self, child: &str, frozen: bool) -> Result<(), Error> {
        let Some(group) = self.tops.first().map(|top| top.join(child)) else { return Ok(()) };
        let (switch, events) = (group.join("cgroup.freeze"), group.join("cgroup.events"));
        let wanted = if frozen { "1" } else { "0" };
        std::fs::write(&switch, wanted).map_err(Error::io("write", &switch))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&events).map_err(Error::io("read", &events))?;
            if text.lines().any(|line| line.strip_prefix("frozen ") == Some(wanted)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Late { what: format!("freezing {}", group.display()), limit: PATIENCE });
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Removes all groups of the set, once no process is in them.
    pub(super) fn remove(&self) -> Result<(), Error> {
        self.tops.iter().try_for_each(|top| remove(top))
    }
}

/// Removes the groups of sets that have ended without a chance to do so.
pub(super) fn sweep() -> Result<(), Error> {
    let roots = hierarchies()?;
    let mut names = std::collections::BTreeSet::new();
    for root in &roots {
        for entry in std::fs::read_dir(root).map_err(Error::io("read", root))?.flatten() {
            names.extend(
                entry.file_name().to_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned),
            );
        }
    }
    for name in names {
        let groups: Vec<_> = roots.iter().map(|root| root.join(&name)).collect();
        if groups.iter().all(|group| processes(group).is_empty()) {
            groups.iter().try_for_each(|group| remove(group))?;
        }
    }
    Ok(())
}

/// Where hierarchies are mounted, that of version 2 first.
fn hierarchies() -> Result<Vec<PathBuf>, Error> {
    let path = Path::new("/proc/self/mounts");
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let mounted = |kind: &str| {
        let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let found = fields.filter(|fields| fields.get(2) == Some(&kind));
        found.filter_map(|fields| fields.get(1).map(PathBuf::from)).collect::<Vec<_>>()
    };
    let mut all = mounted("cgroup2");
    if all.is_empty() {
        return Err(Error::NoGroups);
    }
    all.extend(mounted("cgroup"));
    Ok(all)
}

/// Gives a new group what it may not be without: processors and memory in version 1, controllers in version 2.
fn adopt(group: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let above = group.parent().and_then(|above| std::fs::read_to_string(above.join(file)).ok());
        if let Some(above) = above.filter(|_| group.join(file).is_file()) {
            std::fs::write(group.join(file), above).ok();
        }
    }
    if let Ok(controllers) = std::fs::read_to_string(group.join("cgroup.controllers")) {
        for controller in controllers.split_whitespace() {
            std::fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).ok();
        }
    }
}

fn processes(group: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    for child in children(group) {
        found.extend(processes(&child));
    }
    found
}

fn children(group: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a group and those below it. The kernel may not be done with what was killed.
fn remove(group: &Path) -> Result<(), Error> {
    children(group).iter().try_for_each(|child| remove(child))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match std::fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(RETRY);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", group)(error));
            }
            _ => return Ok(()),
        }
    }
}
