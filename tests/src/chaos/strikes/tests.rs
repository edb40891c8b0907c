use std::collections::BTreeSet;

use super::*;

#[test]
fn a_seed_is_an_order_of_strikes_in_which_each_kind_comes_before_any_comes_again() {
    let drawn = |seed| {
        let mut bag = Bag::new(seed);
        let round = || (0..2 * Kind::ALL.len()).map(|_| bag.draw()).collect::<Vec<_>>();
        let mut round = round;
        round().into_iter().map(|(kind, mut chance)| (kind, chance.next_u64())).collect::<Vec<_>>()
    };
    let first = drawn(1);
    assert_eq!(first, drawn(1));
    assert_ne!(first, drawn(2));
    for round in first.chunks(Kind::ALL.len()) {
        let kinds: BTreeSet<Kind> = round.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
    }
}

#[test]
fn kinds_have_names_of_their_own() {
    let names: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), Kind::ALL.len());
}

#[test]
fn a_partition_leaves_somebody_on_either_side() {
    let mut chance = SplitMix::new(3);
    for nodes in [2, 3, 5] {
        let nodes: Vec<u64> = (1..=nodes).collect();
        for _ in 0..100 {
            let (some, others) = halves(&mut chance, &nodes);
            assert!(!some.is_empty() && !others.is_empty());
            let mut all = [some.clone(), others.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, nodes);
            assert_eq!(pairs(&some, &others).len(), some.len() * others.len());
        }
    }
}
