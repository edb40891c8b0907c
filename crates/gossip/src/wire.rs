//! What members say to each other, and how it looks in a frame. The frame's
//! kind names the message; the payload is its MessagePack encoding.

use quorate_types::codec::{self, CodecError};
use quorate_types::frame::{FRAME_HEADER_BYTES, Frame};
use quorate_types::{Blob, NodeId, Seq};
use zerompk::{FromMessagePack, Read, ToMessagePack, Write};

use crate::member::Status;

/// The largest payload of a gossip frame.
pub const FRAME_BYTES_MAX: u32 = 256 << 10;
/// The longest address: a DNS name (253) with a port would be 259; ours are
/// shorter, and a record should stay small.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Records in one frame: at their largest they fill three fifths of it.
pub const RECORDS_MAX: usize = 512;
/// What the envelope around a vector or delta may take.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 64;

/// The revision of all payloads below.
const VERSION: u8 = 1;

const PING: u8 = 1;
const ACK: u8 = 2;
const PING_REQUEST: u8 = 3;
const RELAY: u8 = 4;
const RUMOURS: u8 = 5;
const JOIN: u8 = 6;
const MEMBERS: u8 = 7;
const VECTOR: u8 = 8;
const DELTA: u8 = 9;

/// One claim about one member.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Record {
    pub(crate) node: NodeId,
    pub(crate) address: Blob,
    pub(crate) incarnation: u64,
    pub(crate) status: Status,
    /// Who vouches for the claim; distinct accusers confirm a suspicion.
    pub(crate) accuser: NodeId,
}

impl Record {
    pub(crate) fn address(&self) -> Option<&str> {
        std::str::from_utf8(&self.address).ok()
    }
}

/// "Do you hear me?"
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Ping {
    pub(crate) seq: u64,
    /// The sender's own.
    pub(crate) incarnation: u64,
    pub(crate) health: u8,
    pub(crate) records: Seq<Record>,
}

/// "I do, and this is the state I am in."
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Ack {
    pub(crate) seq: u64,
    /// The sender's own.
    pub(crate) incarnation: u64,
    pub(crate) health: u8,
    /// Fingerprint of the replicated state.
    pub(crate) root: Root,
    /// Fingerprint of the membership view.
    pub(crate) view: u64,
    pub(crate) records: Seq<Record>,
}

/// "Do you hear that one? I do not."
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct PingRequest {
    pub(crate) seq: u64,
    pub(crate) target: NodeId,
}

/// The answer to a [`PingRequest`]; not reached is Lifeguard's nack.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Relay {
    pub(crate) seq: u64,
    pub(crate) reached: bool,
}

/// News of members, told without being asked.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Rumours {
    pub(crate) records: Seq<Record>,
}

/// "I am new here, who else is?"
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Join {
    pub(crate) incarnation: u64,
}

/// (A part of) the sender's whole membership view.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Members {
    pub(crate) records: Seq<Record>,
    /// Whether the sender wants to see the receiver's view too.
    pub(crate) reply: bool,
}

/// Where an exchange of states stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub(crate) enum Stage {
    /// "Our roots differ: send me what I lack, and tell me what you have."
    Open = 0,
    /// The second half of [`Stage::Open`]'s answer.
    Answer = 1,
    /// "Your delta was news. Is there more?"
    More = 2,
    /// "Your delta told me nothing new."
    Settled = 3,
}

/// What the sender's state has.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Vector {
    pub(crate) stage: Stage,
    pub(crate) vector: Blob,
}

/// What the sender believes the receiver lacks.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Delta {
    pub(crate) delta: Blob,
}

/// Everything that is ever said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Ping(Ping),
    Ack(Ack),
    PingRequest(PingRequest),
    Relay(Relay),
    Rumours(Rumours),
    Join(Join),
    Members(Members),
    Vector(Vector),
    Delta(Delta),
}

/// Why a frame is no message. It is counted and dropped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("payload exceeds {FRAME_BYTES_MAX} bytes")]
    TooLarge,
    #[error("unknown frame kind {0}")]
    Kind(u8),
    #[error("unknown payload version {0}")]
    Version(u8),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("more than {RECORDS_MAX} records")]
    Records,
    #[error("an address is empty, longer than {ADDRESS_BYTES_MAX} bytes or not text")]
    Address,
}

impl Message {
    pub(crate) fn to_frame(&self) -> Frame {
        let (kind, payload) = match self {
            Self::Ping(message) => (PING, codec::encode(message)),
            Self::Ack(message) => (ACK, codec::encode(message)),
            Self::PingRequest(message) => (PING_REQUEST, codec::encode(message)),
            Self::Relay(message) => (RELAY, codec::encode(message)),
            Self::Rumours(message) => (RUMOURS, codec::encode(message)),
            Self::Join(message) => (JOIN, codec::encode(message)),
            Self::Members(message) => (MEMBERS, codec::encode(message)),
            Self::Vector(message) => (VECTOR, codec::encode(message)),
            Self::Delta(message) => (DELTA, codec::encode(message)),
        };
        Frame { kind, version: VERSION, payload }
    }

    pub(crate) fn from_frame(frame: &Frame) -> Result<Self, WireError> {
        if frame.payload.len() > FRAME_BYTES_MAX as usize {
            return Err(WireError::TooLarge);
        }
        if frame.version != VERSION {
            return Err(WireError::Version(frame.version));
        }
        let bytes = &frame.payload;
        let message = match frame.kind {
            PING => Self::Ping(codec::decode(bytes)?),
            ACK => Self::Ack(codec::decode(bytes)?),
            PING_REQUEST => Self::PingRequest(codec::decode(bytes)?),
            RELAY => Self::Relay(codec::decode(bytes)?),
            RUMOURS => Self::Rumours(codec::decode(bytes)?),
            JOIN => Self::Join(codec::decode(bytes)?),
            MEMBERS => Self::Members(codec::decode(bytes)?),
            VECTOR => Self::Vector(codec::decode(bytes)?),
            DELTA => Self::Delta(codec::decode(bytes)?),
            unknown => return Err(WireError::Kind(unknown)),
        };
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), WireError> {
        let records = match self {
            Self::Ping(Ping { records, .. })
            | Self::Ack(Ack { records, .. })
            | Self::Rumours(Rumours { records })
            | Self::Members(Members { records, .. }) => records,
            _ => return Ok(()),
        };
        if records.len() > RECORDS_MAX {
            return Err(WireError::Records);
        }
        if records.iter().any(|record| !record.address().is_some_and(address_fits)) {
            return Err(WireError::Address);
        }
        Ok(())
    }
}

/// Whether an address may stand in a record.
pub(crate) fn address_fits(address: &str) -> bool {
    !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX
}

/// Whether the frame only repeats what goes to others as well.
pub(crate) fn is_rumour(frame: &Frame) -> bool {
    frame.kind == RUMOURS
}

/// What the frame takes on the wire.
pub(crate) fn wire_bytes(frame: &Frame) -> usize {
    FRAME_HEADER_BYTES + frame.payload.len()
}

/// A state's fingerprint: always sixteen bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Root(pub(crate) u128);

impl ToMessagePack for Root {
    fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
        writer.write_binary(&self.0.to_be_bytes())
    }
}

impl<'a> FromMessagePack<'a> for Root {
    fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
        let bytes = reader.read_binary()?;
        let bytes: [u8; 16] =
            bytes.as_ref().try_into().map_err(|_| zerompk::Error::BufferTooSmall)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
