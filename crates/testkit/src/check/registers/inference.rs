//! Applies the two rules until nothing new follows.

use std::collections::{BTreeMap, BTreeSet};

use super::chains::Chains;
use super::collect::{Registers, Txn};
use crate::check::graph::{Edge, EdgeKind, Graph};

/// Transactions times chains, 4 bytes each.
const CELLS_MAX: usize = 1 << 26;

/// So many of those may be looked at: some seconds. Ten thousand transactions
/// of a hundred clients need less.
const WORK_MAX: u64 = 2_000_000_000;

/// Why there is no order to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has a circle.
    Circular,
    /// It would take too long, or too much memory.
    TooLarge,
}

/// What comes before what, as far as it is known.
pub(super) struct Inference<'a> {
    /// By node: transactions are numbered by invocation.
    pub(super) txns: Vec<&'a Txn<'a>>,
    pub(super) chains: Chains,
    ids: Vec<usize>,
    /// Who reads what a node, or nobody, wrote to a key.
    readers: BTreeMap<(usize, Option<usize>), Vec<usize>>,
    /// Who wrote what a node reads, in the order of its reads.
    sources: Vec<Vec<Option<usize>>>,
    /// The edges from each node.
    after: Vec<Vec<usize>>,
    /// For each node and chain, how many of the chain come before the node.
    reach: Vec<u32>,
    /// What was inferred, each with where it begins.
    inferred: Vec<(usize, Edge)>,
    /// While a decision is tried, the cells that changed, and what they were.
    journal: Option<Vec<(usize, u32)>>,
    /// Still to be added, and nodes of which more is known than was used.
    pending: Vec<(usize, Edge)>,
    dirty: BTreeSet<usize>,
    work_left: u64,
}

// Nodes, chains and keys are numbered densely; every index is one of those.
#[expect(clippy::indexing_slicing, reason = "numbers are dense, see above")]
impl<'a> Inference<'a> {
    /// Everything that follows from `graph`.
    pub(super) fn of(registers: &'a Registers<'a>, graph: &Graph) -> Result<Self, Stop> {
        let chains = Chains::deal(registers);
        let ids: Vec<usize> = registers.txns.keys().copied().collect();
        let cells = ids.len().saturating_mul(chains.members.len());
        if cells > CELLS_MAX {
            return Err(Stop::TooLarge);
        }
        let node = |id: &usize| ids.binary_search(id).ok();
        let after = ids.iter().map(|id| {
            graph.edges(*id).iter().filter_map(|edge| node(&edge.to)).collect::<Vec<usize>>()
        });
        let after: Vec<Vec<usize>> = after.collect();
        let mut readers: BTreeMap<(usize, Option<usize>), Vec<usize>> = BTreeMap::new();
        let mut sources = Vec::new();
        for (reader, txn) in registers.txns.values().enumerate() {
            let seen = txn.reads.iter().map(|read| (read.key, read.source.as_ref().and_then(node)));
            for read in seen.clone() {
                readers.entry(read).or_default().push(reader);
            }
            sources.push(seen.map(|(_, source)| source).collect());
        }
        let mut inference = Self {
            txns: registers.txns.values().collect(),
            dirty: (0..ids.len()).collect(),
            chains,
            ids,
            readers,
            sources,
            after,
            reach: vec![0; cells],
            inferred: Vec::new(),
            journal: None,
            pending: Vec::new(),
            work_left: WORK_MAX,
        };
        inference.follow_graph()?;
        Ok(inference)
    }

    /// Applies the rules to what is known.
    pub(super) fn settle(&mut self) -> Result<(), Stop> {
        loop {
            if let Some((from, edge)) = self.pending.pop() {
                if !self.is_before(from, edge.to) {
                    self.after[from].push(edge.to);
                    self.inferred.push((from, edge));
                    self.pass_on(from, edge.to)?;
                }
            } else if let Some(node) = self.dirty.pop_first() {
                self.apply_to_reads(node);
                self.apply_to_writes(node);
            } else {
                return Ok(());
            }
        }
    }

    /// Adds what was inferred, for the telling of a circle.
    pub(super) fn tell(&self, graph: &mut Graph) {
        for (from, edge) in &self.inferred {
            graph.link(self.ids[*from], Edge { to: self.ids[edge.to], ..*edge });
        }
    }

    /// Decides that `one` comes before `other`, unless that is known to lead
    /// to a circle; then it is the other way round. Says which.
    pub(super) fn decide(&mut self, one: usize, other: usize, key: usize) -> Result<bool, Stop> {
        self.journal = Some(Vec::new());
        let before = self.inferred.len();
        let edge = |to| Edge::data(to, EdgeKind::WriteWrite, key, 0);
        self.pending.push((one, edge(other)));
        let outcome = self.settle();
        let changed = self.journal.take().unwrap_or_default();
        match outcome {
            Ok(()) => return Ok(true),
            Err(Stop::Circular) => self.take_back(before, changed),
            Err(Stop::TooLarge) => return Err(Stop::TooLarge),
        }
        self.pending.push((other, edge(one)));
        self.settle()?;
        Ok(false)
    }

    pub(super) fn is_before(&self, one: usize, other: usize) -> bool {
        let place = self.chains.places[one];
        self.reach(other)[place.chain] > place.place
    }

    /// How much of each chain comes before a node.
    pub(super) fn reach(&self, node: usize) -> &[u32] {
        let count = self.chains.members.len();
        &self.reach[node * count..(node + 1) * count]
    }

    /// Lets all that comes before a node be known to those after it, in an
    /// order of the graph.
    fn follow_graph(&mut self) -> Result<(), Stop> {
        let mut missing = vec![0_usize; self.ids.len()];
        self.after.iter().flatten().for_each(|to| missing[*to] += 1);
        let mut ready: Vec<usize> = (0..missing.len()).filter(|node| missing[*node] == 0).collect();
        let mut passed = 0;
        while let Some(node) = ready.pop() {
            passed += 1;
            for edge in 0..self.after[node].len() {
                let to = self.after[node][edge];
                self.merge(node, to)?;
                missing[to] -= 1;
                if missing[to] == 0 {
                    ready.push(to);
                }
            }
        }
        if passed == self.ids.len() { Ok(()) } else { Err(Stop::Circular) }
    }

    /// Lets what is new before `from` be known after it.
    fn pass_on(&mut self, from: usize, to: usize) -> Result<(), Stop> {
        let mut changed = Vec::new();
        if self.merge(from, to)? {
            changed.push(to);
        }
        while let Some(node) = changed.pop() {
            for edge in 0..self.after[node].len() {
                let to = self.after[node][edge];
                if self.merge(node, to)? {
                    changed.push(to);
                }
            }
        }
        Ok(())
    }

    /// Whether that was news to `to`.
    fn merge(&mut self, from: usize, to: usize) -> Result<bool, Stop> {
        let count = self.chains.members.len();
        self.work_left = self.work_left.checked_sub(count as u64).ok_or(Stop::TooLarge)?;
        let (own, place) = (self.chains.places[from], self.chains.places[to]);
        let mut is_news = false;
        for chain in 0..count {
            let is_own = chain == own.chain;
            let known = self.reach[from * count + chain].max(u32::from(is_own) * (own.place + 1));
            let cell = to * count + chain;
            if known > self.reach[cell] {
                if let Some(journal) = &mut self.journal {
                    journal.push((cell, self.reach[cell]));
                }
                self.reach[cell] = known;
                is_news = true;
            }
        }
        if self.reach[to * count + place.chain] > place.place {
            return Err(Stop::Circular);
        }
        if is_news {
            self.dirty.insert(to);
        }
        Ok(is_news)
    }

    fn take_back(&mut self, inferred: usize, changed: Vec<(usize, u32)>) {
        for (cell, before) in changed.into_iter().rev() {
            self.reach[cell] = before;
        }
        while self.inferred.len() > inferred {
            if let Some((from, _)) = self.inferred.pop() {
                self.after[from].pop();
            }
        }
        self.pending.clear();
        self.dirty.clear();
    }

    /// Of each chain the last writer before `node`, of one key.
    fn last_writers(&self, node: usize, key: usize) -> impl Iterator<Item = usize> {
        let reach = self.reach(node);
        self.chains.writers[key].iter().filter_map(move |(chain, writers)| {
            let before = writers.partition_point(|(place, _)| *place < reach[*chain]);
            Some(writers.get(before.checked_sub(1)?)?.1)
        })
    }

    /// What was written before a read was written before what it read.
    fn apply_to_reads(&mut self, node: usize) {
        let mut new = Vec::new();
        for (read, source) in self.txns[node].reads.iter().zip(&self.sources[node]) {
            let value = read.value.unwrap_or_default();
            for writer in self.last_writers(node, read.key).filter(|it| Some(*it) != *source) {
                new.push(match source {
                    Some(source) => {
                        (writer, Edge::data(*source, EdgeKind::WriteWrite, read.key, value))
                    }
                    None => (node, self.missed(writer, read.key)),
                });
            }
        }
        self.work_left = self.work_left.saturating_sub(new.len() as u64);
        self.pending.extend(new);
    }

    /// Who read what was written before `node` wrote comes before it.
    fn apply_to_writes(&mut self, node: usize) {
        let mut new = Vec::new();
        for (key, _) in &self.txns[node].writes {
            let sources = self.last_writers(node, *key).map(Some).chain([None]);
            for reader in sources.filter_map(|it| self.readers.get(&(*key, it))).flatten() {
                if *reader != node {
                    new.push((*reader, self.missed(node, *key)));
                }
            }
        }
        self.work_left = self.work_left.saturating_sub(new.len() as u64);
        self.pending.extend(new);
    }

    /// The edge to a write that was not seen.
    fn missed(&self, writer: usize, key: usize) -> Edge {
        let written = self.txns[writer].writes.iter().find(|(at, _)| *at == key);
        let value = written.map(|(_, value)| *value).unwrap_or_default();
        Edge::data(writer, EdgeKind::ReadWrite, key, value)
    }
}
