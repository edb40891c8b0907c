//! The mesh over loopback TCP, and raft on top of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use quorate_raft::tcp::{Mesh, MeshConfig, MeshError, Reception, Service};
use quorate_raft::{Lane, Network, TransportError};
use quorate_types::frame::{read_frame_exactly, write_frame};
use quorate_types::hello::{HELLO_BYTES_MAX, Hello, Protocol, answer, dial};
use quorate_types::runtime::{BoxFuture, spawn};
use quorate_types::{Blob, DiskId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const DEADLINE: Duration = Duration::from_secs(10);
const ECHO: u8 = 1;
const REFUSE: u8 = 2;
const HANG: u8 = 3;
const RECORD: u8 = 4;

#[derive(Clone, Default)]
struct Book(Arc<Mutex<BTreeMap<NodeId, String>>>);

#[derive(Default)]
struct TestService {
    recorded: Mutex<Vec<u8>>,
    news: Notify,
    hanging: Arc<AtomicUsize>,
}

/// A request that hangs, until it is dropped.
struct Hanging(Arc<AtomicUsize>);

impl Hanging {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for TestService {
    fn handle(&self, from: NodeId, channel: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>> {
        match channel {
            ECHO => Box::pin(async move { Ok(payload) }),
            REFUSE => Box::pin(async move { Err(Bytes::from(format!("not for {from}"))) }),
            RECORD => {
                self.recorded.lock().push(payload[0]);
                self.news.notify_one();
                Box::pin(async { Ok(Bytes::new()) })
            }
            _ => {
                let hanging = Hanging::begin(&self.hanging);
                Box::pin(async move {
                    let _hanging = hanging;
                    std::future::pending().await
                })
            }
        }
    }
}

fn hello(node: u64) -> Hello {
    Hello {
        protocol: Protocol::Mesh,
        lane: 0,
        cluster: None,
        node: NodeId(node),
        disk: DiskId(u128::from(node)),
        incarnation: 1,
        address: Blob::new(),
    }
}

fn mesh(node: u64, book: &Book, config: MeshConfig) -> Mesh {
    let book = book.clone();
    let address = move |node: NodeId| book.0.lock().get(&node).cloned();
    Mesh::new(config, move || hello(node), address)
}

/// A node that listens; the book knows where.
async fn listening(node: u64, book: &Book) -> (Mesh, Arc<TestService>) {
    let service = Arc::new(TestService::default());
    let answers = Arc::clone(&service) as Arc<dyn Service>;
    (serving(node, book, MeshConfig::default(), answers).await, service)
}

/// A node that listens with few permits for requests.
async fn narrow(book: &Book, inbound_requests_max: usize) -> (Mesh, Arc<TestService>) {
    let service = Arc::new(TestService::default());
    let config = MeshConfig { inbound_requests_max, ..MeshConfig::default() };
    let answers = Arc::clone(&service) as Arc<dyn Service>;
    (serving(2, book, config, answers).await, service)
}

async fn serving(node: u64, book: &Book, config: MeshConfig, service: Arc<dyn Service>) -> Mesh {
    let mesh = mesh(node, book, config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    book.0.lock().insert(NodeId(node), listener.local_addr().unwrap().to_string());
    let judge = move |theirs: &Hello| {
        if theirs.node == NodeId(66) { Err("go away".to_owned()) } else { Ok(hello(node)) }
    };
    mesh.listen(listener, service, Arc::new(judge));
    mesh
}

/// Takes every connection that is not the mesh's.
#[derive(Default)]
struct Door {
    taken: Mutex<Vec<NodeId>>,
    welcomed: Mutex<Vec<NodeId>>,
    news: Notify,
}

impl Reception for Door {
    fn judge(&self, theirs: &Hello) -> Result<Hello, String> {
        let protocol = theirs.protocol;
        if theirs.node == NodeId(66) {
            Err("go away".into())
        } else {
            Ok(Hello { protocol, ..hello(2) })
        }
    }

    fn welcomed(&self, theirs: &Hello) {
        self.welcomed.lock().push(theirs.node);
    }

    fn take_over(&self, _stream: TcpStream, theirs: &Hello) -> Result<(), String> {
        self.taken.lock().push(theirs.node);
        self.news.notify_one();
        Ok(())
    }
}

/// A node with a door; the book knows where.
async fn receiving(book: &Book, config: MeshConfig) -> (Mesh, Arc<Door>) {
    let mesh = mesh(2, book, config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    book.0.lock().insert(NodeId(2), listener.local_addr().unwrap().to_string());
    let (service, door) = (Arc::new(TestService::default()), Arc::new(Door::default()));
    mesh.listen(listener, service, Arc::clone(&door) as Arc<dyn Reception>);
    (mesh, door)
}

#[tokio::test]
async fn a_connection_of_another_protocol_is_handed_over() {
    let book = Book::default();
    let (_server, door) = receiving(&book, MeshConfig::default()).await;
    let address = book.0.lock()[&NodeId(2)].clone();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let gossip = Hello { protocol: Protocol::Gossip, ..hello(7) };
    let theirs = dial(&mut stream, &gossip, DEADLINE).await.unwrap();
    assert_eq!((theirs.node, theirs.protocol), (NodeId(2), Protocol::Gossip));
    door.news.notified().await;
    assert_eq!(*door.taken.lock(), [NodeId(7)]);
    let client = mesh(1, &book, MeshConfig::default());
    let echo = client.call(NodeId(2), 0, ECHO, Bytes::from_static(b"x"), DEADLINE).await;
    assert_eq!(echo, Ok(Bytes::from_static(b"x")), "the mesh is served beside it");
    assert_eq!(*door.welcomed.lock(), [NodeId(7), NodeId(1)]);
}

#[tokio::test]
async fn a_silent_caller_holds_the_door_only_until_its_deadline() {
    let book = Book::default();
    let handshake_deadline = Duration::from_millis(50);
    let config =
        MeshConfig { inbound_handshakes_max: 1, handshake_deadline, ..MeshConfig::default() };
    let (_server, _) = receiving(&book, config).await;
    let address = book.0.lock()[&NodeId(2)].clone();
    let _silent = TcpStream::connect(address).await.unwrap();
    let client = mesh(1, &book, MeshConfig::default());
    let echo = client.call(NodeId(2), 0, ECHO, Bytes::new(), DEADLINE).await;
    assert_eq!(echo, Ok(Bytes::new()));
}

/// Passes connections on to node 2; in the first frame behind the introduction
/// on the first of them the length is damaged.
async fn put_damage_between(book: &Book) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let to = book.0.lock().insert(NodeId(2), address).unwrap();
    let passing = async move {
        let mut is_first = true;
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&to).await.unwrap();
            let damages = std::mem::replace(&mut is_first, false);
            let passing = async move {
                if damages {
                    let hello = read_frame_exactly(&mut client, HELLO_BYTES_MAX).await.unwrap();
                    write_frame(&mut server, &hello).await.unwrap();
                    let welcome = read_frame_exactly(&mut server, HELLO_BYTES_MAX).await.unwrap();
                    write_frame(&mut client, &welcome).await.unwrap();
                    let length = client.read_u32().await.unwrap();
                    server.write_u32(length | 1 << 20).await.unwrap();
                }
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            };
            drop(spawn(passing));
        }
    };
    drop(spawn(passing));
}

/// The peer waits for the rest of a frame that never was. Nobody waits for an
/// answer, so nobody would notice.
#[tokio::test]
async fn a_damaged_length_does_not_swallow_what_nobody_answers() {
    let book = Book::default();
    let (_server, service) = listening(2, &book).await;
    put_damage_between(&book).await;
    let silence_max = Duration::from_millis(400);
    let client = mesh(1, &book, MeshConfig { silence_max, ..MeshConfig::default() });
    let arrives = async {
        while service.recorded.lock().is_empty() {
            // What comes while the connection is made anew is refused.
            let _ = client.send(NodeId(2), 1, RECORD, Bytes::from_static(b"x"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, arrives).await.expect("the connection is made anew");
}

/// Nor does it when those who asked have given up long before.
#[tokio::test]
async fn a_damaged_length_is_noticed_though_callers_are_impatient() {
    let book = Book::default();
    let (_server, _) = listening(2, &book).await;
    put_damage_between(&book).await;
    let silence_max = Duration::from_millis(400);
    let client = mesh(1, &book, MeshConfig { silence_max, ..MeshConfig::default() });
    let is_answered = async {
        let patience = Duration::from_millis(5);
        while client.call(NodeId(2), 1, ECHO, Bytes::new(), patience).await.is_err() {
            tokio::time::sleep(silence_max * 2).await;
        }
    };
    tokio::time::timeout(DEADLINE, is_answered).await.expect("the connection is made anew");
}

/// That a request takes long does not end its connection.
#[tokio::test]
async fn a_peer_that_works_long_is_not_taken_for_dead() {
    let book = Book::default();
    let (_server, _) = listening(2, &book).await;
    let silence_max = Duration::from_millis(100);
    let client = mesh(1, &book, MeshConfig { silence_max, ..MeshConfig::default() });
    let hangs = client.call(NodeId(2), 0, HANG, Bytes::new(), silence_max * 10).await;
    assert_eq!(hangs, Err(MeshError::Deadline(NodeId(2))));
}

#[tokio::test]
async fn an_introduction_tells_who_is_there_or_why_one_is_not_welcome() {
    let book = Book::default();
    let (server, _) = receiving(&book, MeshConfig::default()).await;
    let address = book.0.lock()[&NodeId(2)].clone();
    let client = mesh(1, &book, MeshConfig::default());
    let there = client.introduce(&address, hello(1)).await.unwrap();
    assert_eq!(there.map(|theirs| theirs.node), Some(NodeId(2)));
    assert_eq!(client.introduce(&address, hello(66)).await, Err("go away".to_owned()));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop((nobody, server));
    assert_eq!(client.introduce(&address, hello(1)).await, Ok(None));
}

#[tokio::test]
async fn many_calls_are_under_way_at_once() {
    let book = Book::default();
    let (_server, _) = listening(2, &book).await;
    let client = mesh(1, &book, MeshConfig::default());
    let calls = (0..1000_u32).map(|nth| {
        let payload = Bytes::copy_from_slice(&nth.to_be_bytes());
        let call = client.call(NodeId(2), 0, ECHO, payload.clone(), DEADLINE);
        async move { call.await.unwrap() == payload }
    });
    assert!(join_all(calls).await.into_iter().all(|same| same));
}

#[tokio::test]
async fn a_refusal_of_the_service_reaches_the_caller() {
    let book = Book::default();
    let (_server, _) = listening(2, &book).await;
    let client = mesh(1, &book, MeshConfig::default());
    let refused = client.call(NodeId(2), 0, REFUSE, Bytes::new(), DEADLINE).await;
    let reason = Bytes::from_static(b"not for n1");
    assert_eq!(refused, Err(MeshError::Refused { to: NodeId(2), reason }));
}

#[tokio::test]
async fn messages_of_a_lane_arrive_in_order() {
    let book = Book::default();
    let (_server, service) = listening(2, &book).await;
    let client = mesh(1, &book, MeshConfig::default());
    for nth in 0..200 {
        client.send(NodeId(2), 3, RECORD, Bytes::copy_from_slice(&[nth])).unwrap();
    }
    while service.recorded.lock().len() < 200 {
        service.news.notified().await;
    }
    assert_eq!(*service.recorded.lock(), (0..200).collect::<Vec<u8>>());
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_at_once() {
    let book = Book::default();
    let (_server, _) = listening(2, &book).await;
    let config = MeshConfig { queued_messages_max: 4, ..MeshConfig::default() };
    let client = mesh(1, &book, config);
    let large = Bytes::from(vec![0; 9 << 20]);
    let refused = client.call(NodeId(2), 0, ECHO, large, DEADLINE).await;
    assert!(matches!(refused, Err(MeshError::TooLarge { .. })));
    let refused = client.call(NodeId(9), 0, ECHO, Bytes::new(), DEADLINE).await;
    assert_eq!(refused, Err(MeshError::NoAddress(NodeId(9))));
    // The link's task has not run yet, so the queue fills.
    let results: Vec<_> = (0..5).map(|_| client.send(NodeId(2), 1, ECHO, Bytes::new())).collect();
    assert_eq!(results[4], Err(MeshError::Busy(NodeId(2))));
    assert!(results[..4].iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let book = Book::default();
    let (_server, _) = listening(2, &book).await;
    let client = mesh(1, &book, MeshConfig::default());
    let call = client.call(NodeId(2), 0, HANG, Bytes::new(), Duration::from_millis(50));
    assert_eq!(call.await, Err(MeshError::Deadline(NodeId(2))));
    let echo = client.call(NodeId(2), 0, ECHO, Bytes::from_static(b"x"), DEADLINE).await;
    assert_eq!(echo, Ok(Bytes::from_static(b"x")), "the connection is as good as before");
}

#[tokio::test]
async fn an_unwelcome_caller_hears_why() {
    let book = Book::default();
    let (_server, _) = listening(2, &book).await;
    let stranger = mesh(66, &book, MeshConfig::default());
    let refused = stranger.call(NodeId(2), 0, ECHO, Bytes::new(), DEADLINE).await;
    let Err(MeshError::Unreachable { reason, .. }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("go away"), "{reason}");
}

#[tokio::test]
async fn another_node_at_the_address_is_not_taken_for_the_peer() {
    let book = Book::default();
    let (_server, _) = listening(2, &book).await;
    let address = book.0.lock()[&NodeId(2)].clone();
    book.0.lock().insert(NodeId(3), address);
    let client = mesh(1, &book, MeshConfig::default());
    let refused = client.call(NodeId(3), 0, ECHO, Bytes::new(), DEADLINE).await;
    assert!(matches!(refused, Err(MeshError::Unreachable { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_restarted_peer_is_reached_again() {
    let book = Book::default();
    let (server, _) = listening(2, &book).await;
    let client = mesh(1, &book, MeshConfig::default());
    let hanging = client.call(NodeId(2), 0, HANG, Bytes::new(), DEADLINE);
    let echo = client.call(NodeId(2), 0, ECHO, Bytes::new(), DEADLINE).await;
    assert_eq!(echo, Ok(Bytes::new()));
    server.shutdown();
    assert_eq!(hanging.await, Err(MeshError::Disconnected(NodeId(2))));
    let (_restarted, _) = listening(2, &book).await;
    let reached = async {
        while client.call(NodeId(2), 0, ECHO, Bytes::new(), DEADLINE).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, reached).await.expect("the peer is reached again");
}

/// Asks node 2 as the layers above do.
async fn ask(
    client: &Mesh,
    lane: Lane,
    channel: u8,
    deadline: Duration,
) -> Result<Bytes, TransportError> {
    Network::call(client, NodeId(2), lane, channel, Bytes::from_static(b"x"), deadline).await
}

const ECHOED: Result<Bytes, TransportError> = Ok(Bytes::from_static(b"x"));
const BUSY: Result<Bytes, TransportError> = Err(TransportError::Busy { to: NodeId(2) });
const LATE: Result<Bytes, TransportError> = Err(TransportError::Deadline { to: NodeId(2) });

#[tokio::test]
async fn requests_that_never_end_hold_up_nothing_but_their_own_kind() {
    let book = Book::default();
    let (_server, service) = narrow(&book, 4).await;
    let client = mesh(1, &book, MeshConfig::default());
    let mut parked: Vec<_> =
        (0..4).map(|_| Box::pin(ask(&client, Lane::Request, HANG, DEADLINE))).collect();
    for call in &mut parked {
        assert!(futures_util::poll!(call).is_pending());
    }
    for _ in 0..100 {
        assert_eq!(ask(&client, Lane::Request, HANG, DEADLINE).await, BUSY, "refused at once");
    }
    assert_eq!(service.hanging.load(Ordering::SeqCst), 4, "what was refused was not begun");
    assert_eq!(ask(&client, Lane::Request, ECHO, DEADLINE).await, ECHOED, "another channel");
    for lane in [Lane::Heartbeat, Lane::Data, Lane::Snapshot] {
        assert_eq!(ask(&client, lane, ECHO, DEADLINE).await, ECHOED, "{lane:?}");
    }
    for lane in [Lane::Data, Lane::Request] {
        Network::send(&client, NodeId(2), lane, RECORD, Bytes::from_static(b"x"));
        service.news.notified().await;
    }
    drop(parked);
}

/// Requests of 60 bytes to a node that has room for 100 in work.
#[tokio::test]
async fn large_requests_fill_the_room_as_many_small_ones_do() {
    let book = Book::default();
    let service = Arc::new(TestService::default());
    let config = MeshConfig { inbound_bytes_max: 100, ..MeshConfig::default() };
    let answers = Arc::clone(&service) as Arc<dyn Service>;
    let _server = serving(2, &book, config, answers).await;
    let client = mesh(1, &book, MeshConfig::default());
    let ask = |lane, channel, bytes: usize, deadline| {
        Network::call(&client, NodeId(2), lane, channel, vec![7; bytes].into(), deadline)
    };
    let mut first = Box::pin(ask(Lane::Request, HANG, 60, DEADLINE));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert_eq!(ask(Lane::Request, HANG, 60, DEADLINE).await, BUSY, "refused");
    assert!(ask(Lane::Request, ECHO, 1_000, DEADLINE).await.is_ok(), "alone it passes");
    // Another lane is not read until there is room.
    let short = Duration::from_millis(50);
    assert_eq!(ask(Lane::Data, HANG, 60, short).await, LATE);
    assert_eq!(ask(Lane::Data, HANG, 60, short).await, LATE);
    assert_eq!(service.hanging.load(Ordering::SeqCst), 2, "one on each lane");
    assert_eq!(ask(Lane::Data, ECHO, 1, short).await, LATE, "behind the one that has no room");
    drop(first);
}

/// It reads no pings while it has no room.
#[tokio::test]
async fn a_peer_without_room_is_not_taken_for_dead() {
    let book = Book::default();
    let service = Arc::new(TestService::default());
    let silence_max = Duration::from_millis(100);
    let config = MeshConfig { silence_max, inbound_bytes_max: 100, ..MeshConfig::default() };
    let answers = Arc::clone(&service) as Arc<dyn Service>;
    let _server = serving(2, &book, config, answers).await;
    let client = mesh(1, &book, MeshConfig { silence_max, ..MeshConfig::default() });
    let ask = |deadline| {
        let payload = Bytes::from_static(&[7; 60]);
        Network::call(&client, NodeId(2), Lane::Data, HANG, payload, deadline)
    };
    let mut first = Box::pin(ask(DEADLINE));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert_eq!(ask(silence_max * 10).await, LATE);
    assert!(futures_util::poll!(&mut first).is_pending(), "the connection is as good as before");
    assert_eq!(service.hanging.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn large_requests_wait_for_their_turn_as_many_small_ones_do() {
    let book = Book::default();
    let (_server, service) = listening(2, &book).await;
    let config = MeshConfig { outbound_bytes_max: 100, ..MeshConfig::default() };
    let client = mesh(1, &book, config);
    let ask = |channel, deadline| {
        let payload = Bytes::from_static(&[7; 60]);
        Network::call(&client, NodeId(2), Lane::Request, channel, payload, deadline)
    };
    let mut first = Box::pin(ask(HANG, DEADLINE));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert_eq!(ask(HANG, Duration::from_millis(50)).await, BUSY, "it was not sent");
    drop(first);
    assert_eq!(ask(HANG, Duration::from_millis(50)).await, LATE, "it was");
    assert!(service.hanging.load(Ordering::SeqCst) <= 2);
}

/// A mesh that keeps few requests under way.
fn patient(book: &Book, outbound_requests_max: usize) -> Mesh {
    mesh(1, book, MeshConfig { outbound_requests_max, ..MeshConfig::default() })
}

#[tokio::test]
async fn callers_wait_for_their_turn_and_none_is_refused() {
    let book = Book::default();
    let (_server, service) = narrow(&book, 2).await;
    let client = patient(&book, 2);
    let records = (0..100_u8).map(|nth| {
        let payload = Bytes::copy_from_slice(&[nth]);
        Network::call(&client, NodeId(2), Lane::Request, RECORD, payload, DEADLINE)
    });
    for recorded in join_all(records).await {
        assert_eq!(recorded, Ok(Bytes::new()), "fifty times the room, and all are done");
    }
    assert_eq!(*service.recorded.lock(), (0..100).collect::<Vec<u8>>(), "in their order");
}

#[tokio::test]
async fn a_turn_that_does_not_come_in_time_is_a_request_that_was_not_sent() {
    let book = Book::default();
    let (_server, service) = narrow(&book, 8).await;
    let client = patient(&book, 1);
    let mut first = Box::pin(ask(&client, Lane::Request, HANG, DEADLINE));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert_eq!(ask(&client, Lane::Request, HANG, Duration::from_millis(20)).await, BUSY);
    assert_eq!(ask(&client, Lane::Request, ECHO, DEADLINE).await, ECHOED, "another channel");
    assert_eq!(service.hanging.load(Ordering::SeqCst), 1);
    drop(first);
    let again = ask(&client, Lane::Request, HANG, Duration::from_millis(20)).await;
    assert_eq!(again, LATE, "a caller that gives up passes its turn on");
}

#[tokio::test]
async fn no_more_may_wait_for_their_turn_than_may_be_queued() {
    let book = Book::default();
    let (_server, _) = narrow(&book, 8).await;
    let config =
        MeshConfig { outbound_requests_max: 1, queued_messages_max: 3, ..MeshConfig::default() };
    let client = mesh(1, &book, config);
    let mut parked: Vec<_> =
        (0..4).map(|_| Box::pin(ask(&client, Lane::Request, HANG, DEADLINE))).collect();
    for call in &mut parked {
        assert!(futures_util::poll!(call).is_pending());
    }
    assert_eq!(ask(&client, Lane::Request, HANG, DEADLINE).await, BUSY, "at once");
}

#[tokio::test]
async fn requests_that_wait_for_their_turn_are_bounded_by_their_bytes_too() {
    let book = Book::default();
    let (_server, _) = narrow(&book, 8).await;
    let config =
        MeshConfig { outbound_requests_max: 1, queued_bytes_max: 100, ..MeshConfig::default() };
    let client = mesh(1, &book, config);
    let ask = |bytes: usize| {
        let payload = Bytes::from(vec![0; bytes]);
        Box::pin(Network::call(&client, NodeId(2), Lane::Request, HANG, payload, DEADLINE))
    };
    let (mut first, mut second) = (ask(60), ask(60));
    assert!(futures_util::poll!(&mut first).is_pending(), "under way");
    assert!(futures_util::poll!(&mut second).is_pending(), "waits");
    assert_eq!(ask(60).await, BUSY);
    let mut small = ask(40);
    assert!(futures_util::poll!(&mut small).is_pending(), "has room");
    drop((second, small));
    let mut large = ask(1000);
    assert!(futures_util::poll!(&mut large).is_pending(), "a larger one passes alone");
}

#[tokio::test]
async fn a_peer_that_hangs_up_without_a_word_is_left_alone_for_a_while() {
    let book = Book::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    book.0.lock().insert(NodeId(2), listener.local_addr().unwrap().to_string());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let hanging_up = quorate_types::runtime::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            // Its frames are of another version: it reads one and is gone.
            let welcome = |theirs: &Hello| Ok(Hello { lane: theirs.lane, ..hello(2) });
            answer(&mut stream, DEADLINE, welcome).await.unwrap();
            stream.readable().await.unwrap();
        }
    });
    let client = mesh(1, &book, MeshConfig::default());
    let mut hung_up = 0;
    let left_alone = async {
        loop {
            match client.call(NodeId(2), 1, ECHO, Bytes::new(), DEADLINE).await {
                Err(MeshError::Disconnected(_)) => hung_up += 1,
                Err(MeshError::Unreachable { reason, .. }) => return reason,
                other => panic!("{other:?}"),
            }
        }
    };
    let reason = tokio::time::timeout(DEADLINE, left_alone).await.expect("it is left alone");
    assert!(reason.contains("before it replied"), "{reason}");
    assert!(hung_up >= 1);
    assert_eq!(connections.load(Ordering::SeqCst), hung_up, "one connection for each");
    hanging_up.abort();
}

#[tokio::test]
async fn a_request_ends_when_its_caller_has_stopped_waiting() {
    let book = Book::default();
    let (_server, service) = narrow(&book, 2).await;
    let client = mesh(1, &book, MeshConfig::default());
    let short = Duration::from_millis(20);
    let again = async {
        for _ in 0..10 {
            // Begun, as often as it takes: each ends, and its permit returns.
            while ask(&client, Lane::Request, HANG, short).await != LATE {}
        }
        while service.hanging.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("nothing is worked on for ever");
}

#[tokio::test]
async fn a_caller_of_endless_patience_is_told_that_its_request_was_dropped() {
    let book = Book::default();
    let service = Arc::new(TestService::default());
    let inbound_work_max = Duration::from_millis(20);
    let config = MeshConfig { inbound_work_max, ..MeshConfig::default() };
    let _server = serving(2, &book, config, Arc::clone(&service) as Arc<dyn Service>).await;
    let client = mesh(1, &book, MeshConfig::default());
    let told = ask(&client, Lane::Request, HANG, Duration::MAX);
    assert_eq!(tokio::time::timeout(DEADLINE, told).await, Ok(LATE));
    assert_eq!(service.hanging.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_lane_of_raft_waits_for_room_and_ends_nothing() {
    let book = Book::default();
    let (_server, service) = narrow(&book, 1).await;
    let client = mesh(1, &book, MeshConfig::default());
    let mut first = Box::pin(ask(&client, Lane::Data, HANG, DEADLINE));
    while service.hanging.load(Ordering::SeqCst) == 0 {
        assert!(futures_util::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
    }
    drop(first);
    let short = Duration::from_millis(20);
    assert_eq!(ask(&client, Lane::Data, HANG, short).await, LATE, "not refused");
    assert_eq!(service.hanging.load(Ordering::SeqCst), 1, "the first goes on, the second waits");
}

#[tokio::test]
async fn more_messages_than_allowed_are_dropped_and_hold_up_no_request() {
    let book = Book::default();
    let service = Arc::new(TestService::default());
    let config = MeshConfig { inbound_messages_max: 2, ..MeshConfig::default() };
    let _server = serving(2, &book, config, Arc::clone(&service) as Arc<dyn Service>).await;
    let client = mesh(1, &book, MeshConfig::default());
    for _ in 0..8 {
        Network::send(&client, NodeId(2), Lane::Data, HANG, Bytes::new());
    }
    assert_eq!(ask(&client, Lane::Data, ECHO, DEADLINE).await, ECHOED);
    assert_eq!(service.hanging.load(Ordering::SeqCst), 2);
}

/// Answers a request once the node that sent it has answered one of its own
/// on Raft's lane: as a write waits for a follower.
#[derive(Default)]
struct Replicating {
    mesh: OnceLock<Mesh>,
}

const WRITE: u8 = 5;

impl Service for Replicating {
    fn handle(&self, from: NodeId, channel: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>> {
        if channel != WRITE {
            return Box::pin(std::future::ready(Ok(payload)));
        }
        let mesh = self.mesh.get().unwrap().clone();
        Box::pin(async move {
            let appended = Network::call(&mesh, from, Lane::Data, ECHO, payload, DEADLINE).await;
            appended.map_err(|error| error.to_string().into())
        })
    }
}

#[tokio::test]
async fn requests_both_ways_do_not_wait_in_a_circle() {
    let book = Book::default();
    let mut nodes = Vec::new();
    for node in [1, 2] {
        let service = Arc::new(Replicating::default());
        let config = MeshConfig { inbound_requests_max: 2, ..MeshConfig::default() };
        let mesh = serving(node, &book, config, Arc::clone(&service) as Arc<dyn Service>).await;
        service.mesh.set(mesh.clone()).unwrap();
        nodes.push(mesh);
    }
    let write = |from: &Mesh, to: u64| {
        let payload = Bytes::from_static(b"x");
        Network::call(from, NodeId(to), Lane::Request, WRITE, payload, DEADLINE)
    };
    let writes = (0..200).map(|nth| {
        let (from, to) = if nth % 2 == 0 { (&nodes[0], 2) } else { (&nodes[1], 1) };
        let call = write(from, to);
        async move {
            match call.await {
                Ok(_) => true,
                Err(TransportError::Busy { .. }) => false,
                Err(error) => panic!("neither done nor refused: {error}"),
            }
        }
    });
    let done = join_all(writes).await.into_iter().filter(|is_done| *is_done).count();
    assert!(done >= 4, "as many as have room are done: {done}");
}
