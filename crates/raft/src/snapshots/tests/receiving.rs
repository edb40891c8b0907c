//! What a replica answers to messages of which each was made by hand.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{Blob, GroupId, NodeId, ReplicaId};

use super::support::{Network, TestNode, config, simulate};
use crate::config::HostConfig;
use crate::consensus::wire::{
    Body, Message, Refusal, Reply, SnapshotBegin, SnapshotChunk, SnapshotEnd, TransferId, host_row,
    seeded_host_row,
};
use crate::log::{LogPosition, Vote};

const SENDER: ReplicaId = ReplicaId(12);

fn transfer(term: u64, number: u64) -> TransferId {
    TransferId { term, number }
}

fn vote(term: u64) -> Vote {
    Vote { term, candidate: SENDER, committed: true }
}

/// A node with an empty replica of each of these groups, which somebody sends
/// snapshots.
struct Follower {
    node: TestNode,
}

impl Follower {
    async fn of(groups: &[u64], config: HostConfig) -> Self {
        let mut node = TestNode::start_with(1, &Network::default(), config);
        for &group in groups {
            node.create(group, group * 10 + 1).await;
        }
        Self { node }
    }

    async fn new() -> Self {
        Self::of(&[1], config()).await
    }

    async fn tell(&self, group: u64, body: Body<'_>) -> Reply {
        let to = ReplicaId(group * 10 + 1);
        let message = Message { group: GroupId(group), from: SENDER, to, body };
        let reply = self.node.host.handle(NodeId(2), message.to_bytes()).await.unwrap();
        Reply::from_bytes(&reply).unwrap()
    }

    async fn begin(&self, group: u64, transfer: TransferId) -> Reply {
        let members = [(ReplicaId(11), NodeId(1)), (SENDER, NodeId(2))];
        let row = crate::consensus::wire::open_host_row(&seeded_host_row(&members)).unwrap();
        let at = LogPosition { term: transfer.term, index: 500 };
        let host_row = Blob(host_row(at, &row.last_membership));
        let begin = SnapshotBegin { transfer, vote: vote(transfer.term), host_row };
        self.tell(group, Body::SnapshotBegin(begin)).await
    }

    async fn chunk(&self, transfer: TransferId, sequence: u32) -> Reply {
        self.tell(1, Body::SnapshotChunk(chunk(transfer, sequence))).await
    }

    async fn end(&self, transfer: TransferId, chunks: u32, crc32c: u32) -> Reply {
        self.tell(1, Body::SnapshotEnd(SnapshotEnd { transfer, chunks, crc32c })).await
    }

    fn receiving(&self) -> u64 {
        self.node.host.metrics().snapshots_receiving
    }
}

/// A chunk of one command, its own number.
fn bytes_of(sequence: u32) -> Bytes {
    let command = sequence.to_string();
    let mut bytes = BytesMut::new();
    bytes.put_u32(command.len() as u32);
    bytes.put_slice(command.as_bytes());
    bytes.freeze()
}

fn chunk(transfer: TransferId, sequence: u32) -> SnapshotChunk {
    let bytes = bytes_of(sequence);
    SnapshotChunk { transfer, sequence, crc32c: crc32c::crc32c(&bytes), bytes: Blob(bytes) }
}

fn whole(chunks: u32) -> u32 {
    (0..chunks).fold(0, |sum, sequence| crc32c::crc32c_append(sum, &bytes_of(sequence)))
}

fn lost() -> Reply {
    Reply::Refused(Refusal::LostTransfer)
}

#[test]
fn a_transfer_that_begins_again_has_what_was_taken() {
    simulate(async {
        let (follower, id) = (Follower::new().await, transfer(3, 1));
        assert_eq!(follower.begin(1, id).await, Reply::SnapshotHeld(0));
        assert_eq!(follower.chunk(id, 0).await, Reply::SnapshotHeld(1));
        assert_eq!(follower.chunk(id, 1).await, Reply::SnapshotHeld(2));
        assert_eq!(follower.begin(1, id).await, Reply::SnapshotHeld(2));
        assert_eq!(follower.chunk(id, 2).await, Reply::SnapshotHeld(3));
        let status = follower.node.host.statuses();
        assert_eq!(status[0].snapshot_bytes, Some(3 * 5));
        assert_eq!(follower.end(id, 3, whole(3)).await, Reply::SnapshotInstalled(vote(3)));
        assert_eq!(follower.node.tape(1), ["0", "1", "2"]);
        assert_eq!(follower.node.host.statuses()[0].snapshot_bytes, None);
    });
}

#[test]
fn copies_and_chunks_out_of_order_are_not_written() {
    simulate(async {
        let (follower, id) = (Follower::new().await, transfer(3, 1));
        follower.begin(1, id).await;
        assert_eq!(follower.chunk(id, 1).await, Reply::SnapshotHeld(0), "the first is missing");
        follower.chunk(id, 0).await;
        assert_eq!(follower.chunk(id, 0).await, Reply::SnapshotHeld(1), "it came before");
        follower.chunk(id, 1).await;
        assert_eq!(follower.chunk(id, 0).await, Reply::SnapshotHeld(2), "it comes late");
        assert_eq!(follower.end(id, 2, whole(2)).await, Reply::SnapshotInstalled(vote(3)));
        assert_eq!(follower.node.tape(1), ["0", "1"]);
        // The same once more, when all is over.
        assert_eq!(follower.begin(1, id).await, Reply::SnapshotInstalling);
        assert_eq!(follower.chunk(id, 1).await, lost());
        assert_eq!(follower.end(id, 2, whole(2)).await, Reply::SnapshotInstalled(vote(3)));
        assert_eq!(follower.node.tape(1), ["0", "1"]);
    });
}

#[test]
fn a_damaged_chunk_is_refused_and_nothing_is_lost() {
    simulate(async {
        let (follower, id) = (Follower::new().await, transfer(3, 1));
        follower.begin(1, id).await;
        follower.chunk(id, 0).await;
        let damaged = SnapshotChunk { bytes: Blob(bytes_of(7)), ..chunk(id, 1) };
        let refused = follower.tell(1, Body::SnapshotChunk(damaged)).await;
        assert_eq!(refused, Reply::Refused(Refusal::DamagedChunk));
        assert_eq!(follower.chunk(id, 1).await, Reply::SnapshotHeld(2));
        assert_eq!(follower.node.host.metrics().snapshot_chunks_damaged, 1);
        assert_eq!(follower.end(id, 2, whole(2)).await, Reply::SnapshotInstalled(vote(3)));
    });
}

#[test]
fn a_whole_that_is_not_what_was_sent_is_not_installed() {
    for (chunks, sum) in [(2, whole(1)), (3, whole(2)), (1, whole(1))] {
        simulate(async move {
            let (follower, id) = (Follower::new().await, transfer(3, 1));
            follower.begin(1, id).await;
            follower.chunk(id, 0).await;
            follower.chunk(id, 1).await;
            assert_eq!(follower.end(id, chunks, sum).await, lost());
            assert_eq!(follower.end(id, 2, whole(2)).await, lost(), "it is gone");
            assert_eq!(follower.node.tape(1), Vec::<Bytes>::new());
            assert_eq!(follower.receiving(), 0);
        });
    }
}

#[test]
fn a_later_leader_displaces_and_is_not_displaced() {
    simulate(async {
        let follower = Follower::new().await;
        let (former, later) = (transfer(3, 9), transfer(4, 1));
        follower.begin(1, former).await;
        follower.chunk(former, 0).await;
        assert_eq!(follower.begin(1, later).await, Reply::SnapshotHeld(0));
        assert_eq!(follower.receiving(), 1, "there is one for each replica");
        assert_eq!(follower.chunk(former, 1).await, lost());
        assert_eq!(follower.begin(1, former).await, Reply::HigherVote(vote(4)));
        assert_eq!(follower.begin(1, transfer(3, 10)).await, Reply::HigherVote(vote(4)));
        assert_eq!(follower.chunk(later, 0).await, Reply::SnapshotHeld(1));
        assert_eq!(follower.end(former, 2, whole(2)).await, lost());
        assert_eq!(follower.end(later, 1, whole(1)).await, Reply::SnapshotInstalled(vote(4)));
        assert_eq!(follower.node.tape(1), ["0"]);
    });
}

#[test]
fn a_leader_that_begins_anew_is_not_held_up_by_copies_of_what_it_gave_up() {
    simulate(async {
        let follower = Follower::new().await;
        let (given_up, current) = (transfer(3, 1), transfer(3, 2));
        follower.begin(1, given_up).await;
        follower.chunk(given_up, 0).await;
        assert_eq!(follower.begin(1, current).await, Reply::SnapshotHeld(0));
        assert_eq!(follower.begin(1, given_up).await, lost());
        assert_eq!(follower.chunk(given_up, 1).await, lost());
        assert_eq!(follower.chunk(current, 0).await, Reply::SnapshotHeld(1));
    });
}

#[test]
fn a_replica_that_is_in_a_later_term_takes_no_more_chunks() {
    simulate(async {
        let (follower, id) = (Follower::new().await, transfer(3, 1));
        follower.begin(1, id).await;
        follower.chunk(id, 0).await;
        let call = crate::consensus::wire::VoteCall {
            vote: Vote { term: 5, candidate: ReplicaId(13), committed: false },
            last: Some(LogPosition { term: 4, index: 900 }),
            is_transfer: false,
        };
        let voted = follower.tell(1, Body::Vote(call)).await;
        assert!(matches!(&voted, Reply::Voted(voted) if voted.granted), "{voted:?}");
        let refused = follower.chunk(id, 1).await;
        assert!(matches!(refused, Reply::HigherVote(vote) if vote.term == 5), "{refused:?}");
        assert_eq!(follower.receiving(), 0, "it is dropped");
    });
}

#[test]
fn what_is_kept_of_snapshots_is_bounded_and_does_not_stay() {
    simulate(async {
        let room = config().snapshots_receiving_max as u64;
        let groups: Vec<u64> = (1..=room + 1).collect();
        let follower = Follower::of(&groups, config()).await;
        for &group in &groups[..groups.len() - 1] {
            for number in 1..=3 {
                let begun = follower.begin(group, transfer(3, number)).await;
                assert_eq!(begun, Reply::SnapshotHeld(0));
            }
        }
        assert_eq!(follower.receiving(), room);
        let refused = follower.begin(room + 1, transfer(3, 1)).await;
        assert_eq!(refused, Reply::Refused(Refusal::Busy));
        // One of them goes on, the others are given up.
        let half = config().snapshot_staging_idle_max / 2;
        for sequence in 0..4 {
            tokio::time::sleep(half).await;
            assert_eq!(
                follower.chunk(transfer(3, 3), sequence).await,
                Reply::SnapshotHeld(sequence + 1)
            );
        }
        assert_eq!(follower.receiving(), 1);
        assert_eq!(follower.begin(2, transfer(3, 3)).await, lost(), "it begins once");
        tokio::time::sleep(4 * half).await;
        assert_eq!(follower.receiving(), 0);
        assert_eq!(follower.begin(room + 1, transfer(3, 1)).await, Reply::SnapshotHeld(0));
    });
}

#[test]
fn a_follower_that_was_started_again_begins_at_the_beginning() {
    simulate(async {
        let (mut follower, id) = (Follower::new().await, transfer(3, 1));
        follower.begin(1, id).await;
        follower.chunk(id, 0).await;
        follower.node.crash_and_restart().await;
        follower.node.create(1, 11).await;
        assert_eq!(follower.chunk(id, 1).await, lost());
        assert_eq!(follower.begin(1, id).await, Reply::SnapshotHeld(0));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(follower.node.tape(1), Vec::<Bytes>::new());
    });
}
