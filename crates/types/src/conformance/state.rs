//! What every [`State`] must do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test suite: it panics where the state under test is wrong"
)]

use bytes::Bytes;

use crate::NodeId;
use crate::anti_entropy::State;
use crate::env::{Rng, SplitMix};

/// A budget into which many writes of the suite fit.
const BUDGET_BYTES: usize = 64 << 10;
/// One into which few do.
const SMALL_BUDGET_BYTES: usize = 2 << 10;
/// Writes by each node, more than fit into the small budget.
const WRITES: u64 = 40;
/// Deltas after which a replica that still lacks something never ends.
const PULLS_MAX: usize = 10_000;
/// Orders of arrival, and damaged messages, by seeds.
const SEEDS: u64 = 60;

/// Runs the suite. `fresh` makes the empty replica of a node, and `write`
/// changes it as its owner would, by a change of its own for each number and
/// of 128 bytes to a kibibyte.
///
/// ```
/// use bytes::Bytes;
/// use quorate_types::NodeId;
/// use quorate_types::anti_entropy::{State, StateError};
/// use quorate_types::conformance::state_suite;
///
/// /// The set of all numbers that anybody wrote, each with its weight in paper.
/// #[derive(Default)]
/// struct Numbers(std::collections::BTreeSet<u64>);
///
/// const ROW_BYTES: usize = 128;
///
/// fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
///     let number = |row: &[u8]| Some(u64::from_be_bytes(*row.first_chunk()?));
///     bytes.chunks_exact(ROW_BYTES).filter_map(number)
/// }
///
/// impl State for Numbers {
///     fn root(&self) -> u128 {
///         let digest = |number: &u64| u128::from(number + 1).wrapping_mul(u128::MAX / 7 * 3 + 1);
///         self.0.iter().map(digest).fold(0, u128::wrapping_add)
///     }
///     fn vector(&self) -> Bytes {
///         self.0.iter().flat_map(|number| row(*number)).collect()
///     }
///     fn delta(&self, since: &[u8], budget_bytes: usize) -> Option<Bytes> {
///         let known: Vec<u64> = numbers(since).collect();
///         let lacking = self.0.iter().filter(|number| !known.contains(number));
///         let lacking = lacking.take((budget_bytes / ROW_BYTES).max(1));
///         let delta: Bytes = lacking.flat_map(|number| row(*number)).collect();
///         (!delta.is_empty()).then_some(delta)
///     }
///     fn merge(&mut self, _from: NodeId, delta: &[u8]) -> Result<bool, StateError> {
///         let before = self.0.len();
///         self.0.extend(numbers(delta));
///         Ok(self.0.len() > before)
///     }
///     fn acknowledge(&mut self, _from: NodeId, _vector: &[u8]) {}
///     fn members(&mut self, _others: &[NodeId]) {}
/// }
///
/// fn row(number: u64) -> [u8; ROW_BYTES] {
///     let mut row = [0; ROW_BYTES];
///     row[..8].copy_from_slice(&number.to_be_bytes());
///     row
/// }
///
/// state_suite(|_node| Numbers::default(), |state, number| drop(state.0.insert(number)));
/// ```
///
/// # Panics
/// When the state does not conform.
pub fn state_suite<S: State>(
    mut fresh: impl FnMut(NodeId) -> S,
    mut write: impl FnMut(&mut S, u64),
) {
    let mut suite = Suite { fresh: &mut fresh, write: &mut write };
    suite.a_change_shows_in_the_root();
    suite.a_replica_lacks_nothing_that_it_has();
    suite.a_replica_catches_up();
    suite.a_small_budget_is_kept_and_continued();
    suite.replicas_converge_both_ways();
    suite.any_order_and_any_number_of_times_gives_the_same();
    suite.a_garbled_delta_does_no_harm();
    suite.a_garbled_vector_does_no_harm();
    suite.membership_is_no_content();
}

struct Suite<'a, S> {
    fresh: &'a mut dyn FnMut(NodeId) -> S,
    write: &'a mut dyn FnMut(&mut S, u64),
}

const FROM: NodeId = NodeId(1);

/// Lets `to` have everything that `from` has, and returns how many deltas
/// that took.
fn pull<S: State>(from: &S, to: &mut S, budget_bytes: usize) -> usize {
    for pulls in 0..PULLS_MAX {
        let Some(delta) = from.delta(&to.vector(), budget_bytes) else { return pulls };
        let (before, vector) = (to.root(), to.vector());
        let changed = to.merge(FROM, &delta);
        let changed = changed.unwrap_or_else(|error| {
            panic!("`State::merge` takes what `State::delta` made for this vector: {error}")
        });
        assert!(
            changed || to.vector() != vector,
            "`State::delta` is what the replica lacks, and this one changed nothing"
        );
        assert!(
            changed || to.root() == before,
            "`State::merge` says whether it changed anything; it said no, and the root is another"
        );
    }
    panic!("`State::delta` is `None` when the replica lacks nothing; it never was")
}

impl<S: State> Suite<'_, S> {
    /// A node's replica with writes of its own.
    fn written(&mut self, node: u64) -> S {
        let mut state = (self.fresh)(NodeId(node));
        for number in 0..WRITES {
            (self.write)(&mut state, node * 1_000 + number);
        }
        state
    }

    /// A fresh replica that has everything that `of` has.
    fn copy(&mut self, of: &S, node: u64) -> S {
        let mut copy = (self.fresh)(NodeId(node));
        pull(of, &mut copy, BUDGET_BYTES);
        copy
    }

    fn a_change_shows_in_the_root(&mut self) {
        let (mut one, other) = ((self.fresh)(NodeId(1)), (self.fresh)(NodeId(2)));
        assert_eq!(one.root(), other.root(), "`State::root`: empty replicas are equal");
        for number in 0..WRITES {
            let before = one.root();
            (self.write)(&mut one, number);
            assert_ne!(one.root(), before, "`State::root` is a fingerprint of the content");
        }
    }

    fn a_replica_lacks_nothing_that_it_has(&mut self) {
        let state = self.written(1);
        let delta = state.delta(&state.vector(), BUDGET_BYTES);
        assert!(delta.is_none(), "`State::delta` is `None` when the replica lacks nothing");
    }

    fn a_replica_catches_up(&mut self) {
        let mut one = self.written(1);
        let mut other = self.copy(&one, 2);
        assert_eq!(other.root(), one.root(), "who lacks nothing has an equal root");
        (self.write)(&mut one, WRITES);
        let delta = one.delta(&other.vector(), BUDGET_BYTES);
        let delta = delta.expect("`State::delta` is what the other lacks: one write");
        assert_eq!(other.merge(FROM, &delta), Ok(true), "`State::merge` says that it changed");
        assert_eq!(other.root(), one.root(), "who lacks nothing has an equal root");
        assert_eq!(other.merge(FROM, &delta), Ok(false), "`State::merge` again changes nothing");
        assert_eq!(other.root(), one.root(), "a delta may be merged any number of times");
    }

    fn a_small_budget_is_kept_and_continued(&mut self) {
        let one = self.written(1);
        let first = one.delta(&(self.fresh)(NodeId(2)).vector(), SMALL_BUDGET_BYTES);
        let first = first.expect("`State::delta` is what the other lacks: everything");
        assert!(
            first.len() <= 2 * SMALL_BUDGET_BYTES,
            "`State::delta`: about `budget_bytes` of it, and it is {} of {SMALL_BUDGET_BYTES}",
            first.len()
        );
        let mut other = (self.fresh)(NodeId(2));
        let pulls = pull(&one, &mut other, SMALL_BUDGET_BYTES);
        assert!(pulls > 1, "the writes of the suite are larger than the small budget");
        assert_eq!(other.root(), one.root(), "`State::delta`: gap-free, to be continued");
        let mut least = (self.fresh)(NodeId(3));
        pull(&one, &mut least, 1);
        assert_eq!(least.root(), one.root(), "`State::delta`: the least budget leads on too");
    }

    fn replicas_converge_both_ways(&mut self) {
        let (mut one, mut other) = (self.written(1), self.written(2));
        pull(&one, &mut other, SMALL_BUDGET_BYTES);
        pull(&other, &mut one, SMALL_BUDGET_BYTES);
        assert_eq!(one.root(), other.root(), "replicas that have exchanged everything are equal");
    }

    fn any_order_and_any_number_of_times_gives_the_same(&mut self) {
        let sources = [self.written(1), self.written(2), self.written(3)];
        let mut deltas: Vec<Bytes> = Vec::new();
        for source in &sources {
            let mut reader = (self.fresh)(NodeId(9));
            while let Some(delta) = source.delta(&reader.vector(), SMALL_BUDGET_BYTES) {
                reader.merge(FROM, &delta).unwrap();
                deltas.push(delta);
                assert!(deltas.len() < PULLS_MAX, "`State::delta` never was `None`");
            }
        }
        let mut expected = None;
        for seed in 0..SEEDS {
            let mut chance = SplitMix::new(seed);
            let mut replica = (self.fresh)(NodeId(9));
            for _ in 0..deltas.len() * 2 {
                let delta = &deltas[usize::try_from(chance.below(deltas.len() as u64)).unwrap()];
                self::merge(&mut replica, delta);
            }
            // What came too early for what it continues is asked for again.
            for source in &sources {
                pull(source, &mut replica, SMALL_BUDGET_BYTES);
            }
            let root = *expected.get_or_insert(replica.root());
            assert_eq!(
                replica.root(),
                root,
                "deltas in any order, any number of times, give every replica the same state \
                 (seed {seed})"
            );
        }
    }

    fn a_garbled_delta_does_no_harm(&mut self) {
        let one = self.written(1);
        let delta = one.delta(&(self.fresh)(NodeId(2)).vector(), SMALL_BUDGET_BYTES).unwrap();
        for seed in 0..SEEDS {
            let mut other = self.written(2);
            let garbled = garble(seed, &delta);
            merge(&mut other, &garbled);
            // It still is a replica of which others can have everything.
            let copy = self.copy(&other, 3);
            assert_eq!(copy.root(), other.root(), "`State::merge`: a bad delta leaves a state");
        }
    }

    fn a_garbled_vector_does_no_harm(&mut self) {
        let one = self.written(1);
        for seed in 0..SEEDS {
            let garbled = garble(seed, &one.vector());
            let Some(delta) = one.delta(&garbled, BUDGET_BYTES) else { continue };
            let mut other = (self.fresh)(NodeId(2));
            merge(&mut other, &delta);
            pull(&one, &mut other, BUDGET_BYTES);
            assert_eq!(other.root(), one.root(), "`State::delta` of garbage is a delta or `None`");
        }
    }

    fn membership_is_no_content(&mut self) {
        let mut one = self.written(1);
        let (root, vector) = (one.root(), one.vector());
        one.members(&[NodeId(2), NodeId(3)]);
        one.acknowledge(NodeId(2), &vector);
        one.acknowledge(NodeId(7), &[]);
        for seed in 0..SEEDS {
            one.acknowledge(NodeId(3), &garble(seed, &vector));
        }
        one.members(&[]);
        assert_eq!(one.root(), root, "`State::members` must not influence content");
        let other = self.copy(&one, 2);
        assert_eq!(other.root(), root, "`State::members` must not influence content");
    }
}

/// Merges what may not be fit to be merged.
fn merge<S: State>(state: &mut S, delta: &[u8]) {
    let (root, vector) = (state.root(), state.vector());
    match state.merge(FROM, delta) {
        Ok(true) => {}
        Ok(false) => assert_eq!(
            state.root(),
            root,
            "`State::merge` says whether it changed anything; it said no, and the root is another"
        ),
        Err(error) => assert!(
            state.root() == root && state.vector() == vector,
            "after a `StateError` the state is as before; it is another after '{error}'"
        ),
    }
}

/// Cuts, extends and flips.
fn garble(seed: u64, bytes: &[u8]) -> Vec<u8> {
    let mut chance = SplitMix::new(seed);
    let mut at = |len: usize| usize::try_from(chance.below(len.max(1) as u64)).unwrap();
    let mut garbled = bytes.to_vec();
    match seed % 4 {
        0 => garbled.truncate(at(bytes.len())),
        1 => garbled.extend([0xff; 40]),
        2 => garbled = (0..at(200)).map(|_| u8::try_from(at(256)).unwrap()).collect(),
        _ => {}
    }
    for _ in 0..1 + at(3) {
        let place = at(garbled.len());
        if let Some(byte) = garbled.get_mut(place) {
            *byte ^= 1 << (place % 8);
        }
    }
    garbled
}
