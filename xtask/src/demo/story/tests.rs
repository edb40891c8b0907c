use super::super::admin::ReplicaView;
use super::*;

fn shard(id: u64, leader: Option<u64>, nodes: &[u64]) -> ShardView {
    let replicas = nodes.iter().map(|node| ReplicaView { node: *node, voter: *node != 9 });
    ShardView { id, leader, replicas: replicas.collect(), applied: None, state_hash: None }
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
    assert_eq!(first_accepted(&[1, 2, 3], accept_two), Ok(2));
    assert_eq!(first_accepted(&[1, 3], accept_two), Err("not 3".to_owned()));
    assert!(first_accepted(&[], accept_two).is_err());
}
