use super::super::admin::ReplicaView;
use super::super::fake::{FakeGateway, Faults};
use super::*;

fn gateway() -> FakeGateway {
    let gateway = FakeGateway::start(Faults { refuse_every: 3, ..Faults::default() });
    for number in 0..3 {
        gateway.tamper(&account(number), "10");
    }
    gateway
}

#[test]
fn the_total_is_the_sum_of_all_accounts() {
    let gateway = gateway();
    assert_eq!(total(gateway.address, 3).unwrap(), 30);
    gateway.tamper(&account(1), "-4");
    assert_eq!(total(gateway.address, 3).unwrap(), 16);
}

#[test]
fn an_account_that_is_gone_is_named() {
    let error = total(gateway().address, 4).unwrap_err().to_string();
    assert!(error.contains("account:3"), "{error}");
}

#[test]
fn a_lost_or_changed_write_is_found() {
    let gateway = FakeGateway::start(Faults::default());
    gateway.tamper("seq:1:0", "seq:1:0");
    gateway.tamper("seq:1:1", "something else");
    assert_eq!(missing(gateway.address, &["seq:1:0"]).unwrap(), None);
    let found = missing(gateway.address, &["seq:1:0", "seq:1:1", "seq:1:2"]).unwrap();
    assert!(matches!(found, Some((2, first)) if first.starts_with("seq:1:1 ")));
}

/// A shard on two nodes as one of them sees it.
fn shard(applied: u64, hash: &str) -> Vec<ShardView> {
    let replica = |node| ReplicaView { node, voter: true };
    vec![ShardView {
        id: 1,
        range: String::new(),
        leader: Some(1),
        replicas: vec![replica(1), replica(2)],
        applied: Some(applied),
        state_hash: Some(hash.to_owned()),
    }]
}

fn judge(rounds: Vec<Vec<(u64, Vec<ShardView>)>>) -> Outcome<Result<Agreed, String>> {
    let mut hashes = Hashes::default();
    let mut verdict = Err("no round".to_owned());
    for views in rounds {
        for (node, shards) in &views {
            hashes.note(*node, shards)?;
        }
        verdict = hashes.judge(&views);
    }
    Ok(verdict)
}

#[test]
fn equal_hashes_at_one_index_agree() {
    let verdict = judge(vec![vec![(1, shard(5, "aa")), (2, shard(5, "aa"))]]);
    assert_eq!(verdict.unwrap(), Ok(Agreed { shards: 1, replicas: 2 }));
}

#[test]
fn different_hashes_at_one_index_are_an_error_at_once() {
    let verdict = judge(vec![vec![(1, shard(5, "aa")), (2, shard(5, "ab"))]]);
    assert!(verdict.unwrap_err().to_string().contains("shard 1 differs at index 5"));
}

#[test]
fn a_replica_that_lags_is_waited_for() {
    let first = vec![(1, shard(6, "bb")), (2, shard(5, "aa"))];
    assert!(judge(vec![first]).unwrap().is_err());
}

#[test]
fn replicas_may_pass_an_index_at_different_times() {
    let first = vec![(1, shard(6, "bb")), (2, shard(5, "aa"))];
    let second = vec![(1, shard(7, "cc")), (2, shard(6, "bb"))];
    assert_eq!(judge(vec![first, second]).unwrap(), Ok(Agreed { shards: 1, replicas: 2 }));
}

#[test]
fn a_replica_that_shows_nothing_does_not_agree() {
    let mut silent = shard(5, "aa");
    silent[0].state_hash = None;
    assert!(judge(vec![vec![(1, shard(5, "aa")), (2, silent)]]).unwrap().is_err());
}

#[test]
fn nodes_that_know_different_replicas_do_not_agree() {
    let mut other = shard(5, "aa");
    other[0].replicas.pop();
    assert!(judge(vec![vec![(1, shard(5, "aa")), (2, other)]]).unwrap().is_err());
    assert!(judge(vec![vec![(1, Vec::new()), (2, Vec::new())]]).unwrap().is_err());
}

#[test]
fn placement_rests_when_every_migration_is_over() {
    let migration = |finished| MigrationView {
        id: String::new(),
        kind: "move".to_owned(),
        group: "shard 3".to_owned(),
        from: None,
        to: Some(4),
        phase: "CatchUp".to_owned(),
        finished,
        error: None,
        write_pause_micros: None,
    };
    assert_eq!(at_rest(&[migration(true)]), Ok(()));
    let verdict = at_rest(&[migration(true), migration(false)]);
    assert_eq!(verdict, Err("move of shard 3: CatchUp".to_owned()));
}
