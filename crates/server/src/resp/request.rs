//! From bytes to requests.
//!
//! redis-protocol decodes; what stands around it here decides *whether* it
//! may. On its own that decoder starts again at the first byte whenever more
//! arrive, follows nested arrays with recursion and takes any announced length
//! for granted. So a request is first framed, remembering how far that came:
//! every length is checked against its limit where it is announced, nesting is
//! refused, and only a request that arrived whole is decoded, once.

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;

use super::inline;
use crate::commands::parse_integer;

/// Longest line `*<count>` or `$<length>`: a sign and the digits of an i64
/// need 21 bytes.
const LENGTH_LINE_BYTES_MAX: usize = 64;

/// What a single request may ask of the server's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestLimits {
    /// Longest inline command.
    pub inline_bytes_max: usize,
    /// Longest single argument.
    pub bulk_bytes_max: usize,
    /// Most arguments of a request, the command's name included.
    pub elements_max: usize,
    /// Longest whole request, framing included.
    pub request_bytes_max: usize,
}

impl Default for RequestLimits {
    /// A line of 64 KiB as in Redis; values of 512 KiB and requests of 768 KiB,
    /// because a write travels in one log entry; 65,536 arguments, enough for
    /// any client's batch and few enough to lock.
    fn default() -> Self {
        Self {
            inline_bytes_max: 64 << 10,
            bulk_bytes_max: 512 << 10,
            elements_max: 65_536,
            request_bytes_max: quorate_calvin::limits::CALL_BYTES_MAX,
        }
    }
}

/// Why a connection's bytes cannot be followed any further. The client is told
/// and the connection closed, because where the next request begins is
/// unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// An inline command without an end.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// An inline command whose quotes do not pair up.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An argument count without an end.
    #[error("Protocol error: too big mbulk count string")]
    CountLineTooBig,
    /// An argument count that is no number or beyond the limit.
    #[error("Protocol error: invalid multibulk length")]
    InvalidCount,
    /// An argument length without an end.
    #[error("Protocol error: too big bulk count string")]
    LengthLineTooBig,
    /// An argument that is no bulk string.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    ExpectedBulk(u8),
    /// An argument length that is no number, negative or beyond the limit.
    #[error("Protocol error: invalid bulk length")]
    InvalidLength,
    /// An argument that does not end where its length says.
    #[error("Protocol error: expected the end of a line after a bulk string")]
    ExpectedLineEnd,
    /// A request whose arguments together are too long.
    #[error("Protocol error: request exceeds {0} bytes")]
    RequestTooBig(usize),
    /// A request that was framed but could not be decoded.
    #[error("Protocol error: malformed request")]
    Malformed,
}

/// A command's name and its arguments; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The words.
    pub args: Vec<Bytes>,
    /// How long it was on the wire.
    pub wire_bytes: usize,
}

/// Finds requests in a stream of bytes.
#[derive(Debug, Default)]
pub struct RequestDecoder {
    limits: RequestLimits,
    frame: Option<Frame>,
}

/// How far the request at the front of the buffer has been framed.
#[derive(Debug, Clone, Copy)]
struct Frame {
    /// The first byte not looked at.
    offset: usize,
    /// Arguments still to come.
    missing: usize,
}

impl RequestDecoder {
    /// A decoder for the start of a connection.
    #[must_use]
    pub fn new(limits: RequestLimits) -> Self {
        Self { limits, frame: None }
    }

    /// Takes the next request off `buffer`, or nothing while it is incomplete.
    ///
    /// # Errors
    /// [`ProtocolError`], after which the connection cannot go on.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        while let Some(&first) = buffer.first() {
            let request = if self.frame.is_some() || first == b'*' {
                self.decode_array(buffer)?
            } else {
                self.decode_inline(buffer)?
            };
            match request {
                Some(request) if request.args.is_empty() => {}
                decided => return Ok(decided),
            }
        }
        Ok(None)
    }

    fn decode_inline(&self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        let window = buffer.get(..self.limits.inline_bytes_max).unwrap_or(buffer);
        let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
            return match window.len() < self.limits.inline_bytes_max {
                true => Ok(None),
                false => Err(ProtocolError::InlineTooBig),
            };
        };
        let line = buffer.split_to(end);
        buffer.advance(1);
        let args = inline::split(&line).map_err(|_| ProtocolError::UnbalancedQuotes)?;
        Ok(Some(Request { args, wire_bytes: end + 1 }))
    }

    fn decode_array(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        let mut frame = match self.frame {
            Some(frame) => frame,
            None => match self.open(buffer)? {
                Some(frame) => frame,
                None => return Ok(None),
            },
        };
        while frame.missing > 0 {
            let Some(end) = self.argument_end(buffer, frame.offset)? else {
                self.frame = Some(frame);
                return Ok(None);
            };
            frame = Frame { offset: end, missing: frame.missing - 1 };
        }
        self.frame = None;
        let wire = buffer.split_to(frame.offset).freeze();
        Ok(Some(Request { args: decode_args(&wire)?, wire_bytes: wire.len() }))
    }

    fn open(&self, buffer: &[u8]) -> Result<Option<Frame>, ProtocolError> {
        let Some((count, offset)) = length_line(buffer, 0, ProtocolError::CountLineTooBig)? else {
            return Ok(None);
        };
        let count = count.ok_or(ProtocolError::InvalidCount)?;
        // Redis takes a negative count for an empty request.
        let missing = usize::try_from(count.max(0)).map_err(|_| ProtocolError::InvalidCount)?;
        if missing > self.limits.elements_max {
            return Err(ProtocolError::InvalidCount);
        }
        Ok(Some(Frame { offset, missing }))
    }

    /// Where the argument that starts at `offset` ends, if it is whole.
    fn argument_end(&self, buffer: &[u8], offset: usize) -> Result<Option<usize>, ProtocolError> {
        match buffer.get(offset) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
        }
        let line = length_line(buffer, offset, ProtocolError::LengthLineTooBig)?;
        let Some((length, start)) = line else {
            return Ok(None);
        };
        let length = length
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= self.limits.bulk_bytes_max)
            .ok_or(ProtocolError::InvalidLength)?;
        // Both are bounded by limits far below an overflow.
        let end = start + length + 2;
        if end > self.limits.request_bytes_max {
            return Err(ProtocolError::RequestTooBig(self.limits.request_bytes_max));
        }
        match buffer.get(end - 2..end) {
            None => Ok(None),
            Some(b"\r\n") => Ok(Some(end)),
            Some(_) => Err(ProtocolError::ExpectedLineEnd),
        }
    }
}

/// The number on a line `<type><number>\r\n` at `offset`, and where the line
/// ends. `Some((None, _))` is a line without a number.
fn length_line(
    buffer: &[u8],
    offset: usize,
    too_big: ProtocolError,
) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
    let tail = buffer.get(offset + 1..).unwrap_or_default();
    let window = tail.get(..LENGTH_LINE_BYTES_MAX).unwrap_or(tail);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() < LENGTH_LINE_BYTES_MAX { Ok(None) } else { Err(too_big) };
    };
    let digits = window.get(..end).unwrap_or_default();
    Ok(Some((parse_integer(digits), offset + 1 + end + 2)))
}

fn decode_args(wire: &Bytes) -> Result<Vec<Bytes>, ProtocolError> {
    let arguments = match decode_range(wire) {
        Ok(Some((RangeFrame::Array(arguments), length))) if length == wire.len() => arguments,
        // The count was negative: no arguments.
        Ok(Some((RangeFrame::Null, _))) => return Ok(Vec::new()),
        _ if wire.starts_with(b"*-") => return Ok(Vec::new()),
        _ => return Err(ProtocolError::Malformed),
    };
    arguments
        .into_iter()
        .map(|argument| match argument {
            RangeFrame::BulkString((start, end)) if start <= end && end <= wire.len() => {
                Ok(wire.slice(start..end))
            }
            _ => Err(ProtocolError::Malformed),
        })
        .collect()
}

#[cfg(test)]
mod tests;
