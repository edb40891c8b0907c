//! Our formats: what is stored as an entry's payload, what a machine keeps as
//! host row, and what hosts say to each other. All begin with a version byte
//! or travel in something that has one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::codec::{CodecError, decode};
use quorate_types::{Blob, GroupId, NodeId, ReplicaId, Seq};
use zerompk::{FromMessagePack, Read, ToMessagePack, Write};

use super::types::{
    Command, Member, Membership, Payload, RaftEntry, SnapshotMeta, StoredMembership, log_id,
    position,
};
use crate::log::{LogEntry, LogPosition, Vote};
use crate::quiescence::Heard;

/// Why bytes that claim to be ours are not.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{0}")]
    Codec(std::sync::Arc<CodecError>),
    #[error("format {found} of {what} is not known; the newest known is {known}")]
    Newer { what: &'static str, found: u8, known: u8 },
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("not a valid membership: {0}")]
    Membership(String),
    #[error("the last of all indexes is no position of a log")]
    LastIndex,
}

impl From<CodecError> for WireError {
    fn from(error: CodecError) -> Self {
        Self::Codec(std::sync::Arc::new(error))
    }
}

pub(crate) fn versioned<T: ToMessagePack>(version: u8, value: &T) -> Bytes {
    versioned_of(version, value, 0)
}

/// The same for a value that takes about so many bytes.
fn versioned_of<T: ToMessagePack>(version: u8, value: &T, about_bytes: usize) -> Bytes {
    let mut out = Vec::with_capacity(1 + about_bytes);
    out.push(version);
    match zerompk::write_msgpack(&mut out, value) {
        Ok(()) => Bytes::from(out),
        Err(error) => panic!("invariant: encoding into memory succeeds, got {error}"),
    }
}

pub(crate) fn open<'a, T: FromMessagePack<'a>>(
    what: &'static str,
    known: u8,
    bytes: &'a [u8],
) -> Result<T, WireError> {
    match bytes.split_first() {
        None => Err(WireError::Empty(what)),
        Some((&found, body)) if found == known => Ok(decode(body)?),
        Some((&found, _)) => Err(WireError::Newer { what, found, known }),
    }
}

/// A membership: the voters, twice while a change is under way, and everyone's
/// node.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct WireMembership {
    configs: Seq<Seq<ReplicaId>>,
    nodes: Seq<(ReplicaId, NodeId)>,
}

impl From<&Membership> for WireMembership {
    fn from(membership: &Membership) -> Self {
        let ids = |config: &BTreeSet<u64>| config.iter().copied().map(ReplicaId).collect();
        Self {
            configs: membership.get_joint_config().iter().map(ids).collect(),
            nodes: membership
                .nodes()
                .map(|(&replica, member)| (ReplicaId(replica), member.node_id()))
                .collect(),
        }
    }
}

impl TryFrom<&WireMembership> for Membership {
    type Error = WireError;

    fn try_from(wire: &WireMembership) -> Result<Self, WireError> {
        let configs: Vec<BTreeSet<u64>> =
            wire.configs.iter().map(|ids| ids.iter().map(|id| id.0).collect()).collect();
        let nodes: BTreeMap<u64, Member> =
            wire.nodes.iter().map(|&(replica, node)| (replica.0, node.into())).collect();
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Self::default());
        }
        Self::new(configs, nodes).map_err(|error| WireError::Membership(error.to_string()))
    }
}

/// The first byte of an entry's payload in the log.
const ENTRY_BLANK: u8 = 1;
const ENTRY_COMMAND: u8 = 2;
const ENTRY_MEMBERSHIP: u8 = 3;

impl Command {
    /// Of what was proposed.
    pub(crate) fn new(command: &[u8]) -> Self {
        let mut payload = BytesMut::with_capacity(1 + command.len());
        payload.put_u8(ENTRY_COMMAND);
        payload.put_slice(command);
        Self(payload.freeze())
    }

    /// What was proposed.
    pub(crate) fn proposed(&self) -> Bytes {
        self.0.slice(self.0.len().min(1)..)
    }
}

pub(crate) fn to_wire_entry(entry: &RaftEntry) -> WireEntry<'_> {
    let payload = match &entry.payload {
        Payload::Blank => Cow::Borrowed(&[ENTRY_BLANK][..]),
        Payload::Normal(Command(payload)) => Cow::Borrowed(&payload[..]),
        Payload::Membership(membership) => Cow::Owned(of_membership(membership).into()),
    };
    WireEntry { position: position(&entry.log_id), payload: WirePayload(payload) }
}

pub(crate) fn to_log_entry(entry: RaftEntry) -> LogEntry {
    let payload = match entry.payload {
        Payload::Blank => Bytes::from_static(&[ENTRY_BLANK]),
        Payload::Normal(Command(payload)) => payload,
        Payload::Membership(membership) => of_membership(&membership),
    };
    LogEntry { position: position(&entry.log_id), payload }
}

fn of_membership(membership: &Membership) -> Bytes {
    versioned(ENTRY_MEMBERSHIP, &WireMembership::from(membership))
}

pub(crate) fn from_log_entry(entry: LogEntry) -> Result<RaftEntry, WireError> {
    let payload = match entry.payload.first() {
        None => return Err(WireError::Empty("entry")),
        Some(&ENTRY_BLANK) => Payload::Blank,
        Some(&ENTRY_COMMAND) => Payload::Normal(Command(entry.payload)),
        Some(_) => {
            let wire: WireMembership = open("entry", ENTRY_MEMBERSHIP, &entry.payload)?;
            Payload::Membership(Membership::try_from(&wire)?)
        }
    };
    Ok(RaftEntry { log_id: log_id(entry.position), payload })
}

const HOST_ROW_VERSION: u8 = 1;

/// What a machine stores for the host beside its state.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
struct HostRow {
    applied: LogPosition,
    membership_at: Option<LogPosition>,
    membership: WireMembership,
}

pub(crate) fn host_row(applied: LogPosition, membership: &StoredMembership) -> Bytes {
    let row = HostRow {
        applied,
        membership_at: membership.log_id().as_ref().map(position),
        membership: membership.membership().into(),
    };
    versioned(HOST_ROW_VERSION, &row)
}

pub(crate) fn open_host_row(row: &[u8]) -> Result<SnapshotMeta, WireError> {
    let row: HostRow = open("host row", HOST_ROW_VERSION, row)?;
    // What follows an index is counted on everywhere.
    if row.applied.index == u64::MAX {
        return Err(WireError::LastIndex);
    }
    let membership = Membership::try_from(&row.membership)?;
    Ok(SnapshotMeta {
        last_log_id: Some(log_id(row.applied)),
        last_membership: StoredMembership::new(row.membership_at.map(log_id), membership),
    })
}

/// The position at which every seeded group begins: early enough to leave the
/// whole index space, late enough that no entry of a real log was ever there.
const SEED_POSITION: LogPosition = LogPosition { term: 1, index: SEED_INDEX };

/// The log index at which every seeded group begins; what a machine seeded with
/// [`seeded_host_row`] reports as applied.
pub const SEED_INDEX: u64 = 10;

/// The host row with which all first replicas of a new group begin, instead of
/// electing among nobody: a position that no log ever reaches by itself and
/// `members` as voters. A function of `members` alone, so replicas seeded on
/// different nodes agree. Learners added later begin empty.
#[must_use]
pub fn seeded_host_row(members: &[(ReplicaId, NodeId)]) -> Bytes {
    let members: BTreeMap<ReplicaId, NodeId> = members.iter().copied().collect();
    let row = HostRow {
        applied: SEED_POSITION,
        membership_at: Some(SEED_POSITION),
        membership: WireMembership {
            configs: Seq(vec![members.keys().copied().collect()]),
            nodes: members.into_iter().collect(),
        },
    };
    versioned(HOST_ROW_VERSION, &row)
}

/// The applied index that a host row records, for a machine that needs it and
/// does not keep it elsewhere; `None` when the bytes are not a host row.
#[must_use]
pub fn host_row_index(row: &[u8]) -> Option<u64> {
    open_host_row(row).ok()?.last_log_id.map(|last| last.index)
}

const MESSAGE_VERSION: u8 = 1;

/// A request from one replica to another.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Message<'a> {
    pub(crate) group: GroupId,
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) body: Body<'a>,
}

#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) enum Body<'a> {
    Append(Append<'a>),
    Vote(VoteCall),
    PreVote(VoteCall),
    Transfer(Transfer),
    SnapshotBegin(SnapshotBegin),
    SnapshotChunk(SnapshotChunk),
    SnapshotEnd(SnapshotEnd),
    /// A leader that rests is asked to show itself.
    Wake,
}

#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Append<'a> {
    pub(crate) vote: Vote,
    pub(crate) previous: Option<LogPosition>,
    pub(crate) committed: Option<LogPosition>,
    pub(crate) entries: Seq<WireEntry<'a>>,
}

#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct WireEntry<'a> {
    pub(crate) position: LogPosition,
    pub(crate) payload: WirePayload<'a>,
}

/// A payload as it lies in a message, or in the log from which one is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WirePayload<'a>(pub(crate) Cow<'a, [u8]>);

impl ToMessagePack for WirePayload<'_> {
    fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
        writer.write_binary(&self.0)
    }
}

impl<'a: 'b, 'b> FromMessagePack<'a> for WirePayload<'b> {
    fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
        reader.read_binary().map(Self)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct VoteCall {
    pub(crate) vote: Vote,
    pub(crate) last: Option<LogPosition>,
    pub(crate) is_transfer: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Transfer {
    pub(crate) vote: Vote,
    pub(crate) to: ReplicaId,
    pub(crate) last: Option<LogPosition>,
}

/// Names one attempt to bring a snapshot to a follower, see [`crate::snapshots`].
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, ToMessagePack, FromMessagePack,
)]
pub(crate) struct TransferId {
    pub(crate) term: u64,
    pub(crate) number: u64,
}

/// Begins a transfer, or asks how far it is.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct SnapshotBegin {
    pub(crate) transfer: TransferId,
    pub(crate) vote: Vote,
    pub(crate) host_row: Blob,
}

#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct SnapshotChunk {
    pub(crate) transfer: TransferId,
    pub(crate) sequence: u32,
    /// Of these bytes.
    pub(crate) crc32c: u32,
    pub(crate) bytes: Blob,
}

#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct SnapshotEnd {
    pub(crate) transfer: TransferId,
    pub(crate) chunks: u32,
    /// Of the bytes of all chunks, one after the other.
    pub(crate) crc32c: u32,
}

/// The answer to a [`Message`] or a [`NodeCall`](crate::nodes::NodeCall).
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) enum Reply {
    Refused(Refusal),
    Appended,
    AppendedPartly(Option<LogPosition>),
    AppendConflict,
    HigherVote(Vote),
    Voted(Voted),
    TransferAccepted,
    TransferVoteChanged(Vote),
    TransferLogBehind(Option<LogPosition>),
    /// So many chunks are here.
    SnapshotHeld(u32),
    /// Ask again.
    SnapshotInstalling,
    SnapshotInstalled(Vote),
    Woken,
    BeatHeard(Heard),
    /// Who rests now, in the order of the question.
    Lulled(Seq<bool>),
    /// The reply to each of the heartbeats that came together, in their order;
    /// nothing where there was none in time.
    Heartbeats(Seq<Blob>),
}

#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Voted {
    pub(crate) vote: Vote,
    pub(crate) granted: bool,
    pub(crate) last: Option<LogPosition>,
}

/// Why a host did not pass a message on to its replica.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, ToMessagePack, FromMessagePack)]
pub(crate) enum Refusal {
    #[error("the group is not known there")]
    UnknownGroup,
    #[error("another replica of the group lives there: {0}")]
    OtherReplica(ReplicaId),
    #[error("the replica was removed")]
    Tombstoned,
    #[error("too much is under way there")]
    Busy,
    #[error("the replica has halted")]
    Halted,
    #[error("the snapshot transfer is not the current one or lost a chunk")]
    LostTransfer,
    #[error("the chunk of the snapshot was damaged on its way")]
    DamagedChunk,
    #[error("the message does not make sense")]
    Malformed,
}

/// What a message takes besides payloads of entries, and each of them besides its
/// payload: no limit, but room that is seldom too little.
const MESSAGE_BYTES: usize = 96;
const ENTRY_BYTES: usize = 24;

impl<'a> Message<'a> {
    pub(crate) fn to_bytes(&self) -> Bytes {
        let entries = match &self.body {
            Body::Append(append) => append.entries.as_slice(),
            _ => &[],
        };
        let payloads = entries.iter().map(|entry| ENTRY_BYTES + entry.payload.0.len());
        versioned_of(MESSAGE_VERSION, self, MESSAGE_BYTES + payloads.sum::<usize>())
    }

    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self, WireError> {
        open("message", MESSAGE_VERSION, bytes)
    }

    pub(crate) const fn is_heartbeat(&self) -> bool {
        matches!(&self.body, Body::Append(append) if append.entries.0.is_empty())
    }
}

impl Reply {
    pub(crate) fn to_bytes(&self) -> Bytes {
        versioned(MESSAGE_VERSION, self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        open("reply", MESSAGE_VERSION, bytes)
    }
}
