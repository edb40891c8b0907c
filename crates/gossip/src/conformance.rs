//! What every [`Transport`] must do, as a suite to run against one's own.
//!
//! The state that gossip carries has its suite where its port is:
//! `quorate_types::conformance::state_suite`.
#![allow(
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test suite: it panics where the transport under test is wrong"
)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_types::NodeId;
use quorate_types::frame::Frame;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::transport::{Connection, Destination, Inbound, Lane, Transmit, Transport};

/// What should come, comes within this: on real time a healthy network needs
/// far less, on virtual time nobody waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(300);
/// How often to send again what may be dropped.
const AGAIN_EVERY: Duration = Duration::from_millis(20);
/// Frames sent at once: more than any queue should hold.
const FLOOD_FRAMES: usize = 5_000;
/// What each of them carries.
const FLOOD_BYTES: usize = 1 << 10;

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];
// Of the nodes, who sends and who receives.
const ONE: usize = 0;
const TWO: usize = 1;
const THREE: usize = 2;

/// A node's end of a transport under test.
pub struct End {
    /// Its transport.
    pub transport: Arc<dyn Transport>,
    /// Where it listens.
    pub address: String,
    /// The other end of the channel that its transport was made with.
    pub inbound: mpsc::Receiver<Inbound>,
}

/// Runs the suite. `fresh` connects the nodes that it is given, by a healthy
/// network, and returns their ends in that order, and an address at which
/// nobody listens.
///
/// ```text
/// transport_suite(|nodes| async move { my_transports(nodes).await }).await;
/// ```
///
/// # Panics
/// When the transport does not conform; the message says which sentence of the
/// port it breaks.
pub async fn transport_suite<F>(mut fresh: impl FnMut(Vec<NodeId>) -> F)
where
    F: Future<Output = (Vec<End>, String)>,
{
    let mut suite = async || {
        let (ends, nowhere) = fresh(NODES.to_vec()).await;
        Suite { ends, nowhere }
    };
    suite().await.a_frame_arrives_as_it_was_sent().await;
    suite().await.whoever_listens_at_a_seed_gets_the_frame().await;
    suite().await.whoever_else_answers_gets_nothing().await;
    suite().await.a_flood_blocks_nobody_and_ends().await;
    suite().await.what_was_sent_is_written_in_the_end().await;
    suite().await.after_the_end_nothing_comes_or_goes().await;
}

struct Suite {
    ends: Vec<End>,
    nowhere: String,
}

/// A frame of a kind that no protocol of ours has.
fn frame(text: &str) -> Frame {
    Frame { kind: 0xA5, version: 7, payload: Bytes::copy_from_slice(text.as_bytes()) }
}

fn is_frame(inbound: &Inbound, wanted: &Frame) -> bool {
    matches!(inbound, Inbound::Frame { frame, .. } if frame == wanted)
}

impl Suite {
    fn node(&self, at: usize) -> Destination {
        Destination::Node { node: NODES[at], address: self.ends[at].address.clone() }
    }

    fn send(&self, from: usize, to: Destination, lane: Lane, frame: &Frame) {
        self.ends[from].transport.send(Transmit { to, lane, frame: frame.clone() });
    }

    /// Sends a frame, again and again, until it arrives; everything that came
    /// in meanwhile, the frame last.
    async fn deliver(
        &mut self,
        from: usize,
        to: usize,
        by: &Destination,
        lane: Lane,
        frame: &Frame,
    ) -> Vec<Inbound> {
        let begin = Instant::now();
        let mut all = Vec::new();
        loop {
            assert!(
                begin.elapsed() < PATIENCE,
                "losing a frame costs time, but not one of many has arrived: {lane:?}, {by:?}"
            );
            self.send(from, by.clone(), lane, frame);
            let again = Instant::now() + AGAIN_EVERY;
            while let Ok(Some(inbound)) =
                tokio::time::timeout_at(again, self.ends[to].inbound.recv()).await
            {
                let is_it = is_frame(&inbound, frame);
                all.push(inbound);
                if is_it {
                    return all;
                }
            }
        }
    }

    /// What comes in within a while.
    async fn overhear(&mut self, at: usize) -> Vec<Inbound> {
        let end = Instant::now() + A_WHILE;
        let mut all = Vec::new();
        while let Ok(Some(inbound)) =
            tokio::time::timeout_at(end, self.ends[at].inbound.recv()).await
        {
            all.push(inbound);
        }
        all
    }

    /// That each peer introduced itself before its first frame.
    fn were_introduced(&self, all: &[Inbound]) {
        for (node, end) in NODES.iter().zip(&self.ends) {
            let first = all
                .iter()
                .position(|inbound| matches!(inbound, Inbound::Frame { from, .. } if from == node));
            let Some(first) = first else { continue };
            let met = all[..first].iter().any(|inbound| {
                matches!(
                    inbound,
                    Inbound::Connection(Connection::Established { node: met, address, .. })
                        if met == node && *address == end.address
                )
            });
            assert!(
                met,
                "for every peer a `Connection::Established`, with where it listens, precedes its \
                 first frame; {node} had none"
            );
        }
    }

    async fn a_frame_arrives_as_it_was_sent(&mut self) {
        let (mut all, mut sent) = (Vec::new(), Vec::new());
        let long = "long ".repeat(4_000);
        for (from, lane) in [ONE, THREE].into_iter().flat_map(|from| LANES.map(|it| (from, it))) {
            for text in ["", "short", &long] {
                sent.push(frame(&format!("{text} from {from} on {lane:?}")));
                let (by, frame) = (self.node(TWO), &sent[sent.len() - 1]);
                let arrived = self.deliver(from, TWO, &by, lane, frame).await;
                let Some(Inbound::Frame { from: said, lane: on, .. }) = arrived.last() else {
                    panic!("the last is the frame")
                };
                assert_eq!(*said, NODES[from], "`Inbound::Frame::from`: who sent it");
                assert_eq!(*on, lane, "`Inbound::Frame::lane`: the lane it came on");
                all.extend(arrived);
            }
        }
        self.were_introduced(&all);
        for inbound in all {
            let Inbound::Frame { frame: arrived, .. } = inbound else { continue };
            assert!(
                sent.contains(&arrived),
                "`Inbound::Frame`: a frame that nobody sent, of {} bytes",
                arrived.payload.len()
            );
        }
        let back = frame("and back");
        let by = self.node(ONE);
        self.deliver(TWO, ONE, &by, Lane::Control, &back).await;
    }

    async fn whoever_listens_at_a_seed_gets_the_frame(&mut self) {
        let seed = self.ends[TWO].address.clone();
        let sent = frame("to whom it may concern");
        let by = Destination::Seed(seed.clone());
        let arrived = self.deliver(ONE, TWO, &by, Lane::Control, &sent).await;
        self.were_introduced(&arrived);
        let is_told = |inbound: &Inbound| {
            matches!(
                inbound,
                Inbound::Connection(Connection::Established { node, seed: Some(led), .. })
                    if *node == NODES[TWO] && *led == seed
            )
        };
        let begin = Instant::now();
        while !self.overhear(ONE).await.iter().any(is_told) {
            assert!(
                begin.elapsed() < PATIENCE,
                "`Connection::Established` names the seed address that led to the peer, to who \
                 dialed it"
            );
            self.send(ONE, by.clone(), Lane::Control, &sent);
        }
    }

    async fn whoever_else_answers_gets_nothing(&mut self) {
        let secret = frame("for three only");
        let address = self.ends[TWO].address.clone();
        let stale = Destination::Node { node: NODES[THREE], address };
        let mut all = Vec::new();
        for lane in LANES {
            self.send(ONE, stale.clone(), lane, &secret);
            let by = self.node(TWO);
            let open = frame(&format!("for two, on {lane:?}"));
            all.extend(self.deliver(ONE, TWO, &by, lane, &open).await);
            self.send(ONE, stale.clone(), lane, &secret);
            all.extend(self.overhear(TWO).await);
        }
        assert!(
            !all.iter().any(|inbound| is_frame(inbound, &secret)),
            "`Destination::Node`: whoever else answers at its address must not get the frame"
        );
    }

    async fn a_flood_blocks_nobody_and_ends(&mut self) {
        let payload = Bytes::from(vec![0; FLOOD_BYTES]);
        let flood = Frame { kind: 0xA5, version: 7, payload };
        let nobody = Destination::Node { node: NodeId(4_711), address: self.nowhere.clone() };
        for lane in LANES {
            // Nobody takes anything in meanwhile: a send that waited would
            // wait for ever.
            for _ in 0..FLOOD_FRAMES {
                self.send(ONE, self.node(TWO), lane, &flood);
                self.send(ONE, nobody.clone(), lane, &flood);
            }
            let by = self.node(TWO);
            let after = frame(&format!("after the flood on {lane:?}"));
            self.deliver(ONE, TWO, &by, lane, &after).await;
        }
    }

    async fn flushed(&self, when: &str) {
        let flushed = tokio::time::timeout(PATIENCE, self.ends[ONE].transport.flushed()).await;
        assert!(
            flushed.is_ok(),
            "`Transport::flushed` completes when nothing is left to be written; it did not, {when}"
        );
    }

    async fn what_was_sent_is_written_in_the_end(&mut self) {
        self.flushed("with nothing sent").await;
        for number in 0..10 {
            self.send(ONE, self.node(TWO), Lane::Control, &frame(&format!("number {number}")));
        }
        self.flushed("with a few frames sent").await;
        let nobody = Destination::Node { node: NodeId(4_711), address: self.nowhere.clone() };
        self.send(ONE, nobody, Lane::Control, &frame("number"));
        self.flushed("with a frame sent to nobody").await;
    }

    async fn after_the_end_nothing_comes_or_goes(&mut self) {
        let (to_two, to_one) = (self.node(TWO), self.node(ONE));
        for lane in LANES {
            self.deliver(ONE, TWO, &to_two, lane, &frame("before the end")).await;
            self.deliver(TWO, ONE, &to_one, lane, &frame("before the end")).await;
        }
        self.send(ONE, to_two.clone(), Lane::Bulk, &frame("at the end"));
        self.ends[ONE].transport.close();
        // What was under way may arrive still.
        self.overhear(TWO).await;
        self.overhear(ONE).await;
        let late = frame("after the end");
        for lane in LANES {
            self.send(ONE, to_two.clone(), lane, &late);
            self.send(TWO, to_one.clone(), lane, &late);
        }
        let heard = [self.overhear(TWO).await, self.overhear(ONE).await];
        assert!(
            !heard[0].iter().any(|inbound| is_frame(inbound, &late)),
            "`Transport::close` ends all connections: nothing goes any more"
        );
        assert!(
            !heard[1].iter().any(|inbound| is_frame(inbound, &late)),
            "`Transport::close` ends all connections: nothing comes in any more"
        );
        self.flushed("after the end").await;
        self.ends[ONE].transport.close();
    }
}
