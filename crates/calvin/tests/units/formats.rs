//! Bytes from logs, disks and peers; and the map.

use proptest::prelude::*;
use quorate_calvin::limits::MEMBERS_MAX;
use quorate_calvin::sequencer::{SequencerHalt, SequencerMachine};
use quorate_calvin::shard::rows::header_key;
use quorate_calvin::shard::{Halt, ShardMachine};
use quorate_calvin::{
    Direct, MapChange, Member, Misfit, NeverFits, PeerMessage, Reply, Request, SequencerBatch,
    SequencerCommand, ShardCommand, ShardMap, Slice, SliceBody, Submission, WriteSet,
};
use quorate_types::codec::CodecError;
use quorate_types::{Blob, Epoch, KeyRange, NodeId, ReplicaId, Seq, ShardEpoch, ShardId};
use std::sync::Arc;

use crate::support::procedures::{Op, Service};
use crate::support::store::MemStore;
use crate::support::{blob, map_cut_at, request};

fn decode_everything(bytes: &[u8]) {
    let _ = ShardCommand::from_bytes(bytes);
    let _ = SequencerCommand::from_bytes(bytes);
    let _ = PeerMessage::from_bytes(bytes);
    let _ = Request::from_bytes(bytes);
    let _ = Reply::from_bytes(bytes);
}

fn direct() -> ShardCommand {
    let op = Op::Append { keys: vec![blob("a"), blob("b")].into(), item: blob("1") };
    ShardCommand::Direct(Direct {
        request: request(1, 2),
        epoch: ShardEpoch(3),
        time_millis: 4,
        seed: 5,
        call: op.call(),
    })
}

fn slices() -> ShardCommand {
    let change = MapChange {
        version: 2,
        parent: ShardId(1),
        at: blob("m"),
        child: ShardId(2),
        members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }].into(),
        epoch: ShardEpoch(2),
    };
    ShardCommand::Slices(
        vec![Slice {
            epoch: Epoch(9),
            prev: Epoch(3),
            time_millis: 1,
            seed: 2,
            range: KeyRange::all(),
            floors: Default::default(),
            body: SliceBody::Split(change),
        }]
        .into(),
    )
}

proptest! {
    #[test]
    fn no_decoder_panics_on_hostile_bytes(
        format in 0..3_u8,
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        bytes.insert(0, format);
        decode_everything(&bytes);
    }

    #[test]
    fn no_decoder_panics_on_damaged_commands(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        kept in any::<prop::sample::Index>(),
    ) {
        for command in [direct(), slices()] {
            let mut bytes = command.to_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            decode_everything(&bytes);
            bytes.truncate(kept.index(bytes.len()));
            decode_everything(&bytes);
        }
    }

    #[test]
    fn a_map_stays_a_partition_through_splits(cuts in prop::collection::vec(any::<[u8; 2]>(), 1..20)) {
        let mut map = map_cut_at(&["m"]);
        for (number, cut) in cuts.into_iter().enumerate() {
            let at = Blob::from(&cut);
            let parent = map.locate(&at).unwrap().clone();
            let change = MapChange {
                version: map.version + 1,
                parent: parent.shard,
                at: at.clone(),
                child: ShardId(100 + number as u64),
                members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }].into(),
                epoch: ShardEpoch(parent.epoch.0 + 1),
            };
            let fits = parent.range.split_at(&at).is_some();
            let before = map.clone();
            prop_assert_eq!(map.change(&change).is_ok(), fits);
            prop_assert!(map.is_partition());
            if fits {
                prop_assert_eq!(map.locate(&at).unwrap().shard, change.child);
            } else {
                prop_assert_eq!(map, before.clone());
                map = before;
            }
        }
    }
}

/// A change that may or may not make sense, of shards that may come to be.
fn some_change() -> impl Strategy<Value = MapChange> {
    (1..6_u64, 3..8_u64, any::<u8>(), 1..5_u64).prop_map(|(parent, child, at, epoch)| MapChange {
        version: 0,
        parent: ShardId(parent),
        at: Blob::from(&[b'a' + at % 26]),
        child: ShardId(child),
        members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }].into(),
        epoch: ShardEpoch(epoch),
    })
}

proptest! {
    /// What a split may be given up for (see `NeverFits`): whatever copies of
    /// it the log holds, at whatever version each was proposed.
    #[test]
    fn what_never_fits_was_not_applied_and_never_is(
        changes in prop::collection::vec(some_change(), 1..12),
        log in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u64), 1..60),
    ) {
        let mut map = map_cut_at(&["m"]);
        let mut applied = vec![false; changes.len()];
        let mut given_up = applied.clone();
        for (which, behind) in log {
            let which = which.index(changes.len());
            let version = (map.version + 1).saturating_sub(behind);
            let entry = MapChange { version, ..changes[which].clone() };
            applied[which] |= map.change(&entry).is_ok();
            for (which, change) in changes.iter().enumerate() {
                let outcome = map.halves(change);
                given_up[which] |= matches!(outcome, Err(Misfit::Never(_)));
                let is_twin = |other: usize| changes[other] == *change && applied[other];
                let was_applied = (0..changes.len()).any(is_twin);
                prop_assert!(!(given_up[which] && was_applied), "{change:?}: {outcome:?}");
                prop_assert!(!was_applied || outcome == Err(Misfit::InForce));
            }
        }
    }
}

#[test]
fn commands_come_back_as_written() {
    for command in [direct(), slices()] {
        assert_eq!(ShardCommand::from_bytes(&command.to_bytes()).unwrap(), command);
    }
    let submission = Submission { request: request(1, 1), call: Op::Read(Seq::new()).call() };
    let wire = Request::Submit(submission);
    assert_eq!(Request::from_bytes(&wire.to_bytes()).unwrap(), wire);
}

#[test]
fn a_command_with_bytes_behind_it_is_refused() {
    let mut bytes = direct().to_bytes().to_vec();
    bytes.push(0);
    assert!(matches!(ShardCommand::from_bytes(&bytes), Err(CodecError::Trailing)));
}

#[test]
fn nodedb_an_entry_that_cannot_be_decoded_halts_the_replica() {
    let seed = ShardMachine::seed(KeyRange::all(), ShardEpoch(1));
    let store = MemStore::seeded(seed);
    let mut machine = ShardMachine::load(ShardId(1), Arc::new(Service), &store).unwrap().unwrap();
    let mut newer = direct().to_bytes().to_vec();
    newer[0] += 1;
    for entry in [newer.as_slice(), b"", b"\x01garbage"] {
        let outcome = machine.apply(&store, &mut WriteSet::default(), 1, entry);
        assert!(matches!(outcome, Err(Halt::Format { .. })), "{outcome:?}");
    }
    let batch = SequencerBatch { time_millis: 0, seed: 0, done: Epoch(0), txns: Seq::new() };
    let newer = SequencerCommand::Batch(batch).to_bytes().to_vec();
    let newer: Vec<u8> = newer.iter().enumerate().map(|(at, b)| b + u8::from(at == 0)).collect();
    let mut sequencer = SequencerMachine::load(&MemStore::default(), 0).unwrap();
    let outcome = sequencer.apply(&mut WriteSet::default(), 1, Some(&newer));
    assert!(matches!(outcome, Err(SequencerHalt::Format { source: CodecError::Newer { .. }, .. })));
}

#[test]
fn a_row_of_a_newer_format_is_not_loaded() {
    let (key, row) = ShardMachine::seed(KeyRange::all(), ShardEpoch(1)).remove(0);
    assert_eq!(key, header_key());
    let mut newer = row.to_vec();
    newer[0] += 1;
    let store = MemStore::seeded(vec![(key, newer.into())]);
    let loaded = ShardMachine::load(ShardId(1), Arc::new(Service), &store);
    assert!(matches!(
        loaded.map(|_| ()),
        Err(Halt::Format { source: CodecError::Newer { .. }, .. })
    ));
}

fn change(map: &ShardMap) -> MapChange {
    MapChange {
        version: map.version + 1,
        parent: ShardId(1),
        at: blob("c"),
        child: ShardId(9),
        members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }].into(),
        epoch: ShardEpoch(2),
    }
}

fn members(count: usize) -> Seq<Member> {
    vec![Member { replica: ReplicaId(1), node: NodeId(1) }; count].into()
}

#[test]
fn a_change_that_does_not_fit_leaves_the_map_alone() {
    let map = map_cut_at(&["m"]);
    let fits = change(&map);
    let longer_than_a_key = vec![b'c'; quorate_calvin::limits::KEY_BYTES_MAX + 1].into();
    let misfits = [
        (MapChange { version: 7, ..fits.clone() }, Misfit::OtherVersion),
        (MapChange { child: ShardId(2), ..fits.clone() }, NeverFits::ChildTaken.into()),
        (MapChange { parent: ShardId(5), ..fits.clone() }, Misfit::NoParent),
        (MapChange { at: blob("z"), ..fits.clone() }, NeverFits::KeyOutside.into()),
        (MapChange { at: longer_than_a_key, ..fits.clone() }, NeverFits::KeyOutside.into()),
        (MapChange { epoch: ShardEpoch(1), ..fits.clone() }, NeverFits::EpochPassed.into()),
        (MapChange { members: members(0), ..fits.clone() }, Misfit::Members),
        (MapChange { members: members(MEMBERS_MAX + 1), ..fits }, Misfit::Members),
    ];
    for (misfit, reason) in misfits {
        let mut changed = map.clone();
        assert_eq!(changed.change(&misfit), Err(reason), "{misfit:?}");
        assert_eq!(changed, map);
    }
}

#[test]
fn a_cut_that_was_made_is_told_from_every_other_one() {
    let mut map = map_cut_at(&["m"]);
    let made = change(&map);
    map.change(&made).unwrap();
    let others = [
        MapChange { parent: ShardId(2), ..made.clone() },
        MapChange { parent: ShardId(5), ..made.clone() },
        MapChange { at: blob("d"), ..made.clone() },
        MapChange { epoch: ShardEpoch(3), ..made.clone() },
    ];
    for other in others {
        assert_eq!(map.halves(&other), Err(NeverFits::ChildTaken.into()), "{other:?}");
    }
    for (parent, at, child) in [(9, "d", 10), (1, "b", 11)] {
        let again = MapChange {
            version: map.version + 1,
            parent: ShardId(parent),
            at: blob(at),
            child: ShardId(child),
            epoch: ShardEpoch(3),
            ..made.clone()
        };
        assert_eq!(map.halves(&made), Err(Misfit::InForce));
        map.change(&again).unwrap();
    }
    assert_eq!(map.halves(&made), Err(Misfit::InForce));
}

#[test]
fn a_map_of_the_last_version_takes_no_change() {
    let mut map = map_cut_at(&["m"]);
    let change = MapChange { version: 0, ..change(&map) };
    map.version = u64::MAX;
    assert_eq!(map.change(&change), Err(Misfit::OtherVersion));
}

/// What counts for nothing could be sent in any number, and the entries and
/// rows that it is ordered in would exceed what a log and an engine take.
#[test]
fn a_footprint_of_empty_keys_counts_for_what_it_takes() {
    use quorate_calvin::limits::CALL_BYTES_MAX;
    use quorate_calvin::{Access, Call, Footprint, RangeAccess};
    let access = RangeAccess { range: KeyRange::all(), access: Access::Read };
    let ranges = Footprint { ranges: vec![access; 700_000].into(), ..Footprint::default() };
    let keys = Footprint { reads: vec![Blob::new(); 1_800_000].into(), ..Footprint::default() };
    for footprint in [ranges, keys] {
        let call = Call { procedure: 0, args: Blob::new(), footprint };
        let encoded_bytes = quorate_types::codec::encode(&call).len();
        assert!(encoded_bytes > 3 << 20, "{encoded_bytes} bytes");
        assert!(call.payload_bytes() > CALL_BYTES_MAX);
    }
}
