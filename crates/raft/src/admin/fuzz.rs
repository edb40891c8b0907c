//! What is asked of a group's leader, from anywhere.
#![allow(clippy::unwrap_used)]

use quorate_testkit::fuzz;
use quorate_testkit::fuzz::Corpus;
use quorate_types::membership::{Fence, GroupProgress, MemberProgress, VoterChange};
use quorate_types::{GroupId, MigrationId, NodeId, ReplicaId};

use super::wire::{AdminReply, AdminRequest, MemberChange, Task};

#[test]
fn any_bytes_are_a_request_or_none() {
    let (replica, node) = (ReplicaId(12), NodeId(2));
    let change = VoterChange { add: Some(replica), remove: Some(ReplicaId(3)) };
    let tasks = [
        Task::Progress,
        Task::Change(MemberChange::AddLearner(replica, node)),
        Task::Change(MemberChange::Voters(change)),
        Task::Change(MemberChange::RemoveLearner(replica)),
        Task::Transfer(replica),
        Task::Destroy(replica),
    ];
    let fence = Fence { migration: MigrationId(9), term: 3, attempt: 1 };
    let requests = tasks
        .map(|task| AdminRequest { group: GroupId(70_000), task, fence: Some(fence) }.to_bytes());
    fuzz!(Corpus::of(requests), |input| {
        if let Ok(request) = fuzz::frugal(input.len(), || AdminRequest::from_bytes(input)) {
            assert_eq!(AdminRequest::from_bytes(&request.to_bytes()).unwrap(), request);
        }
    });
}

#[test]
fn any_bytes_are_a_reply_or_none() {
    let member =
        MemberProgress { replica: ReplicaId(4), is_voter: true, matched: 900, is_fresh: false };
    let progress = GroupProgress {
        leader: ReplicaId(4),
        last_log: 901,
        members: vec![member; 3].into(),
        outgoing: Some(vec![ReplicaId(5)].into()),
    };
    let replies = [
        AdminReply::Progress(progress),
        AdminReply::Transferred(1_000),
        AdminReply::NotLeader(Some(NodeId(1))),
        AdminReply::Refused("no".into()),
        AdminReply::Fenced,
    ];
    fuzz!(Corpus::of(replies.iter().map(AdminReply::to_bytes)), |input| {
        if let Ok(reply) = fuzz::frugal(input.len(), || AdminReply::from_bytes(input)) {
            assert_eq!(AdminReply::from_bytes(&reply.to_bytes()).unwrap(), reply);
        }
    });
}
