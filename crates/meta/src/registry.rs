//! The machine: rows in, commands in, rows and replies out.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_types::codec::{decode, encode, open_row, seal_row};
use quorate_types::{Blob, GroupId, MigrationId, NodeId, Seq, ShardId, sometimes};

use crate::bootstrap::Bootstrap;
use crate::command::Command;
use crate::error::{MetaError, Violation};
use crate::groups::ReplicaGroup;
use crate::invariants;
use crate::journal::JournalRow;
use crate::limits::{COMMAND_BYTES_MAX, ENCODED_BYTES_MAX};
use crate::nodes::Node;
use crate::operators::Operator;
use crate::reply::{Limited, Refusal, Reply};
use crate::rows::{Header, RowKey};
use crate::settings::SettingValue;
use crate::shards::Shard;
use crate::view::ClusterView;

/// The newest format of an encoded registry that this build knows.
const ENCODING_VERSION: u8 = 1;

/// What the checksum of an encoded registry covers besides its content, so
/// that no other row passes for one.
const ENCODING_NAME: &[u8] = b"quorate registry";

/// A row to write, or with `None` to delete.
pub type Mutation = (Blob, Option<Blob>);

/// What applying a command came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The answer for whoever proposed it.
    pub reply: Reply,
    /// The rows to commit, in one transaction with the applied index. Empty
    /// only for a redelivered entry.
    pub mutations: Vec<Mutation>,
}

/// The whole registry in memory. It is a function of the commands applied so
/// far and of nothing else.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Registry {
    view: ClusterView,
    /// The rows that the command in progress has changed; empty in between.
    touched: BTreeSet<RowKey>,
}

impl Registry {
    /// The registry that these rows are; the empty one without rows.
    ///
    /// # Errors
    /// The row that is damaged, of a newer format or unknown, or the
    /// invariant that the rows break. The replica must halt.
    pub fn load(rows: impl IntoIterator<Item = (Blob, Blob)>) -> Result<Self, MetaError> {
        let mut view = ClusterView::default();
        let mut keys = BTreeSet::new();
        for (key, row) in rows {
            // Of a row that came twice, what the first said could remain.
            if keys.contains(&key) {
                return Err(Violation::RowRepeated.into());
            }
            view.read_row(&key, &row)?;
            keys.insert(key);
        }
        if !keys.is_empty() && !keys.contains(&RowKey::Header.encode()) {
            return Err(Violation::HeaderMissing.into());
        }
        invariants::check(&view)?;
        Ok(Self { view, touched: BTreeSet::new() })
    }

    /// Applies the command at a log index. Indexes rise; an entry at or below
    /// [`ClusterView::applied`] is a redelivery and changes nothing. Memory is
    /// ahead of the rows until the caller has committed the mutations; if it
    /// cannot, it must drop this registry and load the rows again.
    ///
    /// # Errors
    /// [`MetaError::Command`] for an entry that this build cannot decode;
    /// nothing was changed and the replica must halt. Anything else wrong
    /// with a command is a [`Reply::Refused`].
    pub fn apply(&mut self, index: u64, command: &[u8]) -> Result<Applied, MetaError> {
        if index <= self.view.applied() {
            sometimes!("a metadata entry is applied already");
            return Ok(Applied { reply: Reply::Redelivered, mutations: Vec::new() });
        }
        let version_before = self.view.version();
        let outcome = if command.len() > COMMAND_BYTES_MAX {
            Err(Limited::CommandBytes.at(COMMAND_BYTES_MAX))
        } else {
            let command =
                Command::decode(command).map_err(|source| MetaError::Command { index, source })?;
            self.execute(index, command)
        };
        let reply = outcome.unwrap_or_else(|refusal| {
            tracing::debug!(index, %refusal, "refused");
            debug_assert!(self.touched.is_empty(), "a refused command changes nothing");
            Reply::Refused(refusal)
        });
        self.header_mut().applied = index;
        debug_assert!(version_before <= self.view.version(), "the map's version never goes back");
        debug_assert_eq!(invariants::check(&self.view), Ok(()), "after {reply:?}");
        Ok(Applied { reply, mutations: self.take_mutations() })
    }

    fn execute(&mut self, index: u64, command: Command) -> Result<Reply, Refusal> {
        if self.view.cluster().is_none() && !matches!(command, Command::Bootstrap(_)) {
            return Err(Refusal::NotBootstrapped);
        }
        match command {
            Command::Bootstrap(plan) => self.bootstrap(index, plan),
            Command::Join(spec) => self.join(index, &spec),
            Command::SetNodeState { node, state } => self.set_node_state(node, state),
            Command::SetClusterVersion { version } => self.set_cluster_version(version),
            Command::Set { name, value } => self.set(name, value),
            Command::BeginSplit(wanted) => self.begin_split(index, wanted),
            Command::AdvanceSplit { operator, from, to } => self.advance_split(operator, from, to),
            Command::InstallSplit { operator, parent_epoch, child_epoch } => {
                self.install_split(operator, parent_epoch, child_epoch)
            }
            Command::FinishSplit { operator } => self.finish_split(index, operator),
            Command::AbortSplit { operator, expected, reason } => {
                self.abort_split(index, operator, expected, reason)
            }
            Command::BeginMove(wanted) => self.begin_move(index, &wanted),
            Command::CommitMove { migration } => self.commit_move(index, migration),
            Command::AbandonMove { migration } => self.abandon_move(index, migration),
            Command::Journal(write) => self.write_journal(index, write),
        }
    }

    /// The cluster as of the last applied command.
    #[must_use]
    pub const fn view(&self) -> &ClusterView {
        &self.view
    }

    /// All rows, as [`Registry::load`] takes them back: what a snapshot of
    /// this replica consists of.
    pub fn rows(&self) -> impl Iterator<Item = (Blob, Blob)> {
        self.view.rows()
    }

    /// The whole registry as bytes, for nodes that hold no metadata replica.
    /// Version, checksum and rows are as on disk; at most
    /// [`ENCODED_BYTES_MAX`] long by the limits of what it holds.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.view.encode()
    }

    /// Reads an encoded registry back.
    ///
    /// # Errors
    /// [`MetaError::EncodingTooLarge`] and [`MetaError::Encoding`], or what
    /// [`Registry::load`] finds in the rows.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        if bytes.len() > ENCODED_BYTES_MAX {
            return Err(MetaError::EncodingTooLarge {
                bytes: bytes.len(),
                limit: ENCODED_BYTES_MAX,
            });
        }
        let (_, payload) = open_row(ENCODING_NAME, ENCODING_VERSION, bytes)?;
        let rows: Seq<(Blob, Blob)> = decode(payload)?;
        Self::load(rows)
    }

    fn take_mutations(&mut self) -> Vec<Mutation> {
        std::mem::take(&mut self.touched)
            .into_iter()
            .map(|row| (row.encode(), self.view.row(&row)))
            .collect()
    }
}

impl ClusterView {
    fn rows(&self) -> impl Iterator<Item = (Blob, Blob)> {
        self.row_keys().filter_map(|row| Some((row.encode(), self.row(&row)?)))
    }

    /// What [`Registry::decode`] takes back.
    pub(crate) fn encode(&self) -> Bytes {
        let rows: Seq<(Blob, Blob)> = self.rows().collect();
        seal_row(ENCODING_NAME, ENCODING_VERSION, &encode(&rows))
    }
}

/// Writing. Every change goes through one of these, so that no row is
/// forgotten and no index goes stale.
impl Registry {
    pub(crate) fn header_mut(&mut self) -> &mut Header {
        self.touched.insert(RowKey::Header);
        &mut self.view.header
    }

    /// Once per command that changed what the map shows.
    pub(crate) fn bump_version(&mut self) {
        self.header_mut().version += 1;
    }

    /// The plain answer to a command that is carried out.
    pub(crate) const fn done(&self) -> Reply {
        Reply::Done { version: self.view.header.version }
    }

    pub(crate) fn put_bootstrap(&mut self, plan: Bootstrap) {
        self.touched.insert(RowKey::Bootstrap);
        self.view.bootstrap = Some(plan);
    }

    pub(crate) fn put_setting(&mut self, name: String, value: Option<SettingValue>) {
        self.touched.insert(RowKey::Setting(name.clone()));
        match value {
            Some(value) => self.view.settings.insert(name, value),
            None => self.view.settings.remove(&name),
        };
    }

    pub(crate) fn put_node(&mut self, id: NodeId, node: Node) {
        self.touched.insert(RowKey::Node(id));
        self.view.insert_node(id, node);
    }

    pub(crate) fn put_group(&mut self, id: GroupId, group: ReplicaGroup) {
        self.touched.insert(RowKey::Group(id));
        self.view.insert_group(id, group);
    }

    /// Changes an existing group and begins its next generation: an operator
    /// begins or ends on it.
    pub(crate) fn renew_group(&mut self, id: GroupId, change: impl FnOnce(&mut ReplicaGroup)) {
        if let Some(mut group) = self.view.group(id).cloned() {
            change(&mut group);
            group.generation += 1;
            self.put_group(id, group);
        }
    }

    pub(crate) fn put_shard(&mut self, id: ShardId, shard: Shard) {
        self.touched.insert(RowKey::Shard(id));
        self.view.insert_shard(id, shard);
    }

    pub(crate) fn put_operator(&mut self, operator: Operator) {
        self.touched.insert(RowKey::Operator(operator.id));
        self.view.insert_operator(operator);
    }

    pub(crate) fn remove_operator(&mut self, id: MigrationId) {
        self.touched.insert(RowKey::Operator(id));
        self.view.drop_operator(id);
    }

    pub(crate) fn put_journal(&mut self, id: MigrationId, row: JournalRow) {
        self.touched.insert(RowKey::Journal(id));
        self.view.insert_journal(id, row);
    }

    pub(crate) fn remove_journal(&mut self, id: MigrationId) {
        self.touched.insert(RowKey::Journal(id));
        self.view.drop_journal(id);
    }
}
