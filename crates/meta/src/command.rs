//! What may be asked of the registry, and its form in the log.

use bytes::Bytes;
use quorate_types::codec::{CodecError, decode, encode};
use quorate_types::{MigrationId, NodeId, ShardEpoch};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::bootstrap::Bootstrap;
use crate::error::MetaError;
use crate::journal::JournalWrite;
use crate::limits::COMMAND_BYTES_MAX;
use crate::moves::BeginMove;
use crate::nodes::{NodeSpec, NodeState};
use crate::settings::SettingValue;
use crate::splits::{BeginSplit, CutRefusal, SplitPhase};

/// The newest command format of this build: the first byte of an entry.
pub const COMMAND_VERSION: u8 = 1;

/// One entry of the metadata log. Each is safe to repeat: a retry finds its
/// first effect and answers the same, or is refused because the state it was
/// decided on has passed.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Command {
    /// Creates the cluster. Answered with [`Reply::Bootstrapped`](crate::Reply::Bootstrapped).
    #[msgpack(key = 0)]
    Bootstrap(Bootstrap),
    /// Adds a node, or brings the address, labels and supported version of a
    /// returning one up to date.
    #[msgpack(key = 1)]
    Join(NodeSpec),
    /// Drains a node, takes it back into service, or removes it for ever once
    /// it holds no replica.
    #[msgpack(key = 2)]
    SetNodeState {
        /// The node.
        node: NodeId,
        /// Its new state.
        state: NodeState,
    },
    /// Opens the formats of a newer version to the whole cluster. Only
    /// forward, and only once every member supports it.
    #[msgpack(key = 3)]
    SetClusterVersion {
        /// The version.
        version: u32,
    },
    /// Sets or, without a value, removes a named setting.
    #[msgpack(key = 4)]
    Set {
        /// The setting's name.
        name: String,
        /// Its value.
        value: Option<SettingValue>,
    },
    /// Plans a split and allocates all ids that it needs.
    #[msgpack(key = 5)]
    BeginSplit(BeginSplit),
    /// Moves a split from the phase the caller believes it in to the next.
    #[msgpack(key = 6)]
    AdvanceSplit {
        /// The split.
        operator: MigrationId,
        /// The phase the caller believes it in.
        from: SplitPhase,
        /// The next phase.
        to: SplitPhase,
    },
    /// Installs both ranges after the sequencer has ordered the cut.
    #[msgpack(key = 7)]
    InstallSplit {
        /// The split.
        operator: MigrationId,
        /// The epoch of the shrunken parent.
        parent_epoch: ShardEpoch,
        /// The epoch of the child.
        child_epoch: ShardEpoch,
    },
    /// Gives a split up that the sequencer has not ordered and never will.
    #[msgpack(key = 8)]
    AbortSplit {
        /// The split.
        operator: MigrationId,
        /// The phase the caller believes it in.
        expected: SplitPhase,
        /// Why it never will.
        reason: CutRefusal,
    },
    /// Plans a change of a group's replicas and allocates the new replica.
    #[msgpack(key = 9)]
    BeginMove(BeginMove),
    /// Records the membership that Raft has committed.
    #[msgpack(key = 10)]
    CommitMove {
        /// The move.
        migration: MigrationId,
    },
    /// Gives a move up whose new replica Raft has no longer as a member.
    #[msgpack(key = 11)]
    AbandonMove {
        /// The move.
        migration: MigrationId,
    },
    /// Writes a journal row if nobody else has written it since.
    #[msgpack(key = 12)]
    Journal(JournalWrite),
    /// Ends a split whose child no longer needs the parent's replicas.
    #[msgpack(key = 13)]
    FinishSplit {
        /// The split.
        operator: MigrationId,
    },
}

impl Command {
    /// The entry for the log: `[version u8][zerompk]`.
    ///
    /// # Errors
    /// [`MetaError::CommandTooLarge`].
    pub fn encode(&self) -> Result<Bytes, MetaError> {
        let bytes = versioned(COMMAND_VERSION, &encode(self));
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(MetaError::CommandTooLarge {
                bytes: bytes.len(),
                limit: COMMAND_BYTES_MAX,
            });
        }
        Ok(bytes)
    }

    /// Reads an entry back.
    ///
    /// # Errors
    /// [`CodecError::Newer`] for a later format than [`COMMAND_VERSION`],
    /// otherwise [`CodecError::Malformed`] or [`CodecError::Trailing`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode(unversioned(COMMAND_VERSION, bytes)?)
    }
}

/// Puts a version before a payload.
pub(crate) fn versioned(version: u8, payload: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(payload.len() + 1);
    bytes.push(version);
    bytes.extend_from_slice(payload);
    Bytes::from(bytes)
}

/// The payload behind a version that this build knows.
pub(crate) fn unversioned(newest: u8, bytes: &[u8]) -> Result<&[u8], CodecError> {
    let (&found, payload) = bytes.split_first().ok_or(CodecError::Truncated(0))?;
    if found > newest {
        return Err(CodecError::Newer { found, known: newest });
    }
    Ok(payload)
}
