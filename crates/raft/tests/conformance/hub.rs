//! A network in memory with a flaw of one's choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_raft::conformance::{End, Net};
use quorate_raft::tcp::Service;
use quorate_raft::{Lane, Network, TransportError};
use quorate_types::NodeId;
use quorate_types::hello::Hello;
use quorate_types::runtime::{self, BoxFuture};
use tokio::sync::{Mutex as Turns, Semaphore, mpsc, oneshot};

use super::{Nodes, hello};

/// What a message takes.
const LATENCY: Duration = Duration::from_millis(1);
/// Requests of a node that are in work at a time.
const ROOM: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HubFlaw {
    None,
    OtherChannel,
    OtherCaller,
    SwapsReplies,
    Lazy,
    Overtakes,
    RefusalIsReply,
    NoDeadline,
    OneLane,
    WorksOn,
    GuessesNodes,
    SendsEverywhere,
    SendsNothing,
    IntroducesSelf,
    SeesGhosts,
}

type Outcome = Result<Bytes, TransportError>;
type Reply = oneshot::Sender<Outcome>;

struct Letter {
    from: NodeId,
    channel: u8,
    payload: Bytes,
    patience: Option<Duration>,
    reply: Option<Reply>,
}

pub(crate) struct Hub {
    flaw: HubFlaw,
    inboxes: BTreeMap<(NodeId, Lane), mpsc::UnboundedSender<Letter>>,
    /// A reply that waits for another to be swapped with.
    swapped: Mutex<Option<(Reply, Outcome)>>,
}

const LANES: [Lane; 4] = [Lane::Heartbeat, Lane::Data, Lane::Snapshot, Lane::Request];

impl Hub {
    pub(crate) async fn net(nodes: Nodes, flaw: HubFlaw) -> Net {
        let mut inboxes = BTreeMap::new();
        let mut queues = Vec::new();
        for (node, service) in &nodes {
            let turn = Arc::new(Turns::new(()));
            let room = Arc::new(Semaphore::new(ROOM));
            for lane in LANES {
                let (inbox, queue) = mpsc::unbounded_channel();
                inboxes.insert((*node, lane), inbox);
                let work = (Arc::clone(service), Arc::clone(&turn), Arc::clone(&room));
                queues.push((*node, lane, queue, work));
            }
        }
        let hub = Arc::new(Self { flaw, inboxes, swapped: Mutex::default() });
        for (node, lane, queue, (service, turn, room)) in queues {
            let desk = Desk { hub: Arc::clone(&hub), node, lane, service, turn, room };
            drop(runtime::spawn(desk.serve(queue)));
        }
        let end = |(node, _): &(NodeId, _)| End {
            network: Arc::new(Port { hub: Arc::clone(&hub), node: *node }),
            address: node.0.to_string(),
            hello: hello(*node),
        };
        Net { ends: nodes.iter().map(end).collect(), nowhere: "99".to_owned() }
    }
}

/// One lane of a node.
struct Desk {
    hub: Arc<Hub>,
    node: NodeId,
    lane: Lane,
    service: Arc<dyn Service>,
    turn: Arc<Turns<()>>,
    room: Arc<Semaphore>,
}

impl Desk {
    async fn serve(self, mut queue: mpsc::UnboundedReceiver<Letter>) {
        let desk = Arc::new(self);
        while let Some(first) = queue.recv().await {
            tokio::time::sleep(LATENCY).await;
            let mut letters = vec![first];
            letters.extend(std::iter::from_fn(|| queue.try_recv().ok()));
            if desk.hub.flaw == HubFlaw::Overtakes {
                letters.reverse();
            }
            for letter in letters {
                Arc::clone(&desk).take(letter);
            }
        }
    }

    /// Begins in order, and goes on side by side.
    fn take(self: Arc<Self>, letter: Letter) {
        let flaw = self.hub.flaw;
        let Letter { from, channel, payload, patience, reply } = letter;
        let mut room = None;
        if self.lane == Lane::Request {
            room = Arc::clone(&self.room).try_acquire_owned().ok();
            if room.is_none() {
                self.hub.answer(reply, Err(TransportError::Busy { to: self.node }));
                return;
            }
        }
        let channel = if flaw == HubFlaw::OtherChannel { 1 } else { channel };
        let from = if flaw == HubFlaw::OtherCaller { NodeId(1) } else { from };
        let handling = self.service.handle(from, channel, payload);
        let patience = patience.filter(|_| self.lane == Lane::Request && flaw != HubFlaw::WorksOn);
        drop(runtime::spawn(async move {
            let _room = room;
            let _turn = if flaw == HubFlaw::OneLane { Some(self.turn.lock().await) } else { None };
            let handled = match patience {
                Some(patience) => match tokio::time::timeout(patience, handling).await {
                    Ok(handled) => handled,
                    Err(_) => return,
                },
                None => handling.await,
            };
            let outcome = match handled {
                Ok(answer) => Ok(answer),
                Err(refusal) if flaw == HubFlaw::RefusalIsReply => Ok(refusal),
                Err(refusal) => {
                    let reason = String::from_utf8_lossy(&refusal).into_owned();
                    Err(TransportError::Rejected { to: self.node, reason })
                }
            };
            self.hub.answer(reply, outcome);
        }));
    }
}

impl Hub {
    fn answer(&self, reply: Option<Reply>, outcome: Outcome) {
        let Some(reply) = reply else { return };
        if self.flaw != HubFlaw::SwapsReplies {
            // A caller that gave up does not listen.
            let _ = reply.send(outcome);
            return;
        }
        let mut waiting = self.swapped.lock();
        match waiting.take() {
            None => *waiting = Some((reply, outcome)),
            Some((other, its)) => {
                let _ = other.send(outcome);
                let _ = reply.send(its);
            }
        }
    }

    fn post(&self, to: NodeId, lane: Lane, letter: Letter) -> Result<(), TransportError> {
        let to_known = match self.flaw {
            HubFlaw::GuessesNodes if !self.inboxes.contains_key(&(to, lane)) => NodeId(2),
            _ => to,
        };
        let inbox = self.inboxes.get(&(to_known, lane));
        let unreachable = || TransportError::Unreachable { to, reason: "nobody".to_owned() };
        inbox.ok_or_else(unreachable)?.send(letter).map_err(|_| unreachable())
    }
}

/// A node's end.
struct Port {
    hub: Arc<Hub>,
    node: NodeId,
}

impl Network for Port {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        channel: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Outcome> {
        let (hub, from) = (Arc::clone(&self.hub), self.node);
        let flaw = hub.flaw;
        let post = move || {
            let (reply, outcome) = oneshot::channel();
            let patience = Some(deadline);
            let letter = Letter { from, channel, payload, patience, reply: Some(reply) };
            hub.post(to, lane, letter).map(|()| outcome)
        };
        let posted = if flaw == HubFlaw::Lazy { Err(post) } else { Ok(post()) };
        Box::pin(async move {
            let outcome = match posted {
                Ok(posted) => posted?,
                Err(post) => post()?,
            };
            if flaw == HubFlaw::NoDeadline {
                return match outcome.await {
                    Ok(outcome) => outcome,
                    Err(_) => std::future::pending().await,
                };
            }
            let late = TransportError::Deadline { to };
            match tokio::time::timeout(deadline, outcome).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) | Err(_) => Err(late),
            }
        })
    }

    fn send(&self, to: NodeId, lane: Lane, channel: u8, payload: Bytes) {
        let channels = match self.hub.flaw {
            HubFlaw::SendsEverywhere => vec![1, 2, 4],
            HubFlaw::SendsNothing => Vec::new(),
            _ => vec![channel],
        };
        for channel in channels {
            let payload = payload.clone();
            let letter = Letter { from: self.node, channel, payload, patience: None, reply: None };
            // It may drop.
            let _ = self.hub.post(to, lane, letter);
        }
    }

    fn introduce(&self, address: &str, ours: Hello) -> BoxFuture<Result<Option<Hello>, String>> {
        let there = NodeId(address.parse().unwrap());
        let is_there = self.hub.inboxes.contains_key(&(there, Lane::Data));
        let there = match self.hub.flaw {
            HubFlaw::IntroducesSelf if is_there => Some(ours),
            HubFlaw::SeesGhosts => Some(hello(there)),
            _ => is_there.then(|| hello(there)),
        };
        Box::pin(std::future::ready(Ok(there)))
    }
}
