//! Simulated nodes, clocks and runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_testkit::TestkitError;
use quorate_testkit::disk::CrashDisk;
use quorate_testkit::sim::{
    LinkConfig, Sim, SimClock, SimNetwork, SimNode, SimOptions, Trace, run, run_with,
};
use quorate_types::NodeId;
use quorate_types::disk::Disk;
use quorate_types::env::Clock;
use quorate_types::runtime;
use tokio::time::sleep;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Three nodes that chatter over a bad network while one of them crashes and
/// comes back.
async fn chatter(sim: Sim) {
    let bad = LinkConfig {
        loss_per_mille: 100,
        duplicate_per_mille: 100,
        is_ordered: false,
        ..LinkConfig::default()
    };
    let network = SimNetwork::new(&sim, bad);
    let start = |node: &Arc<SimNode>| {
        let (trace, id) = (sim.trace().clone(), node.id());
        let heard = trace.clone();
        network.register(
            node,
            Arc::new(move |from, payload| {
                heard.record(format_args!("{id} heard {payload:?} from {from}"));
                Box::pin(async move {
                    runtime::sync_delay().await;
                    Ok(payload)
                })
            }),
        );
        let network = network.clone();
        drop(node.spawn(async move {
            loop {
                sleep(Duration::from_micros(runtime::random() % 5000)).await;
                let to = NodeId(runtime::random() % 3);
                let payload = runtime::random().to_string().into();
                if runtime::random().is_multiple_of(2) {
                    network.send(id, to, payload);
                    continue;
                }
                let call = network.call(id, to, payload, millis(10));
                let trace = trace.clone();
                drop(runtime::spawn(async move {
                    trace.record(format_args!("{id}: {:?}", call.await));
                }));
            }
        }));
    };
    let nodes: Vec<_> = (0..3).map(|id| SimNode::new(NodeId(id), sim.seed())).collect();
    nodes.iter().for_each(start);
    sleep(millis(200)).await;
    network.isolate(NodeId(0));
    sleep(millis(100)).await;
    nodes[1].crash();
    network.heal();
    sleep(millis(100)).await;
    start(&nodes[1].restarted());
    sleep(millis(200)).await;
}

fn trace_of(seed: u64) -> Trace {
    run(seed, chatter).unwrap().trace
}

#[test]
fn one_seed_is_one_trace() {
    for seed in 0..10 {
        let (first, second) = (trace_of(seed), trace_of(seed));
        assert_eq!(first.difference(&second), None, "seed {seed}");
        assert_eq!(first.hash(), second.hash());
        assert!(first.count() > 500, "{first:?}");
    }
}

#[test]
fn one_seed_is_one_trace_on_every_thread() {
    let elsewhere = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| trace_of(7).hash())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(elsewhere, [trace_of(7).hash(); 3]);
}

#[test]
fn another_seed_is_another_trace() {
    let (one, other) = (trace_of(1), trace_of(2));
    assert_ne!(one.hash(), other.hash());
    let (line, ours, theirs) = one.difference(&other).unwrap();
    assert_eq!((&one.lines()[line], &other.lines()[line]), (&ours, &theirs));
}

#[test]
fn an_hour_passes_in_no_time() {
    let finished = run(1, |sim| async move {
        sleep(Duration::from_secs(1800)).await;
        sim.elapsed()
    });
    assert_eq!(finished.unwrap().value, Duration::from_secs(1800));
}

#[test]
fn a_panic_of_any_task_fails_the_run() {
    let end = run(42, |_| async {
        drop(runtime::spawn(async { panic!("hidden in a join handle") }));
        sleep(millis(1)).await;
    });
    let error = end.unwrap_err();
    assert!(matches!(&error, TestkitError::Panicked { seed: 42, panics } if panics.len() == 1));
    assert!(error.to_string().contains("hidden in a join handle"), "{error}");
}

#[test]
fn a_panic_of_the_test_itself_is_its_error() {
    let error = run(43, |_| async { assert_eq!(1, 2, "not so") }).unwrap_err();
    assert!(error.to_string().contains("seed 43"), "{error}");
    assert!(error.to_string().contains("not so"), "{error}");
}

#[test]
fn a_contained_panic_may_be_tolerated() {
    let end = run(1, |sim| async move {
        sim.tolerate_panics("on purpose");
        assert!(runtime::spawn(async { panic!("on purpose") }).await.is_err());
    });
    assert!(end.is_ok());
}

#[test]
fn waiting_for_what_never_comes_ends() {
    let options = SimOptions { seed: 1, duration_max: Duration::from_secs(60) };
    let end = run_with(options, |_| std::future::pending::<()>());
    assert!(matches!(end, Err(TestkitError::OutOfTime { seed: 1, .. })));
}

#[test]
fn chance_in_a_run_follows_from_the_seed() {
    let draw = |seed| run(seed, |_| async { runtime::random() }).unwrap().value;
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
}

#[test]
fn a_crash_takes_all_tasks_of_the_node_and_no_others() {
    run(1, |sim| async move {
        let ticks = |node: &Arc<SimNode>| {
            let count = Arc::new(AtomicU64::new(0));
            let counting = Arc::clone(&count);
            drop(node.spawn(async move {
                // A task of a task dies too.
                drop(runtime::spawn(async move {
                    loop {
                        sleep(millis(1)).await;
                        counting.fetch_add(1, Ordering::Relaxed);
                    }
                }));
            }));
            count
        };
        let (one, other) =
            (SimNode::new(NodeId(1), sim.seed()), SimNode::new(NodeId(2), sim.seed()));
        let (dies, lives) = (ticks(&one), ticks(&other));
        sleep(millis(10)).await;
        one.crash();
        let at_crash = (dies.load(Ordering::Relaxed), lives.load(Ordering::Relaxed));
        sleep(millis(10)).await;
        assert_eq!(dies.load(Ordering::Relaxed), at_crash.0);
        assert!(lives.load(Ordering::Relaxed) > at_crash.1);
        assert!(!one.is_alive() && other.is_alive());
    })
    .unwrap();
}

#[test]
fn what_a_dead_node_still_spawns_never_runs() {
    run(1, |sim| async move {
        let node = SimNode::new(NodeId(1), sim.seed());
        let ran = Arc::new(AtomicBool::new(false));
        let (inner, flag) = (Arc::clone(&node), Arc::clone(&ran));
        let last_words = node.spawn(async move {
            inner.crash();
            drop(runtime::spawn(async move { flag.store(true, Ordering::Relaxed) }));
        });
        // It runs to its next await, and there is none.
        drop(last_words.await);
        sleep(millis(10)).await;
        assert!(!ran.load(Ordering::Relaxed));
    })
    .unwrap();
}

#[test]
fn a_crash_cuts_the_disk_before_it_drops_the_tasks() {
    struct SyncsWhenDropped(Arc<dyn quorate_types::disk::DiskFile>, Arc<AtomicBool>);
    impl Drop for SyncsWhenDropped {
        fn drop(&mut self) {
            self.1.store(self.0.sync().is_err(), Ordering::Relaxed);
        }
    }
    run(1, |sim| async move {
        let node = SimNode::new(NodeId(1), sim.seed());
        let disk = CrashDisk::new(sim.seed());
        node.attach(&disk);
        let refused = Arc::new(AtomicBool::new(false));
        let store = SyncsWhenDropped(disk.open("f").unwrap(), Arc::clone(&refused));
        drop(node.spawn(async move {
            let _store = store;
            std::future::pending::<()>().await;
        }));
        sleep(millis(1)).await;
        node.crash();
        sleep(millis(1)).await;
        assert!(refused.load(Ordering::Relaxed));
        assert_eq!(disk.counters().crashes, 1);
    })
    .unwrap();
}

#[test]
fn each_life_has_chance_of_its_own() {
    run(1, |sim| async move {
        let first = SimNode::new(NodeId(1), sim.seed());
        let drawn = first.run(async { runtime::random() }).await;
        let second = first.restarted();
        assert!(!first.is_alive());
        assert_eq!((second.id(), second.life()), (NodeId(1), 2));
        assert_ne!(second.run(async { runtime::random() }).await, drawn);
    })
    .unwrap();
}

#[test]
fn clocks_are_skewed_and_jump() {
    run(1, |sim| async move {
        let right = SimClock::new(sim.begun(), 0);
        let ahead = SimClock::new(sim.begun(), 500);
        sleep(millis(100)).await;
        assert_eq!(ahead.wall_millis() - right.wall_millis(), 500);
        ahead.jump(-700);
        assert_eq!(right.wall_millis() - ahead.wall_millis(), 200);
        assert_eq!(ahead.monotonic(), millis(100));
        let restarted = ahead.restarted();
        sleep(millis(10)).await;
        assert_eq!(restarted.monotonic(), millis(10));
        assert_eq!(restarted.wall_millis(), ahead.wall_millis());
    })
    .unwrap();
}
