//! From a file to an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;

use quorate_types::ShardId;
use quorate_types::codec::CodecError;
use quorate_types::disk::{Disk, restart_creation};
use quorate_types::owner::Owner;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

use super::RedbConfig;
use super::backend::{DiskBackend, contain};
use super::committer::Committer;
use super::format::{
    ENGINE, FORMAT_KEY, FORMAT_VERSION, GARBAGE, Garbage, NEXT_SPACE_KEY, OWNER_KEY, ROWS, Record,
    SHARDS, SpaceId, open_format, open_next_space, seal_format, seal_next_space,
};
use super::shared::Shared;
use super::state::{Directory, ShardState};
use super::view::View;
use crate::error::EngineError;

/// The error of a file that cannot be opened.
pub(super) fn refusal(file: &Arc<str>, source: impl Error + Send + Sync + 'static) -> EngineError {
    EngineError::Open { file: Arc::clone(file), source: Arc::new(source) }
}

/// Opens or creates the file; the committer is still to be run.
pub(super) fn open(
    disk: &dyn Disk,
    name: &str,
    config: RedbConfig,
) -> Result<(Arc<Shared>, Committer), EngineError> {
    let file: Arc<str> = name.into();
    let not_ours = |error| EngineError::Owner { file: Arc::clone(&file), source: Arc::new(error) };
    let is_there = disk.exists(name).map_err(|error| refusal(&file, error))?;
    if let Some(owner) = config.owner.filter(|_| !is_there) {
        // Before an empty file takes the place of the lost one.
        owner.judge(None).map_err(not_ours)?;
    }
    let handle = disk.open(name).map_err(|error| refusal(&file, error))?;
    restart_creation(name, &*handle).map_err(|error| refusal(&file, error))?;
    let broken = |source| EngineError::Open { file: Arc::clone(&file), source };
    let db = contain(|| {
        let mut builder = Builder::new();
        builder.set_cache_size(config.cache_bytes);
        Ok(builder.create_with_backend(DiskBackend::new(handle))?)
    })
    .map_err(broken)?;
    match contain(|| state_of(&db)).map_err(broken)? {
        State::Engine => {}
        State::Empty => contain(|| initialize(&db)).map_err(broken)?,
        State::Foreign => return Err(EngineError::NotAnEngine { file }),
    }
    if let Some(owner) = config.owner {
        let mark = contain(|| read_mark(&db)).map_err(broken)?;
        if !owner.judge(mark.as_deref()).map_err(not_ours)? {
            contain(|| write_mark(&db, owner)).map_err(broken)?;
        }
    }
    let stored = contain(|| Stored::read(&db)).map_err(broken)?;
    let contents = stored.verify().map_err(|error| match error {
        CodecError::Newer { found, known } => {
            EngineError::NewerFormat { file: Arc::clone(&file), found, known }
        }
        other => refusal(&file, other),
    })?;
    let view = contain(|| View::open(&db)).map_err(broken)?;

    let Contents { shards, garbage, next_space } = contents;
    let shards = shards
        .into_iter()
        .map(|(shard, record)| (shard, ShardState::committed(record).into()))
        .collect();
    let directory =
        Directory { shards, arriving: BTreeSet::new(), view: Some(view), generation: 0 };
    let shared = Arc::new(Shared::new(file, config, directory, next_space));
    Ok((Arc::clone(&shared), Committer::new(shared, db, garbage, next_space)))
}

enum State {
    /// Not a table in it.
    Empty,
    /// It has the tables of this engine.
    Engine,
    /// It has tables of someone else's.
    Foreign,
}

fn state_of(db: &Database) -> Result<State, redb::Error> {
    let names: BTreeSet<String> =
        db.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect();
    let ours = [ROWS.name(), SHARDS.name(), GARBAGE.name(), ENGINE.name()];
    Ok(match names.is_empty() {
        true => State::Empty,
        false if ours.iter().all(|table| names.contains(*table)) => State::Engine,
        false => State::Foreign,
    })
}

fn initialize(db: &Database) -> Result<(), redb::Error> {
    let transaction = db.begin_write()?;
    transaction.open_table(ROWS)?;
    transaction.open_table(SHARDS)?;
    transaction.open_table(GARBAGE)?;
    {
        let mut engine = transaction.open_table(ENGINE)?;
        engine.insert(FORMAT_KEY, &*seal_format(FORMAT_VERSION))?;
        engine.insert(NEXT_SPACE_KEY, &*seal_next_space(SpaceId(0)))?;
    }
    transaction.commit()?;
    Ok(())
}

fn read_mark(db: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let engine = db.begin_read()?.open_table(ENGINE)?;
    Ok(engine.get(OWNER_KEY)?.map(|mark| mark.value().to_vec()))
}

fn write_mark(db: &Database, owner: Owner) -> Result<(), redb::Error> {
    let transaction = db.begin_write()?;
    transaction.open_table(ENGINE)?.insert(OWNER_KEY, &*owner.mark())?;
    Ok(transaction.commit()?)
}

/// Records as read, before any is believed.
struct Stored {
    format: Vec<u8>,
    next_space: Vec<u8>,
    shards: BTreeMap<u64, Vec<u8>>,
    garbage: BTreeMap<u64, Vec<u8>>,
}

struct Contents {
    shards: BTreeMap<ShardId, Record>,
    garbage: BTreeMap<u64, Garbage>,
    next_space: SpaceId,
}

impl Stored {
    fn read(db: &Database) -> Result<Self, redb::Error> {
        let transaction = db.begin_read()?;
        let engine = transaction.open_table(ENGINE)?;
        let value = |key| -> Result<Vec<u8>, redb::Error> {
            Ok(engine.get(key)?.map(|row| row.value().to_vec()).unwrap_or_default())
        };
        let records = |table: TableDefinition<u64, &'static [u8]>| -> Result<BTreeMap<u64, Vec<u8>>, redb::Error> {
            let mut records = BTreeMap::new();
            for row in transaction.open_table(table)?.iter()? {
                let (number, record) = row?;
                records.insert(number.value(), record.value().to_vec());
            }
            Ok(records)
        };
        Ok(Self {
            format: value(FORMAT_KEY)?,
            next_space: value(NEXT_SPACE_KEY)?,
            shards: records(SHARDS)?,
            garbage: records(GARBAGE)?,
        })
    }

    fn verify(&self) -> Result<Contents, CodecError> {
        open_format(&self.format)?;
        let shards = self.shards.iter().map(|(id, row)| {
            let shard = ShardId(*id);
            Record::open(shard, row).map(|record| (shard, record))
        });
        let garbage = self
            .garbage
            .iter()
            .map(|(number, row)| Garbage::open(*number, row).map(|garbage| (*number, garbage)));
        Ok(Contents {
            shards: shards.collect::<Result<_, _>>()?,
            garbage: garbage.collect::<Result<_, _>>()?,
            next_space: open_next_space(&self.next_space)?,
        })
    }
}
