//! What a transaction costs the slices of its batch, and what each participant
//! is told of the others.
//!
//! Every participant gets the call, and a list of participants. Both grow with
//! the shards that a range covers, so neither the arguments nor the keys alone
//! bound what a batch is cut into. The invariant, kept by [`Room`] at apply
//! and asserted where slices are cut: one slice holds at most
//! [`SLICE_BYTES_MAX`] of work and so fits a row and a log entry, and all
//! slices of one batch hold at most [`BATCH_SLICES_BYTES_MAX`] together. The
//! leader's charges, made with the map that it sees, only keep batches from
//! coming near.

use quorate_types::{Seq, ShardId};

use super::machine::NotOrdered;
use crate::command::{Participant, SequencedTxn};
use crate::limits::{
    BATCH_SLICES_BYTES_MAX, PARTICIPANT_BYTES, SLICE_BYTES_MAX, TXN_BYTES_MAX, TXN_OVERHEAD_BYTES,
};
use crate::procedure::Call;

/// What a transaction adds to the slices of its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cost {
    /// To each slice at the most.
    pub(super) slice_bytes: usize,
    /// To all of them together.
    pub(super) batch_bytes: usize,
}

impl Cost {
    pub(super) fn of(call: &Call, participants: &[Participant]) -> Self {
        let count = participants.len();
        let with =
            |known: usize| call.payload_bytes() + PARTICIPANT_BYTES * known + TXN_OVERHEAD_BYTES;
        let others = if is_exchange(participants) { count } else { count.min(2) };
        Self {
            slice_bytes: with(count),
            batch_bytes: with(count) + count.saturating_sub(1).saturating_mul(with(others)),
        }
    }

    /// Whether no batch has room for it.
    const fn is_too_wide(&self) -> bool {
        self.slice_bytes > TXN_BYTES_MAX || self.batch_bytes > BATCH_SLICES_BYTES_MAX
    }
}

/// What the slices of one batch may still hold. A function of the log alone.
pub(super) struct Room {
    slice_bytes: usize,
    batch_bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { slice_bytes: SLICE_BYTES_MAX, batch_bytes: BATCH_SLICES_BYTES_MAX }
    }
}

impl Room {
    /// Takes a transaction's part, as if each slice got the whole of it.
    pub(super) fn take(&mut self, cost: &Cost) -> Result<(), NotOrdered> {
        if cost.is_too_wide() {
            return Err(NotOrdered::TooWide);
        }
        let slice_bytes = self.slice_bytes.checked_sub(cost.slice_bytes);
        let batch_bytes = self.batch_bytes.checked_sub(cost.batch_bytes);
        let (Some(slice_bytes), Some(batch_bytes)) = (slice_bytes, batch_bytes) else {
            return Err(NotOrdered::Crowded);
        };
        *self = Self { slice_bytes, batch_bytes };
        Ok(())
    }
}

/// Whether reads of one participant may be needed by another that writes: only
/// then does everyone have to know everyone.
fn is_exchange(participants: &[Participant]) -> bool {
    participants.iter().any(|it| it.reads) && participants.iter().any(|it| it.writes)
}

/// The transaction as each participant gets it. Where inputs are not
/// exchanged, nobody but the home, which collects what is read, has to know of
/// more than itself and the home: a count over all shards would otherwise cost
/// the square of their number.
pub(super) fn shares(txn: &SequencedTxn) -> impl Iterator<Item = (ShardId, SequencedTxn)> {
    let home = txn.participants.iter().find(|it| it.shard == txn.home).copied();
    let is_exchange = is_exchange(&txn.participants);
    txn.participants.iter().map(move |own| {
        let share = match home {
            Some(home) if !is_exchange && own.shard != home.shard => {
                let mut known = [*own, home];
                known.sort_unstable_by_key(|it| it.shard);
                let participants = Seq(known.to_vec());
                let (request, call) = (txn.request, txn.call.clone());
                SequencedTxn { position: txn.position, request, call, home: txn.home, participants }
            }
            _ => txn.clone(),
        };
        (own.shard, share)
    })
}
