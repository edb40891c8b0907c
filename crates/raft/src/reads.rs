//! Reads that are confirmed by a quorum.

use std::sync::Arc;

use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError as CoreError};
use quorate_types::ReplicaId;
use quorate_types::group_log::ReadIndex;
use tokio::sync::{mpsc, oneshot};

use crate::consensus::types::RaftOf;
use crate::error::ReadError;
use crate::group::{Counters, count, forward_of};
use crate::heartbeats::{Haste, Heartbeats};

/// Who waits for a confirmation.
pub(crate) type ReadReply = oneshot::Sender<Result<ReadIndex, ReadError>>;

/// Confirms that a replica leads, for those who read.
pub(crate) struct Confirmer {
    pub(crate) raft: RaftOf,
    pub(crate) option: LinearizerOption,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) haste: Arc<Haste>,
    pub(crate) counters: Arc<Counters>,
}

impl Confirmer {
    /// Serves reads round by round: whoever comes during a round waits for the
    /// next, because a round proves leadership only as of its beginning.
    pub(crate) async fn run(self, mut queue: mpsc::Receiver<ReadReply>) {
        let mut waiting = Vec::new();
        loop {
            if queue.recv_many(&mut waiting, queue.max_capacity()).await == 0 {
                return;
            }
            count(&self.counters.read_rounds);
            let asking = self.heartbeats.ask(&self.haste);
            let outcome = confirm(&self.raft, self.option.clone()).await;
            drop(asking);
            for reply in waiting.drain(..) {
                // A reader that gave up is no concern of the others.
                let _gone = reply.send(outcome.clone());
            }
        }
    }
}

async fn confirm(raft: &RaftOf, option: LinearizerOption) -> Result<ReadIndex, ReadError> {
    match raft.get_read_linearizer(option).await {
        Ok(linearizer) => {
            let confirmed = linearizer.read_log_id();
            let term = confirmed.committed_leader_id().term;
            Ok(ReadIndex { term, index: confirmed.index() })
        }
        Err(CoreError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            let leader = forward_of(&forward, ReplicaId(*raft.node_id()));
            Err(ReadError::NotLeader { leader })
        }
        Err(_) => Err(ReadError::Unavailable),
    }
}
