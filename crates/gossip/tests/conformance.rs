//! A transport in memory and the state of these tests against the suites of
//! their ports, and what the suite has to refuse. (The one over TCP is private
//! and has its test beside it.) A suite that finds no planted flaw proves
//! nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs)]
#![allow(dead_code, reason = "the support is shared between files")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::cells::Cells;
use parking_lot::Mutex;
use quorate_gossip::conformance::{End, transport_suite};
use quorate_gossip::{Connection, Destination, Inbound, Lane, Transmit, Transport};
use quorate_types::NodeId;
use quorate_types::conformance::state_suite;
use quorate_types::frame::Frame;
use quorate_types::runtime::BoxFuture;
use tokio::sync::mpsc;

/// Cells that the suite's changes are made of, so that they weigh something.
const CELLS: u64 = 8;

#[test]
fn the_cells_conform() {
    let write = |cells: &mut Cells, number| {
        (0..CELLS).for_each(|cell| cells.write(number * CELLS + cell));
    };
    state_suite(|node| Cells::new(node.0, 1), write);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    NotIntroduced,
    IntroducedLate,
    OtherSender,
    OneLane,
    GarblesPayload,
    SeedUntold,
    ByAddressAlone,
    StuckByFlood,
    NeverFlushed,
    SpeaksOn,
    HearsOn,
}

#[tokio::test(start_paused = true)]
async fn the_flawless_transport_conforms() {
    transport_suite(|nodes| hub(nodes, Flaw::None)).await;
}

macro_rules! refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[tokio::test(start_paused = true)]
        #[should_panic(expected = $sentence)]
        async fn $test() {
            transport_suite(|nodes| hub(nodes, Flaw::$flaw)).await;
        }
    )+};
}

refused! {
    frames_of_strangers_are_refused, NotIntroduced, "precedes its first frame";
    an_introduction_after_the_frame_is_refused, IntroducedLate, "precedes its first frame";
    a_frame_from_somebody_else_is_refused, OtherSender, "`Inbound::Frame::from`: who sent it";
    a_transport_with_one_lane_is_refused, OneLane, "`Inbound::Frame::lane`";
    a_frame_that_nobody_sent_is_refused, GarblesPayload, "a frame that nobody sent";
    a_seed_that_nobody_is_told_of_is_refused, SeedUntold, "names the seed address";
    an_address_that_is_taken_for_a_node_is_refused, ByAddressAlone, "must not get the frame";
    a_queue_that_a_flood_stops_is_refused, StuckByFlood, "not one of many has arrived";
    a_flush_without_end_is_refused, NeverFlushed, "`Transport::flushed` completes";
    a_transport_that_speaks_on_is_refused, SpeaksOn, "nothing goes any more";
    a_transport_that_hears_on_is_refused, HearsOn, "nothing comes in any more";
}

/// As many frames as a node's queue takes.
const INBOUND_MAX: usize = 64;

/// Nodes whose frames arrive at once, or not.
struct Hub {
    flaw: Flaw,
    inboxes: Mutex<BTreeMap<NodeId, mpsc::Sender<Inbound>>>,
}

struct Port {
    hub: Arc<Hub>,
    node: NodeId,
    introduced: Mutex<BTreeSet<NodeId>>,
    is_closed: AtomicBool,
    is_stuck: AtomicBool,
}

fn address(node: NodeId) -> String {
    format!("memory:{}", node.0)
}

async fn hub(nodes: Vec<NodeId>, flaw: Flaw) -> (Vec<End>, String) {
    let hub = Arc::new(Hub { flaw, inboxes: Mutex::default() });
    let end = |node| {
        let (inbox, inbound) = mpsc::channel(INBOUND_MAX);
        hub.inboxes.lock().insert(node, inbox);
        let port = Port {
            hub: Arc::clone(&hub),
            node,
            introduced: Mutex::default(),
            is_closed: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
        };
        End { transport: Arc::new(port), address: address(node), inbound }
    };
    (nodes.into_iter().map(end).collect(), "memory:99".to_owned())
}

impl Port {
    fn bring(inbox: &mpsc::Sender<Inbound>, inbound: Inbound) -> bool {
        // A full queue loses it, as gossip allows.
        inbox.try_send(inbound).is_ok()
    }

    fn established(node: NodeId, seed: Option<String>) -> Inbound {
        let address = address(node);
        Inbound::Connection(Connection::Established { node, address, incarnation: 1, seed })
    }

    fn deliver(&self, lane: Lane, frame: Frame, inbox: &mpsc::Sender<Inbound>) {
        let flaw = self.hub.flaw;
        if flaw == Flaw::GarblesPayload {
            let frame = Frame { payload: frame.payload.slice(1..), ..frame };
            Self::bring(inbox, Inbound::Frame { from: self.node, lane, frame });
        }
        let arrives = Inbound::Frame {
            from: if flaw == Flaw::OtherSender { NodeId(3) } else { self.node },
            lane: if flaw == Flaw::OneLane { Lane::Control } else { lane },
            frame,
        };
        if !Self::bring(inbox, arrives) && flaw == Flaw::StuckByFlood {
            self.is_stuck.store(true, Ordering::Relaxed);
        }
    }
}

impl Transport for Port {
    fn send(&self, Transmit { to, lane, frame }: Transmit) {
        let flaw = self.hub.flaw;
        if self.is_closed.load(Ordering::Relaxed) && flaw != Flaw::SpeaksOn {
            return;
        }
        if self.is_stuck.load(Ordering::Relaxed) {
            return;
        }
        let (at, wanted, seed) = match to {
            Destination::Node { node, address } => (address, Some(node), None),
            Destination::Seed(address) => (address.clone(), None, Some(address)),
        };
        let inboxes = self.hub.inboxes.lock();
        let Some((peer, inbox)) = inboxes.iter().find(|(node, _)| address(**node) == at) else {
            return;
        };
        if wanted.is_some_and(|wanted| wanted != *peer) && flaw != Flaw::ByAddressAlone {
            return;
        }
        let is_new = !self.introduced.lock().contains(peer);
        if is_new && !matches!(flaw, Flaw::NotIntroduced | Flaw::IntroducedLate) {
            // Nobody hears a frame of somebody who could not introduce himself.
            if !Self::bring(inbox, Self::established(self.node, None)) {
                return;
            }
            self.introduced.lock().insert(*peer);
        }
        if seed.is_some() && flaw != Flaw::SeedUntold {
            Self::bring(&inboxes[&self.node], Self::established(*peer, seed));
        }
        self.deliver(lane, frame, inbox);
        if is_new && flaw == Flaw::IntroducedLate {
            self.introduced.lock().insert(*peer);
            Self::bring(inbox, Self::established(self.node, None));
        }
    }

    fn flushed(&self) -> BoxFuture<()> {
        if self.hub.flaw == Flaw::NeverFlushed {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(()))
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        if self.hub.flaw != Flaw::HearsOn {
            self.hub.inboxes.lock().remove(&self.node);
        }
    }
}
