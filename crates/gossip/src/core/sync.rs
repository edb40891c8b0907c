//! Anti-entropy of the replicated state, push and pull.
//!
//! ```text
//! A: ack from B carries another root        A: local write
//! A -> B  Vector Open                       A -> B  Delta (since B's last vector)
//! B -> A  Delta     (what A lacks)          B -> A  Vector More | Settled
//! B -> A  Vector Answer                     A -> B  Delta ... while there is more
//! A -> B  Delta     (what B lacks)
//! ```
//!
//! Every delta is answered with the receiver's vector before the next one is
//! sent: one delta per peer is under way, a slow peer is not flooded, and a
//! lost frame costs [`crate::Config::sync_timeout`] or the next probe.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_types::{Blob, NodeId};

use super::Core;
use crate::member::Event;
use crate::transport::Lane;
use crate::wire::{Delta, ENVELOPE_BYTES_MAX, FRAME_BYTES_MAX, Message, Stage, Vector};
use quorate_types::anti_entropy::State;

/// What fits into a frame beside its envelope.
const BLOB_BYTES_MAX: usize = FRAME_BYTES_MAX as usize - ENVELOPE_BYTES_MAX;
/// Vectors above this are not remembered per peer but asked for again:
/// bounds the memory that members can make us hold.
const REMEMBERED_VECTOR_BYTES_MAX: usize = 64 << 10;

/// How an exchange with one peer stands.
#[derive(Default)]
struct Exchange {
    /// What it last said it has.
    vector: Option<Bytes>,
    /// Until then an answer of its is awaited.
    awaited_until: Option<Duration>,
    /// There was news while an answer was awaited.
    behind: bool,
}

/// News to be pushed.
struct News {
    due: Duration,
    /// Who brought it, if it was one peer alone: it need not hear it again.
    origin: Option<NodeId>,
}

/// All exchanges. Bounded by the table: only members get an entry.
#[derive(Default)]
pub(crate) struct Exchanges {
    peers: BTreeMap<NodeId, Exchange>,
    news: Option<News>,
    /// Pushes closer together than the interval are drawn together.
    not_before: Duration,
}

impl Exchanges {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.news.as_ref().map(|news| news.due)
    }

    /// The state changed, by a delta of `origin` or by its owner.
    pub(crate) fn changed(&mut self, origin: Option<NodeId>, now: Duration) {
        match &mut self.news {
            Some(news) if news.origin != origin => news.origin = None,
            Some(_) => {}
            None => self.news = Some(News { due: now.max(self.not_before), origin }),
        }
    }

    pub(crate) fn postpone(&mut self, by: Duration) {
        if let Some(news) = &mut self.news {
            news.due += by;
        }
    }

    pub(crate) fn forget(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }

    pub(crate) fn retain(&mut self, known: impl Fn(NodeId) -> bool) {
        self.peers.retain(|node, _| known(*node));
    }
}

impl<S: State> Core<S> {
    pub(super) fn tick_state(&mut self) {
        let due = self.exchanges.deadline().is_some_and(|due| due <= self.now);
        let Some(news) = self.exchanges.news.take_if(|_| due) else { return };
        self.exchanges.not_before = self.now + self.config.push_interval;
        let peers = self.table.pick(self.config.push_fanout, self.rng.as_mut(), |member| {
            Some(member.node) != news.origin
        });
        for peer in peers {
            let acquainted =
                self.exchanges.peers.get(&peer).is_some_and(|known| known.vector.is_some());
            if acquainted {
                self.push_delta(peer);
            } else {
                self.open_exchange(peer);
            }
        }
    }

    /// A peer's ack told its root.
    pub(super) fn compare_roots(&mut self, from: NodeId, root: u128) {
        if root != self.state.root() {
            self.open_exchange(from);
        }
    }

    fn open_exchange(&mut self, peer: NodeId) {
        if self.awaits(peer) {
            return;
        }
        if self.send_vector(peer, Stage::Open) {
            self.await_answer(peer);
        }
    }

    pub(super) fn on_vector(&mut self, from: NodeId, message: Vector) {
        let Vector { stage, vector: Blob(vector) } = message;
        self.state.acknowledge(from, &vector);
        let exchange = self.exchanges.peers.entry(from).or_default();
        exchange.vector = (vector.len() <= REMEMBERED_VECTOR_BYTES_MAX).then(|| vector.clone());
        match stage {
            Stage::Open => {
                // No delta while one is under way, however often it asks.
                if !self.awaits(from) {
                    self.send_delta(from, &vector);
                }
                self.send_vector(from, Stage::Answer);
            }
            Stage::Answer | Stage::More => {
                self.answered(from);
                self.send_delta(from, &vector);
            }
            Stage::Settled => {
                if self.answered(from) {
                    self.send_delta(from, &vector);
                }
            }
        }
    }

    pub(super) fn on_delta(&mut self, from: NodeId, message: &Delta) {
        match self.state.merge(from, &message.delta) {
            Ok(true) => {
                self.tell(Event::StateChanged { from });
                self.exchanges.changed(Some(from), self.now);
                self.send_vector(from, Stage::More);
            }
            Ok(false) => {
                self.send_vector(from, Stage::Settled);
            }
            Err(error) => self.tell(Event::DeltaRefused { from, reason: error.to_string() }),
        }
    }

    /// Sends a peer what it lacked when it last told what it has.
    fn push_delta(&mut self, peer: NodeId) {
        if self.awaits(peer) {
            self.exchanges.peers.entry(peer).or_default().behind = true;
            return;
        }
        let known = self.exchanges.peers.get(&peer).and_then(|exchange| exchange.vector.clone());
        if let Some(vector) = known {
            self.send_delta(peer, &vector);
        }
    }

    fn send_delta(&mut self, peer: NodeId, since: &[u8]) {
        let Some(delta) = self.state.delta(since, self.config.delta_bytes_max) else { return };
        if delta.len() > BLOB_BYTES_MAX {
            self.stats.oversized += 1;
            return;
        }
        self.send(peer, Lane::Bulk, &Message::Delta(Delta { delta: Blob(delta) }));
        self.await_answer(peer);
    }

    fn send_vector(&mut self, peer: NodeId, stage: Stage) -> bool {
        let vector = self.state.vector();
        if vector.len() > BLOB_BYTES_MAX {
            self.stats.oversized += 1;
            return false;
        }
        let message = Message::Vector(Vector { stage, vector: Blob(vector) });
        self.send(peer, Lane::Bulk, &message);
        true
    }

    fn awaits(&self, peer: NodeId) -> bool {
        let until = self.exchanges.peers.get(&peer).and_then(|exchange| exchange.awaited_until);
        until.is_some_and(|until| until > self.now)
    }

    fn await_answer(&mut self, peer: NodeId) {
        let exchange = self.exchanges.peers.entry(peer).or_default();
        exchange.awaited_until = Some(self.now + self.config.sync_timeout);
        exchange.behind = false;
    }

    /// Notes that the answer came; says whether there was news meanwhile.
    fn answered(&mut self, peer: NodeId) -> bool {
        self.exchanges.peers.get_mut(&peer).is_some_and(|exchange| {
            exchange.awaited_until = None;
            std::mem::take(&mut exchange.behind)
        })
    }
}
