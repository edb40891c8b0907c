//! A cluster whose every connection goes through a proxy.
//!
//! Node *j* listens at one address and is reached by the others at another:
//! between the two stands a proxy that knows who calls, because every
//! connection between nodes begins with an introduction. What goes from *i* to
//! *j* is what *i* sends over the connections it made to *j*, and what it
//! answers over those that *j* made to it: the one is ruled at *j*'s proxy, the
//! other at *i*'s. Clients reach each node's gateway through another proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::Path;

use bytes::BytesMut;
use quorate_testkit::proxy::{Behaviour, FaultProxy, Flow, Tally};
use quorate_types::codec::decode;
use quorate_types::frame::Frame;
use quorate_types::hello::{HELLO_BYTES_MAX, HELLO_KIND, Introduction};
use tokio::runtime::Runtime;

use crate::cluster::Cluster;

/// Threads that the proxies share: enough for what a few nodes on one machine
/// say to each other.
const PROXY_THREADS: usize = 2;

/// How seldom a bit flips that nothing guards. Most that do make a reply
/// unreadable; enough are left that change what it says.
const GARBLED_EVERY_BYTES: u64 = 2_000;

/// A cluster behind proxies.
#[derive(Debug)]
pub(super) struct Fleet {
    // Before the proxies, so that the nodes end first.
    pub(super) cluster: Cluster,
    /// What stands in front of each node.
    ways: BTreeMap<u64, FaultProxy>,
    /// What stands in front of each gateway.
    doors: BTreeMap<u64, FaultProxy>,
    runtime: Runtime,
}

/// The number of the node that opens a connection with these bytes.
fn caller(begun: &[u8]) -> Option<u64> {
    let frame = Frame::decode(&mut BytesMut::from(begun), HELLO_BYTES_MAX).ok()??;
    let introduction: Introduction =
        decode(&frame.payload).ok().filter(|_| frame.kind == HELLO_KIND)?;
    Some(introduction.hello.node.0)
}

impl Fleet {
    /// Starts nodes 1 to `count`, with data and logs in a folder, and waits
    /// until all serve.
    pub(super) fn start(count: u64, folder: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(PROXY_THREADS)
            .enable_all()
            .build()
            .unwrap();
        let cluster = Cluster::seats_in(count, folder.to_owned());
        let mut fleet = Self { cluster, ways: BTreeMap::new(), doors: BTreeMap::new(), runtime };
        for id in fleet.cluster.ids() {
            fleet.open(id);
        }
        fleet.cluster.start_all();
        fleet
    }

    /// Puts proxies in front of a node.
    fn open(&mut self, id: u64) {
        let (node, gateway) = (self.cluster.listens_at(id), self.cluster.gateway(id));
        let way = self.runtime.block_on(FaultProxy::start_classified(node, caller)).unwrap();
        let door = self.runtime.block_on(FaultProxy::start(gateway)).unwrap();
        self.cluster.advertise(id, way.address());
        self.ways.insert(id, way);
        self.doors.insert(id, door);
    }

    /// Starts a further node; it may take a while to serve.
    pub(super) fn join(&mut self, id: u64) {
        self.cluster.add_seat(id);
        self.open(id);
        self.cluster.spawn(id);
    }

    /// Where clients reach a node.
    pub(super) fn door(&self, id: u64) -> SocketAddr {
        self.doors[&id].address()
    }

    /// Where clients reach the nodes that run.
    pub(super) fn doors(&self) -> Vec<SocketAddr> {
        self.cluster.running().into_iter().map(|id| self.door(id)).collect()
    }

    /// What one node sends to another is dropped, or waits.
    pub(super) fn cut(&self, from: u64, to: u64, flow: Flow) {
        let (there, back) = (&self.ways[&to], &self.ways[&from]);
        there.set_class(from, Behaviour { to_server: flow, ..there.behaviour_of(from) });
        back.set_class(to, Behaviour { to_client: flow, ..back.behaviour_of(to) });
    }

    /// As [`Fleet::cut`], and the other way too.
    pub(super) fn part(&self, one: u64, other: u64, flow: Flow) {
        self.cut(one, other, flow);
        self.cut(other, one, flow);
    }

    /// How all connections between one node and the others behave, whoever made
    /// them.
    pub(super) fn surround(&self, id: u64, behaviour: Behaviour) {
        self.ways[&id].set(behaviour);
        for (_, way) in self.ways.iter().filter(|(other, _)| **other != id) {
            way.set_class(id, behaviour);
        }
    }

    /// How all connections between nodes behave.
    pub(super) fn everywhere(&self, behaviour: Behaviour) {
        self.ways.values().for_each(|way| way.set(behaviour));
    }

    /// How clients reach a node.
    pub(super) fn at_door(&self, id: u64, behaviour: Behaviour) {
        self.doors[&id].set(behaviour);
    }

    /// Flips bits between clients and every gateway, in a protocol without
    /// checksums: what clients are told is not what happened.
    pub(super) fn garble(&self, seed: u64) {
        let flip_every_bytes = NonZeroU64::new(GARBLED_EVERY_BYTES);
        let behaviour = Behaviour { flip_every_bytes, seed, ..Behaviour::default() };
        self.doors.values().for_each(|door| door.set(behaviour));
    }

    /// Everything passes between clients and gateways.
    pub(super) fn open_doors(&self) {
        self.doors.values().for_each(FaultProxy::heal);
    }

    /// Resets every connection of clients to a node.
    pub(super) fn hang_up(&self, id: u64) {
        self.doors[&id].close_connections();
    }

    /// Everything passes between nodes.
    pub(super) fn heal(&self) {
        self.ways.values().for_each(FaultProxy::heal);
    }

    /// What was done to connections between nodes so far.
    pub(super) fn between_nodes(&self) -> Tally {
        self.ways.values().fold(Tally::default(), |sum, way| sum.plus(&way.tally()))
    }

    /// What was done to connections of clients to a node so far.
    pub(super) fn of_clients(&self, id: u64) -> Tally {
        self.doors[&id].tally()
    }

    /// The node that leads most shards, if any node can tell.
    pub(super) fn foremost(&self) -> Option<u64> {
        let running = self.cluster.running();
        let seen = running.iter().find_map(|id| self.cluster.admin(*id).nodes().ok())?;
        let here = seen.iter().filter(|node| running.contains(&node.id));
        here.max_by_key(|node| node.leaders).map(|node| node.id)
    }
}

#[cfg(test)]
mod tests;
