use std::collections::BTreeSet;

use super::*;

const SEEDS: std::ops::Range<u64> = 0..200;

#[test]
fn a_seed_is_an_order_of_strikes_in_which_each_kind_comes_before_any_comes_again() {
    for arsenal in [Arsenal::Everything, Arsenal::Processes] {
        for seconds in [10, 120] {
            each_kind_comes_before_any_comes_again(arsenal, seconds);
        }
    }
}

fn each_kind_comes_before_any_comes_again(arsenal: Arsenal, seconds: u64) {
    let all = Kind::of(arsenal);
    let drawn = |seed| {
        let mut bag = Bag::new(seed, arsenal, &Demand::of(seed, arsenal, seconds));
        let next = |_| {
            let Drawn { kind, mut chance, .. } = bag.draw();
            bag.tell(true);
            (kind, chance.next_u64())
        };
        (0..2 * all.len()).map(next).collect::<Vec<_>>()
    };
    let first = drawn(1);
    assert_eq!(first, drawn(1));
    assert_ne!(first, drawn(2));
    for round in first.chunks(all.len()) {
        let kinds: BTreeSet<Kind> = round.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, all.iter().copied().collect());
    }
}

#[test]
fn whatever_the_seed_the_first_strikes_are_those_that_are_demanded() {
    for seed in SEEDS {
        let demands = Demand::of(seed, Arsenal::Everything, 120);
        assert_eq!(demands.len(), DEMANDS.len());
        let mut bag = Bag::new(seed, Arsenal::Everything, &demands);
        let mut first = BTreeSet::new();
        while bag.is_wanting() {
            first.insert(bag.draw().kind);
            bag.tell(true);
        }
        assert_eq!(first.len(), demands.len());
        assert_eq!(Demand::unmet(&demands, |kind| first.contains(&kind)), [] as [&str; 0]);
    }
}

#[test]
fn what_is_demanded_and_took_no_effect_comes_again_and_changes_nothing_of_what_follows() {
    for seed in SEEDS {
        let demands = Demand::of(seed, Arsenal::Everything, 120);
        let mut smooth = Bag::new(seed, Arsenal::Everything, &demands);
        let mut rough = Bag::new(seed, Arsenal::Everything, &demands);
        let mut tried = Vec::new();
        while rough.is_wanting() {
            let drawn = rough.draw();
            assert_eq!(drawn.is_again, tried.contains(&drawn.kind));
            tried.push(drawn.kind);
            // Each takes effect in the second attempt.
            rough.tell(drawn.is_again);
        }
        assert_eq!(tried.len(), 2 * demands.len());
        while smooth.is_wanting() {
            smooth.draw();
            smooth.tell(true);
        }
        let (mut smooth, mut rough) = (smooth.draw(), rough.draw());
        assert_eq!(smooth.kind, rough.kind);
        assert_eq!(smooth.chance.next_u64(), rough.chance.next_u64());
    }
}

#[test]
fn what_never_takes_effect_ends_and_is_unmet() {
    let demands = Demand::of(1, Arsenal::Everything, 120);
    let mut bag = Bag::new(1, Arsenal::Everything, &demands);
    let mut tried = 0;
    while bag.is_wanting() {
        bag.draw();
        bag.tell(false);
        tried += 1;
    }
    assert_eq!(tried, demands.len() as u32 * ATTEMPTS_MAX);
    assert_eq!(Demand::unmet(&demands, |_| false).len(), demands.len());
    assert_eq!(Demand::unmet(&demands, |kind| kind != Kind::Move), ["move"]);
}

#[test]
fn short_runs_demand_less_and_very_short_ones_nothing() {
    let count = |seconds| Demand::of(3, Arsenal::Everything, seconds).len();
    assert_eq!([1, 59, 60, 119, 120, 600].map(count), [0, 0, 3, 5, 6, 6]);
    let names = Demand::of(3, Arsenal::Processes, 120).into_iter().map(|demand| demand.name);
    assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from(["kill", "stall"]));
}
