//! A shard on disk: batches, a restart, a split, and a copy on another engine.
//!
//! `cargo run -p quorate-engine --example embedded_engine`

use quorate_engine::{
    Batch, Engine, EngineError, Fork, MemEngine, Mutation, RedbConfig, RedbEngine, ScanLimit, Space,
};
use quorate_types::disk::DirectoryDisk;
use quorate_types::{KeyRange, ShardId};

const LEFT: ShardId = ShardId(1);
const RIGHT: ShardId = ShardId(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory =
        std::env::temp_dir().join(format!("quorate-embedded-engine-{}", std::process::id()));
    let disk = DirectoryDisk::open(&directory)?;

    // A shard begins at the log index of whatever created it.
    let engine = RedbEngine::open(&disk, "state.redb", RedbConfig::default())?;
    engine.create(LEFT, KeyRange::all(), 1, vec![Mutation::put("epoch", "1")])?;
    for (index, fruit) in (2..).zip(["apple", "banana", "cherry", "mango", "plum"]) {
        engine.ready().await?;
        let data = vec![Mutation::put(fruit, "ripe")];
        engine.apply(LEFT, Batch { index, data, ..Batch::default() })?;
    }
    println!("applied {:?}, durable {:?}", engine.applied(LEFT)?, engine.durable(LEFT)?);
    println!("flushed up to {}", engine.flush(LEFT).await?);
    engine.close().await?;

    // A restart finds it; the log is asked only for what comes after.
    let engine = RedbEngine::open(&disk, "state.redb", RedbConfig::default())?;
    println!("reopened at {:?}", engine.applied(LEFT)?);
    let again = Batch { index: 6, ..Batch::default() };
    if let Err(error @ EngineError::StaleIndex { .. }) = engine.apply(LEFT, again) {
        println!("redelivery refused: {error}");
    }

    // A split moves no row.
    let at = engine.middle_key(LEFT)?.ok_or("too few rows to split")?;
    let child_system = vec![Mutation::put("epoch", "2")];
    let forks = vec![Fork { child: RIGHT, at, child_index: 1, child_system }];
    engine.apply(LEFT, Batch { index: 7, forks, ..Batch::default() })?;
    for shard in engine.shards()? {
        let limit = ScanLimit { rows: 100, bytes: 1 << 20 };
        let page = engine.scan(shard, Space::Data, &KeyRange::all(), limit)?;
        println!("{shard} {:?} holds {} rows", engine.range(shard)?, page.rows.len());
    }

    // The right half travels to another machine, chunk by chunk.
    let elsewhere = MemEngine::new();
    let mut snapshot = engine.snapshot(RIGHT)?;
    let mut staging = elsewhere.staging(RIGHT)?;
    while let Some(chunk) = snapshot.next_chunk(64 << 10)? {
        staging.write(chunk).await?;
    }
    elsewhere.install(RIGHT, staging, Vec::new()).await?;
    println!("here {:?}, there {:?}", engine.hash(RIGHT)?, elsewhere.hash(RIGHT)?);
    engine.remove(RIGHT).await?;

    engine.close().await?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
