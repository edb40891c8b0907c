//! The migration rows of a node on its disk.

mod backend;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_types::disk::Disk;
use quorate_types::{Blob, MigrationId, sometimes};

use crate::row::{Change, MigrationRow, RowDamage, RowError};
use store::Store;

/// Where the table lives and how large it may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableConfig {
    /// The file's name on the disk.
    pub file: String,
    /// Rows beyond which a new migration is refused. A cluster has a few
    /// dozen moves under way; thousands mean that nobody finishes them.
    pub rows_max: usize,
    /// Memory for the database's page cache. The rows are held in memory
    /// anyway, so that it serves only the next commit.
    pub cache_bytes: usize,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self { file: "migrations.redb".into(), rows_max: 10_000, cache_bytes: 1024 * 1024 }
    }
}

/// Why the table did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TableError {
    /// The row may not be stored; the table is as it was.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The stored row of this migration is damaged and set aside. Only
    /// [`MigrationStateTable::rebuild`] and [`MigrationStateTable::remove`]
    /// touch it.
    #[error("the stored row of {0} is damaged and quarantined")]
    Quarantined(MigrationId),
    /// As many rows as the table takes; refused before it was stored.
    #[error("{0} rows, as many as the table takes")]
    Full(usize),
    /// A row was written by a newer build. It is no damage: run that build.
    #[error("{file}: a row of format {found}, newer than {known}, which this build knows")]
    Newer {
        /// The table's file.
        file: String,
        /// The row's format.
        found: u8,
        /// The newest format this build reads.
        known: u8,
    },
    /// The disk failed, or the database's own checks did. Permanent: what was
    /// written last is unknown, so the table answers nothing more until it is
    /// opened again or recreated.
    #[error("{file}: storage failed")]
    Storage {
        /// The table's file.
        file: String,
        /// What failed.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The database's pages are damaged: a checksum does not match, rows have
    /// vanished, or redb panicked. Permanent, and the file stays open until the
    /// process ends; [`MigrationStateTable::recreate`] builds it anew.
    #[error("{file}: damaged: {message}")]
    Damaged {
        /// The table's file.
        file: String,
        /// What the panic said.
        message: String,
    },
}

impl TableError {
    const fn is_permanent(&self) -> bool {
        matches!(self, Self::Storage { .. } | Self::Damaged { .. } | Self::Newer { .. })
    }
}

/// A stored row that failed its checks, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The key it was stored under.
    pub key: Blob,
    /// What was stored, cut at a few kilobytes.
    pub stored: Blob,
    /// What is wrong with it.
    pub damage: String,
}

impl Quarantined {
    /// The migration it belongs to, where the key is whole.
    #[must_use]
    pub fn id(&self) -> Option<MigrationId> {
        let key: [u8; 16] = self.key.as_ref().try_into().ok()?;
        Some(MigrationId(u128::from_be_bytes(key)))
    }
}

/// The rows of all migrations, in memory and in one redb file.
///
/// Every row read from the file is verified, its checksum covering its key. A
/// damaged row moves to the quarantine table of the same file and is reported
/// by [`MigrationStateTable::quarantined`]; it is neither served nor skipped
/// in silence. Memory changes only after the commit returned.
///
/// Inside a node this is a projection of the metadata log, to which
/// [`MigrationStateTable::rebuild`] restores it; alone, under
/// [`crate::LocalJournal`], it is the journal.
#[derive(Debug)]
pub struct MigrationStateTable {
    config: TableConfig,
    store: Store,
    rows: BTreeMap<MigrationId, MigrationRow>,
    quarantined: BTreeMap<Blob, Quarantined>,
    failure: Option<TableError>,
}

/// What the file holds, sorted into sound and damaged.
#[derive(Default)]
struct Content {
    rows: BTreeMap<MigrationId, MigrationRow>,
    damaged: Vec<Quarantined>,
    quarantined: BTreeMap<Blob, Quarantined>,
}

impl MigrationStateTable {
    /// Opens the table, creating the file when it is missing, loads it, sets
    /// damaged rows aside, and verifies the checksums of all pages.
    ///
    /// # Errors
    /// The permanent kinds of [`TableError`].
    pub fn open(disk: &dyn Disk, config: TableConfig) -> Result<Self, TableError> {
        let store = Store::open(disk, &config.file, config.cache_bytes)?;
        let (rows, quarantined) = (BTreeMap::new(), BTreeMap::new());
        let mut table = Self { config, store, rows, quarantined, failure: None };
        table.load()?;
        let verified = table.store.verify();
        verified.map_err(|error| table.latch(error))?;
        Ok(table)
    }

    /// Replaces the file, however damaged, by one that holds `rows`. For a
    /// projection whose truth is elsewhere.
    ///
    /// # Errors
    /// As [`MigrationStateTable::open`] and [`MigrationStateTable::rebuild`].
    pub fn recreate(
        disk: &dyn Disk,
        config: TableConfig,
        rows: impl IntoIterator<Item = MigrationRow>,
    ) -> Result<Self, TableError> {
        disk.remove(&config.file).map_err(|error| TableError::Storage {
            file: config.file.clone(),
            source: Arc::new(error),
        })?;
        let mut table = Self::open(disk, config)?;
        table.rebuild(rows)?;
        Ok(table)
    }

    /// Reads and verifies the whole file again and returns its sound rows in
    /// the order of their ids; damaged ones go to the quarantine.
    ///
    /// # Errors
    /// The permanent kinds of [`TableError`].
    pub fn load_all(&mut self) -> Result<Vec<MigrationRow>, TableError> {
        self.check()?;
        self.load()?;
        Ok(self.rows.values().cloned().collect())
    }

    /// The rows, as last loaded and since committed.
    #[must_use]
    pub const fn rows(&self) -> &BTreeMap<MigrationId, MigrationRow> {
        &self.rows
    }

    /// The row of one migration.
    #[must_use]
    pub fn get(&self, id: MigrationId) -> Option<&MigrationRow> {
        self.rows.get(&id)
    }

    /// The damaged rows set aside and not yet dealt with.
    pub fn quarantined(&self) -> impl Iterator<Item = &Quarantined> {
        self.quarantined.values()
    }

    /// The permanent failure after which the table answers nothing more.
    #[must_use]
    pub const fn failure(&self) -> Option<&TableError> {
        self.failure.as_ref()
    }

    /// Stores a row, durably, if [`MigrationRow::follows`] allows it. The
    /// repetition of the stored checkpoint writes nothing.
    ///
    /// # Errors
    /// [`TableError`]; on all but the permanent kinds the table is as it was.
    pub fn upsert(&mut self, row: MigrationRow) -> Result<Change, TableError> {
        self.check()?;
        if self.quarantined.contains_key(row.key().as_slice()) {
            return Err(TableError::Quarantined(row.id));
        }
        let current = self.rows.get(&row.id);
        let change = row.follows(current)?;
        if change == Change::Repeated {
            return Ok(change);
        }
        if current.is_none() && self.rows.len() >= self.config.rows_max {
            return Err(TableError::Full(self.rows.len()));
        }
        self.commit(|writer| writer.insert(&row))?;
        self.rows.insert(row.id, row);
        Ok(change)
    }

    /// Removes the row of a migration, or the damaged row in its place, and
    /// returns whether there was one.
    ///
    /// # Errors
    /// The permanent kinds of [`TableError`].
    pub fn remove(&mut self, id: MigrationId) -> Result<bool, TableError> {
        self.check()?;
        let key = id.0.to_be_bytes();
        if !self.rows.contains_key(&id) && !self.quarantined.contains_key(key.as_slice()) {
            return Ok(false);
        }
        self.commit(|writer| writer.remove(&key))?;
        self.rows.remove(&id);
        self.quarantined.remove(key.as_slice());
        Ok(true)
    }

    /// Makes the table hold exactly `rows`, in one commit, and empties the
    /// quarantine: the log these rows come from knows all of them. Only what
    /// differs is written; nothing, if nothing does.
    ///
    /// # Errors
    /// The permanent kinds of [`TableError`].
    pub fn rebuild(
        &mut self,
        rows: impl IntoIterator<Item = MigrationRow>,
    ) -> Result<(), TableError> {
        self.check()?;
        let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.id, row)).collect();
        let is_held = |row: &&MigrationRow| self.rows.get(&row.id) == Some(*row);
        let changed: Vec<_> = rows.values().filter(|row| !is_held(row)).collect();
        let gone = self.rows.values().filter(|row| !rows.contains_key(&row.id));
        let gone = gone.map(|row| Blob::from(row.key().as_slice()));
        let gone: Vec<_> = gone.chain(self.quarantined.keys().cloned()).collect();
        if changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.commit(|writer| {
            gone.iter().try_for_each(|key| writer.remove(key))?;
            changed.iter().try_for_each(|row| writer.insert(row))
        })?;
        for damaged in std::mem::take(&mut self.quarantined).into_values() {
            tracing::warn!(file = %self.config.file, key = ?damaged.key, "replaced a damaged row");
        }
        self.rows = rows;
        Ok(())
    }

    fn load(&mut self) -> Result<(), TableError> {
        let mut content = self.read()?;
        if content.rows.len() + content.damaged.len() < self.rows.len() {
            let message = format!("of {} rows some have vanished", self.rows.len());
            return Err(self.latch(TableError::Damaged { file: self.config.file.clone(), message }));
        }
        if !content.damaged.is_empty() {
            self.commit(|writer| {
                content.damaged.iter().try_for_each(|damaged| writer.quarantine(damaged))
            })?;
        }
        sometimes!("a damaged migration row is set aside", !content.damaged.is_empty());
        for damaged in content.damaged {
            tracing::error!(
                file = %self.config.file, key = ?damaged.key, damage = %damaged.damage,
                "a damaged migration row was set aside"
            );
            content.quarantined.insert(damaged.key.clone(), damaged);
        }
        self.rows = content.rows;
        self.quarantined = content.quarantined;
        Ok(())
    }

    fn read(&mut self) -> Result<Content, TableError> {
        let mut content = Content::default();
        let mut newer = None;
        let read = self.store.read(|key, stored, is_quarantined| {
            let opened = MigrationRow::open(key, stored);
            if is_quarantined {
                let damage = opened.err().map_or_else(String::new, |damage| damage.to_string());
                let quarantined = Quarantined { key: key.into(), stored: stored.into(), damage };
                content.quarantined.insert(quarantined.key.clone(), quarantined);
                return;
            }
            match opened {
                Ok(row) => drop(content.rows.insert(row.id, row)),
                Err(RowDamage::Codec(quorate_types::codec::CodecError::Newer { found, known })) => {
                    newer = Some((found, known))
                }
                Err(damage) => content.damaged.push(Quarantined {
                    key: key.into(),
                    stored: stored.into(),
                    damage: damage.to_string(),
                }),
            }
        });
        let newer = newer.map(|(found, known)| {
            let file = self.config.file.clone();
            TableError::Newer { file, found, known }
        });
        match read.err().or(newer) {
            Some(error) => Err(self.latch(error)),
            None => Ok(content),
        }
    }

    fn commit(
        &mut self,
        change: impl FnOnce(&mut store::Writer<'_>) -> Result<(), redb::Error>,
    ) -> Result<(), TableError> {
        self.store.write(change).map_err(|error| self.latch(error))
    }

    fn latch(&mut self, error: TableError) -> TableError {
        debug_assert!(error.is_permanent(), "only failures of the storage are latched");
        tracing::error!(%error, "the migration table failed for good");
        if matches!(error, TableError::Damaged { .. }) {
            self.store.abandon();
        }
        self.failure.get_or_insert_with(|| error.clone());
        error
    }

    fn check(&self) -> Result<(), TableError> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}
