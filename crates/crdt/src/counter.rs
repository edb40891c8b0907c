use std::collections::BTreeMap;

use zerompk::{FromMessagePack, ToMessagePack};

use crate::Origin;

/// A counter that every node may raise and lower. Each origin counts its own
/// steps, up and down apart, so both only grow and a merge takes the larger.
///
/// Use the current [`Origin`] of the node: a restarted node that lost its
/// counts then begins a slot of its own instead of falling behind the old one.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct PnCounter {
    steps: BTreeMap<Origin, Steps>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ToMessagePack, FromMessagePack)]
struct Steps {
    up: u64,
    down: u64,
}

impl PnCounter {
    /// Zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { steps: BTreeMap::new() }
    }

    /// Steps up less steps down.
    #[must_use]
    pub fn value(&self) -> i128 {
        self.steps.values().map(|steps| i128::from(steps.up) - i128::from(steps.down)).sum()
    }

    /// Raises the counter, and returns the delta that tells others. An
    /// origin's steps stop at `u64::MAX`.
    pub fn increment(&mut self, origin: Origin, by: u64) -> Self {
        self.step(origin, |steps| steps.up = steps.up.saturating_add(by))
    }

    /// Lowers the counter, and returns the delta that tells others. An
    /// origin's steps stop at `u64::MAX`.
    pub fn decrement(&mut self, origin: Origin, by: u64) -> Self {
        self.step(origin, |steps| steps.down = steps.down.saturating_add(by))
    }

    fn step(&mut self, origin: Origin, change: impl FnOnce(&mut Steps)) -> Self {
        let steps = self.steps.entry(origin).or_default();
        change(steps);
        Self { steps: BTreeMap::from([(origin, *steps)]) }
    }

    /// Takes in another replica's state or delta; says whether anything
    /// changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (&origin, theirs) in &other.steps {
            let ours = self.steps.entry(origin).or_default();
            let joined = Steps { up: ours.up.max(theirs.up), down: ours.down.max(theirs.down) };
            changed |= joined != *ours;
            *ours = joined;
        }
        changed
    }
}
