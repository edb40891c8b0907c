//! Bars: what figures have to reach.

use std::fmt;

use crate::Spread;

/// What a figure has to reach, or to stay below.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    side: Side,
    value: f64,
    /// What the figure counts, as it reads behind the value: `x etcd`, `s`.
    unit: &'static str,
}

/// Where figures are that meet a bar.
#[derive(Debug, Clone, Copy)]
enum Side {
    AtLeast,
    AtMost,
    Below,
}

impl Bar {
    /// One for figures of which more is better.
    #[must_use]
    pub const fn at_least(value: f64, unit: &'static str) -> Self {
        Self { side: Side::AtLeast, value, unit }
    }

    /// One for figures of which less is better.
    #[must_use]
    pub const fn at_most(value: f64, unit: &'static str) -> Self {
        Self { side: Side::AtMost, value, unit }
    }

    /// Likewise, where the value itself is too much.
    #[must_use]
    pub const fn below(value: f64, unit: &'static str) -> Self {
        Self { side: Side::Below, value, unit }
    }

    /// Whether a figure meets it. What is no number does not.
    #[must_use]
    pub fn is_met_by(self, figure: f64) -> bool {
        match self.side {
            Side::AtLeast => figure >= self.value,
            Side::AtMost => figure <= self.value,
            Side::Below => figure < self.value,
        }
    }

    /// It, the median of what was measured, and whether that meets it.
    #[must_use]
    pub fn judge(self, measured: Spread) -> String {
        if measured.is_of_nothing() {
            return format!("{self}: not measured");
        }
        let verdict = if self.is_met_by(measured.median) { "met" } else { "not met" };
        format!("{self}: {}, {verdict}", rounded(measured.median))
    }
}

/// To three decimals, so that a figure just below a bar does not look like it.
fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { side, value, unit } = self;
        let sign = match side {
            Side::AtLeast => ">=",
            Side::AtMost => "<=",
            Side::Below => "<",
        };
        write!(f, "{sign} {value} {unit}")
    }
}

#[cfg(test)]
mod tests;
