//! What the registry answers, and why it says no.

use bytes::Bytes;
use quorate_types::codec::{decode, encode};
use quorate_types::{ClusterId, DiskId, GroupId, MigrationId, NodeId, Seq, ShardEpoch, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::command::{unversioned, versioned};
use crate::error::MetaError;
use crate::journal::JournalRow;
use crate::nodes::NodeState;
use crate::operators::Operator;
use crate::splits::SplitPhase;

const REPLY_VERSION: u8 = 1;

/// The outcome of a command, the same on every replica.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Reply {
    /// The cluster exists: by this bootstrap or by the same one before.
    #[msgpack(key = 0)]
    Bootstrapped {
        /// Its identity.
        cluster: ClusterId,
    },
    /// Done, or already so.
    #[msgpack(key = 1)]
    Done {
        /// The version of the map that shows it.
        version: u64,
    },
    /// A split or a move as it now stands.
    #[msgpack(key = 2)]
    Operator(Operator),
    /// The journal row was written.
    #[msgpack(key = 3)]
    Journalled {
        /// Its revision now: what the next write must expect.
        revision: u64,
    },
    /// The journal row is not at the revision that the write expected;
    /// nothing was written. A writer whose earlier reply was lost finds its
    /// own row here.
    #[msgpack(key = 4)]
    Conflict {
        /// The row as it is, if there is one.
        current: Option<JournalRow>,
    },
    /// Nothing was changed; the refusal says what to do.
    #[msgpack(key = 5)]
    Refused(Refusal),
    /// The entry lies at or below the applied index: it took effect before,
    /// and whoever waited for it has been answered.
    #[msgpack(key = 6)]
    Redelivered,
}

impl Reply {
    /// The reply as bytes, `[version u8][zerompk]`, for a caller on another node.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        versioned(REPLY_VERSION, &encode(self))
    }

    /// Reads a reply back.
    ///
    /// # Errors
    /// [`MetaError::Encoding`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        Ok(decode(unversioned(REPLY_VERSION, bytes)?)?)
    }
}

/// Why a command was not carried out, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, ToMessagePack, FromMessagePack)]
pub enum Refusal {
    /// The first command must be a bootstrap.
    #[msgpack(key = 0)]
    #[error("the cluster is not bootstrapped yet; bootstrap it first")]
    NotBootstrapped,
    /// Another bootstrap came first.
    #[msgpack(key = 1)]
    #[error("cluster {cluster} exists already and was bootstrapped differently; join it")]
    AlreadyBootstrapped {
        /// The cluster that exists.
        cluster: ClusterId,
    },
    /// The bootstrap describes no cluster.
    #[msgpack(key = 2)]
    #[error("{flaw}; correct the initial configuration")]
    Bootstrap {
        /// What is wrong with it.
        flaw: BootstrapFlaw,
    },
    /// A limit is reached.
    #[msgpack(key = 3)]
    #[error("{what} (limit {max})")]
    Limit {
        /// Which one, and what to do.
        what: Limited,
        /// Its value.
        max: u64,
    },
    /// The id belongs to another disk: this one was wiped or copied.
    #[msgpack(key = 4)]
    #[error("this disk is not the one that joined as {node}; join under a new id")]
    OtherDisk {
        /// The id.
        node: NodeId,
        /// The disk that it belongs to.
        disk: DiskId,
    },
    /// The disk belongs to another id.
    #[msgpack(key = 5)]
    #[error("this disk joined as {node}; start it under that id, or wipe it to join anew")]
    DiskKnown {
        /// The id that the disk belongs to.
        node: NodeId,
    },
    /// The node was removed; its id is spent.
    #[msgpack(key = 6)]
    #[error("{node} was removed for ever; wipe its disk and join under a new id")]
    NodeRemoved {
        /// The id.
        node: NodeId,
    },
    /// No such node.
    #[msgpack(key = 7)]
    #[error("{node} never joined")]
    NodeUnknown {
        /// The id.
        node: NodeId,
    },
    /// The node takes no new replicas.
    #[msgpack(key = 8)]
    #[error("{node} is {state:?} and takes no replica; choose an active node")]
    NodeNotActive {
        /// The node.
        node: NodeId,
        /// Its state.
        state: NodeState,
    },
    /// The node still holds replicas.
    #[msgpack(key = 9)]
    #[error("{node} still holds {replicas} replicas; drain it and wait until they have moved")]
    NodeHoldsReplicas {
        /// The node.
        node: NodeId,
        /// How many.
        replicas: u64,
    },
    /// The node's build is older than the formats in use.
    #[msgpack(key = 10)]
    #[error("the node supports version {supports}, the cluster is at {cluster}; upgrade the node")]
    NodeBehind {
        /// The newest version that the node supports.
        supports: u32,
        /// The cluster's version.
        cluster: u32,
    },
    /// Some members do not support the version.
    #[msgpack(key = 11)]
    #[error("nodes {nodes:?} do not support version {version}; upgrade or remove them first")]
    NodesBehind {
        /// The version asked for.
        version: u32,
        /// The first of them.
        nodes: Seq<NodeId>,
    },
    /// The cluster's version never goes back.
    #[msgpack(key = 12)]
    #[error("the cluster is at version {current} and never goes back")]
    VersionBackward {
        /// The version in force.
        current: u32,
    },
    /// The address is empty, too long or holds control characters.
    #[msgpack(key = 13)]
    #[error("the address must be printable text of 1 to 264 bytes")]
    AddressInvalid,
    /// The labels are too many, too long, repeated or unprintable.
    #[msgpack(key = 14)]
    #[error("labels must be at most 16, of distinct names, printable text of 1 to 64 bytes each")]
    LabelsInvalid,
    /// The setting's name or value is out of bounds.
    #[msgpack(key = 15)]
    #[error("the setting's name or value is out of its bounds; see its documentation")]
    SettingInvalid,
    /// No such shard.
    #[msgpack(key = 16)]
    #[error("there is no shard {shard}; read the map again")]
    ShardUnknown {
        /// The id.
        shard: ShardId,
    },
    /// No such group.
    #[msgpack(key = 17)]
    #[error("there is no group {group}; read the map again")]
    GroupUnknown {
        /// The id.
        group: GroupId,
    },
    /// The shard's range has changed since the command was decided on.
    #[msgpack(key = 18)]
    #[error("shard {shard} is at epoch {current}; plan again on the present map")]
    StaleEpoch {
        /// The shard.
        shard: ShardId,
        /// Its epoch.
        current: ShardEpoch,
    },
    /// An operator has begun or ended on the group since the command was
    /// decided on.
    #[msgpack(key = 19)]
    #[error("group {group} is at generation {current}; plan again on the present map")]
    StaleGeneration {
        /// The group.
        group: GroupId,
        /// Its generation.
        current: u64,
    },
    /// Another operator works on the group.
    #[msgpack(key = 20)]
    #[error("operator {operator} works on {group}; wait for its end")]
    Busy {
        /// The group.
        group: GroupId,
        /// The operator.
        operator: MigrationId,
    },
    /// The split key does not cut the range in two.
    #[msgpack(key = 21)]
    #[error("the key does not lie inside shard {shard}, behind its first key; choose another")]
    SplitKeyOutside {
        /// The shard.
        shard: ShardId,
    },
    /// An epoch must rise with the change of ownership.
    #[msgpack(key = 22)]
    #[error("both epochs must lie above {current}")]
    EpochNotAbove {
        /// The parent's epoch before the split.
        current: ShardEpoch,
    },
    /// No such operator, or it ended so long ago that it is forgotten.
    #[msgpack(key = 23)]
    #[error("there is no operator {operator}; it never began or ended long ago")]
    OperatorUnknown {
        /// The id.
        operator: MigrationId,
    },
    /// The id names another operator.
    #[msgpack(key = 24)]
    #[error("{operator} names another operator; draw a new id")]
    OperatorMismatch {
        /// The id.
        operator: MigrationId,
    },
    /// The operator has ended otherwise.
    #[msgpack(key = 25)]
    #[error("{operator} has already ended; read its record")]
    OperatorEnded {
        /// The id.
        operator: MigrationId,
    },
    /// The split is in another phase than the caller believed.
    #[msgpack(key = 26)]
    #[error("the split is {current:?}; read its record and decide again")]
    PhaseMismatch {
        /// Its phase.
        current: SplitPhase,
    },
    /// Phases are passed in order, one at a time.
    #[msgpack(key = 27)]
    #[error("a split that is {current:?} cannot take that step")]
    PhaseOrder {
        /// Its phase.
        current: SplitPhase,
    },
    /// The group has no voter on that node.
    #[msgpack(key = 28)]
    #[error("{group} has no voter on {node}; read the map again")]
    NoVoterOn {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// The group has a replica on that node already.
    #[msgpack(key = 29)]
    #[error("{group} has a replica on {node} already; choose another node")]
    ReplicaOn {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// A group keeps at least one voter.
    #[msgpack(key = 30)]
    #[error("this is the last voter of {group}; replace it instead")]
    LastVoter {
        /// The group.
        group: GroupId,
    },
    /// A finished journal row is final.
    #[msgpack(key = 31)]
    #[error("the journal of {id} is finished; draw a new id")]
    JournalFinished {
        /// The row's id.
        id: MigrationId,
    },
}

/// What makes a bootstrap impossible.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum BootstrapFlaw {
    /// No node.
    #[error("a cluster needs at least one node")]
    NoNodes = 1,
    /// A node id stands twice.
    #[error("a node id is listed twice")]
    NodeTwice = 2,
    /// A disk stands twice.
    #[error("two nodes report the same disk")]
    DiskTwice = 3,
    /// No voter for the metadata or the sequencer, too many, or one twice.
    #[error("metadata and sequencer need one to nine voters each, none of them twice")]
    Voters = 4,
    /// A voter is none of the nodes.
    #[error("a voter is not among the nodes")]
    VoterUnknown = 5,
    /// More replicas than nodes, than the limit, or none.
    #[error("a shard needs one to nine replicas and as many nodes")]
    Replicas = 6,
    /// The split keys are empty, too long, repeated or out of order.
    #[error("split keys must be non-empty, at most 1,024 bytes and strictly ascending")]
    SplitKeys = 7,
    /// A node supports no version at all.
    #[error("cluster versions begin at 1")]
    Version = 8,
}

/// A limit that was reached, with what to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum Limited {
    /// [`COMMAND_BYTES_MAX`](crate::limits::COMMAND_BYTES_MAX)
    #[error("the command has too many bytes; make it smaller")]
    CommandBytes = 1,
    /// [`NODES_MAX`](crate::limits::NODES_MAX)
    #[error("the cluster has as many nodes as it can; remove one first")]
    Nodes = 2,
    /// [`NODE_IDS_MAX`](crate::limits::NODE_IDS_MAX)
    #[error("all node ids that the cluster can remember are used; move to a new cluster")]
    NodeIds = 3,
    /// [`SHARDS_MAX`](crate::limits::SHARDS_MAX) or, at bootstrap,
    /// [`INITIAL_SHARDS_MAX`](crate::limits::INITIAL_SHARDS_MAX)
    #[error("there are as many shards as there can be; keep them larger")]
    Shards = 4,
    /// [`SPLIT_KEY_BYTES_MAX`](crate::limits::SPLIT_KEY_BYTES_MAX)
    #[error("the split key has too many bytes; a prefix of it splits as well")]
    SplitKeyBytes = 5,
    /// [`REPLICAS_PER_GROUP_MAX`](crate::limits::REPLICAS_PER_GROUP_MAX)
    #[error("the group has as many replicas as it can; remove one first")]
    Replicas = 6,
    /// [`OPERATORS_RUNNING_MAX`](crate::limits::OPERATORS_RUNNING_MAX)
    #[error("too many splits and moves run; wait until some have ended")]
    Operators = 7,
    /// [`JOURNAL_OPEN_MAX`](crate::limits::JOURNAL_OPEN_MAX)
    #[error("too many journal rows are unfinished; finish some first")]
    JournalRows = 8,
    /// [`JOURNAL_ROW_BYTES_MAX`](crate::limits::JOURNAL_ROW_BYTES_MAX)
    #[error("the journal row has too many bytes; journal a checkpoint, not data")]
    JournalRowBytes = 9,
    /// [`SETTINGS_MAX`](crate::limits::SETTINGS_MAX)
    #[error("there are as many settings as there can be; remove one first")]
    Settings = 10,
}

impl Limited {
    /// The refusal at a limit of `max`.
    pub(crate) const fn at(self, max: usize) -> Refusal {
        Refusal::Limit { what: self, max: max as u64 }
    }
}
