//! What a seed decides of a run of registries.

use std::time::Duration;

use quorate::types::env::SplitMix;
use quorate_crdt::Limits;
use quorate_testkit::sim::LinkConfig;

use crate::sim::options::Draw;

/// Tight enough that one delta does not hold everything, wide enough that no
/// write is refused for them.
pub(super) const LIMITS: Limits =
    Limits { entries_max: 4_096, key_bytes_max: 16, value_bytes_max: 512, origins_max: 256 };

/// A whole run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// The nodes, numbered from 1.
    pub(super) nodes: u64,
    /// How messages travel when nothing strikes.
    pub(super) link: LinkConfig,
    /// What one delta or part of a reset may take.
    pub(super) delta_bytes_max: usize,
    /// How old a tombstone must be before it may be forgotten. Longer than any
    /// message is under way, and than clocks are apart.
    pub(super) age_millis: u64,
    /// How often a node reports its load.
    pub(super) report_millis: u64,
    /// The longest time between two writes.
    pub(super) pause_millis_max: u64,
    /// Shards that everybody writes.
    pub(super) shared: u64,
    /// How far the clocks of two neighbours are apart.
    pub(super) skew_millis: i64,
    /// Whether the fences under which allocations are written rise.
    pub(super) fences_rise: bool,
    /// How long keys are written while faults strike.
    pub(super) fire_millis: u64,
    /// Whether rare branches are taken on purpose.
    pub(super) stumbles: bool,
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        let mut chance = Draw(SplitMix::new(seed ^ 0x0072_6567_6973_7472));
        let (shortest, longest) = chance.pick(&[(0, 2), (1, 5), (1, 5), (5, 30), (5, 150)]);
        Self {
            seed,
            nodes: chance.between(3, 6),
            link: LinkConfig {
                latency_min: Duration::from_millis(shortest),
                latency_max: Duration::from_millis(longest),
                loss_per_mille: chance.pick(&[0, 0, 10, 30]),
                is_ordered: !chance.one_in(3),
                ..LinkConfig::default()
            },
            delta_bytes_max: chance.pick(&[6 << 10, 8 << 10, 16 << 10, 128 << 10]),
            age_millis: chance.between(3_000, 6_000),
            report_millis: chance.between(300, 800),
            pause_millis_max: chance.pick(&[40, 80, 150]),
            shared: chance.between(2, 8),
            skew_millis: chance.pick(&[0, 20, 80]),
            fences_rise: chance.one_in(2),
            fire_millis: chance.between(60_000, 90_000),
            stumbles: chance.one_in(2),
        }
    }
}
