//! The redb file: two tables from row key to stored bytes, and one of a single
//! row, the index they reflect. Panics of redb, which damaged pages can cause,
//! end here as errors.

use std::sync::Arc;

use quorate_types::codec::{self, CodecError};
use quorate_types::contain::{Panicked, contain};
use quorate_types::disk::{Disk, restart_creation};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableError as NoTable,
};

use super::backend::Backend;
use super::{Quarantined, TableError};
use crate::row::MigrationRow;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const ROWS: Definition = TableDefinition::new("migrations");
const QUARANTINE: Definition = TableDefinition::new("quarantine");
const REFLECTED: TableDefinition<'static, (), &'static [u8]> = TableDefinition::new("reflected");

/// What the checksum of the one row of [`REFLECTED`] covers as its key.
const REFLECTED_KEY: &[u8] = b"reflected";

/// The newest format of that row.
const REFLECTED_VERSION: u8 = 1;

/// How much of a damaged row is kept as evidence: several rows' worth.
const QUARANTINED_BYTES_MAX: usize = 4096;

/// The open database.
#[derive(Debug)]
pub(super) struct Store {
    file: String,
    // Taken only when the store is dropped.
    database: Option<Database>,
}

/// The tables of an open write transaction.
pub(super) struct Writer<'a> {
    rows: redb::Table<'a, &'static [u8], &'static [u8]>,
    quarantine: redb::Table<'a, &'static [u8], &'static [u8]>,
    reflected: redb::Table<'a, (), &'static [u8]>,
}

impl Writer<'_> {
    pub(super) fn insert(&mut self, row: &MigrationRow) -> Result<(), redb::Error> {
        let (key, sealed) = (row.key(), row.seal());
        assert!(
            MigrationRow::open(&key, &sealed).is_ok_and(|read| read == *row),
            "invariant: a row reads back as it was written"
        );
        self.rows.insert(key.as_slice(), &*sealed)?;
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<(), redb::Error> {
        self.rows.remove(key)?;
        self.quarantine.remove(key)?;
        Ok(())
    }

    pub(super) fn quarantine(&mut self, damaged: &Quarantined) -> Result<(), redb::Error> {
        let evidence = damaged.stored.get(..QUARANTINED_BYTES_MAX).unwrap_or(&damaged.stored);
        self.quarantine.insert(&*damaged.key, evidence)?;
        self.rows.remove(&*damaged.key)?;
        Ok(())
    }

    pub(super) fn reflect(&mut self, index: u64) -> Result<(), redb::Error> {
        let sealed = codec::seal_row(REFLECTED_KEY, REFLECTED_VERSION, &codec::encode(&index));
        assert!(
            open_reflected(&sealed).is_ok_and(|read| read == index),
            "invariant: the index reads back as it was written"
        );
        self.reflected.insert((), &*sealed)?;
        Ok(())
    }

    pub(super) fn forget_reflected(&mut self) -> Result<(), redb::Error> {
        self.reflected.remove(())?;
        Ok(())
    }
}

fn open_reflected(stored: &[u8]) -> Result<u64, CodecError> {
    codec::decode(codec::open_row(REFLECTED_KEY, REFLECTED_VERSION, stored)?.1)
}

impl Store {
    pub(super) fn open(
        disk: &dyn Disk,
        file: &str,
        cache_bytes: usize,
    ) -> Result<Self, TableError> {
        let database = contained(file, || {
            let handle = disk.open(file)?;
            restart_creation(file, &*handle)?;
            let backend = Backend::new(handle);
            Ok(Database::builder().set_cache_size(cache_bytes).create_with_backend(backend)?)
        })?;
        Ok(Self { file: file.to_owned(), database: Some(database) })
    }

    /// Calls `visit(key, stored, is_quarantined)` for every stored row. A
    /// table that nothing was written to yet is empty.
    pub(super) fn read(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), TableError> {
        let missing = contained(&self.file, || {
            let transaction = self.database()?.begin_read()?;
            let mut missing = Vec::new();
            for (definition, is_quarantined) in [(ROWS, false), (QUARANTINE, true)] {
                let table = match transaction.open_table(definition) {
                    Ok(table) => table,
                    Err(NoTable::TableDoesNotExist(name)) => {
                        missing.push(name);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let mut found = 0_u64;
                for entry in table.iter()? {
                    let (key, stored) = entry?;
                    visit(key.value(), stored.value(), is_quarantined);
                    found += 1;
                }
                // A damaged leaf can hide rows from the iteration.
                let kept = table.len()?;
                if found != kept {
                    return Err(redb::Error::Corrupted(format!("{found} of {kept} rows")));
                }
            }
            Ok(missing)
        })?;
        // Every commit opens both tables and thereby creates them, so they are
        // missing together or not at all.
        match missing.as_slice() {
            [hidden] => Err(TableError::Damaged {
                file: self.file.clone(),
                message: format!("table {hidden} is missing"),
            }),
            _ => Ok(()),
        }
    }

    /// The log index that the rows reflect: `None` if none is stored, an error
    /// within if what is stored is none. That it may be missing beside rows is
    /// right: a journal of its own reflects no log.
    pub(super) fn reflected(&self) -> Result<Option<Result<u64, CodecError>>, TableError> {
        contained(&self.file, || {
            let table = match self.database()?.begin_read()?.open_table(REFLECTED) {
                Err(NoTable::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            Ok(table.get(())?.map(|stored| open_reflected(stored.value())))
        })
    }

    /// Verifies the checksums of all pages. Damage outside of the rows would
    /// otherwise show as a panic within a commit, and there as a second one
    /// during the first one's unwinding, which nothing contains.
    pub(super) fn verify(&mut self) -> Result<(), TableError> {
        let database = &mut self.database;
        let verified = contained(&self.file, || {
            let database = database.as_mut().ok_or(redb::Error::DatabaseClosed)?;
            Ok(database.check_integrity()?)
        });
        let error = match verified {
            Ok(true) => return Ok(()),
            Ok(false) => TableError::Damaged {
                file: self.file.clone(),
                message: "a page's checksum does not match".into(),
            },
            Err(error) => error,
        };
        self.abandon();
        Err(error)
    }

    /// Gives a damaged database up without closing it: closing commits, and
    /// must not. Its memory and its file handle stay until the process ends,
    /// which a permanent failure brings about.
    pub(super) fn abandon(&mut self) {
        std::mem::forget(self.database.take());
    }

    /// One durable commit.
    pub(super) fn write(
        &self,
        change: impl FnOnce(&mut Writer<'_>) -> Result<(), redb::Error>,
    ) -> Result<(), TableError> {
        contained(&self.file, || {
            let transaction = self.database()?.begin_write()?;
            {
                let rows = transaction.open_table(ROWS)?;
                let quarantine = transaction.open_table(QUARANTINE)?;
                let reflected = transaction.open_table(REFLECTED)?;
                change(&mut Writer { rows, quarantine, reflected })?;
            }
            Ok(transaction.commit()?)
        })
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Closing writes, and so may panic on damage like any other access.
        let database = self.database.take();
        let closed = contained(&self.file, move || {
            drop(database);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::error!(%error, "closing the migration table failed");
        }
    }
}

/// Runs an access to redb. After an error the caller must not use the database
/// again, so nothing of the state that a panic left behind is ever seen.
fn contained<T>(
    file: &str,
    access: impl FnOnce() -> Result<T, redb::Error>,
) -> Result<T, TableError> {
    let file = || file.to_owned();
    match contain(access) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(TableError::Storage { file: file(), source: Arc::new(error) }),
        Err(Panicked(message)) => Err(TableError::Damaged { file: file(), message }),
    }
}
