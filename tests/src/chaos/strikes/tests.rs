use std::collections::BTreeSet;

use super::*;

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
