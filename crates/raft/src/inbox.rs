//! Receives what peers send: finds the replica, passes the message on, puts
//! snapshots together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::Snapshot;
use openraft::errors::RaftError as CoreError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use quorate_types::{buggify, runtime, sometimes, watch};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::consensus::applier::SnapshotData;
use crate::consensus::types::{
    RaftEntry, SnapshotMeta, TypeConfig, log_id, our_vote, position, raft_vote,
};
use crate::consensus::wire::{
    Append, Body, Refusal, Reply, SnapshotBegin, SnapshotChunk, SnapshotEnd, Transfer, VoteCall,
    Voted, from_log_entry, open_host_row,
};
use crate::group::Group;
use crate::log::{LogEntry, LogPosition, Vote};
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

/// A snapshot that was received and is being installed, or was just now.
struct Installing {
    transfer: u64,
    answer: watch::Receiver<Option<Reply>>,
    touched: Instant,
}

/// How far a snapshot has come.
enum Incoming {
    Staging(Staging),
    Installing(Installing),
}

impl Incoming {
    fn is_idle(&self, idle_max: Duration) -> bool {
        match self {
            Self::Staging(staging) => staging.touched.elapsed() > idle_max,
            Self::Installing(installing) => {
                installing.touched.elapsed() > idle_max && installing.answer.borrow().is_some()
            }
        }
    }
}

/// A replica receives one snapshot at a time; a new transfer replaces the old.
#[derive(Default)]
pub(crate) struct StagingSlot(Mutex<Option<Incoming>>);

impl StagingSlot {
    pub(crate) async fn clear(&self) {
        *self.0.lock().await = None;
    }

    /// Drops a transfer whose sender has gone silent.
    pub(crate) fn reap(&self, idle_max: Duration) {
        if let Ok(mut slot) = self.0.try_lock() {
            slot.take_if(|incoming| incoming.is_idle(idle_max));
        }
    }
}

/// Answers a message that is addressed to `group`'s replica.
pub(crate) async fn answer(group: &Group, receiving: &Arc<Semaphore>, body: Body) -> Reply {
    if let Some(reply) = group.stir(&body) {
        return reply;
    }
    match body {
        Body::Append(append) => {
            let moment = group.resting().moment();
            let reply = append_entries(group, append).await;
            if matches!(reply, Reply::Appended | Reply::AppendedPartly(_) | Reply::AppendConflict) {
                group.note_leader(moment);
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
        Body::SnapshotBegin(begin) => snapshot_begin(group, receiving, begin).await,
        Body::SnapshotChunk(chunk) => snapshot_chunk(group, chunk).await,
        Body::SnapshotEnd(end) => snapshot_end(group, end).await,
        Body::Wake => {
            group.wake_in_background();
            Reply::Woken
        }
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
    sometimes!("a snapshot is begun anew", matches!(&*slot, Some(Incoming::Staging(_))));
    if matches!(&*slot, Some(Incoming::Installing(it)) if it.transfer == begin.transfer) {
        return Reply::ChunkStored; // A copy that comes late.
    }
    // Whoever begins anew has given up the transfer before.
    *slot = None;
    if buggify!("raft receives no snapshot now") {
        return Reply::Refused(Refusal::Busy);
    }
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
    *slot = Some(Incoming::Staging(Staging {
        transfer: begin.transfer,
        meta,
        next_sequence: 0,
        writer,
        touched: Instant::now(),
        _permit: permit,
    }));
    Reply::ChunkStored
}

async fn snapshot_chunk(group: &Group, chunk: SnapshotChunk) -> Reply {
    let mut slot = group.staging().0.lock().await;
    let staging = match slot.as_mut() {
        Some(Incoming::Staging(staging)) if staging.transfer == chunk.transfer => staging,
        _ => return Reply::Refused(Refusal::LostTransfer),
    };
    let is_next = staging.next_sequence == chunk.sequence;
    let is_lost = buggify!("raft loses a half-received snapshot");
    if is_lost || !is_next || crc32c::crc32c(&chunk.bytes) != chunk.crc32c {
        *slot = None;
        return Reply::Refused(Refusal::LostTransfer);
    }
    let bytes = chunk.bytes.len() as u64;
    if let Err(error) = staging.writer.write(chunk.bytes.into()).await {
        tracing::warn!(?group, %error, "cannot receive a snapshot");
        *slot = None;
        return Reply::Refused(Refusal::LostTransfer);
    }
    group.counters().snapshot_bytes_received.fetch_add(bytes, Ordering::Relaxed);
    staging.next_sequence += 1;
    staging.touched = Instant::now();
    Reply::ChunkStored
}

/// Has a whole snapshot installed. A sender whose answer was lost, or who was
/// told to ask again, asks for the same transfer.
async fn snapshot_end(group: &Group, end: SnapshotEnd) -> Reply {
    let mut answer = {
        let mut slot = group.staging().0.lock().await;
        let answer = match slot.take() {
            Some(Incoming::Installing(installing)) if installing.transfer == end.transfer => {
                sometimes!("a sender asks again whether its snapshot is installed");
                installing.answer
            }
            Some(Incoming::Staging(staging)) if staging.transfer == end.transfer => {
                if staging.next_sequence != end.chunks {
                    return Reply::Refused(Refusal::LostTransfer);
                }
                install(group, end.vote, staging)
            }
            other => {
                *slot = other;
                return Reply::Refused(Refusal::LostTransfer);
            }
        };
        *slot = Some(Incoming::Installing(Installing {
            transfer: end.transfer,
            answer: answer.clone(),
            touched: Instant::now(),
        }));
        answer
    };
    // Well before the sender takes this replica for lost.
    let mut patience = group.config().snapshot_chunk_deadline / 2;
    if buggify!("raft answers before a snapshot is installed") {
        patience = Duration::ZERO;
    }
    match timeout(patience, answer.wait_for(Option::is_some)).await {
        Ok(answered) => answered.ok().flatten().unwrap_or(Reply::Refused(Refusal::Halted)),
        Err(_) => Reply::SnapshotInstalling,
    }
}

/// Installs a snapshot, whether or not its sender waits for it.
fn install(group: &Group, vote: Vote, staging: Staging) -> watch::Receiver<Option<Reply>> {
    let (answer, answered) = watch::channel(None);
    let group = group.clone();
    drop(runtime::spawn(async move {
        let Staging { meta, writer, _permit, .. } = staging;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Staged(writer) };
        let installed = group.raft().install_full_snapshot(raft_vote(vote), snapshot).await;
        answer.send(Some(match installed {
            Ok(response) => Reply::SnapshotInstalled(our_vote(&response.vote)),
            Err(_) => Reply::Refused(Refusal::Halted),
        }));
    }));
    answered
}
