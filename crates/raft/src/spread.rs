//! How values are spread, in little memory.

#[cfg(test)]
mod tests;

/// Bounds of this many powers of two, from 1 to about four million.
const BOUNDS: usize = 23;

/// How often values occurred, by powers of two: what a histogram of a monitoring
/// system wants, and enough to see whether something takes a hundred microseconds or
/// a hundred milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    /// Values up to 1, above it up to 2, above that up to 4, and so on.
    counts: [u64; BOUNDS],
    /// Values above the last bound.
    beyond: u64,
    sum: u64,
}

impl Spread {
    /// Counts a value.
    pub fn note(&mut self, value: u64) {
        let place = u64::BITS - value.saturating_sub(1).leading_zeros();
        *self.counts.get_mut(place as usize).unwrap_or(&mut self.beyond) += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.beyond
    }

    /// Their sum.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// Bounds, ascending, and how many values did not exceed each.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut below = 0;
        self.counts.iter().enumerate().map(move |(place, count)| {
            below += count;
            (1 << place, below)
        })
    }

    /// The bound that so many of a hundred do not exceed, `u64::MAX` where there is
    /// none; 0 of nothing.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        let wanted = count.saturating_mul(percent).div_ceil(100).max(1);
        let bound = self.cumulative().find(|(_, below)| *below >= wanted);
        bound.map_or(u64::MAX, |(bound, _)| bound)
    }
}
