//! Receives what peers send: finds the replica, passes the message on, puts
//! snapshots together.

use std::sync::Arc;
use std::time::Duration;

use openraft::Snapshot;
use openraft::errors::RaftError as CoreError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::consensus::applier::SnapshotData;
use crate::consensus::types::{
    RaftEntry, SnapshotMeta, TypeConfig, log_id, our_vote, position, raft_vote,
};
use crate::consensus::wire::{
    Append, Body, Refusal, Reply, SnapshotBegin, SnapshotChunk, SnapshotEnd, Transfer, VoteCall,
    Voted, from_log_entry, open_host_row,
};
use crate::group::Group;
use crate::log::{LogEntry, LogPosition};
use crate::machine::SnapshotWriter;

/// A snapshot that is being received.
struct Staging {
    transfer: u64,
    meta: SnapshotMeta,
    next_sequence: u32,
    writer: Box<dyn SnapshotWriter>,
    touched: Instant,
    _permit: OwnedSemaphorePermit,
}

/// A replica receives one snapshot at a time; a new transfer replaces the old.
#[derive(Default)]
pub(crate) struct StagingSlot(Mutex<Option<Staging>>);

impl StagingSlot {
    pub(crate) async fn clear(&self) {
        *self.0.lock().await = None;
    }

    /// Drops a transfer whose sender has gone silent.
    pub(crate) fn reap(&self, idle_max: Duration) {
        if let Ok(mut slot) = self.0.try_lock() {
            slot.take_if(|staging| staging.touched.elapsed() > idle_max);
        }
    }
}

/// Answers a message that is addressed to `group`'s replica.
pub(crate) async fn answer(group: &Group, receiving: &Arc<Semaphore>, body: Body) -> Reply {
    match body {
        Body::Append(append) => append_entries(group, append).await,
        Body::Vote(call) => {
            let result = group.raft().vote(vote_request(&call)).await;
            voted(result)
        }
        Body::PreVote(call) => {
            let result = group.raft().pre_vote(vote_request(&call)).await;
            voted(result)
        }
        Body::Transfer(transfer) => transfer_leader(group, transfer).await,
        Body::SnapshotBegin(begin) => snapshot_begin(group, receiving, begin).await,
        Body::SnapshotChunk(chunk) => snapshot_chunk(group, chunk).await,
        Body::SnapshotEnd(end) => snapshot_end(group, end).await,
    }
}

/// The entries, if they are what a leader may send: consecutive, behind
/// `previous`, terms never falling, and an index left for what follows.
pub(crate) fn entries_of(append: Append) -> Option<Vec<RaftEntry>> {
    let mut last = append.previous;
    let next_index = |last: Option<LogPosition>| match last {
        Some(last) => last.index.checked_add(1),
        None => Some(0),
    };
    let mut entries = Vec::with_capacity(append.entries.len());
    for entry in append.entries {
        let expected = next_index(last)?;
        let term_min = last.map_or(0, |last| last.term);
        if entry.position.index != expected || entry.position.term < term_min {
            return None;
        }
        last = Some(entry.position);
        let stored = LogEntry { position: entry.position, payload: entry.payload.into() };
        entries.push(from_log_entry(&stored).ok()?);
    }
    next_index(last).map(|_| entries)
}

async fn append_entries(group: &Group, append: Append) -> Reply {
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

async fn snapshot_begin(group: &Group, receiving: &Arc<Semaphore>, begin: SnapshotBegin) -> Reply {
    let vote = group.metrics().vote;
    if vote.leader_id.term > begin.vote.term {
        return Reply::HigherVote(our_vote(&vote));
    }
    let Ok(meta) = open_host_row(&begin.host_row) else {
        return Reply::Refused(Refusal::Malformed);
    };
    let mut slot = group.staging().0.lock().await;
    // Whoever begins anew has given up the transfer before.
    *slot = None;
    let Ok(permit) = Arc::clone(receiving).try_acquire_owned() else {
        return Reply::Refused(Refusal::Busy);
    };
    let writer = match group.machine().stage().await {
        Ok(writer) => writer,
        Err(error) => {
            tracing::warn!(?group, %error, "cannot receive a snapshot");
            return Reply::Refused(Refusal::Busy);
        }
    };
    *slot = Some(Staging {
        transfer: begin.transfer,
        meta,
        next_sequence: 0,
        writer,
        touched: Instant::now(),
        _permit: permit,
    });
    Reply::ChunkStored
}

async fn snapshot_chunk(group: &Group, chunk: SnapshotChunk) -> Reply {
    let mut slot = group.staging().0.lock().await;
    let staging = slot.as_mut().filter(|staging| staging.transfer == chunk.transfer);
    let Some(staging) = staging else {
        return Reply::Refused(Refusal::LostTransfer);
    };
    let is_next = staging.next_sequence == chunk.sequence;
    if !is_next || crc32c::crc32c(&chunk.bytes) != chunk.crc32c {
        *slot = None;
        return Reply::Refused(Refusal::LostTransfer);
    }
    if let Err(error) = staging.writer.write(chunk.bytes.into()).await {
        tracing::warn!(?group, %error, "cannot receive a snapshot");
        *slot = None;
        return Reply::Refused(Refusal::LostTransfer);
    }
    staging.next_sequence += 1;
    staging.touched = Instant::now();
    Reply::ChunkStored
}

async fn snapshot_end(group: &Group, end: SnapshotEnd) -> Reply {
    let staging = {
        let mut slot = group.staging().0.lock().await;
        slot.take_if(|staging| staging.transfer == end.transfer)
    };
    let Some(staging) = staging.filter(|staging| staging.next_sequence == end.chunks) else {
        return Reply::Refused(Refusal::LostTransfer);
    };
    let snapshot = Snapshot { meta: staging.meta, snapshot: SnapshotData::Staged(staging.writer) };
    match group.raft().install_full_snapshot(raft_vote(end.vote), snapshot).await {
        Ok(response) => Reply::SnapshotInstalled(our_vote(&response.vote)),
        Err(_) => Reply::Refused(Refusal::Halted),
    }
}
