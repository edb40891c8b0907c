//! Damage that no checksum of the file shows, done while a node is off: to a
//! row within its pages, as a fault of memory would before they were written.

use std::io;
use std::sync::Arc;

use quorate::types::disk::{Disk, DiskFile};
use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError,
};

/// The local copy of the migrations, and the table of its rows.
const FILE: &str = "migrations.redb";
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("migrations");

#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Flips a bit in the last byte of every migration's row: a figure that is
/// still one, and no longer the one that was recorded. `None` if there is no
/// row.
pub(super) fn damage_migrations(disk: &dyn Disk) -> Option<()> {
    if !disk.exists(FILE).unwrap() {
        return None;
    }
    let backend = Backend(disk.open(FILE).unwrap());
    let database = Database::builder().create_with_backend(backend).unwrap();
    let rows = stored(&database);
    if rows.is_empty() {
        return None;
    }
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(ROWS).unwrap();
        for (key, mut row) in rows {
            *row.last_mut().unwrap() ^= 1;
            table.insert(key.as_slice(), row.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
    Some(())
}

fn stored(database: &Database) -> Vec<(Vec<u8>, Vec<u8>)> {
    let table = match database.begin_read().unwrap().open_table(ROWS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Vec::new(),
        Err(error) => panic!("{error}"),
    };
    let entries = table.iter().unwrap().map(|entry| entry.unwrap());
    entries.map(|(key, row)| (key.value().to_vec(), row.value().to_vec())).collect()
}
