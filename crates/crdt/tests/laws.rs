//! The laws of the small types: merges commute, associate and repeat without
//! effect, deltas amount to states, and any delivery converges.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use quorate_crdt::{CrdtError, Dot, DotContext, LwwRegister, Origin, PnCounter, Stamp};
use quorate_crdt::{OrSet, VersionVector};
use quorate_types::{Hlc, NodeId, codec};

const REPLICAS: usize = 3;

fn origin(replica: usize) -> Origin {
    Origin::new(NodeId(replica as u64), 1)
}

fn stamp(fence: u64, millis: u64, node: u64) -> Stamp {
    Stamp::new(fence, Hlc { millis, counter: 0, node: NodeId(node) })
}

/// What the laws are about: `mutate` makes one step as a replica and returns
/// the delta.
trait Joined: Clone + PartialEq + Debug {
    fn bottom() -> Self;
    fn mutate(&mut self, replica: usize, choice: u8) -> Self;
    fn join(&mut self, other: &Self);
}

impl Joined for PnCounter {
    fn bottom() -> Self {
        Self::new()
    }
    fn mutate(&mut self, replica: usize, choice: u8) -> Self {
        match choice % 2 {
            0 => self.increment(origin(replica), u64::from(choice)),
            _ => self.decrement(origin(replica), u64::from(choice)),
        }
    }
    fn join(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl Joined for OrSet<u8> {
    fn bottom() -> Self {
        Self::new()
    }
    fn mutate(&mut self, replica: usize, choice: u8) -> Self {
        let element = choice / 2 % 4;
        match choice % 2 {
            0 => self.add(origin(replica), element),
            _ => self.remove(&element),
        }
    }
    fn join(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl Joined for LwwRegister<u8> {
    fn bottom() -> Self {
        Self::new(Stamp::default(), 0)
    }
    /// Few distinct stamps, so that ties are common.
    fn mutate(&mut self, _replica: usize, choice: u8) -> Self {
        let delta = Self::new(stamp(u64::from(choice % 2), u64::from(choice / 2 % 2), 0), choice);
        self.join(&delta);
        delta
    }
    fn join(&mut self, other: &Self) {
        self.merge(other);
    }
}

/// Replicas after some steps with exchanges in between, and all their deltas.
fn evolve<T: Joined>(steps: &[(usize, u8, Option<usize>)]) -> (Vec<T>, Vec<T>) {
    let mut replicas = vec![T::bottom(); REPLICAS];
    let mut deltas = Vec::new();
    for &(replica, choice, source) in steps {
        if let Some(source) = source {
            let other = replicas[source].clone();
            replicas[replica].join(&other);
        }
        deltas.push(replicas[replica].mutate(replica, choice));
    }
    (replicas, deltas)
}

fn steps() -> impl Strategy<Value = Vec<(usize, u8, Option<usize>)>> {
    vec((0..REPLICAS, any::<u8>(), proptest::option::of(0..REPLICAS)), 0..24)
}

fn joined<'a, T: Joined + 'a>(states: impl IntoIterator<Item = &'a T>) -> T {
    let mut all = T::bottom();
    states.into_iter().for_each(|state| all.join(state));
    all
}

fn check_laws<T: Joined>(steps: &[(usize, u8, Option<usize>)], order: &[Index]) {
    let (replicas, deltas) = evolve::<T>(steps);
    let [a, b, c] = replicas.as_slice() else { panic!("three replicas") };

    assert_eq!(joined([a, b]), joined([b, a]), "commutes");
    assert_eq!(joined([&joined([a, b]), c]), joined([a, &joined([b, c])]), "associates");
    assert_eq!(joined([a, b, a, b, b]), joined([a, b]), "repeats without effect");

    let all = joined([a, b, c]);
    assert_eq!(joined(&deltas), all, "deltas amount to the state");
    if !deltas.is_empty() {
        let shuffled: Vec<&T> = order.iter().map(|index| index.get(&deltas)).collect();
        let mut late = joined(shuffled);
        late.join(&joined(deltas.iter().rev()));
        assert_eq!(late, all, "converges under reordering and duplication");
    }
}

proptest! {
    #[test]
    fn counter_laws(steps in steps(), order in vec(any::<Index>(), 0..32)) {
        check_laws::<PnCounter>(&steps, &order);
    }

    #[test]
    fn set_laws(steps in steps(), order in vec(any::<Index>(), 0..32)) {
        check_laws::<OrSet<u8>>(&steps, &order);
    }

    #[test]
    fn register_laws(steps in steps(), order in vec(any::<Index>(), 0..32)) {
        check_laws::<LwwRegister<u8>>(&steps, &order);
    }

    #[test]
    fn states_survive_their_encoding(steps in steps()) {
        let set = joined(&evolve::<OrSet<u8>>(&steps).0);
        prop_assert_eq!(&codec::decode::<OrSet<u8>>(&codec::encode(&set)).unwrap(), &set);
        let counter = joined(&evolve::<PnCounter>(&steps).0);
        prop_assert_eq!(&codec::decode::<PnCounter>(&codec::encode(&counter)).unwrap(), &counter);
        let register = joined(&evolve::<LwwRegister<u8>>(&steps).0);
        let decoded = codec::decode::<LwwRegister<u8>>(&codec::encode(&register)).unwrap();
        prop_assert_eq!(&decoded, &register);
    }

    /// A set says that it changed exactly when its elements did.
    #[test]
    fn set_reports_change_truly(steps in steps()) {
        let (replicas, _) = evolve::<OrSet<u8>>(&steps);
        let mut set = replicas[0].clone();
        let before: Vec<u8> = set.iter().copied().collect();
        let changed = set.merge(&replicas[1]);
        let after: Vec<u8> = set.iter().copied().collect();
        prop_assert_eq!(changed, before != after);
    }

    #[test]
    fn vector_orders_like_sets_of_writes(
        a in vec((0..REPLICAS, 1..4_u64), 0..4),
        b in vec((0..REPLICAS, 1..4_u64), 0..4),
    ) {
        let vector = |slots: &[(usize, u64)]| -> VersionVector {
            slots.iter().map(|&(replica, sequence)| (origin(replica), sequence)).collect()
        };
        let (a, b) = (vector(&a), vector(&b));
        let mut both = a.clone();
        both.merge(&b);
        prop_assert!(both.dominates(&a) && both.dominates(&b));
        prop_assert_eq!(a.dominates(&b), both == a);
        prop_assert_eq!(a.concurrent(&b), both != a && both != b);
    }
}

#[test]
fn lww_tie_converges() {
    let same = stamp(1, 5, 1);
    let (mut a, mut b) = (LwwRegister::new(same, "left"), LwwRegister::new(same, "right"));
    let (a_before, b_before) = (a.clone(), b.clone());
    a.merge(&b_before);
    b.merge(&a_before);
    assert_eq!(a, b);
}

#[test]
fn a_higher_fence_beats_a_later_clock() {
    let mut register = LwwRegister::new(stamp(2, 10, 1), "decided");
    let refused = register.set(stamp(1, 99, 2), "late");
    assert!(matches!(refused, Err(CrdtError::Stale { current }) if current.fence == 2));
    assert_eq!(*register.value(), "decided");
}

#[test]
fn concurrent_adds_do_not_collide() {
    let (mut a, mut b) = (OrSet::new(), OrSet::new());
    let from_a = a.add(origin(0), "x");
    let _ = b.add(origin(1), "x");
    b.merge(&from_a);
    // a removes its own addition only; b's was concurrent and stays.
    b.merge(&a.remove(&"x"));
    assert!(b.contains(&"x"));
}

#[test]
fn removal_removes_what_it_has_seen() {
    let (mut a, mut b) = (OrSet::new(), OrSet::new());
    b.merge(&a.add(origin(0), "x"));
    a.merge(&b.remove(&"x"));
    assert!(a.is_empty() && b.is_empty());
}

#[test]
fn restarted_node_counts_in_a_slot_of_its_own() {
    let first_life = Origin::new(NodeId(1), 1);
    let second_life = Origin::new(NodeId(1), 2);
    let mut peer = PnCounter::new();
    peer.increment(first_life, 10);
    let mut restarted = PnCounter::new();
    peer.merge(&restarted.increment(second_life, 1));
    assert_eq!(peer.value(), 11);
}

#[test]
fn context_closes_its_gaps() {
    let dot = |sequence| Dot::new(origin(0), sequence);
    let mut context: DotContext = [dot(3), dot(1)].into_iter().collect();
    assert!(!context.contains(dot(2)));
    context.insert(dot(2));
    assert_eq!(context.prefixes().get(origin(0)), 3);
    assert_eq!(context.next(origin(0)), dot(4));
}
