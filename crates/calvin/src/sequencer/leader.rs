//! The volatile role of the sequencer's leader: admission, batches, and the
//! watermarks L and C. Losing it loses nothing that was admitted to a log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_types::{ClientId, Epoch, ShardId, sometimes};
use zerompk::{FromMessagePack, ToMessagePack};

use super::machine::{SequencerMachine, participants, shards_of};
use super::share::Cost;
use crate::command::{Floors, SequencerBatch, ShardMap, Slice, Submission};
use crate::procedure::Footprint;

/// Bounds of the inbox and of batches.
#[derive(Clone, Copy, Debug)]
pub struct SequencerLimits {
    /// Submissions waiting to be ordered. Beyond it a submission is refused
    /// before admission.
    pub inbox_txns_max: usize,
    /// Their argument and key bytes.
    pub inbox_bytes_max: usize,
    /// Transactions in one batch.
    pub batch_txns_max: usize,
    /// Argument, key and participant bytes in one batch (one transaction always
    /// fits).
    pub batch_bytes_max: usize,
    /// The same in all slices that the batch is cut into, as far as the leader's
    /// map tells: what one commit writes.
    pub batch_slices_bytes_max: usize,
    /// Slices whose transactions are not done yet at their shards. Beyond it
    /// nothing is admitted, so that a slow shard slows the clients and does
    /// not fill the sequencer's memory.
    pub undone_slices_max: usize,
    /// Their argument, key and participant bytes, with those of the slices that
    /// the inbox will be cut into.
    pub undone_bytes_max: usize,
    /// Requests that the sequencer remembers for their retries.
    pub remembered_max: usize,
    /// How long a slice may wait to be logged by its shard. Beyond it the
    /// shard passes for down, and nothing is admitted that it takes part in:
    /// what is ordered holds its locks at the other participants, and holds
    /// their replies back, until the shard has logged its part. Longer than an
    /// election takes.
    pub unlogged_wait_max: Duration,
}

impl Default for SequencerLimits {
    fn default() -> Self {
        Self {
            inbox_txns_max: 16_384,
            inbox_bytes_max: 64 << 20,
            batch_txns_max: 2_048,
            batch_bytes_max: 1 << 20,
            batch_slices_bytes_max: 32 << 20,
            undone_slices_max: 65_536,
            undone_bytes_max: 256 << 20,
            remembered_max: 1_048_576,
            unlogged_wait_max: Duration::from_secs(3),
        }
    }
}

/// Why a submission was not admitted; nothing of it is in the log, and it may
/// be submitted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The inbox is full, or what was ordered is not done or not forgotten yet.
    #[error("the sequencer has as much work as it may have")]
    Full,
    /// A participant has not logged the work it was given earlier.
    #[error("shard {0} does not log its work; it may be without a quorum")]
    ShardDown(ShardId),
}

/// Facts about the order so far. All of them are stable: once true, for ever
/// true, so that they may be delayed, doubled or taken from a deposed leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub struct Watermarks {
    /// L: every slice of every batch at or below is in its participant's log.
    pub logged: Epoch,
    /// C: every transaction at or below is done everywhere.
    pub done: Epoch,
    /// The sequencer's floors.
    pub floors: Floors,
}

impl Watermarks {
    /// The later of both, fact by fact.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            logged: self.logged.max(other.logged),
            done: self.done.max(other.done),
            floors: self.floors.max(other.floors),
        }
    }
}

/// A slice that its shard has not passed yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    bytes: usize,
    /// When the leader noted it; for those that it took over, when it began to
    /// lead, since nobody knows their age.
    since: Duration,
}

/// Epochs of slices that some shard has not passed yet.
#[derive(Clone, Debug, Default)]
struct Outstanding {
    by_shard: BTreeMap<ShardId, BTreeMap<Epoch, Waiting>>,
    all: BTreeSet<(Epoch, ShardId)>,
    bytes: usize,
    passed: BTreeMap<ShardId, Epoch>,
}

impl Outstanding {
    fn add(&mut self, shard: ShardId, epoch: Epoch, waiting: Waiting) {
        if self.passed.get(&shard).is_none_or(|passed| epoch > *passed) {
            self.by_shard.entry(shard).or_default().insert(epoch, waiting);
            self.all.insert((epoch, shard));
            self.bytes += waiting.bytes;
        }
    }

    fn pass(&mut self, shard: ShardId, up_to: Epoch) {
        let passed = self.passed.entry(shard).or_default();
        *passed = up_to.max(*passed);
        if let Some(epochs) = self.by_shard.get_mut(&shard) {
            let kept = epochs.split_off(&up_to.next());
            for (epoch, waiting) in std::mem::replace(epochs, kept) {
                self.all.remove(&(epoch, shard));
                self.bytes -= waiting.bytes;
            }
        }
    }

    /// Since when the oldest slice of a shard waits, if one does.
    fn waits_since(&self, shard: ShardId) -> Option<Duration> {
        self.by_shard.get(&shard)?.values().next().map(|waiting| waiting.since)
    }

    /// Since when the oldest slice of any shard waits: slices are noted in the
    /// order of their epochs.
    fn oldest_waits_since(&self) -> Option<Duration> {
        self.all.first().and_then(|(_, shard)| self.waits_since(*shard))
    }

    /// The last epoch before the first one outstanding, of those noted and of
    /// those that the machine has beyond `noted`: it may be ahead of what the
    /// leader was told, and an epoch whose slices are not noted yet must not
    /// pass for one without slices.
    fn watermark(&self, machine: &SequencerMachine, noted: Epoch) -> Epoch {
        let is_outstanding = |(epoch, shard): &(Epoch, ShardId)| {
            self.passed.get(shard).is_none_or(|passed| epoch > passed)
        };
        let told = self.all.first().map(|(epoch, _)| *epoch);
        let untold = machine.slices_since(noted).find(is_outstanding).map(|(epoch, _)| epoch);
        let first = told.into_iter().chain(untold).min();
        first.map_or(machine.applied(), |epoch| Epoch(epoch.0.saturating_sub(1)))
    }
}

/// A submission in the inbox, and what it will cost by the map at its admission.
/// A map that has grown since makes it cost a little more; what must never be
/// exceeded is kept at apply.
#[derive(Clone, Debug)]
struct Queued {
    submission: Submission,
    cost: Cost,
}

/// The leader's memory of one term.
#[derive(Clone, Debug, Default)]
pub struct SequencerLeader {
    limits: SequencerLimits,
    queues: BTreeMap<ClientId, VecDeque<Queued>>,
    turn: VecDeque<ClientId>,
    txns: usize,
    bytes: usize,
    /// Of all slices that what is queued will be cut into.
    slices_bytes: usize,
    unlogged: Outstanding,
    undone: Outstanding,
    /// Every slice of the machine up to here is noted in both.
    noted: Epoch,
}

impl SequencerLeader {
    /// Transactions that wait for a batch.
    #[must_use]
    pub const fn queued_count(&self) -> usize {
        self.txns
    }

    /// Takes over: every kept slice counts as unlogged until its shard reports.
    #[must_use]
    pub fn new(machine: &SequencerMachine, limits: SequencerLimits, now: Duration) -> Self {
        let mut leader = Self { limits, ..Self::default() };
        leader.catch_up(machine, now);
        leader
    }

    /// Takes note of the slices that were cut since the last time. `now` is
    /// any clock that never goes back, the same in all calls.
    pub fn catch_up(&mut self, machine: &SequencerMachine, now: Duration) {
        for (epoch, shard) in machine.slices_since(self.noted) {
            let bytes = machine.slice(shard, epoch).map_or(0, Slice::payload_bytes);
            let waiting = Waiting { bytes, since: now };
            self.unlogged.add(shard, epoch, waiting);
            self.undone.add(shard, epoch, waiting);
        }
        self.noted = machine.applied();
    }

    /// Queues a submission.
    ///
    /// # Errors
    /// [`NotAdmitted`] when a limit is reached or a participant is down.
    pub fn submit(
        &mut self,
        machine: &SequencerMachine,
        submission: Submission,
        now: Duration,
    ) -> Result<(), NotAdmitted> {
        let cost = cost(machine, &submission);
        let bytes = cost.slice_bytes;
        let is_full = self.txns >= self.limits.inbox_txns_max
            || self.bytes + bytes > self.limits.inbox_bytes_max
            || self.undone.all.len() >= self.limits.undone_slices_max
            || self.exceeds_undone(&cost)
            || machine.remembered_count() >= self.limits.remembered_max;
        if is_full {
            sometimes!("the sequencer is full");
            return Err(NotAdmitted::Full);
        }
        if let Some(shard) = self.down_among(machine, &submission.call.footprint, now) {
            sometimes!("the sequencer refuses work for a shard that is down");
            return Err(NotAdmitted::ShardDown(shard));
        }
        self.txns += 1;
        self.bytes += bytes;
        self.slices_bytes += cost.batch_bytes;
        let client = submission.request.client;
        let queue = self.queues.entry(client).or_default();
        if queue.is_empty() {
            self.turn.push_back(client);
        }
        queue.push_back(Queued { submission, cost });
        Ok(())
    }

    /// Whether a transaction would come to exceed what may be undone, once all
    /// that waits before it is cut into slices. One that exceeds it by itself
    /// waits until there is nothing else.
    fn exceeds_undone(&self, cost: &Cost) -> bool {
        let held = self.undone.bytes + self.slices_bytes;
        held > 0 && held.saturating_add(cost.batch_bytes) > self.limits.undone_bytes_max
    }

    /// A participant with a slice that has waited too long to be logged. It is
    /// admitted again as soon as it has logged what waits, which it can do
    /// without anything new being ordered.
    fn down_among(
        &self,
        machine: &SequencerMachine,
        footprint: &Footprint,
        now: Duration,
    ) -> Option<ShardId> {
        let waits_too_long =
            |since: Duration| now.saturating_sub(since) > self.limits.unlogged_wait_max;
        // Nearly always nobody is down, and nobody needs to be looked up.
        self.unlogged.oldest_waits_since().filter(|since| waits_too_long(*since))?;
        shards_of(machine.map()?, footprint)
            .into_iter()
            .find(|shard| self.unlogged.waits_since(*shard).is_some_and(waits_too_long))
    }

    /// Takes the next batch, one transaction per client in turn; `None` when
    /// nothing waits.
    pub fn next_batch(
        &mut self,
        machine: &SequencerMachine,
        now: Duration,
        time_millis: u64,
        seed: u64,
    ) -> Option<SequencerBatch> {
        self.catch_up(machine, now);
        if self.txns == 0 {
            return None;
        }
        let mut txns = Vec::new();
        let (mut bytes, mut slices_bytes) = (0, 0);
        while txns.len() < self.limits.batch_txns_max {
            let Some(client) = self.turn.pop_front() else { break };
            let Some(queue) = self.queues.get_mut(&client) else { continue };
            let Some(next) = queue.front() else { continue };
            let cost = next.cost;
            let is_full = bytes + cost.slice_bytes > self.limits.batch_bytes_max
                || slices_bytes + cost.batch_bytes > self.limits.batch_slices_bytes_max;
            if is_full && !txns.is_empty() {
                self.turn.push_front(client);
                break;
            }
            txns.extend(queue.pop_front().map(|queued| queued.submission));
            bytes += cost.slice_bytes;
            slices_bytes += cost.batch_bytes;
            self.txns -= 1;
            self.bytes -= cost.slice_bytes;
            self.slices_bytes -= cost.batch_bytes;
            if queue.is_empty() {
                self.queues.remove(&client);
            } else {
                self.turn.push_back(client);
            }
        }
        Some(self.batch(machine, txns, time_millis, seed))
    }

    /// A batch without transactions, which lets floors and the log's clock
    /// move while nothing is sequenced.
    #[must_use]
    pub fn idle_batch(&self, machine: &SequencerMachine, time_millis: u64) -> SequencerBatch {
        self.batch(machine, Vec::new(), time_millis, 0)
    }

    /// C is bounded by what is applied now: batches that are in the log but
    /// not applied yet are not in `undone`.
    fn batch(
        &self,
        machine: &SequencerMachine,
        txns: Vec<Submission>,
        time_millis: u64,
        seed: u64,
    ) -> SequencerBatch {
        let done = self.undone.watermark(machine, self.noted);
        SequencerBatch { time_millis, seed, done, txns: txns.into() }
    }

    /// A shard's leader reports what it has applied. Only shards of the map
    /// count: what is remembered of them must not grow by what a peer names. A
    /// report that comes before the map it belongs to is as good as lost, and
    /// repeated like one.
    pub fn reported(
        &mut self,
        machine: &SequencerMachine,
        shard: ShardId,
        cursor: Epoch,
        done: Epoch,
    ) {
        let is_known = |map: &ShardMap| map.shards.iter().any(|known| known.shard == shard);
        if !machine.map().is_some_and(is_known) {
            return;
        }
        self.unlogged.pass(shard, cursor);
        self.undone.pass(shard, done.min(cursor));
    }

    /// The watermarks as far as the reports go.
    #[must_use]
    pub fn watermarks(&self, machine: &SequencerMachine) -> Watermarks {
        Watermarks {
            logged: self.unlogged.watermark(machine, self.noted),
            done: self.undone.watermark(machine, self.noted),
            floors: machine.floors(),
        }
    }

    /// The first unlogged epoch of each shard that has one, to be offered again.
    pub fn unlogged_shards(&self) -> impl Iterator<Item = (ShardId, Epoch)> + '_ {
        self.unlogged
            .by_shard
            .iter()
            .filter_map(|(shard, epochs)| epochs.keys().next().map(|epoch| (*shard, *epoch)))
    }
}

fn cost(machine: &SequencerMachine, submission: &Submission) -> Cost {
    let call = &submission.call;
    let participants = machine.map().map(|map| participants(map, &call.footprint));
    Cost::of(call, &participants.unwrap_or_default())
}
