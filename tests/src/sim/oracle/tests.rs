use quorate::types::Blob;
use quorate::types::codec::encode;
use quorate::{Answer, Transaction};
use tokio::time::Instant;

use super::*;
use crate::sim::finding::Findings;
use crate::sim::model::KeyValueModel;

const LOW: ShardId = ShardId(1);
const UP: ShardId = ShardId(2);
const APART: ShardId = ShardId(3);

/// An oracle, and where it reports.
struct Scene {
    oracle: Oracle,
    report: Report,
}

fn request(sequence: u64) -> RequestKey {
    (ClientId(1), sequence)
}

impl Scene {
    fn new() -> Self {
        let oracle = Oracle::new(Some(Box::<KeyValueModel>::default()));
        Self { oracle, report: Report::new(Instant::now(), Findings::default()) }
    }

    fn decided(&mut self, shard: ShardId, sequence: u64) {
        let answer = Answer { committed: true, ..Answer::default() };
        let verdict = Verdict::Done(Blob(encode(&answer)));
        self.oracle.decided(shard, request(sequence), &verdict);
        self.oracle.advance(&mut self.report);
    }

    fn direct(&mut self, shard: ShardId, cursor: u64, sequence: u64) {
        let call = Transaction::new().put("a", "1").call();
        self.oracle.entered(shard, Epoch(cursor), request(sequence), &call);
        self.decided(shard, sequence);
    }

    /// An epoch of one transaction on both shards.
    fn ordered(&mut self, epoch: u64, sequence: u64) {
        let call = Transaction::new().put("a", "1").put("z", "1").call();
        let txns = vec![Ordered { request: request(sequence), home: LOW, call }];
        self.oracle.ordered(Epoch(epoch), BTreeSet::from([LOW, UP]), txns);
    }

    fn order(&self) -> Vec<u64> {
        self.oracle.order().into_iter().map(|((_, sequence), _)| sequence).collect()
    }
}

/// What was asked for and answered meanwhile somewhere else comes before.
#[test]
fn an_epoch_stands_where_the_last_of_its_shards_has_logged_it() {
    let mut scene = Scene::new();
    scene.ordered(5, 1);
    scene.oracle.accepted(LOW, Epoch(5));
    scene.decided(LOW, 1);
    scene.direct(APART, 0, 2);
    scene.direct(LOW, 5, 3);
    scene.direct(UP, 0, 4);
    scene.oracle.accepted(UP, Epoch(5));
    scene.direct(APART, 0, 5);
    assert_eq!(scene.order(), [2, 4, 1, 3, 5]);
}

/// An answer that waits for the logs, and not for what happens then, is
/// answered before what is asked for next.
#[test]
fn what_is_executed_late_stands_where_it_was_logged() {
    let mut scene = Scene::new();
    scene.ordered(5, 1);
    scene.oracle.accepted(LOW, Epoch(5));
    scene.oracle.accepted(UP, Epoch(5));
    scene.direct(LOW, 5, 2);
    scene.direct(APART, 0, 3);
    assert_eq!(scene.order(), [3], "the epoch waits, and what comes after it there");
    scene.decided(LOW, 1);
    assert_eq!(scene.order(), [1, 2, 3]);
}
