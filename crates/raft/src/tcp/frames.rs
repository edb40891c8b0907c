//! What travels between two meshes, inside [`Frame`]s, integers big endian:
//!
//! ```text
//! request = [id u64][time left in milliseconds u32][channel u8] body
//! oneway  = [channel u8] body
//! reply   = [id u64][status u8] body      status: see `Outcome`
//! ping    = [id u64]                      answered by an empty reply
//! ```
//!
//! An empty reply to [`NOBODY`] says that its sender is alive, and has no room to read
//! what comes next.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::frame::{FRAME_PAYLOAD_BYTES_MAX, Frame};

/// The id of no request.
pub(super) const NOBODY: u64 = 0;

const REQUEST: u8 = 0x01;
const ONEWAY: u8 = 0x02;
const REPLY: u8 = 0x03;
const PING: u8 = 0x04;
/// Requests of version 1 did not say how long their callers wait; version 2 had
/// no pings.
const VERSION: u8 = 3;

/// The most that a frame's payload needs beside the body.
const HEADER_BYTES_MAX: usize = 13;

/// The largest body of a request, a one-way message or a reply.
pub(super) const BODY_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX as usize - HEADER_BYTES_MAX;

/// How a request ended at the node that was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Status 0: the service's reply.
    Reply(Bytes),
    /// Status 1: the service refused, in its own words.
    Refusal(Bytes),
    /// Status 2: not begun, because too much is in work already.
    NotBegun,
    /// Status 3: begun, and dropped when its caller's time was over.
    Ended,
}

impl Outcome {
    const fn status(&self) -> u8 {
        match self {
            Self::Reply(_) => 0,
            Self::Refusal(_) => 1,
            Self::NotBegun => 2,
            Self::Ended => 3,
        }
    }

    pub(super) fn body(&self) -> &[u8] {
        match self {
            Self::Reply(body) | Self::Refusal(body) => body,
            Self::NotBegun | Self::Ended => &[],
        }
    }

    fn decode(status: u8, body: Bytes) -> Option<Self> {
        match status {
            0 => Some(Self::Reply(body)),
            1 => Some(Self::Refusal(body)),
            2 => Some(Self::NotBegun),
            3 => Some(Self::Ended),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Message {
    Request { id: u64, left_millis: u32, channel: u8, body: Bytes },
    Oneway { channel: u8, body: Bytes },
    Reply { id: u64, outcome: Outcome },
    Ping { id: u64 },
}

impl Message {
    /// Appends the message to `out`. False when its body is too large, which
    /// callers have ruled out.
    pub(super) fn encode(&self, out: &mut BytesMut) -> bool {
        let mut header = [0; HEADER_BYTES_MAX];
        let mut rest = &mut header[..];
        let kind = match self {
            Self::Request { id, left_millis, channel, .. } => {
                rest.put_u64(*id);
                rest.put_u32(*left_millis);
                rest.put_u8(*channel);
                REQUEST
            }
            Self::Oneway { channel, .. } => {
                rest.put_u8(*channel);
                ONEWAY
            }
            Self::Reply { id, outcome } => {
                rest.put_u64(*id);
                rest.put_u8(outcome.status());
                REPLY
            }
            Self::Ping { id } => {
                rest.put_u64(*id);
                PING
            }
        };
        let header_bytes = HEADER_BYTES_MAX - rest.len();
        let (header, _) = header.split_at(header_bytes);
        Frame::encode_parts(kind, VERSION, &[header, self.body()], out).is_ok()
    }

    fn body(&self) -> &[u8] {
        match self {
            Self::Request { body, .. } | Self::Oneway { body, .. } => body,
            Self::Reply { outcome, .. } => outcome.body(),
            Self::Ping { .. } => &[],
        }
    }

    /// The message in a frame; `None` when it is none that we know.
    pub(super) fn decode(frame: Frame) -> Option<Self> {
        let Frame { kind, version, payload: mut body } = frame;
        if version != VERSION {
            return None;
        }
        match kind {
            REQUEST => {
                let id = body.try_get_u64().ok()?;
                let left_millis = body.try_get_u32().ok()?;
                let channel = body.try_get_u8().ok()?;
                Some(Self::Request { id, left_millis, channel, body })
            }
            ONEWAY => {
                let channel = body.try_get_u8().ok()?;
                Some(Self::Oneway { channel, body })
            }
            REPLY => {
                let id = body.try_get_u64().ok()?;
                let status = body.try_get_u8().ok()?;
                Some(Self::Reply { id, outcome: Outcome::decode(status, body)? })
            }
            PING => {
                let id = body.try_get_u64().ok()?;
                body.is_empty().then_some(Self::Ping { id })
            }
            _ => None,
        }
    }
}
