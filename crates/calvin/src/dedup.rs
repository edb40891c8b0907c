//! Request memory: what makes a retry safe (rule 15), used by the shards and
//! by the sequencer alike.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{Blob, ClientId, Epoch, RequestId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::command::seal;
use crate::store::WriteSet;

/// Tag of request rows.
pub(crate) const DEDUP_TAG: u8 = b'd';
/// Tag of [`ClientMark`] rows.
pub(crate) const MARK_TAG: u8 = b'c';

/// How far a client has acknowledged its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub struct ClientMark {
    /// Sequences below were answered; their rows may be gone.
    pub ack_below: u64,
    /// The youngest birth seen; once the expiry floor passes it the mark may go.
    pub birth: Epoch,
}

/// The key of a request's row.
#[must_use]
pub(crate) fn dedup_key((client, sequence): (ClientId, u64)) -> Blob {
    let mut key = vec![DEDUP_TAG];
    key.extend_from_slice(&client.0.to_be_bytes());
    key.extend_from_slice(&sequence.to_be_bytes());
    key.into()
}

/// The key of a [`ClientMark`].
#[must_use]
pub(crate) fn mark_key(client: ClientId) -> Blob {
    let mut key = vec![MARK_TAG];
    key.extend_from_slice(&client.0.to_be_bytes());
    key.into()
}

/// A remembered request.
pub(crate) trait Remembered: ToMessagePack {
    /// The request's birth, which decides when the row may go.
    fn birth(&self) -> Epoch;
}

/// Rows by request, mirrored in memory.
#[derive(Clone, Debug)]
pub(crate) struct Dedup<R> {
    rows: BTreeMap<(ClientId, u64), R>,
    by_birth: BTreeSet<(Epoch, ClientId, u64)>,
    marks: BTreeMap<ClientId, ClientMark>,
}

impl<R: Remembered> Dedup<R> {
    pub(crate) fn load(
        rows: BTreeMap<(ClientId, u64), R>,
        marks: BTreeMap<ClientId, ClientMark>,
    ) -> Self {
        let by_birth =
            rows.iter().map(|((client, seq), row)| (row.birth(), *client, *seq)).collect();
        Self { rows, by_birth, marks }
    }

    /// Requests and clients remembered.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() + self.marks.len()
    }

    pub(crate) fn get(&self, request: &RequestId) -> Option<&R> {
        self.rows.get(&request.key())
    }

    /// A request without a row is expired when its row may have gone: by the
    /// floor, or because the client acknowledged it.
    pub(crate) fn is_expired(&self, request: &RequestId, floor: Epoch) -> bool {
        let acknowledged =
            self.marks.get(&request.client).is_some_and(|mark| request.sequence < mark.ack_below);
        acknowledged || (request.birth <= floor && floor > Epoch(0))
    }

    /// Takes note of what the client no longer retries and drops those rows.
    pub(crate) fn acknowledge(&mut self, writes: &mut WriteSet, request: &RequestId) {
        let mark = self.marks.get(&request.client).copied().unwrap_or_default();
        let updated = ClientMark {
            ack_below: mark.ack_below.max(request.ack_below),
            birth: mark.birth.max(request.birth),
        };
        if mark == updated {
            return;
        }
        self.marks.insert(request.client, updated);
        writes.put_system(mark_key(request.client), seal(&updated));
        let from = (request.client, mark.ack_below);
        let to = (request.client, updated.ack_below);
        let dropped: Vec<_> = self.rows.range(from..to).map(|(key, _)| *key).collect();
        for key in dropped {
            self.forget(writes, key);
        }
    }

    pub(crate) fn remember(&mut self, writes: &mut WriteSet, request: &RequestId, row: R) {
        self.forget(writes, request.key());
        writes.put_system(dedup_key(request.key()), seal(&row));
        self.by_birth.insert((row.birth(), request.client, request.sequence));
        self.rows.insert(request.key(), row);
    }

    fn forget(&mut self, writes: &mut WriteSet, key: (ClientId, u64)) -> Option<R> {
        let row = self.rows.remove(&key)?;
        self.by_birth.remove(&(row.birth(), key.0, key.1));
        writes.delete_system(dedup_key(key));
        Some(row)
    }

    /// Drops everything born at or below the floor.
    pub(crate) fn expire(&mut self, writes: &mut WriteSet, floor: Epoch) {
        let kept = self.by_birth.split_off(&(floor.next(), ClientId(0), 0));
        for (_, client, sequence) in std::mem::replace(&mut self.by_birth, kept) {
            self.rows.remove(&(client, sequence));
            writes.delete_system(dedup_key((client, sequence)));
        }
        self.marks.retain(|client, mark| {
            let is_kept = mark.birth > floor;
            if !is_kept {
                writes.delete_system(mark_key(*client));
            }
            is_kept
        });
    }

    /// Takes out the rows that `moves` selects, as rows for a child. Marks
    /// stay and are copied, since a client may have requests on both sides.
    pub(crate) fn split_off(
        &mut self,
        writes: &mut WriteSet,
        moves: impl Fn(&R) -> bool,
    ) -> Vec<(Blob, Blob)> {
        let moving: Vec<_> =
            self.rows.iter().filter(|(_, row)| moves(row)).map(|(key, _)| *key).collect();
        let mut child = Vec::new();
        for key in moving {
            if let Some(row) = self.forget(writes, key) {
                child.push((dedup_key(key), seal(&row)));
            }
        }
        child.extend(self.marks.iter().map(|(client, mark)| (mark_key(*client), seal(mark))));
        child
    }
}
