use std::collections::BTreeMap;

use parking_lot::Mutex;
use quorate_types::MigrationId;
use quorate_types::membership::Fence;

/// Fences that a host keeps; far more than plans are carried out at a time.
pub const FENCES_MAX: usize = 1_024;

/// The newest fence of each migration that has changed a group led here. In memory
/// only: a leader elected meanwhile is protected by the deadline of calls.
#[derive(Default)]
pub(crate) struct Fences(Mutex<BTreeMap<MigrationId, Fence>>);

impl Fences {
    /// Whether `fence` may act, because no later one of the same migration has.
    pub(crate) fn admits(&self, fence: Fence) -> bool {
        let mut seen = self.0.lock();
        if seen.len() >= FENCES_MAX && !seen.contains_key(&fence.migration) {
            seen.pop_first();
        }
        let newest = seen.entry(fence.migration).or_insert(fence);
        if fence.is_older_than(newest) {
            return false;
        }
        *newest = fence;
        true
    }
}

#[cfg(test)]
mod tests;
