use quorate::types::{Blob, Hlc, NodeId};
use quorate_crdt::{Dot, Entry, Origin, Stamp, VersionVector};

use super::Memory;

const ORIGIN: Origin = Origin::new(NodeId(1), 1);

fn key() -> Blob {
    Blob::from("ak")
}

fn entry(millis: u64, sequence: u64, value: Option<&str>) -> Entry {
    let hlc = Hlc { millis, counter: 0, node: NodeId(1) };
    Entry {
        stamp: Stamp::new(1, hlc),
        value: value.map(Blob::from),
        dot: Dot::new(ORIGIN, sequence),
    }
}

fn written(entries: &[Entry]) -> Memory {
    let mut memory = Memory::default();
    for entry in entries {
        memory.wrote(&key(), entry.clone(), false);
    }
    memory
}

/// The rule that is broken if the key has this value.
fn broken(memory: &Memory, found: Option<&str>) -> Option<&'static str> {
    memory.judge(&key(), found.map(Blob::from).as_ref()).err().map(|(rule, _)| rule)
}

fn seen(sequence: u64) -> VersionVector {
    [(ORIGIN, sequence)].into_iter().collect()
}

#[test]
fn the_last_write_is_there() {
    let memory = written(&[entry(1, 1, Some("a")), entry(2, 2, Some("b"))]);
    assert_eq!(broken(&memory, Some("b")), None);
    assert_eq!(broken(&memory, Some("a")), Some("what was acknowledged last is there"));
    assert_eq!(broken(&memory, None), Some("what was acknowledged last is there"));
}

#[test]
fn what_was_removed_is_not_there() {
    let memory = written(&[entry(1, 1, Some("a")), entry(2, 2, None)]);
    assert_eq!(broken(&memory, None), None);
    assert_eq!(broken(&memory, Some("a")), Some("what was removed stays removed"));
}

#[test]
fn of_a_tie_the_greater_value_is_there() {
    let memory = written(&[entry(1, 1, Some("b")), entry(1, 2, Some("a"))]);
    assert!(memory.is_tie(&key(), &entry(1, 2, Some("a"))));
    assert_eq!(broken(&memory, Some("b")), None);
    assert_eq!(broken(&memory, Some("a")), Some("what was acknowledged last is there"));
}

#[test]
fn what_nobody_had_seen_may_be_lost() {
    let mut memory = written(&[entry(1, 1, Some("a")), entry(2, 2, Some("b"))]);
    memory.lost(&[seen(1), seen(0)]);
    assert_eq!(broken(&memory, Some("a")), None);
    assert_eq!(broken(&memory, Some("b")), None);
    assert_eq!(broken(&memory, None), Some("what was acknowledged last is there"));
}

#[test]
fn what_some_had_seen_may_be_lost_below_a_removal_only() {
    let mut memory = written(&[entry(1, 1, Some("a"))]);
    memory.lost(&[seen(1), seen(0)]);
    assert_eq!(broken(&memory, None), Some("what was acknowledged last is there"));
    memory.wrote(&Blob::from("aother"), entry(2, 2, None), false);
    assert_eq!(broken(&memory, None), None);
}

#[test]
fn a_late_write_may_be_lost() {
    let mut memory = Memory::default();
    memory.wrote(&Blob::from("aother"), entry(2, 1, None), false);
    memory.wrote(&key(), entry(1, 2, Some("a")), false);
    assert_eq!(broken(&memory, None), None);
    assert_eq!(broken(&memory, Some("a")), None);
    assert_eq!(broken(&memory, Some("b")), Some("nobody makes values up"));
}

#[test]
fn what_a_stranger_wrote_may_be_lost_below_a_removal() {
    let mut memory = Memory::default();
    memory.wrote(&key(), entry(1, 1, Some("a")), true);
    assert_eq!(broken(&memory, None), Some("what was acknowledged last is there"));
    memory.wrote(&Blob::from("aother"), entry(2, 2, None), false);
    assert_eq!(broken(&memory, None), None);
}
