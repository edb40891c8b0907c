//! Fingerprints of what replicas hold: a running sum per space, so that the
//! digest at every applied index costs no more than the rows that change.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Bound;

use quorate::types::{Blob, KeyRange, NodeId, ShardId};
use quorate_engine::{Batch, Mutation, Space};

use crate::sim::ledger::Report;
use crate::sim::tap::payload::HOST_ROW_KEY;

/// The sum of the hashes of all rows of a replica, the host's own excepted.
pub(crate) type Digest = u64;

/// The hash of one row, never the same in both spaces.
pub(crate) fn row_hash(space: Space, key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(u8::from(space == Space::Data));
    hasher.write_u64(key.len() as u64);
    hasher.write(key);
    hasher.write(value);
    hasher.finish()
}

/// A row that is written, or deleted without a hash.
#[derive(Debug)]
pub(crate) struct Touched {
    pub(crate) space: Space,
    pub(crate) key: Blob,
    pub(crate) hash: Option<u64>,
}

impl Touched {
    pub(crate) fn of(space: Space, mutation: &Mutation) -> Option<Self> {
        let Mutation { key, value } = mutation;
        if space == Space::System && **key == *HOST_ROW_KEY {
            return None;
        }
        let hash = value.as_ref().map(|value| row_hash(space, key, value));
        Some(Self { space, key: key.clone(), hash })
    }
}

/// A child that a batch splits off.
#[derive(Debug)]
pub(crate) struct ForkedRows {
    pub(crate) child: ShardId,
    pub(crate) at: Blob,
    pub(crate) index: u64,
    pub(crate) system: Vec<Touched>,
}

/// What a batch changes.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) index: u64,
    pub(crate) clears: Vec<KeyRange>,
    pub(crate) rows: Vec<Touched>,
    pub(crate) forks: Vec<ForkedRows>,
}

impl Change {
    pub(crate) fn of(batch: &Batch) -> Self {
        let data = batch.data.iter().filter_map(|row| Touched::of(Space::Data, row));
        let system = batch.system.iter().filter_map(|row| Touched::of(Space::System, row));
        let forks = batch.forks.iter().map(|fork| {
            let system = fork.child_system.iter();
            let system = system.filter_map(|row| Touched::of(Space::System, row)).collect();
            ForkedRows { child: fork.child, at: fork.at.clone(), index: fork.child_index, system }
        });
        Self {
            index: batch.index,
            clears: batch.clears.clone(),
            rows: data.chain(system).collect(),
            forks: forks.collect(),
        }
    }
}

type Hashes = BTreeMap<Box<[u8]>, u64>;

/// What a space holds, by the hashes of its rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Print {
    data: Hashes,
    system: Hashes,
    sum: Digest,
}

impl Print {
    pub(crate) fn digest(&self) -> Digest {
        self.sum
    }

    pub(crate) fn set(&mut self, space: Space, key: &[u8], hash: Option<u64>) {
        let rows = match space {
            Space::Data => &mut self.data,
            Space::System => &mut self.system,
        };
        let before = match hash {
            None => rows.remove(key),
            Some(hash) => {
                self.sum = self.sum.wrapping_add(hash);
                match rows.get_mut(key) {
                    Some(row) => Some(std::mem::replace(row, hash)),
                    None => rows.insert(key.into(), hash),
                }
            }
        };
        self.sum = self.sum.wrapping_sub(before.unwrap_or_default());
    }

    pub(crate) fn clear(&mut self, range: &KeyRange) {
        let keys: Vec<Box<[u8]>> = self.within(range).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.set(Space::Data, &key, None);
        }
    }

    fn within(&self, range: &KeyRange) -> impl Iterator<Item = (&Box<[u8]>, &u64)> {
        let end = match &range.end {
            // A range that is empty must not be asked for.
            Some(end) if *end <= range.start => Bound::Excluded(&*range.start),
            Some(end) => Bound::Excluded(&**end),
            None => Bound::Unbounded,
        };
        let start: &[u8] = &range.start;
        self.data.range::<[u8], _>((Bound::Included(start), end))
    }

    /// Takes out the data rows from a key on.
    pub(crate) fn split_off(&mut self, at: &[u8]) -> Self {
        let data = self.data.split_off(at);
        let sum = data.values().fold(0_u64, |sum, hash| sum.wrapping_add(*hash));
        self.sum = self.sum.wrapping_sub(sum);
        Self { data, system: Hashes::new(), sum }
    }

    /// The first rows in which two differ, for a reader.
    pub(crate) fn difference(&self, other: &Self) -> Vec<String> {
        let mut differing = Vec::new();
        for (name, ours, theirs) in
            [("data", &self.data, &other.data), ("system", &self.system, &other.system)]
        {
            let keys = ours.keys().chain(theirs.keys().filter(|key| !ours.contains_key(*key)));
            for key in keys.filter(|key| ours.get(*key) != theirs.get(*key)).take(4) {
                differing.push(format!("{name} row {}", key.escape_ascii()));
            }
        }
        differing
    }
}

/// A space of one node's engine.
#[derive(Clone, Debug)]
struct Held {
    applied: u64,
    print: Print,
}

/// The engines of all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowsBook {
    spaces: BTreeMap<(NodeId, ShardId), Held>,
    /// What an engine said to be durable.
    durable: BTreeMap<(NodeId, ShardId), u64>,
}

impl RowsBook {
    /// A node opened its engine and found these spaces.
    pub(crate) fn opened(
        &mut self,
        node: NodeId,
        found: Vec<(ShardId, u64, Print)>,
        report: &mut Report,
    ) {
        self.spaces.retain(|(at, _), _| *at != node);
        for (space, applied, print) in found {
            self.spaces.insert((node, space), Held { applied, print });
        }
        for ((_, space), durable) in self.durable.iter().filter(|((at, _), _)| *at == node) {
            let found = self.spaces.get(&(node, *space)).map(|held| held.applied);
            report.check("E1", found.is_some_and(|found| found >= *durable), || {
                format!("{node} finds {space} at {found:?}, and {durable} was durable")
            });
        }
    }

    pub(crate) fn created(&mut self, node: NodeId, space: ShardId, index: u64, print: Print) {
        self.spaces.insert((node, space), Held { applied: index, print });
    }

    /// A snapshot took the place of what a space held.
    pub(crate) fn installed(&mut self, node: NodeId, space: ShardId, index: u64, print: Print) {
        self.spaces.insert((node, space), Held { applied: index, print });
        self.durable.insert((node, space), index);
    }

    /// A space is on its way out, or about to be replaced.
    pub(crate) fn leaving(&mut self, node: NodeId, space: ShardId) {
        self.spaces.remove(&(node, space));
        self.durable.remove(&(node, space));
    }

    pub(crate) fn flushed(&mut self, node: NodeId, space: ShardId, index: u64) {
        if self.spaces.contains_key(&(node, space)) {
            let durable = self.durable.entry((node, space)).or_default();
            *durable = index.max(*durable);
        }
    }

    /// What the engine said last to be durable.
    pub(crate) fn durable(&self, node: NodeId, space: ShardId) -> Option<u64> {
        self.durable.get(&(node, space)).copied()
    }

    pub(crate) fn knows(&self, node: NodeId, space: ShardId) -> bool {
        self.spaces.contains_key(&(node, space))
    }

    pub(crate) fn print(&self, node: NodeId, space: ShardId) -> Option<&Print> {
        self.spaces.get(&(node, space)).map(|held| &held.print)
    }

    /// An engine took a batch; returns the children that are new here.
    pub(crate) fn applied(
        &mut self,
        node: NodeId,
        space: ShardId,
        change: Change,
        report: &mut Report,
    ) -> Vec<(ShardId, u64)> {
        let Change { index, clears, rows, forks } = change;
        let Some(held) = self.spaces.get_mut(&(node, space)) else { return Vec::new() };
        let before = std::mem::replace(&mut held.applied, index);
        report.check("E1", index > before, || {
            format!("{node} applies {index} of {space} after {before}")
        });
        for range in &clears {
            held.print.clear(range);
        }
        for Touched { space, key, hash } in rows {
            held.print.set(space, &key, hash);
        }
        let mut born = Vec::new();
        for ForkedRows { child, at, index, system } in forks {
            let Some(held) = self.spaces.get_mut(&(node, space)) else { break };
            let mut print = held.print.split_off(&at);
            if self.spaces.contains_key(&(node, child)) {
                continue; // It came by a snapshot.
            }
            for Touched { space, key, hash } in system {
                print.set(space, &key, hash);
            }
            self.spaces.insert((node, child), Held { applied: index, print });
            born.push((child, index));
        }
        born
    }
}
