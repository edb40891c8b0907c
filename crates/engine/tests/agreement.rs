//! The same batches make the same states in both engines, whenever commits
//! happen in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use proptest::prelude::*;
use quorate_engine::{
    Batch, Engine, EngineError, Fork, MemEngine, Mutation, RedbConfig, RedbEngine, ScanLimit, Space,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, KeyRange, ShardId};
use support::{TestDisk, is_ready, simulate};

const FIRST: ShardId = ShardId(1);

#[derive(Debug, Clone)]
enum Step {
    Apply { shard: u64, batch: Batch },
    Flush,
    Remove { shard: u64 },
}

fn key() -> impl Strategy<Value = Blob> {
    prop::collection::vec(b'a'..b'e', 0..3).prop_map(Blob::from)
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..20).prop_map(Blob::from));
    let mutation = (key(), value).prop_map(|(key, value)| Mutation { key, value });
    prop::collection::vec(mutation, 0..8)
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), prop::option::of(key())).prop_map(|(start, end)| KeyRange { start, end })
}

fn fork() -> impl Strategy<Value = Fork> {
    (1..6_u64, key(), mutations()).prop_map(|(child, at, child_system)| Fork {
        child: ShardId(child),
        at,
        child_index: 1,
        child_system,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let fork = prop::option::weighted(0.3, fork());
    let clears = prop::collection::vec(range(), 0..2);
    let index = 1..1_000_u64;
    let batch = (index, mutations(), mutations(), clears, fork).prop_map(
        |(index, data, system, clears, fork)| {
            let forks = fork.into_iter().collect();
            Batch { index, data, system, clears, forks }
        },
    );
    prop_oneof![
        8 => (1..4_u64, batch).prop_map(|(shard, batch)| Step::Apply { shard, batch }),
        2 => Just(Step::Flush),
        1 => (1..6_u64).prop_map(|shard| Step::Remove { shard }),
    ]
}

fn outcome<T>(result: Result<T, EngineError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// A redb engine whose commits can be stopped half way.
struct Stopped {
    disk: TestDisk,
    engine: RedbEngine,
    in_flight: Option<BoxFuture<Result<u64, EngineError>>>,
}

impl Stopped {
    /// Has a commit begin, and stop before it is durable.
    fn stop(&mut self, shard: ShardId) {
        self.disk.hold_syncs();
        let mut flush = self.engine.flush(shard);
        if !is_ready(&mut flush) {
            self.disk.await_held_sync();
            self.in_flight = Some(flush);
        }
    }

    async fn go_on(&mut self) {
        self.disk.release_syncs();
        if let Some(flush) = self.in_flight.take() {
            drop(flush.await);
        }
    }
}

/// Runs the steps on both engines; `stops` also tells whether everything has
/// to hold while a commit is in flight.
async fn run(steps: Vec<Step>, stops: bool) {
    let disk = TestDisk::default();
    // A shard counts as large with its third row, for clears take another way.
    let config = RedbConfig { collected_rows_max: 2, ..RedbConfig::default() };
    let engine = RedbEngine::open(&disk, "state", config).unwrap();
    let mut redb = Stopped { disk: disk.clone(), engine, in_flight: None };
    let memory = MemEngine::new();
    for engine in [&redb.engine as &dyn Engine, &memory] {
        assert!(engine.create(FIRST, KeyRange::all(), 0, Vec::new()).unwrap());
    }
    for step in steps {
        match step {
            Step::Apply { shard, batch } => {
                let shard = ShardId(shard);
                let range = memory.range(shard).unwrap().unwrap_or_default();
                let applied = memory.applied(shard).unwrap().unwrap_or_default();
                let mut batch = Batch { index: applied + batch.index % 4, ..batch };
                batch.data.retain(|mutation| range.contains(&mutation.key));
                let one = outcome(redb.engine.apply(shard, batch.clone()));
                assert_eq!(one, outcome(memory.apply(shard, batch)));
            }
            Step::Flush if stops && redb.in_flight.is_none() => {
                let shards = memory.shards().unwrap();
                shards.into_iter().take(1).for_each(|shard| redb.stop(shard));
            }
            Step::Flush => {
                redb.go_on().await;
                drop(redb.engine.flush(FIRST).await);
            }
            Step::Remove { shard } => {
                redb.go_on().await;
                redb.engine.remove(ShardId(shard)).await.unwrap();
                memory.remove(ShardId(shard)).await.unwrap();
            }
        }
        compare(&redb.engine, &memory);
    }
    redb.go_on().await;
    compare(&redb.engine, &memory);
    redb.engine.close().await.unwrap();
    let reopened = RedbEngine::open(&disk, "state", RedbConfig::default()).unwrap();
    compare(&reopened, &memory);
    reopened.close().await.unwrap();
}

fn compare(one: &dyn Engine, other: &dyn Engine) {
    let shards = one.shards().unwrap();
    assert_eq!(shards, other.shards().unwrap());
    for shard in shards {
        assert_eq!(one.hash(shard).unwrap(), other.hash(shard).unwrap());
        assert_eq!(one.range(shard).unwrap(), other.range(shard).unwrap());
        for limit in [1, 3, 100] {
            let limit = ScanLimit { rows: limit, bytes: 10 * limit };
            let range = KeyRange::new("ab", "d");
            let [a, b] = [one, other].map(|engine| {
                let page = engine.scan(shard, Space::Data, &range, limit).unwrap();
                assert!(page.rows.iter().all(|(key, value)| {
                    engine.get(shard, Space::Data, key).unwrap().as_ref() == Some(value)
                }));
                page
            });
            assert_eq!(a, b);
        }
        assert_eq!(one.middle_key(shard).unwrap(), other.middle_key(shard).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn both_engines_agree_on_everything(steps in prop::collection::vec(step(), 1..30)) {
        simulate(7, run(steps, false));
    }

    #[test]
    fn both_engines_agree_while_a_commit_is_in_flight(
        steps in prop::collection::vec(step(), 1..30),
    ) {
        // Two threads: this one, and the committer that is stopped.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(run(steps, true));
    }
}
