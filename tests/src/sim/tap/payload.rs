//! What the log's bytes mean, as `docs/formats.md` says: read here a second
//! time, by other code than the one under test.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate::types::codec::decode;
use quorate::types::{GroupId, NodeId, ReplicaId, Seq, ShardId};
use quorate_engine::Mutation;
use quorate_raft::LogPosition;

const BLANK: u8 = 1;
const COMMAND: u8 = 2;
const MEMBERSHIP: u8 = 3;
/// The newest host row.
const HOST_ROW_FORMAT: u8 = 1;

/// The system row of the host of a replica, in every space.
pub(crate) const HOST_ROW_KEY: &[u8] = b"h";
/// Where the metadata's rows are in an engine.
pub(crate) const METADATA_SPACE: ShardId = ShardId(u64::MAX);
/// Where the sequencer's rows are.
pub(crate) const SEQUENCER_SPACE: ShardId = ShardId(u64::MAX - 1);
/// The group of the metadata.
pub(crate) const METADATA_GROUP: GroupId = GroupId(1);
/// The group of the sequencer.
pub(crate) const SEQUENCER_GROUP: GroupId = GroupId(2);
/// The group of shard 0.
const FIRST_SHARD_GROUP: u64 = 16;

/// The group whose state lies in a space of an engine.
pub(crate) fn group_of(space: ShardId) -> GroupId {
    match space {
        METADATA_SPACE => METADATA_GROUP,
        SEQUENCER_SPACE => SEQUENCER_GROUP,
        shard => GroupId(FIRST_SHARD_GROUP + shard.0),
    }
}

/// The space in which a group's state lies.
pub(crate) fn space_of(group: GroupId) -> ShardId {
    match group {
        METADATA_GROUP => METADATA_SPACE,
        SEQUENCER_GROUP => SEQUENCER_SPACE,
        shard => ShardId(shard.0.saturating_sub(FIRST_SHARD_GROUP)),
    }
}

/// Who votes, twice while a change is under way, and who is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) configs: Vec<BTreeSet<ReplicaId>>,
    pub(crate) nodes: BTreeMap<ReplicaId, NodeId>,
}

/// As it is encoded.
type StoredMembership = (Seq<Seq<ReplicaId>>, Seq<(ReplicaId, NodeId)>);

impl Membership {
    fn of((configs, nodes): StoredMembership) -> Self {
        let configs = configs.iter().map(|config| config.iter().copied().collect()).collect();
        Self { configs, nodes: nodes.iter().copied().collect() }
    }

    /// Whether those for which `holds` is true are a majority of each config.
    pub(crate) fn is_quorum(&self, holds: impl Fn(ReplicaId) -> bool) -> bool {
        self.configs.iter().all(|config| {
            let holding = config.iter().filter(|replica| holds(**replica)).count();
            holding * 2 > config.len()
        })
    }
}

/// An entry of a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Blank,
    Command(Bytes),
    Membership(Membership),
}

/// Reads an entry; `None` when it is none.
pub(crate) fn read_entry(payload: &Bytes) -> Option<Entry> {
    match *payload.first()? {
        BLANK => Some(Entry::Blank),
        COMMAND => Some(Entry::Command(payload.slice(1..))),
        MEMBERSHIP => {
            let stored: StoredMembership = decode(&payload[1..]).ok()?;
            Some(Entry::Membership(Membership::of(stored)))
        }
        _ => None,
    }
}

/// What a replica's host keeps beside its machine's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostRow {
    pub(crate) applied: LogPosition,
    pub(crate) membership: Membership,
}

/// Reads a host row; `None` when it is none.
pub(crate) fn read_host_row(row: &[u8]) -> Option<HostRow> {
    let (format, body) = row.split_first()?;
    if *format != HOST_ROW_FORMAT {
        return None;
    }
    let (applied, _at, membership): (LogPosition, Option<LogPosition>, StoredMembership) =
        decode(body).ok()?;
    Some(HostRow { applied, membership: Membership::of(membership) })
}

/// The host row among rows that are written.
pub(crate) fn host_row_in(system: &[Mutation]) -> Option<HostRow> {
    let row = system.iter().rev().find(|mutation| *mutation.key == *HOST_ROW_KEY)?;
    read_host_row(row.value.as_ref()?)
}
