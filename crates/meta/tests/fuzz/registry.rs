//! The registry under any log at all.

use std::collections::{BTreeMap, BTreeSet};

use quorate_meta::{ClusterView, MetaError, Registry, Reply, Task};
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::{GroupId, KeyRange, NodeId, ReplicaId, ShardEpoch, ShardId};

use super::story::command;
use crate::common::Host;

/// What has to hold over a whole history.
#[derive(Default)]
struct Witness {
    holders: BTreeMap<ReplicaId, (GroupId, NodeId)>,
    epochs: BTreeMap<ShardId, (ShardEpoch, KeyRange)>,
    version: u64,
}

impl Witness {
    fn see(&mut self, view: &ClusterView) {
        assert!(view.version() >= self.version, "the map never goes back");
        self.version = view.version();
        self.see_replicas(view);
        self.see_shards(view);
        let running: Vec<GroupId> = view.running_operators().map(|it| it.group).collect();
        let groups: BTreeSet<GroupId> = running.iter().copied().collect();
        assert_eq!(running.len(), groups.len(), "one operator per group");
    }

    fn see_replicas(&mut self, view: &ClusterView) {
        let mut seen = Vec::new();
        for (group, record) in view.groups() {
            seen.extend(record.replicas.iter().map(|it| (it.id, group, it.node)));
            seen.extend(record.retired.iter().map(|it| (it.id, group, it.node)));
        }
        for operator in view.running_operators() {
            if let Task::Split(split) = &operator.task {
                let children = split.child_replicas.iter();
                seen.extend(children.map(|it| (it.id, split.child_group, it.node)));
            }
        }
        for (id, group, node) in seen {
            let holder = *self.holders.entry(id).or_insert((group, node));
            assert_eq!(holder, (group, node), "{id} was given out twice");
        }
    }

    fn see_shards(&mut self, view: &ClusterView) {
        if view.cluster().is_some() {
            let ranges = view.shards_in_key_order().map(|(_, shard)| &shard.range);
            assert!(KeyRange::partition(ranges), "every key has one shard");
        }
        for (id, shard) in view.shards() {
            let now = (shard.epoch, shard.range.clone());
            let before = self.epochs.insert(id, now.clone());
            if let Some(before) = before.filter(|before| *before != now) {
                assert!(before.0 < now.0, "a range changes with a higher epoch");
                assert!(before.1.covers(&now.1), "a range only shrinks");
            }
        }
    }
}

#[test]
fn any_log_leaves_replicas_alike_and_every_promise_kept() {
    fuzz!(Corpus::random(1_200), |input| {
        let mut choices = Choices::new(input);
        let mut host = if choices.below(8) > 0 { Host::bootstrapped() } else { Host::default() };
        let mut other = host.reloaded();
        let mut witness = Witness::default();
        while !choices.is_spent() {
            host.index += 1 + choices.below(2) as u64;
            let Ok(entry) = command(&mut choices, &host.registry).encode() else { continue };
            let mut entry = entry.to_vec();
            if choices.below(16) == 0 {
                let at = choices.below(entry.len());
                entry[at] = choices.byte();
            }
            let again = other.apply(host.index, &entry);
            let Ok(again) = again else {
                let halted = host.registry.clone().apply(host.index, &entry);
                assert!(matches!(halted, Err(MetaError::Command { .. })), "both halt");
                return;
            };
            let before = host.registry.view().clone();
            let reply = host.deliver(&entry);
            assert_eq!(again.reply, reply);
            assert_eq!(other, host.registry);
            assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply);
            let view = host.registry.view();
            witness.see(view);
            if matches!(reply, Reply::Refused(_) | Reply::Conflict { .. }) {
                assert_eq!(before.version(), view.version(), "a refusal changes nothing");
            }
            match choices.below(8) {
                0 => other = host.reloaded(),
                1 => other = Registry::decode(&host.registry.encode()).unwrap(),
                2 => {
                    let redelivered = other.apply(host.index, &entry).unwrap();
                    assert_eq!(
                        (redelivered.reply, redelivered.mutations.len()),
                        (Reply::Redelivered, 0)
                    );
                }
                _ => {}
            }
            assert_eq!(other, host.registry);
        }
        let rows: BTreeMap<_, _> = host.registry.rows().collect();
        if host.index > 0 {
            assert_eq!(rows, host.rows, "what was written is what is there");
        }
    });
}
