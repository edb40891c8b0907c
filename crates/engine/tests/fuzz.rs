//! Snapshots as a hostile sender would send them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use bytes::Bytes;
use quorate_engine::{
    Batch, Engine, EngineError, MemEngine, Mutation, RedbConfig, RedbEngine, ScanLimit, Space,
    Staging, StateHash,
};
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::codec::{ROW_HEADER_BYTES, seal_row};
use quorate_types::{KeyRange, ShardId};
use support::{TestDisk, simulate};

quorate_testkit::fuzz_allocator!();

const SHARD: ShardId = ShardId(1);
const OTHER: ShardId = ShardId(2);
const CHUNK_VERSION: u8 = 1;

/// The chunks of a shard with rows in both spaces, a few rows each.
fn chunks(range: KeyRange, index: u64) -> (Vec<Bytes>, StateHash) {
    let engine = MemEngine::new();
    engine.create(SHARD, range, 1, vec![Mutation::put("cursor", "9")]).unwrap();
    let data = ["c", "f", "k", "r"].map(|key| Mutation::put(key, vec![b'v'; 12]));
    let system = ["p1", "p2"].map(|key| Mutation::put(key, "pending"));
    let batch = Batch { index, data: data.into(), system: system.into(), ..Batch::default() };
    engine.apply(SHARD, batch).unwrap();
    let mut snapshot = engine.snapshot(SHARD).unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = snapshot.next_chunk(20).unwrap() {
        chunks.push(chunk);
    }
    (chunks, engine.hash(SHARD).unwrap())
}

fn sealed(sequence: u64, payload: &[u8]) -> Bytes {
    seal_row(&sequence.to_be_bytes(), CHUNK_VERSION, payload)
}

fn payload(chunk: &Bytes) -> Bytes {
    chunk.slice(ROW_HEADER_BYTES..)
}

/// The two implementations with a shard that has nothing to do with it.
struct Engines {
    mem: MemEngine,
    redb: RedbEngine,
}

impl Engines {
    fn open(disk: &TestDisk) -> Self {
        let redb = RedbEngine::open(disk, "state", RedbConfig::default()).unwrap();
        let engines = Self { mem: MemEngine::new(), redb };
        for engine in engines.both() {
            engine.create(OTHER, KeyRange::all(), 1, Vec::new()).unwrap();
            let data = vec![Mutation::put("c", "unmoved")];
            engine.apply(OTHER, Batch { index: 2, data, ..Batch::default() }).unwrap();
        }
        engines
    }

    fn both(&self) -> [&dyn Engine; 2] {
        [&self.mem, &self.redb]
    }

    /// What is visible of the shard, the same in both.
    fn hash(&self) -> Option<StateHash> {
        let [mem, redb] = self.both().map(|engine| match engine.hash(SHARD) {
            Ok(hash) => Some(hash),
            Err(EngineError::UnknownShard(_)) => None,
            Err(error) => panic!("{error}"),
        });
        assert_eq!(mem, redb, "engines agree");
        mem
    }

    fn check_other(&self) {
        for engine in self.both() {
            let limit = ScanLimit { rows: 9, bytes: 999 };
            let page = engine.scan(OTHER, Space::Data, &KeyRange::all(), limit).unwrap();
            assert_eq!(page.rows, [("c".into(), "unmoved".into())]);
        }
    }
}

/// The next chunk to be written, as it is or otherwise.
fn next_chunk(choices: &mut Choices<'_>, due: usize, honest: &[Bytes], foreign: &[Bytes]) -> Bytes {
    let due_chunk = &honest[due.min(honest.len() - 1)];
    match choices.below(16) {
        0 => choices.pick(honest).unwrap().clone(),
        1 => choices.pick(foreign).unwrap().clone(),
        2 => due_chunk.slice(..choices.below(due_chunk.len())),
        3 => {
            let mut damaged = due_chunk.to_vec();
            let at = choices.below(damaged.len());
            damaged[at] ^= 1 << choices.below(8);
            damaged.into()
        }
        4 => {
            let mut hostile = payload(due_chunk).to_vec();
            let at = choices.below(hostile.len());
            hostile[at] = choices.byte();
            sealed(due as u64, &hostile)
        }
        5 => sealed(due as u64, &payload(choices.pick(foreign).unwrap())),
        _ => due_chunk.clone(),
    }
}

#[test]
fn chunks_in_any_order_install_a_snapshot_or_leave_nothing() {
    let (honest, hash) = chunks(KeyRange::new("b", "t"), 7);
    let (foreign, _) = chunks(KeyRange::all(), 8);
    fuzz!(Corpus::random(60), |input| {
        let mut choices = Choices::new(input);
        let has_shard = choices.flag();
        simulate(1, async {
            let disk = TestDisk::default();
            let engines = Engines::open(&disk);
            if has_shard {
                for engine in engines.both() {
                    engine.create(SHARD, KeyRange::all(), 3, Vec::new()).unwrap();
                }
            }
            let before = engines.hash();
            let mut staged: Vec<Box<dyn Staging>> =
                engines.both().map(|engine| engine.staging(SHARD).unwrap()).into();
            let (mut due, mut is_honest) = (0, true);
            for _ in 0..choices.below(honest.len() + 3) {
                let chunk = next_chunk(&mut choices, due, &honest, &foreign);
                is_honest &= honest.get(due) == Some(&chunk);
                let mut outcomes = Vec::new();
                for staging in &mut staged {
                    let written = staging.write(chunk.clone()).await;
                    outcomes.push(written.map_err(|error| error.to_string()));
                }
                assert_eq!(outcomes[0], outcomes[1], "engines agree");
                due += usize::from(outcomes[0].is_ok());
                assert!(outcomes[0].is_ok() || !is_honest, "what is honest is taken");
                assert_eq!(staged[0].is_complete(), staged[1].is_complete());
                assert_eq!(staged[0].index(), staged[1].index());
                assert_eq!(engines.hash(), before, "nothing is visible before it is installed");
            }
            let is_complete = staged[0].is_complete();
            assert!(!is_honest || is_complete == (due == honest.len()));
            for (engine, staging) in engines.both().into_iter().zip(staged) {
                let installed = engine.install(SHARD, staging, Vec::new()).await;
                assert_eq!(installed.is_ok(), is_complete, "{installed:?}");
            }
            let after = engines.hash();
            match (is_complete, is_honest) {
                (true, true) => assert_eq!(after, Some(hash)),
                (true, false) => assert!(after.is_some()),
                (false, _) => assert_eq!(after, before, "nothing is left"),
            }
            engines.check_other();
            engines.redb.close().await.unwrap();
        });
    });
}

/// A payload behind a checksum that holds, alone or as the next chunk.
#[test]
fn any_bytes_are_a_chunk_or_none() {
    let (honest, _) = chunks(KeyRange::new("b", "t"), 7);
    fuzz!(Corpus::of(honest.iter().map(payload)), |input| {
        let engine = MemEngine::new();
        for taken in [0, 1, honest.len() - 1] {
            let mut staging = engine.staging(SHARD).unwrap();
            let mut write = |chunk: Bytes| now(staging.write(chunk));
            for chunk in &honest[..taken] {
                write(chunk.clone()).unwrap();
            }
            let chunk = sealed(taken as u64, input);
            // A row is a few bytes on the wire and holds two shared strings.
            fuzz::frugal_by(128, input.len(), || {
                let mut staging = engine.staging(SHARD).unwrap();
                drop(now(staging.write(chunk.clone())));
            });
            if write(chunk).is_err() {
                assert!(!staging.is_complete());
                assert!(now(staging.write(honest[taken].clone())).is_err(), "spoilt");
            }
        }
        assert_eq!(engine.shards().unwrap(), []);
    });
}

/// The result of a future that is ready at once.
fn now<T>(future: quorate_types::runtime::BoxFuture<T>) -> T {
    let mut result = None;
    let mut future = Box::pin(async { result = Some(future.await) });
    assert!(support::is_ready(&mut future), "nothing to wait for");
    drop(future);
    result.unwrap()
}
