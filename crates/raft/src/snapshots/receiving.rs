//! The follower's side.

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::Snapshot;
use quorate_types::{buggify, runtime, sometimes, watch};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::consensus::applier::SnapshotData;
use crate::consensus::types::{SnapshotMeta, our_vote, raft_vote};
use crate::consensus::wire::{
    Refusal, Reply, SnapshotBegin, SnapshotChunk, SnapshotEnd, TransferId, open_host_row,
};
use crate::group::{Group, count};
use crate::log::Vote;
use crate::machine::SnapshotWriter;

/// A snapshot that is being received.
struct Staging {
    vote: Vote,
    meta: SnapshotMeta,
    /// How many chunks have come, the checksum of all their bytes, and how many
    /// bytes those are.
    chunks: u32,
    crc32c: u32,
    bytes: Arc<AtomicU64>,
    writer: Box<dyn SnapshotWriter>,
    touched: Instant,
    _permit: OwnedSemaphorePermit,
}

/// A snapshot that was received and is being installed, or was just now.
struct Installing {
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

#[derive(Default)]
struct Slot {
    /// The greatest transfer that ever began here, and its leader.
    newest: Option<(TransferId, Vote)>,
    /// What there is of it.
    incoming: Option<Incoming>,
}

impl Slot {
    /// What there is of a transfer, unless a greater one has begun. Whoever takes
    /// it out puts it back; if its work is dropped instead, so is the transfer.
    fn take(&mut self, transfer: TransferId) -> Option<Incoming> {
        let is_newest = self.newest.is_some_and(|(newest, _)| newest == transfer);
        if is_newest { self.incoming.take() } else { None }
    }

    /// The answer to a transfer that begins again, or behind a greater one.
    fn known(&mut self, transfer: TransferId) -> Option<Reply> {
        let (newest, leader) = self.newest?;
        match (transfer.cmp(&newest), &mut self.incoming) {
            (Order::Greater, _) => None,
            (Order::Equal, Some(Incoming::Staging(staging))) => {
                staging.touched = Instant::now();
                Some(Reply::SnapshotHeld(staging.chunks))
            }
            (Order::Equal, Some(Incoming::Installing(_))) => Some(Reply::SnapshotInstalling),
            (Order::Less, _) if transfer.term < newest.term => Some(Reply::HigherVote(leader)),
            (Order::Equal | Order::Less, _) => Some(Reply::Refused(Refusal::LostTransfer)),
        }
    }
}

/// A replica receives one snapshot at a time; a greater transfer replaces another.
#[derive(Default)]
pub(crate) struct StagingSlot {
    slot: Mutex<Slot>,
    /// Of the latest one; gone with it.
    bytes: parking_lot::Mutex<Weak<AtomicU64>>,
}

impl StagingSlot {
    /// Bytes that have come of a snapshot that is being received.
    pub(crate) fn bytes(&self) -> Option<u64> {
        Some(self.bytes.lock().upgrade()?.load(Ordering::Relaxed))
    }

    pub(crate) async fn clear(&self) {
        self.slot.lock().await.incoming = None;
    }

    /// Drops a transfer whose sender has gone silent.
    pub(crate) fn reap(&self, idle_max: Duration) {
        if let Ok(mut slot) = self.slot.try_lock() {
            slot.incoming.take_if(|incoming| incoming.is_idle(idle_max));
        }
    }
}

/// Refuses a leader of an earlier term than this replica is in.
fn later_vote(group: &Group, term: u64) -> Option<Reply> {
    let own = group.metrics().vote;
    (own.leader_id.term > term).then(|| Reply::HigherVote(our_vote(&own)))
}

pub(crate) async fn begin(
    group: &Group,
    receiving: &Arc<Semaphore>,
    begin: SnapshotBegin,
) -> Reply {
    let SnapshotBegin { transfer, vote, host_row } = begin;
    if let Some(refusal) = later_vote(group, vote.term) {
        return refusal;
    }
    let Ok(meta) = open_host_row(&host_row) else {
        return Reply::Refused(Refusal::Malformed);
    };
    if transfer.term != vote.term || !vote.committed {
        return Reply::Refused(Refusal::Malformed);
    }
    let mut slot = group.staging().slot.lock().await;
    if let Some(answer) = slot.known(transfer) {
        return answer;
    }
    sometimes!("a snapshot is begun anew", matches!(&slot.incoming, Some(Incoming::Staging(_))));
    // Whoever begins anew has given up the transfer before, or has deposed who
    // began it.
    slot.incoming = None;
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
    let bytes = Arc::default();
    *group.staging().bytes.lock() = Arc::downgrade(&bytes);
    slot.newest = Some((transfer, vote));
    slot.incoming = Some(Incoming::Staging(Staging {
        vote,
        meta,
        chunks: 0,
        crc32c: 0,
        bytes,
        writer,
        touched: Instant::now(),
        _permit: permit,
    }));
    Reply::SnapshotHeld(0)
}

pub(crate) async fn chunk(group: &Group, chunk: SnapshotChunk) -> Reply {
    let mut slot = group.staging().slot.lock().await;
    let mut staging = match slot.take(chunk.transfer) {
        Some(Incoming::Staging(staging)) => staging,
        Some(installing) => {
            slot.incoming = Some(installing); // A copy that comes late.
            return Reply::Refused(Refusal::LostTransfer);
        }
        None => return Reply::Refused(Refusal::LostTransfer),
    };
    if let Some(refusal) = later_vote(group, chunk.transfer.term) {
        return refusal;
    }
    if buggify!("raft loses a half-received snapshot") {
        return Reply::Refused(Refusal::LostTransfer);
    }
    let reply = match staging.take(group, chunk).await {
        Ok(reply) => reply,
        Err(lost) => return lost,
    };
    staging.touched = Instant::now();
    slot.incoming = Some(Incoming::Staging(staging));
    reply
}

impl Staging {
    /// Has the machine take the chunk if it is the next one. An error ends the
    /// transfer.
    async fn take(&mut self, group: &Group, chunk: SnapshotChunk) -> Result<Reply, Reply> {
        let SnapshotChunk { sequence, crc32c, bytes, .. } = chunk;
        if sequence != self.chunks {
            return Ok(Reply::SnapshotHeld(self.chunks));
        }
        let is_damaged = buggify!("raft finds a chunk of a snapshot damaged");
        if is_damaged || crc32c::crc32c(&bytes) != crc32c {
            count(&group.counters().snapshot_chunks_damaged);
            return Ok(Reply::Refused(Refusal::DamagedChunk));
        }
        let len = bytes.len() as u64;
        let crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        if let Err(error) = self.writer.write(bytes.into()).await {
            tracing::warn!(?group, %error, "cannot receive a snapshot");
            return Err(Reply::Refused(Refusal::LostTransfer));
        }
        (self.chunks, self.crc32c) = (self.chunks + 1, crc32c);
        self.bytes.fetch_add(len, Ordering::Relaxed);
        group.counters().snapshot_bytes_received.fetch_add(len, Ordering::Relaxed);
        Ok(Reply::SnapshotHeld(self.chunks))
    }
}

/// Has a whole snapshot installed. A sender whose answer was lost, or who was
/// told to ask again, asks for the same transfer.
pub(crate) async fn end(group: &Group, end: SnapshotEnd) -> Reply {
    let mut answer = {
        let mut slot = group.staging().slot.lock().await;
        let answer = match slot.take(end.transfer) {
            Some(Incoming::Installing(installing)) => {
                sometimes!("a sender asks again whether its snapshot is installed");
                installing.answer
            }
            Some(Incoming::Staging(staging)) => {
                if (staging.chunks, staging.crc32c) != (end.chunks, end.crc32c) {
                    return Reply::Refused(Refusal::LostTransfer);
                }
                install(group, staging)
            }
            None => return Reply::Refused(Refusal::LostTransfer),
        };
        slot.incoming = Some(Incoming::Installing(Installing {
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
fn install(group: &Group, staging: Staging) -> watch::Receiver<Option<Reply>> {
    let (answer, answered) = watch::channel(None);
    let group = group.clone();
    drop(runtime::spawn(async move {
        let Staging { vote, meta, writer, bytes, _permit, .. } = staging;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Staged(writer) };
        let installed = group.raft().install_full_snapshot(raft_vote(vote), snapshot).await;
        drop(bytes);
        answer.send(Some(match installed {
            Ok(response) => Reply::SnapshotInstalled(our_vote(&response.vote)),
            Err(_) => Reply::Refused(Refusal::Halted),
        }));
    }));
    answered
}
