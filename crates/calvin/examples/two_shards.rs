//! Two shards and a sequencer in one process, without a network: the pure
//! cores, fed by hand. One transfer crosses the shards; watch what happens.
//!
//! Run with `cargo run -p quorate-calvin --example two_shards`.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::sequencer::{SequencerLeader, SequencerLimits, SequencerMachine};
use quorate_calvin::shard::{Event, LeaderOutput, ReadOutcome, ShardLeader, ShardMachine, Verdict};
use quorate_calvin::{
    Call, Footprint, Inputs, MapShard, Outcome, Procedures, SequencerCommand, ShardCommand,
    ShardMap, Space, Store, StoreError, Submission, Write, WriteSet,
};
use quorate_types::{Blob, ClientId, Epoch, KeyRange, RequestId, ShardEpoch, ShardId};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Row = (Blob, Blob);

/// Rows in memory; a real one is an engine.
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
    fn get(&self, space: Space, key: &[u8]) -> std::result::Result<Option<Blob>, StoreError> {
        Ok(self.of(space).lock().get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        rows_max: usize,
    ) -> std::result::Result<(Vec<Row>, bool), StoreError> {
        let rows = self.of(space).lock();
        let mut found = rows.iter().filter(|(key, _)| range.contains(key));
        let page = found.by_ref().take(rows_max).map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok((page, found.next().is_some()))
    }

    fn middle_key(&self) -> std::result::Result<Option<Blob>, StoreError> {
        let rows = self.data.lock();
        let keys = rows.keys();
        let middle = keys.len() / 2;
        Ok(keys.clone().nth(middle).filter(|_| middle > 0).cloned())
    }

    fn commit(&self, _: u64, _: Blob, writes: WriteSet) -> std::result::Result<(), StoreError> {
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

/// Moves one coin from the first key to the second, if there is one; with no
/// keys to write it only reads.
struct Bank;

impl Procedures for Bank {
    fn run(&self, call: &Call, inputs: &Inputs, _time_millis: u64, _seed: u64) -> Outcome {
        let coins = |key: &Blob| inputs.value(key).and_then(|coins| coins.first()).copied();
        let balance = |key: &Blob| coins(key).unwrap_or(3);
        let put = |key: &Blob, coins: u8| Write {
            key: key.clone(),
            value: Some(Blob::from(&[coins])),
            expires_millis: None,
        };
        match call.footprint.writes.as_slice() {
            [from, to] => match balance(from).checked_sub(1) {
                Some(rest) => Outcome {
                    writes: vec![put(from, rest), put(to, balance(to) + 1)],
                    result: Blob::from("moved"),
                    ..Outcome::default()
                },
                None => Outcome { result: Blob::from("no coins"), ..Outcome::default() },
            },
            _ => {
                let balances = call.footprint.reads.iter().map(balance).collect::<Vec<u8>>();
                Outcome { result: balances.into(), ..Outcome::default() }
            }
        }
    }
}

/// A shard of one replica: its log is whatever is applied to it.
struct Shard {
    machine: ShardMachine,
    store: Memory,
    leader: ShardLeader,
    index: u64,
}

impl Shard {
    fn new(shard: &MapShard) -> Result<Self> {
        let store = Memory::default();
        let mut seed = WriteSet::default();
        for (key, row) in ShardMachine::seed(shard.range.clone(), shard.epoch) {
            seed.put_system(key, row);
        }
        store.commit(0, Blob::new(), seed)?;
        let machine = ShardMachine::load(shard.shard, Arc::new(Bank), &store)?;
        let machine = machine.ok_or("a seeded shard loads")?;
        let leader = ShardLeader::new(&machine, Duration::ZERO);
        Ok(Self { machine, store, leader, index: 0 })
    }

    /// "Commits" a command to the shard's log and applies it.
    fn apply(&mut self, command: &ShardCommand) -> Result<()> {
        self.index += 1;
        let mut writes = WriteSet::default();
        let bytes = command.to_bytes();
        let events = self.machine.apply(&self.store, &mut writes, self.index, &bytes)?;
        self.machine.finish(&mut writes);
        self.store.commit(self.index, Blob::new(), writes)?;
        for event in events {
            println!("  {} log {}: {event:?}", self.machine.shard(), self.index);
            if let Event::Granted { txn, needed_by } = event {
                self.leader.granted(&self.machine, txn, &needed_by, Duration::ZERO);
            }
        }
        Ok(())
    }

    fn coins(&self, key: &str) -> Result<Blob> {
        let footprint = Footprint { reads: vec![Blob::from(key)].into(), ..Footprint::default() };
        let call = Call { procedure: 0, args: Blob::new(), footprint };
        match self.machine.read(&self.store, &call, self.machine.epoch(), 0)? {
            ReadOutcome::Answer { verdict: Verdict::Done(result), .. } => Ok(result),
            other => Err(format!("{other:?}").into()),
        }
    }
}

fn main() -> Result<()> {
    let cut = Blob::from("m");
    let low = KeyRange { start: Blob::new(), end: Some(cut.clone()) };
    let high = KeyRange { start: cut, end: None };
    let entry = |shard, range| MapShard { shard: ShardId(shard), range, epoch: ShardEpoch(1) };
    let map = ShardMap { version: 1, shards: vec![entry(1, low), entry(2, high)].into() };
    let mut shards = BTreeMap::new();
    for shard in &map.shards {
        shards.insert(shard.shard, Shard::new(shard)?);
    }

    println!("1. The sequencer orders a transfer from ann (s1) to zoe (s2).");
    let store = Memory::default();
    let mut sequencer = SequencerMachine::load(&store, 0)?;
    let init = SequencerCommand::Init { map, retention_millis: 60_000 };
    sequencer.apply(&mut WriteSet::default(), 1, Some(&init.to_bytes()))?;
    let mut leader = SequencerLeader::new(&sequencer, SequencerLimits::default(), Duration::ZERO);
    let keys = vec![Blob::from("ann"), Blob::from("zoe")];
    let footprint =
        Footprint { reads: keys.clone().into(), writes: keys.into(), ..Footprint::default() };
    let call = Call { procedure: 0, args: Blob::new(), footprint };
    let request = RequestId { client: ClientId(1), sequence: 0, birth: Epoch(1), ack_below: 0 };
    leader.submit(&sequencer, Submission { request, call }, Duration::ZERO)?;
    let batch = leader.next_batch(&sequencer, Duration::ZERO, 1_000, 42);
    let batch = batch.ok_or("something was submitted")?;
    let batch = SequencerCommand::Batch(batch);
    for event in sequencer.apply(&mut WriteSet::default(), 2, Some(&batch.to_bytes()))? {
        println!("  {event:?}");
    }
    println!("  L = {}", leader.watermarks(&sequencer).logged);

    println!("2. Each shard logs its slice, takes its locks and reads its share.");
    for (id, shard) in &mut shards {
        let slices = sequencer.slices_after(*id, shard.machine.cursor(), 10).cloned();
        shard.apply(&ShardCommand::Slices(slices.collect()))?;
        leader.reported(&sequencer, *id, shard.machine.cursor(), shard.machine.done());
    }
    let logged = leader.watermarks(&sequencer).logged;
    println!("  L = {logged}: from here on the reply may leave");

    println!("3. The leaders exchange what they read and log the complete inputs.");
    let ids: Vec<ShardId> = shards.keys().copied().collect();
    for from in ids.iter().cycle().take(2 * ids.len()) {
        let outputs = shards.get_mut(from).map(|shard| shard.leader.take_outputs());
        for output in outputs.unwrap_or_default() {
            println!("  {from}: {output:?}");
            match output {
                LeaderOutput::Contribute { to, txn, contribution } => {
                    if let Some(Shard { machine, leader, .. }) = shards.get_mut(&to) {
                        leader.contributed(machine, txn, *from, contribution, Duration::ZERO);
                    }
                }
                LeaderOutput::Propose(command) => {
                    if let Some(shard) = shards.get_mut(from) {
                        shard.apply(&command)?;
                    }
                }
                // Contributions reach everyone here, so no one needs to ask,
                // and none is dropped; an answer goes to the client once L
                // covers it.
                LeaderOutput::Ask { .. }
                | LeaderOutput::Answer { .. }
                | LeaderOutput::Gone { .. } => {}
            }
        }
    }

    println!("4. The coins have moved, on both shards or on none.");
    for (shard, key) in [(ShardId(1), "ann"), (ShardId(2), "zoe")] {
        let coins = shards.get(&shard).ok_or("the shard is there")?.coins(key)?;
        println!("  {key} has {coins:?}");
    }
    Ok(())
}
