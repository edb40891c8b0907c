//! Who appended what, who saw what, and in which order it was appended.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::cycles::Story;
use crate::check::graph::{Edge, EdgeKind, Graph};
use crate::check::verdict::Findings;
use crate::check::{AnomalyKind, Through};
use crate::history::{Datum, Key, MicroOp, Operation, Outcome};

/// The lists of a history.
pub(super) struct Lists<'a> {
    operations: &'a [Operation],
    lists: Vec<List<'a>>,
}

struct List<'a> {
    key: &'a Key,
    appends: BTreeMap<i64, Append<'a>>,
    reads: Vec<ListRead<'a>>,
    /// The order of appends: the longest list anyone saw.
    order: &'a [i64],
    /// Whether all reads agree with it and it makes sense.
    is_sound: bool,
}

struct Append<'a> {
    by: &'a Operation,
    /// Whether its transaction appended nothing to the list after it.
    is_last: bool,
}

struct ListRead<'a> {
    by: &'a Operation,
    seen: &'a [i64],
}

fn seen_list(step: &MicroOp) -> Option<(&Key, &[i64])> {
    match step {
        MicroOp::Read { key, seen: Some(Datum::List(seen)) } => Some((key, seen)),
        MicroOp::Read { key, seen: Some(Datum::Nil) } => Some((key, &[])),
        _ => None,
    }
}

fn appended(step: &MicroOp) -> Option<(&Key, i64)> {
    match step {
        MicroOp::Append { key, value } => Some((key, *value)),
        _ => None,
    }
}

impl<'a> Lists<'a> {
    /// Gathers appends and reads. An error says why no order can be inferred.
    pub(super) fn collect(operations: &'a [Operation]) -> Result<Self, String> {
        let mut ids: BTreeMap<&Key, usize> = BTreeMap::new();
        let mut lists: Vec<List<'a>> = Vec::new();
        for by in operations {
            for (at, step) in by.txn.iter().enumerate() {
                let touched = appended(step).map(|(key, value)| (key, Some(value), &[][..]));
                let touched =
                    touched.or_else(|| seen_list(step).map(|(key, seen)| (key, None, seen)));
                let Some((key, value, seen)) = touched else { continue };
                let id = *ids.entry(key).or_insert_with(|| {
                    let (appends, reads) = (BTreeMap::new(), Vec::new());
                    lists.push(List { key, appends, reads, order: &[], is_sound: true });
                    lists.len() - 1
                });
                let Some(list) = lists.get_mut(id) else { continue };
                let Some(value) = value else {
                    if by.outcome == Outcome::Ok {
                        list.reads.push(ListRead { by, seen });
                    }
                    continue;
                };
                let mut later = by.txn.iter().skip(at + 1).filter_map(appended);
                let is_last = !later.any(|(later, _)| later == key);
                list.note_append(value, Append { by, is_last })?;
            }
        }
        Ok(Self { operations, lists })
    }

    /// Takes the longest read of each list for its order and holds all others
    /// against it.
    pub(super) fn infer_order(&mut self, findings: &mut Findings) {
        self.lists.iter_mut().for_each(|list| list.infer_order(findings));
    }

    /// G1b: nobody may see an element that was not its transaction's last.
    pub(super) fn check_intermediate(&self, findings: &mut Findings) {
        for list in &self.lists {
            for read in &list.reads {
                let last = list.base(read).last().and_then(|value| list.appends.get(value));
                if let Some(append) = last.filter(|append| !append.is_last) {
                    let what = format!(
                        "#{} read {} between two appends of #{}",
                        read.by.id, list.key, append.by.id
                    );
                    findings.add(AnomalyKind::IntermediateRead, what, [read.by, append.by]);
                }
            }
        }
    }

    /// An acknowledged append that no read shows, although one began later.
    pub(super) fn check_lost(&self, findings: &mut Findings) {
        for list in self.lists.iter().filter(|list| list.is_sound) {
            let last_read = list.reads.iter().max_by_key(|read| read.by.invoked.position);
            let Some(last_read) = last_read else { continue };
            for (value, append) in list.unobserved() {
                if append.by.precedes(last_read.by) {
                    let what = format!(
                        "#{} appended {value} to {} and was acknowledged before #{} read the \
                         list without it; no read ever shows it",
                        append.by.id, list.key, last_read.by.id
                    );
                    findings.add(AnomalyKind::LostAppend, what, [append.by, last_read.by]);
                }
            }
        }
    }

    /// Which operations are known to have happened.
    pub(super) fn happened(&self) -> BTreeSet<usize> {
        let acknowledged =
            self.operations.iter().filter(|operation| operation.outcome == Outcome::Ok);
        let observed = self.lists.iter().flat_map(|list| {
            list.order.iter().filter_map(|value| list.appends.get(value)).map(|append| append.by)
        });
        let observed = observed.filter(|operation| operation.outcome == Outcome::Unknown);
        acknowledged.chain(observed).map(|operation| operation.id).collect()
    }

    /// Adds the edges of data.
    pub(super) fn link(&self, happened: &BTreeSet<usize>, graph: &mut Graph) {
        for (id, list) in self.lists.iter().enumerate().filter(|(_, list)| list.is_sound) {
            list.link(id, happened, graph);
        }
    }

    pub(super) fn story(&self) -> Story<'a> {
        let keys = self.lists.iter().map(|list| list.key).collect();
        let (operations, wrote) = (self.operations, "appended");
        Story { operations, keys, wrote, through_at_least: Through::Data }
    }
}

impl<'a> List<'a> {
    fn note_append(&mut self, value: i64, append: Append<'a>) -> Result<(), String> {
        let Some(other) = self.appends.get(&value) else {
            self.appends.insert(value, append);
            return Ok(());
        };
        match (other.by.outcome, append.by.outcome) {
            (_, Outcome::Fail) => {}
            (Outcome::Fail, _) => drop(self.appends.insert(value, append)),
            _ => {
                return Err(format!(
                    "{value} is appended to {} by #{} and by #{}; elements must be unique",
                    self.key, other.by.id, append.by.id
                ));
            }
        }
        Ok(())
    }

    fn infer_order(&mut self, findings: &mut Findings) {
        let Some(longest) = self.reads.iter().max_by_key(|read| read.seen.len()) else { return };
        self.order = longest.seen;
        let mut is_sound = self.makes_sense(longest, findings);
        for read in self.reads.iter().filter(|read| !longest.seen.starts_with(read.seen)) {
            is_sound = false;
            self.makes_sense(read, findings);
            let what = format!("reads of {} do not agree on its order", self.key);
            findings.add(AnomalyKind::IncompatibleOrder, what, [read.by, longest.by]);
        }
        self.is_sound = is_sound;
    }

    /// Whether a read shows each element once, and only what was appended.
    fn makes_sense(&self, read: &ListRead<'_>, findings: &mut Findings) -> bool {
        let mut shown = BTreeSet::new();
        let mut makes_sense = true;
        for value in read.seen {
            let (key, reader) = (self.key, read.by);
            let append = self.appends.get(value);
            if !shown.insert(value) {
                let what = format!("#{} read {value} in {key} more than once", reader.id);
                let shown = [reader].into_iter().chain(append.map(|append| append.by));
                findings.add(AnomalyKind::DuplicateElement, what, shown);
            } else if append.is_none() {
                let what = format!("#{} read {value} in {key}, which nobody appended", reader.id);
                findings.add(AnomalyKind::PhantomElement, what, [reader]);
            } else if let Some(Append { by, .. }) =
                append.filter(|append| append.by.outcome == Outcome::Fail)
            {
                let what = format!("#{} read {value} in {key}, but #{} failed", reader.id, by.id);
                findings.add(AnomalyKind::AbortedRead, what, [reader, by]);
            } else {
                continue;
            }
            makes_sense = false;
        }
        makes_sense
    }

    /// What a reader saw of others: without what it appended itself.
    fn base<'b>(&self, read: &ListRead<'b>) -> &'b [i64] {
        let mut base = read.seen;
        while let Some((last, rest)) = base.split_last()
            && self.appends.get(last).is_some_and(|append| append.by.id == read.by.id)
        {
            base = rest;
        }
        base
    }

    /// Appends that may have happened and that no read shows: they come after
    /// every state that was read.
    fn unobserved(&self) -> impl Iterator<Item = (i64, &Append<'a>)> {
        let observed: BTreeSet<_> = self.order.iter().copied().collect();
        self.appends.iter().map(|(value, append)| (*value, append)).filter(
            move |(value, append)| append.by.outcome != Outcome::Fail && !observed.contains(value),
        )
    }

    fn link(&self, id: usize, happened: &BTreeSet<usize>, graph: &mut Graph) {
        let writer = |value: &i64| self.appends.get(value).map(|append| append.by.id);
        for (earlier, later) in self.order.iter().zip(self.order.iter().skip(1)) {
            if let (Some(from), Some(to)) = (writer(earlier), writer(later)) {
                graph.link(from, Edge::data(to, EdgeKind::WriteWrite, id, *later));
            }
        }
        for read in &self.reads {
            let reader = read.by.id;
            if let Some(last) = self.base(read).last()
                && let Some(from) = writer(last)
            {
                graph.link(from, Edge::data(reader, EdgeKind::WriteRead, id, *last));
            }
            if let Some(next) = self.order.get(read.seen.len())
                && let Some(to) = writer(next)
            {
                graph.link(reader, Edge::data(to, EdgeKind::ReadWrite, id, *next));
            }
        }
        self.link_unobserved(id, happened, graph);
    }

    /// Orders the unobserved appends after everything that was read. A node
    /// of its own stands between, lest every last reader had an edge to every
    /// unobserved append.
    fn link_unobserved(&self, id: usize, happened: &BTreeSet<usize>, graph: &mut Graph) {
        let unobserved: Vec<(i64, usize)> = self
            .unobserved()
            .map(|(value, append)| (value, append.by.id))
            .filter(|(_, by)| happened.contains(by))
            .collect();
        if unobserved.is_empty() {
            return;
        }
        let appenders: BTreeSet<usize> = unobserved.iter().map(|(_, by)| *by).collect();
        let end = graph.add_virtual();
        for (value, by) in &unobserved {
            graph.link(end, Edge::data(*by, EdgeKind::Then, id, *value));
        }
        let last = self.order.last().and_then(|value| self.appends.get(value));
        if let Some(last) = last.filter(|last| !appenders.contains(&last.by.id)) {
            graph.link(last.by.id, Edge::data(end, EdgeKind::WriteWrite, id, 0));
        }
        // Of two that read the end and then appended, each should have seen
        // the other. One edge each way shows it; more would be quadratic.
        let mut also_appended: Option<usize> = None;
        for read in self.reads.iter().filter(|read| read.seen.len() == self.order.len()) {
            let reader = read.by.id;
            if !appenders.contains(&reader) {
                graph.link(reader, Edge::data(end, EdgeKind::ReadWrite, id, 0));
                continue;
            }
            let first = *also_appended.get_or_insert(reader);
            for (value, by) in &unobserved {
                if first == reader || *by == first {
                    graph.link(reader, Edge::data(*by, EdgeKind::ReadWrite, id, *value));
                }
            }
        }
    }
}
