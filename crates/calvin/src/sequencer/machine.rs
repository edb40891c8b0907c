//! The sequencer's replicated state.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::codec::CodecError;
use quorate_types::{Epoch, KeyRange, RequestId, Seq, ShardId, TxnId, planted, sometimes};

use super::rows::{Header, Loaded, OrderedRow, Sample, header_key, map_key, prev_key, slice_key};
use super::share::{Cost, Room, shares};
use crate::command::{
    Floors, MapChange, Misfit, Participant, SequencedTxn, SequencerBatch, SequencerCommand,
    ShardMap, Slice, SliceBody, Submission, seal,
};
use crate::dedup::Dedup;
use crate::limits::SLICE_BYTES_MAX;
use crate::procedure::{Access, Footprint};
use crate::store::{Space, Store, StoreError, WriteSet};

/// Why a sequencer replica stops.
#[derive(Debug, thiserror::Error)]
pub enum SequencerHalt {
    /// A row could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A log entry or row is damaged or newer than this build.
    #[error("sequencer: {what} cannot be read: {source}")]
    Format {
        /// What was read.
        what: &'static str,
        /// Why it could not be.
        #[source]
        source: CodecError,
    },
}

/// What applying an entry brought about, the same on every replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SequencerEvent {
    /// A request has its place, now or since an earlier submission.
    Ordered {
        /// The request.
        request: RequestId,
        /// Its place.
        txn: TxnId,
        /// The shard that keeps its result.
        home: ShardId,
    },
    /// A request was not ordered.
    Refused {
        /// The request.
        request: RequestId,
        /// Why; the same on every replica.
        reason: NotOrdered,
    },
    /// Shards have a new slice of this epoch.
    Sliced {
        /// The epoch.
        epoch: Epoch,
        /// The shards.
        shards: Vec<ShardId>,
    },
    /// The map was changed in this epoch, or the change did not fit.
    Changed {
        /// The map version that was asked for. Changes for one version may
        /// follow each other in the log, and one of them at the most fits.
        version: u64,
        /// The child that was asked for.
        child: ShardId,
        /// The epoch of the barrier, or why there is none.
        outcome: Result<Epoch, Misfit>,
    },
}

/// Why a request was not ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotOrdered {
    /// It is older than the deduplication memory.
    Expired,
    /// It claims to have been made at an epoch that is not over yet. Its row
    /// would outlast every floor.
    Unborn,
    /// It touches nothing.
    Empty,
    /// There is no map yet.
    NoMap,
    /// With the shards that it names it is more than a batch of its own could
    /// hold. As shards never become fewer, it never fits.
    TooWide,
    /// It is more than what is left of its batch; it may fit another.
    Crowded,
}

/// Samples kept. They must reach back beyond the retention, or nothing would
/// ever be old enough to go.
const SAMPLES_MAX: usize = 256;
/// Samples taken in one retention time: requests are kept up to this fraction
/// of it longer than promised.
const SAMPLES_PER_RETENTION: u64 = 64;
/// The least time between two samples.
const SAMPLE_MILLIS_MIN: u64 = 1_000;
const LOAD_ROWS: usize = 4_096;

/// The replicated state of the sequencer. A clone is an independent replica.
#[derive(Clone)]
pub struct SequencerMachine {
    header: Header,
    header_dirty: bool,
    map: Option<ShardMap>,
    slices: BTreeMap<(ShardId, Epoch), Slice>,
    slices_by_epoch: BTreeSet<(Epoch, ShardId)>,
    prev: BTreeMap<ShardId, Epoch>,
    dedup: Dedup<OrderedRow>,
    applied: Epoch,
    events: Vec<SequencerEvent>,
}

impl SequencerMachine {
    /// Loads the sequencer from its rows (none for a new one); `applied` is the
    /// log index they reflect.
    ///
    /// # Errors
    /// [`SequencerHalt`] when a row cannot be read.
    pub fn load(store: &dyn Store, applied: u64) -> Result<Self, SequencerHalt> {
        let mut loaded = Loaded::default();
        let mut range = KeyRange::all();
        loop {
            let (rows, more) = store.scan(Space::System, &range, LOAD_ROWS)?;
            for (key, row) in &rows {
                loaded
                    .take(key, row)
                    .map_err(|source| SequencerHalt::Format { what: "a system row", source })?;
            }
            match rows.last() {
                Some((last, _)) if more => range.start = crate::store::successor(last),
                _ => break,
            }
        }
        Ok(Self {
            header: loaded.header,
            header_dirty: false,
            map: loaded.map,
            slices_by_epoch: loaded.slices.keys().map(|(shard, epoch)| (*epoch, *shard)).collect(),
            slices: loaded.slices,
            prev: loaded.prev,
            dedup: Dedup::load(loaded.dedup, loaded.marks),
            applied: Epoch(applied),
            events: Vec::new(),
        })
    }

    /// The last applied entry.
    #[must_use]
    pub const fn applied(&self) -> Epoch {
        self.applied
    }

    /// The map at [`SequencerMachine::applied`], once there is one.
    #[must_use]
    pub const fn map(&self) -> Option<&ShardMap> {
        self.map.as_ref()
    }

    /// The floors in force.
    #[must_use]
    pub const fn floors(&self) -> Floors {
        self.header.floors
    }

    /// Requests remembered.
    #[must_use]
    pub fn remembered_count(&self) -> usize {
        self.dedup.len()
    }

    /// Slices kept because a transaction in them may not be done.
    #[must_use]
    pub fn slice_count(&self) -> usize {
        self.slices.len()
    }

    /// Up to `max` slices of a shard after its cursor, in chain order.
    pub fn slices_after(
        &self,
        shard: ShardId,
        cursor: Epoch,
        max: usize,
    ) -> impl Iterator<Item = &Slice> {
        self.slices
            .range((shard, cursor.next())..=(shard, Epoch(u64::MAX)))
            .take(max)
            .map(|(_, slice)| slice)
    }

    /// One slice.
    #[must_use]
    pub fn slice(&self, shard: ShardId, epoch: Epoch) -> Option<&Slice> {
        self.slices.get(&(shard, epoch))
    }

    /// The places of the kept slices after an epoch, in order.
    pub fn slices_since(&self, epoch: Epoch) -> impl Iterator<Item = (Epoch, ShardId)> + '_ {
        self.slices_by_epoch.range((epoch.next(), ShardId(0))..).copied()
    }

    /// Where a request was ordered, if it was and is remembered.
    #[must_use]
    pub fn lookup(&self, request: &RequestId) -> Option<(TxnId, ShardId)> {
        self.dedup.get(request).map(|row| (row.txn, row.home))
    }

    /// Applies the entry at `index`; its index is its epoch. `None` is an entry
    /// of the consensus layer's own.
    ///
    /// # Errors
    /// [`SequencerHalt`]; the replica must stop.
    pub fn apply(
        &mut self,
        writes: &mut WriteSet,
        index: u64,
        command: Option<&[u8]>,
    ) -> Result<Vec<SequencerEvent>, SequencerHalt> {
        let epoch = Epoch(index);
        debug_assert!(epoch > self.applied, "invariant: epochs ascend");
        self.applied = epoch;
        let Some(command) = command else { return Ok(Vec::new()) };
        let command = SequencerCommand::from_bytes(command)
            .map_err(|source| SequencerHalt::Format { what: "a log entry", source })?;
        match command {
            SequencerCommand::Init { map, retention_millis } => {
                self.initialize(writes, map, retention_millis);
            }
            SequencerCommand::Batch(batch) => self.apply_batch(writes, epoch, batch),
            SequencerCommand::Change { change, time_millis } => {
                self.apply_change(writes, epoch, change, time_millis);
            }
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// Adds the rows that change with every batch. Call once before the commit.
    pub fn finish(&mut self, writes: &mut WriteSet) {
        if std::mem::take(&mut self.header_dirty) {
            writes.put_system(header_key(), seal(&self.header));
        }
    }

    fn initialize(&mut self, writes: &mut WriteSet, map: ShardMap, retention_millis: u64) {
        if self.map.is_some() || !map.is_partition() {
            return;
        }
        writes.put_system(map_key(), seal(&map));
        self.map = Some(map);
        self.header.retention_millis = retention_millis;
        self.header_dirty = true;
    }

    fn apply_batch(&mut self, writes: &mut WriteSet, epoch: Epoch, batch: SequencerBatch) {
        self.stamp(batch.time_millis);
        self.raise_floors(writes, batch.done);
        let mut work: BTreeMap<ShardId, Vec<SequencedTxn>> = BTreeMap::new();
        let mut room = Room::default();
        let mut position = 0;
        for submission in batch.txns {
            match self.order(writes, TxnId { epoch, position }, submission, &mut room) {
                Ok(txn) => {
                    position += 1;
                    for (shard, share) in shares(&txn) {
                        work.entry(shard).or_default().push(share);
                    }
                }
                Err(event) => self.events.push(event),
            }
        }
        let bodies =
            work.into_iter().map(|(shard, txns)| (shard, SliceBody::Transactions(txns.into())));
        let time_millis = self.header.clock_millis;
        self.cut(writes, epoch, time_millis, batch.seed, bodies.collect());
    }

    /// Gives one submission its place, or says why it gets none (or has one).
    fn order(
        &mut self,
        writes: &mut WriteSet,
        txn: TxnId,
        submission: Submission,
        room: &mut Room,
    ) -> Result<SequencedTxn, SequencerEvent> {
        let Submission { request, call } = submission;
        let refuse = |reason| SequencerEvent::Refused { request, reason };
        if let Some(row) = self.dedup.get(&request) {
            sometimes!("a submission finds its place");
            return Err(SequencerEvent::Ordered { request, txn: row.txn, home: row.home });
        }
        if self.dedup.is_expired(&request, self.header.floors.expired) {
            sometimes!("a submission has expired");
            return Err(refuse(NotOrdered::Expired));
        }
        // A watermark that was known when the request was made lies before
        // every batch that it can be in.
        if request.birth >= txn.epoch {
            return Err(refuse(NotOrdered::Unborn));
        }
        let map = self.map.as_ref().ok_or(refuse(NotOrdered::NoMap))?;
        let home = call
            .footprint
            .home_key()
            .and_then(|key| map.locate(key))
            .map(|shard| shard.shard)
            .ok_or(refuse(NotOrdered::Empty))?;
        let participants = participants(map, &call.footprint);
        room.take(&Cost::of(&call, &participants)).map_err(refuse)?;
        self.dedup.acknowledge(writes, &request);
        self.dedup.remember(writes, &request, OrderedRow { txn, home, birth: request.birth });
        self.events.push(SequencerEvent::Ordered { request, txn, home });
        Ok(SequencedTxn { position: txn.position, request, call, home, participants })
    }

    fn apply_change(
        &mut self,
        writes: &mut WriteSet,
        epoch: Epoch,
        change: MapChange,
        time_millis: u64,
    ) {
        self.stamp(time_millis);
        let (version, child) = (change.version, change.child);
        let outcome = self.split(writes, epoch, change).map(|()| epoch);
        self.events.push(SequencerEvent::Changed { version, child, outcome });
    }

    fn split(
        &mut self,
        writes: &mut WriteSet,
        epoch: Epoch,
        change: MapChange,
    ) -> Result<(), Misfit> {
        let map = self.map.as_mut().ok_or(Misfit::NoMap)?;
        map.change(&change)?;
        debug_assert!(map.is_partition(), "invariant: the map covers every key once");
        writes.put_system(map_key(), seal(map));
        let (parent, child) = (change.parent, change.child);
        let time_millis = self.header.clock_millis;
        self.cut(writes, epoch, time_millis, 0, vec![(parent, SliceBody::Split(change))]);
        // The child's chain starts at the barrier.
        self.set_prev(writes, child, epoch);
        Ok(())
    }

    /// One slice per participant, each naming the shard's previous epoch.
    fn cut(
        &mut self,
        writes: &mut WriteSet,
        epoch: Epoch,
        time_millis: u64,
        seed: u64,
        bodies: Vec<(ShardId, SliceBody)>,
    ) {
        if bodies.is_empty() {
            return;
        }
        let shards = bodies.iter().map(|(shard, _)| *shard).collect();
        for (shard, body) in bodies {
            let is_work = matches!(body, SliceBody::Transactions(_));
            if planted!(SliceLost) && is_work && self.kept_for(shard) >= 16 {
                continue;
            }
            let range = self
                .map
                .as_ref()
                .and_then(|map| map.shards.iter().find(|entry| entry.shard == shard))
                .map(|entry| entry.range.clone())
                .unwrap_or_default();
            let prev = self.prev.get(&shard).copied().unwrap_or_default();
            let floors = self.header.floors;
            let slice = Slice { epoch, prev, time_millis, seed, range, floors, body };
            let row = seal(&slice);
            debug_assert!(
                row.len() <= slice.payload_bytes() && slice.work_bytes() <= SLICE_BYTES_MAX,
                "invariant: a slice fits a row and an entry"
            );
            writes.put_system(slice_key(shard, epoch), row);
            self.slices.insert((shard, epoch), slice);
            self.slices_by_epoch.insert((epoch, shard));
            self.set_prev(writes, shard, epoch);
        }
        self.events.push(SequencerEvent::Sliced { epoch, shards });
    }

    fn kept_for(&self, shard: ShardId) -> usize {
        self.slices.range((shard, Epoch(0))..=(shard, Epoch(u64::MAX))).count()
    }

    fn set_prev(&mut self, writes: &mut WriteSet, shard: ShardId, epoch: Epoch) {
        self.prev.insert(shard, epoch);
        writes.put_system(prev_key(shard), seal(&epoch));
    }

    /// The log's clock.
    fn stamp(&mut self, time_millis: u64) {
        self.header.clock_millis = self.header.clock_millis.max(time_millis);
        self.header_dirty = true;
    }

    /// Samples turn time into epochs: whoever asked later than a sample was born
    /// at or above what was done by then.
    fn sample(&mut self) {
        let (now, done) = (self.header.clock_millis, self.header.floors.done);
        let pause = (self.header.retention_millis / SAMPLES_PER_RETENTION).max(SAMPLE_MILLIS_MIN);
        let is_due =
            self.header.samples.last().is_none_or(|last| {
                done > last.done && now >= last.time_millis.saturating_add(pause)
            });
        if is_due {
            self.header.samples.push(Sample { done, time_millis: now });
            if self.header.samples.len() > SAMPLES_MAX {
                self.header.samples.remove(0);
            }
        }
    }

    /// Rule 13: what is done everywhere lets slices go; what is also older
    /// than the retention lets requests go.
    fn raise_floors(&mut self, writes: &mut WriteSet, done: Epoch) {
        let done = done.min(Epoch(self.applied.0.saturating_sub(1)));
        if done > self.header.floors.done {
            self.header.floors.done = done;
            let kept = self.slices_by_epoch.split_off(&(done.next(), ShardId(0)));
            for (epoch, shard) in std::mem::replace(&mut self.slices_by_epoch, kept) {
                self.slices.remove(&(shard, epoch));
                writes.delete_system(slice_key(shard, epoch));
            }
        }
        if self.map.is_none() {
            return; // The retention comes with the first map.
        }
        self.sample();
        let horizon = self.header.clock_millis.saturating_sub(self.header.retention_millis);
        // Strictly below what was done: while a shard is silent that stands
        // still, and every new request is born at it.
        let old = |sample: &&Sample| sample.time_millis <= horizon;
        let expired = self.header.samples.iter().take_while(old).last();
        let expired = expired.map(|sample| Epoch(sample.done.0.saturating_sub(1)));
        if let Some(expired) = expired.filter(|epoch| *epoch > self.header.floors.expired) {
            self.header.floors.expired = expired;
            self.header.samples.retain(|sample| sample.done > expired);
            self.dedup.expire(writes, expired);
        }
    }
}

/// Who takes part, by the map at this position, ascending by shard.
pub(super) fn participants(map: &ShardMap, footprint: &Footprint) -> Seq<Participant> {
    let mut roles: BTreeMap<ShardId, (bool, bool)> = BTreeMap::new();
    for key in &footprint.reads {
        if let Some(shard) = map.locate(key) {
            roles.entry(shard.shard).or_default().0 = true;
        }
    }
    for key in &footprint.writes {
        if let Some(shard) = map.locate(key) {
            roles.entry(shard.shard).or_default().1 = true;
        }
    }
    for access in &footprint.ranges {
        for shard in map.overlapping(&access.range) {
            let role = roles.entry(shard.shard).or_default();
            role.0 |= access.access == Access::Read;
            role.1 |= access.access == Access::Write;
        }
    }
    roles.into_iter().map(|(shard, (reads, writes))| Participant { shard, reads, writes }).collect()
}

/// The shards that a footprint touches in a map; one means that no sequencing
/// is needed.
#[must_use]
pub fn shards_of(map: &ShardMap, footprint: &Footprint) -> BTreeSet<ShardId> {
    participants(map, footprint).iter().map(|participant| participant.shard).collect()
}
