//! What replicas say to each other and what is stored for them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::{Blob, GroupId, NodeId, ReplicaId, Seq};

use super::tests::support::{Network, TestNode, seeded_cluster, simulate};
use super::types::{Member, Membership, StoredMembership, log_id, position};
use super::wire::{
    Append, Body, Message, Refusal, Reply, SnapshotBegin, SnapshotChunk, SnapshotEnd, Transfer,
    TransferId, VoteCall, Voted, WireEntry, WirePayload, from_log_entry, host_row, open_host_row,
    seeded_host_row, to_log_entry,
};
use crate::host_row_index;
use crate::inbox::entries_of;
use crate::log::{LogEntry, LogPosition, Vote};
use crate::quiescence::{Claim, Heard};

quorate_testkit::fuzz_allocator!();

/// Positions and members are a few bytes on the wire and up to sixty in
/// memory.
const BYTES_PER_BYTE: usize = 32;

const GROUP: GroupId = GroupId(1);
const OWN: ReplicaId = ReplicaId(11);
const LEADER: ReplicaId = ReplicaId(12);

fn vote(term: u64) -> Vote {
    Vote { term, candidate: LEADER, committed: true }
}

fn at(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

fn members() -> [(ReplicaId, NodeId); 3] {
    [(OWN, NodeId(1)), (LEADER, NodeId(2)), (ReplicaId(13), NodeId(3))]
}

/// An entry of each kind.
fn payloads() -> Vec<Bytes> {
    let nodes: BTreeMap<u64, Member> =
        members().map(|(replica, node)| (replica.0, node.into())).into();
    let joint = Membership::new(vec![[11, 12].into(), [12, 13].into()], nodes);
    let membership = openraft::EntryPayload::Membership(joint.unwrap());
    let entry = super::types::RaftEntry { log_id: log_id(at(2, 12)), payload: membership };
    let command = Bytes::from_static(b"\x02a command");
    vec![Bytes::from_static(&[1]), command, to_log_entry(entry).payload]
}

fn append() -> Append<'static> {
    let wire = |(index, payload): (u64, Bytes)| WireEntry {
        position: at(2, index),
        payload: WirePayload(Vec::from(payload).into()),
    };
    Append {
        vote: vote(2),
        previous: Some(at(1, 10)),
        committed: Some(at(1, 10)),
        entries: (11..).zip(payloads()).map(wire).collect(),
    }
}

fn bodies() -> Vec<Body<'static>> {
    let call = VoteCall { vote: vote(3), last: Some(at(1, 10)), is_transfer: false };
    let row = Blob(seeded_host_row(&members()));
    let transfer = TransferId { term: 2, number: 5 };
    vec![
        Body::Append(append()),
        Body::Append(Append { entries: Seq::new(), ..append() }),
        Body::Vote(call.clone()),
        Body::PreVote(VoteCall { is_transfer: true, ..call }),
        Body::Transfer(Transfer { vote: vote(2), to: OWN, last: None }),
        Body::SnapshotBegin(SnapshotBegin { transfer, vote: vote(2), host_row: row }),
        Body::SnapshotChunk(SnapshotChunk {
            transfer,
            sequence: 0,
            crc32c: crc32c::crc32c(b""),
            bytes: Blob::new(),
        }),
        Body::SnapshotEnd(SnapshotEnd { transfer, chunks: 1, crc32c: 0 }),
        Body::Wake,
    ]
}

fn message(body: Body<'_>) -> Message<'_> {
    Message { group: GROUP, from: LEADER, to: OWN, body }
}

#[test]
fn any_bytes_are_a_message_or_none() {
    let messages: Vec<Bytes> = bodies().into_iter().map(|body| message(body).to_bytes()).collect();
    fuzz!(Corpus::of(messages), |input| {
        let read = fuzz::frugal_by(BYTES_PER_BYTE, input.len(), || Message::from_bytes(input));
        let Ok(read) = read else { return };
        assert_eq!(Message::from_bytes(&read.to_bytes()).unwrap(), read);
        let Body::Append(append) = read.body else { return };
        let (first, count) = (append.previous, append.entries.len() as u64);
        let Some(entries) = entries_of(append) else { return };
        // What a replica takes in is a log: consecutive, and not at its end.
        let indexes = entries.iter().map(|entry| position(&entry.log_id).index);
        let start = first.map_or(0, |first| first.index + 1);
        assert!(indexes.eq(start..start + count));
        assert!(start.checked_add(count).is_some());
    });
}

#[test]
fn any_bytes_are_a_reply_or_none() {
    let replies = [
        Reply::Refused(Refusal::OtherReplica(OWN)),
        Reply::Refused(Refusal::Malformed),
        Reply::Appended,
        Reply::AppendedPartly(Some(at(3, 400))),
        Reply::HigherVote(vote(9)),
        Reply::Voted(Voted { vote: vote(2), granted: true, last: Some(at(1, 10)) }),
        Reply::TransferLogBehind(None),
        Reply::Refused(Refusal::DamagedChunk),
        Reply::SnapshotHeld(70_000),
        Reply::SnapshotInstalling,
        Reply::SnapshotInstalled(vote(3)),
        Reply::Woken,
        Reply::BeatHeard(Heard {
            agrees: false,
            awake: Seq(vec![Claim { group: GROUP, term: 3 }]),
        }),
        Reply::Lulled(Seq(vec![true, false])),
        Reply::Heartbeats(Seq(vec![Blob(Reply::Appended.to_bytes()), Blob(Bytes::new())])),
    ];
    fuzz!(Corpus::of(replies.iter().map(Reply::to_bytes)), |input| {
        if let Ok(reply) = fuzz::frugal(input.len(), || Reply::from_bytes(input)) {
            assert_eq!(Reply::from_bytes(&reply.to_bytes()).unwrap(), reply);
        }
    });
}

#[test]
fn any_bytes_are_a_host_row_or_none() {
    let joint = openraft::StoredMembership::new(Some(log_id(at(1, 9))), Membership::default());
    let rows = [seeded_host_row(&members()), seeded_host_row(&[]), host_row(at(4, 70), &joint)];
    fuzz!(Corpus::of(rows), |input| {
        let row = fuzz::frugal_by(BYTES_PER_BYTE, input.len(), || open_host_row(input));
        assert_eq!(host_row_index(input).is_some(), row.is_ok());
        let Ok(meta) = row else { return };
        let applied = position(&meta.last_log_id.unwrap());
        assert!(applied.index < u64::MAX);
        let membership: &StoredMembership = &meta.last_membership;
        let again = open_host_row(&host_row(applied, membership)).unwrap();
        assert_eq!((again.last_log_id, &again.last_membership), (meta.last_log_id, membership));
    });
}

#[test]
fn any_bytes_are_an_entry_or_none() {
    fuzz!(Corpus::of(payloads()), |input| {
        let entry = LogEntry { position: at(3, 7), payload: Bytes::copy_from_slice(input) };
        let read = fuzz::frugal_by(BYTES_PER_BYTE, input.len(), || from_log_entry(entry.clone()));
        let Ok(read) = read else { return };
        let again = from_log_entry(to_log_entry(read.clone())).unwrap();
        assert_eq!((again.log_id, again.payload), (read.log_id, read.payload));
    });
}

/// A node that runs a replica of a group of three, alone.
async fn alone() -> TestNode {
    let network = Network::default();
    let mut nodes = seeded_cluster(&network, &[1]).await;
    network.isolate(NodeId(1));
    nodes.swap_remove(0)
}

/// Messages that no replica is to act on: for others, of others' formats, or
/// parts of a snapshot that nobody sends.
#[test]
fn messages_that_are_not_for_a_replica_are_refused_and_change_nothing() {
    let strange: Vec<Bytes> = bodies()
        .into_iter()
        .flat_map(|body| {
            let other_group = Message { group: GroupId(7), ..message(body.clone()) };
            let other_replica = Message { to: ReplicaId(99), ..message(body) };
            [other_group.to_bytes(), other_replica.to_bytes()]
        })
        .collect();
    fuzz!(Corpus::random(200), |input| {
        let mut choices = Choices::new(input);
        simulate(async {
            let node = alone().await;
            let group = node.host.group(GROUP).unwrap();
            while !choices.is_spent() {
                let payload = match choices.below(3) {
                    0 => Bytes::copy_from_slice(choices.bytes(60)),
                    1 => choices.pick(&strange).unwrap().clone(),
                    _ => {
                        let transfer = TransferId { term: choices.edge(), number: choices.edge() };
                        let sequence = choices.number() as u32;
                        let bytes = Blob::from(choices.bytes(20));
                        let (chunks, crc32c) = (sequence, crc32c::crc32c(&bytes));
                        message(if choices.flag() {
                            let chunk = SnapshotChunk { transfer, sequence, crc32c, bytes };
                            Body::SnapshotChunk(chunk)
                        } else {
                            Body::SnapshotEnd(SnapshotEnd { transfer, chunks, crc32c })
                        })
                        .to_bytes()
                    }
                };
                match node.host.handle(NodeId(2), payload).await {
                    Ok(reply) => {
                        let reply = Reply::from_bytes(&reply).unwrap();
                        assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
                    }
                    Err(error) => assert!(matches!(error, crate::RaftError::Malformed(_))),
                }
            }
            let status = group.status();
            assert_eq!((status.applied, status.last_log), (Some(10), Some(10)));
            node.host.shutdown().await.unwrap();
        });
    });
}
