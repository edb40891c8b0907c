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
mod tests {
    use super::*;

    fn fence(who: u128, term: u64, attempt: u32) -> Fence {
        Fence { who: MigrationId(who), term, attempt }
    }

    #[test]
    fn a_later_attempt_or_term_shuts_earlier_ones_out() {
        let fences = Fences::default();
        assert!(fences.admits(fence(1, 2, 1)));
        assert!(fences.admits(fence(1, 2, 1)), "a repetition");
        assert!(fences.admits(fence(1, 3, 0)));
        assert!(!fences.admits(fence(1, 2, 9)), "an earlier term");
        assert!(fences.admits(fence(2, 1, 0)), "somebody else");
    }

    #[test]
    fn as_many_are_kept_as_the_limit_says() {
        let fences = Fences::default();
        for who in 0..=FENCES_MAX as u128 {
            assert!(fences.admits(fence(who, 2, 0)));
        }
        assert!(fences.admits(fence(0, 1, 0)), "the oldest name made room");
        assert!(!fences.admits(fence(FENCES_MAX as u128, 1, 0)));
    }
}
