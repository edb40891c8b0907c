use super::*;

fn from(start: &str) -> KeyRange {
    KeyRange { start: start.into(), end: None }
}

#[test]
fn a_partition_holds_every_key_once() {
    assert!(KeyRange::partition([&KeyRange::all()]));
    assert!(KeyRange::partition([&KeyRange::new("", "m"), &from("m")]));
    let gap = [&KeyRange::new("", "m"), &from("n")];
    assert!(!KeyRange::partition(gap));
    let overlap = [&KeyRange::new("", "m"), &from("l")];
    assert!(!KeyRange::partition(overlap));
    assert!(!KeyRange::partition([&KeyRange::new("", "m")]), "no end");
    assert!(!KeyRange::partition([&from("a")]), "no beginning");
    assert!(!KeyRange::partition([&KeyRange::all(), &KeyRange::all()]));
    assert!(!KeyRange::partition([]));
}
