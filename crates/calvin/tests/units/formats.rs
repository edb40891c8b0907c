//! Bytes from logs, disks and peers; and the map.

use proptest::prelude::*;
use quorate_calvin::sequencer::{SequencerHalt, SequencerMachine};
use quorate_calvin::shard::rows::header_key;
use quorate_calvin::shard::{Halt, ShardMachine};
use quorate_calvin::{
    Direct, MapChange, PeerMessage, Reply, Request, SequencerBatch, SequencerCommand, ShardCommand,
    ShardMap, Slice, SliceBody, Submission, WriteSet,
};
use quorate_types::codec::CodecError;
use quorate_types::{Blob, Epoch, KeyRange, Seq, ShardEpoch, ShardId};
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
        members: Seq::new(),
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
                members: Seq::new(),
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
        members: Seq::new(),
        epoch: ShardEpoch(2),
    }
}

#[test]
fn a_change_that_does_not_fit_leaves_the_map_alone() {
    let map = map_cut_at(&["m"]);
    let fits = change(&map);
    let misfits = [
        MapChange { version: 7, ..fits.clone() },
        MapChange { child: ShardId(2), ..fits.clone() },
        MapChange { parent: ShardId(5), ..fits.clone() },
        MapChange { at: blob("z"), ..fits.clone() },
        MapChange { epoch: ShardEpoch(1), ..fits },
    ];
    for misfit in misfits {
        let mut changed = map.clone();
        assert!(changed.change(&misfit).is_err(), "{misfit:?}");
        assert_eq!(changed, map);
    }
}
