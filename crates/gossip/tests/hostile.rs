//! Frames from a member that is broken or bought. The mirror types below
//! also hold the wire format still: a change of it fails here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs)]

mod common;

use bytes::Bytes;
use common::{World, secs};
use quorate_gossip::{Connection, Event, Lane};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::frame::Frame;
use quorate_types::{Blob, NodeId, Seq, codec};
use zerompk::{FromMessagePack, ToMessagePack};

const PING: u8 = 1;
const PING_REQUEST: u8 = 3;
const RELAY: u8 = 4;
const RUMOURS: u8 = 5;
/// The member in whose name all lies are told.
const LIAR: u64 = 2;

#[derive(Clone, ToMessagePack, FromMessagePack)]
struct Record {
    node: NodeId,
    address: Blob,
    incarnation: u64,
    status: u8,
    accuser: NodeId,
}

#[derive(ToMessagePack, FromMessagePack)]
struct Rumours {
    records: Seq<Record>,
}

#[derive(ToMessagePack, FromMessagePack)]
struct PingRequest {
    seq: u64,
    target: NodeId,
}

#[derive(PartialEq, Debug, ToMessagePack, FromMessagePack)]
struct Relay {
    seq: u64,
    reached: bool,
}

fn claim(node: u64, incarnation: u64, status: u8, accuser: u64) -> Frame {
    let address = Blob::from(common::address(node).as_str());
    let record =
        Record { node: NodeId(node), address, incarnation, status, accuser: NodeId(accuser) };
    Frame::new(RUMOURS, codec::encode(&Rumours { records: Seq(vec![record]) }))
}

/// Made-up members may die, and the liar; healthy ones must not.
fn assert_no_healthy_death(world: &World) {
    let gone = world.log.iter().find(|line| {
        matches!(&line.event, Event::Dead(member) | Event::Left(member)
            if world.nodes.contains_key(&member.node.0) && member.node != NodeId(LIAR))
    });
    assert!(gone.is_none(), "{gone:?}");
    world.assert_order();
}

#[test]
fn a_liar_among_four_kills_no_healthy_member() {
    for seed in 0..10 {
        let mut world = World::formed(seed, 4);
        let mut rng = SplitMix::new(seed);
        for _ in 0..300 {
            let incarnation = match rng.below(6) {
                0 => world.nodes[&3].core.incarnation(),
                1 => world.nodes[&3].core.incarnation() + rng.below(3),
                2 => 1 << rng.below(64),
                3 => u64::MAX - rng.below(2),
                4 => (1 << 47) + rng.below(3),
                _ => (1 << 48) + rng.below(3),
            };
            let to = [1, 3, 4][rng.below(3) as usize];
            let status = rng.below(4) as u8;
            world.deliver(to, 2, Lane::Control, claim(3, incarnation, status, 1 + rng.below(9)));
            world.run_for(common::millis(rng.below(200)));
        }
        world.run_for(secs(5));
        assert_no_healthy_death(&world);
        assert!(world.all_alive(), "seed {seed}");
        // The victim was not driven where nobody would follow it.
        assert!(world.nodes[&3].core.incarnation() <= (1 << 47) + 10_000);
    }
}

#[test]
fn the_highest_believable_incarnation_does_not_freeze_its_owner() {
    let mut world = World::formed(1, 3);
    for to in [1, 3] {
        world.deliver(to, 2, Lane::Control, claim(3, 1 << 47, 0, 3));
    }
    world.run_for(secs(5));
    world.deliver(1, 2, Lane::Control, claim(3, 1 << 47, 2, 2));
    world.run_for(secs(10));
    assert_no_healthy_death(&world);
    world.vanish(3);
    let dead = |world: &World| world.all_see(3, quorate_gossip::Status::Dead);
    assert!(world.run_until(secs(6), dead), "and its death is still seen");
}

#[test]
fn a_flood_of_ping_requests_takes_nobody_elses_slots() {
    let mut world = World::formed(1, 5);
    world.vanish(5);
    let request = |seq, target| {
        let payload = codec::encode(&PingRequest { seq, target: NodeId(target) });
        Frame::new(PING_REQUEST, payload)
    };
    for seq in 0..2_000 {
        world.deliver(1, LIAR, Lane::Control, request(seq, 5));
    }
    let before = world.delivered.len();
    world.deliver(1, 3, Lane::Control, request(7_000, 4));
    world.run_for(common::millis(100));
    let answer = world.delivered[before..].iter().find_map(|(to, from, _, frame)| {
        let is_answer = (*to, *from, frame.kind) == (3, 1, RELAY);
        is_answer.then(|| codec::decode::<Relay>(&frame.payload).unwrap())
    });
    assert_eq!(answer, Some(Relay { seq: 7_000, reached: true }));
}

/// All peers of node 1 ask it to probe node 20, which is gone, as often as they
/// can; what it has said after a second.
fn said_in_a_flood(is_flooded: bool) -> Vec<(u64, u8)> {
    const PEERS: std::ops::RangeInclusive<u64> = 2..=19;
    let mut world = World::formed(1, 20);
    world.vanish(20);
    let payload = |seq| codec::encode(&PingRequest { seq, target: NodeId(20) });
    let before = world.delivered.len();
    for round in 0..20 {
        let asked = if is_flooded { 0..40 } else { 0..0 };
        for (nth, peer) in asked.flat_map(|nth| PEERS.map(move |peer| (nth, peer))) {
            let request = Frame::new(PING_REQUEST, payload(round * 40 + nth));
            world.deliver(1, peer, Lane::Control, request);
        }
        world.run_for(common::millis(50));
    }
    let said = world.delivered[before..].iter().filter(|(_, from, _, _)| *from == 1);
    said.map(|(to, _, _, frame)| (*to, frame.kind)).collect()
}

#[test]
fn peers_that_ask_for_probes_leave_a_node_its_own() {
    let own_pings = |is_flooded| {
        let said = said_in_a_flood(is_flooded);
        said.iter().filter(|(to, kind)| *kind == PING && *to != 20).count()
    };
    let (quiet, flooded) = (own_pings(false), own_pings(true));
    assert!(quiet > 0 && flooded * 2 >= quiet, "{flooded} pings instead of {quiet}");
}

#[test]
fn who_asks_for_more_than_its_part_is_not_told_that_it_was_tried() {
    let nacks = said_in_a_flood(true).iter().filter(|(_, kind)| *kind == RELAY).count();
    // At most all slots, each as often as a probe ends within a second.
    assert!((1..=448 * 4).contains(&nacks), "{nacks} nacks");
}

#[test]
fn a_lie_about_an_address_cuts_nobody_off() {
    let mut world = World::formed(1, 4);
    for status in 0..3 {
        for to in [1, 2, 4] {
            let record = Record {
                node: NodeId(3),
                address: "nowhere:1".into(),
                incarnation: world.nodes[&3].core.incarnation() + 1,
                status,
                accuser: NodeId(2),
            };
            let rumours = codec::encode(&Rumours { records: Seq(vec![record]) });
            world.deliver(
                to,
                if to == 2 { 1 } else { 2 },
                Lane::Control,
                Frame::new(RUMOURS, rumours),
            );
        }
        world.run_for(secs(10));
    }
    assert_no_healthy_death(&world);
    assert!(world.all_alive());
}

#[test]
fn a_stranger_first_heard_of_at_a_wrong_address_corrects_it() {
    let mut world = World::formed(1, 3);
    let record = Record {
        node: NodeId(4),
        address: "nowhere:1".into(),
        incarnation: 1 << 40,
        status: 0,
        accuser: NodeId(2),
    };
    let rumours = codec::encode(&Rumours { records: Seq(vec![record]) });
    world.deliver(1, 2, Lane::Control, Frame::new(RUMOURS, rumours));
    world.run_for(common::millis(300));
    world.start(4, 1);
    assert!(world.run_until(secs(10), World::all_alive));
}

#[test]
fn an_impostor_with_the_victims_name_is_contradicted() {
    for seed in 0..10 {
        let mut world = World::formed(seed, 4);
        // First-hand lies: a handshake and a goodbye in the name of node 3.
        world.act(1, |core, now| {
            core.handle_connection(common::introduction(3, 4_000, None), now);
            core.handle_frame(NodeId(3), Lane::Control, &claim(3, 4_000, 3, 3), now);
        });
        assert!(world.run_until(secs(5), World::all_alive), "seed {seed}");
        world.run_for(secs(5));
        assert!(world.all_alive(), "seed {seed}");
    }
}

#[test]
fn random_frames_neither_panic_nor_harm() {
    for seed in 0..20 {
        let mut world = World::formed(seed, 3);
        let genuine: Vec<Frame> =
            world.delivered.iter().rev().take(200).map(|(_, _, _, frame)| frame.clone()).collect();
        let mut rng = SplitMix::new(seed ^ 0xBAD);
        for _ in 0..2000 {
            let mut frame = if rng.below(2) == 0 {
                let bytes: Vec<u8> = (0..rng.below(120)).map(|_| rng.next_u64() as u8).collect();
                Frame::new(rng.below(12) as u8, Bytes::from(bytes))
            } else {
                genuine[rng.below(genuine.len() as u64) as usize].clone()
            };
            let mut bytes = frame.payload.to_vec();
            for _ in 0..rng.below(4) {
                let len = bytes.len() as u64;
                if let Some(byte) = bytes.get_mut(rng.below(len) as usize) {
                    *byte = rng.next_u64() as u8;
                }
            }
            frame.payload = Bytes::from(bytes);
            let lane = if rng.below(2) == 0 { Lane::Control } else { Lane::Bulk };
            world.deliver(1, 2, lane, frame.clone());
            world.deliver(3, 2, lane, frame);
        }
        world.run_for(secs(10));
        assert_no_healthy_death(&world);
        let healthy = |world: &World| {
            let see = |a: u64, b: u64| world.seen(a, b).is_some_and(|seen| seen.status.is_active());
            (1..=3).all(|a| (1..=3).all(|b| see(a, b)))
        };
        assert!(healthy(&world), "seed {seed}");
        assert!(world.nodes[&1].core.stats().frames_refused > 0);
    }
}

#[test]
fn frames_of_those_who_never_introduced_themselves_count_nothing() {
    let mut world = World::formed(1, 2);
    let before = world.nodes[&1].core.members();
    world.act(1, |core, now| {
        core.handle_frame(NodeId(77), Lane::Control, &claim(78, 1, 0, 78), now);
        core.handle_frame(NodeId(1), Lane::Control, &claim(78, 1, 0, 78), now);
        core.handle_connection(Connection::Closed(NodeId(77)), now);
        core.handle_connection(Connection::Unreachable(NodeId(77)), now);
    });
    assert_eq!(world.nodes[&1].core.members(), before);
    assert_eq!(world.nodes[&1].core.stats().frames_refused, 2);
}
