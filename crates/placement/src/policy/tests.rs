use super::*;

#[test]
fn the_default_policy_is_valid() {
    assert!(Policy::default().validate().is_ok());
}

#[test]
fn hysteresis_without_a_gap_is_refused() {
    let policy = Policy { leave_imbalance_percent: 10, ..Policy::default() };
    assert!(matches!(policy.validate(), Err(PlacementError::InvalidPolicy(_))));
}

#[test]
fn a_merged_shard_may_not_qualify_for_a_split() {
    let mut policy = Policy::default();
    policy.merge.bytes_max = policy.split.bytes_max;
    assert!(policy.validate().is_err());
}

#[test]
fn cost_never_overflows() {
    let cost = CostModel { ops_per_point: 1, bytes_per_point: 1 };
    let shard = ShardView {
        id: 1.into(),
        range: quorate_types::KeyRange::all(),
        epoch: 1.into(),
        members: crate::view::Members::default(),
        bytes: u64::MAX,
        rows: 1,
        load_ops: u64::MAX,
        split_key: None,
    };
    let millis = cost.replica_millis(&shard);
    assert!(millis.checked_mul(1 << 20).is_some(), "a million such shards still add up");
}
