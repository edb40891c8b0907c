//! Planted bugs, and for each of them a scenario in which it is to be found.
//!
//! A simulator that finds nothing may be looking at nothing. So every bug of
//! [`Canary`] is planted in turn, in clusters that are drawn with it in mind,
//! and it counts as found only when one of the rules is broken that are there
//! to find it: a panic somewhere does not do. The same runs without the bug
//! must be silent.

use quorate::types::env::SplitMix;
use quorate::types::fault::Canary;

use super::faults::{Fault, Strike, sequence};
use super::options::{Draw, Link, Options, Weights};

/// A bug that is not found in so many runs is not found.
pub(super) const SEEDS_MAX: u64 = 500;

/// What is planted, and where it should show.
pub(super) struct Scenario {
    /// The bug.
    pub(super) canary: Canary,
    /// The rules that find it.
    pub(super) rules: &'static [&'static str],
    aim: Aim,
}

/// Where a bug is looked for.
enum Aim {
    /// In clusters that are drawn so.
    Cluster(fn(&mut Options, &mut Draw)),
    /// In registries without a cluster, which shows nothing of it.
    Registry,
}

/// What clients notice of lists.
const LISTS: &str = "lists are strictly serializable";
/// What they notice of accounts.
const MONEY: &str = "money is neither made nor lost";
/// What they notice of whatever was written once.
const DURABLE: &str = "what was acknowledged is there";

/// What shows that registries differ.
const REGISTRY: [&str; 2] = ["registries converge", "what was removed stays removed"];

/// What shows that an answer left too early.
const EARLY: [&str; 4] =
    ["O5", "O9", "registers are strictly serializable", "each register is linearizable"];

/// One for each.
pub(super) const SCENARIOS: [Scenario; 20] = [
    Scenario {
        canary: Canary::VoteNotSynced,
        rules: &["R6", "R1"],
        aim: Aim::Cluster(cut_power_in_elections),
    },
    Scenario {
        canary: Canary::AcknowledgedBeforeSync,
        rules: &["R5", DURABLE],
        aim: Aim::Cluster(cut_power_with_slow_disks),
    },
    Scenario {
        canary: Canary::ReadWithoutIndex,
        rules: &[LISTS, MONEY],
        aim: Aim::Cluster(isolate_leaders),
    },
    Scenario { canary: Canary::QuorumOffByOne, rules: &["R4"], aim: Aim::Cluster(cut_links) },
    Scenario { canary: Canary::AppliedTwice, rules: &["E1", "O2"], aim: Aim::Cluster(start_again) },
    Scenario {
        canary: Canary::LockReleasedEarly,
        rules: &["O3", "O8", LISTS, MONEY],
        aim: Aim::Cluster(contend_far_apart),
    },
    Scenario { canary: Canary::SliceLost, rules: &["O1", "O8"], aim: Aim::Cluster(pile_up_slices) },
    Scenario {
        canary: Canary::SliceGapAccepted,
        rules: &["O1", "O8"],
        aim: Aim::Cluster(lose_slices),
    },
    Scenario {
        canary: Canary::InputsForgotten,
        rules: &["O2", "O8"],
        aim: Aim::Cluster(start_again),
    },
    Scenario {
        canary: Canary::EarlyReply,
        rules: &EARLY,
        aim: Aim::Cluster(use_registers_far_apart),
    },
    Scenario {
        canary: Canary::EarlyReplyBlind,
        rules: &EARLY,
        aim: Aim::Cluster(use_registers_far_apart),
    },
    Scenario {
        canary: Canary::EarlyReplyChain,
        rules: &EARLY,
        aim: Aim::Cluster(use_registers_far_apart),
    },
    Scenario {
        canary: Canary::RetryWithoutDedup,
        rules: &["O7", "O8", LISTS, MONEY],
        aim: Aim::Cluster(lose_replies),
    },
    Scenario {
        canary: Canary::RetryWithoutFence,
        rules: &["O7", "O8", LISTS, MONEY],
        aim: Aim::Cluster(split_and_lose_replies),
    },
    Scenario {
        canary: Canary::MoveHalfAborted,
        rules: &["M2"],
        aim: Aim::Cluster(move_to_the_dead),
    },
    Scenario {
        canary: Canary::ReplicaIdReused,
        rules: &["M1"],
        aim: Aim::Cluster(move_to_and_fro),
    },
    Scenario { canary: Canary::PurgePastDurable, rules: &["R7"], aim: Aim::Cluster(purge_soon) },
    Scenario { canary: Canary::RowNotVerified, rules: &["M3"], aim: Aim::Cluster(damage_rows) },
    Scenario { canary: Canary::TieKeptLocal, rules: &REGISTRY, aim: Aim::Registry },
    Scenario { canary: Canary::TombstoneCollectedEarly, rules: &REGISTRY, aim: Aim::Registry },
];

impl Scenario {
    /// The run of a seed, with the bug or, for comparison, without; `None` for
    /// what a cluster does not show.
    pub(super) fn options(&self, seed: u64, is_planted: bool) -> Option<Options> {
        let Aim::Cluster(aim) = self.aim else { return None };
        let mut chance = Draw(SplitMix::new(seed ^ 0x6361_6e61_7279));
        let mut options = Options { seed, fire_millis: 30_000, ..Options::default() };
        aim(&mut options, &mut chance);
        options.canary = is_planted.then(|| self.canary.name().to_owned());
        Some(options)
    }
}

/// What befalls a cluster is of these kinds only, each for at most so long, and
/// soon after what came before it.
fn befall(options: &mut Options, chance: &mut Draw, kinds: &[Fault], lasts_millis_max: u64) {
    let mut strikes = sequence(options, chance, kinds, 1_000);
    for strike in &mut strikes {
        strike.lasts_millis = strike.lasts_millis.min(chance.between(1, lasts_millis_max));
    }
    options.strikes = strikes;
}

/// Heartbeats and elections as fast as the links allow.
fn be_quick(options: &mut Options) {
    (options.heartbeat_millis, options.election_millis) = (50, 600);
}

/// Many clients, which hardly rest.
fn be_busy(options: &mut Options) {
    options.load.clients = 10;
    options.load.pause_millis_max = 10;
}

/// Much on several shards at a time.
fn be_tied(options: &mut Options) {
    options.cuts = ["b", "h", "k", "p"].map(str::to_owned).to_vec();
    options.load.weights =
        Weights { audits: 1, list_reads: 3, transfers: 3, appends: 4, ..Weights::default() };
}

fn be_far_apart(options: &mut Options) {
    options.link =
        Link { latency_min_millis: 1, latency_max_millis: 60, is_ordered: false, ..options.link };
}

fn cut_power_in_elections(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    options.sync_micros_max = 40_000;
    let kinds = [Fault::LeaderPowerCut, Fault::PowerCut, Fault::Blackout, Fault::LeaderIsolation];
    befall(options, chance, &kinds, 1_500);
}

fn cut_power_with_slow_disks(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    be_busy(options);
    options.sync_micros_max = 40_000;
    befall(options, chance, &[Fault::PowerCut, Fault::Blackout], 1_000);
}

fn isolate_leaders(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    be_busy(options);
    // One shard, so that a leader alone can answer.
    options.cuts = Vec::new();
    options.load.weights = Weights { list_reads: 10, appends: 3, ..Weights::default() };
    befall(options, chance, &[Fault::LeaderIsolation, Fault::Halves], 4_000);
    for strike in &mut options.strikes {
        strike.lasts_millis += 2_000;
    }
}

fn cut_links(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    let kinds = [Fault::OneWayCut, Fault::TwoWayCut, Fault::LeaderIsolation, Fault::PowerCut];
    befall(options, chance, &kinds, 3_000);
}

fn start_again(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    be_busy(options);
    be_tied(options);
    befall(options, chance, &[Fault::Restart, Fault::PowerCut, Fault::Blackout], 500);
}

fn contend_far_apart(options: &mut Options, chance: &mut Draw) {
    be_busy(options);
    be_tied(options);
    be_far_apart(options);
    options.load.hot_keys = 2;
    befall(options, chance, &[Fault::Delay, Fault::Transfer], 3_000);
}

/// Slices reach shards at different times, and clients look at one shard right
/// after they heard of another.
fn use_registers_far_apart(options: &mut Options, chance: &mut Draw) {
    be_busy(options);
    be_tied(options);
    be_far_apart(options);
    options.load.weights = Weights { registers: 1, ..Weights::default() };
    befall(options, chance, &[Fault::Delay, Fault::Transfer], 3_000);
}

fn pile_up_slices(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    be_busy(options);
    be_tied(options);
    let kinds = [Fault::LeaderIsolation, Fault::LeaderPowerCut, Fault::Delay, Fault::LeaderPause];
    befall(options, chance, &kinds, 5_000);
}

fn lose_slices(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    be_busy(options);
    be_tied(options);
    let kinds = [Fault::Loss, Fault::Duplication, Fault::LeaderIsolation, Fault::LeaderPowerCut];
    befall(options, chance, &kinds, 3_000);
}

fn lose_replies(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    options.attempt_millis = 300;
    options.load.weights = Weights { appends: 6, transfers: 4, ..options.load.weights };
    befall(options, chance, &[Fault::Loss, Fault::OneWayCut, Fault::Delay], 3_000);
}

fn split_and_lose_replies(options: &mut Options, chance: &mut Draw) {
    lose_replies(options, chance);
    options.cuts = Vec::new();
    options.load.clients = 10;
    befall(options, chance, &[Fault::Loss, Fault::OneWayCut, Fault::Delay, Fault::Split], 3_000);
}

/// Replicas are to move to machines that have no power for so long that the
/// moves are given up.
fn move_to_the_dead(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    options.spares = 2;
    options.has_placement = false;
    options.fire_millis = 200_000;
    options.load.pause_millis_max = 1_000;
    options.strikes = Vec::new();
    for at_millis in [500, 1_000] {
        options.strikes.push(strike(Fault::Join, at_millis, 0, chance));
    }
    for at_millis in [12_000, 12_300, 12_600] {
        options.strikes.push(strike(Fault::Move, at_millis, 0, chance));
    }
    for at_millis in [12_700, 12_800] {
        options.strikes.push(strike(Fault::LongOutage, at_millis, 150_000, chance));
    }
}

fn move_to_and_fro(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    options.spares = 2;
    befall(options, chance, &[Fault::Join, Fault::Move, Fault::PowerCut], 500);
}

fn purge_soon(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    be_busy(options);
    (options.purge_after_entries, options.purge_keeps_entries) = (30, 0);
    options.purge_pause_millis = 0;
    befall(options, chance, &[Fault::PowerCut, Fault::Blackout], 1_000);
}

fn damage_rows(options: &mut Options, chance: &mut Draw) {
    be_quick(options);
    options.spares = 2;
    befall(options, chance, &[Fault::Join, Fault::Move, Fault::DamagedRow], 500);
}

fn strike(fault: Fault, at_millis: u64, lasts_millis: u64, chance: &mut Draw) -> Strike {
    Strike { fault, at_millis, lasts_millis, seed: chance.below(u64::MAX), track: 0 }
}
