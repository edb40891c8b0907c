//! What comes over a wire, out of a log or off a disk.

use std::fmt::Debug;
use std::sync::Arc;

use quorate_calvin::kv::{Answer, KeyValue, Transaction};
use quorate_calvin::sequencer::{SequencerMachine, Watermarks};
use quorate_calvin::shard::rows::DataRow;
use quorate_calvin::shard::{ShardMachine, Verdict};
use quorate_calvin::{
    Call, Inputs, MapChange, Member, PeerMessage, Procedures, Reply, Request, SequencerBatch,
    SequencerCommand, ShardCommand, ShardMap, Submission, limits,
};
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::codec::{CodecError, encode};
use quorate_types::{
    Blob, ClientId, Epoch, KeyRange, NodeId, ReplicaId, RequestId, ShardEpoch, ShardId, TxnId,
};

use super::story::{self, Replica};
use crate::support::map_cut_at;
use crate::support::procedures::Service;
use crate::support::store::MemStore;

/// Elements that are two or three bytes on a wire are up to a hundred in
/// memory: keys, participants, reads.
const BYTES_PER_BYTE: usize = 64;

/// Decodes, and if that succeeds finds the same value in its encoding.
fn round_trip<T: PartialEq + Debug>(
    input: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, CodecError>,
    encode: impl Fn(&T) -> bytes::Bytes,
) {
    if let Ok(value) = fuzz::frugal_by(BYTES_PER_BYTE, input.len(), || decode(input)) {
        assert_eq!(decode(&encode(&value)).unwrap(), value);
    }
}

/// Histories of a shard, for real commands of every kind.
fn shard_commands() -> Vec<ShardCommand> {
    let mut commands = Vec::new();
    for seed in 0..40_u64 {
        let bytes: Vec<u8> = (0..600_u64)
            .map(|at| (at.wrapping_add(seed << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect();
        let machine = Replica::seeded(ShardId(1), KeyRange::all()).machine;
        commands.push(story::shard_command(&mut Choices::new(&bytes), &machine));
    }
    commands
}

fn calls() -> Vec<Call> {
    let calls = shard_commands().into_iter().filter_map(|command| match command {
        ShardCommand::Direct(direct) => Some(direct.call),
        _ => None,
    });
    calls.collect()
}

fn slices() -> Vec<quorate_calvin::Slice> {
    let slices = shard_commands().into_iter().filter_map(|command| match command {
        ShardCommand::Slices(slices) => Some(slices.0),
        _ => None,
    });
    slices.flatten().collect()
}

fn request() -> RequestId {
    RequestId { client: ClientId(1), sequence: 2, birth: Epoch(3), ack_below: 1 }
}

fn change() -> MapChange {
    MapChange {
        version: 2,
        parent: ShardId(1),
        at: "m".into(),
        child: ShardId(2),
        members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }].into(),
        epoch: ShardEpoch(2),
    }
}

fn submissions() -> Vec<Submission> {
    calls().into_iter().map(|call| Submission { request: request(), call }).collect()
}

fn sequencer_commands() -> Vec<SequencerCommand> {
    let txns = submissions();
    let batch = SequencerBatch { time_millis: 5, seed: 6, done: Epoch(4), txns: txns.into() };
    vec![
        SequencerCommand::Init { map: map_cut_at(&["b", "m"]), retention_millis: 1_000 },
        SequencerCommand::Batch(batch),
        SequencerCommand::Change { change: change(), time_millis: 9 },
    ]
}

#[test]
fn any_bytes_are_a_shard_command_or_none() {
    let corpus = Corpus::of(shard_commands().iter().map(ShardCommand::to_bytes));
    fuzz!(corpus, |input| round_trip(input, ShardCommand::from_bytes, ShardCommand::to_bytes));
}

#[test]
fn any_bytes_are_a_sequencer_command_or_none() {
    let corpus = Corpus::of(sequencer_commands().iter().map(SequencerCommand::to_bytes));
    fuzz!(corpus, |input| {
        round_trip(input, SequencerCommand::from_bytes, SequencerCommand::to_bytes);
    });
}

#[test]
fn any_bytes_are_a_message_of_a_peer_or_none() {
    let (to, from) = (ShardId(1), ShardId(2));
    let txn = TxnId { epoch: Epoch(9), position: 3 };
    let drawn: Vec<u8> = (0..200_u8).map(|byte| byte.wrapping_mul(73)).collect();
    let contribution = story::some_contribution(&mut Choices::new(&drawn));
    let messages = [
        PeerMessage::Contribute { to, from, txn, contribution },
        PeerMessage::Ask { to, from, txn },
        PeerMessage::Slices { to, slices: slices().into() },
        PeerMessage::Report { shard: from, cursor: Epoch(300), done: Epoch(200) },
        PeerMessage::Watermarks { leader: NodeId(7), marks: Watermarks::default() },
    ];
    fuzz!(Corpus::of(messages.iter().map(PeerMessage::to_bytes)), |input| {
        round_trip(input, PeerMessage::from_bytes, PeerMessage::to_bytes);
    });
}

#[test]
fn any_bytes_are_a_request_or_none() {
    let shard = ShardId(1);
    let txn = TxnId { epoch: Epoch(9), position: 3 };
    let (epoch, request) = (ShardEpoch(3), request());
    let executes = calls()
        .into_iter()
        .map(|call| Request::Execute(quorate_calvin::Execute { shard, epoch, request, call }));
    let submits = submissions().into_iter().map(Request::Submit);
    let others = [
        Request::Await { shard, request, txn },
        Request::Fence { shard, request, home: "k".into() },
        Request::Slices { shard, after: Epoch(5) },
        Request::Change(change()),
        Request::Map,
        Request::Keys { shard, from: "a".into(), limit: 1_000 },
        Request::MiddleKey(shard),
    ];
    let requests: Vec<Request> = executes.chain(submits).chain(others).collect();
    fuzz!(Corpus::of(requests.iter().map(Request::to_bytes)), |input| {
        round_trip(input, Request::from_bytes, Request::to_bytes);
    });
}

#[test]
fn any_bytes_are_a_reply_or_none() {
    let replies = [
        Reply::Verdict(Verdict::Done("result".into())),
        Reply::Verdict(Verdict::Aborted("why".into())),
        Reply::Ordered { txn: TxnId { epoch: Epoch(9), position: 3 }, home: ShardId(2) },
        Reply::Slices(slices().into()),
        Reply::Keys(vec!["a".into(), "b".into()].into(), Some("c".into())),
        Reply::Changed(Epoch(7)),
        Reply::Map(map_cut_at(&["b", "m"])),
        Reply::NotLeader(Some(NodeId(2))),
        Reply::Busy("full".into()),
        Reply::Gone,
        Reply::MiddleKey(None),
    ];
    fuzz!(Corpus::of(replies.iter().map(Reply::to_bytes)), |input| {
        round_trip(input, Reply::from_bytes, Reply::to_bytes);
    });
}

/// What limits count of a call bounds its encoding: otherwise a call that was
/// admitted could exceed the entry or the row that it is ordered in.
#[test]
fn no_call_is_longer_than_limits_count() {
    let seal = |call: &Call| encode(call);
    fuzz!(Corpus::of(calls().iter().map(seal)), |input| {
        let Ok(call) = quorate_types::codec::decode::<Call>(input) else { return };
        let encoded_bytes = encode(&call).len();
        let constant_bytes = 64;
        assert!(
            encoded_bytes <= call.payload_bytes() + constant_bytes,
            "{encoded_bytes} bytes count for {}",
            call.payload_bytes()
        );
    });
}

#[test]
fn any_bytes_are_arguments_of_the_key_value_procedure_or_none() {
    let transactions = [
        Transaction::new().get("a").get("a").put("b", "1").delete("c"),
        Transaction::new().expect("a", None).expect("b", Some("2".into())).put("a", "3"),
    ];
    let calls: Vec<Call> = transactions.iter().map(Transaction::call).collect();
    let read = |key: &str, value: Vec<u8>| quorate_calvin::Read {
        key: key.into(),
        version: 1,
        value: Some(value.into()),
        expires_millis: None,
    };
    let reads = [read("a", vec![b'x'; 100_000]), read("b", b"2".to_vec())];
    let inputs = Inputs {
        reads: reads.into_iter().map(|read| (read.key.clone(), read)).collect(),
        scans: Vec::new(),
    };
    fuzz!(Corpus::of(calls.iter().map(|call| &*call.args)), |input| {
        let call = Call { args: input.into(), ..calls[0].clone() };
        let run = || KeyValue.run(&call, &inputs, 0, 0);
        let outcome = run();
        assert!(outcome.result.len() <= limits::READ_RESULT_BYTES_MAX + input.len() + 64);
        assert_eq!(run(), outcome, "deterministic");
        let _ = Answer::of(input);
    });
}

/// The rows of a shard with something of every kind.
fn shard_rows() -> Vec<(Blob, Blob)> {
    let mut rows = Vec::new();
    for command in [0_u64, 1, 2, 3, 4, 5] {
        let bytes: Vec<u8> = (0..4_000_u64)
            .map(|at| {
                (at.wrapping_add(command << 30).wrapping_mul(0xD134_2543_DE82_EF95) >> 56) as u8
            })
            .collect();
        let mut choices = Choices::new(&bytes);
        let mut replica = Replica::seeded(ShardId(1), KeyRange::all());
        for index in 1..40 {
            let entry = story::shard_command(&mut choices, &replica.machine).to_bytes().to_vec();
            if replica.apply(index, &[entry]).is_err() {
                break;
            }
        }
        rows.extend(replica.store.rows().system);
    }
    rows
}

/// A row changed behind its checksum, which the store verifies, is refused or
/// taken; a machine that loads goes on.
#[test]
fn any_system_rows_are_a_shard_or_none() {
    let rows = shard_rows();
    let joined = rows.iter().map(|(key, row)| [&[key.len() as u8][..], key, row].concat());
    let header = ShardMachine::seed(KeyRange::all(), ShardEpoch(1));
    fuzz!(Corpus::of(joined), |input| {
        let (len, rest) = input.split_first().unwrap_or((&0, &[]));
        let (key, row) = rest.split_at(usize::from(*len).min(rest.len()));
        let store =
            MemStore::seeded(header.iter().cloned().chain([(key.into(), row.into())]).collect());
        let Ok(Some(machine)) = ShardMachine::load(ShardId(1), Arc::new(Service), &store) else {
            return;
        };
        let _ = (machine.done(), machine.pending_count(), machine.awaiting_inputs().count());
        let _ = DataRow::from_blob(&row.into());
    });
}

#[test]
fn any_system_rows_are_a_sequencer_or_none() {
    let store = MemStore::default();
    let mut machine = SequencerMachine::load(&store, 0).unwrap();
    for (index, command) in (1..).zip(sequencer_commands()) {
        let mut writes = quorate_calvin::WriteSet::default();
        machine.apply(&mut writes, index, Some(&command.to_bytes())).unwrap();
        machine.finish(&mut writes);
        store.commit_at(index, writes);
    }
    let rows = store.rows().system;
    let joined = rows.iter().map(|(key, row)| [&[key.len() as u8][..], key, row].concat());
    fuzz!(Corpus::of(joined), |input| {
        let (len, rest) = input.split_first().unwrap_or((&0, &[]));
        let (key, row) = rest.split_at(usize::from(*len).min(rest.len()));
        let store = MemStore::seeded(vec![(key.into(), row.into())]);
        let Ok(machine) = SequencerMachine::load(&store, 9) else { return };
        let _ = (machine.map().map(ShardMap::is_partition), machine.slice_count());
    });
}
