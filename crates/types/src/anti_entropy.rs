//! The port to the replicated state that anti-entropy carries. What the state
//! is stays its owner's business: gossip moves opaque vectors and deltas.

use std::sync::Arc;

use crate::NodeId;
use bytes::Bytes;
use parking_lot::Mutex;

/// Why a delta was not merged. Nothing of it took effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The bytes are not a delta.
    #[error("malformed delta: {0}")]
    Malformed(String),
    /// It is a delta, but not one to take from there or now.
    #[error("delta refused: {0}")]
    Refused(String),
}

/// A mergeable state: joining deltas in any order, any number of times, gives
/// every replica the same state.
pub trait State: Send + 'static {
    /// A fingerprint of the content. Equal roots are taken for equal states
    /// and cost no further message.
    fn root(&self) -> u128;

    /// A summary of what this replica has, to be compared by a peer's
    /// [`State::delta`]. One that does not fit a
    /// carrier's frame is never sent.
    fn vector(&self) -> Bytes;

    /// What a replica that has `since` lacks, about `budget_bytes` of it and
    /// gap-free, so that a truncated delta can be continued from the vector
    /// it leads to. `None` when it lacks nothing, and when the budget is below
    /// what one step takes. `since` comes from outside:
    /// garbage must be answered with `None` or a full delta, not with a panic.
    fn delta(&self, since: &[u8], budget_bytes: usize) -> Option<Bytes>;

    /// Joins a delta; says whether that changed anything.
    ///
    /// # Errors
    /// [`StateError`]; the state is then as before.
    fn merge(&mut self, from: NodeId, delta: &[u8]) -> Result<bool, StateError>;

    /// A peer says that it has everything in `vector`. For the collection of
    /// tombstones only.
    fn acknowledge(&mut self, from: NodeId, vector: &[u8]);

    /// The other nodes whose acknowledgement a tombstone has to wait for:
    /// alive, suspect, and dead ones until they are forgotten; never this
    /// node, never one that left. Must not influence content.
    fn members(&mut self, others: &[NodeId]);
}

/// The owner and the driver share a state; each call takes the lock for as
/// long as it runs.
impl<S: State> State for Arc<Mutex<S>> {
    fn root(&self) -> u128 {
        self.lock().root()
    }

    fn vector(&self) -> Bytes {
        self.lock().vector()
    }

    fn delta(&self, since: &[u8], budget_bytes: usize) -> Option<Bytes> {
        self.lock().delta(since, budget_bytes)
    }

    fn merge(&mut self, from: NodeId, delta: &[u8]) -> Result<bool, StateError> {
        self.lock().merge(from, delta)
    }

    fn acknowledge(&mut self, from: NodeId, vector: &[u8]) {
        self.lock().acknowledge(from, vector);
    }

    fn members(&mut self, others: &[NodeId]) {
        self.lock().members(others);
    }
}

/// No state: membership only.
impl State for () {
    fn root(&self) -> u128 {
        0
    }

    fn vector(&self) -> Bytes {
        Bytes::new()
    }

    fn delta(&self, _since: &[u8], _budget_bytes: usize) -> Option<Bytes> {
        None
    }

    fn merge(&mut self, _from: NodeId, _delta: &[u8]) -> Result<bool, StateError> {
        Err(StateError::Refused("this node carries no state".to_owned()))
    }

    fn acknowledge(&mut self, _from: NodeId, _vector: &[u8]) {}

    fn members(&mut self, _others: &[NodeId]) {}
}
