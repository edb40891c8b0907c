//! Receives what peers send and passes it on to the replica.

use std::sync::Arc;

use openraft::errors::RaftError as CoreError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use tokio::sync::Semaphore;

use crate::consensus::types::{RaftEntry, TypeConfig, log_id, our_vote, position, raft_vote};
use crate::consensus::wire::{
    Append, Body, Refusal, Reply, Transfer, VoteCall, Voted, from_log_entry,
};
use crate::group::Group;
use crate::log::{LogEntry, LogPosition};
use crate::packing::Packing;
use crate::quiescence::Arrival;
use crate::snapshots::receiving;

/// Answers a message that is addressed to `group`'s replica.
pub(crate) async fn answer(
    group: &Group,
    room: &Arc<Semaphore>,
    body: Body<'_>,
    arrival: Arrival,
) -> Reply {
    if let Some(reply) = group.stir(&body) {
        return reply;
    }
    match body {
        Body::Append(append) => {
            let reply = append_entries(group, append).await;
            if matches!(reply, Reply::Appended | Reply::AppendedPartly(_) | Reply::AppendConflict) {
                group.note_leader(arrival);
            }
            reply
        }
        Body::Vote(call) => {
            let result = group.raft().vote(vote_request(&call)).await;
            voted(result)
        }
        Body::PreVote(call) => {
            let result = group.raft().pre_vote(vote_request(&call)).await;
            voted(result)
        }
        Body::Transfer(transfer) => transfer_leader(group, transfer).await,
        Body::SnapshotBegin(begin) => receiving::begin(group, room, begin).await,
        Body::SnapshotChunk(chunk) => receiving::chunk(group, chunk).await,
        Body::SnapshotEnd(end) => receiving::end(group, end).await,
        Body::Wake => {
            group.wake_in_background();
            Reply::Woken
        }
    }
}

/// The entries, if they are what a leader may send: consecutive, behind
/// `previous`, terms never falling, and an index left for what follows.
pub(crate) fn entries_of(append: Append<'_>) -> Option<Vec<RaftEntry>> {
    let mut last = append.previous;
    let next_index = |last: Option<LogPosition>| match last {
        Some(last) => last.index.checked_add(1),
        None => Some(0),
    };
    let mut entries = Vec::with_capacity(append.entries.len());
    let mut packing = Packing::of(append.entries.iter().map(|entry| entry.payload.0.len()));
    for entry in append.entries {
        let expected = next_index(last)?;
        let term_min = last.map_or(0, |last| last.term);
        if entry.position.index != expected || entry.position.term < term_min {
            return None;
        }
        last = Some(entry.position);
        let payload = packing.copy(&entry.payload.0);
        let stored = LogEntry { position: entry.position, payload };
        entries.push(from_log_entry(stored).ok()?);
    }
    next_index(last).map(|_| entries)
}

async fn append_entries(group: &Group, append: Append<'_>) -> Reply {
    let vote = raft_vote(append.vote);
    let prev_log_id = append.previous.map(log_id);
    let leader_commit = append.committed.map(log_id);
    let Some(entries) = entries_of(append) else {
        return Reply::Refused(Refusal::Malformed);
    };
    let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
    match group.raft().append_entries(request).await {
        Ok(AppendEntriesResponse::Success) => Reply::Appended,
        Ok(AppendEntriesResponse::PartialSuccess(upto)) => {
            Reply::AppendedPartly(upto.as_ref().map(position))
        }
        Ok(AppendEntriesResponse::Conflict) => Reply::AppendConflict,
        Ok(AppendEntriesResponse::HigherVote(vote)) => Reply::HigherVote(our_vote(&vote)),
        Err(_) => Reply::Refused(Refusal::Halted),
    }
}

fn vote_request(call: &VoteCall) -> VoteRequest<TypeConfig> {
    let mut request = VoteRequest::new(raft_vote(call.vote), call.last.map(log_id));
    request.leadership_transfer = call.is_transfer;
    request
}

fn voted(result: Result<VoteResponse<TypeConfig>, CoreError<TypeConfig>>) -> Reply {
    match result {
        Ok(response) => Reply::Voted(Voted {
            vote: our_vote(&response.vote),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(position),
        }),
        Err(_) => Reply::Refused(Refusal::Halted),
    }
}

async fn transfer_leader(group: &Group, transfer: Transfer) -> Reply {
    let request = TransferLeaderRequest::new(
        raft_vote(transfer.vote),
        transfer.to.0,
        transfer.last.map(log_id),
    );
    match group.raft().handle_transfer_leader(request).await {
        Ok(Ok(())) => Reply::TransferAccepted,
        Ok(Err(TransferLeaderError::VoteChanged { actual, .. })) => {
            Reply::TransferVoteChanged(our_vote(&actual))
        }
        Ok(Err(TransferLeaderError::LogNotFlushed { actual, .. })) => {
            Reply::TransferLogBehind(actual.as_ref().map(position))
        }
        Err(_) => Reply::Refused(Refusal::Halted),
    }
}
