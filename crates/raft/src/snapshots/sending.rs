//! The leader's side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_types::{Blob, buggify, sometimes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::pace::Pace;
use crate::config::HostConfig;
use crate::consensus::applier::SNAPSHOT_CHUNK_BYTES_MAX;
use crate::consensus::network::{CallError, Link, unexpected};
use crate::consensus::wire::{
    Body, Refusal, Reply, SnapshotBegin, SnapshotChunk, SnapshotEnd, TransferId,
};
use crate::group::{Counters, count};
use crate::log::Vote;
use crate::machine::{MachineError, SnapshotReader};
use crate::transport::{Lane, TransportError};

/// A chunk that arrives damaged more often than this, one time after another, is
/// not damaged by chance.
const REFUSED_MAX: u32 = 8;
/// Between two questions to a follower that does not answer. Each of them doubles
/// the pause.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What all transfers from a node share.
pub(crate) struct Sending {
    permits: Arc<Semaphore>,
    permits_max: usize,
    pace: Pace,
    last_number: AtomicU64,
}

impl Sending {
    pub(crate) fn new(config: &HostConfig) -> Self {
        let permits_max = config.snapshots_sending_max.max(1);
        Self {
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            pace: Pace::new(config.snapshot_bytes_per_second_max),
            last_number: AtomicU64::new(0),
        }
    }

    pub(crate) fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Snapshots that are being sent.
    pub(crate) fn under_way(&self) -> u64 {
        self.permits_max.saturating_sub(self.permits.available_permits()) as u64
    }
}

/// How the followers of one replica come to what they lack.
#[derive(Default)]
pub(crate) struct Feeding {
    /// Snapshots that they have begun to take.
    transfers: AtomicU64,
    /// Who lacks entries before this index is to take one.
    given_up: AtomicU64,
}

impl Feeding {
    pub(crate) fn is_any(&self) -> bool {
        self.transfers.load(Ordering::Acquire) > 0
    }

    /// Has entries before an index sent to nobody any more, so that they can be
    /// purged: openraft purges nothing that it is just sending, and to a follower
    /// that is slower than its leader it never ends to.
    pub(crate) fn give_up(&self, before: u64) {
        self.given_up.fetch_max(before, Ordering::AcqRel);
    }

    /// Whether an entry is sent to nobody any more.
    pub(crate) fn has_given_up(&self, index: u64) -> bool {
        index < self.given_up.load(Ordering::Acquire)
    }
}

/// A transfer that a follower has begun to take.
struct Begun<'a> {
    feeding: &'a Feeding,
    counters: &'a Counters,
    is_installed: bool,
}

impl<'a> Begun<'a> {
    fn new(link: &'a Link) -> Self {
        let (feeding, counters) = (&*link.links.feeding, &*link.links.counters);
        feeding.transfers.fetch_add(1, Ordering::AcqRel);
        Self { feeding, counters, is_installed: false }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.feeding.transfers.fetch_sub(1, Ordering::AcqRel);
        count(if self.is_installed {
            &self.counters.snapshots_sent
        } else {
            &self.counters.snapshots_failed
        });
    }
}

/// A snapshot, and who sends it as the leader of which term.
pub(crate) struct Outgoing {
    pub(crate) vote: Vote,
    pub(crate) host_row: Blob,
    pub(crate) reader: Box<dyn SnapshotReader>,
}

/// Why a snapshot was not sent.
pub(crate) enum SendError {
    /// It cannot be read.
    Read(MachineError),
    Call(CallError),
}

impl From<CallError> for SendError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// What a follower says.
enum Told {
    /// It has so many chunks.
    Holds(u32),
    /// It has heard of a later leader.
    Deposed(Vote),
}

/// Sends a snapshot and returns the follower's vote, once it has it installed or
/// follows another leader.
pub(crate) async fn send(
    link: &Link,
    snapshot: Outgoing,
    permit: OwnedSemaphorePermit,
) -> Result<Vote, SendError> {
    let Outgoing { vote, host_row, reader } = snapshot;
    let number = link.links.sending.last_number.fetch_add(1, Ordering::Relaxed) + 1;
    let transfer = TransferId { term: vote.term, number };
    let mut sender = Sender {
        link,
        transfer,
        begin: Body::SnapshotBegin(SnapshotBegin { transfer, vote, host_row }),
        permit: Some(permit),
        advanced: Instant::now(),
        chunks: 0,
        crc32c: 0,
    };
    if let Told::Deposed(later) = sender.told(sender.call(sender.begin.clone()).await)? {
        return Ok(later);
    }
    let mut begun = Begun::new(link);
    let answered = sender.run(reader).await?;
    begun.is_installed = answered.term <= vote.term;
    Ok(answered)
}

struct Sender<'a> {
    link: &'a Link,
    transfer: TransferId,
    /// Begins the transfer, and asks how far it is.
    begin: Body<'static>,
    permit: Option<OwnedSemaphorePermit>,
    /// When the follower took the last chunk.
    advanced: Instant,
    /// What it has taken.
    chunks: u32,
    crc32c: u32,
}

impl Sender<'_> {
    fn config(&self) -> &HostConfig {
        &self.link.links.config
    }

    fn counters(&self) -> &Counters {
        &self.link.links.counters
    }

    async fn call(&self, body: Body<'_>) -> Result<Reply, CallError> {
        let deadline = self.config().snapshot_chunk_deadline;
        let reply = self.link.call(Lane::Snapshot, body, deadline).await;
        if buggify!("raft loses an answer about a snapshot") {
            return Err(CallError::Transport(TransportError::Deadline { to: self.link.node }));
        }
        reply
    }

    /// A vote that is not later than ours would be taken for an installation.
    fn told(&self, reply: Result<Reply, CallError>) -> Result<Told, CallError> {
        match reply? {
            Reply::SnapshotHeld(chunks) => Ok(Told::Holds(chunks)),
            Reply::HigherVote(vote) if vote.term > self.transfer.term => Ok(Told::Deposed(vote)),
            other => Err(unexpected(&other)),
        }
    }

    async fn run(&mut self, mut reader: Box<dyn SnapshotReader>) -> Result<Vote, SendError> {
        loop {
            let chunk = reader.next_chunk(SNAPSHOT_CHUNK_BYTES_MAX).await;
            let Some(chunk) = chunk.map_err(SendError::Read)? else { break };
            if let Told::Deposed(later) = self.deliver(chunk).await? {
                return Ok(later);
            }
        }
        // Others may be read and sent while this one is installed.
        drop((reader, self.permit.take()));
        Ok(self.finish().await?)
    }

    /// Sends a chunk until the follower has it.
    async fn deliver(&mut self, bytes: Bytes) -> Result<Told, CallError> {
        let (len, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        let (transfer, sequence) = (self.transfer, self.chunks);
        let chunk = SnapshotChunk { transfer, sequence, crc32c, bytes: Blob(bytes) };
        let mut refused = 0;
        loop {
            self.link.links.sending.pace.take(len).await;
            let held = match self.call(Body::SnapshotChunk(chunk.clone())).await {
                Err(CallError::Transport(error)) => self.resume(error).await?,
                Ok(Reply::Refused(Refusal::DamagedChunk)) if refused < REFUSED_MAX => {
                    refused += 1;
                    Told::Holds(sequence)
                }
                reply => match self.told(reply)? {
                    Told::Holds(held) if held == sequence => {
                        return Err(unexpected(&Reply::SnapshotHeld(held)));
                    }
                    told => told,
                },
            };
            match held {
                Told::Holds(held) if held == sequence + 1 => {
                    self.chunks = held;
                    self.advanced = Instant::now();
                    self.counters().snapshot_bytes_sent.fetch_add(len, Ordering::Relaxed);
                    return Ok(Told::Holds(held));
                }
                Told::Holds(held) if held == sequence => {
                    count(&self.counters().snapshot_chunks_repeated);
                }
                // It has dropped what it had, and knows nothing of it any more.
                Told::Holds(_) => return Err(CallError::Refused(Refusal::LostTransfer)),
                Told::Deposed(later) => return Ok(Told::Deposed(later)),
            }
        }
    }

    /// Asks a follower that did not answer how far it is, until it has had long
    /// enough to drop what it had. One that is gone keeps nobody else waiting.
    async fn resume(&mut self, mut why: TransportError) -> Result<Told, CallError> {
        let until = self.advanced + self.config().snapshot_staging_idle_max;
        let keeps_until = Instant::now() + self.config().snapshot_chunk_deadline;
        let mut pause = PAUSE_MIN;
        while Instant::now() + pause < until {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if Instant::now() >= keeps_until {
                self.permit = None;
            }
            match self.call(self.begin.clone()).await {
                Err(CallError::Transport(error)) => why = error,
                reply => {
                    let told = self.told(reply)?;
                    if matches!(told, Told::Holds(held) if held >= self.chunks) {
                        sometimes!("a snapshot goes on where it broke off");
                        count(&self.counters().snapshots_resumed);
                    }
                    if self.permit.is_none() {
                        let turn = self.link.links.sending.permit();
                        let Ok(turn) = timeout_at(until, turn).await else { break };
                        self.permit = turn;
                    }
                    return Ok(told);
                }
            }
        }
        Err(CallError::Transport(why))
    }

    /// Has the follower install what it has. Each call is short, so that one that
    /// is lost meanwhile is not waited for as long as one that has much to install.
    async fn finish(&mut self) -> Result<Vote, CallError> {
        let (transfer, chunks, crc32c) = (self.transfer, self.chunks, self.crc32c);
        let end = Body::SnapshotEnd(SnapshotEnd { transfer, chunks, crc32c });
        let until = Instant::now() + self.config().snapshot_install_deadline;
        let mut heard = Instant::now();
        let mut pause = PAUSE_MIN;
        while Instant::now() < until {
            match self.call(end.clone()).await {
                Ok(Reply::SnapshotInstalling) => (heard, pause) = (Instant::now(), PAUSE_MIN),
                Err(CallError::Transport(error)) => {
                    if heard.elapsed() >= self.config().snapshot_staging_idle_max {
                        return Err(CallError::Transport(error));
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Ok(Reply::SnapshotInstalled(vote)) => return Ok(vote),
                reply => match self.told(reply)? {
                    Told::Deposed(later) => return Ok(later),
                    Told::Holds(held) => return Err(unexpected(&Reply::SnapshotHeld(held))),
                },
            }
        }
        Err(CallError::Malformed("the snapshot was not installed in time".to_owned()))
    }
}
