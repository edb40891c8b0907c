//! What several rounds say together.

use std::fmt;

/// A median, and what is around it.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The middle one; of an even number the upper.
    pub median: f64,
    least: f64,
    most: f64,
    count: usize,
}

impl Spread {
    /// Zeroes of nothing.
    #[must_use]
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or_default();
        let most = values.last().copied().unwrap_or_default();
        Self { median: at(values.len() / 2), least: at(0), most, count: values.len() }
    }

    /// Whether nothing was measured.
    #[must_use]
    pub const fn is_of_nothing(&self) -> bool {
        self.count == 0
    }

    /// Of rates beside others of the same rounds.
    #[must_use]
    pub fn of_ratios(of: &[f64], to: &[f64]) -> Self {
        Self::of(of.iter().zip(to).map(|(of, to)| of / to))
    }
}

impl fmt::Display for Spread {
    /// Whole numbers, or as many decimals as are asked for; `?` of nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, most, count: _ } = self;
        if self.is_of_nothing() {
            return f.write_str("?");
        }
        let decimals = f.precision().unwrap_or(0);
        write!(f, "{median:.decimals$} [{least:.decimals$}, {most:.decimals$}]")
    }
}
