//! Bootstrap, joining, draining, versions and settings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;
use quorate_meta::limits::{NODES_MAX, SETTINGS_MAX};
use quorate_meta::{
    Bootstrap, BootstrapFlaw, Command, Label, Limited, METADATA_GROUP, NodeState, Refusal, Reply,
    Role, SEQUENCER_GROUP, SettingValue, TARGET_REPLICAS, metadata_replicas, shard_group,
};
use quorate_types::{ClusterId, NodeId, ReplicaId, Seq, ShardId};

fn flaw_of(change: impl FnOnce(&mut Bootstrap)) -> BootstrapFlaw {
    let mut plan = bootstrap(3, &["m"]);
    change(&mut plan);
    match Host::default().refused(Command::Bootstrap(plan)) {
        Refusal::Bootstrap { flaw } => flaw,
        refusal => panic!("expected a flaw, got {refusal:?}"),
    }
}

fn set(name: &str, value: Option<SettingValue>) -> Command {
    Command::Set { name: name.into(), value }
}

#[test]
fn nothing_happens_before_the_bootstrap() {
    let mut host = Host::default();
    assert_eq!(host.refused(Command::Join(node(1))), Refusal::NotBootstrapped);
    assert_eq!(host.reloaded(), host.registry);
}

#[test]
fn metadata_replica_ids_follow_the_order_of_the_nodes() {
    let mut host = Host::default();
    let plan = Bootstrap {
        metadata_voters: [3, 1, 2].into_iter().map(NodeId).collect(),
        ..bootstrap(3, &[])
    };
    let rule = metadata_replicas(plan.metadata_voters.iter().copied());
    host.propose(Command::Bootstrap(plan));
    let view = host.registry.view();
    let voters: Vec<_> =
        view.group(METADATA_GROUP).unwrap().voters().map(|v| (v.id, v.node)).collect();
    assert_eq!(voters, rule);
    assert_eq!(
        rule,
        [(ReplicaId(1), NodeId(1)), (ReplicaId(2), NodeId(2)), (ReplicaId(3), NodeId(3))]
    );
}

#[test]
fn bootstrap_spreads_replicas_and_first_leaders() {
    let mut host = Host::default();
    let plan = Bootstrap { replicas_per_shard: 2, ..bootstrap(4, &["b", "c", "d"]) };
    host.propose(Command::Bootstrap(plan));
    let view = host.registry.view();
    for id in 1..=4 {
        let shards = view.replicas_on(NodeId(id)).filter(|(g, _)| g.0 > SEQUENCER_GROUP.0).count();
        assert_eq!(shards, 2);
    }
    let mut first: Vec<NodeId> = (1..=4)
        .filter_map(|s| view.group(shard_group(ShardId(s)))?.voters().next())
        .map(|voter| voter.node)
        .collect();
    first.sort();
    assert_eq!(first, [1, 2, 3, 4].map(NodeId));
}

#[test]
fn bootstrap_puts_the_replicas_of_a_shard_in_different_zones() {
    let zones = ["a", "a", "b", "b", "c", "c"];
    let nodes = (1..).zip(zones).map(|(id, zone)| in_zone(id, zone)).collect();
    let mut host = Host::default();
    host.propose(Command::Bootstrap(Bootstrap { nodes, ..bootstrap(6, &["b", "c", "d", "e"]) }));
    let view = host.registry.view();
    for (_, shard) in view.shards() {
        let group = view.group(shard.group).unwrap();
        let mut zones: Vec<_> =
            group.voters().map(|v| view.node(v.node).unwrap().label("zone").unwrap()).collect();
        zones.sort_unstable();
        assert_eq!(zones, ["a", "b", "c"]);
    }
}

#[test]
fn a_repeated_bootstrap_finds_the_cluster_and_another_is_refused() {
    let mut host = Host::bootstrapped();
    let before = host.registry.view().version();
    let again = host.propose(Command::Bootstrap(bootstrap(3, &["m"])));
    assert_eq!(again, Reply::Bootstrapped { cluster: ClusterId(77) });
    assert_eq!(host.registry.view().version(), before);

    let other = Bootstrap { cluster: ClusterId(78), ..bootstrap(3, &["m"]) };
    let refusal = host.refused(Command::Bootstrap(other));
    assert_eq!(refusal, Refusal::AlreadyBootstrapped { cluster: ClusterId(77) });
}

#[test]
fn a_bootstrap_that_describes_no_cluster_is_refused() {
    assert_eq!(flaw_of(|plan| plan.nodes = Seq::new()), BootstrapFlaw::VoterUnknown);
    assert_eq!(flaw_of(|plan| plan.nodes[1].node = NodeId(1)), BootstrapFlaw::NodeTwice);
    assert_eq!(flaw_of(|plan| plan.nodes[1].disk = disk(1)), BootstrapFlaw::DiskTwice);
    assert_eq!(flaw_of(|plan| plan.metadata_voters = Seq::new()), BootstrapFlaw::Voters);
    assert_eq!(flaw_of(|plan| plan.sequencer_voters.push(NodeId(1))), BootstrapFlaw::Voters);
    assert_eq!(flaw_of(|plan| plan.metadata_voters.push(NodeId(9))), BootstrapFlaw::VoterUnknown);
    assert_eq!(flaw_of(|plan| plan.replicas_per_shard = 4), BootstrapFlaw::Replicas);
    assert_eq!(flaw_of(|plan| plan.replicas_per_shard = 0), BootstrapFlaw::Replicas);
    assert_eq!(flaw_of(|plan| plan.split_keys.push("m".into())), BootstrapFlaw::SplitKeys);
    assert_eq!(flaw_of(|plan| plan.split_keys[0] = "".into()), BootstrapFlaw::SplitKeys);
    assert_eq!(flaw_of(|plan| plan.nodes[2].supports = 0), BootstrapFlaw::Version);
}

#[test]
fn a_returning_node_updates_its_address_and_keeps_its_state() {
    let mut host = Host::bootstrapped();
    host.propose(set_state(2, NodeState::Draining));
    let version = host.registry.view().version();
    let mut moved = node(2);
    moved.address = "elsewhere:7000".into();
    assert_eq!(host.propose(Command::Join(moved.clone())), Reply::Done { version: version + 1 });
    assert_eq!(host.propose(Command::Join(moved)), Reply::Done { version: version + 1 });
    let record = host.registry.view().node(NodeId(2)).unwrap();
    assert_eq!((record.address.as_str(), record.state), ("elsewhere:7000", NodeState::Draining));
    assert_eq!(record.joined_at, 1);
}

#[test]
fn a_wiped_disk_cannot_return_under_its_old_id() {
    let mut host = Host::bootstrapped();
    let mut wiped = node(2);
    wiped.disk = disk(99);
    let refusal = host.refused(Command::Join(wiped));
    assert_eq!(refusal, Refusal::OtherDisk { node: NodeId(2), disk: disk(2) });
    assert!(refusal.to_string().contains("this disk is not the one that joined"));
}

#[test]
fn a_known_disk_cannot_join_under_another_id() {
    let mut host = Host::bootstrapped();
    let mut renamed = node(9);
    renamed.disk = disk(2);
    assert_eq!(host.refused(Command::Join(renamed)), Refusal::DiskKnown { node: NodeId(2) });
}

#[test]
fn a_removed_node_never_returns_and_neither_does_its_disk() {
    let mut host = Host::with_spare();
    host.propose(set_state(4, NodeState::Removed));
    let removed = Refusal::NodeRemoved { node: NodeId(4) };
    assert_eq!(host.refused(Command::Join(node(4))), removed);
    assert_eq!(host.refused(set_state(4, NodeState::Active)), removed);
    let mut renamed = node(5);
    renamed.disk = disk(4);
    assert_eq!(host.refused(Command::Join(renamed)), Refusal::DiskKnown { node: NodeId(4) });
    assert_eq!(host.registry.view().members().count(), 3);
    assert_eq!(host.reloaded(), host.registry);
}

#[test]
fn a_node_that_holds_replicas_cannot_be_removed() {
    let mut host = Host::bootstrapped();
    let refusal = host.refused(set_state(1, NodeState::Removed));
    assert_eq!(refusal, Refusal::NodeHoldsReplicas { node: NodeId(1), replicas: 4 });
    let unknown = host.refused(set_state(8, NodeState::Draining));
    assert_eq!(unknown, Refusal::NodeUnknown { node: NodeId(8) });
}

#[test]
fn a_node_with_unfit_words_is_refused() {
    let mut host = Host::bootstrapped();
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let mut silent = node(4);
    silent.address.clear();
    assert_eq!(host.refused(Command::Join(silent)), Refusal::AddressInvalid);
    let unfit = [
        vec![label("zone", "a"), label("zone", "b")],
        vec![label("zone", "")],
        vec![label("zone", "a\nb")],
        vec![label(&"z".repeat(65), "a")],
        (0..17).map(|n| label(&format!("l{n}"), "a")).collect(),
    ];
    for labels in unfit {
        let mut spec = node(4);
        spec.labels = labels.into();
        assert_eq!(host.refused(Command::Join(spec)), Refusal::LabelsInvalid);
    }
}

#[test]
fn the_cluster_has_room_for_so_many_nodes() {
    let mut host = Host::bootstrapped();
    for id in 4..=NODES_MAX as u64 {
        assert!(matches!(host.propose(Command::Join(node(id))), Reply::Done { .. }));
    }
    let full = Refusal::Limit { what: Limited::Nodes, max: NODES_MAX as u64 };
    assert_eq!(host.refused(Command::Join(node(5_000))), full);
    host.propose(set_state(1_000, NodeState::Removed));
    assert!(matches!(host.propose(Command::Join(node(5_000))), Reply::Done { .. }));
}

#[test]
fn the_cluster_version_waits_for_every_member_and_never_goes_back() {
    let mut host = Host::with_spare();
    let to = |version| Command::SetClusterVersion { version };
    for id in 1..=3 {
        let mut upgraded = node(id);
        upgraded.supports = 3;
        host.propose(Command::Join(upgraded));
    }
    let behind = Refusal::NodesBehind { version: 2, nodes: vec![NodeId(4)].into() };
    assert_eq!(host.refused(to(2)), behind);
    host.propose(set_state(4, NodeState::Removed));
    assert!(matches!(host.propose(to(2)), Reply::Done { .. }));
    assert_eq!(host.registry.view().cluster_version(), 2);
    assert_eq!(host.refused(to(1)), Refusal::VersionBackward { current: 2 });
    let old = host.refused(Command::Join(node(5)));
    assert_eq!(old, Refusal::NodeBehind { supports: 1, cluster: 2 });
    assert_eq!(host.reloaded(), host.registry);
}

#[test]
fn settings_are_set_removed_and_bounded() {
    let mut host = Host::bootstrapped();
    assert_eq!(host.registry.view().target_replicas(), 3);
    host.propose(set(TARGET_REPLICAS, Some(SettingValue::Number(5))));
    assert_eq!(host.registry.view().target_replicas(), 5);

    let unfit = [
        set(TARGET_REPLICAS, Some(SettingValue::Number(0))),
        set(TARGET_REPLICAS, Some(SettingValue::Text("three".into()))),
        set(TARGET_REPLICAS, None),
        set("", Some(SettingValue::Number(1))),
        set("motd", Some(SettingValue::Text("x".repeat(1_025)))),
    ];
    for command in unfit {
        assert_eq!(host.refused(command), Refusal::SettingInvalid);
    }

    for n in 1..SETTINGS_MAX {
        host.propose(set(&format!("s{n}"), Some(SettingValue::Number(1))));
    }
    let full = Refusal::Limit { what: Limited::Settings, max: SETTINGS_MAX as u64 };
    assert_eq!(host.refused(set("one more", Some(SettingValue::Number(1)))), full);
    host.propose(set("s1", None));
    assert!(matches!(host.propose(set("one more", None)), Reply::Done { .. }));
    assert!(matches!(
        host.propose(set("one more", Some(SettingValue::Number(1)))),
        Reply::Done { .. }
    ));
    assert_eq!(host.reloaded(), host.registry);
}

#[test]
fn a_draining_node_keeps_its_replicas_until_they_move() {
    let mut host = Host::bootstrapped();
    host.propose(set_state(1, NodeState::Draining));
    let view = host.registry.view();
    assert_eq!(view.replicas_on(NodeId(1)).count(), 4);
    assert!(view.replicas_on(NodeId(1)).all(|(_, replica)| replica.role == Role::Voter));
}
