//! From replies to bytes.
//!
//! Replies are encoded here and not by redis-protocol, because it has no RESP2
//! null array (what `EXEC` answers when a watched key changed) and keeps RESP3
//! maps in hash order. The tests decode everything with it.

use bytes::{BufMut, BytesMut};
use quorate_types::{Blob, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

/// The version of the protocol that a connection chose with `HELLO`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// What every client understands.
    #[default]
    Resp2,
    /// Typed replies.
    Resp3,
}

impl Protocol {
    /// Its number, as `HELLO` names it.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// An answer. Also what a transaction stores as its result; the integers are
/// that format's tags.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Reply {
    /// No value.
    #[msgpack(key = 0)]
    Null,
    /// No array; differs from `Null` in RESP2 only.
    #[msgpack(key = 1)]
    NullArray,
    /// A short text without line breaks.
    #[msgpack(key = 2)]
    Simple(Blob),
    /// An error: its code in capitals, a space, a text.
    #[msgpack(key = 3)]
    Error(Blob),
    /// A number.
    #[msgpack(key = 4)]
    Integer(i64),
    /// A string of any bytes.
    #[msgpack(key = 5)]
    Bulk(Blob),
    /// Several answers.
    #[msgpack(key = 6)]
    Array(Seq<Self>),
    /// Names and what they mean, in order.
    #[msgpack(key = 7)]
    Map(Seq<(Self, Self)>),
}

impl Reply {
    /// `+OK`.
    #[must_use]
    pub const fn ok() -> Self {
        Self::Simple(Blob::from_static(b"OK"))
    }

    /// How much it takes, nearly: what limits count.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 16;
        let content = match self {
            Self::Null | Self::NullArray | Self::Integer(_) => 0,
            Self::Simple(text) | Self::Error(text) | Self::Bulk(text) => text.len(),
            Self::Array(items) => items.iter().map(Self::payload_bytes).sum(),
            Self::Map(entries) => entries
                .iter()
                .map(|(name, value)| name.payload_bytes() + value.payload_bytes())
                .sum(),
        };
        OVERHEAD_BYTES + content
    }

    /// A short fixed text.
    #[must_use]
    pub const fn simple(text: &'static str) -> Self {
        Self::Simple(Blob::from_static(text.as_bytes()))
    }

    /// An error with the given text.
    #[must_use]
    pub fn error(text: impl Into<Blob>) -> Self {
        Self::Error(text.into())
    }

    /// A string.
    #[must_use]
    pub fn bulk(text: impl Into<Blob>) -> Self {
        Self::Bulk(text.into())
    }

    /// A string, or null when there is none.
    #[must_use]
    pub fn bulk_or_null(value: Option<Blob>) -> Self {
        value.map_or(Self::Null, Self::Bulk)
    }

    /// A count. Counts of keys and bytes are far below 2^63.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Several answers.
    #[must_use]
    pub fn array(replies: impl IntoIterator<Item = Self>) -> Self {
        Self::Array(replies.into_iter().collect())
    }

    /// Whether this is an error.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Roughly what the reply occupies in memory and on the wire.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 32;
        OVERHEAD_BYTES
            + match self {
                Self::Null | Self::NullArray | Self::Integer(_) => 0,
                Self::Simple(text) | Self::Error(text) | Self::Bulk(text) => text.len(),
                Self::Array(items) => items.iter().map(Self::weight_bytes).sum(),
                Self::Map(pairs) => {
                    pairs.iter().map(|(key, value)| key.weight_bytes() + value.weight_bytes()).sum()
                }
            }
    }

    /// Appends the reply as it goes over the wire.
    pub fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        match (self, protocol) {
            (Self::Null, Protocol::Resp2) => out.put_slice(b"$-1\r\n"),
            (Self::NullArray, Protocol::Resp2) => out.put_slice(b"*-1\r\n"),
            (Self::Null | Self::NullArray, Protocol::Resp3) => out.put_slice(b"_\r\n"),
            (Self::Simple(text), _) => put_line(b'+', text, out),
            (Self::Error(text), _) => put_line(b'-', text, out),
            (Self::Integer(number), _) => put_number(b':', *number, out),
            (Self::Bulk(value), _) => {
                put_length(b'$', value.len(), out);
                out.put_slice(value);
                out.put_slice(b"\r\n");
            }
            (Self::Array(items), _) => {
                put_length(b'*', items.len(), out);
                items.iter().for_each(|item| item.encode(protocol, out));
            }
            (Self::Map(pairs), _) => {
                match protocol {
                    Protocol::Resp2 => put_length(b'*', pairs.len() * 2, out),
                    Protocol::Resp3 => put_length(b'%', pairs.len(), out),
                }
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
        }
    }
}

/// A line must not contain a line break; an error quotes what the client sent.
fn put_line(kind: u8, text: &[u8], out: &mut BytesMut) {
    out.put_u8(kind);
    if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        out.extend(
            text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }),
        );
    } else {
        out.put_slice(text);
    }
    out.put_slice(b"\r\n");
}

fn put_length(kind: u8, length: usize, out: &mut BytesMut) {
    put_number(kind, i64::try_from(length).unwrap_or(i64::MAX), out);
}

fn put_number(kind: u8, number: i64, out: &mut BytesMut) {
    /// The digits of any `i64` and its sign.
    const DIGITS_MAX: usize = 20;
    let mut digits = [0_u8; DIGITS_MAX];
    let mut rest = number.unsigned_abs();
    let mut length = 0;
    for slot in digits.iter_mut().rev() {
        // The remainder of a division by ten is a single digit.
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    out.put_u8(kind);
    if number < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(digits.get(DIGITS_MAX - length..).unwrap_or_default());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
