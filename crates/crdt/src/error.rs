use quorate_types::codec::CodecError;
use quorate_types::{NodeId, ShardId};

use crate::{Origin, Stamp};

/// Everything that can be refused here. A refusal leaves the state as it was.
#[derive(Debug, thiserror::Error)]
pub enum CrdtError {
    /// A newer write, or a newer removal in the same keyspace, is known. Read
    /// again and write with a higher fence or a later timestamp.
    #[error("write is not newer than {current:?}")]
    Stale {
        /// The stamp to exceed.
        current: Stamp,
    },
    /// An allocation was written under a fence that has been passed. The
    /// writer is no longer the one to decide: it must read the map again.
    #[error("allocation of {shard} under fence {fence} is stale, fence {current_fence} is known")]
    StaleAllocation {
        /// The shard whose allocation was refused.
        shard: ShardId,
        /// The fence of the refused write.
        fence: u64,
        /// The fence to reach.
        current_fence: u64,
    },
    /// A node reports its own load and nobody else's.
    #[error("{own} cannot report the load of {node}")]
    ForeignLoad {
        /// The node whose load was to be written.
        node: NodeId,
        /// The node that writes.
        own: NodeId,
    },
    /// A size exceeds its limit; nothing was stored.
    #[error("{what}: {found} exceeds the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// The budget could not carry the largest legal entry, so that replication
    /// might stall for ever. Raise it to `needed`.
    #[error("a budget of {budget} bytes is too small, {needed} are needed")]
    BudgetTooSmall {
        /// The budget given.
        budget: usize,
        /// The smallest that always makes progress.
        needed: usize,
    },
    /// The peer has missed a removal whose tombstone is gone. A delta cannot
    /// tell it; send reset chunks instead.
    #[error("the peer is behind the collection cut and needs a reset")]
    BehindCut,
    /// A peer claims writes under our own origin that we did not make: an
    /// incarnation was used twice, or the peer lies. Draw a new incarnation.
    #[error("a peer claims {claimed} writes of {origin:?}, which has made {known}")]
    OwnOriginAhead {
        /// Our own origin.
        origin: Origin,
        /// How many writes the peer has heard of.
        claimed: u64,
        /// How many there were.
        known: u64,
    },
    /// A new incarnation must be above the one in use.
    #[error("incarnation {found} is not above {current}")]
    IncarnationNotNew {
        /// The incarnation in use.
        current: u64,
        /// The one offered.
        found: u64,
    },
    /// The origin has used every sequence number. Draw a new incarnation.
    #[error("{0:?} has no sequence numbers left")]
    SequencesExhausted(Origin),
    /// The bytes are written in a format that this build does not know.
    #[error("format version {found} is not {known}, the one this build knows")]
    UnknownFormat {
        /// The version found.
        found: u8,
        /// The version known.
        known: u8,
    },
    /// The bytes are not an encoding of what was expected.
    #[error("undecodable bytes")]
    Undecodable(#[from] CodecError),
    /// The bytes decode, but to something no correct peer sends.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
}
