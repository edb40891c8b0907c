use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, NodeId, Seq};
use tokio::time::{Instant, sleep, timeout};

use super::{ANSWERED_MAX, Haste, Heartbeats, TOGETHER_MAX, Together, Way, answer_all};
use crate::config::HostConfig;
use crate::consensus::tests::support::simulate;
use crate::consensus::wire::{Refusal, Reply};
use crate::nodes::{NODE_CALL, NodeCall};
use crate::transport::{Lane, Transport, TransportError};

const PEER: NodeId = NodeId(2);
const DEADLINE: Duration = Duration::from_millis(200);
const TRIP: Duration = Duration::from_millis(3);

/// Another node: repeats each heartbeat, and fails if it is told to.
#[derive(Default)]
struct Peer {
    calls: Mutex<Vec<(NodeId, Bytes)>>,
    fails: Option<TransportError>,
    /// Instead of the heartbeats, the last one first.
    answers: Mutex<Vec<Reply>>,
}

impl Peer {
    /// How many travelled in each message.
    fn sizes(&self) -> Vec<usize> {
        let calls = self.calls.lock();
        calls.iter().map(|(_, call)| together(call).map_or(1, |all| all.messages.len())).collect()
    }
}

fn together(call: &Bytes) -> Option<Together> {
    if call.first() != Some(&NODE_CALL) {
        return None;
    }
    match NodeCall::from_bytes(call).unwrap() {
        NodeCall::Heartbeats(together) => Some(together),
        other => panic!("{other:?}"),
    }
}

impl Transport for Peer {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        payload: Bytes,
        _deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        assert_eq!(lane, Lane::Heartbeat);
        self.calls.lock().push((to, payload.clone()));
        let (fails, told) = (self.fails.clone(), self.answers.lock().pop());
        Box::pin(async move {
            sleep(TRIP).await;
            if let Some(error) = fails {
                return Err(error);
            }
            if let Some(reply) = told {
                return Ok(reply.to_bytes());
            }
            match together(&payload) {
                Some(together) => Ok(Reply::Heartbeats(together.messages).to_bytes()),
                None => Ok(payload),
            }
        })
    }
}

/// Heartbeats that wait for 20 ms.
fn heartbeats(peer: Peer) -> (Arc<Heartbeats>, Arc<Peer>) {
    let peer = Arc::new(peer);
    let transport: Arc<dyn Transport> = Arc::clone(&peer) as _;
    let heartbeats = Heartbeats::new(&HostConfig::default(), transport, Arc::default());
    (Arc::new(heartbeats), peer)
}

fn message(number: usize) -> Bytes {
    Bytes::from(format!("a heartbeat of group {number}"))
}

#[test]
fn heartbeats_to_a_node_travel_together_and_each_has_its_own_answer() {
    simulate(async {
        let (heartbeats, peer) = heartbeats(Peer::default());
        let linger = heartbeats.linger;
        let began = Instant::now();
        let calls = (0..10).map(|number| {
            let heartbeats = Arc::clone(&heartbeats);
            async move {
                sleep(linger / 20 * u32::try_from(number).unwrap()).await;
                let to = NodeId(2 + number as u64 % 2);
                heartbeats.call(to, message(number), DEADLINE, &Way::default()).await
            }
        });
        let answers = join_all(calls).await;
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, Ok(message(number)));
        }
        assert_eq!(peer.sizes(), [5, 5], "one message to each of two nodes");
        assert!(began.elapsed() <= linger * 2 + TRIP, "{:?}", began.elapsed());
        assert!(heartbeats.lots.lock().is_empty(), "nothing is left of a node");
    });
}

#[test]
fn a_heartbeat_that_stays_alone_travels_as_it_is() {
    simulate(async {
        let (heartbeats, peer) = heartbeats(Peer::default());
        let answer = heartbeats.call(PEER, message(1), DEADLINE, &Way::default()).await;
        assert_eq!(answer, Ok(message(1)));
        assert_eq!(peer.calls.lock().as_slice(), &[(PEER, message(1))]);
    });
}

#[test]
fn a_heartbeat_that_somebody_waits_for_goes_at_once_and_alone() {
    simulate(async {
        let (heartbeats, peer) = heartbeats(Peer::default());
        let haste: Arc<Haste> = Arc::default();
        let began = Instant::now();
        let others =
            (1..3).map(|number| heartbeats.call(PEER, message(number), DEADLINE, &Way::default()));
        let others = join_all(others.collect::<Vec<_>>());
        let asking = heartbeats.ask(&haste);
        assert_eq!(
            heartbeats.call(PEER, message(4), DEADLINE, &Way::of(&haste)).await,
            Ok(message(4))
        );
        assert_eq!(began.elapsed(), TRIP, "it had not to wait");
        assert_eq!(others.await, [Ok(message(1)), Ok(message(2))]);
        assert_eq!(peer.sizes(), [1, 2]);

        drop(asking);
        let began = Instant::now();
        assert_eq!(
            heartbeats.call(PEER, message(5), DEADLINE, &Way::of(&haste)).await,
            Ok(message(5))
        );
        assert!(began.elapsed() > TRIP, "now it waits again");
    });
}

#[test]
fn who_asks_does_not_wait_for_a_heartbeat_that_waits() {
    simulate(async {
        let (heartbeats, peer) = heartbeats(Peer::default());
        let haste: Arc<Haste> = Arc::default();
        let began = Instant::now();
        let waits = heartbeats.call(PEER, message(1), DEADLINE, &Way::of(&haste));
        let other = heartbeats.call(PEER, message(2), DEADLINE, &Way::default());
        // Who asks for another group has nothing to do with either.
        let _nothing = heartbeats.ask(&Arc::default());
        assert_eq!(peer.sizes(), [0; 0]);
        let _asking = heartbeats.ask(&haste);
        assert_eq!(waits.await, Ok(message(1)));
        assert_eq!(began.elapsed(), TRIP);
        assert_eq!(other.await, Ok(message(2)));
        assert!(began.elapsed() > TRIP, "it goes on waiting");
    });
}

#[test]
fn what_waits_to_a_node_can_be_sent_before_something_else() {
    simulate(async {
        let (heartbeats, peer) = heartbeats(Peer::default());
        let calls = (0..4_u64).map(|number| {
            let message = message(usize::try_from(number).unwrap());
            heartbeats.call(NodeId(2 + number % 2), message, DEADLINE, &Way::default())
        });
        let calls: Vec<_> = calls.collect();
        heartbeats.hurry(PEER);
        assert_eq!(peer.sizes(), [2], "those to the other node wait on");
        assert!(join_all(calls).await.iter().all(Result::is_ok));
        assert_eq!(peer.sizes(), [2, 2]);
    });
}

#[test]
fn a_group_whose_answer_was_late_travels_alone_until_it_is_not() {
    simulate(async {
        let late = Reply::Heartbeats(Seq(vec![Blob(message(0)), Blob(Bytes::new())]));
        let (heartbeats, peer) =
            heartbeats(Peer { answers: Mutex::new(vec![late]), ..Peer::default() });
        let ways = [Way::default(), Way::default()];
        let round = || {
            let calls = ways.iter().enumerate();
            let calls =
                calls.map(|(number, way)| heartbeats.call(PEER, message(number), DEADLINE, way));
            join_all(calls.collect::<Vec<_>>())
        };
        let answers = round().await;
        assert_eq!(answers, [Ok(message(0)), Err(TransportError::Deadline { to: PEER })]);
        assert_eq!(round().await, [Ok(message(0)), Ok(message(1))]);
        assert_eq!(round().await, [Ok(message(0)), Ok(message(1))]);
        assert_eq!(peer.sizes(), [2, 1, 1, 2]);
    });
}

#[test]
fn a_node_that_is_slow_for_all_groups_is_given_all_of_the_time() {
    simulate(async {
        let late = Reply::Heartbeats(Seq(vec![Blob(Bytes::new()); 3]));
        let (heartbeats, peer) =
            heartbeats(Peer { answers: Mutex::new(vec![late]), ..Peer::default() });
        let ways: [Way; 3] = Default::default();
        let round = || {
            let calls = ways.iter().map(|way| heartbeats.call(PEER, message(1), DEADLINE, way));
            join_all(calls.collect::<Vec<_>>())
        };
        assert!(round().await.iter().all(Result::is_err));
        assert!(round().await.iter().all(Result::is_ok), "none goes unanswered twice");
        assert_eq!(peer.sizes(), [3, 1, 1, 1]);
    });
}

#[test]
fn what_happens_to_a_message_all_of_it_hear() {
    simulate(async {
        let busy = TransportError::Busy { to: PEER };
        let wrong = Reply::Heartbeats(Seq(vec![Blob(message(1))]));
        let peers = [
            (Peer { fails: Some(busy.clone()), ..Peer::default() }, "busy"),
            (Peer { answers: Mutex::new(vec![Reply::Woken]), ..Peer::default() }, "another reply"),
            (Peer { answers: Mutex::new(vec![wrong]), ..Peer::default() }, "too few answers"),
        ];
        for (peer, what) in peers {
            let (heartbeats, _peer) = heartbeats(peer);
            let calls = (0..3)
                .map(|number| heartbeats.call(PEER, message(number), DEADLINE, &Way::default()));
            for answer in join_all(calls.collect::<Vec<_>>()).await {
                match answer {
                    Err(TransportError::Busy { .. }) => assert_eq!(what, "busy"),
                    Err(TransportError::Rejected { .. }) => assert_ne!(what, "busy"),
                    other => panic!("{what}: {other:?}"),
                }
            }
        }
    });
}

#[test]
fn who_gave_up_is_not_sent_and_too_many_do_not_wait() {
    simulate(async {
        let (heartbeats, peer) = heartbeats(Peer::default());
        let calls = (0..TOGETHER_MAX)
            .map(|number| heartbeats.call(PEER, message(number), DEADLINE, &Way::default()));
        let calls: Vec<_> = calls.collect();
        assert_eq!(peer.sizes(), [TOGETHER_MAX], "they are as many as fit");
        drop(calls);

        let kept = heartbeats.call(PEER, message(1), DEADLINE, &Way::default());
        drop(heartbeats.call(PEER, message(2), DEADLINE, &Way::default()));
        assert_eq!(kept.await, Ok(message(1)));
        assert_eq!(peer.sizes(), [TOGETHER_MAX, 1]);
    });
}

#[test]
fn an_answer_that_does_not_come_holds_up_no_other() {
    simulate(async {
        let messages = Seq((0..4).map(|number| Blob(message(number))).collect());
        let together = Together { within_millis: 90, messages };
        let begun = Mutex::new(Vec::new());
        let began = Instant::now();
        let reply = answer_all(
            together,
            DEADLINE,
            |_| (),
            |heartbeat, _| {
                begun.lock().push(heartbeat.clone());
                async move {
                    match heartbeat {
                        stuck if stuck == message(1) => pending().await,
                        slow if slow == message(2) => sleep(Duration::from_millis(80)).await,
                        _ => {}
                    }
                    Reply::Woken
                }
            },
        );
        let reply = timeout(DEADLINE, reply).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_millis(90));
        let (woken, none) = (Blob(Reply::Woken.to_bytes()), Blob(Bytes::new()));
        let answers = vec![woken.clone(), none, woken.clone(), woken];
        assert_eq!(reply, Reply::Heartbeats(Seq(answers)));
        let in_order: Vec<_> = (0..4).map(message).collect();
        assert_eq!(*begun.lock(), in_order);
    });
}

#[test]
fn more_than_may_travel_together_are_refused() {
    simulate(async {
        let messages = Seq(vec![Blob(message(1)); TOGETHER_MAX + 1]);
        let together = Together { within_millis: 90, messages };
        let reply = answer_all(together, DEADLINE, |_| (), async |_, _| Reply::Woken).await;
        assert_eq!(reply, Reply::Refused(Refusal::Malformed));
    });
}

#[test]
fn whoever_sends_them_does_not_say_how_long_they_may_take() {
    simulate(async {
        let messages = Seq(vec![Blob(message(1)); 200]);
        let together = Together { within_millis: u32::MAX, messages };
        let (began, begun) = (Instant::now(), Mutex::new(0));
        let reply = answer_all(
            together,
            DEADLINE,
            |_| (),
            async |_, _| {
                *begun.lock() += 1;
                pending().await
            },
        );
        assert_eq!(reply.await, Reply::Heartbeats(Seq(vec![Blob(Bytes::new()); 200])));
        assert_eq!(began.elapsed(), DEADLINE);
        assert_eq!(*begun.lock(), ANSWERED_MAX, "nor how many are worked on at once");
    });
}
