//! The redb file: two tables from row key to stored bytes. Panics of redb,
//! which damaged pages can cause, end here as errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use quorate_types::disk::Disk;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError as NoTable};

use super::backend::Backend;
use super::{Quarantined, TableError};
use crate::row::MigrationRow;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const ROWS: Definition = TableDefinition::new("migrations");
const QUARANTINE: Definition = TableDefinition::new("quarantine");

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

    pub(super) fn clear(&mut self) -> Result<(), redb::Error> {
        self.rows.retain(|_, _| false)?;
        self.quarantine.retain(|_, _| false)?;
        Ok(())
    }
}

impl Store {
    pub(super) fn open(
        disk: &dyn Disk,
        file: &str,
        cache_bytes: usize,
    ) -> Result<Self, TableError> {
        let database = contained(file, || {
            let backend = Backend::new(disk.open(file)?);
            Ok(Database::builder().set_cache_size(cache_bytes).create_with_backend(backend)?)
        })?;
        Ok(Self { file: file.to_owned(), database: Some(database) })
    }

    /// Calls `visit(key, stored, is_quarantined)` for every stored row. A
    /// table that nothing was written to yet is empty.
    pub(super) fn read(&self, mut visit: impl FnMut(&[u8], &[u8], bool)) -> Result<(), TableError> {
        contained(&self.file, || {
            let transaction = self.database()?.begin_read()?;
            for (definition, is_quarantined) in [(ROWS, false), (QUARANTINE, true)] {
                let table = match transaction.open_table(definition) {
                    Ok(table) => table,
                    Err(NoTable::TableDoesNotExist(_)) => continue,
                    Err(error) => return Err(error.into()),
                };
                for entry in table.iter()? {
                    let (key, stored) = entry?;
                    visit(key.value(), stored.value(), is_quarantined);
                }
            }
            Ok(())
        })
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
                change(&mut Writer { rows, quarantine })?;
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
    match catch_unwind(AssertUnwindSafe(access)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(TableError::Storage { file: file(), source: Arc::new(error) }),
        Err(panic) => Err(TableError::Damaged { file: file(), message: message_of(&*panic) }),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}
