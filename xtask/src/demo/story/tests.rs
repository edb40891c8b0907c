use super::super::admin::ReplicaView;
use super::*;

fn shard(id: u64, leader: Option<u64>, nodes: &[u64]) -> ShardView {
    let replicas = nodes.iter().map(|node| ReplicaView { node: *node, voter: *node != 9 });
    ShardView {
        id,
        range: String::new(),
        leader,
        replicas: replicas.collect(),
        applied: None,
        state_hash: None,
    }
}

#[test]
fn a_leader_is_transferred_to_another_voter() {
    let shards = [
        shard(1, Some(1), &[1, 2]),
        shard(2, Some(2), &[2, 9]),
        shard(3, None, &[1, 2]),
        shard(4, Some(2), &[1, 2]),
    ];
    assert_eq!(transfers(&shards, &[]), [(1, 2), (4, 1)]);
    assert_eq!(transfers(&shards, &[1]), [(4, 1)]);
}

#[test]
fn the_first_accepted_candidate_is_taken() {
    let accept_two = |n: &u64| if *n == 2 { Ok(()) } else { Err(format!("not {n}").into()) };
    assert_eq!(first_accepted(&[1, 2, 3], accept_two), Ok((2, ())));
    assert_eq!(first_accepted(&[1, 3], accept_two), Err("not 3".to_owned()));
    assert!(first_accepted(&[], accept_two).is_err());
}

/// A cluster without nodes, and a demo of it.
fn demo(is_kept: bool) -> (tempfile::TempDir, Demo) {
    let folder = tempfile::tempdir().unwrap();
    let server = folder.path().join("debug").join("quorate");
    let interrupt = Interrupt::default();
    let cluster = Cluster::create(&server, is_kept, &interrupt).unwrap();
    let (progress, report) = (Arc::new(Progress::new()), Report::default());
    (folder, Demo { cluster, progress, interrupt, looked: None, report })
}

#[test]
fn a_demo_that_takes_too_long_is_off() {
    let (_folder, mut demo) = demo(false);
    let args = Args { keep: false, seconds: SECONDS, connections: 2 };
    demo.judge_duration(&args);
    assert!(demo.report.problems.is_empty());
    demo.progress = Arc::new(Progress::begun(Instant::now() - DURATION_MAX));
    demo.judge_duration(&args);
    assert!(demo.report.problems.iter().any(|it| it.ends_with("more than 90 s")));
    demo.report.problems.clear();
    demo.judge_duration(&Args { seconds: SECONDS + 10, ..args });
    assert!(demo.report.problems.is_empty());
}

#[test]
fn an_interrupted_demo_ends_without_waiting_and_leaves_nothing() {
    let (_folder, mut demo) = demo(false);
    demo.interrupt.set();
    assert_eq!(demo.disturb().unwrap_err().to_string(), "interrupted");
    assert!(demo.report.problems.is_empty());
    let dir = demo.cluster.dir().to_path_buf();
    assert!(give_up(demo.cluster, false).is_err());
    assert!(!dir.exists());
}

#[test]
fn what_an_interrupted_demo_is_to_keep_stays() {
    let (_folder, demo) = demo(true);
    let dir = demo.cluster.dir().to_path_buf();
    let said = give_up(demo.cluster, true).unwrap_err().to_string();
    assert!(said.contains(&dir.display().to_string()), "{said}");
    assert!(dir.exists());
}
