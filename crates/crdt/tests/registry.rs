//! The tables, their fences, and the registry's clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_crdt::{
    Allocation, AllocationTable, CrdtError, DeltaMap, Keyspace, Limits, NodeLoad, Origin, Put,
    Registry, RegistryConfig, ShardLoad,
};
use quorate_types::anti_entropy::{State, StateError};
use quorate_types::hlc::{AHEAD_MILLIS_MAX, HIGH_WATER_WINDOW_MILLIS};
use quorate_types::{Blob, GroupId, Hlc, KeyRange, NodeId, ShardEpoch, ShardId};

const BUDGET_BYTES: usize = 64 << 10;

fn registry(node: u64, incarnation: u64, high_water_millis: u64) -> Registry {
    let origin = Origin::new(NodeId(node), incarnation);
    Registry::new(RegistryConfig { origin, high_water_millis, limits: Limits::default() })
}

fn allocation(shard: u64, range: KeyRange, leader: u64) -> Allocation {
    Allocation {
        shard: ShardId(shard),
        range,
        epoch: ShardEpoch(1),
        leader: Some(NodeId(leader)),
        voters: vec![NodeId(leader), NodeId(leader + 1)].into(),
        group: GroupId(shard),
    }
}

fn pull(target: &mut Registry, source: &Registry) {
    while let Some(answer) = source.delta(&target.vector(), BUDGET_BYTES).unwrap() {
        if !target.merge(&answer).unwrap().more {
            return;
        }
    }
}

#[test]
fn merge_after_merge_remote_keeps_later_allocate() {
    let (mut ahead, mut behind) = (registry(1, 1, 0), registry(2, 1, 0));
    ahead.allocate(&allocation(1, KeyRange::all(), 1), 5, 1_000 + AHEAD_MILLIS_MAX - 1).unwrap();
    pull(&mut behind, &ahead);
    // The local clock is as far behind as may be; the write comes later.
    let later = allocation(1, KeyRange::all(), 2);
    behind.allocate(&later, 5, 1_000).unwrap();
    assert_eq!(behind.allocations().get(ShardId(1)), Some(&later));
    pull(&mut ahead, &behind);
    assert_eq!(ahead.allocations().get(ShardId(1)), Some(&later));
}

#[test]
fn a_timestamp_of_the_far_future_is_merged_but_not_followed() {
    let (mut ahead, mut behind) = (registry(1, 1, 0), registry(2, 1, 0));
    ahead.allocate(&allocation(1, KeyRange::all(), 1), 5, 90_000).unwrap();
    pull(&mut behind, &ahead);
    assert_eq!(ahead.root(), behind.root(), "a merge asks no clock");
    let later = allocation(1, KeyRange::all(), 2);
    let refused = behind.allocate(&later, 5, 1_000);
    assert!(matches!(refused, Err(CrdtError::StaleAllocation { current_fence: 5, .. })));
    assert!(behind.tick(1_000).millis <= 1_000 + AHEAD_MILLIS_MAX);
    // Authority counts before time, and time comes.
    behind.allocate(&later, 6, 1_001).unwrap();
    behind.allocate(&allocation(1, KeyRange::all(), 3), 6, 1_002).unwrap();
    ahead.retire(ShardId(1), 7, 90_001).unwrap();
    pull(&mut behind, &ahead);
    behind.allocate(&later, 7, 90_001).unwrap();
}

#[test]
fn stale_fence_is_refused_and_said() {
    let mut registry = registry(1, 1, 0);
    let current = allocation(1, KeyRange::all(), 1);
    registry.allocate(&current, 9, 1_000).unwrap();
    let refused = registry.allocate(&allocation(1, KeyRange::all(), 2), 8, 99_000).unwrap_err();
    assert!(matches!(
        refused,
        CrdtError::StaleAllocation { shard: ShardId(1), fence: 8, current_fence: 9 }
    ));
    assert_eq!(registry.allocations().get(ShardId(1)), Some(&current));
    assert_eq!(registry.allocations().fence(ShardId(1)), Some(9));
}

#[test]
fn a_stale_fence_loses_wherever_it_is_written() {
    let (mut a, mut b) = (registry(1, 1, 0), registry(2, 1, 0));
    let newer = allocation(1, KeyRange::all(), 1);
    a.allocate(&newer, 9, 1_000).unwrap();
    b.allocate(&allocation(1, KeyRange::all(), 2), 8, 99_000).unwrap();
    pull(&mut a, &b);
    pull(&mut b, &a);
    assert_eq!(a.allocations().get(ShardId(1)), Some(&newer));
    assert_eq!(b.allocations().get(ShardId(1)), Some(&newer));
    assert_eq!(a.root(), b.root());
}

#[test]
fn a_retired_shard_stays_retired() {
    let mut registry = registry(1, 1, 0);
    registry.allocate(&allocation(1, KeyRange::all(), 1), 3, 1_000).unwrap();
    registry.retire(ShardId(1), 4, 1_001).unwrap();
    assert!(registry.allocations().is_empty() && registry.allocations().locate(b"k").is_none());
    let refused = registry.allocate(&allocation(1, KeyRange::all(), 1), 3, 2_000);
    assert!(matches!(refused, Err(CrdtError::StaleAllocation { current_fence: 4, .. })));
}

#[test]
fn a_restart_with_a_clock_set_back_still_writes() {
    let (mut first_life, mut peer) = (registry(1, 1, 0), registry(2, 1, 0));
    first_life.report_load(&NodeLoad { node: NodeId(1), ..NodeLoad::default() }, 50_000).unwrap();
    pull(&mut peer, &first_life);
    let mut second_life = registry(1, 2, first_life.high_water_millis());
    let load = NodeLoad { node: NodeId(1), used_bytes: 7, ..NodeLoad::default() };
    second_life.report_load(&load, 10).unwrap();
    pull(&mut peer, &second_life);
    assert_eq!(peer.load(NodeId(1)).unwrap(), Some(load));
}

#[test]
fn both_tables_travel_in_one_state() {
    let (mut a, mut b) = (registry(1, 1, 0), registry(2, 1, 0));
    let shard = ShardLoad { shard: ShardId(1), leader: true, rows: 3, ..ShardLoad::default() };
    let load = NodeLoad { node: NodeId(1), shards: vec![shard].into(), ..NodeLoad::default() };
    a.report_load(&load, 1_000).unwrap();
    a.allocate(&allocation(1, KeyRange::all(), 1), 1, 1_000).unwrap();
    pull(&mut b, &a);
    assert_eq!(b.load(NodeId(1)).unwrap(), Some(load.clone()));
    assert_eq!(b.allocations().len(), 1);
    let reports: Vec<NodeLoad> = b.loads().map(|(_, load)| load.unwrap()).collect();
    assert_eq!(reports, [load]);
    b.remove_load(NodeId(1), 2_000).unwrap();
    assert_eq!(b.load(NodeId(1)).unwrap(), None);
}

#[test]
fn of_two_that_report_to_lead_a_shard_the_later_term_is_right() {
    let (mut a, mut b) = (registry(1, 1, 0), registry(2, 1, 0));
    let says = |node: u64, term: u64| {
        let old = ShardLoad { shard: ShardId(7), leader: true, term, ..ShardLoad::default() };
        let follows = ShardLoad { shard: ShardId(8), term: 99, ..ShardLoad::default() };
        NodeLoad { node: NodeId(node), shards: vec![old, follows].into(), ..NodeLoad::default() }
    };
    a.report_load(&says(1, 5), 1_000).unwrap();
    b.report_load(&says(2, 4), 2_000).unwrap();
    pull(&mut b, &a);
    assert_eq!(b.leaders(), [(ShardId(7), NodeId(1))].into());
}

#[test]
fn nobody_reports_for_others() {
    let mut registry = registry(1, 1, 0);
    let foreign = NodeLoad { node: NodeId(2), ..NodeLoad::default() };
    let refused = registry.report_load(&foreign, 1_000);
    assert!(matches!(refused, Err(CrdtError::ForeignLoad { .. })));
}

#[test]
fn what_cannot_be_read_is_said() {
    let keyspace = Keyspace(b'a');
    let mut map = DeltaMap::new(Origin::new(NodeId(1), 1), Limits::default());
    let mut key = vec![b'a'];
    key.extend_from_slice(&7_u64.to_be_bytes());
    let hlc = Hlc { millis: 1, counter: 0, node: NodeId(1) };
    let put = map.put(Blob::from(key.clone()), "from the future".into(), 0, hlc).unwrap();
    assert!(matches!(put, Put::Written(_)));
    let table = AllocationTable::new(keyspace, &map);
    assert!(table.is_empty());
    assert_eq!(table.unreadable().collect::<Vec<_>>(), [&Blob::from(key)]);
}

#[test]
fn collection_runs_from_roots_and_vectors() {
    let (mut a, mut b) = (registry(1, 1, 0), registry(2, 1, 0));
    a.retain_members([NodeId(1), NodeId(2)]);
    a.allocate(&allocation(1, KeyRange::all(), 1), 1, 1_000).unwrap();
    a.retire(ShardId(1), 2, 1_000).unwrap();
    pull(&mut b, &a);
    assert_eq!(a.collect(9_000, 1_000).tombstones, 0);
    a.acknowledge(NodeId(2), &b.vector()).unwrap();
    assert_eq!(a.collect(9_000, 1_000).tombstones, 1);
    assert!(a.acknowledge_root(NodeId(2), b.root()));
}

#[test]
fn a_forced_reset_repairs_as_well() {
    let (mut a, mut b) = (registry(1, 1, 0), registry(2, 1, 0));
    a.allocate(&allocation(1, KeyRange::all(), 1), 1, 1_000).unwrap();
    b.merge(&a.reset(a.budget_bytes_needed()).unwrap()).unwrap();
    assert_eq!(a.root(), b.root());
    assert_eq!(b.allocations().len(), 1);
}

fn range() -> impl Strategy<Value = KeyRange> {
    (0..12_u8, proptest::option::of(0..12_u8)).prop_map(|(start, end)| KeyRange {
        start: if start == 0 { Blob::new() } else { vec![start].into() },
        end: end.map(|end| vec![end].into()),
    })
}

proptest! {
    /// The drawn index finds what a look at every range finds.
    #[test]
    fn locate_finds_the_highest_fence(
        writes in vec((0..5_u64, range(), any::<bool>()), 1..20),
        key in 0..13_u8,
    ) {
        let mut registry = registry(1, 1, 0);
        for (fence, (shard, range, retires)) in writes.iter().enumerate() {
            let fence = fence as u64 / 2;
            if *retires {
                registry.retire(ShardId(*shard), fence, 1_000).unwrap();
            } else {
                registry.allocate(&allocation(*shard, range.clone(), 1), fence, 1_000).unwrap();
            }
            let table = registry.allocations();
            let highest = table
                .iter()
                .filter(|allocation| allocation.range.contains(&[key]))
                .filter_map(|allocation| table.fence(allocation.shard))
                .max();
            let located = table.locate(&[key]).map(|allocation| {
                assert!(allocation.range.contains(&[key]));
                table.fence(allocation.shard).unwrap()
            });
            prop_assert_eq!(located, highest);
        }
    }
}

#[test]
fn publishing_changes_what_differs_and_nothing_that_a_later_fence_decided() {
    let mut table = registry(1, 1, 0);
    let (below, above) = KeyRange::all().split_at(&Blob::from("m")).unwrap();
    let two = [allocation(1, below, 1), allocation(2, above, 2)];
    assert!(table.publish(two.clone(), 5, 1_000));
    assert!(!table.publish(two.clone(), 6, 1_001), "nothing differs");
    let deposed = allocation(1, KeyRange::all(), 3);
    assert!(!table.publish([deposed], 4, 1_002));
    assert_eq!(table.allocations().get(ShardId(1)), Some(&two[0]));
}

#[test]
fn a_refresh_reports_this_node_and_no_other() {
    let mut table = registry(1, 1, 0);
    let load = NodeLoad { node: NodeId(1), used_bytes: 7, ..NodeLoad::default() };
    assert!(table.refresh(&load, 1_000, 0));
    assert_eq!(table.load(NodeId(1)).unwrap().unwrap().used_bytes, 7);
    let foreign = NodeLoad { node: NodeId(2), ..load };
    assert!(!table.refresh(&foreign, 1_001, 0));
    assert_eq!(table.load(NodeId(2)).unwrap(), None);
    assert_eq!(table.readable_loads().len(), 1);
}

#[test]
fn a_measured_load_is_the_sum_of_its_replicas_at_their_rates() {
    let shard = |shard, bytes| ShardLoad { shard: ShardId(shard), bytes, ..ShardLoad::default() };
    let rates = [(ShardId(1), 30), (ShardId(9), 50)].into();
    let load = NodeLoad::measured(NodeId(1), vec![shard(1, 5), shard(2, 6)], &rates, Some(20));
    assert_eq!((load.node, load.used_bytes, load.capacity_bytes), (NodeId(1), 11, 31));
    let rates: Vec<u64> = load.shards.iter().map(|shard| shard.operations_per_second).collect();
    assert_eq!(rates, [30, 0], "a rate that nobody measured is none");
    let huge = NodeLoad::measured(NodeId(1), vec![shard(1, u64::MAX); 2], &[].into(), None);
    assert_eq!((huge.used_bytes, huge.capacity_bytes), (u64::MAX, 0));
}

/// Writes an allocation whose mark `keep` is to persist, and says when it was
/// stamped.
fn write<E>(
    shared: &Mutex<Registry>,
    now_millis: u64,
    keep: impl Fn(u64) -> Result<(), E>,
) -> Result<u64, E> {
    Registry::write(shared, now_millis, keep, |table, now_millis| {
        assert!(table.publish([allocation(1, KeyRange::all(), now_millis)], 5, now_millis));
        let (key, _) = table.map().scan(Keyspace(b'a')).next().unwrap();
        table.map().entry(key).unwrap().stamp.hlc.millis
    })
}

#[test]
fn a_timestamp_lies_below_a_mark_that_was_kept_before() {
    let shared = Mutex::new(registry(1, 1, 0));
    let kept = Cell::new(0);
    let keep = |mark_millis| {
        kept.set(mark_millis);
        Ok::<(), ()>(())
    };
    for now_millis in [1_000, 1_001, 20_000, 3_000] {
        let stamped_millis = write(&shared, now_millis, keep).unwrap();
        assert!(stamped_millis < kept.get(), "{stamped_millis} under {}", kept.get());
        assert!(shared.lock().high_water_millis() <= kept.get());
    }
}

#[test]
fn what_a_merge_brings_meanwhile_is_below_the_mark_too() {
    let mut ahead = registry(2, 1, 0);
    ahead.allocate(&allocation(7, KeyRange::all(), 2), 5, 1_000 + AHEAD_MILLIS_MAX - 1).unwrap();
    let shared = Mutex::new(registry(1, 1, 0));
    let kept = RefCell::new(Vec::new());
    let keep = |mark_millis| {
        if kept.borrow().is_empty() {
            pull(&mut shared.lock(), &ahead);
        }
        kept.borrow_mut().push(mark_millis);
        Ok::<(), ()>(())
    };
    let drawn = Registry::write(&shared, 1_000, keep, |table, now| table.tick(now).millis);
    let kept = kept.into_inner();
    assert!(kept[0] <= drawn.unwrap(), "the merge did not move the clock");
    assert!(drawn.unwrap() < kept[1]);
}

#[test]
fn nothing_is_written_under_a_mark_that_is_not_kept() {
    let shared = Mutex::new(registry(1, 1, 0));
    let before = shared.lock().root();
    assert_eq!(write(&shared, 1_000, |_| Err("no space")), Err("no space"));
    assert_eq!(shared.lock().root(), before);
    assert!(shared.lock().allocations().is_empty());
    // Tried again, the same mark is asked for again.
    let asked = Cell::new(0);
    let keep = |mark_millis| {
        asked.set(mark_millis);
        Ok::<(), ()>(())
    };
    assert!(write(&shared, 1_001, keep).unwrap() < asked.get());
}

#[test]
fn many_writes_within_a_window_need_one_mark() {
    let shared = Mutex::new(registry(1, 1, 0));
    let marks = RefCell::new(BTreeSet::new());
    let keep = |mark_millis| {
        marks.borrow_mut().insert(mark_millis);
        Ok::<(), ()>(())
    };
    for now_millis in 1_000..1_000 + HIGH_WATER_WINDOW_MILLIS - 1 {
        write(&shared, now_millis, keep).unwrap();
    }
    assert_eq!(marks.borrow().len(), 1);
}

#[test]
fn anti_entropy_survives_what_is_no_vector_and_no_delta() {
    let mut table = registry(1, 1, 0);
    table.publish([allocation(1, KeyRange::all(), 1)], 5, 1_000);
    let mut other: Box<dyn State> = Box::new(registry(2, 1, 0));
    let answer = State::delta(&table, &other.vector(), BUDGET_BYTES).unwrap();
    assert_eq!(other.merge(NodeId(1), &answer), Ok(true));
    assert_eq!(other.merge(NodeId(1), &answer), Ok(false), "heard before");
    assert_eq!(other.root(), State::root(&table));
    assert_eq!(State::delta(&table, b"junk", BUDGET_BYTES), None);
    let refused = other.merge(NodeId(1), b"junk");
    assert!(matches!(refused, Err(StateError::Refused(_))), "{refused:?}");
    other.acknowledge(NodeId(1), b"junk");
}

#[test]
fn a_merge_that_brings_a_removal_only_says_that_it_changed_the_state() {
    let (mut one, mut other) = (registry(1, 1, 0), registry(2, 1, 0));
    one.allocate(&allocation(1, KeyRange::all(), 1), 5, 1_000).unwrap();
    one.retire(ShardId(1), 6, 1_001).unwrap();
    let delta = State::delta(&one, &other.vector(), BUDGET_BYTES).unwrap();
    assert_eq!(State::merge(&mut other, NodeId(1), &delta), Ok(true));
    assert_eq!(other.root(), one.root());
    assert_eq!(State::merge(&mut other, NodeId(1), &delta), Ok(false));
}
