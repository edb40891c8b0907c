#![allow(missing_docs)]

use super::Spread;

#[test]
fn values_are_counted_below_the_next_power_of_two() {
    let mut spread = Spread::default();
    for value in [0, 1, 2, 3, 4, 5, 1_000, 1 << 22, (1 << 22) + 1, u64::MAX] {
        spread.note(value);
    }
    let below: Vec<(u64, u64)> = spread.cumulative().collect();
    assert_eq!(below[..4], [(1, 2), (2, 3), (4, 5), (8, 6)]);
    assert_eq!(below[9..11], [(512, 6), (1024, 7)]);
    assert_eq!(below.last(), Some(&(1 << 22, 8)));
    assert_eq!((spread.count(), spread.sum()), (10, u64::MAX));
}

#[test]
fn a_percentile_is_a_bound_that_so_many_do_not_exceed() {
    let mut spread = Spread::default();
    assert_eq!(spread.percentile(99), 0);
    for value in 1..=100 {
        spread.note(value);
    }
    assert_eq!(spread.percentile(0), 1);
    assert_eq!(spread.percentile(50), 64);
    assert_eq!(spread.percentile(99), 128);
    spread.note(u64::MAX);
    assert_eq!(spread.percentile(100), u64::MAX);
}
