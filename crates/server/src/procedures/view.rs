//! The data as the transaction in progress sees it: its inputs under what it
//! has written itself.

use std::collections::BTreeMap;

use quorate_calvin::{Inputs, Outcome, Write};
use quorate_types::{Blob, KeyRange};

/// A value and when it expires.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Value {
    pub(super) bytes: Blob,
    pub(super) expires_millis: Option<u64>,
}

/// See the module.
pub(super) struct View<'a> {
    inputs: &'a Inputs,
    time_millis: u64,
    cleared: bool,
    /// What this transaction wrote; `None` is a deletion.
    written: BTreeMap<Blob, Option<Value>>,
}

impl<'a> View<'a> {
    pub(super) fn new(inputs: &'a Inputs, time_millis: u64) -> Self {
        Self { inputs, time_millis, cleared: false, written: BTreeMap::new() }
    }

    pub(super) fn inputs(&self) -> &'a Inputs {
        self.inputs
    }

    pub(super) fn time_millis(&self) -> u64 {
        self.time_millis
    }

    /// Whether everything before was deleted.
    pub(super) fn cleared(&self) -> bool {
        self.cleared
    }

    /// Keys that were written, and whether they exist now.
    pub(super) fn written(&self) -> impl Iterator<Item = (&Blob, bool)> {
        self.written.iter().map(|(key, value)| (key, value.is_some()))
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Value> {
        if let Some(written) = self.written.get(key) {
            return written.clone();
        }
        if self.cleared {
            return None;
        }
        let read = self.inputs.reads.get(key)?;
        let bytes = read.value.clone()?;
        Some(Value { bytes, expires_millis: read.expires_millis })
    }

    pub(super) fn exists(&self, key: &[u8]) -> bool {
        match self.written.get(key) {
            Some(written) => written.is_some(),
            None => !self.cleared && self.inputs.value(key).is_some(),
        }
    }

    /// Sets a key. A value that expires at or before the transaction's time
    /// is one that is deleted.
    pub(super) fn put(&mut self, key: &Blob, bytes: Blob, expires_millis: Option<u64>) {
        let alive = expires_millis.is_none_or(|expires| expires > self.time_millis);
        self.written.insert(key.clone(), alive.then_some(Value { bytes, expires_millis }));
    }

    /// Deletes a key and says whether it existed. A missing key is not
    /// written, so nobody who watches it is disturbed.
    pub(super) fn remove(&mut self, key: &Blob) -> bool {
        let existed = self.exists(key);
        if existed {
            self.written.insert(key.clone(), None);
        }
        existed
    }

    pub(super) fn clear(&mut self) {
        self.cleared = true;
        self.written.clear();
    }

    /// What all this amounts to.
    pub(super) fn into_outcome(self, result: Blob) -> Outcome {
        let clears = if self.cleared { vec![KeyRange::all()] } else { Vec::new() };
        let writes = self.written.into_iter().map(|(key, value)| match value {
            Some(value) => {
                Write { key, value: Some(value.bytes), expires_millis: value.expires_millis }
            }
            None => Write { key, value: None, expires_millis: None },
        });
        Outcome { writes: writes.collect(), clears, result }
    }
}
