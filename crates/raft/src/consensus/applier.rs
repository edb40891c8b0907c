//! [`StateMachine`] as openraft's state machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{OptionalSend, Snapshot};
use parking_lot::Mutex;
use quorate_types::{GroupId, buggify, planted, sometimes, watch};

use super::types::{
    LogId, Outcome, Payload, RaftEntry, SnapshotMeta, StoredMembership, TypeConfig, position,
};
use super::wire::{from_log_entry, host_row, open_host_row};
use crate::log::{LogEngine, LogPosition};
use crate::machine::{Batch, Entry, MachineError, SnapshotReader, SnapshotWriter, StateMachine};

/// A batch ends at this many entries or command bytes, so that one commit of
/// the engine stays small and clients of its first entries do not wait long.
const BATCH_ENTRIES_MAX: usize = 1024;
const BATCH_COMMAND_BYTES_MAX: usize = 4 << 20;

/// The chunk in which a snapshot is copied or sent.
pub(crate) const SNAPSHOT_CHUNK_BYTES_MAX: usize = 512 << 10;

type OurSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// A snapshot to be sent, or one that was received.
pub(crate) enum SnapshotData {
    /// Nothing was applied yet.
    Empty,
    Reader(Box<dyn SnapshotReader>),
    Staged(Box<dyn SnapshotWriter>),
}

/// How far a replica has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Applied {
    /// The last applied entry.
    pub(crate) position: Option<LogPosition>,
    /// No more will be applied.
    pub(crate) is_stopped: bool,
}

/// What the applier tells the rest of the host.
pub(crate) struct Progress {
    pub(crate) applied: watch::Sender<Applied>,
    /// The index up to which the machine's state is durable.
    pub(crate) durable_index: Arc<AtomicU64>,
    /// The same as in `applied`, for who asks often.
    is_stopped: AtomicBool,
    halted: Mutex<Option<String>>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            applied: watch::channel(Applied::default()).0,
            durable_index: Arc::default(),
            is_stopped: AtomicBool::new(false),
            halted: Mutex::default(),
        }
    }

    /// Notes why the replica can go no further; the first reason stays.
    pub(crate) fn halt(&self, group: GroupId, reason: String) {
        if !self.applied.borrow().is_stopped {
            tracing::error!(%group, %reason, "the replica halts");
            self.halted.lock().get_or_insert(reason);
        }
        self.stop();
    }

    /// Why the replica stopped, if not because it was told to.
    pub(crate) fn halted(&self) -> Option<String> {
        self.halted.lock().clone()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.applied.modify(|applied| !std::mem::replace(&mut applied.is_stopped, true));
    }

    fn advance(&self, position: LogPosition) {
        self.applied.modify(|applied| applied.position.replace(position) != Some(position));
    }
}

/// A machine, shared between apply, snapshots being built and snapshots being
/// received.
#[derive(Clone)]
pub(crate) struct SharedMachine(Arc<tokio::sync::Mutex<Option<Box<dyn StateMachine>>>>);

impl SharedMachine {
    fn new(machine: Box<dyn StateMachine>) -> Self {
        Self(Arc::new(tokio::sync::Mutex::new(Some(machine))))
    }

    /// Drops the machine, so that whatever it holds open can be opened anew.
    pub(crate) async fn release(&self) {
        drop(self.0.lock().await.take());
    }

    /// Begins to receive a snapshot.
    pub(crate) async fn stage(&self) -> Result<Box<dyn SnapshotWriter>, MachineError> {
        let mut machine = self.0.lock().await;
        present(&mut machine)?.install()
    }
}

fn present(
    machine: &mut Option<Box<dyn StateMachine>>,
) -> Result<&mut (dyn StateMachine + 'static), MachineError> {
    machine.as_deref_mut().ok_or_else(|| MachineError::new("the replica was shut down"))
}

pub(crate) struct Applier {
    group: GroupId,
    machine: SharedMachine,
    progress: Arc<Progress>,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Entries of the last batch: the next is likely to be as long.
    batch_entries: usize,
}

impl Applier {
    /// Takes up where the machine says it is.
    pub(crate) fn recover(
        group: GroupId,
        mut machine: Box<dyn StateMachine>,
        progress: Arc<Progress>,
    ) -> Result<Self, MachineError> {
        let meta = match machine.recovered()? {
            None => SnapshotMeta::default(),
            Some(row) => open_host_row(&row)
                .map_err(|error| MachineError::caused_by("the host row cannot be read", error))?,
        };
        let applied = meta.last_log_id;
        if let Some(applied) = &applied {
            progress.durable_index.store(applied.index, Ordering::Release);
            progress.advance(position(applied));
        }
        Ok(Self {
            group,
            machine: SharedMachine::new(machine),
            progress,
            applied,
            membership: meta.last_membership,
            batch_entries: 0,
        })
    }

    pub(crate) fn machine(&self) -> SharedMachine {
        self.machine.clone()
    }

    /// Applies once more what was applied last, as far as the log has it.
    pub(crate) async fn repeat(&mut self, log: &dyn LogEngine) -> Result<(), io::Error> {
        let last = self.position().map_or(0, |last| last.index);
        let mut again = PendingBatch::default();
        for entry in log.read(self.group, last..last + 1, usize::MAX)? {
            again.push(from_log_entry(entry).map_err(io::Error::other)?, None);
        }
        self.apply_batch(&mut again).await
    }

    pub(crate) fn position(&self) -> Option<LogPosition> {
        self.applied.as_ref().map(position)
    }

    /// An entry that the machine has must not reach it again. An engine refuses
    /// an index that it has passed, but the first entry of a log, at index 0,
    /// makes the shard, and would empty one that is there.
    fn check_order(&self, pending: &PendingBatch, entry: &RaftEntry) -> Result<(), io::Error> {
        let last = pending.last.as_ref().or(self.applied.as_ref()).map(|last| last.index);
        let index = entry.log_id.index;
        if last.is_none_or(|last| index > last) {
            return Ok(());
        }
        let reason = format!("entry {index} comes after {} was applied", last.unwrap_or_default());
        Err(self.halt("apply", &MachineError::new(reason)))
    }

    fn halt(&self, doing: &str, error: &MachineError) -> io::Error {
        halt(&self.progress, self.group, doing, error)
    }

    async fn apply_batch(&mut self, pending: &mut PendingBatch) -> Result<(), io::Error> {
        let Some(last) = pending.last.take() else { return Ok(()) };
        let membership = pending.membership.take().unwrap_or_else(|| self.membership.clone());
        let host_row = host_row(position(&last), &membership);
        let entries = std::mem::take(&mut pending.entries);
        let responders = std::mem::take(&mut pending.responders);
        self.batch_entries = entries.len();
        pending.command_bytes = 0;

        let outcomes = {
            let mut machine = self.machine.0.lock().await;
            match present(&mut machine) {
                Ok(machine) => machine.apply(Batch { entries, host_row }).await,
                Err(error) => Err(error),
            }
        };
        let outcomes = outcomes.map_err(|error| self.halt("apply", &error))?;
        if outcomes.len() != responders.len() {
            let error = MachineError::new(format!(
                "the machine returned {} outcomes for {} entries",
                outcomes.len(),
                responders.len()
            ));
            return Err(self.halt("apply", &error));
        }
        self.applied = Some(last);
        self.membership = membership;
        self.progress.advance(position(&last));
        for (outcome, responder) in outcomes.into_iter().zip(responders) {
            if let Some(responder) = responder {
                responder.send(Outcome(outcome));
            }
        }
        Ok(())
    }
}

fn halt(progress: &Progress, group: GroupId, doing: &str, error: &MachineError) -> io::Error {
    let mut reason = format!("{doing}: {error}");
    if let Some(source) = &error.source {
        reason = format!("{reason}: {source}");
    }
    progress.halt(group, reason.clone());
    io::Error::other(reason)
}

#[derive(Default)]
struct PendingBatch {
    entries: Vec<Entry>,
    responders: Vec<Option<ApplyResponder<TypeConfig>>>,
    command_bytes: usize,
    last: Option<LogId>,
    membership: Option<StoredMembership>,
}

impl PendingBatch {
    fn with_room(entries: usize) -> Self {
        let (entries, responders) = (Vec::with_capacity(entries), Vec::with_capacity(entries));
        Self { entries, responders, ..Self::default() }
    }

    fn push(&mut self, entry: RaftEntry, responder: Option<ApplyResponder<TypeConfig>>) {
        let LogPosition { term, index } = position(&entry.log_id);
        let command = match entry.payload {
            Payload::Blank => None,
            Payload::Normal(command) => Some(command.proposed()),
            Payload::Membership(membership) => {
                self.membership = Some(StoredMembership::new(Some(entry.log_id), membership));
                None
            }
        };
        self.command_bytes += command.as_ref().map_or(0, Bytes::len);
        self.entries.push(Entry { index, term, command });
        self.responders.push(responder);
        self.last = Some(entry.log_id);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_ENTRIES_MAX
            || self.command_bytes >= BATCH_COMMAND_BYTES_MAX
            || buggify!("raft applies one entry at a time")
    }
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut pending = PendingBatch::with_room(self.batch_entries);
        while let Some(next) = entries.next().await {
            let (entry, responder) = next.inspect_err(|error| {
                self.progress.halt(self.group, format!("read the log: {error}"));
            })?;
            self.check_order(&pending, &entry)?;
            pending.push(entry, responder);
            if pending.is_full() {
                self.apply_batch(&mut pending).await?;
            }
        }
        self.apply_batch(&mut pending).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            group: self.group,
            machine: self.machine.clone(),
            progress: Arc::clone(&self.progress),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> Result<(), io::Error> {
        let Some(last) = meta.last_log_id else {
            return Err(io::Error::other("a snapshot of nothing"));
        };
        let row = host_row(position(&last), &meta.last_membership);
        let installed = {
            let mut machine = self.machine.0.lock().await;
            match present(&mut machine) {
                Ok(machine) => install(machine, data, row).await,
                Err(error) => Err(error),
            }
        };
        installed.map_err(|error| self.halt("install a snapshot", &error))?;
        sometimes!("a snapshot is installed");
        self.applied = Some(last);
        self.membership = meta.last_membership.clone();
        self.progress.durable_index.fetch_max(last.index, Ordering::AcqRel);
        self.progress.advance(position(&last));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<OurSnapshot>, io::Error> {
        if self.applied.is_none() {
            return Ok(None);
        }
        let mut machine = self.machine.0.lock().await;
        present(&mut machine)
            .and_then(view)
            .map(Some)
            .map_err(|error| self.halt("read a snapshot", &error))
    }
}

async fn install(
    machine: &mut dyn StateMachine,
    data: SnapshotData,
    row: Bytes,
) -> Result<(), MachineError> {
    let staged = match data {
        SnapshotData::Staged(staged) => staged,
        SnapshotData::Empty => machine.install()?,
        SnapshotData::Reader(mut reader) => {
            let mut staged = machine.install()?;
            while let Some(chunk) = reader.next_chunk(SNAPSHOT_CHUNK_BYTES_MAX).await? {
                staged.write(chunk).await?;
            }
            staged
        }
    };
    machine.installed(staged, row).await
}

fn view(machine: &mut dyn StateMachine) -> Result<OurSnapshot, MachineError> {
    let reader = machine.snapshot()?;
    let meta = open_host_row(&reader.host_row())
        .map_err(|error| MachineError::caused_by("the snapshot's host row is damaged", error))?;
    Ok(Snapshot { meta, snapshot: SnapshotData::Reader(reader) })
}

/// "Builds" a snapshot: makes the machine's state durable, so that openraft
/// may purge the log behind it. Nothing is written anywhere; what a follower
/// needs is read from the machine when it needs it.
pub(crate) struct Builder {
    group: GroupId,
    machine: SharedMachine,
    progress: Arc<Progress>,
}

impl Builder {
    async fn flush(&self) -> Result<OurSnapshot, MachineError> {
        if self.progress.applied.borrow().position.is_none() {
            return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: SnapshotData::Empty });
        }
        let mut machine = self.machine.0.lock().await;
        let machine = present(&mut machine)?;
        let durable = if planted!(PurgePastDurable) { u64::MAX } else { machine.flush().await? };
        let view = view(machine)?;
        let applied = view.meta.last_log_id.map_or(0, |last| last.index);
        if durable < applied {
            return Err(MachineError::new(format!(
                "flush made {durable} durable although {applied} is applied"
            )));
        }
        self.progress.durable_index.fetch_max(applied, Ordering::AcqRel);
        Ok(view)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<OurSnapshot, io::Error> {
        let built = self.flush().await;
        built.map_err(|error| halt(&self.progress, self.group, "flush", &error))
    }
}
