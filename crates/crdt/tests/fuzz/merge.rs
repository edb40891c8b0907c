//! A replica that is sent anything keeps its limits, changes nothing when it
//! refuses, and goes on working.

use bytes::Bytes;
use quorate_crdt::{DeltaMap, Limits, Novelty, Origin, Put, Summary, VersionVector};
use quorate_testkit::fuzz::Corpus;
use quorate_types::{Blob, NodeId};

use crate::common::at;

/// So tight that a message or two reach them.
const TIGHT: Limits =
    Limits { entries_max: 4, key_bytes_max: 4, value_bytes_max: 6, origins_max: 2 };

/// What two writers may reach together.
const HEADROOM: usize = 2;

const BUDGET_BYTES: usize = 2_000;

fn replica(node: u64) -> DeltaMap {
    DeltaMap::new(Origin::new(NodeId(node), 1), TIGHT)
}

fn written(node: u64, keys: &[&str]) -> DeltaMap {
    let mut map = replica(node);
    for (at_millis, key) in (1..).zip(keys) {
        map.put((*key).into(), "value".into(), node % 2, at(at_millis, node)).unwrap();
    }
    map
}

/// A replica that knows of two other writers and of a removal that is gone.
fn target() -> DeltaMap {
    let mut map = written(1, &["a", "b"]);
    let delta = written(2, &["b", "c"]).delta(&VersionVector::new(), BUDGET_BYTES);
    map.merge(&delta.unwrap().unwrap()).unwrap();
    map.remove("d".into(), 0, at(9, 1)).unwrap();
    map.retain_members([]);
    map.collect(u64::MAX, 0);
    map
}

fn messages() -> Vec<Bytes> {
    let nothing = VersionVector::new();
    let mut messages = Vec::new();
    for map in [written(3, &["a", "x", "y"]), written(4, &["k"]), written(5, &["a", "z"])] {
        messages.push(map.delta(&nothing, BUDGET_BYTES).unwrap().unwrap().encode());
        messages.push(map.reset_chunk(&Blob::new(), BUDGET_BYTES).unwrap().encode());
    }
    let several = target();
    messages.push(several.reset_chunk(&Blob::new(), BUDGET_BYTES).unwrap().encode());
    messages.push(several.reset_chunk(&Blob::from("b"), BUDGET_BYTES).unwrap().encode());
    messages
}

fn assert_limits(map: &DeltaMap) {
    assert!(map.len() <= HEADROOM * TIGHT.entries_max, "{} entries", map.len());
    assert!(map.vector().len() <= HEADROOM * TIGHT.origins_max, "{:?}", map.vector());
    assert!(map.tombstones() <= map.len());
    for (key, value) in map.scan_from(Blob::new()) {
        assert!(!key.is_empty() && key.len() <= TIGHT.key_bytes_max);
        assert!(value.len() <= TIGHT.value_bytes_max);
    }
}

/// Writes, and tells a newcomer everything.
fn assert_works(map: &mut DeltaMap) {
    if map.vector().get(map.origin()) < u64::MAX && map.len() < TIGHT.entries_max {
        let newest = map.newest_stamp(&Blob::from("new"));
        let put = map.put("new".into(), "value".into(), u64::MAX, at(u64::MAX, 1)).unwrap();
        assert!(matches!(put, Put::Written(_)) || newest.is_some());
    }
    let mut newcomer = replica(99);
    for _ in 0..20 {
        let novelty = map.novelty(&newcomer.summary(), BUDGET_BYTES).unwrap();
        let Some(bytes) = novelty.map(|novelty| novelty.encode()) else { break };
        assert!(bytes.len() <= BUDGET_BYTES, "{} bytes", bytes.len());
        newcomer.merge_novelty(&Novelty::decode(&bytes).unwrap()).unwrap();
    }
}

#[test]
fn a_replica_that_is_sent_anything_stays_sound() {
    let first = target();
    // One map takes many messages, until it is full of what they brought.
    let mut tired = target();
    let mut meals = 0;
    quorate_testkit::fuzz!(Corpus::of(messages()), |input| {
        let kinds = [3, 4].map(|kind| [&[1, kind], input.get(2..).unwrap_or(input)].concat());
        for message in kinds.iter().map(Vec::as_slice).chain([input]) {
            let Ok(novelty) = Novelty::decode(message) else { continue };
            meals += 1;
            if meals % 50 == 0 {
                tired = target();
            }
            let mut fresh = first.clone();
            feed(&mut fresh, &novelty);
            feed(&mut tired, &novelty);
            fresh.collect(u64::MAX, 0);
            assert_limits(&fresh);
            assert_works(&mut fresh);
            assert_limits(&tired);
        }
        if let Ok(summary) = Summary::decode(input, &TIGHT) {
            tired.acknowledge(NodeId(2), summary.acknowledgement());
            let _ = tired.novelty(&summary, BUDGET_BYTES);
        }
    });
}

fn feed(map: &mut DeltaMap, novelty: &Novelty) {
    let before = (map.root(), map.summary(), map.len());
    if map.merge_novelty(novelty).is_err() {
        assert_eq!((map.root(), map.summary(), map.len()), before, "a refusal changes nothing");
        return;
    }
    let after = (map.root(), map.len(), map.vector().clone());
    // Once more, unless a reset has only begun or ended by it.
    if let Novelty::Delta(_) = novelty {
        let again = map.merge_novelty(novelty).unwrap();
        assert!(again.changed.is_empty(), "{again:?}");
        assert_eq!((map.root(), map.len(), map.vector().clone()), after, "twice is once");
    }
}
