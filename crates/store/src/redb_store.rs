//! A store in one file, by redb: survives kill -9 and a full disk.
//!
//! The file holds three tables: `entries` (key to a header of four little-endian u64 - created, modified, version,
//! lease or 0 - and the value), `leases` (id to time to live in milliseconds) and `meta` (`format`, `revision`,
//! `last_lease`). It is read whole when it is opened and only written afterwards.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table,
    TableDefinition, TableError, WriteTransaction,
};

use crate::core::{Changes, Core, Disk, Saved, Shared, store_by_core};
use crate::{Entry, Error, LeaseId, Revision};

const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");
const LEASES: TableDefinition<'static, u64, u64> = TableDefinition::new("leases");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

const FORMAT: u64 = 1;
const HEADER: usize = 4 * 8;
/// Bytes of pages that redb may keep. Everything is in memory already, so this only serves the next write.
const CACHE: usize = 8 * 1024 * 1024;

/// Everything in memory and in one file, written before anyone sees it. One process at a time has the file.
#[derive(Debug)]
pub struct RedbStore {
    core: Core,
}

impl RedbStore {
    /// Opens the file at `path`, or makes it; its directory must be there. Leases begin their whole time to live
    /// anew. The writer is a task of the current tokio runtime.
    ///
    /// # Errors
    /// [`Error::Storage`] when the file cannot be read or made, is another program's, or is open already.
    pub async fn open(path: impl Into<PathBuf>) -> Result<RedbStore, Error> {
        let path = path.into();
        let (saved, file) = tokio::task::spawn_blocking(move || {
            let database = open_database(&path)?;
            let saved = load(&database)?;
            Ok((saved, RedbFile { path, database: Some(database) }))
        })
        .await
        .map_err(|_| Error::Closed)?
        .map_err(|cause| Error::storage("open the store", cause))?;
        Ok(RedbStore { core: Core::start(saved, Some(Box::new(file))) })
    }

    /// Ends the store once everything that was asked is answered, and lets go of the file. A store that is merely
    /// dropped does the same in the background.
    pub async fn close(self) {
        self.core.close().await;
    }
}

store_by_core!(RedbStore);

#[derive(Debug)]
struct RedbFile {
    path: PathBuf,
    /// None after a failure: redb refuses all work then until the file is opened anew.
    database: Option<Database>,
}

impl Disk for RedbFile {
    fn write(&mut self, changes: &Changes, shared: &Shared) -> io::Result<()> {
        let database = match self.database.take() {
            Some(database) => database,
            None => reopen(&self.path, shared)?,
        };
        write_changes(&database, changes)?;
        self.database = Some(database);
        Ok(())
    }
}

fn open_database(path: &Path) -> io::Result<Database> {
    let is_new = !path.try_exists()?;
    let database = Builder::new().set_cache_size(CACHE).create(path).map_err(to_io)?;
    if is_new && let Some(directory) = path.parent() {
        // The file's name has to outlive a power cut as well.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        File::open(directory)?.sync_all()?;
    }
    Ok(database)
}

/// Opens the file after a failed write, of which it may hold the changes or not. The callers were told that it
/// failed, so the state before it is what counts.
fn reopen(path: &Path, shared: &Shared) -> io::Result<Database> {
    let database = open_database(path)?;
    let saved = shared.saved();
    if load(&database)? != saved {
        rewrite(&database, &saved)?;
    }
    Ok(database)
}

fn write_changes(database: &Database, changes: &Changes) -> io::Result<()> {
    let txn = database.begin_write().map_err(to_io)?;
    {
        let mut entries = txn.open_table(ENTRIES).map_err(to_io)?;
        for (key, entry) in &changes.entries {
            match entry {
                Some(entry) => insert_entry(&mut entries, entry)?,
                None => drop(entries.remove(key.as_str()).map_err(to_io)?),
            }
        }
        let mut leases = txn.open_table(LEASES).map_err(to_io)?;
        for (id, ttl) in &changes.leases {
            match ttl {
                Some(ttl) => drop(leases.insert(id.0, to_millis(*ttl)).map_err(to_io)?),
                None => drop(leases.remove(id.0).map_err(to_io)?),
            }
        }
    }
    write_meta(&txn, changes.revision, changes.last_lease)?;
    txn.commit().map_err(to_io)
}

fn rewrite(database: &Database, saved: &Saved) -> io::Result<()> {
    let txn = database.begin_write().map_err(to_io)?;
    txn.delete_table(ENTRIES).map_err(to_io)?;
    txn.delete_table(LEASES).map_err(to_io)?;
    {
        let mut entries = txn.open_table(ENTRIES).map_err(to_io)?;
        for entry in saved.entries.values() {
            insert_entry(&mut entries, entry)?;
        }
        let mut leases = txn.open_table(LEASES).map_err(to_io)?;
        for (id, ttl) in &saved.leases {
            leases.insert(id.0, to_millis(*ttl)).map_err(to_io)?;
        }
    }
    write_meta(&txn, saved.revision, saved.last_lease)?;
    txn.commit().map_err(to_io)
}

fn write_meta(txn: &WriteTransaction, revision: Revision, last_lease: u64) -> io::Result<()> {
    let mut meta = txn.open_table(META).map_err(to_io)?;
    for (name, number) in [("format", FORMAT), ("revision", revision.0), ("last_lease", last_lease)] {
        meta.insert(name, number).map_err(to_io)?;
    }
    Ok(())
}

fn insert_entry(table: &mut Table<'_, &'static str, &'static [u8]>, entry: &Entry) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER + entry.value.len());
    let lease = entry.lease.map_or(0, |lease| lease.0);
    for number in [entry.created.0, entry.modified.0, entry.version, lease] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&entry.value);
    table.insert(entry.key.as_str(), bytes.as_slice()).map_err(to_io)?;
    Ok(())
}

fn load(database: &Database) -> io::Result<Saved> {
    let txn = database.begin_read().map_err(to_io)?;
    let mut saved = Saved::default();
    let Some(meta) = open_existing(&txn, META)? else {
        return Ok(saved);
    };
    let number = |name: &str| -> io::Result<u64> {
        meta.get(name)
            .map_err(to_io)?
            .map(|guard| guard.value())
            .ok_or_else(|| corrupt("a number is missing"))
    };
    if number("format")? != FORMAT {
        return Err(corrupt("it was written by a newer version"));
    }
    saved.revision = Revision(number("revision")?);
    saved.last_lease = number("last_lease")?;
    if let Some(leases) = open_existing(&txn, LEASES)? {
        for row in leases.iter().map_err(to_io)? {
            let (id, ttl) = row.map_err(to_io)?;
            saved.leases.insert(LeaseId(id.value()), Duration::from_millis(ttl.value()));
        }
    }
    if let Some(entries) = open_existing(&txn, ENTRIES)? {
        for row in entries.iter().map_err(to_io)? {
            let (key, bytes) = row.map_err(to_io)?;
            let entry =
                read_entry(key.value(), bytes.value()).ok_or_else(|| corrupt("an entry is cut short"))?;
            saved.entries.insert(key.value().to_owned(), entry);
        }
    }
    Ok(saved)
}

/// The table, or none in a file that nothing was written to yet.
fn open_existing<K: redb::Key + 'static, V: redb::Value + 'static>(
    txn: &ReadTransaction,
    table: TableDefinition<'static, K, V>,
) -> io::Result<Option<ReadOnlyTable<K, V>>> {
    match txn.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(to_io(error)),
    }
}

fn read_entry(key: &str, bytes: &[u8]) -> Option<Entry> {
    let (header, value) = bytes.split_at_checked(HEADER)?;
    let mut numbers =
        header.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes));
    let mut number = || numbers.next();
    Some(Entry {
        key: key.to_owned(),
        created: Revision(number()?),
        modified: Revision(number()?),
        version: number()?,
        lease: Some(number()?).filter(|id| *id != 0).map(LeaseId),
        value: Bytes::copy_from_slice(value),
    })
}

/// Whole milliseconds; a lease shorter than one lasts one.
fn to_millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// redb's IO errors as they are, so that a full disk is told from a broken file; the others wrapped.
fn to_io(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn put(key: &str) -> Changes {
        let (created, modified) = (Revision(1), Revision(1));
        let value = Bytes::from_static(b"x");
        let entry = Entry { key: key.to_owned(), value, created, modified, version: 1, lease: None };
        Changes {
            revision: modified,
            entries: BTreeMap::from([(key.to_owned(), Some(entry))]),
            leases: BTreeMap::from([(LeaseId(1), Some(Duration::from_secs(1)))]),
            last_lease: 1,
            batches: Vec::new(),
        }
    }

    #[test]
    fn a_write_that_failed_but_reached_the_disk_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        // Written in full, but the caller was told that it failed: nothing was published.
        write_changes(&open_database(&path).unwrap(), &put("lost")).unwrap();
        let shared = Shared::of(Saved::default());
        let mut file = RedbFile { path, database: None };
        file.write(&put("kept"), &shared).unwrap();
        let saved = load(&file.database.unwrap()).unwrap();
        assert_eq!(saved.entries.keys().collect::<Vec<_>>(), ["kept"]);
        assert_eq!((saved.revision, saved.leases.len()), (Revision(1), 1));
    }
}
