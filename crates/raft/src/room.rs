//! How many are in something that has room for so many. Nobody waits for a seat.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};

/// Room for some.
#[derive(Debug)]
pub(crate) struct Room {
    taken: AtomicUsize,
    max: usize,
}

/// A seat, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat<'a>(&'a AtomicUsize);

impl Room {
    pub(crate) const fn of(max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), max }
    }

    /// A seat, unless all are taken. Whoever asks at the same time as the last
    /// one that finds a seat may be told that there is none.
    pub(crate) fn enter(&self) -> Option<Seat<'_>> {
        let before = self.taken.fetch_add(1, Ordering::AcqRel);
        // Gives the seat back if there is none.
        let seat = Seat(&self.taken);
        (before < self.max).then_some(seat)
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire).min(self.max)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
