//! A shard's leader that was deposed and does not know it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::shard::ShardMachine;
use quorate_calvin::{
    CallError, Destination, Floors, GroupLog, GroupMachine as _, NodeServices, PeerMessage, Peers,
    Reply, ReplyGate, Request, Route, Router, SequencerRoute, ServiceConfig, ShardReplica, Slice,
    SliceBody,
};
use quorate_types::env::SystemClock;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, Epoch, KeyRange, NodeId, ShardEpoch, ShardId};
use tokio::time::Instant;

use super::log::MemLog;
use super::wires::node_of;
use super::world::{PATIENCE, run};
use crate::support::procedures::Service;
use crate::support::store::MemStore;

const SHARD: ShardId = ShardId(1);
const NODE: NodeId = node_of(SHARD);

/// A sequencer on the node itself: it has forgotten the epochs up to 5, which
/// the leader's successor has reported done.
struct Forgetful {
    /// What the first answers take; later ones take no time.
    delays: &'static [Duration],
    asked: Mutex<Vec<Instant>>,
}

impl Forgetful {
    /// Nobody asks as often who is not busy asking.
    const ASKED_MAX: usize = 1_000;
}

impl Peers for Forgetful {
    fn send(&self, _: Destination, _: PeerMessage) {}

    fn call(&self, _: NodeId, _: Request, _: Duration) -> BoxFuture<Result<Reply, CallError>> {
        let number = {
            let mut asked = self.asked.lock();
            asked.push(Instant::now());
            asked.len()
        };
        if number >= Self::ASKED_MAX {
            return Box::pin(std::future::pending());
        }
        let takes = self.delays.get(number - 1).copied().unwrap_or_default();
        let slice = Slice {
            epoch: Epoch(6),
            prev: Epoch(5),
            time_millis: 0,
            seed: 0,
            range: KeyRange::all(),
            floors: Floors::default(),
            body: SliceBody::Transactions(Vec::new().into()),
        };
        Box::pin(async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            Ok(Reply::Slices(vec![slice].into()))
        })
    }
}

impl Router for Forgetful {
    fn locate(&self, _: &[u8]) -> Option<Route> {
        None
    }

    fn overlapping(&self, _: &KeyRange) -> Vec<Route> {
        Vec::new()
    }

    fn sequencer(&self) -> SequencerRoute {
        SequencerRoute { leader: Some(NODE), voters: vec![NODE] }
    }

    fn learned(&self, _: Destination, _: Option<NodeId>) {}

    fn moved(&self, _: ShardId) {}
}

/// When a leader asks which gets another term after a moment, from that moment
/// on, and how much it proposes.
async fn asks(delays: &'static [Duration]) -> (Vec<Duration>, usize) {
    let sequencer = Arc::new(Forgetful { delays, asked: Mutex::default() });
    let services = Arc::new(NodeServices::new(
        NODE,
        Arc::<Forgetful>::clone(&sequencer),
        Arc::<Forgetful>::clone(&sequencer),
        Arc::new(ReplyGate::new()),
        SystemClock::shared(),
        ServiceConfig::default(),
    ));
    let store = MemStore::seeded(ShardMachine::seed(KeyRange::all(), ShardEpoch(1)));
    let on_fork = Arc::new(|_| {});
    let replica = ShardReplica::open(SHARD, Arc::new(Service), Arc::new(store), on_fork).unwrap();
    let applying = Arc::clone(&replica);
    let log = MemLog::start(
        NODE,
        Box::new(move |entries| drop(applying.apply(entries, Blob::new()).unwrap())),
    );
    let group: Arc<dyn GroupLog> = Arc::<MemLog>::clone(&log);
    services.add_shard(replica, group);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begun = Instant::now();
    log.begin_term();
    tokio::time::sleep(PATIENCE).await;
    let asked =
        sequencer.asked.lock().iter().map(|at| at.saturating_duration_since(begun)).collect();
    (asked, log.entries().len())
}

/// Two terms and their ticks.
fn asked_max() -> usize {
    let ticks = PATIENCE.as_millis() / ServiceConfig::default().tick.as_millis();
    2 + 2 * usize::try_from(ticks).unwrap()
}

/// Simulator seed 4146039957114: it asked again with every answer, and kept a
/// processor busy until it learned of its successor.
#[test]
fn an_answer_that_does_not_continue_the_chain_is_asked_for_by_the_tick_only() {
    let (asked, proposed) = run(1, asks(&[]));
    assert!((3..=asked_max()).contains(&asked.len()), "asked at {asked:?}");
    assert_eq!(proposed, 0, "nothing may be proposed over the gap");
}

#[test]
fn an_answer_to_an_earlier_term_ends_no_pull_of_this_one() {
    const LATE: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(700)];
    let (asked, proposed) = run(1, asks(&LATE));
    let early = asked.iter().filter(|at| **at < LATE[1]).count();
    assert_eq!(early, 2, "one pull of each term until they are answered: asked at {asked:?}");
    assert!(asked.len() > 2, "the answer ended the pull: asked at {asked:?}");
    assert_eq!(proposed, 0);
}
