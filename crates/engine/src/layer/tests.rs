use proptest::prelude::*;

use super::*;

/// What happens to a key space: a put, a delete, or a range emptied.
#[derive(Debug, Clone)]
enum Change {
    Put(u8, u8),
    Delete(u8),
    Clear(u8, Option<u8>),
}

fn key(byte: u8) -> Blob {
    vec![byte].into()
}

fn range(start: u8, end: Option<u8>) -> KeyRange {
    KeyRange { start: key(start), end: end.map(key) }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let byte = 0..24_u8;
    let change = prop_oneof![
        4 => (byte.clone(), any::<u8>()).prop_map(|(key, value)| Change::Put(key, value)),
        2 => byte.clone().prop_map(Change::Delete),
        1 => (byte.clone(), prop::option::of(byte)).prop_map(|(a, b)| Change::Clear(a, b)),
    ];
    prop::collection::vec(change, 0..40)
}

fn change_layer(layer: &mut Layer, change: &Change) {
    match change {
        Change::Put(k, value) => layer.put(Mutation::put(key(*k), key(*value))),
        Change::Delete(k) => layer.put(Mutation::delete(key(*k))),
        Change::Clear(start, end) if !range(*start, *end).is_empty() => {
            layer.clear(&range(*start, *end));
        }
        Change::Clear(..) => {}
    }
}

fn change_model(model: &mut BTreeMap<Blob, Blob>, change: &Change) {
    match change {
        Change::Put(k, value) => drop(model.insert(key(*k), key(*value))),
        Change::Delete(k) => drop(model.remove(&key(*k))),
        Change::Clear(start, end) => model.retain(|key, _| !range(*start, *end).contains(key)),
    }
}

fn page(layers: &[Layer], floor: &BTreeMap<Blob, Blob>, range: &KeyRange, rows: usize) -> Page {
    let limit = ScanLimit { rows, bytes: usize::MAX };
    let floor = floor.range::<[u8], _>(bounds(range));
    let floor = floor.map(|(key, value)| Ok::<_, ()>((key.clone(), value.clone())));
    read_page(layers, floor, range, limit).unwrap()
}

proptest! {
    #[test]
    fn layers_over_a_floor_read_like_one_map(
        floor in changes(),
        middle in changes(),
        top in changes(),
        (start, end) in (0..24_u8, prop::option::of(0..26_u8)),
        rows in 0..12_usize,
    ) {
        let mut model = BTreeMap::new();
        floor.iter().for_each(|change| change_model(&mut model, change));
        let floor = model.clone();
        let mut layers = [Layer::default(), Layer::default()];
        for (layer, changes) in layers.iter_mut().rev().zip([&middle, &top]) {
            for change in changes {
                change_layer(layer, change);
                change_model(&mut model, change);
            }
        }
        let range = range(start, end);
        prop_assume!(!range.is_empty());
        let mut expected: Vec<_> = model.into_iter().filter(|(key, _)| range.contains(key)).collect();
        let more = expected.len() > rows;
        expected.truncate(rows);
        let expected = Page { rows: expected, more };

        prop_assert_eq!(&page(&layers, &floor, &range, rows), &expected);
        // The head of the top layer is enough for the page.
        let limit = ScanLimit { rows, bytes: usize::MAX };
        layers[0] = layers[0].head(&range, limit);
        prop_assert_eq!(&page(&layers, &floor, &range, rows), &expected);
    }

    #[test]
    fn a_split_layer_is_the_layer_on_each_side(changes in changes(), at in 1..24_u8) {
        let mut whole = Layer::default();
        changes.iter().for_each(|change| change_layer(&mut whole, change));
        let mut lower = whole.clone();
        let upper = lower.split_off(&key(at));
        for byte in 0..26 {
            let (side, other) = if byte < at { (&lower, &upper) } else { (&upper, &lower) };
            prop_assert_eq!(side.lookup(&key(byte)), whole.lookup(&key(byte)));
            prop_assert_eq!(other.lookup(&key(byte)), None);
        }
    }

    #[test]
    fn clears_are_the_union_of_their_ranges(
        ranges in prop::collection::vec((0..24_u8, prop::option::of(0..26_u8)), 0..12),
    ) {
        let ranges: Vec<_> = ranges
            .into_iter()
            .map(|(start, end)| range(start, end))
            .filter(|range| !range.is_empty())
            .collect();
        let mut clears = Clears::default();
        ranges.iter().for_each(|range| clears.insert(range.clone()));
        for byte in 0..26 {
            let inside = ranges.iter().any(|range| range.contains(&[byte]));
            prop_assert_eq!(clears.contains(&[byte]), inside);
        }
        let stored: Vec<_> = clears.ranges().collect();
        let apart = stored.windows(2).all(|pair| pair[0].end.as_ref() < Some(&pair[1].start));
        prop_assert!(apart, "{stored:?} touch");
        prop_assert!(stored.iter().all(|range| clears.covers(range)));
    }

    #[test]
    fn the_bytes_of_a_layer_are_those_of_its_rows_and_clears(
        changes in changes(),
        at in 1..24_u8,
        later in changes(),
    ) {
        let mut layer = Layer::default();
        changes.iter().for_each(|change| change_layer(&mut layer, change));
        let mut upper = layer.split_off(&key(at));
        for layer in [&mut layer, &mut upper] {
            later.iter().for_each(|change| change_layer(layer, change));
            let rows: u64 =
                layer.rows.iter().map(|(key, value)| row_bytes(key, value.as_ref())).sum();
            let clears = layer.clears.ranges().count() as u64 * ROW_OVERHEAD_BYTES;
            prop_assert_eq!(layer.bytes(), rows + clears);
        }
    }
}
