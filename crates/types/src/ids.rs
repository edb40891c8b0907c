//! Newtypes for every identifier that crosses a crate boundary.
//!
//! Two integers of the same meaningless type never stand side by side in a
//! signature; the compiler tells a shard from a replica.

use std::fmt;

use zerompk::{FromMessagePack, Read, ToMessagePack, Write};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number after this one; saturates at the end of the range.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl ToMessagePack for $name {
            fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
                self.0.write(writer)
            }
        }

        impl<'a> FromMessagePack<'a> for $name {
            fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
                <$inner>::read(reader).map(Self)
            }
        }
    };
}

macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl $name {
            /// A fresh random identifier drawn from the node's entropy
            /// ([`crate::runtime::random`]), so that a simulation replays it.
            #[must_use]
            pub fn random() -> Self {
                let high = u128::from(crate::runtime::random());
                let low = u128::from(crate::runtime::random());
                Self(uuid::Builder::from_random_bytes(((high << 64) | low).to_be_bytes())
                    .into_uuid()
                    .as_u128())
            }

            /// Parses the hyphenated form that [`fmt::Display`] prints.
            ///
            /// # Errors
            /// When the text is not a UUID.
            pub fn parse(text: &str) -> Result<Self, uuid::Error> {
                uuid::Uuid::parse_str(text).map(|id| Self(id.as_u128()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&uuid::Uuid::from_u128(self.0).hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl ToMessagePack for $name {
            fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
                writer.write_binary(&self.0.to_be_bytes())
            }
        }

        impl<'a> FromMessagePack<'a> for $name {
            fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
                let bytes = reader.read_binary()?;
                let bytes: [u8; 16] =
                    bytes.as_ref().try_into().map_err(|_| zerompk::Error::BufferTooSmall)?;
                Ok(Self(u128::from_be_bytes(bytes)))
            }
        }
    };
}

id!(
    /// A node: one process with one directory. Chosen by the operator, bound
    /// to a [`DiskId`] for life; a wiped disk joins under a new node id.
    NodeId(u64), "n"
);
id!(
    /// A replica of one group on one node. Allocated by the metadata group and
    /// **never reused**: a returning id with an empty log could elect itself
    /// from an old membership.
    ReplicaId(u64), "r"
);
id!(
    /// A contiguous range of keys with its own Raft group.
    ShardId(u64), "s"
);
id!(
    /// The version of a shard's range; rises with every split, merge and move
    /// of ownership, and fences requests routed by an older map.
    ShardEpoch(u64), "e"
);
id!(
    /// A Raft group. Groups host the metadata, the sequencer or one shard.
    GroupId(u64), "g"
);
id!(
    /// A position in the sequencer's order: the *log index* of the sequencer
    /// entry. Never reused; gaps mean nothing.
    Epoch(u64), "E"
);

wide_id!(
    /// The identity of a cluster, drawn once at bootstrap.
    ClusterId
);
wide_id!(
    /// The identity of a node's directory, drawn when it is first opened.
    DiskId
);
wide_id!(
    /// A client session: the scope in which request sequence numbers are unique.
    ClientId
);
wide_id!(
    /// A migration, from its planning to its end.
    MigrationId
);

/// The position of a transaction in the sequencer's order.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, ToMessagePack, FromMessagePack,
)]
pub struct TxnId {
    /// The sequencer entry that holds it.
    pub epoch: Epoch,
    /// Its place within that entry, from zero.
    pub position: u32,
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.position)
    }
}

impl fmt::Debug for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What makes a retry safe: a command takes effect once per
/// `(client, sequence)` (law 12).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToMessagePack, FromMessagePack)]
pub struct RequestId {
    /// The session that drew the number.
    pub client: ClientId,
    /// Unique within the session; a session may have many in flight.
    pub sequence: u64,
    /// A sequencer epoch that was known when the request was made. A request
    /// whose birth lies at or below the deduplication floor and that left no
    /// row is answered `Expired`, never executed.
    pub birth: Epoch,
    /// All of this client's sequences below this one are answered and will
    /// not be retried; their rows may go.
    pub ack_below: u64,
}

impl RequestId {
    /// The part that identifies the request; `birth` and `ack_below` are
    /// advice that travels with it.
    #[must_use]
    pub const fn key(&self) -> (ClientId, u64) {
        (self.client, self.sequence)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.client, self.sequence)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
