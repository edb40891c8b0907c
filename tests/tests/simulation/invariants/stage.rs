//! Three nodes that exist on paper: machines as they are, over rows in memory,
//! and logs that are only spoken of.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate::types::codec::encode;
use quorate::types::group_log::GroupMachine;
use quorate::types::{Blob, Epoch, GroupId, KeyRange, NodeId, ReplicaId, Seq, ShardEpoch, ShardId};
use quorate_calvin::kv::KeyValue;
use quorate_calvin::shard::ShardMachine;
use quorate_calvin::{SequencerReplica, ShardReplica, Slice, Space, Store, StoreError, WriteSet};
use quorate_engine::{Batch, Mutation};
use quorate_meta::{BoxError, Mutations, Page, RegistryMachine};
use quorate_raft::{LogEntry, LogPosition, LogState, Vote, seeded_host_row};
use quorate_tests::sim::{Findings, FoundSpace, KeyValueModel, Ledger, Model, Tap};
use tokio::time::Instant;

/// The shard of the keys below "m", and its group is 17.
pub const LOW: ShardId = ShardId(1);
/// The shard of the other keys.
pub const UP: ShardId = ShardId(2);
/// Where the sequencer's rows are.
pub const SEQUENCER: ShardId = ShardId(u64::MAX - 1);
/// Where the metadata's rows are.
pub const METADATA: ShardId = ShardId(u64::MAX);
/// Where every group begins.
pub const SEED_INDEX: u64 = 10;
/// The term in which everything here happens.
const TERM: u64 = 2;

pub fn low() -> KeyRange {
    KeyRange::new("", "m")
}

pub fn up() -> KeyRange {
    KeyRange { start: "m".into(), end: None }
}

pub fn node(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

/// The replica of the first shard's group at a place.
pub fn replica(place: usize) -> ReplicaId {
    ReplicaId(place as u64 + 1)
}

pub fn blank() -> Bytes {
    Bytes::from_static(&[1])
}

pub fn command(command: &[u8]) -> Bytes {
    [&[2], command].concat().into()
}

pub fn membership(configs: &[&[u64]]) -> Bytes {
    let ids = |config: &&[u64]| config.iter().copied().map(ReplicaId).collect::<Seq<_>>();
    let mut nodes: Vec<u64> = configs.concat();
    nodes.sort_unstable();
    nodes.dedup();
    let nodes = nodes.into_iter().map(|id| (ReplicaId(id), NodeId(id)));
    let stored: (Seq<Seq<ReplicaId>>, Seq<(ReplicaId, NodeId)>) =
        (configs.iter().map(ids).collect(), nodes.collect());
    [&[3], &encode(&stored)[..]].concat().into()
}

pub fn entry(term: u64, index: u64, payload: Bytes) -> LogEntry {
    LogEntry { position: LogPosition { term, index }, payload }
}

fn group_of(space: ShardId) -> GroupId {
    match space {
        METADATA => GroupId(1),
        SEQUENCER => GroupId(2),
        shard => GroupId(16 + shard.0),
    }
}

/// The first replica id of a group, which is on the first node.
fn first_replica(space: ShardId) -> u64 {
    match space {
        LOW => 1,
        UP => 11,
        SEQUENCER => 21,
        _ => 31,
    }
}

type Table = BTreeMap<Blob, Blob>;

/// What one machine stores, and what it changed last.
#[derive(Clone, Default)]
struct Rows(Arc<Mutex<(Table, Table, Batch)>>);

impl Rows {
    fn page(rows: &Table, range: &KeyRange) -> (Vec<(Blob, Blob)>, bool) {
        let rows = rows.iter().filter(|(key, _)| range.contains(key));
        (rows.map(|(key, value)| (key.clone(), value.clone())).collect(), false)
    }

    fn change(&self, index: u64, writes: WriteSet) {
        let (data, system, last) = &mut *self.0.lock();
        assert!(writes.clears.is_empty() && writes.forks.is_empty(), "not on this stage");
        let mutations = |rows: BTreeMap<Blob, Option<Blob>>, table: &mut Table| {
            let mut mutations = Vec::new();
            for (key, value) in rows {
                match value.clone() {
                    Some(value) => table.insert(key.clone(), value),
                    None => table.remove(&key),
                };
                mutations.push(Mutation { key, value });
            }
            mutations
        };
        let data = mutations(writes.data, data);
        let system = mutations(writes.system, system);
        *last = Batch { index, data, system, ..Batch::default() };
    }
}

impl Store for Rows {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Blob>, StoreError> {
        let (data, system, _) = &*self.0.lock();
        let rows = if space == Space::Data { data } else { system };
        Ok(rows.get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        _rows_max: usize,
    ) -> Result<(Vec<(Blob, Blob)>, bool), StoreError> {
        let (data, system, _) = &*self.0.lock();
        Ok(Self::page(if space == Space::Data { data } else { system }, range))
    }

    fn middle_key(&self) -> Result<Option<Blob>, StoreError> {
        Ok(None)
    }

    fn commit(&self, index: u64, _host_row: Blob, writes: WriteSet) -> Result<(), StoreError> {
        self.change(index, writes);
        Ok(())
    }
}

impl quorate_meta::Rows for Rows {
    fn scan(&self, range: &KeyRange, _rows_max: usize) -> Result<Page, BoxError> {
        Ok(Self::page(&self.0.lock().0, range))
    }

    fn commit(&self, index: u64, _host_row: Blob, data: Mutations) -> Result<(), BoxError> {
        self.change(index, WriteSet { data, ..WriteSet::default() });
        Ok(())
    }
}

/// A machine of any kind.
type Apply = Box<dyn Fn(&[(u64, Option<&[u8]>)])>;

fn applying<M: GroupMachine>(machine: M) -> Apply {
    Box::new(move |entries| drop(machine.apply(entries, Blob::new()).unwrap()))
}

struct Replica {
    rows: Rows,
    apply: Apply,
}

/// Three nodes with a replica of every group; a fourth has none.
pub struct Stage {
    pub ledger: Ledger,
    pub findings: Findings,
    pub taps: Vec<Tap>,
    replicas: BTreeMap<(usize, ShardId), Replica>,
    sequencer: Arc<SequencerReplica>,
    /// Every group's log, from the seed on.
    logs: BTreeMap<ShardId, Vec<Bytes>>,
}

impl Stage {
    pub fn new() -> Self {
        Self::with_ranges(low(), up())
    }

    /// With shards that hold these keys.
    pub fn with_ranges(low: KeyRange, up: KeyRange) -> Self {
        Self::judged(low, up, Box::<KeyValueModel>::default())
    }

    /// The same, with another model.
    pub fn judged(low: KeyRange, up: KeyRange, model: Box<dyn Model>) -> Self {
        let findings = Findings::default();
        let ledger = Ledger::new(Instant::now(), findings.clone(), Arc::new(KeyValue), Some(model));
        let taps: Vec<Tap> = (0..4).map(|place| ledger.tap(node(place), 1)).collect();
        let sequencer = SequencerReplica::open(Arc::new(Rows::default()), SEED_INDEX).unwrap();
        let (replicas, logs) = (BTreeMap::new(), BTreeMap::new());
        let mut stage = Self { ledger, findings, taps, replicas, sequencer, logs };
        for tap in &stage.taps {
            tap.log_opened(Vec::new(), &|_, _| false);
            tap.engine_opened(&[]);
        }
        for place in 0..3 {
            for (shard, range) in [(LOW, &low), (UP, &up)] {
                stage.found_shard(place, shard, range);
            }
            let rows = Rows::default();
            let machine = SequencerReplica::open(Arc::new(rows.clone()), SEED_INDEX).unwrap();
            if place == 0 {
                stage.sequencer = Arc::clone(&machine);
            }
            stage.found(place, SEQUENCER, &KeyRange::all(), rows, applying(machine));
            let rows = Rows::default();
            let machine = RegistryMachine::open(Box::new(rows.clone()), Box::new(|_| ())).unwrap();
            stage.found(place, METADATA, &KeyRange::all(), rows, applying(machine));
        }
        stage
    }

    fn found_shard(&mut self, place: usize, shard: ShardId, range: &KeyRange) {
        let rows = Rows::default();
        rows.0.lock().1.extend(ShardMachine::seed(range.clone(), ShardEpoch(1)));
        let store = Arc::new(rows.clone());
        let machine = ShardReplica::open(shard, Arc::new(KeyValue), store, Arc::new(drop));
        self.found(place, shard, range, rows, applying(machine.unwrap()));
    }

    fn found(&mut self, place: usize, space: ShardId, range: &KeyRange, rows: Rows, apply: Apply) {
        let (tap, group, first) = (&self.taps[place], group_of(space), first_replica(space));
        let members = (0..3).map(|at| (ReplicaId(first + at), NodeId(at + 1))).collect::<Vec<_>>();
        let mut system: Vec<Mutation> = rows
            .0
            .lock()
            .1
            .iter()
            .map(|(key, row)| Mutation::put(key.clone(), row.clone()))
            .collect();
        system.push(Mutation::put("h", Blob(seeded_host_row(&members))));
        tap.created(space, range, SEED_INDEX, &system);
        self.admit(place, group, first + place as u64);
        let tap = &self.taps[place];
        tap.purging(group, LogPosition { term: 1, index: SEED_INDEX }, Ok(Some(SEED_INDEX)));
        self.replicas.insert((place, space), Replica { rows, apply });
    }

    /// Admits a replica that has voted for itself.
    pub fn admit(&self, place: usize, group: GroupId, replica: u64) {
        let tap = &self.taps[place];
        tap.admitted(group, ReplicaId(replica), LogState::default());
        let vote = Vote { term: 1, candidate: ReplicaId(replica), committed: false };
        tap.voting(group, vote);
        tap.voted(group, vote);
    }

    /// Lets a log take entries durably.
    pub fn append(&self, place: usize, group: GroupId, entries: &[LogEntry]) {
        let ticket = self.taps[place].appending(group, entries);
        self.taps[place].appended(group, ticket);
    }

    /// Lets the first two nodes have further commands, and apply them one by
    /// one.
    pub fn commit(&mut self, space: ShardId, commands: &[Bytes]) {
        for of in commands {
            let log = self.logs.entry(space).or_default();
            log.push(command(of));
            let index = SEED_INDEX + log.len() as u64;
            let entries = [entry(TERM, index, command(of))];
            for place in [0, 1] {
                self.append(place, group_of(space), &entries);
            }
            for place in [0, 1] {
                self.apply_entries(place, space, index, &[command(of)]);
            }
        }
    }

    /// Lets a node apply a blank entry.
    pub fn apply(&mut self, place: usize, space: ShardId, index: u64) {
        self.apply_entries(place, space, index, &[blank()]);
    }

    /// Lets a node apply entries that end at an index.
    pub fn apply_entries(&mut self, place: usize, space: ShardId, index: u64, payloads: &[Bytes]) {
        let batch = self.batch(place, space, index, payloads);
        self.taps[place].applied(space, &batch);
    }

    /// What a node's engine is told to do for such entries.
    pub fn batch(&mut self, place: usize, space: ShardId, index: u64, payloads: &[Bytes]) -> Batch {
        let first = index + 1 - payloads.len() as u64;
        let entries: Vec<(u64, Option<&[u8]>)> = (first..)
            .zip(payloads)
            .map(|(index, payload)| (index, (payload[0] == 2).then(|| &payload[1..])))
            .collect();
        let Replica { rows, apply } = &self.replicas[&(place, space)];
        apply(&entries);
        rows.0.lock().2.clone()
    }

    /// A slice that the sequencer keeps for a shard.
    pub fn slice(&self, shard: ShardId, epoch: Epoch) -> Slice {
        self.sequencer.machine().slice(shard, epoch).unwrap().clone()
    }

    /// What a node's log holds of all groups but one.
    pub fn other_logs(
        &self,
        place: usize,
        but: GroupId,
    ) -> Vec<(GroupId, ReplicaId, LogState, Vec<LogEntry>)> {
        let spaces = [LOW, UP, SEQUENCER, METADATA].into_iter();
        let others = spaces.filter(|space| group_of(*space) != but);
        others
            .map(|space| {
                let replica = ReplicaId(first_replica(space) + place as u64);
                let vote = Some(Vote { term: 1, candidate: replica, committed: false });
                (group_of(space), replica, log_state(vote, &[]), Vec::new())
            })
            .collect()
    }

    /// Begins a node's next life with such a log of the first shard.
    pub fn reopen_log(&self, place: usize, life: u64, group: GroupId, entries: &[LogEntry]) {
        let vote = Vote { term: 1, candidate: replica(place), committed: false };
        self.reopen_log_with(place, life, group, Some(vote), entries);
    }

    pub fn reopen_log_with(
        &self,
        place: usize,
        life: u64,
        group: GroupId,
        vote: Option<Vote>,
        entries: &[LogEntry],
    ) {
        let mut logs = self.other_logs(place, group);
        logs.push((group, replica(place), log_state(vote, entries), entries.to_vec()));
        self.ledger.tap(node(place), life).log_opened(logs, &|_, _| false);
    }

    /// Begins a node's next life with the first shard's state as of an index:
    /// that which it has, or the first.
    pub fn reopen_engine(&self, place: usize, life: u64, applied: u64) {
        let seed = |range| ShardMachine::seed(range, ShardEpoch(1));
        let mut spaces = Vec::new();
        let of = quorate_engine::Space::System;
        for (space, at) in [(LOW, applied), (UP, SEED_INDEX)] {
            let mut rows = Vec::new();
            if at == SEED_INDEX {
                let range = if space == LOW { low() } else { up() };
                rows.extend(seed(range).into_iter().map(|(key, row)| (of, key, row)));
            } else {
                let (data, system, _) = &*self.replicas[&(place, space)].rows.0.lock();
                let owned = |(key, row): (&Blob, &Blob)| (key.clone(), row.clone());
                rows.extend(system.iter().map(owned).map(|(key, row)| (of, key, row)));
                let of = quorate_engine::Space::Data;
                rows.extend(data.iter().map(owned).map(|(key, row)| (of, key, row)));
            }
            spaces.push(FoundSpace { space, applied: at, rows });
        }
        self.ledger.tap(node(place), life).engine_opened(&spaces);
    }

    /// Changes a stored row behind everybody's back.
    pub fn spoil(&self, place: usize, space: ShardId, key: &str) {
        let rows = &self.replicas[&(place, space)].rows;
        rows.0.lock().0.insert(key.into(), "spoilt".into());
    }
}

fn log_state(vote: Option<Vote>, entries: &[LogEntry]) -> LogState {
    let purged = Some(LogPosition { term: 1, index: SEED_INDEX });
    LogState { vote, purged, last: entries.last().map(|entry| entry.position).or(purged) }
}
