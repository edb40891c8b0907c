//! The simulated network: what arrives, what is lost, and what is known of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_testkit::sim::{CallError, LinkConfig, Sim, SimNetwork, SimNode, run};
use quorate_types::NodeId;
use tokio::time::{Instant, sleep};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const DEADLINE: Duration = Duration::from_millis(100);

/// Two nodes; B answers and keeps what it heard.
struct Pair {
    sim: Sim,
    network: SimNetwork,
    a: Arc<SimNode>,
    b: Arc<SimNode>,
    heard: Arc<Mutex<Vec<Bytes>>>,
}

impl Pair {
    async fn call(&self, payload: &'static str) -> Result<Bytes, CallError> {
        self.network.call(A, B, Bytes::from_static(payload.as_bytes()), DEADLINE).await
    }

    fn send(&self, payload: impl ToString) {
        self.network.send(A, B, payload.to_string().into());
    }

    fn heard(&self) -> Vec<Bytes> {
        self.heard.lock().clone()
    }
}

/// Runs a test with two nodes. B's handler answers at once, but refuses
/// `refuse`, dies over `die`, and thinks for 50 ms about `think`.
fn with_pair<F: Future<Output = ()>>(link: LinkConfig, test: impl FnOnce(Pair) -> F) {
    run(11, |sim| {
        let network = SimNetwork::new(&sim, link);
        let (a, b) = (SimNode::new(A, sim.seed()), SimNode::new(B, sim.seed()));
        let heard: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        network.register(&a, Arc::new(|_, payload| Box::pin(async move { Ok(payload) })));
        let (hears, mortal) = (Arc::clone(&heard), Arc::clone(&b));
        network.register(
            &b,
            Arc::new(move |_, payload| {
                hears.lock().push(payload.clone());
                let mortal = Arc::clone(&mortal);
                Box::pin(async move {
                    match &payload[..] {
                        b"refuse" => Err("no".to_owned()),
                        b"die" => {
                            mortal.crash();
                            std::future::pending().await
                        }
                        b"think" => {
                            sleep(Duration::from_millis(50)).await;
                            Ok(payload)
                        }
                        _ => Ok(payload),
                    }
                })
            }),
        );
        test(Pair { sim, network, a, b, heard })
    })
    .unwrap();
}

fn pair<F: Future<Output = ()>>(test: impl FnOnce(Pair) -> F) {
    with_pair(LinkConfig::default(), test);
}

#[test]
fn a_call_is_answered_after_both_ways() {
    pair(|pair| async move {
        assert_eq!(pair.call("hello").await.unwrap(), "hello");
        let elapsed = pair.sim.elapsed();
        assert!(elapsed >= Duration::from_millis(2) && elapsed <= Duration::from_millis(12));
    });
}

#[test]
fn a_refusal_reaches_the_caller() {
    pair(|pair| async move {
        let refused = CallError::Rejected { to: B, reason: "no".to_owned() };
        assert_eq!(pair.call("refuse").await, Err(refused));
    });
}

#[test]
fn a_call_to_a_dead_or_missing_node_is_not_delivered() {
    pair(|pair| async move {
        pair.b.crash();
        assert!(matches!(pair.call("x").await, Err(CallError::NotDelivered { .. })));
        let missing = pair.network.call(A, NodeId(9), Bytes::new(), DEADLINE).await;
        assert!(matches!(missing, Err(CallError::NotDelivered { .. })));
        assert!(pair.heard().is_empty());
        assert!(pair.sim.elapsed() < DEADLINE);
    });
}

#[test]
fn a_node_that_dies_over_a_request_leaves_it_unknown() {
    pair(|pair| async move {
        assert!(matches!(pair.call("die").await, Err(CallError::Unknown { .. })));
        assert_eq!(pair.heard().len(), 1);
        assert!(pair.sim.elapsed() < DEADLINE);
    });
}

#[test]
fn a_lost_request_and_a_lost_answer_look_the_same() {
    pair(|pair| async move {
        pair.network.cut_one_way(A, B);
        let lost_request = pair.call("x").await;
        assert_eq!(pair.heard().len(), 0);
        assert_eq!(pair.sim.elapsed(), DEADLINE);
        pair.network.heal();
        pair.network.cut_one_way(B, A);
        let lost_answer = pair.call("x").await;
        assert_eq!(pair.heard().len(), 1);
        assert_eq!(lost_request, lost_answer);
        assert!(matches!(lost_request, Err(CallError::Unknown { .. })));
    });
}

#[test]
fn partitions_cut_both_ways_and_heal() {
    pair(|pair| async move {
        pair.network.partition(&[A], &[B, NodeId(3)]);
        assert!(pair.call("x").await.is_err());
        pair.network.heal();
        pair.network.isolate(B);
        assert!(pair.call("x").await.is_err());
        assert!(pair.heard().is_empty());
        pair.network.heal();
        assert!(pair.call("x").await.is_ok());
        assert_eq!(pair.network.counters().lost, 2);
    });
}

#[test]
fn a_partition_loses_what_is_under_way() {
    pair(|pair| async move {
        let call = pair.call("x");
        let network = pair.network.clone();
        let cut = async move { network.partition(&[A], &[B]) };
        let (answer, ()) = tokio::join!(biased; call, cut);
        assert!(matches!(answer, Err(CallError::Unknown { .. })));
        assert!(pair.heard().is_empty());
    });
}

#[test]
fn held_messages_arrive_in_order_when_released() {
    pair(|pair| async move {
        pair.network.hold(A, B);
        (0..20).for_each(|number| pair.send(number));
        sleep(Duration::from_secs(1)).await;
        assert!(pair.heard().is_empty());
        pair.network.release(A, B);
        sleep(Duration::from_millis(1)).await;
        let expected: Vec<Bytes> = (0..20).map(|number| number.to_string().into()).collect();
        assert_eq!(pair.heard(), expected);
    });
}

#[test]
fn an_ordered_link_keeps_the_order_and_another_does_not() {
    let in_order = |is_ordered| {
        let link = LinkConfig { is_ordered, ..LinkConfig::default() };
        let result = Arc::new(Mutex::new(false));
        let seen = Arc::clone(&result);
        with_pair(link, |pair| async move {
            (10..60).for_each(|number| pair.send(number));
            sleep(Duration::from_secs(1)).await;
            assert_eq!(pair.heard().len(), 50);
            *seen.lock() = pair.heard().is_sorted();
        });
        *result.lock()
    };
    assert!(in_order(true));
    assert!(!in_order(false));
}

#[test]
fn a_message_survives_its_sender() {
    pair(|pair| async move {
        let (network, a) = (pair.network.clone(), Arc::clone(&pair.a));
        let last_words = pair.a.spawn(async move {
            network.send(A, B, Bytes::from_static(b"last words"));
            a.crash();
            // Dead already: this one is not sent.
            network.send(A, B, Bytes::from_static(b"too late"));
        });
        drop(last_words.await);
        sleep(DEADLINE).await;
        assert_eq!(pair.heard(), ["last words"]);
    });
}

#[test]
fn a_dead_sender_is_told_that_nothing_was_delivered() {
    pair(|pair| async move {
        pair.a.crash();
        assert!(matches!(pair.call("x").await, Err(CallError::NotDelivered { .. })));
    });
}

#[test]
fn a_caller_that_gives_up_changes_nothing_for_the_handler() {
    pair(|pair| async move {
        drop(pair.network.call(A, B, Bytes::from_static(b"x"), DEADLINE));
        sleep(DEADLINE).await;
        assert_eq!(pair.heard(), ["x"]);
    });
}

#[test]
fn an_answer_after_the_deadline_is_unknown() {
    pair(|pair| async move {
        let begun = Instant::now();
        let deadline = Duration::from_millis(20);
        let late = pair.network.call(A, B, Bytes::from_static(b"think"), deadline).await;
        assert!(matches!(late, Err(CallError::Unknown { .. })));
        assert_eq!(begun.elapsed(), deadline);
    });
}

#[test]
fn loss_and_duplication_happen_about_as_often_as_asked() {
    let link =
        LinkConfig { loss_per_mille: 300, duplicate_per_mille: 200, ..LinkConfig::default() };
    with_pair(link, |pair| async move {
        (0..1000).for_each(|number| pair.send(number));
        sleep(Duration::from_secs(1)).await;
        let counters = pair.network.counters();
        assert!((150..250).contains(&counters.duplicated), "{counters:?}");
        assert_eq!(counters.sent, 1000 + counters.duplicated);
        assert!((280..420).contains(&counters.lost), "{counters:?}");
        assert_eq!(pair.heard().len() as u64, counters.arrived);
    });
}

#[test]
fn a_storm_is_refused() {
    pair(|pair| async move {
        pair.network.set_in_flight_max(1);
        pair.send("x");
        assert!(matches!(pair.call("y").await, Err(CallError::NotDelivered { .. })));
        sleep(DEADLINE).await;
        assert!(pair.call("z").await.is_err(), "an answer needs room too");
        pair.network.set_in_flight_max(2);
        assert!(pair.call("z").await.is_ok());
    });
}

#[test]
fn the_next_life_answers_in_place_of_the_last() {
    pair(|pair| async move {
        let next = pair.b.restarted();
        assert!(pair.call("x").await.is_err());
        pair.network.register(&next, Arc::new(|_, _| Box::pin(async { Ok("reborn".into()) })));
        assert_eq!(pair.call("x").await.unwrap(), "reborn");
    });
}
