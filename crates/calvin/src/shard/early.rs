//! Contributions that come before the transaction they are for.

use std::collections::BTreeMap;

use quorate_types::{Epoch, ShardId, TxnId};

use crate::command::Contribution;
use crate::limits::READ_BYTES_MAX;

/// Contributions kept for transactions that are not granted here yet. Beyond
/// it they are dropped; they will be asked for.
const EARLY_MAX: usize = 4_096;
/// Their bytes: as many as thirty-two of the largest have. An honest one is
/// small or rarely early; a peer could send any number that fill a frame.
const EARLY_BYTES_MAX: usize = 32 * READ_BYTES_MAX;

/// The contributions kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Early {
    kept: BTreeMap<(TxnId, ShardId), Contribution>,
    bytes: usize,
}

impl Early {
    /// Keeps a contribution if there is room; the first one stands, as it does
    /// once a transaction collects.
    pub(super) fn keep(&mut self, txn: TxnId, from: ShardId, contribution: Contribution) {
        let bytes = contribution.payload_bytes();
        let has_room = self.kept.len() < EARLY_MAX && self.bytes + bytes <= EARLY_BYTES_MAX;
        if has_room && !self.kept.contains_key(&(txn, from)) {
            self.kept.insert((txn, from), contribution);
            self.bytes += bytes;
        }
    }

    pub(super) fn take(&mut self, txn: TxnId, from: ShardId) -> Option<Contribution> {
        let contribution = self.kept.remove(&(txn, from))?;
        self.bytes -= contribution.payload_bytes();
        Some(contribution)
    }

    /// Drops what is for transactions that are done everywhere.
    pub(super) fn drop_done(&mut self, done: Epoch) {
        let bytes = &mut self.bytes;
        self.kept.retain(|(txn, _), contribution| {
            let is_kept = txn.epoch > done;
            if !is_kept {
                *bytes -= contribution.payload_bytes();
            }
            is_kept
        });
    }
}
