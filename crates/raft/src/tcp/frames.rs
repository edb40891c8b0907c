//! What travels between two meshes, inside [`Frame`]s, integers big endian:
//!
//! ```text
//! request = [id u64][channel u8] body
//! oneway  = [channel u8] body
//! reply   = [id u64][status u8] body      status 0: reply, 1: refusal
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::frame::{FRAME_PAYLOAD_BYTES_MAX, Frame};

const REQUEST: u8 = 0x01;
const ONEWAY: u8 = 0x02;
const REPLY: u8 = 0x03;
const VERSION: u8 = 1;

/// The most a frame's payload needs beside the body.
const HEADER_BYTES_MAX: usize = 9;

/// The largest body of a request, a one-way message or a reply.
pub(super) const BODY_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX as usize - HEADER_BYTES_MAX;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Message {
    Request { id: u64, channel: u8, body: Bytes },
    Oneway { channel: u8, body: Bytes },
    Reply { id: u64, result: Result<Bytes, Bytes> },
}

impl Message {
    /// Appends the message to `out`. False when its body is too large, which
    /// callers have ruled out.
    pub(super) fn encode(&self, out: &mut BytesMut) -> bool {
        let mut payload = BytesMut::with_capacity(HEADER_BYTES_MAX + self.body().len());
        let kind = match self {
            Self::Request { id, channel, .. } => {
                payload.put_u64(*id);
                payload.put_u8(*channel);
                REQUEST
            }
            Self::Oneway { channel, .. } => {
                payload.put_u8(*channel);
                ONEWAY
            }
            Self::Reply { id, result } => {
                payload.put_u64(*id);
                payload.put_u8(u8::from(result.is_err()));
                REPLY
            }
        };
        payload.put_slice(self.body());
        Frame { kind, version: VERSION, payload: payload.freeze() }.encode(out).is_ok()
    }

    pub(super) fn body(&self) -> &Bytes {
        match self {
            Self::Request { body, .. } | Self::Oneway { body, .. } => body,
            Self::Reply { result: Ok(body) | Err(body), .. } => body,
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
                let channel = body.try_get_u8().ok()?;
                Some(Self::Request { id, channel, body })
            }
            ONEWAY => {
                let channel = body.try_get_u8().ok()?;
                Some(Self::Oneway { channel, body })
            }
            REPLY => {
                let id = body.try_get_u64().ok()?;
                let result = match body.try_get_u8().ok()? {
                    0 => Ok(body),
                    1 => Err(body),
                    _ => return None,
                };
                Some(Self::Reply { id, result })
            }
            _ => None,
        }
    }
}
