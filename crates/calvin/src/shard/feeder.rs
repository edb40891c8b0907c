//! Bringing slices into the shard's log in chain order (rule 3).

use std::collections::BTreeMap;

use quorate_types::{Epoch, buggify, planted};

use crate::command::{Slice, within_budget};

/// Slices kept while they wait for their turn. Beyond it the youngest are
/// dropped; they will be offered or pulled again.
const WAITING_MAX: usize = 4_096;
/// Slices proposed in one entry.
const ENTRY_SLICES_MAX: usize = 256;

/// The leader's queue of slices. One entry is in flight at a time; what
/// arrives meanwhile goes into the next.
#[derive(Clone, Debug, Default)]
pub struct Feeder {
    waiting: BTreeMap<Epoch, Slice>,
    in_flight: bool,
}

impl Feeder {
    /// Takes in slices, however they came.
    pub fn offer(&mut self, cursor: Epoch, slices: impl IntoIterator<Item = Slice>) {
        for slice in slices {
            if slice.epoch > cursor {
                self.waiting.insert(slice.epoch, slice);
            }
        }
        let waiting_max = if buggify!("calvin lets two slices wait") { 2 } else { WAITING_MAX };
        while self.waiting.len() > waiting_max {
            self.waiting.pop_last();
        }
    }

    /// The slices that continue the chain from the applied cursor, unless an
    /// entry is in flight.
    pub fn next(&mut self, cursor: Epoch) -> Option<Vec<Slice>> {
        if self.in_flight {
            return None;
        }
        self.waiting = self.waiting.split_off(&cursor.next());
        let mut chain = Vec::new();
        let mut prev = cursor;
        let slices_max =
            if buggify!("calvin feeds one slice at a time") { 1 } else { ENTRY_SLICES_MAX };
        for slice in within_budget(self.waiting.values()).take(slices_max) {
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
                .is_some_and(|(_, slice)| slice.prev != cursor)
    }
}
