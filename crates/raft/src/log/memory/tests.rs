use std::collections::BTreeSet;

use quorate_types::env::{Rng, SplitMix};

use super::*;

fn location(sequence: u64, offset: u32) -> Location {
    Location { sequence, offset, len: 100 }
}

/// Rows with some entries each, which are left in any order: in that of a log as it
/// is purged, mostly, with rows between that other groups hold.
#[test]
fn a_row_is_dead_when_all_its_entries_were_left_and_not_before() {
    for seed in 0..200 {
        let mut random = SplitMix::new(seed);
        let mut rows = Rows::default();
        let mut entries = Vec::new();
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        let mut sequence = 0;
        for _ in 0..60 {
            sequence += 1 + random.next_u64() % 20;
            let count = 1 + random.next_u64() % 3;
            let mut needed = Live::default();
            for offset in 0..count {
                let entry = location(sequence, u32::try_from(offset).unwrap());
                needed.add(entry);
                entries.push(entry);
            }
            rows.enter(sequence, needed);
            model.insert(sequence, count);
        }
        let swaps = [0, 3, 60][usize::try_from(seed % 3).unwrap()];
        for _ in 0..swaps {
            let mut at = || usize::try_from(random.next_u64()).unwrap() % entries.len();
            let (one, other) = (at(), at());
            entries.swap(one, other);
        }
        let mut dead = BTreeSet::new();
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let most = usize::try_from(1 + random.next_u64() % 30).unwrap();
            let (leave, left) = rest.split_at(most.min(rest.len()));
            rest = left;
            for entry in leave {
                let count = model.get_mut(&entry.sequence).unwrap();
                *count -= 1;
                if *count == 0 {
                    dead.insert(entry.sequence);
                }
            }
            rows.operation += 1;
            rows.leave(leave.iter().copied());
            let noted: BTreeSet<u64> = rows.dead.iter().map(|(_, row)| *row).collect();
            assert_eq!(noted, dead, "seed {seed}");
            assert_eq!(rows.dead.len(), dead.len(), "seed {seed}: a row died twice");
            assert!(rows.dead.iter().is_sorted_by_key(|(operation, _)| *operation));
            for (row, count) in &model {
                let live = rows.live.get(row).map_or(0, |live| live.entries);
                assert_eq!(live, *count, "seed {seed}, row {row}");
            }
        }
        assert!(rows.live.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_row_that_nothing_is_known_of_is_left_alone() {
    let mut rows = Rows::default();
    let mut needed = Live::default();
    needed.add(location(5, 0));
    rows.enter(5, needed);
    rows.leave([location(3, 0), location(7, 0)]);
    assert_eq!((rows.live.len(), rows.dead.len()), (1, 0));
}
