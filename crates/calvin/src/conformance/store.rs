//! What every [`Store`] must do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test suite: it panics where the store under test is wrong"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_types::env::{Rng, SplitMix};
use quorate_types::{Blob, KeyRange, NodeId, ReplicaId, Seq, ShardId};

use crate::command::Member;
use crate::store::{Fork, Space, Store, WriteSet};

/// Commits of random writes.
const COMMITS: u64 = 150;
/// Keys of random writes.
const KEYS: u64 = 200;
/// The child that forks make.
const CHILD: ShardId = ShardId(77);
/// Where raft's own entries end, so that a suite's may begin.
const FIRST_INDEX: u64 = 100;

/// A shard's store under test.
pub struct Shard {
    /// Empty, with all keys, and with nothing applied beyond index 99.
    pub store: Arc<dyn Store>,
    /// The store of a child that a commit has split off.
    pub child: Box<dyn Fn(ShardId) -> Arc<dyn Store>>,
}

/// Runs the suite on fresh stores.
///
/// ```text
/// store_suite(|| Shard { store: my_store(1), child: Box::new(|child| my_store(child.0)) });
/// ```
///
/// # Panics
/// When the store does not conform.
pub fn store_suite(mut fresh: impl FnMut() -> Shard) {
    a_fresh_store_is_empty(&*fresh().store);
    a_scan_has_an_order_and_ends(&*fresh().store);
    a_commit_is_visible_on_return(&*fresh().store);
    the_two_spaces_are_apart(&*fresh().store);
    a_range_is_emptied_before_data_is_written(&*fresh().store);
    random_commits_are_as_those_of_a_map(&*fresh().store);
    a_commit_is_seen_as_a_whole(&*fresh().store);
    the_middle_key_halves_and_is_short(&mut fresh);
    a_fork_takes_the_upper_rows_along(&fresh());
}

type Rows = Vec<(Blob, Blob)>;

struct Commits<'a> {
    store: &'a dyn Store,
    index: u64,
}

impl<'a> Commits<'a> {
    fn of(store: &'a dyn Store) -> Self {
        Self { store, index: FIRST_INDEX }
    }

    fn commit(&mut self, writes: WriteSet) {
        let host_row = Blob::from(format!("the host's at {}", self.index).as_str());
        self.store.commit(self.index, host_row, writes).unwrap();
        self.index += 1;
    }

    fn put(&mut self, rows: &[(&str, &str)]) {
        let mut writes = WriteSet::default();
        for (key, value) in rows {
            writes.write_data((*key).into(), Some((*value).into()));
        }
        self.commit(writes);
    }
}

fn get(store: &dyn Store, key: &str) -> Option<Blob> {
    store.get(Space::Data, key.as_bytes()).unwrap()
}

/// All rows of a range, page by page.
fn scan(store: &dyn Store, space: Space, range: &KeyRange, rows_max: usize) -> Rows {
    let mut all = Rows::new();
    let mut rest = range.clone();
    loop {
        let (rows, more) = store.scan(space, &rest, rows_max).unwrap();
        assert!(rows.len() <= rows_max, "`Store::scan`: up to `rows_max` rows");
        let last = rows.last().map(|(key, _)| crate::store::successor(key));
        all.extend(rows);
        match last {
            Some(next) if more => rest.start = next,
            Some(_) => return all,
            None => {
                assert!(!more, "`Store::scan` says whether more follow; after none, none can");
                return all;
            }
        }
    }
}

fn data(store: &dyn Store) -> Vec<String> {
    let rows = scan(store, Space::Data, &KeyRange::all(), 100);
    rows.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
}

fn a_fresh_store_is_empty(store: &dyn Store) {
    assert_eq!(get(store, "a"), None, "`Store::get` of an empty store");
    assert!(data(store).is_empty(), "`Store::scan` of an empty store");
    assert_eq!(store.middle_key().unwrap(), None, "`Store::middle_key`: fewer than two rows");
}

fn a_commit_is_visible_on_return(store: &dyn Store) {
    let mut commits = Commits::of(store);
    commits.put(&[("a", "1"), ("b", "1"), ("c", ""), ("", "of the empty key")]);
    assert_eq!(get(store, "a"), Some("1".into()), "`Store::commit`: visible on return");
    assert_eq!(get(store, "c"), Some("".into()), "an empty value is a value");
    assert_eq!(get(store, ""), Some("of the empty key".into()), "an empty key is a key");
    let mut writes = WriteSet::default();
    writes.write_data("a".into(), None);
    writes.write_data("b".into(), Some("2".into()));
    writes.write_data("missing".into(), None);
    commits.commit(writes);
    assert_eq!(get(store, "a"), None, "`WriteSet::data`: `None` deletes");
    assert_eq!(get(store, "b"), Some("2".into()), "`Store::commit`: a later write stands");
    let before = data(store);
    commits.commit(WriteSet::default());
    assert_eq!(data(store), before, "a commit of the host's row alone leaves the rows");
}

fn the_two_spaces_are_apart(store: &dyn Store) {
    let mut commits = Commits::of(store);
    let mut writes = WriteSet::default();
    writes.write_data("data".into(), Some("d".into()));
    writes.write_data("both".into(), Some("d".into()));
    writes.put_system("system".into(), "s".into());
    writes.put_system("both".into(), "s".into());
    commits.commit(writes);
    assert_eq!(get(store, "system"), None, "`Space`: data is not the machine's");
    assert_eq!(get(store, "both"), Some("d".into()), "`Space`: data is not the machine's");
    let system = |key: &str| store.get(Space::System, key.as_bytes()).unwrap();
    assert_eq!(system("both"), Some("s".into()), "`Space`: the machine's is not data");
    assert_eq!(system("data"), None, "`Space`: the machine's is not data");
    let mut writes = WriteSet::default();
    writes.clear_data(KeyRange::all());
    commits.commit(writes);
    assert_eq!(system("both"), Some("s".into()), "`WriteSet::clears` are data ranges");
    assert!(data(store).is_empty(), "`WriteSet::clears` empties ranges");
    let mut writes = WriteSet::default();
    writes.delete_system("both".into());
    commits.commit(writes);
    assert_eq!(system("both"), None, "`WriteSet::system`: `None` deletes");
    assert_eq!(system("system"), Some("s".into()), "`Store::commit` leaves what it does not name");
    let named = KeyRange::new("s", "t");
    let rows = scan(store, Space::System, &named, 10);
    assert_eq!(rows, [("system".into(), "s".into())], "`Store::scan` of the machine's rows");
}

fn a_range_is_emptied_before_data_is_written(store: &dyn Store) {
    let mut commits = Commits::of(store);
    commits.put(&[("a", "1"), ("b", "1"), ("bb", "1"), ("c", "1"), ("d", "1")]);
    let writes = WriteSet {
        clears: vec![KeyRange::new("b", "c"), KeyRange { start: "d".into(), end: None }],
        data: BTreeMap::from([("b".into(), Some("2".into())), ("x".into(), Some("2".into()))]),
        ..WriteSet::default()
    };
    commits.commit(writes);
    assert_eq!(
        data(store),
        ["a", "b", "c", "x"],
        "`WriteSet::clears`: data ranges emptied before `data` is written"
    );
    assert_eq!(get(store, "b"), Some("2".into()), "`WriteSet::clears`: before `data`");
}

fn a_scan_has_an_order_and_ends(store: &dyn Store) {
    let mut commits = Commits::of(store);
    commits.put(&[("c", "3"), ("a", "1"), ("d", "4"), ("b", "2")]);
    let keys = |range: &KeyRange, rows_max| -> (Vec<Blob>, bool) {
        let (rows, more) = store.scan(Space::Data, range, rows_max).unwrap();
        (rows.into_iter().map(|(key, _)| key).collect(), more)
    };
    let is = |(keys, more): (Vec<Blob>, bool), expected: &[&str], expected_more| {
        let expected: Vec<Blob> = expected.iter().map(|key| (*key).into()).collect();
        assert_eq!(keys, expected, "`Store::scan`: rows of the range in key order");
        assert_eq!(more, expected_more, "`Store::scan`: whether more follow");
    };
    is(keys(&KeyRange::all(), 10), &["a", "b", "c", "d"], false);
    is(keys(&KeyRange::all(), 4), &["a", "b", "c", "d"], false);
    is(keys(&KeyRange::all(), 3), &["a", "b", "c"], true);
    is(keys(&KeyRange::new("b", "d"), 10), &["b", "c"], false);
    is(keys(&KeyRange::new("b", "d"), 2), &["b", "c"], false);
    is(keys(&KeyRange::new("b", "d"), 1), &["b"], true);
    is(keys(&KeyRange { start: "bb".into(), end: None }, 10), &["c", "d"], false);
    is(keys(&KeyRange::new("d", "b"), 10), &[], false);
    is(keys(&KeyRange::new("e", "f"), 10), &[], false);
}

fn random_commits_are_as_those_of_a_map(store: &dyn Store) {
    let mut chance = SplitMix::new(7);
    let key = |chance: &mut SplitMix| Blob::from(&chance.below(KEYS).to_be_bytes()[6..]);
    let mut commits = Commits::of(store);
    let mut data: BTreeMap<Blob, Blob> = BTreeMap::new();
    let mut system = data.clone();
    for commit in 0..COMMITS {
        let mut writes = WriteSet::default();
        for _ in 0..chance.below(20) {
            let value = (chance.below(3) > 0).then(|| Blob::from(&chance.next_u64().to_be_bytes()));
            match chance.below(10) {
                0 => {
                    let start = key(&mut chance);
                    let end = (chance.below(4) > 0).then(|| key(&mut chance));
                    writes.clear_data(KeyRange { start, end });
                }
                1..7 => writes.write_data(key(&mut chance), value),
                _ => drop(writes.system.insert(key(&mut chance), value)),
            }
        }
        for range in &writes.clears {
            data.retain(|key, _| !range.contains(key));
        }
        for (rows, written) in [(&mut data, &writes.data), (&mut system, &writes.system)] {
            for (key, value) in written {
                match value {
                    Some(value) => drop(rows.insert(key.clone(), value.clone())),
                    None => drop(rows.remove(key)),
                }
            }
        }
        commits.commit(writes);
        let looked_for = key(&mut chance);
        assert_eq!(
            store.get(Space::Data, &looked_for).unwrap().as_ref(),
            data.get(&looked_for),
            "`Store::get` after commit {commit}"
        );
        let (start, end) = (key(&mut chance), key(&mut chance));
        let range = KeyRange { start, end: (chance.below(2) > 0).then_some(end) };
        let within = data.iter().filter(|(key, _)| range.contains(key));
        let within: Rows = within.map(|(key, value)| (key.clone(), value.clone())).collect();
        let rows_max = 1 + usize::try_from(chance.below(50)).unwrap();
        assert_eq!(
            scan(store, Space::Data, &range, rows_max),
            within,
            "`Store::scan` of {range:?}, {rows_max} rows at a time, after commit {commit}"
        );
    }
    // What the host keeps is beside the machine's.
    let found = system
        .iter()
        .all(|(key, value)| store.get(Space::System, key).unwrap().as_ref() == Some(value));
    assert!(found, "`Store::get` of the machine's rows");
}

/// Tells those who wait that it is over, also when a panic is the end: they
/// would keep the suite from failing.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Both rows of a commit, or neither.
fn a_commit_is_seen_as_a_whole(store: &dyn Store) {
    let is_over = AtomicBool::new(false);
    let pair = ["left", "right"];
    let watch = || {
        let mut last = None;
        while !is_over.load(Ordering::Relaxed) {
            let (rows, _) = store.scan(Space::Data, &KeyRange::all(), 10).unwrap();
            let values: Vec<&Blob> = rows.iter().map(|(_, value)| value).collect();
            assert!(
                values.is_empty() || (values.len() == 2 && values[0] == values[1]),
                "`Store::commit` commits at once: others saw half of it"
            );
            let now = values.first().map(|value| (*value).clone());
            assert!(now >= last, "`Store::commit`: what was visible stays visible");
            last = now;
        }
    };
    std::thread::scope(|threads| {
        let over = Over(&is_over);
        let watching = threads.spawn(watch);
        let mut commits = Commits::of(store);
        for number in 0..500 {
            let number = format!("{number:06}");
            commits.put(&pair.map(|side| (side, number.as_str())));
        }
        drop(over);
        if let Err(panic) = watching.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn the_middle_key_halves_and_is_short(fresh: &mut impl FnMut() -> Shard) {
    let shard = fresh();
    let mut commits = Commits::of(&*shard.store);
    commits.put(&[("only", "one")]);
    assert_eq!(
        shard.store.middle_key().unwrap(),
        None,
        "`Store::middle_key`: `None` if there are fewer than two rows"
    );
    for hundred in 0..10 {
        let rows: Vec<String> = (0..100).map(|row| format!("{:06}", hundred * 100 + row)).collect();
        let rows: Vec<_> = rows.iter().map(|key| (key.as_str(), "a value")).collect();
        commits.put(&rows);
    }
    let middle = shard.store.middle_key().unwrap().unwrap();
    let below = KeyRange { start: Blob::new(), end: Some(middle) };
    let below = scan(&*shard.store, Space::Data, &below, 100).len();
    assert!(
        (450..=550).contains(&below),
        "`Store::middle_key` halves the data, closely: {below} of 1,001 rows are below it"
    );
    let shard = fresh();
    let tail = "x".repeat(500);
    let (one, other) = (format!("banana{tail}"), format!("bandana{tail}"));
    Commits::of(&*shard.store).put(&[(&one, ""), (&other, "")]);
    let middle = shard.store.middle_key().unwrap().unwrap();
    assert!(
        middle > Blob::from(one.as_str()) && middle <= Blob::from(other.as_str()),
        "`Store::middle_key` halves two rows, one below and one not"
    );
    assert_eq!(
        middle,
        Blob::from("band"),
        "`Store::middle_key` is no longer than it has to be, and it has {} bytes",
        middle.len()
    );
}

fn a_fork_takes_the_upper_rows_along(shard: &Shard) {
    let store = &*shard.store;
    let mut commits = Commits::of(store);
    commits.put(&[("a", "1"), ("b", "1"), ("m", "1"), ("z", "1")]);
    let member = |id| Member { replica: ReplicaId(id), node: NodeId(id) };
    let fork = Fork {
        child: CHILD,
        at: "m".into(),
        system: vec![("cursor".into(), "born".into())],
        members: Seq(vec![member(1), member(2), member(3)]),
    };
    let mut writes = WriteSet { forks: vec![fork], ..WriteSet::default() };
    writes.clear_data(KeyRange::new("z", "zz"));
    writes.write_data("n".into(), Some("new".into()));
    writes.write_data("b".into(), None);
    writes.put_system("cursor".into(), "the parent's".into());
    commits.commit(writes);
    let child = (shard.child)(CHILD);
    assert_eq!(data(store), ["a"], "`Fork::at`: data rows from here on become the child's");
    assert_eq!(get(store, "m"), None, "`Fork::at`: data rows from here on become the child's");
    assert_eq!(
        data(&*child),
        ["m", "n"],
        "`WriteSet::forks`: the child has what the same commit left of its rows"
    );
    let cursor = |store: &dyn Store| store.get(Space::System, b"cursor").unwrap();
    assert_eq!(cursor(&*child), Some("born".into()), "`Fork::system`: the child's machine's rows");
    assert_eq!(cursor(store), Some("the parent's".into()), "a fork leaves the parent's own rows");
    commits.put(&[("c", "1")]);
    assert_eq!(data(store), ["a", "c"], "the parent goes on");
    assert_eq!(data(&*child), ["m", "n"], "the parent's commits are none of the child's");
}
