//! The tables over the map, when the map is sent anything.

use quorate_crdt::{
    Allocation, Limits, NodeLoad, Origin, Registry, RegistryConfig, ShardLoad, VersionVector,
};
use quorate_testkit::fuzz::Corpus;
use quorate_types::anti_entropy::State;
use quorate_types::{GroupId, KeyRange, NodeId, Seq, ShardEpoch, ShardId};

const BUDGET_BYTES: usize = 128 << 10;

fn registry(node: u64) -> Registry {
    let origin = Origin::new(NodeId(node), 1);
    let limits = Limits { entries_max: 64, ..Limits::default() };
    Registry::new(RegistryConfig { origin, high_water_millis: 0, limits })
}

fn allocation(shard: u64, range: KeyRange) -> Allocation {
    Allocation {
        shard: ShardId(shard),
        range,
        epoch: ShardEpoch(1),
        leader: Some(NodeId(2)),
        voters: Seq(vec![NodeId(1), NodeId(2)]),
        group: GroupId(shard + 10),
    }
}

/// A registry in the middle of a split, with reports of two leaders.
fn source() -> Registry {
    let mut registry = registry(2);
    registry.allocate(&allocation(1, KeyRange::all()), 1, 100).unwrap();
    registry.allocate(&allocation(2, KeyRange::new("", "m")), 2, 101).unwrap();
    registry.allocate(&allocation(3, KeyRange { start: "m".into(), end: None }), 2, 101).unwrap();
    registry.retire(ShardId(4), 3, 102).unwrap();
    let shard = ShardLoad { shard: ShardId(1), leader: true, term: 4, ..ShardLoad::default() };
    let load = NodeLoad { node: NodeId(2), shards: Seq(vec![shard]), ..NodeLoad::default() };
    registry.report_load(&load, 103).unwrap();
    registry
}

#[test]
fn tables_over_a_map_that_is_sent_anything_stay_sound() {
    let source = source();
    let nothing = registry(9).vector();
    let messages = [
        Registry::delta(&source, &nothing, BUDGET_BYTES).unwrap().unwrap(),
        source.reset(BUDGET_BYTES).unwrap(),
        source.vector(),
        VersionVector::new().encode(),
    ];
    quorate_testkit::fuzz!(Corpus::of(messages), |input| {
        let mut registry = registry(1);
        registry.allocate(&allocation(1, KeyRange::new("a", "z")), 1, 100).unwrap();
        let before = registry.root();
        let state: &mut dyn State = &mut registry;
        if state.merge(NodeId(2), input).is_err() {
            assert_eq!(state.root(), before);
        }
        state.acknowledge(NodeId(2), input);
        if let Some(delta) = state.delta(input, BUDGET_BYTES) {
            assert!(delta.len() <= BUDGET_BYTES);
        }
        state.members(&[NodeId(2)]);
        registry.collect(u64::MAX, 0);
        for key in [&b""[..], b"a", b"lz", b"m", b"zz", input] {
            let found = registry.allocations().locate(key);
            assert!(found.is_none_or(|found| found.range.contains(key)), "{found:?}");
        }
        assert_eq!(registry.allocations().iter().count(), registry.allocations().len());
        assert!(registry.leaders().len() <= registry.loads().count() * input.len());
        registry.tick(200);
    });
}
