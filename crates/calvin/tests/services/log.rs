//! A group's log in memory: one replica, which commits what it is given in
//! order and applies it a moment later.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_calvin::{GroupLog, Leadership, ProposeError, ReadIndex};
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{NodeId, watch};
use tokio::sync::{mpsc, oneshot};

/// Applies committed entries as `(index, command)`.
pub type Apply = Box<dyn Fn(&[(u64, Option<&[u8]>)]) + Send>;

/// What a commit takes.
const COMMIT: Duration = Duration::from_millis(1);

type Proposal = (Bytes, oneshot::Sender<()>);

pub struct MemLog {
    node: NodeId,
    entries: Mutex<Vec<Bytes>>,
    proposals: mpsc::UnboundedSender<Proposal>,
    applied: watch::Sender<u64>,
    leadership: watch::Sender<Leadership>,
}

impl MemLog {
    /// A log whose only replica is on `node` and leads in term 1.
    pub fn start(node: NodeId, apply: Apply) -> Arc<Self> {
        let (proposals, queue) = mpsc::unbounded_channel();
        let (applied, _) = watch::channel(0);
        let first = Leadership { term: 1, leader: Some(node), leads: true };
        let (leadership, _) = watch::channel(first);
        let entries = Mutex::default();
        let log = Arc::new(Self { node, entries, proposals, applied, leadership });
        drop(runtime::spawn(drive(log.applied.clone(), queue, apply)));
        log
    }

    /// The replica loses its office and wins it again.
    pub fn begin_term(&self) {
        let now = *self.leadership.borrow();
        self.leadership.send(Leadership { term: now.term + 1, ..now });
    }

    pub fn entries(&self) -> Vec<Bytes> {
        self.entries.lock().clone()
    }

    /// Waits until applied entries have made it so.
    pub async fn until(&self, is_so: impl Fn() -> bool) {
        let mut applied = self.applied.subscribe();
        while !is_so() {
            applied.changed().await.expect("the log lives");
        }
    }
}

async fn drive(
    applied: watch::Sender<u64>,
    mut queue: mpsc::UnboundedReceiver<Proposal>,
    apply: Apply,
) {
    let mut index = 0;
    while let Some(first) = queue.recv().await {
        tokio::time::sleep(COMMIT).await;
        let mut batch = vec![first];
        while let Ok(next) = queue.try_recv() {
            batch.push(next);
        }
        let entries: Vec<(u64, Option<&[u8]>)> = batch
            .iter()
            .zip(index + 1..)
            .map(|((command, _), at)| (at, Some(&command[..])))
            .collect();
        apply(&entries);
        index += entries.len() as u64;
        applied.send(index);
        for (_, proposer) in batch {
            // A proposer that gave up meanwhile needs no answer.
            let _ = proposer.send(());
        }
    }
}

impl GroupLog for MemLog {
    fn propose(&self, command: Bytes) -> BoxFuture<Result<(), ProposeError>> {
        let (proposer, outcome) = oneshot::channel();
        {
            let mut entries = self.entries.lock();
            entries.push(command.clone());
            self.proposals.send((command, proposer)).expect("the log lives");
        }
        Box::pin(async move { outcome.await.map_err(|_| ProposeError::Unknown) })
    }

    fn read_index(&self) -> BoxFuture<Result<ReadIndex, Option<NodeId>>> {
        let term = self.leadership.borrow().term;
        let index = self.entries.lock().len() as u64;
        Box::pin(async move {
            tokio::time::sleep(COMMIT).await;
            Ok(ReadIndex { term, index })
        })
    }

    fn applied(&self, index: u64) -> BoxFuture<bool> {
        let mut applied = self.applied.subscribe();
        Box::pin(async move { applied.wait_for(|applied| *applied >= index).await.is_ok() })
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }
}
