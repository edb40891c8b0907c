//! The replicated state converges, and costs nothing when it has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs)]

mod common;

use common::{World, millis, secs};
use quorate_gossip::{Event, Lane};
use quorate_types::NodeId;
use quorate_types::frame::Frame;

#[test]
fn a_write_is_everywhere_within_a_second() {
    for count in [2, 3, 10, 50] {
        let mut world = World::formed(5, count);
        world.write(1, 1);
        world.run_for(secs(3));
        world.write(2, 42);
        assert!(world.run_until(secs(1), World::converged), "{count} nodes");
    }
}

#[test]
fn concurrent_writes_under_loss_converge() {
    for seed in 0..10 {
        let mut world = World::formed(seed, 10);
        world.loss_percent = 10;
        for value in 0..100 {
            world.write(1 + value % 10, value);
            world.run_for(millis(20));
        }
        assert!(world.run_until(secs(30), World::converged), "seed {seed}");
        assert_eq!(world.nodes[&1].core.state().len(), 100);
    }
}

#[test]
fn what_the_sides_of_a_partition_wrote_is_joined() {
    for seed in 0..5 {
        let mut world = World::formed(seed, 6);
        world.split(|node| u8::from(node > 3));
        world.write(1, 10);
        world.write(6, 60);
        world.run_for(secs(15));
        assert!(!world.converged());
        world.heal();
        assert!(world.run_until(secs(15), World::converged), "seed {seed}");
    }
}

#[test]
fn a_state_of_many_deltas_reaches_a_newcomer_whole() {
    let mut world = World::formed(2, 3);
    world.act(1, |core, now| {
        for value in 0..40_000 {
            core.state_mut().write(value);
        }
        core.state_changed(now);
    });
    assert!(world.run_until(secs(10), World::converged));
    world.start(4, 1);
    assert!(world.run_until(secs(10), |world| world.converged() && world.all_alive()));
    assert_eq!(world.nodes[&4].core.state().len(), 40_000);
}

#[test]
fn a_restarted_node_without_its_state_gets_it_again() {
    let mut world = World::formed(2, 3);
    world.write(3, 1);
    world.write(1, 2);
    world.run_for(secs(2));
    world.kill(3);
    world.run_for(millis(300));
    world.start(3, 50);
    assert!(world.run_until(secs(10), |world| world.converged() && world.all_alive()));
}

#[test]
fn an_idle_cluster_says_nothing_beyond_probes() {
    for count in [3, 10] {
        let mut world = World::formed(4, count);
        world.write(1, 1);
        world.run_for(secs(10));
        assert!(world.converged());
        let (frames, bytes) = (world.sent.len(), world.sent_bytes);
        world.run_for(secs(60));
        let said = &world.sent[frames..];
        assert!(said.iter().all(|line| !line.contains("Bulk")), "state traffic while idle");
        // Each probe is a ping and an ack, three probes a tick, two ticks a
        // second, and jitter may squeeze in one tick more in ten.
        let per_node_second = said.len() as u64 / count / 60;
        assert!(per_node_second <= 2 * 3 * 2 + 2, "{count}: {per_node_second} frames");
        assert!((world.sent_bytes - bytes) / count / 60 < 800, "bytes per node and second");
    }
}

#[test]
fn tombstones_wait_for_the_dead_but_not_for_those_who_left() {
    let mut world = World::formed(6, 4);
    world.vanish(4);
    world.act(3, |core, now| core.leave(now));
    world.run_for(secs(8));
    assert_eq!(world.nodes[&1].core.state().waits_for, [NodeId(2), NodeId(4)]);
}

#[test]
fn peers_vectors_are_acknowledged() {
    let mut world = World::formed(6, 2);
    world.write(1, 5);
    world.run_for(secs(3));
    let state = world.nodes[&1].core.state();
    assert!(!state.acknowledged[&NodeId(2)].is_empty());
}

#[test]
fn a_delta_the_state_does_not_take_is_reported_and_harmless() {
    let mut world = World::formed(6, 2);
    // A delta of three bytes in its MessagePack envelope.
    let frame = Frame::new(9, vec![0x91, 0xc4, 3, 1, 2, 3].into());
    world.deliver(1, 2, Lane::Bulk, frame);
    let refused = |line: &common::Line| matches!(line.event, Event::DeltaRefused { .. });
    assert!(world.log.iter().any(refused));
    world.run_for(secs(5));
    assert!(world.converged() && world.all_alive());
}
