//! What nodes say to each other about replicas that rest.

use quorate_types::{GroupId, ReplicaId, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::log::{LogPosition, Vote};

/// A group that rests on its leader's word, given in this term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Claim {
    pub(crate) group: GroupId,
    pub(crate) term: u64,
}

/// A set of claims, by number and hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub(crate) struct Claims {
    pub(crate) count: u64,
    pub(crate) hash: u64,
}

impl Claims {
    pub(crate) fn add(&mut self, claim: Claim) {
        self.count += 1;
        self.hash ^= claim.hash();
    }

    /// The opposite of [`Self::add`].
    pub(crate) fn remove(&mut self, claim: Claim) {
        debug_assert!(self.count > 0, "only what was added is removed");
        self.count = self.count.saturating_sub(1);
        self.hash ^= claim.hash();
    }
}

impl Claim {
    /// Groups count from one, so their own bits would cancel each other out.
    fn hash(self) -> u64 {
        let mut mixed = quorate_types::env::SplitMix::new(self.group.0 ^ self.term.rotate_left(32));
        quorate_types::env::Rng::next_u64(&mut mixed)
    }
}

/// The leaders here that rest, as far as they count on who is told.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Beat {
    pub(crate) claims: Claims,
    /// Each by name, if the last answer said that the sums differ.
    pub(crate) names: Option<Seq<Claim>>,
}

/// What a node says to a beat.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Heard {
    /// Whether the claims are what rests there on the sender's word.
    pub(crate) agrees: bool,
    /// Those that were named and do not rest there.
    pub(crate) awake: Seq<Claim>,
}

/// Asks a replica to rest on the word of a leader whose whole log it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Lull {
    pub(crate) group: GroupId,
    pub(crate) to: ReplicaId,
    /// The leader's.
    pub(crate) vote: Vote,
    /// The end of the leader's log, which is committed.
    pub(crate) last: LogPosition,
}
