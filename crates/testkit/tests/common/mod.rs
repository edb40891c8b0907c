//! Builds histories by hand and by chance.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_testkit::history::{
    Datum, Event, EventKind, History, Key, MicroOp, Operation, Outcome, ProcessId,
};
use quorate_types::env::{Rng, SplitMix};

/// An operation between two moments. Moments are distinct numbers.
#[derive(Debug, Clone)]
pub struct Op {
    pub process: u64,
    pub from: u64,
    pub to: u64,
    pub outcome: Outcome,
    pub txn: Vec<MicroOp>,
}

pub fn ok(process: u64, from: u64, to: u64, txn: Vec<MicroOp>) -> Op {
    Op { process, from, to, outcome: Outcome::Ok, txn }
}

pub fn failed(process: u64, from: u64, to: u64, txn: Vec<MicroOp>) -> Op {
    Op { process, from, to, outcome: Outcome::Fail, txn }
}

pub fn unknown(process: u64, from: u64, to: u64, txn: Vec<MicroOp>) -> Op {
    Op { process, from, to, outcome: Outcome::Unknown, txn }
}

pub fn append(key: &str, value: i64) -> MicroOp {
    MicroOp::append(key, value)
}

pub fn saw<const N: usize>(key: &str, list: [i64; N]) -> MicroOp {
    MicroOp::saw_list(key, list)
}

pub fn history(ops: &[Op]) -> History {
    let mut events = Vec::new();
    for op in ops {
        let event = |kind, millis| Event {
            kind,
            process: ProcessId(op.process),
            time: Duration::from_millis(millis),
            f: "txn".into(),
            txn: op.txn.clone(),
            error: None,
        };
        let end = match op.outcome {
            Outcome::Ok => EventKind::Ok,
            Outcome::Fail => EventKind::Fail,
            Outcome::Unknown => EventKind::Info,
        };
        events.push(event(EventKind::Invoke, op.from));
        events.push(event(end, op.to));
    }
    events.sort_by_key(|event| event.time);
    History { events }
}

pub fn operations(ops: &[Op]) -> Vec<Operation> {
    history(ops).operations().unwrap()
}

/// How wild a random history is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub operations: u64,
    pub keys: u64,
    pub steps_max: u64,
    /// How far an operation's ends may lie from its effect.
    pub overlap: u64,
    /// How far its effect may lie outside, which no legal history allows.
    pub shift: u64,
}

/// An execution on one thread, dressed up as concurrent clients. Every effect
/// takes place at one moment between the operation's ends, unless the shape
/// shifts it. It ends with a read of everything.
pub fn execution(seed: u64, shape: Shape) -> Vec<Op> {
    execution_of(seed, shape, MicroOp::append, Datum::List(Vec::new()))
}

/// The same on registers. Some writes compare first, with what happens to
/// stand there.
pub fn register_execution(seed: u64, shape: Shape) -> Vec<Op> {
    let change = |key, value| match value % 4 {
        0 => MicroOp::compare_and_set(key, WHATEVER, value),
        _ => MicroOp::write(key, value),
    };
    execution_of(seed, shape, change, Datum::Nil)
}

/// Expects what stands there.
const WHATEVER: i64 = -1;

fn execution_of(seed: u64, shape: Shape, change: fn(Key, i64) -> MicroOp, empty: Datum) -> Vec<Op> {
    let mut chance = SplitMix::new(seed);
    let mut drafts: Vec<(u64, Op)> = Vec::new();
    let mut value = 0;
    for number in 0..shape.operations {
        let moment = 1000 + number * 10;
        let from = moment - 1 - chance.below(shape.overlap.min(900));
        let to = moment + 1 + chance.below(shape.overlap);
        let (outcome, happens) = match chance.below(20) {
            0 => (Outcome::Fail, false),
            1 => (Outcome::Unknown, false),
            2 => (Outcome::Unknown, true),
            _ => (Outcome::Ok, true),
        };
        let txn = (0..1 + chance.below(shape.steps_max)).map(|_| {
            let key = Key::from(chance.below(shape.keys));
            if chance.below(2) == 0 {
                return MicroOp::read(key);
            }
            value += 1;
            change(key, value)
        });
        let txn = txn.collect();
        let effect = if happens {
            moment + chance.below(shape.shift + 1) - chance.below(shape.shift + 1).min(moment)
        } else {
            u64::MAX
        };
        drafts.push((effect, Op { process: 0, from, to, outcome, txn }));
    }
    let end = 2000 + shape.operations * 10 + shape.overlap;
    let all = (0..shape.keys).map(|key| MicroOp::read(Key::from(key))).collect();
    drafts.push((u64::MAX - 1, ok(0, end, end + 1, all)));
    execute(&mut drafts, Store::new(empty));
    let mut ops: Vec<Op> = drafts.into_iter().map(|(_, op)| op).collect();
    ops.sort_by_key(|op| op.from);
    assign_processes(&mut ops);
    ops
}

fn execute(drafts: &mut [(u64, Op)], mut store: Store) {
    drafts.sort_by_key(|(effect, _)| *effect);
    for (_, op) in drafts.iter_mut().filter(|(effect, _)| *effect != u64::MAX) {
        let is_answered = op.outcome == Outcome::Ok;
        op.txn.iter_mut().for_each(|step| store.take(step, is_answered));
    }
}

/// Lists and registers on one thread.
pub struct Store {
    data: BTreeMap<Key, Datum>,
    /// What a reader sees where nothing was written.
    empty: Datum,
}

impl Store {
    pub fn new(empty: Datum) -> Self {
        Self { data: BTreeMap::new(), empty }
    }

    pub fn read(&self, key: &Key) -> Datum {
        self.data.get(key).unwrap_or(&self.empty).clone()
    }

    /// Takes a step of a transaction; a read is filled in if it is answered.
    pub fn take(&mut self, step: &mut MicroOp, is_answered: bool) {
        match step {
            MicroOp::Append { key, value } => match self.data.get_mut(key) {
                Some(Datum::List(list)) => list.push(*value),
                _ => drop(self.data.insert(key.clone(), Datum::List(vec![*value]))),
            },
            MicroOp::Write { key, value } => {
                self.data.insert(key.clone(), Datum::Int(*value));
            }
            MicroOp::CompareAndSet { key, expected, new } if *expected == WHATEVER => {
                let (key, value) = (key.clone(), *new);
                if let Datum::Int(stands) = self.read(&key) {
                    *expected = stands;
                } else {
                    *step = MicroOp::write(key.clone(), value);
                }
                self.data.insert(key, Datum::Int(value));
            }
            MicroOp::Read { key, seen } if is_answered => {
                *seen = Some(self.read(key));
            }
            _ => {}
        }
    }
}

/// Gives each operation a process that is free, and makes moments distinct.
pub fn assign_processes(ops: &mut [Op]) {
    let mut free_from: Vec<u64> = Vec::new();
    for (number, op) in ops.iter_mut().enumerate() {
        let number = number as u64;
        op.from = op.from * 100_000 + number;
        op.to = op.to * 100_000 + 50_000 + number;
        let free = free_from.iter().position(|free| *free < op.from);
        let process = free.unwrap_or_else(|| {
            free_from.push(0);
            free_from.len() - 1
        });
        free_from[process] = op.to;
        op.process = process as u64;
    }
}
