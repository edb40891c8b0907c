//! Simulated nodes that stand still.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod nodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nodes::{millis, read, ticks};
use parking_lot::Mutex;
use quorate_testkit::sim::{CallError, LinkConfig, Sim, SimNetwork, SimNode, Trace, run};
use quorate_types::NodeId;
use quorate_types::runtime;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

#[test]
fn a_paused_node_does_nothing_and_the_others_go_on() {
    run(1, |sim| async move {
        let (one, other) = (SimNode::new(A, sim.seed()), SimNode::new(B, sim.seed()));
        let (stops, goes_on) = (ticks(&one), ticks(&other));
        sleep(millis(10)).await;
        one.pause();
        assert!(one.is_paused() && one.is_alive() && !other.is_paused());
        let at_pause = (read(&stops), read(&goes_on));
        assert!(at_pause.0 > 5);
        sleep(millis(50)).await;
        assert_eq!(read(&stops), at_pause.0);
        assert!(read(&goes_on) >= at_pause.1 + 40);
        one.resume();
        sleep(millis(10)).await;
        assert!(!one.is_paused());
        // Late, and without catching up.
        assert!((1..=11).contains(&(read(&stops) - at_pause.0)), "{}", read(&stops));
    })
    .unwrap();
}

#[test]
fn a_timer_expires_late_by_the_pause() {
    run(1, |sim| async move {
        let node = SimNode::new(A, sim.seed());
        let begun = Instant::now();
        let woken = node.spawn(async move {
            sleep(millis(20)).await;
            begun.elapsed()
        });
        let late = node.spawn(async move {
            sleep(millis(200)).await;
            begun.elapsed()
        });
        sleep(millis(1)).await;
        node.pause();
        sleep(millis(99)).await;
        node.resume();
        assert_eq!(woken.await.unwrap(), millis(100));
        assert_eq!(late.await.unwrap(), millis(200), "this one was not due");
    })
    .unwrap();
}

#[test]
fn what_is_spawned_into_a_paused_node_does_not_begin() {
    run(1, |sim| async move {
        let node = SimNode::new(A, sim.seed());
        node.pause();
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        let task = node.spawn(async move { flag.store(true, Ordering::Relaxed) });
        sleep(millis(10)).await;
        assert!(!ran.load(Ordering::Relaxed) && !task.is_finished());
        node.resume();
        task.await.unwrap();
        assert!(ran.load(Ordering::Relaxed));
    })
    .unwrap();
}

#[test]
fn what_others_bring_into_a_paused_node_waits() {
    run(1, |sim| async move {
        let node = SimNode::new(A, sim.seed());
        let (items, mut queue) = mpsc::unbounded_channel();
        let (bell, rings) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
        let taken: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (hears, counting, takes) = (Arc::clone(&bell), Arc::clone(&rings), Arc::clone(&taken));
        drop(node.spawn(async move {
            loop {
                hears.notified().await;
                counting.fetch_add(1, Ordering::Relaxed);
            }
        }));
        drop(node.spawn(async move {
            while let Some(item) = queue.recv().await {
                takes.lock().push(item);
            }
        }));
        sleep(millis(1)).await;
        node.pause();
        bell.notify_one();
        for item in 0..5 {
            items.send(item).unwrap();
            sleep(millis(1)).await;
        }
        assert!(taken.lock().is_empty() && read(&rings) == 0);
        node.resume();
        sleep(millis(1)).await;
        assert_eq!((taken.lock().as_slice(), read(&rings)), ([0, 1, 2, 3, 4].as_slice(), 1));
    })
    .unwrap();
}

#[test]
fn what_the_test_runs_as_the_node_stands_still_too() {
    run(1, |sim| async move {
        let node = SimNode::new(A, sim.seed());
        node.pause();
        let stands = timeout(millis(50), node.run(async { 7 })).await;
        assert!(stands.is_err());
        let (node_2, begun) = (Arc::clone(&node), Instant::now());
        drop(sim.harness().spawn(async move {
            sleep(millis(30)).await;
            node_2.resume();
        }));
        assert_eq!(node.run(async { 7 }).await, 7);
        assert_eq!(begun.elapsed(), millis(30));
    })
    .unwrap();
}

#[test]
fn tasks_go_on_in_the_order_in_which_they_wanted_to() {
    run(1, |sim| async move {
        let node = SimNode::new(A, sim.seed());
        let order: Arc<Mutex<Vec<u64>>> = Arc::default();
        for number in 0..20_u64 {
            let order = Arc::clone(&order);
            drop(node.spawn(async move {
                // The last is due first.
                sleep(millis(100 - number)).await;
                order.lock().push(number);
            }));
        }
        sleep(millis(1)).await;
        node.pause();
        sleep(millis(500)).await;
        node.resume();
        sleep(millis(1)).await;
        assert_eq!(*order.lock(), (0..20).rev().collect::<Vec<_>>());
    })
    .unwrap();
}

/// B counts what it handles; the answer is the payload.
fn answering(sim: &Sim) -> (SimNetwork, Arc<SimNode>, Arc<Mutex<Vec<Bytes>>>) {
    let network = SimNetwork::new(sim, LinkConfig::default());
    let node = SimNode::new(B, sim.seed());
    let heard: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let hears = Arc::clone(&heard);
    network.register(
        &node,
        Arc::new(move |_, payload| {
            hears.lock().push(payload.clone());
            Box::pin(async move { Ok(payload) })
        }),
    );
    (network, node, heard)
}

#[test]
fn messages_wait_at_the_door_of_a_paused_node() {
    run(1, |sim| async move {
        let (network, node, heard) = answering(&sim);
        node.pause();
        let early = network.call(A, B, Bytes::from_static(b"early"), millis(100));
        let patient = network.call(A, B, Bytes::from_static(b"patient"), millis(1000));
        (0..5_u8).for_each(|number| network.send(A, B, vec![number].into()));
        assert!(matches!(early.await, Err(CallError::Unknown { .. })));
        assert!(heard.lock().is_empty(), "its handler does not even begin");
        assert_eq!(network.counters().refused, 0);
        node.resume();
        assert_eq!(patient.await.unwrap(), "patient");
        let numbers = (0..5_u8).map(|number| vec![number].into());
        let expected: Vec<Bytes> =
            ["early", "patient"].map(Bytes::from).into_iter().chain(numbers).collect();
        assert_eq!(*heard.lock(), expected, "also the one whose caller gave up");
    })
    .unwrap();
}

#[test]
fn a_paused_node_can_crash() {
    run(1, |sim| async move {
        let (network, node, heard) = answering(&sim);
        let count = ticks(&node);
        sleep(millis(5)).await;
        node.pause();
        let at_pause = read(&count);
        let call = network.call(A, B, Bytes::from_static(b"x"), millis(1000));
        let standing = Arc::clone(&node);
        let caller =
            sim.harness().spawn(async move { standing.run(async { Instant::now() }).await });
        sleep(millis(50)).await;
        let begun = Instant::now();
        node.crash();
        assert!(!node.is_alive() && !node.is_paused());
        // Its connections are reset, and the test's own tasks are not stuck.
        assert!(matches!(call.await, Err(CallError::Unknown { .. })));
        assert_eq!(caller.await.unwrap(), begun);
        assert!(begun.elapsed() < millis(10));
        sleep(millis(50)).await;
        assert_eq!((read(&count), heard.lock().len()), (at_pause, 0));
        node.pause();
        assert!(!node.is_paused(), "the dead cannot be paused");
        let next = node.restarted();
        let count = ticks(&next);
        sleep(millis(10)).await;
        assert!(!next.is_paused() && read(&count) > 5);
    })
    .unwrap();
}

#[test]
fn a_disk_becomes_slow_and_fast_again() {
    run(1, |sim| async move {
        let syncs = |node: &Arc<SimNode>| {
            let node = Arc::clone(node);
            async move {
                let begun = Instant::now();
                node.run(async {
                    for _ in 0..20 {
                        runtime::sync_delay().await;
                    }
                })
                .await;
                begun.elapsed()
            }
        };
        let node = SimNode::new(A, sim.seed());
        assert!(syncs(&node).await < millis(150));
        node.set_sync_delay_max(millis(3000));
        assert!(syncs(&node).await > millis(10_000));
        let next = node.restarted();
        assert_eq!(next.sync_delay_max(), millis(3000), "it is the same disk");
        next.set_sync_delay_max(Duration::ZERO);
        assert!(syncs(&next).await <= millis(20));
    })
    .unwrap();
}

/// Nodes that chatter all the time while pauses begin and end.
async fn fits_and_starts(sim: Sim) {
    let network = SimNetwork::new(&sim, LinkConfig::default());
    let nodes: Vec<_> = (0..4).map(|id| SimNode::new(NodeId(id), sim.seed())).collect();
    nodes.iter().for_each(|node| nodes::chatter(&sim, &network, node, 4));
    for round in 0..20 {
        let node = &nodes[round % 4];
        node.pause();
        sleep(millis(runtime::random() % 60)).await;
        if round == 13 {
            node.crash();
        } else {
            node.resume();
        }
        sleep(millis(runtime::random() % 20)).await;
    }
}

#[test]
fn one_seed_of_pauses_is_one_trace() {
    let trace_of = |seed| -> Trace { run(seed, fits_and_starts).unwrap().trace };
    for seed in 0..5 {
        let (first, second) = (trace_of(seed), trace_of(seed));
        assert_eq!(first.difference(&second), None, "seed {seed}");
        assert!(first.count() > 500, "{first:?}");
    }
    assert_ne!(trace_of(1).hash(), trace_of(2).hash());
}
