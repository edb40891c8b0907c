//! What can be learned from messages on their way.

use bytes::Bytes;
use quorate_calvin::PeerMessage;
use quorate_calvin::sequencer::Watermarks;

/// Where the name of a message's kind is: behind its format, the head of an
/// array of two and the head of a short string.
const NAME_AT: usize = 3;

/// The watermarks that a one-way message of the services carries, if it does.
pub(crate) fn watermarks(payload: &Bytes) -> Option<Watermarks> {
    // Most messages are others and need not be read.
    if !payload.get(NAME_AT..)?.starts_with(b"Watermarks") {
        return None;
    }
    match PeerMessage::from_bytes(payload).ok()? {
        PeerMessage::Watermarks { marks, .. } => Some(marks),
        _ => None,
    }
}
