//! Simulated nodes, clocks and runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod nodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nodes::{millis, read, ticks};
use quorate_testkit::TestkitError;
use quorate_testkit::disk::CrashDisk;
use quorate_testkit::sim::{
    Coverage, DRIFT_PPM_MAX, Keep, LinkConfig, Sim, SimClock, SimNetwork, SimNode, SimOptions,
    SiteCounts, Trace, run, run_with,
};
use quorate_types::NodeId;
use quorate_types::disk::Disk;
use quorate_types::env::Clock;
use quorate_types::fault::Canary;
use quorate_types::runtime::{self, Runtime};
use tokio::time::sleep;

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
    let start = |node: &Arc<SimNode>| nodes::chatter(&sim, &network, node, 3);
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
        let (one, other) =
            (SimNode::new(NodeId(1), sim.seed()), SimNode::new(NodeId(2), sim.seed()));
        let (dies, lives) = (ticks(&one), ticks(&other));
        sleep(millis(10)).await;
        one.crash();
        let at_crash = (read(&dies), read(&lives));
        sleep(millis(10)).await;
        assert_eq!(read(&dies), at_crash.0);
        assert!(read(&lives) > at_crash.1);
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

#[test]
fn a_clock_drifts_and_keeps_what_it_gained() {
    run(1, |sim| async move {
        let (right, fast) = (SimClock::new(sim.begun(), 0), SimClock::new(sim.begun(), 0));
        let gained = || fast.wall_millis().cast_signed() - right.wall_millis().cast_signed();
        fast.set_drift_ppm(1000);
        assert_eq!((gained(), fast.drift_ppm()), (0, 1000), "a change of drift is no jump");
        sleep(Duration::from_secs(10)).await;
        assert_eq!((gained(), fast.offset_millis()), (10, 10));
        fast.set_drift_ppm(-500);
        assert_eq!(gained(), 10);
        sleep(Duration::from_secs(40)).await;
        assert_eq!(gained(), -10);
        fast.jump(500);
        fast.set_drift_ppm(0);
        sleep(Duration::from_secs(10)).await;
        assert_eq!((gained(), fast.offset_millis()), (490, 490));
        assert_eq!(fast.monotonic(), Duration::from_secs(60), "monotonic time stays right");
    })
    .unwrap();
}

#[test]
fn a_drifting_clock_never_runs_back_and_outlives_its_process() {
    run(1, |sim| async move {
        let clock = SimClock::new(sim.begun(), 0);
        clock.set_drift_ppm(i32::MIN);
        assert_eq!(clock.drift_ppm(), -DRIFT_PPM_MAX);
        let mut last = clock.wall_millis();
        for _ in 0..100 {
            sleep(millis(7)).await;
            let now = clock.wall_millis();
            assert!(now > last);
            last = now;
        }
        let next = clock.restarted();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(next.wall_millis(), clock.wall_millis());
        assert_eq!(next.wall_millis() - last, 1000);
    })
    .unwrap();
}

/// A trace of so many lines, with what is kept of them.
fn kept_of(keep: Keep, lines: u64) -> Trace {
    let recording = run(1, |sim| async move {
        sim.trace().set_keep(keep);
        (0..lines).for_each(|line| sim.trace().record(format_args!("line {line}")));
    });
    recording.unwrap().trace
}

#[test]
fn a_trace_keeps_what_it_is_told_and_hashes_all() {
    let said = |trace: &Trace| -> Vec<String> {
        trace.lines().iter().map(|line| line.trim_start().replace("0 line ", "")).collect()
    };
    let all = kept_of(Keep::First(100), 50);
    for (keep, expected) in [
        (Keep::First(3), vec!["0", "1", "2"]),
        (Keep::Last(3), vec!["47", "48", "49"]),
        (Keep::Nothing, vec![]),
        (Keep::First(0), vec![]),
        (Keep::Last(0), vec![]),
    ] {
        let trace = kept_of(keep, 50);
        assert_eq!(said(&trace), expected, "{keep:?}");
        assert_eq!((trace.hash(), trace.count()), (all.hash(), 50), "{keep:?}");
        assert_eq!(trace.difference(&kept_of(keep, 50)), None);
    }
}

#[test]
fn what_a_trace_keeps_can_change() {
    run(1, |sim| async move {
        let (trace, mut next) = (sim.trace().clone(), 0);
        let mut kept_after = |keep, more: u64| -> Vec<u64> {
            trace.set_keep(keep);
            (next..next + more).for_each(|line| trace.record(line));
            next += more;
            let number = |line: &String| line.split_whitespace().last().unwrap().parse().unwrap();
            trace.lines().iter().map(number).collect()
        };
        assert_eq!(kept_after(Keep::First(10), 5), [0, 1, 2, 3, 4]);
        assert_eq!(kept_after(Keep::Last(3), 0), [2, 3, 4]);
        assert_eq!(kept_after(Keep::Last(3), 2), [4, 5, 6]);
        assert_eq!(kept_after(Keep::Last(5), 1), [4, 5, 6, 7]);
        assert_eq!(kept_after(Keep::First(2), 3), [4, 5], "full");
        assert_eq!(kept_after(Keep::First(9), 1), [4, 5], "there would be a gap");
        assert_eq!(kept_after(Keep::Last(2), 1), [12], "there would be a gap");
        assert!(kept_after(Keep::Nothing, 4).is_empty());
        assert_eq!(kept_after(Keep::First(2), 3), [17, 18]);
    })
    .unwrap();
}

#[test]
fn rings_of_two_runs_are_compared_where_both_have_lines() {
    let (short, long) = (kept_of(Keep::Last(5), 20), kept_of(Keep::Last(5), 22));
    let (at, ours, theirs) = short.difference(&long).unwrap();
    assert_eq!((at, ours.as_str()), (20, "(no line)"));
    assert!(theirs.ends_with("line 20"));
    let unseen = kept_of(Keep::Nothing, 20).difference(&kept_of(Keep::Nothing, 22));
    assert_eq!(unseen.unwrap().1, "(not among what is kept)");
}

#[test]
fn an_excerpt_is_what_was_said_of_some_nodes_last() {
    run(1, |sim| async move {
        let trace = sim.trace();
        for line in ["n1 wakes", "n11 wakes", "m1 n1 -> n2 lost", "n3 sleeps", "cut (n2)", "n1n2"] {
            trace.record(line);
        }
        let excerpt = |ids: &[u64], lines_max| -> Vec<String> {
            let nodes: Vec<NodeId> = ids.iter().copied().map(NodeId).collect();
            let lines = trace.excerpt(&nodes, lines_max);
            lines.iter().map(|line| line.trim_start_matches([' ', '0']).to_owned()).collect()
        };
        assert_eq!(excerpt(&[1], 9), ["n1 wakes", "m1 n1 -> n2 lost"]);
        assert_eq!(excerpt(&[2, 3], 9), ["m1 n1 -> n2 lost", "n3 sleeps", "cut (n2)"]);
        assert_eq!(excerpt(&[2, 3], 2), ["n3 sleeps", "cut (n2)"]);
        assert!(excerpt(&[], 9).is_empty() && excerpt(&[4], 9).is_empty());
    })
    .unwrap();
}

#[test]
fn coverage_is_counted_added_up_and_missed() {
    let (one, other) = (Coverage::default(), Coverage::default());
    one.reach("a snapshot is sent");
    one.clone().reach("a snapshot is sent");
    one.fired("a small batch");
    other.reach("a vote is split");
    other.fired("a small batch");
    one.merge(&other.counts());
    let counts = |reached, fired| SiteCounts { reached, fired };
    let expected = [
        ("a small batch".to_owned(), counts(0, 2)),
        ("a snapshot is sent".to_owned(), counts(2, 0)),
        ("a vote is split".to_owned(), counts(1, 0)),
    ];
    assert_eq!(one.counts(), expected.into());
    let wanted = ["a vote is split", "a small batch", "never heard of"];
    assert_eq!(one.never_reached(&wanted), ["a small batch", "never heard of"]);
}

/// Names for places in the code.
const SITES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// How often each of [`SITES`] fires for a node in 4000 passes.
fn fires(node: &Arc<SimNode>) -> Vec<usize> {
    SITES.map(|site| (0..4000).filter(|_| node.buggify(site)).count()).into()
}

#[test]
fn a_run_enables_some_rare_branches_and_they_fire_now_and_then() {
    let mut enabled = 0;
    for seed in 0..100 {
        let node = |id| SimNode::new(NodeId(id), 1).with_rare_branches(seed);
        let (one, other) = (fires(&node(1)), fires(&node(2)));
        assert_eq!(one, fires(&node(1)), "seed {seed}");
        for (ours, theirs) in one.iter().zip(&other) {
            assert_eq!(*ours == 0, *theirs == 0, "nodes of a run enable the same");
            assert!(*ours == 0 || (400..600).contains(ours), "{ours} of 4000");
            enabled += usize::from(*ours > 0);
        }
    }
    assert!((150..250).contains(&enabled), "{enabled} of 800");
    assert_eq!(fires(&SimNode::new(NodeId(1), 1)), [0; 8], "none unless asked for");
}

#[test]
fn rare_branches_change_nothing_else_that_a_node_draws() {
    run(1, |sim| async move {
        let calm = SimNode::new(NodeId(1), sim.seed());
        let wild = SimNode::new(NodeId(1), sim.seed()).with_rare_branches(3);
        assert!(fires(&wild).iter().any(|count| *count > 0));
        let draw = || async { (runtime::random(), runtime::random()) };
        assert_eq!(calm.run(draw()).await, wild.run(draw()).await);
    })
    .unwrap();
}

#[test]
fn hooks_outlive_the_node_that_they_were_given_to() {
    let coverage = Coverage::default();
    let first = SimNode::new(NodeId(1), 1)
        .with_coverage(coverage.clone())
        .with_rare_branches(3)
        .with_canary(Canary::ReplicaIdReused);
    let second = first.restarted();
    let fired: usize = fires(&second).iter().sum();
    second.reached("a second life");
    let counts = coverage.counts();
    assert_eq!(counts["a second life"], SiteCounts { reached: 1, fired: 0 });
    assert_eq!(counts["a"].reached, 4000, "passed is reached, enabled or not");
    assert_eq!(counts.values().map(|counts| counts.fired).sum::<u64>(), fired as u64);
    assert!(fired > 0);
    assert_eq!(second.canary(), Some(Canary::ReplicaIdReused));
    let plain = SimNode::new(NodeId(2), 1);
    assert!(plain.coverage().is_none() && plain.canary().is_none());
}
