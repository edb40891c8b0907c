//! In which order strikes come, and which must have taken effect.

use std::collections::VecDeque;

use quorate_types::env::{Rng, SplitMix};

use super::Arsenal;
use super::strikes::{Kind, pick, shuffled};

/// A run so long demands everything that can be demanded.
const DEMANDS_ALL_FROM_SECONDS: u64 = 120;
/// A shorter one demands nothing: it may end before the first strikes did.
pub(super) const DEMANDS_FROM_SECONDS: u64 = 60;
/// So often a kind is tried that is demanded and takes no effect.
const ATTEMPTS_MAX: u32 = 4;

/// Something that must have taken effect in a run that shall count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) name: &'static str,
    /// Any of them will do.
    pub(super) kinds: &'static [Kind],
}

const DEMANDS: [Demand; 6] = [
    Demand { name: "kill", kinds: &[Kind::Kill, Kind::KillAll, Kind::StallAndKill] },
    Demand { name: "stall", kinds: &[Kind::Stall, Kind::StallAndKill] },
    Demand { name: "partition", kinds: &[Kind::OneWay, Kind::TwoWay, Kind::Ring, Kind::Foremost] },
    Demand { name: "full disk", kinds: &[Kind::FullDisk] },
    Demand { name: "move", kinds: &[Kind::Move] },
    Demand { name: "split", kinds: &[Kind::Split] },
];

impl Demand {
    /// What a run demands: of a short one a part that is drawn, of a very short
    /// one nothing.
    pub(super) fn of(seed: u64, arsenal: Arsenal, seconds: u64) -> Vec<Self> {
        let is_there =
            |demand: &&Self| demand.kinds.iter().all(|kind| Kind::of(arsenal).contains(kind));
        let all: Vec<Self> = DEMANDS.iter().filter(is_there).copied().collect();
        let mut demands = shuffled(&mut SplitMix::new(seed.rotate_left(32)), &all);
        let part = seconds.min(DEMANDS_ALL_FROM_SECONDS);
        let part = if part < DEMANDS_FROM_SECONDS { 0 } else { part };
        let count = all.len() as u64 * part / DEMANDS_ALL_FROM_SECONDS;
        demands.truncate(usize::try_from(count).unwrap());
        demands
    }

    /// The names of those of which no kind took effect.
    pub(super) fn unmet(demands: &[Self], took_effect: impl Fn(Kind) -> bool) -> Vec<&'static str> {
        let is_unmet = |demand: &&Self| !demand.kinds.iter().any(|kind| took_effect(*kind));
        demands.iter().filter(is_unmet).map(|demand| demand.name).collect()
    }
}

/// A strike to make.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) kind: Kind,
    /// What its details are drawn from.
    pub(super) chance: SplitMix,
    /// Whether it took no effect before: then nothing else may be in its way.
    pub(super) is_again: bool,
}

/// The order of strikes: each kind once, shuffled, before any comes again, and
/// what is demanded before anything else. A seed decides it, whatever the
/// strikes meet, but for this: what is demanded and took no effect comes again
/// before anything that is not.
#[derive(Debug)]
pub(super) struct Bag {
    chance: SplitMix,
    /// Apart, so that what comes again changes nothing of what comes after.
    chance_again: SplitMix,
    kinds: &'static [Kind],
    /// What is demanded and has not taken effect, with the attempts so far.
    demanded: VecDeque<(Kind, u32)>,
    left: Vec<Kind>,
}

impl Bag {
    pub(super) fn new(seed: u64, arsenal: Arsenal, demands: &[Demand]) -> Self {
        let mut chance = SplitMix::new(seed);
        let kinds = Kind::of(arsenal);
        let mut left = shuffled(&mut chance, kinds);
        let mut demanded = VecDeque::new();
        for demand in demands {
            let free: Vec<Kind> =
                demand.kinds.iter().copied().filter(|kind| left.contains(kind)).collect();
            if free.is_empty() {
                continue;
            }
            let kind = pick(&mut chance, &free);
            left.retain(|other| *other != kind);
            demanded.push_back((kind, 0));
        }
        Self { chance, chance_again: SplitMix::new(!seed), kinds, demanded, left }
    }

    /// The next strike.
    pub(super) fn draw(&mut self) -> Drawn {
        if let Some((kind, attempts)) = self.demanded.front() {
            let is_again = *attempts > 0;
            let chance = if is_again { &mut self.chance_again } else { &mut self.chance };
            let chance = SplitMix::new(chance.next_u64());
            return Drawn { kind: *kind, chance, is_again };
        }
        if self.left.is_empty() {
            self.left = shuffled(&mut self.chance, self.kinds);
        }
        let kind = self.left.pop().unwrap();
        Drawn { kind, chance: SplitMix::new(self.chance.next_u64()), is_again: false }
    }

    /// What was drawn last took effect, or did not.
    pub(super) fn tell(&mut self, took_effect: bool) {
        let Some((kind, attempts)) = self.demanded.pop_front() else { return };
        if !took_effect && attempts + 1 < ATTEMPTS_MAX {
            self.demanded.push_back((kind, attempts + 1));
        }
    }

    /// Whether something is still to be tried that the run demands: it goes on
    /// until then, however slow the machine is.
    pub(super) fn is_wanting(&self) -> bool {
        !self.demanded.is_empty()
    }
}

#[cfg(test)]
mod tests;
