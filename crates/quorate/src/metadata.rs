//! The way to the metadata group from any node.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_meta::{Command, Registry, Reply};
use quorate_raft::{Group, ProposeError};
use quorate_types::{Blob, NodeId};

use crate::control::{ControlReply, ControlRequest};
use crate::directory::Directory;
use crate::error::AdminError;
use crate::network::NodePeers;

/// How long a metadata command may take, retries included.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long one call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// The pause between tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Proposes metadata commands and fetches the view.
pub(crate) struct Metadata {
    node: NodeId,
    group: RwLock<Option<Group>>,
    directory: Arc<Directory>,
    peers: Arc<NodePeers>,
}

impl Metadata {
    pub(crate) fn new(node: NodeId, directory: Arc<Directory>, peers: Arc<NodePeers>) -> Arc<Self> {
        Arc::new(Self { node, group: RwLock::default(), directory, peers })
    }

    pub(crate) fn set_group(&self, group: Option<Group>) {
        *self.group.write() = group;
    }

    pub(crate) fn group(&self) -> Option<Group> {
        self.group.read().clone()
    }

    /// The term in which this node leads the metadata group and has applied
    /// everything from before it.
    pub(crate) fn authority(&self) -> Option<u64> {
        let leadership = *self.group()?.leadership().borrow();
        (leadership.leading && leadership.noop_applied).then_some(leadership.term)
    }

    /// Runs a command, wherever the leader is. Commands are conditional on
    /// what they change, so that trying again after an unknown outcome is safe.
    pub(crate) async fn run(&self, command: &Command) -> Result<Reply, AdminError> {
        let encoded = command.encode().map_err(|error| AdminError::Refused(error.to_string()))?;
        let until = tokio::time::Instant::now() + DEADLINE;
        loop {
            match self.attempt(&encoded).await {
                Ok(Reply::Refused(refusal)) => {
                    return Err(AdminError::Refused(refusal.to_string()));
                }
                Ok(reply) => return Ok(reply),
                Err(reason) if tokio::time::Instant::now() + PAUSE > until => {
                    return Err(AdminError::Unavailable(reason));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn attempt(&self, encoded: &[u8]) -> Result<Reply, String> {
        if self.authority().is_some() {
            return match self.propose(encoded).await {
                ControlReply::Meta(reply) => {
                    Reply::decode(&reply).map_err(|error| error.to_string())
                }
                _ => Err("the metadata group lost its leader".to_owned()),
            };
        }
        let request = ControlRequest::Propose(Blob::from(encoded));
        for target in self.directory.metadata_targets() {
            if target == self.node {
                continue;
            }
            match self.peers.control(target, &request, CALL_DEADLINE).await {
                Ok(ControlReply::Meta(reply)) => {
                    self.directory.learn_metadata_leader(Some(target));
                    return Reply::decode(&reply).map_err(|error| error.to_string());
                }
                Ok(ControlReply::NotLeader(leader)) => {
                    self.directory.learn_metadata_leader(leader);
                }
                Ok(_) | Err(_) => {}
            }
        }
        Err("the metadata group has no leader that answers".to_owned())
    }

    /// Proposes on this replica, on behalf of whoever asks.
    pub(crate) async fn propose(&self, encoded: &[u8]) -> ControlReply {
        let Some(group) = self.group() else { return ControlReply::NotLeader(None) };
        let command = bytes::Bytes::copy_from_slice(encoded);
        match group.propose(command, CALL_DEADLINE).await {
            Ok(proposed) => ControlReply::Meta(Blob(proposed.outcome)),
            Err(ProposeError::NotLeader { leader }) => ControlReply::NotLeader(leader),
            Err(error) => ControlReply::Unavailable(Blob::from(error.to_string().as_str())),
        }
    }

    /// Fetches the metadata from a node that has a replica of it.
    pub(crate) async fn fetch(&self, from: NodeId) -> bool {
        let request = ControlRequest::View(self.directory.view().applied());
        let Ok(ControlReply::View(encoded)) =
            self.peers.control(from, &request, CALL_DEADLINE).await
        else {
            return false;
        };
        if encoded.is_empty() {
            return true;
        }
        match Registry::decode(&encoded) {
            Ok(registry) => {
                self.directory.learn_view(registry.view());
                true
            }
            Err(error) => {
                tracing::warn!(%from, %error, "a node sent metadata that cannot be read");
                false
            }
        }
    }
}
