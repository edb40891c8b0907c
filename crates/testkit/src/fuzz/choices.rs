//! Decisions out of bytes.

use quorate_types::env::Rng;

/// Reads an input as a sequence of decisions. An input that is spent decides
/// zero for ever: a target that stops when [`Choices::is_spent`] does no more
/// than its input says, and a shorter input is a shorter story.
///
/// It is also an [`Rng`], for cores and generators that take one.
#[derive(Debug, Clone)]
pub struct Choices<'a> {
    input: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Decisions from `input`, first byte first.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input }
    }

    /// Whether nothing is left to decide with.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.input.is_empty()
    }

    /// The next byte; zero when spent.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.input.split_first() else { return 0 };
        self.input = rest;
        *first
    }

    /// Yes or no; no when spent.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// The next eight bytes as a number.
    pub fn number(&mut self) -> u64 {
        self.wide(8)
    }

    /// A number below `bound`, of as few bytes as the bound needs; zero for a
    /// bound of zero.
    pub fn below(&mut self, bound: usize) -> usize {
        let bytes = match bound {
            0..=1 => return 0,
            2..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 8,
        };
        let drawn = self.wide(bytes).checked_rem(bound as u64).unwrap_or(0);
        usize::try_from(drawn).unwrap_or(0)
    }

    /// One of `all`, if there is one.
    pub fn pick<'b, T>(&mut self, all: &'b [T]) -> Option<&'b T> {
        let at = self.below(all.len());
        all.get(at)
    }

    /// A number that tends to lie at a border: small, a power of two, the
    /// largest, or one beside; sometimes any.
    pub fn edge(&mut self) -> u64 {
        let how = self.byte();
        let (power, by) = (1_u64 << (how >> 2), u64::from(self.byte()));
        match how & 3 {
            0 => by,
            1 => power.wrapping_add(by & 3).wrapping_sub(1),
            2 => u64::MAX - by,
            _ => self.number(),
        }
    }

    /// Up to `bytes_max` bytes, no more than are left.
    pub fn bytes(&mut self, bytes_max: usize) -> &'a [u8] {
        let wanted = self.below(bytes_max.saturating_add(1)).min(self.input.len());
        let (taken, rest) = self.input.split_at(wanted);
        self.input = rest;
        taken
    }

    /// Everything that is left.
    pub const fn rest(&mut self) -> &'a [u8] {
        let rest = self.input;
        self.input = &[];
        rest
    }

    fn wide(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| (number << 8) | u64::from(self.byte()))
    }
}

impl Rng for Choices<'_> {
    fn next_u64(&mut self) -> u64 {
        self.number()
    }
}
