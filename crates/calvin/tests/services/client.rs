//! The client core against a cluster that says what the test wants.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::sequencer::Watermarks;
use quorate_calvin::shard::Verdict;
use quorate_calvin::{
    CallError, Client, ClientConfig, Destination, ExecuteError, PeerMessage, Peers, Reply,
    ReplyGate, Request, Route, Router, SequencerRoute,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, Epoch, KeyRange, NodeId, ShardEpoch, ShardId, TxnId};
use tokio::time::Instant;

use super::gate::{read, write};
use super::world::run;
use crate::support::blob;

const PARENT: ShardId = ShardId(1);
const OTHER: ShardId = ShardId(2);
const CHILD: ShardId = ShardId(3);
const TXN: TxnId = TxnId { epoch: Epoch(2), position: 0 };

/// What a request is answered with, and after how long; `None` is silence.
type Script = fn(&Request) -> Option<(Duration, Reply)>;

struct Scripted {
    script: Script,
    /// Keeps nobody waiting longer than it was told; a port that does not is
    /// no excuse for the client.
    keeps_deadlines: bool,
    /// The keys from "a" on have moved from the parent to the child, and the
    /// router has been told.
    has_moved: Mutex<bool>,
}

impl Peers for Scripted {
    fn send(&self, _: Destination, _: PeerMessage) {}

    fn call(
        &self,
        _: NodeId,
        request: Request,
        deadline: Duration,
    ) -> BoxFuture<Result<Reply, CallError>> {
        let answer = (self.script)(&request);
        let keeps_deadlines = self.keeps_deadlines;
        Box::pin(async move {
            let answering = async {
                match answer {
                    Some((after, reply)) => {
                        tokio::time::sleep(after).await;
                        reply
                    }
                    None => std::future::pending().await,
                }
            };
            if !keeps_deadlines {
                return Ok(answering.await);
            }
            tokio::time::timeout(deadline, answering).await.map_err(|_| CallError::NoReply)
        })
    }
}

impl Router for Scripted {
    fn locate(&self, key: &[u8]) -> Option<Route> {
        let shard = match (*self.has_moved.lock(), key < &b"b"[..]) {
            (false, true) => PARENT,
            (true, true) => CHILD,
            (_, false) => OTHER,
        };
        let node = NodeId(shard.0);
        Some(Route {
            shard,
            epoch: ShardEpoch(1),
            range: KeyRange::all(),
            leader: Some(node),
            voters: vec![node],
        })
    }

    fn overlapping(&self, _: &KeyRange) -> Vec<Route> {
        Vec::new()
    }

    fn sequencer(&self) -> SequencerRoute {
        SequencerRoute { leader: Some(NodeId(9)), voters: vec![NodeId(9)] }
    }

    fn learned(&self, _: Destination, _: Option<NodeId>) {}

    fn moved(&self, shard: ShardId) {
        *self.has_moved.lock() |= shard == PARENT;
    }
}

fn client(script: Script, keeps_deadlines: bool) -> Arc<Client> {
    let cluster = Arc::new(Scripted { script, keeps_deadlines, has_moved: Mutex::new(false) });
    let router: Arc<dyn Router> = Arc::<Scripted>::clone(&cluster);
    let gate = ReplyGate::new();
    gate.learn(Watermarks { logged: Epoch(1), ..Watermarks::default() });
    Client::new(cluster, router, Arc::new(gate), ClientConfig::default())
}

/// Places everything, as late as an attempt allows, and answers nothing else.
fn places_late(request: &Request) -> Option<(Duration, Reply)> {
    let ordered = Reply::Ordered { txn: TXN, home: PARENT };
    matches!(request, Request::Submit(_)).then_some((Duration::from_millis(2_900), ordered))
}

#[test]
fn a_call_ends_at_its_deadline_whatever_its_steps_wait_for() {
    for keeps_deadlines in [true, false] {
        run(1, async move {
            let session = client(places_late, keeps_deadlines).session();
            let deadline = ClientConfig::default().deadline;
            for op in [write(&["a", "b"], "1"), write(&["a"], "1"), read(&["a", "b"])] {
                let began = Instant::now();
                let outcome = session.execute(op.call()).await;
                assert!(began.elapsed() <= deadline, "{op:?} took {:?}", began.elapsed());
                match outcome {
                    Err(ExecuteError::Unknown(_)) => assert!(!op.footprint().is_read_only()),
                    Err(ExecuteError::Refused(_)) => assert!(op.footprint().is_read_only()),
                    other => panic!("nobody answered, but {other:?}"),
                }
            }
        });
    }
}

/// Its request would count as older than everything that is remembered.
#[test]
fn nothing_is_asked_before_the_watermark_is_known() {
    run(1, async {
        let cluster = Arc::new(Scripted {
            script: |_| Some((Duration::ZERO, Reply::Verdict(Verdict::Done(blob("ok"))))),
            keeps_deadlines: true,
            has_moved: Mutex::new(false),
        });
        let (router, gate) = (Arc::<Scripted>::clone(&cluster), Arc::new(ReplyGate::new()));
        let client = Client::new(cluster, router, Arc::clone(&gate), ClientConfig::default());
        let session = client.session();
        let began = Instant::now();
        let early = session.execute(write(&["a"], "1").call()).await;
        assert!(matches!(early, Err(ExecuteError::Refused(_))), "{early:?}");
        assert_eq!(began.elapsed(), ClientConfig::default().deadline);
        gate.learn(Watermarks { logged: Epoch(1), ..Watermarks::default() });
        let later = session.execute(write(&["a"], "1").call()).await;
        assert_eq!(later, Ok::<Blob, _>(blob("ok")));
    });
}

#[test]
fn listing_keys_ends_at_its_deadline_too() {
    run(1, async {
        let client = client(|_| None, false);
        let began = Instant::now();
        let listed = client.keys(blob("a"), 10).await;
        assert!(matches!(listed, Err(ExecuteError::Refused(_))), "{listed:?}");
        // The last pause is the one that passes it.
        let config = ClientConfig::default();
        assert!(began.elapsed() <= config.deadline + config.pause, "{:?}", began.elapsed());
    });
}

/// The home's memory of the call has left with the key, to a shard that the
/// router does not know of before it is told that something moved.
#[test]
fn a_home_that_keeps_nothing_of_a_call_may_have_been_split() {
    let script: Script = |request| {
        let reply = match request {
            Request::Submit(_) => Reply::Ordered { txn: TXN, home: PARENT },
            Request::Await { shard: CHILD, .. } => Reply::Verdict(Verdict::Done(blob("ok"))),
            Request::Await { .. } => Reply::Gone,
            _ => Reply::Unknown,
        };
        Some((Duration::from_millis(1), reply))
    };
    run(1, async move {
        let session = client(script, true).session();
        let outcome = session.execute(write(&["a", "b"], "1").call()).await;
        assert_eq!(outcome, Ok::<Blob, _>(blob("ok")));
    });
}

#[test]
fn the_reason_of_a_refusal_reaches_the_caller() {
    let script: Script = |_| Some((Duration::ZERO, Reply::Busy(blob("the queue is long"))));
    run(1, async move {
        let session = client(script, true).session();
        for op in [write(&["a", "b"], "1"), write(&["a"], "1")] {
            let outcome = session.execute(op.call()).await;
            let reason = "the queue is long; try again".to_owned();
            assert_eq!(outcome, Err(ExecuteError::Refused(reason)));
        }
    });
}
