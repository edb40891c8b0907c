//! Where inputs come from.

use super::Choices;
use super::mutate::mutate;

/// How long an input drawn from nothing is at most, unless it is said.
const BYTES_MAX: usize = 4 << 10;

/// Below this the first byte of what chance drew says: the rest is the input.
/// Zero is among them, so that shrinking ends at an input that is what it says.
const RAW_BELOW: u8 = 0x20;

/// Below this, and from [`RAW_BELOW`]: a real value as it is.
const WHOLE_BELOW: u8 = 0x28;

/// How often an input is changed at most.
const MUTATIONS_MAX: usize = 8;

/// What a target's inputs are made of: random bytes, and real encodings that
/// are changed in a few places, so that they get far into a decoder.
#[derive(Debug, Clone)]
pub struct Corpus {
    values: Vec<Vec<u8>>,
    bytes_max: usize,
}

impl Corpus {
    /// Encodings of real values. The more of a format they show, the further
    /// their mutations get.
    pub fn of<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Self {
        let values = values.into_iter().map(|value| value.as_ref().to_vec()).collect();
        Self { values, bytes_max: BYTES_MAX }
    }

    /// Random bytes alone, up to so many: decisions for a core.
    #[must_use]
    pub const fn random(bytes_max: usize) -> Self {
        Self { values: Vec::new(), bytes_max }
    }

    /// How many bytes chance draws at most for one input.
    pub(super) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// The real values.
    #[must_use]
    pub fn values(&self) -> &[Vec<u8>] {
        &self.values
    }

    /// The input that the drawn bytes stand for.
    #[must_use]
    pub fn input(&self, drawn: &[u8]) -> Vec<u8> {
        if self.values.is_empty() {
            return drawn.to_vec();
        }
        let mut choices = Choices::new(drawn);
        let how = choices.byte();
        if how < RAW_BELOW {
            return choices.rest().to_vec();
        }
        let mut input = choices.pick(&self.values).cloned().unwrap_or_default();
        if how < WHOLE_BELOW {
            return input;
        }
        let mutations = 1 + choices.below(MUTATIONS_MAX).min(choices.below(MUTATIONS_MAX));
        for _ in 0..mutations {
            mutate(&mut input, &mut choices, &self.values);
        }
        input
    }

    /// What has to be drawn to get exactly `input`.
    pub(super) fn drawn_for(&self, input: &[u8]) -> Vec<u8> {
        let selector: &[u8] = if self.values.is_empty() { &[] } else { &[0] };
        [selector, input].concat()
    }
}
