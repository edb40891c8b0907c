//! The port to the state machine that a group replicates.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

/// A committed entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its index in the log.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// The proposed command; `None` for a leader's first entry and for a
    /// change of membership, which mean nothing to a machine.
    pub command: Option<Bytes>,
}

/// Committed entries to apply in one go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Consecutive entries, continuing where the last batch ended: the host halts
    /// rather than hand a machine what it has applied.
    pub entries: Vec<Entry>,
    /// What the host must find again after a restart (position and
    /// membership), opaque and versioned. Must be stored atomically with the
    /// effects of the entries: an effect without its row is applied twice, a
    /// row without its effect is lost.
    pub host_row: Bytes,
}

/// Why a machine could not do its work. Halts the replica, loudly: skipping an
/// entry would make replicas diverge. A command that makes no sense is not an
/// error but an outcome.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct MachineError {
    /// What happened, for the operator.
    pub reason: String,
    /// The error beneath, if there is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl MachineError {
    /// An error that only has a text.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), source: None }
    }

    /// An error with another one beneath it.
    pub fn caused_by(
        reason: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { reason: reason.into(), source: Some(source.into()) }
    }
}

/// A boxed future of a machine's work.
pub type MachineFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, MachineError>> + Send + 'a>>;

/// A deterministic state machine under a group.
///
/// The host calls one method at a time. Applied state need not be durable, the
/// log is; what must be durable, and when, is said at each method.
pub trait StateMachine: Send + 'static {
    /// The host row stored last, as far as it is *durable*; `None` for a
    /// machine that never applied nor installed anything. Called before every
    /// other method.
    ///
    /// # Errors
    /// When the store cannot be read; the group is then not created.
    fn recovered(&mut self) -> Result<Option<Bytes>, MachineError>;

    /// Applies a batch and returns one outcome per entry, in order, empty for
    /// entries without a command. State after a batch is a function of the
    /// entries alone (law 7).
    fn apply(&mut self, batch: Batch) -> MachineFuture<'_, Vec<Bytes>>;

    /// Makes everything applied so far durable and returns the index of the
    /// last applied entry, or the one that the host row records after an
    /// installation or a restart ([`host_row_index`](crate::host_row_index)).
    /// The log is purged up to there and no further (invariant vii).
    fn flush(&mut self) -> MachineFuture<'_, u64>;

    /// A consistent view of the state as of now, to be read while later
    /// entries are applied. Called only after something was applied,
    /// recovered or installed. Should be cheap; the reading is not.
    ///
    /// # Errors
    /// When no view can be had.
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotReader>, MachineError>;

    /// Begins to receive a snapshot beside the current state. Several
    /// stagings may exist; those that are dropped without
    /// [`installed`](Self::installed) leave nothing behind, at the latest
    /// after a restart.
    ///
    /// # Errors
    /// When there is no room.
    fn install(&mut self) -> Result<Box<dyn SnapshotWriter>, MachineError>;

    /// Replaces the whole state by a staged snapshot, together with
    /// `host_row`, atomically. On return it is durable *and* visible.
    fn installed(
        &mut self,
        staged: Box<dyn SnapshotWriter>,
        host_row: Bytes,
    ) -> MachineFuture<'_, ()>;
}

/// Reads a snapshot in chunks.
pub trait SnapshotReader: Send + 'static {
    /// The host row that belongs to exactly this view.
    fn host_row(&self) -> Bytes;

    /// The next chunk, of about `bytes_max` bytes and not empty; `None` at the
    /// end. One row that is longer goes as a whole, if a message carries it.
    fn next_chunk(&mut self, bytes_max: usize) -> MachineFuture<'_, Option<Bytes>>;
}

/// Receives a snapshot in chunks, the same ones in the same order as
/// [`SnapshotReader::next_chunk`] returned them elsewhere.
///
/// The machine gets its own writer back through [`Any`]:
/// `(staged as Box<dyn Any>).downcast::<MyWriter>()`.
pub trait SnapshotWriter: Any + Send {
    /// Takes the next chunk.
    fn write(&mut self, chunk: Bytes) -> MachineFuture<'_, ()>;
}
