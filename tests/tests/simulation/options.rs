//! What a seed decides, and what it leaves open.

use std::collections::BTreeSet;

use quorate_tests::sim::{Fault, Options};

#[test]
fn a_seed_decides_everything() {
    assert_eq!(Options::draw(7), Options::draw(7));
    assert_ne!(Options::draw(7), Options::draw(8));
}

#[test]
fn options_can_be_written_down_and_read() {
    for seed in 0..50 {
        let options = Options::draw(seed);
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
    }
}

#[test]
fn seeds_differ_in_whatever_may_differ() {
    let drawn: Vec<Options> = (0..300).map(Options::draw).collect();
    let founders: BTreeSet<u64> = drawn.iter().map(|options| options.founders).collect();
    assert_eq!(founders, BTreeSet::from([1, 2, 3, 4, 5, 7]));
    let shards: BTreeSet<usize> = drawn.iter().map(|options| options.cuts.len() + 1).collect();
    assert_eq!(shards, (1..=6).collect());
    let kinds: BTreeSet<Fault> = drawn.iter().flat_map(Options::kinds).collect();
    assert_eq!(kinds, BTreeSet::from(Fault::ALL));
    assert!(drawn.iter().any(|options| options.slow_disk.is_some()));
    assert!(drawn.iter().any(|options| !options.stumbles));
    assert!(drawn.iter().any(|options| !options.link.is_ordered));
    let noisy = drawn.iter().filter(|options| options.link.loss_per_mille > 0).count();
    assert!((50..100).contains(&noisy), "{noisy} of 300 networks lose messages of their own");
    assert!(drawn.iter().any(|options| options.link.duplicate_per_mille > 0));
}

#[test]
fn every_seed_has_faults_of_several_kinds() {
    for seed in 0..300 {
        let options = Options::draw(seed);
        assert!(options.kinds().len() >= 2, "seed {seed}: {:?}", options.kinds());
        assert!(options.strikes.len() >= 5, "seed {seed}: {} strikes", options.strikes.len());
    }
}
