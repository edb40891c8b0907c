//! Any order, from a seed.

use quorate_types::env::{Rng, SplitMix};

/// Puts items into an order that `chance` decides (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T], chance: &mut SplitMix) {
    for last in (1..items.len()).rev() {
        let other = usize::try_from(chance.below(last as u64 + 1)).unwrap_or(last);
        items.swap(last, other);
    }
}
