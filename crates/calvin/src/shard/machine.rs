//! The machine's state and the meaning of each command.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_types::codec::CodecError;
use quorate_types::{
    Blob, Epoch, KeyRange, RequestId, ShardEpoch, ShardId, TxnId, planted, sometimes,
};

use super::gate::Gate;
use super::rows::{
    DedupRow, DirectWork, Header, Loaded, OutboxRow, PendingRow, SequencedWork, SplitWork, Verdict,
    Work, header_key, outbox_key, pending_key,
};
use super::tombstones::Tombstones;
use crate::command::{
    Contribution, Direct, Fence, Floors, Member, ShardCommand, Slice, SliceBody, TxnInputs, seal,
};
use crate::dedup::Dedup;
use crate::lock::Place;
use crate::procedure::{Footprint, Procedures};
use crate::store::{Space, Store, StoreError, WriteSet};

/// Why a replica stops. It must be loud: going on would let replicas differ.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// A row could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A log entry or row is damaged or newer than this build.
    #[error("shard {shard}: {what} cannot be read: {source}")]
    Format {
        /// The shard.
        shard: ShardId,
        /// What was read.
        what: &'static str,
        /// Why it could not be.
        #[source]
        source: CodecError,
    },
    /// The log asks for something that no correct sequencer or leader asks for.
    #[error("shard {shard}: broken invariant: {what}")]
    Invariant {
        /// The shard.
        shard: ShardId,
        /// Which invariant.
        what: &'static str,
    },
}

/// Why a command was not executed, decided at apply and therefore the same on
/// every replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The shard does not own all the keys at this epoch.
    Moved,
    /// The request is older than the deduplication memory.
    Expired,
    /// The request was fenced off; it lives on at its new home.
    Poisoned,
}

/// What a fence found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FenceOutcome {
    /// The request ran; this is its verdict.
    Decided(Verdict),
    /// It is in the gate; wait for its decision.
    Pending,
    /// It never ran here and, from now on, never will.
    Poisoned,
    /// It is older than the deduplication memory.
    Expired,
}

/// What applying an entry brought about. Every replica sees the same events;
/// the leader acts on them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A request whose home is here was decided. The reply may leave once the
    /// watermark covers `position` (rule 11).
    Decided {
        /// The request.
        request: RequestId,
        /// The decision.
        verdict: Verdict,
        /// What the watermark must cover.
        position: Epoch,
    },
    /// A direct command was not executed.
    Refused {
        /// The request.
        request: RequestId,
        /// Why.
        refusal: Refusal,
        /// What the watermark must cover.
        position: Epoch,
    },
    /// A fence was applied.
    Fenced {
        /// The request.
        request: RequestId,
        /// What it found.
        outcome: FenceOutcome,
        /// What the watermark must cover.
        position: Epoch,
    },
    /// A sequenced transaction holds its locks here and has read its part.
    Granted {
        /// Which.
        txn: TxnId,
        /// The shards that need what it read.
        needed_by: Vec<ShardId>,
    },
    /// A sequenced transaction is finished here.
    Finished(TxnId),
    /// The cursor moved.
    Accepted(Epoch),
    /// A child was split off.
    Forked {
        /// The child.
        child: ShardId,
        /// Its replicas.
        members: Vec<Member>,
    },
}

/// The replicated state of one shard. A clone is an independent replica.
#[derive(Clone)]
pub struct ShardMachine {
    pub(super) shard: ShardId,
    pub(super) procedures: Arc<dyn Procedures>,
    pub(super) header: Header,
    pub(super) header_dirty: bool,
    pub(super) gate: Gate,
    pub(super) dedup: Dedup<DedupRow>,
    pub(super) tombstones: Tombstones,
    pub(super) outbox: BTreeMap<TxnId, OutboxRow>,
    pub(super) events: VecDeque<Event>,
}

/// Rows fetched at a time while loading.
const LOAD_ROWS: usize = 4_096;

impl ShardMachine {
    /// The system rows of a new shard: every replica of a new group is seeded
    /// with the same ones.
    #[must_use]
    pub fn seed(range: KeyRange, epoch: ShardEpoch) -> Vec<(Blob, Blob)> {
        vec![(header_key(), seal(&new_header(range, epoch)))]
    }

    /// Loads the machine from its rows; `None` when the store holds none.
    ///
    /// # Errors
    /// [`Halt`] when a row cannot be read.
    pub fn load(
        shard: ShardId,
        procedures: Arc<dyn Procedures>,
        store: &dyn Store,
    ) -> Result<Option<Self>, Halt> {
        let mut loaded = Loaded::default();
        let mut range = KeyRange::all();
        loop {
            let (rows, more) = store.scan(Space::System, &range, LOAD_ROWS)?;
            for (key, row) in &rows {
                loaded.take(key, row).map_err(|source| Halt::Format {
                    shard,
                    what: "a system row",
                    source,
                })?;
            }
            match rows.last() {
                Some((last, _)) if more => range.start = crate::store::successor(last),
                _ => break,
            }
        }
        let Some(header) = loaded.header.take() else { return Ok(None) };
        if planted!(AppliedTwice) {
            loaded.dedup.retain(|_, row| row.position < header.cursor);
        }
        if planted!(InputsForgotten) {
            loaded.outbox.clear();
        }
        let outbox = std::mem::take(&mut loaded.outbox);
        let gate = Gate::load(std::mem::take(&mut loaded.pending));
        Ok(Some(Self {
            shard,
            procedures,
            header,
            header_dirty: false,
            gate,
            dedup: Dedup::load(loaded.dedup, loaded.marks),
            tombstones: Tombstones::load(loaded.tombstones),
            outbox,
            events: VecDeque::new(),
        }))
    }

    /// The shard.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The keys it owns, accepted splits already taken off.
    #[must_use]
    pub const fn range(&self) -> &KeyRange {
        &self.header.range
    }

    /// The epoch of its range.
    #[must_use]
    pub const fn epoch(&self) -> ShardEpoch {
        self.header.epoch
    }

    /// The last accepted sequencer epoch.
    #[must_use]
    pub const fn cursor(&self) -> Epoch {
        self.header.cursor
    }

    /// The shard clock.
    #[must_use]
    pub const fn clock_millis(&self) -> u64 {
        self.header.clock_millis
    }

    /// The floors in force.
    #[must_use]
    pub const fn floors(&self) -> Floors {
        self.header.floors
    }

    /// All sequenced transactions of this shard at or below this epoch are
    /// done here.
    #[must_use]
    pub fn done(&self) -> Epoch {
        match self.gate.oldest_sequenced() {
            Some(oldest) => Epoch(oldest.0.saturating_sub(1)),
            None => self.header.cursor,
        }
    }

    /// Transactions in the gate.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.gate.len()
    }

    /// Transactions that hold locks or wait for some.
    #[must_use]
    pub fn locking_count(&self) -> usize {
        self.gate.locks().len()
    }

    /// Remembered requests, and clients whose acknowledgements are.
    #[must_use]
    pub fn remembered_count(&self) -> usize {
        self.dedup.len()
    }

    /// Contributions kept for others.
    #[must_use]
    pub fn outbox_count(&self) -> usize {
        self.outbox.len()
    }

    /// This shard's contribution to a transaction, while it is kept.
    #[must_use]
    pub fn contribution(&self, txn: TxnId) -> Option<&Contribution> {
        self.outbox.get(&txn).map(|row| &row.contribution).or_else(|| self.gate.granted(txn))
    }

    /// What is known of a request: its verdict, or that it is in the gate.
    #[must_use]
    pub fn lookup(&self, request: &RequestId) -> Option<FenceOutcome> {
        if self.gate.place_of(request).is_some() {
            return Some(FenceOutcome::Pending);
        }
        let row = self.dedup.get(request)?;
        Some(match &row.verdict {
            Verdict::Poisoned => FenceOutcome::Poisoned,
            verdict => FenceOutcome::Decided(verdict.clone()),
        })
    }

    /// The sequenced transactions that hold their locks and wait for inputs.
    pub fn awaiting_inputs(&self) -> impl Iterator<Item = &SequencedWork> {
        self.gate.awaiting_inputs()
    }

    /// The transactions without writes that this shard answers and has read
    /// its own part of.
    pub fn answerable(&self) -> impl Iterator<Item = &SequencedWork> {
        self.outbox.values().filter_map(|row| row.answers.as_ref())
    }

    /// One of [`ShardMachine::answerable`].
    #[must_use]
    pub fn answers(&self, txn: TxnId) -> Option<&SequencedWork> {
        self.outbox.get(&txn)?.answers.as_ref()
    }

    /// A sequenced transaction in the gate.
    #[must_use]
    pub fn sequenced(&self, txn: TxnId) -> Option<&SequencedWork> {
        self.gate.sequenced(txn)
    }

    /// Whether every key of the footprint is ours.
    #[must_use]
    pub fn owns(&self, footprint: &Footprint) -> bool {
        let range = &self.header.range;
        footprint.reads.iter().chain(&footprint.writes).all(|key| range.contains(key))
            && footprint.ranges.iter().all(|access| range.covers(&access.range))
    }

    /// Applies one log entry; its effects go into `writes`. The caller commits
    /// them, with [`ShardMachine::finish`]'s, before it applies an entry to a
    /// fresh write set.
    ///
    /// # Errors
    /// [`Halt`]; the replica must stop.
    pub fn apply(
        &mut self,
        store: &dyn Store,
        writes: &mut WriteSet,
        index: u64,
        command: &[u8],
    ) -> Result<Vec<Event>, Halt> {
        let command = ShardCommand::from_bytes(command).map_err(|source| Halt::Format {
            shard: self.shard,
            what: "a log entry",
            source,
        })?;
        match command {
            ShardCommand::Direct(direct) => self.apply_direct(writes, index, direct),
            ShardCommand::Slices(slices) => self.apply_slices(writes, index, slices.0)?,
            ShardCommand::Inputs(inputs) => self.apply_inputs(inputs),
            ShardCommand::Fence(fence) => self.apply_fence(writes, fence),
            ShardCommand::Floor(floors) => self.raise_floors(writes, floors),
        }
        self.settle(store, writes)?;
        Ok(self.events.drain(..).collect())
    }

    /// Adds the rows that change with every batch to `writes`: the header and
    /// the gate's. Call once before the commit.
    pub fn finish(&mut self, writes: &mut WriteSet) {
        if std::mem::take(&mut self.header_dirty) {
            writes.put_system(header_key(), seal(&self.header));
        }
        for (place, row) in self.gate.take_dirty() {
            match row {
                Some(row) => writes.put_system(pending_key(place), seal(row)),
                None => writes.delete_system(pending_key(place)),
            }
        }
    }

    fn apply_direct(&mut self, writes: &mut WriteSet, index: u64, direct: Direct) {
        self.stamp(direct.time_millis);
        let request = direct.request;
        let position = self.header.cursor;
        if self.gate.place_of(&request).is_some() {
            sometimes!("a retry finds its request in the gate");
            return; // Its decision answers the retry too.
        }
        if let Some(row) = self.dedup.get(&request)
            && !planted!(RetryWithoutDedup)
        {
            sometimes!("a retry finds its result");
            self.events.push_back(match row.verdict.clone() {
                Verdict::Poisoned => {
                    Event::Refused { request, refusal: Refusal::Poisoned, position }
                }
                verdict => Event::Decided { request, verdict, position },
            });
            return;
        }
        if self.dedup.is_expired(&request, self.header.floors.expired) {
            sometimes!("a command has expired");
            self.events.push_back(Event::Refused { request, refusal: Refusal::Expired, position });
            return;
        }
        if direct.epoch != self.header.epoch || !self.owns(&direct.call.footprint) {
            sometimes!("a command finds its shard split");
            self.events.push_back(Event::Refused { request, refusal: Refusal::Moved, position });
            return;
        }
        self.dedup.acknowledge(writes, &request);
        let work = Work::Direct(DirectWork {
            request,
            // Not the leader's own time, which may lag behind the shard's: a
            // value set to live a while would be born expired.
            time_millis: self.header.clock_millis,
            seed: direct.seed,
            call: direct.call,
        });
        self.gate.enter(Place { index, position: 0 }, work);
    }

    /// Rule 4: a slice is accepted when it continues the chain, ignored when
    /// it is behind the cursor, and ignored when it leaves a gap.
    fn apply_slices(
        &mut self,
        writes: &mut WriteSet,
        index: u64,
        slices: Vec<Slice>,
    ) -> Result<(), Halt> {
        let mut position = 0;
        for slice in slices {
            if slice.epoch <= self.header.cursor {
                continue;
            }
            if slice.prev != self.header.cursor && !planted!(SliceGapAccepted) {
                sometimes!("a slice is refused for the gap before it");
                continue;
            }
            self.header.cursor = slice.epoch;
            self.header_dirty = true;
            self.stamp(slice.time_millis);
            self.raise_floors(writes, slice.floors);
            self.events.push_back(Event::Accepted(slice.epoch));
            self.accept(writes, index, &mut position, slice)?;
        }
        Ok(())
    }

    fn accept(
        &mut self,
        writes: &mut WriteSet,
        index: u64,
        position: &mut u32,
        slice: Slice,
    ) -> Result<(), Halt> {
        let place = |position: &mut u32| {
            let place = Place { index, position: *position };
            *position += 1;
            place
        };
        match slice.body {
            SliceBody::Transactions(txns) => {
                for txn in txns {
                    if txn.home == self.shard {
                        self.dedup.acknowledge(writes, &txn.request);
                    }
                    let work = SequencedWork {
                        epoch: slice.epoch,
                        time_millis: slice.time_millis,
                        seed: transaction_seed(slice.seed, txn.position),
                        range: slice.range.clone(),
                        txn,
                    };
                    self.gate.enter(place(position), Work::Sequenced(work));
                }
            }
            SliceBody::Split(change) => {
                let halves = self.header.range.split_at(&change.at);
                let (low, high) = halves
                    .filter(|_| change.parent == self.shard)
                    .ok_or_else(|| self.broken("a split fits the shard it was sent to"))?;
                self.header.range = low;
                self.header.epoch = change.epoch;
                let work = SplitWork { epoch: slice.epoch, child_range: high, change };
                self.gate.enter(place(position), Work::Split(work));
            }
        }
        Ok(())
    }

    /// Rule 9: inputs count once their transaction is granted; early ones are
    /// kept, those of a finished transaction mean nothing.
    fn apply_inputs(&mut self, inputs: TxnInputs) {
        self.gate.supply(inputs);
    }

    /// Rule 15: a fence returns what the request did here or makes sure that
    /// it never does anything as a direct command.
    fn apply_fence(&mut self, writes: &mut WriteSet, fence: Fence) {
        let Fence { request, home } = fence;
        let position = self.header.cursor;
        let outcome = match self.lookup(&request) {
            Some(known) => {
                sometimes!("a fence finds its request pending", known == FenceOutcome::Pending);
                known
            }
            None if self.dedup.is_expired(&request, self.header.floors.expired) => {
                FenceOutcome::Expired
            }
            None if !self.header.range.contains(&home) => {
                let refusal = Refusal::Moved;
                self.events.push_back(Event::Refused { request, refusal, position });
                return;
            }
            None => {
                sometimes!("a fence poisons its request");
                self.remember(writes, &request, home, position, Verdict::Poisoned);
                FenceOutcome::Poisoned
            }
        };
        self.events.push_back(Event::Fenced { request, outcome, position });
    }

    pub(super) fn remember(
        &mut self,
        writes: &mut WriteSet,
        request: &RequestId,
        home: Blob,
        position: Epoch,
        verdict: Verdict,
    ) {
        let row = DedupRow { home, birth: request.birth, position, verdict };
        self.dedup.remember(writes, request, row);
    }

    pub(super) fn raise_floors(&mut self, writes: &mut WriteSet, floors: Floors) {
        let before = self.header.floors;
        let after = before.max(floors);
        if after == before {
            return;
        }
        self.header.floors = after;
        self.header_dirty = true;
        if after.done > before.done {
            let kept = self.outbox.split_off(&TxnId { epoch: after.done.next(), position: 0 });
            for txn in std::mem::replace(&mut self.outbox, kept).into_keys() {
                writes.delete_system(outbox_key(txn));
            }
        }
        if after.expired > before.expired {
            self.dedup.expire(writes, after.expired);
        }
    }

    /// The shard clock never goes back, whichever leader's clock lags.
    fn stamp(&mut self, time_millis: u64) {
        if time_millis > self.header.clock_millis {
            self.header.clock_millis = time_millis;
            self.header_dirty = true;
        }
    }

    pub(super) fn broken(&self, what: &'static str) -> Halt {
        Halt::Invariant { shard: self.shard, what }
    }
}

/// A fresh shard's header.
pub(super) fn new_header(range: KeyRange, epoch: ShardEpoch) -> Header {
    Header {
        range,
        epoch,
        cursor: Epoch::default(),
        clock_millis: 0,
        version: 0,
        tombstone_floor: 0,
        floors: Floors::default(),
    }
}

/// Each transaction of a batch gets chance of its own, the same everywhere.
fn transaction_seed(batch_seed: u64, position: u32) -> u64 {
    use quorate_types::env::Rng;
    let mixed = batch_seed.wrapping_add(u64::from(position).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    quorate_types::env::SplitMix::new(mixed).next_u64()
}

/// Used by `gate` for rows that wait.
pub(super) fn waiting(work: Work) -> PendingRow {
    PendingRow { work, granted: None, inputs: None }
}
