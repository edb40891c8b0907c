//! One redb file: batch rows under a global sequence number, so that only the
//! end of one B-tree is touched however many groups write, and group rows.

pub(super) mod batch;
pub(super) mod storage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use ::redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quorate_types::GroupId;
use quorate_types::contain::contain;
use quorate_types::disk::{Disk, restart_creation};
use quorate_types::owner::Owner;

use self::batch::{BatchBuilder, open_batch, scan_batch};
use self::storage::FileStorage;
use super::medium::{Commit, Laid, Medium, Opened, Whose};
use super::memory::{Found, Recovery};
use super::rows::{GroupRow, Location, SEQUENCES_MAX};
use super::{LogError, Place};

pub(super) const BATCHES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("batches");
pub(super) const GROUPS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("groups");
/// The mark of the directory that the log belongs to.
pub(super) const OWNER: TableDefinition<'static, (), &[u8]> = TableDefinition::new("owner");

/// A batch row is closed at this size and another begun. A read has to verify
/// a whole row, so rows stay small; far fewer, larger rows would not make the
/// commit cheaper.
const BATCH_ROW_BYTES: usize = 512 << 10;

/// The name of a log's file.
pub(super) fn file_of(stem: &str) -> String {
    format!("{stem}.redb")
}

#[derive(Debug)]
pub(super) struct RedbMedium {
    file: Arc<str>,
    database: RwLock<Option<Database>>,
    next_sequence: Mutex<u64>,
}

/// The file of a log that is kept by redb, if it was begun.
pub(super) fn any(disk: &dyn Disk, stem: &str) -> Result<Option<Arc<str>>, LogError> {
    let name: Arc<str> = file_of(stem).into();
    let begun = || Ok(disk.exists(&name)? && !disk.open(&name)?.is_empty()?);
    let is_begun = begun().map_err(|error: std::io::Error| LogError::disk(&name, error))?;
    Ok(is_begun.then_some(name))
}

/// Opens the file `name`, creating it when missing, and verifies every row.
pub(super) fn open(
    disk: &dyn Disk,
    name: &str,
    cache_bytes: usize,
    owner: Option<Owner>,
    tail_bytes_max: usize,
) -> Result<Opened, LogError> {
    let file: Arc<str> = name.into();
    let is_there = disk.exists(name).map_err(|error| LogError::disk(&file, error))?;
    if let Some(owner) = owner.filter(|_| !is_there) {
        // Before an empty file takes the place of the lost one.
        owner.judge(None).map_err(|error| LogError::not_ours(&file, error))?;
    }
    let handle = disk.open(name).map_err(|error| LogError::disk(&file, error))?;
    restart_creation(name, &*handle).map_err(|error| LogError::disk(&file, error))?;
    let storage = FileStorage(handle);
    let database = contained(&file, || {
        let database = Builder::new().set_cache_size(cache_bytes).create_with_backend(storage)?;
        let transaction = database.begin_write()?;
        transaction.open_table(BATCHES)?;
        transaction.open_table(GROUPS)?;
        transaction.open_table(OWNER)?;
        transaction.commit()?;
        Ok(database)
    })?;
    if let Some(owner) = owner {
        mark(&file, &database, owner)?;
    }
    let groups = group_rows(&file, &database)?;
    let (found, sequences) = entries(&file, &database)?;
    let mut recovery = Recovery::new(tail_bytes_max, &groups);
    recovery.take(&found);
    let mut memory = recovery.finish().map_err(|hole| hole.of(&file, Place::Row(hole.sequence)))?;
    let cuts = groups.values().filter_map(|row| row.owner.as_ref());
    let after_cuts = cuts
        .flat_map(|owner| owner.truncations.iter().map(|cut| cut.before_sequence))
        .max()
        .unwrap_or(0);
    let next_sequence = sequences.last().map_or(0, |last| last + 1).max(after_cuts);
    for sequence in sequences {
        memory.note_row(sequence);
    }
    let database = RwLock::new(Some(database));
    let medium = RedbMedium { file, database, next_sequence: Mutex::new(next_sequence) };
    Ok(Opened { memory, groups, medium: Box::new(medium) })
}

/// Judges the mark of the file, and marks a new one.
fn mark(file: &Arc<str>, database: &Database, owner: Owner) -> Result<(), LogError> {
    let mark = contained(file, || {
        let table = database.begin_read()?.open_table(OWNER)?;
        Ok(table.get(())?.map(|mark| mark.value().to_vec()))
    })?;
    if owner.judge(mark.as_deref()).map_err(|error| LogError::not_ours(file, error))? {
        return Ok(());
    }
    contained(file, || {
        let transaction = database.begin_write()?;
        transaction.open_table(OWNER)?.insert((), &*owner.mark())?;
        Ok(transaction.commit()?)
    })
}

fn group_rows(
    file: &Arc<str>,
    database: &Database,
) -> Result<BTreeMap<GroupId, GroupRow>, LogError> {
    let stored = contained(file, || {
        let mut stored = Vec::new();
        for row in database.begin_read()?.open_table(GROUPS)?.iter()? {
            let (key, value) = row?;
            stored.push((key.value(), Bytes::copy_from_slice(value.value())));
        }
        Ok(stored)
    })?;
    let mut rows = BTreeMap::new();
    for (key, value) in stored {
        let group = GroupId(key);
        let row =
            GroupRow::open(group, &value).map_err(|error| LogError::unread(file, key, error))?;
        if !row.is_sound() {
            return Err(LogError::damaged(file, Place::Row(key), "positions that no log has"));
        }
        rows.insert(group, row);
    }
    Ok(rows)
}

/// The entries of all batch rows, and every row's sequence.
fn entries(file: &Arc<str>, database: &Database) -> Result<(Vec<Found>, Vec<u64>), LogError> {
    let mut entries = Vec::new();
    let mut sequences = Vec::new();
    let mut next = 0;
    while let Some((sequence, row)) = contained(file, || first_batch(database, next))? {
        let damaged =
            |what: &dyn ToString| LogError::damaged(file, Place::Row(sequence), what.to_string());
        if sequence > SEQUENCES_MAX {
            return Err(damaged(&"a number that no row has"));
        }
        next = sequence + 1;
        sequences.push(sequence);
        let payload =
            open_batch(sequence, &row).map_err(|error| LogError::unread(file, sequence, error))?;
        entries.extend(scan_batch(sequence, &payload).ok_or_else(|| damaged(&"broken structure"))?);
    }
    Ok((entries, sequences))
}

fn first_batch(database: &Database, from: u64) -> Result<Option<(u64, Bytes)>, ::redb::Error> {
    let table = database.begin_read()?.open_table(BATCHES)?;
    let first = table.range(from..)?.next().transpose()?;
    Ok(first.map(|(key, value)| (key.value(), Bytes::copy_from_slice(value.value()))))
}

fn batch(database: &Database, sequence: u64) -> Result<Option<Bytes>, ::redb::Error> {
    let table = database.begin_read()?.open_table(BATCHES)?;
    Ok(table.get(sequence)?.map(|value| Bytes::copy_from_slice(value.value())))
}

/// How many batch rows a closed log has on disk.
#[cfg(test)]
pub(super) fn stored_rows(disk: &dyn Disk, name: &str) -> Result<u64, ::redb::Error> {
    use ::redb::ReadableTableMetadata;
    let database = Builder::new().create_with_backend(FileStorage(disk.open(name)?))?;
    let rows = database.begin_read()?.open_table(BATCHES)?.len()?;
    Ok(rows)
}

impl RedbMedium {
    fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, ::redb::Error>,
    ) -> Result<T, LogError> {
        let guard = self.database.read();
        let database = guard.as_ref().ok_or(LogError::Closed)?;
        contained(&self.file, || work(database))
    }

    fn fetch_row(&self, sequence: u64) -> Result<Option<Bytes>, LogError> {
        let row = self.with_database(|database| batch(database, sequence))?;
        let opened = row.map(|row| open_batch(sequence, &row)).transpose();
        opened.map_err(|error| LogError::unread(&self.file, sequence, error))
    }
}

impl Medium for RedbMedium {
    fn commit_bytes_max(&self) -> usize {
        // A row's offsets are 32 bits wide, and redb takes values of 3 GiB.
        1 << 30
    }

    fn next_sequence(&self) -> u64 {
        *self.next_sequence.lock()
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<Laid, LogError> {
        let mut next_sequence = self.next_sequence.lock();
        let (mut laid, mut batch_rows) = (Laid::default(), Vec::new());
        let mut builder = BatchBuilder::default();
        let mut close = |builder: BatchBuilder, sequence: &mut u64| {
            batch_rows.push((*sequence, builder.seal(*sequence)));
            *sequence += 1;
        };
        for entry in &commit.entries {
            if builder.len() >= BATCH_ROW_BYTES {
                close(std::mem::take(&mut builder), &mut next_sequence);
            }
            let (offset, len) = builder.push(entry);
            laid.placed.push(entry.placed(Location { sequence: *next_sequence, offset, len }));
        }
        if builder.len() > 0 {
            close(builder, &mut next_sequence);
        }
        laid.rows = batch_rows.iter().map(|&(sequence, _)| sequence).collect();
        let group_rows: Vec<_> = commit.rows().map(|(it, row)| (it.0, row.seal(it))).collect();
        self.with_database(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut batches = transaction.open_table(BATCHES)?;
                for (sequence, row) in &batch_rows {
                    batches.insert(sequence, row.as_ref())?;
                }
                for sequence in &commit.dead {
                    batches.remove(sequence)?;
                }
                let mut groups = transaction.open_table(GROUPS)?;
                for (group, row) in &group_rows {
                    groups.insert(group, row.as_ref())?;
                }
            }
            Ok(transaction.commit()?)
        })?;
        Ok(laid)
    }

    fn fetch(&self, wanted: &[(Whose, Location)]) -> Result<Option<Vec<Bytes>>, LogError> {
        let mut payloads = Vec::with_capacity(wanted.len());
        let mut opened: Option<(u64, Bytes)> = None;
        for (_, location) in wanted {
            let row = match opened.take() {
                Some((sequence, row)) if sequence == location.sequence => row,
                _ => match self.fetch_row(location.sequence)? {
                    Some(row) => row,
                    None => return Ok(None),
                },
            };
            let start = location.offset as usize;
            let end = start + location.len as usize;
            if end > row.len() {
                let place = Place::Row(location.sequence);
                return Err(LogError::damaged(&self.file, place, "the row is too short"));
            }
            payloads.push(row.slice(start..end));
            opened = Some((location.sequence, row));
        }
        Ok(Some(payloads))
    }

    fn close(&self) -> Result<(), LogError> {
        let database = self.database.write().take();
        contained(&self.file, move || {
            drop(database);
            Ok(())
        })
    }
}

/// Runs a use of redb. redb panics on many kinds of damage; the panic becomes
/// an error here and never reaches the node (law 8).
fn contained<T>(
    file: &Arc<str>,
    work: impl FnOnce() -> Result<T, ::redb::Error>,
) -> Result<T, LogError> {
    match contain(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(::redb::Error::Io(error))) => Err(LogError::disk(file, error)),
        Ok(Err(error)) => Err(LogError::disk(file, std::io::Error::other(error))),
        Err(panicked) => Err(LogError::disk(file, std::io::Error::other(panicked))),
    }
}
