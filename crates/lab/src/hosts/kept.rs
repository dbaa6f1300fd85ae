//! A set of hosts that stays when the process that made it ends, so that other processes find it: one a machine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::groups::Groups;
use super::keeper::Keeper;
use super::{Error, Hosts, Life, Options, World};

/// Says what was left up.
const RECORD: &str = "/run/sealift-lab.json";

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    groups: Groups,
    keeper: i32,
    /// Clock ticks from the boot to the start of the keeper, so that no other process is taken for it.
    began: u64,
    options: Options,
}

/// Makes hosts, switches them on and leaves them up.
///
/// # Errors
/// When hosts were left up before, and as [`Hosts::up`].
pub fn up_and_keep(options: Options) -> Result<Hosts, Error> {
    match find() {
        Ok(_) => return Err(Error::AlreadyKept),
        Err(Error::NoneKept) => {}
        Err(error) => return Err(error),
    }
    let hosts = Hosts::make_for(options, Life::Kept)?;
    hosts.start()?;
    let world = &hosts.world;
    let keeper = world.keeper.pid();
    let record = Record {
        groups: world.groups.clone(),
        keeper,
        began: began(keeper).ok_or(Error::NoneKept)?,
        options: world.options.clone(),
    };
    let path = Path::new(RECORD);
    let text = serde_json::to_vec(&record).map_err(|source| Error::Kept { path: path.to_owned(), source })?;
    std::fs::write(path, text).map_err(Error::io("write", path))?;
    hosts.world.keeper.leave();
    Ok(hosts)
}

/// The hosts that were left up. They stay when this is dropped.
///
/// # Errors
/// When none were.
pub fn attach() -> Result<Hosts, Error> {
    let record = find()?;
    let keeper = Keeper::found(record.keeper);
    Ok(Hosts::of(World { groups: record.groups, keeper, options: record.options }))
}

/// Ends the hosts that were left up, and removes what is left of them.
///
/// # Errors
/// When none were, or something is left.
pub fn down() -> Result<(), Error> {
    let record = find()?;
    Keeper::found(record.keeper).kill();
    record.groups.remove()?;
    let path = PathBuf::from(RECORD);
    std::fs::remove_file(&path).map_err(Error::io("remove", &path))
}

fn find() -> Result<Record, Error> {
    let path = Path::new(RECORD);
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::NoneKept),
        text => text.map_err(Error::io("read", path))?,
    };
    let record: Record =
        serde_json::from_slice(&text).map_err(|source| Error::Kept { path: path.to_owned(), source })?;
    // After a boot of the machine the record is gone; but the keeper may have been killed.
    if began(record.keeper) == Some(record.began) { Ok(record) } else { Err(Error::NoneKept) }
}

/// Field 22 of `proc_pid_stat(5)`; the name in field 2 may hold spaces.
fn began(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
