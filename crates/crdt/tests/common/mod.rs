//! Replicas with tiny limits, and exchanges between them.

#![allow(dead_code)]

use quorate_crdt::{Delta, DeltaMap, Dot, Limits, Novelty, Origin, Put};
use quorate_types::{Blob, Hlc, NodeId};

pub(crate) const LIMITS: Limits =
    Limits { entries_max: 64, key_bytes_max: 8, value_bytes_max: 16, origins_max: 64 };

/// Enough for any delta or reset of a test.
pub(crate) const PLENTY_BYTES: usize = 64 << 10;

pub(crate) fn replica(node: u64) -> DeltaMap {
    DeltaMap::new(Origin::new(NodeId(node), 1), LIMITS)
}

pub(crate) fn at(millis: u64, node: u64) -> Hlc {
    Hlc { millis, counter: 0, node: NodeId(node) }
}

/// Writes and expects to be taken.
pub(crate) fn put(map: &mut DeltaMap, key: &str, value: &str, millis: u64) -> Dot {
    let hlc = at(millis, map.origin().node.0);
    written(map.put(key.into(), value.into(), 0, hlc).unwrap())
}

/// Removes and expects to be taken.
pub(crate) fn remove(map: &mut DeltaMap, key: &str, millis: u64) -> Dot {
    let hlc = at(millis, map.origin().node.0);
    written(map.remove(key.into(), 0, hlc).unwrap())
}

pub(crate) fn written(put: Put) -> Dot {
    match put {
        Put::Written(dot) => dot,
        Put::Stale { current } => panic!("refused, {current:?} is known"),
    }
}

pub(crate) fn live(map: &DeltaMap) -> Vec<(Blob, Blob)> {
    map.scan_from(Blob::new()).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The delta from `source` to `target`, over the wire.
pub(crate) fn delta(source: &DeltaMap, target: &DeltaMap) -> Option<Delta> {
    let delta = source.delta(target.vector(), PLENTY_BYTES).unwrap()?;
    Some(Delta::decode(&delta.encode()).unwrap())
}

/// `target` asks `source` until there is no more to hear. Returns the number of
/// answers.
pub(crate) fn pull(target: &mut DeltaMap, source: &DeltaMap, bytes_max: usize) -> usize {
    for answers in 0..10_000 {
        let Some(novelty) = source.novelty(&target.summary(), bytes_max).unwrap() else {
            return answers;
        };
        let bytes = novelty.encode();
        assert!(bytes.len() <= bytes_max, "{} bytes in a budget of {bytes_max}", bytes.len());
        if !target.merge_novelty(&Novelty::decode(&bytes).unwrap()).unwrap().more {
            return answers + 1;
        }
    }
    panic!("the exchange does not end");
}

/// Everybody asks everybody once.
pub(crate) fn exchange(replicas: &mut [DeltaMap]) {
    for target in 0..replicas.len() {
        for source in 0..replicas.len() {
            if target != source {
                let source = replicas[source].clone();
                pull(&mut replicas[target], &source, PLENTY_BYTES);
            }
        }
    }
}

/// Everybody asks everybody until all are equal.
pub(crate) fn settle(replicas: &mut [DeltaMap]) {
    for _ in 0..20 {
        exchange(replicas);
        if replicas.iter().all(|replica| replica.root() == replicas[0].root()) {
            return;
        }
    }
    let states: Vec<_> = replicas.iter().map(|map| (map.summary(), live(map))).collect();
    panic!("replicas do not converge: {states:#?}");
}

/// Everybody hears what everybody has seen.
pub(crate) fn acknowledge_all(replicas: &mut [DeltaMap]) {
    let seen: Vec<_> =
        replicas.iter().map(|map| (map.origin().node, map.summary().acknowledgement())).collect();
    for replica in replicas {
        for (node, vector) in &seen {
            replica.acknowledge(*node, vector.clone());
        }
    }
}

pub(crate) fn make_members(replicas: &mut [DeltaMap]) {
    let nodes: Vec<NodeId> = replicas.iter().map(|map| map.origin().node).collect();
    for replica in replicas {
        replica.retain_members(nodes.iter().copied());
    }
}
