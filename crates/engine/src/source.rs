//! What can be done with any consistent view of a shard, whichever engine it
//! is of: stream it, hash it, find its middle.

use bytes::Bytes;
use quorate_types::{Blob, KeyRange, buggify};

use crate::chunk::{self, CHUNK_BYTES_MAX, Header};
use crate::error::EngineError;
use crate::layer::successor;
use crate::port::{EngineSnapshot, Page, ScanLimit, Space, StateHash};

/// Rows read at a time when a whole shard is walked: enough to make the seek
/// of a page cheap, little enough to hold.
const WALK_PAGE: ScanLimit = ScanLimit { rows: 1024, bytes: 1 << 20 };

/// The most candidates for the middle of a shard. The one chosen is off by at
/// most a few of the shard's 512th parts.
const MIDDLE_CANDIDATES_MAX: usize = 1024;

/// A view of a shard that does not move.
pub(crate) trait Source: Send {
    fn header(&self) -> &Header;
    fn row(&self, space: Space, key: &[u8]) -> Result<Option<Blob>, EngineError>;
    /// The rows of `range`, which for data is within the shard's.
    fn page(&self, space: Space, range: &KeyRange, limit: ScanLimit) -> Result<Page, EngineError>;
}

/// All keys the space can have.
fn extent(source: &impl Source, space: Space) -> KeyRange {
    match space {
        Space::Data => source.header().range.clone(),
        Space::System => KeyRange::all(),
    }
}

/// Calls `visit` for every row of a space, in key order.
fn walk(
    source: &impl Source,
    space: Space,
    mut visit: impl FnMut(Blob, Blob),
) -> Result<(), EngineError> {
    let mut rest = extent(source, space);
    while !rest.is_empty() {
        let page = source.page(space, &rest, WALK_PAGE)?;
        match page.rows.last() {
            Some((key, _)) if page.more => rest.start = successor(key),
            _ => rest.end = Some(rest.start.clone()),
        }
        page.rows.into_iter().for_each(|(key, value)| visit(key, value));
    }
    Ok(())
}

/// FNV-1a (Fowler, Noll, Vo) with 128 bits: simple, specified, and the same on
/// every machine.
struct Fnv(u128);

impl Fnv {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(Self::PRIME);
        }
    }

    /// Length first, so that no two sequences of fields are the same bytes.
    fn field(&mut self, bytes: &[u8]) {
        self.update(&(bytes.len() as u64).to_be_bytes());
        self.update(bytes);
    }
}

/// See [`crate::Engine::hash`].
pub(crate) fn hash(source: &impl Source) -> Result<StateHash, EngineError> {
    let mut fnv = Fnv(Fnv::OFFSET);
    for (space, tag) in [(Space::System, b"S"), (Space::Data, b"D")] {
        walk(source, space, |key, value| {
            fnv.update(tag);
            fnv.field(&key);
            fnv.field(&value);
        })?;
    }
    Ok(StateHash { index: source.header().index, hash: fnv.0 })
}

/// See [`crate::Engine::middle_key`]. One pass that keeps a candidate every so
/// many bytes, and every other one of them whenever there are too many.
pub(crate) fn middle_key(source: &impl Source) -> Result<Option<Blob>, EngineError> {
    let mut candidates: Vec<(u64, Blob)> = Vec::new();
    let (mut total_bytes, mut step_bytes, mut due_bytes) = (0_u64, 1_u64, 1_u64);
    let mut before = Blob::new();
    walk(source, Space::Data, |key, value| {
        let row_bytes = (key.len() + value.len()) as u64;
        // The first row is no candidate: nothing would be left below it.
        if total_bytes >= due_bytes {
            candidates.push((total_bytes, key.separator_from(&before)));
            if candidates.len() > MIDDLE_CANDIDATES_MAX {
                step_bytes = (total_bytes / MIDDLE_CANDIDATES_MAX as u64).max(1) * 2;
                let mut is_kept = false;
                candidates.retain(|_| {
                    is_kept = !is_kept;
                    is_kept
                });
            }
            due_bytes = total_bytes + step_bytes;
        }
        total_bytes += row_bytes.max(1);
        before = key;
    })?;
    let half = total_bytes / 2;
    let middle = candidates.into_iter().min_by_key(|(before, _)| before.abs_diff(half));
    Ok(middle.map(|(_, key)| key))
}

/// Streams a [`Source`].
pub(crate) struct Stream<S> {
    source: S,
    sequence: u64,
    /// What the next chunk begins with; `None` after the last.
    next: Option<(Space, Blob)>,
}

impl<S: Source> Stream<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, sequence: 0, next: Some((Space::System, Blob::new())) }
    }
}

impl<S: Source> EngineSnapshot for Stream<S> {
    fn index(&self) -> u64 {
        self.source.header().index
    }

    fn range(&self) -> &KeyRange {
        &self.source.header().range
    }

    fn system_row(&self, key: &[u8]) -> Result<Option<Blob>, EngineError> {
        self.source.row(Space::System, key)
    }

    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, EngineError> {
        let Some((space, start)) = self.next.clone() else { return Ok(None) };
        let range = KeyRange { start, end: extent(&self.source, space).end };
        let bytes_max = if buggify!("engine snapshots one row a chunk") { 1 } else { bytes_max };
        let page = if range.is_empty() {
            Page::default()
        } else {
            self.source.page(space, &range, chunk_limit(bytes_max))?
        };
        self.next = match page.rows.last() {
            Some((key, _)) if page.more => Some((space, successor(key))),
            _ if space == Space::System => {
                Some((Space::Data, self.source.header().range.start.clone()))
            }
            _ => None,
        };
        let is_last = self.next.is_none();
        let bytes = chunk::encode(self.source.header(), self.sequence, space, is_last, page.rows);
        self.sequence += 1;
        Ok(Some(bytes))
    }
}

/// Leaves room in the largest chunk for what the encoding adds to the rows:
/// the header with two keys of the range, and some 16 bytes a row.
fn chunk_limit(bytes_max: usize) -> ScanLimit {
    const ENCODING_ROW_BYTES_MAX: usize = 16;
    const ROWS_MAX: usize = 64 << 10;
    const ROWS_BYTES_MAX: usize = CHUNK_BYTES_MAX - ROWS_MAX * ENCODING_ROW_BYTES_MAX - (256 << 10);
    ScanLimit { rows: ROWS_MAX, bytes: bytes_max.min(ROWS_BYTES_MAX) }
}
