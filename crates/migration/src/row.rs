//! The row of a migration: what is to move, how far it got, and which row may
//! follow which.

use std::fmt;

use bytes::Bytes;
use quorate_types::codec::{self, CodecError};
use quorate_types::{GroupId, Hlc, MigrationId, NodeId, ReplicaId, ShardId, planted};
use zerompk::{FromMessagePack, ToMessagePack};

/// The newest row format that this build reads, and the one it writes.
pub const ROW_VERSION: u8 = 1;

/// No row is longer: every field has a fixed size, and their sum is far below.
/// A stored value beyond it is damage, found before it is decoded.
pub const ROW_BYTES_MAX: usize = 1024;

/// A replica and the node that hosts it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToMessagePack, FromMessagePack)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The replica's identity in its group; never reused.
    pub replica: ReplicaId,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.replica, self.node)
    }
}

/// The name of a phase. See [`Checkpoint`] for what each one records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The target joins the group as a learner.
    AddLearner,
    /// The learner's log is measured until it keeps up.
    CatchUp,
    /// The decision that the target becomes a voter.
    PromoteLearner,
    /// Leadership leaves the source.
    LeadershipTransfer,
    /// The point of no return: the target comes in, the source goes out.
    Cutover,
    /// The end: the target is a voter, the source is out.
    Complete,
    /// The move is being undone through Raft.
    Aborting,
    /// The end: the original membership stands.
    Aborted,
}

impl Phase {
    /// Whether the migration is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Aborted)
    }

    /// Whether the move may still be given up.
    #[must_use]
    pub const fn is_abortable(self) -> bool {
        matches!(
            self,
            Self::AddLearner | Self::CatchUp | Self::PromoteLearner | Self::LeadershipTransfer
        )
    }

    /// The one phase that may follow within the same attempt.
    const fn successor(self) -> Option<Self> {
        match self {
            Self::AddLearner => Some(Self::CatchUp),
            Self::CatchUp => Some(Self::PromoteLearner),
            Self::PromoteLearner => Some(Self::LeadershipTransfer),
            Self::LeadershipTransfer => Some(Self::Cutover),
            Self::Cutover => Some(Self::Complete),
            Self::Aborting => Some(Self::Aborted),
            Self::Complete | Self::Aborted => None,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How the target becomes a voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub enum Promotion {
    /// Together with the source's departure, in one joint change at cutover.
    /// The rule: a group of `n + 1` voters tolerates no more faults than one
    /// of `n`, waits for more acknowledgements, and loses its quorum with the
    /// failure domain that source and target may share.
    #[msgpack(key = 0)]
    AtCutover,
    /// Before it, as one voter more. Only where the source is the sole voter:
    /// nobody else could take over the leadership that the source must give
    /// up before it leaves.
    #[msgpack(key = 1)]
    Additional,
}

/// Why an effect will never succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub enum Refusal {
    /// The group does not exist (any more).
    #[msgpack(key = 0)]
    GroupGone,
    /// The replica id was removed before; it never comes back.
    #[msgpack(key = 1)]
    Tombstoned,
    /// The membership does not allow it, such as removing a voter as if it
    /// were a learner.
    #[msgpack(key = 2)]
    Invalid,
    /// A newer authority or attempt has acted on this migration.
    #[msgpack(key = 3)]
    Fenced,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GroupGone => "the group does not exist",
            Self::Tombstoned => "the replica id was removed before",
            Self::Invalid => "the membership does not allow it",
            Self::Fenced => "somebody with a newer authority acts on it",
        })
    }
}

/// Why a migration was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub enum AbortReason {
    /// The source is not a voter of the group, so there is nothing to move.
    #[msgpack(key = 0)]
    SourceNotVoter,
    /// The group did not answer, had no leader, or was changing its
    /// membership on somebody else's behalf, for too long.
    #[msgpack(key = 1)]
    GroupUnavailable,
    /// The target stopped acknowledging, or fell behind again and stayed there.
    #[msgpack(key = 2)]
    TargetUnresponsive,
    /// The target's log never caught up within the limits.
    #[msgpack(key = 3)]
    CatchUpExhausted,
    /// No other voter had a log complete enough to lead.
    #[msgpack(key = 4)]
    NoLeaderCandidate,
    /// The group refused an effect.
    #[msgpack(key = 5)]
    Refused(Refusal),
    /// Too many attempts were begun, across all coordinators.
    #[msgpack(key = 6)]
    AttemptsExhausted,
    /// The operator wanted it so.
    #[msgpack(key = 7)]
    Cancelled,
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceNotVoter => "the node that gives is no voter of the group",
            Self::GroupUnavailable => "the group did not answer, or was changing, for too long",
            Self::TargetUnresponsive => "the node that takes stopped acknowledging",
            Self::CatchUpExhausted => "the node that takes never caught up",
            Self::NoLeaderCandidate => "no other voter had a log complete enough to lead",
            Self::Refused(refusal) => return write!(f, "the group refused: {refusal}"),
            Self::AttemptsExhausted => "too many attempts were begun",
            Self::Cancelled => "it was cancelled",
        })
    }
}

/// A phase with what it records. It is written *before* the phase's effect, so
/// whoever finds it re-does the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub enum Checkpoint {
    /// See [`Phase::AddLearner`].
    #[msgpack(key = 0)]
    AddLearner,
    /// See [`Phase::CatchUp`].
    #[msgpack(key = 1)]
    CatchUp,
    /// See [`Phase::PromoteLearner`].
    #[msgpack(key = 2)]
    PromoteLearner {
        /// How the target is promoted; decided once from the membership found.
        promotion: Promotion,
        /// The evidence: the target's matched log index when it was measured.
        matched: u64,
        /// The evidence: the leader's last log index at that moment.
        last_log: u64,
    },
    /// See [`Phase::LeadershipTransfer`].
    #[msgpack(key = 3)]
    LeadershipTransfer,
    /// See [`Phase::Cutover`].
    #[msgpack(key = 4)]
    Cutover,
    /// See [`Phase::Complete`].
    #[msgpack(key = 5)]
    Complete {
        /// Whether the source's node confirmed that the replica is destroyed.
        /// If not, that node has to collect a replica that is in no
        /// membership when it returns.
        source_destroyed: bool,
    },
    /// See [`Phase::Aborting`].
    #[msgpack(key = 6)]
    Aborting {
        /// Why.
        reason: AbortReason,
    },
    /// See [`Phase::Aborted`].
    #[msgpack(key = 7)]
    Aborted {
        /// Why.
        reason: AbortReason,
        /// Whether the target's node confirmed that the replica is destroyed.
        target_destroyed: bool,
    },
}

impl Checkpoint {
    /// Its name.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self {
            Self::AddLearner => Phase::AddLearner,
            Self::CatchUp => Phase::CatchUp,
            Self::PromoteLearner { .. } => Phase::PromoteLearner,
            Self::LeadershipTransfer => Phase::LeadershipTransfer,
            Self::Cutover => Phase::Cutover,
            Self::Complete { .. } => Phase::Complete,
            Self::Aborting { .. } => Phase::Aborting,
            Self::Aborted { .. } => Phase::Aborted,
        }
    }
}

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The target is a voter and the source is out of the group.
    Completed {
        /// As in [`Checkpoint::Complete`].
        source_destroyed: bool,
    },
    /// The original membership stands.
    Aborted {
        /// Why.
        reason: AbortReason,
        /// As in [`Checkpoint::Aborted`].
        target_destroyed: bool,
    },
}

/// The time in which a group took no writes because its leadership moved, as
/// the adapter measured it. A coordinator that dies between a transfer and the
/// next checkpoint takes its measurement along, so this is a lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ToMessagePack, FromMessagePack)]
pub struct WritePause {
    /// Leadership transfers made.
    pub transfers: u32,
    /// Their pauses, summed, in microseconds.
    pub total_micros: u64,
    /// The longest of them, in microseconds.
    pub longest_micros: u64,
}

impl WritePause {
    /// Adds one transfer.
    pub(crate) fn add(&mut self, pause: std::time::Duration) {
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.transfers = self.transfers.saturating_add(1);
        self.total_micros = self.total_micros.saturating_add(micros);
        self.longest_micros = self.longest_micros.max(micros);
    }
}

/// What identifies one checkpoint of a migration, and what a writer expects to
/// find before it writes the next. Ordered by attempt only where the phases
/// are the same; see [`MigrationRow::follows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The phase.
    pub phase: Phase,
    /// The attempt.
    pub attempt: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of attempt {}", self.phase, self.attempt)
    }
}

/// One migration, as far as it got.
#[derive(Debug, Clone, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct MigrationRow {
    /// Which migration.
    pub id: MigrationId,
    /// Rises when a new coordinator takes over, when the move starts again
    /// from its first phase, and when it turns to undoing itself.
    pub attempt: u32,
    /// The shard whose replica moves.
    pub shard: ShardId,
    /// The shard's Raft group.
    pub group: GroupId,
    /// The replica that goes.
    pub from: Place,
    /// The replica that comes.
    pub to: Place,
    /// How far it got.
    pub checkpoint: Checkpoint,
    /// The term of the authority that wrote the row.
    pub term: u64,
    /// When it was written, for the operator. Nothing is decided by it.
    pub hlc: Hlc,
    /// The write pauses measured so far.
    pub pause: WritePause,
}

impl MigrationRow {
    /// The first row of a migration: `from` leaves `group`, `to` comes.
    #[must_use]
    pub fn planned(
        id: MigrationId,
        (shard, group): (ShardId, GroupId),
        from: Place,
        to: Place,
        term: u64,
        hlc: Hlc,
    ) -> Self {
        let (checkpoint, pause) = (Checkpoint::AddLearner, WritePause::default());
        Self { id, attempt: 1, shard, group, from, to, checkpoint, term, hlc, pause }
    }

    /// The row's phase.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.checkpoint.phase()
    }

    /// Phase and attempt.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { phase: self.phase(), attempt: self.attempt }
    }

    /// How the migration ended, if it did.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.checkpoint {
            Checkpoint::Complete { source_destroyed } => {
                Some(Outcome::Completed { source_destroyed })
            }
            Checkpoint::Aborted { reason, target_destroyed } => {
                Some(Outcome::Aborted { reason, target_destroyed })
            }
            _ => None,
        }
    }

    /// The key under which the row is stored: its id, big endian.
    #[must_use]
    pub const fn key(&self) -> [u8; 16] {
        self.id.0.to_be_bytes()
    }

    /// The row as it is stored: versioned, its checksum covering its key.
    #[must_use]
    pub fn seal(&self) -> Bytes {
        codec::seal_row(&self.key(), ROW_VERSION, &codec::encode(self))
    }

    /// Verifies and decodes a stored row.
    ///
    /// # Errors
    /// [`RowDamage`]; of its kinds, [`CodecError::Newer`] is no damage but a
    /// row from a newer build.
    pub fn open(key: &[u8], stored: &[u8]) -> Result<Self, RowDamage> {
        if stored.len() > ROW_BYTES_MAX {
            return Err(RowDamage::TooLong(stored.len()));
        }
        let payload = if planted!(RowNotVerified) {
            stored.get(codec::ROW_HEADER_BYTES..).unwrap_or_default()
        } else {
            codec::open_row(key, ROW_VERSION, stored)?.1
        };
        let row: Self = codec::decode(payload)?;
        if row.key() != key {
            return Err(RowDamage::WrongKey(row.id));
        }
        Ok(row)
    }

    /// Whether this row may be stored where `current` is, and whether that
    /// changes anything. Every journal decides by this function.
    ///
    /// Within an attempt each phase is followed by the next one only. A new
    /// attempt may go back, before the cutover; it may not from then on, and
    /// nothing leaves [`Phase::Aborting`] but [`Phase::Aborted`].
    ///
    /// # Errors
    /// [`RowError`], which says what the row would have broken.
    pub fn follows(&self, current: Option<&Self>) -> Result<Change, RowError> {
        let Some(current) = current else {
            return self.may_begin();
        };
        if (current.id, current.shard, current.group, current.from, current.to)
            != (self.id, self.shard, self.group, self.from, self.to)
        {
            return Err(RowError::Identity);
        }
        if self.term < current.term {
            return Err(RowError::StaleTerm { found: self.term, current: current.term });
        }
        let (was, is) = (current.position(), self.position());
        if was == is && self.term == current.term {
            return Ok(Change::Repeated);
        }
        if current.phase().is_final() {
            return Err(RowError::Final(was));
        }
        let allowed = if is.attempt == was.attempt {
            self.term == current.term && was.phase.successor() == Some(is.phase)
        } else if is.attempt < was.attempt {
            false
        } else if was.phase.is_abortable() {
            (is.phase.is_abortable() && is.phase <= was.phase) || is.phase == Phase::Aborting
        } else {
            is.phase == was.phase
        };
        if allowed { Ok(Change::Advanced) } else { Err(RowError::Regression { was, is }) }
    }

    /// Whether this row keeps another migration from beginning: an unfinished
    /// one of the same group.
    #[must_use]
    pub fn blocks(&self, other: &Self) -> bool {
        self.id != other.id && self.group == other.group && !self.phase().is_final()
    }

    fn may_begin(&self) -> Result<Change, RowError> {
        if self.from.replica == self.to.replica || self.from.node == self.to.node {
            return Err(RowError::SamePlace);
        }
        if self.position() != (Position { phase: Phase::AddLearner, attempt: 1 }) {
            return Err(RowError::NotTheBeginning(self.position()));
        }
        Ok(Change::Advanced)
    }
}

/// What storing a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The migration moves on.
    Advanced,
    /// This checkpoint is stored already; the first writing of it stands.
    Repeated,
}

/// Why a row may not be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The phase would go back, skip another, or belong to a past attempt.
    #[error("{is} does not follow {was}")]
    Regression {
        /// What is stored.
        was: Position,
        /// What was to be stored.
        is: Position,
    },
    /// The migration is over.
    #[error("the migration ended with {0}")]
    Final(Position),
    /// The writer's authority has ended.
    #[error("a writer of term {found} meets a row of term {current}")]
    StaleTerm {
        /// The term of the row that was to be stored.
        found: u64,
        /// The term of the stored row.
        current: u64,
    },
    /// Shard, group or places differ from those the migration began with.
    #[error("the same migration id with another shard, group or place")]
    Identity,
    /// A migration begins with the first attempt at its first phase.
    #[error("{0} is no beginning")]
    NotTheBeginning(Position),
    /// Only a migration that is over may be removed.
    #[error("the migration is unfinished at {0}")]
    Unfinished(Position),
    /// Source and target share a node or a replica id.
    #[error("source and target are not two replicas on two nodes")]
    SamePlace,
}

/// Why a stored row cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RowDamage {
    /// The checksum, the version or the encoding is wrong.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The value is longer than any row.
    #[error("{0} bytes, longer than any row")]
    TooLong(usize),
    /// The row belongs under another key.
    #[error("holds the row of {0}")]
    WrongKey(MigrationId),
}
