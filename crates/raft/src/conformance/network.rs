//! What every [`Network`] and every [`Transport`] must do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test suite: it panics where the network under test is wrong"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use parking_lot::Mutex;
use quorate_types::NodeId;
use quorate_types::hello::Hello;
use quorate_types::runtime::{self, BoxFuture};

use crate::network::Network;
use crate::tcp::Service;
use crate::transport::{Lane, Transport, TransportError};

/// What should come, comes within this: on real time a healthy network needs
/// far less, on virtual time nobody waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// The deadline of calls: what misses it misses [`PATIENCE`] too.
const DEADLINE: Duration = Duration::from_secs(30);
/// The deadline of what is meant to miss it.
const SHORT: Duration = Duration::from_millis(300);
/// How often to look, and to send again what may be dropped.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Calls side by side, on each lane.
const CALLS: usize = 100;
/// Requests that hang at a time: more than any peer should take in.
const HANGING: usize = 2_000;
/// A chunk of a snapshot, roughly.
const LARGE_BYTES: usize = 600 << 10;

const CHANNELS: [u8; 3] = [1, 2, 4];
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
// Of them, who calls and who is called.
const CALLER: usize = 0;
const OTHER: usize = 1;
const CALLED: usize = 2;
const LANES: [Lane; 4] = [Lane::Heartbeat, Lane::Data, Lane::Snapshot, Lane::Request];
/// Those whose requests never have to wait for their turn.
const PROMPT: [Lane; 3] = [Lane::Heartbeat, Lane::Data, Lane::Snapshot];

/// A node's end of a network.
pub struct End {
    /// The network, as the node uses it.
    pub network: Arc<dyn Network>,
    /// Where the node listens.
    pub address: String,
    /// How it introduces itself.
    pub hello: Hello,
}

/// A network under test.
pub struct Net {
    /// The ends of the nodes that were asked for, in that order.
    pub ends: Vec<End>,
    /// An address at which nobody is.
    pub nowhere: String,
}

/// Runs the suite. `fresh` makes a new network between the nodes that it is
/// given, each of which answers with its service; the network is healthy, and
/// has no other nodes.
///
/// ```text
/// network_suite(|nodes| async move { my_network(nodes).await }).await;
/// ```
///
/// # Panics
/// When the network does not conform; the message says which sentence of the
/// port it breaks.
pub async fn network_suite<F>(mut fresh: impl FnMut(Vec<(NodeId, Arc<dyn Service>)>) -> F)
where
    F: Future<Output = Net>,
{
    let services = services();
    let net = fresh(listed(&services)).await;
    let calls = net.ends.iter().map(|end| {
        let network = Arc::clone(&end.network);
        let call = move |to, lane, channel, payload, deadline| {
            network.call(to, lane, channel, payload, deadline)
        };
        Box::new(call) as Call
    });
    let suite = Suite { calls: calls.collect(), channels: CHANNELS.to_vec(), services };
    suite.calls_are_answered().await;
    suite.a_message_arrives_on_its_channel(&net).await;
    introductions_tell_who_is_there(&net).await;
}

/// Runs the part of [`network_suite`] that a [`Transport`] promises. What it
/// carries has no channel; services are given channel 1.
///
/// ```text
/// transport_suite(|nodes| async move { my_transports(nodes).await }).await;
/// ```
///
/// # Panics
/// As [`network_suite`].
pub async fn transport_suite<F>(mut fresh: impl FnMut(Vec<(NodeId, Arc<dyn Service>)>) -> F)
where
    F: Future<Output = Vec<Arc<dyn Transport>>>,
{
    let services = services();
    let transports = fresh(listed(&services)).await;
    let calls = transports.iter().map(|transport| {
        let transport = Arc::clone(transport);
        let call = move |to, lane, _channel, payload, deadline| {
            transport.call(to, lane, payload, deadline)
        };
        Box::new(call) as Call
    });
    let suite = Suite { calls: calls.collect(), channels: CHANNELS[..1].to_vec(), services };
    suite.calls_are_answered().await;
}

type Call = Box<
    dyn Fn(NodeId, Lane, u8, Bytes, Duration) -> BoxFuture<Result<Bytes, TransportError>>
        + Send
        + Sync,
>;

/// Answers as the first byte of a request says.
#[derive(Default)]
struct Answering {
    /// Requests and messages by channel, in the order in which they came.
    seen: Mutex<BTreeMap<u8, Vec<(NodeId, Bytes)>>>,
    hanging: Arc<AtomicUsize>,
}

const ECHO: u8 = b'e';
const REFUSE: u8 = b'r';
const HANG: u8 = b'h';
const REFUSAL: &str = "not for you";

/// Counts as hanging until it is dropped.
struct Hanging(Arc<AtomicUsize>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Answering {
    fn handle(&self, from: NodeId, channel: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>> {
        let first = payload.first().copied();
        if first == Some(HANG) {
            self.hanging.fetch_add(1, Ordering::SeqCst);
            let hanging = Hanging(Arc::clone(&self.hanging));
            return Box::pin(async move {
                let _hanging = hanging;
                std::future::pending().await
            });
        }
        self.seen.lock().entry(channel).or_default().push((from, payload.clone()));
        Box::pin(async move {
            match first {
                Some(REFUSE) => Err(Bytes::from_static(REFUSAL.as_bytes())),
                _ => Ok(echo(from, channel, &payload)),
            }
        })
    }
}

/// The answer to a request, which no other request has.
fn echo(from: NodeId, channel: u8, payload: &[u8]) -> Bytes {
    let mut answer = BytesMut::with_capacity(payload.len() + 9);
    answer.put_u64(from.0);
    answer.put_u8(channel);
    answer.put_slice(payload);
    answer.freeze()
}

fn request(kind: u8, text: impl std::fmt::Display) -> Bytes {
    let mut request = vec![kind];
    request.extend(text.to_string().bytes());
    request.into()
}

fn services() -> Vec<Arc<Answering>> {
    NODES.iter().map(|_| Arc::default()).collect()
}

fn listed(services: &[Arc<Answering>]) -> Vec<(NodeId, Arc<dyn Service>)> {
    let listed = NODES.iter().zip(services);
    listed.map(|(node, service)| (*node, Arc::clone(service) as Arc<dyn Service>)).collect()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what} has not come within {PATIENCE:?}"))
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    soon(what, waiting).await;
}

struct Suite {
    calls: Vec<Call>,
    channels: Vec<u8>,
    services: Vec<Arc<Answering>>,
}

impl Suite {
    async fn calls_are_answered(&self) {
        self.an_answer_is_that_of_its_own_request().await;
        self.a_call_that_is_dropped_takes_nobodys_answer().await;
        self.a_large_request_has_a_large_answer().await;
        self.a_refusal_is_told_as_one().await;
        self.silence_ends_at_the_deadline().await;
        self.who_is_nowhere_answers_nothing().await;
        self.a_call_is_queued_when_it_returns().await;
        self.requests_that_hang_hold_up_nothing_else().await;
    }

    fn call(
        &self,
        from: usize,
        lane: Lane,
        channel: u8,
        payload: Bytes,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        self.calls[from](NODES[CALLED], lane, channel, payload, DEADLINE)
    }

    fn seen(&self, channel: u8) -> Vec<(NodeId, Bytes)> {
        self.services[CALLED].seen.lock().get(&channel).cloned().unwrap_or_default()
    }

    async fn an_answer_is_that_of_its_own_request(&self) {
        let mut asked = Vec::new();
        let ways = LANES.iter().flat_map(|lane| self.channels.iter().map(move |it| (*lane, *it)));
        for (number, (lane, channel)) in
            (0..CALLS).flat_map(|it| ways.clone().map(move |w| (it, w)))
        {
            for caller in [CALLER, OTHER] {
                let payload = request(ECHO, format_args!("{number} on {lane:?}"));
                let expected = echo(NODES[caller], channel, &payload);
                asked.push((lane, expected, self.call(caller, lane, channel, payload)));
            }
        }
        let answers = asked.into_iter().map(|(lane, expected, call)| async move {
            (lane, expected, soon("the answer to a call", call).await)
        });
        let mut answered: BTreeMap<Lane, usize> = BTreeMap::new();
        for (lane, expected, answer) in join_all(answers).await {
            match answer {
                Ok(answer) => {
                    assert_eq!(
                        answer, expected,
                        "`call` waits for *its* reply: of the caller, the channel and the request"
                    );
                    *answered.entry(lane).or_default() += 1;
                }
                Err(TransportError::Busy { .. }) if lane == Lane::Request => {}
                Err(error) => panic!("`call` over a healthy network, on {lane:?}: {error}"),
            }
        }
        for lane in LANES {
            assert!(answered.contains_key(&lane), "`call`: not one reply on {lane:?}");
        }
    }

    async fn a_call_that_is_dropped_takes_nobodys_answer(&self) {
        let lane = Lane::Data;
        let channel = self.channels[0];
        let mut kept = Vec::new();
        for number in 0..CALLS {
            let payload = request(ECHO, format_args!("{number} of which half are dropped"));
            let expected = echo(NODES[CALLER], channel, &payload);
            let call = self.call(CALLER, lane, channel, payload);
            if number % 2 == 0 {
                kept.push((expected, runtime::spawn(call)));
            } else {
                let running = runtime::spawn(call);
                tokio::task::yield_now().await;
                running.abort();
            }
        }
        for (expected, answer) in kept {
            let answer = soon("the answer to a call", answer).await.unwrap();
            assert_eq!(answer, Ok(expected), "`call`: another one that was dropped is not its own");
        }
    }

    async fn a_large_request_has_a_large_answer(&self) {
        for lane in [Lane::Data, Lane::Snapshot, Lane::Request] {
            let mut payload = vec![0xA5; LARGE_BYTES];
            payload[0] = ECHO;
            let expected = echo(NODES[CALLER], self.channels[0], &payload);
            let answer = self.call(CALLER, lane, self.channels[0], payload.into());
            let answer = soon("the answer to a large request", answer).await;
            assert!(answer == Ok(expected), "`call` with {LARGE_BYTES} bytes on {lane:?}");
        }
    }

    async fn a_refusal_is_told_as_one(&self) {
        for lane in LANES {
            let call = self.call(CALLER, lane, self.channels[0], request(REFUSE, ""));
            match soon("a refusal", call).await {
                Err(TransportError::Rejected { to, reason }) => {
                    assert_eq!(to, NODES[CALLED], "`TransportError::Rejected` names the peer");
                    assert!(
                        reason.contains(REFUSAL),
                        "`TransportError::Rejected`: what it said, and not '{reason}'"
                    );
                }
                other => panic!(
                    "`TransportError::Rejected`: the peer answered, but not with a reply; on \
                     {lane:?} it was {other:?}"
                ),
            }
        }
    }

    async fn silence_ends_at_the_deadline(&self) {
        for lane in PROMPT {
            let call = &self.calls[CALLER];
            let call = call(NODES[CALLED], lane, self.channels[0], request(HANG, ""), SHORT);
            let ended = soon("`TransportError::Deadline`", call).await;
            assert_eq!(
                ended,
                Err(TransportError::Deadline { to: NODES[CALLED] }),
                "`TransportError::Deadline`: no reply within the deadline, on {lane:?}"
            );
        }
    }

    async fn who_is_nowhere_answers_nothing(&self) {
        const NOBODY: NodeId = NodeId(4_711);
        for lane in LANES {
            let payload = request(ECHO, "is anybody there");
            let call = (self.calls[CALLER])(NOBODY, lane, self.channels[0], payload, SHORT);
            match soon("the end of a call to nobody", call).await {
                Err(TransportError::Unreachable { to, .. } | TransportError::Deadline { to }) => {
                    assert_eq!(to, NOBODY, "a `TransportError` names the peer")
                }
                other => panic!(
                    "`TransportError::Unreachable`: the peer cannot be reached now; it was {other:?}"
                ),
            }
        }
        let seen = self.services.iter().flat_map(|service| {
            let seen = service.seen.lock();
            seen.values().flatten().map(|(_, payload)| payload.clone()).collect::<Vec<_>>()
        });
        let astray = seen.filter(|payload| payload.ends_with(b"is anybody there")).count();
        assert_eq!(astray, 0, "`call`: what is for one peer reaches no other");
    }

    /// Nobody polls these calls.
    async fn a_call_is_queued_when_it_returns(&self) {
        for lane in PROMPT {
            let numbers = 0..CALLS;
            let payload = |number: usize| request(ECHO, format_args!("{number} unpolled {lane:?}"));
            let channel = self.channels[0];
            let calls: Vec<_> = numbers
                .clone()
                .map(|number| self.call(CALLER, lane, channel, payload(number)))
                .collect();
            let expected: Vec<Bytes> = numbers.map(payload).collect();
            let arrived = || -> Vec<Bytes> {
                let seen = self.seen(channel).into_iter().map(|(_, payload)| payload);
                seen.filter(|payload| expected.contains(payload)).collect()
            };
            let what =
                "a request: it is queued when `call` returns, and not when it is polled, and";
            until(what, || arrived().len() >= expected.len()).await;
            assert!(
                arrived() == expected,
                "`call`: requests are queued in the order of calls per lane, here {lane:?}"
            );
            drop(calls);
        }
    }

    async fn requests_that_hang_hold_up_nothing_else(&self) {
        let channel = self.channels[0];
        let call = &self.calls[CALLER];
        let service = &self.services[CALLED];
        // On other lanes nobody ends what hangs.
        let held = service.hanging.load(Ordering::SeqCst);
        let hanging = (0..HANGING).map(|number| {
            let payload = request(HANG, number);
            let deadline = SHORT * 10;
            runtime::spawn(call(NODES[CALLED], Lane::Request, channel, payload, deadline))
        });
        let hanging: Vec<_> = hanging.collect();
        until("a request that hangs", || service.hanging.load(Ordering::SeqCst) > held).await;
        for lane in PROMPT {
            let payload = request(ECHO, format_args!("past the hanging on {lane:?}"));
            let expected = echo(NODES[CALLER], channel, &payload);
            let answer = self.call(CALLER, lane, channel, payload);
            let answer = soon("an answer while requests hang", answer).await;
            assert_eq!(
                answer,
                Ok(expected),
                "`Lane`: what clients ask for never holds up what their answers wait for"
            );
        }
        for ended in hanging {
            let ended = soon("the end of a request that hangs", ended).await.unwrap();
            assert!(
                matches!(ended, Err(TransportError::Deadline { .. } | TransportError::Busy { .. })),
                "`Lane::Request`: those that are too many are refused, and the others have no \
                 reply within the deadline; one ended as {ended:?}"
            );
        }
        until("the end of work for callers that wait no more (`Lane::Request`)", || {
            service.hanging.load(Ordering::SeqCst) <= held
        })
        .await;
        let payload = request(ECHO, "afterwards");
        let expected = echo(NODES[CALLER], channel, &payload);
        let afterwards = async {
            // The peer may learn a little later that a caller has gone.
            loop {
                match self.call(CALLER, Lane::Request, channel, payload.clone()).await {
                    Err(TransportError::Busy { .. }) => tokio::time::sleep(LOOK_EVERY).await,
                    answer => return answer,
                }
            }
        };
        let answer = soon("`Lane::Request`: room once the callers of others have gone", afterwards);
        assert_eq!(answer.await, Ok(expected), "`Lane::Request` after too many requests");
    }

    async fn a_message_arrives_on_its_channel(&self, net: &Net) {
        for (lane, channel) in [(Lane::Heartbeat, CHANNELS[1]), (Lane::Data, CHANNELS[2])] {
            let message = request(ECHO, format_args!("by the way, on {lane:?}"));
            let arriving = async {
                // It may be dropped, and so is repeated.
                while !self.seen(channel).contains(&(NODES[CALLER], message.clone())) {
                    net.ends[CALLER].network.send(NODES[CALLED], lane, channel, message.clone());
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            soon("a message: `send` may drop, but not each, and one", arriving).await;
            for service in &self.services {
                for (at, seen) in service.seen.lock().iter() {
                    let is_astray = *at != channel || !Arc::ptr_eq(service, &self.services[CALLED]);
                    assert!(
                        !is_astray || seen.iter().all(|(_, payload)| *payload != message),
                        "`send` takes a message to one peer, on one channel"
                    );
                }
            }
        }
    }
}

async fn introductions_tell_who_is_there(net: &Net) {
    let caller = &net.ends[CALLER];
    for (end, node) in net.ends.iter().zip(NODES).skip(1) {
        let introduction = caller.network.introduce(&end.address, caller.hello.clone());
        let there = soon("`introduce`", introduction).await;
        let there = there.map(|there| there.map(|hello| hello.node));
        assert_eq!(there, Ok(Some(node)), "`introduce` learns who is there");
    }
    let introduction = caller.network.introduce(&net.nowhere, caller.hello.clone());
    let there = soon("`introduce`", introduction).await;
    assert!(
        matches!(there, Ok(None)),
        "`introduce` gives `None` while nobody answers; it was {there:?}"
    );
}
