//! Bringing slices into the shard's log in chain order (rule 3).

use std::collections::BTreeMap;

use quorate_types::{Epoch, buggify, planted};

use crate::command::{Slice, within_budget};
use crate::limits::SLICES_BYTES_MAX;

/// Slices kept while they wait for their turn. Beyond it the youngest are
/// dropped; they will be offered or pulled again.
const WAITING_MAX: usize = 4_096;
/// Their bytes. Full slices reach it long before the count: it is sixteen full
/// entries, more than a shard catches up with between two pulls, and no slice
/// that passed a log comes near it.
const WAITING_BYTES_MAX: usize = 16 * SLICES_BYTES_MAX;
/// Slices proposed in one entry.
const ENTRY_SLICES_MAX: usize = 256;

/// The leader's queue of slices. One entry is in flight at a time; what
/// arrives meanwhile goes into the next.
#[derive(Clone, Debug, Default)]
pub struct Feeder {
    waiting: BTreeMap<Epoch, Waiting>,
    bytes: usize,
    in_flight: bool,
}

/// A slice with its size, which is not cheap to find out.
#[derive(Clone, Debug)]
struct Waiting {
    slice: Slice,
    bytes: usize,
}

impl Feeder {
    /// Slices behind the cursor that wait for their turn.
    #[must_use]
    pub fn waiting_count(&self, cursor: Epoch) -> usize {
        self.waiting.range(cursor.next()..).count()
    }

    /// Takes in slices, however they came.
    pub fn offer(&mut self, cursor: Epoch, slices: impl IntoIterator<Item = Slice>) {
        for slice in slices {
            if slice.epoch > cursor {
                self.keep(slice);
            }
        }
        let waiting_max = if buggify!("calvin lets two slices wait") { 2 } else { WAITING_MAX };
        while self.waiting.len() > waiting_max || self.bytes > WAITING_BYTES_MAX {
            let Some((_, dropped)) = self.waiting.pop_last() else { break };
            self.bytes -= dropped.bytes;
        }
    }

    fn keep(&mut self, slice: Slice) {
        let bytes = slice.payload_bytes();
        let before = self.waiting.insert(slice.epoch, Waiting { slice, bytes });
        self.bytes += bytes;
        self.bytes -= before.map_or(0, |before| before.bytes);
    }

    fn drop_passed(&mut self, cursor: Epoch) {
        let kept = self.waiting.split_off(&cursor.next());
        let passed = std::mem::replace(&mut self.waiting, kept);
        self.bytes -= passed.values().map(|passed| passed.bytes).sum::<usize>();
    }

    /// The slices that continue the chain from the applied cursor, unless an
    /// entry is in flight.
    pub fn next(&mut self, cursor: Epoch) -> Option<Vec<Slice>> {
        if self.in_flight {
            return None;
        }
        self.drop_passed(cursor);
        let mut chain = Vec::new();
        let mut prev = cursor;
        let slices_max =
            if buggify!("calvin feeds one slice at a time") { 1 } else { ENTRY_SLICES_MAX };
        for slice in within_budget(self.waiting.values().map(|it| &it.slice)).take(slices_max) {
            if slice.prev != prev && !planted!(SliceGapAccepted) {
                break;
            }
            prev = slice.epoch;
            chain.push(slice.clone());
        }
        self.in_flight = !chain.is_empty();
        self.in_flight.then_some(chain)
    }

    /// The entry in flight was applied or failed.
    pub fn landed(&mut self) {
        self.in_flight = false;
    }

    /// Whether slices wait that do not continue the chain: something between
    /// the cursor and them must be pulled.
    #[must_use]
    pub fn has_gap(&self, cursor: Epoch) -> bool {
        !self.in_flight
            && self
                .waiting
                .range(cursor.next()..)
                .next()
                .is_some_and(|(_, first)| first.slice.prev != cursor)
    }
}
