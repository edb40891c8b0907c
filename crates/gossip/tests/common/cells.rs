//! A state small enough to see through: each life of a node appends to a log
//! of its own, replicas hold prefixes of all logs.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_gossip::{State, StateError};
use quorate_types::NodeId;

const CELL_BYTES: usize = 24;

#[derive(Clone, Default)]
pub(crate) struct Cells {
    own: u64,
    logs: BTreeMap<u64, Vec<u64>>,
    pub(crate) waits_for: Vec<NodeId>,
    pub(crate) acknowledged: BTreeMap<NodeId, Bytes>,
}

impl Cells {
    pub(crate) fn new(node: u64, incarnation: u64) -> Self {
        Self { own: node << 48 | incarnation, ..Self::default() }
    }

    pub(crate) fn write(&mut self, value: u64) {
        self.logs.entry(self.own).or_default().push(value);
    }

    pub(crate) fn len(&self) -> usize {
        self.logs.values().map(Vec::len).sum()
    }

    pub(crate) fn sum(&self) -> u128 {
        let mut sum = 0u128;
        for (log, values) in &self.logs {
            for (place, value) in values.iter().enumerate() {
                let cell = u128::from(*log) << 64 | (place as u128) << 32 | u128::from(*value);
                sum ^= (cell + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
            }
        }
        sum
    }
}

impl State for Cells {
    fn root(&self) -> u128 {
        self.sum()
    }

    fn vector(&self) -> Bytes {
        let mut out = BytesMut::new();
        for (log, values) in &self.logs {
            out.put_u64(*log);
            out.put_u64(values.len() as u64);
        }
        out.freeze()
    }

    fn delta(&self, since: &[u8], budget_bytes: usize) -> Option<Bytes> {
        let known: BTreeMap<u64, u64> =
            since.chunks_exact(16).map(|mut entry| (entry.get_u64(), entry.get_u64())).collect();
        let mut out = BytesMut::new();
        for (log, values) in &self.logs {
            let from = usize::try_from(known.get(log).copied().unwrap_or(0)).unwrap_or(usize::MAX);
            for (place, value) in values.iter().enumerate().skip(from) {
                if out.len() + CELL_BYTES > budget_bytes {
                    return Some(out.freeze());
                }
                out.put_u64(*log);
                out.put_u64(place as u64);
                out.put_u64(*value);
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn merge(&mut self, _from: NodeId, delta: &[u8]) -> Result<bool, StateError> {
        if !delta.len().is_multiple_of(CELL_BYTES) {
            return Err(StateError::Malformed("odd length".to_owned()));
        }
        let before = self.len();
        for mut cell in delta.chunks_exact(CELL_BYTES) {
            let (log, place, value) = (cell.get_u64(), cell.get_u64(), cell.get_u64());
            let values = self.logs.entry(log).or_default();
            if place == values.len() as u64 {
                values.push(value);
            }
        }
        Ok(self.len() > before)
    }

    fn acknowledge(&mut self, from: NodeId, vector: &[u8]) {
        self.acknowledged.insert(from, Bytes::copy_from_slice(vector));
    }

    fn members(&mut self, others: &[NodeId]) {
        self.waits_for = others.to_vec();
    }
}
