//! The engine on disk, against the store under it.
//!
//! A batch is what one write of a client changes in a shard: a data row and
//! two rows of the shard's machine. The engine applies batches of several
//! shards and its committer merges them; the time includes the flush at the
//! end, after which all of them are durable. Beside it: redb alone with a
//! transaction for each batch, which is what the committer saves, and with
//! many batches in one, which is what it can hope for.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench: it measures real time, and what fails ends it"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use quorate_benches::Scoreboard;
use quorate_engine::{Batch, Engine, MemEngine, Mutation, RedbConfig, RedbEngine};
use quorate_types::disk::DirectoryDisk;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::{KeyRange, ShardId};
use redb::{Database, TableDefinition};

const SHARDS: u64 = 8;
const KEYS: u64 = 100_000;
const VALUE: [u8; 100] = [0x5a; 100];
const HEADER: [u8; 64] = [1; 64];
const REMEMBERED: [u8; 80] = [2; 80];
/// Clients whose requests a shard's machine remembers.
const CLIENTS: u64 = 256;
/// Batches in one transaction of redb alone.
const MERGED: u64 = 256;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

fn main() {
    let mut criterion = quorate_benches::criterion();
    bench(&mut criterion);
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion) {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut group = criterion.benchmark_group("engine_apply");
    group.sampling_mode(SamplingMode::Flat);
    let mut scores = Scoreboard::of("batches");

    let alone = "redb alone, 1 batch per transaction";
    let mut plain = Plain::open(scratch.path(), "alone.redb");
    scores.bench(&mut group, alone, &[], 1, |batches| plain.commit(batches, 1));

    let merged = format!("redb alone, {MERGED} batches per transaction");
    let mut plain = Plain::open(scratch.path(), "merged.redb");
    scores.bench(&mut group, &merged, &[], MERGED, |rounds| plain.commit(rounds, MERGED));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let disk = DirectoryDisk::open(scratch.path()).unwrap();
    let mut feed = runtime.block_on(async {
        let engine = RedbEngine::open(&disk, "engine.redb", RedbConfig::default()).unwrap();
        Feed::into(engine)
    });
    // Rounds of many, so that the flush at the end is no large part.
    let batches = 16 * MERGED;
    scores.bench(&mut group, "engine", &[alone, merged.as_str()], batches, |rounds| {
        runtime.block_on(feed.apply(batches * rounds))
    });

    let mut feed = Feed::into(MemEngine::new());
    scores.bench(&mut group, "engine in memory, not durable", &[], MERGED, |rounds| {
        runtime.block_on(feed.apply(MERGED * rounds))
    });
    group.finish();
    println!(
        "\nengine_apply, batches of 3 rows over {SHARDS} shards, durable at the end:\n{scores}"
    );
}

/// The keys of a batch, after one another at random.
struct Keys(SplitMix);

impl Keys {
    fn next(&mut self) -> (String, String) {
        let key = format!("key:{:08}", self.0.below(KEYS));
        let client = format!("request:{:08}", self.0.below(CLIENTS));
        (key, client)
    }
}

/// redb without an engine.
struct Plain {
    database: Database,
    keys: Keys,
}

impl Plain {
    fn open(directory: &Path, name: &str) -> Self {
        let database = Database::create(directory.join(name)).unwrap();
        Self { database, keys: Keys(SplitMix::new(1)) }
    }

    fn commit(&mut self, transactions: u64, batches: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..transactions {
            let transaction = self.database.begin_write().unwrap();
            {
                let mut rows = transaction.open_table(ROWS).unwrap();
                for _ in 0..batches {
                    let (key, client) = self.keys.next();
                    rows.insert(key.as_bytes(), VALUE.as_slice()).unwrap();
                    rows.insert(client.as_bytes(), REMEMBERED.as_slice()).unwrap();
                    rows.insert(b"header".as_slice(), HEADER.as_slice()).unwrap();
                }
            }
            transaction.commit().unwrap();
        }
        start.elapsed()
    }
}

/// An engine and the shards that are written to in turn.
struct Feed<E> {
    engine: E,
    index: u64,
    keys: Keys,
}

impl<E: Engine> Feed<E> {
    fn into(engine: E) -> Self {
        for shard in 0..SHARDS {
            engine.create(ShardId(shard), KeyRange::all(), 1, Vec::new()).unwrap();
        }
        Self { engine, index: 1, keys: Keys(SplitMix::new(1)) }
    }

    async fn apply(&mut self, batches: u64) -> Duration {
        let start = Instant::now();
        for number in 0..batches {
            self.engine.ready().await.unwrap();
            self.index += 1;
            let (key, client) = self.keys.next();
            let batch = Batch {
                index: self.index,
                data: vec![Mutation::put(key.as_str(), &VALUE)],
                system: vec![
                    Mutation::put(client.as_str(), &REMEMBERED),
                    Mutation::put("header", &HEADER),
                ],
                ..Batch::default()
            };
            self.engine.apply(ShardId(number % SHARDS), batch).unwrap();
        }
        for shard in 0..SHARDS {
            self.engine.flush(ShardId(shard)).await.unwrap();
        }
        start.elapsed()
    }
}
