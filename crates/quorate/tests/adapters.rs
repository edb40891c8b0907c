//! The adapters between Raft, the machines and the engine, against the suites
//! of the ports that they stand for. They are the facade's own files: private
//! there, and the same here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(dead_code, reason = "the files are the facade's")]

#[path = "../src/machine.rs"]
mod machine;
#[path = "../src/storage.rs"]
mod storage;

use std::future::Future;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use machine::EngineMachine;
use parking_lot::Mutex;
use quorate_calvin::conformance::{Shard, store_suite};
use quorate_calvin::kv::{KeyValue, Transaction};
use quorate_calvin::shard::ShardMachine;
use quorate_calvin::{Direct, ShardCommand, ShardReplica};
use quorate_engine::{Engine, MemEngine, Mutation, RedbConfig, RedbEngine, ScanLimit, Space};
use quorate_meta::{Bootstrap, ClusterView, Command, NodeSpec, RegistryMachine};
use quorate_raft::conformance::{Subject, state_machine_suite};
use quorate_raft::{SEED_INDEX, StateMachine, seeded_host_row};
use quorate_testkit::disk::CrashDisk;
use quorate_types::group_log::GroupMachine;
use quorate_types::{
    Blob, ClientId, ClusterId, DiskId, Epoch, KeyRange, NodeId, ReplicaId, RequestId, Seq,
    ShardEpoch, ShardId,
};
use storage::{EngineStore, HOST_ROW_KEY, METADATA_SPACE};

const SHARD: ShardId = ShardId(1);
const FILE: &str = "engine.redb";
const ALL: ScanLimit = ScanLimit { rows: usize::MAX, bytes: usize::MAX };

#[test]
fn a_shard_of_an_engine_conforms_as_a_store() {
    store_suite(|| {
        let engine: Arc<dyn Engine> = Arc::new(MemEngine::new());
        engine.create(SHARD, KeyRange::all(), SEED_INDEX, Vec::new()).unwrap();
        let of = move |shard| EngineStore { engine: Arc::clone(&engine), shard };
        let store = Arc::new(of(SHARD));
        Shard { store, child: Box::new(move |child| Arc::new(of(child))) }
    });
}

/// Waits on a thread of its own for what the engine's thread does.
fn wait<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let block_on = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(future)
    };
    std::thread::scope(|threads| threads.spawn(block_on).join().unwrap())
}

/// An engine on a disk that loses power each time it is opened.
struct Node {
    disk: CrashDisk,
    engine: Option<Arc<dyn Engine>>,
    crashes: u64,
}

impl Node {
    fn engine(&mut self) -> Arc<dyn Engine> {
        let engine = self.engine.get_or_insert_with(|| {
            Arc::new(RedbEngine::open(&self.disk, FILE, RedbConfig::default()).unwrap())
        });
        Arc::clone(engine)
    }

    fn lose_power(&mut self) {
        self.crashes += 1;
        self.disk.crash(self.crashes);
        self.disk = self.disk.reboot();
        self.engine = None;
    }
}

/// A machine over `space`, which begins at `index` with `rows`.
fn subject<C: GroupMachine>(
    space: ShardId,
    index: u64,
    rows: &[Mutation],
    core: impl Fn(EngineStore) -> C + Send + Sync + 'static,
) -> Subject {
    let mut node = Node { disk: CrashDisk::new(7), engine: None, crashes: 0 };
    let engine = node.engine();
    engine.create(space, KeyRange::all(), index, rows.to_vec()).unwrap();
    wait(engine.flush(space)).unwrap();
    drop(engine);
    let node = Arc::new(Mutex::new(node));
    let opened = Arc::clone(&node);
    let open = move || -> Box<dyn StateMachine> {
        let mut node = opened.lock();
        node.lose_power();
        let store = EngineStore { engine: node.engine(), shard: space };
        Box::new(EngineMachine::new(store.clone(), core(store)))
    };
    let state = move || {
        let engine = node.lock().engine();
        let mut state = BytesMut::new();
        for rows in [Space::Data, Space::System] {
            for (key, value) in engine.scan(space, rows, &KeyRange::all(), ALL).unwrap().rows {
                if rows == Space::Data || *key != *HOST_ROW_KEY {
                    state.put_u64(key.len() as u64);
                    state.put_slice(&key);
                    state.put_u64(value.len() as u64);
                    state.put_slice(&value);
                }
            }
        }
        state.freeze()
    };
    Subject { open: Box::new(open), state: Box::new(state) }
}

fn shard() -> Subject {
    let host_row = seeded_host_row(&[(ReplicaId(11), NodeId(1))]);
    let seed = ShardMachine::seed(KeyRange::all(), ShardEpoch(1));
    let rows = seed.into_iter().map(|(key, row)| Mutation::put(key, row));
    let rows: Vec<_> = rows.chain([Mutation::put(HOST_ROW_KEY, Blob(host_row))]).collect();
    subject(SHARD, SEED_INDEX, &rows, |store| {
        let procedures = Arc::new(KeyValue);
        ShardReplica::open(SHARD, procedures, Arc::new(store), Arc::new(|_| {})).unwrap()
    })
}

fn direct(sequence: u64, transaction: &Transaction) -> Bytes {
    let request = RequestId { client: ClientId(7), sequence, birth: Epoch(1_000), ack_below: 0 };
    let direct = Direct {
        request,
        epoch: ShardEpoch(1),
        time_millis: 1_000 + sequence,
        seed: sequence,
        call: transaction.call(),
    };
    ShardCommand::Direct(direct).to_bytes()
}

#[tokio::test]
async fn a_shard_of_transactions_conforms_as_a_machine() {
    let commands: Vec<Bytes> = (0..30)
        .map(|number| {
            let key = format!("key {}", number % 7);
            let value = format!("value {number}");
            let transaction = match number % 5 {
                0 => Transaction::new().delete(key.as_str()),
                1 => Transaction::new().expect(key.as_str(), None).put(key.as_str(), "first"),
                _ => Transaction::new().get("key 1").put(key.as_str(), value.as_str()),
            };
            direct(number, &transaction)
        })
        .collect();
    state_machine_suite(shard, &commands).await;
}

/// As the metadata group begins: empty, with nothing applied, by an entry at
/// index 0 that is no command.
fn registry() -> Subject {
    subject(METADATA_SPACE, 0, &[], |store| {
        RegistryMachine::open(Box::new(store), Box::new(|_: &ClusterView| {})).unwrap()
    })
}

fn node(id: u64) -> NodeSpec {
    NodeSpec {
        node: NodeId(id),
        disk: DiskId(u128::from(id)),
        address: format!("n{id}:7000"),
        labels: Seq::new(),
        supports: 1,
    }
}

#[tokio::test]
async fn the_metadata_conforms_as_a_machine() {
    let voters: Seq<NodeId> = vec![NodeId(1)].into();
    let bootstrap = Bootstrap {
        cluster: ClusterId(77),
        nodes: vec![node(1)].into(),
        metadata_voters: voters.clone(),
        sequencer_voters: voters,
        replicas_per_shard: 1,
        split_keys: vec![Blob::from("m")].into(),
    };
    let joins = (2..9).map(|id| Command::Join(node(id)));
    let commands: Vec<Bytes> = std::iter::repeat_n(Command::Bootstrap(bootstrap), 4)
        .chain(joins)
        .map(|command| command.encode().unwrap())
        .collect();
    state_machine_suite(registry, &commands).await;
}
