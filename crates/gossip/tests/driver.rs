//! Drivers over loopback TCP and over a transport in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use common::cells::Cells;
use parking_lot::Mutex;
use quorate_gossip::{
    Config, Connection, Destination, Driver, Event, Inbound, Judge, Member, Setup, State, Status,
    TcpConfig, Transmit, Transport,
};
use quorate_types::env::SystemClock;
use quorate_types::hello::{self, Hello, HelloError, Protocol};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, ClusterId, DiskId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Far beyond what anything here takes: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    driver: Driver,
    state: Arc<Mutex<Cells>>,
    address: String,
}

fn hello(node: u64, address: &str, incarnation: u64) -> Hello {
    Hello {
        protocol: Protocol::Gossip,
        lane: 0,
        cluster: Some(ClusterId(7)),
        node: NodeId(node),
        disk: DiskId(u128::from(node)),
        incarnation,
        address: Blob::from(address),
    }
}

fn setup(hello: Hello, state: &Arc<Mutex<Cells>>) -> Setup<Cells> {
    Setup {
        hello,
        config: Config::default(),
        tcp: TcpConfig::default(),
        state: Arc::clone(state),
        clock: SystemClock::shared(),
    }
}

async fn start(node: u64, incarnation: u64, seeds: &[String]) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let state = Arc::new(Mutex::new(Cells::new(node, incarnation)));
    let driver = Driver::start(setup(hello(node, &address, incarnation), &state)).unwrap();
    let welcome: Judge = Arc::new(|_| Ok(()));
    driver.listen(listener, welcome);
    driver.join(seeds);
    Running { driver, state, address }
}

async fn three() -> [Running; 3] {
    let one = start(1, 1, &[]).await;
    let seeds = [one.address.clone()];
    let cluster = [one, start(2, 1, &seeds).await, start(3, 1, &seeds).await];
    for node in &cluster {
        see(node, |members| alive(members) == 3).await;
    }
    cluster
}

fn alive(members: &[Member]) -> usize {
    members.iter().filter(|member| member.status == Status::Alive).count()
}

fn status(members: &[Member], node: u64) -> Option<Status> {
    members.iter().find(|member| member.node == NodeId(node)).map(|member| member.status)
}

async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

async fn see(node: &Running, accept: impl Fn(&[Member]) -> bool) {
    let mut view = node.driver.view();
    patiently(view.wait_for(|members| accept(members))).await.unwrap();
}

async fn next_event(events: &mut mpsc::Receiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = patiently(events.recv()).await.unwrap();
        if wanted(&event) {
            return event;
        }
    }
}

/// Waits until a node's state is that of another, which does not change.
async fn agree(node: &Running, with: &Running, events: &mut mpsc::Receiver<Event>) {
    while node.state.lock().root() != with.state.lock().root() {
        next_event(events, |event| matches!(event, Event::StateChanged { .. })).await;
    }
}

#[tokio::test]
async fn three_form_a_cluster_share_a_write_and_notice_a_crash_and_a_return() {
    let [one, two, three] = three().await;
    let mut events = [one.driver.events(), two.driver.events()];

    three.state.lock().write(42);
    three.driver.notify_changed();
    for (node, events) in [&one, &two].into_iter().zip(&mut events) {
        agree(node, &three, events).await;
    }

    drop(three);
    // One view shows both: on a busy machine a living node may be suspected
    // for a moment, before or after.
    for node in [&one, &two] {
        see(node, |members| status(members, 3) == Some(Status::Dead) && alive(members) == 2).await;
    }

    let seeds = [one.address.clone(), two.address.clone()];
    let back = start(3, 2, &seeds).await;
    for node in [&one, &two, &back] {
        see(node, |members| alive(members) == 3).await;
    }
    for events in &mut events {
        let is_back = |member: &Member| member.node == NodeId(3) && member.address == back.address;
        next_event(events, |event| matches!(event, Event::Rejoined(member) if is_back(member)))
            .await;
    }
}

#[tokio::test]
async fn who_says_goodbye_is_not_mourned() {
    let [one, two, three] = three().await;
    let mut events = one.driver.events();
    three.driver.leave().await;
    drop(three);
    for node in [&one, &two] {
        see(node, |members| status(members, 3) == Some(Status::Left)).await;
    }
    let is_gone = |event: &Event| match event {
        Event::Dead(member) | Event::Left(member) => member.node == NodeId(3),
        _ => false,
    };
    assert!(matches!(next_event(&mut events, is_gone).await, Event::Left(_)));
}

#[tokio::test]
async fn a_connection_accepted_elsewhere_can_be_handed_in() {
    let one = start(1, 1, &[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let state = Arc::new(Mutex::new(Cells::new(2, 1)));
    let driver = Arc::new(Driver::start(setup(hello(2, &address, 1), &state)).unwrap());
    let acceptor = Arc::clone(&driver);
    let task = quorate_types::runtime::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let judge = |theirs: &Hello| acceptor.judge(theirs);
            let theirs = hello::answer(&mut stream, PATIENCE, judge).await.unwrap();
            acceptor.serve(stream, &theirs, bytes::BytesMut::new()).unwrap();
        }
    });
    driver.join(std::slice::from_ref(&one.address));
    let mut view = driver.view();
    patiently(view.wait_for(|members| alive(members) == 2)).await.unwrap();
    see(&one, |members| alive(members) == 2).await;
    task.abort();
}

#[tokio::test]
async fn callers_of_other_clusters_ids_and_lanes_are_refused() {
    let one = start(1, 1, &[]).await;
    let refused = [
        Hello { cluster: Some(ClusterId(8)), ..hello(2, "127.0.0.1:1", 1) },
        Hello { node: NodeId(1), ..hello(2, "127.0.0.1:1", 1) },
        Hello { lane: 2, ..hello(2, "127.0.0.1:1", 1) },
        Hello { protocol: Protocol::Mesh, ..hello(2, "127.0.0.1:1", 1) },
    ];
    for introduction in refused {
        let mut stream = TcpStream::connect(&one.address).await.unwrap();
        let verdict = hello::dial(&mut stream, &introduction, PATIENCE).await;
        assert!(matches!(verdict, Err(HelloError::Refused(_))), "{introduction:?}");
    }
    assert_eq!(one.driver.members().len(), 1);
}

#[tokio::test]
async fn garbage_and_oversized_frames_end_the_connection_and_nothing_else() {
    let one = start(1, 1, &[]).await;
    // Before the handshake.
    let mut stream = TcpStream::connect(&one.address).await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    patiently(stream.read_to_end(&mut Vec::new())).await.ok();
    // After it: four gigabytes announced, and a wrong checksum.
    for garbage in [[0xff; 32], [0; 32]] {
        let mut stream = TcpStream::connect(&one.address).await.unwrap();
        hello::dial(&mut stream, &hello(2, "127.0.0.1:1", 1), PATIENCE).await.unwrap();
        stream.write_all(&garbage).await.unwrap();
        patiently(stream.read_to_end(&mut Vec::new())).await.ok();
    }
    let two = start(3, 1, std::slice::from_ref(&one.address)).await;
    see(&one, |members| status(members, 3) == Some(Status::Alive)).await;
    see(&two, |members| status(members, 1) == Some(Status::Alive)).await;
}

#[tokio::test]
async fn one_peer_that_never_reads_does_not_stall_the_others() {
    let [one, two, _three] = three().await;
    // Accepts, answers the handshake, and then never reads again.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mute = hello(9, &address, 1);
    let answer = mute.clone();
    let task = quorate_types::runtime::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let judge = |theirs: &Hello| Ok(Hello { lane: theirs.lane, ..answer.clone() });
            hello::answer(&mut stream, PATIENCE, judge).await.ok();
            kept.push(stream);
        }
    });
    let mut stream = TcpStream::connect(&one.address).await.unwrap();
    hello::dial(&mut stream, &mute, PATIENCE).await.unwrap();
    see(&one, |members| status(members, 9).is_some()).await;
    for value in 0..20_000 {
        one.state.lock().write(value);
    }
    let mut events = two.driver.events();
    one.driver.notify_changed();
    agree(&two, &one, &mut events).await;
    see(&one, |members| status(members, 9) == Some(Status::Dead) && alive(members) == 3).await;
    task.abort();
}

/// A network in memory: whoever is registered can be reached.
#[derive(Clone, Default)]
struct Hub {
    inboxes: Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<Inbound>>>>,
}

struct Port {
    hub: Hub,
    own: Hello,
    introduced: Mutex<BTreeMap<NodeId, ()>>,
}

fn memory_address(node: u64) -> String {
    format!("memory:{node}")
}

impl Transport for Port {
    fn send(&self, transmit: Transmit) {
        let (address, seed) = match transmit.to {
            Destination::Node { address, .. } => (address, None),
            Destination::Seed(address) => (address.clone(), Some(address)),
        };
        let inboxes = self.hub.inboxes.lock();
        let reached = inboxes.iter().find(|(node, _)| memory_address(node.0) == address);
        let (Some((peer, inbox)), Some(own)) = (reached, inboxes.get(&self.own.node)) else {
            return;
        };
        if self.introduced.lock().insert(*peer, ()).is_none() {
            let established = |node: NodeId, seed| {
                let address = memory_address(node.0);
                Inbound::Connection(Connection::Established { node, address, incarnation: 1, seed })
            };
            inbox.try_send(established(self.own.node, None)).ok();
            own.try_send(established(*peer, seed)).ok();
        }
        let (from, lane, frame) = (self.own.node, transmit.lane, transmit.frame);
        inbox.try_send(Inbound::Frame { from, lane, frame }).ok();
    }

    fn flushed(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }

    fn close(&self) {
        self.hub.inboxes.lock().remove(&self.own.node);
    }
}

#[tokio::test(start_paused = true)]
async fn the_driver_runs_over_any_transport() {
    let hub = Hub::default();
    let started = |node: u64| {
        let (sender, inbound) = mpsc::channel(1024);
        hub.inboxes.lock().insert(NodeId(node), sender);
        let own = hello(node, &memory_address(node), 1);
        let port = Port { hub: hub.clone(), own: own.clone(), introduced: Mutex::default() };
        let state = Arc::new(Mutex::new(Cells::new(node, 1)));
        let driver = Driver::start_over(setup(own, &state), Arc::new(port), inbound).unwrap();
        driver.join(&[memory_address(1)]);
        Running { driver, state, address: memory_address(node) }
    };
    let nodes: Vec<Running> = (1..=5).map(started).collect();
    for node in &nodes {
        see(node, |members| alive(members) == 5).await;
    }
    let [first, .., last] = nodes.as_slice() else { unreachable!() };
    last.driver.shutdown();
    see(first, |members| status(members, 5) == Some(Status::Dead)).await;
}
