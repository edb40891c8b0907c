//! Rows and records of the file, behind their checksums.

use quorate_testkit::disk::CrashDisk;
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::Corpus;
use quorate_types::codec::{encode, seal_row};
use quorate_types::disk::Disk;
use quorate_types::{Blob, KeyRange, ShardId};
use redb::{Builder, Database, TableDefinition};

use super::backend::DiskBackend;
use super::format::{
    GARBAGE, Garbage, Record, SHARDS, SpaceId, open_format, open_next_space, open_row, row_key,
    row_keys,
};
use super::{RedbConfig, RedbEngine};
use crate::port::{Batch, Engine, Mutation, ScanLimit, Space};

quorate_testkit::fuzz_allocator!();

const FORMAT: u8 = 1;
const SHARD: ShardId = ShardId(1);

fn ranges() -> [KeyRange; 4] {
    [KeyRange::all(), KeyRange::new("b", "t"), KeyRange::new("t", "b"), KeyRange::new("", "m")]
}

fn record(range: KeyRange) -> Record {
    let (data, system) = (SpaceId(0), SpaceId(1));
    Record { data, system, range, applied: 7, rows_estimate: 3, bytes_estimate: 40 }
}

fn records() -> Vec<Vec<u8>> {
    ranges().into_iter().map(|range| encode(&record(range)).to_vec()).collect()
}

fn garbage() -> Vec<Vec<u8>> {
    let garbage = |range| Garbage { space: SpaceId(1), range };
    ranges().into_iter().map(|range| encode(&garbage(range)).to_vec()).collect()
}

/// The key under which a record of a table is sealed.
fn record_key(table: &str, number: u64) -> Vec<u8> {
    [table.as_bytes(), &number.to_be_bytes()].concat()
}

#[test]
fn any_bytes_are_a_record_or_none() {
    fuzz!(Corpus::of(records().into_iter().chain(garbage())), |input| {
        fuzz::frugal(input.len(), || {
            (Record::open(SHARD, input).is_ok(), Garbage::open(9, input).is_ok())
        });
        let _ = (open_next_space(input), open_format(input), open_row(b"key", input));
        if let Ok(record) = Record::open(SHARD, &seal_row(&record_key("shards", 1), FORMAT, input))
        {
            let again = Record::open(SHARD, &record.seal(SHARD)).map(|record| encode(&record));
            assert_eq!(again.ok(), Some(encode(&record)));
            let (start, end) = row_keys(record.data, &record.range);
            assert!(start <= end || record.range.is_empty());
            let inside = row_key(record.data, &record.range.start);
            assert!(inside >= start && (inside < end || start >= end));
        }
        if let Ok(garbage) = Garbage::open(9, &seal_row(&record_key("garbage", 9), FORMAT, input)) {
            assert_eq!(Garbage::open(9, &garbage.seal(9)).ok(), Some(garbage));
        }
        assert!(open_next_space(&seal_row(b"next_space", FORMAT, input)).is_err());
    });
}

/// A file with a shard of three rows.
async fn written() -> CrashDisk {
    let disk = CrashDisk::new(1);
    let engine = RedbEngine::open(&disk, "state", RedbConfig::default()).unwrap();
    engine.create(SHARD, KeyRange::new("b", "t"), 1, vec![Mutation::put("cursor", "1")]).unwrap();
    let data = vec![Mutation::put("c", "x"), Mutation::put("s", "y")];
    engine.apply(SHARD, Batch { index: 2, data, ..Batch::default() }).unwrap();
    engine.close().await.unwrap();
    disk
}

fn put(db: &Database, table: TableDefinition<'_, u64, &[u8]>, number: u64, row: &[u8]) {
    let transaction = db.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(number, row).unwrap();
    transaction.commit().unwrap();
}

/// Everything that can be asked of a shard.
fn ask(engine: &RedbEngine, shard: ShardId) {
    let limit = ScanLimit { rows: 10, bytes: 1_000 };
    for space in [Space::Data, Space::System] {
        let _ = engine.get(shard, space, b"c");
        for range in ranges() {
            let _ = engine.scan(shard, space, &range, limit);
        }
    }
    let _ = (engine.hash(shard), engine.middle_key(shard), engine.status(shard));
    if let Ok(mut snapshot) = engine.snapshot(shard) {
        while let Ok(Some(_)) = snapshot.next_chunk(64) {}
    }
}

/// A record that passes its checksum was written by an engine; should one not
/// make sense all the same, the engine refuses the file or lives with it.
#[test]
fn a_file_with_any_record_is_refused_or_served() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let image = runtime.block_on(written()).image();
    let sealed = |kind: u8, payloads: Vec<Vec<u8>>| {
        payloads.into_iter().map(move |payload| [&[kind][..], &payload].concat())
    };
    fuzz!(Corpus::of(sealed(0, records()).chain(sealed(1, garbage()))), |input| {
        let Some((kind, payload)) = input.split_first() else { return };
        let disk = CrashDisk::from_image(&image, 1);
        let db = Builder::new()
            .create_with_backend(DiskBackend::new(disk.open("state").unwrap()))
            .unwrap();
        let number = u64::from(kind >> 1);
        match kind & 1 {
            0 => {
                put(&db, SHARDS, number, &seal_row(&record_key("shards", number), FORMAT, payload))
            }
            _ => put(
                &db,
                GARBAGE,
                number,
                &seal_row(&record_key("garbage", number), FORMAT, payload),
            ),
        }
        drop(db);
        runtime.block_on(async {
            let Ok(engine) = RedbEngine::open(&disk, "state", RedbConfig::default()) else {
                return;
            };
            for shard in engine.shards().unwrap() {
                ask(&engine, shard);
                let data = vec![Mutation::put("d", Blob::from("z"))];
                let _ = engine.apply(shard, Batch { index: 100, data, ..Batch::default() });
                let _ = engine.flush(shard).await;
                ask(&engine, shard);
                let _ = engine.remove(shard).await;
            }
            let _ = engine.close().await;
        });
    });
}
