//! Commands out of decisions.

use quorate_calvin::shard::{Event, ShardMachine};
use quorate_calvin::{
    Access, Call, Contribution, Direct, Fence, Floors, Footprint, MapChange, Member, Participant,
    RangeAccess, Read, ScanPart, SequencedTxn, ShardCommand, ShardContribution, Slice, SliceBody,
    Store, TxnInputs, WriteSet,
};
use quorate_testkit::fuzz::Choices;
use quorate_types::{
    Blob, ClientId, Epoch, KeyRange, NodeId, ReplicaId, RequestId, ShardEpoch, ShardId, TxnId,
};
use std::sync::Arc;

use crate::support::procedures::{Op, Service};
use crate::support::store::MemStore;

const KEYS: [&str; 8] = ["", "a", "b", "k", "m", "n", "x", "~"];

pub fn key(choices: &mut Choices<'_>) -> Blob {
    match choices.byte() {
        255 => choices.bytes(40).into(),
        at => KEYS[usize::from(at) % KEYS.len()].into(),
    }
}

pub fn keys(choices: &mut Choices<'_>, max: usize) -> Vec<Blob> {
    (0..choices.below(max + 1)).map(|_| key(choices)).collect()
}

pub fn range(choices: &mut Choices<'_>) -> KeyRange {
    KeyRange { start: key(choices), end: choices.flag().then(|| key(choices)) }
}

/// Any operation; several of them panic on some of the inputs.
pub fn op(choices: &mut Choices<'_>) -> Op {
    let value = || Blob::from_static(b"7");
    match choices.below(14) {
        0 => Op::Read(keys(choices, 3).into()),
        1 | 2 => Op::Write { keys: keys(choices, 3).into(), value: value() },
        3 | 4 => Op::ReadWrite {
            reads: keys(choices, 2).into(),
            writes: keys(choices, 2).into(),
            value: value(),
        },
        5 => Op::Append { keys: keys(choices, 2).into(), item: value() },
        6 => Op::Transfer { from: key(choices), to: key(choices), amount: 3 },
        7 => Op::WriteIf { keys: keys(choices, 2).into(), version: 1, value: value() },
        8 => Op::Delete(keys(choices, 2).into()),
        9 => Op::WriteExpiring { key: key(choices), value: value(), ttl_millis: choices.number() },
        10 => Op::Count(range(choices)),
        11 => Op::Clear(range(choices)),
        12 => Op::Panic(keys(choices, 2).into()),
        _ => Op::Stray { declared: key(choices), written: key(choices) },
    }
}

/// A call as its procedure makes it, or one whose footprint is another's, or
/// whose arguments are nonsense.
pub fn call(choices: &mut Choices<'_>) -> Call {
    let mut call = op(choices).call();
    match choices.below(12) {
        0 => call.footprint = op(choices).footprint(),
        1 => call.footprint = footprint(choices),
        2 => call.args = choices.bytes(20).into(),
        _ => {}
    }
    call
}

fn footprint(choices: &mut Choices<'_>) -> Footprint {
    let access = |choices: &mut Choices<'_>| {
        if choices.flag() { Access::Read } else { Access::Write }
    };
    Footprint {
        reads: keys(choices, 3).into(),
        writes: keys(choices, 3).into(),
        ranges: (0..choices.below(3))
            .map(|_| RangeAccess { range: range(choices), access: access(choices) })
            .collect(),
    }
}

/// Few clients with few sequences, so that they meet.
pub fn request(choices: &mut Choices<'_>) -> RequestId {
    let small = |choices: &mut Choices<'_>| match choices.byte() {
        byte @ 250.. => choices.edge().wrapping_add(u64::from(byte)),
        byte => u64::from(byte % 12),
    };
    RequestId {
        client: ClientId(choices.below(3) as u128),
        sequence: small(choices),
        birth: Epoch(small(choices)),
        ack_below: if choices.below(4) == 0 { small(choices) } else { 0 },
    }
}

fn contribution(choices: &mut Choices<'_>) -> Contribution {
    let read = |choices: &mut Choices<'_>| Read {
        key: key(choices),
        version: choices.number(),
        value: choices.flag().then(|| key(choices)),
        expires_millis: choices.flag().then(|| choices.edge()),
    };
    let scan = |choices: &mut Choices<'_>| ScanPart {
        range: u32::from(choices.byte()),
        start: key(choices),
        condensed: key(choices),
    };
    Contribution {
        reads: (0..choices.below(3)).map(|_| read(choices)).collect(),
        scans: (0..choices.below(2)).map(|_| scan(choices)).collect(),
        is_too_large: choices.below(8) == 0,
    }
}

pub fn inputs(choices: &mut Choices<'_>, txn: TxnId) -> TxnInputs {
    let contributions = (0..choices.below(4))
        .map(|shard| ShardContribution {
            shard: ShardId(shard as u64),
            contribution: contribution(choices),
        })
        .collect();
    TxnInputs { txn, contributions }
}

pub fn some_contribution(choices: &mut Choices<'_>) -> Contribution {
    contribution(choices)
}

fn sequenced(choices: &mut Choices<'_>, position: u32) -> SequencedTxn {
    let mut participants = Vec::new();
    for shard in (1..4).map(ShardId) {
        let (reads, writes) = (choices.flag(), choices.flag());
        if choices.below(4) > 0 {
            participants.push(Participant { shard, reads, writes });
        }
    }
    SequencedTxn {
        // Mostly ascending, and sometimes what no sequencer would say.
        position: if choices.below(16) == 0 { u32::from(choices.byte()) } else { position },
        request: request(choices),
        call: call(choices),
        home: ShardId(1 + choices.below(3) as u64),
        participants: participants.into(),
    }
}

/// A slice that continues the chain, mostly.
fn slice(choices: &mut Choices<'_>, machine: &ShardMachine, after: Epoch) -> Slice {
    let prev = if choices.below(8) == 0 { Epoch(choices.edge()) } else { after };
    let epoch = match choices.below(12) {
        0 => Epoch(choices.edge()),
        by => Epoch(after.0.saturating_add(by as u64)),
    };
    let body = if choices.below(6) == 0 {
        SliceBody::Split(change(choices, machine))
    } else {
        let count = choices.below(4) as u32;
        SliceBody::Transactions((0..count).map(|nth| sequenced(choices, nth)).collect())
    };
    Slice {
        epoch,
        prev,
        time_millis: time(choices),
        seed: choices.number(),
        range: machine.range().clone(),
        floors: floors(choices, after),
        body,
    }
}

fn change(choices: &mut Choices<'_>, machine: &ShardMachine) -> MapChange {
    let member = Member { replica: ReplicaId(choices.edge()), node: NodeId(choices.edge()) };
    MapChange {
        version: choices.edge(),
        parent: if choices.below(16) == 0 { ShardId(9) } else { machine.shard() },
        at: key(choices),
        child: ShardId(10 + choices.below(50) as u64),
        members: vec![member].into(),
        epoch: ShardEpoch(machine.epoch().0.saturating_add(1)),
    }
}

fn time(choices: &mut Choices<'_>) -> u64 {
    if choices.below(16) == 0 { choices.edge() } else { 1_000 + u64::from(choices.byte()) }
}

fn floors(choices: &mut Choices<'_>, cursor: Epoch) -> Floors {
    if choices.below(4) > 0 {
        return Floors::default();
    }
    let below = |choices: &mut Choices<'_>| match choices.byte() {
        255 => Epoch(choices.edge()),
        back => Epoch(cursor.0.saturating_sub(u64::from(back % 16))),
    };
    Floors { done: below(choices), expired: below(choices) }
}

/// Any command for a shard; most make sense in the state that they meet.
pub fn shard_command(choices: &mut Choices<'_>, machine: &ShardMachine) -> ShardCommand {
    let known: Vec<TxnId> = machine.awaiting_inputs().map(|work| work.id()).collect();
    match choices.below(12) {
        0..5 => ShardCommand::Direct(Direct {
            request: request(choices),
            epoch: if choices.below(12) == 0 {
                ShardEpoch(choices.edge())
            } else {
                machine.epoch()
            },
            time_millis: time(choices),
            seed: choices.number(),
            call: call(choices),
        }),
        5..8 => {
            let mut after = machine.cursor();
            let mut slices = Vec::new();
            for _ in 0..=choices.below(3) {
                let slice = slice(choices, machine, after);
                after = slice.epoch;
                slices.push(slice);
            }
            ShardCommand::Slices(slices.into())
        }
        8 | 9 => {
            let any = TxnId { epoch: machine.cursor(), position: choices.below(3) as u32 };
            let txn = choices.pick(&known).copied().unwrap_or(any);
            ShardCommand::Inputs(inputs(choices, txn))
        }
        10 => ShardCommand::Fence(Fence { request: request(choices), home: key(choices) }),
        _ => ShardCommand::Floor(floors(choices, machine.cursor())),
    }
}

/// One replica of a shard over its rows.
pub struct Replica {
    pub machine: ShardMachine,
    pub store: MemStore,
}

impl Replica {
    pub fn seeded(shard: ShardId, range: KeyRange) -> Self {
        Self::over(shard, MemStore::seeded(ShardMachine::seed(range, ShardEpoch(1))))
    }

    pub fn over(shard: ShardId, store: MemStore) -> Self {
        let machine = ShardMachine::load(shard, Arc::new(Service), &store).unwrap().unwrap();
        Self { machine, store }
    }

    /// Applies entries and commits them at once; what they brought about, or
    /// why the replica halted.
    pub fn apply(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<Vec<Event>, String> {
        let mut writes = WriteSet::default();
        let mut events = Vec::new();
        for (index, entry) in (first..).zip(entries) {
            let applied = self.machine.apply(&self.store, &mut writes, index, entry);
            events.extend(applied.map_err(|halt| halt.to_string())?);
        }
        self.machine.finish(&mut writes);
        self.store.commit_at(first + entries.len() as u64 - 1, writes);
        Ok(events)
    }

    /// Opens the rows anew. What was in memory and what is found agree.
    pub fn reopen(&mut self) {
        let before = summary(&self.machine);
        let shard = self.machine.shard();
        self.machine = ShardMachine::load(shard, Arc::new(Service), &self.store).unwrap().unwrap();
        assert_eq!(summary(&self.machine), before, "a restart changes nothing");
    }
}

/// What a machine tells of itself.
pub fn summary(machine: &ShardMachine) -> impl PartialEq + std::fmt::Debug + use<> {
    let awaiting: Vec<TxnId> = machine.awaiting_inputs().map(|work| work.id()).collect();
    (
        (machine.range().clone(), machine.epoch(), machine.cursor(), machine.clock_millis()),
        (machine.floors(), machine.done(), awaiting),
        (machine.pending_count(), machine.remembered_count(), machine.outbox_count()),
    )
}

/// Every row of a store, and the rows of every child that it split off.
pub fn contents(store: &MemStore) -> (crate::support::store::Rows, usize) {
    (store.rows(), store.middle_key().unwrap().map_or(0, |key| key.len()))
}
