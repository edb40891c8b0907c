use std::collections::BTreeMap;

use parking_lot::Mutex;
use quorate_types::MigrationId;
use zerompk::{FromMessagePack, ToMessagePack};

/// On whose behalf a group is changed. Of one `who` the later
/// `(term, attempt)` is right: once it has acted, an earlier one that was
/// delayed on its way is refused. Nothing else is read out of it here.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, ToMessagePack, FromMessagePack,
)]
pub struct Fence {
    /// What the change is a part of.
    pub who: MigrationId,
    /// The term of its coordinator.
    pub term: u64,
    /// Its attempt in that term.
    pub attempt: u32,
}

/// Fences that a host keeps; far more than plans are carried out at a time.
pub const FENCES_MAX: usize = 1_024;

/// The newest fence of each `who` that has changed a group led here. In memory
/// only: a leader elected meanwhile is protected by the deadline of calls.
#[derive(Default)]
pub(crate) struct Fences(Mutex<BTreeMap<MigrationId, Fence>>);

impl Fences {
    /// Whether `fence` may act, because no later one of the same `who` has.
    pub(crate) fn admits(&self, fence: Fence) -> bool {
        let mut seen = self.0.lock();
        if seen.len() >= FENCES_MAX && !seen.contains_key(&fence.who) {
            seen.pop_first();
        }
        let newest = seen.entry(fence.who).or_insert(fence);
        if fence < *newest {
            return false;
        }
        *newest = fence;
        true
    }
}

#[cfg(test)]
mod tests;
