//! Membership under crashes, stops, loss, partitions and lies, simulated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::{World, address, millis, secs};
use quorate_gossip::{Event, Status};
use quorate_types::NodeId;

/// When the last observer saw the death, counted from `since`.
fn time_until_dead(world: &mut World, node: u64) -> Duration {
    let since = world.now;
    let dead = world.run_until(secs(30), |world| world.all_see(node, Status::Dead));
    assert!(dead, "{node} is still not dead for everyone");
    world.now - since
}

#[test]
fn a_vanished_node_is_dead_for_all_within_five_seconds() {
    for count in [2, 3, 5, 7] {
        for seed in 0..30 {
            let mut world = World::formed(seed, count);
            world.vanish(count);
            let took = time_until_dead(&mut world, count);
            assert!(took > secs(2) && took < millis(4500), "{count} nodes, seed {seed}: {took:?}");
            assert!(world.deaths().iter().all(|line| is_about(&line.event, count)));
            world.assert_order();
        }
    }
}

#[test]
fn a_killed_process_is_dead_sooner_as_its_connections_break() {
    for seed in 0..30 {
        let mut world = World::formed(seed, 3);
        world.kill(3);
        let took = time_until_dead(&mut world, 3);
        assert!(took < secs(4), "seed {seed}: {took:?}");
    }
}

#[test]
fn fifty_nodes_lose_three_and_agree() {
    for seed in 0..3 {
        let mut world = World::formed(seed, 50);
        for node in [7, 23, 50] {
            world.vanish(node);
        }
        let since = world.now;
        for node in [7, 23, 50] {
            time_until_dead(&mut world, node);
        }
        assert!(world.now - since < secs(8), "seed {seed}: {:?}", world.now - since);
        assert!(world.deaths().len() <= 3 * 49);
        world.assert_order();
    }
}

#[test]
fn a_stopped_node_is_dead_until_it_contradicts() {
    for seed in 0..20 {
        let mut world = World::formed(seed, 3);
        world.stop(3);
        assert!(time_until_dead(&mut world, 3) < millis(4500));
        world.run_for(secs(10));
        world.resume(3);
        assert!(world.run_until(secs(3), World::all_alive), "seed {seed}: it did not come back");
        assert!(world.nodes[&3].core.incarnation() > 1);
        world.run_for(secs(20));
        assert!(world.all_alive());
        let blamed = world.deaths().iter().filter(|line| line.observer == 3).count();
        assert_eq!(blamed, 0, "seed {seed}: the stopped node blamed others for its own absence");
        world.assert_order();
    }
}

#[test]
fn a_short_stop_kills_nobody() {
    for seed in 0..20 {
        let mut world = World::formed(seed, 4);
        for node in [2, 3, 4] {
            world.stop(node);
            world.run_for(millis(2400));
            world.resume(node);
            world.run_for(secs(3));
        }
        assert_eq!(world.deaths(), Vec::<&common::Line>::new(), "seed {seed}");
        assert!(world.all_alive());
    }
}

#[test]
fn nobody_dies_of_five_percent_loss() {
    for (count, seeds) in [(3, 60), (5, 40), (20, 5)] {
        for seed in 0..seeds {
            let mut world = World::formed(seed, count);
            world.loss_percent = 5;
            world.delay_millis = (1, 60);
            world.run_for(secs(60));
            assert_eq!(world.deaths(), Vec::<&common::Line>::new(), "{count} nodes, seed {seed}");
            world.loss_percent = 0;
            assert!(world.run_until(secs(10), World::all_alive));
            world.assert_order();
        }
    }
}

#[test]
fn the_halves_of_a_partition_grow_together_again() {
    for (count, seeds) in [(4, 20), (12, 6), (30, 1)] {
        for seed in 0..seeds {
            let mut world = World::formed(seed, count);
            let half = move |node: u64| u8::from(node.is_multiple_of(2));
            world.split(half);
            let apart = |world: &World| {
                let mut pairs = (1..=count).flat_map(|a| (1..=count).map(move |b| (a, b)));
                pairs.all(|(a, b)| {
                    half(a) == half(b) || world.seen(a, b).unwrap().status == Status::Dead
                })
            };
            assert!(world.run_until(secs(60), apart), "{count} nodes, seed {seed}: not apart");
            world.run_for(secs(30));
            world.heal();
            assert!(
                world.run_until(secs(10), World::all_alive),
                "{count} nodes, seed {seed}: not healed"
            );
            world.run_for(secs(10));
            assert!(world.all_alive());
            world.assert_order();
        }
    }
}

#[test]
fn a_restarted_node_is_back_within_five_seconds() {
    for seed in 0..20 {
        for absence in [millis(200), secs(2), secs(20)] {
            let mut world = World::formed(seed, 3);
            world.kill(3);
            world.run_for(absence);
            world.start(3, 1000);
            let back = |world: &World| {
                world.all_alive() && world.seen(1, 3).is_some_and(|m| m.incarnation >= 1000)
            };
            assert!(world.run_until(secs(5), back), "seed {seed}, after {absence:?}");
            world.run_for(secs(10));
            assert!(world.all_alive());
        }
    }
}

#[test]
fn the_first_seed_restarted_finds_the_others_again() {
    let mut world = World::formed(1, 4);
    world.kill(1);
    world.run_for(secs(10));
    world.start(1, 2);
    assert!(world.run_until(secs(5), World::all_alive));
}

#[test]
fn a_restart_with_a_clock_set_back_outranks_its_past() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.start(1, 500);
        world.start(2, 500);
        world.start(3, 500);
        assert!(world.run_until(secs(20), World::all_alive));
        world.kill(3);
        world.run_for(secs(10));
        world.start(3, 7);
        assert!(world.run_until(secs(5), World::all_alive), "seed {seed}");
        assert!(world.nodes[&3].core.incarnation() > 500);
    }
}

#[test]
fn leaving_is_not_dying() {
    for seed in 0..20 {
        let mut world = World::formed(seed, 5);
        // A goodbye that not everyone hears at first hand.
        world.loss_percent = 20;
        world.act(5, |core, now| core.leave(now));
        world.run_for(secs(1));
        world.vanish(5);
        world.loss_percent = 0;
        let left = world.run_until(secs(10), |world| world.all_see(5, Status::Left));
        assert!(left, "seed {seed}");
        assert_eq!(world.deaths(), Vec::<&common::Line>::new(), "seed {seed}");
        world.start(5, 2);
        assert!(world.run_until(secs(5), World::all_alive), "seed {seed}: it may come again");
    }
}

#[test]
fn a_node_that_left_can_join_again_without_a_restart() {
    let mut world = World::formed(3, 3);
    world.act(3, |core, now| core.leave(now));
    assert!(world.run_until(secs(1), |world| world.all_see(3, Status::Left)));
    world.run_for(secs(5));
    world.act(3, |core, now| core.join(&[address(1)], now));
    assert!(world.run_until(secs(5), World::all_alive));
}

#[test]
fn stale_gossip_resurrects_nobody() {
    for seed in 0..10 {
        let mut world = World::formed(seed, 4);
        let old: Vec<_> = world.delivered.clone();
        world.vanish(4);
        time_until_dead(&mut world, 4);
        let mark = world.log.len();
        for (to, from, lane, frame) in old {
            world.deliver(to, from, lane, frame);
        }
        world.run_for(secs(5));
        assert!(world.all_see(4, Status::Dead), "seed {seed}");
        let resurrected = |line: &common::Line| {
            matches!(&line.event, Event::Rejoined(member) | Event::Up(member)
                if member.node == NodeId(4))
        };
        assert!(!world.log[mark..].iter().any(resurrected), "seed {seed}");
        world.assert_order();
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed: u64| {
        let mut world = World::formed(seed, 6);
        world.loss_percent = 10;
        world.write(2, 7);
        world.run_for(secs(5));
        world.kill(3);
        world.stop(4);
        world.run_for(secs(8));
        world.resume(4);
        world.start(3, 9);
        world.run_for(secs(8));
        (world.sent, world.log)
    };
    assert!(run(11) == run(11));
    assert!(run(11).0 != run(12).0);
}

#[test]
fn two_thousand_strangers_do_not_outgrow_the_table() {
    let mut world = World::formed(1, 2);
    for stranger in 100..2100 {
        world.act(1, |core, now| {
            core.handle_connection(common::introduction(stranger, 1, None), now);
        });
    }
    assert_eq!(world.nodes[&1].core.members().len(), 1025);
    assert!(world.nodes[&1].core.stats().members_refused > 0);
}

fn is_about(event: &Event, node: u64) -> bool {
    matches!(event, Event::Dead(member) if member.node == NodeId(node))
}
