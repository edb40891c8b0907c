//! What must be so once nothing befalls the nodes any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate::types::Blob;
use quorate_crdt::{Entry, Origin, Summary};
use tokio::time::{sleep, timeout};

use super::house::{ALLOCATIONS, House, Node, shard_of};

/// By then every node takes every other for alive.
const ACQUAINTED_WITHIN: Duration = Duration::from_secs(60);
/// By then, and some ages of tombstones, what is to be forgotten is.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(60);
/// The same for what all are to have.
const EQUAL_WITHIN: Duration = Duration::from_secs(60);
/// Origins are forgotten in steps, three ages long, each of which may wait for
/// another node's.
const AGES_MAX: u32 = 12;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until every node takes every other for alive.
pub(super) async fn acquainted(house: &House) {
    let nodes = usize::try_from(house.plan.nodes).unwrap();
    let stranger = || {
        let meets = |node: &Node| (node.id(), node.driver.alive().len());
        house.nodes().iter().map(meets).find(|(_, alive)| *alive < nodes)
    };
    await_none(house, "members find each other", ACQUAINTED_WITHIN, || {
        stranger().map(|(node, alive)| format!("{node} takes {alive} for alive"))
    })
    .await;
}

/// Waits until the registries are at rest, and judges them; says how many
/// values were judged.
pub(super) async fn at_rest(house: &House) -> u64 {
    acquainted(house).await;
    let ages = Duration::from_millis(house.plan.age_millis) * AGES_MAX;
    // Acknowledgements travel with news, which reports are.
    await_none(house, "what was removed is forgotten", FORGOTTEN_WITHIN + ages, || {
        house.nodes().iter().find_map(|node| remembers(house, node))
    })
    .await;
    house.reports.store(false, Ordering::Relaxed);
    await_none(house, "registries converge", EQUAL_WITHIN + ages, || difference(house)).await;
    judge(house)
}

async fn await_none(
    house: &House,
    rule: &str,
    within: Duration,
    mut instead: impl FnMut() -> Option<String>,
) {
    let come = async {
        while instead().is_some() {
            sleep(LOOK_EVERY).await;
        }
    };
    if timeout(within, come).await.is_err()
        && let Some(instead) = instead()
    {
        house.find(rule, instead);
    }
}

/// What a node still knows of what is over: tombstones, and earlier lives of
/// which nothing is left.
fn remembers(house: &House, node: &Node) -> Option<String> {
    let memory = house.memory.lock();
    let tombstone = memory.keys().find_map(|key| {
        let entry = node.registry.lock().map().entry(key).cloned()?;
        entry.is_tombstone().then_some((key, entry))
    });
    if let Some((key, Entry { stamp, dot, .. })) = tombstone {
        // Who has not seen it keeps it there.
        let seen = |other: &Node| {
            let registry = other.registry.lock();
            let Summary { vector, faded, resync, .. } = registry.map().summary();
            let (has, had) = (vector.get(dot.origin), faded.get(dot.origin));
            format!("{:?} has seen {has}, {had}, {resync:?}", registry.map().origin())
        };
        let seen: Vec<String> = house.nodes().iter().map(seen).collect();
        return Some(format!("{} keeps {key:?}, {stamp:?} of {dot:?}; {seen:?}", node.id()));
    }
    let registry = node.registry.lock();
    let (id, map) = (node.id(), registry.map());
    let mut writers: BTreeMap<Origin, usize> =
        map.vector().iter().map(|(origin, _)| (origin, 0)).collect();
    for (key, _) in map.scan_from(Blob::new()) {
        let of = map.entry(key).map(|entry| entry.dot.origin)?;
        *writers.entry(of).or_default() += 1;
    }
    let newest = |origin: &Origin| {
        writers.keys().filter(|other| other.node == origin.node).max() == Some(origin)
    };
    let over = writers.iter().find(|(origin, entries)| **entries == 0 && !newest(origin));
    over.map(|(origin, _)| format!("{id} keeps {origin:?}, of which nothing is left"))
}

fn content(node: &Node) -> BTreeMap<Blob, Entry> {
    let registry = node.registry.lock();
    let map = registry.map();
    let live = map.scan_from(Blob::new());
    live.filter_map(|(key, _)| Some((key.clone(), map.entry(key)?.clone()))).collect()
}

/// In what two registries differ.
fn difference(house: &House) -> Option<String> {
    let nodes = house.nodes();
    let (first, others) = nodes.split_first()?;
    let ours = content(first);
    others.iter().find_map(|other| {
        let theirs = content(other);
        let keys: BTreeSet<&Blob> = ours.keys().chain(theirs.keys()).collect();
        let (one, two) = (first.id(), other.id());
        let differs = |key: &&Blob| ours.get(*key) != theirs.get(*key);
        if let Some(key) = keys.into_iter().find(differs) {
            let (left, right) = (ours.get(key), theirs.get(key));
            return Some(format!("{key:?} is {left:?} on {one} and {right:?} on {two}"));
        }
        let [left, right] = [first, other].map(|node| node.registry.lock().root());
        (left != right).then(|| format!("the roots of {one} and {two} differ"))
    })
}

/// Every key as each node has it.
fn judge(house: &House) -> u64 {
    let mut judged = 0;
    let memory = house.memory.lock();
    for node in house.nodes() {
        let content = content(&node);
        let keys: BTreeSet<&Blob> = memory.keys().chain(content.keys()).collect();
        for key in keys {
            let found = content.get(key).and_then(|entry| entry.value.as_ref());
            judged += 1;
            if let Err((rule, what)) = memory.judge(key, found) {
                house.find(rule, format!("on {}, {what}", node.id()));
            }
        }
        if let Some(what) = misread(&node, &content) {
            house.find("a table shows its map", format!("on {}, {what}", node.id()));
        }
    }
    judged
}

/// What the table of allocations shows that its map does not have, or the
/// other way round.
fn misread(node: &Node, content: &BTreeMap<Blob, Entry>) -> Option<String> {
    let registry = node.registry.lock();
    let shown: BTreeSet<_> = registry.allocations().iter().map(|it| it.shard).collect();
    let is_allocation = |key: &&Blob| key.first() == Some(&ALLOCATIONS.0);
    let held: BTreeSet<_> = content.keys().filter(is_allocation).map(shard_of).collect();
    (shown != held).then(|| format!("{shown:?} are shown, and {held:?} are held"))
}
