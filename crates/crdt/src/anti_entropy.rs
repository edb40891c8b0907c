//! The registry as what anti-entropy carries.

use bytes::Bytes;
use quorate_types::NodeId;
use quorate_types::anti_entropy::{State, StateError};

use crate::Registry;

impl State for Registry {
    fn root(&self) -> u128 {
        Self::root(self)
    }

    fn vector(&self) -> Bytes {
        Self::vector(self)
    }

    fn delta(&self, since: &[u8], budget_bytes: usize) -> Option<Bytes> {
        Self::delta(self, since, budget_bytes)
            .inspect_err(|error| tracing::debug!(%error, "no delta for a peer"))
            .ok()
            .flatten()
    }

    fn merge(&mut self, _from: NodeId, delta: &[u8]) -> Result<bool, StateError> {
        // A removal of what was never here changes no key, but the state; and
        // a part of a reset changes nothing yet, but is to be followed by more.
        let state = |registry: &Self| (Self::root(registry), registry.map().summary().resync);
        let before = state(self);
        Self::merge(self, delta)
            .map(|outcome| !outcome.changed.is_empty() || state(self) != before)
            .map_err(|error| StateError::Refused(error.to_string()))
    }

    fn acknowledge(&mut self, from: NodeId, vector: &[u8]) {
        if let Err(error) = Self::acknowledge(self, from, vector) {
            tracing::debug!(%from, %error, "a peer's vector cannot be read");
        }
    }

    fn members(&mut self, others: &[NodeId]) {
        self.retain_members(others.iter().copied());
    }
}
