//! Power fails at any write or sync: each shard comes back at a batch
//! boundary, no earlier than its last flush, and forks come back whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_engine::{
    Batch, Engine, EngineError, Fork, MemEngine, Mutation, RedbConfig, RedbEngine,
};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::{Blob, KeyRange, ShardId};
use support::{TestDisk, simulate};

const SEEDS: u64 = 120;
const LIVES: u64 = 4;
const STEPS: u64 = 60;
const FIRST: ShardId = ShardId(1);

/// What must be found after the next boot.
#[derive(Default)]
struct Ledger {
    /// The hash of every state that a shard has been in.
    states: BTreeMap<(ShardId, u64), u128>,
    flushed: BTreeMap<ShardId, u64>,
    forks: Vec<(ShardId, u64, ShardId)>,
    /// Removed, or being removed when power failed.
    removed: BTreeMap<ShardId, bool>,
}

impl Ledger {
    fn note(&mut self, model: &MemEngine, shard: ShardId) {
        let state = model.hash(shard).unwrap();
        self.states.insert((shard, state.index), state.hash);
    }

    fn check(&self, engine: &RedbEngine) {
        let found: BTreeSet<_> = engine.shards().unwrap().into_iter().collect();
        for shard in &found {
            let state = engine.hash(*shard).unwrap();
            assert_eq!(self.states.get(&(*shard, state.index)), Some(&state.hash), "{shard}");
            assert_eq!(engine.durable(*shard).unwrap(), Some(state.index));
            assert_ne!(self.removed.get(shard), Some(&true), "{shard} is back");
        }
        for (shard, index) in &self.flushed {
            let applied = engine.applied(*shard).unwrap();
            let is_kept = applied.is_some_and(|applied| applied >= *index);
            assert!(is_kept || self.removed.contains_key(shard), "{shard}: lost {index}");
        }
        for (parent, index, child) in &self.forks {
            if self.removed.contains_key(parent) || self.removed.contains_key(child) {
                continue;
            }
            let is_forked = engine.applied(*parent).unwrap().is_some_and(|at| at >= *index);
            assert_eq!(found.contains(child), is_forked, "half a fork of {parent} into {child}");
        }
    }
}

struct World {
    chance: SplitMix,
    model: MemEngine,
    ledger: Ledger,
    next_shard: u64,
}

impl World {
    /// Does random things to the engine and to the model until one fails.
    async fn live(&mut self, engine: &RedbEngine) -> Result<(), EngineError> {
        if engine.create(FIRST, KeyRange::all(), 1, Vec::new())? {
            self.model.create(FIRST, KeyRange::all(), 1, Vec::new()).unwrap();
            self.ledger.note(&self.model, FIRST);
        }
        for _ in 0..STEPS {
            let shards = self.model.shards().unwrap();
            let shard = shards[self.chance.below(shards.len() as u64) as usize];
            match self.chance.below(20) {
                0 | 1 => self.fork(engine, shard)?,
                2..=4 => {
                    let durable = engine.flush(shard).await?;
                    self.ledger.flushed.insert(shard, durable);
                }
                5 => self.reinstall(engine, shard).await?,
                6 if shard != FIRST => self.remove(engine, shard).await?,
                7 | 8 => {
                    tokio::time::sleep(Duration::from_millis(self.chance.below(300))).await;
                }
                _ => {
                    let batch = self.batch(shard);
                    self.apply(engine, shard, batch)?;
                }
            }
        }
        Ok(())
    }

    fn key(&mut self, range: &KeyRange) -> Option<Blob> {
        let key: Blob = format!("{:03}", self.chance.below(400)).as_str().into();
        range.contains(&key).then_some(key)
    }

    fn batch(&mut self, shard: ShardId) -> Batch {
        let index = self.model.applied(shard).unwrap().unwrap() + 1 + self.chance.below(3);
        let range = self.model.range(shard).unwrap().unwrap();
        let mut batch = Batch { index, ..Batch::default() };
        batch.system.push(Mutation::put("cursor", index.to_string().as_str()));
        for _ in 0..self.chance.below(30) {
            let Some(key) = self.key(&range) else { continue };
            let value = vec![self.chance.next_u64() as u8; self.chance.below(300) as usize];
            let is_put = self.chance.below(4) > 0;
            batch.data.push(Mutation { key, value: is_put.then(|| value.into()) });
        }
        match self.chance.below(12) {
            0 => batch.clears.push(KeyRange::all()),
            1 => batch.clears.push(KeyRange::new("100", "150")),
            _ => {}
        }
        batch
    }

    fn apply(
        &mut self,
        engine: &RedbEngine,
        shard: ShardId,
        batch: Batch,
    ) -> Result<(), EngineError> {
        self.model.apply(shard, batch.clone()).unwrap();
        self.ledger.note(&self.model, shard);
        engine.apply(shard, batch)
    }

    fn fork(&mut self, engine: &RedbEngine, shard: ShardId) -> Result<(), EngineError> {
        let range = self.model.range(shard).unwrap().unwrap();
        let Some(at) = self.key(&range).filter(|at| range.split_at(at).is_some()) else {
            return Ok(());
        };
        self.next_shard += 1;
        let child = ShardId(self.next_shard);
        let child_system = vec![Mutation::put("cursor", "born")];
        let forks = vec![Fork { child, at, child_index: 10, child_system }];
        let batch = Batch { forks, ..self.batch(shard) };
        self.ledger.forks.push((shard, batch.index, child));
        let applied = self.apply(engine, shard, batch);
        self.ledger.note(&self.model, child);
        applied
    }

    /// Installs the state that the shard has anyway.
    async fn reinstall(&mut self, engine: &RedbEngine, shard: ShardId) -> Result<(), EngineError> {
        let mut snapshot = self.model.snapshot(shard).unwrap();
        let mut staging = engine.staging(shard)?;
        while let Some(chunk) = snapshot.next_chunk(2_000).unwrap() {
            staging.write(chunk).await?;
            if self.chance.below(20) == 0 {
                return Ok(());
            }
        }
        engine.install(shard, staging, Vec::new()).await?;
        self.ledger.flushed.insert(shard, snapshot.index());
        Ok(())
    }

    async fn remove(&mut self, engine: &RedbEngine, shard: ShardId) -> Result<(), EngineError> {
        self.ledger.removed.insert(shard, false);
        engine.remove(shard).await?;
        self.ledger.removed.insert(shard, true);
        self.model.remove(shard).await
    }

    /// After a boot the engine is the truth, and the model follows it.
    async fn adopt(&mut self, engine: &RedbEngine) {
        self.model = MemEngine::new();
        self.ledger = Ledger::default();
        for shard in engine.shards().unwrap() {
            let mut snapshot = engine.snapshot(shard).unwrap();
            let mut staging = self.model.staging(shard).unwrap();
            while let Some(chunk) = snapshot.next_chunk(1 << 20).unwrap() {
                staging.write(chunk).await.unwrap();
            }
            self.model.install(shard, staging, Vec::new()).await.unwrap();
            self.ledger.note(&self.model, shard);
            self.ledger.flushed.insert(shard, snapshot.index());
        }
    }
}

fn config() -> RedbConfig {
    RedbConfig {
        commit_bytes: 32 << 10,
        commit_age_max: Duration::from_millis(100),
        collected_rows_max: 8,
        ..RedbConfig::default()
    }
}

async fn survive(seed: u64) {
    let chance = SplitMix::new(seed);
    let mut world =
        World { chance, model: MemEngine::new(), ledger: Ledger::default(), next_shard: 1 };
    let mut disk = TestDisk::default();
    for _ in 0..LIVES {
        disk.cut_after(world.chance.below(400));
        if let Ok(engine) = RedbEngine::open(&disk, "state", config()) {
            // Whether power failed meanwhile or fails now is all the same.
            drop(world.live(&engine).await);
            disk.cut_after(0);
        }
        disk = disk.after_power_cut(&mut world.chance);
        let engine = RedbEngine::open(&disk, "state", config()).unwrap();
        world.ledger.check(&engine);
        world.adopt(&engine).await;
        engine.close().await.unwrap();
    }
}

#[test]
fn a_power_cut_leaves_every_shard_at_a_batch_boundary_after_its_last_flush() {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| simulate(seed, survive(seed)));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn closing_loses_nothing() {
    simulate(1, async {
        let disk = TestDisk::default();
        let engine = RedbEngine::open(&disk, "state", config()).unwrap();
        let chance = SplitMix::new(1);
        let mut world =
            World { chance, model: MemEngine::new(), ledger: Ledger::default(), next_shard: 1 };
        world.live(&engine).await.unwrap();
        engine.close().await.unwrap();
        assert!(matches!(engine.shards(), Err(EngineError::Closed)));
        assert!(matches!(engine.flush(FIRST).await, Err(EngineError::Closed)));
        let disk = disk.after_power_cut(&mut world.chance);
        let engine = RedbEngine::open(&disk, "state", config()).unwrap();
        assert_eq!(engine.shards().unwrap(), world.model.shards().unwrap());
        for shard in engine.shards().unwrap() {
            assert_eq!(engine.hash(shard).unwrap(), world.model.hash(shard).unwrap());
        }
    });
}
