//! What the world sees of the membership.

use quorate_types::NodeId;
use zerompk::{FromMessagePack, ToMessagePack};

/// How a member fares, as far as this node knows. At equal incarnation the
/// later variant wins.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, ToMessagePack, FromMessagePack,
)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum Status {
    /// It answers, or nobody has complained yet.
    Alive = 0,
    /// Somebody could not reach it; it has time to refute.
    Suspect = 1,
    /// It did not refute in time. This incarnation never comes back.
    Dead = 2,
    /// It said goodbye.
    Left = 3,
}

impl Status {
    /// Whether the member still takes part: alive, or suspected and not yet
    /// given up.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// One node in the membership view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// Where it listens, as it said itself.
    pub address: String,
    /// Which life, and how often it had to contradict its own death in it.
    pub incarnation: u64,
    /// How it fares.
    pub status: Status,
    /// How slow it last said it is itself: zero is well, and its probe
    /// timeouts are stretched `health + 1` times.
    pub health: u8,
}

/// What happened, in the order in which it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A node unknown until now takes part.
    Up(Member),
    /// A member is suspected.
    Suspect(Member),
    /// An active member's incarnation rose: it refuted a suspicion, or it
    /// restarted before anyone missed it.
    Renewed(Member),
    /// A member did not refute in time.
    Dead(Member),
    /// A member left on purpose.
    Left(Member),
    /// A dead or departed node is back under a higher incarnation.
    Rejoined(Member),
    /// A delta from this node changed the state.
    StateChanged {
        /// The sender.
        from: NodeId,
    },
    /// The state did not accept a delta from this node.
    DeltaRefused {
        /// The sender.
        from: NodeId,
        /// The state's reason.
        reason: String,
    },
}
