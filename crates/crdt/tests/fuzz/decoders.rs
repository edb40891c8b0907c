//! Everything that is read from bytes.

use quorate_crdt::{
    Allocation, Delta, Dot, DotContext, LwwRegister, NodeLoad, Novelty, OrSet, Origin, PnCounter,
    ResetChunk, ShardLoad, Stamp, Summary, VersionVector,
};
use quorate_testkit::fuzz::{self, BYTES_PER_BYTE, Corpus, value};
use quorate_types::codec::encode;
use quorate_types::{Blob, GroupId, KeyRange, NodeId, Seq, ShardEpoch, ShardId};

use crate::common::{LIMITS, PLENTY_BYTES, at, put, remove, replica};

/// A dot is 5 bytes on the wire, 24 in a list that doubles, and as many again
/// in the tree that the list becomes.
const DOTS_BYTES_PER_BYTE: usize = 32;

/// An element with one dot is 8 bytes on the wire; its dots are a tree of
/// their own, of which the first node has room for eleven.
const SETS_BYTES_PER_BYTE: usize = 80;

/// `[format][kind]`, kinds from 1 to 6.
fn sealed(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[1, kind], payload].concat()
}

/// Messages with some of everything, without their two bytes of header.
fn messages() -> Vec<Vec<u8>> {
    let mut map = replica(1);
    put(&mut map, "a", "one", 1);
    put(&mut map, "b", "two", 2);
    remove(&mut map, "c", 3);
    let seen = map.vector().clone();
    map.retain_members([map.origin().node]);
    map.collect(u64::MAX, 0);
    remove(&mut map, "d", 4);
    let mut other = replica(2);
    put(&mut other, "e", "three", 5);
    other.merge(&map.delta(&seen, PLENTY_BYTES).unwrap().unwrap()).unwrap();
    let mut joining = replica(3);
    let needed_bytes = other.reset_bytes_needed();
    joining.merge_reset(&other.reset_chunk(&Blob::new(), needed_bytes).unwrap()).unwrap();
    let messages = [
        map.delta(&seen, PLENTY_BYTES).unwrap().unwrap().encode(),
        other.delta(&seen, PLENTY_BYTES).unwrap().unwrap().encode(),
        map.reset_chunk(&Blob::new(), PLENTY_BYTES).unwrap().encode(),
        other.reset_chunk(&Blob::from("b"), PLENTY_BYTES).unwrap().encode(),
        map.summary().encode(),
        joining.summary().encode(),
        other.vector().encode(),
    ];
    messages.iter().map(|message| message[2..].to_vec()).collect()
}

#[test]
fn any_message_is_read_or_refused() {
    quorate_testkit::fuzz!(Corpus::of(messages()), |input| {
        let bytes_per_byte = DOTS_BYTES_PER_BYTE;
        value::<Delta>(bytes_per_byte, input);
        value::<VersionVector>(bytes_per_byte, input);
        for message in (0..8).map(|kind| sealed(kind, input)).chain([input.to_vec()]) {
            let read = |decode: &mut dyn FnMut()| {
                fuzz::frugal_by(bytes_per_byte, message.len(), decode);
            };
            read(&mut || drop(ResetChunk::decode(&message)));
            if let Ok(novelty) = Novelty::decode(&message) {
                assert_eq!(Novelty::decode(&novelty.encode()).unwrap(), novelty);
            }
            read(&mut || drop(Summary::decode(&message, &LIMITS)));
            if let Ok(summary) = Summary::decode(&message, &LIMITS) {
                assert!(summary.vector.len() <= 2 * LIMITS.origins_max);
                assert_eq!(Summary::decode(&summary.encode(), &LIMITS).unwrap(), summary);
            }
            if let Ok(vector) = VersionVector::decode(&message, &LIMITS) {
                assert_eq!(vector.encode(), VersionVector::clone(&vector).encode());
            }
        }
    });
}

#[test]
fn the_small_types_are_read_as_written() {
    let [first, second] = [1, 2].map(|node| Origin::new(NodeId(node), 300));
    let mut set = OrSet::new();
    set.add(first, Blob::from("x"));
    set.add(second, Blob::from("x"));
    set.add(second, Blob::from("y"));
    set.remove(&Blob::from("y"));
    let mut numbers = OrSet::new();
    numbers.add(first, 7_u64);
    let mut counter = PnCounter::new();
    counter.increment(first, 7);
    counter.decrement(second, 300);
    let gaps: DotContext = [1, 2, 4, 9].into_iter().map(|n| Dot::new(first, n)).collect();
    let register = LwwRegister::new(Stamp::new(3, at(1_000, 1)), Blob::from("value"));
    let corpus =
        [encode(&set), encode(&numbers), encode(&counter), encode(&gaps), encode(&register)];
    quorate_testkit::fuzz!(Corpus::of(corpus), |input| {
        value::<DotContext>(DOTS_BYTES_PER_BYTE, input);
        value::<LwwRegister<Blob>>(BYTES_PER_BYTE, input);
        if let Some(counter) = value::<PnCounter>(SETS_BYTES_PER_BYTE, input) {
            assert_eq!(counter.value(), counter.clone().value());
            assert!(!counter.clone().merge(&counter), "a merge with itself changes nothing");
        }
        value::<OrSet<u64>>(SETS_BYTES_PER_BYTE, input);
        if let Some(set) = value::<OrSet<Blob>>(SETS_BYTES_PER_BYTE, input) {
            let mut merged = OrSet::new();
            merged.merge(&set);
            assert!(merged.iter().eq(set.iter()), "what is empty takes everything");
            let once = merged.clone();
            assert!(!merged.merge(&set));
            assert_eq!(merged, once);
        }
    });
}

#[test]
fn reports_and_allocations_are_read_as_written() {
    let allocation = Allocation {
        shard: ShardId(3),
        range: KeyRange::new("a", "m"),
        epoch: ShardEpoch(2),
        leader: Some(NodeId(1)),
        voters: Seq(vec![NodeId(1), NodeId(2), NodeId(300)]),
        group: GroupId(9),
    };
    let shard = ShardLoad { shard: ShardId(3), leader: true, term: 7, ..ShardLoad::default() };
    let load = NodeLoad { node: NodeId(2), shards: Seq(vec![shard; 3]), ..NodeLoad::default() };
    let corpus = [encode(&allocation), encode(&load)];
    quorate_testkit::fuzz!(Corpus::of(corpus), |input| {
        value::<Allocation>(BYTES_PER_BYTE, input);
        value::<NodeLoad>(DOTS_BYTES_PER_BYTE, input);
    });
}
