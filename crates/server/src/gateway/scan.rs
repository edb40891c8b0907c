//! `SCAN` without server-side state.
//!
//! Keys are walked slot by slot. A cursor is a slot and a point in the order
//! of its keys' hashes: `slot << 48 | hash`. A slot of many keys, as a hashtag
//! makes one, is thus returned in portions although its keys' names do not fit
//! a cursor: each portion holds the keys whose hashes come next. A key that
//! exists during the whole iteration keeps its slot and its hash, so it is
//! returned; the price is that a slot is read once for each of its portions.
//! A cursor says nothing about shards, so a split does not disturb it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_types::Blob;
use tokio::time::Instant;

use crate::backend::{Backend, BackendError};
use crate::commands::{
    KEY_PREFIX_BYTES, SLOTS, ScanRequest, glob_matches, slot_start, unpartition_key,
};
use crate::resp::Reply;

/// Most keys of one answer, whatever `COUNT` asks for.
const COUNT_MAX: usize = 10_000;

/// Keys read from the backend at a time.
const PAGE_KEYS: usize = 1_000;

/// Most keys that are looked at for one answer; a slot that has been begun is
/// always finished.
const EXAMINED_KEYS_MAX: usize = 100_000;

/// How long one answer may take, as long as any other call may. What was found
/// by then is answered.
const DEADLINE: Duration = Duration::from_secs(10);

const HASH_BITS: u32 = 48;
const HASH_MASK: u64 = (1 << HASH_BITS) - 1;

/// Where an iteration stands: hashes from `hash` on, of `slot`, come next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cursor {
    slot: u16,
    hash: u64,
}

impl Cursor {
    /// A cursor that names no slot is at the end.
    fn decode(cursor: u64) -> Option<Self> {
        let slot = u16::try_from(cursor >> HASH_BITS).ok().filter(|slot| *slot < SLOTS)?;
        Some(Self { slot, hash: cursor & HASH_MASK })
    }

    fn encode(self) -> u64 {
        (u64::from(self.slot) << HASH_BITS) | self.hash
    }

    /// The first key that the slot can have.
    fn start(self) -> Blob {
        slot_start(self.slot)
    }
}

/// Answers `SCAN`. Once `cut` is true no further page is asked for.
pub(super) async fn scan(
    backend: &dyn Backend,
    request: &ScanRequest,
    cut: &AtomicBool,
) -> Result<Reply, BackendError> {
    let wanted = request.count.min(COUNT_MAX);
    let (keys, next) = match Cursor::decode(request.cursor) {
        Some(cursor) => portion(backend, cursor, wanted, cut).await?,
        None => (Vec::new(), None),
    };
    let next = next.map_or(0, Cursor::encode).to_string();
    let matches = |key: &Blob| {
        request.strings && request.pattern.as_ref().is_none_or(|glob| glob_matches(glob, key))
    };
    let keys = keys.iter().map(unpartition_key).filter(matches).map(Reply::Bulk);
    Ok(Reply::array([Reply::bulk(next.as_str()), Reply::array(keys)]))
}

/// The keys from `cursor` on, about as many as wanted, and where to go on.
async fn portion(
    backend: &dyn Backend,
    cursor: Cursor,
    wanted: usize,
    cut: &AtomicBool,
) -> Result<(Vec<Blob>, Option<Cursor>), BackendError> {
    let until = Instant::now() + DEADLINE;
    let mut walk = Walk::new(cursor, wanted);
    let mut from = cursor.start();
    loop {
        let page = match tokio::time::timeout_at(until, backend.scan_keys(from.clone(), PAGE_KEYS))
            .await
        {
            Ok(page) => page?,
            Err(_) => return walk.interrupt("listing the keys takes too long"),
        };
        for key in page.keys {
            if let Some(next) = walk.take(key) {
                return Ok((walk.found, Some(next)));
            }
        }
        match page.next {
            None => return Ok(walk.finish()),
            Some(next) if next <= from => {
                return Err(BackendError::Refused("the keys were listed out of order".into()));
            }
            Some(next) => from = next,
        }
        if cut.load(Ordering::Relaxed) {
            return walk.interrupt("the connection ends");
        }
    }
}

/// The keys that an answer is made of, as pages bring them.
struct Walk {
    start: Cursor,
    wanted: usize,
    /// Keys of slots that are done with.
    found: Vec<Blob>,
    slot: SlotKeys,
    examined: usize,
}

impl Walk {
    fn new(start: Cursor, wanted: usize) -> Self {
        Self { start, wanted, found: Vec::new(), slot: SlotKeys::new(start, wanted), examined: 0 }
    }

    /// Takes the next key. Where the answer is complete without it, says where
    /// the next one begins.
    fn take(&mut self, key: Blob) -> Option<Cursor> {
        let slot = slot_of_stored(&key);
        if slot != self.slot.cursor.slot {
            let next = Cursor { slot, hash: 0 };
            if let Some(rest) = self.slot.finish(&mut self.found) {
                return Some(rest);
            }
            let left = self.wanted.saturating_sub(self.found.len());
            self.slot = SlotKeys::new(next, left);
            if left == 0 || self.examined >= EXAMINED_KEYS_MAX {
                return Some(next);
            }
        }
        self.examined += 1;
        self.slot.take(key);
        None
    }

    /// Everything was seen.
    fn finish(mut self) -> (Vec<Blob>, Option<Cursor>) {
        let rest = self.slot.finish(&mut self.found);
        (self.found, rest)
    }

    /// Ends early: the slot that was not seen to its end comes again. If it is
    /// the first, there is nothing to answer.
    fn interrupt(self, reason: &str) -> Result<(Vec<Blob>, Option<Cursor>), BackendError> {
        let next = self.slot.cursor;
        if next == self.start {
            return Err(BackendError::Refused(reason.into()));
        }
        Ok((self.found, Some(next)))
    }
}

/// The keys of one slot with the lowest hashes from a cursor on.
struct SlotKeys {
    cursor: Cursor,
    wanted: usize,
    keys: BTreeMap<u64, Vec<Blob>>,
    count: usize,
    /// The lowest hash that was left out.
    left_out: Option<u64>,
}

impl SlotKeys {
    fn new(cursor: Cursor, wanted: usize) -> Self {
        Self { cursor, wanted, keys: BTreeMap::new(), count: 0, left_out: None }
    }

    fn take(&mut self, key: Blob) {
        let hash = hash_of(&key);
        let beyond = self.left_out.is_some_and(|left_out| hash >= left_out);
        if hash < self.cursor.hash || beyond {
            return;
        }
        self.keys.entry(hash).or_default().push(key);
        self.count += 1;
        // Keys of one hash stay together, so that a cursor can tell where to
        // go on; the last group goes when the others suffice.
        if let Some(last) = self.keys.last_entry()
            && self.count - last.get().len() >= self.wanted
        {
            self.left_out = Some(*last.key());
            self.count -= last.remove().len();
        }
    }

    /// Hands over what was taken; says where the slot's next portion begins,
    /// if not all was.
    fn finish(&mut self, found: &mut Vec<Blob>) -> Option<Cursor> {
        found.extend(std::mem::take(&mut self.keys).into_values().flatten());
        self.left_out.map(|hash| Cursor { slot: self.cursor.slot, hash })
    }
}

fn slot_of_stored(key: &[u8]) -> u16 {
    key.first_chunk::<KEY_PREFIX_BYTES>().map_or(0, |slot| u16::from_be_bytes(*slot))
}

/// FNV-1a, folded to the cursor's bits. Clients keep cursors while nodes are
/// upgraded, so the function is fixed.
fn hash_of(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> HASH_BITS)) & HASH_MASK
}

#[cfg(test)]
mod fuzz;
