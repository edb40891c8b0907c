//! The shards in memory: their records, and what is applied but not committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_types::{Blob, KeyRange, ShardId};

use super::format::{Garbage, Record, SpaceId};
use super::view::View;
use crate::error::EngineError;
use crate::layer::{Layer, intersection};
use crate::port::{Batch, Mutation, Space};

/// A layer that no longer changes: a commit or a snapshot holds it too.
#[derive(Debug, Clone)]
struct Sealed {
    /// The number of the commit that writes it.
    generation: u64,
    layer: Arc<Layer>,
}

/// What was applied to a key space since the last commit.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    active: Layer,
    /// Oldest first.
    sealed: Vec<Sealed>,
}

impl Overlay {
    pub(super) fn active(&self) -> &Layer {
        &self.active
    }

    pub(super) fn put_all(&mut self, mutations: Vec<Mutation>) {
        mutations.into_iter().for_each(|mutation| self.active.put(mutation));
    }

    pub(super) fn lookup(&self, key: &[u8]) -> Option<Option<&Blob>> {
        let sealed = self.sealed.iter().rev().map(|sealed| &*sealed.layer);
        std::iter::once(&self.active).chain(sealed).find_map(|layer| layer.lookup(key))
    }

    /// The sealed layers, newest first.
    pub(super) fn sealed(&self) -> Vec<Arc<Layer>> {
        self.sealed.iter().rev().map(|sealed| Arc::clone(&sealed.layer)).collect()
    }

    /// Starts a new active layer, so that everything so far can be shared.
    pub(super) fn seal(&mut self, generation: u64) {
        if !self.active.is_empty() {
            let layer = Arc::new(std::mem::take(&mut self.active));
            self.sealed.push(Sealed { generation, layer });
        }
    }

    /// Seals, and returns the layers that commit `generation` is to write,
    /// oldest first.
    pub(super) fn freeze(&mut self, generation: u64) -> Vec<Arc<Layer>> {
        self.seal(generation);
        let due = self.sealed.iter().filter(|sealed| sealed.generation == generation);
        due.map(|sealed| Arc::clone(&sealed.layer)).collect()
    }

    /// Forgets the layers that commits up to `generation` have written.
    pub(super) fn committed(&mut self, generation: u64) {
        self.sealed.retain(|sealed| sealed.generation > generation);
    }

    /// Keeps what concerns keys below `at` and returns the rest. Layers that
    /// commit `in_flight` is writing are shared: whole, they go to the space
    /// that both sides read, and reads keep to their range.
    fn split_off(&mut self, at: &Blob, in_flight: u64) -> Self {
        let mut upper = Self { active: self.active.split_off(at), sealed: self.sealed.clone() };
        for (ours, theirs) in self.sealed.iter_mut().zip(&mut upper.sealed) {
            if ours.generation > in_flight {
                let mut lower = Layer::clone(&ours.layer);
                theirs.layer = Arc::new(lower.split_off(at));
                ours.layer = Arc::new(lower);
            }
        }
        upper
    }

    /// Bytes that are in memory only.
    pub(super) fn bytes(&self) -> u64 {
        self.active.bytes() + self.sealed.iter().map(|sealed| sealed.layer.bytes()).sum::<u64>()
    }
}

/// What may be done with a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everything.
    Live,
    /// Reading, until its installed successor takes its place.
    Replacing,
    /// Reading, until it is gone.
    Removing,
}

/// One shard.
#[derive(Debug)]
pub(super) struct ShardState {
    pub(super) record: Record,
    pub(super) durable: Option<u64>,
    pub(super) phase: Phase,
    /// Whether the next commit knows that it must visit this shard.
    pub(super) is_dirty: bool,
    pub(super) data: Overlay,
    pub(super) system: Overlay,
    /// Rows that the next commit of this shard gives up.
    pub(super) garbage: Vec<Garbage>,
}

impl ShardState {
    /// A shard as it is on disk.
    pub(super) fn committed(record: Record) -> Self {
        let durable = Some(record.applied);
        Self { durable, ..Self::uncommitted(record) }
    }

    /// A shard that is not on disk yet.
    pub(super) fn uncommitted(record: Record) -> Self {
        Self {
            record,
            durable: None,
            phase: Phase::Live,
            is_dirty: false,
            data: Overlay::default(),
            system: Overlay::default(),
            garbage: Vec::new(),
        }
    }

    pub(super) fn overlay(&self, space: Space) -> &Overlay {
        match space {
            Space::Data => &self.data,
            Space::System => &self.system,
        }
    }

    pub(super) fn space(&self, space: Space) -> SpaceId {
        match space {
            Space::Data => self.record.data,
            Space::System => self.record.system,
        }
    }

    /// Bytes of the shard that are in memory only.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.data.bytes() + self.system.bytes()
    }

    /// Bytes that may still change.
    pub(super) fn active_bytes(&self) -> u64 {
        self.data.active.bytes() + self.system.active.bytes()
    }

    /// Bytes that no commit up to `in_flight` writes.
    pub(super) fn unwritten_bytes(&self, in_flight: u64) -> u64 {
        let sealed = self.data.sealed.iter().chain(&self.system.sealed);
        let unwritten = sealed.filter(|sealed| sealed.generation > in_flight);
        self.active_bytes() + unwritten.map(|sealed| sealed.layer.bytes()).sum::<u64>()
    }

    /// Applies a verified batch, except for its fork.
    pub(super) fn apply(&mut self, batch: Batch) {
        for clear in &batch.clears {
            if let Some(clear) = intersection(clear, &self.record.range) {
                self.data.active.clear(&clear);
            }
        }
        self.data.put_all(batch.data);
        self.system.put_all(batch.system);
        self.record.applied = batch.index;
    }

    /// Gives up the keys at and above `at`; returns what lay there.
    pub(super) fn cut(&mut self, at: &Blob, in_flight: u64) -> Option<(KeyRange, Overlay)> {
        let (lower, upper) = self.record.range.split_at(at)?;
        self.record.range = lower;
        self.record.rows_estimate /= 2;
        self.record.bytes_estimate /= 2;
        Some((upper, self.data.split_off(at, in_flight)))
    }
}

/// All shards, and the committed rows below them. Whoever holds it for writing
/// holds every shard still.
pub(super) struct Directory {
    pub(super) shards: BTreeMap<ShardId, RwLock<ShardState>>,
    /// Shards that do not exist and are being installed.
    pub(super) arriving: BTreeSet<ShardId>,
    /// Gone once the engine is closed.
    pub(super) view: Option<Arc<View>>,
    /// The number of the last commit begun.
    pub(super) generation: u64,
}

impl Directory {
    /// The parts of `range` in a data space that no shard but `except` owns.
    pub(super) fn unowned(
        &mut self,
        space: SpaceId,
        range: KeyRange,
        except: ShardId,
    ) -> Vec<Garbage> {
        let mut parts = vec![range];
        for (shard, state) in &mut self.shards {
            let record = &state.get_mut().record;
            if *shard != except && record.data == space {
                parts = parts.iter().flat_map(|part| difference(part, &record.range)).collect();
            }
        }
        parts.into_iter().map(|range| Garbage { space, range }).collect()
    }

    /// Whether a fork must leave the child alone.
    ///
    /// # Errors
    /// [`EngineError::Busy`] when it is about to vanish.
    pub(super) fn has_child(&mut self, child: ShardId) -> Result<bool, EngineError> {
        match self.shards.get_mut(&child).map(|state| state.get_mut().phase) {
            Some(Phase::Removing) => Err(EngineError::Busy(child)),
            Some(Phase::Live | Phase::Replacing) => Ok(true),
            None => Ok(self.arriving.contains(&child)),
        }
    }
}

/// What of `range` is outside of `cut`.
fn difference(range: &KeyRange, cut: &KeyRange) -> Vec<KeyRange> {
    if !range.overlaps(cut) {
        return vec![range.clone()];
    }
    let below = KeyRange { start: range.start.clone(), end: Some(cut.start.clone()) };
    let above = cut.end.clone().map(|start| KeyRange { start, end: range.end.clone() });
    std::iter::once(below).chain(above).filter(|part| !part.is_empty()).collect()
}
