//! The view of rows as they will be once a write set is committed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_calvin::shard::rows::DataRow;
use quorate_calvin::{View, WriteSet};
use quorate_types::{Blob, KeyRange};

use crate::support::store::{MemStore, Rows};

#[derive(Clone, Debug)]
enum Change {
    Write(u8, Option<u8>),
    Clear(u8, Option<u8>),
}

fn key(number: u8) -> Blob {
    Blob::from(&[number])
}

fn range(from: u8, to: Option<u8>) -> KeyRange {
    KeyRange { start: key(from), end: to.map(key) }
}

fn visited(view: &View<'_>, range: &KeyRange) -> Vec<(Blob, Blob)> {
    let mut rows = Vec::new();
    view.visit_data(range, |key, value| rows.push((key, value))).unwrap();
    rows
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..20_u8, any::<Option<u8>>()).prop_map(|(at, to)| Change::Write(at, to)),
        1 => (0..20_u8, prop::option::of(0..20_u8)).prop_map(|(a, b)| Change::Clear(a, b)),
    ]
}

proptest! {
    #[test]
    fn a_view_shows_what_the_commit_will_leave(
        stored in prop::collection::btree_map(0..20_u8, any::<u8>(), 0..15),
        changes in prop::collection::vec(change(), 0..25),
        (from, to) in (0..20_u8, prop::option::of(0..20_u8)),
    ) {
        let data: BTreeMap<Blob, Blob> =
            stored.into_iter().map(|(at, value)| (key(at), key(value))).collect();
        let store = MemStore::new(Rows { data, ..Rows::default() }, 0, 0);
        let mut writes = WriteSet::default();
        for change in changes {
            match change {
                Change::Write(at, value) => writes.write_data(key(at), value.map(key)),
                Change::Clear(from, to) => writes.clear_data(range(from, to)),
            }
        }
        let view = View::new(&store, &writes);
        let shown = visited(&view, &range(from, to));
        let singly: Vec<_> = (0..20).map(|at| view.data(&key(at)).unwrap()).collect();
        store.commit_at(1, writes);
        let left = store.rows().data;
        let expected: Vec<_> = left
            .iter()
            .filter(|(key, _)| range(from, to).contains(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        prop_assert_eq!(shown, expected);
        let expected: Vec<_> = (0..20).map(|at| left.get(&key(at)).cloned()).collect();
        prop_assert_eq!(singly, expected);
    }

    #[test]
    fn data_rows_come_back_as_written(
        version in any::<u64>(),
        expires in prop::option::of(1..=u64::MAX),
        value in any::<Vec<u8>>(),
    ) {
        let row = DataRow { version, expires_millis: expires, value: value.into() };
        prop_assert_eq!(DataRow::from_blob(&row.to_blob()).unwrap(), row);
    }

    #[test]
    fn short_data_rows_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
        prop_assert!(DataRow::from_blob(&bytes.into()).is_err());
    }
}

#[test]
fn a_view_crosses_its_pages() {
    let number = |at: u32| Blob::from(&at.to_be_bytes());
    let data = (0..5_000).map(|at| (number(at), number(at))).collect();
    let store = MemStore::new(Rows { data, ..Rows::default() }, 0, 0);
    let mut writes = WriteSet::default();
    for at in (0..5_000).step_by(3) {
        writes.write_data(number(at), None);
    }
    writes.write_data(number(6_000), Some(number(6_000)));
    let shown = visited(&View::new(&store, &writes), &KeyRange::all());
    let kept = (0..5_000).filter(|at| at % 3 != 0).chain([6_000]);
    assert_eq!(shown, kept.map(|at| (number(at), number(at))).collect::<Vec<_>>());
}
