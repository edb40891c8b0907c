//! The volatile role of the sequencer's leader: admission, batches, and the
//! watermarks L and C. Losing it loses nothing that was admitted to a log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_types::{ClientId, Epoch, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

use super::machine::SequencerMachine;
use crate::command::{Floors, SequencerBatch, Slice, Submission};
use crate::limits::TXN_OVERHEAD_BYTES;

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
    /// Argument and key bytes in one batch (one transaction always fits).
    pub batch_bytes_max: usize,
    /// Slices whose transactions are not done yet at their shards. Beyond it
    /// nothing is admitted, so that a slow shard slows the clients and does
    /// not fill the sequencer's memory.
    pub undone_slices_max: usize,
    /// Their argument and key bytes.
    pub undone_bytes_max: usize,
    /// Requests that the sequencer remembers for their retries.
    pub remembered_max: usize,
}

impl Default for SequencerLimits {
    fn default() -> Self {
        Self {
            inbox_txns_max: 16_384,
            inbox_bytes_max: 64 << 20,
            batch_txns_max: 2_048,
            batch_bytes_max: 1 << 20,
            undone_slices_max: 65_536,
            undone_bytes_max: 256 << 20,
            remembered_max: 1_048_576,
        }
    }
}

/// The inbox is full, or what was ordered is not done or not forgotten yet;
/// nothing was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sequencer has as much work as it may have")]
pub struct InboxFull;

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

/// Epochs of slices that some shard has not passed yet.
#[derive(Clone, Debug, Default)]
struct Outstanding {
    /// With their bytes.
    by_shard: BTreeMap<ShardId, BTreeMap<Epoch, usize>>,
    all: BTreeSet<(Epoch, ShardId)>,
    bytes: usize,
    passed: BTreeMap<ShardId, Epoch>,
}

impl Outstanding {
    fn add(&mut self, shard: ShardId, epoch: Epoch, bytes: usize) {
        if self.passed.get(&shard).is_none_or(|passed| epoch > *passed) {
            self.by_shard.entry(shard).or_default().insert(epoch, bytes);
            self.all.insert((epoch, shard));
            self.bytes += bytes;
        }
    }

    fn pass(&mut self, shard: ShardId, up_to: Epoch) {
        let passed = self.passed.entry(shard).or_default();
        *passed = up_to.max(*passed);
        if let Some(epochs) = self.by_shard.get_mut(&shard) {
            let kept = epochs.split_off(&up_to.next());
            for (epoch, bytes) in std::mem::replace(epochs, kept) {
                self.all.remove(&(epoch, shard));
                self.bytes -= bytes;
            }
        }
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

/// The leader's memory of one term.
#[derive(Clone, Debug, Default)]
pub struct SequencerLeader {
    limits: SequencerLimits,
    queues: BTreeMap<ClientId, VecDeque<Submission>>,
    turn: VecDeque<ClientId>,
    txns: usize,
    bytes: usize,
    unlogged: Outstanding,
    undone: Outstanding,
    /// Every slice of the machine up to here is noted in both.
    noted: Epoch,
}

impl SequencerLeader {
    /// Takes over: every kept slice counts as unlogged until its shard reports.
    #[must_use]
    pub fn new(machine: &SequencerMachine, limits: SequencerLimits) -> Self {
        let mut leader = Self { limits, ..Self::default() };
        leader.catch_up(machine);
        leader
    }

    /// Takes note of the slices that were cut since the last time.
    pub fn catch_up(&mut self, machine: &SequencerMachine) {
        for (epoch, shard) in machine.slices_since(self.noted) {
            let bytes = machine.slice(shard, epoch).map_or(0, Slice::payload_bytes);
            self.unlogged.add(shard, epoch, bytes);
            self.undone.add(shard, epoch, bytes);
        }
        self.noted = machine.applied();
    }

    /// Queues a submission.
    ///
    /// # Errors
    /// [`InboxFull`] when a limit is reached; nothing is admitted then.
    pub fn submit(
        &mut self,
        machine: &SequencerMachine,
        submission: Submission,
    ) -> Result<(), InboxFull> {
        let bytes = submission_bytes(&submission);
        let is_full = self.txns >= self.limits.inbox_txns_max
            || self.bytes + bytes > self.limits.inbox_bytes_max
            || self.undone.all.len() >= self.limits.undone_slices_max
            || self.undone.bytes >= self.limits.undone_bytes_max
            || machine.remembered_count() >= self.limits.remembered_max;
        if is_full {
            return Err(InboxFull);
        }
        self.txns += 1;
        self.bytes += bytes;
        let client = submission.request.client;
        let queue = self.queues.entry(client).or_default();
        if queue.is_empty() {
            self.turn.push_back(client);
        }
        queue.push_back(submission);
        Ok(())
    }

    /// Whether submissions wait.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.txns > 0
    }

    /// Takes the next batch, one transaction per client in turn; `None` when
    /// nothing waits.
    pub fn next_batch(
        &mut self,
        machine: &SequencerMachine,
        time_millis: u64,
        seed: u64,
    ) -> Option<SequencerBatch> {
        self.catch_up(machine);
        if self.txns == 0 {
            return None;
        }
        let mut txns = Vec::new();
        let mut bytes = 0;
        while txns.len() < self.limits.batch_txns_max {
            let Some(client) = self.turn.pop_front() else { break };
            let Some(queue) = self.queues.get_mut(&client) else { continue };
            let Some(next) = queue.front() else { continue };
            let next_bytes = submission_bytes(next);
            if !txns.is_empty() && bytes + next_bytes > self.limits.batch_bytes_max {
                self.turn.push_front(client);
                break;
            }
            txns.extend(queue.pop_front());
            bytes += next_bytes;
            self.txns -= 1;
            self.bytes -= next_bytes;
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

    /// A shard's leader reports what it has applied.
    pub fn reported(&mut self, shard: ShardId, cursor: Epoch, done: Epoch) {
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

/// What a submission costs in a batch: each of its keys may bring in one more
/// participant.
fn submission_bytes(submission: &Submission) -> usize {
    let footprint = &submission.call.footprint;
    let keys = footprint.reads.len() + footprint.writes.len();
    submission.call.payload_bytes() + 16 * keys + TXN_OVERHEAD_BYTES
}
