//! What a transaction answers: the stored result of a call.

use quorate_types::{Blob, Seq, codec};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::resp::Reply;

/// The version of [`Verdict`]'s encoding, its first byte.
const VERDICT_VERSION: u8 = 1;

/// The decision about a program.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Verdict {
    /// It was executed; one reply for each operation.
    #[msgpack(key = 0)]
    Replies(Seq<Reply>),
    /// A watched key had changed; nothing was executed.
    #[msgpack(key = 1)]
    Changed,
    /// The versions that were asked for, in order.
    #[msgpack(key = 2)]
    Versions(Seq<KeyVersion>),
}

/// How a key stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct KeyVersion {
    /// Its version.
    pub version: u64,
    /// Whether it holds a value.
    pub present: bool,
}

/// Why bytes are not a verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// The result of something else, or of another build.
    #[error("a result in an unknown format")]
    Version,
    /// The bytes are damaged.
    #[error(transparent)]
    Malformed(#[from] codec::CodecError),
}

impl Verdict {
    /// The verdict as a call's result: `[version u8][msgpack]`.
    #[must_use]
    pub fn encode(&self) -> Blob {
        let body = codec::encode(self);
        let mut bytes = Vec::with_capacity(1 + body.len());
        bytes.push(VERDICT_VERSION);
        bytes.extend_from_slice(&body);
        bytes.into()
    }

    /// Reads a call's result.
    ///
    /// # Errors
    /// [`VerdictError`]. The contained panic of a procedure also leaves a
    /// result that is none of ours.
    pub fn decode(result: &[u8]) -> Result<Self, VerdictError> {
        match result.split_first() {
            Some((&VERDICT_VERSION, body)) => Ok(codec::decode(body)?),
            _ => Err(VerdictError::Version),
        }
    }
}
