//! A small set of procedures for services that need no more than keys and
//! values, and for first steps.

use quorate_types::codec::{CodecError, decode, encode};
use quorate_types::{Blob, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::limits::READ_RESULT_BYTES_MAX;
use crate::procedure::{Call, Footprint, Inputs, Outcome, Procedures, Write};

/// The number of the only procedure.
const PROCEDURE: u32 = 1;

/// Reads, writes and conditional writes of keys. Build calls with
/// [`Transaction`].
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyValue;

/// A transaction over any keys, on any shards: conditions, reads and writes.
/// If every condition holds, all writes happen; either way the values read are
/// those at the transaction's place in the order.
#[derive(Debug, Clone, Default, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct Transaction {
    conditions: Seq<(Blob, Option<Blob>)>,
    reads: Seq<Blob>,
    writes: Seq<(Blob, Option<Blob>)>,
}

/// What a [`Transaction`] brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct Answer {
    /// Whether all conditions held and the writes happened.
    pub committed: bool,
    /// The values of the keys read, in the order asked.
    pub values: Seq<Option<Blob>>,
}

impl Transaction {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires a key to hold a value, or with `None` to be missing.
    #[must_use]
    pub fn expect(mut self, key: impl Into<Blob>, value: Option<Blob>) -> Self {
        self.conditions.push((key.into(), value));
        self
    }

    /// Reads a key.
    #[must_use]
    pub fn get(mut self, key: impl Into<Blob>) -> Self {
        self.reads.push(key.into());
        self
    }

    /// Writes a key.
    #[must_use]
    pub fn put(mut self, key: impl Into<Blob>, value: impl Into<Blob>) -> Self {
        self.writes.push((key.into(), Some(value.into())));
        self
    }

    /// Deletes a key.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Blob>) -> Self {
        self.writes.push((key.into(), None));
        self
    }

    /// The call to execute.
    #[must_use]
    pub fn call(&self) -> Call {
        let conditions = self.conditions.iter().map(|(key, _)| key);
        let footprint = Footprint {
            reads: conditions.chain(&self.reads).cloned().collect(),
            writes: self.writes.iter().map(|(key, _)| key.clone()).collect(),
            ranges: Seq::new(),
        };
        Call { procedure: PROCEDURE, args: Blob(encode(self)), footprint }
    }
}

impl Answer {
    /// Reads the result of a [`Transaction`]'s call.
    ///
    /// # Errors
    /// When the bytes are the result of something else.
    pub fn of(result: &[u8]) -> Result<Self, CodecError> {
        decode(result)
    }
}

/// The outcome of a transaction that asks for too much: a result that is over
/// the limit by one byte, which aborts it whether it is logged or not.
fn too_large() -> Outcome {
    Outcome { result: vec![0; READ_RESULT_BYTES_MAX + 1].into(), ..Outcome::default() }
}

impl Procedures for KeyValue {
    fn run(&self, call: &Call, inputs: &Inputs, _time_millis: u64, _seed: u64) -> Outcome {
        let Ok(transaction) = decode::<Transaction>(&call.args) else {
            return Outcome::default();
        };
        let holds = |(key, expected): &(Blob, Option<Blob>)| inputs.value(key) == expected.as_ref();
        let committed = transaction.conditions.iter().all(holds);
        let values =
            transaction.reads.iter().map(|key| inputs.value(key).cloned()).collect::<Seq<_>>();
        // A key that is asked for a thousand times is read once but answered a
        // thousand times: what nobody could be sent must not be built either.
        let value_bytes = |value: &Option<Blob>| value.as_ref().map_or(0, |value| value.len());
        if values.iter().map(value_bytes).sum::<usize>() > READ_RESULT_BYTES_MAX {
            return too_large();
        }
        let writes = if committed { transaction.writes.0 } else { Vec::new() };
        Outcome {
            writes: writes
                .into_iter()
                .map(|(key, value)| Write { key, value, expires_millis: None })
                .collect(),
            clears: Vec::new(),
            result: Blob(encode(&Answer { committed, values })),
        }
    }
}
