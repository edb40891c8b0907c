//! The way to the metadata group from any node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_types::{Blob, NodeId};
use tokio::time::Instant;

use crate::command::Command;
use crate::directory::Directory;
use crate::journal::JournalWrite;
use crate::operators::Operator;
use crate::ports::{BoxError, LocalReplica, Peers, ProposeError};
use crate::registry::Registry;
use crate::reply::Reply;
use crate::wire::{Request, Response};

/// How long a command may take, retries included: an election and then some.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// How long one call to another node, or one proposal, may take.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(3);

/// The pause between tries, while a leader is elected.
const PAUSE: Duration = Duration::from_millis(100);

/// Why an administrative operation was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It makes no sense now; the text says why.
    #[error("{0}")]
    Refused(String),
    /// It may be tried again.
    #[error("{0}; try again")]
    Unavailable(String),
}

/// Proposes commands and fetches the metadata, wherever its leader is.
pub struct MetadataClient {
    directory: Arc<Directory>,
    peers: Arc<dyn Peers>,
    replica: RwLock<Option<Arc<dyn LocalReplica>>>,
}

impl MetadataClient {
    /// A client on a node without a replica.
    #[must_use]
    pub fn new(directory: Arc<Directory>, peers: Arc<dyn Peers>) -> Self {
        Self { directory, peers, replica: RwLock::default() }
    }

    /// Begins or ends to use a replica on this node.
    pub fn set_replica(&self, replica: Option<Arc<dyn LocalReplica>>) {
        *self.replica.write() = replica;
    }

    /// The replica on this node.
    #[must_use]
    pub fn replica(&self) -> Option<Arc<dyn LocalReplica>> {
        self.replica.read().clone()
    }

    /// What this node knows of the cluster.
    #[must_use]
    pub const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    pub(crate) const fn peers(&self) -> &Arc<dyn Peers> {
        &self.peers
    }

    /// The term in which this node leads the metadata group and has applied
    /// everything from before it.
    #[must_use]
    pub fn authority(&self) -> Option<u64> {
        self.replica()?.authority()
    }

    /// Runs a command. Commands are conditional on what they change, so that
    /// trying again after an unknown outcome is safe.
    ///
    /// # Errors
    /// [`AdminError::Refused`] with the refusal's text, and
    /// [`AdminError::Unavailable`] when no leader has answered in ten seconds.
    pub async fn run(&self, command: &Command) -> Result<Reply, AdminError> {
        let entry = command.encode().map_err(|error| AdminError::Refused(error.to_string()))?;
        let until = Instant::now() + COMMAND_DEADLINE;
        loop {
            match self.attempt(&entry).await {
                Ok(Reply::Refused(refusal)) => {
                    return Err(AdminError::Refused(refusal.to_string()));
                }
                Ok(reply) => return Ok(reply),
                Err(reason) if Instant::now() + PAUSE > until => {
                    return Err(AdminError::Unavailable(reason));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn attempt(&self, entry: &Bytes) -> Result<Reply, String> {
        let read = |reply: &[u8]| Reply::decode(reply).map_err(|error| error.to_string());
        if self.authority().is_some() {
            return match self.propose(entry.clone()).await {
                Response::Proposed(reply) => read(&reply),
                _ => Err("the metadata group lost its leader".to_owned()),
            };
        }
        let request = Request::Propose(Blob(entry.clone()));
        for target in self.directory.targets() {
            match self.ask(target, &request).await {
                Ok(Response::Proposed(reply)) => {
                    self.directory.learn_leader(Some(target));
                    return read(&reply);
                }
                Ok(Response::NotLeader(leader)) => self.directory.learn_leader(leader),
                Ok(_) | Err(_) => {}
            }
        }
        Err("the metadata group has no leader that answers".to_owned())
    }

    /// Proposes on this replica, on behalf of whoever asks. What cannot be read
    /// is refused here: once it is in the log it halts every replica (law 7).
    pub(crate) async fn propose(&self, entry: Bytes) -> Response {
        if let Err(error) = Command::decode(&entry) {
            return Response::Refused(format!("this is no command of this version: {error}"));
        }
        let Some(replica) = self.replica() else { return Response::NotLeader(None) };
        match replica.propose(entry, CALL_DEADLINE).await {
            Ok(reply) => Response::Proposed(Blob(reply)),
            Err(ProposeError::NotLeader(leader)) => Response::NotLeader(leader),
            Err(ProposeError::Unavailable(reason)) => Response::Unavailable(reason),
        }
    }

    pub(crate) async fn ask(&self, to: NodeId, request: &Request) -> Result<Response, BoxError> {
        let response = self.peers.ask(to, request.to_bytes(), CALL_DEADLINE).await?;
        Ok(Response::from_bytes(&response)?)
    }

    /// Fetches the metadata from a node that has a replica of it; whether
    /// this node now knows what that one does.
    pub async fn fetch(&self, from: NodeId) -> bool {
        let request = Request::View(self.directory.view().applied());
        let Ok(Response::View(encoded)) = self.ask(from, &request).await else { return false };
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

    /// Brings a node without a replica up to date.
    pub async fn refresh(&self) {
        if self.replica().is_some() {
            return;
        }
        for target in self.directory.targets() {
            if self.fetch(target).await {
                return;
            }
        }
    }

    /// The encoded metadata, for a node that knows what was applied up to an
    /// index.
    pub(crate) fn show(&self, known: u64) -> Response {
        if self.replica().is_none() {
            return Response::NotLeader(None);
        }
        let view = self.directory.view();
        let is_newer = view.applied() > known;
        Response::View(if is_newer { Blob(view.encode()) } else { Blob::new() })
    }
}

/// The journal.
impl MetadataClient {
    /// Writes a journal row.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] also when somebody wrote meanwhile, perhaps
    /// this very call before its answer was lost: read again and decide anew.
    pub async fn journal(&self, write: JournalWrite) -> Result<(), AdminError> {
        match self.run(&Command::Journal(write)).await? {
            Reply::Journalled { .. } => Ok(()),
            _ => Err(AdminError::Unavailable("the row was written meanwhile".to_owned())),
        }
    }

    /// Ends a move and closes its row. The map learns how it ended before the
    /// row is closed, so that a crash between the two leaves an open row to do
    /// it again.
    ///
    /// # Errors
    /// As [`MetadataClient::run`]; what was not done is done by repeating it.
    pub async fn finish_move(
        &self,
        last: JournalWrite,
        has_taken_effect: bool,
    ) -> Result<(), AdminError> {
        let migration = last.id;
        if self.directory.view().operator(migration).is_some_and(Operator::is_running) {
            let command = if has_taken_effect {
                Command::CommitMove { migration }
            } else {
                Command::AbandonMove { migration }
            };
            self.run(&command).await?;
        }
        self.journal(JournalWrite { finished: true, ..last }).await
    }
}

impl std::fmt::Debug for MetadataClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataClient").field("node", &self.directory.node()).finish()
    }
}
