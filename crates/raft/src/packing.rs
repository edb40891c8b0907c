//! Where payloads lie that came in a message.
//!
//! Not in the message: it may be part of what a connection read, and an entry that
//! stays would keep all of that. Small ones lie together, because a piece of memory
//! for each costs more than what is in it.

#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};

/// What lies together, so that whoever keeps a small payload keeps no more.
const PIECE_BYTES_MAX: usize = 4 << 10;
/// What is small.
const SMALL_BYTES_MAX: usize = 512;

/// Copies payloads, small ones together.
pub(crate) struct Packing {
    /// Of the small ones that are to come.
    small_bytes: usize,
    piece: BytesMut,
}

impl Packing {
    /// For payloads of these lengths.
    pub(crate) fn of(lengths: impl Iterator<Item = usize>) -> Self {
        let small_bytes = lengths.filter(|bytes| *bytes <= SMALL_BYTES_MAX).sum();
        Self { small_bytes, piece: BytesMut::new() }
    }

    pub(crate) fn copy(&mut self, payload: &[u8]) -> Bytes {
        if payload.len() > SMALL_BYTES_MAX {
            return Bytes::copy_from_slice(payload);
        }
        if self.piece.capacity() < payload.len() {
            let bytes = self.small_bytes.clamp(payload.len(), PIECE_BYTES_MAX);
            self.piece = BytesMut::with_capacity(bytes);
        }
        self.small_bytes = self.small_bytes.saturating_sub(payload.len());
        self.piece.put_slice(payload);
        self.piece.split().freeze()
    }
}
