use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::NodeId;
use quorate_types::anti_entropy::{State, StateError};
use quorate_types::conformance::state_suite;

const ROW_BYTES: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    NeverNone,
    ArrivalCounts,
    HalfMerged,
    PanicsOnGarbage,
    SaysNothing,
    IgnoresBudget,
    MembersCount,
    RootIsConstant,
    SkipsGaps,
}

fn suite(flaw: Flaw) {
    state_suite(|node| Logs { flaw, own: node, logs: BTreeMap::new(), noise: 0 }, Logs::write);
}

#[test]
fn the_flawless_state_conforms() {
    suite(Flaw::None);
}

macro_rules! refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[test]
        #[should_panic(expected = $sentence)]
        fn $test() {
            suite(Flaw::$flaw);
        }
    )+};
}

refused! {
    a_delta_without_end_is_refused, NeverNone, "`State::delta` is `None`";
    order_of_arrival_is_refused, ArrivalCounts, "in any order, any number of times";
    a_delta_merged_by_half_is_refused, HalfMerged, "after a `StateError` the state is as before";
    a_panic_for_garbage_is_refused, PanicsOnGarbage, "out of range";
    a_merge_that_hides_its_change_is_refused, SaysNothing, "`State::merge` says whether";
    a_budget_that_is_ignored_is_refused, IgnoresBudget, "about `budget_bytes` of it";
    members_that_count_are_refused, MembersCount, "`State::members` must not influence content";
    a_root_that_says_nothing_is_refused, RootIsConstant, "`State::root` is a fingerprint";
    a_delta_with_gaps_is_refused, SkipsGaps, "`State::delta`: gap-free";
}

/// Every node appends to a log of its own; replicas hold prefixes of all.
struct Logs {
    flaw: Flaw,
    own: NodeId,
    logs: BTreeMap<u64, Vec<u64>>,
    noise: u128,
}

impl Logs {
    fn write(&mut self, number: u64) {
        self.logs.entry(self.own.0).or_default().push(number);
    }

    fn merge_row(&mut self, mut row: &[u8]) -> Result<bool, StateError> {
        let (log, place, number) = (row.get_u64(), row.get_u64(), row.get_u64());
        let values = self.logs.entry(log).or_default();
        match usize::try_from(place).unwrap().cmp(&values.len()) {
            std::cmp::Ordering::Less => Ok(false),
            std::cmp::Ordering::Equal => {
                values.push(number);
                Ok(true)
            }
            std::cmp::Ordering::Greater if self.flaw == Flaw::SkipsGaps => {
                values.push(number);
                Ok(true)
            }
            std::cmp::Ordering::Greater => Err(StateError::Refused("a gap".to_owned())),
        }
    }
}

impl State for Logs {
    fn root(&self) -> u128 {
        if self.flaw == Flaw::RootIsConstant {
            return 7;
        }
        let mut sum = self.noise;
        for (log, values) in &self.logs {
            for (place, number) in values.iter().enumerate() {
                let cell = u128::from(*log) << 80 | (place as u128) << 64 | u128::from(*number);
                sum ^= (cell + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
            }
        }
        sum
    }

    fn vector(&self) -> Bytes {
        let mut vector = BytesMut::new();
        for (log, values) in &self.logs {
            vector.put_u64(*log);
            vector.put_u64(values.len() as u64);
        }
        vector.freeze()
    }

    fn delta(&self, since: &[u8], budget_bytes: usize) -> Option<Bytes> {
        assert!(
            self.flaw != Flaw::PanicsOnGarbage || since.len().is_multiple_of(16),
            "out of range"
        );
        let entry = |mut entry: &[u8]| (entry.get_u64(), entry.get_u64());
        let known: BTreeMap<u64, u64> = since.chunks_exact(16).map(entry).collect();
        let mut rows = Vec::new();
        for (log, values) in &self.logs {
            let from = known.get(log).map_or(0, |count| usize::try_from(*count).unwrap());
            for (place, number) in values.iter().enumerate().skip(from) {
                let mut row = BytesMut::zeroed(ROW_BYTES);
                (&mut row[..8]).put_u64(*log);
                (&mut row[8..16]).put_u64(place as u64);
                (&mut row[16..24]).put_u64(*number);
                rows.push(row);
            }
        }
        match self.flaw {
            Flaw::IgnoresBudget => {}
            // Whatever fits, from the end.
            Flaw::SkipsGaps => {
                drop(rows.drain(..rows.len().saturating_sub(budget_bytes / ROW_BYTES)))
            }
            _ => rows.truncate((budget_bytes / ROW_BYTES).max(1)),
        }
        let is_some = !rows.is_empty() || self.flaw == Flaw::NeverNone;
        is_some.then(|| rows.into_iter().flatten().collect())
    }

    fn merge(&mut self, _from: NodeId, delta: &[u8]) -> Result<bool, StateError> {
        let before = self.logs.clone();
        let mut changed = false;
        for row in delta.chunks(ROW_BYTES) {
            let merged = match row.len() {
                ROW_BYTES => self.merge_row(row),
                _ => Err(StateError::Malformed("an odd length".to_owned())),
            };
            match merged {
                Ok(one) => changed |= one,
                Err(error) => {
                    if self.flaw != Flaw::HalfMerged {
                        self.logs = before;
                    }
                    return Err(error);
                }
            }
        }
        if self.flaw == Flaw::ArrivalCounts && changed && self.logs.len() > 2 {
            self.noise = (self.noise * 31 + u128::from(delta[7])) % 1_000_003;
        }
        Ok(changed && self.flaw != Flaw::SaysNothing)
    }

    fn acknowledge(&mut self, _from: NodeId, _vector: &[u8]) {}

    fn members(&mut self, others: &[NodeId]) {
        if self.flaw == Flaw::MembersCount {
            self.noise = 1 + others.len() as u128;
        }
    }
}
