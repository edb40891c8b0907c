//! Three nodes in one process find each other, share a number, and notice
//! that one of them is gone. Run it with
//! `cargo run -p quorate-gossip --example three_nodes`.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_gossip::{Config, Driver, Member, Setup, State, StateError, Status, TcpConfig};
use quorate_types::env::SystemClock;
use quorate_types::hello::{Hello, Protocol};
use quorate_types::{Blob, DiskId, NodeId};
use tokio::net::TcpListener;

/// The simplest state there is: the largest number anybody has seen.
#[derive(Default)]
struct Largest(u64);

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

impl State for Largest {
    fn root(&self) -> u128 {
        u128::from(self.0)
    }

    fn vector(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn delta(&self, since: &[u8], _budget_bytes: usize) -> Option<Bytes> {
        (number(since).unwrap_or(0) < self.0).then(|| self.vector())
    }

    fn merge(&mut self, _from: NodeId, delta: &[u8]) -> Result<bool, StateError> {
        let theirs = number(delta).ok_or(StateError::Malformed("not a number".to_owned()))?;
        let news = theirs > self.0;
        self.0 = self.0.max(theirs);
        Ok(news)
    }

    fn acknowledge(&mut self, _from: NodeId, _vector: &[u8]) {}

    fn members(&mut self, _others: &[NodeId]) {}
}

struct Node {
    driver: Driver,
    state: Arc<Mutex<Largest>>,
    address: String,
}

async fn start(id: u64, seeds: &[String]) -> Result<Node, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let state = Arc::new(Mutex::new(Largest::default()));
    let driver = Driver::start(Setup {
        hello: Hello {
            protocol: Protocol::Gossip,
            lane: 0,
            cluster: None,
            node: NodeId(id),
            disk: DiskId(u128::from(id)),
            incarnation: 1,
            address: Blob::from(address.as_str()),
        },
        config: Config::default(),
        tcp: TcpConfig::default(),
        state: Arc::clone(&state),
        clock: SystemClock::shared(),
    })?;
    driver.listen(listener, Arc::new(|_| Ok(())));
    driver.join(seeds);
    Ok(Node { driver, state, address })
}

fn alive(members: &[Member]) -> usize {
    members.iter().filter(|member| member.status == Status::Alive).count()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let one = start(1, &[]).await?;
    let seeds = [one.address.clone()];
    let two = start(2, &seeds).await?;
    let three = start(3, &seeds).await?;
    for node in [&one, &two, &three] {
        node.driver.view().wait_for(|members| alive(members) == 3).await?;
    }
    println!("three nodes see each other");

    let mut events = one.driver.events();
    three.state.lock().0 = 42;
    three.driver.notify_changed();
    while one.state.lock().0 != 42 {
        events.recv().await.ok_or("the driver ended")?;
    }
    println!("node 1 has the number that node 3 wrote");

    drop(three);
    for node in [&one, &two] {
        node.driver.view().wait_for(|members| alive(members) == 2).await?;
    }
    println!("nodes 1 and 2 have noticed that node 3 is gone");
    Ok(())
}
