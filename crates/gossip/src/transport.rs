//! The port to the network: what the core wants sent, and what comes in.

use quorate_types::NodeId;
use quorate_types::frame::Frame;
use quorate_types::runtime::BoxFuture;

use crate::wire;

/// Connections of one peer pair are separate per lane, so that a large delta
/// never delays a probe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Probes and membership: small and urgent.
    Control = 0,
    /// Vectors and deltas.
    Bulk = 1,
}

impl Lane {
    /// The number in the handshake.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The lane of a number from the handshake.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Control),
            1 => Some(Self::Bulk),
            _ => None,
        }
    }
}

/// Whither.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Destination {
    /// A member. Whoever else answers at its address must not get the frame.
    Node {
        /// The member.
        node: NodeId,
        /// Where it listens.
        address: String,
    },
    /// Whoever listens there.
    Seed(String),
}

/// A frame the core wants sent. Delivery is not promised: losing any of them
/// costs time, never correctness.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Whither.
    pub to: Destination,
    /// On which connection.
    pub lane: Lane,
    /// What.
    pub frame: Frame,
}

impl Transmit {
    /// Whether this is repeated to others anyway and so goes first when
    /// there is no room for everything.
    #[must_use]
    pub fn is_rumour(&self) -> bool {
        wire::is_rumour(&self.frame)
    }
}

/// What a transport tells about its connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Connection {
    /// A peer has introduced itself, on a connection of either direction.
    Established {
        /// Who it says it is.
        node: NodeId,
        /// Where it says it listens.
        address: String,
        /// The incarnation it started with.
        incarnation: u64,
        /// The seed address that led to it, if it was dialed as a seed.
        seed: Option<String>,
    },
    /// A connection of this peer's control lane ended.
    Closed(NodeId),
    /// This peer could not be reached.
    Unreachable(NodeId),
}

/// What a transport brings in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inbound {
    /// A frame whose checksum was verified.
    Frame {
        /// Who sent it, by the connection's handshake.
        from: NodeId,
        /// The lane it came on.
        lane: Lane,
        /// The frame.
        frame: Frame,
    },
    /// News of a connection.
    Connection(Connection),
}

/// Moves frames. What comes in goes to the channel that the transport was
/// made with; for every peer an [`Connection::Established`] precedes its first
/// frame.
pub trait Transport: Send + Sync + 'static {
    /// Takes a frame to be sent. Never blocks; drops what does not fit,
    /// rumours first.
    fn send(&self, transmit: Transmit);

    /// Completes when nothing is left to be written.
    fn flushed(&self) -> BoxFuture<()>;

    /// Ends all connections at once.
    fn close(&self);
}
