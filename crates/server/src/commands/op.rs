//! What can be done to data.

use quorate_types::{Blob, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

/// One operation on stored keys. Keys are in their stored form. The integers
/// are the wire format's tags; they are never reused.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Op {
    /// The value of a key.
    #[msgpack(key = 1)]
    Get {
        /// The key.
        key: Blob,
    },
    /// Sets a key.
    #[msgpack(key = 2)]
    Set {
        /// The key.
        key: Blob,
        /// Its new value.
        value: Blob,
        /// When it is set at all.
        condition: Condition,
        /// How long it lives.
        expiry: Expiry,
        /// What is answered.
        reply: SetReply,
    },
    /// Takes a key away and answers its value.
    #[msgpack(key = 3)]
    GetDel {
        /// The key.
        key: Blob,
    },
    /// The values of keys.
    #[msgpack(key = 4)]
    MGet {
        /// The keys.
        keys: Seq<Blob>,
    },
    /// Sets keys.
    #[msgpack(key = 5)]
    MSet {
        /// Keys and values; the last of equal keys wins.
        pairs: Seq<(Blob, Blob)>,
        /// Only if none of the keys exists.
        if_missing: bool,
    },
    /// Deletes keys and counts those that existed.
    #[msgpack(key = 6)]
    Del {
        /// The keys.
        keys: Seq<Blob>,
    },
    /// Counts keys that exist, one named twice counting twice.
    #[msgpack(key = 7)]
    Exists {
        /// The keys.
        keys: Seq<Blob>,
    },
    /// Adds to a number.
    #[msgpack(key = 8)]
    IncrBy {
        /// The key.
        key: Blob,
        /// What is added.
        by: i64,
    },
    /// Appends to a value.
    #[msgpack(key = 9)]
    Append {
        /// The key.
        key: Blob,
        /// What is appended.
        value: Blob,
        /// Longest value that may result; part of the operation so that every
        /// replica decides alike whatever its configuration.
        value_bytes_max: u64,
    },
    /// The length of a value.
    #[msgpack(key = 10)]
    StrLen {
        /// The key.
        key: Blob,
    },
    /// What kind of value a key holds.
    #[msgpack(key = 11)]
    Type {
        /// The key.
        key: Blob,
    },
    /// Counts all keys.
    #[msgpack(key = 12)]
    DbSize,
    /// The keys that match a pattern.
    #[msgpack(key = 13)]
    Keys {
        /// The glob pattern, over user keys.
        pattern: Blob,
    },
    /// Deletes every key.
    #[msgpack(key = 14)]
    FlushAll,
    /// When a key expires.
    #[msgpack(key = 15)]
    Ttl {
        /// The key.
        key: Blob,
        /// The unit of the answer.
        unit: TimeUnit,
        /// The point in time instead of what remains.
        absolute: bool,
    },
    /// Sets when a key expires.
    #[msgpack(key = 16)]
    Expire {
        /// The key.
        key: Blob,
        /// The new expiry.
        expiry: Expiry,
        /// When it is changed at all.
        condition: ExpireCondition,
    },
    /// Takes a key's expiry away.
    #[msgpack(key = 17)]
    Persist {
        /// The key.
        key: Blob,
    },
}

/// When `SET` sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum Condition {
    /// Always.
    Always = 0,
    /// `NX`: only a missing key.
    IfMissing = 1,
    /// `XX`: only an existing key.
    IfExists = 2,
}

/// When a value expires.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Expiry {
    /// Never.
    #[msgpack(key = 0)]
    Never,
    /// When the previous value would have.
    #[msgpack(key = 1)]
    Keep,
    /// So many milliseconds after the transaction's time. Not positive means
    /// at once.
    #[msgpack(key = 2)]
    AfterMillis(i64),
    /// At a time in milliseconds of the shard's clock.
    #[msgpack(key = 3)]
    AtMillis(i64),
}

/// When `EXPIRE` changes a key's expiry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum ExpireCondition {
    /// Always.
    Always = 0,
    /// `NX`: only if it has none.
    IfNone = 1,
    /// `XX`: only if it has one.
    IfSome = 2,
    /// `GT`: only to a later one; none is the latest.
    IfLater = 3,
    /// `LT`: only to an earlier one.
    IfEarlier = 4,
    /// `XX LT`: only to an earlier one, if it has one.
    IfSomeAndEarlier = 5,
}

/// What `SET` and its relatives answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum SetReply {
    /// `SET`: OK, or null when the condition did not hold.
    Ok = 0,
    /// `SET GET`, `GETSET`: the previous value.
    Previous = 1,
    /// `SETNX`: one or zero.
    Flag = 2,
}

/// The unit of a time in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum TimeUnit {
    /// Rounded to the nearest second.
    Seconds = 0,
    /// Milliseconds.
    Millis = 1,
}

impl TimeUnit {
    /// How many milliseconds make one.
    #[must_use]
    pub const fn millis(self) -> i64 {
        match self {
            Self::Seconds => 1_000,
            Self::Millis => 1,
        }
    }
}

/// How an operation touches what it touches.
pub(crate) enum Touch<'a> {
    /// Its outcome depends on the key.
    Read(&'a Blob),
    /// It sets the key, whatever it holds.
    Write(&'a Blob),
    /// Both.
    ReadWrite(&'a Blob),
    /// Its outcome depends on which keys exist.
    ReadAll,
    /// It deletes every key.
    ClearAll,
}

impl Op {
    /// How long its keys are as names of locks.
    pub(crate) fn footprint_bytes(&self) -> usize {
        let mut bytes = 0;
        self.touches(&mut |touch| match touch {
            Touch::Read(key) | Touch::Write(key) => bytes += key.len(),
            Touch::ReadWrite(key) => bytes += 2 * key.len(),
            Touch::ReadAll | Touch::ClearAll => {}
        });
        bytes
    }

    /// Reports everything the operation may touch.
    pub(crate) fn touches<'a>(&'a self, touch: &mut impl FnMut(Touch<'a>)) {
        match self {
            Self::Get { key }
            | Self::StrLen { key }
            | Self::Type { key }
            | Self::Ttl { key, .. } => {
                touch(Touch::Read(key));
            }
            Self::Set { key, condition, expiry, reply, .. } => {
                let blind = *condition == Condition::Always
                    && *expiry != Expiry::Keep
                    && *reply == SetReply::Ok;
                touch(if blind { Touch::Write(key) } else { Touch::ReadWrite(key) });
            }
            Self::GetDel { key }
            | Self::IncrBy { key, .. }
            | Self::Append { key, .. }
            | Self::Expire { key, .. }
            | Self::Persist { key } => touch(Touch::ReadWrite(key)),
            Self::MGet { keys } | Self::Exists { keys } => {
                keys.iter().for_each(|key| touch(Touch::Read(key)));
            }
            Self::Del { keys } => keys.iter().for_each(|key| touch(Touch::ReadWrite(key))),
            Self::MSet { pairs, if_missing: false } => {
                pairs.iter().for_each(|(key, _)| touch(Touch::Write(key)));
            }
            Self::MSet { pairs, if_missing: true } => {
                pairs.iter().for_each(|(key, _)| touch(Touch::ReadWrite(key)));
            }
            Self::DbSize | Self::Keys { .. } => touch(Touch::ReadAll),
            Self::FlushAll => touch(Touch::ClearAll),
        }
    }
}
