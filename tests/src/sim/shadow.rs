//! One more replica of every group, which applies each committed entry once,
//! in order, the moment that anybody has applied it. It is made of the public
//! cores over rows in memory, and is what all other replicas are compared with.
//!
//! It runs inside the node whose tap feeds it. A bug that is planted in the
//! cores is planted in it too: what it shows is that replicas differ, not that
//! all of them are wrong in the same way.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate::types::{Blob, GroupId, KeyRange, NodeId, ReplicaId, ShardId};
use quorate_calvin::sequencer::SequencerMachine;
use quorate_calvin::shard::ShardMachine;
use quorate_calvin::shard::rows::{DataRow, Loaded, PendingRow};
use quorate_calvin::{
    Fork, Place, Procedures, SequencerCommand, ShardCommand, Store, StoreError, WriteSet,
};
use quorate_engine::{Mutation, Space};
use quorate_meta::{ClusterView, Registry};
use quorate_raft::LogPosition;
use tokio::time::Instant;

use super::invariants::{Digest, HomesBook, OrderBook, Print, ShardStep, check_locks, row_hash};
use super::ledger::Report;
use super::tap::payload::{
    Entry, HOST_ROW_KEY, HostRow, METADATA_SPACE, Membership, SEQUENCER_SPACE, group_of, read_entry,
};

/// The index and term at which a group begins that was split off.
const SEED: LogPosition = LogPosition { term: 1, index: 10 };
/// The tag of a shard's pending rows.
const PENDING_TAG: u8 = b'p';
/// With more than that waiting, locks are not compared pair by pair.
const PENDING_COMPARED_MAX: usize = 48;

/// A replica's rows.
#[derive(Clone, Debug, Default)]
struct Rows {
    data: BTreeMap<Blob, Blob>,
    system: BTreeMap<Blob, Blob>,
    print: Print,
}

impl Rows {
    fn put(&mut self, space: Space, key: Blob, value: Option<Blob>) {
        let hash = value.as_ref().map(|value| row_hash(space, &key, value));
        self.print.set(space, &key, hash);
        let rows = match space {
            Space::Data => &mut self.data,
            Space::System => &mut self.system,
        };
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }

    fn clear(&mut self, range: &KeyRange) {
        let end = self.data.range(range.start.clone()..);
        let gone: Vec<Blob> =
            end.take_while(|(key, _)| range.contains(key)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.put(Space::Data, key, None);
        }
    }

    fn absorb(&mut self, writes: WriteSet) -> Vec<(Fork, Self)> {
        for range in &writes.clears {
            self.clear(range);
        }
        for (key, value) in writes.data {
            self.put(Space::Data, key, value);
        }
        for (key, value) in writes.system {
            self.put(Space::System, key, value);
        }
        let forks = writes.forks.into_iter();
        let forks = forks.map(|fork| {
            let data = self.data.split_off(&fork.at);
            let print = self.print.split_off(&fork.at);
            let mut child = Self { data, system: BTreeMap::new(), print };
            for (key, value) in &fork.system {
                child.put(Space::System, key.clone(), Some(value.clone()));
            }
            (fork, child)
        });
        forks.collect()
    }
}

impl Store for Rows {
    fn get(&self, space: quorate_calvin::Space, key: &[u8]) -> Result<Option<Blob>, StoreError> {
        Ok(match space {
            quorate_calvin::Space::Data => self.data.get(key).cloned(),
            quorate_calvin::Space::System => self.system.get(key).cloned(),
        })
    }

    fn scan(
        &self,
        space: quorate_calvin::Space,
        range: &KeyRange,
        rows_max: usize,
    ) -> Result<(Vec<(Blob, Blob)>, bool), StoreError> {
        let rows = match space {
            quorate_calvin::Space::Data => &self.data,
            quorate_calvin::Space::System => &self.system,
        };
        let mut found =
            rows.range(range.start.clone()..).take_while(|(key, _)| range.contains(key));
        let page = found.by_ref().take(rows_max);
        let page = page.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok((page, found.next().is_some()))
    }

    fn middle_key(&self) -> Result<Option<Blob>, StoreError> {
        Ok(None)
    }

    fn commit(&self, _index: u64, _host_row: Blob, _writes: WriteSet) -> Result<(), StoreError> {
        Err(StoreError("the shadow commits by itself".to_owned()))
    }
}

/// A machine.
enum Core {
    Shard(Box<ShardMachine>),
    Sequencer(Box<SequencerMachine>),
    Metadata(Box<Registry>),
}

/// The replica of one group.
struct Copy {
    core: Core,
    rows: Rows,
    applied: u64,
    digests: BTreeMap<u64, Digest>,
    /// The work in a shard's gate, and since when it is there.
    pending: BTreeMap<Place, (PendingRow, Instant)>,
    /// It could not go on, and says nothing any more.
    is_halted: bool,
}

impl Copy {
    fn new(core: Core, rows: Rows, applied: u64) -> Self {
        let digests = BTreeMap::from([(applied, rows.print.digest())]);
        Self { core, rows, applied, digests, pending: BTreeMap::new(), is_halted: false }
    }
}

/// All of them.
pub(crate) struct Shadow {
    procedures: Arc<dyn Procedures>,
    copies: BTreeMap<ShardId, Copy>,
}

/// What is told of a step.
struct Told<'a> {
    order: &'a mut OrderBook,
    homes: &'a mut HomesBook,
    report: &'a mut Report,
}

/// A child and the host row with which its replicas begin.
type Born = (ShardId, HostRow);

impl Shadow {
    pub(crate) fn new(procedures: Arc<dyn Procedures>) -> Self {
        Self { procedures, copies: BTreeMap::new() }
    }

    /// What follows it in a further run: made anew of its rows, as a node is
    /// after a restart.
    pub(crate) fn continued(&self) -> Self {
        let copies = self.copies.iter().map(|(space, copy)| (*space, self.reloaded(*space, copy)));
        Self { procedures: Arc::clone(&self.procedures), copies: copies.collect() }
    }

    fn reloaded(&self, space: ShardId, copy: &Copy) -> Copy {
        let rows = copy.rows.clone();
        let core = match &copy.core {
            Core::Metadata(registry) => Core::Metadata(registry.clone()),
            Core::Sequencer(_) => {
                let machine = SequencerMachine::load(&rows, copy.applied);
                Core::Sequencer(Box::new(machine.expect("its own rows")))
            }
            Core::Shard(_) => self.load(space, &rows).expect("its own rows").expect("its own rows"),
        };
        let (digests, is_halted) = (copy.digests.clone(), copy.is_halted);
        Copy { digests, is_halted, ..Copy::new(core, rows, copy.applied) }
    }

    /// The state's digest at an index that was applied.
    pub(crate) fn digest(&self, space: ShardId, index: u64) -> Option<Digest> {
        let copy = self.copies.get(&space).filter(|copy| !copy.is_halted)?;
        copy.digests.get(&index).copied()
    }

    /// The rows as they are now, and the last index.
    pub(crate) fn print(&self, space: ShardId) -> Option<(u64, &Print)> {
        self.copies.get(&space).map(|copy| (copy.applied, &copy.rows.print))
    }

    /// How many system rows each space has, by the first byte of their keys.
    pub(crate) fn system_rows(&self) -> BTreeMap<(ShardId, u8), usize> {
        let mut counts = BTreeMap::new();
        for (space, copy) in &self.copies {
            for tag in copy.rows.system.keys().filter_map(|key| key.first()) {
                *counts.entry((*space, *tag)).or_default() += 1;
            }
        }
        counts
    }

    /// The metadata as of its last committed command.
    pub(crate) fn view(&self) -> Option<&ClusterView> {
        match &self.copies.get(&METADATA_SPACE)?.core {
            Core::Metadata(registry) => Some(registry.view()),
            _ => None,
        }
    }

    pub(crate) fn applied(&self) -> BTreeMap<GroupId, u64> {
        self.copies.iter().map(|(space, copy)| (group_of(*space), copy.applied)).collect()
    }

    /// All keys of all shards that have a value.
    pub(crate) fn content(&self) -> BTreeMap<Blob, Blob> {
        let shards = self.copies.values().filter(|copy| matches!(copy.core, Core::Shard(_)));
        let rows = shards.flat_map(|copy| &copy.rows.data);
        rows.map(|(key, row)| (key.clone(), DataRow::from_blob(row).unwrap().value)).collect()
    }

    /// See [`super::ledger::Ledger::longest_open`].
    pub(crate) fn longest_open(&self) -> Option<(ShardId, u64)> {
        let ages = self.copies.iter().filter_map(|(space, copy)| {
            let oldest = copy.pending.values().map(|(_, since)| *since).min()?;
            Some((*space, u64::try_from(oldest.elapsed().as_millis()).unwrap()))
        });
        ages.max_by_key(|(_, millis)| *millis)
    }

    /// An engine made a space: the first of its group, perhaps.
    pub(crate) fn created(
        &mut self,
        space: ShardId,
        _range: &KeyRange,
        index: u64,
        system: &[Mutation],
        report: &mut Report,
    ) {
        if self.copies.contains_key(&space) {
            return;
        }
        let mut rows = Rows::default();
        for Mutation { key, value } in system.iter().filter(|row| *row.key != *HOST_ROW_KEY) {
            rows.put(Space::System, key.clone(), value.clone());
        }
        let core = match space {
            METADATA_SPACE => Ok(Some(Core::Metadata(Box::default()))),
            SEQUENCER_SPACE => SequencerMachine::load(&rows, index)
                .map(|machine| Some(Core::Sequencer(Box::new(machine))))
                .map_err(|halt| halt.to_string()),
            shard => self.load(shard, &rows),
        };
        report.check("O2", matches!(core, Ok(Some(_))), || {
            format!("{space} begins with rows that no machine has: {:?}", core.as_ref().err())
        });
        if let Ok(Some(core)) = core {
            self.copies.insert(space, Copy::new(core, rows, index));
        }
    }

    fn load(&self, shard: ShardId, rows: &Rows) -> Result<Option<Core>, String> {
        let machine = ShardMachine::load(shard, Arc::clone(&self.procedures), rows);
        let machine = machine.map_err(|halt| halt.to_string())?;
        Ok(machine.map(|machine| Core::Shard(Box::new(machine))))
    }

    /// Applies the next committed entry of a group. Returns the children that
    /// it brought about.
    pub(crate) fn apply(
        &mut self,
        space: ShardId,
        index: u64,
        payload: &Bytes,
        order: &mut OrderBook,
        homes: &mut HomesBook,
        report: &mut Report,
    ) -> Vec<Born> {
        let mut told = Told { order, homes, report };
        let Some(copy) = self.copies.get_mut(&space).filter(|copy| !copy.is_halted) else {
            return Vec::new();
        };
        let command = match read_entry(payload) {
            Some(Entry::Command(command)) => Some(command),
            Some(Entry::Blank | Entry::Membership(_)) => None,
            None => {
                told.report.check("O2", false, || format!("{index} of {space} cannot be read"));
                None
            }
        };
        let forked = match copy.step(space, index, command.as_ref(), &mut told) {
            Ok(forked) => forked,
            Err(halt) => {
                copy.is_halted = true;
                told.report.check("O2", false, || format!("{index} halts {space}: {halt}"));
                return Vec::new();
            }
        };
        copy.applied = index;
        copy.digests.insert(index, copy.rows.print.digest());
        forked.into_iter().filter_map(|(fork, rows)| self.bear(fork, rows, &mut told)).collect()
    }

    fn bear(&mut self, fork: Fork, rows: Rows, told: &mut Told<'_>) -> Option<Born> {
        let child = fork.child;
        let loaded = self.load(child, &rows);
        told.report.check("O2", matches!(loaded, Ok(Some(_))), || {
            format!("{child} is split off with rows that no machine has")
        });
        self.copies.insert(child, Copy::new(loaded.ok()??, rows, SEED.index));
        let nodes: BTreeMap<ReplicaId, NodeId> =
            fork.members.iter().map(|member| (member.replica, member.node)).collect();
        let configs = vec![nodes.keys().copied().collect()];
        Some((child, HostRow { applied: SEED, membership: Membership { configs, nodes } }))
    }
}

impl Copy {
    fn step(
        &mut self,
        space: ShardId,
        index: u64,
        command: Option<&Bytes>,
        told: &mut Told<'_>,
    ) -> Result<Vec<(Fork, Rows)>, String> {
        match &mut self.core {
            Core::Metadata(registry) => {
                let Some(command) = command else { return Ok(Vec::new()) };
                let applied = registry.apply(index, command).map_err(|halt| halt.to_string())?;
                for (key, value) in applied.mutations {
                    self.rows.put(Space::Data, key, value);
                }
                told.homes.commanded(registry.view(), told.report);
                Ok(Vec::new())
            }
            Core::Sequencer(machine) => {
                let mut writes = WriteSet::default();
                let bytes = command.map(|command| &**command);
                let events =
                    machine.apply(&mut writes, index, bytes).map_err(|halt| halt.to_string())?;
                machine.finish(&mut writes);
                if let Some(command) = bytes {
                    let command =
                        SequencerCommand::from_bytes(command).map_err(|error| error.to_string())?;
                    told.order.sequenced(index, command, &events, machine, told.report);
                }
                Ok(self.rows.absorb(writes))
            }
            Core::Shard(machine) => {
                let Some(bytes) = command else { return Ok(Vec::new()) };
                let command = ShardCommand::from_bytes(bytes).map_err(|error| error.to_string())?;
                let cursor = machine.cursor();
                let known = match &command {
                    ShardCommand::Direct(direct) => machine.lookup(&direct.request),
                    _ => None,
                };
                let mut writes = WriteSet::default();
                let applied = machine.apply(&self.rows, &mut writes, index, bytes);
                let events = applied.map_err(|halt| halt.to_string())?;
                machine.finish(&mut writes);
                let (command, events) = (&command, &*events);
                let step = ShardStep { shard: space, index, command, events, cursor, known };
                told.order.shard(&step, told.report);
                self.note_pending(&writes)?;
                self.check_locks(space, index, told.report);
                Ok(self.rows.absorb(writes))
            }
        }
    }

    fn note_pending(&mut self, writes: &WriteSet) -> Result<(), String> {
        let is_pending = |key: &Blob| key.first() == Some(&PENDING_TAG);
        for (key, value) in writes.system.iter().filter(|(key, _)| is_pending(key)) {
            let mut loaded = Loaded::default();
            match value {
                Some(row) => loaded.take(key, row).map_err(|error| error.to_string())?,
                None => {
                    let numbers = (key.get(1..9), key.get(9..13));
                    if let (Some(index), Some(position)) = numbers {
                        let index = u64::from_be_bytes(index.try_into().unwrap());
                        let position = u32::from_be_bytes(position.try_into().unwrap());
                        self.pending.remove(&Place { index, position });
                    }
                }
            }
            for (place, row) in loaded.pending {
                let since = self.pending.get(&place).map_or_else(Instant::now, |(_, at)| *at);
                self.pending.insert(place, (row, since));
            }
        }
        Ok(())
    }

    fn check_locks(&self, space: ShardId, index: u64, report: &mut Report) {
        if self.pending.len() <= PENDING_COMPARED_MAX {
            let rows = self.pending.iter().map(|(place, (row, _))| (*place, row));
            check_locks(space, index, rows, report);
        }
    }
}
