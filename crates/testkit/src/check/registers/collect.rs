//! Who wrote what, who read it, and what surely happened.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::AnomalyKind;
use crate::check::graph::{Edge, EdgeKind, Graph};
use crate::check::verdict::Findings;
use crate::history::{Datum, Key, MicroOp, Operation, Outcome};

/// The transactions that surely happened, on keys by their number.
pub(super) struct Registers<'a> {
    pub(super) keys: Vec<&'a Key>,
    pub(super) initial: Vec<Value>,
    /// By the operation's id.
    pub(super) txns: BTreeMap<usize, Txn<'a>>,
}

/// What stands in a register, if anything.
pub(super) type Value = Option<i64>;

/// A transaction as others see it.
pub(super) struct Txn<'a> {
    pub(super) by: &'a Operation,
    /// What it read of others, once for each key.
    pub(super) reads: Vec<Read>,
    /// What it left, once for each key.
    pub(super) writes: Vec<(usize, i64)>,
    /// What it found not to stand at a key.
    pub(super) differs: Vec<(usize, i64)>,
}

pub(super) struct Read {
    pub(super) key: usize,
    pub(super) value: Value,
    /// Who wrote it; nobody wrote what stood there in the beginning.
    pub(super) source: Option<usize>,
}

#[derive(Clone, Copy)]
struct Writer<'a> {
    by: &'a Operation,
    /// Whether its transaction left it there.
    is_last: bool,
}

/// The writers of each value of each key.
type Writers<'a> = BTreeMap<(usize, i64), Writer<'a>>;

impl<'a> Registers<'a> {
    /// `None` if it cannot be told who wrote what was read. What nobody may
    /// have read is found here.
    pub(super) fn collect(
        operations: &'a [Operation],
        initial: &BTreeMap<Key, Datum>,
        findings: &mut Findings,
    ) -> Option<Self> {
        let mut numbers = Numbers::default();
        let mut drafts: BTreeMap<usize, Txn<'a>> = BTreeMap::new();
        let (mut writers, mut failed) = (Writers::new(), Writers::new());
        for by in operations {
            let (txn, overwritten) = numbers.outside(by)?;
            let into = if by.outcome == Outcome::Fail { &mut failed } else { &mut writers };
            let left = txn.writes.iter().map(|write| (*write, true));
            for (write, is_last) in overwritten.into_iter().map(|write| (write, false)).chain(left)
            {
                let writer = Writer { by, is_last };
                let before = into.insert(write, writer).filter(|before| before.by.id != by.id);
                if before.is_some() && by.outcome != Outcome::Fail {
                    return None;
                }
            }
            if by.outcome != Outcome::Fail {
                drafts.insert(by.id, txn);
            }
        }
        let keys = numbers.keys;
        let initial = keys.iter().map(|key| match initial.get(*key) {
            None | Some(Datum::Nil) => Some(None),
            Some(Datum::Int(value)) => Some(Some(*value)),
            Some(Datum::List(_)) => None,
        });
        let initial = initial.collect::<Option<Vec<Value>>>()?;
        let is_ambiguous = |(key, value): (usize, Value)| {
            value.is_some_and(|value| writers.contains_key(&(key, value)))
        };
        if initial.iter().copied().enumerate().any(is_ambiguous) {
            return None;
        }
        let sources = Sources { keys: &keys, initial: &initial, writers, failed };
        drafts.values_mut().for_each(|txn| sources.fill_in(txn, findings));
        Some(Self { txns: happened(drafts), keys, initial })
    }

    pub(super) fn happened(&self) -> BTreeSet<usize> {
        self.txns.keys().copied().collect()
    }

    /// Adds the edges from writers to readers.
    pub(super) fn link(&self, graph: &mut Graph) {
        for (reader, txn) in &self.txns {
            for Read { key, value, source } in &txn.reads {
                if let (Some(writer), Some(value)) = (source, value) {
                    graph.link(*writer, Edge::data(*reader, EdgeKind::WriteRead, *key, *value));
                }
            }
        }
    }
}

/// Keys by their number.
#[derive(Default)]
struct Numbers<'a> {
    numbers: BTreeMap<&'a Key, usize>,
    keys: Vec<&'a Key>,
}

impl<'a> Numbers<'a> {
    fn number(&mut self, key: &'a Key) -> usize {
        *self.numbers.entry(key).or_insert_with(|| {
            self.keys.push(key);
            self.keys.len() - 1
        })
    }

    /// What others see of an operation, and what it wrote and overwrote
    /// itself. `None` if it is not one on registers.
    fn outside(&mut self, by: &'a Operation) -> Option<(Txn<'a>, Vec<(usize, i64)>)> {
        let mut txn = Txn { by, reads: Vec::new(), writes: Vec::new(), differs: Vec::new() };
        let mut overwritten = Vec::new();
        for step in &by.txn {
            let key = self.number(step.keys().next()?);
            let own = txn.writes.iter_mut().find(|(at, _)| *at == key);
            let is_untouched = own.is_none() && txn.reads.iter().all(|read| read.key != key);
            let (seen, written) = match step {
                MicroOp::Read { seen: None, .. } => (None, None),
                // A read is answered only with the whole transaction.
                MicroOp::Read { .. } if by.outcome != Outcome::Ok => (None, None),
                MicroOp::Read { seen: Some(Datum::Nil), .. } => (Some(None), None),
                MicroOp::Read { seen: Some(Datum::Int(value)), .. } => (Some(Some(*value)), None),
                MicroOp::Write { value, .. } => (None, Some(*value)),
                MicroOp::CompareAndSet { expected, new, .. } => (Some(Some(*expected)), Some(*new)),
                MicroOp::Differs { unexpected, .. } => {
                    if is_untouched && by.outcome == Outcome::Ok {
                        txn.differs.push((key, *unexpected));
                    }
                    continue;
                }
                _ => return None,
            };
            if let Some(value) = seen.filter(|_| is_untouched) {
                txn.reads.push(Read { key, value, source: None });
            }
            match (own, written) {
                (Some((_, value)), Some(new)) => {
                    overwritten.push((key, *value));
                    *value = new;
                }
                (None, Some(new)) => txn.writes.push((key, new)),
                (_, None) => {}
            }
        }
        Some((txn, overwritten))
    }
}

struct Sources<'a> {
    keys: &'a [&'a Key],
    initial: &'a [Value],
    writers: Writers<'a>,
    failed: Writers<'a>,
}

impl Sources<'_> {
    fn fill_in(&self, txn: &mut Txn<'_>, findings: &mut Findings) {
        let by = txn.by;
        for Read { key, value, source } in &mut txn.reads {
            // Nothing was there in the beginning, unless something was.
            let is_initial = self.initial.get(*key) == Some(&*value);
            let Some(value) = value.filter(|_| !is_initial) else {
                if !is_initial && is_answered(by) {
                    let what = format!("#{} read nothing in {}", by.id, self.name(*key));
                    findings.add(AnomalyKind::PhantomElement, what, [by]);
                }
                continue;
            };
            let name = self.name(*key);
            let writer = self.writers.get(&(*key, value));
            *source = writer.map(|writer| writer.by.id);
            if !is_answered(by) {
                continue;
            }
            let failed = self.failed.get(&(*key, value));
            match (writer, failed) {
                (Some(writer), _) if writer.by.id == by.id => {
                    let what = format!("it saw {value} in {name} before it wrote it");
                    findings.add(AnomalyKind::Internal, what, [by]);
                }
                (Some(writer), _) if !writer.is_last => {
                    let what = format!(
                        "#{} read {value} in {name}, which #{} overwrote itself",
                        by.id, writer.by.id
                    );
                    findings.add(AnomalyKind::IntermediateRead, what, [by, writer.by]);
                }
                (Some(_), _) => {}
                (None, Some(failed)) => {
                    let what =
                        format!("#{} read {value} in {name}, but #{} failed", by.id, failed.by.id);
                    findings.add(AnomalyKind::AbortedRead, what, [by, failed.by]);
                }
                (None, None) => {
                    let what = format!("#{} read {value} in {name}, which nobody wrote", by.id);
                    findings.add(AnomalyKind::PhantomElement, what, [by]);
                }
            }
        }
    }

    fn name(&self, key: usize) -> &str {
        self.keys.get(key).map_or("?", |key| key.as_str())
    }
}

fn is_answered(by: &Operation) -> bool {
    by.outcome == Outcome::Ok
}

/// Those that were acknowledged, and those whose writes one of these saw.
fn happened(mut drafts: BTreeMap<usize, Txn<'_>>) -> BTreeMap<usize, Txn<'_>> {
    let mut known: BTreeMap<usize, Txn<'_>> = BTreeMap::new();
    let answered = drafts.iter().filter(|(_, txn)| is_answered(txn.by)).map(|(id, _)| *id);
    let mut next: Vec<usize> = answered.collect();
    while let Some(id) = next.pop() {
        let Some(txn) = drafts.remove(&id) else { continue };
        next.extend(txn.reads.iter().filter_map(|read| read.source));
        known.insert(id, txn);
    }
    known
}
