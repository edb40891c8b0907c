//! The machine of a shard, in memory: how fast a log can be applied.
//!
//! No disk and no network: a store of ordered maps, and a procedure that
//! writes what it is told to. Direct commands are entries of their own, one or
//! many in a commit of the store. Sequenced transactions come in epochs and
//! write a key here and one on another shard: blindly, which runs at the
//! grant, or after reading both, which needs a logged entry with the inputs
//! for each. The limit is the store with the same rows and no machine.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench: it measures real time, and what fails ends it"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use parking_lot::Mutex;
use quorate_benches::Scoreboard;
use quorate_calvin::shard::{Event, ShardMachine};
use quorate_calvin::{
    Call, Contribution, Direct, Floors, Footprint, Inputs, Outcome, Participant, Procedures, Read,
    SequencedTxn, ShardCommand, ShardContribution, Slice, SliceBody, Space, Store, StoreError,
    TxnInputs, Write, WriteSet,
};
use quorate_types::{Blob, ClientId, Epoch, KeyRange, RequestId, Seq, ShardEpoch, ShardId, TxnId};

const HERE: ShardId = ShardId(1);
const THERE: ShardId = ShardId(2);
const KEYS: u64 = 10_000;
const VALUE: [u8; 100] = [0x5a; 100];
const CLIENTS: u64 = 256;
/// Entries that a busy shard applies in one commit; also transactions in an
/// epoch.
const MANY: u64 = 64;

fn main() {
    let mut criterion = quorate_benches::criterion();
    bench(&mut criterion);
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("calvin_shard");
    let mut scores = Scoreboard::of("transactions");

    let limit = "the store alone, 3 rows each";
    let store = Memory::default();
    let mut number = 0;
    scores.bench(&mut group, limit, &[], MANY, |rounds| {
        let start = Instant::now();
        for _ in 0..rounds {
            let mut writes = WriteSet::default();
            for _ in 0..MANY {
                number += 1;
                writes.write_data(here(number), Some(Blob::from(&VALUE)));
                let client = format!("request:{}", number % CLIENTS);
                writes.put_system(client.as_str().into(), Blob::from(&VALUE));
                writes.put_system("header".into(), Blob::from(&VALUE));
            }
            store.commit(number, Blob::new(), writes).unwrap();
        }
        start.elapsed()
    });

    for entries in [1, MANY] {
        let mut shard = Shard::new();
        let name = format!("direct, {entries} per commit");
        scores.bench(&mut group, &name, &[limit], entries, |n| shard.direct(n, entries));
    }
    let mut shard = Shard::new();
    let name = format!("sequenced, blind, {MANY} per epoch");
    scores.bench(&mut group, &name, &[limit], MANY, |rounds| shard.sequenced(rounds, false));
    let mut shard = Shard::new();
    let name = format!("sequenced, with remote inputs, {MANY} per epoch");
    scores.bench(&mut group, &name, &[limit], MANY, |rounds| shard.sequenced(rounds, true));
    group.finish();
    println!("\ncalvin_shard, transactions at one shard, in memory:\n{scores}");
}

fn here(number: u64) -> Blob {
    format!("a:{:08}", number % KEYS).as_str().into()
}

fn there(number: u64) -> Blob {
    format!("z:{:08}", number % KEYS).as_str().into()
}

/// Writes its arguments to every key it may write.
struct Put;

impl Procedures for Put {
    fn run(&self, call: &Call, _: &Inputs, _: u64, _: u64) -> Outcome {
        let write = |key: &Blob| Write {
            key: key.clone(),
            value: Some(call.args.clone()),
            expires_millis: None,
        };
        let writes = call.footprint.writes.iter().map(write).collect();
        Outcome { writes, result: Blob::from("OK"), ..Outcome::default() }
    }
}

#[derive(Default)]
struct Memory {
    data: Mutex<BTreeMap<Blob, Blob>>,
    system: Mutex<BTreeMap<Blob, Blob>>,
}

impl Memory {
    fn of(&self, space: Space) -> &Mutex<BTreeMap<Blob, Blob>> {
        match space {
            Space::Data => &self.data,
            Space::System => &self.system,
        }
    }
}

impl Store for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Blob>, StoreError> {
        Ok(self.of(space).lock().get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        rows_max: usize,
    ) -> Result<(Vec<(Blob, Blob)>, bool), StoreError> {
        let rows = self.of(space).lock();
        let mut found = rows.iter().filter(|(key, _)| range.contains(key));
        let page = found.by_ref().take(rows_max).map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok((page, found.next().is_some()))
    }

    fn middle_key(&self) -> Result<Option<Blob>, StoreError> {
        let rows = self.data.lock();
        let keys = rows.keys();
        let middle = keys.len() / 2;
        Ok(keys.clone().nth(middle).filter(|_| middle > 0).cloned())
    }

    fn commit(&self, _: u64, _: Blob, writes: WriteSet) -> Result<(), StoreError> {
        for (space, changes) in [(Space::Data, writes.data), (Space::System, writes.system)] {
            let mut rows = self.of(space).lock();
            for (key, value) in changes {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
        }
        Ok(())
    }
}

/// A replica that is fed by hand.
struct Shard {
    machine: ShardMachine,
    store: Memory,
    index: u64,
    epoch: u64,
    number: u64,
}

impl Shard {
    fn new() -> Self {
        let store = Memory::default();
        let range = KeyRange { start: Blob::new(), end: Some(Blob::from("m")) };
        let mut seed = WriteSet::default();
        for (key, row) in ShardMachine::seed(range, ShardEpoch(1)) {
            seed.put_system(key, row);
        }
        store.commit(0, Blob::new(), seed).unwrap();
        let machine = ShardMachine::load(HERE, Arc::new(Put), &store).unwrap().unwrap();
        Self { machine, store, index: 0, epoch: 0, number: 0 }
    }

    fn direct(&mut self, rounds: u64, entries: u64) -> Duration {
        let mut taken = Duration::ZERO;
        for _ in 0..rounds {
            // Commands are made by whoever proposes them: not timed.
            let commands: Vec<_> = (0..entries).map(|_| self.direct_command()).collect();
            let events = self.timed_apply(&commands, &mut taken);
            assert_decided(&events, entries);
        }
        taken
    }

    fn direct_command(&mut self) -> ShardCommand {
        self.number += 1;
        let footprint =
            Footprint { writes: vec![here(self.number)].into(), ..Footprint::default() };
        let call = Call { procedure: 0, args: Blob::from(&VALUE), footprint };
        ShardCommand::Direct(Direct {
            request: request(self.number),
            epoch: ShardEpoch(1),
            time_millis: self.number,
            seed: 0,
            call,
        })
    }

    fn sequenced(&mut self, rounds: u64, reads: bool) -> Duration {
        let mut taken = Duration::ZERO;
        for _ in 0..rounds {
            let slice = self.slice(reads);
            let mut events =
                self.timed_apply(&[ShardCommand::Slices(vec![slice].into())], &mut taken);
            if reads {
                let inputs: Vec<_> = (0..MANY).map(|position| self.inputs(position)).collect();
                events.extend(self.timed_apply(&inputs, &mut taken));
            }
            assert_decided(&events, MANY);
        }
        taken
    }

    /// The next epoch: transactions that write a key here and one there.
    fn slice(&mut self, reads: bool) -> Slice {
        let prev = self.epoch;
        self.epoch += 1;
        let participant = |shard| Participant { shard, reads, writes: true };
        let txns = (0..MANY).map(|position| {
            self.number += 1;
            let keys: Seq<Blob> = vec![here(self.number), there(self.number)].into();
            let read = if reads { keys.clone() } else { Seq::new() };
            let footprint = Footprint { reads: read, writes: keys, ..Footprint::default() };
            SequencedTxn {
                position: u32::try_from(position).unwrap(),
                request: RequestId { birth: Epoch(self.epoch), ..request(self.number) },
                call: Call { procedure: 0, args: Blob::from(&VALUE), footprint },
                home: HERE,
                participants: vec![participant(HERE), participant(THERE)].into(),
            }
        });
        Slice {
            body: SliceBody::Transactions(txns.collect()),
            epoch: Epoch(self.epoch),
            prev: Epoch(prev),
            time_millis: self.epoch,
            seed: 0,
            range: self.machine.range().clone(),
            floors: Floors { done: Epoch(prev), expired: Epoch(0) },
        }
    }

    /// What both shards read for a transaction of the last epoch.
    fn inputs(&self, position: u64) -> ShardCommand {
        let txn = TxnId { epoch: Epoch(self.epoch), position: u32::try_from(position).unwrap() };
        let ours = self.machine.contribution(txn).cloned().unwrap();
        let key = there(self.number - MANY + 1 + position);
        let read = Read { key, version: 1, value: Some(Blob::from(&VALUE)), expires_millis: None };
        let theirs = Contribution { reads: vec![read].into(), ..Contribution::default() };
        let contribution = |shard, contribution| ShardContribution { shard, contribution };
        let contributions = vec![contribution(HERE, ours), contribution(THERE, theirs)].into();
        ShardCommand::Inputs(TxnInputs { txn, contributions })
    }

    /// Applies entries and commits them together, as the log's host does.
    fn timed_apply(&mut self, commands: &[ShardCommand], taken: &mut Duration) -> Vec<Event> {
        let entries: Vec<_> = commands.iter().map(ShardCommand::to_bytes).collect();
        let mut events = Vec::new();
        let start = Instant::now();
        let mut writes = WriteSet::default();
        for entry in &entries {
            self.index += 1;
            events.extend(self.machine.apply(&self.store, &mut writes, self.index, entry).unwrap());
        }
        self.machine.finish(&mut writes);
        self.store.commit(self.index, Blob::new(), writes).unwrap();
        *taken += start.elapsed();
        events
    }
}

/// One of many clients, each of which has seen all its earlier answers.
fn request(number: u64) -> RequestId {
    let sequence = number / CLIENTS;
    let client = ClientId(u128::from(number % CLIENTS));
    RequestId { client, sequence, birth: Epoch(1), ack_below: sequence }
}

/// A bench of refusals would be fast and worthless.
fn assert_decided(events: &[Event], count: u64) {
    let decided = events.iter().filter(|event| matches!(event, Event::Decided { .. })).count();
    assert_eq!(decided as u64, count, "each transaction is executed");
}
